"""`evaluate` on maps of classes, and texts over an empty library."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from cli_harness import DISCS, Command, drawn, in_this_process, saved
from PIL import Image


@pytest.fixture
def sam(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Command:
    monkeypatch.chdir(tmp_path)
    return in_this_process(capfd)


def tissue() -> Path:
    """Pictures of discs and squares, and maps in which discs are 2 and squares 18."""
    places = [(40, 40), (200, 60)]
    for name, shift in (("a", 0), ("b", 12)):
        discs = [(x, y + shift) for x, y in DISCS[:3]]
        squares = [(x + shift, 150) for x, _ in places]
        saved(Path(f"tissue/images/{name}.png"), drawn(discs, squares))
        values = np.zeros((200, 280), np.uint8)
        rows, columns = np.mgrid[:200, :280]
        for x, y in discs:
            values[(columns - x) ** 2 + (rows - y) ** 2 <= 400] = 2
        for x, y in squares:
            values[y - 18 : y + 19, x - 18 : x + 19] = 18
        Path("tissue/masks").mkdir(exist_ok=True)
        Image.fromarray(values).save(f"tissue/masks/{name}.png")
    return Path("tissue")


@pytest.mark.parametrize("task", ["semantic", "instance"])
def test_maps_of_classes_need_a_legend(sam: Command, task: str) -> None:
    folder = tissue()
    run = ("evaluate", folder, "--task", task, "--segmenter", "naive", "--embedder", "average",
           "--shots", "1", "--seeds", "0", "--json")  # fmt: skip
    sam(*run).failed("hold classes (2, 18)", "classes.txt", "'VALUE NAME'", code=1)
    (folder / "classes.txt").write_text("2 disc\n18 square\n")
    [found] = sam(*run).worked().json
    assert set(found["per_class"]) == {"disc", "square"}
    assert found["f1"] > 0.9
