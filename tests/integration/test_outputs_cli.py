"""What `detect` writes and prints for people: counts, datasets, tables, help."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path

import pytest
from cli_harness import (
    DISCS,
    SQUARES,
    Command,
    box_around,
    box_of_square,
    drawn,
    in_this_process,
    saved,
)

from sam_detect.cli import text


@pytest.fixture
def sam(capfd: pytest.CaptureFixture[str]) -> Command:
    return in_this_process(capfd)


@pytest.fixture
def trays(sam: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A folder with two pictures, of which the library knows two discs and a square."""
    monkeypatch.chdir(tmp_path)
    saved(tmp_path / "trays" / "a.png")
    saved(tmp_path / "trays" / "b.png", drawn([(50, 60), (150, 70), (220, 140)], [], seed=1))
    for label, boxes in (
        ("disc", [box_around(*place) for place in DISCS[:2]]),
        ("square", [box_of_square(*SQUARES[0])]),
    ):
        words = [word for box in boxes for word in ("--box", box)]
        sam("learn", "trays/a.png", "--label", label, *words).worked()
    return "trays"


def wide_terminal(monkeypatch: pytest.MonkeyPatch, columns: int = 100) -> None:
    """As if stdout were a terminal of so many columns."""
    monkeypatch.setattr(text, "width", lambda: columns)
    monkeypatch.setattr("sam_detect.cli.detect.width", lambda: columns)


# Formats


def test_counts_are_csv_in_a_pipe_and_in_a_file(sam: Command, trays: str) -> None:
    printed = sam("detect", trays, "--format", "counts").worked().out
    rows = list(csv.reader(io.StringIO(printed)))
    assert rows == [
        ["image", "disc", "square", "total"],
        ["a.png", "5", "1", "6"],
        ["b.png", "3", "0", "3"],
        ["total", "8", "1", "9"],
    ]
    ran = sam("detect", trays, "--format", "counts", "--output", "counts.csv").worked()
    assert Path("counts.csv").read_text() == printed
    assert "wrote counts.csv" in ran.err


def test_counts_are_a_table_in_a_terminal(
    sam: Command, trays: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    wide_terminal(monkeypatch)
    printed = sam("detect", trays, "--format", "counts").worked().out
    assert "," not in printed
    plain = re.sub(r"\x1b\[[0-9;]*m", "", printed)
    lines = [line.split() for line in plain.splitlines() if line.strip()]
    assert lines[0] == ["image", "disc", "square", "total"]
    assert lines[-1] == ["total", "8", "1", "9"]


def test_yolo_beside_its_pictures_is_a_dataset(sam: Command, trays: str, tmp_path: Path) -> None:
    (tmp_path / "dataset").mkdir()
    Path(trays).rename("dataset/images")
    ran = sam("detect", "dataset/images", "--format", "yolo", "--output", "dataset").worked()
    assert "wrote dataset/data.yaml" in ran.err
    assert len(Path("dataset/labels/a.txt").read_text().splitlines()) == 6
    again = sam("detect", "dataset/images", "--format", "yolo", "--output", "dataset")
    again.failed("dataset", "already", "--output", code=1)
    sam("detect", "dataset/images", "--format", "yolo").failed("folder", "--output", code=2)


def test_coco_has_names_below_the_folder(sam: Command, trays: str, tmp_path: Path) -> None:
    sam("detect", tmp_path / trays, "--format", "coco", "--output", "found.json").worked()
    data = json.loads(Path("found.json").read_text())
    assert [image["file_name"] for image in data["images"]] == ["a.png", "b.png"]
    assert all(isinstance(each["segmentation"], list) for each in data["annotations"])
