"""scripts/refine-quality, on drawn pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from evaluation_helpers import dataset_folder

from scripts.dev import refine_quality


def test_refined_outlines_are_nearer_to_the_truth(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SAM_DETECT_HOME", str(tmp_path / "home"))
    assert refine_quality.main([str(dataset_folder(tmp_path / "two", 2))]) == 0
    head, _, row = capsys.readouterr().out.splitlines()
    assert head == refine_quality.HEAD
    name, objects, before, after, _ = (cell.strip() for cell in row.strip("|").split("|"))
    assert (name, int(objects) > 4) == ("two", True)
    assert 0.6 < float(before) < 0.85
    assert float(after) > float(before) + 0.1


@pytest.mark.parametrize(
    ("jitter", "least", "most"),
    [("grown", 1.05, 1.25), ("shrunken", 0.75, 0.95), ("mixed", 0.8, 1.2)],
)
def test_a_jittered_outline_is_near_and_of_about_its_size(
    jitter: str, least: float, most: float
) -> None:
    turn = np.linspace(0, 2 * np.pi, 200, endpoint=False)
    ring = 100 + 40 * np.stack([np.cos(turn), np.sin(turn)], axis=1)
    for seed in range(20):
        found = refine_quality.jittered(
            ring, np.random.default_rng(seed), refine_quality.JITTERS[jitter]
        )
        assert found.shape == (refine_quality.VERTICES, 2)
        radius = np.hypot(*(found - found.mean(axis=0)).T)
        assert 40 * least < radius.mean() < 40 * most
        assert np.abs(found.mean(axis=0) - 100).max() < 80 * 0.06


def test_what_is_no_dataset_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert refine_quality.main([str(tmp_path / "none")]) == 1
    assert "none" in capsys.readouterr().err
