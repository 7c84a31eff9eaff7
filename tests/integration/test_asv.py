"""scripts/metrics: asv measures a commit, publishes its page, and finds what got worse."""

from __future__ import annotations

import json
import math
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from evaluation_helpers import dataset_folder

from scripts.asv.benchmarks import tracked
from scripts.dev import metrics

pytest.importorskip("asv")

ROOT = Path(__file__).resolve().parents[2]
TRACKED = "tracked.Quality.track_f1_not_found"


def read_config() -> dict[str, Any]:
    lines = metrics.CONFIG.read_text(encoding="utf-8").splitlines()
    found = json.loads("\n".join(x for x in lines if not x.lstrip().startswith("//")))
    assert isinstance(found, dict)
    return found


class Measured:
    """A repository of three commits, of which nothing is measured yet."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.repository = folder, folder / "repository"
        self.repository.mkdir()
        (self.repository / "sam_detect").symlink_to(ROOT / "sam_detect")
        self.git("init", "-q")
        self.commits = [self.commit(f"version {number}") for number in range(3)]
        config = read_config()
        config |= {"repo": str(self.repository), "results_dir": str(folder / "results"),
                   "benchmark_dir": str(metrics.CONFIG.parent / "benchmarks")}  # fmt: skip
        self.config = folder / "asv.conf.json"
        self.config.write_text(json.dumps(config))

    def git(self, *arguments: str) -> str:
        who = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
        command = ["git", "-C", str(self.repository), *who, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    def commit(self, text: str) -> str:
        (self.repository / "notes.txt").write_text(text)
        self.git("add", ".")
        self.git("commit", "-q", "-m", text)
        return self.git("rev-parse", "HEAD")

    def run(self, *arguments: str) -> int:
        return metrics.main(
            [*arguments, "--bench", TRACKED, "--config", str(self.config),
             "--repository", str(self.repository), "--output", str(self.folder / "page")]
        )  # fmt: skip

    def result(self, commit: str) -> Path:
        [file] = self.folder.glob(f"results/*/{commit[:8]}-*.json")
        return file

    def plant(self, commit: str, not_found: float) -> None:
        """The first commit's result as that of another, but for what was not found."""
        first = self.result(self.commits[0])
        found: dict[str, Any] = json.loads(first.read_text())
        found["results"][TRACKED][0] = [not_found] + [float("nan")] * 3
        found |= {"commit_hash": commit, "date": found["date"] + 1000 * self.commits.index(commit)}
        first.with_name(first.name.replace(self.commits[0][:8], commit[:8])).write_text(
            json.dumps(found)
        )


def test_a_commit_is_measured_and_a_worse_one_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    dataset_folder(tmp_path / "data" / "nuts_dates", 6)
    monkeypatch.setenv("SAM_DETECT_TEST_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("HOME", str(tmp_path))  # where asv keeps what it knows of machines
    measured = Measured(tmp_path)
    first, second, third = measured.commits

    assert measured.run(first) == 0
    found = json.loads(measured.result(first).read_text())
    assert found["commit_hash"] == first
    nuts, *absent = found["results"][TRACKED][0]
    assert 0 <= nuts < 0.1, "nearly all drawn objects are found"
    assert all(value != value for value in absent), "NaN: there is no such set"
    page = tmp_path / "page"
    assert TRACKED in json.loads((page / "index.json").read_text())["benchmarks"]
    assert (page / "index.html").exists()
    assert measured.git("worktree", "list").count("\n") == 0, "nothing is left checked out"

    measured.plant(first, 0.2)
    measured.plant(second, 0.203)
    capfd.readouterr()
    assert measured.run("--no-run") == 0, "so little is noise"
    measured.plant(third, 0.25)
    assert measured.run("--no-run") == 1
    [line] = [x for x in capfd.readouterr().err.splitlines() if x.startswith("regression")]
    assert "track_f1_not_found('nuts_dates')" in line
    assert third[:8] in line
    assert "is 0.25" in line
    measured.plant(third, 0.15)
    assert measured.run("--no-run") == 0


def test_what_cannot_be_measured_ends_with_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Measured(tmp_path).run("no-such-commit") == 2
    assert "no-such-commit" in capfd.readouterr().err


def test_a_suite_is_measured_by_the_command_that_a_commit_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[str]] = []

    def run(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        asked.append(command[2:])
        return subprocess.CompletedProcess(command, 0, "{}")

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setenv("SAM_DETECT_CHECKOUT", str(tmp_path))
    tracked.Stages().setup_cache()
    (tmp_path / "scripts" / "dev" / "bench").mkdir(parents=True)
    tracked.Stages().setup_cache()
    assert asked == [
        ["sam_detect", "bench", "stages", "--json"],
        ["scripts.dev.bench", "stages", "--json"],
    ]


def test_lower_is_better_and_what_is_absent_is_nan() -> None:
    record = {"stages": {"live": {"median_ms": 2.5}}, "pairs": {"x": {"ratio": 4}},
              "figures": {"stream_f1": 0.9}, "nuts_dates": {"f1": 0.75}}  # fmt: skip
    assert tracked.Video().track_ms(record, "live") == 2.5
    assert tracked.VideoPairs().track_ratio(record, "x") == 0.25
    assert tracked.Video().track_f1_not_found(record, "live") == pytest.approx(0.1)
    assert tracked.Quality().track_f1_not_found(record, "nuts_dates") == 0.25
    assert math.isnan(tracked.Video().track_peak_mb(record, "live"))
    assert math.isnan(tracked.Quality().track_f1_not_found(record, "food_plates"))


def test_every_figure_but_times_is_judged() -> None:
    """Each has a threshold of its own, or is a time, which asv only shows."""
    config = read_config()
    suites = [tracked.Stages, tracked.StagesPairs, tracked.Store, tracked.StorePairs,
              tracked.Video, tracked.VideoPairs, tracked.SAM2Pairs, tracked.Quality]  # fmt: skip
    for suite in suites:
        for method in (name for name in dir(suite) if name.startswith("track_")):
            name = f"tracked.{suite.__name__}.{method}('x')@HEAD"
            shown = [p for p in config["regressions_first_commits"] if re.match(p, name)]
            judged = [p for p in config["regressions_thresholds"] if re.match(p, name)]
            is_time = getattr(getattr(suite, method), "unit", "") == "ms"
            assert (len(shown), len(judged)) == ((1, 0) if is_time else (0, 1)), name
