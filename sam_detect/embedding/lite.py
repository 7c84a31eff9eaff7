"""Learned features of a small network, joined with those of ``appearance``: no GPU, no download.

The network knows textures and forms; it is trained to ignore colour, size and contrast, which tell
nuclei from debris. The parts of ``appearance`` have more than half of the weight.
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import cv2
import numpy as np

from sam_detect.embedding._pyramid import features_of_crops, features_of_frame, scales_of
from sam_detect.embedding.appearance import (
    PART_LENGTHS,
    PART_WEIGHTS,
    AppearanceEmbedder,
    describe,
    joined,
)
from sam_detect.errors import ConfigError
from sam_detect.models.efficientnet_lite0 import (
    CHANNELS,
    normalised,
    shared_network,
)
from sam_detect.types import FadedCrop, Frame, Masks
from sam_detect.types.masks import FloatArray

SIDE = 96
"""Side of the network's input in pixels; crops are enlarged or reduced to it."""
STRIDES = {"features8": 8, "features16": 16}
"""The parts made of learned features, with their strides. Features of stride 4 are edges."""
LEARNED = 0.4
"""Weight of the learned features together, before a library's examples say otherwise. Of .25 to
.65, one half is best where objects have texture, and a third for nuclei."""
WEIGHTS = {
    **{name: weight * (1 - LEARNED) for name, weight in PART_WEIGHTS.items()},
    **dict.fromkeys(STRIDES, LEARNED / len(STRIDES)),
}
"""The parts in the order of the vector, with their weights in the similarity."""
LENGTHS = {**PART_LENGTHS, **{name: CHANNELS[stride] for name, stride in STRIDES.items()}}
"""Dimensions of each part."""


POOLINGS = ("crop", "frame", "auto")
BATCH = 64


class LiteEmbedder(AppearanceEmbedder):
    """The parts of :class:`AppearanceEmbedder`, and EfficientNet-Lite0's features of two strides,
    averaged over the mask.

    With ``pooling="crop"`` each faded crop, of which the object takes a fifth, goes through the
    network. With ``"frame"`` the picture goes through it, at the scale of each size of object
    (:mod:`sam_detect.embedding._pyramid`): faster with many masks. An example is then described by
    its crop, which is not faded for the network; so are masks as long as the sizes of the examples
    are not known (:meth:`for_areas`). ``"auto"`` is ``"frame"``, and masks that it leaves undecided
    are described by their crops.

    Args:
        pooling: crop, frame or auto.

    Raises:
        ConfigError: there is no such pooling.
        UnavailableError: the weights or OpenVINO are not installed.
    """

    name = "lite"
    version = 1  # stands for the weights, too: only one file of them is accepted
    input_side = SIDE
    cheap = False
    # typical of crops of one label; a library estimates its own from its examples
    prior_similarity = 0.80
    parts = LENGTHS

    def __init__(self, pooling: str = "auto") -> None:
        if pooling not in POOLINGS:
            raise ConfigError(f"pooling must be crop, frame or auto, got {pooling!r}")
        self._network = shared_network()
        self._pooling = pooling
        self.rechecks = pooling == "auto"
        self._finest = math.inf

    @property
    def dimension(self) -> int:
        return sum(LENGTHS.values())

    def parameters(self) -> dict[str, Any]:
        """The pooling, unless it is ``crop``, as of libraries that know no other; and the largest
        scale, where it follows from the sizes of the examples."""
        pooling = {} if self._pooling == "crop" else {"pooling": self._pooling}
        return {**pooling, "finest": self._finest} if self.of_frames else pooling

    def for_areas(self, areas: tuple[int, int] | None) -> LiteEmbedder:
        """Unless the pooling is ``crop``, an embedder of frames that sees nothing finer than the
        smallest example: the finest levels of a pyramid cost most."""
        if self._pooling == "crop" or areas is None:
            return self
        least = np.array([areas[0]])
        sized = copy.copy(self)
        sized.of_frames, sized._finest = True, float(scales_of(least, np.sqrt(least))[0])
        return sized

    def scene_weights(self) -> FloatArray:
        learned = np.ones(sum(LENGTHS[name] for name in STRIDES), np.float32)
        return np.concatenate([super().scene_weights(), learned])

    def embed(self, crops: Sequence[FadedCrop]) -> FloatArray:
        if not crops:
            return np.zeros((0, self.dimension), np.float32)
        if self._pooling != "crop":
            sums = features_of_crops(self._network, [each.crop for each in crops])
        else:
            pieces = [_input_of(crop) for crop in crops]
            features = self._network(np.stack([picture for picture, _ in pieces]))
            masks = np.stack([mask for _, mask in pieces])
            sums = {stride: _means(features[stride], masks, stride) for stride in STRIDES.values()}
        return joined({**describe(crops), **_learned(sums)}, WEIGHTS)

    def embed_frame(
        self, frame: Frame, masks: Masks, crops: Iterable[FadedCrop] = ()
    ) -> FloatArray:
        masks.require_fit(frame)
        if not len(masks):
            return np.zeros((0, self.dimension), np.float32)
        learned = _learned(
            features_of_frame(self._network, frame.image_rgb, masks, finest=self._finest)
        )
        iterator, described = iter(crops), []
        while batch := list(itertools.islice(iterator, BATCH)):
            described.append(describe(batch))
        appearance = {name: np.concatenate([each[name] for each in described])
                      for name in PART_LENGTHS}  # fmt: skip
        return joined({**appearance, **learned}, WEIGHTS)


def _learned(sums: Mapping[int, FloatArray]) -> dict[str, FloatArray]:
    """The learned parts, of length 1."""
    return {name: _unit_rows(sums[stride]) for name, stride in STRIDES.items()}


def _input_of(crop: FadedCrop) -> tuple[FloatArray, FloatArray]:
    """The faded crop as ``(3, SIDE, SIDE)`` and its mask as ``(SIDE, SIDE)`` float32.

    A crop that is not square lies in the upper left corner, on grey.
    """
    height, width = crop.crop.mask.shape
    scale = SIDE / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    image = cv2.resize(crop.image_rgb, size, interpolation=cv2.INTER_LINEAR)
    solid = crop.crop.mask.astype(np.float32)
    picture, mask = np.zeros((3, SIDE, SIDE), np.float32), np.zeros((SIDE, SIDE), np.float32)
    picture[:, : size[1], : size[0]] = normalised(image)
    mask[: size[1], : size[0]] = cv2.resize(solid, size, interpolation=cv2.INTER_AREA)
    return picture, mask


def _means(features: FloatArray, masks: FloatArray, stride: int) -> FloatArray:
    """``(N, C)``: means of ``(N, C, h, w)`` features over the shares of their cells that ``(N, H,
    W)`` masks cover."""
    count, side = len(masks), SIDE // stride
    shares = masks.reshape(count, side, stride, side, stride).mean(axis=(2, 4))
    shares /= np.maximum(shares.sum(axis=(1, 2), keepdims=True), 1e-12)
    return np.asarray(np.einsum("nchw,nhw->nc", features, shares), np.float32)


def _unit_rows(vectors: FloatArray) -> FloatArray:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(lengths, 1e-12), np.float32)
