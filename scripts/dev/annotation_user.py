"""A scripted user of the annotation page, who knows what is annotated and counts clicks."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from sam_detect.errors import MaskError
from sam_detect.server.annotation import AnnotationSession, Named
from sam_detect.server.clicking import along_line
from sam_detect.server.pictures import ShownObject
from sam_detect.server.survey import Group, Survey, Surveyed
from sam_detect.types import Masks
from scripts.dev.selecting import best_clean_box, presses
from scripts.dev.truth import IOU, Truth, brushed, ends_of, matched, overlaps

FIRST = 3
"""So many objects of a new label are named before the user looks at the suggestions."""
AT_ONCE = 6
"""So many clicks go to objects that are not suggested, before the user looks again."""
A_FEW = 3
"""... and with so few that are left the user does not wait for it."""
DRAWN_AT_ONCE = 24
"""So many clicks go to outlines of objects that nothing proposes."""
LEAST_GROUP = 3
"""A group with fewer right members is not worth a name."""
ROUNDS = 60


@dataclass
class Tally:
    """What was done.

    Attributes:
        clicks: by what they did.
        objects: that are annotated.
        right: objects that ended right.
        extra: outlines that the user named and that are no annotated object of that label.
        curve: ``(clicks, objects)`` after each picture.
        f1_curve: ``(clicks, F1)`` of pictures that are held out, after each picture.
        seconds: that the session took to answer, in all.
    """

    clicks: Counter[str] = field(default_factory=Counter)
    objects: int = 0
    right: int = 0
    extra: int = 0
    curve: list[tuple[int, int]] = field(default_factory=list)
    f1_curve: list[tuple[int, float]] = field(default_factory=list)
    seconds: float = 0.0


class User:
    """Labels pictures, and counts clicks.

    Args:
        session: that the page works on.
        truths: of all its pictures.
        say: is told of each thing that is done.
        patient: whether the user waits until the page has proposed again with what was learnt.
        enough: the user goes on to the next picture when so many objects have their names.
    """

    def __init__(
        self,
        session: AnnotationSession,
        truths: Sequence[Truth],
        say: Callable[[str], None] = lambda _: None,
        *,
        patient: bool = True,
        enough: int | None = None,
    ) -> None:
        self.session, self.truths, self.tally, self.say = session, truths, Tally(), say
        self.patient, self.enough = patient, enough
        self.known: set[str] = set()
        self.slider = 80

    def click(self, what: str, count: int, objects: int, detail: str = "") -> None:
        self.tally.clicks[what] += count
        self.say(f"{detail or what}: {count} clicks, {objects} objects")

    def label_picture(self, picture: int) -> None:
        """Labels a picture completely."""
        truth = self.truths[picture]
        checks = 2 if self.patient and self.enough is None else 1
        for _ in range(ROUNDS):
            if self.patient:
                self.session.pictures.refresh(picture)
            step = Step(self, picture, self.session.objects(picture), truth)
            self.say(step.state)
            if step.named >= (self.enough or len(truth.masks)):
                break
            if not step.do():
                # What was done last is checked: an outline may hide another one.
                checks -= 1
                if not checks or self.named(picture, truth) == len(truth.masks):
                    break
        shown = self.session.objects(picture)
        done = matched(self.session, picture, shown, truth, taught=True)
        self.tally.objects += len(truth.masks)
        self.tally.right += len(done)
        self.tally.extra += sum(each.taught for each in shown) - len(done)
        self.tally.curve.append((self.tally.clicks.total(), self.tally.objects))

    def named(self, picture: int, truth: Truth) -> int:
        """How many objects of a picture have their names."""
        shown = self.session.objects(picture)
        return len(matched(self.session, picture, shown, truth, taught=True))

    # -- groups ------------------------------------------------------------------------------

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
            for row, _ in overlaps(mask, self.truths[picture].masks)[:1]:
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
        self.click("group", out + 1, len(members))
        self.session.decide_in_many([
            (survey.require(p).digest, survey.require(p).outline(o), Named(o, label))
            for p, o in members
        ])  # fmt: skip


class Step:
    """The next thing that the user does in a picture, as the page shows it now."""

    def __init__(self, user: User, picture: int, shown: list[ShownObject], truth: Truth) -> None:
        self.user, self.session, self.picture = user, user.session, picture
        self.shown, self.truth = shown, truth
        self.matched = matched(user.session, picture, shown, truth)
        self.label_of = {each.id: truth.labels[row] for row, each in self.matched.items()}
        self.middles = np.array([_middle(each) for each in shown]).reshape(-1, 2)
        self.suggested = [each for each in shown if each.label is not None and not each.taught]

    @property
    def named(self) -> int:
        """How many objects have their names."""
        return sum(
            each.taught and each.label == self.truth.labels[row]
            for row, each in self.matched.items()
        )

    @property
    def state(self) -> str:
        """What there is, in words."""
        right = sum(self.right(each) for each in self.suggested)
        taught = sum(each.taught for each in self.matched.values())
        return (
            f"picture {self.picture}: {len(self.truth.masks)} objects, {taught} done, {right} of "
            f"{len(self.suggested)} suggestions right, {len(self.matched) - taught - right} "
            f"others proposed, {len(self.truth.masks) - len(self.matched)} missed"
        )

    def right(self, each: ShownObject) -> bool:
        """Whether an object has the name that it should have."""
        return self.label_of.get(each.id) == each.label

    def do(self) -> bool:
        """Does it; false when nothing is left to do."""
        new = sorted(set(self.truth.labels) - self.user.known)
        if new:
            self.user.known.add(new[0])
            self.name(new[0], FIRST)
            return True
        suggested = [each for each in self.suggested if self.right(each)]
        if suggested:
            self.accept()
        left = Counter(
            self.truth.labels[row] for row, each in self.matched.items()
            if not (each.taught or each in suggested)
        )  # fmt: skip
        missed = [row for row in range(len(self.truth.masks)) if row not in self.matched]
        few = len(missed) + left.total()
        if few <= (A_FEW if suggested else AT_ONCE):
            # Not worth waiting until the page proposes again.
            for label in left:
                self.name(label, few)
            for label in sorted({self.truth.labels[row] for row in missed}):
                self.draw([row for row in missed if self.truth.labels[row] == label], label)
            return False
        if len(suggested) > A_FEW:
            return True
        if left:
            self.name(max(left, key=lambda label: (left[label], label)), AT_ONCE)
        if left.total() <= A_FEW and missed:
            count = Counter(self.truth.labels[row] for row in missed)
            label = max(count, key=lambda each: (count[each], each))
            rows = [row for row in missed if self.truth.labels[row] == label]
            self.draw(rows, label, DRAWN_AT_ONCE)
        return True

    def presses(self, wanted: Sequence[ShownObject], free: Sequence[ShownObject]) -> int:
        """Clicks that select some objects, perhaps with some of others."""
        ids, spare = ({each.id for each in some} for some in (wanted, free))
        return presses(
            self.middles,
            [each.id in ids for each in self.shown],
            [each.id in spare for each in self.shown],
        )

    def name(self, label: str, most: int) -> None:
        """Names objects without a suggestion, or with a wrong one, in so many clicks or fewer; all
        of them where one box selects them."""
        rows = [
            row for row, each in self.matched.items()
            if self.truth.labels[row] == label and not each.taught and not self.right(each)
        ]  # fmt: skip
        wanted = [self.matched[row] for row in rows]
        if not wanted:
            return
        # To give what has the name already the same name once more changes nothing.
        free = [each for each in self.shown if each.taught and each.label == label]
        boxed = best_clean_box(
            self.middles,
            [any(each is one for one in wanted) for each in self.shown],
            [each in free for each in self.shown],
        )
        chosen = [each for each, inside in zip(self.shown, boxed, strict=True) if inside]
        others = [each for each in wanted if each not in chosen]
        while others and self.presses([*chosen, others[0]], free) <= most:
            chosen.append(others.pop(0))
        self.user.click("name", self.presses(chosen, free) + 1, len(chosen))
        self.session.name(self.picture, [each.id for each in chosen], label)

    def accept(self) -> None:
        """Accepts what is right of the suggestions, in as few clicks as possible: those above the
        slider at once, when the wrong ones of them are put right, and others by selecting and
        confirming them."""
        ranked = sorted(self.suggested, key=lambda each: -each.confidence)
        clicks, count = min((self.plan(ranked, each), each) for each in _cuts(ranked))
        above, below = ranked[:count], ranked[count:]
        bad = [each for each in above if not self.right(each)]
        if bad:
            self.session.decide(self.picture, [
                Named(each.id, self.label_of.get(each.id) or str(each.label),
                      each.id not in self.label_of)
                for each in bad
            ])  # fmt: skip
        if above and _above(ranked, self.user.slider) != count:
            self.user.slider = int(100 * ranked[count - 1].confidence)
        right = [each for each in [*above, *below] if self.right(each)]
        self.user.click("accept", clicks, len(right))
        self.session.decide(self.picture, [Named(each.id, str(each.label)) for each in right])

    def plan(self, ranked: Sequence[ShownObject], count: int) -> int:
        """Clicks, if so many of the surest suggestions are accepted together."""
        above, below = ranked[:count], ranked[count:]
        bad: dict[str | None, list[ShownObject]] = defaultdict(list)
        for each in above:
            if not self.right(each):
                bad[self.label_of.get(each.id)].append(each)
        clicks = 0
        for label, wrong in bad.items():
            # What has no name is only rejected by name, and what has the name may get it again.
            free = [each for each in self.shown if each.label is None] if label is None else [
                each for each in self.shown if each.label == label and self.right(each)
            ]  # fmt: skip
            clicks += self.presses(wrong, free) + 1
        if above:
            clicks += 1 + (_above(ranked, self.user.slider) != count)
        rest = [each for each in below if self.right(each)]
        if rest:
            # Confirming concerns only suggestions.
            free = [each for each in self.shown if each.label is None or each.taught]
            clicks += self.presses(rest, [*free, *above]) + 1
        return clicks

    def draw(self, rows: Sequence[int], label: str, most: float = math.inf) -> None:
        """Makes outlines of one label that nothing proposes, as far as that takes so many presses:
        each by a Ctrl-drag along it, then all are named by a key. A wrong one is undone, and
        painted with the brush: a key chooses it, a Shift-stroke paints one more, a key names all,
        and another one ends that."""
        made: list[Masks] = []
        painted: list[Masks] = []
        presses = 0
        for row in rows:
            mask = self.dragged(row)
            presses += 1 if mask is not None else 2
            if mask is not None:
                made.append(mask)
            else:
                mask, strokes = brushed(self.truth.masks, row)
                painted.append(mask)
                presses += strokes
            if presses > most:
                break
        presses += bool(made) + 3 * bool(painted)
        what = f"draw ({len(painted)} with the brush)" if painted else "draw"
        self.user.click("draw", presses, len(made) + len(painted), what)
        for some in (made, painted):
            if some:
                self.session.draw(self.picture, Masks.concatenate(some), label)

    def dragged(self, row: int) -> Masks | None:
        """The outline of an object by a line along it; None where it is wrong."""
        wanted = self.truth.masks.dense(row)
        pipeline, opened = self.session.detector.pipeline, self.session.opened(self.picture)
        try:
            made = along_line(pipeline, opened, ends_of(wanted))
        except MaskError:
            return None
        found = made.dense(0)
        right = (found & wanted).sum() >= IOU * (found | wanted).sum()
        return made if right else None


def _middle(each: ShownObject) -> tuple[float, float]:
    x, y, width, height = each.bbox_xywh
    return x + width / 2, y + height / 2


def _above(ranked: Sequence[ShownObject], percent: int) -> int:
    """How many suggestions the slider accepts."""
    return sum(100 * each.confidence >= percent for each in ranked)


def _cuts(ranked: Sequence[ShownObject]) -> list[int]:
    """How many a position of the slider can accept: it knows whole percents."""
    percents = [int(100 * each.confidence) for each in ranked]
    ends = [i for i in range(1, len(ranked)) if percents[i] < percents[i - 1]]
    return [0, *ends, len(ranked)]
