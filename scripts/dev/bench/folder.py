"""The suite ``folder``: ``sam-detect detect FOLDER`` by one process and by as many as there are
cores.

The command is run as users run it, so the start of the processes counts, too. The pictures are
windows of a drawn one. The processor time of all processes is a figure, too: it says what more
workers cost, also on a machine that others use.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from sam_detect.errors import ConfigError, UnavailableError
from sam_detect.pipeline.tiling import usable_cores
from scripts.dev.bench.measurements import Measurements, Trial
from scripts.dev.bench.stages import drawn
from scripts.dev.bench.suites import Options

PICTURES = 24
LARGEST = 10_000
WINDOW_HW = (500, 600)


def run(measurements: Measurements, options: Options) -> None:
    """Both, in turn, for each number of pictures."""
    measurements.workload = f"pictures of {WINDOW_HW[1]}x{WINDOW_HW[0]}"
    for size in options.sizes:
        if not 2 <= size <= LARGEST:
            raise ConfigError(f"a size must be from 2 to {LARGEST} pictures, got {size}")
    for size in options.sizes or (PICTURES,):
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            _measure(measurements, Path(folder), size)


def _measure(measurements: Measurements, folder: Path, size: int) -> None:
    places = draw(folder / "pictures", size)
    _sam_detect(folder, "learn", str(places[0]), "--masks", "auto", "--label", "shape")
    spent_s: dict[int, float] = {}

    def detecting(workers: int) -> Callable[[None], None]:
        def detect(_: None) -> None:
            measurements.announce(f"{size} pictures, workers: {workers}")
            before, output = _processor_s(), folder / f"{workers}.jsonl"
            more = "--workers", str(workers), "--output", str(output)
            _sam_detect(folder, "detect", "pictures", *more)
            spent_s[workers] = _processor_s() - before
            done = len(output.read_text(encoding="utf-8").splitlines())
            if done != size:
                raise UnavailableError(f"{done} of {size} pictures were done")

        return detect

    counts = sorted({1, max(2, usable_cores())})
    trials = [Trial(f"workers {count}", detecting(count)) for count in counts]
    alone, together = measurements.interleave(trials)
    for count, series in zip(counts, (alone, together), strict=True):
        measurements.stages[f"workers_{count}_of_{size}"] = series.to_dict()
        measurements.figures[f"pictures_a_second_{count}_of_{size}"] = round(
            size / series.median_ms * 1000, 3
        )
        measurements.figures[f"processor_s_{count}_of_{size}"] = round(spent_s[count], 2)
    measurements.add_pair(f"workers_of_{size}", together, alone)


def draw(folder: Path, count: int) -> list[Path]:
    """Writes the pictures; they are always the same."""
    folder.mkdir()
    whole, random = drawn(), np.random.default_rng(0)
    height, width = WINDOW_HW
    paths = []
    for number in range(count):
        top, left = (int(random.integers(0, full - side + 1)) for full, side in
                     zip(whole.shape, WINDOW_HW, strict=False))  # fmt: skip
        paths.append(folder / f"{number:05d}.png")
        Image.fromarray(whole[top : top + height, left : left + width]).save(paths[-1])
    return paths


def _sam_detect(folder: Path, *arguments: str) -> None:
    """Runs a command as a user does, with libraries of its own."""
    path = os.pathsep.join(place for place in sys.path if place)
    own = {"SAM_DETECT_HOME": str(folder / "home"), "PYTHONPATH": path}
    words = [sys.executable, "-m", "sam_detect", *arguments, "--segmenter", "naive"]
    done = subprocess.run(
        words, cwd=folder, env={**os.environ, **own}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        said = done.stderr.strip().splitlines()[-1:] or ["it said nothing"]
        raise UnavailableError(f"sam-detect {arguments[0]} failed: {said[0]}")


def _processor_s() -> float:
    """Of all child processes that ended, and of theirs."""
    times = os.times()
    return times.children_user + times.children_system
