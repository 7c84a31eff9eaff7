"""``detect`` of planes and channels of stacks: a record for each plane."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
from cli_harness import Command, in_this_process

PARTS = ("--segmenter", "naive", "--embedder", "average", "--store", "memory", "--workers", "1")


@pytest.fixture
def stack(tmp_path: Path) -> Path:
    """Five planes, and one disc in each of two channels that moves to the right with Z."""
    values = np.full((5, 2, 96, 96), 200, np.uint16)
    y, x = np.mgrid[:96, :96]
    for z in range(5):
        for channel in range(2):
            disc = (y - 48) ** 2 + (x - 20 - 12 * z) ** 2 < (8 + 4 * channel) ** 2
            values[z, channel][disc] = 3000
    path = tmp_path / "stack.ome.tif"
    tifffile.imwrite(path, values, metadata={"axes": "ZCYX"}, compression="zlib")
    return path


@pytest.fixture
def sam(capfd: pytest.CaptureFixture[str]) -> Command:
    return in_this_process(capfd)


def test_a_record_for_each_plane(sam: Command, stack: Path) -> None:
    result = sam(
        "detect", stack, "--label", "disc", *PARTS, "--z", "2-3, 5", "--channel", "2", "--json"
    )
    found = result.worked().json
    assert [each["location"] for each in found] == [[0, 1, 0], [0, 2, 0], [0, 4, 0]]
    assert {each["image"] for each in found} == {str(stack)}
    for each in found:
        (disc,) = [one for one in each["detections"] if one["label"] == "disc"]
        assert disc["area"] > 1.3 * np.pi * 8**2  # that of the other channel is smaller
        assert abs(disc["bbox"][0] + disc["bbox"][2] / 2 - (20.5 + 12 * each["location"][1])) < 2


def test_without_a_selection_the_first_plane_is_read_and_the_options_are_named(
    sam: Command, stack: Path
) -> None:
    result = sam("detect", stack, "--label", "disc", *PARTS, "--json")
    (found,) = result.worked().json
    assert "location" not in found
    assert "detect reads others with --z, --t, --xy and --channel" in result.err


def test_tables_overlays_and_annotations_tell_planes_apart(
    sam: Command, stack: Path, tmp_path: Path
) -> None:
    table, drawn, outlines = tmp_path / "o.csv", tmp_path / "drawn", tmp_path / "o.geojson"
    for output in (table, drawn, outlines):
        planes = ("--z", "1-2", "--channel", "1")
        sam("detect", stack, "--label", "disc", *PARTS, *planes, "--output", output).worked()
    with table.open() as file:
        discs = [row for row in csv.DictReader(file) if row["label"] == "disc"]
    assert [(row["xy"], row["z"], row["t"]) for row in discs] == [("0", "0", "0"), ("0", "1", "0")]
    assert sorted(each.name for each in drawn.iterdir()) == [
        "stack.ome_xy1_z1_t1.png", "stack.ome_xy1_z2_t1.png",
    ]  # fmt: skip
    features = json.loads(outlines.read_text())["features"]
    assert sorted(each["geometry"]["plane"]["z"] for each in features) == [0, 1]


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (("--z", "4-9"), 1, "asks for plane 9, the file has 5"),
        (("--z", "4-2"), 2, "is no list of planes"),
        (("--channel", "GFP"), 1, "there is no channel 'GFP'"),
        (("--z", "1", "--format", "coco", "--output", "x.json"), 2, "cannot tell the planes"),
        (("--z", "1", "--resume", "--output", "x.csv"), 2, "leave it out for planes"),
    ],
)
def test_what_cannot_be_selected_is_named(
    sam: Command, stack: Path, options: tuple[str, ...], code: int, said: str
) -> None:
    sam("detect", stack, "--label", "disc", *PARTS, *options).failed(said, code=code)


def test_one_plane_is_drawn_into_one_file(sam: Command, stack: Path, tmp_path: Path) -> None:
    output = tmp_path / "one.png"
    options = ("--z", "4", "--output", output)
    sam("detect", stack, "--label", "disc", *PARTS, *options).worked()
    assert output.is_file()


def test_a_damaged_plane_is_named_and_the_others_are_done(sam: Command, tmp_path: Path) -> None:
    path = tmp_path / "stack.ome.tif"
    values = np.random.default_rng(0).integers(0, 40, (3, 64, 64), np.uint8)
    values[:, 20:40, 20:40] = 200
    tifffile.imwrite(path, values, metadata={"axes": "ZYX"}, compression="zlib")
    with tifffile.TiffFile(path) as tiff:
        start = tiff.pages[1].dataoffsets[0]
    with path.open("r+b") as file:
        file.seek(start)
        file.write(bytes(100))
    result = sam("detect", path, "--z", "1-3", "--label", "square", *PARTS, "--json")
    result.failed("(xy 1, z 2, t 1)", "is damaged", code=1)
    assert [each["location"][1] for each in result.json] == [0, 2]
