"""Coarse outlines redrawn without weights: too large, too small, beside others, by texture."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from sam_detect.fading import context
from sam_detect.segmentation.redrawn import ENOUGH_TO_LEARN, redraw
from sam_detect.types import Crop, ImageRGB, Masks

Mask = npt.NDArray[np.bool_]
SIDE = 220
PLACES = [(50, 50), (140, 55), (60, 150), (150, 150)]
RADIUS = 26


def disc(x: int, y: int, radius: float) -> Mask:
    mask = np.zeros((SIDE, SIDE), np.uint8)
    cv2.circle(mask, (x, y), round(radius), 1, -1)
    return mask.astype(bool)


def coloured() -> ImageRGB:
    generator = np.random.default_rng(0)
    image = np.full((SIDE, SIDE, 3), (60, 70, 60), np.float64)
    for x, y in PLACES:
        image[disc(x, y, RADIUS)] = (190, 120, 70)
    return np.clip(image + generator.normal(0, 6, image.shape), 0, 255).astype(np.uint8)


def grained() -> ImageRGB:
    """As bright as their ground, and only of a finer grain."""
    generator = np.random.default_rng(0)
    picture = 110 + 60 * cv2.GaussianBlur(generator.normal(0, 1, (SIDE, SIDE)), (0, 0), 3)
    fine = 110 + generator.normal(0, 22, picture.shape)
    for x, y in PLACES:
        picture = np.where(disc(x, y, RADIUS), fine, picture)
    grey = np.clip(picture, 0, 255).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2)


def crops_of(image: ImageRGB, masks: Masks) -> list[Crop]:
    return [
        context.cut(image, crop, box, occupancy=0.2, crop_side=256)
        for crop, box in zip(masks.crops(), masks.boxes_xyxy.tolist(), strict=True)
    ]


def ious(image: ImageRGB, factors: Sequence[float], *, learnt: bool = False) -> list[float]:
    """With the true discs, of outlines whose radii are so many times the true one."""
    places = list(zip(PLACES, factors, strict=True))
    coarse = Masks.from_dense([disc(x, y, factor * RADIUS) for (x, y), factor in places])
    found = []
    redrawn = redraw(image, coarse, crops=crops_of(image, coarse) if learnt else ())
    for (x, y), drawn in zip(PLACES, redrawn, strict=True):
        assert drawn is not None
        crop, (left, top) = drawn
        full = np.zeros((SIDE, SIDE), np.bool_)
        full[top : top + crop.shape[0], left : left + crop.shape[1]] = crop
        true = disc(x, y, RADIUS)
        found.append(np.count_nonzero(full & true) / np.count_nonzero(full | true))
    return found


@pytest.mark.parametrize("factor", [0.85, 1.0, 1.15])
def test_outlines_find_the_edge_from_inside_and_from_outside(factor: float) -> None:
    assert min(ious(coloured(), [factor] * len(PLACES))) > 0.93


def test_what_differs_by_texture_is_learnt_from_the_outlines_themselves() -> None:
    """Some are drawn too large and some too small; what is wrong with all of them is learnt."""
    factors = (0.88, 1.12, 1.08, 0.92)
    learnt = ious(grained(), factors, learnt=True)
    assert np.mean(learnt) > np.mean(ious(grained(), factors)) + 0.1
    assert np.mean(learnt) > 0.8


def test_an_outline_does_not_grow_into_another_one() -> None:
    """Two halves of one disc, annotated as two objects."""
    image, (x, y) = coloured(), PLACES[0]
    left = disc(x, y, RADIUS) & (np.arange(SIDE) < x)
    right = disc(x, y, RADIUS) & (np.arange(SIDE) >= x)
    for drawn, own, other in zip(
        redraw(image, Masks.from_dense([left, right])), (left, right), (right, left), strict=True
    ):
        assert drawn is not None
        crop, (x0, y0) = drawn
        full = np.zeros((SIDE, SIDE), np.bool_)
        full[y0 : y0 + crop.shape[0], x0 : x0 + crop.shape[1]] = crop
        assert np.count_nonzero(full & own) > 0.8 * np.count_nonzero(own)
        assert np.count_nonzero(full & other) < 0.1 * np.count_nonzero(other)


def test_too_few_outlines_teach_nothing() -> None:
    image = coloured()
    few = Masks.from_dense([disc(*place, RADIUS) for place in PLACES[: ENOUGH_TO_LEARN - 1]])
    learning = redraw(image, few, crops=crops_of(image, few))
    for plain, learnt in zip(redraw(image, few), learning, strict=True):
        assert plain is not None
        assert learnt is not None
        assert (plain[0] == learnt[0]).all()
