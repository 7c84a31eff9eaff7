"""Work that is done before a user asks for it, while no user waits for an answer."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from sam_detect.errors import SamDetectError
from sam_detect.scheduling import give_way
from sam_detect.server.annotation import AnnotationSession
from sam_detect.server.survey import Survey, Surveyed

REST_SECONDS = 0.3
"""Work begins when nothing was asked for so long: clicks come in bursts..."""
LONG_REST_SECONDS = 1.5
"""... and work that takes seconds, which a click would share the cores with, begins later."""
POLL_SECONDS = 0.1
AHEAD = 2
"""So many of the next pictures are opened ahead."""


class WorkAhead:
    """Names the objects of the next pictures when the library has changed, opens the next pictures,
    proposes again in the shown one and the next ones with what was learnt, and surveys the others.
    It works a picture at a time, on a thread of its own that gives way to those who wait.

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
        self._changed = threading.Condition()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name="ahead")

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Ends after the picture in work; does not wait for it."""
        self._stopped.set()

    def join(self) -> None:
        """Waits until the work has ended."""
        self._thread.join()

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

    def _run(self) -> None:
        give_way()
        while not self._stopped.wait(POLL_SECONDS):
            rested = self._rested()
            if rested > REST_SECONDS:
                # A library that is gone or busy is said to whoever asks for something next.
                with suppress(SamDetectError, OSError):
                    work = next(self._urgent(rested), None)
                    if work is not None and not self._stopped.is_set():
                        self._try(*work)

    def _rested(self) -> float:
        """Seconds since something was asked for; 0 while somebody waits."""
        with self._changed:
            return 0.0 if self._asked else time.monotonic() - self._last

    def _urgent(self, rested_s: float) -> Iterator[tuple[int, Callable[[int], None]]]:
        """What may begin now, and in which picture; the most urgent first."""
        shown, session = self._shown, self._session
        if shown is None:
            return
        pictures, failed = session.pictures, self._failed
        following = [each for each in self._following(shown) if each not in failed]
        soon = following[:AHEAD]
        opened = [each for each in soon if pictures.is_open(each)]
        yield from ((each, self._name) for each in opened if not session.is_named(each))
        if rested_s < LONG_REST_SECONDS:
            return
        learnt, surveyed = session.detector.library.generation, self._survey.all()
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
        """Proposes again with what was learnt."""
        self._session.pictures.refresh(picture)
        self._name(picture)

    def _name(self, picture: int) -> None:
        """Opens a picture where it is not, names its objects, and surveys it."""
        opened = self._session.opened(picture)
        self._session.shown(opened)  # with the outlines that the page draws
        found, _ = self._session.detections(opened)
        self._survey.put(picture, Surveyed.of(opened, found))

    def survey(self, picture: int) -> None:
        """Surveys a picture; one that is not open does not stay open."""
        pictures = self._session.pictures
        opened = pictures.refresh(picture) if pictures.is_open(picture) else pictures.read(picture)
        self._session.know(opened, picture)
        found, _ = self._session.detections(opened)
        self._survey.put(picture, Surveyed.of(opened, found))
