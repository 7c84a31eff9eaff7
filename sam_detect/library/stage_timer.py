"""How long the stages of a call take."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


class StageTimer:
    """Adds up the milliseconds of stages.

    Args:
        spent_ms: gets them added, by the names of the stages; None for nobody to look at.
        stages: that are to be there even if they never run.
    """

    def __init__(self, spent_ms: dict[str, float] | None = None, *stages: str) -> None:
        self.spent_ms = {} if spent_ms is None else spent_ms
        for stage in stages:
            self.spent_ms.setdefault(stage, 0.0)

    @contextmanager
    def on(self, stage: str) -> Iterator[None]:
        """Counts what it surrounds for a stage."""
        started = time.perf_counter()
        yield
        spent = (time.perf_counter() - started) * 1000
        self.spent_ms[stage] = self.spent_ms.get(stage, 0.0) + spent
