"""How much each part of a vector counts, learnt from examples whose answer a person can see."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from sam_detect.labelling import KNNLabeller
from sam_detect.labelling.part_weights import (
    MOST_COMPARED,
    part_factors,
    part_weights,
    spread_over,
)
from sam_detect.types import ExampleArrays, HardNegativeArrays

PARTS = {"colour": 6, "size": 6}
WEIGHTS = {"colour": 0.75, "size": 0.25}


def part(rng: np.random.Generator, centre: int, scatter: float) -> np.ndarray:
    vector = np.eye(6)[centre] + rng.normal(0, scatter, 6)
    return vector / np.linalg.norm(vector)


def vector(rng: np.random.Generator, colour: int | None, size: int | None) -> np.ndarray:
    """A thing of a colour and of a size; None: of almost any."""
    found = [part(rng, each or 0, 0.4 if each is None else 0.05) for each in (colour, size)]
    lengths = np.sqrt([WEIGHTS["colour"], WEIGHTS["size"]])
    return np.concatenate([length * each for length, each in zip(lengths, found, strict=True)])


def library(
    objects: list[np.ndarray], others: list[np.ndarray], labels: tuple[str, ...] = ()
) -> ExampleArrays:
    """Examples, each with as many of the others as hard negatives."""
    count = len(objects)
    owners = np.arange(len(others)) % max(count, 1)
    return ExampleArrays(
        ids=tuple(f"{i:03}" for i in range(count)),
        labels=labels or ("date",) * count,
        sources=tuple(f"{i}.png" for i in range(count)),
        boxes_xywh=np.zeros((count, 4), np.int64),
        negatives=np.zeros(count, bool),
        vectors=np.array(objects, np.float32).reshape(-1, 12),
        hard_negatives=HardNegativeArrays(
            owners=owners.astype(np.int64),
            touching=np.ones(len(others), bool),
            vectors=np.array(others, np.float32).reshape(-1, 12),
            background=np.zeros(len(others), bool),
        ),
        parts=PARTS,
    )


def by_colour(count: int = 6) -> ExampleArrays:
    """Objects of one colour and any size; what is none has the same colour, or nearly, and any
    size: the size makes some of it more similar."""
    rng = np.random.default_rng(0)
    others = [vector(rng, None, None) for i in range(4 * count)]
    return library([vector(rng, 0, None) for _ in range(count)], others)


def by_size(count: int = 6) -> ExampleArrays:
    """All of any colour; what is no object has another size."""
    rng = np.random.default_rng(1)
    others = [vector(rng, None, 1 + i % 3) for i in range(4 * count)]
    return library([vector(rng, None, 0) for _ in range(count)], others)


def test_the_part_that_tells_counts_more() -> None:
    assert part_factors(by_colour())["colour"] > 1 > part_factors(by_colour())["size"]
    assert part_factors(by_size())["size"] > 1 > part_factors(by_size())["colour"]


def test_examples_of_another_label_tell_too() -> None:
    rng = np.random.default_rng(2)
    objects = [vector(rng, None, i % 2) for i in range(10)]
    factors = part_factors(library(objects, [], ("date", "fig") * 5))
    assert factors["size"] > 1 > factors["colour"]


def test_the_weights_still_sum_to_one() -> None:
    for factors in (part_factors(by_colour()), part_factors(by_size())):
        assert sum(WEIGHTS[name] * factors[name] for name in PARTS) == pytest.approx(1, abs=1e-5)


def test_the_more_examples_the_farther_from_the_prior() -> None:
    few, many = part_factors(by_size(2))["size"], part_factors(by_size(30))["size"]
    assert 1 < few < many


@pytest.mark.parametrize("count", [0, 1])
def test_one_example_changes_nothing(count: int) -> None:
    assert part_factors(by_size(count)) == {}


def test_where_nothing_is_known_that_is_no_object_nothing_changes() -> None:
    examples = by_size()
    assert part_factors(replace(examples, hard_negatives=HardNegativeArrays.none(12))) == {}
    assert part_factors(replace(examples, hard_negatives=HardNegativeArrays.none())) == {}


def test_vectors_of_one_part_have_no_factors() -> None:
    assert part_factors(replace(by_size(), parts={})) == {}
    assert part_factors(replace(by_size(), parts={"all": 12})) == {}


def test_negatives_of_the_user_are_left_out() -> None:
    """They are local exceptions, see docs/labelling.md."""
    examples = by_size()
    rng = np.random.default_rng(3)
    more = replace(
        examples,
        labels=(*examples.labels, "date"),
        negatives=np.append(examples.negatives, True),
        vectors=np.vstack([examples.vectors, vector(rng, 3, 0)]).astype(np.float32),
    )
    assert part_factors(more) == part_factors(examples)


def test_the_order_of_the_examples_does_not_matter() -> None:
    examples = by_size()
    order = np.random.default_rng(4).permutation(len(examples.vectors))
    place = np.argsort(order)
    shuffled = replace(
        examples,
        vectors=examples.vectors[order],
        hard_negatives=replace(
            examples.hard_negatives, owners=place[examples.hard_negatives.owners]
        ),
    )
    expected = part_factors(examples)
    for name, factor in part_factors(shuffled).items():
        assert factor == pytest.approx(expected[name], rel=1e-3)


def test_of_many_examples_an_even_sample_is_compared() -> None:
    """Half of a large library are dates that differ by colour; its end alone would not tell."""
    rng = np.random.default_rng(5)
    count = 2 * MOST_COMPARED
    others = [vector(rng, 0, 1) for _ in range(count)] + [vector(rng, 1, 0) for _ in range(count)]
    factors = part_factors(library([vector(rng, 0, 0) for _ in range(count)], others))
    assert 0.2 < factors["colour"] < 2
    assert 0.2 < factors["size"] < 3


def test_the_metric_has_the_learnt_weights() -> None:
    class Memory:
        generation, prior_similarity = "0", 0.9
        arrays = by_size(30)

        def kept(self, name: str, form: type, make: Callable[[], Any]) -> Any:
            return make()

        def examples(self) -> ExampleArrays:
            return self.arrays

    fitted = KNNLabeller().fitted_to(Memory(), None)  # type: ignore[arg-type]
    expected = spread_over(part_factors(Memory.arrays), PARTS)
    np.testing.assert_array_equal(fitted.metric.weights, expected)


def test_factors_spread_over_the_dimensions_of_their_parts() -> None:
    found = spread_over({"colour": 4.0, "size": 0.25}, {"colour": 2, "size": 1})
    np.testing.assert_allclose(found, [2, 2, 0.5])
    assert spread_over({}, PARTS) is None


def test_weights_are_those_of_the_embedder_times_the_learnt_factors() -> None:
    examples = by_size()
    assert part_weights(examples, None) == pytest.approx(WEIGHTS, abs=1e-5)
    learnt = part_weights(examples, spread_over(part_factors(examples), PARTS))
    assert sum(learnt.values()) == pytest.approx(1)
    assert learnt["size"] > WEIGHTS["size"]
    assert part_weights(replace(examples, parts={}), None) == {}
    assert part_weights(library([], []), None) == {}
