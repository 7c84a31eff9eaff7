"""One labelled example with its provenance, and the plain data it is stored as.

Format 4 of the payload. Whoever changes it raises ``FORMAT_VERSION`` in ``manifest.py`` and adds
a step to ``migrations.py``.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from typing import Any

import cv2
import numpy as np

from sam_detect.errors import LibraryCorruptError, MaskError
from sam_detect.labels import shown_label
from sam_detect.library import checksums, pictures, schema
from sam_detect.library.surroundings import Surroundings
from sam_detect.masks import FloatArray, MaskRLE, encode_crop, rle_to_mask
from sam_detect.types import Crop, ImageRGB, Point

ID_NAMESPACE = uuid.UUID("6d3b1c5e-0f0a-5c55-9a39-5a3d0c6f2c11")
PLAIN_FIELDS = (*checksums.LISTED, "before")
"""Fields of an example that its payload has as they are."""
THUMBNAIL_SIDE = 96


@dataclass(frozen=True, eq=False)
class Example:
    """A labelled object as the library keeps it.

    Attributes:
        id: UUID made of the picture's pixels, the mask and, for a negative, the label.
        label: its name; for a negative, the name it is *not*.
        negative: polarity.
        source: where the picture came from, as it was given.
        bbox: ``[x, y, w, h]`` in pixels of the picture.
        area: pixels of the mask.
        added: when it was learnt, ISO 8601 in UTC.
        segmentation: the full-size mask, COCO RLE.
        crop: the unfaded context crop, from which any embedder can make the vector again.
        vector: ``(D,)`` float32 of length 1, or None where it was not loaded.
        picture: :func:`image_digest` of its picture; empty where it was learnt in format 1.
        surroundings: what was proposed around it; None where nobody looked.
        batch: id of the learning batch it came with; empty where it was learnt before format 4.
        before: the states that this one replaced, as :mod:`~sam_detect.library.history` keeps them.
    """

    id: str
    label: str
    negative: bool
    source: str
    bbox: list[int]
    area: int
    added: str
    segmentation: MaskRLE
    crop: Crop
    vector: FloatArray | None = None
    picture: str = ""
    surroundings: Surroundings | None = None
    batch: str = ""
    before: Sequence[dict[str, Any]] = ()

    def thumbnail(self) -> ImageRGB:
        """``(h, w, 3)`` uint8 picture of the crop, at most 96 pixels a side, for people."""
        image = self.crop.image_rgb
        ratio = THUMBNAIL_SIDE / max(image.shape[:2])
        if ratio >= 1:
            return image
        size = (max(1, round(image.shape[1] * ratio)), max(1, round(image.shape[0] * ratio)))
        return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)

    def to_point(self) -> Point:
        """The point to store, with its checksums."""
        crop = self.crop
        payload = {
            "label": self.label,
            "negative": self.negative,
            "source": self.source,
            "bbox": self.bbox,
            "area": self.area,
            "added": self.added,
            "segmentation": dict(self.segmentation),
            "picture": self.picture,
            "crop_webp": pictures.encode_webp(crop.image_rgb),
            "crop_mask": encode_crop(crop.mask).decode("ascii"),
            "crop_scale": crop.scale,
            "crop_window": list(crop.window_xyxy),
            "surroundings": self.surroundings.to_payload() if self.surroundings else None,
            "batch": self.batch,
            "before": list(self.before),
        }
        return checksums.sealed(Point(id=self.id, vector=self.vector, payload=payload))

    @classmethod
    def from_point(cls, point: Point) -> Example:
        """The example of a stored point; raises ``LibraryCorruptError`` where it is damaged."""
        try:
            return cls._checked(point)
        except (KeyError, TypeError, ValueError, OverflowError, MaskError) as error:
            why = f"it has no {error}" if isinstance(error, KeyError) else str(error)
            raise LibraryCorruptError(f"example {point.id} is damaged: {why}") from error

    @classmethod
    def _checked(cls, point: Point) -> Example:
        data = schema.check_payload(point.payload)
        checksums.check_read(replace(point, payload=data))
        if point.vector is not None:
            schema.check_vectors(point.vector[None], [point.id], len(point.vector))
        image = pictures.decode(data["crop_webp"], "WEBP")
        # Decoded by our own code: pycocotools trusts what it is given, and a file is not ours.
        counts = {"size": list(image.shape[:2]), "counts": data["crop_mask"]}
        x0, y0, x1, y1 = data["crop_window"]
        crop = Crop(
            image_rgb=image,
            mask=rle_to_mask(counts),
            scale=data["crop_scale"],
            window_xyxy=(x0, y0, x1, y1),
        )
        around: Surroundings | None = None
        if data["surroundings"] is not None:
            length = None if point.vector is None else len(point.vector)
            around = Surroundings.from_payload(data["surroundings"], crop, dimension=length)
        same = {name: data[name] for name in PLAIN_FIELDS}
        return cls(id=point.id, crop=crop, vector=point.vector, surroundings=around, **same)


def label_of(point: Point) -> tuple[str, bool]:
    """Normalised label and polarity of a stored point.

    Raises:
        LibraryCorruptError: it has none.
    """
    label, negative = point.payload.get("label"), point.payload.get("negative")
    if not isinstance(label, str) or not label.strip() or not isinstance(negative, bool):
        raise LibraryCorruptError(f"example {point.id} is damaged: it has no label")
    return shown_label(label), negative


def with_label(point: Point, label: str) -> Point:
    """The point under another label; a negative's id goes with it, as in :func:`example_id`."""
    payload = {**point.payload, "label": label}
    if not payload["negative"]:
        return checksums.sealed(Point(point.id, point.vector, payload))
    new_id = (
        example_id(
            digest=payload["picture"],
            mask_rle=payload["segmentation"],
            label=label,
            negative=True,
        )
        if payload.get("picture")
        else str(uuid.uuid5(ID_NAMESPACE, f"{point.id}\nnot {label}"))
    )
    return checksums.sealed(Point(new_id, point.vector, payload))


def image_digest(image_rgb: ImageRGB) -> str:
    """Hash of a picture's pixels and size."""
    digest = hashlib.blake2b(repr(image_rgb.shape).encode(), digest_size=16)
    digest.update(np.ascontiguousarray(image_rgb).data)
    return digest.hexdigest()


def example_id(*, digest: str, mask_rle: MaskRLE, label: str, negative: bool) -> str:
    """The id of an object: the same picture and mask give the same id, wherever the file lies.

    A positive's label is no part of it, so that naming an object again corrects its label.
    An object can be a negative of several labels, so there it is.
    """
    polarity = f"not {label}" if negative else ""
    return str(uuid.uuid5(ID_NAMESPACE, "\n".join([digest, mask_rle["counts"], polarity])))


def now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
