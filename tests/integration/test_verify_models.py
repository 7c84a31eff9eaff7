"""``sam-detect verify-models`` on small models."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from cli_harness import Command, in_this_process
from sam2_helpers import write_small_sam2
from small_models import write_small_clip

from sam_detect import verification
from sam_detect.models.weights import sha256_of
from sam_detect.segmentation._sam2_prompters import GridPrompter

pytestmark = pytest.mark.usefixtures("one_torch_thread")


@pytest.fixture
def sam(capfd: pytest.CaptureFixture[str]) -> Command:
    return in_this_process(capfd)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Small models: only what is said is tested here."""
    folder = tmp_path_factory.mktemp("models")
    return write_small_sam2(folder / "sam2", sure=True), write_small_clip(folder / "clip")


@pytest.fixture
def models(made: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> tuple[str, ...]:
    monkeypatch.setattr(verification, "POINTS_PER_SIDE", 4)
    sam2, clip = made
    return ("--sam-model", str(sam2), "--clip-model", str(clip), "--device", "cpu")


def leave_out(monkeypatch: pytest.MonkeyPatch, *checks: str) -> None:
    """Replaces the quality check and others that a test does not look at."""
    for name in checks:
        monkeypatch.setattr(verification, name, lambda *_: iter(()))
    monkeypatch.setattr(verification, "_quality", lambda *_: verification.Check("quality", "F1 1"))


def test_ours_is_what_the_official_code_makes(sam: Command, models: tuple[str, ...]) -> None:
    [found] = sam("verify-models", *models, "--json").worked().json
    right = {check["name"]: check["right"] for check in found["checks"]}
    assert right["SAM 2 masks, fp32"] is right["CLIP vectors"] is True
    assert right["quality"] is right["machine"] is None
    masks = next(c["found"] for c in found["checks"] if c["name"] == "SAM 2 masks, fp32")
    assert not masks.startswith("0,"), "there must be something to compare"


def test_prompters_are_compared_with_the_grid(
    sam: Command, models: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    leave_out(monkeypatch, "_vectors")
    [found] = sam("verify-models", *models, "--json").worked().json
    said = {c["name"]: c["found"] for c in found["checks"] if "prompts" in c["name"]}
    assert list(said) == ["SAM 2 prompts adaptive", "SAM 2 prompts blobs"]
    counts = re.compile(r"(\d+) of the grid's 64 prompts, (\d+\.\d)% of its (\d+) masks")
    for text in said.values():
        asked, share, masks = counts.match(text).groups()  # type: ignore[union-attr]
        assert 0 < int(asked) <= 64
        assert int(masks) > 0
        assert 0 < float(share) <= 100
    # The grid itself, as a prompter, finds all masks of the grid.
    monkeypatch.setattr(verification, "make_prompter", lambda name: GridPrompter())
    [found] = sam("verify-models", *models, "--json").worked().json
    said = {c["name"]: c["found"] for c in found["checks"] if "prompts" in c["name"]}
    assert all("64 of the grid's 64 prompts, 100.0%" in text for text in said.values())


def test_weights_that_are_not_the_published_ones_are_wrong(
    sam: Command, models: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    leave_out(monkeypatch, "_masks", "_vectors")
    monkeypatch.setattr(verification, "published_sha256", sha256_of)
    [found] = sam("verify-models", *models, "--json").worked().json
    assert "as published" in json.dumps(found)
    monkeypatch.setattr(verification, "published_sha256", lambda _: "0" * 64)
    ran = sam("verify-models", *models)
    assert ran.code == 1
    for name in ("machine", "versions", "weights of SAM 2 small", "weights of CLIP", "quality"):
        assert name in ran.out
    assert "NOT as published" in ran.out
    assert "WRONG" in ran.out


def test_masks_that_are_not_the_official_ones_are_wrong(
    sam: Command, models: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    leave_out(monkeypatch, "_vectors")
    monkeypatch.setattr(verification, "same_share", lambda ours, true, **_: 0.5)
    [found] = sam("verify-models", *models, "--json").json
    wrong = [check["name"] for check in found["checks"] if check["right"] is False]
    assert wrong == ["SAM 2 masks, fp32"]


def test_vectors_that_are_not_open_clips_are_wrong(
    sam: Command, models: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    leave_out(monkeypatch, "_masks")
    plain = verification.encode_images
    monkeypatch.setattr(
        verification, "encode_images", lambda *given: plain(*given) + torch.linspace(0, 0.1, 24)
    )
    [found] = sam("verify-models", *models, "--json").json
    assert [c["name"] for c in found["checks"] if c["right"] is False] == ["CLIP vectors"]


def test_models_that_are_not_here_are_said(sam: Command) -> None:
    sam("verify-models").failed("'base' is not on this machine", "download-models", code=2)
