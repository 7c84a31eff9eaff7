"""The nouns: what flows between the rooms. Arrays are validated once, where they are built."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from sam_detect.errors import ConfigError, ImageError, MaskError
from sam_detect.masks import (
    BoolArray,
    FloatArray,
    IntArray,
    MaskRLE,
    crop_to_rle,
    decode_crop,
    encode_crop,
    tight_box_xyxy,
)

ImageRGB = npt.NDArray[np.uint8]
Index = int | np.integer[Any]
Selection = slice | Sequence[int] | npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class Frame:
    """One picture on its way through the pipeline.

    Attributes:
        image_rgb: ``(H, W, 3)`` uint8, RGB.
        source_id: where it came from, as the user gave or would find it (a path, ``array``, ...).
        index: position in its source (0 for a single picture).
        location: (xy, z, t) in a stack, or None.
    """

    image_rgb: ImageRGB
    source_id: str = "array"
    index: int = 0
    location: tuple[int, int, int] | None = None

    def __post_init__(self) -> None:
        image = self.image_rgb
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise ImageError(
                f"a frame needs a (H, W, 3) uint8 array, got {image.shape} {image.dtype}"
            )
        if image.shape[0] < 1 or image.shape[1] < 1:
            raise ImageError(f"a frame needs at least one pixel, got shape {image.shape}")

    @property
    def size_hw(self) -> tuple[int, int]:
        return self.image_rgb.shape[0], self.image_rgb.shape[1]


@dataclass(frozen=True, eq=False)
class Masks:
    """A batch of N masks of one picture, as parallel arrays, best first where a segmenter made it.

    Attributes:
        size_hw: height and width of the picture.
        boxes_xyxy: ``(N, 4)`` int64, half-open and tight, in pixels.
        crop_rles: N COCO-compressed run lengths, each of its box.
        areas: ``(N,)`` int64, true pixels.
        predicted_ious: ``(N,)`` float32 in 0..1, the proposal's own quality.
        stabilities: ``(N,)`` float32 in 0..1, how little the mask changes with its threshold.
        prompts_xy: ``(N, 2)`` float32, the point that asked for the mask; NaN where none did.
    """

    size_hw: tuple[int, int]
    boxes_xyxy: IntArray
    crop_rles: tuple[bytes, ...]
    areas: IntArray
    predicted_ious: FloatArray
    stabilities: FloatArray
    prompts_xy: FloatArray

    def __post_init__(self) -> None:
        count = len(self.crop_rles)
        expected = {
            "boxes_xyxy": (count, 4),
            "areas": (count,),
            "predicted_ious": (count,),
            "stabilities": (count,),
            "prompts_xy": (count, 2),
        }
        for name, shape in expected.items():
            actual = getattr(self, name).shape
            if actual != shape:
                raise MaskError(f"{name} must have shape {shape} for {count} masks, got {actual}")
        height, width = self.size_hw
        x0, y0, x1, y1 = self.boxes_xyxy.T
        if ((x0 < 0) | (y0 < 0) | (x1 > width) | (y1 > height) | (x0 >= x1) | (y0 >= y1)).any():
            raise MaskError(f"every box must be non-empty and inside the {width}x{height} picture")

    @classmethod
    def empty(cls, size_hw: tuple[int, int]) -> Masks:
        return cls.from_crops(size_hw=size_hw, boxes_xyxy=np.zeros((0, 4), np.int64), crops=[])

    @classmethod
    def from_crops(
        cls,
        *,
        size_hw: tuple[int, int],
        boxes_xyxy: npt.ArrayLike,
        crops: Sequence[BoolArray],
        predicted_ious: npt.ArrayLike | None = None,
        stabilities: npt.ArrayLike | None = None,
        prompts_xy: npt.ArrayLike | None = None,
    ) -> Masks:
        """Masks from boolean crops, each of the size of its box.

        Raises:
            MaskError: a crop is empty, does not fill its box, or a box leaves the picture.
        """
        boxes = np.asarray(boxes_xyxy, dtype=np.int64).reshape(len(crops), 4)
        for crop, box in zip(crops, boxes, strict=True):
            if crop.shape != (box[3] - box[1], box[2] - box[0]):
                raise MaskError(
                    f"a crop of shape {crop.shape} does not fill the box {box.tolist()}"
                )
        areas = np.array([np.count_nonzero(crop) for crop in crops], dtype=np.int64)
        if (areas == 0).any():
            raise MaskError("a mask needs at least one pixel")
        ones = np.ones(len(crops), np.float32)
        nowhere = np.full((len(crops), 2), np.nan, np.float32)
        return cls(
            size_hw=(int(size_hw[0]), int(size_hw[1])),
            boxes_xyxy=boxes,
            crop_rles=tuple(encode_crop(crop) for crop in crops),
            areas=areas,
            predicted_ious=_floats(predicted_ious, ones),
            stabilities=_floats(stabilities, ones),
            prompts_xy=_floats(prompts_xy, nowhere),
        )

    @classmethod
    def from_dense(cls, masks: npt.ArrayLike, *, size_hw: tuple[int, int] | None = None) -> Masks:
        """Masks from full-size boolean arrays: ``(H, W)`` or ``(N, H, W)``.

        Raises:
            MaskError: another shape, or a mask without a pixel.
        """
        dense = np.asarray(masks)
        if dense.ndim == 2:
            dense = dense[None]
        if dense.ndim != 3:
            raise MaskError(f"masks need shape (H, W) or (N, H, W), got {dense.shape}")
        size = (dense.shape[1], dense.shape[2])
        if size_hw is not None and size != tuple(size_hw):
            raise MaskError(
                f"a mask of {size[1]}x{size[0]} does not fit a picture of {size_hw[1]}x{size_hw[0]}"
            )
        boxes, crops = [], []
        for mask in dense.astype(np.bool_, copy=False):
            box = tight_box_xyxy(mask)
            if box is None:
                raise MaskError("a mask needs at least one pixel, this one has none")
            boxes.append(box)
            crops.append(np.ascontiguousarray(mask[box[1] : box[3], box[0] : box[2]]))
        return cls.from_crops(size_hw=size, boxes_xyxy=boxes, crops=crops)

    @classmethod
    def concatenate(cls, parts: Sequence[Masks]) -> Masks:
        """All masks of several batches of the same picture, in order."""
        if not parts:
            raise MaskError("nothing to concatenate: at least one batch of masks is needed")
        if len({part.size_hw for part in parts}) > 1:
            raise MaskError("only masks of pictures of one size can be concatenated")
        return cls(
            size_hw=parts[0].size_hw,
            boxes_xyxy=np.concatenate([part.boxes_xyxy for part in parts]),
            crop_rles=tuple(rle for part in parts for rle in part.crop_rles),
            areas=np.concatenate([part.areas for part in parts]),
            predicted_ious=np.concatenate([part.predicted_ious for part in parts]),
            stabilities=np.concatenate([part.stabilities for part in parts]),
            prompts_xy=np.concatenate([part.prompts_xy for part in parts]),
        )

    def __len__(self) -> int:
        return len(self.crop_rles)

    def __getitem__(self, selection: Selection) -> Masks:
        keep = np.arange(len(self))[_as_index(selection)]
        return Masks(
            size_hw=self.size_hw,
            boxes_xyxy=self.boxes_xyxy[keep],
            crop_rles=tuple(self.crop_rles[i] for i in keep),
            areas=self.areas[keep],
            predicted_ious=self.predicted_ious[keep],
            stabilities=self.stabilities[keep],
            prompts_xy=self.prompts_xy[keep],
        )

    def crop(self, index: Index) -> BoolArray:
        """The ``(h, w)`` mask of one box."""
        x0, y0, x1, y1 = self.boxes_xyxy[index]
        return decode_crop(self.crop_rles[int(index)], (int(y1 - y0), int(x1 - x0)))

    def crops(self) -> list[BoolArray]:
        return [self.crop(index) for index in range(len(self))]

    def dense(self, index: Index) -> BoolArray:
        """One mask as a full-size ``(H, W)`` array."""
        full = np.zeros(self.size_hw, np.bool_)
        x0, y0, x1, y1 = self.boxes_xyxy[index]
        full[y0:y1, x0:x1] = self.crop(index)
        return full

    def rle(self, index: Index) -> MaskRLE:
        """One mask as a full-size COCO RLE."""
        return crop_to_rle(self.crop(index), self.boxes_xyxy[index].tolist(), self.size_hw)


@dataclass(frozen=True, eq=False)
class Crop:
    """The image cut around one mask with its context, not yet faded: the form a library keeps.

    Attributes:
        image_rgb: ``(h, w, 3)`` uint8; pixels beyond the picture repeat its border.
        mask: ``(h, w)`` bool, the object.
        scale: crop pixels per image pixel (below 1 where a large object was reduced), so that
            distances in the crop, divided by it, are distances in the picture.
        window_xyxy: the cut window in the picture, half-open; may reach beyond it.
    """

    image_rgb: ImageRGB
    mask: BoolArray
    scale: float
    window_xyxy: tuple[int, int, int, int]

    def __post_init__(self) -> None:
        if self.image_rgb.shape != (*self.mask.shape, 3):
            raise MaskError(
                f"a crop's mask {self.mask.shape} must have its image's size {self.image_rgb.shape}"
            )
        if not self.mask.any():
            raise MaskError("a crop's mask needs at least one pixel")

    @property
    def area(self) -> float:
        """The object's area in pixels of the picture."""
        return float(np.count_nonzero(self.mask)) / self.scale**2


@dataclass(frozen=True, eq=False)
class FadedCrop:
    """What an embedder gets: a crop, its faded image and the weight of each pixel.

    Attributes:
        crop: the crop before fading.
        image_rgb: ``(h, w, 3)`` uint8, what the fade made of the crop's image.
        weights: ``(h, w)`` float32 in 0..1: the fade's weight where it is a plain weight,
            else 1 on the object and 0 beside it.
        plain: whether the fade is a plain weight, so that ``crop.image_rgb`` and ``weights``
            say everything that ``image_rgb`` does.
    """

    crop: Crop
    image_rgb: ImageRGB
    weights: FloatArray
    plain: bool


@dataclass(frozen=True, eq=False)
class Point:
    """One row of a vector store.

    Attributes:
        id: a UUID in its canonical text form.
        vector: ``(D,)`` float32, or None where it was not asked for.
        payload: plain JSON data; only the asked-for fields where some were named.
    """

    id: str
    vector: FloatArray | None
    payload: dict[str, Any]


@dataclass(frozen=True)
class Hit:
    """One search result: the point's id, its cosine similarity (-1 to 1) and asked-for payload."""

    id: str
    similarity: float
    payload: dict[str, Any]


@dataclass(frozen=True, eq=False)
class ExampleArrays:
    """Parallel arrays of N examples: ids, labels, sources (the pictures they come from),
    ``(N, 4)`` boxes there (x, y, width, height), polarity and ``(N, D)`` float32 vectors."""

    ids: tuple[str, ...]
    labels: tuple[str, ...]
    sources: tuple[str, ...]
    boxes_xywh: IntArray
    negatives: BoolArray
    vectors: FloatArray


@dataclass(frozen=True)
class Recipe:
    """How the vectors of a library were made. Two recipes are the same when all fields are.

    Attributes:
        embedder: registered name.
        embedder_version: version of the embedder's algorithm.
        model: the embedder's own parameters (model name, pooling, ...), plain data.
        fade: registered name or ``package.module:Class``.
        fade_params: the fade's parameters, plain data.
        occupancy: share of a crop's area that its object takes.
        crop_side: longest side of a kept crop, pixels.
        crop_version: version of the cropping algorithm.
        dimension: length of the vectors.
    """

    embedder: str
    embedder_version: int
    model: dict[str, Any]
    fade: str
    fade_params: dict[str, Any]
    occupancy: float
    crop_side: int
    crop_version: int
    dimension: int

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Recipe:
        """The recipe of :meth:`to_dict`; raises :class:`ConfigError` on missing or extra fields."""
        names = {item.name for item in fields(cls)}
        if set(data) != names:
            differing = ", ".join(sorted(set(data) ^ names))
            raise ConfigError(
                f"a recipe needs exactly the fields it is made of; differing: {differing}"
            )
        return cls(**data)

    def differences(self, other: Recipe) -> dict[str, tuple[Any, Any]]:
        """``{field: (mine, theirs)}`` of every field that differs."""
        mine, theirs = self.to_dict(), other.to_dict()
        return {name: (mine[name], theirs[name]) for name in mine if mine[name] != theirs[name]}


@dataclass(frozen=True)
class Neighbour:
    """One stored example that was near a vector: the reason for a label.

    Attributes:
        id: the example's id in its library.
        label: the example's label.
        similarity: cosine similarity, -1 to 1.
        negative: whether the example says "this is *not* that label".
    """

    id: str
    label: str
    similarity: float
    negative: bool = False

    def to_dict(self) -> dict[str, Any]:
        named = {"id": self.id, "label": self.label, "similarity": round(float(self.similarity), 6)}
        return {**named, "negative": True} if self.negative else named


@dataclass(frozen=True)
class Verdict:
    """What a labeller says of one vector.

    Attributes:
        label: the name, or None for unknown.
        best_label: the name it came closest to; None only where nothing is known at all.
        confidence: 0 to 1, see ``docs/labelling.md``.
        neighbours: the nearest examples, nearest first.
    """

    label: str | None
    best_label: str | None
    confidence: float
    neighbours: tuple[Neighbour, ...] = ()


@dataclass(frozen=True, eq=False)
class Detection:
    """One found object; answers ``d.label`` and ``d["label"]`` alike."""

    masks: Masks = field(repr=False)
    verdict: Verdict = field(repr=False)

    FIELDS = (
        "mask", "label", "confidence", "bbox", "area", "neighbours", "best_label", "score",
        "mask_rle",
    )  # fmt: skip

    @property
    def label(self) -> str | None:
        return self.verdict.label

    @property
    def best_label(self) -> str | None:
        return self.verdict.best_label

    @property
    def confidence(self) -> float:
        return self.verdict.confidence

    @property
    def neighbours(self) -> tuple[Neighbour, ...]:
        return self.verdict.neighbours

    @property
    def mask(self) -> BoolArray:
        """``(H, W)`` bool, made on demand."""
        return self.masks.dense(0)

    @property
    def mask_rle(self) -> MaskRLE:
        return self.masks.rle(0)

    @property
    def bbox(self) -> list[int]:
        """``[x, y, w, h]`` in pixels."""
        x0, y0, x1, y1 = (int(v) for v in self.masks.boxes_xyxy[0])
        return [x0, y0, x1 - x0, y1 - y0]

    @property
    def area(self) -> int:
        return int(self.masks.areas[0])

    @property
    def score(self) -> float:
        """The proposal's own quality, 0 to 1."""
        return float(self.masks.predicted_ious[0])

    def __getitem__(self, key: str) -> Any:
        if key not in self.FIELDS:
            raise KeyError(f"a detection has no {key!r}; it has {', '.join(self.FIELDS)}")
        return getattr(self, key)

    def keys(self) -> tuple[str, ...]:
        return self.FIELDS

    def __repr__(self) -> str:
        return (
            f"Detection(label={self.label!r}, confidence={self.confidence:.3f}, bbox={self.bbox}, "
            f"area={self.area})"
        )

    def to_dict(self) -> dict[str, Any]:
        """The JSON form of ``detect --json``."""
        return {
            "label": self.label,
            "confidence": round(float(self.confidence), 6),
            "bbox": self.bbox,
            "area": self.area,
            "score": round(self.score, 6),
            "segmentation": self.mask_rle,
            "best_label": self.best_label,
            "neighbours": [neighbour.to_dict() for neighbour in self.neighbours],
        }


@dataclass(frozen=True, eq=False)
class Detections:
    """All detections of one picture: indexes like numpy, iterates as :class:`Detection`.

    Attributes:
        source_id: the picture's path, as given or found.
        masks: the N masks.
        verdicts: N verdicts, parallel to the masks.
        recipe: the recipe that made the vectors, as plain data.
        timings_ms: milliseconds per stage.
    """

    source_id: str
    masks: Masks
    verdicts: tuple[Verdict, ...]
    recipe: dict[str, Any] = field(default_factory=dict)
    timings_ms: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(self.masks) != len(self.verdicts):
            raise MaskError(
                f"{len(self.masks)} masks need as many verdicts, got {len(self.verdicts)}"
            )

    @property
    def size_hw(self) -> tuple[int, int]:
        return self.masks.size_hw

    @property
    def label(self) -> npt.NDArray[np.object_]:
        """``(N,)`` of str or None."""
        return np.array([verdict.label for verdict in self.verdicts], dtype=object)

    @property
    def best_label(self) -> npt.NDArray[np.object_]:
        """``(N,)`` of str or None."""
        return np.array([verdict.best_label for verdict in self.verdicts], dtype=object)

    @property
    def confidence(self) -> npt.NDArray[np.float64]:
        """``(N,)`` in 0..1."""
        return np.array([verdict.confidence for verdict in self.verdicts], dtype=np.float64)

    @property
    def score(self) -> FloatArray:
        """``(N,)`` in 0..1: the proposals' own quality."""
        return self.masks.predicted_ious

    @property
    def area(self) -> IntArray:
        return self.masks.areas

    @property
    def boxes_xyxy(self) -> IntArray:
        return self.masks.boxes_xyxy

    @property
    def known(self) -> Detections:
        """Only those with a label."""
        return self[np.array([verdict.label is not None for verdict in self.verdicts], dtype=bool)]

    def __len__(self) -> int:
        return len(self.verdicts)

    @overload
    def __getitem__(self, selection: Index) -> Detection: ...
    @overload
    def __getitem__(self, selection: Selection) -> Detections: ...
    def __getitem__(self, selection: Index | Selection) -> Detection | Detections:
        if isinstance(selection, (int, np.integer)):
            index = int(selection)
            if not -len(self) <= index < len(self):
                raise IndexError(f"detection {index} of {len(self)} does not exist")
            index %= len(self)
            return Detection(masks=self.masks[[index]], verdict=self.verdicts[index])
        keep = np.arange(len(self))[_as_index(selection)]
        return Detections(
            source_id=self.source_id,
            masks=self.masks[keep],
            verdicts=tuple(self.verdicts[i] for i in keep),
            recipe=self.recipe,
            timings_ms=self.timings_ms,
        )

    def __iter__(self) -> Iterator[Detection]:
        return (self[index] for index in range(len(self)))

    def to_dict(self) -> dict[str, Any]:
        """The JSON object of ``detect --json``."""
        height, width = self.size_hw
        return {
            "image": self.source_id,
            "width": width,
            "height": height,
            "recipe": self.recipe,
            "timings_ms": {name: round(float(value), 3) for name, value in self.timings_ms.items()},
            "detections": [detection.to_dict() for detection in self],
        }


def _as_index(selection: Selection) -> Any:
    """numpy reads an empty list as floats; an empty selection must stay an index."""
    if isinstance(selection, (list, tuple)) and len(selection) == 0:
        return np.zeros(0, np.int64)
    return selection


def _floats(values: npt.ArrayLike | None, default: FloatArray) -> FloatArray:
    if values is None:
        return default
    return np.asarray(values, dtype=np.float32).reshape(default.shape)
