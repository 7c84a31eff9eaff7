"""``sam-detect video`` on a drawn clip: what it writes, what it says, and what it refuses."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from sam_detect.api import SAMDetect
from sam_detect.types import Detections
from sam_detect.types.masks import rle_to_mask
from tests.drawn_scene import SIDE, disc_xy, picture, with_square, write_clip
from tests.integration.cli_harness import Command, as_a_process, in_this_process

FRAMES = 15


@pytest.fixture
def command(capfd: pytest.CaptureFixture[str]) -> Command:
    return in_this_process(capfd)


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """A clip whose square the library knows."""
    with_square()
    return write_clip(tmp_path / "clip.avi", FRAMES)


def test_every_output_of_one_run_says_the_same(clip: Path, command: Command) -> None:
    at = clip.parent
    paths = [at / "o" / name for name in ("x.mp4", "x.jsonl", "x.txt")]
    given = [each for path in paths for each in ("--output", path)]
    ran = command("video", clip, *given, "--json", "--snapshots", at / "new").worked()
    assert ran.out == paths[1].read_text("utf-8")
    lines = ran.json
    assert [line["frame"] for line in lines] == list(range(FRAMES))
    assert [line["time_s"] for line in lines] == pytest.approx([i / 25 for i in range(FRAMES)])
    in_lines = {(x["frame"] + 1, d["track_id"], *d["bbox"]) for x in lines for d in x["detections"]}
    rows = [[float(v) for v in row.split(",")] for row in paths[2].read_text().splitlines()]
    in_mot = {
        (int(f), int(t), int(x) - 1, int(y) - 1, int(w), int(h)) for f, t, x, y, w, h, *_ in rows
    }
    assert in_mot == in_lines
    with av.open(str(paths[0])) as container:
        pictures = [each.to_ndarray(format="rgb24") for each in container.decode(video=0)]
    for line, shown in zip(lines, pictures, strict=True):
        changed = np.abs(shown.astype(int) - picture(line["frame"])).max(axis=2) > 25
        for each in line["detections"]:
            assert changed[rle_to_mask(each["segmentation"])].mean() > 0.5, "it is drawn in"
    tracks = {d["track_id"] for line in lines for d in line["detections"]}
    assert {int(p.stem.split("-")[1]) for p in (at / "new").glob("*.png")} == tracks
    assert f"{FRAMES} frames, 2 key frames" in ran.err
    count = "1 track" if len(tracks) == 1 else f"{len(tracks)} tracks"
    assert tracks
    assert f"{count}: square x{len(tracks)}" in ran.err


def test_an_object_that_is_collected_is_learnt_and_found_again(
    clip: Path, command: Command
) -> None:
    unknown = clip.parent / "unknown"
    command("video", clip, "--collect-unknown", unknown, "--store", "memory").worked()
    data = json.loads((unknown / "annotations.json").read_text())
    x, y = disc_xy(0)
    wanted = next(
        image["id"]
        for image, outline in zip(data["images"], data["annotations"], strict=True)
        if np.isclose(outline["bbox"][2:], 2 * SIDE - 1, atol=2).all()
        and colour_on(unknown / image["file_name"], outline) == "disc"
    )
    data["categories"][wanted - 1]["name"] = "disc"
    (unknown / "annotations.json").write_text(json.dumps(data))
    command("learn", unknown, "--annotations", unknown / "annotations.json", "--tag", "disc",
            "--library", "other").worked()  # fmt: skip
    lines = command("video", clip, "--library", "other", "--json").worked().json
    for line in lines:
        x, y = disc_xy(line["frame"])
        assert any(
            d["label"] == "disc" and rle_to_mask(d["segmentation"])[y, x]
            for d in line["detections"]
        )


def colour_on(path: Path, outline: dict) -> str:
    mask = rle_to_mask(outline["segmentation"])
    b, g, _ = cv2.imread(str(path))[mask].mean(axis=0)
    return "disc" if b > g else "square"


@pytest.mark.parametrize("format_name", ["mot", "jsonl"])
def test_text_goes_to_stdout_where_no_output_is_named(
    format_name: str, clip: Path, command: Command
) -> None:
    path = clip.parent / "x.out"
    command("video", clip, "--output", path, "--format", format_name).worked()
    assert command("video", clip, "--format", format_name).worked().out == path.read_text("utf-8")


def test_formats_go_to_the_outputs_that_need_one(clip: Path, command: Command) -> None:
    at = clip.parent
    command(
        "video", clip, "--output", at / "a", "--output", at / "b.jsonl", "--output", at / "c.x",
        "--format", "mot", "--format", "csv",
    ).worked()  # fmt: skip
    assert (at / "a").read_text().startswith("1,1,")
    assert (at / "b.jsonl").read_text().startswith('{"video"')
    assert (at / "c.x").read_text().startswith("frame,")
    command("video", clip, "--output", at / "d.json", "--format", "jsonl").worked()
    assert (at / "d.json").read_text() == (at / "b.jsonl").read_text()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--output", "x.zip"], ["'x.zip'", "'.zip'", ".mp4", "--format"]),
        (["--output", "x"], ["'x'", "--format"]),
        (["--output", "x.mp4", "--format", "mpeg"], ["mpeg", "annotated"]),
        (["--format", "annotated"], ["annotated", "--output"]),
        (["--format", "mot", "--json"], ["several outputs", "stdout"]),
        (["--output", "a.mp4", "--output", "./a.mp4"], ["several outputs", "a.mp4"]),
        (
            ["--output", "a.mp4", "--output", "b.mp4", "--format", "mot"],
            ["1 --format", "0 outputs"],
        ),
        (["--snapshots", "s", "--collect-unknown", "s"], ["several outputs"]),
        (["--no-track", "--snapshots", "s"], ["--no-track", "--snapshots"]),
        (["--every", "0"], ["--every"]),
    ],
)
def test_what_cannot_be_meant_is_refused_in_one_line(
    options: list[str], words: list[str], clip: Path, command: Command,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(clip.parent)
    command("video", clip, *options).failed(*words, code=2)
    assert sorted(each.name for each in clip.parent.iterdir()) == ["clip.avi"]


@pytest.mark.parametrize("option", ["--snapshots", "--collect-unknown"])
@pytest.mark.parametrize("source", ["frames", "frames/*.png"])
def test_nothing_is_written_among_the_frames_that_are_read(
    option: str, source: str, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    frames = tmp_path / "frames"
    frames.mkdir()
    cv2.imwrite(str(frames / "0.png"), picture(0))
    command("video", source, option, frames).failed("frames", "next frames", code=2)
    assert [each.name for each in frames.iterdir()] == ["0.png"]


def test_the_video_that_is_read_is_not_overwritten(tmp_path: Path, command: Command) -> None:
    path = tmp_path / "clip.mp4"
    write_clip(tmp_path / "clip.avi", 3).rename(path)
    before = path.read_bytes()
    command("video", path, "--output", path).failed("being read", code=1)
    assert path.read_bytes() == before


def test_without_tracks_objects_have_no_numbers(clip: Path, command: Command) -> None:
    ran = command("video", clip, "--no-track", "--json").worked()
    assert all(line["key"] for line in ran.json)
    assert {d["track_id"] for line in ran.json for d in line["detections"]} == {None}
    assert f"{FRAMES} key frames" in ran.err


def test_an_empty_library_is_said_to_name_nothing(tmp_path: Path, command: Command) -> None:
    clip = write_clip(tmp_path / "clip.avi", 3)
    ran = command("video", clip, "--json").worked()
    assert "the library is empty" in ran.err
    assert [line["detections"] for line in ran.json] == [[], [], []]
    assert "the library is empty" not in command("video", clip, "--unknown").worked().err


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="X and Wayland are Linux's")
def test_show_without_a_display_is_one_line(clip: Path) -> None:
    nowhere = {"DISPLAY": None, "WAYLAND_DISPLAY": None}
    as_a_process("video", clip, "--show", env=nowhere).failed("no display", "--show", code=2)


def test_show_ends_when_the_window_is_closed(
    clip: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sam_detect.video import display

    shown = []

    class Pretended:
        room_hw = (240, 320)

        def resize(self, room_hw: tuple[int, int]) -> None:
            self.room_hw = room_hw

        def show(self, image_rgb: np.ndarray) -> None:
            shown.append(image_rgb)

        def events(self, wait_s: float) -> list[str] | None:
            return [] if len(shown) < 4 else None

        def close(self) -> None:
            shown.append("closed")

    monkeypatch.setattr(display, "Display", Pretended)
    path = clip.parent / "x.mp4"
    ran = command("video", clip, "--show", "--output", path, "--json").worked()
    written = len(ran.json)
    assert 1 <= written < FRAMES
    assert shown[-1] == "closed"
    with av.open(str(path)) as container:
        assert len(list(container.decode(video=0))) == written


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_a_terminal_gets_a_line_that_says_how_it_goes(clip: Path) -> None:
    seen = on_a_terminal("video", str(clip), "--output", str(clip.parent / "x.mp4"))
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", seen)
    assert re.search(r"frame \d+  [\d.]+ fps  \d+ ms  0 dropped  queue \d+\+\d+  square x\d", plain)
    assert "\x1b[2K" in seen, "the line is taken away again"
    assert f"{FRAMES} frames, 2 key frames" in plain


def on_a_terminal(*arguments: str) -> str:
    """What a terminal of 200 columns gets from the command."""
    import pty

    child, terminal = pty.fork()
    if child == 0:
        os.environ.update(TERM="xterm-256color", COLUMNS="200")
        os.execv(sys.executable, [sys.executable, "-m", "sam_detect", *arguments])
    seen = b""
    while True:
        try:
            part = os.read(terminal, 65536)
        except OSError:  # how Linux says that the other end is closed
            part = b""
        if not part:
            break
        seen += part
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, seen
    return seen.decode(errors="replace")


# -- a loop of one's own ---------------------------------------------------------------------------


RED_XY, BLUE_XY = (40, 60), (115, 60)


def two_discs() -> np.ndarray:
    """``(120, 160, 3)`` BGR, as OpenCV draws: a red disc and a blue one."""
    image = np.full((120, 160, 3), 225, np.uint8)
    cv2.circle(image, RED_XY, SIDE, (30, 30, 200), -1)
    cv2.circle(image, BLUE_XY, SIDE, (200, 30, 30), -1)
    return image


@pytest.mark.parametrize(
    ("color_order", "names"), [("bgr", ["red", "blue"]), ("rgb", ["blue", "red"])]
)
def test_what_a_file_taught_is_found_in_the_frames_of_opencv(
    color_order: str, names: list[str], tmp_path: Path
) -> None:
    """A file's colours and a frame's are the same; where their order is mistaken, red is blue."""
    still, clip = tmp_path / "still.png", tmp_path / "clip.avi"
    cv2.imwrite(str(still), two_discs())
    writer = cv2.VideoWriter(str(clip), cv2.VideoWriter.fourcc(*"FFV1"), 25, (160, 120))
    for _ in range(3):
        writer.write(two_discs())
    writer.release()
    detector = SAMDetect(segmenter="naive", embedder="average", color_order=color_order)
    for label, point_xy in (("red", RED_XY), ("blue", BLUE_XY)):
        mask = cv2.circle(np.zeros((120, 160), np.uint8), point_xy, SIDE, 1, -1)
        detector.add_examples_from_file(str(still), mask.astype(bool), label)
    capture, frames = cv2.VideoCapture(str(clip)), 0
    while True:
        there, frame = capture.read()
        if not there:
            break
        frames += 1
        results = detector.detect(frame)
        assert [label_at(results, xy) for xy in (RED_XY, BLUE_XY)] == names
        drawn = detector.visualize(frame, results)
        assert (drawn[:5] == frame[:5]).all(), "what is drawn into it is in the same order"
    capture.release()
    assert frames == 3


def label_at(results: Detections, point_xy: tuple[int, int]) -> str | None:
    x, y = point_xy
    (found,) = [d for d in results if d["mask"][y, x] and d["label"]]
    return found["label"]
