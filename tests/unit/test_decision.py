"""What speaks for or against a label beside similarity.

Vectors are unit vectors of the plane, given by their angle in degrees; the metric is the plain
cosine, so that a similarity is the cosine of the angle between two of them.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import QUICK

from sam_detect.labelling import decision as module
from sam_detect.labelling.decision import (
    NEAREST_HARD_NEGATIVES,
    SHIFT_KNOWN,
    DecisionModel,
    expected_shift,
)
from sam_detect.labelling.similarity import Calibration, Metric
from sam_detect.types import ExampleArrays, HardNegativeArrays
from sam_detect.types.explanation import confidence_of

Floats = npt.NDArray[np.float32]
PLAIN = Metric(np.zeros((0, 2), np.float32), np.zeros(0, np.float32))
SPREAD = 0.02
LIMIT = math.cos(math.radians(12))
"""Confidence is one half 12 degrees from the nearest example."""


def at(*degrees: float) -> Floats:
    radians = np.deg2rad(np.array(degrees, np.float64))
    return np.stack([np.cos(radians), np.sin(radians)], axis=1).astype(np.float32)


def gathered(
    examples: Sequence[tuple[str, float]],
    hard_negatives: Sequence[tuple[int, bool | None, float]],
    *,
    sources: Sequence[str] | None = None,
    at_hand: str | None = None,
    **arrays: Any,
) -> DecisionModel | None:
    """The model of examples ``(label, angle)`` and hard negatives ``(owner, touching, angle)``.

    A label that begins with ``!`` is a negative's. What is background has None for touching.
    """
    labels = tuple(label.lstrip("!") for label, _ in examples)
    known = ExampleArrays(
        ids=tuple(str(index) for index in range(len(examples))),
        labels=labels,
        sources=tuple(sources or [f"{index}.png" for index in range(len(examples))]),
        boxes_xywh=np.zeros((len(examples), 4), np.int64),
        negatives=np.array([label.startswith("!") for label, _ in examples], np.bool_),
        vectors=at(*[angle for _, angle in examples]),
        hard_negatives=HardNegativeArrays(
            owners=np.array([owner for owner, _, _ in hard_negatives], np.int64),
            touching=np.array([bool(touching) for _, touching, _ in hard_negatives], np.bool_),
            vectors=at(*[angle for _, _, angle in hard_negatives]),
            background=np.array([touching is None for _, touching, _ in hard_negatives], np.bool_),
        ),
        **arrays,
    )
    calibration = Calibration(dict.fromkeys(labels, LIMIT), SPREAD)
    pictures: dict[str, list[str]] = {}
    for label, source, negative in zip(labels, known.sources, known.negatives, strict=True):
        pictures.setdefault(label, []).extend([] if negative else [source])
    shift = {label: expected_shift(of, at_hand) for label, of in pictures.items()}
    return DecisionModel.gather(known, PLAIN, calibration, shift=shift)


def angles(vectors: Floats) -> list[int]:
    return sorted(round(math.degrees(math.atan2(y, x))) for x, y in vectors.tolist())


def found(*arguments: Any, **options: Any) -> DecisionModel:
    decision = gathered(*arguments, **options)
    assert decision is not None
    return decision


def hard_negatives(*arguments: Any) -> Mapping[str, list[int]]:
    decision = found(*arguments)
    return {name: angles(decision.hard_negatives[rows]) for name, rows in decision.not_of.items()}


# -- which counterexamples count ---------------------------------------------------------------

NUT_AND_DATE = (("nut", 0.0), ("date", 90.0))


def test_what_touches_an_example_is_not_its_label_however_alike_it_looks() -> None:
    assert hard_negatives([("nut", 0)], [(0, True, 1)]) == {"nut": [1]}


def test_what_looks_like_nothing_known_is_no_label_at_all() -> None:
    for touching in (True, False):
        assert hard_negatives(NUT_AND_DATE, [(0, touching, 45)]) == {"nut": [45], "date": [45]}


def test_what_lies_beside_and_may_be_an_unnamed_object_is_left_out() -> None:
    assert hard_negatives(NUT_AND_DATE, [(0, False, 2), (0, False, 88), (0, False, 180)]) == {
        "nut": [180], "date": [180],
    }  # fmt: skip


def test_a_part_that_passes_as_another_label_speaks_against_its_owner_alone() -> None:
    """Food on a plate is no plate; but it is food."""
    assert hard_negatives([("plate", 0), ("food", 90)], [(0, True, 88)]) == {
        "plate": [88],
        "food": [],
    }


def test_the_confidence_of_the_nearest_example_counts() -> None:
    assert hard_negatives([("nut", -60), ("nut", 0), ("date", 90)], [(2, True, 2)]) == {
        "nut": [], "date": [2],
    }  # fmt: skip


def test_what_lies_at_negatives_is_no_evidence() -> None:
    assert gathered([("nut", 0), ("!nut", 40)], [(1, True, 2), (1, False, 180)]) is None
    assert hard_negatives([("nut", 0), ("!nut", 40)], [(0, True, 60), (1, True, 2)]) == {
        "nut": [60]
    }
    assert gathered([("!nut", 0)], [(0, True, 60)]) is None


def test_without_surroundings_there_is_no_evidence() -> None:
    assert gathered(NUT_AND_DATE, []) is None
    assert gathered([], []) is None


def test_many_rivals_are_compared_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    around = [(int(i) % 2, bool(i % 3), float(a)) for i, a in enumerate(rng.uniform(0, 360, 50))]
    whole = hard_negatives(NUT_AND_DATE, around)
    monkeypatch.setattr(module, "AT_ONCE", 7)
    assert hard_negatives(NUT_AND_DATE, around) == whole
    assert len(whole["nut"]) > 20


# -- what they weigh ---------------------------------------------------------------------------


def confidence(
    decision: DecisionModel, label: str = "nut", angle: float = 5, **given: Any
) -> float:
    values = {"similarity": math.cos(math.radians(angle)), **given}
    calibrated = values.pop("calibrated", 0.8)
    [hard_negative] = decision.nearest_hard_negatives([label], at(angle))[0].tolist()
    return confidence_of(
        sum(decision.odds(label, calibrated, hard_negative=hard_negative, **values).values())
    )


def rising(values: Sequence[float]) -> bool:
    return all(b > a for a, b in itertools.pairwise(values))


BASE = found([("nut", 0), ("nut", 8), ("date", 90)], [(0, True, 30)])


def test_confidence_rises_with_calibration_and_with_similarity() -> None:
    assert rising([confidence(BASE, calibrated=b) for b in (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0)])
    assert rising([confidence(BASE, similarity=s) for s in (0.7, 0.8, 0.9, 0.95, 0.99)])


def test_confidence_falls_the_nearer_the_rivals_are() -> None:
    made = [found([("nut", 0), ("nut", 8)], [(0, True, angle)]) for angle in (12, 20, 35, 60, 80)]
    assert rising([confidence(decision) for decision in made])


def test_a_rival_itself_is_not_believed_and_the_example_is() -> None:
    assert confidence(BASE, angle=30, similarity=math.cos(math.radians(22)), calibrated=0.4) < 0.4
    assert confidence(BASE, angle=0) > 0.8


def test_only_the_nearest_rivals_count_in_any_order() -> None:
    near = [(0, True, float(a)) for a in (28, 30, 32)][:NEAREST_HARD_NEGATIVES]
    few = found([("nut", 0), ("nut", 8)], near)
    more = [*near, *[(0, True, float(a)) for a in range(100, 160, 10)]]
    expected = confidence(few)
    for order in (more, more[::-1]):
        assert confidence(found([("nut", 0), ("nut", 8)], order)) == pytest.approx(expected)
    single = found([("nut", 0), ("nut", 8)], near[:1])
    assert confidence(single) != pytest.approx(expected)


def test_rivals_of_many_vectors_are_those_of_each(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    around = [(i % 2, True, float(a)) for i, a in enumerate(rng.uniform(10, 80, 30))]
    decision = found(NUT_AND_DATE, around)
    names = [None, *["nut", "date"] * 10]
    vectors = at(*rng.uniform(0, 90, 21))
    monkeypatch.setattr(module, "AT_ONCE", 5)
    together, _ = decision.nearest_hard_negatives(names, vectors)
    assert math.isnan(together[0])
    for name, vector, value in zip(names[1:], vectors[1:], together[1:], strict=True):
        nearest = sorted((decision.hard_negatives[decision.not_of[str(name)]] @ vector).tolist())[
            -NEAREST_HARD_NEGATIVES:
        ]
        assert value == pytest.approx(np.mean(nearest), abs=1e-6)


def test_the_more_examples_the_less_like_them_the_background_has_to_be() -> None:
    background, nearby = (0, None, 23.5), (0, False, 23.5)  # its confidence is .04
    assert hard_negatives([("nut", 0)], [background, (0, True, 1)]) == {"nut": [1, 24]}
    five = [("nut", float(angle) / 10) for angle in range(5)]
    assert hard_negatives(five, [background, (0, True, 1)]) == {"nut": [1]}
    assert hard_negatives(five, [nearby, (0, True, 1)]) == {"nut": [1, 24]}


def test_it_is_known_whether_the_nearest_rival_is_background() -> None:
    decision = found([("nut", 0)], [(0, True, 30), (0, True, 34), (0, None, 60)])
    assert decision.background.tolist() == [False, False, True]
    names = ["nut", "nut", None]
    _, background = decision.nearest_hard_negatives(names, at(32, 58, 60))
    assert background.tolist() == [False, True, False]


def test_background_can_only_take_confidence_away() -> None:
    examples, around = [("nut", 0.0), ("nut", 8.0)], [(0, True, 40.0)]
    without = confidence(found(examples, around))
    far = [(0, None, float(angle)) for angle in range(100, 160, 10)]
    assert confidence(found(examples, [*around, *far])) == pytest.approx(without)
    near = [(0, None, float(angle)) for angle in (34, 36, 38)]
    assert confidence(found(examples, [*around, *near])) < without


def test_a_label_with_background_alone_is_given_nothing_for_being_unlike_it() -> None:
    examples = [("plate", 0.0), ("plate", 4.0), ("food", 90.0), ("food", 94.0)]
    part_of_plate = [(0, True, 88.0)]
    given = {"label": "food", "angle": 118, "similarity": math.cos(math.radians(24))}
    nothing = confidence(found(examples, part_of_plate), **given)
    far, near = (found(examples, [*part_of_plate, (2, None, angle)]) for angle in (180.0, 120.0))
    assert far.around == near.around == ("plate",)
    assert confidence(far, **given) == pytest.approx(nothing)
    assert confidence(near, **given) < nothing
    assert gathered(examples, [(2, None, 180.0)]) is None, "nothing is known around any example"


def test_a_label_without_rivals_is_weighed_without_them() -> None:
    decision = found([("plate", 0), ("food", 90)], [(0, True, 88)])
    assert len(decision.not_of["food"]) == 0
    assert 0 < confidence(decision, "food", 90, similarity=1.0) < 1


QUALITIES = {
    "qualities": np.array([0.7, 0.7, 0.3], np.float32),
    "proposers": ("naive", "naive", "naive"),
}


def test_confidence_rises_with_the_quality() -> None:
    decision = found([("nut", 0), ("nut", 8), ("date", 90)], [(0, True, 30)], **QUALITIES)
    assert rising([confidence(decision, quality=q) for q in (0.5, 0.55, 0.6, 0.65, 0.7)])
    assert confidence(decision) == confidence(BASE)
    assert confidence(BASE, quality=0.1) == confidence(BASE), "the examples' are not known"


def test_the_typical_quality_is_the_examples_own_drawn_to_what_is_usual() -> None:
    assert found(NUT_AND_DATE, [(0, True, 30)]).qualities == {}
    nothing = np.full(2, np.nan, np.float32)
    assert found(NUT_AND_DATE, [(0, True, 30)], qualities=nothing).qualities == {}
    typical = found([("nut", 0), ("nut", 8), ("date", 90)], [(0, True, 30)], **QUALITIES).qualities
    assert 0.3 < typical["date"] < typical["nut"] < 0.7
    some = np.array([0.5, np.nan], np.float32)
    lean = found(NUT_AND_DATE, [(0, True, 30)], qualities=some).qualities
    assert lean["date"] == pytest.approx(lean["nut"]) == pytest.approx(0.5)
    many = [("nut", float(i) / 50) for i in range(200)]
    values = np.append(np.full(200, 0.2), 0.9).astype(np.float32)
    own = found([*many, ("date", 90)], [(0, True, 30)], qualities=values).qualities
    assert own["nut"] == pytest.approx(0.2, abs=0.02)


def test_the_quality_of_a_negative_is_not_typical() -> None:
    values = np.array([0.6, 0.1], np.float32)
    typical = found([("nut", 0), ("!nut", 50)], [(0, True, 30)], qualities=values).qualities
    assert typical == {"nut": pytest.approx(0.6)}


def test_confidence_falls_with_a_size_unlike_any_examples() -> None:
    areas = np.array([1000, 2000, 500], np.int64)
    decision = found([("nut", 0), ("nut", 8), ("date", 90)], [(0, True, 30)], areas=areas)
    assert set(decision.log_areas) == {"nut", "date"}
    sizes = [confidence(decision, area=area) for area in (100_000, 20_000, 6_000, 2_000)]
    assert rising(sizes)
    assert rising([confidence(decision, area=area) for area in (20, 100, 400, 1000)])
    assert sizes[-1] == confidence(decision) == confidence(BASE)


def test_examples_of_one_picture_are_more_alike_than_what_is_to_come() -> None:
    here = found([("nut", 0), ("nut", 8), ("date", 90)], [(0, True, 30)], sources=["a", "a", "b"])
    assert here.shift == {"nut": 1, "date": 1}
    assert BASE.shift == {"nut": 0, "date": 1}
    assert BASE.counts == {"nut": 2, "date": 1}
    assert confidence(here) > confidence(BASE)
    with_negative = found([("nut", 0), ("!nut", 50)], [(0, True, 30)], sources=["a", "b"])
    assert with_negative.shift == {"nut": 1}
    assert with_negative.counts == {"nut": 1}
    same = found([("nut", 0), ("nut", 8)], [(0, True, 30)], sources=["a", "a"], at_hand="a")
    assert same.shift == {"nut": 0}, "what is to come is of that picture, too"


@QUICK
@given(
    st.lists(st.sampled_from("abcd"), min_size=7, max_size=20),
    st.sampled_from("abcde"),
    st.sampled_from("abcde"),
)
def test_one_more_example_changes_the_expected_shift_by_little(
    sources: list[str], added: str, at_hand: str
) -> None:
    before, after = expected_shift(sources), expected_shift([*sources, added])
    assert 0 <= after <= 1
    assert abs(after - before) <= 1 / (SHIFT_KNOWN * (len(sources) + 1))
    assert after <= before or added == max(set(sources), key=sources.count)
    share = sources.count(at_hand) / len(sources)
    assert expected_shift(sources, at_hand) == pytest.approx(before * (1 - share))


def test_the_expected_shift_falls_from_one_picture_to_several() -> None:
    shifts = [expected_shift(["a"] * 10 + ["b"] * count) for count in range(6)]
    assert shifts == pytest.approx([1, 1 - 5 / 11, 1 - 10 / 12, 0, 0, 0])
    assert expected_shift(["a"]) == 1
    assert expected_shift(["a"] * 4 + ["b"]) == pytest.approx(0)
    assert expected_shift(["a", "a", "b", "c"]) == 0
    assert expected_shift([]) == 0


def of_nuts(count: int, sources: Sequence[str]) -> DecisionModel:
    return found([("nut", 0)] * count, [(0, True, 30)], sources=sources)


def test_few_examples_do_not_show_how_alike_they_are() -> None:
    # A calibrated of one half weighs nothing, however many examples it rests on.
    made = [of_nuts(count, ["a"] * count) for count in (1, 2, 5)]
    assert rising([confidence(decision, calibrated=0.5) for decision in made])


@pytest.mark.parametrize("total", [4.0, 0.3, -4.0])
def test_few_examples_justify_little_confidence_and_decide_nothing(total: float) -> None:
    drawn = []
    for count in (1, 5, 50):
        decision = found([("nut", 0.1 * k) for k in range(count)], [(0, True, 60)])
        drawn.append(total + decision.few_examples("nut", total))
    assert sorted(map(abs, drawn)) == [abs(each) for each in drawn]
    assert all(0 < each / total < 1 for each in drawn)
    assert drawn[-1] == pytest.approx(total, rel=0.02)


def test_the_more_examples_the_more_their_similarity_says() -> None:
    made = [of_nuts(count, [f"{i}" for i in range(count)]) for count in (2, 5, 20)]
    assert rising([confidence(decision, calibrated=0.9) for decision in made])
    assert rising([-confidence(decision, calibrated=0.1) for decision in made])


# -- how well things stand out in a picture ------------------------------------------------------

SOFT = found([("nut", 0), ("nut", 8)], [(0, True, 30)], sources=["a", "a"],
             qualities=np.array([0.4, 0.4], np.float32))  # fmt: skip


def level(
    decision: DecisionModel, qualities: Sequence[float], odds: Sequence[float]
) -> list[float]:
    labels = ["nut"] * (len(qualities) - 1) + [None]
    values = np.array(odds, np.float32), np.array(qualities, np.float32)
    return decision.shift_of_picture(labels, *values).tolist()


def test_in_a_sharp_picture_more_is_asked_and_in_a_soft_one_less() -> None:
    sharp = level(SOFT, [0.7, 0.7, 0.7, 0.3, 0.9], [2, 2, 2, -3, 2])
    assert sharp[0] == sharp[3] < 0 == sharp[4], "all of the label, and nothing of no label"
    soft = level(SOFT, [0.3, 0.3, 0.3, 0.9, 0.9], [2, 2, 2, -3, 2])
    assert soft[0] == soft[3] > 0
    assert level(SOFT, [0.4, 0.4, 0.1], [2, 2, 2]) == pytest.approx([0, 0, 0], abs=1e-5)


def test_the_level_of_a_picture_is_that_of_the_best_proposed_that_pass() -> None:
    parts = level(SOFT, [*[0.2] * 5, 0.7, 0.7, 0.3], [2.0] * 8)
    assert parts[0] < 0, "most of what passes are parts"
    assert level(SOFT, [0.9, 0.9, 0.9], [-1, -0.1, 2]) == [0, 0, 0], "nothing of it passes"


def test_the_more_there_is_in_a_picture_the_more_its_level_counts() -> None:
    few, many = (level(SOFT, [0.7] * n + [0.1], [1.0] * (n + 1))[0] for n in (1, 30))
    assert many < few < 0


def test_labels_known_from_several_pictures_or_without_qualities_have_no_level() -> None:
    known = found([("nut", 0)] * 5, [(0, True, 30)], qualities=np.full(5, 0.4, np.float32))
    assert level(known, [0.9, 0.9, 0.9], [2, 2, 2]) == [0, 0, 0]
    bare = found([("nut", 0), ("nut", 8)], [(0, True, 30)], sources=["a", "a"])
    assert level(bare, [0.9, 0.9, 0.9], [2, 2, 2]) == [0, 0, 0]


number = st.floats(0, 1, width=32)


@QUICK
@given(
    st.lists(st.tuples(st.sampled_from(["nut", "fig"]), st.floats(0, 360)), min_size=1, max_size=6),
    st.lists(st.tuples(st.integers(0, 5), st.booleans(), st.floats(0, 360)), max_size=9),
    st.floats(0, 360), number, st.none() | number, st.none() | st.integers(1, 10**9),
)  # fmt: skip
def test_a_confidence_is_a_number_from_0_to_1_and_always_the_same(
    examples: list[tuple[str, float]],
    around: list[tuple[int, bool, float]],
    angle: float,
    calibrated: float,
    quality: float | None,
    area: int | None,
) -> None:
    nearby = [(owner % len(examples), touching, a) for owner, touching, a in around]
    looks: dict[str, Any] = {
        "qualities": np.linspace(0, 1, len(examples), dtype=np.float32),
        "areas": np.arange(1, len(examples) + 1) * 100,
    }
    decision = gathered(examples, nearby, **looks)
    if decision is None:
        assert not nearby
        return
    for label in {name for name, _ in examples}:
        value, again = (
            confidence(made, label, angle, calibrated=calibrated, quality=quality, area=area)
            for made in (decision, found(examples, nearby, **looks))
        )
        assert 0 <= value <= 1
        assert value == again
