"""The outline around a click, of an object about as large as others."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest

from sam_detect.segmentation._places import Place
from sam_detect.segmentation.around_click import _cheapest, outline_along, outline_around
from sam_detect.types import ImageRGB
from sam_detect.types.masks import BoolArray

SIZE = (120, 160)
NONE = np.zeros(SIZE, np.bool_)


def picture(*circles: tuple[int, int, int], dark: bool = False) -> ImageRGB:
    """Discs x, y, radius on a noisy ground."""
    image = np.full((*SIZE, 3), 200 if dark else 60, np.uint8)
    for x, y, radius in circles:
        cv2.circle(image, (x, y), radius, (90, 60, 80) if dark else (170, 190, 180), -1)
    noise = np.random.default_rng(0).integers(-12, 13, image.shape)
    return np.clip(image.astype(int) + noise, 0, 255).astype(np.uint8)


def disc(x: int, y: int, radius: int) -> BoolArray:
    drawn = np.zeros(SIZE, np.uint8)
    cv2.circle(drawn, (x, y), radius, 1, -1)
    return drawn > 0


def iou(place: Place | None, wanted: BoolArray) -> float:
    assert place is not None
    (x0, y0, x1, y1), crop = place
    found = np.zeros(SIZE, np.bool_)
    found[y0:y1, x0:x1] = crop
    return float((found & wanted).sum() / (found | wanted).sum())


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("radius", [11, 16, 24])
def test_one_click_outlines_an_object(radius: int, dark: bool) -> None:
    """Also one that is half or twice as large as usual."""
    image = picture((80, 60, radius), dark=dark)
    found = outline_around(image, [(83, 58)], [True], [math.pi * 16**2], NONE)
    assert iou(found, disc(80, 60, radius)) > 0.8


def test_it_does_not_go_beyond_named_objects() -> None:
    image = picture((60, 60, 16), (78, 60, 16))
    other = disc(78, 60, 16)
    wanted = disc(60, 60, 16) & ~other
    found = outline_around(image, [(58, 60)], [True], [math.pi * 16**2], other)
    assert iou(found, wanted) > 0.8


def test_a_click_off_the_object_keeps_it_smaller() -> None:
    image = picture((60, 60, 26))
    points, flags = [(60, 60), (60, 82)], [True, False]
    found = outline_around(image, points, flags, [math.pi * 26**2], NONE)
    assert found is not None
    (x0, y0, _, _), crop = found
    assert not crop[82 - y0 :, 60 - x0].any()
    further = outline_around(image, [(60, 60), (60, 82)], [True, True], [math.pi * 9**2], NONE)
    assert iou(further, disc(60, 60, 26)) > 0.8


def test_of_several_sizes_the_one_that_fits_is_taken() -> None:
    image = picture((60, 60, 30))
    found = outline_around(image, [(60, 60)], [True], [math.pi * 8**2, math.pi * 30**2], NONE)
    assert iou(found, disc(60, 60, 30)) > 0.85


def test_where_nothing_is_seen_it_is_as_large_as_others() -> None:
    blank = np.full((*SIZE, 3), 120, np.uint8)
    for radius in (10, 20):
        found = outline_around(blank, [(80, 60)], [True], [math.pi * radius**2], NONE)
        assert iou(found, disc(80, 60, radius)) > 0.9


def test_the_outline_is_closed_and_neighbouring_rays_agree() -> None:
    found = _cheapest(np.random.default_rng(1).random((48, 30), np.float32))
    assert np.abs(np.diff(found, append=found[:1])).max() == 2


@pytest.mark.parametrize("point", [(0.0, 0.0), (159.5, 119.5), (80.0, 0.0)])
def test_at_the_border_it_stays_in_the_picture(point: tuple[float, float]) -> None:
    found = outline_around(picture((80, 0, 14)), [point], [True], [600.0], NONE)
    if found is not None:
        (x0, y0, x1, y1), crop = found
        assert 0 <= x0 < x1 <= SIZE[1]
        assert 0 <= y0 < y1 <= SIZE[0]
        assert crop.shape == (y1 - y0, x1 - x0)


def test_clicks_that_contradict_give_nothing() -> None:
    points = [(60, 60), (61, 60), (90, 60)]
    assert outline_around(picture((60, 60, 16)), points, [True, False, True], [800.0], NONE) is None


def lying(x: int, y: int, axes: tuple[int, int], turn: int) -> BoolArray:
    drawn = np.zeros(SIZE, np.uint8)
    cv2.ellipse(drawn, (x, y), axes, turn, 0, 360, 1, -1)
    return drawn > 0


@pytest.mark.parametrize(("axes", "turn"), [((6, 4), 30), ((20, 13), 120), ((50, 38), 0)])
def test_a_line_along_an_object_outlines_it(axes: tuple[int, int], turn: int) -> None:
    """Of any size, whatever others have; also where the line does not end exactly at its ends."""
    wanted = lying(80, 60, axes, turn)
    image = picture()
    image[wanted] += 110
    way = axes[0] * np.array([math.cos(math.radians(turn)), math.sin(math.radians(turn))])
    middle = np.array([80.5, 60.5])
    for share in (0.9, 1.0, 1.1):
        found = outline_along(image, [middle - share * way, middle + way], NONE)
        assert iou(found, wanted) > (0.7 if axes[0] < 10 else 0.8)


def test_a_line_outlines_what_a_named_object_leaves_of_another() -> None:
    image, other = picture((60, 60, 30)), disc(74, 60, 26)
    found = outline_along(image, [(44, 36), (44, 84)], other)
    assert iou(found, disc(60, 60, 30) & ~other) > 0.6
    assert found is not None
    (x0, y0, x1, y1), crop = found
    # A quarter of it would be the other one's.
    assert (crop & other[y0:y1, x0:x1]).sum() < 0.05 * crop.sum()


def test_a_long_line_is_worked_on_in_a_reduced_picture() -> None:
    """The outline is as large as the line says all the same."""
    image = np.full((1200, 1600, 3), 60, np.uint8)
    cv2.ellipse(image, (800, 600), (700, 500), 0, 0, 360, (170, 190, 180), -1)
    found = outline_along(image, [(100, 600), (1500, 600)], np.zeros((1200, 1600), np.bool_))
    assert found is not None
    np.testing.assert_allclose(found[0], (100, 100, 1500, 1100), atol=12)
