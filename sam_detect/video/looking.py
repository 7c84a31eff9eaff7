"""The detector's looks at key frames, beside the stream."""

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
from sam_detect.video.matching import ious
from sam_detect.video.memory import Memory
from sam_detect.video.motion import Flow, direct_flow
from sam_detect.video.tracks import Sight, Snapshot
from sam_detect.video.unchanged import Unchanged

AGREEING_IOU = 0.5
"""Of a mask carried in many steps with the same carried in one, or drawn anew."""

Made = TypeVar("Made")


@dataclass(frozen=True)
class Look:
    """A look at a frame, under way or done.

    Attributes:
        frame: the key frame.
        then: where the tracks were in it.
        sight: what the detector finds.
    """

    frame: Frame
    then: Snapshot
    sight: Future[Sight]


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
    vectors: Unchanged


class Looker:
    """Works on one key frame, or on one thing to learn, at a time, on a thread of its own.

    Args:
        pipeline: detects.
        separate: whether each look is by itself, and nothing of the one before counts.
    """

    def __init__(self, pipeline: Pipeline, *, separate: bool = False) -> None:
        self._pipeline, self._separate = pipeline, separate
        self._memory = Memory()
        self._scene: str | None = None
        self._generation = ""
        self._last: Frame | None = None
        self._vectors = Unchanged()
        self._ahead: _Proposed | None = None
        self._work: queue.SimpleQueue[_Work | None] = queue.SimpleQueue()
        self._stopped = False
        self._asking = threading.Lock()
        # A daemon: a look may take long, and whoever wants to stop must not wait for it.
        self._thread = threading.Thread(target=self._run, name="sam-detect looker", daemon=True)
        self._thread.start()

    def look(self, frame: Frame, then: Snapshot, moved: Flow | None) -> Look:
        """Starts a look.

        Carried masks are named beside the detector's own proposals, and win or lose against them:
        so a track whose mask is still the best keeps it. Outlines that were taught in this very
        picture always win: what was learnt from the first frame is followed as it was outlined.

        Args:
            moved: from the frame of the look before to this one; None where the scene is another.
        """
        return Look(frame, then, self.run(lambda: self._seen(frame, then, moved)))

    def look_ahead(self, frame: Frame) -> None:
        """Begins a look at a frame that is likely to be the next key frame, so that less is left
        to do when it comes."""
        self.run(lambda: self._begin_ahead(frame))

    def _begin_ahead(self, frame: Frame) -> None:
        self._ahead = self._propose(frame, self._pipeline.snapshot())

    def _propose(self, frame: Frame, snapshot: LibrarySnapshot) -> _Proposed:
        vectors = Unchanged(None if self._separate else self._vectors)
        candidates = self._pipeline.propose(frame, snapshot, known=vectors)
        return _Proposed(snapshot, candidates, vectors)

    def _proposed(self, frame: Frame) -> _Proposed:
        """What was proposed ahead, if the library is still the same."""
        snapshot = self._pipeline.snapshot()
        ahead, self._ahead = self._ahead, None
        if (
            ahead is not None
            and ahead.candidates.frame is frame
            and ahead.snapshot.generation == snapshot.generation
        ):
            return ahead
        return self._propose(frame, snapshot)

    def _seen(self, frame: Frame, then: Snapshot, moved: Flow | None) -> Sight:
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
        carried = then.masks if direct is None else carried_anew(then, direct)
        found = self._pipeline.detect(
            frame,
            snapshot=snapshot,
            proposed=proposed.candidates,
            carried=redrawn(self._pipeline.segmenter, frame, carried),
            known=proposed.vectors,
            scene=self._scene,
        )
        past = self._memory.recall(frame, found, None if relearnt else direct)
        return Sight(frame, found, past, first=moved is None or relearnt, relearnt=relearnt)

    def _direct(self, frame: Frame, moved: Flow | None) -> Flow | None:
        """How the picture moved since the last look."""
        last, self._last = self._last, frame
        return None if moved is None or last is None else direct_flow(last, frame, moved)

    def run(self, work: Callable[[], Made]) -> Future[Made]:
        """Something that must not happen during a look, such as learning.

        Raises:
            ConfigError: from the promise: the looker was stopped before.
        """
        promise: Future[Made] = Future()
        with self._asking:
            if not self._stopped:
                self._work.put((promise, work))
                return promise
        promise.set_exception(ConfigError("the stream is closed; open it anew"))
        return promise

    def stop(self) -> None:
        """Takes no more work; what was asked for before is still done."""
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


def carried_anew(then: Snapshot, direct: Flow) -> Masks:
    """The tracks' masks, each carried from the last look's frame at once where that leads to about
    the same place: so errors of many frames do not add up."""
    masks = []
    for place, anchor in enumerate(then.anchors):
        slowly = then.masks[[place]]
        at_once = direct.carry(anchor).masks(then.masks.size_hw, slowly.predicted_ious)
        agree = then.whole[place] and len(at_once) and ious(at_once, slowly)[0, 0] > AGREEING_IOU
        masks.append(at_once if agree else slowly)
    return Masks.concatenate([then.masks[[]], *masks])


def redrawn(segmenter: Segmenter, frame: Frame, carried: Masks) -> Masks:
    """Carried masks as the segmenter draws them in this frame, if it can: each that is still about
    the same, since it may also draw a part, or what is around."""
    if not isinstance(segmenter, RedrawingSegmenter) or not len(carried):
        return carried
    try:
        drawn = segmenter.segment_masks(frame, carried)
    except MaskError:  # one of them is on nothing
        return carried
    same = ious(drawn, carried).diagonal() > AGREEING_IOU
    both = Masks.concatenate([carried, drawn])
    return both[np.where(same, len(carried), 0) + np.arange(len(carried))]


def _fulfil(promise: Future[Any], work: Callable[[], Any]) -> None:
    if not promise.set_running_or_notify_cancel():
        return
    try:
        promise.set_result(work())
    except BaseException as error:  # belongs to whoever waits for it
        promise.set_exception(error)
