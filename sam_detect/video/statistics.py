"""What a stream did so far."""

from __future__ import annotations

import time
from collections import deque

import numpy as np

WINDOW = 300
"""Frames that the speed and the latency are of: the last ones."""


class Statistics:
    """Counts frames and how long they took.

    Attributes:
        frames: given so far.
        keys: of these, key frames.
        dropped: frames of a live source that came too fast.
        reconnects: how often the source broke off and was got back.
        damaged: parts of it that could not be decoded.
    """

    def __init__(self) -> None:
        self.frames = self.keys = self.dropped = 0
        self.reconnects = self.damaged = 0
        self._latencies_s: deque[float] = deque(maxlen=WINDOW)
        self._given_s: deque[float] = deque(maxlen=WINDOW)

    def count(self, arrived_s: float, *, dropped: int, key: bool) -> None:
        """One frame was given that arrived then, by ``time.monotonic()``."""
        now = time.monotonic()
        self.frames += 1
        self.keys += key
        self.dropped = dropped
        self._latencies_s.append(now - arrived_s)
        self._given_s.append(now)

    @property
    def fps(self) -> float:
        """Frames a second, of the last ones."""
        if len(self._given_s) < 2:
            return 0.0
        return (len(self._given_s) - 1) / max(self._given_s[-1] - self._given_s[0], 1e-9)

    @property
    def latency_p95_ms(self) -> float:
        """Milliseconds from a frame's arrival to its objects, which 95 of 100 frames keep to."""
        return float(np.quantile(self._latencies_s, 0.95) * 1000) if self._latencies_s else 0.0
