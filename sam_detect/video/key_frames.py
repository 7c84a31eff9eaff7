"""Keyframe detection, on a background thread."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from sam_detect.errors import ConfigError, MaskError
from sam_detect.interfaces import RedrawingSegmenter, Segmenter
from sam_detect.library.snapshot import LibrarySnapshot
from sam_detect.pipeline import Pipeline
from sam_detect.types import Candidates, Frame, Masks
from sam_detect.video.appearance import stack_masks
from sam_detect.video.association import UntrackedVotes, ious
from sam_detect.video.motion import Flow, direct_flow
from sam_detect.video.tracks import KeyFrameResult, TrackSnapshot
from sam_detect.video.unchanged import UnchangedVectors

AGREEING_IOU = 0.5
"""Least IoU of a mask carried in many steps with the same carried in one, or segmented again."""

Result = TypeVar("Result")


@dataclass(frozen=True)
class PendingDetection:
    """A keyframe detection, running or done.

    Attributes:
        frame: the key frame.
        tracks_then: the tracks in it.
        future: of its result.
    """

    frame: Frame
    tracks_then: TrackSnapshot
    future: Future[KeyFrameResult]


@dataclass(frozen=True, eq=False)
class _Proposed:
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
    """

    def __init__(self, pipeline: Pipeline, *, separate: bool = False) -> None:
        self._pipeline, self._separate = pipeline, separate
        self._untracked = UntrackedVotes()
        self._scene: str | None = None
        self._generation = ""
        self._last: Frame | None = None
        self._vectors = UnchangedVectors()
        self._ahead: _Proposed | None = None
        self._work: queue.SimpleQueue[_Work | None] = queue.SimpleQueue()
        self._stopped = False
        self._asking = threading.Lock()
        # A daemon: a detection may take long, and stopping must not wait for it.
        self._thread = threading.Thread(target=self._run, name="sam-detect key frames", daemon=True)
        self._thread.start()

    def detect(self, frame: Frame, then: TrackSnapshot, moved: Flow | None) -> PendingDetection:
        """Starts the detection of a key frame.

        Carried masks compete with the proposals, so a track whose mask is still the best keeps it.
        Outlines of examples that were taught in this picture always win: an object that was learnt
        from the first frame is followed as it was outlined.

        Args:
            frame: the key frame.
            then: the tracks in it.
            moved: the flow from the last key frame to this one; None after a cut.
        """
        return PendingDetection(frame, then, self.run(lambda: self._detected(frame, then, moved)))

    def propose_ahead(self, frame: Frame) -> None:
        """Computes the proposals of the likely next key frame in advance."""
        self.run(lambda: self._keep_proposed(frame))

    def _keep_proposed(self, frame: Frame) -> None:
        self._ahead = self._propose(frame, self._pipeline.snapshot())

    def _propose(self, frame: Frame, snapshot: LibrarySnapshot) -> _Proposed:
        vectors = UnchangedVectors(None if self._separate else self._vectors)
        candidates = self._pipeline.propose(frame, snapshot, known=vectors)
        return _Proposed(snapshot, candidates, vectors)

    def _proposed(self, frame: Frame) -> _Proposed:
        """The proposals of a key frame: those made in advance, if the library is still the same."""
        snapshot = self._pipeline.snapshot()
        ahead, self._ahead = self._ahead, None
        if (
            ahead is not None
            and ahead.candidates.frame is frame
            and ahead.snapshot.generation == snapshot.generation
        ):
            return ahead
        return self._propose(frame, snapshot)

    def _detected(self, frame: Frame, then: TrackSnapshot, moved: Flow | None) -> KeyFrameResult:
        proposed = self._proposed(frame)
        self._vectors, snapshot = proposed.vectors, proposed.snapshot
        taught = snapshot.taught(frame)
        if moved is None:
            self._scene = None
        if len(taught.of(negative=False)):
            self._scene = taught.picture
        relearnt = snapshot.generation != self._generation
        self._generation = snapshot.generation
        direct = self._direct(frame, moved)
        carried = then.masks if direct is None else carried_directly(then, direct)
        found = self._pipeline.detect(
            frame,
            snapshot=snapshot,
            proposed=proposed.candidates,
            carried=redrawn(self._pipeline.segmenter, frame, carried),
            known=proposed.vectors,
            scene=self._scene,
        )
        earlier = self._untracked.update(frame, found, None if relearnt else direct)
        return KeyFrameResult(
            frame, found, earlier, first=moved is None or relearnt, relearnt=relearnt
        )

    def _direct(self, frame: Frame, moved: Flow | None) -> Flow | None:
        """The flow from the last key frame to this one."""
        last, self._last = self._last, frame
        return None if moved is None or last is None else direct_flow(last, frame, moved)

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
        future.set_exception(ConfigError("the stream is closed; open it anew"))
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
        while (item := self._work.get()) is not None:
            _fulfil(*item)


_Work = tuple[Future[Any], Callable[[], Any]]


def carried_directly(then: TrackSnapshot, direct: Flow) -> Masks:
    """The tracks' masks, each carried directly from the last key frame where that leads to about
    the same place, so that errors of many frames do not add up."""
    masks = []
    for place, anchor in enumerate(then.anchors):
        stepwise = then.masks[[place]]
        _, directly = stack_masks(
            [direct.carry(anchor)], then.masks.size_hw, stepwise.predicted_ious
        )
        agree = (
            then.whole[place] and len(directly) and ious(directly, stepwise)[0, 0] > AGREEING_IOU
        )
        masks.append(directly if agree else stepwise)
    return Masks.concatenate([then.masks[[]], *masks])


def redrawn(segmenter: Segmenter, frame: Frame, carried: Masks) -> Masks:
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


def _fulfil(future: Future[Any], work: Callable[[], Any]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        future.set_result(work())
    except BaseException as error:  # raised where the result is awaited
        future.set_exception(error)
