"""Changes made to a library and noted in the journal, so that both always agree."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

import numpy as np

from sam_detect.api import SAMDetect
from sam_detect.errors import LibraryError, MaskError, SamDetectError
from sam_detect.library.example import example_id, label_of
from sam_detect.server.journal import Change, Journal, Step, StepKind
from sam_detect.types import Frame, Masks
from sam_detect.types.labels import normalised_label
from sam_detect.types.masks import MaskRLE, rle_to_crop


class Changes:
    """Does, undoes and redoes what users decide. Call it from one thread at a time.

    It holds the store: see docs/architecture.md, "Which lock before which".

    Args:
        detector: whose library learns.
        journal: keeps what was done.
        frame_of: the picture with a digest; raises ``ImageError`` where it is not there.
    """

    def __init__(
        self, detector: SAMDetect, journal: Journal, frame_of: Callable[[str], Frame]
    ) -> None:
        self._detector, self.journal, self._frame_of = detector, journal, frame_of
        self._settle_begun()

    def new_batch(self) -> str:
        """The id of a learning batch that begins now."""
        return self._detector.library.new_batch()

    def do(self, title: str, steps: Sequence[Step]) -> None:
        """Makes a change: in the journal first, then in the library.

        Raises:
            SamDetectError: something cannot be learnt; nothing was changed then.
        """
        # Made before anything is written: what cannot be learnt is refused as a whole.
        learning = [step for step in steps if step.kind == "learn"]
        examples = [example for step in learning for example in self._examples(step)]
        # The store opens once for all of it: that takes longer than what is done there. It also
        # keeps other processes out: what they see as begun was not ended by its own process.
        with self._detector.library.store.session():
            self._settle_begun()
            steps = [self._with_new(step) if step.kind == "learn" else step for step in steps]
            if not _changes_library(steps):
                self.journal.begin(title, steps, done=True)
                return
            change = Change(self.journal.begin(title, steps), title, tuple(steps))
            with self._settled_if_it_fails(change):
                if learning:
                    self._keep(examples, learning[0].data["batch"])
                for step in steps:
                    if step.kind == "forget":
                        self._forget(step)
            self.journal.done(change.id)

    def undo(self) -> Change:
        """Takes the last change back.

        Raises:
            LibraryError: there is none.
            ImageError: its picture is needed, and no longer there.
        """
        with self._detector.library.store.session():
            self._settle_begun()
            change = self.journal.last_done()
            if change is None:
                raise LibraryError("there is nothing to undo")
            again, steps = self.new_batch(), list(change.steps)
            examples = [e for step in steps if step.kind == "forget" for e in self._examples(step)]
            learnt = [step for step in steps if step.kind == "learn"]
            if _changes_library(steps):
                self.journal.begin_again(change.id)
                with self._settled_if_it_fails(change, undone=True):
                    self._keep(examples, again)
                    self._take_back(learnt)
                    # What was forgotten and learnt again since is of another batch.
                    for step in learnt:
                        self._forget(step, only=step.data["new"])
            self.journal.undone(change.id, _with_batch(steps, "forget", again))
            return change

    def redo(self) -> Change:
        """Makes the last change again that was undone; raises as :meth:`undo`."""
        with self._detector.library.store.session():
            self._settle_begun()
            change = self.journal.first_undone()
            if change is None:
                raise LibraryError("there is nothing to redo")
            batch = self.new_batch()
            steps = _with_batch(change.steps, "learn", batch)
            examples = [e for step in steps if step.kind == "learn" for e in self._examples(step)]
            if _changes_library(steps):
                self.journal.begin_again(change.id, steps)
                again = replace(change, steps=tuple(steps))
                with self._settled_if_it_fails(again, undone=True):
                    self._keep(examples, batch)
                    for step in steps:
                        if step.kind == "forget":
                            self._forget(step)
            self.journal.done(change.id)
            return change

    def _keep(self, examples: Sequence[Any], batch: str) -> None:
        if examples:
            self._detector.pipeline.keep(examples, batch=batch)

    @contextmanager
    def _settled_if_it_fails(self, change: Change, *, undone: bool = False) -> Iterator[None]:
        try:
            yield
        except BaseException:
            # Where even this fails it stays begun, and the next change settles it first.
            with suppress(SamDetectError):
                self._settle(change, undone=undone)
            raise

    def _settle_begun(self) -> None:
        """Ends what was begun and not ended: its process was killed, or the disk was full."""
        if self.journal.begun():
            with self._detector.library.store.session():
                for change in self.journal.begun():  # perhaps another process has ended it since
                    self._settle(change)

    def _settle(self, change: Change, *, undone: bool = False) -> None:
        """Ends a change that was begun: it was made if all that it learns is in the library, or if
        it learns nothing. What is there of another one is taken back.

        Args:
            undone: whether a change that was not made can be redone.
        """
        learnt = [step for step in change.steps if step.kind == "learn"]
        if learnt and not self._is_learnt(learnt):
            self._take_back(learnt)
            if undone:
                self.journal.undone(change.id)
            else:
                self.journal.drop(change.id)
            return
        for step in change.steps:
            if step.kind == "forget":
                self._forget(step)
        self.journal.done(change.id)

    def _is_learnt(self, steps: Sequence[Step]) -> bool:
        """Whether the library has all that steps learn, under its names and by these steps."""
        if not self._batches() & {step.data["batch"] for step in steps}:
            return False
        wanted = {item["id"]: item["label"] for step in steps for item in step.data["items"]}
        found = self._detector.library.store.scan(list(wanted), fields=("label", "negative"))
        return wanted.items() <= {(point.id, label_of(point)[0]) for point in found}

    def _take_back(self, steps: Sequence[Step]) -> None:
        """Takes the learning batches of steps back, where something of them is left."""
        for batch in {step.data["batch"] for step in steps} & self._batches():
            self._detector.library.undo(batch)

    def _batches(self) -> set[str]:
        library = self._detector.library
        return {each.id for each in library.log()} if library.manifest() else set()

    def _examples(self, step: Step) -> list[Any]:
        """The examples that a step learns."""
        frame, items = self._frame_of(step.picture), step.data["items"]
        made: list[Any] = []
        for negative in (False, True):
            chosen = [item for item in items if item["negative"] is negative]
            if chosen:
                masks = masks_of([item["rle"] for item in chosen], frame.size_hw)
                made += self._detector.pipeline.make_examples(
                    frame, masks, [item["label"] for item in chosen], negative=negative
                )
        return made

    def _forget(self, step: Step, only: Sequence[str] | None = None) -> None:
        """Removes what is still there of a step's examples."""
        there = self._there([item["id"] for item in step.data["items"]] if only is None else only)
        if there:
            self._detector.library.remove(ids=there)

    def _with_new(self, step: Step) -> Step:
        """The step, which notes the ids of what is not in the library yet."""
        ids = [item["id"] for item in step.data["items"]]
        there = set(self._there(ids))
        return replace(step, data={**step.data, "new": [i for i in ids if i not in there]})

    def _there(self, ids: Sequence[str]) -> list[str]:
        return [point.id for point in self._detector.library.store.scan(list(ids), fields=())]


def _changes_library(steps: Sequence[Step]) -> bool:
    return any(step.kind in ("learn", "forget") for step in steps)


def _with_batch(steps: Sequence[Step], kind: StepKind, batch: str) -> list[Step]:
    """The steps, those of a kind with a new learning batch."""
    return [
        replace(step, data={**step.data, "batch": batch}) if step.kind == kind else step
        for step in steps
    ]


def learning(
    picture: str, masks: Sequence[Masks], labels: Sequence[tuple[str, bool]], batch: str
) -> Step:
    """The step that learns outlines of a picture.

    Args:
        picture: digest of its pixels.
        masks: each one mask.
        labels: the name of each, and whether it is *not* of this name.
        batch: the learning batch.

    Raises:
        LibraryError: a name is empty.
    """
    items = [
        example_item(picture, mask.rle(0), label, negative)
        for mask, (label, negative) in zip(masks, labels, strict=True)
    ]
    return Step(picture, "learn", {"items": items, "batch": batch})


def example_item(picture: str, rle: MaskRLE, label: str, negative: bool) -> dict[str, Any]:
    """An example as a step names it; raises ``LibraryError`` for an empty name."""
    label = normalised_label(label)
    key = example_id(digest=picture, mask_rle=rle, label=label, negative=negative)
    return {"rle": rle, "label": label, "negative": negative, "id": key}


def outline_step(picture: str, kind: StepKind, rle: MaskRLE, *, there: bool) -> Step:
    """The step that draws or hides an outline, or takes that back."""
    return Step(picture, kind, {"rle": rle, "there": there})


def edited(steps: Sequence[Step], size_hw: tuple[int, int]) -> tuple[Masks, Masks]:
    """The outlines that steps in one picture drew, and those that they deleted."""
    drawn: dict[str, MaskRLE] = {}
    hidden: dict[str, MaskRLE] = {}
    for step in steps:
        if step.kind in ("draw", "hide"):
            there, rle = drawn if step.kind == "draw" else hidden, step.data["rle"]
            there.pop(rle["counts"], None)
            if step.data["there"]:
                there[rle["counts"]] = rle
    return masks_of(list(drawn.values()), size_hw), masks_of(list(hidden.values()), size_hw)


def masks_of(rles: Sequence[MaskRLE], size_hw: tuple[int, int]) -> Masks:
    """The masks of run lengths; raises ``MaskError`` where one is of a picture of another size."""
    if any(tuple(rle["size"]) != tuple(size_hw) for rle in rles):
        raise MaskError("an outline is of a picture of another size")
    found = [rle_to_crop(rle) for rle in rles]
    boxes = np.array([box for box, _ in found], np.int64).reshape(-1, 4)
    return Masks.from_crops(size_hw=size_hw, boxes_xyxy=boxes, crops=[crop for _, crop in found])
