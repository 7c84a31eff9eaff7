"""Measures of shapes, against figures that a person works out, and scikit-image."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, label
from skimage.measure import regionprops

from sam_detect.io.shapes import Shape, measured
from sam_detect.types import Classification, Detections, Masks
from sam_detect.types.masks import BoolArray


def of(mask: BoolArray) -> Shape:
    image = np.zeros((*mask.shape, 3), np.uint8)
    image[mask] = (10, 20, 30)
    found = Detections("x", Masks.from_dense(mask), (Classification("nut", "nut", 1.0),))
    return measured(found[0], image)


def disc(radius: int) -> BoolArray:
    y, x = np.mgrid[-60:61, -60:61]
    return np.asarray(x * x + y * y <= radius * radius)


def test_a_disc_is_round_and_solid() -> None:
    shape = of(disc(40))
    assert shape.perimeter == pytest.approx(2 * np.pi * 40, rel=0.02)
    assert shape.circularity > 0.95
    assert shape.aspect_ratio == pytest.approx(1, abs=0.01)
    assert shape.solidity > 0.98
    assert shape.means == (10, 20, 30)


def test_a_rectangle_has_its_own_measures() -> None:
    mask = np.zeros((50, 80), np.bool_)
    mask[10:20, 5:45] = True
    shape = of(mask)
    assert shape.perimeter == 100
    assert shape.circularity == pytest.approx(4 * np.pi * 400 / 100**2)
    assert shape.aspect_ratio == pytest.approx(4)
    assert shape.solidity == 1


def test_a_corner_is_not_solid_and_a_pixel_is_measured_too() -> None:
    mask = np.zeros((50, 50), np.bool_)
    mask[10:40, 10:20] = mask[30:40, 10:40] = True
    assert of(mask).solidity == pytest.approx(500 / 700)
    pixel = np.zeros((5, 5), np.bool_)
    pixel[2, 3] = True
    assert of(pixel) == Shape(4, pytest.approx(np.pi / 4), 1, 1, (10, 20, 30))


@pytest.mark.parametrize("seed", range(5))
def test_aspect_ratio_and_solidity_are_about_those_of_scikit_image(seed: int) -> None:
    noise = gaussian_filter(np.random.default_rng(seed).normal(size=(90, 110)), 4)
    numbers, _ = label(noise > 0.02)
    for region in regionprops(numbers):
        if region.area < 100:
            continue
        shape = of(numbers == region.label)
        expected = region.axis_major_length / region.axis_minor_length
        assert shape.aspect_ratio == pytest.approx(expected, rel=0.03)
        assert shape.solidity == pytest.approx(region.solidity, abs=0.05)
