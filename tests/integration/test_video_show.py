"""``sam-detect video --show`` on a real screen, with a real keyboard."""

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


def ended(running: subprocess.Popen[str], out: Path) -> tuple[int, str]:
    """How it ended, soon and with outputs that agree."""
    began = time.monotonic()
    _, err = running.communicate(timeout=WAIT_S)
    assert time.monotonic() - began < STOP_S
    assert "Traceback" not in err, err
    assert len(read_pictures(out / "out.mp4")) == len(lines(out))
    return running.returncode, err


def test_closing_the_window_ends_it(on_screen: Screen, clip: Path, tmp_path: Path) -> None:
    with shown(on_screen, clip, tmp_path) as running:
        window = on_screen.window("sam-detect")
        until(lambda: len(lines(tmp_path)) > 20, running)  # the window has taken its size by now
        width, height = on_screen.size(window)
        on_screen.resize(window, 2 * width, 2 * height)
        until(lambda: on_screen.size(window) == (2 * width, 2 * height), running)
        on_screen.ask_to_close(window)
        code, err = ended(running, tmp_path)
    assert code == 0, err


def test_q_ends_it(on_screen: Screen, clip: Path, tmp_path: Path) -> None:
    with shown(on_screen, clip, tmp_path) as running:
        on_screen.window("sam-detect")
        until(lambda: len(lines(tmp_path)) > 20, running)
        x, y = disc_xy(0)
        on_screen.click(x * SCALE, y * SCALE)  # gives the window the keys, and does nothing else
        on_screen.type("q")
        code, err = ended(running, tmp_path)
    assert code == 0, err


def test_ctrl_c(on_screen: Screen, clip: Path, tmp_path: Path) -> None:
    with shown(on_screen, clip, tmp_path) as running:
        on_screen.window("sam-detect")
        until(lambda: len(lines(tmp_path)) > 20, running)
        running.send_signal(signal.SIGINT)
        code, err = ended(running, tmp_path)
    assert code == 130, err
    assert "stopped" in err
