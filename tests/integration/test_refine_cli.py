"""``sam-detect refine``: coarse outlines in, those of the objects out."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli_harness import Command, in_this_process
from PIL import Image

CENTRES = [(50, 50), (130, 60), (70, 130)]


@pytest.fixture
def command(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Command:
    monkeypatch.setenv("SAM_DETECT_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    image = np.full((190, 190, 3), (30, 32, 34), np.float64)
    y, x = np.mgrid[:190, :190]
    for cx, cy in CENTRES:
        image[(x - cx) ** 2 + (y - cy) ** 2 <= 20**2] = (190, 180, 60)
    image += np.random.default_rng(0).normal(0, 4, image.shape)
    Image.fromarray(np.clip(image, 0, 255).astype(np.uint8)).save("cells.png")
    coco("coarse.json", 25)
    coco("truth.json", 20.5)
    return in_this_process(capfd)


def ring(centre: tuple[int, int], radius: float) -> list[float]:
    turn = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    x, y = centre[0] + 0.5 + radius * np.cos(turn), centre[1] + 0.5 + radius * np.sin(turn)
    return [float(v) for v in np.stack([x, y], axis=1).ravel()]


def coco(path: str, radius: float, *more: dict[str, Any]) -> None:
    rows = [
        {"id": 70 + n, "image_id": 1, "category_id": 4, "note": "mine",
         "segmentation": [ring(each, radius)]}
        for n, each in enumerate(CENTRES)
    ]  # fmt: skip
    Path(path).write_text(
        json.dumps({
            "info": {"by": "me"}, "images": [{"id": 1, "file_name": "cells.png"}],
            "categories": [{"id": 4, "name": "cell"}], "annotations": [*rows, *more],
        })
    )  # fmt: skip


def test_outlines_fit_and_everything_else_is_kept(command: Command) -> None:
    done = command("refine", "coarse.json", "--images", "cells.png", "--output", "fine.json",
                   "--segmenter", "naive", "--truth", "truth.json", "--json")  # fmt: skip
    assert done.code == 0, done.err
    said = json.loads(done.out)
    assert (said["refined"], said["kept"], said["matched"]) == (3, 0, 3)
    assert said["mean_iou_before"] < 0.75
    assert said["mean_iou_after"] > 0.95
    fine = json.loads(Path("fine.json").read_text())
    assert fine["info"] == {"by": "me"}
    assert "refined_from" not in fine["annotations"][0], "its id is the same"
    assert [(r["id"], r["note"], r["refined_by"]) for r in fine["annotations"]] == [
        (70, "mine", "naive"), (71, "mine", "naive"), (72, "mine", "naive")
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("segmentation", "reason"),
    [
        ([500, 500, 520, 500, 520, 520], "no pixel inside the picture"),
        ([10, 10, 30, 10, 50, 10], "has no area"),
        ([100, 100, 140, 140, 140, 100, 100, 150], "crosses itself"),
    ],
)
def test_degenerate_annotations_are_kept_and_counted(
    command: Command, segmentation: list[float], reason: str
) -> None:
    row = {"id": 9, "image_id": 1, "category_id": 4, "segmentation": [segmentation]}
    coco("bad.json", 25, row)
    done = command("refine", "bad.json", "--images", "cells.png", "--output", "fine.json",
                   "--segmenter", "naive")  # fmt: skip
    assert done.code == 0
    assert reason in done.err
    assert "refined 3 of 4 annotations, 1 kept as they were" in done.out
    assert json.loads(Path("fine.json").read_text())["annotations"][3] == row


def test_objects_that_vanish_under_padding_are_kept(command: Command) -> None:
    done = command("refine", "coarse.json", "--images", "cells.png", "--replace",
                   "--segmenter", "naive", "--padding", "-20")  # fmt: skip
    assert done.code == 0
    assert done.err.count("nothing is left of it") == 3


def test_replacing_keeps_the_old_file(command: Command) -> None:
    old = Path("coarse.json").read_bytes()
    for _ in range(2):
        done = command("refine", "coarse.json", "--images", "cells.png", "--replace",
                       "--segmenter", "naive", "--output-tag", "nucleus")  # fmt: skip
        assert done.code == 0, done.err
    assert Path("coarse.json.bak").read_bytes() == old
    assert Path("coarse.json.bak2").exists()
    new = json.loads(Path("coarse.json").read_text())
    assert {row["category_id"] for row in new["annotations"]} == {5}
    assert new["categories"][1] == {"id": 5, "name": "nucleus"}


@pytest.mark.parametrize("at", [0, 1, 2, 3])
def test_a_killed_replacement_loses_nothing(command: Command, at: int) -> None:
    """Killed at each time that a file is about to appear, or has appeared."""
    old = Path("coarse.json").read_bytes()
    script = f"""
import os, signal
from sam_detect.cli.app import run
replace, calls = os.replace, []
def killing(*names):
    for step in (0, 1):
        if len(calls) == {at}: os.kill(os.getpid(), signal.SIGKILL)
        calls.append(step)
        if step == 0: replace(*names)
os.replace = killing
run(["refine", "coarse.json", "--images", "cells.png", "--replace", "--segmenter", "naive"])
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    now = Path("coarse.json").read_bytes()
    assert len(json.loads(now)["annotations"]) == 3
    assert now == old or Path("coarse.json.bak").read_bytes() == old


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--output", "fine.json", "--tag", "wolf"], "has no annotation with the tag 'wolf'"),
        (["--output", "coarse.json"], "is being read"),
        ([], "--replace"),
        (["--output", "fine.json", "--prompts", "mask"], "needs SAM 2"),
    ],
)
def test_what_cannot_be_done_is_said(command: Command, arguments: list[str], words: str) -> None:
    done = command("refine", "coarse.json", "--images", "cells.png", "--segmenter", "naive",
                   *arguments)  # fmt: skip
    assert done.code != 0
    assert words in done.err
    assert not Path("fine.json").exists()


def test_the_page_runs_as_it_is_written(command: Command) -> None:
    page = Path(__file__).resolve().parents[2] / "docs" / "refine.md"
    text = page.read_text(encoding="utf-8")
    [made, called] = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    [typed] = re.findall(r"```bash\nsam-detect (.*?)\n```", text)
    exec(compile(made, page.name, "exec"), {})
    done = command(*typed.split())
    assert "refined 4 of 4 annotations" in done.out, done.err
    refined = json.loads(Path("fine.json").read_text())["annotations"]
    assert all(0.45 < row["refined_iou"] < 0.8 for row in refined), "much smaller than drawn"
    exec(compile(called, page.name, "exec"), {})
