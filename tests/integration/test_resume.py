"""``detect --resume``: a run that was stopped or killed goes on, with the same result."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli_harness import DISCS, Ran, as_a_process, box_around, drawn, saved
from PIL import Image
from test_batch import same_plain, until, without_times

PARTS = '''
import os, time
from sam_detect.segmentation import NaiveSegmenter
class Logged(NaiveSegmenter):
    """Says what it works on; takes long at the fifth picture where a file says so."""
    def propose(self, frame, hints=None):
        with open("log", "a") as log:
            print(os.path.basename(frame.source_id), file=log)
        if frame.source_id.endswith("4.png") and os.path.exists("slow"):
            time.sleep(60)
        return super().propose(frame, hints)
'''
COUNT = 7
DETECT = ("detect", "in", "--segmenter", "own:Logged", "--workers", "1")


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library that knows discs; a run over seven pictures that was killed at the fifth; and what
    an uninterrupted one gives in ``whole.*``."""
    folder = tmp_path_factory.mktemp("resume")
    (folder / "own.py").write_text(PARTS)
    saved(folder / "shapes.png")
    boxes = [word for place in DISCS[:2] for word in ("--box", box_around(*place))]
    # The embedder that is quickest to load: what resumes is the same with all of them.
    parts = ("--segmenter", "naive", "--embedder", "appearance")
    sam(folder, "learn", "shapes.png", "--label", "disc", *parts, *boxes).worked()
    for number in range(COUNT):
        places = [(40 + 7 * number, 45), (150, 60 + 5 * number)]
        saved(folder / "in" / f"{number}.png", drawn(places, [(220, 140)], seed=number))
    for name in ("whole.jsonl", "whole.csv", "whole", "whole.json"):
        more = ("--format", "coco") if name.endswith(".json") else ()
        sam(folder, *DETECT, "--output", name, *more).worked()
        assert not (folder / f"{name}.progress").exists()
    (folder / "slow").touch()
    log = folder / "log"
    log.unlink()
    line = [sys.executable, "-m", "sam_detect", *DETECT, "--output", "out.jsonl"]
    process = subprocess.Popen(
        line, cwd=folder, env=environment(folder), stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    until(lambda: log.exists() and "4.png" in log.read_text())
    process.send_signal(signal.SIGKILL)
    process.wait()
    (folder / "slow").unlink()
    assert not (folder / "out.jsonl").exists()
    return folder


@pytest.fixture
def folder(killed: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    copied = tmp_path / "copy"
    shutil.copytree(killed, copied)
    (copied / "log").unlink(missing_ok=True)
    return copied


def environment(folder: Path) -> dict[str, str]:
    path = os.pathsep.join(each for each in sys.path if each)
    home = {"SAM_DETECT_HOME": str(folder / "home"), "PYTHONPATH": path}
    return {**os.environ, **home, "OMP_NUM_THREADS": "1"}


def sam(folder: Path, *arguments: str) -> Ran:
    return as_a_process(*arguments, cwd=folder, env={**environment(folder)}, timeout=120)


def resumed(folder: Path, *more: str, output: str = "out.jsonl") -> Ran:
    return sam(folder, *DETECT, "--output", output, "--resume", *more)


def worked_on(folder: Path) -> list[str]:
    log = folder / "log"
    return log.read_text().split() if log.exists() else []


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [without_times(json.loads(line)) for line in path.read_text().splitlines()]


def assert_whole(folder: Path) -> None:
    assert same_plain(lines_of(folder / "out.jsonl"), lines_of(folder / "whole.jsonl"))


def test_a_killed_run_goes_on_where_it_was_and_gives_the_same(folder: Path) -> None:
    ran = resumed(folder).worked()
    assert f"4 of {COUNT} pictures are done already" in ran.err
    assert worked_on(folder) == ["4.png", "5.png", "6.png"]
    assert_whole(folder)
    assert not (folder / "out.jsonl.progress").exists()


def test_outputs_of_other_formats_are_the_same_too(folder: Path) -> None:
    progress = folder / "out.jsonl.progress"
    for name, more in (("out.csv", ()), ("out", ()), ("out.json", ("--format", "coco"))):
        shutil.copy(progress, folder / f"{name}.progress")
        resumed(folder, *more, output=name).worked()
    tables = []
    for name in ("out.csv", "whole.csv"):
        with (folder / name).open(newline="") as file:
            tables.append([[plain(cell) for cell in row] for row in csv.reader(file)])
    assert same_plain(*tables)
    datasets = [json.loads((folder / name).read_text()) for name in ("out.json", "whole.json")]
    assert datasets[0]["annotations"]
    assert same_plain(*datasets)
    for number in range(COUNT):
        pictures = [np.asarray(Image.open(folder / n / f"{number}.png")) for n in ("out", "whole")]
        assert np.array_equal(*pictures)


def plain(cell: str) -> Any:
    try:
        return float(cell)
    except ValueError:
        return cell


def test_what_is_half_written_or_damaged_is_done_again(folder: Path) -> None:
    progress = folder / "out.jsonl.progress"
    head, *lines = progress.read_bytes().splitlines(keepends=True)
    lines[1] = lines[1].replace(b'"counts": "', b'"counts": "~', 1)
    lines[2] = b'{"picture": "in/2.png", "file"\n'
    progress.write_bytes(b"".join([head, *lines])[:-20])
    last = (folder / "in" / "6.png").read_bytes()
    (folder / "in" / "6.png").write_bytes(last[:300])
    assert resumed(folder).code == 1
    assert worked_on(folder) == ["1.png", "2.png", "3.png", "4.png", "5.png"]
    (folder / "in" / "6.png").write_bytes(last)
    (folder / "log").unlink()
    resumed(folder).worked()
    assert worked_on(folder) == ["6.png"]  # what was written after the damage is read
    assert_whole(folder)


def test_a_picture_that_changed_since_is_done_again(folder: Path) -> None:
    changed = drawn([(60, 60), (200, 60), (60, 150)], squares=(), seed=9)
    saved(folder / "in" / "1.png", changed)
    resumed(folder).worked()
    assert worked_on(folder)[0] == "1.png"
    assert worked_on(folder)[1] == "4.png"
    discs = [d for d in lines_of(folder / "out.jsonl")[1]["detections"] if d["label"] == "disc"]
    assert len(discs) == 3


def test_pictures_that_came_or_went_are_added_or_left_out(folder: Path) -> None:
    (folder / "in" / "0.png").unlink()
    saved(folder / "in" / "10.png", drawn(seed=10))
    resumed(folder).worked()
    names = [Path(line["image"]).name for line in lines_of(folder / "out.jsonl")]
    assert names == [f"{n}.png" for n in (1, 2, 3, 4, 5, 6, 10)]


def test_changed_settings_and_libraries_are_refused_by_name(folder: Path) -> None:
    before = (folder / "out.jsonl.progress").read_bytes()
    resumed(folder, "--threshold", "0.9").failed("--threshold", "leave out --resume", code=2)
    resumed(folder, "--explain").failed("--explain", code=2)
    sam(folder, "learn", "in/5.png", "--label", "disc", "--box", "55,25,41,41",
        "--segmenter", "naive").worked()  # fmt: skip
    resumed(folder).failed("library", code=2)
    assert (folder / "out.jsonl.progress").read_bytes() == before
    # What only chooses among the results may change, and a run that begins again may do all.
    sam(folder, *DETECT, "--output", "out.jsonl", "--threshold", "0.9").worked()
    assert len(lines_of(folder / "out.jsonl")) == COUNT


def test_what_failed_is_tried_again_and_only_that(folder: Path) -> None:
    whole = (folder / "in" / "5.png").read_bytes()
    (folder / "in" / "5.png").write_bytes(whole[:300])
    ran = resumed(folder)
    assert ran.code == 1
    assert "5.png" in ran.errors[0]
    assert len(lines_of(folder / "out.jsonl")) == COUNT - 1
    (folder / "in" / "5.png").write_bytes(whole)
    (folder / "log").unlink()
    resumed(folder).worked()
    assert worked_on(folder) == ["5.png"]
    assert_whole(folder)


def test_several_workers_go_on_where_every_third_picture_is_damaged(folder: Path) -> None:
    damaged = [folder / "in" / name for name in ("2.png", "5.png")]
    whole = [path.read_bytes() for path in damaged]
    for path in damaged:
        path.write_bytes(b"no picture")
    for _ in range(2):
        ran = resumed(folder, "--workers", "2")
        assert ran.code == 1
        named = [line for line in ran.errors if "in/" in line]
        assert [Path(line.split("'")[1]).name for line in named] == ["2.png", "5.png"]
        found = [Path(line["image"]).stem for line in lines_of(folder / "out.jsonl")]
        assert found == ["0", "1", "3", "4", "6"]
    assert sorted(worked_on(folder)) == ["4.png", "6.png"], "once each"
    for path, data in zip(damaged, whole, strict=True):
        path.write_bytes(data)
    (folder / "log").unlink()
    resumed(folder, "--workers", "2").worked()
    assert sorted(worked_on(folder)) == ["2.png", "5.png"]
    assert_whole(folder)


def test_what_cannot_be_resumed_says_so(folder: Path) -> None:
    sam(folder, *DETECT, "--resume").failed("--output", code=2)
    (folder / "other.jsonl.progress").write_text("a diary\n")
    resumed(folder, output="other.jsonl").failed("other.jsonl.progress", code=2)
    assert (folder / "other.jsonl.progress").read_text() == "a diary\n"
    ran = resumed(folder, output="new.csv").worked()
    assert f"0 of {COUNT} pictures are done already" in ran.err
