"""The outline of an object as the vote of its proposals."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sam_detect import SAMDetect
from sam_detect.interfaces import Segmenter
from sam_detect.labelling.merging import with_voted_outlines
from sam_detect.types import NO_HINTS, Classification, Frame, Hints, Masks

Mask = npt.NDArray[np.bool_]
SIDE = 60


def square(x: int, y: int, side: int = 20) -> Mask:
    mask = np.zeros((SIDE, SIDE), np.bool_)
    mask[y : y + side, x : x + side] = True
    return mask


def voted(outlines: list[Mask], by: list[int], confidences: list[float], **how: bool) -> list[Mask]:
    masks = Masks.from_dense(outlines)
    found = [Classification("nut", "nut", each, **how) for each in confidences]
    kept = np.flatnonzero(np.array(by) < 0)
    merged = with_voted_outlines(masks, found, kept, np.array(by))
    return [merged.dense(index) for index in range(len(merged))]


def test_most_votes_decide_each_pixel() -> None:
    outlines = [square(10, 10), square(12, 10), square(11, 10)]
    [found] = voted(outlines, [-1, 0, 0], [0.9, 0.9, 0.9])
    assert (found == square(11, 10)).all()


def test_votes_count_as_much_as_a_proposal_is_sure() -> None:
    outlines = [square(10, 10), square(12, 10), square(12, 10)]
    [sure] = voted(outlines, [-1, 0, 0], [0.9, 0.2, 0.2])
    assert (sure == square(10, 10)).all()
    [unsure] = voted(outlines, [-1, 0, 0], [0.9, 0.8, 0.8])
    assert (unsure == square(12, 10)).all()


def test_parts_and_other_objects_have_no_vote() -> None:
    outlines = [square(10, 10), square(10, 10, 9), square(20, 20), square(40, 40)]
    [found, other] = voted(outlines, [-1, 0, 0, -1], [0.9, 0.9, 0.9, 0.9])
    assert (found == square(10, 10)).all()
    assert (other == square(40, 40)).all()


def test_what_was_taught_stays_as_it_was_taught() -> None:
    outlines = [square(10, 10), square(12, 10), square(12, 10)]
    [found] = voted(outlines, [-1, 0, 0], [1.0, 1.0, 1.0], taught=True)
    assert (found == square(10, 10)).all()


class Shaky(Segmenter):
    """Proposes an object three times, and another one once."""

    def propose(self, frame: Frame, hints: Hints = NO_HINTS) -> Masks:
        outlines = [square(9, 10), square(10, 10), square(11, 10), square(38, 36)]
        return Masks.from_crops(
            size_hw=(SIDE, SIDE),
            boxes_xyxy=[[x, y, x + 20, y + 20] for x, y in ((9, 10), (10, 10), (11, 10), (38, 36))],
            crops=[mask[y : y + 20, x : x + 20] for mask, (x, y) in
                   zip(outlines, ((9, 10), (10, 10), (11, 10), (38, 36)), strict=True)],
            predicted_ious=[0.9, 0.88, 0.88, 0.9],
        )  # fmt: skip


def test_a_detector_votes_where_it_is_asked_to() -> None:
    image = np.full((SIDE, SIDE, 3), 30, np.uint8)
    image[square(10, 10) | square(38, 36)] = 200
    frame = Frame(image, "drawn")
    lefts = {}
    for outlines in ("best", "vote"):
        made = SAMDetect(segmenter=Shaky(), embedder="average", vector_store="memory",
                         outlines=outlines)  # fmt: skip
        made.pipeline.learn(frame, Masks.from_dense([square(38, 36)]), ["nut"])
        found = made.detect(frame)
        named = [i for i, label in enumerate(found.label.tolist()) if label == "nut"]
        lefts[outlines] = sorted(found.masks.boxes_xyxy[named, 0].tolist())
    assert lefts == {"best": [9, 38], "vote": [10, 38]}
