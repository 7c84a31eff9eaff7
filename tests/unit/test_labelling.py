"""The parts of labelling: the metric, the calibration, and one detection per object."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from closeness import SCORE_TOLERANCE
from hypothesis import given
from hypothesis import strategies as st
from strategies import QUICK

from sam_detect.labelling import KNNLabeller, PrototypeLabeller
from sam_detect.labelling.naming import exchange_for_several, observed_nesting, suppress
from sam_detect.labelling.similarity import TOLERANCE, Metric, calibrate
from sam_detect.types import Classification, ExampleArrays, Masks, Neighbour
from sam_detect.types.overlaps import Clashes, sparse_nms


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


class Memory:
    """A library in arrays."""

    generation = "1"
    prior_similarity = 0.9

    def __init__(
        self, vectors: np.ndarray, labels: list[str], sources: list[str] | None = None
    ) -> None:
        count = len(labels)
        self.arrays = ExampleArrays(
            ids=tuple(f"{i:03}" for i in range(count)),
            labels=tuple(labels),
            sources=tuple(sources or [f"{i}.jpg" for i in range(count)]),
            boxes_xywh=np.zeros((count, 4), np.int64),
            negatives=np.zeros(count, bool),
            vectors=vectors,
        )

    def kept(self, name: str, form: type, make: Callable[[], Any]) -> Any:
        return make()

    def examples(self) -> ExampleArrays:
        return self.arrays

    def vectors(self, ids: list[str]) -> np.ndarray:
        return self.arrays.vectors[[int(i) for i in ids]]

    def nearest(self, vectors: np.ndarray, limit: int) -> list[list[Neighbour]]:
        similar = vectors @ self.arrays.vectors.T
        order = np.argsort(-similar, axis=1, kind="stable")[:, :limit]
        return [
            [
                Neighbour(
                    f"{i:03}", self.arrays.labels[i], float(row[i]), bool(self.arrays.negatives[i])
                )
                for i in nearest
            ]
            for row, nearest in zip(similar, order, strict=True)
        ]


def two_kinds(per_label: int = 8) -> tuple[np.ndarray, list[str]]:
    """Two labels told apart by the first coordinate, scattered widely along the second."""
    rng = np.random.default_rng(0)
    rows, labels = [], []
    for label, side in (("left", -0.4), ("right", 0.4)):
        for _ in range(per_label):
            rows.append([side, rng.normal(0, 1), 2.0, *rng.normal(0, 0.02, 5)])
            labels.append(label)
    return unit(np.array(rows)), labels


def test_the_metric_shrinks_what_scatters_within_labels() -> None:
    vectors, labels = two_kinds()
    metric = Metric.fit(vectors, labels)
    names = np.array(labels)

    def separation(rows: np.ndarray) -> float:
        similar = rows @ rows.T
        same = names[:, None] == names[None, :]
        off = ~np.eye(len(rows), dtype=bool)
        return float(similar[same & off].mean() - similar[~same].mean())

    mapped = metric(vectors)
    assert np.allclose(np.linalg.norm(mapped, axis=1), 1, atol=1e-5)
    assert separation(mapped) > 1.5 * separation(vectors)


def test_the_metric_is_the_plain_cosine_while_no_label_has_two_examples() -> None:
    vectors = unit(np.eye(4)[:3] + 0.1)
    assert np.allclose(Metric.fit(vectors, ["a", "b", "c"])(vectors), vectors, atol=1e-6)


@pytest.mark.parametrize("labeller", [KNNLabeller, PrototypeLabeller])
def test_a_new_object_off_the_scattered_direction_is_named(labeller: type) -> None:
    vectors, labels = two_kinds()
    fresh = unit(np.array([[-0.4, 1.8, 2.0, 0, 0, 0, 0, 0], [0.4, -1.8, 2.0, 0, 0, 0, 0, 0]]))
    classifications = labeller().label(fresh, Memory(vectors, labels))
    assert [classification.best_label for classification in classifications] == ["left", "right"]


def test_something_like_nothing_learnt_is_unknown() -> None:
    vectors, labels = two_kinds()
    strange = unit(np.array([[0.0, 0.0, -1.0, 3.0, -2.0, 0, 0, 0]]))
    classification = KNNLabeller().label(strange, Memory(vectors, labels))[0]
    assert classification.label is None
    assert classification.confidence < 0.1
    assert classification.neighbours


@pytest.mark.parametrize("labeller", [KNNLabeller, PrototypeLabeller])
def test_what_is_nearest_to_a_negative_is_not_given_the_label(labeller: type) -> None:
    vectors, labels = two_kinds()
    memory = Memory(np.concatenate([vectors, vectors[:1]]), [*labels, "left"])
    memory.arrays.negatives[-1] = True
    before = labeller().label(vectors[:1], Memory(vectors, labels))[0]
    after = labeller().label(vectors[:1], memory)[0]
    assert before.label == "left"
    assert after.label != "left"
    elsewhere = labeller().label(vectors[9:10], memory)[0]
    assert elsewhere.label == "right"


LABELLERS = pytest.mark.parametrize("labeller", [KNNLabeller, PrototypeLabeller])


def with_negatives(vectors: np.ndarray, label: str = "left") -> Memory:
    """The two kinds, and negatives of one of them."""
    kinds, labels = two_kinds()
    memory = Memory(np.concatenate([kinds, vectors]), [*labels, *[label] * len(vectors)])
    memory.arrays.negatives[len(kinds) :] = True
    return memory


def scattered(seed: int, count: int = 40) -> np.ndarray:
    """Things like those of the two kinds, between them and around them."""
    rng = np.random.default_rng(seed)
    rows = rng.normal(0, 0.05, (count, 8))
    rows[:, :3] += np.stack([rng.uniform(-1, 1, count), rng.normal(0, 1, count), np.full(count, 2)],
                            axis=1)  # fmt: skip
    return unit(rows)


@LABELLERS
@given(seed=st.integers(0, 10**6), count=st.integers(1, 30))
@QUICK
def test_a_negative_changes_nothing_but_what_it_is_nearest_to(
    labeller: type, seed: int, count: int
) -> None:
    """However many there are, and of whatever label."""
    kinds, labels = two_kinds()
    things, negatives = scattered(seed), scattered(seed + 1, count)
    label = "left" if seed % 2 else "right"
    before = labeller().label(things, Memory(kinds, labels))
    after = labeller().label(things, with_negatives(negatives, label))
    metric = Metric.fit(kinds, labels)
    mapped = metric(things)
    own = (mapped @ metric(kinds[np.array(labels) == label]).T).max(axis=1)
    near = (mapped @ metric(negatives).T).max(axis=1) > own
    for is_near, one, other in zip(near, before, after, strict=True):
        if not is_near:
            assert (other.label, other.best_label) == (one.label, one.best_label)
            assert other.confidence == pytest.approx(one.confidence, abs=SCORE_TOLERANCE)
        elif other.best_label == one.best_label == label:
            assert other.confidence <= one.confidence + SCORE_TOLERANCE


@LABELLERS
@given(seed=st.integers(0, 10**6))
@QUICK
def test_what_was_taught_as_a_negative_never_has_the_label(labeller: type, seed: int) -> None:
    found = scattered(seed, 5)
    classifications = labeller(threshold=0.01).label(found, with_negatives(found))
    assert all(classification.label != "left" for classification in classifications)


@LABELLERS
def test_the_same_negative_again_changes_nothing(labeller: type) -> None:
    things, negatives = scattered(3), scattered(4, 6)
    once = labeller().label(things, with_negatives(negatives))
    again = labeller().label(things, with_negatives(np.repeat(negatives, 9, axis=0)))
    for one, other in zip(once, again, strict=True):
        assert (other.label, other.best_label) == (one.label, one.best_label)
        assert other.confidence == pytest.approx(one.confidence, abs=SCORE_TOLERANCE)


@LABELLERS
def test_what_is_denied_one_label_gets_the_next_best(labeller: type) -> None:
    """Between the two kinds, somewhat nearer to the one."""
    kinds, labels = two_kinds()
    between = unit(np.array([[-0.02, 0.3, 2.0, 0, 0, 0, 0, 0]]))
    before = labeller(threshold=0).label(between, Memory(kinds, labels))[0]
    after = labeller(threshold=0).label(between, with_negatives(between))[0]
    assert (before.label, after.label) == ("left", "right")
    one_kind = Memory(np.concatenate([kinds[:8], between]), ["left"] * 9)
    one_kind.arrays.negatives[-1] = True
    alone = labeller(threshold=0.01).label(between, one_kind)[0]
    assert (alone.label, alone.best_label, alone.confidence) == (
        None,
        "left",
        pytest.approx(0, abs=1e-3),
    )


@LABELLERS
def test_more_negatives_than_are_compared_do_not_hide_the_examples(labeller: type) -> None:
    kinds, labels = two_kinds()
    thing = unit(np.array([[-0.02, 0.3, 2.0, 0, 0, 0, 0, 0]]))
    metric = Metric.fit(kinds, labels)
    nearest = float((metric(kinds) @ metric(thing)[0]).max())
    away = np.random.default_rng(5).normal(0, 1, (120, 8))
    away[:, :3] = 0
    # Nearer than any example, but not so near that they act.
    beside = unit(thing + unit(away) * np.sqrt(2 * 0.8 * (1 - nearest)))
    assert ((metric(beside) @ metric(thing)[0]) > nearest).all()
    before = labeller(threshold=0).label(thing, Memory(kinds, labels))[0]
    after = labeller(threshold=0).label(thing, with_negatives(beside))[0]
    assert after.label == before.label
    assert after.confidence == pytest.approx(before.confidence, abs=SCORE_TOLERANCE)


@LABELLERS
def test_where_somebody_corrects_says_nothing_of_the_examples(labeller: type) -> None:
    """Examples of one picture are compared in another way; a negative in another changes that
    not."""
    kinds, labels = two_kinds()
    weights = np.ones(8, np.float32)
    weights[1] = 0
    things = scattered(6)

    def classifications(negatives: int) -> list[Classification]:
        far = unit(np.array([[0, 0, -1.0, 3, 0, 0, 0, 0]]))[:negatives]
        sources = ["one.jpg"] * len(kinds) + ["two.jpg"] * negatives
        memory = Memory(np.concatenate([kinds, far]), [*labels, *["left"] * negatives], sources)
        memory.arrays.negatives[len(kinds) :] = True
        memory.arrays = replace(memory.arrays, scene_weights=weights)
        return list(labeller().label(things, memory, source="one.jpg")) + list(
            labeller().label(things, memory, source="three.jpg")
        )

    for one, other in zip(classifications(0), classifications(1), strict=True):
        assert other.label == one.label
        assert other.confidence == pytest.approx(one.confidence, abs=SCORE_TOLERANCE)


def test_examples_are_compared_with_those_of_other_pictures() -> None:
    """Near-copies within each picture say nothing of how alike new pictures will be."""
    rng = np.random.default_rng(1)
    rows, sources = [], []
    for picture in range(4):
        centre = np.array([2.0, *rng.normal(0, 0.6, 7)])
        for _ in range(4):
            rows.append(centre + rng.normal(0, 0.005, 8))
            sources.append(f"{picture}.jpg")
    vectors = unit(np.array(rows))
    new = unit(np.array([[2.0, *rng.normal(0, 0.6, 7)]]))

    def confidence(where: list[str]) -> float:
        memory = Memory(vectors, ["x"] * 16, where)
        return KNNLabeller().label(new, memory)[0].confidence

    assert confidence(sources) > confidence(["one.jpg"] * 16)


def test_thresholds_lie_below_what_is_typical_by_the_tolerance() -> None:
    values = np.array([0.90, 0.92, 0.94, 0.96, 0.98])
    found = calibrate({"a": values}, prior_similarity=0.5)
    assert found.thresholds["a"] == pytest.approx(0.94 - TOLERANCE * found.spread)
    assert found.confidence("a", found.thresholds["a"]) == pytest.approx(0.5)
    assert found.confidence("a", 0.94) == pytest.approx(1 / (1 + np.exp(-2)))


def test_a_label_with_one_example_leans_on_the_others() -> None:
    found = calibrate(
        {"many": np.array([0.8, 0.81, 0.82]), "one": np.zeros(0)}, prior_similarity=0.99
    )
    assert found.thresholds["one"] == pytest.approx(found.thresholds["many"])
    alone = calibrate({"one": np.zeros(0)}, prior_similarity=0.99)
    assert alone.thresholds["one"] > found.thresholds["one"]


def boxes(*boxes_xywh: tuple[int, int, int, int], scores: list[float] | None = None) -> Masks:
    dense = np.zeros((len(boxes_xywh), 100, 100), bool)
    for mask, (x, y, w, h) in zip(dense, boxes_xywh, strict=True):
        mask[y : y + h, x : x + w] = True
    found = Masks.from_dense(dense)
    return Masks.from_crops(
        size_hw=(100, 100),
        boxes_xyxy=found.boxes_xyxy,
        crops=found.crops(),
        predicted_ious=scores or [0.9] * len(boxes_xywh),
    )


def says(*labels: str | None, confidence: float = 0.9) -> list[Classification]:
    return [Classification(label, label or "x", confidence if label else 0.1) for label in labels]


WHOLE, PART, APART = (10, 10, 40, 40), (15, 15, 20, 20), (60, 60, 20, 20)


def test_a_part_gives_way_to_the_whole_of_better_quality() -> None:
    masks = boxes(PART, WHOLE, APART, scores=[0.6, 0.9, 0.9])
    assert sorted(suppress(masks, says("a", "a", "a"))[0]) == [1, 2]


def test_a_whole_of_poor_quality_gives_way_to_what_it_swallows() -> None:
    masks = boxes(PART, WHOLE, scores=[0.9, 0.5])
    assert suppress(masks, says("a", "a"))[0].tolist() == [0]


LEFT, RIGHT, BOTH = (10, 10, 20, 20), (32, 10, 20, 20), (10, 10, 42, 20)


def sure(*confidences: float) -> list[Classification]:
    return [Classification("a", "a", confidence) for confidence in confidences]


def test_two_objects_take_the_place_of_both_in_one() -> None:
    masks = boxes(BOTH, LEFT, RIGHT)
    assert suppress(masks, sure(0.95, 0.9, 0.9))[0].tolist() == [1, 2]
    assert suppress(masks, sure(0.99, 0.6, 0.6))[0].tolist() == [0]
    assert suppress(masks, sure(0.7, 0.9, 0.9))[0].tolist() == [1, 2]


def test_one_object_does_not_take_the_place_of_a_better_one() -> None:
    assert suppress(boxes(BOTH, LEFT), sure(0.95, 0.94))[0].tolist() == [0]
    parts_of_one = boxes(BOTH, LEFT, (11, 11, 20, 20))
    assert suppress(parts_of_one, sure(0.95, 0.9, 0.9))[0].tolist() == [0]


def graph(clash: npt.NDArray[np.bool_]) -> Clashes:
    """Of a symmetric matrix."""
    return Clashes(len(clash), np.argwhere(np.triu(clash, 1)))


def test_what_is_less_likely_than_not_costs_nothing() -> None:
    clash = np.zeros((4, 4), bool)
    clash[0, 1:] = clash[1:, 0] = True
    worth = np.array([0.4, 0.25, 0.2, -0.1])
    assert exchange_for_several([0], graph(clash), worth) == [1, 2]


def test_unknown_ones_keep_no_named_one_out() -> None:
    unknown, left, both = (13, 10, 7, 20), (13, 10, 20, 20), (20, 10, 32, 20)
    masks = boxes(both, left, RIGHT, unknown)
    assert suppress(masks[[0, 3]], [*sure(0.95), *says(None)])[0].tolist() == [0, 1]
    assert suppress(masks, [*sure(0.95, 0.9, 0.9), *says(None)])[0].tolist() == [1, 2]


@QUICK
@given(st.integers(0, 2**32 - 1), st.integers(1, 9))
def test_local_search_is_worth_no_less_than_greed_and_never_keeps_two_that_clash(
    seed: int, count: int
) -> None:
    rng = np.random.default_rng(seed)
    clash = rng.random((count, count)) < 0.35
    clash = np.triu(clash, 1) | np.triu(clash, 1).T
    worth = np.sort(rng.uniform(-0.1, 0.5, count))[::-1]
    greedy = sparse_nms(range(count), graph(clash), count)
    found = exchange_for_several(greedy, graph(clash), worth)
    assert not clash[np.ix_(found, found)].any()
    assert worth[found].sum() >= worth[greedy].sum() - 1e-12


def test_another_label_inside_stays_only_where_examples_nest_so() -> None:
    masks = boxes(PART, WHOLE, scores=[0.8, 0.9])
    assert suppress(masks, says("food", "plate"))[0].tolist() == [1]
    nested, _ = suppress(masks, says("food", "plate"), nesting={("food", "plate")})
    assert sorted(nested.tolist()) == [0, 1]
    other_way, _ = suppress(masks, says("food", "plate"), nesting={("plate", "food")})
    assert other_way.tolist() == [1]


def test_unknown_ones_follow_and_give_way() -> None:
    masks = boxes(APART, WHOLE, PART, (62, 60, 20, 20))
    kept, _ = suppress(masks, says(None, "a", None, None))
    assert kept.tolist() == [1, 0]


def test_nothing_in_nothing_out() -> None:
    assert suppress(Masks.empty((5, 5)), [])[0].tolist() == []


def test_nesting_is_read_from_examples_of_one_picture() -> None:
    arrays = ExampleArrays(
        ids=("0", "1", "2", "3"),
        labels=("plate", "food", "food", "cup"),
        sources=("a", "a", "b", "a"),
        boxes_xywh=np.array([WHOLE, PART, PART, APART]),
        negatives=np.zeros(4, bool),
        vectors=np.zeros((4, 2), np.float32),
    )
    assert observed_nesting(arrays) == {("food", "plate")}
