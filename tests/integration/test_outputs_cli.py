"""What `detect` writes and prints for people: counts, datasets, tables, help."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from cli_harness import (
    DISCS,
    SQUARES,
    Command,
    Ran,
    box_around,
    box_of_square,
    drawn,
    in_this_process,
    saved,
)

from sam_detect import SAMDetect
from sam_detect.cli import announced, text
from sam_detect.config import home_dir
from sam_detect.types import Detection

PAGE = Path(__file__).resolve().parents[2] / "docs" / "outputs.md"


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
        ["image", "disc", "square", "total", "check"],
        ["a.png", "5", "1", "6", ""],
        ["b.png", "3", "0", "3", ""],
        ["total", "8", "1", "9", ""],
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
    assert lines[0] == ["image", "disc", "square", "total", "check"]
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


# The line about the parts


def parts_lines(ran: Ran) -> list[str]:
    return [line for line in ran.err.splitlines() if line.startswith("segmenter ")]


def test_the_parts_are_named_again_only_when_they_change(sam: Command, trays: str) -> None:
    picture = f"{trays}/a.png"
    assert parts_lines(sam("detect", picture).worked()) == []
    [line] = parts_lines(sam("detect", picture, "--segmenter", "naive").worked())
    assert "naive (as asked)" in line
    assert parts_lines(sam("detect", picture, "--segmenter", "naive").worked()) == []
    [line] = parts_lines(sam("detect", picture).worked())
    assert "naive (auto" in line
    boxes = ("--label", "disc", "--box", box_around(*DISCS[2]))
    assert parts_lines(sam("learn", picture, *boxes).worked()) == [], "a number is no part"
    [line] = parts_lines(sam("learn", picture, *boxes, "--library", "other").worked())
    assert "library 'other': 0 examples" in line
    assert parts_lines(sam("detect", picture).worked()) == [], "each library has its own"
    [line] = parts_lines(sam("detect", picture, "--verbose").worked())
    assert "library 'default': 4 examples" in line


@pytest.mark.parametrize(
    "content", [b"", b"[1, 2]", b'{"a": 1}', b"\xff\xfe{", b"[" * 100_000, b" " * 200_000]
)
def test_a_damaged_note_of_the_last_run_is_made_anew(
    sam: Command, trays: str, content: bytes
) -> None:
    file = home_dir() / announced.FILE
    assert file.is_file()
    file.write_bytes(content)
    assert len(parts_lines(sam("detect", f"{trays}/a.png").worked())) == 1
    assert parts_lines(sam("detect", f"{trays}/a.png").worked()) == []


def test_where_nothing_can_be_noted_the_line_comes_each_time(
    sam: Command, trays: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = home_dir() / announced.FILE
    file.unlink()
    file.mkdir()
    for _ in range(2):
        assert len(parts_lines(sam("detect", f"{trays}/a.png").worked())) == 1
    file.rmdir()
    with monkeypatch.context() as patched:

        def refused(*_: object, **__: object) -> None:
            raise PermissionError(13, "Permission denied")

        patched.setattr("os.open", refused)
        for _ in range(2):
            assert announced.changed("library", "text", make_home=True)


def test_a_note_says_nothing_of_places_and_does_not_grow(tmp_path: Path) -> None:
    for number in range(announced.MOST_LIBRARIES + 20):
        assert announced.changed(f"https://secret.example/{number}", "text", make_home=True)
    assert not announced.changed("https://secret.example/219", "text", make_home=True)
    file = home_dir() / announced.FILE
    assert b"secret" not in file.read_bytes()
    assert len(json.loads(file.read_bytes())) == announced.MOST_LIBRARIES


def test_a_run_in_memory_makes_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAM_DETECT_HOME", str(tmp_path / "none"))
    for _ in range(2):
        assert announced.changed("library", "text", make_home=False)
    assert not (tmp_path / "none").exists()


# What a person reads


def test_one_picture_has_its_counts_first_and_then_its_objects(sam: Command, trays: str) -> None:
    lines = sam("detect", f"{trays}/a.png").worked().out.splitlines()
    assert re.match(r"trays/a\.png: 5 disc, 1 square; \d+ unknown$", lines[0])
    rows = [line.split()[0] for line in lines if re.search(r"\d+,\d+,\d+,\d+", line)]
    assert (rows.count("disc"), rows.count("square")) == (5, 1)


def test_several_pictures_have_a_line_each_and_the_sums(sam: Command, trays: str) -> None:
    for more in ([], ["--output", "pictures"]):
        lines = sam("detect", trays, *more).worked().out.splitlines()
        assert len(lines) == 3, lines
        assert lines[0].startswith("trays/a.png: 5 disc, 1 square; ")
        assert lines[1].startswith("trays/b.png: 3 disc; ")
        assert lines[2].startswith("total of 2 pictures: 8 disc, 1 square; ")


def test_hundreds_of_objects_stay_readable(
    sam: Command, trays: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text, "MOST_ROWS", 4)
    lines = sam("detect", f"{trays}/a.png").worked().out.splitlines()
    rows = [line for line in lines if re.search(r"\d+,\d+,\d+,\d+", line)]
    assert len(rows) == 4
    assert lines[-1].startswith("and 2 more: --format csv lists all of them")
    listed = sam("detect", f"{trays}/a.png", "--format", "csv").worked().out
    assert len([row for row in csv.DictReader(io.StringIO(listed)) if row["label"]]) == 6


def test_an_empty_library_says_once_how_to_teach_it(sam: Command, tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        saved(tmp_path / name)
    out = sam("detect", tmp_path).worked().out
    assert out.count("knows nothing yet") == 1
    assert "--label NAME --box" in out


def test_what_was_found_can_be_corrected_and_learnt_from(sam: Command, trays: str) -> None:
    """COCO's relative names lead back to the pictures."""
    sam("detect", trays, "--format", "coco", "--output", "found.json").worked()
    learn = ("learn", trays, "--annotations", "found.json", "--library", "second")
    sam(*learn).worked()
    stats = sam("library", "stats", "--library", "second", "--json").worked().json[0]
    assert stats["classes"] == {"disc": 8, "square": 1}


# docs/outputs.md


def blocks(language: str) -> list[str]:
    return re.findall(
        rf"```{language}\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL
    )


def test_the_commands_of_the_page_run(sam: Command, trays: str) -> None:
    lines = [line for block in blocks("") for line in block.splitlines()]
    commands = [line.split()[1:] for line in lines if line.startswith("sam-detect ")]
    assert len(commands) >= 4
    for command in commands:
        shutil.rmtree("dataset", ignore_errors=True)
        if "dataset/images" in command:
            saved(Path("dataset/images/a.png"))
        sam(*command).worked()


def test_the_python_of_the_page_runs(
    sam: Command, trays: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path(trays, "a.png").rename("tray.jpg")
    detector = SAMDetect()
    names: dict[str, Any] = {"detector": detector}
    for block in blocks("python"):
        exec(compile(block, str(PAGE), "exec"), names)
    assert len(names["found"]) > 0
    named = re.findall(r"`(\w+)`", PAGE.read_text().split("has the fields")[1].split(".")[0])
    assert set(named) == set(Detection.FIELDS)
    crop = detector.get_crop("tray.jpg", names["found"][0]["mask"])
    crop.save("crop.jpg")
    assert Path("crop.jpg").read_bytes().startswith(b"\xff\xd8")


# Several at once, and what a help costs


def test_several_runs_at_once_leave_a_sound_note() -> None:
    def run(number: int) -> None:
        for turn in range(15):
            announced.changed(f"library {number}", f"text {turn}", make_home=True)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(run, range(4)))
    said = json.loads((home_dir() / announced.FILE).read_bytes())
    assert 1 <= len(said) <= 4
    assert [path.name for path in home_dir().iterdir()] == [announced.FILE]


@pytest.mark.parametrize("command", ["detect", "learn", "video", "evaluate"])
def test_all_help_imports_nothing_heavy(command: str) -> None:
    heavy = ("torch", "cv2", "PIL", "skimage", "scipy", "qdrant_client", "qdrant_edge", "pandas")
    code = (
        "import sys; from sam_detect.cli.app import run; "
        f"assert run([{command!r}, '--help-all']) == 0; "
        f"print([name for name in {heavy!r} if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip().splitlines()[-1] == "[]"
