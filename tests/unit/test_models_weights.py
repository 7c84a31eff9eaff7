"""Where weights are looked for, and what is said when they are missing or damaged."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from model_files import by_hand, in_cache, put

from sam_detect.errors import UnavailableError, UnknownNameError
from sam_detect.models import weights
from sam_detect.models.catalogue import clip_model, sam2_model
from sam_detect.models.weights import (
    available_clip,
    available_sam2,
    checked_sha256,
    find_weights,
    models_dir,
    published_sha256,
    require_clip,
    require_sam2,
    sha256_of,
)

SHA256 = hashlib.sha256(b"weights").hexdigest()


def test_weights_are_found_in_the_cache_and_in_the_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SAM_DETECT_HOME", str(tmp_path))
    assert models_dir() == tmp_path / "models"
    model = sam2_model("base")
    assert find_weights(model) is None
    cached = in_cache(model)
    assert require_sam2("base").path == cached
    old = put(tmp_path / "models" / "sam2" / "sam2.1_hiera_base_plus.pt")
    assert require_sam2("base").path == old
    clip = put(tmp_path / "models" / "clip" / "ViT-B-32" / "openai" / "open_clip_model.safetensors")
    assert require_clip("base").path == clip


def test_another_revision_in_the_cache_is_not_the_model() -> None:
    path = in_cache(sam2_model("tiny"))
    put(path.parents[2] / "refs" / "main", b"f" * 40)
    assert not available_sam2("tiny")


def test_a_missing_sam2_model_is_named_with_the_command_and_the_way_without() -> None:
    assert not available_sam2("base")
    with pytest.raises(UnavailableError) as caught:
        require_sam2("base")
    message = str(caught.value)
    for words in (
        "'base' is not on this machine",
        str(models_dir() / "sam2"),
        "sam-detect download-models --sam-model base",
        "'naive' needs no model",
    ):
        assert words in message


def test_a_missing_clip_model_is_named_with_the_command_and_the_way_without() -> None:
    assert not available_clip("openai/clip-vit-large-patch14")
    with pytest.raises(UnavailableError) as caught:
        require_clip("openai/clip-vit-large-patch14")
    for words in ("--clip-model large", "ViT-L-14", "'appearance' needs no model"):
        assert words in str(caught.value)


def test_what_is_there_is_given_with_all_that_loading_needs() -> None:
    path = in_cache(sam2_model("sam2_hiera_large"))
    found = require_sam2("facebook/sam2-hiera-large")
    assert (found.name, found.config) == ("sam2_hiera_large", "configs/sam2/sam2_hiera_l.yaml")
    assert found.path == path
    assert available_sam2("sam2_hiera_large")
    assert not available_sam2("large")

    path = in_cache(clip_model("base"))
    clip = require_clip("clip-vit-b")
    assert (clip.model, clip.pretrained, clip.path) == ("ViT-B-32", "openai", path)
    assert available_clip("base")


def test_clip_weights_in_the_old_format_are_found_and_safe_ones_preferred() -> None:
    for place in (in_cache, by_hand):
        old = place(clip_model("base"), number=1)
        assert require_clip("base").path == old
        safe = place(clip_model("base"), number=0)
        assert require_clip("base").path == safe


def test_no_model_is_available_under_a_wrong_name() -> None:
    assert not available_sam2("nothing")
    assert not available_clip("nothing/there")


class TestOwnCheckpoint:
    def test_its_weights_tell_the_model(self, tmp_path: Path) -> None:
        path = put(tmp_path / "cells.pt")
        put(tmp_path / "cells.yaml")
        found = require_sam2(str(path))
        assert (found.name, found.config, found.path) == ("cells", None, path)
        assert available_sam2(str(path))

    def test_the_path_of_one_of_metas_that_is_here_is_its_name(self, tmp_path: Path) -> None:
        path = in_cache(sam2_model("tiny"))
        assert require_sam2(path) == require_sam2("tiny")
        other = put(tmp_path / path.name)
        assert require_sam2(other).config is None

    def test_a_file_in_this_folder_goes_before_the_model_of_its_name(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        kept = by_hand(sam2_model("tiny"))
        assert require_sam2("sam2.1_hiera_tiny.pt").path == kept
        put(tmp_path / "sam2.1_hiera_tiny.pt")
        assert require_sam2("sam2.1_hiera_tiny.pt").path == Path("sam2.1_hiera_tiny.pt")
        put(tmp_path / "tiny")  # a size is never a file
        assert require_sam2("tiny").path == kept

    def test_a_file_that_is_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(UnavailableError, match=r"no checkpoint '.*gone.pt'"):
            require_sam2(str(tmp_path / "gone.pt"))
        with pytest.raises(UnavailableError, match="is a folder"):
            require_sam2(str(tmp_path))
        with pytest.raises(UnknownNameError):
            require_sam2(str(tmp_path / "gone"))


class TestDigest:
    """The hub's cache names a file by its SHA-256, which is compared when the file is loaded."""

    def test_a_file_of_the_cache_is_checked(self) -> None:
        path = in_cache(sam2_model("tiny"))
        assert checked_sha256(path) == published_sha256(path) == SHA256
        path.write_bytes(b"wEights")
        with pytest.raises(UnavailableError, match=r"damaged.*download-models"):
            checked_sha256(path)

    def test_a_blob_in_a_shared_store_is_compared_by_its_own_name(self, tmp_path: Path) -> None:
        """The store may name it by another digest."""
        path = in_cache(sam2_model("tiny"))
        blob, stored = path.resolve(), tmp_path / "store" / ("0" * 64)
        put(stored, blob.read_bytes())
        blob.unlink()
        blob.symlink_to(stored)
        assert checked_sha256(path) == published_sha256(path) == SHA256

    def test_other_files_have_no_published_digest(self, tmp_path: Path) -> None:
        path = put(tmp_path / "blobs" / ("0" * 64))
        assert published_sha256(path) is None
        assert checked_sha256(path) == SHA256
        link = tmp_path / "x.pt"
        link.symlink_to(put(tmp_path / "elsewhere" / ("0" * 64)))
        assert published_sha256(link) is None

    def test_a_file_that_cannot_be_read(self, tmp_path: Path) -> None:
        with pytest.raises(UnavailableError, match=r"no weights file .*gone.pt"):
            checked_sha256(tmp_path / "gone.pt")
        with pytest.raises(UnavailableError, match="cannot read the weights"):
            checked_sha256(tmp_path)

    def test_the_digest_of_a_file_of_several_blocks(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(weights, "BLOCK", 3)
        seen: list[int] = []
        assert sha256_of(put(tmp_path / "x"), seen.append) == SHA256
        assert seen == [3, 6, 7]
