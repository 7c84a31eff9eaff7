"""The fades' formulas, and the context cut that they work in."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import distance_transform_edt
from strategies import QUICK, BoolArray, distances_hw, masks_hw

from sam_detect.errors import ConfigError, ExtensionError, ImageError
from sam_detect.fading import (
    BlurFade,
    ExponentialFade,
    GaussianFade,
    IdentityFade,
    LinearFade,
)
from sam_detect.fading.context import cut, distance_map, faded, reduced
from sam_detect.interfaces import WeightFade
from sam_detect.types import Crop, FadedCrop
from sam_detect.types.masks import tight_box_xyxy

Floats = npt.NDArray[np.float32]
Image = npt.NDArray[np.uint8]

positive_widths = st.floats(0.25, 300)
fractions = st.floats(0, 1)
ends = st.one_of(st.none(), positive_widths)


def slow(formula: Callable[[float], float], distances: Floats) -> Floats:
    """The formula of one distance, number by number, in double precision."""
    return np.array([[formula(float(d)) for d in row] for row in distances], np.float32)


# The formulas of the design


@QUICK
@given(distances_hw(), positive_widths, fractions, ends)
def test_the_gaussian_fade_is_the_designs_formula(
    distances: Floats, sigma: float, least: float, end: float | None
) -> None:
    def formula(d: float) -> float:
        if end is not None and d > end:
            return 0.0
        return max(least, math.exp(-((d / sigma) ** 2)))

    weights = GaussianFade(sigma=sigma, min_fade=least, max_distance=end).weights(distances)
    np.testing.assert_allclose(weights, slow(formula, distances), atol=1e-5)


@QUICK
@given(distances_hw(), positive_widths, fractions)
def test_the_linear_fade_is_the_designs_formula(
    distances: Floats, end: float, least: float
) -> None:
    weights = LinearFade(max_distance=end, min_fade=least).weights(distances)
    expected = slow(lambda d: max(least, 1 - d / end), distances)
    np.testing.assert_allclose(weights, expected, atol=1e-5)


@QUICK
@given(distances_hw(), st.floats(0.001, 3), fractions, ends)
def test_the_exponential_fade_is_the_designs_formula(
    distances: Floats, decay: float, least: float, end: float | None
) -> None:
    def formula(d: float) -> float:
        if end is not None and d > end:
            return 0.0
        return max(least, math.exp(-decay * d))

    weights = ExponentialFade(decay=decay, max_distance=end, min_fade=least).weights(distances)
    np.testing.assert_allclose(weights, slow(formula, distances), atol=1e-5)


def test_a_distance_of_exactly_max_distance_still_counts() -> None:
    at_and_beyond = np.array([[10.0, 10.5]], np.float32)
    weights = GaussianFade(sigma=1, min_fade=0.5, max_distance=10).weights(at_and_beyond)
    assert weights.tolist() == [[0.5, 0]]
    weights = ExponentialFade(decay=1, min_fade=0.5, max_distance=10).weights(at_and_beyond)
    assert weights.tolist() == [[0.5, 0]]


def test_the_linear_fade_is_gone_at_max_distance() -> None:
    weights = LinearFade(max_distance=10).weights(np.array([[0, 5, 10, 20]], np.float32))
    assert weights.tolist() == [[1, 0.5, 0, 0]]


def test_the_identity_fade_keeps_everything() -> None:
    assert IdentityFade().weights(np.array([[0, 1e6]], np.float32)).tolist() == [[1, 1]]


def test_the_blur_fade_keeps_the_object_and_loses_the_contexts_detail() -> None:
    image = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    mask = np.zeros((40, 40), np.bool_)
    mask[15:25, 15:25] = True
    result = np.asarray(BlurFade(sigma=5).apply(image, mask, np.zeros((40, 40), np.float32)))
    np.testing.assert_array_equal(result[mask], image[mask])
    assert result[~mask].std() < image[~mask].std() / 3
    assert abs(float(result[~mask].mean()) - float(image[~mask].mean())) < 5


BAD_NUMBERS = [0, -1, -0.001, float("nan"), float("inf"), float("-inf"), "wide", None, [3]]
WIDTHS: list[tuple[Callable[..., Any], str]] = [
    (GaussianFade, "sigma"),
    (GaussianFade, "max_distance"),
    (LinearFade, "max_distance"),
    (ExponentialFade, "decay"),
    (ExponentialFade, "max_distance"),
    (BlurFade, "sigma"),
]
OPTIONAL = {(GaussianFade, "sigma"), (GaussianFade, "max_distance"),
            (ExponentialFade, "max_distance")}  # fmt: skip


@pytest.mark.parametrize("value", BAD_NUMBERS, ids=repr)
@pytest.mark.parametrize(("fade", "name"), WIDTHS, ids=[f"{f.__name__}.{n}" for f, n in WIDTHS])
def test_a_width_that_is_no_number_above_0_is_refused_by_name(
    fade: Callable[..., Any], name: str, value: Any
) -> None:
    if value is None and (fade, name) in OPTIONAL:
        return
    with pytest.raises(ConfigError, match=f"{name} must be") as caught:
        fade(**{name: value})
    assert repr(value) in str(caught.value)


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan"), float("inf"), "half", None], ids=repr)
@pytest.mark.parametrize("fade", [GaussianFade, LinearFade, ExponentialFade])
def test_a_min_fade_outside_0_to_1_is_refused(fade: Callable[..., Any], value: Any) -> None:
    with pytest.raises(ConfigError, match="min_fade must") as caught:
        fade(min_fade=value)
    assert repr(value) in str(caught.value)


def test_the_automatic_gaussian_follows_the_objects_size() -> None:
    fade = GaussianFade(min_fade=0.25, max_distance=70)
    fitted = [fade.for_area(math.pi * radius**2) for radius in (20, 40, 80)]
    widths = [one.sigma for one in fitted]
    assert None not in widths
    assert widths[1] / widths[0] == pytest.approx(2)  # type: ignore[operator]
    assert widths[2] / widths[1] == pytest.approx(2)  # type: ignore[operator]
    assert {(one.min_fade, one.max_distance) for one in fitted} == {(0.25, 70)}
    assert fade.sigma is None, "the fade itself stays automatic"


def test_the_automatic_gaussian_of_one_pixel_is_still_a_width() -> None:
    sigma = GaussianFade().for_area(1).sigma
    assert sigma is not None
    assert sigma >= 1


def test_a_given_sigma_does_not_follow_the_object() -> None:
    fade = GaussianFade(sigma=7)
    assert fade.for_area(1e6) is fade


def test_the_automatic_gaussian_has_no_weights_before_it_knows_the_object() -> None:
    with pytest.raises(ConfigError, match="for_area"):
        GaussianFade().weights(np.zeros((2, 2), np.float32))


# The context cut


def picture(height: int, width: int, seed: int = 0) -> Image:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def cut_dense(
    image: Image, dense: BoolArray, *, occupancy: float = 0.2, crop_side: int = 256
) -> Crop:
    box = tight_box_xyxy(dense)
    assert box is not None
    x0, y0, x1, y1 = box
    return cut(image, dense[y0:y1, x0:x1], box, occupancy=occupancy, crop_side=crop_side)


def disc(size_hw: tuple[int, int], center_xy: tuple[float, float], radius: float) -> BoolArray:
    y, x = np.ogrid[: size_hw[0], : size_hw[1]]
    return np.asarray((x - center_xy[0]) ** 2 + (y - center_xy[1]) ** 2 <= radius**2)


@pytest.mark.parametrize("occupancy", [0.05, 0.1, 0.2, 0.4])
@pytest.mark.parametrize("radius", [5, 20, 60])
def test_the_object_takes_its_occupancy_of_the_crop(radius: int, occupancy: float) -> None:
    dense = disc((200, 200), (90, 110), radius)
    crop = cut_dense(picture(200, 200), dense, occupancy=occupancy, crop_side=1024)
    side = math.sqrt(dense.sum() / occupancy)
    assert crop.mask.shape[0] == crop.mask.shape[1]
    assert side <= crop.mask.shape[0] <= side + 1, "the window's side is rounded up, no more"
    assert crop.mask.mean() == pytest.approx(occupancy, rel=2.2 / side)
    assert crop.mask.sum() == dense.sum()


@QUICK
@given(masks_hw(some_pixel=True), st.floats(0.05, 0.8))
def test_the_object_is_never_cut_and_sits_where_it_was(dense: BoolArray, occupancy: float) -> None:
    image = picture(*dense.shape)
    crop = cut_dense(image, dense, occupancy=occupancy)
    assert crop.scale == 1
    left, top, right, bottom = crop.window_xyxy
    assert crop.mask.shape == (bottom - top, right - left)
    assert crop.mask.sum() == dense.sum()
    for y, x in np.argwhere(crop.mask):
        assert dense[y + top, x + left]
        assert (crop.image_rgb[y, x] == image[y + top, x + left]).all()
    assert not crop.mask[[0, -1]].any(), "context on every side"
    assert not crop.mask[:, [0, -1]].any(), "context on every side"


@QUICK
@given(masks_hw(some_pixel=True))
def test_a_window_beyond_the_picture_repeats_its_border(dense: BoolArray) -> None:
    image = picture(*dense.shape)
    crop = cut_dense(image, dense, occupancy=0.05)
    left, top, right, bottom = crop.window_xyxy
    rows = np.clip(np.arange(top, bottom), 0, image.shape[0] - 1)
    columns = np.clip(np.arange(left, right), 0, image.shape[1] - 1)
    np.testing.assert_array_equal(crop.image_rgb, image[rows][:, columns])


def test_a_picture_of_one_pixel_has_a_crop() -> None:
    image = np.full((1, 1, 3), 77, np.uint8)
    crop = cut_dense(image, np.ones((1, 1), np.bool_))
    assert crop.mask.sum() == 1
    assert (crop.image_rgb == 77).all()
    assert faded(crop, GaussianFade()).image_rgb.shape == crop.image_rgb.shape


def test_the_crop_shares_no_memory_with_the_picture() -> None:
    image = picture(60, 60)
    crop = cut_dense(image, disc((60, 60), (30, 30), 5))
    before = crop.image_rgb.copy()
    image[:] = 0
    np.testing.assert_array_equal(crop.image_rgb, before)


def test_a_huge_object_is_reduced_to_the_crop_side() -> None:
    dense = np.zeros((500, 700), np.bool_)
    dense[50:450, 100:600] = True
    crop = cut_dense(picture(500, 700), dense, crop_side=64)
    assert crop.mask.shape == (64, 64)
    assert crop.image_rgb.shape == (64, 64, 3)
    assert crop.mask.mean() == pytest.approx(0.2, abs=0.02)
    assert crop.area == pytest.approx(400 * 500, rel=0.05)
    left, _, right, _ = crop.window_xyxy
    assert crop.scale == pytest.approx(64 / (right - left))


def test_a_small_window_is_not_enlarged() -> None:
    crop = cut_dense(picture(50, 50), disc((50, 50), (25, 25), 3), crop_side=256)
    assert crop.scale == 1
    assert reduced(crop, 256) is crop


@pytest.mark.parametrize("axis", [0, 1])
def test_a_thin_object_survives_reduction(axis: int) -> None:
    dense = np.zeros((600, 600), np.bool_)
    dense[300, 2:598] = True
    crop = cut_dense(picture(600, 600), dense if axis == 0 else dense.T, crop_side=32)
    assert crop.mask.shape == (32, 32)
    length = crop.mask.any(axis=axis).sum()
    assert length >= 30, "the line is still as long as the crop"
    assert crop.mask.any(axis=1 - axis).sum() <= 2, "and still thin"


def test_reducing_twice_keeps_the_objects_area() -> None:
    dense = disc((400, 400), (200, 200), 120)
    crop = reduced(reduced(cut_dense(picture(400, 400), dense, crop_side=1024), 200), 64)
    assert crop.mask.shape == (64, 64)
    assert crop.area == pytest.approx(float(dense.sum()), rel=0.05)


# Distances


@QUICK
@given(masks_hw(some_pixel=True))
def test_distances_in_an_unreduced_crop_are_scipys(dense: BoolArray) -> None:
    crop = cut_dense(picture(*dense.shape), dense)
    distances = distance_map(crop)
    assert distances.dtype == np.float32
    np.testing.assert_allclose(distances, distance_transform_edt(~crop.mask), atol=1e-3)
    assert (distances[crop.mask] == 0).all()
    assert (distances[~crop.mask] >= 1).all()


@pytest.mark.parametrize("crop_side", [32, 64, 100])
def test_distances_after_reduction_are_in_pixels_of_the_picture(crop_side: int) -> None:
    dense = disc((500, 500), (250, 250), 90)
    full = cut_dense(picture(500, 500), dense, crop_side=1024)
    small = reduced(full, crop_side)
    truth = distance_transform_edt(~full.mask)
    side = len(full.mask)
    # The full-size distance at the place of each reduced pixel's centre.
    centres = np.round((np.arange(crop_side) + 0.5) * side / crop_side - 0.5).astype(int)
    expected = truth[np.ix_(centres, centres)]
    off = np.abs(distance_map(small) - expected)
    pixel = side / crop_side
    assert off.max() <= 1.5 * pixel, "right to about one pixel of the reduced crop"
    assert off.mean() <= 0.75 * pixel


@pytest.mark.parametrize("side", [24, 100, 256])
def test_distances_have_the_same_bits_on_every_machine(side: int) -> None:
    """OpenCV's own last bit depends on its threads; vectors must not."""
    mask = disc((side, side), (side // 2, side // 3), side / 6)
    crop = Crop(picture(side, side), mask, 1.0, (0, 0, side, side))
    exact = np.sqrt(np.rint(np.square(distance_transform_edt(~mask))).astype(np.float32))
    assert distance_map(crop).tobytes() == exact.astype(np.float32).tobytes()


def test_a_crop_that_is_all_object_has_no_distance() -> None:
    crop = Crop(picture(5, 5), np.ones((5, 5), np.bool_), 1.0, (0, 0, 5, 5))
    assert not distance_map(crop).any()


# Fading a crop


class Spy:
    """A custom fade that keeps what it was given."""

    def __init__(self) -> None:
        self.seen: list[tuple[Image, BoolArray, Floats]] = []

    def apply(self, image: Image, mask: BoolArray, distance_map: Floats) -> Image:
        self.seen.append((image, mask, distance_map))
        return image


class WeightSpy(WeightFade):
    def __init__(self) -> None:
        self.seen: list[Floats] = []

    def weights(self, distance_map: Floats) -> Floats:
        self.seen.append(distance_map)
        return np.ones(distance_map.shape, np.float32)


@pytest.mark.parametrize("size_hw", [(60, 60), (900, 1200), (2000, 3000)])
def test_what_a_fade_works_on_follows_the_object_and_not_the_picture(
    size_hw: tuple[int, int],
) -> None:
    dense = disc(size_hw, (30, 30), 10)
    crop = cut_dense(np.zeros((*size_hw, 3), np.uint8), dense)
    side = math.ceil(math.sqrt(dense.sum() / 0.2))
    spy, weight_spy = Spy(), WeightSpy()
    faded(crop, spy)
    faded(crop, weight_spy)
    image, mask, distances = spy.seen[0]
    assert image.shape == (side, side, 3)
    assert mask.shape == distances.shape == weight_spy.seen[0].shape == (side, side)


@pytest.mark.parametrize("radius", [10, 40, 160])
def test_what_a_fade_works_on_is_never_larger_than_the_crop_side(radius: int) -> None:
    dense = disc((400, 400), (200, 200), radius)
    spy = Spy()
    faded(cut_dense(np.zeros((400, 400, 3), np.uint8), dense, crop_side=64), spy)
    expected = min(64, math.ceil(math.sqrt(dense.sum() / 0.2)))
    assert spy.seen[0][0].shape == (expected, expected, 3)


def small_crop() -> Crop:
    return cut_dense(picture(40, 50), disc((40, 50), (20, 18), 6))


@pytest.mark.parametrize(
    "fade",
    [GaussianFade(sigma=5, min_fade=0.1), LinearFade(20), ExponentialFade(), IdentityFade()],
    ids=lambda fade: type(fade).__name__,
)
def test_a_plain_weight_multiplies_the_image(fade: WeightFade) -> None:
    crop = small_crop()
    result = faded(crop, fade)
    assert result.plain
    weights = fade.weights(distance_map(crop))
    np.testing.assert_array_equal(result.weights, weights)
    expected = np.rint(crop.image_rgb * weights[:, :, None])
    np.testing.assert_array_equal(result.image_rgb, expected)
    np.testing.assert_array_equal(result.image_rgb[crop.mask], crop.image_rgb[crop.mask])
    applied = fade.apply(crop.image_rgb, crop.mask, distance_map(crop))
    np.testing.assert_array_equal(applied, result.image_rgb)


def test_a_faded_half_is_rounded_as_numpy_rounds_it() -> None:
    """Weights in sixteenths times whole numbers: many products end in exactly one half."""

    class Sixteenths(WeightFade):
        def weights(self, distance_map: Floats) -> Floats:
            return np.ceil(16 / (1 + distance_map)) / np.float32(16)

    dense = disc((64, 61), (30, 30), 10)
    crop = cut_dense(picture(64, 61), dense)
    result = faded(crop, Sixteenths())
    product = crop.image_rgb * result.weights[:, :, None]
    assert np.count_nonzero(product % 1 == 0.5) > 100
    np.testing.assert_array_equal(result.image_rgb, np.rint(product))


def test_the_automatic_gaussian_is_fitted_to_the_crops_object() -> None:
    crop = small_crop()
    fitted = GaussianFade().for_area(crop.area)
    expected = fitted.weights(distance_map(crop))
    np.testing.assert_array_equal(faded(crop, GaussianFade()).weights, expected)


def test_a_fade_follows_the_object_in_a_reduced_crop_as_in_a_full_one() -> None:
    """Half-way weights lie at the same distance of the picture, whatever the crop's scale."""
    dense = disc((300, 300), (150, 150), 60)
    full = cut_dense(picture(300, 300), dense, crop_side=1024)
    fade = LinearFade(max_distance=40)
    reach = [
        np.count_nonzero(faded(reduced(full, side), fade).weights > 0.5)
        / reduced(full, side).scale ** 2
        for side in (1024, 100, 64)
    ]
    assert reach[1] == pytest.approx(reach[0], rel=0.04)
    assert reach[2] == pytest.approx(reach[0], rel=0.06)


def custom(apply: Callable[[Any, Any, Any], Any], **more: Any) -> Any:
    """An object with ``apply`` (and what else it is given)."""
    methods = {name: staticmethod(value) for name, value in more.items()}
    return type("Mine", (), {"apply": staticmethod(apply), **methods})()


def test_a_fade_with_apply_alone_is_weighted_by_the_mask() -> None:
    crop = small_crop()
    result = faded(crop, custom(lambda image, mask, distances: image // 2))
    assert not result.plain
    np.testing.assert_array_equal(result.image_rgb, crop.image_rgb // 2)
    np.testing.assert_array_equal(result.weights, crop.mask.astype(np.float32))


def test_a_fade_with_apply_and_weights_is_weighted_by_its_own() -> None:
    crop = small_crop()
    fade = custom(
        lambda image, mask, distances: 255 - image, weights=lambda d: (d < 4).astype(np.float64)
    )
    result = faded(crop, fade)
    assert not result.plain
    assert result.weights.dtype == np.float32
    np.testing.assert_array_equal(result.image_rgb, 255 - crop.image_rgb)
    np.testing.assert_array_equal(result.weights, (distance_map(crop) < 4).astype(np.float32))


def test_a_custom_fade_gets_the_documented_arrays() -> None:
    crop, spy = small_crop(), Spy()
    faded(crop, spy)
    image, mask, distances = spy.seen[0]
    assert (image.dtype, mask.dtype, distances.dtype) == (np.uint8, np.bool_, np.float32)
    np.testing.assert_array_equal(image, crop.image_rgb)
    np.testing.assert_array_equal(mask, crop.mask)
    np.testing.assert_allclose(distances, distance_transform_edt(~mask), atol=1e-3)


def test_a_float_image_is_rounded_and_clipped_to_bytes() -> None:
    crop = small_crop()
    values = np.zeros(crop.image_rgb.shape, np.float64)
    values[0, :4, 0] = [-20, 99.6, 300, 12.4]
    result = faded(crop, custom(lambda image, mask, distances: values))
    assert result.image_rgb.dtype == np.uint8
    assert result.image_rgb[0, :4, 0].tolist() == [0, 100, 255, 12]


def test_a_fade_that_works_in_place_does_not_change_the_kept_crop() -> None:
    crop = small_crop()
    before = crop.image_rgb.copy(), crop.mask.copy()

    def destroy(image: Image, mask: BoolArray, distances: Floats) -> Image:
        image[:], mask[:], distances[:] = 0, True, -1
        return image

    def eat(distances: Floats) -> Floats:
        distances[:] = 0.5
        return distances

    result = faded(crop, custom(destroy, weights=eat))
    assert not result.image_rgb.any()
    np.testing.assert_array_equal(crop.image_rgb, before[0])
    np.testing.assert_array_equal(crop.mask, before[1])
    again: FadedCrop = faded(crop, GaussianFade(sigma=5))
    np.testing.assert_array_equal(again.image_rgb[crop.mask], before[0][crop.mask])


def raising(error: BaseException) -> Callable[..., Any]:
    def fail(*_: Any) -> Any:
        raise error

    return fail


@pytest.mark.parametrize("error", [ValueError("no good"), ZeroDivisionError("no good")], ids=repr)
def test_a_fade_that_raises_is_named_with_its_reason(error: Exception) -> None:
    with pytest.raises(
        ExtensionError, match=rf"Mine failed in apply\(\): {type(error).__name__}: no good"
    ):
        faded(small_crop(), custom(raising(error)))


def test_a_fade_may_raise_our_own_errors() -> None:
    with pytest.raises(ImageError, match="mine to say"):
        faded(small_crop(), custom(raising(ImageError("mine to say"))))


def nan_in_one_place(image: Image) -> npt.NDArray[np.float64]:
    values = image.astype(np.float64)
    values[0, 0, 0] = np.nan
    return values


WRONG_IMAGES: dict[str, Callable[[Any, Any, Any], Any]] = {
    "nothing": lambda image, mask, distances: None,
    "another size": lambda image, mask, distances: image[1:],
    "one channel": lambda image, mask, distances: image[..., 0],
    "NaN": lambda image, mask, distances: nan_in_one_place(image),
    "infinity": lambda image, mask, distances: image / np.float64(1e-320),
    "booleans": lambda image, mask, distances: image > 100,
    "complex numbers": lambda image, mask, distances: image * 1j,
    "objects": lambda image, mask, distances: image.astype(object),
    "text": lambda image, mask, distances: "done",
    "ragged lists": lambda image, mask, distances: [[1], [2, 3]],
    "a number": lambda image, mask, distances: 5,
}


@pytest.mark.filterwarnings("ignore:overflow", "ignore:invalid")
@pytest.mark.parametrize("what", WRONG_IMAGES)
def test_a_fade_that_returns_no_image_of_this_size_is_named(what: str) -> None:
    with pytest.raises(ExtensionError, match="the fade Mine"):
        faded(small_crop(), custom(WRONG_IMAGES[what]))


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.uint8])
def test_a_fade_that_returns_values_from_0_to_1_is_refused(dtype: Any) -> None:
    fade = custom(lambda image, mask, distances: (image / 255.0).astype(dtype))
    crop = small_crop()
    crop.image_rgb[crop.mask] = 255
    with pytest.raises(ExtensionError, match=r"Mine returned .* 0 to 1, .* multiply .* by 255"):
        faded(crop, fade)


def test_a_fade_of_a_black_object_may_return_values_up_to_1() -> None:
    crop = small_crop()
    crop.image_rgb[:] = 1
    assert faded(crop, custom(lambda image, mask, distances: image)).image_rgb.max() == 1


WRONG_WEIGHTS: dict[str, Callable[[Any], Any]] = {
    "nothing": lambda distances: None,
    "another size": lambda distances: distances[1:],
    "NaN": lambda distances: distances * np.nan,
    "text": lambda distances: "heavy",
    "negative": lambda distances: -np.ones_like(distances),
    "above 1": lambda distances: distances + 2,
    "nothing left": lambda distances: distances * 0,
    "a raised error": raising(ValueError("too heavy")),
}


@pytest.mark.parametrize("what", WRONG_WEIGHTS)
def test_a_fade_with_wrong_weights_is_named(what: str) -> None:
    fade = custom(lambda image, mask, distances: image, weights=WRONG_WEIGHTS[what])
    with pytest.raises(ExtensionError, match="Mine"):
        faded(small_crop(), fade)


@pytest.mark.parametrize("what", WRONG_WEIGHTS)
def test_a_weight_fade_of_the_users_own_with_wrong_weights_is_named(what: str) -> None:
    class Mine(WeightFade):
        def weights(self, distance_map: Floats) -> Floats:
            return WRONG_WEIGHTS[what](distance_map)  # type: ignore[no-any-return]

    with pytest.raises(ExtensionError, match="Mine"):
        faded(small_crop(), Mine())


def test_a_weight_fade_that_brings_its_own_apply_is_asked_for_it() -> None:
    class Mine(GaussianFade):
        def apply(self, image: Image, mask: BoolArray, distance_map: Floats) -> Image:
            return 255 - image

    crop = small_crop()
    np.testing.assert_array_equal(faded(crop, Mine(sigma=5)).image_rgb, 255 - crop.image_rgb)
