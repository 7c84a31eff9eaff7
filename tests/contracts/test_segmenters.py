"""What every registered segmenter keeps to: the promises of ``interfaces.Segmenter``."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from sam_detect import registry
from sam_detect.config import load_settings
from sam_detect.errors import ConfigError, UnavailableError
from sam_detect.interfaces import Segmenter
from sam_detect.parts import make_segmenter
from sam_detect.types import Frame, Hints, Masks
from tests.closeness import same_masks

NAMES = registry.names("segmenter")
DISCS = [((40, 40), 18), ((120, 45), 22), ((60, 110), 25), ((135, 115), 15)]


Make = Callable[..., Segmenter]
KNOWS_NOTHING = {"sam2"}
"""Models of random weights propose something in every picture, but nothing in particular."""


@pytest.fixture
def make(model_files: dict[str, Path]) -> Make:
    """Makes the segmenter of a name; one that runs a model with a small one of random weights."""
    of_model = {"sam2": {"sam_model": str(model_files.get("sam2", "")) or None,
                         "points_per_side": 6, "device": "cpu"}}  # fmt: skip

    def made(name: str, **settings: Any) -> Segmenter:
        asked = {"segmenter": name, **of_model.get(name, {}), **settings}
        try:
            return make_segmenter(load_settings(asked))
        except UnavailableError as error:
            pytest.skip(str(error))

    return made


@pytest.fixture(params=NAMES)
def segmenter(request: pytest.FixtureRequest, make: Make) -> Segmenter:
    return make(request.param)


def disc(number: int) -> npt.NDArray[np.bool_]:
    (x0, y0), radius = DISCS[number]
    y, x = np.ogrid[:150, :180]
    return np.asarray((x - x0) ** 2 + (y - y0) ** 2 <= radius**2)


def scene(seed: int = 0) -> Frame:
    """Four discs, apart, of clear colours on a grey ground with a little noise."""
    image = np.full((150, 180, 3), 90, np.int16)
    colours = [(220, 60, 50), (60, 90, 220), (240, 220, 90), (30, 20, 25)]
    for number, colour in enumerate(colours):
        image[disc(number)] = colour
    image += np.random.default_rng(seed).integers(-5, 6, image.shape, dtype=np.int16)
    return Frame(image.clip(0, 255).astype(np.uint8))


def check_form(masks: Masks, frame: Frame) -> None:
    count = len(masks)
    assert masks.size_hw == frame.size_hw
    assert masks.boxes_xyxy.shape == (count, 4)
    assert masks.boxes_xyxy.dtype == np.int64
    assert masks.areas.dtype == np.int64
    for values in (masks.predicted_ious, masks.stabilities):
        assert values.dtype == np.float32
        assert ((values >= 0) & (values <= 1)).all()
    for index, crop in enumerate(masks.crops()):
        assert np.count_nonzero(crop) == masks.areas[index] > 0
        for edge in (crop[0], crop[-1], crop[:, 0], crop[:, -1]):
            assert edge.any(), "boxes are tight"


@pytest.mark.parametrize("name", sorted(set(NAMES) - KNOWS_NOTHING))
def test_every_clear_object_is_proposed(name: str, make: Make) -> None:
    frame = scene()
    masks = make(name).propose(frame)
    check_form(masks, frame)
    dense = [masks.dense(index) for index in range(len(masks))]
    for number in range(len(DISCS)):
        truth = disc(number)
        best = max((d & truth).sum() / (d | truth).sum() for d in dense)
        assert best > 0.8, f"disc {number}"


def test_proposals_have_the_documented_form(segmenter: Segmenter) -> None:
    for frame in (scene(), scene(1)):
        masks = segmenter.propose(frame)
        check_form(masks, frame)
        assert len(masks) > 0


def test_a_grey_picture_is_taken(segmenter: Segmenter) -> None:
    grey = np.repeat(scene().image_rgb.mean(axis=2, keepdims=True).astype(np.uint8), 3, axis=2)
    check_form(segmenter.propose(Frame(grey)), Frame(grey))


@pytest.mark.parametrize("areas", [None, (1, 1), (50, 900), (10**6, 10**7)])
def test_told_the_sizes_that_are_sought_it_still_proposes(
    segmenter: Segmenter, areas: tuple[int, int] | None
) -> None:
    before = segmenter.propose(scene())
    sized = segmenter.propose(scene(), Hints(areas))
    check_form(sized, scene())
    assert same_masks(segmenter.propose(scene(), Hints(areas)), sized)
    assert same_masks(segmenter.propose(scene()), before), "the segmenter itself stays as it is"


def test_no_mask_is_proposed_twice(segmenter: Segmenter) -> None:
    masks = segmenter.propose(scene())
    found = {(tuple(box), rle) for box, rle in zip(masks.boxes_xyxy.tolist(), masks.crop_rles,
                                                   strict=True)}  # fmt: skip
    assert len(found) == len(masks)


def test_proposals_come_best_first(segmenter: Segmenter) -> None:
    qualities = segmenter.propose(scene()).predicted_ious
    assert (np.diff(qualities) <= 0).all()


@pytest.mark.parametrize("value", [0, 128, 255])
@pytest.mark.parametrize("size_hw", [(1, 1), (64, 80)])
def test_a_picture_without_structure_has_no_proposals(
    segmenter: Segmenter, size_hw: tuple[int, int], value: int
) -> None:
    frame = Frame(np.full((*size_hw, 3), value, np.uint8))
    masks = segmenter.propose(frame)
    check_form(masks, frame)
    assert len(masks) == 0


@pytest.mark.parametrize(
    "size_hw", [(1, 1), (1, 2), (2, 1), (1, 200), (200, 1), (2, 2), (3, 300), (7, 5), (16, 16)]
)
def test_pictures_of_any_shape_are_taken(segmenter: Segmenter, size_hw: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*size_hw, 3), dtype=np.uint8)
    check_form(segmenter.propose(Frame(image)), Frame(image))


def test_noise_is_taken(segmenter: Segmenter) -> None:
    image = np.random.default_rng(0).integers(0, 256, (96, 96, 3), dtype=np.uint8)
    check_form(segmenter.propose(Frame(image)), Frame(image))


def test_a_picture_that_is_not_contiguous_is_taken_as_a_copy_of_it(segmenter: Segmenter) -> None:
    image = scene().image_rgb
    flipped = image[::-1, :, ::-1]
    masks = segmenter.propose(Frame(flipped))
    assert same_masks(masks, segmenter.propose(Frame(flipped.copy())))


def test_the_same_picture_has_the_same_proposals_each_time(segmenter: Segmenter) -> None:
    first = segmenter.propose(scene())
    segmenter.propose(scene(1))
    assert same_masks(segmenter.propose(scene()), first)


@pytest.mark.parametrize("name", NAMES)
def test_a_new_segmenter_proposes_the_same(name: str, make: Make) -> None:
    assert same_masks(make(name).propose(scene()), make(name).propose(scene()))


def test_the_picture_does_not_change(segmenter: Segmenter) -> None:
    frame = scene()
    before = frame.image_rgb.copy()
    segmenter.propose(frame)
    np.testing.assert_array_equal(frame.image_rgb, before)


def test_two_threads_get_what_one_gets(segmenter: Segmenter) -> None:
    frames = [scene(seed) for seed in range(4)]
    alone = [segmenter.propose(frame) for frame in frames]
    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(segmenter.propose, frames))
    assert all(same_masks(a, b) for a, b in zip(alone, together, strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_limits_of_area_and_number_hold(name: str, make: Make) -> None:
    frame = scene()
    everything = make(name).propose(frame)
    assert len(everything) > 2
    least, most = (int(np.quantile(everything.areas, share)) for share in (0.2, 0.8))
    limited = make(name, min_area=least, max_area=most).propose(frame).areas
    assert ((limited >= least) & (limited <= most)).all()
    assert len(limited) >= 1
    few = make(name, max_proposals=2).propose(frame)
    assert len(few) == 2
    assert few.predicted_ious.tolist() == everything.predicted_ious[:2].tolist()


@pytest.mark.parametrize("name", sorted(set(NAMES) - KNOWS_NOTHING))
def test_objects_within_the_limits_of_area_are_proposed(name: str, make: Make) -> None:
    areas = make(name, min_area=800, max_area=1700).propose(scene()).areas
    assert ((areas >= 800) & (areas <= 1700)).all()
    assert len(areas) >= 1, "the discs of 1017 and 1520 pixels"


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("wrong", [{"min_area": 9, "max_area": 8}, {"min_area": -1}])
def test_limits_that_cannot_be_meant_are_refused(
    name: str, make: Make, wrong: dict[str, int]
) -> None:
    with pytest.raises(ConfigError, match="min_area") as caught:
        make(name, **wrong)
    assert "\n" not in str(caught.value)
