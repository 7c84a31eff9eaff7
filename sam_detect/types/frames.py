"""Images, crops of them, and batches of masks with what is known of them."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from sam_detect.errors import ImageError, MaskError
from sam_detect.types.examples import Neighbour
from sam_detect.types.masks import (
    BoolArray,
    FloatArray,
    IntArray,
    MaskRLE,
    crop_to_rle,
    decode_crop,
    encode_crop,
    tight_box_xyxy,
)
from sam_detect.types.polygons import EXACT_TOLERANCE_PX, Polygon, Ring, mask_polygons
from sam_detect.types.scratch import strips
from sam_detect.types.short import short_repr

ImageRGB = npt.NDArray[np.uint8]
Index = int | np.integer[Any]
Coordinates = Sequence[Sequence[float]] | npt.NDArray[Any]
"""``(N, 2)`` or ``(N, 4)`` numbers: an array, or rows of any sequences."""
Selection = slice | Sequence[int] | npt.NDArray[Any]

_COLUMNS: dict[str, tuple[int, ...]] = {
    "boxes_xyxy": (4,), "areas": (), "predicted_ious": (), "stabilities": (), "prompts_xy": (2,),
    "excluded": (),
}  # fmt: skip
"""The arrays of :class:`Masks`, with the shape of each row."""

RATED_BY_EXAMPLES = "examples"
""":attr:`Masks.rated_by` of qualities that were learnt from the examples."""


@dataclass(frozen=True)
class PixelSize:
    """From one pixel to the next along X and Y, and from plane to plane, in micrometres.

    Attributes:
        z: None where there is one plane, or nothing is known.
    """

    x: float
    y: float
    z: float | None = None

    @property
    def area(self) -> float:
        """Of a pixel, in square micrometres."""
        return self.x * self.y

    def to_dict(self) -> dict[str, float]:
        """Its lengths by axis; without Z where that is not known."""
        return {"x": self.x, "y": self.y, **({} if self.z is None else {"z": self.z})}


@dataclass(frozen=True)
class Volume:
    """An object through the Z planes of a stack.

    Attributes:
        id: from 1; the objects of all its planes have it.
        voxels: pixels of all its planes.
        um3: cubic micrometres; None where the size of a pixel or the distance of planes is not
            known.
    """

    id: int
    voxels: int
    um3: float | None = None

    def to_dict(self) -> dict[str, float]:
        """As files say it."""
        found: dict[str, float] = {"volume_id": self.id, "volume_voxels": self.voxels}
        return found | ({} if self.um3 is None else {"volume_um3": self.um3})


def area_um2(pixels: int, size: PixelSize | None) -> dict[str, float]:
    """``{"area_um2": ...}`` of so many pixels; nothing where their size is not known."""
    return {} if size is None else {"area_um2": float(f"{pixels * size.area:.6g}")}


@dataclass(frozen=True, eq=False)
class Frame:
    """One image in the pipeline.

    Attributes:
        image_rgb: ``(H, W, 3)`` uint8, RGB.
        source_id: its source as the user named it (a path, ``array``, ...).
        index: position in its source (0 for a single image).
        location: (xy, z, t) in a stack, or None.
        time_s: seconds since the start of its video, or None.
        left_out: the parts of its file that were not read, such as "only channel 1 of 3 was read".
        pixel_size_um: of its pixels, or None where its file does not say it.
    """

    image_rgb: ImageRGB
    source_id: str = "array"
    index: int = 0
    location: tuple[int, int, int] | None = None
    time_s: float | None = None
    left_out: str = ""
    pixel_size_um: PixelSize | None = None

    __repr__ = short_repr

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

    @functools.cached_property
    def digest(self) -> str:
        """Hash of the pixels and the size: what tells the same picture from others, wherever its
        file lies."""
        digest = hashlib.blake2b(repr(self.image_rgb.shape).encode(), digest_size=16)
        for rows in strips(self.image_rgb):
            digest.update(np.ascontiguousarray(self.image_rgb[rows]).data)
        return digest.hexdigest()


@dataclass(frozen=True, eq=False)
class Crop:
    """The image cut around one mask with its context, before fading: what a library stores.

    Attributes:
        image_rgb: ``(h, w, 3)`` uint8; pixels beyond the image repeat its border.
        mask: ``(h, w)`` bool, the object.
        scale: crop pixels per image pixel, below 1 if a large object was reduced. A distance in
            the crop divided by it is a distance in the image.
        window_xyxy: the window in the image, half-open; may extend beyond it.
    """

    image_rgb: ImageRGB
    mask: BoolArray
    scale: float
    window_xyxy: tuple[int, int, int, int]

    __repr__ = short_repr

    def __post_init__(self) -> None:
        if self.image_rgb.shape != (*self.mask.shape, 3):
            raise MaskError(
                f"a crop's mask {self.mask.shape} must have its image's size {self.image_rgb.shape}"
            )
        if not self.mask.any():
            raise MaskError("a crop's mask needs at least one pixel")

    @property
    def area(self) -> float:
        """The object's area in pixels of the image."""
        return float(np.count_nonzero(self.mask)) / self.scale**2


@dataclass(frozen=True, eq=False)
class FadedCrop:
    """The input of an embedder: a crop, its faded image and the weight of each pixel.

    Attributes:
        crop: the crop before fading.
        image_rgb: ``(h, w, 3)`` uint8, the faded image.
        weights: ``(h, w)`` float32 in 0..1: the fade's weight if it is a plain weight,
            else 1 on the object and 0 elsewhere.
        plain: whether the fade is a plain weight: ``image_rgb`` is then ``crop.image_rgb`` times
            ``weights``.
    """

    crop: Crop
    image_rgb: ImageRGB
    weights: FloatArray
    plain: bool

    __repr__ = short_repr


@dataclass(frozen=True, eq=False)
class Masks:
    """A batch of N masks of one image, as parallel arrays; best first if a segmenter made it.

    Attributes:
        size_hw: height and width of the image.
        boxes_xyxy: ``(N, 4)`` int64, half-open and tight, in pixels.
        crop_rles: N COCO-compressed run lengths, each of its box.
        areas: ``(N,)`` int64, true pixels.
        predicted_ious: ``(N,)`` float32 in 0..1, the proposal's own quality.
        stabilities: ``(N,)`` float32 in 0..1, IoU of the masks at a raised and a lowered threshold.
        prompts_xy: ``(N, 2)`` float32, the point prompt of the mask; NaN if it had none.
        excluded: ``(N,)`` bool, what the segmenter found too unlike the examples to be one of them.
        rated_by: what made ``predicted_ious``, which compare with others of the same name; empty
            for those of the segmenter itself.
    """

    size_hw: tuple[int, int]
    boxes_xyxy: IntArray
    crop_rles: tuple[bytes, ...]
    areas: IntArray
    predicted_ious: FloatArray
    stabilities: FloatArray
    prompts_xy: FloatArray
    excluded: BoolArray
    rated_by: str = ""

    __repr__ = short_repr

    def __post_init__(self) -> None:
        count = len(self.crop_rles)
        for name, row in _COLUMNS.items():
            shape, actual = (count, *row), getattr(self, name).shape
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
        excluded: npt.ArrayLike | None = None,
    ) -> Masks:
        """Masks from boolean crops, each of the size of its box.

        Raises:
            MaskError: a crop is empty, does not fill its box, or a box leaves the image.
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
            excluded=np.zeros(len(crops), np.bool_) if excluded is None else np.asarray(excluded),
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
        """All masks of several batches of the same image, in order."""
        if not parts:
            raise MaskError("nothing to concatenate: at least one batch of masks is needed")
        if len({part.size_hw for part in parts}) > 1:
            raise MaskError("only masks of pictures of one size can be concatenated")
        rles = tuple(rle for part in parts for rle in part.crop_rles)
        arrays = {
            name: np.concatenate([getattr(part, name) for part in parts]) for name in _COLUMNS
        }
        rated_by = "+".join(sorted({part.rated_by for part in parts if part.rated_by}))
        return cls(size_hw=parts[0].size_hw, crop_rles=rles, rated_by=rated_by, **arrays)

    def __len__(self) -> int:
        return len(self.crop_rles)

    def __getitem__(self, selection: Selection) -> Masks:
        keep = np.arange(len(self))[as_index(selection)]
        rles = tuple(self.crop_rles[i] for i in keep)
        arrays = {name: getattr(self, name)[keep] for name in _COLUMNS}
        return replace(self, crop_rles=rles, **arrays)

    def require_fit(self, frame: Frame) -> None:
        """Raises ``MaskError`` for the masks of a picture of another size."""
        if self.size_hw != frame.size_hw:
            raise MaskError(
                f"masks of a {self.size_hw[1]}x{self.size_hw[0]} picture do not fit "
                f"{frame.source_id} ({frame.size_hw[1]}x{frame.size_hw[0]})"
            )

    @property
    def boxes_xywh(self) -> IntArray:
        """``(N, 4)`` int64 ``x, y, width, height`` in pixels."""
        corners = self.boxes_xyxy[:, :2]
        return np.concatenate([corners, self.boxes_xyxy[:, 2:] - corners], axis=1)

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

    def polygons(self, index: Index) -> list[Ring]:
        """Outlines of one mask's parts, the largest first; its holes are filled."""
        return [polygon[0] for polygon in self.polygons_with_holes(index)]

    def polygons_with_holes(
        self, index: Index, *, tolerance_px: float = EXACT_TOLERANCE_PX
    ) -> list[Polygon]:
        """The parts of one mask, the largest first: see
        :func:`~sam_detect.types.polygons.mask_polygons`."""
        box = self.boxes_xyxy[index].tolist()
        return mask_polygons(self.crop(index), box, tolerance_px=tolerance_px)


@dataclass(frozen=True, eq=False)
class Candidates:
    """Proposals of one frame, with the vectors of those whose size is that of known objects.

    Attributes:
        frame: the image.
        masks: N proposals, best first.
        vectors: ``(n, D)`` float32 unit vectors of some of them.
        described: ``(n,)`` indices of those masks; the area prior or the segmenter excludes the
            others.

    Raises:
        MaskError: there is not one vector for each described mask.
    """

    frame: Frame
    masks: Masks
    vectors: FloatArray
    described: IntArray

    __repr__ = short_repr

    def __post_init__(self) -> None:
        if len(self.vectors) != len(self.described):
            raise MaskError(
                f"{len(self.described)} described masks need as many vectors, "
                f"got {len(self.vectors)}"
            )

    def of_areas(self, least: int, most: int | None = None) -> Candidates:
        """Those of at least and at most so many pixels."""
        areas = self.masks.areas
        return self.where(
            (areas >= least) & (areas <= (areas.max(initial=0) if most is None else most))
        )

    def where(self, kept: BoolArray) -> Candidates:
        """Those of N masks for which ``(N,)`` is true."""
        rows = kept[self.described]
        return replace(
            self,
            masks=self.masks[kept],
            vectors=self.vectors[rows],
            described=(np.cumsum(kept) - 1)[self.described[rows]],
        )

    def then(self, others: Candidates) -> Candidates:
        """These, followed by others of the same frame."""
        return Candidates(
            self.frame,
            Masks.concatenate([self.masks, others.masks]),
            np.concatenate([self.vectors, others.vectors]),
            np.concatenate([self.described, others.described + len(self.masks)]),
        )


@dataclass(frozen=True, eq=False)
class Taught:
    """The outlines of one image that a library has examples of.

    Attributes:
        picture: digest of the image's pixels.
        masks: N outlines, newest first.
        examples: N examples with these outlines; a negative says what its outline is *not*.
    """

    picture: str
    masks: Masks
    examples: tuple[Neighbour, ...]

    __repr__ = short_repr

    def __len__(self) -> int:
        return len(self.examples)

    def of(self, *, negative: bool) -> Taught:
        """Only the negatives, or only the others."""
        chosen = [i for i, each in enumerate(self.examples) if each.negative is negative]
        return Taught(self.picture, self.masks[chosen], tuple(self.examples[i] for i in chosen))


def as_index(selection: Selection) -> Any:
    """A selection as a numpy index; numpy would read an empty list as floats."""
    if isinstance(selection, (list, tuple)) and len(selection) == 0:
        return np.zeros(0, np.int64)
    return selection


def _floats(values: npt.ArrayLike | None, default: FloatArray) -> FloatArray:
    if values is None:
        return default
    return np.asarray(values, dtype=np.float32).reshape(default.shape)
