"""Says how many clicks it takes to label a whole set on the annotation page, every object right.

./scripts/annotation-clicks FOLDER... [--policy folder|uncertain|diverse|rare|random] [--groups]
                            [--pictures N] [--seeds 0,1,2] [--json]

A folder holds ``annotations.json`` (COCO) and ``images``. A scripted user works on the session that
the page works on, and does what its users can do; what is annotated says what is right. The user
begins with an empty library, names three objects of a label that the library does not know, and
from then on lets the page suggest:

- suggestions: the slider goes where it saves most clicks (a click, if it has to move), those above
  it that are wrong are put right (a click on each, and a key that names or rejects them), one click
  accepts the others above it, and those below it that are right take a click each and one key
- objects without a suggestion, or with a wrong one: a click on each, and a key that names them
- objects that nothing proposes: clicks on each and next to it until its outline is right, and a key
  that keeps and names those of one label; where five clicks did not help, the brush, which counts
  as five more

The user waits until the page has proposed again with what was learnt. With --groups, groups of
alike objects of all pictures are named first: a click on each that does not belong, and one that
names.

A click is a press of a mouse button or of a key. Naming a new label counts one, as if it were one
key. An object is right when an outline that a user accepted has its label and an IoU of .5 with it.
By hand, with an outline that is drawn, it would be one click and more for each object.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from sam_detect import SAMDetect
from sam_detect.errors import MaskError, SamDetectError
from sam_detect.evaluation.dataset import AnnotatedPicture, masks_of
from sam_detect.evaluation.readers import open_dataset
from sam_detect.masks import intersection
from sam_detect.server.annotation import AnnotationSession, Named
from sam_detect.server.journal import Journal
from sam_detect.server.pictures import ShownObject
from sam_detect.server.survey import POLICIES, Group, Policy, Survey, Surveyed
from sam_detect.server.ui import PROPOSALS_KEPT
from sam_detect.types import Masks

IOU = 0.5
FIRST = 3
"""So many objects of a new label are named before the user looks at the suggestions."""
MOST_CLICKS, BRUSHED = 5, 5
LEAST_GROUP = 3
"""A group with fewer right members is not worth a name."""
ROUNDS = 12


@dataclass
class Tally:
    """What was done.

    Attributes:
        clicks: by what they did.
        objects: that are annotated.
        right: objects that ended right.
        curve: ``(clicks, objects)`` after each picture.
        seconds: that the session took to answer, in all.
    """

    clicks: Counter[str] = field(default_factory=Counter)
    objects: int = 0
    right: int = 0
    curve: list[tuple[int, int]] = field(default_factory=list)
    seconds: float = 0.0


@dataclass(frozen=True)
class Truth:
    """What is annotated in a picture: outlines with their labels."""

    masks: Masks
    labels: tuple[str, ...]


class User:
    """Labels pictures, and counts clicks."""

    def __init__(self, session: AnnotationSession, truths: Sequence[Truth]) -> None:
        self.session, self.truths, self.tally = session, truths, Tally()
        self.known: set[str] = set()
        self.slider = 80

    def click(self, what: str, count: int = 1) -> None:
        self.tally.clicks[what] += count

    def label_picture(self, picture: int) -> None:
        """Labels a picture completely."""
        truth = self.truths[picture]
        for _ in range(ROUNDS):
            self.session.pictures.refresh(picture)
            shown = self.session.objects(picture)
            matched = self.matched(picture, shown, truth)
            if not self.next_step(picture, shown, matched, truth):
                break
        done = self.matched(picture, self.session.objects(picture), truth, taught=True)
        self.tally.objects += len(truth.masks)
        self.tally.right += len(done)
        self.tally.curve.append((self.tally.clicks.total(), self.tally.objects))

    def next_step(
        self,
        picture: int,
        shown: list[ShownObject],
        matched: dict[int, ShownObject],
        truth: Truth,
    ) -> bool:
        """Does the next thing; false when nothing is left to do."""
        objects = {each.id: truth.labels[row] for row, each in matched.items()}
        new = sorted(set(truth.labels) - self.known)
        if new:
            rows = [row for row in matched if truth.labels[row] == new[0]]
            rows = [row for row in rows if not matched[row].taught][:FIRST]
            self.known.add(new[0])
            if rows:
                self.click("name", len(rows) + 1)
                self.session.name(picture, [matched[row].id for row in rows], new[0])
            return True
        suggested = [each for each in shown if each.label is not None and not each.taught]
        if any(objects.get(each.id) == each.label for each in suggested):
            self.accept(picture, suggested, objects)
            return True
        left = [row for row, each in matched.items() if not each.taught]
        if left:
            by_label = defaultdict(list)
            for row in left:
                by_label[truth.labels[row]].append(matched[row].id)
            label, ids = max(by_label.items(), key=lambda each: (len(each[1]), each[0]))
            self.click("name", len(ids) + 1)
            self.session.name(picture, ids, label)
            return True
        missed = sorted(set(range(len(truth.masks))) - set(matched))
        for label in sorted({truth.labels[row] for row in missed}):
            made = [self.outline(picture, truth, r) for r in missed if truth.labels[r] == label]
            self.click("keep")
            self.session.draw(picture, Masks.concatenate(made), label)
        return False

    def accept(self, picture: int, suggested: list[ShownObject], objects: dict[str, str]) -> None:
        """Accepts what is right of the suggestions, in as few clicks as possible."""
        ranked = sorted(suggested, key=lambda each: -each.confidence)
        wrong = [objects.get(each.id) != each.label for each in ranked]

        def plan(count: int) -> tuple[int, int]:
            """Clicks, if so many of the surest are accepted together."""
            bad = [each for each, off in zip(ranked[:count], wrong, strict=False) if off]
            mended = len(bad) + len({objects.get(each.id) for each in bad})
            below = len(ranked) - count - sum(wrong[count:])
            moved = bool(count) and _above(ranked, self.slider) != count
            return mended + moved + bool(count) + below + bool(below), count

        count = min(plan(each) for each in _cuts(ranked))[1]
        above, below = ranked[:count], ranked[count:]
        bad = [each for each, off in zip(above, wrong, strict=False) if off]
        if bad:
            self.click("correct", len(bad) + len({objects.get(each.id) for each in bad}))
            self.session.decide(picture, [
                Named(each.id, objects.get(each.id) or str(each.label), each.id not in objects)
                for each in bad
            ])  # fmt: skip
        if above:
            if _above(ranked, self.slider) != count:
                self.slider = int(100 * ranked[count - 1].confidence)
                self.click("slider")
            self.click("accept")
        rest = [each for each in below if objects.get(each.id) == each.label]
        if rest:
            self.click("confirm", len(rest) + 1)
        right = [each for each in [*above, *rest] if objects.get(each.id) == each.label]
        self.session.decide(picture, [Named(each.id, str(each.label)) for each in right])

    def outline(self, picture: int, truth: Truth, row: int) -> Masks:
        """Makes the outline of an object by clicks, or by the brush."""
        frame = self.session.opened(picture).candidates.frame
        wanted = truth.masks.dense(row)
        points, positive = [_inside(wanted)], [True]
        made: Masks | None = None
        for _ in range(MOST_CLICKS):
            try:
                made = self.session.detector.pipeline.outline_clicks(frame, points, positive)
            except MaskError:
                made = None
            found = np.zeros_like(wanted) if made is None else made.dense(0)
            if (found & wanted).sum() >= IOU * (found | wanted).sum():
                break
            lost, extra = wanted & ~found, found & ~wanted
            positive.append(bool(lost.sum() >= extra.sum()))
            points.append(_inside(lost if positive[-1] else extra))
            made = None
        self.click("outline", min(len(points), MOST_CLICKS))
        if made is None:
            self.click("brush", BRUSHED)
            made = truth.masks[[row]]
        return made

    def matched(
        self, picture: int, shown: list[ShownObject], truth: Truth, *, taught: bool = False
    ) -> dict[int, ShownObject]:
        """The shown object of each annotated one; those that were named come first."""
        found: dict[int, tuple[bool, float, ShownObject]] = {}
        for each in shown:
            if taught and not each.taught:
                continue
            mask = self.session.outline(picture, each.id)
            for row, iou in _overlaps(mask, truth.masks):
                right = each.taught and each.label == truth.labels[row]
                if taught and not right:
                    continue
                if row not in found or (right, iou) > found[row][:2]:
                    found[row] = right, iou, each
        return {row: each for row, (_, _, each) in found.items()}

    def label_groups(self, survey: Survey) -> None:
        """Names groups of objects of all pictures, while there are any worth it."""
        self.survey(survey)
        for suggested in (False, True):
            if suggested:
                self.survey(survey)
            for group in survey.groups():
                if (group.label is not None) == suggested:
                    self.label_group(survey, group)

    def survey(self, survey: Survey) -> None:
        """Has all pictures looked at with the library as it is now, as the page does it."""
        for picture in range(len(self.truths)):
            opened = self.session.pictures.read(picture)
            survey.put(picture, Surveyed.of(opened, self.session.detections(opened)[0]))

    def label_group(self, survey: Survey, group: Group) -> None:
        """Names a group, where that is worth it."""
        right: dict[str, list[tuple[int, str]]] = defaultdict(list)
        objects = set()
        for picture, each in group.members:
            mask = survey.require(picture).outline(each)
            for row, _ in _overlaps(mask, self.truths[picture].masks)[:1]:
                if (picture, row) not in objects:
                    objects.add((picture, row))
                    right[self.truths[picture].labels[row]].append((picture, each))
        if not right:
            return
        label, members = max(right.items(), key=lambda each: (len(each[1]), each[0]))
        out = len(group.members) - len(members)
        if len(members) < LEAST_GROUP or out > len(members):
            return
        self.known.add(label)
        self.click("group", out + 1)
        self.session.decide_in_many([
            (survey.require(p).digest, survey.require(p).outline(o), Named(o, label))
            for p, o in members
        ])  # fmt: skip


def _above(ranked: Sequence[ShownObject], percent: int) -> int:
    """How many suggestions the slider accepts."""
    return sum(100 * each.confidence >= percent for each in ranked)


def _cuts(ranked: Sequence[ShownObject]) -> list[int]:
    """How many a position of the slider can accept: it knows whole percents."""
    percents = [int(100 * each.confidence) for each in ranked]
    ends = [i for i in range(1, len(ranked)) if percents[i] < percents[i - 1]]
    return [0, *ends, len(ranked)]


def _overlaps(mask: Masks, truths: Masks) -> list[tuple[int, float]]:
    """Which annotated objects a mask is, with the IoU."""
    box, area, crop = mask.boxes_xyxy[0], int(mask.areas[0]), mask.crop(0)
    corners = truths.boxes_xyxy
    meet = (corners[:, :2] < box[2:]).all(axis=1) & (corners[:, 2:] > box[:2]).all(axis=1)
    found = []
    for row in np.flatnonzero(meet).tolist():
        shared = intersection(crop, box.tolist(), truths.crop(row), corners[row].tolist())
        iou = shared / (area + int(truths.areas[row]) - shared)
        if iou >= IOU:
            found.append((row, float(iou)))
    return found


def _inside(mask: Any) -> tuple[float, float]:
    """The point of a mask that is farthest from its edge."""
    distance = cv2.distanceTransform(np.pad(mask.astype(np.uint8), 1), cv2.DIST_L2, 3)
    y, x = np.unravel_index(int(distance.argmax()), distance.shape)
    return float(x - 1), float(y - 1)


def label_set(
    pictures: Sequence[AnnotatedPicture], *, policy: str, groups: bool, seed: int
) -> Tally:
    """Labels a set from the beginning, with an empty library."""
    truths = [Truth(*_truth(picture)) for picture in pictures]
    with tempfile.TemporaryDirectory() as home:
        detector = SAMDetect(vector_store="memory", embedding_cache_size=20_000)
        detector.pipeline.remember_proposals(PROPOSALS_KEPT)
        journal = Journal(Path(home) / "journal.sqlite")
        session = AnnotationSession(detector, [str(p.path) for p in pictures], journal)
        user, survey = User(session, truths), Survey()
        began = time.monotonic()
        if groups:
            user.label_groups(survey)
        left = list(range(len(pictures)))
        if policy == "random":
            random.Random(seed).shuffle(left)
        while left:
            if policy in POLICIES and policy != "folder":
                left = _ordered(session, survey, left, policy)
            picture = left.pop(0)
            user.label_picture(picture)
        user.tally.seconds = time.monotonic() - began
        journal.close()
    return user.tally


def _ordered(
    session: AnnotationSession, survey: Survey, left: list[int], policy: Policy
) -> list[int]:
    """What is left, as the queue would have it: surveyed with the library as it is now."""
    for picture in left:
        opened = session.pictures.read(picture)
        survey.put(picture, Surveyed.of(opened, session.detections(opened)[0]))
    arrays = session.detector.snapshot().examples()
    known = Counter(label for label, negative in zip(arrays.labels, arrays.negatives, strict=True)
                    if not negative)  # fmt: skip
    return survey.order(policy, left, set(), known)


def _truth(picture: AnnotatedPicture) -> tuple[Masks, tuple[str, ...]]:
    masks = masks_of(picture, picture.objects)
    return masks, tuple(each.label for each in picture.objects)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="annotation-clicks", description=__doc__.split("\n")[0])
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--policy", choices=[*POLICIES, "random"], default="folder")
    parser.add_argument("--groups", action="store_true", help="name groups first")
    parser.add_argument("--pictures", type=int, help="only the first ones")
    parser.add_argument("--seeds", default="0", help="of the order 'random'")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    for folder in options.folders:
        pictures = open_dataset(folder).pictures[: options.pictures]
        for seed in [int(each) for each in options.seeds.split(",")]:
            tally = label_set(pictures, policy=options.policy, groups=options.groups, seed=seed)
            clicks = tally.clicks.total()
            record = {
                "dataset": folder.name, "policy": options.policy, "groups": options.groups,
                "seed": seed, "pictures": len(pictures), "objects": tally.objects,
                "right": tally.right, "clicks": clicks,
                "clicks_per_object": round(clicks / max(tally.objects, 1), 3),
                "by": dict(tally.clicks), "seconds": round(tally.seconds, 1), "curve": tally.curve,
            }  # fmt: skip
            if options.json:
                print(json.dumps(record), flush=True)
            else:
                print(
                    f"{folder.name}: {clicks} clicks for {tally.objects} objects "
                    f"({record['clicks_per_object']} each), {tally.right} right; {record['by']}; "
                    f"{record['seconds']} s",
                    flush=True,
                )
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except SamDetectError as error:
        sys.exit(f"error: {error}")
