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
from typing import Any, Protocol, runtime_checkable

import numpy as np

from sam_detect.errors import ConfigError
from sam_detect.interfaces import Segmenter
from sam_detect.models.efficientnet_lite0 import missing_packages, shared_network
from sam_detect.types import Frame
from sam_detect.types.masks import BoolArray, FloatArray, tight_box_xyxy
from sam_detect.video.appearance import SoftMask
from sam_detect.video.propagation import CELL, FAINT, FeatureMemory

PROPAGATE = ("auto", "flow", "features", "sam2")
"""How masks are carried from frame to frame."""
LEAST_PX = 1600
"""Area of the smallest object that features carry: 10 by 10 cells at the largest scale."""
MOST_BY_FEATURES = 4
"""Objects of a file that features carry, each of which takes about a tenth of a second; the flow
carries others, which hardly takes longer for many."""
LIVE_ACROSS = 16
"""Of a live source, objects are compared at half the size of those of a file."""
LIVE_FAITHFUL = 0.65
"""And they may look more different: frames between two of a live source may be missing."""
LIVE_SHARE = 0.6
"""Share of the time that passes in which features carry objects of a live source..."""
SAVED_S = 0.1
"""... and how much of it can be saved for later."""


class ObjectMemory(Protocol):
    """What a propagator knows of one object."""

    def carry(
        self, frame: Frame, about: SoftMask, *, least_px: float = 0, cut: bool = False
    ) -> SoftMask | None:
        """The object in a later frame; None where less of it is visible.

        Args:
            frame: of the same size as that in which the object was outlined.
            about: where the object is about.
            least_px: area below which a mask is not the object.
            cut: whether the frame may be of another scene.
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
        every_frame: whether it must see every frame; else the flow may carry what it does as well.
    """

    remember: Callable[[Frame, SoftMask], ObjectMemory | None]
    most: int | None = None
    budget: Budget = field(default_factory=Budget)
    every_frame: bool = False


def by_features(*, live: bool = False) -> Propagator:
    """Label propagation with learned features."""
    if not live:
        return Propagator(_features, most=MOST_BY_FEATURES)
    remember = partial(
        _features, across=LIVE_ACROSS, network=shared_network("live video"), faithful=LIVE_FAITHFUL
    )
    # What is slow the first time is done before the first frame comes.
    blank = Frame(np.zeros((LIVE_ACROSS * CELL, LIVE_ACROSS * CELL, 3), np.uint8))
    all_of_it = SoftMask(np.ones(blank.size_hw, np.float32), (0, 0))
    memory = remember(blank, all_of_it)
    if memory is not None:
        memory.carry(blank, all_of_it)
    return Propagator(remember, budget=Budget(LIVE_SHARE))


def _features(frame: Frame, mask: SoftMask, **how: Any) -> FeatureMemory | None:
    return FeatureMemory(frame, mask, **how) if mask.area >= LEAST_PX else None


@runtime_checkable
class FollowingSegmenter(Protocol):
    """A segmenter that follows objects, too: SAM 2."""

    def follow(self, frame: Frame, mask: BoolArray) -> Callable[[Frame], FloatArray]:
        """Begins an object that is outlined in a frame, ``(H, W)``.

        Returns:
            A function to be called with each following frame: ``(H, W)`` float32 in 0..1, more than
            0.5 on the object.
        """
        ...


def by_segmenter(segmenter: FollowingSegmenter) -> Propagator:
    """The video memory of a segmenter, for any number of objects."""

    def remember(frame: Frame, mask: SoftMask) -> ObjectMemory | None:
        cut = mask.cut(frame.size_hw)
        if cut is None:
            return None
        outline, ((x0, y0, x1, y1), crop) = np.zeros(frame.size_hw, np.bool_), cut
        outline[y0:y1, x0:x1] = crop
        return _Followed(segmenter.follow(frame, outline))

    return Propagator(remember, every_frame=True)


@dataclass(frozen=True)
class _Followed:
    follow: Callable[[Frame], FloatArray]

    def carry(
        self, frame: Frame, about: SoftMask, *, least_px: float = 0, cut: bool = False
    ) -> SoftMask | None:
        """The object, wherever it is."""
        found = self.follow(frame)
        box = tight_box_xyxy(np.asarray(found > FAINT))
        if box is None:
            return None
        x0, y0, x1, y1 = box
        mask = SoftMask(np.ascontiguousarray(found[y0:y1, x0:x1]), (x0, y0))
        return mask if mask.area > 0 and mask.area >= least_px else None


def find_propagator(
    name: str, *, live: bool, segmenter: Segmenter | None = None
) -> Propagator | None:
    """What carries masks; None for the optical flow alone.

    Args:
        name: one of :data:`PROPAGATE`; ``auto`` is ``sam2`` where the segmenter is SAM 2 (for a
            live source, where it is on a GPU), else ``features`` where the network is installed.
        live: whether the newest frame counts, so that time is short.
        segmenter: of the pipeline.

    Raises:
        ConfigError: there is no such way, or the segmenter is not SAM 2.
        UnavailableError: the network is not installed.
    """
    if name not in PROPAGATE:
        raise ConfigError(f"masks are carried by {', '.join(PROPAGATE)}; there is no '{name}'")
    if isinstance(segmenter, FollowingSegmenter):
        device = getattr(segmenter, "device", None)
        quick = getattr(device, "type", "cpu") != "cpu"
        if name == "sam2" or (name == "auto" and (quick or not live)):
            return by_segmenter(segmenter)
    elif name == "sam2":
        raise ConfigError(
            "SAM 2 carries masks only where it is the segmenter, too: use --segmenter sam2 "
            "(`sam-detect download-models` fetches its weights), or --propagate features"
        )
    if name == "features":
        shared_network()
    return None if name == "flow" or missing_packages() else by_features(live=live)
