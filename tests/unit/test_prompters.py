"""Where SAM 2 is asked: the points of each prompter, and how fine a grid has to be."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("sam2")

from sam_detect.segmentation import _sam2_prompters as prompters
from sam_detect.segmentation._sam2_forest_prompter import ForestPrompter
from sam_detect.segmentation._sam2_prompters import (
    AdaptivePrompter,
    BlobPrompter,
    Covered,
    GridPrompter,
    SimilarityPrompter,
    points_for,
)

# How many points


@pytest.mark.parametrize("size_hw", [(400, 400), (300, 700), (900, 240)])
@pytest.mark.parametrize("radius", [3.0, 4.5, 9.0, 40.0])
def test_a_disc_has_a_point_inside_wherever_it_lies(
    size_hw: tuple[int, int], radius: float
) -> None:
    per_side = points_for(round(np.pi * radius**2), size_hw)
    steps = np.array(size_hw[::-1]) / per_side
    grid = np.stack(np.meshgrid(*(np.arange(-1, 3) + 0.5,) * 2), axis=-1).reshape(-1, 2) * steps
    places = np.random.default_rng(0).uniform(0, 1, (500, 2)) * steps + steps / 2
    distances = np.hypot(*(grid[None] - places[:, None]).transpose(2, 0, 1))
    assert distances.min(axis=1).max() <= radius + 0.02, "areas are whole numbers"


def test_a_grid_has_no_more_points_than_that_needs() -> None:
    fine = points_for(30, (400, 400))
    assert fine == np.ceil(400 * 2**0.5 / (2 * (30 / np.pi) ** 0.5)) == 92
    points_in_one = 30 * fine**2 / 400**2
    assert points_in_one == pytest.approx(np.pi / 2, rel=0.02)


@pytest.mark.parametrize(("area", "expected"), [
    (1, 256), (1000, 32), (3000, 32), (8_000, 23), (60_000, 16), (10**6, 16),
])  # fmt: skip
def test_only_large_objects_have_fewer_points_than_usual(area: int, expected: int) -> None:
    assert points_for(area, (800, 800)) == expected


def test_a_finer_usual_grid_gives_way_to_large_objects_only() -> None:
    assert points_for(700, (800, 800), usual=128) == 76
    assert points_for(100, (800, 800), usual=128) == 128
    assert points_for(60_000, (800, 800), usual=128) == 16


def test_smaller_objects_never_have_fewer_points() -> None:
    points = [points_for(area, (480, 640)) for area in range(1, 60_000, 50)]
    assert points == sorted(points, reverse=True)
    assert (points[0], points[-1]) == (256, 16)


# Which points


def rounds_of(prompter: Any, per_side: int, covered: Covered | None = None) -> list[np.ndarray]:
    image = np.zeros((100, 200, 3), np.uint8)
    return list(prompter.rounds(image, per_side, covered or Covered((100, 200))))


@pytest.mark.parametrize("per_side", [1, 2, 3, 7, 8, 32])
def test_adaptive_asks_the_whole_grid_where_nothing_is_covered(per_side: int) -> None:
    [grid] = rounds_of(GridPrompter(), per_side)
    rounds = rounds_of(AdaptivePrompter(), per_side)
    found = np.concatenate(rounds)
    assert len(found) == per_side**2
    assert {tuple(p) for p in found.tolist()} == {tuple(p) for p in grid.tolist()}
    if per_side == 32:
        assert [len(points) for points in rounds] == [64, 192, 768]


def test_adaptive_skips_what_small_masks_cover() -> None:
    covered = Covered((100, 200))
    rounds = AdaptivePrompter().rounds(np.zeros((100, 200, 3), np.uint8), 16, covered)
    first = next(rounds)
    covered.add(np.ones((30, 30), bool), (100, 20, 130, 50))
    covered.add(np.ones((100, 100), bool), (0, 0, 100, 100))
    later = np.concatenate(list(rounds)) * [200, 100]
    inside = (later[:, 0] >= 100) & (later[:, 0] < 130) & (later[:, 1] >= 20) & (later[:, 1] < 50)
    assert not inside.any()
    assert (later[:, 0] < 100).sum() > 50, "a large mask may have objects in it"
    assert len(first) == 16


def discs(places: list[tuple[int, int, int]], value: int) -> np.ndarray:
    image = np.full((200, 300, 3), 128, np.uint8)
    y, x = np.ogrid[:200, :300]
    for x0, y0, radius in places:
        image[(x - x0) ** 2 + (y - y0) ** 2 <= radius**2] = value
    return image


@pytest.mark.parametrize("value", [20, 240])
def test_blobs_are_asked_at_their_centres_first(value: int) -> None:
    places = [(40, 50, 6), (120, 60, 12), (220, 120, 25), (60, 150, 15)]
    [points] = BlobPrompter().rounds(discs(places, value), 32, Covered((200, 300)))
    first = points[: 3 * len(places)] * [300, 200]
    for x, y, radius in places:
        nearest = np.hypot(first[:, 0] - x, first[:, 1] - y).min()
        assert nearest <= max(1.5, 0.3 * radius), (x, y)


def test_blobs_of_other_sizes_are_not_asked() -> None:
    places = [(60, 60, 5), (200, 100, 40)]
    image = discs(places, 20)
    [points] = BlobPrompter((50, 120)).rounds(image, 32, Covered((200, 300)))
    distances = np.hypot(*(points * [300, 200] - [60, 60]).T)
    assert distances[0] < 2, "the clearest is the small disc"
    centre = np.hypot(*(points * [300, 200] - [200, 100]).T)
    assert centre.min() > 10, "the large disc has blobs of this size at its edge at most"


def test_blobs_are_no_more_than_the_grid_has_and_none_where_nothing_is() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (200, 300, 3), dtype=np.uint8)
    [points] = BlobPrompter().rounds(noise, 4, Covered((200, 300)))
    assert len(points) == 16
    [points] = BlobPrompter().rounds(np.full((50, 60, 3), 9, np.uint8), 4, Covered((50, 60)))
    assert points.shape == (0, 2)


@pytest.mark.parametrize(("sigma", "most"), [(1, 10), (3, 10), (6, 400)])
def test_blobs_ask_little_where_there_is_only_noise(sigma: float, most: int) -> None:
    noise = np.random.default_rng(0).normal(128, sigma, (300, 400, 3)).clip(0, 255)
    [points] = BlobPrompter().rounds(noise.astype(np.uint8), 256, Covered((300, 400)))
    assert len(points) <= most, "thousands, if it were not for the picture's own noise"


def test_a_thing_and_clearer_ones_inside_it_are_all_asked() -> None:
    image = discs([(150, 100, 50)], 110)
    places = [(120, 75), (180, 75), (120, 125), (180, 125)]
    for x, y in places:
        image[y - 4 : y + 5, x - 4 : x + 5] = 0
    [points] = BlobPrompter().rounds(image, 32, Covered((200, 300)))
    for x, y in [*places, (150, 100)]:
        assert np.hypot(*(points * [300, 200] - [x, y]).T).min() < 6


def test_large_things_are_looked_for_in_a_small_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    looked_at = []
    plain = prompters._differences
    monkeypatch.setattr(
        prompters,
        "_differences",
        lambda lab, radii: looked_at.append(lab.shape) or plain(lab, radii),
    )
    image = discs([(150, 100, 50)], 20)
    [points] = BlobPrompter((7000, 9000)).rounds(image, 32, Covered((200, 300)))
    assert set(looked_at) == {(21, 32, 3)}, "in which the radius of the smallest is 5"
    assert np.hypot(*(points[0] * [300, 200] - [150, 100])) < 8
    looked_at.clear()
    list(BlobPrompter((30, 90)).rounds(np.tile(image, (4, 4, 1)), 32, Covered((800, 1200))))
    assert set(looked_at) == {(800, 1200, 3)}, "small things need all of it"


# Similarity


def similar_at(places: list[tuple[int, int, int, float]]) -> Any:
    """Of a picture of 200 x 300: discs (x, y, radius) with their highest similarity."""
    y, x = np.mgrid[:200, :300]
    found = np.zeros((200, 300), np.float32)
    for x0, y0, radius, value in places:
        away = np.hypot(x - x0, y - y0)
        np.maximum(found, (value - 0.002 * away) * (away <= radius), out=found)
    return lambda image_rgb: iter([found])


def similarity_rounds(prompter: Any, covered: Covered, per_side: int = 32) -> Any:
    picture = np.zeros((200, 300, 3), np.uint8)
    return ((points * [300, 200]) for points in prompter.rounds(picture, per_side, covered))


def test_the_peaks_of_similarity_are_asked_first_and_nothing_that_is_unlike() -> None:
    similar = similar_at([(40, 50, 12, 0.9), (200, 120, 12, 0.8), (120, 60, 12, 0.1)])
    first = next(similarity_rounds(SimilarityPrompter(similar, 400), Covered((200, 300))))
    assert np.abs(first[0] - [40.5, 50.5]).max() < 3
    assert np.abs(first - [200.5, 120.5]).max(axis=1).min() < 3
    assert (np.hypot(*(first - [120, 60]).T) > 12).all(), "below RELIABLE"


def test_then_the_farthest_reliable_point_that_no_mask_covers_yet() -> None:
    similar = similar_at([(150, 100, 60, 0.95)])
    covered = Covered((200, 300))
    rounds = similarity_rounds(SimilarityPrompter(similar, 80), covered)
    first = next(rounds)
    y, x = np.mgrid[:200, :300]
    covered.add((np.hypot(x - 150, y - 100) < 22)[78:123, 128:173], (128, 78, 173, 123))
    further = next(rounds)
    assert len(first) == 1
    away = np.hypot(*(further - [150, 100]).T)
    assert ((away > 21) & (away <= 64)).all(), "similar, and not covered"
    assert away[0] == pytest.approx(away.max(), abs=1), "the farthest is the first"
    apart = np.hypot(*(further[:, None] - further[None]).transpose(2, 0, 1))
    assert apart[~np.eye(len(further), dtype=bool)].min() >= 9, "the width of an example"
    assert len(further) > 10


def test_similarity_asks_no_more_points_than_the_grid_and_none_where_nothing_is_alike() -> None:
    rounds = similarity_rounds(
        SimilarityPrompter(similar_at([(150, 100, 90, 0.95)]), 30), Covered((200, 300)), per_side=4
    )
    assert sum(len(points) for points in rounds) == 16
    unlike = SimilarityPrompter(similar_at([(150, 100, 90, 0.1)]), 30)
    assert [len(points) for points in similarity_rounds(unlike, Covered((200, 300)))] == [0, 0]


def test_without_examples_similarity_asks_the_grid() -> None:
    [points] = rounds_of(SimilarityPrompter(), 4)
    [grid] = rounds_of(GridPrompter(), 4)
    assert (points == grid).all()
    assert not SimilarityPrompter().finds_small
    assert SimilarityPrompter(similar_at([])).finds_small


# Where the forest sees objects


def test_without_examples_the_forest_asks_the_whole_grid() -> None:
    [points] = rounds_of(ForestPrompter(), 8)
    assert np.array_equal(points, rounds_of(GridPrompter(), 8)[0])
    assert not ForestPrompter().finds_small
