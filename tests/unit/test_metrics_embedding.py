"""Quality of vectors, against every pair looked at one by one."""

from __future__ import annotations

import tracemalloc
from unittest import mock

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import QUICK

from sam_detect.evaluation.metrics import embedding
from sam_detect.evaluation.metrics.embedding import knn_purity, separability, silhouette

Vectors = npt.NDArray[np.float32]
Cloud = tuple[Vectors, list[str | None], list[int]]

EAST, NORTH, WEST = (1.0, 0.0), (0.0, 1.0), (-1.0, 0.0)


def vectors(*rows: tuple[float, ...]) -> Vectors:
    return np.array(rows, np.float32)


@st.composite
def clouds(draw: st.DrawFn, *, most: int = 12) -> Cloud:
    """Vectors of four halves, plus or minus: their products are exact, and often tie."""
    count = draw(st.integers(0, most))
    halves = st.tuples(*[st.sampled_from([-0.5, 0.5])] * 4)
    rows = np.array([draw(halves) for _ in range(count)], np.float32).reshape(count, 4)
    labels = [draw(st.sampled_from(["a", "b", "c", None])) for _ in range(count)]
    return rows, labels, [draw(st.integers(1, 3)) for _ in range(count)]


block_pairs = st.sampled_from([1, 7, 30, 2_000_000])


def slow_separability(cloud: Cloud) -> float | None:
    rows, labels, pictures = cloud
    pairs = [
        (float(rows[i] @ rows[j]), labels[i] == labels[j], pictures[i] != pictures[j])
        for i in range(len(rows))
        for j in range(i + 1, len(rows))
        if not (labels[i] is None and labels[j] is None)
    ]
    apart = [pair for pair in pairs if pair[2]]
    if {same for _, same, _ in apart} == {True, False}:
        pairs = apart
    alike = [cosine for cosine, same, _ in pairs if same]
    different = [cosine for cosine, same, _ in pairs if not same]
    if not alike or not different:
        return None
    won = [(a > d) + (a == d) / 2 for a in alike for d in different]
    return sum(won) / len(won)


def slow_purity(cloud: Cloud, k: int) -> float | None:
    rows, labels, pictures = cloud
    shares = []
    for i, label in enumerate(labels):
        elsewhere = [j for j in range(len(rows)) if pictures[j] != pictures[i]]
        others = [j for j in range(len(rows)) if j != i]
        candidates = elsewhere if len(elsewhere) >= k else others
        if label is None or label not in [labels[j] for j in candidates]:
            continue
        nearest = sorted(candidates, key=lambda j: -float(rows[i] @ rows[j]))[:k]
        shares.append(sum(labels[j] == label for j in nearest) / len(nearest))
    return sum(shares) / len(shares) if shares else None


def slow_silhouette(cloud: Cloud) -> float | None:
    rows, labels, _ = cloud
    values = []
    for i, label in enumerate(labels):
        distances: dict[str | None, list[float]] = {label: []}
        for j, other in enumerate(labels):
            if j != i:
                distances.setdefault(other, []).append(1 - float(rows[i] @ rows[j]))
        means = {name: sum(d) / len(d) for name, d in distances.items() if d}
        if label is None or len({*labels}) < 2:
            continue
        if label not in means:
            values.append(0.0)
            continue
        own = means.pop(label)
        next_best = min(means.values())
        widest = max(own, next_best)
        values.append((next_best - own) / widest if widest > 0 else 0.0)
    return sum(values) / len(values) if values else None


def nearly(value: float | None) -> object:
    return value if value is None else pytest.approx(value, abs=1e-6)


@QUICK
@given(clouds(), block_pairs)
def test_separability_against_every_pair(cloud: Cloud, pairs: int) -> None:
    with mock.patch.object(embedding, "BLOCK_PAIRS", pairs):
        assert separability(*cloud) == nearly(slow_separability(cloud))


@QUICK
@given(clouds(), block_pairs, st.integers(1, 6))
def test_purity_against_sorted_neighbours(cloud: Cloud, pairs: int, k: int) -> None:
    with mock.patch.object(embedding, "BLOCK_PAIRS", pairs):
        assert knn_purity(*cloud, k=k) == nearly(slow_purity(cloud, k))


@QUICK
@given(clouds())
def test_silhouette_against_every_pair(cloud: Cloud) -> None:
    assert silhouette(cloud[0], cloud[1]) == nearly(slow_silhouette(cloud))


def drawn(count: int, *, noise: float, seed: int = 0) -> Cloud:
    """Three labels around a direction each, and non-objects anywhere."""
    generator = np.random.default_rng(seed)
    labels = [("a", "b", "c", None)[i % 4] for i in range(count)]
    rows = generator.normal(size=(count, 8)) * noise
    for i, label in enumerate(labels):
        if label is not None:
            rows[i, "abc".index(label)] += 1
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows.astype(np.float32), labels, [i // 10 for i in range(count)]


@pytest.mark.parametrize("noise", [0.1, 0.5, 2])
def test_real_numbers_give_what_every_pair_gives(noise: float) -> None:
    cloud = drawn(80, noise=noise)
    assert separability(*cloud) == pytest.approx(slow_separability(cloud), abs=1e-4)
    assert knn_purity(*cloud) == pytest.approx(slow_purity(cloud, 5))
    assert silhouette(cloud[0], cloud[1]) == pytest.approx(slow_silhouette(cloud), abs=1e-5)


def test_separability_in_the_head() -> None:
    rows = vectors(EAST, EAST, NORTH, NORTH)
    places = [1, 2, 3, 4]
    assert separability(rows, ["a", "a", "b", "b"], places) == 1
    # Pairs of one label: 0 and 0. Of two labels: 1, 0, 0 and 1. Two of four are tied.
    assert separability(rows, ["a", "b", "a", "b"], places) == pytest.approx(0.25)
    assert separability(vectors(EAST, EAST, EAST), ["a", "a", "b"], [1, 2, 3]) == 0.5
    assert separability(vectors(EAST, EAST, NORTH), ["a", "a", None], [1, 2, 3]) == 1


def test_separability_looks_at_different_pictures_where_it_can() -> None:
    rows = vectors(EAST, NORTH, EAST, NORTH)
    labels = ["a", "a", "b", "b"]
    # Across pictures: a-a 0 and b-b 0; a-b 1, 0, 0, 1. All in one picture: the same pairs.
    assert separability(rows, labels, [1, 1, 1, 1]) == pytest.approx(0.25)
    # The pair of b's within picture 2 (0) is not looked at, and a-a (0) against the same four is.
    rows = vectors(EAST, EAST, NORTH, WEST)
    within = separability(rows, labels, [1, 2, 2, 2])
    everywhere = separability(rows, labels, [1, 1, 1, 1])
    assert within == 1  # a-a 1 against a-b 0 and -1
    assert everywhere == pytest.approx((4 + 2 * 0.5 + 2) / 8)  # b-b 0 ties with 0 twice, beats -1


def test_purity_in_the_head() -> None:
    rows = vectors(EAST, (0.8, 0.6), (0.6, 0.8), NORTH)
    labels = ["a", "a", "b", "b"]
    assert knn_purity(rows, labels, [1, 2, 3, 4], k=1) == pytest.approx(2 / 4)
    # (.8, .6) is nearer to (.6, .8) than to its own; so the other way round. Of two neighbours:
    assert knn_purity(rows, labels, [1, 2, 3, 4], k=2) == pytest.approx((1 + 1 + 1 + 1) / 2 / 4)
    assert knn_purity(rows, ["a", None, None, "a"], [1, 2, 3, 4], k=1) == 0
    assert knn_purity(rows, ["a", "a", None, None], [1, 2, 3, 4], k=1) == pytest.approx(1 / 2)
    # Fewer than five others: all of them.
    assert knn_purity(rows, ["a", "a", "b", None], [1, 2, 3, 4]) == pytest.approx(1 / 3)


def test_neighbours_are_sought_in_other_pictures() -> None:
    rows = vectors(EAST, EAST, NORTH, NORTH)
    labels = ["a", "b", "a", "b"]
    assert knn_purity(rows, labels, [1, 1, 2, 2], k=1) == pytest.approx(0.5)
    assert knn_purity(rows, labels, [1, 1, 1, 1], k=1) == 0
    # The other pictures hold fewer than k vectors: the own picture's are taken in.
    assert knn_purity(rows, labels, [1, 1, 2, 2], k=3) == pytest.approx(1 / 3)
    # They hold exactly k, none of them of the label.
    assert knn_purity(rows, ["a", "a", "b", "b"], [1, 1, 2, 2], k=2) is None


def test_purity_asks_for_five_neighbours() -> None:
    rows = vectors(*[(1.0, 0.0)] * 12)
    labels = ["a"] * 6 + ["b"] * 6
    # All alike, so the first five others: of each a five a's, of each b none.
    assert knn_purity(rows, labels, list(range(12))) == pytest.approx(0.5)


def test_an_object_without_its_like_is_not_asked() -> None:
    rows = vectors(EAST, EAST, NORTH)
    assert knn_purity(rows, ["a", "a", "b"], [1, 2, 3], k=1) == 1
    assert knn_purity(rows, ["a", "b", "c"], [1, 2, 3], k=1) is None


def test_silhouette_in_the_head() -> None:
    rows = vectors(EAST, EAST, WEST, WEST)
    assert silhouette(rows, ["a", "a", "b", "b"]) == 1
    assert silhouette(rows, ["a", "b", "a", "b"]) == pytest.approx(-0.5)  # a = 2, b = (0 + 2) / 2
    assert silhouette(rows, ["a", "a", None, None]) == 1
    assert silhouette(vectors(EAST, EAST, NORTH), ["a", "a", "b"]) == pytest.approx(2 / 3)
    assert silhouette(vectors(EAST, EAST, EAST), ["a", "a", "b"]) == 0
    assert silhouette(vectors(EAST, EAST, WEST, NORTH), ["a", "a", None, None]) == 1


@pytest.mark.parametrize("labels", [[], [None, None], ["a", "a"], ["a"]])
def test_labels_that_nothing_can_be_told_apart_in(labels: list[str | None]) -> None:
    rows = vectors(*[EAST] * len(labels)).reshape(-1, 2)
    assert separability(rows, labels, list(range(len(labels)))) is None
    assert silhouette(rows, labels) is None


def test_no_objects_have_no_purity() -> None:
    assert knn_purity(vectors(EAST, EAST), [None, None], [1, 2]) is None
    assert knn_purity(vectors().reshape(0, 2), [], []) is None


def test_blocks_do_not_matter() -> None:
    cloud = drawn(30, noise=0.5)
    whole = [separability(*cloud), knn_purity(*cloud)]
    with mock.patch.object(embedding, "BLOCK_PAIRS", 200):
        assert [separability(*cloud), knn_purity(*cloud)] == whole
    assert whole == pytest.approx([slow_separability(cloud), slow_purity(cloud, 5)], abs=1e-4)


def test_not_all_pairs_are_held_at_once() -> None:
    cloud = drawn(2000, noise=0.5)
    with (
        mock.patch.object(embedding, "BLOCK_PAIRS", 50_000),
        mock.patch.object(embedding, "BINS", 999),
    ):
        tracemalloc.start()
        separability(*cloud)
        knn_purity(*cloud)
        silhouette(cloud[0], cloud[1])
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 2000 * 2000 * 4 / 3, f"{peak} bytes at once: more than a third of all cosines"
