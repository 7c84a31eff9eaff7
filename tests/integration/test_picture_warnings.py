"""What each command says of pictures: which page it read, and that objects are too small."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from cli_harness import DISCS, Command, box_around, drawn, in_this_process, saved

CHANNELS = {"axes": "CYX", "Channel": {"Name": ["nuclei", "lysosomes"]}}


@pytest.fixture
def sam(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Command:
    """The command line in a folder with a stack of two channels."""
    monkeypatch.chdir(tmp_path)
    grey = drawn().mean(axis=2).astype(np.uint8)
    tifffile.imwrite("s.ome.tif", np.stack([grey, 255 - grey]), metadata=CHANNELS)
    return in_this_process(capfd)


def warned_once(err: str) -> bool:
    line = "warning: s.ome.tif: only channel 1 of 2 (nuclei, lysosomes) was read"
    return err.count("was read") == err.count(line) == 1


def test_what_was_read_of_a_stack_is_said(sam: Command, tmp_path: Path) -> None:
    options = ("--segmenter", "naive", "--embedder", "average", "--json")
    box = ("--label", "disc", "--box", box_around(*DISCS[0]))
    assert warned_once(sam("learn", "s.ome.tif", *box, *options).worked().err)
    ran = sam("detect", "s.ome.tif", "s.ome.tif", *options).worked()
    assert warned_once(ran.err)
    assert len(ran.json) == 1, "stdout is JSON only"


def test_masks_that_are_a_stack_are_refused(sam: Command) -> None:
    saved(Path("plain.png"))
    tifffile.imwrite("m.tif", np.ones((2, 200, 280), np.uint8), photometric="minisblack")
    ran = sam("learn", "plain.png", "--label", "disc", "--masks", "m.tif", "--segmenter", "naive")
    ran.failed("m.tif", "only page 1 of 2", code=1)
    assert sam("detect", "plain.png", "--segmenter", "naive", "--json").worked().json


@pytest.mark.parametrize("pages", ["channels", "pages"])
def test_one_mask_is_not_used_for_an_unknown_page_of_a_stack(sam: Command, pages: str) -> None:
    """Whether it belongs to the page that is read is not known."""
    name = "s.ome.tif"
    if pages == "pages":
        name, grey = "z.tif", drawn().mean(axis=2).astype(np.uint8)
        tifffile.imwrite(name, np.stack([grey] * 5), photometric="minisblack")
    masks = np.zeros((200, 280), np.uint8)
    masks[30:42, 30:42] = 255
    saved(Path("mask.png"), masks)
    options = ("--segmenter", "naive", "--embedder", "average")
    ran = sam("learn", name, "--label", "disc", "--masks", "mask.png", *options)
    words = "only page 1 of 5" if pages == "pages" else "only channel 1 of 2"
    ran.failed(name, "is a stack", words, "mask.png", code=1)
    sam("library", "stats").failed("no library", code=2)
    saved(Path("plain.png"))
    sam("learn", "plain.png", "--label", "disc", "--masks", "mask.png", *options).worked()


def test_evaluating_stacks_says_what_was_read(sam: Command) -> None:
    for folder in ("images", "masks"):
        Path("data", folder).mkdir(parents=True)
    grey = drawn().mean(axis=2).astype(np.uint8)
    objects = np.zeros(grey.shape, np.uint16)
    for number, (x, y) in enumerate(DISCS, start=1):
        objects[y - 15 : y + 15, x - 15 : x + 15] = number
    for name in ("a", "b"):
        tifffile.imwrite(
            f"data/images/{name}.tif", np.stack([grey, grey]), photometric="minisblack"
        )
        tifffile.imwrite(f"data/masks/{name}.tif", objects)
    ran = sam("evaluate", "data", "--segmenter", "naive", "--embedder", "average", "--shots", "1",
              "--seeds", "0", "--json").worked()  # fmt: skip
    for name in ("a", "b"):
        assert ran.err.count(f"images/{name}.tif: only page 1 of 2 was read") == 1, ran.err


def test_objects_that_are_too_small_are_said_once_for_each_picture(sam: Command) -> None:
    saved(Path("small.png"))
    large = np.full((2600, 2600, 3), 228, np.uint8)
    saved(Path("large.png"), large)
    options = ("--segmenter", "naive", "--embedder", "average")
    masks = np.zeros((200, 280), np.uint8)
    masks[30:42, 30:42] = 255
    saved(Path("mask.png"), masks)
    sam("learn", "small.png", "--label", "disc", "--masks", "mask.png", *options).worked()
    pictures = ("small.png", "large.png", "large.png")
    assert warnings_in(sam("detect", *pictures, *options, "--json").worked().err) == []
    whole = sam("detect", *pictures, "--tile", "2600", *options, "--json").worked()
    assert warnings_in(whole.err) == [
        "warning: large.png: in a picture of 2600x2600 pixels, objects of fewer than about 271 "
        "pixels (19 across) are lost; the smallest example has 144, and 14.9 in the picture as it "
        "is worked on: enlarge the picture, or take smaller windows (tile)"
    ]
    masks[33:], masks[:, 33:] = 0, 0
    saved(Path("mask.png"), masks)
    sam("learn", "small.png", "--label", "dot", "--masks", "mask.png", *options).worked()
    tiny = sam("detect", *pictures, *options, "--json").worked()
    assert warnings_in(tiny.err) == [
        f"warning: {name}: in {place} pixels, objects of fewer than about {least} pixels (5 "
        "across) are lost; the smallest example has 9, and 9.0 in the picture as it is worked on: "
        "enlarge the picture"
        for name, place, least in (
            ("small.png", "a picture of 280x200", 16),
            ("large.png", "windows of 689x689", 18),
        )
    ]


def test_a_transparent_picture_is_said_to_be_one(sam: Command) -> None:
    saved(Path("clear.png"), np.dstack([drawn(), np.zeros((200, 280), np.uint8)]))
    found = sam("detect", "clear.png", "--segmenter", "naive", "--json").worked()
    assert [line.split(",")[0] for line in warnings_in(found.err)] == [
        "warning: clear.png: the picture is transparent everywhere"
    ]


def warnings_in(err: str) -> list[str]:
    return [line for line in err.splitlines() if "warning" in line.lower()]
