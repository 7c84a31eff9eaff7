"""The weights-free segmenter: on drawn pictures, and its recall on annotated ones."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from sam_detect.errors import ConfigError
from sam_detect.io import load_image
from sam_detect.segmentation import NaiveSegmenter
from sam_detect.segmentation._level_sets import Basis, planes
from sam_detect.segmentation._ranking import Outlines, Ranker, keep_best
from sam_detect.segmentation._regions import (
    RegionProposal,
    boxes_xyxy,
    distinct,
    split_touching,
    whole_region,
)
from sam_detect.types import Frame, Hints, Masks, SimilarityMap
from sam_detect.types.polygons import coco_polygons, polygons_to_mask
from scripts.dev.overlaps import iou_matrix, nms
from tests.closeness import same_masks

Image = npt.NDArray[np.uint8]


def ground(height: int = 160, width: int = 200, grey: int = 60) -> Image:
    noise = np.random.default_rng(0).normal(0, 3, (height, width, 3))
    return np.clip(grey + noise, 0, 255).astype(np.uint8)


def disc(image: Image, x: int, y: int, radius: int, grey: int) -> npt.NDArray[np.bool_]:
    cv2.circle(image, (x, y), radius, (grey, grey, grey), -1, cv2.LINE_AA)
    mask = np.zeros(image.shape[:2], np.uint8)
    cv2.circle(mask, (x, y), radius, 1, -1)
    return mask.astype(bool)


def best_iou(masks: Masks, wanted: npt.NDArray[np.bool_]) -> float:
    best = 0.0
    for index in range(len(masks)):
        found = masks.dense(index)
        best = max(best, float((found & wanted).sum() / (found | wanted).sum()))
    return best


def segment(image: Image, **options: int) -> Masks:
    return NaiveSegmenter(**options).propose(Frame(image))


def hollowed(
    image: Image, mask: npt.NDArray[np.bool_], x: int, y: int, radius: int
) -> npt.NDArray[np.bool_]:
    """The mask without a disc, in which the picture shows its ground again."""
    hole = np.zeros(mask.shape, np.uint8)
    cv2.circle(hole, (x, y), radius, 1, -1)
    blank = ground(*image.shape[:2], grey=int(np.median(image)))
    image[hole > 0] = blank[hole > 0]
    return mask & (hole == 0)


@pytest.mark.parametrize(("paper", "ink"), [(60, 200), (200, 60)])
@pytest.mark.parametrize("hole", [13, 18, 24, 27])
def test_finds_rings_with_their_holes_open(paper: int, ink: int, hole: int) -> None:
    """Of a fifth of the disc to most of it."""
    image = ground(grey=paper)
    full = [disc(image, 50, 60, 30, ink), disc(image, 140, 90, 30, ink)]
    wanted = [hollowed(image, full[0], 50, 60, hole), hollowed(image, full[1], 140, 90, hole)]
    for x, y in ((46, 57), (143, 92)):  # dirt in the holes
        disc(image, x, y, 2, (paper + ink) // 2)
    found = segment(image)
    assert min(best_iou(found, mask) for mask in wanted) > 0.75
    if hole > 13:
        assert min(best_iou(found, mask) for mask in full) > 0.75, "the disc stays a proposal"


def test_a_hole_of_a_sixth_is_open_too() -> None:
    """An example with that hole is not found by its filled outline."""
    image = ground(grey=200)
    wanted = hollowed(image, disc(image, 80, 80, 30, 60), 80, 80, 12)
    assert best_iou(segment(image), wanted) > 0.92


def test_finds_both_holes_of_one_thing() -> None:
    image = ground(grey=210)
    one, other = disc(image, 60, 80, 28, 70), disc(image, 118, 80, 28, 70)
    image[76:84, 80:98] = 70
    whole = one | other
    whole[76:84, 80:98] = True
    wanted = hollowed(image, hollowed(image, whole, 60, 80, 19), 118, 80, 19)
    assert best_iou(segment(image), wanted) > 0.75


@pytest.mark.parametrize(
    ("paper", "ink", "light"), [(200, 70, 255), (60, 170, 255), (60, 170, 110)]
)
def test_a_spot_on_a_disc_is_no_hole(paper: int, ink: int, light: int) -> None:
    """A reflection or a stain: it does not show what is around the disc."""
    image = ground(grey=paper)
    whole = disc(image, 100, 80, 34, ink)
    disc(image, 108, 74, 13, light)
    found = segment(image)
    assert best_iou(found, whole) > 0.9
    for index in range(len(found)):
        mask = found.dense(index)
        if (mask & whole).sum() > 0.7 * whole.sum():
            filled = whole_region(0, 0, mask).area
            assert mask.sum() > 0.95 * filled, "nothing is open"


@pytest.mark.parametrize(("paper", "ink"), [(60, 200), (200, 60)])
def test_finds_discs_brighter_or_darker_than_their_ground(paper: int, ink: int) -> None:
    image = ground(grey=paper)
    wanted = [disc(image, 50, 50, 18, ink), disc(image, 140, 100, 25, ink)]
    found = segment(image)
    assert min(best_iou(found, mask) for mask in wanted) > 0.85


def test_takes_touching_discs_apart() -> None:
    image = ground()
    wanted = [disc(image, 80, 80, 22, 190), disc(image, 120, 80, 22, 190)]
    found = segment(image)
    assert min(best_iou(found, mask) for mask in wanted) > 0.8
    assert best_iou(found, wanted[0] | wanted[1]) > 0.85  # the pair stays a proposal as well


def test_finds_a_dim_disc_beside_bright_ones() -> None:
    image = ground(grey=20)
    for x in (30, 170):
        disc(image, x, 30, 15, 240)
    dim = disc(image, 100, 110, 14, 40)
    assert best_iou(segment(image), dim) > 0.7


def test_finds_discs_on_a_ramp_brighter_than_they_are() -> None:
    ramp = np.linspace(20, 220, 200)[None, :, None] * np.ones((160, 1, 3))
    noise = np.random.default_rng(0).normal(0, 1, ramp.shape)
    wanted = []
    for x in (40, 100, 160):
        mask = np.zeros((160, 200), np.uint8)
        cv2.circle(mask, (x, 80), 12, 1, -1)
        wanted.append(mask.astype(bool))
    lighter = 14 * np.logical_or.reduce(wanted)[..., None]
    image = np.clip(ramp + noise + lighter, 0, 255).astype(np.uint8)
    found = segment(image)
    assert min(best_iou(found, mask) for mask in wanted) > 0.6


def test_dim_things_span_more_levels_in_the_logarithm() -> None:
    image = np.full((90, 90, 3), 10, np.uint8)
    image[:30] = 250
    image[60:] = 24
    plain, half, logarithm = list(planes(image))[:3]
    step = [int(p.values[75, 45]) - int(p.values[45, 45]) for p in (plain, logarithm)]
    assert half.values.shape == (45, 45)
    assert step[1] > 3 * step[0] > 0


def test_finds_a_drawn_thing_that_fills_most_of_the_picture() -> None:
    image = np.full((160, 200, 3), 90, np.uint8)
    image[20:150, 10:170] = 140
    assert best_iou(segment(image), image[..., 0] == 140) > 0.95


def test_fills_holes() -> None:
    image = ground()
    whole = disc(image, 100, 80, 35, 200)
    disc(image, 100, 80, 15, 60)
    assert best_iou(segment(image), whole) > 0.9


def test_an_object_inside_another_survives() -> None:
    image = ground(grey=40)
    plate, food = disc(image, 100, 80, 60, 140), disc(image, 110, 85, 15, 230)
    found = segment(image)
    assert best_iou(found, plate) > 0.9
    assert best_iou(found, food) > 0.85


def test_colour_alone_is_enough() -> None:
    image = np.full((120, 120, 3), (110, 110, 110), np.uint8)
    mask = np.zeros((120, 120), np.uint8)
    cv2.circle(mask, (60, 60), 25, 1, -1)
    image[mask == 1] = (150, 95, 100)
    assert best_iou(segment(image), mask.astype(bool)) > 0.85


def test_a_faint_colour_beside_a_strong_one_is_enough() -> None:
    lab = np.full((160, 200, 3), (150, 128, 128), np.uint8)
    cv2.circle(lab, (50, 80), 35, (150, 190, 170), -1)
    faint = np.zeros((160, 200), np.uint8)
    cv2.circle(faint, (145, 80), 25, 1, -1)
    lab[faint == 1] = (150, 140, 132)
    image = np.asarray(cv2.cvtColor(lab, cv2.COLOR_LAB2RGB), np.uint8)
    assert best_iou(segment(image), faint.astype(bool)) > 0.85


def test_area_limits_hold() -> None:
    image = ground()
    disc(image, 40, 40, 8, 200)
    disc(image, 130, 90, 30, 200)
    areas = segment(image, min_area=500, max_area=4000).areas
    assert len(areas)
    assert areas.min() >= 500
    assert areas.max() <= 4000


def test_gives_the_best_when_there_are_too_many() -> None:
    image = ground()
    for x in range(20, 200, 30):
        disc(image, x, 80, 10, 200)
    every = segment(image)
    few = segment(image, max_proposals=3)
    assert len(few) == 3 < len(every)
    assert few.predicted_ious.tolist() == every.predicted_ious[:3].tolist()


def test_best_come_first_with_scores_from_0_to_1() -> None:
    image = ground()
    disc(image, 100, 80, 30, 200)
    scores = segment(image).predicted_ious
    assert (np.diff(scores) <= 0).all()
    assert scores.min() >= 0
    assert scores.max() <= 1


def test_the_same_picture_gives_the_same_masks_in_any_thread() -> None:
    image = np.random.default_rng(1).integers(0, 255, (90, 120, 3), dtype=np.uint8)
    image = np.asarray(cv2.GaussianBlur(image, (0, 0), 3), np.uint8)
    with ThreadPoolExecutor(3) as pool:
        runs = list(pool.map(lambda _: segment(image), range(4)))
    for run in runs[1:]:
        assert run.crop_rles == runs[0].crop_rles
        assert (run.boxes_xyxy == runs[0].boxes_xyxy).all()
        assert (run.predicted_ious == runs[0].predicted_ious).all()


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (40, 1), (2, 2), (3, 3), (5, 500)])
@pytest.mark.filterwarnings("error")
def test_the_smallest_pictures_are_no_trouble(size: tuple[int, int]) -> None:
    rng = np.random.default_rng(2)
    segment(rng.integers(0, 255, (*size, 3), dtype=np.uint8))
    assert len(segment(np.full((*size, 3), 128, np.uint8))) == 0


def test_a_picture_that_is_looked_at_again_is_not_worked_on_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    worked_on: list[tuple[int, int]] = []
    before = Basis.of

    def note(image: Image, limits: tuple[int, int]) -> Basis:
        worked_on.append(limits)
        return before(image, limits)

    monkeypatch.setattr(Basis, "of", note)
    image = ground()
    wanted = disc(image, 90, 70, 20, 200)
    first, second = Frame(image), Frame(image.copy())
    for segmenter in (NaiveSegmenter(), NaiveSegmenter(max_proposals=3)):
        assert best_iou(segmenter.propose(first), wanted) > 0.9
    assert len(worked_on) == 1
    NaiveSegmenter(max_area=500).propose(first)
    assert len(worked_on) == 2, "other limits, other regions"
    NaiveSegmenter().propose(second)
    NaiveSegmenter().propose(first)
    assert len(worked_on) == 4, "one picture is kept"


def test_noise_gives_a_bounded_number_of_proposals() -> None:
    noise = np.random.default_rng(3).integers(0, 255, (400, 500, 3), dtype=np.uint8)
    assert len(segment(noise)) <= 1000


def test_a_large_picture_is_worked_on_small_and_answered_large() -> None:
    image = ground(2400, 3200)
    wanted = disc(image, 1500, 1200, 300, 200)
    found = segment(image)
    assert found.size_hw == (2400, 3200)
    assert best_iou(found[:5], wanted) > 0.95


@pytest.mark.parametrize(
    "options",
    [{"min_area": -1}, {"max_area": -5}, {"min_area": 9, "max_area": 8}, {"max_proposals": 0}],
)
def test_impossible_limits_are_refused(options: dict[str, int]) -> None:
    with pytest.raises(ConfigError):
        NaiveSegmenter(**options)


def blobs(count: int, size: int = 60, seed: int = 0) -> list[RegionProposal]:
    """Random regions of a picture of 200 x 200: parts of smooth noise, some with holes."""
    rng = np.random.default_rng(seed)
    regions = []
    for _ in range(count):
        height, width = rng.integers(3, size, 2)
        noise = cv2.GaussianBlur(rng.normal(size=(height, width)), (0, 0), 2)
        crop = np.ascontiguousarray(noise > np.quantile(noise, 0.4))
        x, y = rng.integers(0, 200 - width), rng.integers(0, 200 - height)
        regions.append(whole_region(int(x), int(y), crop))
    return regions


def test_a_region_is_one_part_without_holes_in_a_tight_crop() -> None:
    for region in blobs(100):
        parts, _ = cv2.connectedComponents(region.crop.view(np.uint8), connectivity=8)
        outside, _ = cv2.connectedComponents(
            np.pad(~region.crop, 1, constant_values=True).view(np.uint8), connectivity=4
        )
        assert (parts, outside) == (2, 2)
        assert region.area == region.crop.sum()
        assert region.crop.any(axis=0).all()
        assert region.crop.any(axis=1).all()
        assert 0 < region.solidity <= 1


def test_solidity_is_that_of_the_shape() -> None:
    square = np.ones((40, 40), np.bool_)
    corner = square.copy()
    corner[:20, 20:] = False  # an L: three quarters of the square, of a hull of seven eighths
    assert whole_region(0, 0, square).solidity == pytest.approx(1, abs=0.01)
    assert whole_region(0, 0, corner).solidity == pytest.approx(6 / 7, abs=0.02)


def test_means_inside_come_from_the_outline_alone() -> None:
    picture = np.random.default_rng(1).normal(size=(200, 200, 2))
    picture = cv2.GaussianBlur(picture, (0, 0), 3).astype(np.float32)
    picture /= picture.std()
    regions = [region for region in blobs(60) if region.area > 20]
    row_sums = np.cumsum(picture, axis=1) - picture / 2
    means = Outlines.of(regions).mean_inside(picture, row_sums)
    for region, found in zip(regions, means, strict=True):
        height, width = region.crop.shape
        window = picture[region.y0 : region.y0 + height, region.x0 : region.x0 + width]
        assert found == pytest.approx(window[region.crop].mean(axis=0), abs=0.05)


def test_outward_is_away_from_the_region() -> None:
    mask = np.zeros((61, 61), np.uint8)
    cv2.circle(mask, (30, 30), 20, 1, -1)
    outlines = Outlines.of([whole_region(7, 3, mask[10:51, 10:51].astype(bool))])
    away = outlines.points_xy - np.array([27, 23])
    cosines = (away * outlines.outward_xy).sum(axis=1) / np.hypot(away[:, 0], away[:, 1])
    assert cosines.min() > 0.9


def test_the_best_are_those_of_plain_suppression() -> None:
    regions = blobs(150, size=30, seed=2)
    regions += [
        RegionProposal(r.x0 + 1, r.y0, r.crop, r.outline_xy, r.area, 1.0) for r in regions[::2]
    ]
    scores = np.random.default_rng(3).random(len(regions)).astype(np.float32)
    overlaps = iou_matrix([region.crop for region in regions], boxes_xyxy(regions))
    wanted = nms(np.argsort(-scores, kind="stable"), overlaps, 0.6)
    assert 50 < len(wanted) < len(regions)
    assert keep_best(regions, scores, iou_limit=0.6, most=1000) == wanted
    assert keep_best(regions, scores, iou_limit=0.6, most=20) == wanted[:20]


def test_near_equal_boxes_and_areas_are_one() -> None:
    boxes = np.array(
        [[10, 10, 100, 100], [11, 10, 100, 101], [10, 10, 100, 100], [60, 10, 100, 100]]
    )
    areas = np.array([7000, 7050, 3000, 7000])
    assert distinct(boxes, areas).tolist() == [0, 2, 3]


@pytest.mark.parametrize("scale", [1, 4])
def test_a_row_of_touching_discs_of_unlike_sizes_is_taken_apart(scale: int) -> None:
    discs = [(20, 30, 14), (48, 30, 16), (72, 30, 10)]
    mask = np.zeros((60 * scale, 100 * scale), np.uint8)
    wanted = []
    for x, y, radius in discs:
        alone = np.zeros_like(mask)
        cv2.circle(alone, (x * scale, y * scale), radius * scale, 1, -1)
        wanted.append(alone.astype(bool))
        mask |= alone
    other = whole_region(0, 0, wanted[0])  # one thing beside them in the atlas
    parts = split_touching([other, whole_region(0, 0, mask.astype(bool))], min_area=20)
    assert len(parts) == 3
    whole = [whole_region(0, 0, each) for each in wanted]
    overlaps = iou_matrix([r.crop for r in parts + whole], boxes_xyxy(parts + whole))[:3, 3:]
    assert overlaps.max(axis=0).min() > 0.85


@pytest.mark.parametrize(("neck", "parts"), [(0.4, 2), (0.95, 0)])
def test_a_neck_parts_and_a_ripple_does_not(neck: float, parts: int) -> None:
    along = np.arange(120)
    half = 20 * (1 - (1 - neck) * np.exp(-(((along - 60) / 12) ** 2)))
    mask = np.abs(np.arange(50)[:, None] - 25) < half
    mask[:, :20] &= np.hypot(np.arange(50)[:, None] - 25, along[:20] - 20) < 20
    mask[:, 100:] &= np.hypot(np.arange(50)[:, None] - 25, along[100:] - 100) < 20
    assert len(split_touching([whole_region(0, 0, mask)], min_area=20)) == parts


@pytest.mark.parametrize("off_by", [-2, -1, 1, 2])
def test_outlines_snap_to_the_edge(off_by: int) -> None:
    image = ground()
    wanted = disc(image, 100, 80, 30, 200)
    given = np.zeros(wanted.shape, np.uint8)
    cv2.circle(given, (100, 80), 30 + off_by, 1, -1)
    found = Ranker(image).snapped([whole_region(0, 0, given.astype(bool))])[0]
    assert abs(found.area - wanted.sum()) < 0.3 * abs(int(given.sum()) - wanted.sum())


@pytest.mark.parametrize(
    ("name", "images", "least"),
    [("nuts_dates", 3, 0.90), ("food_plates", 3, 0.95), ("dsb2018_nuclei", 12, 0.78)],
)
def test_recall_on_annotated_pictures(
    test_data_dir: Path, name: str, images: int, least: float
) -> None:
    data = json.loads((test_data_dir / name / "annotations.json").read_text())
    found = total = 0
    for row in data["images"][:: max(1, len(data["images"]) // images)]:
        frame = load_image(test_data_dir / name / "images" / row["file_name"])
        masks = NaiveSegmenter().propose(frame)
        assert len(masks) <= 1000
        for annotation in data["annotations"]:
            if annotation["image_id"] == row["id"]:
                wanted = polygons_to_mask(coco_polygons(annotation["segmentation"]), frame.size_hw)
                total += 1
                found += _best_overlap(masks, wanted) >= 0.5
    assert found / total >= least


def _best_overlap(masks: Masks, wanted: npt.NDArray[np.bool_]) -> float:
    rows, columns = np.flatnonzero(wanted.any(1)), np.flatnonzero(wanted.any(0))
    area, best = int(wanted.sum()), 0.0
    x0, y0, x1, y1 = masks.boxes_xyxy.T
    near = (x0 <= columns[-1]) & (x1 > columns[0]) & (y0 <= rows[-1]) & (y1 > rows[0])
    near &= (masks.areas < 2.1 * area) & (masks.areas > area / 2.1)
    for index in np.flatnonzero(near):
        found = wanted[y0[index] : y1[index], x0[index] : x1[index]] & masks.crop(index)
        shared = int(found.sum())
        best = max(best, shared / (area + int(masks.areas[index]) - shared))
    return best


def three_discs() -> tuple[Image, list[npt.NDArray[np.bool_]]]:
    """Two discs, and a third that the picture does not show."""
    image = ground(200, 300)
    places = [(60, 60), (220, 60), (140, 150)]
    return image, [disc(image if y < 100 else image.copy(), x, y, 28, 190) for x, y in places]


class Knowing:
    """Says of each picture what it was given."""

    def __init__(self, *maps: SimilarityMap) -> None:
        self.maps, self.asked = list(maps), []

    def __call__(self, image_rgb: Image) -> Iterator[npt.NDArray[np.float32]]:
        return iter([each.values for each in self.maps if each.values is not None])

    def separable(self, image_rgb: Image) -> list[SimilarityMap]:
        self.asked.append(image_rgb.shape)
        return self.maps


def told(
    inside: npt.NDArray[np.bool_], around: float = 0.1, areas: tuple[int, int] = (2000, 3000)
) -> SimilarityMap:
    values = np.where(inside, 0.9, around).astype(np.float32)
    return SimilarityMap(values, areas, least=0.5, least_step=0.2)


def alike(image: Image, *maps: SimilarityMap) -> Masks:
    """What may be an object of some label."""
    found = NaiveSegmenter().propose(Frame(image), Hints(similarity=Knowing(*maps)))
    assert (np.diff(found.predicted_ious) <= 0).all(), "best first"
    assert (found.predicted_ious[found.excluded] == 0).all()
    return found[np.flatnonzero(~found.excluded)]


TURN = np.linspace(0, 1, 40)
LINES = {
    "hook": np.r_[np.c_[np.full(40, 12), 22 * TURN - 22],
                  np.c_[12 * np.cos(3.4 * TURN), 12 * np.sin(3.4 * TURN)]],
    "arc": np.c_[22 * np.cos(2.8 * TURN), 22 * np.sin(2.8 * TURN) - 10],
    "ess": np.c_[14 * np.sin(2 * np.pi * TURN), 48 * TURN - 24],
    "zigzag": np.c_[8 * np.arange(-3, 4), 10 * (-1) ** np.arange(7)],
}  # fmt: skip


@pytest.mark.parametrize("kind", LINES)
@pytest.mark.parametrize("width", [3, 5])
@pytest.mark.parametrize(("grey", "around"), [(190, 60), (40, 200)])
def test_curved_lines_are_objects(kind: str, width: int, grey: int, around: int) -> None:
    image, wanted = ground(500, 700, around), []
    for number in range(10):
        turned = cv2.getRotationMatrix2D((0, 0), 36 * number, 1)[:, :2]
        place = (80 + 130 * (number % 5), 120 + 220 * (number // 5))
        mask = np.zeros(image.shape[:2], np.uint8)
        points = np.rint(LINES[kind] @ turned.T + place).astype(np.int32)
        cv2.polylines(mask, [points], False, 1, width)
        image[mask > 0] = grey
        wanted.append(mask > 0)
    found = segment(cv2.GaussianBlur(image, (0, 0), 0.7))
    assert sorted(best_iou(found, each) for each in wanted)[1] > 0.6


def test_what_is_like_the_examples_is_proposed_and_all_else_has_quality_zero() -> None:
    image, wanted = three_discs()
    assert "separable similarity" in NaiveSegmenter().uses
    similarity = Knowing(told(wanted[0] | wanted[2]))
    found = alike(image, *similarity.maps)
    assert min(best_iou(found, mask) for mask in (wanted[0], wanted[2])) > 0.85
    assert best_iou(found, wanted[1]) == 0
    everything = NaiveSegmenter().propose(Frame(image), Hints(similarity=similarity))
    assert best_iou(everything, wanted[1]) > 0.85, "it stays a proposal"
    assert best_iou(segment(image), wanted[2]) < 0.3
    assert (segment(image).predicted_ious > 0).all()
    assert not segment(image).excluded.any()


def test_a_region_must_be_more_like_the_examples_than_what_is_around_it() -> None:
    image, wanted = three_discs()
    for around, named in ((0.5, True), (0.8, False)):
        found = alike(image, told(wanted[0], around))
        assert (best_iou(found, wanted[0]) > 0.85) is named
        assert best_iou(found, wanted[1]) < 0.85
    maps = told(wanted[0], 0.8), told(wanted[0], 0.5)
    assert best_iou(alike(image, *maps), wanted[0]) > 0.85, "one label is enough"
    easier = replace(told(wanted[0], 0.8), least_step=0.05)
    assert best_iou(alike(image, easier), wanted[0]) > 0.85
    harder = replace(told(wanted[0]), least=0.95)
    assert len(alike(image, harder)) == 0


def test_of_a_label_that_cannot_be_told_nothing_is_said() -> None:
    image, wanted = three_discs()
    area = int(wanted[1].sum())
    similar = told(wanted[0])
    for areas, named in (((area, area), True), ((10, area // 5), False), ((5 * area,) * 2, False)):
        found = alike(image, similar, SimilarityMap(None, areas))
        assert (best_iou(found, wanted[1]) > 0.85) is named
        assert best_iou(found, wanted[0]) > 0.85
    untold = SimilarityMap(None, (area, area))
    assert len(alike(image, untold)) == len(alike(image, untold, untold)) > 0


def test_the_similarity_of_a_large_picture_is_that_of_its_pixels() -> None:
    image = ground(1200, 1600)
    shown = image.copy()
    wanted = disc(shown, 800, 600, 200, 190)
    area = int(wanted.sum())
    similarity = Knowing(told(wanted), SimilarityMap(None, (area // 100, area // 90)))
    found = NaiveSegmenter().propose(Frame(image), Hints(similarity=similarity))
    assert similarity.asked == [(1200, 1600, 3)]
    assert best_iou(found[:3], wanted) > 0.9
    nowhere = told(np.zeros_like(wanted))
    for share, named in ((4, True), (4.5, False)):
        untold = SimilarityMap(None, (10, round(area / share * 1.05)))
        assert (best_iou(alike(shown, untold, nowhere), wanted) > 0.9) is named


def test_similar_regions_may_be_switched_off() -> None:
    segmenter = NaiveSegmenter(similar_regions="off")
    assert segmenter.uses == ("crops where outlined",)
    image, wanted = three_discs()
    told_so = segmenter.propose(Frame(image), Hints(similarity=Knowing(told(wanted[0]))))
    assert same_masks(told_so, segment(image))
    with pytest.raises(ConfigError, match="similar_regions 'always' is neither"):
        NaiveSegmenter(similar_regions="always")  # type: ignore[arg-type]
