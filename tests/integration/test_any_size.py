"""Pictures of any size on the command line: each object once, in little memory."""

from __future__ import annotations

import json
import mmap
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tifffile
from cli_harness import Measured, in_this_process, measured, saved
from PIL import Image

from sam_detect import SAMDetect
from sam_detect.embedding import _pyramid
from sam_detect.features import extraction
from sam_detect.io import decoding, pixels, tiff
from sam_detect.segmentation import NaiveSegmenter
from sam_detect.types import Classification, Detections, Masks, scratch
from sam_detect.types.masks import IntArray
from sam_detect.vector_store import MemoryVectorStore
from scripts.dev.bench import size

LEARNT = 5


def detected(folder: Path, side: int, *, timeout: float) -> tuple[Measured, Measured, IntArray]:
    """Learning five discs of a drawn picture and detecting the others in it, and where all are."""
    picture = folder / "scan.tif"
    places = size.draw(picture, side, seed=3)
    boxes = [("--box", ",".join(map(str, size.box_of(place)))) for place in places[:LEARNT]]
    options = ("--label", "disc", "--segmenter", "naive", "--embedder", "lite")
    env = {"SAM_DETECT_HOME": str(folder / "home")}
    shown = [each for box in boxes for each in box]
    learnt = measured("learn", picture, *shown, *options, env=env, timeout=timeout).worked()
    found = measured("detect", picture, "--json", env=env, timeout=timeout).worked()
    picture.unlink()
    return learnt, found, places


def assert_each_once(found: Measured, places: IntArray, side: int) -> None:
    named = [each for each in json.loads(found.out)["detections"] if each["label"] == "disc"]
    boxes = np.array([each["bbox"] for each in named], np.int64).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    masks = Masks.from_crops(
        size_hw=(side, side),
        boxes_xyxy=boxes,
        crops=[np.ones((y1 - y0, x1 - x0), np.bool_) for x0, y0, x1, y1 in boxes.tolist()],
    )
    labels = (Classification("disc", "disc", 1.0),) * len(masks)
    once, false = size.counted(Detections("scan.tif", masks, labels, {}), places)
    assert (once, false) == (len(places), 0)


@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.parametrize(("side", "most_mb"), [(6000, 900), (20_000, 2000)])
def test_each_object_is_found_once_in_little_memory(
    tmp_path: Path, side: int, most_mb: float
) -> None:
    learnt, found, places = detected(tmp_path, side, timeout=3600)
    print(f"learn {learnt.seconds:.0f} s, {learnt.peak_mb:.0f} MB; "
          f"detect {found.seconds:.0f} s, {found.peak_mb:.0f} MB")  # fmt: skip
    assert_each_once(found, places, side)
    assert max(learnt.peak_mb, found.peak_mb) < most_mb


PAGEMAP = Path("/proc/self/pagemap")


def resident_mb(array: npt.NDArray[Any]) -> float:
    """Megabytes of an array that this process has in memory (proc_pid_pagemap(5): bit 63)."""
    with PAGEMAP.open("rb") as file:
        file.seek(array.ctypes.data // mmap.PAGESIZE * 8)
        entries = np.frombuffer(file.read(array.nbytes // mmap.PAGESIZE * 8), np.uint64)
    return float((entries >> np.uint64(63)).sum()) * mmap.PAGESIZE / 1e6


@pytest.mark.skipif(not PAGEMAP.exists(), reason="needs Linux' pagemap")
def test_only_the_windows_in_work_are_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 6.8 MB of pixels, while they are proposed and described."""
    for module in (decoding, tiff):
        monkeypatch.setattr(module, "LARGE", 100_000)
    for module in (scratch, tiff):
        monkeypatch.setattr(module, "ROWS_BYTES", 1_000_000)
    arrays: list[npt.NDArray[Any]] = []
    resident: list[float] = []

    def kept(*arguments: Any) -> npt.NDArray[Any]:
        arrays.append(scratch.scratch(*arguments))
        return arrays[-1]

    def watched(original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            resident.append(sum(map(resident_mb, arrays)))
            return original(*arguments, **options)

        return call

    monkeypatch.setattr(tiff, "scratch", kept)
    monkeypatch.setattr(pixels, "scratch", kept)
    monkeypatch.setattr(size, "TILE", 128)
    monkeypatch.setattr(NaiveSegmenter, "propose", watched(NaiveSegmenter.propose))
    monkeypatch.setattr(_pyramid, "normalised", watched(_pyramid.normalised))
    monkeypatch.setattr(extraction.context, "cut", watched(extraction.context.cut))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    picture = tmp_path / "scan.tif"
    places = size.draw(picture, 1500, seed=3)
    detector = SAMDetect(
        segmenter="naive", embedder="lite", vector_store=MemoryVectorStore(), color_order="rgb",
        tile=500,
    )  # fmt: skip
    size.learn(detector, picture, places)
    found = detector.detect(picture)
    assert size.counted(found, places) == (len(places), 0)
    assert len(resident) > 100
    assert 0 < max(resident) < 4, "a row of windows"


# -- bad input -----------------------------------------------------------------------------------


def even(side: int) -> npt.NDArray[np.uint8]:
    """A grey picture with one dark square."""
    image = np.full((side, side), 200, np.uint8)
    image[100:140, 100:140] = 20
    return image


TRUNCATED: dict[str, dict[str, Any]] = {
    "tiles": {"tile": (256, 256), "compression": "zlib"},
    "strips": {"rowsperstrip": 16},
    "one strip": {"rowsperstrip": 10_000},
    "LZW": {},
}


@pytest.mark.parametrize("form", TRUNCATED)
def test_a_truncated_tiff_of_10_000_pixels_is_one_line(tmp_path: Path, form: str) -> None:
    whole, cut = tmp_path / "whole.tif", tmp_path / "cut.tif"
    if form == "LZW":  # Pillow's own way to fail
        Image.fromarray(even(10_000)).save(whole, compression="tiff_lzw")
    else:
        tifffile.imwrite(whole, even(10_000), photometric="minisblack", **TRUNCATED[form])
    with open(whole, "r+b") as file:
        file.truncate(whole.stat().st_size * 6 // 10)
    whole.rename(cut)
    env = {"SAM_DETECT_HOME": str(tmp_path / "home")}
    ran = measured("detect", cut, "--segmenter", "naive", "--json", env=env)
    ran.within(seconds=20, peak_mb=600).failed("cut.tif' is damaged or cut off", code=1)
    assert ran.err.count("error:") == 1
    assert re.search(r"cut off \(.*[a-z]+.*\); copy or export it again", ran.err)
    cut.unlink()


def test_very_many_tiles_are_read(tmp_path: Path) -> None:
    """160,000 tiles of 16 pixels."""
    picture = tmp_path / "tiles.tif"
    tifffile.imwrite(picture, even(6400), photometric="minisblack", tile=(16, 16))
    env = {"SAM_DETECT_HOME": str(tmp_path / "home")}
    line = ("--label", "square", "--box", "100,100,40,40", "--segmenter", "naive")
    ran = measured("learn", picture, *line, "--embedder", "average", env=env, timeout=90).worked()
    ran.within(seconds=60, peak_mb=600)
    picture.unlink()


def test_no_room_for_the_pixels_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    picture = tmp_path / "scan.tif"
    tifffile.imwrite(picture, even(1000), photometric="minisblack", tile=(64, 64))
    monkeypatch.setenv("SAM_DETECT_HOME", str(tmp_path / "home"))
    for module in (decoding, tiff):
        monkeypatch.setattr(module, "LARGE", 100_000)
    left = scratch.shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(scratch.shutil, "disk_usage", lambda _: left)
    ran = in_this_process(capfd)("detect", picture, "--segmenter", "naive", "--json")
    ran.failed("needs 0.0 GB in", "0.0 GB left", "TMPDIR", code=1)
    assert ran.err.count("error:") == 1


@pytest.mark.parametrize("size_hw", [(1, 40_000), (40_000, 1), (1, 1)])
def test_a_picture_of_one_pixel_height_has_no_objects(
    size_hw: tuple[int, int], tmp_path: Path, capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("SAM_DETECT_HOME", str(tmp_path / "home"))
    sam, row = in_this_process(capfd), tmp_path / "row.tif"
    saved(tmp_path / "whole.png", np.repeat(even(300)[:, :, None], 3, axis=2))
    learnt = ("--label", "square", "--box", "100,100,40,40", "--segmenter", "naive")
    sam("learn", tmp_path / "whole.png", *learnt, "--embedder", "average").worked()
    noise = np.random.default_rng(0).integers(0, 255, size_hw).astype(np.uint8)
    tifffile.imwrite(row, noise, photometric="minisblack")
    for tile in ((), ("--tile", "64")):
        [found] = sam("detect", row, *tile, "--json", "--segmenter", "naive").worked().json
        assert found["detections"] == []


def test_windows_smaller_than_the_object_are_larger_and_find_it_whole(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SAM_DETECT_HOME", str(tmp_path / "home"))
    sam, picture = in_this_process(capfd), np.full((500, 500, 3), 210, np.uint8)
    picture[100:300, 150:390] = (90, 60, 30)
    first, second = saved(tmp_path / "a.png", picture), tmp_path / "b.png"
    saved(second, np.ascontiguousarray(picture[::-1]))
    line = ("--label", "brick", "--box", "150,100,240,200", "--segmenter", "naive")
    sam("learn", first, *line, "--embedder", "average").worked()
    ran = sam("detect", second, "--tile", "64", "--json").worked()
    assert "b.png: windows of 64 pixels (tile) are too small for the smallest example (2" in ran.err
    assert ran.err.count("warning") == 1
    [found] = ran.json
    [brick] = [each for each in found["detections"] if each["label"] == "brick"]
    assert np.abs(np.array(brick["bbox"]) - (150, 200, 240, 200)).max() <= 4
