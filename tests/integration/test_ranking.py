"""``detect --rank uncertain``: which pictures to name objects in next, and why."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from cli_harness import DISCS, Command, box_around, drawn, in_this_process, saved


@pytest.fixture
def sam(capfd: pytest.CaptureFixture[str]) -> Command:
    return in_this_process(capfd)


@pytest.fixture
def pictures(sam: Command, tmp_path: Path) -> Path:
    """One that was taught, one with nothing in it, and one whose discs have another colour."""
    folder = tmp_path / "set"
    folder.mkdir()
    known = saved(folder / "a.png")
    empty = np.full_like(drawn(), 228)
    cv2.imwrite(str(folder / "b.png"), empty)
    other = drawn().astype(np.int16)
    cv2.imwrite(str(folder / "c.png"), np.clip(np.add(other, (0, 18, 30)), 0, 255).astype(np.uint8))
    boxes = [word for each in DISCS for word in ("--box", box_around(*each))]
    sam("learn", known, "--label", "disc", *boxes, "--embedder", "appearance").worked()
    return folder


def test_the_least_sure_pictures_come_first_with_their_reason(sam: Command, pictures: Path) -> None:
    rows = sam("detect", pictures, "--rank", "uncertain", "--json").worked().json
    assert {Path(row["image"]).name for row in rows} == {"a.png", "b.png", "c.png"}
    values = [row["uncertainty"] for row in rows]
    assert values == sorted(values, reverse=True)
    assert all(0 <= value <= 1 for value in values)
    by_name = {Path(row["image"]).name: row for row in rows}
    assert by_name["b.png"]["objects"] == 0
    assert by_name["b.png"]["reason"] == "nothing was found"
    assert by_name["c.png"]["uncertainty"] >= by_name["a.png"]["uncertainty"]
    for row in rows:
        assert (f"{row['unsure']} of {row['objects']} objects" in row["reason"]) == (
            row["unsure"] > 0
        )


def test_people_get_a_table_and_bad_pictures_are_named(sam: Command, pictures: Path) -> None:
    (pictures / "d.png").write_bytes(b"no picture")
    ran = sam("detect", pictures, "--rank", "uncertain")
    assert ran.code == 1
    assert "d.png" in ran.err
    lines = [line for line in ran.out.splitlines() if ".png" in line]
    assert len(lines) == 3
    assert "why" in ran.out


@pytest.mark.parametrize("more", [("--output", "x.csv"), ("--explain",), ("--only", "disc"),
                                  ("--unknown",), ("--format", "csv")])  # fmt: skip
def test_it_prints_pictures_and_nothing_else(
    sam: Command, pictures: Path, more: tuple[str, ...]
) -> None:
    sam("detect", pictures, "--rank", "uncertain", *more).failed("--rank prints pictures", code=2)
