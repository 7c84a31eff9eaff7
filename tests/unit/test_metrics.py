"""Figures of matching, against slow references and cases computed in the head."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from metric_helpers import comparison, comparisons, perfect
from scipy.optimize import linear_sum_assignment
from strategies import QUICK

from sam_detect.errors import ConfigError
from sam_detect.evaluation.comparison import (
    Comparison,
    Counts,
    assign,
    macro,
    match,
    pooled,
    total,
)
from sam_detect.evaluation.metrics import (
    IOU_THRESHOLDS,
    confusion,
    instance_scores,
    mean_iou,
    msa,
    proposal_recall,
    proposals_per_image,
    spread,
)
from sam_detect.evaluation.metrics.calibration import expected_calibration_error, reliability

thresholds = st.sampled_from(IOU_THRESHOLDS)


def slow_match(each: Comparison, threshold: float) -> list[int]:
    """Object of each detection, or -1: the rule read aloud."""
    taken: set[int] = set()
    objects = [-1] * len(each.labels)
    for i in sorted(range(len(each.labels)), key=lambda i: (-each.scores[i], i)):
        for j in range(len(each.object_labels)):
            fits = j not in taken and each.labels[i] == each.object_labels[j]
            if fits and each.iou[i, j] >= threshold:
                best = objects[i]
                if best < 0 or each.iou[i, j] >= each.iou[i, best]:
                    objects[i] = j
        taken |= {objects[i]} - {-1}
    return objects


def slow_counts(each: Comparison, threshold: float) -> dict[str, tuple[int, int, int]]:
    """True, false and missed per label."""
    objects = slow_match(each, threshold)
    names = {*each.labels, *each.object_labels} - {None}
    counts = {}
    for name in names:
        mine = [i for i, label in enumerate(each.labels) if label == name]
        tp = sum(objects[i] >= 0 for i in mine)
        fp = sum(objects[i] < 0 and not each.excused[i] for i in mine)
        fn = sum(label == name and j not in objects for j, label in enumerate(each.object_labels))
        counts[name] = (tp, fp, fn)
    return {name: three for name, three in counts.items() if any(three)}


# -- counts ----------------------------------------------------------------------------------


def test_figures_of_counts() -> None:
    counts = Counts(tp=3, fp=1, fn=2)
    assert counts.precision == 3 / 4
    assert counts.recall == 3 / 5
    assert counts.f1 == 6 / 9
    assert counts.jaccard == 3 / 6
    assert counts + Counts(1, 1, 1) == Counts(4, 2, 3)
    assert counts.to_dict() == {
        "tp": 3, "fp": 1, "fn": 2, "precision": 3 / 4, "recall": 3 / 5, "f1": 6 / 9,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("counts", "precision", "recall", "f1"),
    [
        (Counts(), None, None, None),
        (Counts(fp=2), 0, None, 0),
        (Counts(fn=2), None, 0, 0),
        (Counts(fp=1, fn=1), 0, 0, 0),
        (Counts(tp=2), 1, 1, 1),
    ],
)
def test_a_figure_that_does_not_apply_is_none_and_not_zero(
    counts: Counts, precision: float | None, recall: float | None, f1: float | None
) -> None:
    assert counts.precision == precision
    assert counts.recall == recall
    assert counts.f1 == f1
    assert counts.jaccard == f1


def test_pooling_adds_up_pictures_per_class() -> None:
    parts = [{"b": Counts(1, 2, 3), "a": Counts(1, 0, 0)}, {}, {"b": Counts(1, 1, 1)}]
    assert list(pooled(parts).items()) == [("a", Counts(1, 0, 0)), ("b", Counts(2, 3, 4))]
    assert total(pooled(parts)) == Counts(3, 3, 4)


def test_micro_figures_weigh_objects_and_macro_figures_classes() -> None:
    per_class = {
        "common": Counts(tp=9, fn=1, fp=1),
        "rare": Counts(fn=1),
        "not there": Counts(fp=5),
    }
    assert macro(per_class, "f1") == pytest.approx((0.9 + 0) / 2)
    assert macro(per_class, "recall") == pytest.approx((0.9 + 0) / 2)
    assert macro(per_class, "jaccard") == pytest.approx((9 / 11 + 0) / 2)
    assert macro(per_class, "precision") == pytest.approx(0.9)  # of "rare" nothing was found
    assert total(per_class).f1 == 18 / (18 + 6 + 2)
    assert macro({"not there": Counts(fp=5)}, "f1") is None


# -- matching --------------------------------------------------------------------------------


@QUICK
@given(comparisons(), thresholds)
def test_matching_is_the_rule_read_aloud(each: Comparison, threshold: float) -> None:
    matches = match(each, threshold)
    objects = slow_match(each, threshold)
    assert matches.objects.tolist() == objects
    assert matches.ious.tolist() == [each.iou[i, j] if j >= 0 else 0 for i, j in enumerate(objects)]
    assert matches.missed.tolist() == [j not in objects for j in range(len(each.object_labels))]
    counts = {name: (c.tp, c.fp, c.fn) for name, c in matches.per_class.items()}
    assert counts == slow_counts(each, threshold)


@QUICK
@given(comparisons(), thresholds)
def test_nothing_is_counted_twice(each: Comparison, threshold: float) -> None:
    matches = match(each, threshold)
    used = [j for j in matches.objects.tolist() if j >= 0]
    assert len(used) == len(set(used))
    assert matches.counts.tp + matches.counts.fn == len(each.object_labels)
    for i, j in enumerate(matches.objects):
        assert j < 0 or each.labels[i] == each.object_labels[j]
    named = sum(label is not None for label in each.labels)
    silent = sum(
        bool(excused) and label is not None and j < 0
        for label, excused, j in zip(each.labels, each.excused, matches.objects, strict=True)
    )
    assert matches.counts.tp + matches.counts.fp + silent == named


@QUICK
@given(comparisons(), thresholds)
def test_greedy_matching_finds_no_more_than_the_best_pairing(
    each: Comparison, threshold: float
) -> None:
    same = each.labels[:, None] == each.object_labels[None, :]
    possible = (each.iou >= threshold) & np.asarray(same, bool).reshape(each.iou.shape)
    rows, columns = linear_sum_assignment(possible, maximize=True)
    best = int(possible[rows, columns].sum())
    greedy = match(each, threshold).counts.tp
    assert best / 2 <= greedy <= best
    alone = possible.sum(axis=0).max(initial=0) <= 1 and possible.sum(axis=1).max(initial=0) <= 1
    assert greedy == best or not alone  # the papers' pairing is ours where nothing overlaps


def test_the_best_scored_takes_the_object_and_a_duplicate_is_false() -> None:
    each = comparison([[0.6], [0.9]], labels=["a", "a"], scores=[0.9, 0.1], objects=["a"])
    matches = match(each, 0.5)
    assert matches.objects.tolist() == [0, -1]
    assert matches.ious.tolist() == [0.6, 0]
    assert matches.false.tolist() == [False, True]
    assert matches.counts == Counts(tp=1, fp=1)


def test_ties_go_to_the_first_detection_and_the_last_object() -> None:
    each = comparison([[0.7], [0.9]], labels=["a", "a"], scores=[0.5, 0.5], objects=["a"])
    assert match(each, 0.5).objects.tolist() == [0, -1]
    each = comparison([[0.7, 0.7]], labels=["a"], scores=[0.5], objects=["a", "a"])
    assert match(each, 0.5).objects.tolist() == [1]


def test_the_threshold_itself_is_enough() -> None:
    each = comparison([[0.5]], labels=["a"], scores=[0.5], objects=["a"])
    assert match(each, 0.5).counts == Counts(tp=1)
    assert match(each, 0.55).counts == Counts(fp=1, fn=1)


def test_another_label_finds_nothing_and_unknown_is_not_false() -> None:
    each = comparison([[1, 0], [1, 0]], labels=["b", None], scores=[0.9, 0.9], objects=["a", "b"])
    matches = match(each, 0.5)
    assert matches.objects.tolist() == [-1, -1]
    assert matches.per_class == {"a": Counts(fn=1), "b": Counts(fp=1, fn=1)}


def test_an_excused_detection_may_find_an_object_and_is_else_not_counted() -> None:
    each = comparison(
        [[0.8], [0]], labels=["a", "a"], scores=[0.9, 0.9], objects=["a"], excused=[True, True]
    )
    assert match(each, 0.5).counts == Counts(tp=1)


def test_a_detection_whose_best_object_is_taken_takes_the_next() -> None:
    each = comparison(
        [[0.9, 0.6], [0.8, 0.7]], labels=["a", "a"], scores=[0.9, 0.5], objects=["a", "a"]
    )
    assert match(each, 0.5).objects.tolist() == [0, 1]
    assert match(each, 0.5).ious.tolist() == [0.9, 0.7]


@pytest.mark.parametrize(
    ("labels", "objects", "expected"),
    [
        ([], [], Counts()),
        ([], ["a", "b"], Counts(fn=2)),
        (["a", None], [], Counts(fp=1)),
        ([None, None], ["a"], Counts(fn=1)),
    ],
)
def test_matching_without_detections_or_objects(
    labels: list[str | None], objects: list[str], expected: Counts
) -> None:
    overlaps = np.ones((len(labels), len(objects)))
    each = comparison(overlaps, labels=labels, scores=[0.5] * len(labels), objects=objects)
    assert match(each, 0.5).counts == expected


@pytest.mark.parametrize("threshold", [0, -0.5, 1.01, math.nan])
def test_a_threshold_that_everything_or_nothing_reaches_is_refused(threshold: float) -> None:
    with pytest.raises(ConfigError, match="IoU threshold must be above 0"):
        match(perfect("a"), threshold)


def test_assigning_leaves_its_argument_alone() -> None:
    iou = np.array([[0.9, 0.2], [0.9, 0.6]])
    assert assign(iou, [1, 0], 0.5).tolist() == [-1, 0]
    assert assign(iou, [0], 0.5).tolist() == [0, -1]
    assert iou.tolist() == [[0.9, 0.2], [0.9, 0.6]]


# -- figures of comparisons ------------------------------------------------------------------


def test_mean_iou_is_of_detections_that_found_something() -> None:
    each = comparison(
        [[0.6, 0], [0, 0.9], [0.3, 0]], labels=["a"] * 3, scores=[0.5] * 3, objects=["a", "a"]
    )
    assert mean_iou([match(each, 0.5)]) == pytest.approx(0.75)
    assert mean_iou([match(each, 0.5), match(perfect("b", "b"), 0.5)]) == pytest.approx(3.5 / 4)
    assert mean_iou([match(each, 0.95)]) is None
    assert mean_iou([]) is None


@QUICK
@given(st.lists(comparisons(), max_size=3))
def test_mean_iou_and_msa_against_loops(many: list[Comparison]) -> None:
    overlaps = [
        each.iou[i, j] for each in many for i, j in enumerate(slow_match(each, 0.5)) if j >= 0
    ]
    assert mean_iou(match(each, 0.5) for each in many) == (
        pytest.approx(sum(overlaps) / len(overlaps)) if overlaps else None
    )
    pictures = []
    for each in many:
        accuracies = []
        for threshold in (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95):
            three = list(slow_counts(each, threshold).values())
            tp, fp, fn = (sum(counts[i] for counts in three) for i in range(3))
            if tp + fp + fn:
                accuracies.append(tp / (tp + fp + fn))
        if accuracies:
            pictures.append(sum(accuracies) / len(accuracies))
    assert msa(many) == (pytest.approx(sum(pictures) / len(pictures)) if pictures else None)


def test_msa_in_the_head() -> None:
    # IoU .72 counts at .50, .55, .60, .65 and .70: five of ten thresholds. 1 of 1, then 0 of 2.
    half = comparison([[0.72]], labels=["a"], scores=[0.5], objects=["a"])
    assert msa([half]) == pytest.approx(0.5)
    # With a false one beside it 1 of 2 at those thresholds, 0 of 3 at the others.
    more = comparison([[0.72], [0]], labels=["a", "a"], scores=[0.9, 0.5], objects=["a"])
    assert msa([more]) == pytest.approx(0.25)
    # Averaged over pictures, not over objects.
    assert msa([perfect("a", "a", "a"), more]) == pytest.approx((1 + 0.25) / 2)


def test_msa_leaves_out_pictures_that_say_nothing() -> None:
    empty = comparison([], labels=[None], scores=[0.5], objects=[])
    excused = comparison([], labels=["a"], scores=[0.5], objects=[], excused=[True])
    false = comparison([], labels=["a"], scores=[0.5], objects=[])
    assert msa([perfect("a"), empty, excused]) == 1
    assert msa([perfect("a"), false]) == 0.5
    assert msa([empty]) is None
    assert msa([]) is None


def test_proposals_are_counted_apart_from_names() -> None:
    one = comparison([], labels=[], scores=[], objects=["a", "b"], best=[0.5, 0.49], proposals=7)
    two = comparison([], labels=[], scores=[], objects=["a"], best=[0.9], proposals=2)
    none = comparison([], labels=[], scores=[], objects=[], proposals=0)
    assert proposal_recall([one, two, none], 0.5) == pytest.approx(2 / 3)
    assert proposal_recall([one, two, none], 0.95) == 0
    assert proposal_recall([none], 0.5) is None
    assert proposals_per_image([one, two, none]) == 3
    assert proposals_per_image([]) is None


def test_the_scores_of_an_episode() -> None:
    one = comparison(
        [[0.72, 0, 0], [0, 0, 0]],
        labels=["a", "b"],
        scores=[0.9, 0.8],
        objects=["a", "a", "a"],
        best=[0.8, 0.4, 0.3],
        proposals=10,
    )
    scores = instance_scores([one, perfect("b")], 0.5)
    per_class = scores.pop("per_class")
    assert scores == {
        "precision": pytest.approx(2 / 3),
        "recall": pytest.approx(2 / 4),
        "f1": pytest.approx(4 / 7),
        "f1_macro": pytest.approx((2 / 4 + 2 / 3) / 2),
        "mean_iou": pytest.approx(0.86),
        "msa": pytest.approx((0.5 / 4 + 1) / 2),  # 1 of 4 at five of ten thresholds; all of 1
        "proposal_recall": pytest.approx(1 / 4),
        "proposals_per_image": 5,
        # (0.8, 0.9]: both right, 0.1 off; (0.7, 0.8]: one that is wrong.
        "expected_calibration_error": pytest.approx((2 * 0.1 + 1 * 0.8) / 3),
    }
    assert per_class == {"a": Counts(1, 0, 2).to_dict(), "b": Counts(1, 1, 0).to_dict()}


def test_scores_of_no_pictures_are_none() -> None:
    scores = instance_scores([], 0.5)
    assert scores.pop("per_class") == {}
    assert set(scores.values()) == {None}


# -- calibration ------------------------------------------------------------------------------


def slow_calibration_error(each: list[Comparison], threshold: float) -> float | None:
    """Expected calibration error: the formula read aloud."""
    named = [
        (one.scores[i], found >= 0)
        for one in each
        for i, found in enumerate(slow_match(one, threshold))
        if found >= 0 or (one.labels[i] is not None and not one.excused[i])
    ]
    error = 0.0
    for k in range(10):
        inside = [pair for pair in named if k / 10 < pair[0] <= (k + 1) / 10]
        if inside:
            confidence = math.fsum(c for c, _ in inside) / len(inside)
            precision = sum(right for _, right in inside) / len(inside)
            error += len(inside) / len(named) * abs(precision - confidence)
    return error if named else None


@QUICK
@given(st.lists(comparisons(), max_size=3), thresholds)
def test_expected_calibration_error_is_the_formula(
    each: list[Comparison], threshold: float
) -> None:
    found = expected_calibration_error(reliability(each, threshold))
    assert found == pytest.approx(slow_calibration_error(each, threshold))


def test_a_reliability_bin_is_of_the_named_and_counted() -> None:
    one = comparison(
        [[1, 0], [0, 0], [0, 0], [0, 0], [0, 0]],
        labels=["a", "a", "a", None, "a"],
        scores=[0.45, 0.5, 1.0, 0.42, 0.48],
        objects=["a", "a"],
        excused=[False, False, False, False, True],
    )
    bins = reliability([one], 0.5)
    assert len(bins) == 2
    low, high = bins
    assert (low.low, low.high, low.count, low.precision) == (0.4, 0.5, 2, 0.5)
    assert low.confidence == pytest.approx(0.475)
    assert (high.low, high.high, high.count, high.precision) == (0.9, 1.0, 1, 0.0)


# -- confusion -------------------------------------------------------------------------------


@QUICK
@given(st.lists(comparisons(), max_size=3), thresholds)
def test_confusion_against_loops(many: list[Comparison], threshold: float) -> None:
    expected: Counter[tuple[str, str]] = Counter()
    for each in many:
        taken: set[int] = set()
        key = [(label is None, -score) for label, score in zip(each.labels, each.scores)]  # noqa: B905
        for i in sorted(range(len(key)), key=lambda i: (key[i], i)):
            free = [j for j in range(len(each.object_labels)) if j not in taken]
            near = [j for j in free if each.iou[i, j] >= threshold]
            best = max(near, key=lambda j: (each.iou[i, j], j), default=None)
            said = each.labels[i] or "unknown"
            if best is not None:
                taken.add(best)
                expected[each.object_labels[best], said] += 1
            elif not each.excused[i]:
                expected["nothing", said] += 1
        for j, label in enumerate(each.object_labels):
            expected[label, "missed"] += j not in taken
    result = confusion(many, threshold)
    assert result.table.shape == (len(result.rows), len(result.columns))
    for row, there in enumerate(result.rows):
        for column, said in enumerate(result.columns):
            assert result.table[row, column] == expected[there, said], (there, said)
    assert result.table.sum() == sum(expected.values())


@QUICK
@given(comparisons(), thresholds)
def test_every_object_stands_in_one_cell_of_its_row(each: Comparison, threshold: float) -> None:
    result = confusion([each], threshold)
    for row, label in enumerate(result.labels):
        assert result.table[row].sum() == (each.object_labels == label).sum()


def test_confusion_in_the_head() -> None:
    each = comparison(
        [
            [0.9, 0, 0, 0],  # "b" on the first a, better scored than ...
            [0.9, 0, 0, 0],  # ... "a" on the same: nothing is left for it
            [0, 0.8, 0, 0],  # "b" on the b
            [0, 0, 0.8, 0],  # unknown on the second a
            [0, 0, 0, 0.3],  # unknown, beside everything
            [0, 0, 0, 0],  # "a", of an example that was shown
        ],
        labels=["b", "a", "b", None, None, "a"],
        scores=[0.9, 0.8, 0.7, 0.99, 0.99, 0.6],
        objects=["a", "b", "a", "b"],
        excused=[False] * 5 + [True],
    )
    result = confusion([each], 0.5)
    assert result.rows == ("a", "b", "nothing")
    assert result.columns == ("a", "b", "unknown", "missed")
    assert result.table.tolist() == [[0, 1, 1, 0], [0, 1, 0, 1], [1, 0, 1, 0]]


def test_named_detections_choose_before_unknown_ones() -> None:
    each = comparison([[0.9], [0.6]], labels=[None, "a"], scores=[0.9, 0.1], objects=["a"])
    assert confusion([each], 0.5).table.tolist() == [[1, 0, 0], [0, 1, 0]]


def test_confusion_of_nothing_is_an_empty_table() -> None:
    assert confusion([], 0.5).table.tolist() == [[0, 0]]


# -- seeds -----------------------------------------------------------------------------------


def test_spread_over_seeds() -> None:
    three = spread([0.2, None, 0.4, 0.6])
    assert (three.mean, three.std, three.count) == (pytest.approx(0.4), pytest.approx(0.2), 3)
    assert spread([0.5]) == spread([None, 0.5])
    assert (spread([0.5]).mean, spread([0.5]).std) == (0.5, None)
    assert (spread([None]).mean, spread([]).std, spread([]).count) == (None, None, 0)
    assert spread([0.5, 0.5]).std == 0
    assert spread([0.0, 0.1, 0.8]).mean == pytest.approx(0.3)
