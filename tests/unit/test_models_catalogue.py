"""Names of models: what they mean, and that our table says what the packages say."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest

from sam_detect.errors import ConfigError, UnavailableError, UnknownNameError
from sam_detect.models.catalogue import (
    CLIP_MODELS,
    SAM2_MODELS,
    Model,
    SAM2Weights,
    clip_model,
    find_sam2,
    sam2_model,
)

SIZES = ["tiny", "small", "base_plus", "large"]


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("tiny", "sam2.1_hiera_tiny"),
        ("small", "sam2.1_hiera_small"),
        ("base", "sam2.1_hiera_base_plus"),
        ("base_plus", "sam2.1_hiera_base_plus"),
        ("base+", "sam2.1_hiera_base_plus"),
        ("large", "sam2.1_hiera_large"),
        ("Large ", "sam2.1_hiera_large"),
        ("sam2_hiera_large", "sam2_hiera_large"),
        ("sam2.1_hiera_base_plus.pt", "sam2.1_hiera_base_plus"),
        ("sam2.1_hiera_b+", "sam2.1_hiera_base_plus"),
        ("facebook/sam2-hiera-base-plus", "sam2_hiera_base_plus"),
        ("facebook/sam2.1-hiera-tiny", "sam2.1_hiera_tiny"),
    ],
)
def test_a_sam2_name_means_one_checkpoint(name: str, meant: str) -> None:
    assert sam2_model(name).name == meant


def test_every_sam2_name_means_itself_alone() -> None:
    assert [sam2_model(model.name) for model in SAM2_MODELS] == list(SAM2_MODELS)
    assert {model.name for model in SAM2_MODELS} == {
        f"{release}_hiera_{size}" for release in ("sam2", "sam2.1") for size in SIZES
    }


@pytest.mark.parametrize("name", ["", "bas", "sam2_hiera", "sam2.1_hiera_huge", "../tiny", "vit_b"])
def test_an_unknown_sam2_name_is_told_which_there_are(name: str) -> None:
    assert find_sam2(name) is None
    with pytest.raises(
        UnknownNameError, match=r"no SAM 2 model is named .*tiny, small, base, large"
    ):
        sam2_model(name)


def test_a_slip_is_guessed() -> None:
    pytest.importorskip("open_clip")
    with pytest.raises(UnknownNameError, match="did you mean 'sam2_hiera_large'"):
        sam2_model("sam2_hera_large")
    with pytest.raises(UnknownNameError, match="did you mean 'ViT-B-32/laion2b_e16'"):
        clip_model("ViT-B-32/laion2b_e15")
    with pytest.raises(UnknownNameError, match="did you mean 'ViT-B-"):
        clip_model("ViT-B-15")


def test_configs_are_those_that_the_sam2_package_ships_and_names() -> None:
    build = pytest.importorskip("sam2.build_sam")
    theirs = {
        place: (config, filename)
        for place, (config, filename) in build.HF_MODEL_ID_TO_FILENAMES.items()
    }
    assert len(theirs) == len(SAM2_MODELS)
    for place, expected in theirs.items():
        model = sam2_model(place)
        assert (model.config, model.filenames[0]) == expected
        assert model.hub == place
        assert (Path(build.sam2.__path__[0]) / model.config).is_file()


def test_a_checkpoint_is_as_large_as_its_parameters() -> None:
    build = pytest.importorskip("sam2.build_sam")
    for name in ("tiny", "sam2_hiera_tiny"):
        model = sam2_model(name)
        made = build.build_sam2(model.config, None, device="cpu")
        parameters = sum(value.numel() * 4 for value in made.state_dict().values())
        assert parameters < model.size_bytes < parameters * 1.002


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("base", "ViT-B-32/openai"),
        ("clip-vit-b", "ViT-B-32/openai"),
        ("ViT-B/32", "ViT-B-32/openai"),
        ("ViT-B-32", "ViT-B-32/openai"),
        ("vit-b-32:OpenAI", "ViT-B-32/openai"),
        ("openai/clip-vit-base-patch32", "ViT-B-32/openai"),
        ("openai/clip-vit-base-patch16", "ViT-B-16/openai"),
        ("openai/clip-vit-large-patch14", "ViT-L-14/openai"),
        ("openai/clip-vit-large-patch14-336", "ViT-L-14-336/openai"),
        ("large", "ViT-L-14/openai"),
        ("hf-hub:timm/vit_base_patch32_clip_224.openai", "ViT-B-32/openai"),
    ],
)
def test_a_clip_name_means_one_set_of_weights(name: str, meant: str) -> None:
    assert clip_model(name).name == meant


def test_known_names_need_no_open_clip_and_no_torch() -> None:
    code = (
        "import sys; sys.modules['open_clip'] = None\n"
        "from sam_detect.models.catalogue import clip_model\n"
        "from sam_detect.models.weights import available_clip, available_sam2\n"
        "assert clip_model('base').hub and not available_clip('base')\n"
        "assert not available_sam2('base') and 'torch' not in sys.modules\n"
        "clip_model('ViT-H-14/laion2b_s32b_b79k')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert "UnavailableError" in done.stderr
    assert "pip install 'sam-detect[models]'" in done.stderr


def _named(model: Model) -> tuple[str, str, str, tuple[str, ...]]:
    return model.model, model.pretrained, model.hub, model.filenames


class TestOpenClip:
    """What is looked up in open_clip's own table."""

    @pytest.fixture(autouse=True)
    def _installed(self) -> None:
        pytest.importorskip("open_clip")

    def test_our_table_says_what_open_clip_says(self) -> None:
        import open_clip

        for model in CLIP_MODELS:
            config = open_clip.get_pretrained_cfg(model.model, model.pretrained)
            assert config["hf_hub"] == f"{model.hub}/"

    def test_every_model_of_open_clip_can_be_named(self) -> None:
        import open_clip

        for architecture, tag in open_clip.list_pretrained():
            for name in (f"{architecture}/{tag}", f"{architecture}:{tag}"):
                found = clip_model(name)
                assert (found.model, found.pretrained) == (architecture, tag)
                assert found.hub.count("/") == 1
                assert all("/" not in file for file in found.filenames)

    def test_an_id_on_the_hub_is_found(self) -> None:
        found = clip_model("laion/CLIP-ViT-B-32-laion2B-s34B-b79K")
        assert _named(found) == (
            "ViT-B-32",
            "laion2b_s34b_b79k",
            "laion/CLIP-ViT-B-32-laion2B-s34B-b79K",
            ("open_clip_model.safetensors", "open_clip_pytorch_model.bin"),
        )

    def test_a_file_that_open_clip_names_is_looked_for_as_safetensors_first(self) -> None:
        found = clip_model("ViTamin-S/datacomp1b")
        assert _named(found)[2:] == (
            "jienengchen/ViTamin-S",
            ("pytorch_model.safetensors", "pytorch_model.bin"),
        )

    def test_a_model_alone_is_its_only_or_openais_weights(self) -> None:
        assert clip_model("RN50").name == "RN50/openai"
        assert clip_model("ViT-B-16-SigLIP").name == "ViT-B-16-SigLIP/webli"
        with pytest.raises(ConfigError, match=r"name one \(.*ViT-H-14/laion2b_s32b_b79k"):
            clip_model("ViT-H-14")

    def test_what_open_clip_does_not_know_is_unknown(self) -> None:
        with pytest.raises(
            UnknownNameError, match=r"base, ViT-B-32/openai.*MODEL/TAG of open_clip"
        ):
            clip_model("somebody/else")


def test_a_missing_extra_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "open_clip", None)
    with pytest.raises(UnavailableError, match=r"open_clip, which is not installed.*\[models\]"):
        clip_model("ViT-H-14/laion2b_s32b_b79k")


def test_weights_are_plain_frozen_data() -> None:
    weights = SAM2Weights("tiny", "a.yaml", Path("x.pt"))
    with pytest.raises(dataclasses.FrozenInstanceError):
        weights.name = "large"  # type: ignore[misc]
