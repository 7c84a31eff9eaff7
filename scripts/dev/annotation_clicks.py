"""Says how many clicks it takes to label a whole set on the annotation page, every object right.

./scripts/annotation-clicks FOLDER... [--policy folder,uncertain,diverse,random] [--groups]
                            [--pictures N] [--only 0,3] [--seeds 0,1,2] [--steps] [--json]
                            [--held-out N|SHARE] [--draws 0,1,2] [--objects N] [--impatient]
                            [--once]

A folder holds ``annotations.json`` (COCO) and ``images``. A scripted user works on the session that
the page works on, and does what its users can do; what is annotated says what is right. The user
begins with an empty library, names three objects of a label that the library does not know, and
from then on lets the page suggest:

- selecting: Shift-drag selects what lies in a box, a click selects an object or takes it out
- suggestions: the slider goes where it saves most clicks (a click, if it has to move), those above
  it that are wrong are selected, and a key names or rejects them, one click accepts the others
  above it, and those below it that are right are selected and confirmed by a key
- objects without a suggestion, or with a wrong one: they are selected, and a key names them
- objects that nothing proposes: a Ctrl-drag along each, from one end to the other, and a key that
  names them. Where that makes a wrong outline it is undone, and the object is painted with the
  brush: in one stroke, or in five where a straight one is not enough. Two keys choose and leave the
  brush, and another one names what was painted

The user waits until the page has proposed again with what was learnt. With --groups, groups of
alike objects of all pictures are named first: a click on each that does not belong, and one that
names. With --held-out, the library as it is after each picture detects in pictures that are kept
apart (F1 at an IoU of .5), and it is said after how many clicks F1 has .9 of its final value and
keeps it, for each order of the pictures and each draw of those kept apart; last, what each order
needs on average, against random ones of the same draws. --objects, --impatient and --once bound the
work of that.

A click is a press of a mouse button or of a key. Naming a new label counts one, as if it were one
key. An object is right when an outline that a user accepted has its label and an IoU of .5 with it.
By hand, with an outline that is drawn, it would be one click and more for each object.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from sam_detect import SAMDetect
from sam_detect.errors import SamDetectError
from sam_detect.evaluation.dataset import AnnotatedPicture, masks_of
from sam_detect.evaluation.readers import open_dataset
from sam_detect.interfaces import Segmenter
from sam_detect.segmentation import NaiveSegmenter
from sam_detect.server.annotation import AnnotationSession
from sam_detect.server.journal import Journal
from sam_detect.server.survey import POLICIES, Policy, Survey, Surveyed
from sam_detect.server.ui import PROPOSALS_KEPT
from sam_detect.types import NO_HINTS, Frame, Hints, Masks
from scripts.dev.annotation_user import Tally, User
from scripts.dev.held_out import SHARE, HeldOut, chosen, clicks_to_share, compared
from scripts.dev.truth import Truth

ORDERS = (*POLICIES, "random")
KEPT_VECTORS_MB = 2000
"""Of vectors on disk: each order asks for the vectors of the same objects."""


class ProposedOnce(NaiveSegmenter):
    """The proposals of ``naive`` without examples, made once for each picture."""

    def __init__(self) -> None:
        super().__init__(similar_regions="off", forest="off")
        self._made: dict[str, Masks] = {}

    def propose(self, frame: Frame, hints: Hints = NO_HINTS) -> Masks:
        digest = frame.digest
        if digest not in self._made:
            self._made[digest] = super().propose(frame, hints)
        return self._made[digest]


@dataclass(frozen=True)
class Way:
    """How a set is labelled.

    Attributes:
        policy: the order of the pictures: of the queue, or ``random``.
        groups: whether groups are named first.
        seed: of the order ``random``.
        held_out: how many pictures are held out, or which share; 0: none.
        draw: seed of which ones.
        objects: so many are named in a picture, about; None: all.
        patient: whether the user waits for new proposals in the same picture.
    """

    policy: str = "folder"
    groups: bool = False
    seed: int = 0
    held_out: float = 0
    draw: int = 0
    objects: int | None = None
    patient: bool = True


def label_set(
    pictures: Sequence[AnnotatedPicture],
    way: Way,
    say: Callable[[str], None] = lambda _: None,
    segmenter: Segmenter | None = None,
) -> Tally:
    """Labels a set from the beginning, with an empty library."""
    detector = SAMDetect(segmenter, vector_store="memory", embedding_cache_size=20_000,
                         kept_vectors_mb=KEPT_VECTORS_MB)  # fmt: skip
    detector.pipeline.remember_proposals(PROPOSALS_KEPT)
    apart = chosen(len(pictures), way.held_out, way.draw) if way.held_out else []
    held_out = HeldOut(
        [detector.read(str(pictures[each].path)) for each in apart],
        [_truth(pictures[each]) for each in apart],
    )
    pictures = [each for number, each in enumerate(pictures) if number not in apart]
    truths = [_truth(picture) for picture in pictures]
    with tempfile.TemporaryDirectory() as home:
        journal = Journal(Path(home) / "journal.sqlite")
        session = AnnotationSession(detector, [str(p.path) for p in pictures], journal)
        user = User(session, truths, say, patient=way.patient, enough=way.objects)
        survey, began = Survey(), time.monotonic()
        if way.groups:
            user.label_groups(survey)
        left, done = list(range(len(pictures))), list[int]()
        if way.policy == "random":
            random.Random(way.seed).shuffle(left)
        while left:
            if way.policy in POLICIES and way.policy != "folder":
                left = _ordered(session, survey, left, done, way.policy)
            done.append(left.pop(0))
            user.label_picture(done[-1])
            if apart:
                held_out.measure(detector, user.tally.clicks.total())
                say(
                    f"held out: F1 {held_out.curve[-1][1]:.3f} after {held_out.curve[-1][0]} clicks"
                )
        user.tally.seconds = time.monotonic() - began
        journal.close()
    user.tally.f1_curve = held_out.curve
    return user.tally


def _ordered(
    session: AnnotationSession, survey: Survey, left: list[int], done: list[int], policy: Policy
) -> list[int]:
    """What is left, as the queue would have it: surveyed with the library as it is now. Of those
    that are done it keeps what it found when they were just done."""
    for picture in [*left, *done[-1:]]:
        opened = session.pictures.read(picture)
        survey.put(picture, Surveyed.of(opened, session.detections(opened)[0]))
    return survey.order(policy, [*left, *done], set(done))[: len(left)]


def _truth(picture: AnnotatedPicture) -> Truth:
    return Truth(masks_of(picture, picture.objects), tuple(each.label for each in picture.objects))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="annotation-clicks", description=__doc__.split("\n")[0])
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--policy", default="folder", help=f"one or more of {','.join(ORDERS)}")
    parser.add_argument("--groups", action="store_true", help="name groups first")
    parser.add_argument("--pictures", type=int, help="only the first ones")
    parser.add_argument("--only", help="numbers of pictures, 0,3,5: only these")
    parser.add_argument("--seeds", default="0", help="of the order 'random'")
    parser.add_argument(
        "--held-out",
        type=float,
        default=0,
        metavar="N|SHARE",
        help="pictures whose F1 is measured after each one that is labelled",
    )
    parser.add_argument("--draws", default="0", help="seeds of which pictures are held out")
    parser.add_argument("--objects", type=int, help="name about so many in each picture, not all")
    parser.add_argument("--impatient", action="store_true",
                        help="do not wait for new proposals in the same picture")  # fmt: skip
    parser.add_argument("--once", action="store_true", help="propose once in each picture")
    parser.add_argument("--steps", action="store_true", help="say what is done, on stderr")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    policies = options.policy.split(",")
    if not set(policies) <= set(ORDERS):
        parser.error(f"--policy is one or more of {', '.join(ORDERS)}")
    for folder in options.folders:
        pictures = list(open_dataset(folder).pictures[: options.pictures])
        if options.only:
            pictures = [pictures[int(each)] for each in options.only.split(",")]
        segmenter = ProposedOnce() if options.once else None
        seeds = [int(each) for each in options.seeds.split(",")]
        draws = [int(each) for each in options.draws.split(",")]
        runs: list[tuple[str, int, int]] = []
        for draw, policy in itertools.product(draws, policies):
            for seed in seeds if policy == "random" else seeds[:1]:
                way = Way(policy, options.groups, seed, options.held_out, draw, options.objects,
                          not options.impatient)  # fmt: skip
                tally = label_set(pictures, way, _teller(options.steps), segmenter)
                _report(folder.name, tally, way, options.json)
                if tally.f1_curve:
                    runs.append((policy, draw, clicks_to_share(tally.f1_curve)))
        if len(runs) > 1 and not options.json:
            _compare(folder.name, runs)
    return 0


def _compare(name: str, runs: Sequence[tuple[str, int, int]]) -> None:
    """Says what each policy needed, against random orders of the same draws."""
    for policy, each in compared(runs).items():
        text = (
            f"{name}, {policy}: {each.mean:.1f} clicks, spread {each.spread:.1f}, {each.runs} runs"
        )
        if each.difference is not None:
            text += f"; {each.difference:+.1f} against random"
        if each.error is not None:
            text += f", standard error {each.error:.1f}"
        print(text, flush=True)


def _teller(steps: bool) -> Callable[[str], None]:
    """What says what is done, with the time."""
    began = time.monotonic()

    def say(text: str) -> None:
        if steps:
            print(f"{time.monotonic() - began:6.0f} s  {text}", file=sys.stderr, flush=True)

    return say


def _report(name: str, tally: Tally, way: Way, as_json: bool) -> None:
    clicks = tally.clicks.total()
    record = {
        "dataset": name, **asdict(way), "pictures": len(tally.curve), "objects": tally.objects,
        "right": tally.right, "extra": tally.extra, "clicks": clicks,
        "clicks_per_object": round(clicks / max(tally.objects, 1), 3),
        "by": dict(tally.clicks), "seconds": round(tally.seconds, 1), "curve": tally.curve,
    }  # fmt: skip
    if tally.f1_curve:
        record["f1"] = tally.f1_curve[-1][1]
        record["clicks_to_f1"] = clicks_to_share(tally.f1_curve)
        record["f1_curve"] = tally.f1_curve
    if as_json:
        print(json.dumps(record), flush=True)
        return
    print(
        f"{name}: {clicks} clicks for {tally.objects} objects ({record['clicks_per_object']} "
        f"each), {tally.right} right, {tally.extra} others named; {record['by']}; "
        f"{record['seconds']} s",
        flush=True,
    )
    if tally.f1_curve:
        print(
            f"{way.policy}: held-out F1 {record['f1']:.3f}, {SHARE:g} of it after "
            f"{record['clicks_to_f1']} clicks",
            flush=True,
        )


if __name__ == "__main__":
    try:
        sys.exit(main())
    except SamDetectError as error:
        sys.exit(f"error: {error}")
