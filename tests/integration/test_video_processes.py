"""``sam-detect video`` as a real process: how it stops, and what it leaves behind.

Videos, servers, sockets and signals are real; only what is slow or broken on purpose is made so,
by a fade of the user's own.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from cli_harness import Command, Ran, as_a_process, in_this_process, saved
from live_server import Camera, live, numbered_parts
from model_server import Served, running
from video_files import disc_xy, picture, read_pictures, write_video

STOP_S = 2.0
FADE = '''
import os, time
from concurrent.futures import ThreadPoolExecutor
class Fade:
    """Breaks, or takes long, from its hundredth call on where a file says so."""
    calls = 0
    def apply(self, image, mask, distance_map):
        Fade.calls += 1
        if Fade.calls > 100 and os.path.exists("sleep"):
            open("asleep", "w").close()
            # In a pool, as parts work: Python waits for those at its end.
            ThreadPoolExecutor(1).submit(time.sleep, 60).result()
        if Fade.calls > 100 and os.path.exists("raise"):
            raise RuntimeError("broken on purpose")
        return image
'''


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library that knows the disc, and a video that takes much longer than a test."""
    folder = tmp_path_factory.mktemp("videos")
    (folder / "own.py").write_text(FADE)
    write_video(folder / "long.mp4", 600)
    saved(folder / "disc.png", picture(0))
    x, y = disc_xy(0)
    learnt = as_a_process(
        "learn", "disc.png", "--label", "disc", "--box", f"{x - 14},{y - 14},29,29",
        "--embedder", "average", "--segmenter", "naive", "--fade", "own:Fade",
        cwd=folder, env=_home(folder),
    )  # fmt: skip
    assert learnt.code == 0, learnt.err
    return folder


def _home(folder: Path) -> dict[str, str | None]:
    return {"SAM_DETECT_HOME": str(folder / "home")}


@contextmanager
def video(folder: Path, out: Path, *arguments: str | Path) -> Iterator[subprocess.Popen[str]]:
    """The command under way, with JSON lines on stdout and a video in ``out``."""
    line = [sys.executable, "-m", "sam_detect", "video", *map(str, arguments), "--json"]
    line += ["--fade", "own:Fade", "--every", "3", "--output", str(out / "out.mp4")]
    line += ["--output", str(out / "out.csv")]
    environment = {**os.environ, **_home(folder), "PYTHONPATH": os.pathsep.join(sys.path)}
    if (out / "sleep").exists():
        (out / "own.py").write_text(FADE)
    process = subprocess.Popen(
        line, cwd=out if (out / "own.py").exists() else folder, env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def lines(process: subprocess.Popen[str], count: int) -> list[dict[str, Any]]:
    """The next frames that the command says."""
    assert process.stdout is not None
    found = [json.loads(next_line(process.stdout.fileno()) or "null") for _ in range(count)]
    assert all(found), process.stderr and process.stderr.read()
    return found


def next_line(pipe: int) -> bytes:
    """Read from the pipe itself: ``communicate`` misses what a buffer took beyond the line."""
    line = b""
    while not line.endswith(b"\n"):
        character = os.read(pipe, 1)
        if not character:
            break
        line += character
    return line


def stopped(process: subprocess.Popen[str]) -> Ran:
    """Presses Ctrl-C; what the command says from then on. It must end within two seconds."""
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    took = time.monotonic() - began
    assert took < STOP_S, f"{took:.1f} s, {err}"
    return Ran(process.returncode, out, err)


def assert_kept(ran: Ran, said: list[dict[str, Any]], out: Path) -> None:
    """The outputs are whole: every JSON line is one, and the others agree with these."""
    assert "Traceback" not in ran.err, ran.err
    frames = said + [json.loads(line) for line in ran.out.splitlines()]
    assert [each["frame"] for each in frames] == sorted({each["frame"] for each in frames})
    shown = len(read_pictures(out / "out.mp4"))
    assert shown == len(frames)
    rows = (out / "out.csv").read_text("utf-8").splitlines()[1:]
    assert len(rows) == sum(len(each["detections"]) for each in frames)


@pytest.mark.alone
def test_ctrl_c_in_a_file(folder: Path, tmp_path: Path) -> None:
    with video(folder, tmp_path, folder / "long.mp4") as process:
        said = lines(process, 5)
        ran = stopped(process)
    ran.failed("stopped", code=130)
    assert_kept(ran, said, tmp_path)


@pytest.mark.alone
def test_ctrl_c_in_live_streams(folder: Path, tmp_path: Path) -> None:
    """One goes on, one has fallen silent, of one the server does not answer."""
    cameras = [
        Camera(numbered_parts(900), pace_s=0.03),
        Camera(numbered_parts(20), silent_after=6),
        Camera(numbered_parts(2), silent_after=0),
    ]
    with ExitStack() as stack:
        # Started together: that takes most of the time.
        servers = [stack.enter_context(live(camera)) for camera in cameras]
        outs = [tmp_path / str(number) for number in range(len(cameras))]
        processes = [
            stack.enter_context(video(folder, out, server.url))
            for out, server in zip(outs, servers, strict=True)
        ]
        said = [lines(processes[0], 5), lines(processes[1], 1), []]
        while not cameras[2].connections:
            time.sleep(0.01)
        time.sleep(0.5)
        ended = [stopped(process) for process in processes]
    for ran in ended:
        ran.failed("stopped", code=130)
    for ran, frames, out in [*zip(ended, said, outs, strict=True)][:2]:
        assert_kept(ran, frames, out)


@pytest.mark.alone
def test_ctrl_c_during_a_detection(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "sleep").touch()
    with video(folder, tmp_path, folder / "long.mp4") as process:
        said = lines(process, 1)
        deadline = time.monotonic() + 30
        while not (tmp_path / "asleep").exists():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        ran = stopped(process)
    ran.failed("stopped", code=130)
    assert_kept(ran, said, tmp_path)


@pytest.fixture
def run(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> Command:
    """The same command in this process, to its end."""
    monkeypatch.setenv("SAM_DETECT_HOME", str(folder / "home"))
    monkeypatch.chdir(folder)
    command = in_this_process(capfd)
    rest = ["--json", "--fade", "own:Fade", "--every", "5", "--output", tmp_path / "out.mp4"]
    return lambda *arguments: command("video", *arguments, *rest)


def test_a_raising_detector_ends_the_run(run: Command, folder: Path, tmp_path: Path) -> None:
    if "own" in sys.modules:
        sys.modules["own"].Fade.calls = 0
    (folder / "raise").touch()
    try:
        ran = run(folder / "long.mp4", "--output", tmp_path / "out.csv")
    finally:
        (folder / "raise").unlink()
    ran.failed("broken on purpose", code=1)
    assert len(ran.json) > 5
    assert_kept(ran, [], tmp_path)


def test_a_file_whose_server_breaks_once_is_seen_to_its_end(run: Command, tmp_path: Path) -> None:
    whole = write_video(tmp_path / "v.mp4", 60, container={"movflags": "faststart"}).read_bytes()
    with running() as server:
        server.files["/v.mp4"] = Served(whole, break_after=[len(whole) // 2])
        ran = run(f"{server.url}/v.mp4").worked()
        assert [each.status for each in server.gets] == [200, 206]
    assert [each["frame"] for each in ran.json] == list(range(60))
    assert len([line for line in ran.err.splitlines() if "reconnected to" in line]) == 1
    assert "reconnects 1" in ran.err
    assert len(read_pictures(tmp_path / "out.mp4")) == 60


def test_a_live_stream_that_breaks_once_goes_on(run: Command) -> None:
    camera = Camera(numbered_parts(30), pace_s=0.05, break_before={12})
    with live(camera) as server:
        ran = run(server.url).worked()
    assert len([line for line in ran.err.splitlines() if "reconnected to" in line]) == 1
    times = [each["time_s"] for each in ran.json]
    assert times == sorted(set(times))
    assert ran.json[-1]["frame"] == 29
    assert camera.connections == 2


def test_a_truncated_file_gives_what_it_has(run: Command, tmp_path: Path) -> None:
    whole = write_video(tmp_path / "whole.mkv", 60).read_bytes()
    (tmp_path / "cut.mkv").write_bytes(whole[: len(whole) // 2])
    ran = run(tmp_path / "cut.mkv")
    ran.failed("cut.mkv", "ends early", code=1)
    shown = len(read_pictures(tmp_path / "out.mp4"))
    assert 20 < shown < 40
    assert [each["frame"] for each in ran.json] == list(range(shown))


def test_no_password_is_ever_said(run: Command) -> None:
    with live(Camera(numbered_parts(4), refuse=9, ends=False, break_before={3})) as server:
        address = f"http://joe:geheim@{server.host}/live?pwd=geheim"
        ran = run(address, "--stream-retries", "1", "--debug")
    assert ran.code == 1
    assert "did not come back in 1 try" in ran.err
    assert "geheim" not in ran.out + ran.err
    assert ran.json[0]["video"] == f"http://{server.host}/live?pwd=***"


@pytest.mark.parametrize("source", ["http://127.0.0.1:1/live", "none.mp4", "nothing/*.png", "99"])
def test_what_is_not_there_leaves_an_older_output_alone(
    run: Command, tmp_path: Path, source: str
) -> None:
    (tmp_path / "out.mp4").write_bytes(b"precious")
    run(source).failed(source, code=1)
    assert (tmp_path / "out.mp4").read_bytes() == b"precious"


def test_a_missing_package_is_one_line(folder: Path) -> None:
    packages = ("av", "trackers", "supervision")
    script = (
        "import sys\n"
        "from sam_detect.cli.app import run\n"
        f"for package in {packages!r}:\n"
        "    sys.modules[package] = None\n"
        "    print(run(['video', 'long.mp4', '--fade', 'own:Fade']))\n"
        "    del sys.modules[package]\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=folder, capture_output=True, text=True, timeout=60,
        env={**os.environ, **_home(folder)}, check=True,
    )  # fmt: skip
    assert done.stdout.split() == ["2"] * len(packages)
    errors = [line for line in done.stderr.splitlines() if "error" in line.lower()]
    for package, error in zip(packages, errors, strict=True):
        assert f"a video needs the package {package}: pip install 'sam-detect[video]'" in error
    assert "Traceback" not in done.stderr
