"""``sam-detect video --show`` on a real screen, with a real mouse and keyboard."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from cli_harness import in_this_process
from screen import Screen, screen
from video_files import SIZE_HW, disc_xy, picture, read_pictures, write_video

pytestmark = pytest.mark.alone  # keys that come while others compute are lost

STOP_S = 2.0
WAIT_S = 20
SCALE = 480 // SIZE_HW[1]
"""How many times the pictures are enlarged at first."""


@pytest.fixture(scope="module")
def on_screen() -> Iterator[Screen]:
    with screen() as made:
        yield made


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A minute of a disc that does not move."""
    return write_video(
        tmp_path_factory.mktemp("clip") / "clip.mp4", (picture(0) for _ in range(1500))
    )


@contextmanager
def shown(on_screen: Screen, clip: Path, out: Path) -> Iterator[subprocess.Popen[str]]:
    """The command under way, with outputs in a folder."""
    line = [sys.executable, "-m", "sam_detect", "video", str(clip), "--show"]
    line += ["--segmenter", "naive", "--embedder", "average"]
    line += ["--output", str(out / "out.mp4"), "--output", str(out / "out.jsonl")]
    running = subprocess.Popen(
        line, cwd=out, env={**os.environ, "DISPLAY": on_screen.name}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        yield running
    finally:
        running.kill()
        running.communicate()


def lines(out: Path) -> list[dict[str, Any]]:
    path = out / "out.jsonl"
    text = path.read_text("utf-8") if path.exists() else ""
    return [json.loads(line) for line in text.splitlines()]


def until(wanted: Callable[[], bool], running: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not wanted():
        assert running.poll() is None, running.communicate()
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.02)


def labels(out: Path) -> set[str]:
    """Of the last frame."""
    return {each["label"] for line in lines(out)[-1:] for each in line["detections"]}


def ended(running: subprocess.Popen[str], out: Path) -> tuple[int, str]:
    """How it ended, soon and with outputs that agree."""
    began = time.monotonic()
    _, err = running.communicate(timeout=WAIT_S)
    assert time.monotonic() - began < STOP_S
    assert "Traceback" not in err, err
    assert len(read_pictures(out / "out.mp4")) == len(lines(out))
    return running.returncode, err


def test_an_object_is_taught_by_a_click_and_closing_the_window_ends_it(
    on_screen: Screen, clip: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with shown(on_screen, clip, tmp_path) as running:
        window = on_screen.window("sam-detect")
        until(lambda: len(lines(tmp_path)) > 20, running)  # the window has taken its size by now
        x, y = disc_xy(0)
        on_screen.click(x * SCALE, y * SCALE)
        # At once, while the disc is outlined: nothing may be lost.
        on_screen.type("nnut 2")
        on_screen.press("Return")
        until(lambda: labels(tmp_path) == {"nut 2"}, running)
        width, height = on_screen.size(window)
        on_screen.resize(window, 2 * width, 2 * height)
        until(lambda: on_screen.size(window) == (2 * width, 2 * height), running)
        time.sleep(0.2)  # until the window has taken it in
        on_screen.click(x * SCALE * 2, y * SCALE * 2)
        on_screen.type("nfig")
        on_screen.press("Return")
        until(lambda: labels(tmp_path) == {"fig"}, running)
        on_screen.type("u")
        until(lambda: labels(tmp_path) == set(), running)
        on_screen.click(x * SCALE * 2, y * SCALE * 2)
        on_screen.type("nleaf")
        on_screen.press("Return")
        on_screen.ask_to_close(window)
        code, err = ended(running, tmp_path)
    assert code == 0, err
    stored = in_this_process(capfd)("library", "show", "--json").json
    assert [each["label"] for each in stored] == ["leaf"], "learnt before it ended"


def test_ctrl_c_while_a_name_is_typed(on_screen: Screen, clip: Path, tmp_path: Path) -> None:
    with shown(on_screen, clip, tmp_path) as running:
        on_screen.window("sam-detect")
        until(lambda: len(lines(tmp_path)) > 20, running)  # the window has taken its size by now
        x, y = disc_xy(0)
        on_screen.click(x * SCALE, y * SCALE)
        on_screen.type("nfig")
        running.send_signal(signal.SIGINT)
        code, err = ended(running, tmp_path)
    assert code == 130, err
    assert "stopped" in err
