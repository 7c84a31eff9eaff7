"""The metrics page: what it shows of a history, and what its exit code says."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from sam_detect.bench.history import append_record

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ROOT / "scripts"
pytest.importorskip("jinja2", reason="the evaluate extra is not installed")

OLD, NEW = "a" * 40, "b" * 40
MACHINES = ({"cpu": "Left", "cores": 2, "memory_gb": 8.0}, {"cpu": "Right", "cores": 16})


def stage(milliseconds: float, megabytes: float | None = 10.0) -> dict[str, Any]:
    return {"median_ms": milliseconds, "spread_ms": 1.0, "peak_memory_mb": megabytes}


def pair(ratio: float, *, spread: float = 0.1) -> dict[str, Any]:
    return {"a": "ours", "b": "theirs", "a_median": 100.0, "b_median": 100.0 * ratio,
            "ratio": ratio, "spread": spread, "unit": "ms"}  # fmt: skip


def head(kind: str, commit: str, day: int, machine: int = 0) -> dict[str, Any]:
    return {"kind": kind, "date": f"2026-01-{day:02}T12:00:00+00:00", "commit": commit,
            "dirty": False, "machine": MACHINES[machine], "versions": {"numpy": "2.0"}}  # fmt: skip


def stages(commit: str, day: int, *, ratio: float = 5.0, machine: int = 0) -> dict[str, Any]:
    return {
        **head("bench", commit, day, machine), "suite": "stages", "repeat": 5,
        "workload": "some pictures", "recipe": {}, "skipped": [],
        "stages": {"propose": stage(600.0), "embed": stage(300.0, None), "detect": stage(1000.0)},
        "pairs": {"search_snapshot_vs_store": pair(ratio)},
        "figures": {"detect_seconds_per_megapixel": 1.25},
    }  # fmt: skip


def store(commit: str, day: int) -> dict[str, Any]:
    sized = {f"{name}_{what}_{size}": stage(size / 100, size / 1000)
             for name in ("memory", "embedded") for what in ("insert", "search")
             for size in (1000, 10000)}  # fmt: skip
    return {
        **head("bench", commit, day), "suite": "store", "repeat": 5, "workload": "default",
        "stages": sized, "figures": {}, "skipped": ["local at 100000 vectors"],
        "pairs": {"embedded_vs_local_search_1000": pair(3.0),
                  "embedded_vs_local_search_10000": pair(11.3)},
    }  # fmt: skip


def evaluated(commit: str, day: int, dataset: str, method: str, f1: float | None,
              **changes: Any) -> dict[str, Any]:  # fmt: skip
    return {
        **head("evaluate", commit, day), "dataset": dataset, "method": method, "shots": 5,
        "recipe": {"embedder": "appearance", "fade": "gaussian"}, "f1": f1, "precision": 0.5,
        "recall": 0.5, "proposal_recall": None, "seconds_per_image": 1.5, "peak_memory_mb": None,
        **changes,
    }  # fmt: skip


class Elements(HTMLParser):
    """What a browser would make of the page."""

    VOID = ("meta", "link", "br", "hr", "img", "input")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tips: list[str] = []
        self.tags: list[str] = []
        self.outside: list[str] = []
        self.words = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            if name == "data-tip":
                self.tips.append(value or "")
            if name in ("src", "href", "srcset") and not (value or "").startswith("#"):
                self.outside.append(value or "")
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes another element"

    def handle_data(self, data: str) -> None:
        if not {"style", "script"} & set(self.open):
            self.words += data


Metrics = Callable[..., "Made"]


class Made:
    """A run of the script, with its page."""

    def __init__(self, done: subprocess.CompletedProcess[str], page: Path) -> None:
        self.code, self.out, self.err = done.returncode, done.stdout, done.stderr
        assert "Traceback" not in self.err, self.err
        self.text = page.read_text(encoding="utf-8") if page.exists() else ""
        self.page = Elements(self.text)
        assert self.page.open == [], "an element is not closed"


@pytest.fixture
def metrics(tmp_path: Path) -> Metrics:
    """Builds the page of records (or of a file), as a real process."""

    def run(*records: dict[str, Any], history: Path | None = None, damaged: str = "") -> Made:
        path = tmp_path / "history.jsonl" if history is None else history
        for record in records:
            append_record(path, record)
        if damaged:
            with path.open("a", encoding="utf-8") as file:
                file.write(damaged + "\n")
        output = tmp_path / "page"
        line = [sys.executable, str(SCRIPTS / "metrics.py"), str(path), "--output", str(output)]
        done = subprocess.run(line, capture_output=True, text=True, timeout=60, check=False)
        return Made(done, output / "index.html")

    return run


def test_a_planted_regression_is_named_in_a_line_and_ends_with_1(metrics: Metrics) -> None:
    made = metrics(
        stages(OLD, 1), stages(NEW, 2, ratio=2.0),
        evaluated(OLD, 1, "nuts", "ours", 0.8), evaluated(NEW, 2, "nuts", "ours", 0.7),
        evaluated(OLD, 1, "plates", "ours", 0.6), evaluated(NEW, 2, "plates", "ours", 0.6),
    )  # fmt: skip
    lines = [line for line in made.err.splitlines() if line.startswith("regression: ")]
    assert made.code == 1
    assert len(lines) == 2
    assert "search_snapshot_vs_store fell from 5 (aaaaaaa, 2026-01-01) to 2" in made.err
    assert "nuts, 5 shots, ours" in made.err
    assert "plates" not in made.err
    assert "2 figures of the newest commit got worse" in made.page.words


def test_without_a_regression_it_ends_with_0(metrics: Metrics) -> None:
    made = metrics(stages(OLD, 1), stages(NEW, 2, ratio=4.9), evaluated(OLD, 1, "nuts", "a", 0.5))
    assert (made.code, made.err) == (0, "")
    assert "No ratio and no quality figure" in made.page.words
    assert "3 measurements of 2 commits on 1 machine" in made.page.words


def test_of_one_commit_nothing_is_said_to_be_compared(metrics: Metrics) -> None:
    made = metrics(stages(OLD, 1), stages(OLD, 2, ratio=1.0))
    assert made.code == 0
    assert "Only one commit was measured" in made.page.words
    assert "No ratio" not in made.page.words


def test_the_page_needs_no_network(metrics: Metrics) -> None:
    made = metrics(stages(OLD, 1), store(OLD, 1), evaluated(OLD, 1, "nuts", "ours", 0.8))
    assert made.page.outside == []
    assert not re.search(r"@import|url\(|https?://(?!www\.w3\.org)|fetch\(", made.text)
    assert "prefers-color-scheme: dark" in made.text
    assert 'name="viewport"' in made.text


def test_times_are_shown_by_stage_commit_and_machine(metrics: Metrics) -> None:
    made = metrics(stages(OLD, 1), stages(NEW, 2), stages(NEW, 3, machine=1))
    for words in ("Left, 2 cores, 8 GB", "Right, 16 cores", "some pictures", "1.25 s"):
        assert words in made.page.words
    points = [tip for tip in made.page.tips if tip.startswith("aaaaaaa, 2026-01-01: ")]
    assert "aaaaaaa, 2026-01-01: 1 s ± 0.5 ms, peak 10 MB" in points
    assert "aaaaaaa, 2026-01-01: 300 ms ± 0.5 ms" in points, "no memory where none is known"
    assert len(points) == 3
    assert "propose: 600 ms ± 0.5 ms, peak 10 MB, 67 % of the sum" in made.page.tips


def test_a_busy_machine_is_told(metrics: Metrics) -> None:
    busy = metrics({**stages(OLD, 1), "load": 6.5})
    assert "the machine was busy (load 6.5 on 2)" in busy.page.words
    alone = metrics({**stages(OLD, 2), "load": 1.5})
    assert "busy" not in alone.page.words


def test_ratios_lie_right_of_the_middle_where_ours_is_better(metrics: Metrics) -> None:
    record = stages(OLD, 1)
    record["pairs"] = {"better": pair(4.0), "worse": pair(0.25), "same": pair(1.0)}
    made = metrics(record)
    spots = re.findall(r'class="track (\w+)".*?<u style="left:([\d.]+)%', made.text)
    (better, right), (worse, left), (_, middle) = spots
    assert (better, worse) == ("better", "worse")
    assert float(right) - 50 == pytest.approx(50 - float(left), abs=0.1)
    assert float(right) > 75
    assert float(middle) == pytest.approx(50)


def test_stores_are_drawn_by_size(metrics: Metrics) -> None:
    made = metrics(store(OLD, 1))
    assert "embedded, 10,000 vectors: 100 ms ± 0.5 ms, peak 10 MB" in made.page.tips
    assert "memory, 1,000 vectors: 1 MB" in made.page.tips
    assert "Left out: local at 100000 vectors" in made.page.words
    assert "11.3" in made.page.words


def test_quality_is_a_grid_of_datasets_and_methods(metrics: Metrics) -> None:
    curve = [{"shots": 1, "f1": 0.4}, {"shots": 5, "f1": 0.8}, {"shots": 20, "f1": None}]
    made = metrics(
        evaluated(OLD, 1, "nuts", "ours", 0.8, learning_curve=curve),
        evaluated(OLD, 1, "nuts", "otsu", 0.5, recipe={}),
        evaluated(OLD, 1, "plates", "ours", 0.6),
        evaluated(OLD, 1, "plates", "ours", 0.3, recipe={"embedder": "average", "fade": "blur"}),
        evaluated(OLD, 1, "cells", "ours", None),
    )
    assert made.code == 0
    assert (
        "ours [top_k=1]"
        in metrics(evaluated(OLD, 1, "nuts", "ours", 0.7, variant={"top_k": "1"})).page.words
    )
    for words in ("nuts", "plates", "otsu", "ours (appearance, gaussian)", "ours (average, blur)"):
        assert words in made.page.words
    best = re.findall(r'<td class="best"><span[^>]*>([\d.]+)</span>', made.text)
    assert best == ["0.80", "0.60"]
    curves = [tip for tip in made.page.tips if "examples of each label" in tip]
    assert len(curves) == 2
    assert "ours (appearance, gaussian), 1 examples of each label: F1 0.400" in curves
    assert any("precision 0.500, recall 0.500, 1.50 s an image" in tip for tip in made.page.tips)


def test_names_cannot_break_out_of_the_page(metrics: Metrics) -> None:
    nasty = "<script>alert(1)</script>\"'>&"
    record = stages(OLD, 1)
    record["stages"][nasty] = stage(5.0)
    record["pairs"][nasty] = pair(2.0)
    made = metrics(
        record,
        evaluated(OLD, 1, nasty, nasty, 0.5, learning_curve=[{"shots": 1, "f1": 0.1}]),
        damaged=nasty,
    )
    assert made.page.tags.count("script") == 1
    assert "alert(1)</script>" not in made.text
    assert nasty in made.page.words


def test_a_damaged_line_is_named_on_stderr_and_on_the_page(metrics: Metrics) -> None:
    made = metrics(stages(OLD, 1), damaged='{"kind": "bench", "da')
    assert made.code == 0
    assert "line 2 is skipped" in made.err
    assert "line 2 is skipped" in made.page.words


def test_odd_records_do_not_stop_the_page(metrics: Metrics) -> None:
    empty = {**stages(OLD, 1), "stages": {}, "pairs": {}, "figures": {}}
    nothing = {**stages(OLD, 2), "suite": "other", "figures": None, "skipped": None}
    unknown = {"median_ms": None, "spread_ms": None, "peak_memory_mb": None}
    nothing["stages"] = {
        "propose": stage(0.0, 0.0),
        "odd": unknown,
        "odd_1": unknown,
        "odd_2": unknown,
    }
    nothing["pairs"] = {"p": {**pair(1.0), "ratio": None, "spread": None}}
    future = {"kind": "future", "date": "2026-01-03", "machine": {}}
    bare = {"kind": "evaluate", "date": "2026", "machine": {}, "dataset": "d", "method": "m",
            "shots": 1}  # fmt: skip
    made = metrics(empty, nothing, future, bare)
    assert (made.code, made.err) == (0, "")
    assert "future" in made.page.words


@pytest.mark.parametrize("content", [None, "", "\n", "not json\n"])
def test_a_history_without_measurements_is_one_line_and_2(
    metrics: Metrics, tmp_path: Path, content: str | None
) -> None:
    path = tmp_path / "given.jsonl"
    if content is not None:
        path.write_text(content)
    made = metrics(history=path)
    assert made.code == 2
    assert made.text == ""
    assert [line[:7] for line in made.err.splitlines()] == ["error: "]
    assert "sam-detect bench" in made.err


def test_the_projects_own_history_is_whole(metrics: Metrics) -> None:
    own = ROOT / "docs" / "metrics" / "history.jsonl"
    lines = [json.loads(line) for line in own.read_text(encoding="utf-8").splitlines()]
    made = metrics(history=own)
    assert made.code in (0, 1), "a regression is for people to judge"
    assert "is skipped" not in made.err
    assert f"{len(lines)} measurements" in made.page.words
