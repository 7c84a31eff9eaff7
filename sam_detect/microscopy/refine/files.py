"""A file of annotations, read whole and written with some of its outlines changed."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from sam_detect.errors import ImageError, OutputError
from sam_detect.io import geojson, imagej, label_map, labelme, nimbus
from sam_detect.io.annotation_files import MAGICS, content_of, is_coco, load_annotations
from sam_detect.io.annotation_values import to_json_bytes
from sam_detect.io.coco import load_coco, read_bytes
from sam_detect.io.files import write_atomically
from sam_detect.types import AnnotatedImage, Annotation
from sam_detect.types.annotations import checked_size
from sam_detect.types.masks import crop_to_rle
from sam_detect.types.polygons import polygons_to_crop


class AnnotationFile:
    """Args:
        path: a file in any format that is read and written: COCO, GeoJSON, ImageJ, LabelMe, a label
            map, NimbusImage.

    Attributes:
        images: its pictures; ``path`` is empty. Of COCO the ``id`` of an annotation is the number
            of its row.
        problems: a line for each annotation that cannot be read. COCO's stay in the file.

    Raises:
        ImageError: it cannot be read, or is in no such format.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        data, parsed = content_of(path)
        if path.suffix.lower() == ".gz":
            raise ImageError(f"{path} is packed: unpack it, and refine that")
        self._content = data
        self._coco: dict[str, Any] | None = None
        if is_coco(parsed):
            self._coco = parsed
            self.images, self.problems = self._read_coco(parsed)
        else:
            self.images, self.problems = load_annotations(path, "one", (data, parsed))
            self._require_writable(parsed)
        self._parsed = parsed

    def encode(self, changed: Mapping[int, Annotation]) -> bytes:
        """The content with changed annotations.

        Args:
            changed: by ``id()`` of those of ``images``. Their polygons are new; of COCO the first
                tag is the category.

        Raises:
            OutputError: annotations that could not be read would be lost.
        """
        if self._coco is not None:
            return self._encode_coco(self._coco, changed)
        if self.problems:
            raise OutputError(
                f"{self.path}: {len(self.problems)} annotations cannot be read, and would be lost "
                f"({self.problems[0]}); mend or delete them in the program that wrote them"
            )
        [image] = self.images
        whole = replace(image, outlines=tuple(changed.get(id(o), o) for o in image.outlines))
        if self._content.startswith((imagej.ROI_MAGIC, imagej.ZIP_MAGIC)):
            return imagej.encode(whole)
        if self._parsed is None:
            return label_map.encode(whole, as_png=self._content.startswith(label_map.PNG_MAGIC))
        if geojson.is_geojson(self._parsed):
            return geojson.encode(whole)
        return nimbus.encode(whole) if nimbus.is_nimbus(self._parsed) else labelme.encode(whole)

    def replace(self, content: bytes) -> Path:
        """Puts new content in the place of the file; returns the copy of the old one that was
        written before. Both appear complete or not at all, so that whenever the process is killed
        the annotations are there.

        Raises:
            OutputError: the file changed since it was read, or cannot be written.
        """
        if read_bytes(self.path) != self._content:
            raise OutputError(f"{self.path} was changed by another program meanwhile: run it again")
        number, backup = 1, self.path.with_name(f"{self.path.name}.bak")
        while backup.exists():
            number += 1
            backup = self.path.with_name(f"{self.path.name}.bak{number}")
        write_atomically(backup, lambda file: file.write(self._content))
        write_atomically(self.path, lambda file: file.write(content))
        return backup

    def _read_coco(self, parsed: dict[str, Any]) -> tuple[list[AnnotatedImage], list[str]]:
        rows = parsed.get("annotations")
        numbered = {**parsed, "annotations": [
            {**row, "id": number} if isinstance(row, dict) else row
            for number, row in enumerate(rows)
        ]} if isinstance(rows, list) else parsed  # fmt: skip
        coco = load_coco(self.path, data=numbered)
        images = [
            AnnotatedImage("", str(row["file_name"]), tuple(coco.outlines.get(row["id"], ())),
                           checked_size(row.get("height"), row.get("width")))
            for row in coco.images
        ]  # fmt: skip
        return images, list(coco.problems)

    def _encode_coco(self, parsed: dict[str, Any], changed: Mapping[int, Annotation]) -> bytes:
        new = copy.deepcopy(parsed)
        ids = {str(each["name"]): each["id"] for each in new["categories"] if "name" in each}
        for image in self.images:
            for outline in image.outlines:
                made = changed.get(id(outline))
                if made is None:
                    continue
                row = new["annotations"][outline.id]
                if made.label is not None and made.label != outline.label:
                    if made.label not in ids:
                        numbers = [n for n in ids.values() if isinstance(n, int)]
                        ids[made.label] = max(numbers, default=0) + 1
                        new["categories"].append({"id": ids[made.label], "name": made.label})
                    row["category_id"] = ids[made.label]
                # Read by the number of its row, which is not its id.
                properties = {k: v for k, v in made.properties.items() if k != "refined_from"}
                row |= _coco_outline(made, row) | properties
        return to_json_bytes(new)

    def _require_writable(self, parsed: Any) -> None:
        known = (
            (parsed is None and self._content.startswith(MAGICS))
            or geojson.is_geojson(parsed) or nimbus.is_nimbus(parsed)
            or (isinstance(parsed, dict) and "shapes" in parsed)
        )  # fmt: skip
        if not known or len(self.images) != 1:
            raise ImageError(
                f"{self.path} is in a format that is read only: refine needs COCO, GeoJSON, "
                "ImageJ, LabelMe, a label map or NimbusImage"
            )


def _coco_outline(made: Annotation, row: Mapping[str, Any]) -> dict[str, Any]:
    """COCO's fields of polygons: run lengths where the row had them, or there are holes."""
    size = made.references["size_hw"]
    found = polygons_to_crop(made.polygons, size)
    if found is None:  # checked when it was made
        raise OutputError("a refined object has no pixel")
    (x0, y0, x1, y1), crop = found
    segmentation: Any = [np.round(rings[0], 3).ravel().tolist() for rings in made.polygons]
    if isinstance(row.get("segmentation"), dict) or any(len(each) > 1 for each in made.polygons):
        segmentation = crop_to_rle(crop, (x0, y0, x1, y1), size)
    return {
        "segmentation": segmentation, "bbox": [x0, y0, x1 - x0, y1 - y0],
        "area": int(np.count_nonzero(crop)),
    }  # fmt: skip
