"""What lies on what, and what is excused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from metric_helpers import filled, found, items, masks, picture
from strategies import QUICK

from sam_detect.evaluation.comparison import Item, compare, match
from sam_detect.evaluation.methods import Predictions
from sam_detect.types import Masks

SQUARE = (0, 0, 4, 4)
RIGHT_OF_IT = (4, 0, 4, 4)


@QUICK
@given(items(), st.booleans())
def test_overlaps_are_pixels_counted_one_by_one(item: Item, boxes: bool) -> None:
    """Rectangles are their own boxes."""
    scene, seen, shown = item
    each = compare(scene, seen, shown=shown, boxes=boxes)
    wanted = [o for o in scene.objects if not o.crowd and o.id not in shown]
    there = [filled(tuple(map(int, o.bbox_xywh))) for o in wanted]  # type: ignore[arg-type]
    expected = np.zeros((len(seen.masks), len(wanted)))
    for i in range(len(seen.masks)):
        for j, mask in enumerate(there):
            said = seen.masks.dense(i)
            expected[i, j] = (said & mask).sum() / (said | mask).sum()
    np.testing.assert_allclose(each.iou, expected)
    np.testing.assert_allclose(each.best_proposal_iou, expected.max(axis=0, initial=0))
    assert each.object_labels.tolist() == [o.label for o in wanted]
    assert each.labels.tolist() == list(seen.labels)
    assert each.proposals == len(seen.proposals)


@pytest.mark.parametrize("boxes", [False, True])
def test_an_example_found_again_is_excused_unless_it_is_misnamed(boxes: bool) -> None:
    scene = picture([("a", SQUARE), ("a", RIGHT_OF_IT)])
    names = ("a", "b", None)
    seen = found([(name, 0.9, SQUARE) for name in names])
    each = compare(scene, seen, shown=frozenset({1}), boxes=boxes)
    assert each.object_labels.tolist() == ["a"]
    assert each.excused.tolist() == [True, False, True]
    assert match(each, 0.5).counts.fp == 1


def test_an_example_excuses_from_its_threshold_on() -> None:
    scene = picture([("a", SQUARE)])
    seen = found([("a", 0.9, (0, 0, 4, 2)), ("a", 0.9, (0, 0, 3, 2))])  # IoU 8/16 and 6/16
    shown = frozenset({1})
    assert compare(scene, seen, shown=shown).excused.tolist() == [True, False]
    assert compare(scene, seen, shown=shown, iou_threshold=0.6).excused.tolist() == [False, False]


def test_a_crowd_excuses_what_lies_mostly_in_it() -> None:
    scene = picture([], crowds=[("a", SQUARE)])
    inside, half, outside = (1, 1, 1, 1), (2, 0, 4, 4), (3, 0, 4, 4)
    seen = found([("a", 0.9, place) for place in (inside, half, outside)] + [("b", 0.9, inside)])
    each = compare(scene, seen)
    assert each.object_labels.tolist() == []
    assert each.excused.tolist() == [True, True, False, False]


def test_boxes_are_compared_where_asked() -> None:
    scene = picture([("a", RIGHT_OF_IT)])
    corner = Masks.from_dense(filled((4, 0, 4, 1)) | filled((4, 0, 1, 4)))  # 7 of 16 pixels
    seen = Predictions(corner, ("a",), np.array([0.9], np.float32), corner)
    assert compare(scene, seen, boxes=True).iou.tolist() == [[1]]
    assert compare(scene, seen, boxes=False).iou.tolist() == [[7 / 16]]


def test_proposals_are_not_detections() -> None:
    seen = found([("a", 0.9, (0, 0, 4, 2))])
    considered = Predictions(seen.masks, seen.labels, seen.scores, masks([SQUARE, RIGHT_OF_IT]))
    each = compare(picture([("a", SQUARE)]), considered)
    assert each.iou.tolist() == [[0.5]]
    assert each.best_proposal_iou.tolist() == [1]
    assert each.proposals == 2


def test_nothing_found_and_nothing_there() -> None:
    empty = Predictions.nothing(picture([]).size_hw)
    assert compare(picture([]), empty).iou.shape == (0, 0)
    assert compare(picture([("a", SQUARE)]), empty).best_proposal_iou.tolist() == [0]
    assert compare(picture([]), found([("a", 0.9, SQUARE)])).excused.tolist() == [False]


def test_a_crowd_of_which_only_the_box_is_known_is_filled() -> None:
    scene = picture([], crowds=[("a", SQUARE)])
    boxed = replace(scene, objects=tuple(replace(o, mask_rle=None) for o in scene.objects))
    seen = found([("a", 0.9, (1, 1, 1, 1)), ("a", 0.9, RIGHT_OF_IT)])
    assert compare(boxed, seen).excused.tolist() == [True, False]
