"""How much each pixel of a picture is like the examples, and where SAM 2 is asked for it."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from sam_detect.fading import context
from sam_detect.models.efficientnet_lite0 import shared_network
from sam_detect.pipeline import dense_similarity
from sam_detect.pipeline.dense_similarity import (
    MOST_LIMITS,
    DenseSimilarity,
    LinearMap,
    similarity_to,
)
from sam_detect.types import Crop

Picture = npt.NDArray[np.uint8]
PLACES = [(60, 60), (180, 70), (90, 170), (230, 180)]
RADIUS = 28


def striped(places: list[tuple[int, int]], *, seed: int, radius: int = RADIUS) -> Picture:
    """Discs of stripes on noise of the same colours: nothing but their texture tells them."""
    rng = np.random.default_rng(seed)
    grey = cv2.GaussianBlur(rng.normal(128, 90, (240, 300)), (0, 0), 1.5)
    grey = (grey - grey.mean()) * (45 / grey.std()) + 128
    y, x = np.mgrid[:240, :300]
    stripes = 128 + 64 * np.sign(np.sin(2 * np.pi * (x + y) / 9))
    for x0, y0 in places:
        inside = (x - x0) ** 2 + (y - y0) ** 2 <= radius**2
        grey[inside] = stripes[inside]
    return np.repeat(grey.clip(0, 255).astype(np.uint8)[:, :, None], 3, axis=2)


def disc(x0: int, y0: int, radius: int = RADIUS) -> npt.NDArray[np.bool_]:
    y, x = np.mgrid[:240, :300]
    return np.asarray((x - x0) ** 2 + (y - y0) ** 2 <= radius**2)


def crop_of(picture: Picture, x0: int, y0: int) -> Crop:
    box = [x0 - RADIUS, y0 - RADIUS, x0 + RADIUS + 1, y0 + RADIUS + 1]
    mask = disc(x0, y0)[box[1] : box[3], box[0] : box[2]]
    return context.cut(picture, mask, box, occupancy=0.2, crop_side=256)


def whole(similarity: DenseSimilarity, picture: Picture) -> npt.NDArray[np.float32]:
    """The highest of all labels, as large as the picture."""
    found = np.zeros(picture.shape[:2], np.float32)
    for each in similarity(picture):
        assert each.dtype == np.float32
        np.maximum(found, cv2.resize(each, found.shape[::-1]), out=found)
    return found


@pytest.fixture(scope="module")
def similarity() -> DenseSimilarity:
    shown = striped(PLACES, seed=1)
    crops = [crop_of(shown, x, y) for x, y in PLACES[:2]]
    return DenseSimilarity(shared_network(), {"striped": crops})


def test_objects_of_another_picture_are_similar_and_their_surroundings_are_not(
    similarity: DenseSimilarity,
) -> None:
    places = [(100, 80), (220, 150)]
    found = whole(similarity, striped(places, seed=2))
    assert found.shape == (240, 300)
    assert found.dtype == np.float32
    for x, y in places:
        assert found[disc(x, y, RADIUS - 8)].mean() > 0.8
    away = ~np.any([disc(x, y, RADIUS + 16) for x, y in places], axis=0)
    assert found[away].mean() < 0.2


def test_scales_follow_the_examples(similarity: DenseSimilarity) -> None:
    """Twice as large, the same objects are too coarse for the examples' scale."""
    small = striped([(100, 80)], seed=2)
    large = cv2.resize(small, (1200, 960), interpolation=cv2.INTER_LINEAR)
    twice = whole(similarity, np.asarray(large, np.uint8))[320, 400]
    assert twice < whole(similarity, small)[80, 100]


def test_the_same_examples_give_the_same_map(similarity: DenseSimilarity) -> None:
    picture = striped(PLACES, seed=3)
    assert np.abs(whole(similarity, picture) - whole(similarity, picture)).max() < 1e-5


def test_of_several_labels_the_highest_counts() -> None:
    shown = striped(PLACES, seed=1)
    one = {"striped": [crop_of(shown, *PLACES[0])]}
    noise = crop_of(striped([], seed=4), 150, 120)
    network, picture = shared_network(), striped([(100, 80)], seed=2)
    alone = whole(DenseSimilarity(network, one), picture)
    both = whole(DenseSimilarity(network, {**one, "noise": [noise]}), picture)
    assert (both >= alone - 1e-6).all()
    assert both.sum() > alone.sum()


@pytest.mark.parametrize("size_hw", [(1, 300), (300, 1), (3, 5), (17, 31)])
def test_pictures_of_any_shape_have_a_map(
    similarity: DenseSimilarity, size_hw: tuple[int, int]
) -> None:
    found = whole(similarity, np.full((*size_hw, 3), 90, np.uint8))
    assert found.shape == size_hw
    assert np.isfinite(found).all()


def test_a_large_picture_is_reduced_to_what_the_network_may_see(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[int] = []
    network = shared_network()

    def counted(pictures: Any) -> Any:
        seen.append(pictures.shape[2] * pictures.shape[3])
        return network(pictures)

    monkeypatch.setattr(dense_similarity, "MOST_PIXELS", 40_000)
    small = crop_of(striped(PLACES, seed=1), *PLACES[0])
    similarity = DenseSimilarity(counted, {"striped": [small]})  # type: ignore[arg-type]
    found = whole(similarity, np.asarray(cv2.resize(striped([], seed=1), (1200, 960)), np.uint8))
    assert found.shape == (960, 1200)
    assert max(seen) < 3 * 40_000, "whole octaves, and whole cells"


def test_a_mask_that_fills_its_crop_shows_no_surroundings() -> None:
    crop = Crop(np.full((40, 40, 3), 99, np.uint8), np.ones((40, 40), np.bool_), 1, (0, 0, 40, 40))
    found = list(DenseSimilarity(shared_network(), {"whole": [crop]})(striped([], seed=1)))
    assert not found


def test_a_linear_map_tells_two_normal_distributions_as_it_should() -> None:
    """Of two normal distributions of variance 1, two apart, the log-odds are twice the value."""
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.normal(1, 1, 4000), rng.normal(-1, 1, 1000)])[:, None]
    inside = np.arange(5000) < 4000
    fitted = LinearMap.fit(values, inside, np.ones(5000))
    assert fitted.weights[0] == pytest.approx(2, rel=0.08)
    assert fitted.offset == pytest.approx(0, abs=0.1)
    [[p]] = fitted([np.full((1, 1, 1), 0.5, np.float32)], (1, 1))
    assert p == pytest.approx(1 / (1 + np.exp(-1)), abs=0.03)


def test_without_the_network_it_is_said_and_the_grid_is_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(dense_similarity, "missing_packages", lambda: ["openvino"])
    with pytest.warns(UserWarning, match="similarity.*needs openvino.*pip install openvino"):
        assert similarity_to({"disc": [crop_of(striped(PLACES, seed=1), *PLACES[0])]}) is None


def test_a_map_lies_on_its_picture_whatever_the_size(similarity: DenseSimilarity) -> None:
    """Sides that are no multiple of a cell are filled up, not stretched."""
    picture = striped([(50, 60), (246, 180)], seed=2)
    full, cut = (
        whole(similarity, picture),
        whole(similarity, np.ascontiguousarray(picture[:221, :283])),
    )
    rows, columns = slice(0, 200), slice(0, 262)
    assert np.abs(full[rows, columns] - cut[rows, columns]).mean() < 0.002


SEVERAL = [*PLACES, (150, 110)]


def texture(seed: int) -> Crop:
    """A disc of nothing but what surrounds it."""
    return crop_of(striped([], seed=seed), *SEVERAL[seed % len(SEVERAL)])


def test_examples_are_separable_where_the_others_tell_them_from_their_surroundings(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shown, network = striped(SEVERAL, seed=1), shared_network()
    told = [crop_of(shown, x, y) for x, y in SEVERAL]
    crops = {"striped": told, "noise": [texture(seed) for seed in range(5)], "few": told[:4]}
    assert DenseSimilarity(network, crops).limits == {}, "all are too small"
    monkeypatch.setattr(dense_similarity, "MOST_ENLARGED", 2)
    similarity = DenseSimilarity(network, crops)
    assert similarity.limits == {"striped": MOST_LIMITS}, "not where a crop ends"
    maps = dict(zip(crops, similarity.separable(shown), strict=True))
    assert [maps[label].values is None for label in crops] == [False, True, True]
    values = maps["striped"].values
    assert values is not None
    assert np.array_equal(values, next(iter(similarity(shown))))
    assert maps["few"].areas == (told[0].area, told[0].area)


def test_limits_are_what_the_examples_reach_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    """One of five examples is of another texture: what is like it is no less an object."""
    monkeypatch.setattr(dense_similarity, "MOST_ENLARGED", 2)
    shown = striped(SEVERAL, seed=1)
    crops = [*[crop_of(shown, x, y) for x, y in SEVERAL[:4]], texture(9)]
    similarity = DenseSimilarity(shared_network(), {"striped": crops})
    least, least_step = similarity.limits["striped"]
    assert least < MOST_LIMITS[0] - 0.2
    assert least_step < MOST_LIMITS[1] - 0.1


def test_what_nobody_asked_for_is_not_missed(
    monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    monkeypatch.setattr(dense_similarity, "missing_packages", lambda: ["openvino"])
    crops = {"disc": [crop_of(striped(PLACES, seed=1), *PLACES[0])]}
    assert similarity_to(crops, asked_for=False) is None
    assert not recwarn.list
