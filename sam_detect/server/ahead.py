"""Work that is done before a user asks for it, while no user waits for an answer."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from sam_detect.errors import SamDetectError
from sam_detect.pipeline.scheduling import give_way
from sam_detect.server.annotation import AnnotationSession
from sam_detect.server.survey import Survey, Surveyed

REST_SECONDS, LONG_REST_SECONDS = 0.1, 1.5
"""Seconds without a request after which objects are named, and after which longer work begins:
clicks come in bursts, and would share the cores with it."""
POLL_SECONDS = 0.05
AHEAD = 2
"""How many of the next pictures are opened ahead."""


Work = tuple[int, Callable[[int], None]]
"""A picture, and what is to be done with it."""


class WorkAhead:
    """Names the objects of the next pictures when the library has changed, opens the next pictures,
    proposes again in the shown one and the next ones with what was learnt, and surveys the others.
    It works a picture at a time, on two threads that give way to those who wait: names do not wait
    for what takes seconds.

    Args:
        session: whose pictures these are.
        survey: gets what is found.
        following: the pictures after one, in the order of the queue.
    """

    def __init__(
        self, session: AnnotationSession, survey: Survey, following: Callable[[int], list[int]]
    ) -> None:
        self._session, self._survey, self._following = session, survey, following
        self._shown: int | None = None
        self._asked = 0
        self._last = time.monotonic()
        self._failed: dict[int, str] = {}
        self._ready: set[int] = set()
        self._changed = threading.Condition()  # docs/architecture.md, "Which lock before which"
        self._stopped = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=each, daemon=True, name="ahead")
            for each in ((REST_SECONDS, self._to_name), (LONG_REST_SECONDS, self._to_propose))
        ]

    def start(self) -> None:
        for each in self._threads:
            each.start()

    def stop(self) -> None:
        """Ends after the picture in work; does not wait for it."""
        self._stopped.set()

    def join(self, timeout_s: float) -> None:
        """Waits for the picture in work, up to ``timeout_s`` for each thread. Python ends a process
        badly (``abort``) while one of its threads is in native code."""
        for each in self._threads:
            each.join(timeout_s)

    @property
    def problems(self) -> dict[int, str]:
        """Why pictures could not be opened, by their numbers."""
        return dict(self._failed)

    @contextmanager
    def waiting(self, picture: int | None = None) -> Iterator[None]:
        """While a user waits for an answer; no work begins meanwhile.

        Args:
            picture: that is now shown.
        """
        with self._changed:
            self._asked += 1
            if picture is not None:
                self._shown = picture
                self._failed.pop(picture, None)
        try:
            yield
        finally:
            with self._changed:
                self._asked -= 1
                self._last = time.monotonic()

    def _run(self, rest_s: float, urgent: Callable[[int], Iterator[Work]]) -> None:
        """Does the most urgent work, whenever nothing was asked for ``rest_s`` seconds."""
        give_way()
        import scipy.optimize  # noqa: F401  the first names need it, and would wait .2 s

        while not self._stopped.wait(POLL_SECONDS):
            shown = self._shown
            if shown is not None and self._rested() > rest_s:
                # A library that is gone or busy is said when a user asks for something next.
                with suppress(SamDetectError, OSError):
                    work = next(urgent(shown), None)
                    if work is not None and not self._stopped.is_set():
                        self._try(*work)

    def _rested(self) -> float:
        """Seconds since something was asked for; 0 while a request waits for an answer."""
        with self._changed:
            return 0.0 if self._asked else time.monotonic() - self._last

    def _to_name(self, shown: int) -> Iterator[Work]:
        """The next pictures that are open, and not named by the library as it is now."""
        session = self._session
        soon = [each for each in self._following(shown) if each not in self._failed][:AHEAD]
        opened = (each for each in soon if session.pictures.is_open(each))
        yield from ((each, self._name) for each in opened if not session.is_named(each))

    def _to_propose(self, shown: int) -> Iterator[Work]:
        """What takes seconds, and in which picture; the most urgent first."""
        session, pictures, failed = self._session, self._session.pictures, self._failed
        following = [each for each in self._following(shown) if each not in failed]
        soon = following[:AHEAD]
        opened = [each for each in soon if pictures.is_open(each)]
        learnt, surveyed = session.detector.library.generation, self._survey.all()
        yield from ((each, self._name) for each in soon[:1] if each not in opened)
        if shown not in failed and shown not in self._ready and pictures.is_open(shown):
            yield shown, self._name
        if shown not in failed and pictures.is_open_before(shown, learnt):
            yield shown, self._renew
        yield from ((each, self._name) for each in soon if each not in opened)
        yield from ((each, self._renew) for each in opened if pictures.is_open_before(each, learnt))
        yield from ((each, self.survey) for each in following if each not in surveyed)
        # The order and the groups follow what was learnt.
        outdated = (each for each in following if surveyed[each].generation != learnt)
        yield from ((each, self.survey) for each in outdated)

    def _try(self, picture: int, work: Callable[[int], None]) -> None:
        try:
            work(picture)
            self._failed.pop(picture, None)
        except (SamDetectError, OSError, MemoryError) as error:
            self._failed[picture] = str(error)
        except Exception:
            if not self._stopped.is_set():  # then the journal may be closed already
                raise

    def _renew(self, picture: int) -> None:
        """Proposes again with what was learnt; shown when all is named."""
        pictures = self._session.pictures
        made = pictures.proposed_again(picture)
        self._session.shown(made)
        pictures.put(picture, made)
        self._name(picture)

    def _name(self, picture: int) -> None:
        """Opens a picture where it is not, names its objects, surveys it, and has it ready for a
        first example."""
        opened = self._session.opened(picture)
        self._session.shown(opened)  # with the outlines that the page draws
        self._session.detector.pipeline.prepare_learning(opened.candidates.frame)
        self._ready.add(picture)
        found, _ = self._session.detections(opened)
        self._survey.put(picture, Surveyed.of(opened, found))

    def survey(self, picture: int) -> None:
        """Surveys a picture; one that is not open does not stay open."""
        pictures = self._session.pictures
        opened = pictures.refresh(picture) if pictures.is_open(picture) else pictures.read(picture)
        self._session.know(opened, picture)
        found, _ = self._session.detections(opened)
        self._survey.put(picture, Surveyed.of(opened, found))
