"""What breaks is opened again: after which pauses, how often, and who hears of it."""

from __future__ import annotations

import contextlib
import threading
import time
import warnings
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import Any, TypeVar

from sam_detect.errors import ImageError

TIMEOUT_S = 10.0
RETRIES = 8
FIRST_PAUSE_S = 0.5
WAKE_S = 0.5
"""So often a wait is looked up from: not every system lets Ctrl-C into one."""
LONGEST_PAUSE_S = 8.0

Made = TypeVar("Made")


class BrokenError(Exception):
    """A source that was there is not any more; it may come back."""


class StoppedError(Exception):
    """Whoever reads was told to stop."""


class Persistence:
    """Counts the tries to get one source back.

    Args:
        name: of the source, as it may be shown.
        retries: tries in a row, without anything coming of them, before it is given up.

    Attributes:
        stopped: set when nobody wants the source any more; ends every pause.
        reconnects: how often it was got back.
        interrupt: ends a wait for the source, where that is possible.
    """

    def __init__(self, name: str, retries: int) -> None:
        self.stopped = threading.Event()
        self.reconnects = 0
        self.interrupt: Callable[[], None] = lambda: None
        self._name, self._retries = name, retries
        self._tries = 0
        self._lost_s: float | None = None

    def stop(self) -> None:
        """Nobody wants the source any more; called from another thread."""
        self.stopped.set()
        quietly(self.interrupt)

    def lost(self, reason: str) -> None:
        """Waits before the next try, each time twice as long, from half a second to 8.

        Raises:
            ImageError: there were as many tries as were asked for.
            StoppedError: nobody wants the source any more.
        """
        now = time.monotonic()
        self._lost_s = now if self._lost_s is None else self._lost_s
        if self._tries >= self._retries:
            raise ImageError(f"'{self._name}' broke off ({reason}){self._in_vain(now)}")
        pause_s = min(FIRST_PAUSE_S * 2**self._tries, LONGEST_PAUSE_S)
        self._tries += 1
        if self.stopped.wait(pause_s):
            raise StoppedError

    def there(self) -> None:
        """Something came. After a loss one line says so."""
        if self._lost_s is not None:
            self.reconnects += 1
            away_s = time.monotonic() - self._lost_s
            # The number keeps lines apart that Python would show once only.
            warnings.warn(
                f"reconnected to '{self._name}' after {away_s:.1f} s (time {self.reconnects})",
                stacklevel=2,
            )
        self._lost_s, self._tries = None, 0

    def _in_vain(self, now: float) -> str:
        if not self._retries or self._lost_s is None:
            return ""
        tries = f"{self._retries} tr{'y' if self._retries == 1 else 'ies'}"
        return f" and did not come back in {tries} over {now - self._lost_s:.0f} s"


def interruptibly(work: Callable[[], Made]) -> Made:
    """Does work that the system would not let Ctrl-C into: on a thread, while this one waits."""
    promise: Future[Made] = Future()

    def run() -> None:
        try:
            promise.set_result(work())
        except BaseException as error:  # belongs to whoever waits
            promise.set_exception(error)

    threading.Thread(target=run, name="sam-detect opener", daemon=True).start()
    while not promise.done():
        wait([promise], WAKE_S)
    return promise.result()


def quietly(close: Callable[[], Any]) -> None:
    """Closes what may be broken already."""
    with contextlib.suppress(Exception):
        close()
