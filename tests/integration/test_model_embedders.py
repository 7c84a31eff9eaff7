"""Model embedders end to end, offline, with small models: learn, detect, reindex, and texts."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli_harness import DISCS, SQUARES, Command, at, box_around, drawn, in_this_process, saved
from sam2_helpers import write_small_sam2
from small_models import write_small_clip

from sam_detect import SAMDetect
from sam_detect.embedding import SAM2Embedder
from sam_detect.errors import ConfigError, RecipeMismatchError
from sam_detect.fading import GaussianFade, IdentityFade
from sam_detect.library.reindex import embed_stored
from sam_detect.types import Frame, Masks
from sam_detect.vector_store import MemoryVectorStore
from tests.closeness import assert_same_vectors

pytestmark = pytest.mark.usefixtures("one_torch_thread")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_sam2(tmp_path_factory.mktemp("sam2"))


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture
def sam(capfd: pytest.CaptureFixture[str]) -> Command:
    return in_this_process(capfd)


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    return saved(tmp_path / "board.png")


def asked(checkpoint: Path) -> tuple[str, ...]:
    return "--segmenter", "naive", "--embedder", "sam2", "--sam-model", str(checkpoint)


# The command line


@pytest.mark.parametrize("pooling", ["crop", "frame"])
def test_learning_and_finding_by_sam2s_features(
    sam: Command, picture: Path, checkpoint: Path, pooling: str
) -> None:
    options = (*asked(checkpoint), "--pooling", pooling, "--json")
    [empty] = sam("detect", picture, *options).worked().json
    assert {each["label"] for each in empty["detections"]} == {None}
    sam("learn", picture, *options, "--label", "disc", "--box", box_around(*DISCS[0])).worked()
    sam("detect", picture).failed(
        f"'{checkpoint.name}'", "digest", "--embedder sam2 --sam-model PATH", code=2
    )
    [found] = sam("detect", picture, *asked(checkpoint), "--json").worked().json
    recipe = found["recipe"]
    assert (recipe["embedder"], recipe["fade"], recipe["dimension"]) == ("sam2", "identity", 32)
    assert recipe["model"]["file"] == checkpoint.name
    assert str(checkpoint.parent) not in json.dumps(recipe)
    assert recipe["model"]["pooling"] == pooling, "as the library has it"
    for place in DISCS:
        nearest = at(found["detections"], *place)["neighbours"][0]
        assert nearest["similarity"] > 0.95
    square = at(found["detections"], *SQUARES[0])["neighbours"][0]
    assert square["similarity"] < nearest["similarity"]


def test_a_library_is_reindexed_to_sam2_and_to_clip(
    sam: Command, picture: Path, checkpoint: Path, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sam("learn", picture, "--label", "disc", "--box", box_around(*DISCS[0])).worked()
    options = ("--embedder", "sam2", "--sam-model", checkpoint, "--fade", "identity")
    said = sam("detect", picture, *options).worked().err
    command = shlex.split(said[said.index("sam-detect library reindex") :].splitlines()[0])[1:]
    assert command[command.index("--sam-model") + 1] == str(checkpoint)
    [done] = sam(*command, "--json").worked().json
    assert (done["reindexed"], done["recipe"]["embedder"]) == (1, "sam2")
    [found] = sam("detect", picture, *asked(checkpoint), "--json").worked().json
    assert at(found["detections"], *DISCS[0])["neighbours"][0]["similarity"] > 0.999
    # What is printed works as it is, wherever it is pasted: here for a file named relatively.
    monkeypatch.chdir(clip.parent)
    said = sam("detect", picture, "--clip-model", f"./{clip.name}").worked().err
    command = shlex.split(said[said.index("sam-detect library reindex") :].splitlines()[0])[1:]
    monkeypatch.chdir(picture.parent)
    [done] = sam(*command, "--json").worked().json
    assert done["recipe"]["model"]["file"] == clip.name
    assert done["recipe"]["fade"] == "identity", "as it was"
    sam("detect", picture, "--embedder", "clip").failed("--clip-model PATH", code=2)
    [found] = sam("detect", picture, "--clip-model", clip, "--json").worked().json
    assert at(found["detections"], *DISCS[0])["neighbours"][0]["similarity"] > 0.999


def test_vectors_of_whole_pictures_cannot_be_made_from_crops(
    sam: Command, picture: Path, checkpoint: Path
) -> None:
    learn = ("learn", picture, "--label", "disc", "--box", box_around(*DISCS[0]))
    sam(*learn, *asked(checkpoint), "--pooling", "frame").worked()
    said = ("need the whole pictures", "pooling 'crop'")
    model = ("--embedder", "sam2", "--sam-model", checkpoint)
    sam("library", "reindex", *model).failed(*said, code=2)
    sam("library", "reindex", *model, "--pooling", "crop").worked()
    sam("library", "reindex", *model, "--pooling", "frame").failed(*said, code=2)
    sam(*learn, "--fade", "gaussian", *asked(checkpoint), "--pooling", "frame",
        "--library", "other").failed("nothing is faded", "'identity'", code=2)  # fmt: skip


def test_a_model_that_is_gone_or_changed_is_said(
    sam: Command, picture: Path, tmp_path: Path
) -> None:
    path = write_small_sam2(tmp_path / "models")
    sam("learn", picture, *asked(path), "--label", "disc", "--box", box_around(*DISCS[0])).worked()
    renamed = path.with_name("renamed.pt")
    renamed.write_bytes(path.read_bytes())
    sam("detect", picture, *asked(renamed)).worked()
    sam("detect", picture, "--sam-model", renamed, "--points-per-side", "2").worked()
    again = ("learn", picture, *asked(renamed), "--label", "disc", "--box", box_around(*DISCS[1]))
    assert "total" in sam(*again, "--json").worked().json[0]
    write_small_sam2(tmp_path / "models", seed=1)
    sam("detect", picture, "--sam-model", path).failed("has the digest", path.name, code=2)
    path.unlink()
    sam("detect", picture, *asked(path)).failed("no checkpoint", str(path), code=2)


def test_names_are_found_by_their_texts(sam: Command, picture: Path, clip: Path) -> None:
    options = ("--clip-model", clip, "--labeller", "text", "--json")
    line = ("--text-labels", "disc, square", "--text-templates", "a {}|one {} alone")
    [found] = sam("detect", picture, *options, *line, "--threshold", "0").worked().json
    assert {each["label"] for each in found["detections"]} <= {"disc", "square"}
    assert found["detections"]
    unsure = sam("detect", picture, *options[:-1], *line, "--threshold", "1").worked()
    assert "nothing known" in unsure.out
    assert "knows nothing" not in unsure.out, "it needs no examples"
    assert "knows nothing yet" in sam("detect", picture, "--clip-model", clip).worked().out
    sam("detect", picture, *options).failed("--text-labels", code=2)
    sam("detect", picture, "--labeller", "text", "--text-labels", "disc").failed(
        "'text' compares with texts", "lite does not", "'clip'", code=2
    )
    sam("detect", picture, *options, "--text-templates", "no name").failed("{}", code=2)
    sam("learn", picture, "--clip-model", clip, "--label", "disc",
        "--box", box_around(*DISCS[0])).worked()  # fmt: skip
    [found] = sam("detect", picture, *options).worked().json
    assert {each["best_label"] for each in found["detections"]} == {"disc"}, "the library's names"


def test_a_library_of_a_config_that_is_no_longer_read_says_so(
    sam: Command, picture: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def older(self: SAM2Embedder) -> dict[str, Any]:
        return {**self._parameters, "config_digest": "0" * 16}

    with monkeypatch.context() as patch:
        patch.setattr(SAM2Embedder, "parameters", older)
        learn = ("learn", picture, "--label", "disc", "--box", box_around(*DISCS[0]))
        sam(*learn, *asked(checkpoint)).worked()
    detect = ("detect", picture, "--sam-model", checkpoint)
    sam(*detect).failed("another configuration of the model 'small.pt'", "reindex", code=2)
    sam("library", "reindex", *asked(checkpoint)[2:]).worked()
    sam(*detect).worked()


# Python


def in_memory(embedder: Any, **settings: Any) -> SAMDetect:
    return SAMDetect(
        segmenter="naive", embedder=embedder, vector_store=MemoryVectorStore(),
        color_order="rgb", **settings,
    )  # fmt: skip


def test_examples_and_what_lies_around_them_are_pooled_from_the_frame(checkpoint: Path) -> None:
    embedder = SAM2Embedder(checkpoint, device="cpu", pooling="frame")
    detector, frame = in_memory(embedder), Frame(drawn())
    proposals = detector.pipeline.all_proposals(frame)
    detector.learn_frame(frame, proposals[[0]], ["thing"])
    [example] = detector.library.read()
    whole = embedder.embed_frame(frame, proposals)
    np.testing.assert_allclose(example.vector, whole[0], atol=1e-6)
    assert example.hard_negatives is not None
    around = example.hard_negatives.vectors
    assert len(around) >= 2
    assert len({row.tobytes() for row in around}) == len(around)
    # Kept in half precision; each is one of the proposals' own vectors.
    assert (around.astype(np.float32) @ whole[1:].T).max(axis=1).min() > 0.999
    crops = SAM2Embedder(checkpoint, device="cpu")
    by_crop = in_memory(crops).pipeline.features.embed_masks(frame, proposals[[0]])
    assert not np.allclose(example.vector, by_crop[0])


def test_another_fade_is_refused_where_nothing_can_fade(checkpoint: Path) -> None:
    embedder = SAM2Embedder(checkpoint, device="cpu", pooling="frame")
    with pytest.raises(ConfigError, match="'identity'"):
        in_memory(embedder, fade_strategy=GaussianFade())
    detector = in_memory(embedder)
    with pytest.raises(ConfigError, match="'identity'"):
        detector.set_fade_strategy(GaussianFade())
    assert detector.recipe.fade == "identity"


def test_several_occupancies_have_their_crops_cut_wide_enough(checkpoint: Path) -> None:
    embedder = SAM2Embedder(checkpoint, device="cpu", occupancies=(0.1, 0.4))
    detector = in_memory(embedder)
    assert detector.recipe.occupancy == 0.1
    assert detector.recipe.dimension == 64
    with pytest.raises(ConfigError, match=r"at most 0\.1, but they are cut with occupancy 0\.2"):
        in_memory(embedder, occupancy=0.2)


def test_crops_of_the_library_give_the_vectors_of_the_picture(checkpoint: Path) -> None:
    detector, frame = in_memory(SAM2Embedder(checkpoint, device="cpu")), Frame(drawn())
    detector.learn_frame(frame, detector.pipeline.all_proposals(frame)[:3], ["a", "b", "c"])
    before = {each.id: each.vector for each in detector.library.read()}
    again = embed_stored(detector.library, detector.pipeline.features, list(before))
    for key, vector in before.items():
        assert_same_vectors(again[key][0], vector)


def test_an_embedder_of_frames_cannot_read_a_library_of_crops(checkpoint: Path) -> None:
    store = MemoryVectorStore()
    made = SAMDetect(vector_store=store, segmenter="naive", embedder="average")
    made.add_examples_from_file(drawn(), np.ones((200, 280), bool), "all")
    whole = SAM2Embedder(checkpoint, device="cpu", pooling="frame")
    with pytest.raises(RecipeMismatchError, match="need the whole pictures"):
        SAMDetect(vector_store=store, segmenter="naive", embedder=whole)
    crops = SAM2Embedder(checkpoint, device="cpu")
    reading = SAMDetect(vector_store=store, segmenter="naive", embedder=crops)
    assert reading.snapshot().examples().vectors.shape == (1, reading.recipe.dimension)


def test_a_library_of_frames_is_not_faded_otherwise(checkpoint: Path) -> None:
    from sam_detect.features.extraction import FeatureExtractor
    from sam_detect.library.reindex import reindex

    detector, frame = in_memory("average"), Frame(drawn())
    detector.learn_frame(frame, Masks.from_dense(np.ones(frame.size_hw, bool)), ["all"])
    maker = FeatureExtractor(
        SAM2Embedder(checkpoint, device="cpu", pooling="frame"), IdentityFade()
    )
    with pytest.raises(RecipeMismatchError, match="learn them into a new library"):
        reindex(detector.library, maker)
