"""Labels by text: with texts whose vectors a person can compute, alone and with examples."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from closeness import SCORE_TOLERANCE

from sam_detect.errors import ConfigError, UnavailableError
from sam_detect.interfaces import TextEncoder
from sam_detect.labelling.text import NOTHING, TextLabeller
from sam_detect.types import Classification, ExampleArrays, Neighbour

Floats = npt.NDArray[np.float32]
ANGLES = {"nut": 0.0, "date": 60.0, "fig": 120.0}


def at(*degrees: float) -> Floats:
    radians = np.deg2rad(np.array(degrees, np.float64))
    return np.stack([np.cos(radians), np.sin(radians)], axis=1).astype(np.float32)


class Angles:
    """Texts are directions of the plane: a name's own, one degree more for each template's letter
    x, and 200 degrees for everything else."""

    text_scale = 20.0

    def __init__(self) -> None:
        self.asked: list[str] = []

    def embed_texts(self, texts: Sequence[str]) -> Floats:
        self.asked += texts
        return at(*[self._angle(text) for text in texts])

    def _angle(self, text: str) -> float:
        known = [angle for name, angle in ANGLES.items() if name in text]
        return known[0] + text.count("x") if known else 200.0


class Memory:
    """Examples at angles; a label that begins with ``!`` is negative."""

    def __init__(self, examples: Mapping[str, Sequence[float]] | None = None) -> None:
        rows = [(label, angle) for label, angles in (examples or {}).items() for angle in angles]
        self.labels = tuple(label.lstrip("!") for label, _ in rows)
        self.negatives = np.array([label.startswith("!") for label, _ in rows], np.bool_)
        self.matrix = at(*[angle for _, angle in rows])
        self.ids = tuple(f"{i}" for i in range(len(rows)))
        self.generation, self.prior_similarity = "1", 0.95

    def nearest(self, vectors: Floats, limit: int) -> list[list[Neighbour]]:
        rows = vectors @ self.matrix.T if self.ids else np.zeros((len(vectors), 0))
        return [
            [Neighbour(self.ids[i], self.labels[i], float(row[i]), bool(self.negatives[i]))
             for i in np.argsort(-row, kind="stable")[:limit]]
            for row in rows
        ]  # fmt: skip

    def vectors(self, ids: Sequence[str]) -> Floats:
        return self.matrix[[int(i) for i in ids]]

    def kept(self, name: str, form: type, make: Callable[[], Any]) -> Any:
        return make()

    def examples(self) -> ExampleArrays:
        return ExampleArrays(
            ids=self.ids, labels=self.labels, sources=tuple(f"{i}.png" for i in self.ids),
            boxes_xywh=np.array([(20 * i, 0, 9, 9) for i in range(len(self.ids))]).reshape(-1, 4),
            negatives=self.negatives, vectors=self.matrix,
        )  # fmt: skip


def labeller(labels: Sequence[str] | None = ("nut", "date"), **options: Any) -> TextLabeller:
    return TextLabeller(labels, **{"encoder": Angles(), "templates": ["a {}"], **options})


def one(made: TextLabeller, angle: float, memory: Memory | None = None) -> Classification:
    [found] = made.label(at(angle), memory or Memory())
    return found


def test_the_fake_is_an_encoder_and_most_embedders_are_none() -> None:
    from sam_detect.embedding import AverageEmbedder

    assert isinstance(Angles(), TextEncoder)
    assert not isinstance(AverageEmbedder(), TextEncoder)


def test_a_name_is_a_share_of_a_softmax_over_names_and_nothing() -> None:
    vectors, names = at(10, 60, 200), ("nut", "date")
    found = labeller().probabilities(vectors, names)
    for row, angle in zip(found, (10, 60, 200), strict=True):
        weights = [np.exp(20 * np.cos(np.deg2rad(angle - other)))
                   for other in (0, 60, *[200] * len(NOTHING))]  # fmt: skip
        np.testing.assert_allclose(row, np.array(weights[:2]) / sum(weights), rtol=1e-5)


@pytest.mark.parametrize(("angle", "label"), [(0, "nut"), (-15, "nut"), (60, "date"), (80, "date")])
def test_what_is_near_a_text_has_its_name(angle: float, label: str) -> None:
    found = one(labeller(), angle)
    assert (found.label, found.best_label) == (label, label)
    assert found.confidence > 0.9
    assert found.neighbours == ()


def test_what_is_nearer_to_nothing_is_unknown() -> None:
    found = one(labeller(), 195)
    assert (found.label, found.best_label) == (None, "date")
    assert found.confidence < 0.01


def test_between_two_names_it_is_unsure() -> None:
    assert one(labeller(), 30).confidence == pytest.approx(0.5, abs=0.01)
    assert one(labeller(threshold=0.7), 32).label is None
    assert one(labeller(threshold=0.4), 32).label == "date"


def test_a_name_is_the_mean_of_its_templates() -> None:
    encoder = Angles()
    made = labeller(["nut"], encoder=encoder, templates=["{}", "{} xxxx", "{} xxxxxxxx, a {}"])
    found = made.probabilities(at(0), ["nut"])
    plain = labeller(["nut"], templates=["{} xxxx"]).probabilities(at(0), ["nut"])
    np.testing.assert_allclose(found, plain, rtol=1e-4)
    assert encoder.asked[:3] == ["nut", "nut xxxx", "nut xxxxxxxx, a nut"]


def test_texts_are_encoded_once() -> None:
    made = labeller()
    first = [one(made, angle) for angle in (0, 60)]
    asked = list(made._encoder.asked)
    assert [one(made, angle) for angle in (0, 60)] == first
    assert made._encoder.asked == asked
    assert len(asked) == len(set(asked)) == 2 + len(NOTHING)


def test_without_names_those_of_the_library_are_looked_for() -> None:
    memory = Memory({"fig": [118, 122], "nut": [1]})
    assert one(labeller(None), 120, memory).label == "fig"
    assert one(labeller(None), 0, memory).label == "nut"
    with pytest.raises(ConfigError, match=r"--text-labels"):
        one(labeller(None), 0, Memory())


def test_texts_alone_are_not_asked_for_the_librarys_names() -> None:
    memory = Memory({"fig": [118, 122]})
    assert one(labeller(), 120, memory).best_label == "date"
    assert one(labeller(text_weight=0.5), 120, memory).best_label == "fig"


def test_the_reason_are_the_nearest_examples() -> None:
    memory = Memory({"fig": [118, 122], "nut": [1]})
    assert [n.label for n in one(labeller(), 2, memory).neighbours] == ["nut", "fig", "fig"]


@pytest.mark.parametrize("weight", [0.25, 0.5, 0.9])
def test_texts_and_examples_are_weighed(weight: float) -> None:
    memory = Memory({"nut": [9, 10, 11]})
    text = one(labeller(), 10, memory).confidence
    example = one(labeller(text_weight=0), 10, memory)
    mixed = one(labeller(text_weight=weight), 10, memory)
    assert example.label == mixed.label == "nut"
    expected = weight * text + (1 - weight) * example.confidence
    assert mixed.confidence == pytest.approx(expected, abs=1e-6)


def test_examples_outweigh_a_text_that_says_otherwise() -> None:
    memory = Memory({"nut": [58, 60, 62]})
    assert one(labeller(), 60, memory).label == "date"
    assert one(labeller(text_weight=0.3), 60, memory).label == "nut"


def test_what_is_nearest_to_a_no_never_gets_the_name() -> None:
    memory = Memory({"nut": [-8, -10], "!nut": [10]})
    for weight in (1.0, 0.5):
        found = one(labeller(text_weight=weight), 10, memory)
        assert found.label is None
        assert one(labeller(text_weight=weight), -9, memory).label == "nut"


def test_several_at_once_are_named_as_each_alone() -> None:
    made, angles = labeller(text_weight=0.5), (0, 30, 60, 200)
    memory = Memory({"nut": [1, 3], "date": [60]})
    together = made.label(at(*angles), memory)
    for found, angle in zip(together, angles, strict=True):
        alone = one(made, angle, memory)
        assert (found.label, found.best_label) == (alone.label, alone.best_label)
        assert found.confidence == pytest.approx(alone.confidence, abs=SCORE_TOLERANCE)
    assert made.label(at()[:0], memory) == []


def test_vectors_that_are_not_of_the_encoder_are_refused() -> None:
    with pytest.raises(ConfigError, match="length 3 cannot be compared with texts of length 2"):
        labeller().label(np.ones((1, 3), np.float32), Memory())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"labels": "nut"}, "list of names"),
        ({"labels": []}, "labels must be names"),
        ({"labels": ["nut", " "]}, "labels must be names"),
        ({"templates": "a {}"}, "templates must be texts"),
        ({"templates": []}, "templates must be texts"),
        ({"templates": ["a {}", "a nut"]}, "templates must be texts"),
        ({"text_weight": 1.1}, "text_weight"),
        ({"text_weight": float("nan")}, "text_weight"),
        ({"top_k": 0}, "top_k"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        labeller(**options)


def test_settings_make_it_with_the_embedders_texts(tmp_path: Path) -> None:
    from small_models import write_small_clip

    from sam_detect.config import load_settings
    from sam_detect.parts import make_embedder, make_labeller

    embedder = make_embedder("clip", {"model_name": str(write_small_clip(tmp_path))}, "cpu")
    settings = load_settings({"labeller": "text", "text_labels": "nut, date", "text_weight": 0.5,
                              "text_templates": "a {}|{}, alone", "top_k": 3})  # fmt: skip
    made = make_labeller(settings, embedder)
    assert isinstance(made, TextLabeller)
    assert (made.labels, made.templates) == (("nut", "date"), ("a {}", "{}, alone"))
    assert (made.text_weight, made.threshold) == (0.5, 0.5)
    shares = made.probabilities(embedder.embed_texts(["a nut", "a date"]), ["nut", "date"])
    assert shares.argmax(axis=1).tolist() == [0, 1]
    for other in (None, make_embedder("average")):
        with pytest.raises(UnavailableError, match="'text' compares with texts"):
            make_labeller(settings, other)


def test_it_needs_no_torch() -> None:
    import subprocess

    code = "import sys, sam_detect.labelling.text; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_what_has_no_name_may_be_said_otherwise() -> None:
    usual = TextLabeller(["nut"], encoder=Angles())
    other = TextLabeller(["nut"], encoder=Angles(), none=["a table", "a hand"])
    assert (usual.none, other.none) == (NOTHING, ("a table", "a hand"))
    for wrong in ([], "a table", [""]):
        with pytest.raises(ConfigError, match="none must be a list of texts"):
            TextLabeller(["nut"], encoder=Angles(), none=wrong)
