"""Where weights are looked for, what is said when they are missing or damaged, and records."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from sam_detect.errors import ConfigError, UnavailableError, UnknownNameError
from sam_detect.models import records
from sam_detect.models.catalogue import clip_model, sam2_model
from sam_detect.models.records import Record, is_whole, read_record, record_path, write_record
from sam_detect.models.weights import (
    available_clip,
    available_sam2,
    clip_path,
    models_dir,
    require_clip,
    require_sam2,
    sam2_path,
)


def put(path: Path, data: bytes = b"weights", *, recorded: bool = False) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    if recorded:
        found = path.stat()
        digest = hashlib.sha256(data).hexdigest()
        write_record(path, Record(digest, False, found.st_size, found.st_mtime_ns, "", "2026"))
    return path


def test_all_weights_lie_in_the_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAM_DETECT_HOME", str(tmp_path))
    assert models_dir() == tmp_path / "models"
    assert sam2_path(sam2_model("base")) == tmp_path / "models/sam2/sam2.1_hiera_base_plus.pt"
    assert clip_path(clip_model("base")) == (
        tmp_path / "models/clip/ViT-B-32/openai/open_clip_model.safetensors"
    )


def test_a_missing_sam2_model_is_named_with_the_command_and_the_way_without() -> None:
    assert not available_sam2("base")
    with pytest.raises(UnavailableError) as caught:
        require_sam2("base")
    message = str(caught.value)
    for words in (
        "'base' is not on this machine",
        str(sam2_path(sam2_model("base"))),
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
    path = put(sam2_path(sam2_model("sam2_hiera_large")))
    found = require_sam2("facebook/sam2-hiera-large")
    assert (found.name, found.config) == ("sam2_hiera_large", "configs/sam2/sam2_hiera_l.yaml")
    assert found.path == path
    assert available_sam2("sam2_hiera_large")
    assert not available_sam2("large")

    path = put(clip_path(clip_model("base")))
    clip = require_clip("clip-vit-b")
    assert (clip.model, clip.pretrained, clip.path) == ("ViT-B-32", "openai", path)
    assert available_clip("base")


def test_clip_weights_in_the_old_format_are_found_and_safe_ones_preferred() -> None:
    model = clip_model("base")
    folder = clip_path(model).parent
    old = put(folder / "open_clip_pytorch_model.bin")
    assert require_clip("base").path == old
    safe = put(folder / "open_clip_model.safetensors")
    assert require_clip("base").path == safe


def test_no_model_is_available_under_a_wrong_name() -> None:
    assert not available_sam2("nothing")
    assert not available_clip("nothing/there")


class TestOwnCheckpoint:
    def test_the_configuration_beside_it(self, tmp_path: Path) -> None:
        path, config = put(tmp_path / "cells.pt"), put(tmp_path / "cells.yaml")
        found = require_sam2(str(path))
        assert (found.name, found.config, found.path) == ("cells", str(config), path)
        assert available_sam2(str(path))

    def test_the_configuration_asked_for(self, tmp_path: Path) -> None:
        path = put(tmp_path / "cells.pt")
        put(tmp_path / "cells.yaml")
        assert require_sam2(str(path), "configs/sam2/sam2_hiera_t.yaml").config == (
            "configs/sam2/sam2_hiera_t.yaml"
        )

    @pytest.mark.parametrize(
        ("name", "config"),
        [
            ("sam2.1_hiera_large.pt", "configs/sam2.1/sam2.1_hiera_l.yaml"),
            ("sam2_hiera_tiny_epoch_3.pth", "configs/sam2/sam2_hiera_t.yaml"),
            ("SAM2.1_hiera_base_plus-cells.pt", "configs/sam2.1/sam2.1_hiera_b+.yaml"),
        ],
    )
    def test_the_model_that_its_name_begins_with(
        self, tmp_path: Path, name: str, config: str
    ) -> None:
        assert require_sam2(str(put(tmp_path / name))).config == config

    def test_without_any_of_these(self, tmp_path: Path) -> None:
        path = put(tmp_path / "cells.pt")
        with pytest.raises(ConfigError, match=r"which configuration .*put cells.yaml beside it"):
            require_sam2(str(path))

    def test_a_file_in_this_folder_goes_before_the_model_of_its_name(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        put(sam2_path(sam2_model("tiny")))
        assert require_sam2("sam2.1_hiera_tiny.pt").path == sam2_path(sam2_model("tiny"))
        put(tmp_path / "sam2.1_hiera_tiny.pt")
        assert require_sam2("sam2.1_hiera_tiny.pt").path == Path("sam2.1_hiera_tiny.pt")
        put(tmp_path / "tiny")  # a size is never a file
        assert require_sam2("tiny").path == sam2_path(sam2_model("tiny"))

    def test_a_file_that_is_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(UnavailableError, match=r"no checkpoint '.*gone.pt'"):
            require_sam2(str(tmp_path / "gone.pt"))
        with pytest.raises(UnavailableError, match="is a folder"):
            require_sam2(str(tmp_path))
        with pytest.raises(UnknownNameError):
            require_sam2(str(tmp_path / "gone"))


class TestRecords:
    def test_a_truncated_file_is_damaged(self) -> None:
        path = put(sam2_path(sam2_model("tiny")), recorded=True)
        before = path.stat().st_mtime_ns
        path.write_bytes(b"weigh")
        os.utime(path, ns=(before, before))
        assert not available_sam2("tiny")
        with pytest.raises(
            UnavailableError, match=r"5 bytes instead of 7: get it again .*--sam-model tiny"
        ):
            require_sam2("tiny")

    def test_other_bytes_are_damage(self) -> None:
        path = put(clip_path(clip_model("base")), recorded=True)
        path.write_bytes(b"wEights")
        with pytest.raises(
            UnavailableError, match=r"SHA-256 is not the recorded one.*clip-model base"
        ):
            require_clip("base")

    def test_a_copied_file_is_read_once_and_then_known_by_its_time(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = put(tmp_path / "x.pt", recorded=True)
        os.utime(path, ns=(1, 1))
        assert is_whole(path)
        record = read_record(path)
        assert record is not None
        assert record.mtime_ns == 1
        monkeypatch.setattr(records, "sha256_of", lambda *_: pytest.fail("was read again"))
        assert is_whole(path)

    def test_a_change_behind_an_old_time_is_found_by_reading(self, tmp_path: Path) -> None:
        path = put(tmp_path / "x.pt", recorded=True)
        before = path.stat().st_mtime_ns
        path.write_bytes(b"wEights")
        os.utime(path, ns=(before, before))
        assert is_whole(path)
        assert not is_whole(path, thoroughly=True)

    @pytest.mark.parametrize("text", ["", "{", "[1]", '{"sha256": "0"}', "\xff"])
    def test_a_record_that_cannot_be_read_says_so(self, tmp_path: Path, text: str) -> None:
        path = put(tmp_path / "x.pt")
        record_path(path).write_bytes(text.encode("latin-1"))
        with pytest.raises(UnavailableError, match=r"x.pt.json cannot be read .*delete it"):
            is_whole(path)

    def test_a_file_without_a_record_is_taken(self, tmp_path: Path) -> None:
        assert is_whole(put(tmp_path / "x.pt"))

    def test_the_digest_of_a_file_of_several_blocks(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(records, "BLOCK", 3)
        seen: list[int] = []
        digest = records.sha256_of(put(tmp_path / "x"), seen.append)
        assert digest == hashlib.sha256(b"weights").hexdigest()
        assert seen == [3, 6, 7]
