"""Work that is done before a user asks for it, while no user waits for an answer."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from sam_detect.errors import SamDetectError
from sam_detect.server.annotation import AnnotationSession
from sam_detect.server.survey import Survey, Surveyed

REST_SECONDS = 0.6
"""Work begins when nothing was asked for so long: clicks come in bursts."""
POLL_SECONDS = 0.2
AHEAD = 2
"""So many of the next pictures are opened ahead."""


class WorkAhead:
    """Opens the next pictures, proposes again in the shown one when the library has changed, and
    surveys the others, on a thread of its own, a picture at a time.

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
        try:
            yield
        finally:
            with self._changed:
                self._asked -= 1
                self._last = time.monotonic()

    def _run(self) -> None:
        while not self._stopped.wait(POLL_SECONDS):
            with self._changed:
                rested = not self._asked and time.monotonic() - self._last > REST_SECONDS
            if rested:
                self._work()

    def _work(self) -> None:
        """Does the one thing that is most urgent."""
        shown, pictures = self._shown, self._session.pictures
        generation = self._session.detector.library.generation
        if shown is not None and pictures.is_open_before(shown, generation):
            self._try(shown, self._renew)
            return
        following = self._following(shown) if shown is not None else []
        for picture in following[:AHEAD]:
            if picture not in self._failed and not pictures.is_open(picture):
                self._try(picture, self._open)
                return
        for picture in following:
            if picture not in self._failed and self._survey.get(picture) is None:
                self._try(picture, self._look)
                return

    def _try(self, picture: int, work: Callable[[int], None]) -> None:
        try:
            work(picture)
            self._failed.pop(picture, None)
        except (SamDetectError, OSError, MemoryError) as error:
            self._failed[picture] = str(error)

    def _renew(self, picture: int) -> None:
        self._session.pictures.refresh(picture)
        self.survey(picture)

    def _open(self, picture: int) -> None:
        self._session.opened(picture)
        self.survey(picture)

    def survey(self, picture: int) -> None:
        """Surveys a picture that is open; raises ``SamDetectError`` where it cannot be read."""
        opened = self._session.opened(picture)
        found, _ = self._session.detections(opened)
        self._survey.put(picture, Surveyed.of(opened, found))

    def _look(self, picture: int) -> None:
        """Surveys a picture without keeping it open."""
        opened = self._session.pictures.read(picture)
        self._session.know(opened, picture)
        found, _ = self._session.detections(opened)
        self._survey.put(picture, Surveyed.of(opened, found))
