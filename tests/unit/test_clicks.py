"""From clicks to an outline: chosen among proposals, put together, or seen by its colours."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from sam_detect.errors import MaskError
from sam_detect.segmentation import NaiveSegmenter
from sam_detect.segmentation.clicks import mask_for_clicks, outline_clicks
from sam_detect.types import Frame, Masks

SIZE = (120, 160)


def disc(x: float, y: float, radius: float) -> np.ndarray:
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
    return (columns - x) ** 2 + (rows - y) ** 2 <= radius**2


LEFT, RIGHT = disc(55, 60, 22), disc(97, 60, 22)
PICTURE = np.full((*SIZE, 3), 210, np.uint8)
PICTURE[LEFT] = (180, 60, 40)
PICTURE[RIGHT] = (60, 60, 180)
FRAME = Frame(cv2.GaussianBlur(PICTURE, (3, 3), 0), "discs")


def iou(mask: Masks, truth: np.ndarray) -> float:
    found = mask.dense(0)
    return float((found & truth).sum() / (found | truth).sum())


def asked(proposals: Masks, *clicks: tuple[float, float, bool]) -> Masks:
    points = [(x, y) for x, y, _ in clicks]
    return mask_for_clicks(FRAME, proposals, points, [sign for *_, sign in clicks])


def test_the_proposal_that_agrees_with_all_clicks_is_chosen() -> None:
    both = Masks.from_dense([LEFT | RIGHT, LEFT, RIGHT])
    assert iou(asked(both, (55, 60, True)), LEFT | RIGHT) == 1
    assert iou(asked(both, (55, 60, True), (97, 60, False)), LEFT) == 1
    assert iou(asked(both, (55, 60, True), (97, 60, True)), LEFT | RIGHT) == 1


def test_proposals_are_put_together_and_cut_off() -> None:
    parts = Masks.from_dense([LEFT, RIGHT])
    assert iou(asked(parts, (55, 60, True), (97, 60, True)), LEFT | RIGHT) == 1
    whole = Masks.from_dense([LEFT | RIGHT, RIGHT])
    assert iou(asked(whole, (55, 60, True), (97, 60, False)), LEFT & ~RIGHT) > 0.98


def test_without_proposals_colours_decide() -> None:
    none = Masks.empty(SIZE)
    assert iou(asked(none, (55, 60, True), (97, 60, False)), LEFT) > 0.8
    boxed = mask_for_clicks(FRAME, none, [(97, 60)], [True], (72, 35, 50, 50))
    assert iou(boxed, RIGHT) > 0.8


def test_a_box_alone_is_what_a_box_is_elsewhere() -> None:
    segmenter = NaiveSegmenter()
    found = outline_clicks(
        FRAME, segmenter, propose=segmenter.segment, clicks_xy=[], positive=[],
        box_xywh=(33, 38, 44, 44),
    )  # fmt: skip
    assert iou(found, LEFT) > 0.85


@pytest.mark.parametrize(
    ("clicks", "signs", "words"),
    [
        ([], [], "click on the object first"),
        ([(5, 5)], [False], "click on the object first"),
        ([(5, 5)], [], "as many signs"),
        ([(500, 5)], [True], "outside"),
        ([(float("nan"), 5)], [True], "two numbers"),
    ],
)
def test_bad_clicks_are_said(
    clicks: list[tuple[float, float]], signs: list[bool], words: str
) -> None:
    with pytest.raises(MaskError, match=words):
        outline_clicks(
            FRAME, NaiveSegmenter(), propose=lambda _: Masks.empty(SIZE), clicks_xy=clicks,
            positive=signs,
        )  # fmt: skip
