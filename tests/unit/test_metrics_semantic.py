"""Pixels of each class, against sets of coordinates."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from metric_helpers import found, items, picture
from strategies import QUICK

from sam_detect.evaluation.comparison import Counts, Item
from sam_detect.evaluation.metrics import pixel_counts, semantic_scores

NONE_SHOWN: frozenset[int | str] = frozenset()
LEFT, RIGHT = (0, 0, 4, 4), (8, 0, 4, 4)


def pixels(bbox_xywh: tuple[float, ...]) -> set[tuple[int, int]]:
    x, y, w, h = (int(v) for v in bbox_xywh)
    return {(row, column) for row in range(y, y + h) for column in range(x, x + w)}


def slow_counts(item: Item, label: str) -> Counts:
    scene, seen, shown = item
    wanted, left_out, said = set(), set(), set()
    for each in scene.objects:
        if each.label == label:
            outside = each.crowd or each.id in shown
            (left_out if outside else wanted).update(pixels(each.bbox_xywh))
    for i, name in enumerate(seen.labels):
        if name == label:
            x0, y0, x1, y1 = seen.masks.boxes_xyxy[i].tolist()
            said |= pixels((x0, y0, x1 - x0, y1 - y0))
    said -= left_out - wanted
    return Counts(len(said & wanted), len(said - wanted), len(wanted - said))


@QUICK
@given(st.lists(items(), max_size=3))
def test_pixels_against_sets(pictures: list[Item]) -> None:
    named = {name for _, seen, _ in pictures for name in seen.labels} - {None}
    labels = named | {o.label for scene, _, _ in pictures for o in scene.objects}
    counts = pixel_counts(pictures)
    assert set(counts) == labels
    for label in labels:
        assert counts[label] == sum((slow_counts(i, str(label)) for i in pictures), Counts())


def test_pixels_in_the_head() -> None:
    scene = picture([("a", LEFT), ("b", RIGHT)])
    # Two halves of the a that share a column count as their union, 16 pixels; 4 beside the b.
    seen = found(
        [("a", 0.9, (0, 0, 3, 4)), ("a", 0.1, (2, 0, 2, 4)), ("b", 0.9, (7, 0, 4, 4)),
         (None, 0.9, (0, 4, 4, 4))]
    )  # fmt: skip
    scores = semantic_scores([(scene, seen, NONE_SHOWN)])
    per_class = scores["per_class"]
    assert per_class["a"] == {**Counts(tp=16).to_dict(), "iou": 1}
    assert per_class["b"] == {**Counts(tp=12, fp=4, fn=4).to_dict(), "iou": 0.6}
    assert scores["precision"] == 28 / 32
    assert scores["recall"] == 28 / 32
    assert scores["f1"] == 28 / 32
    assert scores["iou"] == 28 / 36
    assert scores["f1_macro"] == pytest.approx(0.875)
    assert scores["precision_macro"] == pytest.approx(0.875)
    assert scores["recall_macro"] == pytest.approx(0.875)
    assert scores["mean_iou"] == pytest.approx(0.8)


def test_precision_and_recall_are_not_each_other() -> None:
    scene = picture([("a", LEFT)])
    scores = semantic_scores([(scene, found([("a", 0.9, (0, 0, 2, 4))]), NONE_SHOWN)])
    assert (scores["precision"], scores["recall"]) == (1, 0.5)
    assert (scores["precision_macro"], scores["recall_macro"]) == (1, 0.5)
    assert scores["f1"] == scores["f1_macro"] == pytest.approx(2 / 3)


def test_examples_and_crowds_count_neither_way() -> None:
    scene = picture([("a", LEFT), ("a", (2, 0, 4, 4))], crowds=[("a", RIGHT)])
    seen = found([("a", 0.9, LEFT), ("a", 0.9, RIGHT), ("b", 0.9, RIGHT)])
    counts = pixel_counts([(scene, seen, frozenset({1}))])
    # Of the shown left square, columns 2 and 3 are the second object's too.
    assert counts == {"a": Counts(tp=8, fp=0, fn=8), "b": Counts(fp=16)}


def test_a_class_with_objects_and_no_detections_is_zero_and_nothing_is_none() -> None:
    unseen = semantic_scores([(picture([("a", LEFT)]), found([]), NONE_SHOWN)])
    assert (unseen["precision"], unseen["recall"], unseen["f1"], unseen["mean_iou"]) == (
        None,
        0,
        0,
        0,
    )
    nothing = semantic_scores([])
    assert nothing.pop("per_class") == {}
    assert set(nothing.values()) == {None}
