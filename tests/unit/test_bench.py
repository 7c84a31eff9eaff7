"""Timing, ratios, memory, the history and what counts as a regression."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sam_detect.bench import machine, memory, store, suites, timing
from sam_detect.bench.history import append_record, read_history, stamp
from sam_detect.bench.measurements import Measurements
from sam_detect.bench.memory import GrowingMemory, PeakMemory
from sam_detect.bench.regressions import code_of, regressions
from sam_detect.bench.timing import Series, Stopwatch, Trial, accumulate, interleave
from sam_detect.errors import ConfigError, OutputError, SamDetectError, UnknownNameError

needs_a_peak = pytest.mark.skipif(
    not memory.CLEAR_REFS.exists(), reason="the system keeps no peak that can be set back"
)


class FakeClock:
    """Seconds that pass only where somebody works."""

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
    series = interleave([trial], 5, clock=clock)[0]
    assert series.durations_ms == pytest.approx((1, 2, 3, 4, 1000))
    assert series.median_ms == pytest.approx(3)
    assert series.spread_ms == pytest.approx(4 - 2)


def test_two_trials_run_in_turn() -> None:
    clock, log = FakeClock(), []
    trials = [clock.trial(name, [1.0] * 5, log) for name in "AB"]
    interleave(trials, 3, clock=clock)
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

    series = interleave([Trial("work", run, prepare, finish)], 3, clock=clock)[0]
    assert series.durations_ms == pytest.approx((1000, 1000, 1000))
    assert finished == ["made and run"] * 5


def test_what_accumulates_has_no_warm_up() -> None:
    clock, log = FakeClock(), []
    trials = [clock.trial(name, seconds, log) for name, seconds in
              (("A", [3.0, 1.0, 2.0]), ("B", [30.0, 10.0, 20.0]))]  # fmt: skip
    a, b = accumulate(trials, 3, clock=clock)
    assert log == ["A", "B"] * 3
    assert a.durations_ms == pytest.approx((3000, 1000, 2000))
    assert b.times(10).median_ms == pytest.approx(200_000)


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
    timing.synchronise_device()
    assert torch.waited == 2
    monkeypatch.delitem(sys.modules, "torch")
    timing.synchronise_device()
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

    assert interleave([Trial("take", take)], 1)[0].peak_memory_mb == pytest.approx(60, abs=10)


@pytest.mark.alone
@needs_a_peak
def test_memory_that_adds_up_is_told_apart_by_who_keeps_it() -> None:
    kept: list[Any] = []
    keeping = Trial("keeps", lambda _: kept.append(np.ones(20 * 2**20, np.uint8)))
    passing = Trial("passes", lambda _: np.ones(20 * 2**20, np.uint8).sum())
    keeps, passes = accumulate([keeping, passing], 4)
    assert keeps.peak_memory_mb == pytest.approx(80, abs=15)
    assert passes.peak_memory_mb == pytest.approx(20, abs=15)


def test_without_a_peak_of_the_system_memory_is_not_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "CLEAR_REFS", tmp_path / "missing" / "clear_refs")
    series = interleave([Trial("work", lambda _: None)], 1)[0]
    assert series.peak_memory_mb is None
    assert series.to_dict()["peak_memory_mb"] is None
    growing = GrowingMemory()
    growing.add(PeakMemory())
    assert growing.peak_mb is None


# -- suites ----------------------------------------------------------------------------------


def test_an_unknown_suite_is_named_with_those_that_are() -> None:
    with pytest.raises(UnknownNameError, match=r"'stage'.*did you mean 'stages'.*stages, store"):
        suites.run_suite("stage", suites.Options())


def test_every_registered_suite_loads_and_takes_known_options() -> None:
    for name in suites.SUITES:
        suite = suites.load_suite(name)
        assert suite.takes <= set(suites.Options.__dataclass_fields__)
        least = 1 if name in ("sam2", "video") else 3  # a run of these takes a minute or more
        assert suite.repeat >= least


@pytest.mark.parametrize(
    ("name", "options", "repeat", "words"),
    [
        ("stages", suites.Options(sizes=(100,)), None, "takes no sizes"),
        ("store", suites.Options(images=(Path("a.png"),)), None, "takes no images"),
        ("store", suites.Options(sizes=(15,)), None, "multiple of 10 above 0, got 15"),
        ("store", suites.Options(), 0, "repeat must be at least 1, got 0"),
    ],
)
def test_what_a_suite_does_not_take_is_refused(
    name: str, options: suites.Options, repeat: int | None, words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        suites.run_suite(name, options, repeat=repeat)


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


def test_the_commit_is_dirty_only_where_the_package_changed(tmp_path: Path) -> None:
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
    (tmp_path / "history.jsonl").write_text("{}")
    assert not machine.current_commit(tmp_path).dirty
    (package / "new.py").write_text("")
    assert machine.current_commit(tmp_path) == (found.id, True)


# -- history ---------------------------------------------------------------------------------


def bench_record(commit: str | None = "a" * 40, *, day: int = 1, **changes: Any) -> dict[str, Any]:
    pair = {"a": "x", "b": "y", "a_median": 1.0, "b_median": 4.0, "ratio": 4.0, "spread": 0.5}
    stages = {"propose": {"median_ms": 5.0, "spread_ms": 1.0, "peak_memory_mb": 3.0}}
    return {
        "kind": "bench", "date": f"2026-01-{day:02}T00:00:00+00:00", "commit": commit,
        "dirty": False, "machine": {"cpu": "A", "cores": 2}, "versions": {"sam-detect": "0.1"},
        "suite": "stages", "workload": "default", "stages": stages,
        "pairs": {"x_vs_y": {**pair, "unit": "ms"}}, **changes,
    }  # fmt: skip


def evaluate_record(commit: str = "a" * 40, *, day: int = 1, **changes: Any) -> dict[str, Any]:
    return {
        "kind": "evaluate", "date": f"2026-01-{day:02}T00:00:00+00:00", "commit": commit,
        "dirty": False, "machine": {"cpu": "A", "cores": 2}, "versions": {},
        "dataset": "nuts", "method": "sam-detect", "shots": 5, "f1": 0.8, "precision": 0.8,
        "recall": 0.8, "proposal_recall": 0.95, "seconds_per_image": 1.0, "peak_memory_mb": 200.0,
        "recipe": {"embedder": "appearance", "fade": "gaussian"}, **changes,
    }  # fmt: skip


def with_ratio(ratio: float | None, spread: float | None = 0.5, **changes: Any) -> dict[str, Any]:
    pair = {"a": "x", "b": "y", "a_median": 1.0, "b_median": 1.0, "ratio": ratio, "spread": spread}
    return {"pairs": {"x_vs_y": {**pair, **changes}}}


def test_records_come_back_in_order(tmp_path: Path) -> None:
    path = tmp_path / "new" / "history.jsonl"
    wanted = [{**stamp("bench"), "suite": "s", "stages": {}, "pairs": {}}, evaluate_record()]
    for record in wanted:
        append_record(path, record)
    assert read_history(path) == (wanted, [])


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b'{"kind": "ben', "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b'{"kind": "bench", "date": "d", "machine": {}, "x": NaN}', "not JSON"),
        (b"[1]", "not a JSON object"),
        (b'{"date": "d", "machine": {}}', "no 'kind'"),
        (b'{"kind": "bench", "machine": {}}', "no 'date'"),
        (b'{"kind": "bench", "date": "d"}', "no 'machine'"),
        (b'{"kind": "bench", "date": "d", "machine": {}, "suite": "s", "stages": []}', "'stages'"),
        (json.dumps(bench_record(pairs={"p": {"ratio": "4"}})).encode(), "pairs are damaged"),
        (json.dumps(bench_record(stages={"s": {}})).encode(), "stages are damaged at 's'"),
        (json.dumps(evaluate_record(f1=-1)).encode(), "f1 is no number"),
        (json.dumps(evaluate_record(f1="good")).encode(), "f1 is no number"),
        (json.dumps(evaluate_record(learning_curve=[5])).encode(), "learning_curve"),
    ],
)
def test_a_damaged_line_is_named_and_skipped(tmp_path: Path, line: bytes, words: str) -> None:
    path = tmp_path / "history.jsonl"
    append_record(path, bench_record(day=1))
    with path.open("ab") as file:
        file.write(line + b"\n")
    append_record(path, bench_record(day=2))
    records, problems = read_history(path)
    assert [record["date"][:10] for record in records] == ["2026-01-01", "2026-01-02"]
    assert len(problems) == 1
    assert f"{path}, line 2" in problems[0]
    assert words in problems[0]
    assert "\n" not in problems[0]


def test_an_unknown_kind_and_unknown_fields_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    record = {"kind": "future", "date": "2026-01-01", "machine": {}, "anything": [1]}
    append_record(path, record)
    assert read_history(path) == ([record], [])


def test_a_line_cut_off_by_a_kill_is_not_continued(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    append_record(path, bench_record(day=1))
    whole = path.read_bytes()
    path.write_bytes(whole + whole[: len(whole) // 2])
    append_record(path, bench_record(day=2))
    records, problems = read_history(path)
    assert len(records) == 2
    assert len(problems) == 1


def test_nothing_is_left_of_a_record_that_does_not_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "history.jsonl"
    append_record(path, bench_record(day=1))
    before = path.read_bytes()
    real = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: real(fd, data[:100]))
    with pytest.raises(OutputError, match="the disk is full"):
        append_record(path, bench_record(day=2))
    assert path.read_bytes() == before


def test_what_is_no_json_is_refused_before_the_file_is_touched(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    with pytest.raises(ValueError, match="JSON"):
        append_record(path, {"f1": float("nan")})
    assert not path.exists()


def test_a_history_that_cannot_be_written_or_read_says_so(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot append"):
        append_record(tmp_path, bench_record())
    with pytest.raises(SamDetectError, match="cannot read the history"):
        read_history(tmp_path / "missing.jsonl")


WRITER = """
import sys
from pathlib import Path
from sam_detect.bench.history import append_record
for number in range(int(sys.argv[3])):
    append_record(Path(sys.argv[1]), {
        "kind": "x", "date": "2026", "machine": {}, "who": sys.argv[2], "number": number,
        "long": "x" * 20_000,
    })
"""


@pytest.fixture
def writer() -> Iterator[Callable[[Path, str, int], subprocess.Popen[bytes]]]:
    """Starts a process that appends records; none outlives the test."""
    started = []

    def start(path: Path, name: str, count: int) -> subprocess.Popen[bytes]:
        line = [sys.executable, "-c", WRITER, str(path), name, str(count)]
        started.append(subprocess.Popen(line))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


def test_two_processes_append_at_once_and_lose_nothing(tmp_path: Path, writer: Any) -> None:
    path = tmp_path / "history.jsonl"
    processes = [writer(path, name, 30) for name in "AB"]
    assert [process.wait(timeout=60) for process in processes] == [0, 0]
    records, problems = read_history(path)
    assert problems == []
    for name in "AB":
        numbers = [record["number"] for record in records if record["who"] == name]
        assert numbers == list(range(30))


def test_a_process_killed_while_it_appends_spoils_its_own_line_at_most(
    tmp_path: Path, writer: Any
) -> None:
    path = tmp_path / "history.jsonl"
    for turn in range(2):
        process = writer(path, str(turn), 10**6)
        deadline = time.monotonic() + 30
        size = path.stat().st_size if path.exists() else 0
        while not path.exists() or path.stat().st_size < size + 60_000:
            assert time.monotonic() < deadline
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.wait()
        append_record(path, {"kind": "after", "date": "2026", "machine": {}})
    records, problems = read_history(path)
    assert sum(record["kind"] == "after" for record in records) == 2
    assert len(problems) <= 2
    for turn in range(2):
        numbers = [r["number"] for r in records if r.get("who") == str(turn)]
        assert numbers == list(range(len(numbers)))
        assert len(numbers) >= 3


# -- regressions -----------------------------------------------------------------------------

OLD, NEW = "a" * 40, "b" * 40


@pytest.mark.parametrize(
    ("before", "now", "found"),
    [
        (with_ratio(4.0), with_ratio(2.9), 1),
        (with_ratio(4.0), with_ratio(3.1), 0),
        (with_ratio(4.0, 0.0), with_ratio(3.85, 0.0), 0),
        (with_ratio(4.0, 0.0), with_ratio(3.75, 0.0), 1),
        (with_ratio(4.0, 1.2), with_ratio(2.9), 0),
        (with_ratio(4.0, None, unit="MB"), with_ratio(3.3, None, unit="MB"), 0),
        (with_ratio(4.0, None, unit="MB"), with_ratio(3.1, None, unit="MB"), 1),
        (with_ratio(4.0), with_ratio(9.0), 0),
        (with_ratio(4.0), with_ratio(None), 0),
        (with_ratio(4.0), with_ratio(1.0, judged=False), 0),
        (with_ratio(4.0), {**with_ratio(1.0), "machine": {"cpu": "B", "cores": 2}}, 0),
        (with_ratio(4.0), {**with_ratio(1.0), "workload": "other pictures"}, 0),
        (with_ratio(4.0), {**with_ratio(1.0), "suite": "another"}, 0),
    ],
)
def test_a_ratio_falls_past_its_spread_or_does_not(
    before: dict[str, Any], now: dict[str, Any], found: int
) -> None:
    records = [bench_record(OLD, day=1, **before), bench_record(NEW, day=2, **now)]
    assert len(regressions(records)) == found
    assert len(regressions(records[::-1])) == found, "the date decides, not the line"


@pytest.mark.parametrize(
    ("before", "now", "found"),
    [
        ({}, {"f1": 0.78}, 1),
        ({}, {"f1": 0.795}, 0),
        ({}, {"proposal_recall": 0.9}, 1),
        ({}, {"precision": 0.1, "recall": 0.1}, 0),
        ({"f1_spread": 0.03}, {"f1": 0.78, "f1_spread": 0.03}, 1),
        ({}, {"f1": 0.5, "variant": {"top_k": "1"}}, 0),
        ({}, {"f1": 0.5, "seeds": [0]}, 0),
        ({}, {"f1": 0.5, "shots": 1}, 0),
        ({}, {"f1": 0.5, "dataset": "other"}, 0),
        ({}, {"f1": 0.5, "method": "otsu"}, 0),
        ({}, {"f1": 0.5, "recipe": {"embedder": "average", "fade": "gaussian"}}, 0),
        ({}, {"f1": 0.5, "machine": {"cpu": "B"}}, 1),
        ({"f1": None}, {"f1": 0.5}, 0),
    ],
)
def test_quality_falls_or_does_not(before: dict[str, Any], now: dict[str, Any], found: int) -> None:
    records = [evaluate_record(OLD, day=1, **before), evaluate_record(NEW, day=2, **now)]
    assert len(regressions(records)) == found


def test_a_regression_is_one_line_that_says_what_from_where_and_how_far() -> None:
    records = [bench_record(OLD, day=1), bench_record(NEW, day=2, **with_ratio(2.0))]
    line = str(regressions(records)[0])
    for word in ("stages", "x_vs_y", "from 4", "aaaaaaa", "2026-01-01", "to 2"):
        assert word in line
    assert "\n" not in line


def test_the_newest_commit_is_compared_with_the_one_before_and_not_with_itself() -> None:
    third = "c" * 40
    records = [
        bench_record(OLD, day=1, **with_ratio(9.0)),
        bench_record(NEW, day=2, **with_ratio(4.0)),
        bench_record(third, day=3, **with_ratio(9.0)),
        bench_record(third, day=4, **with_ratio(4.0)),
    ]
    assert regressions(records) == []
    assert len(regressions(records[:2])) == 1
    assert regressions([]) == []


def test_a_changed_package_is_not_its_commit() -> None:
    assert code_of(bench_record(OLD)) == "aaaaaaa"
    assert code_of(bench_record(OLD, dirty=True)) == "aaaaaaa+"
    assert code_of(bench_record(None)) == "0.1"
    records = [bench_record(OLD, day=1), bench_record(OLD, day=2, dirty=True, **with_ratio(1.0))]
    assert len(regressions(records)) == 1
