"""A user's own part that breaks its contract is named, in Python and on the command line."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from library_helpers import DiscSegmenter, disc_masks, discs
from PIL import Image

from sam_detect import SAMDetect
from sam_detect.cli.app import run
from sam_detect.embedding import AverageEmbedder
from sam_detect.errors import (
    ConfigError,
    ExtensionError,
    ImageError,
    RecipeMismatchError,
    UnavailableError,
)
from sam_detect.interfaces import Embedder, Labeller, Segmenter, Sink, VectorStore
from sam_detect.types import (
    NO_HINTS,
    Classification,
    Detections,
    FadedCrop,
    Frame,
    Hints,
    Masks,
    Point,
)
from sam_detect.vector_store import MemoryVectorStore

SEEN = Masks.from_dense(disc_masks())


def raising(error: Exception) -> Callable[..., Any]:
    def fail(*_: Any, **__: Any) -> Any:
        raise error

    return fail


def detector(**parts: Any) -> SAMDetect:
    """A detector that has learnt the first of five discs."""
    usual = {"segmenter": DiscSegmenter(), "embedder": "average", "vector_store": "memory"}
    made = SAMDetect(**{**usual, **parts})
    made.learn(discs(), "nut", masks=disc_masks()[:1])
    return made


class Mine(Segmenter):
    """Proposes what a test says."""

    def __init__(self, answer: Callable[[Frame], Any]) -> None:
        self.answer = answer

    def propose(self, frame: Frame, hints: Hints = NO_HINTS) -> Masks:
        return self.answer(frame)  # type: ignore[no-any-return]

    def segment_boxes(self, frame: Frame, boxes_xywh: Sequence[Sequence[float]]) -> Masks:
        return self.answer(frame)  # type: ignore[no-any-return]

    def segment_points(self, frame: Frame, points_xy: Sequence[Sequence[float]]) -> Masks:
        return self.answer(frame)  # type: ignore[no-any-return]

    def segment_clicks(
        self, frame: Frame, clicks_xy: Any, positive: Any, box_xywh: Any = None
    ) -> Masks:
        return self.answer(frame)  # type: ignore[no-any-return]


WRONG_PROPOSALS: dict[str, tuple[Callable[[Frame], Any], str]] = {
    "a list": (lambda frame: [disc_masks()[0]], "Masks .* returned a list"),
    "nothing": (lambda frame: None, "Masks .* returned None"),
    "an array": (lambda frame: disc_masks(), "Masks .* returned a ndarray"),
    "another size": (
        lambda frame: Masks.from_dense(np.ones((9, 9), bool)),
        r"size \(160, 160\), but returned Masks of size \(9, 9\)",
    ),
    "qualities of NaN": (
        lambda frame: Masks.from_crops(
            size_hw=frame.size_hw, boxes_xyxy=[[0, 0, 2, 2]], crops=[np.ones((2, 2), bool)],
            predicted_ious=[np.nan],
        ),
        "finite predicted_ious",
    ),
    "an empty mask": (lambda frame: Masks.from_dense(np.zeros((160, 160))), "failed .* MaskError"),
    "an exception": (raising(KeyError("gone")), r"failed in propose\(\): KeyError: 'gone'"),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG_PROPOSALS)
def test_a_segmenter_that_breaks_its_contract_is_named(what: str) -> None:
    answer, said = WRONG_PROPOSALS[what]
    mine = Mine(lambda frame: SEEN)
    used = detector(segmenter=mine)
    mine.answer = answer
    with pytest.raises(ExtensionError, match=f"the segmenter Mine.*{said}"):
        used.detect(discs(seed=1))


def test_a_prompted_segmenter_returns_one_mask_each() -> None:
    mine, frame = Mine(lambda frame: SEEN), Frame(discs(), "a")
    for ask in (mine.segment_boxes, mine.segment_points):
        assert len(ask(frame, [[30, 30, 9, 9]] * 5)) == 5
        with pytest.raises(ExtensionError, match="one mask for each of 1, but returned 5 masks"):
            ask(frame, [[30, 30, 9, 9]])


def test_a_segmenter_of_clicks_returns_one_mask() -> None:
    mine, frame = Mine(lambda frame: SEEN), Frame(discs(), "a")
    with pytest.raises(ExtensionError, match="one mask, but returned 5 masks"):
        mine.segment_clicks(frame, [[30, 30], [40, 40]], [True, False])
    mine.answer = lambda frame: SEEN[:1]
    assert len(mine.segment_clicks(frame, [[30, 30], [40, 40]], [True, False])) == 1


class Says(Labeller):
    """Labels as a test says."""

    def __init__(self, answer: Callable[[int], Any]) -> None:
        self.answer = answer

    def label(self, vectors: Any, memory: Any, **_: Any) -> list[Classification]:
        return self.answer(len(vectors))  # type: ignore[no-any-return]


def classification(label: Any = "nut", confidence: Any = 0.5) -> Classification:
    return Classification(label, label, confidence)


WRONG_CLASSIFICATIONS: dict[str, tuple[Callable[[int], Any], str]] = {
    "one too few": (
        lambda n: [classification()] * (n - 1),
        "for each of 5 vectors, but returned 4",
    ),
    "one too many": (
        lambda n: [classification()] * (n + 1),
        "for each of 5 vectors, but returned 6",
    ),
    "texts": (lambda n: ["nut"] * n, "a list of Classifications .* a list with 'nut'"),
    "nothing": (lambda n: None, "a list of Classifications .* returned None"),
    "an iterator": (lambda n: iter([classification()] * n), "a list of Classifications"),
    "NaN": (lambda n: [classification(confidence=np.nan)] * n, "confidences from 0 to 1, .* nan"),
    "confidence 2": (lambda n: [classification(confidence=2)] * n, "confidences from 0 to 1, .* 2"),
    "confidence text": (lambda n: [classification(confidence="high")] * n, "confidences .* 'high'"),
    "confidence None": (lambda n: [classification(confidence=None)] * n, "confidences .* None"),
    "an empty label": (lambda n: [classification("")] * n, "labels that are names, or None"),
    "two lines": (lambda n: [classification("a\nb")] * n, "labels that are names, or None"),
    "a number": (lambda n: [classification(3)] * n, "labels that are names, or None"),
    "an exception": (raising(ZeroDivisionError()), r"failed in label\(\): ZeroDivisionError"),
}


@pytest.mark.parametrize("what", WRONG_CLASSIFICATIONS)
def test_a_labeller_that_breaks_its_contract_is_named(what: str) -> None:
    answer, said = WRONG_CLASSIFICATIONS[what]
    with pytest.raises(ExtensionError, match=f"the labeller Says.*{said}"):
        detector(labeller=Says(answer)).detect(discs(seed=1))


def test_a_labeller_that_keeps_its_contract_is_heard() -> None:
    says = Says(lambda n: [classification("leaf", np.float32(1))] * n)
    assert {each.label for each in detector(labeller=says).detect(discs(seed=1))} == {"leaf"}


class Own(Embedder):
    """Embeds as a test says."""

    name, version, input_side = "own", 1, 32
    dimension = 2  # type: ignore[assignment]

    def __init__(self, answer: Callable[[int], Any] | None = None) -> None:
        self.answer = answer or (lambda n: np.tile(np.float32([1, 0]), (n, 1)))

    def embed(self, crops: Sequence[FadedCrop]) -> Any:
        return self.answer(len(crops))


WRONG_VECTORS: dict[str, tuple[Callable[[int], Any], str]] = {
    "a list": (lambda n: [[1.0, 0.0]] * n, r"array of shape \(5, 2\), but returned a list"),
    "nothing": (lambda n: None, "returned None"),
    "one too few": (lambda n: np.zeros((n - 1, 2)), r"\(5, 2\), .* of shape \(4, 2\)"),
    "too long": (lambda n: np.zeros((n, 3)), r"\(5, 2\), .* of shape \(5, 3\)"),
    "whole numbers": (lambda n: np.tile([1, 0], (n, 1)), "floats .* int64"),
    "texts": (lambda n: np.full((n, 2), "1"), "floats"),
    "NaN": (lambda n: np.full((n, 2), np.nan), "finite vectors"),
    "not unit": (lambda n: np.ones((n, 2)), "length 1 .* one of length 1.41"),
    "an exception": (raising(RuntimeError("no\nmodel")), r"embed\(\): RuntimeError: no model"),
}


@pytest.mark.parametrize("what", WRONG_VECTORS)
def test_an_embedder_that_breaks_its_contract_is_named(what: str) -> None:
    answer, said = WRONG_VECTORS[what]
    mine = Own()
    used = detector(embedder=mine)
    mine.answer = answer
    with pytest.raises(ExtensionError, match=f"the embedder Own.*{said}"):
        used.detect(discs(seed=1))


@pytest.mark.parametrize(
    ("attribute", "value"),
    [("name", None), ("name", ""), ("name", 3), ("version", None), ("version", "1"),
     ("version", True), ("input_side", 0), ("dimension", None), ("dimension", 2.5)],
)  # fmt: skip
def test_an_embedder_that_does_not_describe_itself_is_refused(attribute: str, value: Any) -> None:
    made = type("Bare", (Own,), {attribute: value})()
    with pytest.raises(ConfigError, match=f"the embedder Bare needs {attribute}: "):
        detector(embedder=made)


def test_parameters_of_an_embedder_are_plain() -> None:
    made = type("Odd", (Own,), {"parameters": lambda self: {"weights": object()}})()
    with pytest.raises(ExtensionError, match=r"Odd: parameters.* a dict of texts"):
        detector(embedder=made)


def test_the_exception_of_a_part_is_chained() -> None:
    cause = KeyError("gone")
    with pytest.raises(ExtensionError) as caught:
        Mine(raising(cause)).propose(Frame(discs(), "a"))
    assert caught.value.__cause__ is cause


@pytest.mark.parametrize(
    "error", [MemoryError(), ImageError("bad picture"), UnavailableError("no weights")], ids=repr
)
def test_a_part_may_raise_our_own_errors_and_lack_memory(error: Exception) -> None:
    with pytest.raises(type(error)):
        Mine(raising(error)).propose(Frame(discs(), "a"))


def test_a_method_that_is_inherited_from_another_class_is_checked() -> None:
    class Elsewhere:
        def propose(self, frame: Frame, hints: Hints = NO_HINTS) -> Any:
            return None

    class Both(Elsewhere, Segmenter):
        pass

    class Static(Segmenter):
        @staticmethod
        def propose(frame: Frame) -> Any:  # type: ignore[override]
            return None

    for made in (Both(), Static()):
        with pytest.raises(ExtensionError, match=r"propose\(\) must return Masks"):
            made.propose(frame=Frame(discs(), "a"))


class Store(MemoryVectorStore):
    """A store whose methods a test replaces."""


WRONG_STORES: dict[str, tuple[str, Any, str]] = {
    "count": ("count", lambda self: "five", "a whole number"),
    "manifest": ("read_manifest", lambda self: [], "the dict that was written last"),
    "search": ("search", lambda self, vectors, limit, **_: [], "for each of 1 vectors"),
    "upsert": ("upsert", raising(OSError("disk")), r"upsert\(\): OSError: disk"),
}


@pytest.mark.parametrize("what", WRONG_STORES)
def test_a_store_that_breaks_its_contract_is_named(what: str) -> None:
    method, answer, said = WRONG_STORES[what]
    store: VectorStore = type("Broken", (Store,), {method: answer})()
    arguments: dict[str, tuple[Any, ...]] = {"search": (np.ones((1, 2), np.float32), 1),
                                             "upsert": ([],)}  # fmt: skip
    with pytest.raises(ExtensionError, match=f"the store Broken.*{said}"):
        getattr(store, method)(*arguments.get(method, ()))


def test_a_store_that_fails_between_two_points_is_named() -> None:
    class Half(Store):
        def scan(self, *_: Any, **__: Any) -> Iterator[Point]:
            yield Point("a", np.zeros(2, np.float32), {})
            raise OSError("gone")

    points = Half().scan()
    assert next(points).id == "a"
    with pytest.raises(ExtensionError, match=r"the store Half failed in scan\(\): OSError: gone"):
        next(points)


@pytest.mark.parametrize(("written", "said"), [("a.txt", "a list of"), (["a.txt"], "a list of")])
def test_a_sink_says_which_files_it_wrote(written: Any, said: str) -> None:
    class Text(Sink):
        def write(self, frame: Frame, detections: Detections) -> None:
            pass

        def close(self) -> list[Path]:
            return written  # type: ignore[no-any-return]

    with pytest.raises(ExtensionError, match=f"format Text: close.* {said} pathlib.Path"):
        Text().close()


# -- on the command line ----------------------------------------------------------------------

MODULE = """
from sam_detect.interfaces import Segmenter
from sam_detect.embedding import AverageEmbedder

class Lists(Segmenter):
    def propose(self, frame, hints=None):
        return []

class Fails(Segmenter):
    def propose(self, frame, hints=None):
        return {}["gone"]

class Own(AverageEmbedder):
    name = "own"
"""


@pytest.fixture
def place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> tuple[str, Path]:
    """A module in the working directory, and a picture."""
    monkeypatch.chdir(tmp_path)
    module = f"own_{abs(hash(request.node.name))}"
    Path(f"{module}.py").write_text(MODULE)
    Image.fromarray(discs()[..., ::-1]).save(tmp_path / "discs.png")
    return module, tmp_path / "discs.png"


@pytest.mark.parametrize(
    ("name", "said"), [("Lists", "returned a list"), ("Fails", "KeyError: 'gone'")]
)
def test_a_broken_part_ends_a_command_in_one_line(
    place: tuple[str, Path], name: str, said: str, capfd: pytest.CaptureFixture[str]
) -> None:
    command = [str(place[1]), "--store", "memory", "--segmenter", f"{place[0]}:{name}"]
    assert run(command) == 1
    [line] = [each for each in capfd.readouterr().err.splitlines() if each.startswith("error")]
    assert f"the segmenter {name}" in line
    assert said in line
    assert run([*command, "--debug"]) == 1
    shown = capfd.readouterr().err
    assert "Traceback" in shown
    assert name == "Lists" or '{}["gone"]' in shown, "where it failed"


def test_a_library_of_an_embedder_that_is_not_here_says_what_to_do(
    place: tuple[str, Path], capfd: pytest.CaptureFixture[str]
) -> None:
    module, picture = place
    own = ["--embedder", f"{module}:Own"]
    box = ["--label", "nut", "--box", "14,14,33,33"]
    assert run(["learn", str(picture), *box, *own]) == 0
    assert run([str(picture)]) == 2
    said = capfd.readouterr().err
    assert "embedder 'own', which is not a part of sam-detect" in said
    assert "embedder=, on the command line --embedder PKG.MOD:CLASS" in said
    assert run([str(picture), *own]) == 0
    assert run([str(picture), "--embedder", "appearance"]) == 0


def test_a_library_of_an_embedder_given_in_python_asks_for_it() -> None:
    class Other(AverageEmbedder):
        name = "other"

    store = MemoryVectorStore()
    detector(vector_store=store, embedder=Other())
    with pytest.raises(RecipeMismatchError, match=r"the embedder 'other', .* give it again"):
        SAMDetect(vector_store=store)
    assert SAMDetect(vector_store=store, embedder=Other()).recipe.embedder == "other"


def test_set_fade_strategy_takes_a_name() -> None:
    used = detector()
    used.set_fade_strategy("linear")
    assert used.recipe.fade == "linear"
    with pytest.raises(ConfigError, match="no fade is named 'linaer'; did you mean 'linear'"):
        used.set_fade_strategy("linaer")
