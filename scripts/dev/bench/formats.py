"""The suite ``formats``: annotations of very many objects, written and read.

``ours`` goes from masks to a file and back to masks, by each format. The reference is what a user
would write with scikit-image and roifile: contours, ``roiwrite``, ``roiread`` and ``polygon``.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import roifile
from skimage.draw import polygon
from skimage.measure import find_contours

from sam_detect.errors import ConfigError
from sam_detect.io.annotation_files import read_annotations
from sam_detect.registry import load_class
from sam_detect.types import Classification, Detections, Frame, Masks
from scripts.dev.bench.measurements import Measurements, Trial
from scripts.dev.bench.suites import Options

OBJECTS = 2_000
LARGEST = 1_000_000
SPACE = 20
FILES = {
    "imagej": "found.zip", "geojson": "found.geojson", "labelme": "found.json",
    "labelmap": "found.tif", "nimbus": "found.nimbus.json", "coco": "found.coco.json",
}  # fmt: skip
PICTURE = "drawn.png"


def run(measurements: Measurements, options: Options) -> None:
    """Each format in turn with the reference, for each number of objects."""
    for size in options.sizes:
        if not 1 <= size <= LARGEST:
            raise ConfigError(f"a size must be from 1 to {LARGEST} objects, got {size}")
    for size in options.sizes or (OBJECTS,):
        detections = drawn(size)
        with tempfile.TemporaryDirectory() as folder:
            reference = Trial("roifile", _by_roifile(detections, Path(folder) / "reference.zip"))
            trials = [Trial(n, _by_format(n, detections, Path(folder) / FILES[n])) for n in FILES]
            measurements.announce(f"{size} objects")
            other, *series = measurements.interleave([reference, *trials])
        for name, each in zip(FILES, series, strict=True):
            measurements.stages[f"{name}_of_{size}"] = each.to_dict()
            measurements.add_pair(f"{name}_of_{size}", each, other)


def drawn(count: int) -> Detections:
    """So many ellipses that do not touch, the same each time."""
    side, random = int(np.ceil(count**0.5)), np.random.default_rng(0)
    y, x = np.mgrid[-8:9, -8:9]
    boxes, crops = [], []
    for number in range(count):
        (long, short), turn = random.uniform(4, 8, 2), random.uniform(0, np.pi)
        along, across = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
        mask = (along / long) ** 2 + (across / short) ** 2 <= 1
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        top, left = rows[0], columns[0]
        bottom, right = rows[-1] + 1, columns[-1] + 1
        x0, y0 = SPACE * (number % side) + 1, SPACE * (number // side) + 1
        boxes.append((x0 + left, y0 + top, x0 + right, y0 + bottom))
        crops.append(np.ascontiguousarray(mask[top:bottom, left:right]))
    size_hw = (SPACE * side, SPACE * side)
    masks = Masks.from_crops(size_hw=size_hw, boxes_xyxy=boxes, crops=crops)
    return Detections(PICTURE, masks, (Classification("ellipse", "ellipse", 1.0),) * count)


def _by_format(name: str, detections: Detections, file: Path) -> Callable[[None], None]:
    frame = Frame(np.zeros((*detections.size_hw, 3), np.uint8), PICTURE)

    def there_and_back(_: None) -> None:
        sink = load_class("format", name)(file)
        sink.write(frame, detections)
        sink.close()
        [found], _problems = read_annotations(file, [PICTURE])
        _require(len(detections), [each.crop(detections.size_hw) for each in found.outlines])

    return there_and_back


def _by_roifile(detections: Detections, file: Path) -> Callable[[None], None]:
    def there_and_back(_: None) -> None:
        rois = []
        for crop, box in zip(detections.masks.crops(), detections.boxes_xyxy, strict=True):
            [contour] = find_contours(np.pad(crop, 1).astype(float), 0.5)
            rois.append(roifile.ImagejRoi.frompoints(contour[:, ::-1] - 0.5 + box[:2]))
        roifile.roiwrite(file, rois, mode="w")
        found = []
        read: Any = roifile.roiread(file)
        for roi in read:
            points = roi.coordinates()
            found.append(polygon(*(points - points.min(axis=0) - 0.5).T[::-1]))
        _require(len(detections), found)

    return there_and_back


def _require(count: int, found: list[object]) -> None:
    if len(found) != count:
        raise ConfigError(f"{len(found)} of {count} objects came back")
