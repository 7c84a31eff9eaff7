"""Objects that are too small in a large picture: it is said before they are missed."""

from __future__ import annotations

import warnings

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from sam_detect import SAMDetect
from sam_detect.segmentation import NaiveSegmenter
from sam_detect.types import Frame
from sam_detect.types.masks import BoolArray
from sam_detect.vector_store import MemoryVectorStore


def discs(side: int, radius: int, step: int = 100) -> tuple[npt.NDArray[np.uint8], BoolArray]:
    """A square picture of dark discs on a light ground, and the mask of the first one."""
    image = np.full((side, side, 3), 225, np.uint8)
    for x in range(step // 2, side, step):
        for y in range(step // 2, side, step):
            cv2.circle(image, (x, y), radius, (60, 40, 120), -1)
    first = np.zeros((side, side), np.uint8)
    cv2.circle(first, (step // 2, step // 2), radius, 1, -1)
    return image, first.astype(bool)


def taught(radius: int) -> SAMDetect:
    detector = SAMDetect(
        segmenter="naive", embedder="average", vector_store=MemoryVectorStore(), color_order="rgb"
    )
    image, mask = discs(400, radius)
    detector.add_example(image, "disc", mask)
    return detector


def test_the_limit_is_what_the_segmenter_finds() -> None:
    """Of discs above the limit nearly all are proposed, of discs far below it none."""
    segmenter = NaiveSegmenter()
    limit = segmenter.smallest_area((2000, 2000))
    assert limit == pytest.approx(28 * 2000**2 / 700_000)
    found = {}
    for radius in (4, 10):
        image, mask = discs(2000, radius)
        masks = segmenter.propose(Frame(image))
        alike = (masks.areas > mask.sum() / 2) & (masks.areas < mask.sum() * 2)
        found[radius] = np.count_nonzero(alike) / 400
        assert (mask.sum() > limit) == (radius == 10)
    assert found[4] < 0.05
    assert found[10] > 0.9


def test_it_is_said_where_the_smallest_example_is_too_small() -> None:
    detector, image = taught(radius=2), discs(2000, 2, step=200)[0]
    with pytest.warns(UserWarning, match="are lost") as caught:
        detector.detect(Frame(image, "mosaic.tif"))
    [text] = [str(each.message) for each in caught if each.category is UserWarning]
    assert text.startswith("mosaic.tif: in windows of 702x702 pixels, objects of fewer than ")
    assert "pixels (5 across) are lost; the smallest example has 13, and 13.0" in text


@pytest.mark.parametrize(("radius", "side"), [(5, 400), (5, 800), (12, 2000), (5, 2000)])
def test_nothing_is_said_where_it_is_large_enough(radius: int, side: int) -> None:
    detector = taught(radius)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        detector.detect(Frame(discs(side, radius)[0]))


def test_nothing_is_said_of_an_empty_library_or_of_negatives() -> None:
    detector = SAMDetect(segmenter="naive", embedder="average", vector_store=MemoryVectorStore())
    detector.add_example(discs(400, 5)[0], "disc", discs(400, 5)[1], negative=True)
    image = discs(2000, 5)[0]
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        detector.detect(Frame(image))


def test_a_limit_that_is_asked_for_is_the_limit() -> None:
    assert NaiveSegmenter(min_area=400).smallest_area((2000, 2000)) == pytest.approx(400, rel=0.02)
    assert NaiveSegmenter(min_area=1).smallest_area((2000, 2000)) == pytest.approx(5.7, rel=0.01)
    assert NaiveSegmenter().smallest_area((100, 100)) == 16
    assert NaiveSegmenter().worked_pixels((100, 100)) == 10_000
