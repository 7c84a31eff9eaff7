"""SAM 2's image features, averaged over the object's mask.

The frozen encoder distinguishes kinds of objects that it was not trained to name. The crop (or the
whole image) goes through the predictor's own transforms; the mean of the feature map over the
object's mask, scaled to length 1, is its vector.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn.functional import interpolate

from sam_detect.errors import ConfigError, UnavailableError
from sam_detect.interfaces import Embedder
from sam_detect.models.running import (
    NAMES_OF_DTYPES,
    BatchSize,
    in_batches,
    resolve_dtype,
    to_device,
    unit_rows,
)
from sam_detect.models.sam2 import LoadedSAM2, shared_sam2
from sam_detect.models.sam2_features import SAM2Features, bilinear_rows, frame_encoder
from sam_detect.models.sharing import LOADED_FROM
from sam_detect.types import FadedCrop, Frame, ImageRGB, Masks
from sam_detect.types.masks import BoolArray, FloatArray

POOLINGS = ("crop", "frame")
BATCH_ON_CPU, BATCH_ON_GPU = 1, 16
CROP_SIDE = 512
"""Longest side of stored crops in pixels: half the input side of the released models. Large objects
lose less than at the usual 256; docs/embedding.md has the figures and the cost."""
MARGIN = 2
"""Pixels between a window and the object's box."""
MASKS_AT_ONCE = 256
Piece = tuple[ImageRGB, BoolArray]
"""An image and the mask of the object in it."""


class SAM2Embedder(Embedder):
    """The mean of SAM 2's feature map over the object's mask, of length 1.

    With ``pooling="crop"`` each object's crop is encoded, so that the object is large. A fade
    changes the encoder's input, not the mask of the average. With ``"frame"`` an image is
    encoded once, and each mask averages the map, interpolated to the image's pixels: much faster,
    coarser for small objects, and a library cannot compute such vectors again from its crops.

    Args:
        model_size: tiny, small, base, large; one of Meta's names; a checkpoint's path; or a loaded
            model, on its device.
        device: auto, cpu, cuda or mps.
        pooling: crop or frame.
        occupancies: shares (0.05 to 0.80) of a window's area that the object takes; one encoding
            for each, concatenated in the vector. None: the crops as they are.
        batch_size: crops per batch; None: chosen for the device.
        dtype: fp32, exact also on GPUs; bf16 or fp16 (autocast, and TF32 for the rest): faster on
            GPUs, with other vectors.
        digest: that the weights must have, from a library's recipe.

    Raises:
        ConfigError: a value out of range, or a checkpoint that cannot be used.
        UnavailableError: the weights or the device are not on this machine, or the weights are
            not those of the digest.
    """

    name = "sam2"
    version = 1
    # typical of objects of one label; a library estimates its own from its examples
    prior_similarity = 0.85
    default_fade = "identity"

    def __init__(
        self,
        model_size: str | Path | LoadedSAM2 = "base",
        device: str = "auto",
        pooling: str = "crop",
        occupancies: Sequence[float] | None = None,
        *,
        batch_size: int | None = None,
        dtype: str = "fp32",
        digest: str | None = None,
    ) -> None:
        self._occupancies = _checked(pooling, occupancies)
        loaded = shared_sam2(model_size, device=device)
        where = loaded.device
        precision = resolve_dtype(dtype, where)
        found = loaded.digest[:16]
        if digest not in (None, found):
            raise UnavailableError(
                f"the weights of the SAM 2 model '{loaded.name}' are not those that the library "
                "was made with: bring those back, or reindex it"
            )
        self._name = loaded.name
        self._features = SAM2Features(loaded, precision)
        self._frames = frame_encoder(loaded, precision)
        self._batch = BatchSize(
            batch_size or (BATCH_ON_CPU if where.type == "cpu" else BATCH_ON_GPU)
        )
        if loaded.file is not None and not isinstance(model_size, LoadedSAM2):
            LOADED_FROM[found] = str(Path(model_size).expanduser().absolute())
        optional = {
            "occupancies": self._occupancies and list(self._occupancies),
            # "auto" is another precision on another machine: the recipe says which it was here
            "dtype": None if precision == torch.float32 else NAMES_OF_DTYPES[precision],
        }
        self._parameters: dict[str, Any] = {
            **({"model_size": loaded.name} if loaded.file is None else {"file": loaded.file}),
            "digest": found,
            "pooling": pooling,
            **{key: value for key, value in optional.items() if value is not None},
        }
        self.input_side = self._features.side
        self.of_frames = self.cheap = pooling == "frame"  # all masks share one encoding
        self.crop_side = None if self.of_frames else min(CROP_SIDE, self.input_side)
        self.occupancy = min(self._occupancies) if self._occupancies else None

    @property
    def dimension(self) -> int:
        return self._features.dimension * max(1, len(self._occupancies or ()))

    def parameters(self) -> dict[str, Any]:
        return dict(self._parameters)

    def embed(self, crops: Sequence[FadedCrop]) -> FloatArray:
        if not crops:
            return np.zeros((0, self.dimension), np.float32)
        whole = [(crop.image_rgb, crop.crop.mask) for crop in crops]
        if self._occupancies is None:
            return self._vectors(whole)
        parts = [
            self._vectors([window(*piece, occupancy) for piece in whole])
            for occupancy in self._occupancies
        ]
        return np.asarray(np.concatenate(parts, axis=1) / math.sqrt(len(parts)), np.float32)

    def embed_frame(
        self, frame: Frame, masks: Masks, crops: Iterable[FadedCrop] = ()
    ) -> FloatArray:
        masks.require_fit(frame)
        if not len(masks):
            return np.zeros((0, self.dimension), np.float32)
        features = self._frames(frame).image_embed[0]
        height, width = features.shape[1:]
        rows = bilinear_rows(frame.size_hw[0], height), bilinear_rows(frame.size_hw[1], width)
        flat = features.flatten(1).T
        means = []
        for start in range(0, len(masks), MASKS_AT_ONCE):
            some = masks[start : start + MASKS_AT_ONCE]
            shares = np.stack([_shares(some, index, rows) for index in range(len(some))])
            means.append(to_device(shares, flat.device) @ flat)
        return unit_rows(torch.cat(means), self._name)

    def _vectors(self, pieces: Sequence[Piece]) -> FloatArray:
        return unit_rows(in_batches(self._means, pieces, self._batch), self._name)

    def _means(self, pieces: Sequence[Piece]) -> torch.Tensor:
        features = self._features([image for image, _ in pieces])
        size = (features.shape[2], features.shape[3])
        reduced = torch.stack([_reduced(mask, size) for _, mask in pieces])
        weights = to_device(reduced, features.device)
        return torch.einsum("nchw,nhw->nc", features, weights)


def window(image_rgb: ImageRGB, mask: BoolArray, occupancy: float) -> Piece:
    """The part of a crop of which the object takes about ``occupancy``, around its centre.

    The same as :func:`sam_detect.fading.context.cut` for an image; a smaller crop is taken whole.
    """
    height, width = mask.shape
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    y0, y1, x0, x1 = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
    side = math.ceil(math.sqrt(np.count_nonzero(mask) / occupancy))
    side = max(side, int(y1 - y0) + 2 * MARGIN, int(x1 - x0) + 2 * MARGIN)
    top = min(max((y0 + y1 - side) // 2, 0), max(height - side, 0))
    left = min(max((x0 + x1 - side) // 2, 0), max(width - side, 0))
    part = np.s_[top : top + side, left : left + side]
    return image_rgb[part], mask[part]


def _reduced(mask: BoolArray, size_hw: tuple[int, int]) -> torch.Tensor:
    """``size_hw`` float32 of sum 1: the mask at the size of the feature map.

    Bilinear, as in few-shot segmentation with SAM 2; an object that falls between the sampled
    points is averaged as in :func:`_shares`.
    """
    whole = torch.from_numpy(mask.astype(np.float32))[None, None]
    small = interpolate(whole, size_hw, mode="bilinear", align_corners=False)[0, 0]
    if float(small.sum()) < 1e-3:
        down, across = (bilinear_rows(*each) for each in zip(mask.shape, size_hw, strict=True))
        small = torch.from_numpy(down.T @ whole[0, 0].numpy() @ across)
    return small / small.sum()


def _shares(
    masks: Masks, index: int, rows: tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]
) -> npt.NDArray[np.float32]:
    """``(h * w,)`` float32 of sum 1: the weight of each cell of the map in a mask's mean.

    The mean of the interpolated map over a mask is a weighted mean of the map itself, so that
    no array of the image's size is needed.
    """
    x0, y0, x1, y1 = masks.boxes_xyxy[index].tolist()
    solid = masks.crop(index).astype(np.float32)
    down, across = rows[0][y0:y1], rows[1][x0:x1]
    shares = down.T @ solid @ across
    return np.asarray(shares.ravel() / max(int(masks.areas[index]), 1), np.float32)


def _checked(pooling: str, occupancies: Sequence[float] | None) -> tuple[float, ...] | None:
    if pooling not in POOLINGS:
        raise ConfigError(f"pooling must be {' or '.join(POOLINGS)}, got {pooling!r}")
    if occupancies is None:
        return None
    if pooling == "frame":
        raise ConfigError("occupancies are of crops: they need pooling 'crop'")
    wrong = [each for each in occupancies if not 0.05 <= each <= 0.8]
    if wrong or not len(occupancies):
        raise ConfigError(f"occupancies must be numbers from 0.05 to 0.80, got {occupancies!r}")
    return tuple(float(each) for each in occupancies)
