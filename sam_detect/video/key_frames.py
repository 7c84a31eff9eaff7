"""Key frames: which frames they are, and detection in them on a background thread.

Vectors of crops that did not change since the last key frame are reused. A camera's noise changes
every pixel, so crops are compared as a grid of cells, each the mean of many pixels. This takes a
hundredth of the time that a model needs for a vector.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import cv2
import numpy as np

from sam_detect.errors import ConfigError, MaskError
from sam_detect.features.extraction import Make, recipe_digest
from sam_detect.interfaces import RedrawingSegmenter, Segmenter
from sam_detect.library.snapshot import LibrarySnapshot
from sam_detect.pipeline.flow import Pipeline
from sam_detect.pipeline.scheduling import give_way
from sam_detect.types import Candidates, Crop, Frame, Masks, Recipe
from sam_detect.types.masks import FloatArray
from sam_detect.types.overlaps import ious
from sam_detect.video.appearance import CELLS, stack_masks
from sam_detect.video.association import KEPT_UNSEEN, UntrackedVotes
from sam_detect.video.motion import Flow, direct_flow
from sam_detect.video.threads import Arrival, start_daemon
from sam_detect.video.tracks import KeyFrameResult, TrackSnapshot

STILL, STILL_PX = 4, 1.0
"""How many times rarer key frames are in a still scene, and the motion, in pixels, below which it
is still."""
NEW_SHARE = 0.2
"""Share of new picture content, added up since the last key frame, that makes a new key frame."""
AGREEING_IOU = 0.5
"""Least IoU of a mask carried in many steps with the same carried in one, or segmented again."""
LEAST_PX = 12
"""A smaller crop has cells of less than a pixel, and is always embedded again."""
MOST_OUTLINE = 0.15
"""Largest change of the mask, as a share of the object's area."""
MOST_LEVELS, MOST_AROUND = 6.0, 12.0
"""Largest mean colour difference of the object, and of its background, in levels of 255."""
MOST_SIZE = 0.1
"""Largest relative change of the crop's side in the picture."""

Result = TypeVar("Result")


class Schedule:
    """What happened since the last key frame.

    Args:
        every: frames from one key frame to the next, at most, where something moves.

    Attributes:
        moved: coarse flow from the last key frame to this frame; None right after a key frame, and
            after a cut.
        undecided: whether the last key frame labelled an object that another one has to confirm.
    """

    def __init__(self, every: int) -> None:
        self._every = every
        self._frames, self._new_share = 0, 1.0
        self._index = -1
        self.moved: Flow | None = None
        self.undecided = False

    def note(self, flow: Flow | None) -> None:
        """Counts a frame, with the flow from the frame before; None after a cut."""
        if flow is not None and flow.blank:  # it shows nothing
            return
        self._frames += 1
        if flow is None:
            self._new_share, self.moved = 1.0, None
            return
        coarse = flow.coarse()
        self.moved = coarse if self.moved is None else coarse.after(self.moved)
        self._new_share += flow.new_share

    @property
    def due(self) -> bool:
        """Whether the present frame is a key frame."""
        unchanged = self.moved is not None and self._new_share <= 0 and not self.undecided
        still = unchanged and self.moved is not None and self.moved.typical_px < STILL_PX
        wait = self._every * (STILL if still else 1)
        return self._frames >= wait or self._new_share >= NEW_SHARE

    def bring_forward(self) -> None:
        """The next frame is a key frame."""
        self._new_share = 1.0

    def restart(self) -> None:
        """The present frame is the last key frame."""
        self._frames, self._new_share, self.moved = 0, 0.0, None

    def first_due(self, ahead: Sequence[Arrival]) -> Frame | None:
        """The next key frame among frames that are read ahead, each counted once; None while it is
        not among them. For a copy."""
        for arrival in ahead:
            if arrival.frame.index > self._index:
                self._index = arrival.frame.index
                self.note(arrival.prepared)
                if self.due:
                    return arrival.frame
        return None


@dataclass(frozen=True, eq=False)
class CropSignature:
    """A crop reduced to cells, for comparison.

    Attributes:
        recipe: how its vector is made; those of different recipes are never the same.
        levels: ``(CELLS * CELLS * 3,)`` float32, the mean colours of the cells, 0 to 255.
        cover: ``(CELLS * CELLS,)`` float32, how much of each cell is the object, 0 to 1.
        side_px: of the crop's window in the picture.
    """

    recipe: bytes
    levels: FloatArray
    cover: FloatArray
    side_px: int

    @classmethod
    def of(cls, crop: Crop, recipe: bytes) -> CropSignature | None:
        """None of a crop that is too small."""
        if min(crop.mask.shape) < LEAST_PX:
            return None
        size = (CELLS, CELLS)
        image = cv2.resize(crop.image_rgb, size, interpolation=cv2.INTER_AREA)
        solid = crop.mask.view(np.uint8) * np.uint8(255)
        cover = cv2.resize(solid, size, interpolation=cv2.INTER_AREA)
        left, _, right, _ = crop.window_xyxy
        levels = image.astype(np.float32).ravel()
        return cls(recipe, levels, cover.astype(np.float32).ravel() / 255, right - left)

    @property
    def summary(self) -> FloatArray:
        """``(3,)``: mean level, area in cells, side. Where these differ much, more does."""
        return np.array([self.levels.mean(), self.cover.sum(), self.side_px], np.float32)

    def change(self, levels: FloatArray, covers: FloatArray) -> FloatArray:
        """``(M,)`` float32: how different M others are; less than 1 counts as the same."""
        area, around = self.cover.sum(), (1 - self.cover).sum()
        outline = np.abs(covers - self.cover).sum(axis=1) / (area * MOST_OUTLINE)
        inside = self.cover / (area * MOST_LEVELS)
        outside = (1 - self.cover) / (max(around, 1) * MOST_AROUND)
        each = np.repeat(np.stack([inside, outside], axis=1), 3, axis=0) / 3
        colours = np.abs(levels - self.levels) @ each
        return np.asarray(np.maximum(outline, colours.max(axis=1)), np.float32)


@dataclass(frozen=True, eq=False)
class _KnownVector:
    signature: CropSignature
    vector: FloatArray
    unseen: int = 0


class UnchangedVectors:
    """The vectors of one key frame: computed, or reused from an earlier key frame.

    A vector stays with the signature of the crop that it was computed from, so an object that
    changes slowly is embedded again once it has changed enough. Vectors of the same key frame are
    never reused: the result must not depend on the order of the calls.

    Args:
        before: of the last key frame.

    Attributes:
        made, taken: how many vectors were computed, and reused.
    """

    def __init__(self, before: UnchangedVectors | None = None) -> None:
        self.made = self.taken = 0
        self._own: list[_KnownVector] = []
        self._look_up_in([] if before is None else before._reusable())

    def keys_of_crops(
        self, crops: Sequence[Crop], recipe: Recipe
    ) -> Sequence[CropSignature | None]:
        """Their signatures."""
        digest = recipe_digest(recipe)
        return [CropSignature.of(crop, digest) for crop in crops]

    def vectors(self, keys: Sequence[CropSignature | None], make: Make) -> FloatArray:
        """``(N, D)`` vectors of N signatures; ``make`` computes those without a match."""
        found = {index: self._match(key) for index, key in enumerate(keys) if key is not None}
        taken = {index: place for index, place in found.items() if place is not None}
        missing = [index for index in range(len(keys)) if index not in taken]
        self.made, self.taken = self.made + len(missing), self.taken + len(taken)
        self._used |= set(taken.values())
        rows = {index: self._before[place].vector for index, place in taken.items()}
        if missing or not keys:
            made = make(missing)
            # Copies: a NumPy view of one row would keep the whole array.
            rows |= {index: np.array(row) for index, row in zip(missing, made, strict=True)}
        signatures = [(keys[index], index) for index in missing]
        self._own += [_KnownVector(key, rows[i]) for key, i in signatures if key is not None]
        return np.stack([rows[index] for index in range(len(keys))]) if keys else made

    def _look_up_in(self, known: list[_KnownVector]) -> None:
        self._before, self._used = known, set[int]()
        self._recipes = np.array([each.signature.recipe for each in known], "S16")
        self._levels = np.array([each.signature.levels for each in known])
        self._covers = np.array([each.signature.cover for each in known])
        self._summaries = np.array([each.signature.summary for each in known]).reshape(-1, 3)

    def _match(self, key: CropSignature) -> int | None:
        """Index of the best match at the last key frame; None where none is close enough."""
        level, area, side_px = key.summary
        most = np.array([MOST_AROUND, MOST_OUTLINE * area, MOST_SIZE * side_px], np.float32)
        apart = np.abs(self._summaries - (level, area, side_px))
        near = np.flatnonzero((apart < most).all(axis=1) & (self._recipes == key.recipe))
        if not len(near):
            return None
        change = key.change(self._levels[near], self._covers[near])
        best = int(change.argmin())
        return int(near[best]) if change[best] < 1 else None

    def _reusable(self) -> list[_KnownVector]:
        """What the next key frame may reuse."""
        before = [
            replace(each, unseen=0 if index in self._used else each.unseen + 1)
            for index, each in enumerate(self._before)
        ]
        return self._own + [each for each in before if each.unseen <= KEPT_UNSEEN]


@dataclass(frozen=True, eq=False)
class _Proposals:
    """The part of a keyframe detection that does not depend on the tracks.

    Attributes:
        snapshot: of the library, when it was proposed.
        candidates: the pipeline's proposals.
        vectors: all vectors of this key frame.
    """

    snapshot: LibrarySnapshot
    candidates: Candidates
    vectors: UnchangedVectors


class KeyFrameDetector:
    """Detects in key frames, and learns, one after the other on a thread of its own.

    Args:
        pipeline: detects.
        separate: whether each key frame is independent, and nothing is reused from the one before.
        live: whether others, who follow a live video, must not wait.
    """

    def __init__(self, pipeline: Pipeline, *, separate: bool = False, live: bool = False) -> None:
        self._pipeline, self._separate, self._live = pipeline, separate, live
        self._untracked = UntrackedVotes()
        self._scene: str | None = None
        self._generation = ""
        self._last: Frame | None = None
        self._vectors = UnchangedVectors()
        self._ahead: _Proposals | None = None
        self._work: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None]
        self._work = queue.SimpleQueue()
        self._stopped = False
        self._asking = threading.Lock()
        # A detection may take long, and stopping must not wait for it.
        self._thread = start_daemon(self._run, "sam-detect key frames")

    def detect(
        self, frame: Frame, then: TrackSnapshot, moved: Flow | None
    ) -> Future[KeyFrameResult]:
        """Starts the detection of a key frame.

        Carried masks compete with the proposals, so a track whose mask is still the best keeps it.
        Outlines of examples that were taught in this picture always win: an object that was learnt
        from the first frame is followed as it was outlined.

        Args:
            frame: the key frame.
            then: the tracks in it.
            moved: the flow from the last key frame to this one; None after a cut.
        """
        return self.run(lambda: self._detect(frame, then, moved))

    def propose_ahead(self, frame: Frame) -> None:
        """Computes the proposals of the likely next key frame in advance."""

        def propose() -> None:
            self._ahead = self._propose(frame, self._pipeline.snapshot())

        self.run(propose)

    def _propose(self, frame: Frame, snapshot: LibrarySnapshot) -> _Proposals:
        vectors = UnchangedVectors(None if self._separate else self._vectors)
        candidates = self._pipeline.propose(frame, snapshot, known=vectors, quick=True)
        return _Proposals(snapshot, candidates, vectors)

    def _detect(self, frame: Frame, then: TrackSnapshot, moved: Flow | None) -> KeyFrameResult:
        snapshot = self._pipeline.snapshot()
        proposals, self._ahead = self._ahead, None
        if (
            proposals is None
            or proposals.candidates.frame is not frame
            or proposals.snapshot.generation != snapshot.generation
        ):
            proposals = self._propose(frame, snapshot)
        self._vectors, snapshot = proposals.vectors, proposals.snapshot
        taught = snapshot.taught(frame)
        if moved is None:
            self._scene = None
        if len(taught.of(negative=False)):
            self._scene = taught.picture
        relearnt = snapshot.generation != self._generation
        self._generation = snapshot.generation
        last, self._last = self._last, frame
        direct = None if moved is None or last is None else direct_flow(last, frame, moved)
        carried = then.masks if direct is None else carry_directly(then, direct)
        found = self._pipeline.detect(
            frame,
            snapshot=snapshot,
            proposed=proposals.candidates,
            carried=redraw(self._pipeline.segmenter, frame, carried),
            known=proposals.vectors,
            scene=self._scene,
        )
        earlier = self._untracked.update(frame, found, None if relearnt else direct)
        return KeyFrameResult(
            frame, found, earlier, first=relearnt and last is not None, relearnt=relearnt
        )

    def run(self, work: Callable[[], Result]) -> Future[Result]:
        """Runs work that must not overlap with a detection, such as learning.

        Raises:
            ConfigError: from the future: the detector was stopped before.
        """
        future: Future[Result] = Future()
        with self._asking:
            if not self._stopped:
                self._work.put((future, work))
                return future
        future.set_exception(ConfigError("the stream is closed; open it again"))
        return future

    def stop(self) -> None:
        """Accepts no more work; queued work is still done."""
        with self._asking:
            self._stopped = True
            self._work.put(None)

    def wait(self, wait_s: float) -> bool:
        """Whether the thread ended within the time."""
        self._thread.join(wait_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        if self._live:
            give_way()
        while (item := self._work.get()) is not None:
            future, work = item
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(work())
            except BaseException as error:  # raised where the result is awaited
                future.set_exception(error)


def carry_directly(then: TrackSnapshot, direct: Flow) -> Masks:
    """The tracks' masks, each carried directly from the last key frame where that leads to about
    the same place, so that errors of many frames do not add up."""
    masks = []
    for place, anchor in enumerate(then.anchors):
        stepwise = then.masks[[place]]
        _, directly = stack_masks(
            [direct.carry(anchor)], then.masks.size_hw, stepwise.predicted_ious
        )
        agree = (
            then.direct[place] and len(directly) and ious(directly, stepwise)[0, 0] > AGREEING_IOU
        )
        masks.append(directly if agree else stepwise)
    return Masks.concatenate([then.masks[[]], *masks])


def redraw(segmenter: Segmenter, frame: Frame, carried: Masks) -> Masks:
    """Carried masks, refined by the segmenter in this frame if it can. A mask that differs much is
    kept as it was: the segmenter may return a part, or the background."""
    if not isinstance(segmenter, RedrawingSegmenter) or not len(carried):
        return carried
    try:
        drawn = segmenter.segment_masks(frame, carried)
    except MaskError:  # a mask lies on no object
        return carried
    same = ious(drawn, carried).diagonal() > AGREEING_IOU
    both = Masks.concatenate([carried, drawn])
    return both[np.where(same, len(carried), 0) + np.arange(len(carried))]
