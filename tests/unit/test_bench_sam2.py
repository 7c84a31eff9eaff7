"""The bench suite `sam2` on a small model: its pairs, its figures, and what it compares."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("sam2")

from sam2_helpers import small_config  # noqa: E402

from sam_detect.bench import coverage, sam2_trials  # noqa: E402
from sam_detect.bench.measurements import Measurements  # noqa: E402
from sam_detect.bench.sam2 import SAM2Suite, Workload  # noqa: E402
from sam_detect.bench.suites import Options  # noqa: E402
from sam_detect.errors import UnavailableError  # noqa: E402
from sam_detect.types import Masks  # noqa: E402


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Measurements:
    config = tmp_path_factory.mktemp("models") / "small.yaml"
    config.write_text(small_config(), encoding="utf-8")
    workload = Workload(
        config=str(config), picture_side=160, per_side=10, large_side=300, large_per_side=4,
        large_masks=20, prompts=4, embedded=2, threads=1,
    )  # fmt: skip
    measurements = Measurements(repeat=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(coverage, "drawn_scenes", lambda: [coverage._faint()])
        SAM2Suite(workload).run(measurements, Options())
    return measurements


def test_every_pair_is_measured(measured: Measurements) -> None:
    assert set(measured.pairs) >= {
        "masks_vs_official", "masks_bf16_vs_official", "decoder_vs_official",
        "embed_batched_vs_single", "embed_frame_vs_single",
    }  # fmt: skip
    for name, pair in measured.pairs.items():
        assert pair["ratio"] > 0
        assert pair["unit"] == ("MB" if name == "memory_vs_official" else "ms")
        assert "official" in pair["b"].lower()


def test_the_masks_that_are_compared_are_the_same(measured: Measurements) -> None:
    figures = measured.figures
    assert figures["masks_fp32"] == figures["masks_official"] > 5
    assert figures["masks_same_share"] >= 0.99
    assert 0.1 <= figures["prompts_passing_share"] <= 0.35
    assert figures["large_picture_masks"] >= 10
    assert figures["drawn_grid_32_prompts"] == 1024
    assert 0.8 < figures["drawn_grid_32_found"] < figures["drawn_blobs_auto_found"]


def test_the_run_leaves_torch_as_it_was(measured: Measurements) -> None:
    before = torch.get_num_threads()
    with sam2_trials._threads(before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before


def test_the_share_of_same_masks_is_of_the_true_ones() -> None:
    squares = np.zeros((2, 20, 20), bool)
    squares[0, :8, :8] = squares[1, 10:, 10:] = True
    both, one = Masks.from_dense(squares), Masks.from_dense(squares[:1])
    true = [both.rle(0), both.rle(1)]
    assert sam2_trials.same_share(both, true) == 1
    assert sam2_trials.same_share(one, true) == 0.5
    assert sam2_trials.same_share(Masks.empty((20, 20)), true) == 0
    assert sam2_trials.same_share(Masks.empty((20, 20)), []) == 1
    squares[1, 10, 10] = False
    assert sam2_trials.same_share(Masks.from_dense(squares), true) == 1
    squares[1, 11:13, 10:13] = False
    assert sam2_trials.same_share(Masks.from_dense(squares), true) == 0.5


def test_without_the_extra_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "sam_detect.bench.sam2_trials", None)
    with pytest.raises(ModuleNotFoundError):
        SAM2Suite().run(Measurements(repeat=1), Options())

    def missing(name: str, *rest: Any, **more: Any) -> Any:
        raise ModuleNotFoundError("No module named 'torch'", name="torch")

    monkeypatch.setattr("builtins.__import__", missing)
    with pytest.raises(UnavailableError, match=r"needs the package torch: pip install"):
        SAM2Suite().run(Measurements(repeat=1), Options())
