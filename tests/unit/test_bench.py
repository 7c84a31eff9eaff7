"""Timing, ratios, memory, suites, and what a measurement says of machine and commit."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sam_detect.errors import ConfigError, UnknownNameError
from sam_detect.evaluation import machine
from sam_detect.pipeline.tiling import usable_cores
from sam_detect.types import Classification, Detections, Masks
from scripts.dev.bench import folder, measurements, size, store
from scripts.dev.bench.measurements import (
    Measurements,
    PeakMemory,
    Series,
    Stopwatch,
    Trial,
    growing_peak_mb,
)
from scripts.dev.bench.suites import SUITES, Options, run_suite

needs_a_peak = pytest.mark.skipif(
    not measurements.CLEAR_REFS.exists(), reason="the system keeps no peak that can be set back"
)


class FakeClock:
    """Seconds that pass only where work is done."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def trial(self, name: str, seconds: list[float], log: list[str] | None = None) -> Trial:
        """Work that takes those seconds, run by run."""
        left = iter(seconds)

        def run(_: Any) -> None:
            if log is not None:
                log.append(name)
            self.now += next(left)

        return Trial(name, run)


# -- timing ----------------------------------------------------------------------------------


def test_median_and_quartiles_leave_out_the_warm_up_and_the_memory_run() -> None:
    clock = FakeClock()
    trial = clock.trial("work", [50.0, 70.0, 0.001, 0.002, 0.003, 0.004, 1.0])
    series = Measurements(repeat=5, clock=clock).interleave([trial])[0]
    assert series.durations_ms == pytest.approx((1, 2, 3, 4, 1000))
    assert series.median_ms == pytest.approx(3)
    assert series.to_dict()["spread_ms"] == pytest.approx(4 - 2)


def test_two_trials_run_in_turn() -> None:
    clock, log = FakeClock(), []
    trials = [clock.trial(name, [1.0] * 5, log) for name in "AB"]
    Measurements(repeat=3, clock=clock).interleave(trials)
    assert log[-6:] == ["A", "B"] * 3
    assert len(log) == 10


def test_what_is_prepared_and_finished_is_not_timed() -> None:
    clock, finished = FakeClock(), []

    def prepare() -> str:
        clock.now += 10
        return "made"

    def run(made: str) -> str:
        clock.now += 1
        return made + " and run"

    def finish(made: str) -> None:
        clock.now += 100
        finished.append(made)

    series = Measurements(repeat=3, clock=clock).interleave([Trial("work", run, prepare, finish)])[
        0
    ]
    assert series.durations_ms == pytest.approx((1000, 1000, 1000))
    assert finished == ["made and run"] * 5


def test_what_accumulates_has_no_warm_up() -> None:
    clock, log = FakeClock(), []
    trials = [clock.trial(name, seconds, log) for name, seconds in
              (("A", [3.0, 1.0, 2.0]), ("B", [30.0, 10.0, 20.0]))]  # fmt: skip
    a, b = Measurements(repeat=3, clock=clock).accumulate(trials)
    assert log == ["A", "B"] * 3
    assert a.durations_ms == pytest.approx((3000, 1000, 2000))
    assert b.scaled(10).median_ms == pytest.approx(200_000)


def test_the_device_is_waited_for_at_both_ends_and_only_where_torch_uses_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class FakeTorch:
        waited = 0
        used = True

        @property
        def cuda(self) -> FakeTorch:
            return self

        def is_available(self) -> bool:
            return True

        def is_initialized(self) -> bool:
            return self.used

        def synchronize(self) -> None:
            self.waited += 1

    torch = FakeTorch()
    monkeypatch.setitem(sys.modules, "torch", torch)
    with Stopwatch():
        assert torch.waited == 1
    assert torch.waited == 2
    torch.used = False
    measurements.synchronise_device()
    assert torch.waited == 2
    monkeypatch.delitem(sys.modules, "torch")
    measurements.synchronise_device()
    assert "torch" not in sys.modules


def test_a_ratio_is_of_the_medians_and_its_spread_of_the_rounds() -> None:
    made = Measurements(repeat=3)
    # The second round met a machine that was ten times slower: both sides say so.
    ours, reference = Series("ours", (1.0, 10.0, 2.0)), Series("theirs", (4.0, 40.0, 6.0))
    made.add_pair("pair", ours, reference)
    pair = made.pairs["pair"]
    assert (pair["a"], pair["b"], pair["unit"]) == ("ours", "theirs", "ms")
    assert (pair["a_median"], pair["b_median"]) == (2.0, 6.0)
    assert pair["ratio"] == 3.0
    assert pair["spread"] == pytest.approx(np.subtract(*np.percentile([4, 4, 3], [75, 25])))


def test_a_ratio_of_memory_and_none_where_it_is_not_known() -> None:
    made = Measurements(repeat=1)
    made.add_pair("known", Series("a", (1.0,), 50.0), Series("b", (1.0,), 200.0), of="memory")
    made.add_pair("not", Series("a", (1.0,), None), Series("b", (1.0,), 200.0), of="memory")
    assert made.pairs["known"]["ratio"] == 4.0
    assert (made.pairs["known"]["unit"], made.pairs["known"]["spread"]) == ("MB", None)
    assert "not" not in made.pairs


def test_a_pair_measures_both_sides_in_turn() -> None:
    clock, log, told = FakeClock(), [], []
    made = Measurements(repeat=2, announce=told.append, clock=clock)
    made.pair("pair", clock.trial("a", [9, 9, 1, 1], log), clock.trial("b", [9, 9, 5, 5], log))
    assert made.pairs["pair"]["ratio"] == 5.0
    assert log[-4:] == ["a", "b", "a", "b"]
    assert told == ["pair"]


# -- memory ----------------------------------------------------------------------------------


@pytest.mark.alone
@needs_a_peak
def test_the_peak_sees_what_numpy_takes_and_gives_back() -> None:
    with PeakMemory() as peak:
        array = np.ones(100 * 2**20, np.uint8)
        del array
    assert peak.peak_mb == pytest.approx(100, abs=10)
    assert peak.kept_mb == pytest.approx(0, abs=10)


@pytest.mark.alone
@needs_a_peak
def test_memory_that_was_free_before_does_not_hide_the_peak() -> None:
    # Small pieces below one that stays: the allocator keeps their room when they are freed.
    pieces = [np.ones(50_000, np.uint8) for _ in range(2000)]
    last = np.ones(50_000, np.uint8)
    del pieces
    with PeakMemory() as peak:
        pieces = [np.ones(50_000, np.uint8) for _ in range(2000)]
    del pieces, last
    assert peak.peak_mb == pytest.approx(95, abs=15)


@pytest.mark.alone
@needs_a_peak
def test_a_stage_tells_its_peak() -> None:
    def take(_: Any) -> None:
        np.ones(60 * 2**20, np.uint8)

    [taken] = Measurements(repeat=1).interleave([Trial("take", take)])
    assert taken.peak_memory_mb == pytest.approx(60, abs=10)


@pytest.mark.alone
@needs_a_peak
def test_memory_that_adds_up_is_told_apart_by_who_keeps_it() -> None:
    kept: list[Any] = []
    keeping = Trial("keeps", lambda _: kept.append(np.ones(20 * 2**20, np.uint8)))
    passing = Trial("passes", lambda _: np.ones(20 * 2**20, np.uint8).sum())
    keeps, passes = Measurements(repeat=4).accumulate([keeping, passing])
    assert keeps.peak_memory_mb == pytest.approx(80, abs=15)
    assert passes.peak_memory_mb == pytest.approx(20, abs=15)


def test_without_a_peak_of_the_system_memory_is_not_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measurements, "CLEAR_REFS", tmp_path / "missing" / "clear_refs")
    series = Measurements(repeat=1).interleave([Trial("work", lambda _: None)])[0]
    assert series.peak_memory_mb is None
    assert series.to_dict()["peak_memory_mb"] is None
    assert growing_peak_mb([PeakMemory()]) is None


# -- suites ----------------------------------------------------------------------------------


def test_an_unknown_suite_is_named_with_those_that_are() -> None:
    with pytest.raises(UnknownNameError, match=r"'stage'.*did you mean 'stages'.*stages, store"):
        run_suite("stage", Options())


def test_every_registered_suite_loads_and_takes_known_options() -> None:
    for name, suite in SUITES.items():
        assert callable(importlib.import_module(suite.module).run)
        assert {*suite.takes} <= set(Options.__dataclass_fields__)
        least = (
            1 if name in ("sam2", "server", "video", "size", "fewshot") else 3
        )  # a run of these takes a minute or more
        assert suite.repeat >= least


@pytest.mark.parametrize(
    ("name", "options", "repeat", "words"),
    [
        ("stages", Options(sizes=(100,)), None, "takes no sizes"),
        ("store", Options(images=(Path("a.png"),)), None, "takes no images"),
        ("store", Options(sizes=(15,)), None, "multiple of 10 above 0, got 15"),
        ("size", Options(sizes=(0,)), None, "from 1 to 2000 megapixels, got 0"),
        ("size", Options(images=(Path("a.png"),)), None, "takes no images"),
        ("store", Options(), 0, "repeat must be at least 1, got 0"),
    ],
)
def test_what_a_suite_does_not_take_is_refused(
    name: str, options: Options, repeat: int | None, words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        run_suite(name, options, repeat=repeat)


def test_the_size_suite_finds_the_discs_at_each_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(size, "LEAST_MEGAPIXELS", 1)
    found = run_suite("size", Options(sizes=(1, 2)), repeat=1)
    assert set(found["stages"]) == {"detect_1", "detect_2"}
    assert set(found["pairs"]) == {"megapixel_of_2"}
    assert found["figures"] == {
        "found_once_1": 1.0, "found_once_2": 1.0, "false_1": 0, "false_2": 0,
    }  # fmt: skip
    each = [found["stages"][f"detect_{n}"]["median_ms"] / n for n in (1, 2)]
    assert found["pairs"]["megapixel_of_2"]["ratio"] == pytest.approx(each[0] / each[1], rel=0.01)


def test_discs_and_detections_are_counted() -> None:
    """One disc found, one found twice, one missed; and one detection beside them."""
    places = np.array([[20, 20], [60, 20], [100, 20]])
    centres = [(20, 21), (60, 20), (61, 19), (100, 30)]
    boxes = [[x - 6, y - 6, x + 7, y + 7] for x, y in centres]
    masks = Masks.from_crops(
        size_hw=(50, 150), boxes_xyxy=boxes, crops=[np.ones((13, 13), np.bool_)] * 4
    )
    named = (Classification("disc", "disc", 0.9),) * 4
    assert size.counted(Detections("a.tif", masks, named, {}), places) == (1, 1)


def test_the_library_suite_opens_fits_names_and_learns() -> None:
    found = run_suite("library", Options(sizes=(40,)), repeat=1)
    assert set(found["stages"]) == {
        f"{name}_40" for name in ("first", "open", "fit", "name", "learn_one", "name_after")
    }
    assert found["figures"] == {"named_right_40": 1.0}
    with pytest.raises(ConfigError, match="from 20 to 1000000, got 7"):
        run_suite("library", Options(sizes=(7,)), repeat=1)


def test_the_folder_suite_runs_the_command_with_one_process_and_with_several(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(folder, "WINDOW_HW", (200, 240))
    several = max(2, usable_cores())
    found = run_suite("folder", Options(sizes=(2,)), repeat=1)
    assert set(found["stages"]) == {"workers_1_of_2", f"workers_{several}_of_2"}
    pair, figures = found["pairs"]["workers_of_2"], found["figures"]
    assert pair["ratio"] == pytest.approx(pair["b_median"] / pair["a_median"], rel=0.01)
    alone_s = found["stages"]["workers_1_of_2"]["median_ms"] / 1000
    assert figures["pictures_a_second_1_of_2"] == pytest.approx(2 / alone_s, rel=0.01)
    assert min(figures[f"processor_s_{count}_of_2"] for count in (1, several)) > 0.1
    with pytest.raises(ConfigError, match="from 2 to 10000 pictures, got 1"):
        run_suite("folder", Options(sizes=(1,)), repeat=1)


def test_the_formats_suite_writes_and_reads_in_every_format() -> None:
    found = run_suite("formats", Options(sizes=(20,)), repeat=1)
    names = ("imagej", "geojson", "labelme", "labelmap", "nimbus", "coco")
    assert {*found["pairs"]} == {f"{name}_of_20" for name in names}
    assert all(pair["ratio"] > 0 for pair in found["pairs"].values())
    with pytest.raises(ConfigError, match="a size must be from 1"):
        run_suite("formats", Options(sizes=(0,)), repeat=1)


def test_the_vectors_of_the_store_suite_are_the_same_unit_vectors_each_time() -> None:
    points, queries = store.clustered_points(200)
    again, _ = store.clustered_points(200)
    vectors = np.stack([point.vector for point in points if point.vector is not None])
    np.testing.assert_array_equal(vectors, np.stack([p.vector for p in again]))
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert queries.shape == (store.QUERIES, store.DIMENSION)
    assert len({point.id for point in points}) == 200


def test_agreement_is_the_share_of_neighbours_found() -> None:
    assert store.agreement([["a", "b"], ["c", "d"]], [["b", "a"], ["c", "x"]]) == 0.75


# -- machine ---------------------------------------------------------------------------------


def test_a_machine_is_described_without_naming_its_owner() -> None:
    found = machine.describe_machine()
    assert set(found) == {"cpu", "cores", "threads", "memory_gb", "system", "gpu"}
    assert found["cores"] >= 1
    said = json.dumps([found, machine.versions()])
    assert os.uname().nodename not in said
    assert str(Path.home()) not in said
    assert machine.versions()["numpy"] == np.__version__
    assert "torch" not in machine.machine_name(found)


def test_the_commit_is_dirty_only_where_the_package_or_its_bench_changed(tmp_path: Path) -> None:
    def git(*arguments: str) -> None:
        who = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
        subprocess.run(["git", "-C", tmp_path, *who, *arguments], check=True, capture_output=True)

    package = tmp_path / "sam_detect"
    package.mkdir()
    (package / "__init__.py").write_text("")
    assert machine.current_commit(tmp_path) == (None, False)
    (tmp_path / "other.py").write_text("")
    git("init", "-q")
    git("add", "other.py")
    git("commit", "-q", "-m", "of another project")
    assert machine.current_commit(tmp_path).id is None, "not yet a file of the checkout"
    git("add", ".")
    git("commit", "-q", "-m", "first")
    found = machine.current_commit(tmp_path)
    assert found.id is not None
    assert len(found.id) == 40
    assert not found.dirty
    (tmp_path / "notes.md").write_text("of no measurement")
    assert not machine.current_commit(tmp_path).dirty
    for changed in (package, tmp_path / "scripts" / "dev" / "bench"):
        changed.mkdir(parents=True, exist_ok=True)
        (changed / "new.py").write_text("")
        assert machine.current_commit(tmp_path) == (found.id, True)
        (changed / "new.py").unlink()
