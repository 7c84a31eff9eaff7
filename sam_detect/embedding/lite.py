"""Learned features of a small network, joined with those of ``appearance``: no GPU, no download.

The network knows textures and forms; it is trained to ignore colour, size and contrast, which tell
nuclei from debris. The parts of ``appearance`` have one half of the weight.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from sam_detect.embedding.appearance import (
    PART_LENGTHS,
    PART_WEIGHTS,
    AppearanceEmbedder,
    describe,
    joined,
)
from sam_detect.masks import FloatArray
from sam_detect.models.efficientnet_lite0 import (
    CHANNELS,
    normalised,
    shared_network,
)
from sam_detect.types import FadedCrop

SIDE = 96
"""Side of the network's input in pixels; crops are enlarged or reduced to it."""
STRIDES = {"features8": 8, "features16": 16}
"""The parts made of learned features, with their strides. Features of stride 4 are edges."""
LEARNED = 0.5
"""Weight of the learned features together."""
WEIGHTS = {
    **{name: weight * (1 - LEARNED) for name, weight in PART_WEIGHTS.items()},
    **dict.fromkeys(STRIDES, LEARNED / len(STRIDES)),
}
"""The parts in the order of the vector, with their weights in the similarity."""
LENGTHS = {**PART_LENGTHS, **{name: CHANNELS[stride] for name, stride in STRIDES.items()}}
"""Dimensions of each part."""


class LiteEmbedder(AppearanceEmbedder):
    """The parts of :class:`AppearanceEmbedder`, and EfficientNet-Lite0's features of two strides.

    The faded crop, of which the object takes a fifth, goes through the network; its features are
    averaged over the mask.

    Raises:
        UnavailableError: the weights or OpenVINO are not installed.
    """

    name = "lite"
    version = 1  # stands for the weights, too: only one file of them is accepted
    input_side = SIDE
    cheap = False
    # typical of crops of one label; a library estimates its own from its examples
    prior_similarity = 0.85
    parts = LENGTHS

    def __init__(self) -> None:
        self._network = shared_network()

    @property
    def dimension(self) -> int:
        return sum(LENGTHS.values())

    def scene_weights(self) -> FloatArray:
        learned = np.ones(sum(LENGTHS[name] for name in STRIDES), np.float32)
        return np.concatenate([super().scene_weights(), learned])

    def embed(self, crops: Sequence[FadedCrop]) -> FloatArray:
        if not crops:
            return np.zeros((0, self.dimension), np.float32)
        pieces = [_input_of(crop) for crop in crops]
        features = self._network(np.stack([picture for picture, _ in pieces]))
        masks = np.stack([mask for _, mask in pieces])
        learned = {
            name: _unit_rows(_means(features[stride], masks, stride))
            for name, stride in STRIDES.items()
        }
        return joined({**describe(crops), **learned}, WEIGHTS)


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
