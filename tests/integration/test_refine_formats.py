"""``sam-detect refine`` on each format that it writes, and on planes of stacks."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from cli_harness import Command, in_this_process
from PIL import Image

from sam_detect.io import geojson, imagej, label_map, labelme, nimbus
from sam_detect.io.annotation_files import load_annotations
from sam_detect.types import AnnotatedImage, Annotation

SIZE_HW = 190, 190
CENTRES = [(50, 50), (130, 60), (70, 130)]
TRUE, DRAWN = 20, 25
TAGS = ["cell", "cell", "other"]

FORMATS: dict[str, tuple[str, Callable[[AnnotatedImage], bytes]]] = {
    "geojson": ("coarse.geojson", geojson.encode),
    "imagej": ("coarse.zip", imagej.encode),
    "labelme": ("coarse.json", labelme.encode),
    "nimbus": ("coarse.json", nimbus.encode),
    "label map as TIFF": ("coarse.tif", label_map.encode),
    "label map as PNG": ("coarse.png", lambda image: label_map.encode(image, as_png=True)),
}
STACKED = [name for name in FORMATS if name not in ("labelme", "label map as PNG")]
"""Those that can say a plane."""


@pytest.fixture
def command(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Command:
    monkeypatch.setenv("SAM_DETECT_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    Image.fromarray(np.repeat(cells(CENTRES)[..., None], 3, axis=2)).save("cells.png")
    return in_this_process(capfd)


def cells(centres: list[tuple[int, int]]) -> np.ndarray:
    image = np.full(SIZE_HW, 32.0)
    y, x = np.mgrid[: SIZE_HW[0], : SIZE_HW[1]]
    for cx, cy in centres:
        image[(x - cx) ** 2 + (y - cy) ** 2 <= TRUE**2] = 180
    image += np.random.default_rng(0).normal(0, 4, image.shape)
    return np.clip(image, 0, 255).astype(np.uint8)


def drawn(number: int, location: tuple[int, int, int] | None = None) -> Annotation:
    turn = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    x, y = (at + 0.5 for at in CENTRES[number])
    ring = np.stack([x + DRAWN * np.cos(turn), y + DRAWN * np.sin(turn)], axis=1)
    return Annotation((TAGS[number],), polygons=((ring,),), location=location, id=f"{number + 1}")


def write(name: str, picture: str, outlines: list[Annotation]) -> Path:
    path, encode = FORMATS[name]
    planes = tuple(sorted({o.location for o in outlines if o.location is not None}))
    references = {"planes": planes} if planes else {}
    image = AnnotatedImage("", picture, tuple(outlines), SIZE_HW, references)
    Path(path).write_bytes(encode(image))
    return Path(path)


def iou_with_truth(outline: Annotation) -> float:
    """The best one with a disc."""
    found = outline.crop(SIZE_HW)
    assert found is not None
    (x0, y0, x1, y1), crop = found
    mask = np.zeros(SIZE_HW, bool)
    mask[y0:y1, x0:x1] = crop
    y, x = np.mgrid[: SIZE_HW[0], : SIZE_HW[1]]
    discs = [(x - cx) ** 2 + (y - cy) ** 2 <= TRUE**2 for cx, cy in CENTRES]
    return max(float((mask & disc).sum() / (mask | disc).sum()) for disc in discs)


@pytest.mark.parametrize("name", FORMATS)
def test_each_format_is_written_back_with_its_other_annotations(
    command: Command, name: str
) -> None:
    file = write(name, "cells.png", [drawn(each) for each in range(3)])
    old = file.read_bytes()
    done = command("refine", file, "--images", "cells.png", "--segmenter", "naive",
                   "--tag", "cell", "--replace")  # fmt: skip
    assert "refined 2 of 2 annotations" in done.worked().out
    assert Path(f"{file}.bak").read_bytes() == old
    [image], problems = load_annotations(file)
    assert problems == []
    assert sorted(each.tags for each in image.outlines) == [("cell",), ("cell",), ("other",)]
    for each in image.outlines:
        ious = iou_with_truth(each)
        assert ious > 0.95 if each.tags == ("cell",) else ious < 0.75, each.tags
    [before], _ = load_annotations(Path(f"{file}.bak"))
    assert [str(each.id) for each in image.outlines] == [str(each.id) for each in before.outlines]


@pytest.mark.parametrize("name", STACKED)
def test_annotations_of_the_selected_planes_are_refined(command: Command, name: str) -> None:
    planes = [cells([CENTRES[0], CENTRES[2]]), cells([]), cells([CENTRES[1]])]
    tifffile.imwrite("stack.tif", np.stack(planes), imagej=True, metadata={"axes": "ZYX"})
    outlines = [drawn(0, (0, 0, 0)), drawn(1, (0, 2, 0)), drawn(2, (0, 0, 0))]
    file = write(name, "stack.tif", outlines)
    given = ("refine", file, "--images", "stack.tif", "--segmenter", "naive", "--replace")
    assert "refined 1 of 1 annotation," in command(*given, "--z", "3").worked().out
    [image], _ = load_annotations(file)
    by_plane = {each.location: iou_with_truth(each) for each in image.outlines}
    assert by_plane[0, 2, 0] > 0.95
    assert by_plane[0, 0, 0] < 0.75, "not asked for"
    assert "refined 3 of 3 annotations" in command(*given).worked().out, "each in its own plane"
    [image], _ = load_annotations(file)
    assert sorted(o.location or () for o in image.outlines) == [(0, 0, 0), (0, 0, 0), (0, 2, 0)]
    assert all(iou_with_truth(each) > 0.95 for each in image.outlines)


def test_an_annotation_in_a_plane_that_is_not_there_is_said(command: Command) -> None:
    planes = np.stack([cells(CENTRES)] * 2)
    tifffile.imwrite("stack.tif", planes, imagej=True, metadata={"axes": "ZYX"})
    file = write("geojson", "stack.tif", [drawn(0, (0, 0, 0)), drawn(1, (0, 7, 0))])
    old = file.read_bytes()
    done = command("refine", file, "--images", "stack.tif", "--segmenter", "naive", "--replace")
    done.failed("xy 1, z 8, t 1", "there is no such plane", code=1)
    assert file.read_bytes() == old


def test_a_format_that_is_only_read_is_said(command: Command) -> None:
    Path("notes.json").write_text(json.dumps({"some": "thing"}))
    done = command("refine", "notes.json", "--images", "cells.png", "--output", "fine.json")
    done.failed("notes.json", code=1)
    assert not Path("fine.json").exists()
