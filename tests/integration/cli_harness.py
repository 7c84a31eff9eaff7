"""Runs the command line, in this process or as a real one, on pictures a person can check."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from sam_detect.cli.app import run as run_cli

RADIUS = 20
DISCS = [(40, 40), (120, 50), (210, 40), (60, 150), (230, 150)]
SQUARES = [(140, 140)]
GROUND, DISC, SQUARE = (228, 226, 220), (60, 40, 120), (40, 120, 60)


@dataclass(frozen=True)
class Ran:
    """How a command line ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def errors(self) -> list[str]:
        return [line for line in self.err.splitlines() if line.startswith("error: ")]

    def failed(self, *words: str, code: int) -> str:
        """The one line that says what was wrong; fails the test unless all of it is as promised."""
        assert "Traceback" not in self.err, self.err
        assert self.code == code, (self.code, self.out, self.err)
        assert len(self.errors) == 1, self.err
        line = self.errors[0]
        for word in words:
            assert word in line, (word, line)
        return line

    def worked(self) -> Ran:
        assert self.code == 0, (self.code, self.err)
        assert not self.errors
        return self


Command = Callable[..., Ran]


def in_this_process(capfd: pytest.CaptureFixture[str]) -> Command:
    """A function that runs one command line here: quick, and as the real command does."""

    def command(*arguments: str | Path) -> Ran:
        capfd.readouterr()
        code = run_cli([str(each) for each in arguments])
        out, err = capfd.readouterr()
        return Ran(code, out, err)

    return command


def as_a_process(
    *arguments: str | Path,
    stdin: bytes | None = b"",
    env: dict[str, str | None] | None = None,
    cwd: Path | None = None,
    shell: str = "",
    timeout: float = 60,
    module: str = "sam_detect",
) -> Ran:
    """Runs the real command.

    Args:
        env: variables to set, or (None) to take away.
        shell: a shell line instead of arguments, in which ``$SAM`` is the command.
        module: what Python runs as the command.
    """
    variables: dict[str, str | None] = {**os.environ, **(env or {})}
    given = {name: value for name, value in variables.items() if value is not None}
    line: Sequence[str] = [sys.executable, "-m", module, *map(str, arguments)]
    if shell:
        given["SAM"] = f"{sys.executable} -m {module}"
        line = ["bash", "-c", shell]
    ran = subprocess.run(
        line, input=stdin, capture_output=True, env=given, cwd=cwd, timeout=timeout, check=False
    )
    return Ran(
        ran.returncode, ran.stdout.decode(errors="replace"), ran.stderr.decode(errors="replace")
    )


@dataclass(frozen=True)
class Measured(Ran):
    """How a real command ended, how long it took and how much memory it had at most."""

    seconds: float = 0.0
    peak_mb: float = 0.0

    def within(self, *, seconds: float = 10, peak_mb: float = 500) -> Measured:
        """Fails the test where it took more than is promised for hostile input."""
        assert self.seconds < seconds, (self.seconds, self.err)
        assert self.peak_mb < peak_mb, (self.peak_mb, self.err)
        return self


MEASURING = """
import os, sys
child = os.fork()
if not child:
    os.execv(sys.argv[1], sys.argv[1:])
_, status, used = os.wait4(child, 0)
with open(os.environ["MEASURING_REPORT"], "w") as report:
    print(os.waitstatus_to_exitcode(status), used.ru_maxrss, file=report)
"""
"""A process of its own between: what a child inherits of a large parent counts as its peak."""


def measured(
    *arguments: str | Path,
    env: dict[str, str] | None = None,
    before: Callable[[], None] | None = None,
    timeout: float = 60,
) -> Measured:
    """Runs the real command and measures it.

    Args:
        before: runs in the new process before the command: other limits, another user.
    """
    line = [sys.executable, "-S", "-c", MEASURING, sys.executable, "-m", "sam_detect"]
    with (
        tempfile.TemporaryFile() as out,
        tempfile.TemporaryFile() as err,
        tempfile.NamedTemporaryFile() as report,
    ):
        given = {**os.environ, **(env or {}), "MEASURING_REPORT": report.name}
        began = time.monotonic()
        process = subprocess.Popen(
            [*line, *map(str, arguments)], stdin=subprocess.DEVNULL, stdout=out, stderr=err,
            env=given, start_new_session=True, preexec_fn=before,  # noqa: PLW1509 - sets limits
        )  # fmt: skip
        killer = threading.Timer(timeout, os.killpg, (process.pid, signal.SIGKILL))
        killer.start()
        process.wait()
        killer.cancel()
        seconds = time.monotonic() - began
        out.seek(0)
        err.seek(0)
        texts = [file.read().decode(errors="replace") for file in (out, err)]
        code, peak = (int(part) for part in (report.read() or b"-9 0").split())
    unit = 1 << 20 if sys.platform == "darwin" else 1 << 10
    return Measured(code, *texts, seconds, peak / unit)


def drawn(
    discs: Sequence[tuple[int, int]] = DISCS,
    squares: Sequence[tuple[int, int]] = SQUARES,
    *,
    size_hw: tuple[int, int] = (200, 280),
    seed: int = 0,
) -> npt.NDArray[np.uint8]:
    """``(H, W, 3)`` RGB: dark discs and squares on a light, faintly grained ground."""
    image = np.full((*size_hw, 3), GROUND, np.uint8)
    for x, y in discs:
        cv2.circle(image, (x, y), RADIUS, DISC, -1, cv2.LINE_AA)
    for x, y in squares:
        cv2.rectangle(image, (x - 18, y - 18), (x + 18, y + 18), SQUARE, -1)
    grain = np.random.default_rng(seed).integers(-3, 4, image.shape)
    return np.clip(image + grain, 0, 255).astype(np.uint8)


def box_around(x: int, y: int) -> str:
    return f"{x - RADIUS},{y - RADIUS},{2 * RADIUS + 1},{2 * RADIUS + 1}"


def box_of_square(x: int, y: int) -> str:
    return f"{x - 18},{y - 18},37,37"


def saved(path: Path, image: npt.NDArray[np.uint8] | None = None, **options: Any) -> Path:
    """The picture as a file; the drawn one unless another is given."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(drawn() if image is None else image).save(path, **options)
    return path


def at(detections: list[dict[str, Any]], x: int, y: int) -> dict[str, Any]:
    """The named detection whose box has the point in its middle, else the best unknown one."""
    near = [
        each
        for each in detections
        if abs(each["bbox"][0] + each["bbox"][2] / 2 - x) < 8
        and abs(each["bbox"][1] + each["bbox"][3] / 2 - y) < 8
    ]
    assert near, f"nothing was found at {x},{y}"
    return min(near, key=lambda each: (each["label"] is None, -each["confidence"]))
