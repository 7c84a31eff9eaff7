"""Detections in other libraries' forms, read back by those libraries."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from pycocotools import mask as coco
from pycocotools.coco import COCO

from sam_detect.errors import ConfigError, UnavailableError
from sam_detect.types import Classification, Detections, Masks

SIZE_HW = (120, 160)


def shapes() -> dict[str, np.ndarray[Any, np.dtype[np.bool_]]]:
    """A disc, a ring (with a hole), two parts, a single pixel, and a shape that fills a corner."""
    canvases = {name: np.zeros(SIZE_HW, np.uint8) for name in ("disc", "ring", "pair", "dot", "at")}
    cv2.circle(canvases["disc"], (30, 30), 20, 1, -1)
    cv2.circle(canvases["ring"], (90, 35), 25, 1, -1)
    cv2.circle(canvases["ring"], (90, 35), 12, 0, -1)
    cv2.ellipse(canvases["pair"], (30, 90), (18, 9), 30, 0, 360, 1, -1)
    cv2.ellipse(canvases["pair"], (75, 95), (9, 18), 10, 0, 360, 1, -1)
    canvases["dot"][60, 5] = 1
    canvases["at"][100:, 140:] = 1
    return {name: canvas.astype(np.bool_) for name, canvas in canvases.items()}


def found(labels: tuple[str | None, ...] = ("nut", "fig", None, "nut", "date")) -> Detections:
    dense = list(shapes().values())[: len(labels)]
    masks = Masks.from_dense(np.stack(dense)) if dense else Masks.empty(SIZE_HW)
    confidences = (0.9, 0.8, 0.3, 0.7, 0.6)[: len(labels)]
    classifications = [
        Classification(label, label or "nut", confidence)
        for label, confidence in zip(labels, confidences, strict=True)
    ]
    return Detections("trays/x.jpg", masks, tuple(classifications))


def iou(first: Any, second: Any) -> float:
    return float(np.count_nonzero(first & second) / np.count_nonzero(first | second))


def test_boxes_and_polygons() -> None:
    detections = found()
    assert detections.xyxy.tolist()[4] == [140, 100, 160, 120]
    assert detections.xyxy.shape == (5, 4)
    polygons = detections.polygons()
    assert [len(parts) for parts in polygons] == [1, 1, 2, 1, 1]
    for one, parts in zip(detections, polygons, strict=True):
        assert np.array_equal(one.polygon, parts[0])
        filled = np.zeros(SIZE_HW, np.uint8)
        flat = [part.ravel().tolist() for part in parts]
        for rle in coco.frPyObjects(flat, *SIZE_HW):
            filled |= coco.decode(rle)
        assert iou(filled.astype(bool), one.mask) > (0.7 if one.label == "fig" else 0.99)
    assert found(())[[]].polygons() == []


def test_coco_is_what_pycocotools_reads_with_polygons_except_for_holes(tmp_path: Path) -> None:
    detections = found()
    data = detections.to_coco()
    file = tmp_path / "coco.json"
    file.write_text(json.dumps(data))
    read = COCO(str(file))
    names = {c["id"]: c["name"] for c in read.loadCats(read.getCatIds())}
    annotations = read.loadAnns(read.getAnnIds())
    assert [names[each["category_id"]] for each in annotations] == [
        "nut", "fig", "unknown", "nut", "date",
    ]  # fmt: skip
    assert [type(each["segmentation"]) for each in annotations] == [list, dict, list, list, list]
    assert len(annotations[2]["segmentation"]) == 2
    for one, annotation in zip(detections, annotations, strict=True):
        assert iou(read.annToMask(annotation).astype(bool), one.mask) >= 0.99
        assert annotation["bbox"] == one.bbox
        assert annotation["area"] == one.area
    assert read.loadImgs([1])[0]["file_name"] == "trays/x.jpg"
    assert detections.known.to_coco()["categories"][-1]["name"] == "nut"
    assert found(()).to_coco()["annotations"] == []


def test_pandas_has_a_row_for_each_detection() -> None:
    frame = found().to_pandas()
    assert frame.columns.tolist() == [
        "image", "label", "confidence", "best_label", "x", "y", "w", "h", "area", "score",
    ]  # fmt: skip
    assert frame.groupby("label").size().to_dict() == {"date": 1, "fig": 1, "nut": 2}
    assert frame.label.isna().sum() == 1
    assert frame.loc[4, ["x", "y", "w", "h", "area"]].tolist() == [140, 100, 20, 20, 400]
    assert len(found(()).to_pandas()) == 0
    assert "label" in found(()).to_pandas().columns


def test_supervision_takes_the_detections() -> None:
    supervision = pytest.importorskip("supervision")
    detections = found()
    theirs = detections.to_supervision()
    assert isinstance(theirs, supervision.Detections)
    assert np.array_equal(theirs.xyxy, detections.xyxy)
    assert theirs.mask[2].sum() == detections.area[2]
    assert theirs.class_id.tolist() == [2, 1, 3, 2, 0]
    assert theirs.data["class_name"].tolist() == ["nut", "fig", "unknown", "nut", "date"]
    assert np.allclose(theirs.confidence, detections.confidence)
    ordered = detections.to_supervision(["nut", "walnut", "date", "fig"])
    assert ordered.class_id.tolist() == [0, 3, 4, 0, 2]
    canvas = np.zeros((*SIZE_HW, 3), np.uint8)
    assert supervision.MaskAnnotator().annotate(canvas.copy(), theirs).any()
    assert len(found(()).to_supervision()) == 0
    with pytest.raises(ConfigError, match="'date' is missing"):
        detections.to_supervision(["nut", "fig"])


@pytest.mark.parametrize("package", ["pandas", "supervision"])
def test_a_package_that_is_missing_is_named_with_its_extra(
    package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UnavailableError, match=r"pip install 'sam-detect\[analysis\]'") as caught:
        getattr(found(), f"to_{package}")()
    assert package in str(caught.value)
