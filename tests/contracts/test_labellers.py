"""What every registered labeller keeps to: the promises of ``interfaces.Labeller``.

The library is a fake: its examples are unit vectors of the plane, given by their angle in degrees,
so that a similarity is the cosine of the angle between two of them. Each example comes from
a picture of its own unless ``pictures`` says how many there are.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from closeness import SCORE_TOLERANCE

from sam_detect import registry
from sam_detect.config import load_settings
from sam_detect.embedding import AverageEmbedder
from sam_detect.errors import ConfigError, UnavailableError
from sam_detect.interfaces import Labeller
from sam_detect.parts import make_labeller
from sam_detect.types import Classification, ExampleArrays, HardNegativeArrays, Neighbour

NAMES = registry.names("labeller")
Floats = npt.NDArray[np.float32]
Examples = Mapping[str, Sequence[float]]


def at(*degrees: float) -> Floats:
    """``(N, 2)`` unit vectors."""
    radians = np.deg2rad(np.array(degrees, np.float64))
    return np.stack([np.cos(radians), np.sin(radians)], axis=1).astype(np.float32)


class FakeMemory:
    """Labels with the angles of their examples; a label that begins with ``!`` is negative.

    Args:
        hard_negatives: around examples: the example's index, whether it touches, its angle.
        qualities: of the examples' proposals; those of unknown ones are empty.
    """

    def __init__(
        self,
        examples: Examples,
        *,
        generation: str = "1",
        prior: float = 0.95,
        pictures: int | None = None,
        hard_negatives: Sequence[tuple[int, bool, float]] = (),
        qualities: Sequence[float] = (),
    ) -> None:
        rows = [(label, angle) for label, angles in examples.items() for angle in angles]
        self.labels = tuple(label.lstrip("!") for label, _ in rows)
        self.negatives = np.array([label.startswith("!") for label, _ in rows], np.bool_)
        self.matrix = at(*[angle for _, angle in rows])
        self.ids = tuple(f"{label}@{angle:g}" for label, angle in rows)
        self.sources = tuple(f"{i % (pictures or len(rows))}.png" for i in range(len(rows)))
        places = [(20 * i, 0, 10, 10) for i in range(len(rows))]  # none touches another
        self.boxes_xywh = np.array(places, np.int64).reshape(-1, 4)
        self.generation = generation
        self.prior_similarity = prior
        self.hard_negatives = HardNegativeArrays(
            owners=np.array([owner for owner, _, _ in hard_negatives], np.int64),
            touching=np.array([touching for _, touching, _ in hard_negatives], np.bool_),
            vectors=at(*[angle for _, _, angle in hard_negatives]),
            background=np.zeros(len(hard_negatives), np.bool_),
        )
        self.qualities = np.array(qualities, np.float32)

    def nearest(self, vectors: Floats, limit: int) -> list[list[Neighbour]]:
        found = []
        for similarities in vectors @ self.matrix.T:
            best = sorted(range(len(self.ids)), key=lambda i: (-similarities[i], self.ids[i]))
            found.append([
                Neighbour(self.ids[i], self.labels[i], float(similarities[i]),
                          bool(self.negatives[i]))
                for i in best[:limit]
            ])  # fmt: skip
        return found

    def vectors(self, ids: Sequence[str]) -> Floats:
        return self.matrix[[self.ids.index(example_id) for example_id in ids]]

    def kept(self, name: str, form: type, make: Callable[[], Any]) -> Any:
        return make()

    def examples(self) -> ExampleArrays:
        return ExampleArrays(
            ids=self.ids,
            labels=self.labels,
            sources=self.sources,
            boxes_xywh=self.boxes_xywh,
            negatives=self.negatives,
            vectors=self.matrix,
            qualities=self.qualities,
            proposers=("naive",) * len(self.qualities),
            hard_negatives=self.hard_negatives,
        )


TWO_KINDS: Examples = {"nut": [-4, -2, 0, 2, 4], "date": [86, 88, 90, 92, 94]}


class NoTexts(AverageEmbedder):
    """What the labeller ``text`` needs to be made; without weight its texts are not asked for."""

    text_scale = 1.0

    def embed_texts(self, texts: Sequence[str]) -> Floats:
        raise AssertionError("no text has any weight here")


def make(name: str, **settings: Any) -> Labeller:
    """A labeller that goes by examples alone."""
    asked = load_settings({"labeller": name, "text_weight": 0.0, **settings})
    try:
        return make_labeller(asked, NoTexts())
    except UnavailableError as error:
        pytest.skip(str(error))


@pytest.fixture(params=NAMES)
def labeller(request: pytest.FixtureRequest) -> Labeller:
    return make(request.param)


def classification(
    labeller: Labeller, examples: Examples, angle: float, **memory: Any
) -> Classification:
    found = labeller.label(at(angle), FakeMemory(examples, **memory))
    assert len(found) == 1
    return found[0]


def test_no_vectors_have_no_classifications(labeller: Labeller) -> None:
    for examples in ({}, TWO_KINDS):
        assert list(labeller.label(np.zeros((0, 2), np.float32), FakeMemory(examples))) == []


def test_with_an_empty_library_everything_is_unknown(labeller: Labeller) -> None:
    for one in labeller.label(at(0, 90), FakeMemory({})):
        assert one == Classification(label=None, best_label=None, confidence=0.0, neighbours=())


@pytest.mark.parametrize(("angle", "label"), [(0, "nut"), (90, "date"), (-4, "nut"), (94, "date")])
def test_an_example_itself_gets_its_label_with_high_confidence(
    labeller: Labeller, angle: float, label: str
) -> None:
    one = classification(labeller, TWO_KINDS, angle)
    assert one.label == one.best_label == label
    assert one.confidence > 0.7


@pytest.mark.parametrize("angle", [180, 225, 270])
def test_what_is_far_from_everything_is_unknown(labeller: Labeller, angle: float) -> None:
    one = classification(labeller, TWO_KINDS, angle)
    assert one.label is None
    assert one.best_label in ("nut", "date")
    assert one.confidence < 0.1


def test_unknown_says_what_it_came_closest_to(labeller: Labeller) -> None:
    assert classification(labeller, TWO_KINDS, -80).best_label == "nut"
    assert classification(labeller, TWO_KINDS, 170).best_label == "date"


def test_one_example_is_enough(labeller: Labeller) -> None:
    itself = classification(labeller, {"nut": [0]}, 0)
    assert itself.label == "nut"
    assert itself.confidence > 0.7
    for angle in (90, 180):
        far = classification(labeller, {"nut": [0]}, angle)
        assert (far.label, far.best_label) == (None, "nut")
        assert far.confidence < 0.1


def test_one_example_of_each_label_is_enough(labeller: Labeller) -> None:
    for angle, label in ((1, "nut"), (89, "date")):
        assert classification(labeller, {"nut": [0], "date": [90]}, angle).label == label


def test_a_label_with_one_example_stands_beside_one_with_many(labeller: Labeller) -> None:
    examples = {"nut": TWO_KINDS["nut"], "date": [90]}
    assert classification(labeller, examples, 90).label == "date"
    assert classification(labeller, examples, 0).label == "nut"


def test_many_examples_at_one_place_are_no_trouble(labeller: Labeller) -> None:
    examples = {"nut": [0] * 8}
    assert classification(labeller, examples, 0).label == "nut"
    assert classification(labeller, examples, 120).label is None


@pytest.mark.parametrize("pictures", [1, 2, 10])
def test_examples_may_come_from_one_picture_or_from_many(labeller: Labeller, pictures: int) -> None:
    for angle, label in ((0, "nut"), (94, "date"), (200, None)):
        assert classification(labeller, TWO_KINDS, angle, pictures=pictures).label == label


def test_a_tie_is_decided_alike_whatever_the_order_and_not_with_confidence(
    labeller: Labeller,
) -> None:
    one = classification(labeller, {"nut": [0], "date": [0]}, 0, generation="a")
    other = classification(labeller, {"date": [0], "nut": [0]}, 0, generation="b")
    assert one.best_label == other.best_label
    assert one.confidence == pytest.approx(other.confidence)
    assert one.confidence <= 0.5 + 1e-6


def test_between_two_kinds_it_is_less_sure_than_at_either(labeller: Labeller) -> None:
    near: Examples = {"nut": [-2, 0, 2], "date": [18, 20, 22]}
    between = classification(labeller, near, 10).confidence
    assert between < classification(labeller, near, 0).confidence
    assert between < classification(labeller, near, 20).confidence


def test_confidence_rises_with_the_similarity(labeller: Labeller) -> None:
    memory = FakeMemory(TWO_KINDS)
    found = [one.confidence for one in labeller.label(at(*range(-180, 1, 3)), memory)]
    assert all(b >= a - 1e-9 for a, b in itertools.pairwise(found)), found
    assert found[-1] > found[0] + 0.5


@pytest.mark.parametrize("examples", [TWO_KINDS, {"nut": [0]}, {"!nut": [0], "nut": [10, 30]}])
def test_confidence_is_a_number_from_0_to_1(labeller: Labeller, examples: Examples) -> None:
    for one in labeller.label(at(*range(0, 360, 5)), FakeMemory(examples)):
        assert 0 <= one.confidence <= 1
        assert isinstance(one.confidence, float)
        assert one.label in (None, one.best_label)


def test_a_library_of_negatives_names_nothing(labeller: Labeller) -> None:
    for angle in (0, 45, 180):
        one = classification(labeller, {"!nut": [0, 1]}, angle)
        assert one.label is None
        assert one.confidence == 0


def test_a_negative_example_itself_is_unknown(labeller: Labeller) -> None:
    examples = {**TWO_KINDS, "!nut": [20]}
    assert classification(labeller, examples, 20).label is None
    assert classification(labeller, examples, 0).label == "nut", "the others keep their label"


def test_a_negative_example_never_raises_the_confidence(labeller: Labeller) -> None:
    for angle in range(0, 60, 4):
        without = classification(labeller, TWO_KINDS, angle, generation="without")
        with_it = classification(labeller, {**TWO_KINDS, "!nut": [12]}, angle, generation="with")
        assert with_it.confidence <= without.confidence + 1e-9, angle


def test_the_neighbours_are_the_reason_nearest_first(labeller: Labeller) -> None:
    one = classification(labeller, {**TWO_KINDS, "!nut": [9]}, 7)
    assert len(one.neighbours) == 5
    similarities = [neighbour.similarity for neighbour in one.neighbours]
    assert similarities == sorted(similarities, reverse=True)
    assert one.neighbours[0] == Neighbour("!nut@9", "nut", similarities[0], negative=True)
    assert [n.id for n in one.neighbours[1:]] == ["nut@4", "nut@2", "nut@0", "nut@-2"]


@pytest.mark.parametrize("name", NAMES)
def test_no_more_than_top_k_neighbours_are_asked(name: str) -> None:
    for top_k in (1, 3, 100):
        one = classification(make(name, top_k=top_k), TWO_KINDS, 0)
        assert len(one.neighbours) == min(top_k, 10)
        assert one.label == "nut"


@pytest.mark.parametrize("name", NAMES)
def test_the_threshold_decides_what_is_unknown(name: str) -> None:
    angles = range(0, 360, 10)
    memory = FakeMemory(TWO_KINDS)
    for threshold in (0.0, 0.3, 0.9):
        for one in make(name, threshold=threshold).label(at(*angles), memory):
            assert one.label == (one.best_label if one.confidence >= threshold else None)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("option", "value"),
    [("top_k", 0), ("top_k", -3), ("threshold", -0.1), ("threshold", 1.1),
     ("threshold", float("nan")), ("threshold", "high")],
)  # fmt: skip
def test_an_option_out_of_its_range_is_refused_by_name(name: str, option: str, value: Any) -> None:
    made: dict[str, Any] = {"encoder": NoTexts()} if name == "text" else {}
    with pytest.raises(ConfigError, match=option):
        registry.load_class("labeller", name)(**made, **{option: value})


def test_vectors_together_are_named_as_each_alone(labeller: Labeller) -> None:
    memory, angles = FakeMemory(TWO_KINDS), [0, 45, 90, 180, 3]
    together = labeller.label(at(*angles), memory)
    alone = [labeller.label(at(angle), memory)[0] for angle in angles]
    for one, other in zip(together, alone, strict=True):
        assert (one.label, one.best_label) == (other.label, other.best_label)
        assert one.confidence == pytest.approx(other.confidence, abs=SCORE_TOLERANCE)


def test_what_is_learnt_counts_at_once(labeller: Labeller) -> None:
    assert classification(labeller, {"nut": [0]}, 90, generation="1").label is None
    assert classification(labeller, {"nut": [0], "date": [90]}, 90, generation="2").label == "date"
    assert classification(labeller, {"nut": [0]}, 90, generation="3").label is None


def test_neither_vectors_nor_examples_change(labeller: Labeller) -> None:
    memory, vectors = FakeMemory(TWO_KINDS), at(0, 45, 90)
    before = vectors.copy(), memory.matrix.copy(), memory.negatives.copy()
    labeller.label(vectors, memory)
    for array, kept in zip((vectors, memory.matrix, memory.negatives), before, strict=True):
        np.testing.assert_array_equal(array, kept)


# -- what lies around the examples ---------------------------------------------------------------

HARD_NEGATIVES = [
    (i, True, angle) for i, angle in ((0, 25), (1, 27), (2, 30), (5, 120), (6, 122), (7, 125))
]
"""Parts of nuts and of dates, each rather like its whole."""


def with_evidence(**options: Any) -> FakeMemory:
    values = {"hard_negatives": HARD_NEGATIVES, "qualities": [0.6] * 10, **options}
    return FakeMemory(values.pop("examples", TWO_KINDS), **values)


def confidences(
    labeller: Labeller, memory: FakeMemory, *angles: float, **options: Any
) -> list[float]:
    return [one.confidence for one in labeller.label(at(*angles), memory, **options)]


def test_examples_are_still_named_and_rivals_are_not(labeller: Labeller) -> None:
    memory = with_evidence()
    found = labeller.label(at(0, 2, 90, 94, 25, 30, 120), memory)
    assert [one.label for one in found] == ["nut", "nut", "date", "date", None, None, None]


def test_the_nearer_the_rivals_are_the_lower_the_confidence(labeller: Labeller) -> None:
    made = [
        with_evidence(hard_negatives=[(0, True, angle)], generation=str(angle))
        for angle in (9, 15, 25, 40, 60)
    ]
    found = [confidences(labeller, memory, 5)[0] for memory in made]
    assert all(b > a for a, b in itertools.pairwise(found)), found


def test_qualities_count_where_the_examples_have_some(labeller: Labeller) -> None:
    angles, high = (0, 5, 90), np.full(3, 0.9, np.float32)
    low = np.full(3, 0.3, np.float32)
    memory = with_evidence()
    better = confidences(labeller, memory, *angles, qualities=high)
    worse = confidences(labeller, memory, *angles, qualities=low)
    assert all(b > w for b, w in zip(better, worse, strict=True))
    unknown = with_evidence(qualities=[], generation="2")
    assert confidences(labeller, unknown, *angles, qualities=high) == confidences(
        labeller, unknown, *angles
    )


def test_how_far_things_stand_out_in_the_picture_counts(labeller: Labeller) -> None:
    """For examples of one picture, whose qualities say little of another one."""
    memory = with_evidence(pictures=1)

    def beside(quality: float) -> float:
        qualities = np.array([0.6, *[quality] * 5], np.float32)
        return confidences(labeller, memory, 5, *[0.0] * 5, qualities=qualities)[0]

    assert beside(0.95) < beside(0.6) < beside(0.55)


def test_without_surroundings_nothing_but_similarity_counts(labeller: Labeller) -> None:
    angles = range(0, 360, 15)
    memory = FakeMemory(TWO_KINDS)
    expected = labeller.label(at(*angles), memory)
    for quality in (0.1, 0.9):
        given = np.full(len(angles), quality, np.float32)
        assert labeller.label(at(*angles), memory, qualities=given) == expected


def test_with_evidence_a_negative_is_still_never_named(labeller: Labeller) -> None:
    """However good it looks, and however far all that is known to be something else."""
    for hard_negatives in (HARD_NEGATIVES, [(0, True, 180.0)]):
        memory = with_evidence(examples={**TWO_KINDS, "!nut": [12]}, hard_negatives=hard_negatives,
                               qualities=[0.3] * 11)  # fmt: skip
        sure = np.ones(2, np.float32)
        found = labeller.label(at(12, 14), memory, qualities=sure)
        assert "nut" not in [one.label for one in found]
        assert labeller.label(at(0), memory, qualities=sure[:1])[0].label == "nut"


def test_with_evidence_a_negative_that_is_no_nearer_than_an_example_changes_nothing(
    labeller: Labeller,
) -> None:
    """It is an exception for one find, and no vote on others."""
    examples = {**TWO_KINDS, "!nut": [9]}  # 3 degrees from what is asked, the nearest nut 2
    memory = with_evidence(
        examples=examples, hard_negatives=[(0, True, 180.0)], qualities=[0.3] * 11
    )
    sure = np.ones(1, np.float32)
    without = with_evidence(hard_negatives=[(0, True, 180.0)], qualities=[0.3] * 10, generation="2")
    before = confidences(labeller, without, 6, qualities=sure)[0]
    assert before > 0.95
    assert confidences(labeller, memory, 6, qualities=sure)[0] == pytest.approx(before, abs=1e-3)


def test_with_evidence_a_negative_never_raises_the_confidence(labeller: Labeller) -> None:
    angles = range(0, 60, 3)
    for quality in (0.2, 0.6, 0.95):
        given = np.full(len(angles), quality, np.float32)
        without = with_evidence(generation="without")
        with_it = with_evidence(
            examples={**TWO_KINDS, "!nut": [18]}, qualities=[0.6] * 11, generation="with"
        )
        before = confidences(labeller, without, *angles, qualities=given)
        after = confidences(labeller, with_it, *angles, qualities=given)
        assert all(a <= b + 1e-9 for a, b in zip(after, before, strict=True)), quality


@pytest.mark.parametrize("top_k", [1, 3, 5])
def test_a_label_is_weighed_whether_or_not_its_examples_are_among_the_nearest(top_k: int) -> None:
    """The mean of a label may be nearest though none of its examples is."""
    examples: Examples = {"nut": [-14, 14], "date": [5, 7, 9, 100]}
    for name in NAMES:
        labeller = make(name, top_k=top_k)
        far, near = (
            FakeMemory(
                examples, hard_negatives=[(0, True, angle), (2, True, angle)], generation=str(angle)
            )
            for angle in (180.0, 0.0)
        )
        assert confidences(labeller, far, 0)[0] > confidences(labeller, near, 0)[0], name


def test_with_evidence_vectors_together_are_named_as_each_alone(labeller: Labeller) -> None:
    memory, angles = with_evidence(), (0, 20, 45, 90, 180)
    qualities = np.array([0.9, 0.5, 0.1, 0.7, 0.3], np.float32)
    together = labeller.label(at(*angles), memory, qualities=qualities)
    assert together == labeller.label(at(*angles), memory, qualities=qualities)
    for index, angle in enumerate(angles):
        alone = labeller.label(at(angle), memory, qualities=qualities[index : index + 1])[0]
        assert alone.confidence == pytest.approx(together[index].confidence, abs=SCORE_TOLERANCE)
        assert 0 <= alone.confidence <= 1
        assert alone.label in (None, alone.best_label)


def test_with_evidence_nothing_that_is_given_changes(labeller: Labeller) -> None:
    memory, qualities = with_evidence(), np.array([0.9, 0.5], np.float32)
    arrays = (
        qualities,
        memory.qualities,
        memory.hard_negatives.vectors,
        memory.hard_negatives.touching,
    )
    before = [array.copy() for array in arrays]
    labeller.label(at(0, 40), memory, qualities=qualities)
    for array, kept in zip(arrays, before, strict=True):
        np.testing.assert_array_equal(array, kept)


def test_a_library_of_negatives_with_surroundings_names_nothing(labeller: Labeller) -> None:
    memory = FakeMemory({"!nut": [0, 1]}, hard_negatives=[(0, True, 20)], qualities=[0.5, 0.5])
    found = labeller.label(at(0, 20), memory, qualities=np.ones(2, np.float32))
    assert [(one.label, one.confidence) for one in found] == [(None, 0.0)] * 2


@pytest.fixture
def _eager_threads() -> Iterator[None]:
    """Threads that take turns as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("_eager_threads")
def test_two_threads_with_two_libraries_get_what_one_gets(labeller: Labeller) -> None:
    memories = [
        FakeMemory({"nut": [0, 1, 2]}, generation="a"),
        FakeMemory({"date": [90, 95, 99], "fig": [0]}, generation="b"),
    ]
    vectors = at(0, 5, 90, 92, 180)
    expected = [labeller.label(vectors, memory) for memory in memories]

    def work(number: int) -> bool:
        return all(
            labeller.label(vectors, memories[number]) == expected[number] for _ in range(100)
        )

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(work, [0, 1])) == [True, True]


# -- explanations --------------------------------------------------------------------------------


@pytest.mark.parametrize("evidence", [False, True])
@pytest.mark.parametrize("pictures", [None, 1])
def test_the_terms_of_an_explanation_give_the_confidence(
    labeller: Labeller, evidence: bool, pictures: int | None
) -> None:
    examples = {**TWO_KINDS, "!nut": [7.0]}
    memory = (
        with_evidence(examples=examples, qualities=[0.6] * 11, pictures=pictures)
        if evidence
        else FakeMemory(examples, pictures=pictures)
    )
    angles = range(0, 360, 3)
    for classification in labeller.label(
        at(*angles),
        memory,
        qualities=np.linspace(0.3, 0.9, len(angles), dtype=np.float32),
        areas=np.full(len(angles), 100),
    ):
        explanation = classification.explanation
        assert explanation is not None
        assert explanation.recomputed() == pytest.approx(classification.confidence, abs=1e-6)
        assert explanation.confidence == classification.confidence
        assert explanation.threshold == labeller.threshold
        assert (explanation.decision == "label") == (classification.label is not None)
        assert bool(explanation.log_odds) <= evidence
