"""Says what corrections do to F1: a scripted user corrects the worst find, again and again.

./scripts/corrections FOLDER... [--policies negative,name] [--seeds 0,1,2]
                      [--corrections 10] [--json]

A folder holds ``annotations.json`` (COCO) and ``images``. The user teaches a few examples of each
label, as ``sam-detect evaluate`` draws them. The other pictures are dealt into two halves. In one
of them the user corrects, ten times, the worst find: the false one of the highest confidence. After
each correction F1 is measured over all these pictures, and over the half without corrections.
Then the halves change places.

A policy says how a false find is corrected:

negative  as a negative of its wrong label
name      by its name: that of the annotated object that it covers, else a name of its own
mixed     by its name where it covers an annotated object of another label, else as a negative
kind      by its name where it is another kind of thing; as a negative where it lies on an object of
          its own label, so that only its outline is wrong
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from sam_detect import SAMDetect
from sam_detect.errors import SamDetectError
from sam_detect.evaluation.comparison import Comparison, Counts, compare, match
from sam_detect.evaluation.dataset import AnnotatedPicture, Dataset
from sam_detect.evaluation.methods import Predictions, SupportImage
from sam_detect.evaluation.pipeline import EvaluationCache, PipelineMethod
from sam_detect.evaluation.readers import open_dataset
from sam_detect.evaluation.run import Protocol, Split, outlines, splits
from sam_detect.io import load_image
from sam_detect.types import Frame, Masks
from sam_detect.vector_store import MemoryVectorStore

IOU = 0.5
POLICIES = ("negative", "name", "mixed", "kind")
OTHER = "other"
"""The name that the user gives to things without an annotation."""
ON_OBJECT = 0.5
"""A find of which more lies on an object of its label, or that holds more of one, has a wrong
outline; it is no other thing."""
NOISE = 0.005
"""A lower F1 than before by less is no fall: about one find of two hundred."""


@dataclass(frozen=True)
class Find:
    """A false find.

    Attributes:
        picture: where.
        frame: its pixels.
        mask: its outline.
        label: its wrong label.
        truth: label of the annotated object that it covers; None for none.
        outline_only: whether it lies on an object of its label.
    """

    picture: AnnotatedPicture
    frame: Frame
    mask: Masks
    label: str
    truth: str | None
    outline_only: bool


@dataclass(frozen=True)
class Step:
    """F1 before the first correction, or after one.

    Attributes:
        corrected: what the user did; None before the first.
        f1: over all query pictures.
        f1_others: over those without corrections.
    """

    corrected: str | None
    f1: float
    f1_others: float


class Trial:
    """One user: the examples of one seed, one half of the pictures to correct, one policy."""

    def __init__(
        self, dataset: Dataset, split: Split, pipeline: PipelineMethod, *, half: int, policy: str
    ) -> None:
        self.dataset, self.pipeline, self.policy = dataset, pipeline, policy
        self.queries = split.queries
        self.frames = {p.id: _load(p) for p in self.queries}
        self.corrected = {p.id for p in self.queries[half::2]}
        pipeline.learn([*_shown(split, pipeline)])

    def steps(self, corrections: int) -> Iterator[Step]:
        """The first figures, and those after each correction, until there is nothing to correct."""
        done = None
        for _ in range(corrections + 1):
            found = {p.id: self._find(p) for p in self.queries}
            compared = {p.id: self._compare(p, found[p.id]) for p in self.queries}
            others = [c for key, c in compared.items() if key not in self.corrected]
            yield Step(done, f1_of(compared.values()), f1_of(others))
            worst = self._worst(found, compared)
            if worst is None:
                return
            done = self._correct(worst)

    def _find(self, picture: AnnotatedPicture) -> Predictions:
        frame = self.frames[picture.id]
        found = self.pipeline.find(frame, recall_taught=True)
        # What the user named besides is not asked for.
        labels = tuple(n if n in self.dataset.categories else None for n in found.labels)
        return Predictions(found.masks, labels, found.scores, Masks.empty(picture.size_hw))

    def _compare(self, picture: AnnotatedPicture, found: Predictions) -> Comparison:
        return compare(picture, found, boxes=self.dataset.boxes_only, iou_threshold=IOU)

    def _worst(self, found: dict[Any, Predictions], compared: dict[Any, Comparison]) -> Find | None:
        """The false find of the highest confidence in the pictures that are corrected."""
        best, chosen = -1.0, None
        for picture in self.queries:
            if picture.id not in self.corrected:
                continue
            false = match(compared[picture.id], IOU).false
            for index in np.flatnonzero(false).tolist():
                if compared[picture.id].scores[index] > best:
                    best, chosen = float(compared[picture.id].scores[index]), (picture, int(index))
        if chosen is None:
            return None
        picture, index = chosen
        return self._described(picture, found[picture.id], compared[picture.id], index)

    def _described(
        self, picture: AnnotatedPicture, found: Predictions, compared: Comparison, index: int
    ) -> Find:
        label, mask = str(found.labels[index]), found.masks[[index]]
        covered = compared.iou[index]
        nearest = int(covered.argmax()) if len(covered) else 0
        truth = None
        if len(covered) and covered[nearest] >= IOU:
            truth = str(compared.object_labels[nearest])
        own = tuple(o for o in picture.objects if not o.crowd and o.label == label)
        return Find(
            picture, self.frames[picture.id], mask, label, truth, _on_any(mask, picture, own)
        )

    def _correct(self, find: Find) -> str:
        by_name = (
            self.policy == "name"
            or (self.policy in ("mixed", "kind") and find.truth not in (None, find.label))
            or (self.policy == "kind" and find.truth is None and not find.outline_only)
        )
        label = (find.truth or OTHER) if by_name else find.label
        self.pipeline.pipeline.learn(find.frame, find.mask, [label], negative=not by_name)
        what = f"is {label}" if by_name else f"is no {label}"
        x0, y0, x1, y1 = find.mask.boxes_xyxy[0].tolist()
        return f"{find.picture.path.name} {x0},{y0},{x1 - x0},{y1 - y0}: '{find.label}' {what}"


def f1_of(comparisons: Any) -> float:
    """F1 of all labels and pictures together."""
    counts = Counts()
    for each in comparisons:
        counts += match(each, IOU).counts
    return float(counts.f1 or 0.0)


def _on_any(mask: Masks, picture: AnnotatedPicture, objects: tuple[Any, ...]) -> bool:
    """Whether most of a mask lies on one of the objects, or it holds most of one."""
    if not objects:
        return False
    # By boxes, which every dataset has.
    x0, y0, x1, y1 = mask.boxes_xyxy[0].tolist()
    for each in objects:
        left, top, width, height = each.bbox_xywh
        across = min(x1, left + width) - max(x0, left)
        down = min(y1, top + height) - max(y0, top)
        smaller = min((x1 - x0) * (y1 - y0), width * height)
        if across > 0 and down > 0 and across * down > ON_OBJECT * smaller:
            return True
    return False


def _load(picture: AnnotatedPicture) -> Frame:
    return load_image(picture.path)


def _shown(split: Split, pipeline: PipelineMethod) -> Iterator[SupportImage]:
    for picture, objects in split.support:
        frame = _load(picture)
        masks = outlines(frame, picture, objects, pipeline.outline)
        yield SupportImage(frame, masks, tuple(o.label for o in objects))


def trials(
    folder: Path, given: argparse.Namespace, memory: EvaluationCache | None = None
) -> Iterator[dict[str, Any]]:
    """The records of all trials of a folder.

    Args:
        given: what :func:`parser` parsed.
        memory: proposals and vectors that are known already.
    """
    store = MemoryVectorStore()
    detector = SAMDetect(vector_store=store, segmenter=given.segmenter, embedder=given.embedder)
    pipeline = PipelineMethod(detector.pipeline, memory)
    limit = detector.settings.max_image_pixels
    dataset = open_dataset(folder / "annotations.json", folder / "images", max_pixels=limit)
    protocol = Protocol(shots=given.shots, seeds=given.seeds, group_by=given.group_by)
    for planned in splits(dataset, protocol):
        split = replace(planned, queries=planned.queries[: given.pictures])
        for policy in given.policies:
            for half in (0, 1):
                steps = list(Trial(dataset, split, pipeline, half=half, policy=policy)
                             .steps(given.corrections))  # fmt: skip
                yield {
                    "dataset": folder.name,
                    "policy": policy,
                    "seed": split.seed,
                    "group": split.group,
                    "half": half,
                    "f1": [step.f1 for step in steps],
                    "f1_others": [step.f1_others for step in steps],
                    "corrections": [step.corrected for step in steps[1:]],
                }


def summary(records: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What the trials of one dataset and policy say together.

    ``f1`` and ``f1_others`` are means after each number of corrections; a trial in which nothing
    was left to correct stays at its last figures.
    """
    most = max(len(r["f1"]) for r in records)
    curves = {
        name: np.mean([r[name] + [r[name][-1]] * (most - len(r[name])) for r in records], axis=0)
        for name in ("f1", "f1_others")
    }
    changes = np.concatenate([np.diff(r["f1"]) for r in records])
    ends = np.array([r["f1"][-1] - r["f1"][0] for r in records])
    return {
        "trials": len(records),
        "corrections": len(changes),
        "f1": curves["f1"].round(4).tolist(),
        "f1_others": curves["f1_others"].round(4).tolist(),
        "rose": int((changes > 1e-9).sum()),
        "fell": int((changes < -NOISE).sum()),
        "deepest_fall": float(min(changes.min(initial=0.0), 0.0)),
        "ended_lower": int((ends < -NOISE).sum()),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    given = parser().parse_args(arguments)
    try:
        for folder in given.folders:
            records: dict[str, list[dict[str, Any]]] = {policy: [] for policy in given.policies}
            for record in trials(folder, given):
                records[record["policy"]].append(record)
            for policy, found in records.items():
                said = {"dataset": folder.name, "policy": policy, **summary(found)}
                print(json.dumps({**said, "records": found}) if given.json else told(said),
                      flush=True)  # fmt: skip
    except SamDetectError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def told(said: dict[str, Any]) -> str:
    curve = " ".join(f"{value:.3f}" for value in said["f1"])
    others = said["f1_others"]
    return (
        f"{said['dataset']}, {said['policy']}: F1 {curve}; in pictures without corrections "
        f"{others[0]:.3f} -> {others[-1]:.3f}; of {said['corrections']} corrections "
        f"{said['rose']} raised F1, {said['fell']} lowered it (by at most "
        f"{abs(said['deepest_fall']):.3f}); {said['ended_lower']} of {said['trials']} trials "
        "ended lower"
    )


def _policies(text: str) -> list[str]:
    chosen = text.split(",")
    if not set(chosen) <= set(POLICIES):
        raise argparse.ArgumentTypeError(f"policies are {', '.join(POLICIES)}, got '{text}'")
    return chosen


def _seeds(text: str) -> tuple[int, ...]:
    return tuple(int(each) for each in text.split(","))


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="scripts/corrections", description=__doc__.splitlines()[0])
    made.add_argument("folders", nargs="+", type=Path, metavar="FOLDER")
    made.add_argument("--policies", type=_policies, default=list(POLICIES))
    made.add_argument("--shots", type=int, default=5)
    made.add_argument("--seeds", type=_seeds, default=(0, 1, 2))
    made.add_argument("--corrections", type=int, default=10)
    made.add_argument("--pictures", type=int, metavar="N", help="only the first N query pictures")
    made.add_argument("--group-by", metavar="FIELD")
    made.add_argument("--segmenter", default="naive")
    made.add_argument("--embedder", default="appearance")
    made.add_argument("--json", action="store_true", help="one JSON object a folder and policy")
    return made


if __name__ == "__main__":
    sys.exit(main())
