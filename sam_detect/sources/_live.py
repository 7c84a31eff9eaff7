"""What all live sources share: they break off, and are opened anew."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator

from sam_detect.errors import ImageError
from sam_detect.interfaces import Source
from sam_detect.sources._persistence import BrokenError, Persistence, StoppedError, quietly
from sam_detect.sources._timing import Clock
from sam_detect.types import Frame, ImageRGB


class Session(ABC):
    """A live source from its opening until it breaks off.

    Attributes:
        step_s: about how long a picture lasts.
        damaged: parts so far that could not be decoded.
    """

    step_s: float = 0.04
    damaged: int = 0

    @abstractmethod
    def pictures(self) -> Iterator[tuple[ImageRGB, float | None]]:
        """Pictures and their times in seconds, until it ends.

        Raises:
            BrokenError, ImageError: it broke off; it may come back.
        """

    @abstractmethod
    def close(self) -> None:
        """Lets go of it, whatever state it is in."""


class LiveSource(Source):
    """Frames that come by themselves. Breaks are got over: indices and times go on rising.

    Args:
        name: becomes the frames' ``source_id``.
        persistence: how often to try to get it back.
        session: opened already.
    """

    live = True

    def __init__(self, name: str, persistence: Persistence, session: Session) -> None:
        self.name = name
        self._persistence = persistence
        self._session: Session | None = session
        self._damaged = 0

    @abstractmethod
    def _open(self) -> Session:
        """Opens it again; raises ``BrokenError`` or ``ImageError`` where that fails."""

    def frames(self) -> Iterator[Frame]:
        """The frames, as they come, until the source ends or is stopped.

        Raises:
            ImageError: it broke off and did not come back.
        """
        clock, count = Clock(from_zero=True), 0
        try:
            while True:
                try:
                    for image, said_s, step_s in self._pictures():
                        yield Frame(image, self.name, count, time_s=clock.next_s(said_s, step_s))
                        count += 1
                    break
                except (BrokenError, ImageError) as error:
                    reason = str(error).removeprefix(f"'{self.name}' ")
                self._persistence.lost(reason)
                clock.begin_anew()
        except StoppedError:
            return
        if not count:
            raise ImageError(f"'{self.name}' ended without a picture")

    def stop(self) -> None:
        self._persistence.stop()

    def _pictures(self) -> Iterator[tuple[ImageRGB, float | None, float]]:
        """Pictures, their times and how long they last about, of one session."""
        if self._session is None:
            self._session = self._open()
        session = self._session
        try:
            for image, said_s in session.pictures():
                if self._persistence.stopped.is_set():
                    raise StoppedError
                self._persistence.there()
                self.reconnects = self._persistence.reconnects
                self.damaged = self._damaged + session.damaged
                yield image, said_s, session.step_s
        finally:
            self._session = None
            self._damaged += session.damaged
            quietly(session.close)
