"""The bench suite `sam2` on a small model: its pairs, its figures, and what it compares."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("sam2")

from sam2_helpers import CONFIG, write_small_sam2  # noqa: E402

from sam_detect.embedding.sam2 import SAM2Embedder  # noqa: E402
from sam_detect.errors import UnavailableError  # noqa: E402
from sam_detect.models.sam2 import load_sam2  # noqa: E402
from sam_detect.types import Masks  # noqa: E402
from sam_detect.verification import same_share  # noqa: E402
from scripts.asv.benchmarks import tracked  # noqa: E402
from scripts.dev.bench import sam2  # noqa: E402
from scripts.dev.bench.measurements import Measurements, PeakDeviceMemory  # noqa: E402
from scripts.dev.bench.sam2 import Workload, measure_frame  # noqa: E402
from scripts.dev.bench.suites import Options, run_suite  # noqa: E402


@pytest.fixture(scope="module")
def measured() -> Measurements:
    workload = Workload(
        config=str(CONFIG), picture_side=160, per_side=10, large_side=300, large_per_side=4,
        large_masks=20, prompts=4, embedded=2, threads=1,
    )  # fmt: skip
    measurements = Measurements(repeat=1)
    sam2.run(measurements, Options(device="cpu"), workload)
    return measurements


def test_every_pair_is_measured(measured: Measurements) -> None:
    # The memory of so small a model may be none that can be measured.
    assert set(measured.pairs) | {"memory_vs_official"} == {*tracked.SAM2Pairs.params}
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


def test_an_object_is_followed_as_officially(measured: Measurements) -> None:
    assert measured.figures["video_same_share"] >= 0.8


def test_without_a_gpu_it_says_what_is_left_out(measured: Measurements) -> None:
    if not torch.cuda.is_available():
        assert any("for a GPU" in line for line in measured.skipped)
        assert not measured.stages


@pytest.mark.alone
def test_a_frame_is_timed_stage_by_stage_beside_what_is_to_be_beaten(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sam2, "FEWEST", 1)
    crops: list[int] = []
    embed = SAM2Embedder.embed
    monkeypatch.setattr(
        SAM2Embedder, "embed", lambda self, some: (crops.append(len(some)), embed(self, some))[1]
    )
    path = write_small_sam2(tmp_path_factory.mktemp("models"))
    loaded = load_sam2(path, device=torch.device("cpu"))
    timed = Measurements(repeat=1)
    measure_frame(timed, loaded, Workload(per_side=6, frame_hw=(120, 200), threads=1))
    stages, figures = timed.stages, timed.figures
    parts = {"frame_segment", "frame_fade", "frame_embed", "frame_label"}
    assert set(stages) == {
        *parts, "frame_total", "frame_segment_5_points", "frame_search_5_of_1000",
    }  # fmt: skip
    assert all(stage["median_ms"] > 0 for stage in stages.values())
    assert stages["frame_total"]["median_ms"] > max(stages[name]["median_ms"] for name in parts)
    assert 1 <= figures["frame_objects"] <= 5
    assert figures["frame_objects"] < crops[-1], "not all crops become detections"
    each = stages["frame_embed"]["median_ms"] / crops[-1]
    assert figures["frame_embed_ms_per_object"] == pytest.approx(each, abs=0.01)
    assert figures["frame_segment_ms_stated_before"] == 45
    assert figures["frame_total_ms_aim"] == 100
    assert timed.pairs["frame_segment_vs_official"]["ratio"] > 0


def test_the_memory_of_a_gpu_is_what_torch_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter([100 * 2**20, 130 * 2**20])
    called: list[str] = []
    for name, answer in {
        "synchronize": lambda: None,
        "reset_peak_memory_stats": lambda: None,
        "memory_allocated": lambda: next(now),
        "max_memory_allocated": lambda: 350 * 2**20,
    }.items():
        monkeypatch.setattr(
            torch.cuda, name, lambda name=name, answer=answer: (called.append(name), answer())[1]
        )
    with PeakDeviceMemory() as taken:
        called.append("work")
    assert (taken.peak_mb, taken.kept_mb) == (250, 30)
    assert called.index("reset_peak_memory_stats") < called.index("work")
    assert called.index("work") < called.index("max_memory_allocated")
    assert called[called.index("work") + 1] == "synchronize"


def test_the_run_leaves_torch_as_it_was(measured: Measurements) -> None:
    before = torch.get_num_threads()
    with sam2._threads(before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before


def test_the_share_of_same_masks_is_of_the_true_ones() -> None:
    squares = np.zeros((2, 20, 20), bool)
    squares[0, :8, :8] = squares[1, 10:, 10:] = True
    both, one = Masks.from_dense(squares), Masks.from_dense(squares[:1])
    true = [both.rle(0), both.rle(1)]
    assert same_share(both, true) == 1
    assert same_share(one, true) == 0.5
    assert same_share(Masks.empty((20, 20)), true) == 0
    assert same_share(Masks.empty((20, 20)), []) == 1
    squares[1, 10, 10] = False
    assert same_share(Masks.from_dense(squares), true) == 1
    squares[1, 11:13, 10:13] = False
    assert same_share(Masks.from_dense(squares), true) == 0.5


def test_without_the_extra_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "scripts.dev.bench.sam2", None)
    with pytest.raises(ModuleNotFoundError):
        run_suite("sam2", Options())

    def missing(name: str) -> Any:
        raise ModuleNotFoundError("No module named 'torch'", name="torch")

    monkeypatch.setattr("importlib.import_module", missing)
    with pytest.raises(UnavailableError, match=r"needs the package torch: pip install"):
        run_suite("sam2", Options())
