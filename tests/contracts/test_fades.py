"""What every registered fade keeps to: the promises of ``interfaces.Fade`` and ``WeightFade``."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from sam_detect import registry
from sam_detect.errors import ConfigError
from sam_detect.fading.context import distance_map, faded
from sam_detect.interfaces import Fade, WeightFade
from sam_detect.parts import describe_fade, make_fade
from sam_detect.types import Crop

NAMES = registry.names("fade")


def crop(height: int = 40, width: int = 48, radius: float = 7, seed: int = 0) -> Crop:
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    y, x = np.mgrid[:height, :width]
    mask = np.asarray((x - width // 2) ** 2 + (y - height // 2) ** 2 <= radius**2)
    return Crop(image, mask, 1.0, (0, 0, width, height))


CROPS = {
    "a disc": crop(),
    "one pixel": crop(radius=0),
    "all object": crop(radius=100),
    "one by one": crop(1, 1),
    "a row": crop(1, 20, radius=2),
    "a column": crop(20, 1, radius=2),
    "large": crop(256, 256, radius=60),
}


@pytest.fixture(params=NAMES)
def fade(request: pytest.FixtureRequest) -> Any:
    return make_fade(request.param)


@pytest.mark.parametrize("what", CROPS)
def test_apply_gives_an_image_of_the_same_size(fade: Any, what: str) -> None:
    one = CROPS[what]
    result = np.asarray(fade.apply(one.image_rgb, one.mask, distance_map(one)))
    assert result.shape == one.image_rgb.shape
    assert result.dtype == np.uint8 or result.dtype.kind == "f"
    assert np.isfinite(result).all()
    assert result.min() >= 0
    assert result.max() <= 255


@pytest.mark.parametrize("what", CROPS)
def test_the_object_itself_is_not_faded(fade: Any, what: str) -> None:
    one = CROPS[what]
    result = faded(one, fade)
    np.testing.assert_array_equal(result.image_rgb[one.mask], one.image_rgb[one.mask])
    np.testing.assert_array_equal(result.weights[one.mask], 1)


@pytest.mark.parametrize("what", CROPS)
def test_a_faded_crop_has_the_documented_arrays(fade: Any, what: str) -> None:
    one = CROPS[what]
    result = faded(one, fade)
    assert result.crop is one
    assert result.plain == isinstance(fade, WeightFade)
    assert result.image_rgb.dtype == np.uint8
    assert result.image_rgb.shape == one.image_rgb.shape
    assert result.weights.dtype == np.float32
    assert result.weights.shape == one.mask.shape
    assert 0 <= result.weights.min() <= result.weights.max() <= 1


def test_it_is_a_fade_as_the_interface_says(fade: Any) -> None:
    assert isinstance(fade, Fade)


def test_the_same_crop_fades_the_same_each_time(fade: Any) -> None:
    one = CROPS["large"]
    first = faded(one, fade)
    for _ in range(5):
        again = faded(one, fade)
        assert again.image_rgb.tobytes() == first.image_rgb.tobytes()
        assert again.weights.tobytes() == first.weights.tobytes()


def test_inputs_do_not_change(fade: Any) -> None:
    one = CROPS["a disc"]
    distances = distance_map(one)
    before = one.image_rgb.copy(), one.mask.copy(), distances.copy()
    fade.apply(one.image_rgb, one.mask, distances)
    faded(one, fade)
    for array, kept in zip((one.image_rgb, one.mask, distances), before, strict=True):
        np.testing.assert_array_equal(array, kept)


def test_two_threads_get_what_one_gets(fade: Any) -> None:
    crops = [crop(seed=seed, radius=2 + seed) for seed in range(12)] * 4
    alone = [faded(one, fade).image_rgb.tobytes() for one in crops]
    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(lambda one: faded(one, fade).image_rgb.tobytes(), crops))
    assert together == alone


def test_what_a_recipe_keeps_of_it_makes_it_again(fade: Any) -> None:
    again = make_fade(*describe_fade(fade))
    assert type(again) is type(fade)
    one = CROPS["a disc"]
    np.testing.assert_array_equal(faded(one, again).image_rgb, faded(one, fade).image_rgb)


@pytest.mark.parametrize("name", NAMES)
def test_a_parameter_it_does_not_have_is_refused_by_name(name: str) -> None:
    with pytest.raises(ConfigError, match=f"the fade '{name}' has no flavour"):
        make_fade(name, {"flavour": 3})


# Those that are plain weights


@pytest.fixture(
    params=[name for name in NAMES if issubclass(registry.load_class("fade", name), WeightFade)]
)
def weight_fade(request: pytest.FixtureRequest) -> WeightFade:
    made = make_fade(request.param)
    assert isinstance(made, WeightFade)
    return made


def weights_at(fade: WeightFade, distances: npt.ArrayLike) -> npt.NDArray[np.float32]:
    grid = np.atleast_2d(np.asarray(distances, np.float32))
    weights = fade.for_area(400.0).weights(grid)
    assert weights.shape == grid.shape
    assert weights.dtype == np.float32
    return weights


def test_weights_are_1_on_the_object_and_never_grow_with_the_distance(
    weight_fade: WeightFade,
) -> None:
    weights = weights_at(weight_fade, np.linspace(0, 600, 1201))[0]
    assert weights[0] == 1
    assert (np.diff(weights) <= 0).all()
    assert weights.min() >= 0


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (7, 1), (0, 5), (3, 4)])
def test_weights_have_the_shape_of_the_distances(
    weight_fade: WeightFade, shape: tuple[int, int]
) -> None:
    weights_at(weight_fade, np.full(shape, 3.0))


def test_weights_do_not_change_the_distances(weight_fade: WeightFade) -> None:
    distances = np.linspace(0, 600, 60, dtype=np.float32).reshape(6, 10)
    before = distances.copy()
    weights_at(weight_fade, distances)
    np.testing.assert_array_equal(distances, before)


def test_the_faded_image_is_the_image_times_the_weights(weight_fade: WeightFade) -> None:
    one = CROPS["a disc"]
    result = faded(one, weight_fade)
    expected = np.rint(one.image_rgb * result.weights[:, :, None])
    np.testing.assert_array_equal(result.image_rgb, expected)
    fitted = weight_fade.for_area(one.area)
    applied = fitted.apply(one.image_rgb, one.mask, distance_map(one))
    np.testing.assert_array_equal(applied, expected)


def test_fitting_it_to_an_object_leaves_it_as_it_is(weight_fade: WeightFade) -> None:
    before = describe_fade(weight_fade)
    assert isinstance(weight_fade.for_area(50.0), WeightFade)
    assert describe_fade(weight_fade) == before
