"""The embedders without weights: values a person can compute, and what similar must mean."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from strategies import QUICK, BoolArray, masks_hw

from sam_detect.embedding import AppearanceEmbedder, AverageEmbedder
from sam_detect.embedding.appearance import PART_WEIGHTS, describe
from sam_detect.fading import BlurFade, GaussianFade, IdentityFade, LinearFade
from sam_detect.fading.context import cut, faded, reduced
from sam_detect.features.extraction import FeatureExtractor
from sam_detect.interfaces import Embedder
from sam_detect.types import Crop, FadedCrop, Frame, Masks
from sam_detect.types.masks import tight_box_xyxy
from tests.closeness import assert_same_vectors

Image = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]


@pytest.fixture(autouse=True)
def _no_warnings() -> Iterator[None]:
    """A division by zero or a mean of nothing is a fault, not a warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # pycocotools' arrays, an affair of its own
        warnings.filterwarnings("ignore", message="__array__ implementation")
        yield


def crop_of(image: Image, mask: BoolArray) -> Crop:
    """The picture itself as the crop, at its own scale."""
    return Crop(image, mask, 1.0, (0, 0, mask.shape[1], mask.shape[0]))


def plain(image: Image, mask: BoolArray, fade: Any = None) -> FadedCrop:
    return faded(crop_of(image, mask), fade or GaussianFade())


def centre_mask(side: int = 48, object_side: int = 20) -> BoolArray:
    mask = np.zeros((side, side), np.bool_)
    start = (side - object_side) // 2
    mask[start : start + object_side, start : start + object_side] = True
    return mask


def embed(embedder: Embedder, crops: Sequence[FadedCrop]) -> Floats:
    vectors = embedder.embed(crops)
    assert vectors.shape == (len(crops), embedder.dimension)
    assert vectors.dtype == np.float32
    assert np.isfinite(vectors).all()
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    return vectors


def parts_of(crop: FadedCrop) -> dict[str, Floats]:
    return {name: rows[0] for name, rows in describe([crop]).items()}


def similarity(embedder: Embedder, a: FadedCrop, b: FadedCrop) -> float:
    one, other = embed(embedder, [a, b])
    return float(one @ other)


# average: a person computes it


@pytest.mark.parametrize(
    ("colour", "expected"),
    [
        ((127.5, 127.5, 127.5), (0, 0, 0, 1)),
        ((255, 255, 255), (3**-0.5, 3**-0.5, 3**-0.5, 0)),
        ((0, 0, 0), (-(3**-0.5), -(3**-0.5), -(3**-0.5), 0)),
        ((255, 0, 0), (3**-0.5, -(3**-0.5), -(3**-0.5), 0)),
        ((255, 127.5, 127.5), (3**-0.5, 0, 0, (2 / 3) ** 0.5)),
    ],
    ids=["grey", "white", "black", "red", "pink"],
)
def test_the_average_is_the_mean_colour_as_a_point_of_the_sphere(
    colour: tuple[float, ...], expected: tuple[float, ...]
) -> None:
    """Half of the object's pixels are rounded down and half up, so that 127.5 is their mean."""
    image = np.zeros((48, 48, 3), np.uint8)
    image[:, ::2], image[:, 1::2] = np.floor(colour), np.ceil(colour)
    crop = faded(crop_of(image, centre_mask()), IdentityFade())
    np.testing.assert_allclose(embed(AverageEmbedder(), [crop])[0], expected, atol=2e-3)


def test_the_average_weighs_pixels_by_the_fade() -> None:
    """White on black: with weight 1 on the object and w beside it, the mean is 255 / (1 + w)."""
    mask = np.zeros((10, 20), np.bool_)
    mask[:, :10] = True
    image = np.where(mask[:, :, None], np.uint8(255), np.uint8(0)).repeat(3, axis=2)
    for weight in (0.0, 0.5, 1.0):
        weights = np.where(mask, np.float32(1), np.float32(weight))
        crop = FadedCrop(crop_of(image, mask), image, weights, plain=True)
        mean = 255 / (1 + weight)
        value = (mean / 127.5 - 1) / 3**0.5
        expected = [value, value, value, max(0.0, 1 - 3 * value**2) ** 0.5]
        np.testing.assert_allclose(embed(AverageEmbedder(), [crop])[0], expected, atol=1e-3)


def test_the_average_looks_at_what_a_custom_fade_made() -> None:
    image = np.full((48, 48, 3), 10, np.uint8)
    crop = crop_of(image, centre_mask())
    white = FadedCrop(crop, np.full_like(image, 255), crop.mask.astype(np.float32), plain=False)
    np.testing.assert_allclose(embed(AverageEmbedder(), [white])[0, :3], 3**-0.5, atol=1e-4)


def test_averages_of_black_and_white_are_opposite() -> None:
    black, white = (
        plain(np.full((48, 48, 3), value, np.uint8), centre_mask(), IdentityFade())
        for value in (0, 255)
    )
    assert similarity(AverageEmbedder(), black, white) == pytest.approx(-1, abs=1e-3)


# appearance: what is similar


def blob(angle: float = 0.0, *, colour: Sequence[int] = (180, 120, 60), side: int = 96) -> tuple[
    Image, BoolArray
]:  # fmt: skip
    """A speckled egg with a bright end on a green ground, turned by ``angle`` degrees."""
    y, x = np.mgrid[:side, :side].astype(np.float32) - (side - 1) / 2
    turned = np.deg2rad(angle)
    u, v = x * np.cos(turned) + y * np.sin(turned), -x * np.sin(turned) + y * np.cos(turned)
    mask = (u / 24) ** 2 + (v / 14) ** 2 <= 1
    shade = 1 + 0.25 * np.sin(u / 2.5) * np.cos(v / 3) + np.clip(u / 100, -0.2, 0.3)
    image = np.where(mask[:, :, None], np.array(colour) * shade[:, :, None], (70, 110, 70))
    return np.clip(np.rint(image), 0, 255).astype(np.uint8), np.asarray(mask)


def rotate_array(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return np.ascontiguousarray(np.rot90(array))


def mirror_array(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return np.ascontiguousarray(array[:, ::-1])


@pytest.fixture(scope="module")
def appearance() -> AppearanceEmbedder:
    return AppearanceEmbedder()


@pytest.mark.parametrize("turn", [rotate_array, mirror_array])
@pytest.mark.parametrize("angle", [0, 25])
def test_turned_and_mirrored_views_stay_similar(
    appearance: AppearanceEmbedder, turn: Callable[[Any], Any], angle: float
) -> None:
    image, mask = blob(angle)
    assert similarity(appearance, plain(image, mask), plain(turn(image), turn(mask))) > 0.97


def test_a_view_turned_by_any_angle_is_nearer_than_another_thing(
    appearance: AppearanceEmbedder,
) -> None:
    original = plain(*blob(0))
    turned = [similarity(appearance, original, plain(*blob(a))) for a in (20, 45, 70)]
    other = similarity(appearance, original, plain(*blob(0, colour=(60, 80, 190))))
    assert min(turned) > 0.9
    assert other < min(turned) - 0.05


def test_a_brightness_change_lowers_the_similarity_smoothly(
    appearance: AppearanceEmbedder,
) -> None:
    image, mask = blob()
    original = plain(image, mask)
    factors = [1.0, 0.95, 0.9, 0.8, 0.65, 0.5, 0.35]
    found = [
        similarity(appearance, original, plain((image * factor).astype(np.uint8), mask))
        for factor in factors
    ]
    assert found[0] > 0.9999
    assert all(b <= a + 0.01 for a, b in itertools.pairwise(found)), found
    assert max(a - b for a, b in itertools.pairwise(found)) < 0.25, "no cliff"
    assert found[1] > 0.93
    assert found[-1] < found[1] - 0.03


def noise_picture(seed: int, *, smooth: float, contrast: float = 60.0) -> Image:
    grey = np.random.default_rng(seed).normal(size=(96, 96)).astype(np.float32)
    if smooth:
        grey = cv2.GaussianBlur(grey, (0, 0), smooth, borderType=cv2.BORDER_REPLICATE)
    grey = (grey - grey.mean()) / grey.std()
    return np.clip(128 + contrast * grey, 0, 255).astype(np.uint8)[:, :, None].repeat(3, axis=2)


def square_and_disc() -> tuple[BoolArray, BoolArray]:
    y, x = np.mgrid[:96, :96] - 47.5
    long = (abs(x) <= 40) & (abs(y) <= 6)
    round_ = x**2 + y**2 <= long.sum() / np.pi
    return np.asarray(long), np.asarray(round_)


def view_pairs() -> dict[str, tuple[FadedCrop, FadedCrop, FadedCrop]]:
    """``name: (a view of a thing, another view of it, a view of another thing)``."""
    mask = centre_mask(96, 44)
    fine, fine_again = noise_picture(0, smooth=0), noise_picture(1, smooth=0)
    coarse = noise_picture(2, smooth=5)
    image, egg = blob(0)
    turned, turned_egg = blob(35)
    blue, _ = blob(0, colour=(60, 80, 190))
    long, round_ = square_and_disc()
    ground = np.full((96, 96, 3), 70, np.uint8)
    painted = [np.where(m[:, :, None], np.uint8(190), ground) for m in (long, long.T, round_)]
    return {
        "texture": (plain(fine, mask), plain(fine_again, mask), plain(coarse, mask)),
        "colour": (plain(image, egg), plain(turned, turned_egg), plain(blue, egg)),
        "shape": (
            plain(painted[0], long),
            plain(painted[1], np.ascontiguousarray(long.T)),
            plain(painted[2], round_),
        ),
    }


@pytest.mark.parametrize("kind", ["texture", "colour", "shape"])
def test_two_things_are_further_apart_than_two_views_of_one(
    appearance: AppearanceEmbedder, kind: str
) -> None:
    view, again, other = view_pairs()[kind]
    same, different = similarity(appearance, view, again), similarity(appearance, view, other)
    assert different < same - 0.02


@pytest.mark.parametrize("kind", ["texture", "colour", "shape"])
def test_the_part_named_after_a_difference_sees_it(kind: str) -> None:
    view, again, other = (parts_of(crop)[kind] for crop in view_pairs()[kind])
    assert float(view @ other) < float(view @ again) - 0.02


def test_the_surroundings_are_part_of_what_a_thing_looks_like(
    appearance: AppearanceEmbedder,
) -> None:
    image, mask = blob()
    elsewhere = np.where(mask[:, :, None], image, np.uint8(240))
    found = similarity(appearance, plain(image, mask), plain(elsewhere, mask))
    assert 0.5 < found < 0.99


def test_parts_documented_are_parts_made() -> None:
    parts = parts_of(plain(*blob()))
    assert list(parts) == list(PART_WEIGHTS)
    for name, part in parts.items():
        assert part.ndim == 1, name
        assert np.linalg.norm(part) == pytest.approx(1, abs=1e-5), name
        assert f"``{name}``" in (AppearanceEmbedder.__doc__ or ""), name


def pixel_by_pixel(crop: FadedCrop) -> tuple[list[Floats], Floats]:
    """Histograms of L, a, b and of binary patterns, as their definitions say, unsmoothed."""
    lab = cv2.cvtColor(crop.crop.image_rgb, cv2.COLOR_RGB2LAB)
    smooth = np.pad(cv2.GaussianBlur(lab[..., 0], (3, 3), 0).astype(int), 1, mode="edge")
    colours, patterns = np.zeros((3, 16), np.float32), np.zeros(10, np.float32)
    for (y, x), weight in np.ndenumerate(crop.weights):
        colours[range(3), lab[y, x] // 16] += weight
        ring = smooth[y : y + 3, x : x + 3].ravel()[[0, 1, 2, 5, 8, 7, 6, 3]]
        bits = ring > smooth[y + 1, x + 1] + 3
        changes = np.count_nonzero(bits != np.roll(bits, 1))
        patterns[np.count_nonzero(bits) if changes <= 2 else 9] += weight
    return list(colours), patterns


@pytest.mark.parametrize("side", [52, 63, 64])
def test_histograms_are_those_of_a_walk_over_the_pixels(side: int) -> None:
    """Near white too, where a bound on differences of bytes could wrap around."""
    bright = np.random.default_rng(0).integers(190, 290, (side, side, 3)).clip(0, 255)
    bright[side // 2 :, side // 2 :] = 255
    _, mask = blob(25, side=side)
    crop = plain(bright.astype(np.uint8), mask, LinearFade(max_distance=20))
    parts = parts_of(crop)
    colours, patterns = pixel_by_pixel(crop)
    for channel, counts in enumerate(colours):
        shared = np.convolve(np.pad(counts, 1, mode="edge"), [0.25, 0.5, 0.25], "valid")
        found = np.square(parts["colour"][16 * channel : 16 * channel + 16]) * 4
        np.testing.assert_allclose(found, shared / shared.sum(), atol=1e-5)
    found = np.square(parts["texture"][-10:]) * 4
    np.testing.assert_allclose(found, patterns / patterns.sum(), atol=1e-5)
    assert found.min() > 0, "every pattern occurs"


def test_the_spread_of_the_radius_is_that_of_the_outline() -> None:
    """A disc has hardly any; a bar's outline is as far as its ends and as near as its sides."""
    bins = slice(40, 50)
    for mask, expected in zip(square_and_disc(), (1.0, 0.02), strict=True):
        shape = parts_of(plain(np.full((96, 96, 3), 90, np.uint8), mask))["shape"]
        bump = np.square(shape[bins]) * 5
        assert bump.argmax() == min(9, int(expected * 10))


def test_part_weights_are_shares() -> None:
    assert sum(PART_WEIGHTS.values()) == pytest.approx(1)
    assert min(PART_WEIGHTS.values()) > 0


def test_the_similarity_is_the_weighted_mean_of_the_parts(appearance: AppearanceEmbedder) -> None:
    a, b = plain(*blob(0)), plain(*blob(30, colour=(90, 140, 120)))
    expected = sum(
        weight * float(parts_of(a)[name] @ parts_of(b)[name])
        for name, weight in PART_WEIGHTS.items()
    )
    assert similarity(appearance, a, b) == pytest.approx(expected, abs=1e-5)


def test_the_dimension_is_that_of_the_parts(appearance: AppearanceEmbedder) -> None:
    assert appearance.dimension == sum(len(part) for part in parts_of(plain(*blob())).values())


# Odd crops, for both


EMBEDDERS = [AverageEmbedder(), AppearanceEmbedder()]


def odd_crops() -> dict[str, tuple[Image, BoolArray]]:
    def empty(side: int) -> BoolArray:
        return np.zeros((side, side), np.bool_)

    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    pixel, corner, full = empty(32), empty(32), ~empty(32)
    pixel[16, 16] = corner[0, 0] = True
    frame = ~empty(32)
    frame[4:-4, 4:-4] = False
    cross, speckles = empty(32), empty(32)
    cross[15], cross[:, 15] = True, True
    speckles[::4, ::4] = True
    return {
        "one pixel": (noise, pixel),
        "one pixel in the corner": (noise, corner),
        "a mask that is the whole crop": (noise, full),
        "a ring that touches all borders": (noise, frame),
        "a cross that touches all borders": (noise, cross),
        "many parts": (noise, speckles),
        "a black picture": (np.zeros((32, 32, 3), np.uint8), centre_mask(32, 10)),
        "a white picture": (np.full((32, 32, 3), 255, np.uint8), centre_mask(32, 10)),
        "a constant picture": (np.full((32, 32, 3), (3, 200, 90), np.uint8), centre_mask(32, 10)),
        "a constant picture that is all object": (np.full((32, 32, 3), 77, np.uint8), full),
        "a picture of one pixel": (noise[:1, :1], np.ones((1, 1), np.bool_)),
        "a line of pixels": (noise[:1], np.ones((1, 32), np.bool_)),
        "a wide picture": (noise[:5], np.ones((5, 32), np.bool_)),
    }


@pytest.mark.parametrize("fade", [GaussianFade(), BlurFade(3)], ids=["plain", "custom"])
@pytest.mark.parametrize("what", odd_crops())
@pytest.mark.parametrize("embedder", EMBEDDERS, ids=lambda e: e.name)
def test_odd_crops_have_unit_vectors_without_a_warning(
    embedder: Embedder, what: str, fade: Any
) -> None:
    image, mask = odd_crops()[what]
    embed(embedder, [plain(np.ascontiguousarray(image), np.ascontiguousarray(mask), fade)])


@pytest.mark.parametrize("embedder", EMBEDDERS, ids=lambda e: e.name)
def test_any_mask_has_a_unit_vector(embedder: Embedder) -> None:
    @QUICK
    @given(masks_hw(some_pixel=True))
    def check(dense: BoolArray) -> None:
        image = np.random.default_rng(0).integers(0, 256, (*dense.shape, 3), dtype=np.uint8)
        box = tight_box_xyxy(dense)
        assert box is not None
        inside = dense[box[1] : box[3], box[0] : box[2]]
        crop = cut(image, inside, box, occupancy=0.2, crop_side=256)
        embed(embedder, [faded(crop, GaussianFade())])

    check()


@pytest.mark.parametrize("embedder", EMBEDDERS, ids=lambda e: e.name)
def test_a_vector_is_the_same_whatever_else_is_in_its_batch(embedder: Embedder) -> None:
    crops = [plain(*map(np.ascontiguousarray, odd)) for odd in odd_crops().values()]
    crops += [plain(*blob(angle, side=side)) for angle in (0, 17) for side in (52, 63, 64, 96)]
    crops += [plain(*blob(5), BlurFade(3))]
    alone = np.concatenate([embed(embedder, [crop]) for crop in crops])
    for order in (1, -1):
        together = embed(embedder, crops[::order])[::order]
        assert_same_vectors(together, alone)


@pytest.mark.parametrize("embedder", EMBEDDERS, ids=lambda e: e.name)
def test_a_vector_is_the_same_wherever_its_crop_lies_in_memory(embedder: Embedder) -> None:
    image, mask = blob()
    first = embed(embedder, [plain(image, mask)])
    for offset in range(1, 40):
        room = np.empty(image.size + 64, np.uint8)
        moved = room[offset : offset + image.size].reshape(image.shape)
        moved[:] = image
        assert_same_vectors(embed(embedder, [plain(moved, mask.copy())]), first)


# input_side


class SizeSpy(Embedder):
    """Embeds as the crop's sides, to see them."""

    name: ClassVar[str] = "spy"
    version: ClassVar[int] = 1
    input_side: ClassVar[int] = 40

    def __init__(self) -> None:
        self.shapes: list[tuple[int, ...]] = []

    @property
    def dimension(self) -> int:
        return 1

    def embed(self, crops: Sequence[FadedCrop]) -> Floats:
        self.shapes += [crop.image_rgb.shape for crop in crops]
        return np.ones((len(crops), 1), np.float32)


def test_crops_come_no_larger_than_the_embedders_input_side() -> None:
    image, mask = blob()
    small = np.zeros_like(mask)
    small[10:14, 10:14] = True
    masks = Masks.from_dense(np.stack([mask, small]))
    spy = SizeSpy()
    maker = FeatureExtractor(embedder=spy, fade=GaussianFade(), occupancy=0.2)
    maker.embed_crops(maker.crops(Frame(image), masks))
    assert spy.shapes == [(40, 40, 3), (9, 9, 3)], "large ones are reduced, small ones are not"


def test_a_reduced_view_stays_similar(appearance: AppearanceEmbedder) -> None:
    image, mask = blob(30)
    crop = crop_of(image, mask)
    assert appearance.input_side < 96
    small = faded(reduced(crop, appearance.input_side), GaussianFade())
    assert similarity(appearance, faded(crop, GaussianFade()), small) > 0.9
