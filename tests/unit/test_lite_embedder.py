"""The embedder lite: the parts of appearance, and learned features, half and half."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest

from sam_detect.embedding import AppearanceEmbedder, LiteEmbedder
from sam_detect.embedding.lite import LEARNED
from sam_detect.fading import GaussianFade, context
from sam_detect.models.efficientnet_lite0 import normalised, shared_network
from sam_detect.types import Crop, FadedCrop


def crop_of(seed: int, size_hw: tuple[int, int] = (96, 96), *, striped: bool = False) -> FadedCrop:
    """A disc on noise; its area and mean colour do not depend on whether it is striped."""
    height, width = size_hw
    y, x = np.mgrid[:height, :width]
    mask = (y - height / 2) ** 2 + (x - width / 2) ** 2 < (min(size_hw) / 4) ** 2
    image = np.random.default_rng(seed).integers(90, 110, (height, width, 3)).astype(np.uint8)
    image[mask] = (180, 120, 60)
    if striped:
        image[mask & (y % 8 < 4)] = (200, 140, 80)
        image[mask & (y % 8 >= 4)] = (160, 100, 40)
    crop = Crop(image_rgb=image, mask=mask, window_xyxy=(0, 0, width, height), scale=1.0)
    return context.faded(crop, GaussianFade())


def test_the_rest_of_the_similarity_is_that_of_appearance() -> None:
    crops = [crop_of(seed, striped=bool(seed % 2)) for seed in range(4)]
    ours, appearance = LiteEmbedder("crop").embed(crops), AppearanceEmbedder().embed(crops)
    count = appearance.shape[1]
    np.testing.assert_allclose(ours[:, :count], appearance * np.sqrt(1 - LEARNED), atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(ours[:, count:], axis=1), np.sqrt(LEARNED), atol=1e-5)


def test_learned_features_tell_patterns_apart() -> None:
    plain, other, striped = LiteEmbedder("crop").embed(
        [crop_of(0), crop_of(1), crop_of(2, striped=True)]
    )
    learned = slice(AppearanceEmbedder().dimension, None)
    same, differ = plain[learned] @ other[learned], plain[learned] @ striped[learned]
    assert same > 0.9 * LEARNED > differ + 0.04


def test_the_features_are_the_mean_over_the_mask() -> None:
    """By hand: each cell counts by the share of it that the mask covers."""
    crop = crop_of(3)
    vector = LiteEmbedder("crop").embed([crop])[0]
    features = shared_network()(normalised(crop.image_rgb)[None])[8][0]
    shares = crop.crop.mask.reshape(12, 8, 12, 8).mean(axis=(1, 3))
    expected = (features * shares).sum(axis=(1, 2))
    expected *= math.sqrt(LEARNED / 2) / np.linalg.norm(expected)
    start = AppearanceEmbedder().dimension
    np.testing.assert_allclose(vector[start : start + 40], expected, atol=1e-5)


@pytest.mark.parametrize("size_hw", [(48, 96), (96, 30), (20, 20), (7, 9)])
def test_a_crop_of_any_shape_keeps_its_proportions(size_hw: tuple[int, int]) -> None:
    """The same crop, already scaled and put onto grey by hand."""
    crop = crop_of(4, size_hw)
    height, width = size_hw
    scale = 96 / max(size_hw)
    size = round(width * scale), round(height * scale)
    picture = np.zeros((3, 96, 96), np.float32)
    picture[:, : size[1], : size[0]] = normalised(cv2.resize(crop.image_rgb, size))
    mask = np.zeros((96, 96), np.float32)
    mask[: size[1], : size[0]] = cv2.resize(
        crop.crop.mask.astype(np.float32), size, interpolation=cv2.INTER_AREA
    )
    shares = mask.reshape(6, 16, 6, 16).mean(axis=(1, 3))
    expected = (shared_network()(picture[None])[16][0] * shares).sum(axis=(1, 2))
    expected *= math.sqrt(LEARNED / 2) / np.linalg.norm(expected)
    np.testing.assert_allclose(LiteEmbedder("crop").embed([crop])[0, -112:], expected, atol=1e-5)
