"""Frames of a stream, counted, and how long they took."""

from __future__ import annotations

import time
from collections import deque

import numpy as np

RECENT = 60
"""Frames over which the current speed is measured."""
KEPT_LATENCIES = 20_000
"""Frames whose latencies are kept: over ten minutes of live video."""


class Statistics:
    """Counts frames and how long they took.

    Attributes:
        frames: given so far.
        keys: of these, key frames.
        dropped: frames of a live source that came too fast.
        reconnects: how often a broken connection was opened again.
        damaged: parts of it that could not be decoded.
    """

    def __init__(self) -> None:
        self.frames = self.keys = self.dropped = 0
        self.reconnects = self.damaged = 0
        self._latencies_s: deque[float] = deque(maxlen=KEPT_LATENCIES)
        self._recent_s: deque[float] = deque(maxlen=RECENT)
        self._first_s = 0.0

    def count(self, arrived_s: float, *, dropped: int, key: bool) -> None:
        """One frame was given that arrived then, by ``time.monotonic()``."""
        now = time.monotonic()
        self._first_s = self._first_s or now
        self.frames += 1
        self.keys += key
        self.dropped = dropped
        self._latencies_s.append(now - arrived_s)
        self._recent_s.append(now)

    @property
    def fps(self) -> float:
        """Frames a second, of the last ones."""
        recent = self._recent_s
        return _rate(len(recent), recent[-1] - recent[0]) if recent else 0.0

    @property
    def mean_fps(self) -> float:
        """Frames a second, of all."""
        return _rate(self.frames, self._recent_s[-1] - self._first_s) if self.frames else 0.0

    def latency_ms(self, share: float = 0.95) -> float:
        """Milliseconds from a frame's arrival to its objects that a share of the frames keeps to.

        Args:
            share: 0 to 1.
        """
        return float(np.quantile(self._latencies_s, share) * 1000) if self._latencies_s else 0.0


def _rate(frames: int, seconds: float) -> float:
    return (frames - 1) / seconds if seconds > 0 else 0.0
