"""COCO's figures: given to its own code rightly, and our matching against its."""

from __future__ import annotations

import contextlib
import io
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from metric_helpers import SIZE_HW, Rectangle, filled, found, items, picture
from pycocotools import coco, cocoeval
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from strategies import QUICK

from sam_detect.evaluation.comparison import Counts, Item, compare, match
from sam_detect.evaluation.dataset import AnnotatedObject
from sam_detect.evaluation.methods import Predictions
from sam_detect.evaluation.metrics import IOU_THRESHOLDS
from sam_detect.evaluation.metrics.coco import coco_scores
from sam_detect.types import Masks

NONE_SHOWN: frozenset[int | str] = frozenset()
LEFT, MIDDLE, RIGHT = (0, 0, 4, 4), (4, 0, 4, 4), (8, 0, 4, 4)
many = st.lists(items(), max_size=3)


def aside(item: Item, each: AnnotatedObject) -> bool:
    return each.crowd or each.id in item[2]


def stock(pictures: list[Item], *, boxes: bool = False) -> COCOeval | None:
    """COCO's evaluation as its users run it: a dataset, ``loadRes``, all default settings."""
    labels = sorted({o.label for item in pictures for o in item[0].objects})
    annotations: list[dict[str, Any]] = []
    results: list[dict[str, Any]] = []
    for number, item in enumerate(pictures):
        scene, seen, _ = item
        for each in scene.objects:
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": labels.index(each.label),
                    "bbox": list(each.bbox_xywh),
                    "area": each.bbox_xywh[2] * each.bbox_xywh[3],
                    "segmentation": each.mask_rle,
                    "iscrowd": int(aside(item, each)),
                }
            )
        for i, label in enumerate(seen.labels):
            x0, y0, x1, y1 = seen.masks.boxes_xyxy[i].tolist()
            place = (
                {"bbox": [x0, y0, x1 - x0, y1 - y0]}
                if boxes
                else {"segmentation": seen.masks.rle(i)}
            )
            if label in labels:
                row = {"image_id": number, "category_id": labels.index(label)}
                results.append({**row, "score": float(seen.scores[i]), **place})
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = {
            "info": {},  # type: ignore[typeddict-item]
            "images": [  # type: ignore[typeddict-item]
                {"id": n, "height": SIZE_HW[0], "width": SIZE_HW[1]} for n in range(len(pictures))
            ],
            "categories": [{"id": n, "name": label} for n, label in enumerate(labels)],  # type: ignore[typeddict-item]
            "annotations": annotations,  # type: ignore[typeddict-item]
        }
        truth.createIndex()
        if not results:
            return None
        evaluation = COCOeval(truth, truth.loadRes(results), "bbox" if boxes else "segm")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


def overlap(one: Any, other: Any) -> float:
    return float((one & other).sum() / (one | other).sum())


def slow_hits(item: Item, label: str, threshold: float) -> list[tuple[float, bool]]:
    """``(score, true)`` of the up to 100 best detections of one picture, without those aside."""
    scene, seen, _ = item
    outlines = [
        (aside(item, o), picture_mask(o.bbox_xywh)) for o in scene.objects if o.label == label
    ]
    mine = [i for i, name in enumerate(seen.labels) if name == label]
    mine = sorted(mine, key=lambda i: -seen.scores[i])[:100]
    taken, hits = set(), []
    for i in mine:
        mask = seen.masks.dense(i)
        best, best_iou = None, threshold
        for j, (left_out, outline) in enumerate(outlines):
            if j not in taken and not left_out and overlap(mask, outline) >= best_iou:
                best, best_iou = j, overlap(mask, outline)
        covered = (
            (mask & outline).sum() / mask.sum() for left_out, outline in outlines if left_out
        )
        if best is not None:
            taken.add(best)
            hits.append((float(seen.scores[i]), True))
        elif max(covered, default=0) < threshold:
            hits.append((float(seen.scores[i]), False))
    return hits


def picture_mask(bbox_xywh: tuple[float, ...]) -> Any:
    x, y, w, h = (int(v) for v in bbox_xywh)
    mask = np.zeros(SIZE_HW, np.bool_)
    mask[y : y + h, x : x + w] = True
    return mask


def slow_scores(pictures: list[Item]) -> dict[str, Any] | None:
    """AP by its definition: the mean, over 101 recalls, of the best precision at that recall or
    beyond; averaged over ten thresholds and the classes that have objects."""
    labels = sorted({o.label for item in pictures for o in item[0].objects if not aside(item, o)})
    if not labels:
        return None
    precisions, recalls = {}, {}
    for label in labels:
        there = sum(
            o.label == label and not aside(item, o) for item in pictures for o in item[0].objects
        )
        for threshold in IOU_THRESHOLDS:
            hits = [hit for item in pictures for hit in slow_hits(item, label, threshold)]
            hits.sort(key=lambda hit: -hit[0])
            points = []
            for rank in range(1, len(hits) + 1):
                tp = sum(true for _, true in hits[:rank])
                points.append((tp / there, tp / rank))
            best = [
                max((p for r, p in points if r >= recall), default=0)
                for recall in np.linspace(0, 1, 101)
            ]
            precisions[label, threshold] = sum(best) / 101
            recalls[label, threshold] = points[-1][0] if points else 0
    return {
        "ap": np.mean(list(precisions.values())),
        "ap50": np.mean([precisions[label, 0.5] for label in labels]),
        "ar100": np.mean(list(recalls.values())),
        "per_class_ap": {
            label: pytest.approx(np.mean([precisions[label, t] for t in IOU_THRESHOLDS]))
            for label in labels
        },
    }


@QUICK
@given(many)
def test_ap_by_its_definition(pictures: list[Item]) -> None:
    scores, expected = coco_scores(pictures), slow_scores(pictures)
    if expected is None:
        assert scores == {"ap": None, "ap50": None, "ar100": None, "per_class_ap": {}}
        return
    for name in ("ap", "ap50", "ar100"):
        assert scores[name] == pytest.approx(expected[name]), name  # type: ignore[literal-required]
    assert scores["per_class_ap"] == expected["per_class_ap"]


@QUICK
@given(many, st.booleans())
def test_the_figures_are_those_of_anybody_who_runs_pycocotools(
    pictures: list[Item], boxes: bool
) -> None:
    scores, evaluation = coco_scores(pictures, boxes), stock(pictures, boxes=boxes)
    if evaluation is None:
        assert scores["ap"] in (0, None)
        return
    ours = [scores["ap"], scores["ap50"], scores["ar100"]]
    theirs = [evaluation.stats[0], evaluation.stats[1], evaluation.stats[8]]
    assert [-1 if value is None else value for value in ours] == pytest.approx(theirs)


def agree_with_coco(item: Item, threshold: float, *, boxes: bool) -> None:
    """Counts of every class, and which detection found which object."""
    evaluation = stock([item], boxes=boxes)
    if evaluation is None:
        return
    matches = match(compare(item[0], item[1], boxes=boxes, iou_threshold=threshold), threshold)
    names = sorted({o.label for o in item[0].objects})
    level = IOU_THRESHOLDS.index(threshold)
    theirs: dict[str, Counts] = {}
    pairs = []
    for each in evaluation.evalImgs:
        if not each or each["aRng"] != [0, 1e10]:
            continue
        counted = ~np.asarray(each["dtIgnore"], bool)[level]
        taken = np.asarray(each["dtMatches"])[level].astype(int)
        free = np.asarray(each["gtMatches"])[level] == 0
        theirs[names[each["category_id"]]] = Counts(
            tp=int((counted & (taken > 0)).sum()),
            fp=int((counted & (taken == 0)).sum()),
            fn=int((free & ~np.asarray(each["gtIgnore"], bool)).sum()),
        )
        # COCO counts detections and objects from 1, in the order in which it was given them.
        pairs += [
            (d - 1, t - 1)
            for d, t, kept in zip(each["dtIds"], taken, counted, strict=True)
            if kept and t
        ]
    ours = {label: matches.per_class.get(label, Counts()) for label in theirs}
    assert ours == theirs
    given = [matches.objects[i] for i, name in enumerate(item[1].labels) if name in names]
    assert sorted(pairs) == [(i, j) for i, j in enumerate(given) if j >= 0]


@QUICK
@given(items(shown=False), st.sampled_from(IOU_THRESHOLDS), st.booleans())
def test_our_matching_is_that_of_coco(item: Item, threshold: float, boxes: bool) -> None:
    """To the ties. Where the two differ: COCO looks at 100 detections of a class, we at all; COCO
    gives no counts for classes that have no annotation; and it is given shown examples as crowds
    (see the next test). Crowds excuse alike, if at one threshold."""
    agree_with_coco(item, threshold, boxes=boxes)


def test_of_duplicates_coco_takes_the_same_one() -> None:
    seen = [("a", 0.1, LEFT), ("a", 0.9, (0, 0, 4, 3)), ("a", 0.5, LEFT)]
    agree_with_coco(item([("a", LEFT)], seen), 0.5, boxes=False)


def test_a_fragment_of_an_example_is_false_to_us_and_aside_to_coco() -> None:
    """COCO knows no other way of setting an object aside than a crowd, which takes fragments."""
    scene = picture([("a", LEFT), ("a", RIGHT)])
    seen = found([("a", 0.9, (0, 0, 2, 2)), ("a", 0.8, RIGHT)])
    shown: frozenset[int | str] = frozenset({1})
    assert coco_scores([(scene, seen, shown)])["ap"] == pytest.approx(1)
    assert match(compare(scene, seen, shown=shown), 0.5).counts.fp == 1


# -- in the head -----------------------------------------------------------------------------


def item(
    objects: list[tuple[str, Rectangle]],
    detections: list[tuple[str | None, float, Rectangle]],
    shown: frozenset[int | str] = NONE_SHOWN,
) -> Item:
    return picture(objects), found(detections), shown


def test_half_of_the_objects_found_is_half_of_the_recalls() -> None:
    scores = coco_scores([item([("a", LEFT), ("a", RIGHT)], [("a", 0.9, LEFT)])])
    assert scores["ap"] == pytest.approx(51 / 101)  # recalls 0, .01, ... .50 of 0, .01, ... 1
    assert scores["ap50"] == pytest.approx(51 / 101)
    assert scores["ar100"] == pytest.approx(0.5)
    assert scores["per_class_ap"] == {"a": pytest.approx(51 / 101)}


def test_a_false_one_before_the_true_ones_costs_precision() -> None:
    false_first = [("a", 0.9, MIDDLE), ("a", 0.8, LEFT), ("a", 0.7, RIGHT)]
    false_last = [("a", 0.1, MIDDLE), ("a", 0.8, LEFT), ("a", 0.7, RIGHT)]
    objects = [("a", LEFT), ("a", RIGHT)]
    assert coco_scores([item(objects, false_first)])["ap"] == pytest.approx(2 / 3)
    assert coco_scores([item(objects, false_last)])["ap"] == pytest.approx(1)


def test_ap50_asks_for_less_overlap_than_ap() -> None:
    # 12 of 16 pixels: .50, .55, .60, .65, .70 and .75 are reached.
    scores = coco_scores([item([("a", LEFT)], [("a", 0.9, (0, 0, 4, 3))])])
    assert scores["ap50"] == pytest.approx(1)
    assert scores["ap"] == pytest.approx(0.6)
    assert scores["ar100"] == pytest.approx(0.6)
    # 8 of 16: .50 alone.
    scores = coco_scores([item([("a", LEFT)], [("a", 0.9, (0, 0, 4, 2))])])
    assert scores["ap50"] == pytest.approx(1)
    assert scores["ap"] == pytest.approx(0.1)


def test_classes_are_averaged_and_those_without_objects_left_out() -> None:
    everything = [("a", LEFT), ("b", MIDDLE)]
    scores = coco_scores([item(everything, [("a", 0.9, LEFT), ("never annotated", 0.9, RIGHT)])])
    assert scores["ap"] == pytest.approx(0.5)
    assert scores["per_class_ap"] == {"a": pytest.approx(1), "b": 0}


def test_pictures_are_pooled_and_one_may_come_twice() -> None:
    good = item([("a", LEFT)], [("a", 0.9, LEFT)])
    bad = item([("a", LEFT)], [("a", 0.95, RIGHT)])
    assert coco_scores([good])["ap"] == pytest.approx(1)
    assert coco_scores([good, bad])["ap"] == pytest.approx(51 / 101 / 2)
    assert coco_scores([bad, good])["ar100"] == pytest.approx(0.5)


def test_examples_found_again_are_not_false_but_misnamed_ones_are() -> None:
    objects = [("a", LEFT), ("a", RIGHT), ("b", MIDDLE)]
    shown: frozenset[int | str] = frozenset({1})
    rest = [("a", 0.5, RIGHT), ("b", 0.5, MIDDLE)]
    again = coco_scores([item(objects, [("a", 0.9, LEFT), ("a", 0.8, LEFT), *rest], shown)])
    assert again["ap"] == pytest.approx(1)
    assert again["ar100"] == pytest.approx(1)  # an example that is not found is not missed
    misnamed = coco_scores([item(objects, [("b", 0.9, LEFT), *rest], shown)])
    assert misnamed["per_class_ap"] == {"a": pytest.approx(1), "b": pytest.approx(0.5)}


def test_unknown_detections_are_left_out() -> None:
    seen = [(None, 0.9, RIGHT), ("a", 0.5, LEFT)]
    assert coco_scores([item([("a", LEFT)], seen)])["ap"] == pytest.approx(1)
    assert coco_scores([item([("a", LEFT)], [(None, 0.9, LEFT)])])["ap"] == 0


@pytest.mark.parametrize(("before", "expected"), [(99, 1), (100, 0)])
def test_only_the_hundred_best_of_a_picture_and_class_are_looked_at(
    before: int, expected: float
) -> None:
    wrong = [("a", 0.9, RIGHT)] * before
    scores = coco_scores([item([("a", LEFT), ("b", MIDDLE)], [*wrong, ("a", 0.1, LEFT)])])
    assert scores["ar100"] == pytest.approx(expected / 2)
    other_class = [("b", 0.9, RIGHT)] * before
    scores = coco_scores([item([("a", LEFT)], [*other_class, ("a", 0.1, LEFT)])])
    assert scores["ar100"] == pytest.approx(1)


def test_boxes_are_compared_where_asked() -> None:
    # The box of an L is the square; its outline is 7 of the 16 pixels.
    scene = picture([("a", RIGHT)])
    corner = Masks.from_dense(filled((8, 0, 4, 1)) | filled((8, 0, 1, 4)))
    seen = Predictions(corner, ("a",), np.array([0.9], np.float32), corner)
    assert coco_scores([(scene, seen, NONE_SHOWN)], boxes=True)["ap"] == pytest.approx(1)
    assert coco_scores([(scene, seen, NONE_SHOWN)], boxes=False)["ap"] == 0


def test_no_objects_to_find() -> None:
    nothing = {"ap": None, "ap50": None, "ar100": None, "per_class_ap": {}}
    assert coco_scores([]) == nothing
    assert coco_scores([item([], [("a", 0.9, LEFT)])]) == nothing
    assert coco_scores([item([("a", LEFT)], [], frozenset({1}))]) == nothing


def test_objects_but_no_detections_is_zero() -> None:
    scores = coco_scores([item([("a", LEFT)], [])])
    assert scores == {"ap": 0, "ap50": 0, "ar100": 0, "per_class_ap": {"a": 0}}


def test_nothing_is_printed_and_pycocotools_stays_as_it_is(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    stdout, seen = sys.stdout, []
    judged = COCOeval.evaluateImg

    def evaluate_image(self: Any, *given: Any) -> Any:
        seen.append((sys.stdout is stdout, "print" in vars(cocoeval), "print" in vars(coco)))
        return judged(self, *given)

    monkeypatch.setattr(COCOeval, "evaluateImg", evaluate_image)
    coco_scores([item([("a", LEFT)], [("a", 0.9, LEFT)])])
    assert set(seen) == {(True, False, False)}, "meanwhile, too: other threads may print"
    assert capsys.readouterr().out == ""
    COCO().createIndex()
    assert "index created" in capsys.readouterr().out
