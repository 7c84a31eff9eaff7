"""What carries objects from frame to frame, besides the optical flow.

A propagator remembers an object as it is outlined, and finds it in later frames. The flow says
about where it is, and carries the objects that no propagator has taken.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

from sam_detect.errors import ConfigError
from sam_detect.models.efficientnet_lite0 import missing_packages, shared_network
from sam_detect.types import Frame
from sam_detect.video.appearance import SoftMask
from sam_detect.video.propagation import ACROSS, FeatureMemory

PROPAGATE = ("auto", "flow", "features")
"""How masks are carried from frame to frame."""
LEAST_PX = 1600
"""Area of the smallest object that features carry: 10 by 10 cells at the largest scale."""
MOST_BY_FEATURES = 4
"""Objects of a file that features carry, each of which takes about a tenth of a second; the flow
carries others, which hardly takes longer for many."""
LIVE_ACROSS = 16
"""Of a live source, objects are compared at half the size of those of a file."""
LIVE_SHARE = 0.4
"""Share of the time that passes in which features carry objects of a live source..."""
SAVED_S = 0.1
"""... and how much of it can be saved for later."""


class ObjectMemory(Protocol):
    """What a propagator knows of one object."""

    def carry(self, frame: Frame, about: SoftMask, *, least_px: float = 0) -> SoftMask | None:
        """The object in a later frame; None where less of it is visible.

        Args:
            frame: of the same size as that in which the object was outlined.
            about: where the object is about.
            least_px: area below which a mask is not the object.
        """
        ...


class Budget:
    """The time that a propagator may take.

    Args:
        share: of the time that passes, 0 to 1; None: as much as it needs.
    """

    def __init__(self, share: float | None = None) -> None:
        self._share, self._left_s = share, SAVED_S
        self._now_s = time.monotonic()

    @property
    def left(self) -> bool:
        """Whether there is time for another object. The last one may take longer than what is left;
        that is missing from the time for the next frames."""
        return self._share is None or self._left_s > 0

    def next_frame(self) -> None:
        """A frame has come."""
        passed_s, self._now_s = time.monotonic() - self._now_s, time.monotonic()
        self._left_s = min(SAVED_S, self._left_s + (self._share or 0) * passed_s)

    @contextmanager
    def spent(self) -> Iterator[None]:
        """What happens in this context takes of the time."""
        began_s = time.monotonic()
        yield
        self._left_s -= time.monotonic() - began_s


@dataclass(frozen=True)
class Propagator:
    """A way to carry objects.

    Attributes:
        remember: what it knows of an object that is outlined in a frame; None of one that it
            cannot carry.
        most: objects that it carries at a time; None for any number.
        budget: the time that it may take.
    """

    remember: Callable[[Frame, SoftMask], ObjectMemory | None]
    most: int | None = None
    budget: Budget = field(default_factory=Budget)


def by_features(*, live: bool = False) -> Propagator:
    """Label propagation with learned features."""
    if live:
        return Propagator(partial(_features, across=LIVE_ACROSS), budget=Budget(LIVE_SHARE))
    return Propagator(_features, most=MOST_BY_FEATURES)


def _features(frame: Frame, mask: SoftMask, *, across: int = ACROSS) -> FeatureMemory | None:
    return FeatureMemory(frame, mask, across=across) if mask.area >= LEAST_PX else None


def find_propagator(name: str, *, live: bool) -> Propagator | None:
    """What carries masks; None for the optical flow alone.

    Args:
        name: one of :data:`PROPAGATE`; ``auto`` is ``features`` where the network is installed.
        live: whether the newest frame counts, so that time is short.

    Raises:
        ConfigError: there is no such way.
        UnavailableError: the network is not installed.
    """
    if name not in PROPAGATE:
        raise ConfigError(f"masks are carried by {', '.join(PROPAGATE)}; there is no '{name}'")
    if name == "features":
        shared_network()
    return None if name == "flow" or missing_packages() else by_features(live=live)
