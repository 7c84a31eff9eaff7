"""One labelled example with its provenance, and the plain data it is stored as.

Format 1 of the payload. Whoever changes it raises ``FORMAT_VERSION`` in ``manifest.py`` and adds
a migration there.
"""

from __future__ import annotations

import base64
import hashlib
import uuid
from dataclasses import dataclass
from datetime import datetime, timezone

import cv2
import numpy as np

from sam_detect.errors import LibraryCorruptError
from sam_detect.masks import FloatArray, MaskRLE, decode_crop, encode_crop
from sam_detect.types import Crop, ImageRGB, Point

ID_NAMESPACE = uuid.UUID("6d3b1c5e-0f0a-5c55-9a39-5a3d0c6f2c11")
LIGHT_FIELDS = ("label", "negative", "source", "bbox", "area", "added")
"""What listings need; the crop, by far the largest field, stays on disk."""
THUMBNAIL_SIDE = 96


@dataclass(frozen=True, eq=False)
class Example:
    """A labelled object as the library keeps it.

    Attributes:
        id: UUID made from the content: the picture's pixels, the mask and, for a negative, the label.
        label: its name; for a negative, the name it is *not*.
        negative: polarity.
        source: where the picture came from, as it was given.
        bbox: ``[x, y, w, h]`` in pixels of the picture.
        area: pixels of the mask.
        added: when it was learnt, ISO 8601 in UTC.
        segmentation: the full-size mask, COCO RLE.
        crop: the unfaded context crop, from which any embedder can make the vector again.
        vector: ``(D,)`` float32 of length 1, or None where it was not loaded.
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

    def thumbnail(self) -> ImageRGB:
        """``(h, w, 3)`` uint8 picture of the crop, at most 96 pixels a side, for people."""
        image = self.crop.image_rgb
        ratio = THUMBNAIL_SIDE / max(image.shape[:2])
        if ratio >= 1:
            return image
        size = (max(1, round(image.shape[1] * ratio)), max(1, round(image.shape[0] * ratio)))
        return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)

    def to_point(self) -> Point:
        crop = self.crop
        written, png = cv2.imencode(".png", cv2.cvtColor(crop.image_rgb, cv2.COLOR_RGB2BGR))
        if not written:
            raise LibraryCorruptError(f"the crop of example {self.id} cannot be encoded as PNG")
        payload = {
            "label": self.label,
            "negative": self.negative,
            "source": self.source,
            "bbox": self.bbox,
            "area": self.area,
            "added": self.added,
            "segmentation": dict(self.segmentation),
            "crop_png": base64.b64encode(png.tobytes()).decode("ascii"),
            "crop_mask": encode_crop(crop.mask).decode("ascii"),
            "crop_scale": crop.scale,
            "crop_window": list(crop.window_xyxy),
        }
        return Point(id=self.id, vector=self.vector, payload=payload)

    @classmethod
    def from_point(cls, point: Point) -> Example:
        """The example of a stored point; raises ``LibraryCorruptError`` where a field is damaged."""
        data = point.payload
        try:
            png = np.frombuffer(base64.b64decode(data["crop_png"], validate=True), np.uint8)
            decoded = cv2.imdecode(png, cv2.IMREAD_COLOR)
            if decoded is None:
                raise ValueError("its crop is not a PNG picture")
            image = np.asarray(cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB), np.uint8)
            height, width = image.shape[:2]
            x0, y0, x1, y1 = (int(v) for v in data["crop_window"])
            crop = Crop(
                image_rgb=image,
                mask=decode_crop(data["crop_mask"].encode("ascii"), (height, width)),
                scale=float(data["crop_scale"]),
                window_xyxy=(x0, y0, x1, y1),
            )
            return cls(
                id=point.id,
                label=data["label"],
                negative=bool(data["negative"]),
                source=data["source"],
                bbox=list(data["bbox"]),
                area=int(data["area"]),
                added=data["added"],
                segmentation=data["segmentation"],
                crop=crop,
                vector=point.vector,
            )
        except (KeyError, TypeError, ValueError, cv2.error) as error:
            raise LibraryCorruptError(f"example {point.id} is damaged: {error}") from error


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
