"""Pictures of any size on the command line: each object once, in little memory."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli_harness import Measured, measured

from sam_detect import SAMDetect, scratch
from sam_detect.bench import size
from sam_detect.embedding import _pyramid
from sam_detect.features import extraction
from sam_detect.masks import IntArray
from sam_detect.segmentation import NaiveSegmenter
from sam_detect.sources import decoding, tiff
from sam_detect.types import Classification, Detections, Masks
from sam_detect.vector_store import MemoryVectorStore

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


def mapped_mb() -> float:
    """Megabytes of scratch files that this process has resident."""
    total, inside = 0.0, False
    for line in Path("/proc/self/smaps").read_text(encoding="utf-8").splitlines():
        if inside and line.startswith("Rss:"):
            total += int(line.split()[1]) / 1024
            inside = False
        inside |= line.endswith("(deleted)")
    return total


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="needs Linux' smaps")
def test_only_the_windows_in_work_are_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 6.8 MB of pixels, while they are proposed and described."""
    for module in (decoding, tiff):
        monkeypatch.setattr(module, "LARGE", 100_000)
    for module in (scratch, tiff):
        monkeypatch.setattr(module, "ROWS_BYTES", 1_000_000)
    resident: list[float] = []

    def watched(original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            resident.append(mapped_mb())
            return original(*arguments, **options)

        return call

    monkeypatch.setattr(NaiveSegmenter, "segment", watched(NaiveSegmenter.segment))
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
