"""What every registered embedder keeps to: the promises of ``interfaces.Embedder``."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from sam_detect import registry
from sam_detect.errors import UnavailableError
from sam_detect.fading import BlurFade, GaussianFade
from sam_detect.fading.context import faded
from sam_detect.interfaces import Embedder
from sam_detect.models import catalogue
from sam_detect.parts import make_embedder
from sam_detect.types import Crop, FadedCrop
from tests.closeness import assert_same_vectors

NAMES = registry.names("embedder")
MODELS = {"clip": "model_name", "sam2": "model_size"}
KNOWS_NOTHING = {"clip", "sam2"}
"""To models of random weights all things are much alike."""


Make = Callable[[str], Embedder]


@pytest.fixture
def make(model_files: dict[str, Path]) -> Make:
    """Makes the embedder of a name; one that runs a model with a small one of random weights."""

    def made(name: str) -> Embedder:
        given = {MODELS[name]: str(model_files[name])} if name in model_files else {}
        try:
            return make_embedder(name, given, "cpu")
        except UnavailableError as error:
            pytest.skip(str(error))

    return made


@pytest.fixture(params=NAMES)
def embedder(request: pytest.FixtureRequest, make: Make) -> Embedder:
    return make(request.param)


def crop(seed: int = 0, side: int = 40, radius: float = 9, *, plain: bool = True) -> FadedCrop:
    """A disc of one colour with noise on a ground of another; both follow from the seed."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side]
    mask = np.asarray((x - side // 2) ** 2 + (y - side // 2) ** 2 <= radius**2)
    colours = random.integers(30, 226, (2, 3))
    image = np.where(mask[:, :, None], colours[0], colours[1])
    image = (image + random.integers(-20, 21, image.shape)).astype(np.uint8)
    fade = GaussianFade() if plain else BlurFade(3.0)
    return faded(Crop(image, mask, 1.0, (0, 0, side, side)), fade)


def test_it_says_what_it_is(embedder: Embedder, make: Make) -> None:
    assert embedder.name in NAMES
    assert make(embedder.name).name == embedder.name
    assert isinstance(embedder.version, int)
    assert embedder.version >= 1
    assert embedder.input_side >= 1
    assert embedder.dimension >= 1
    assert -1 < embedder.prior_similarity < 1


@pytest.mark.parametrize("plain", [True, False], ids=["weights", "custom fade"])
@pytest.mark.parametrize("count", [1, 2, 7])
def test_vectors_have_the_documented_form(embedder: Embedder, count: int, plain: bool) -> None:
    vectors = embedder.embed([crop(seed, plain=plain) for seed in range(count)])
    assert vectors.shape == (count, embedder.dimension)
    assert vectors.dtype == np.float32
    assert np.isfinite(vectors).all()
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_no_crops_are_no_vectors(embedder: Embedder) -> None:
    vectors = embedder.embed([])
    assert vectors.shape == (0, embedder.dimension)
    assert vectors.dtype == np.float32


def test_vectors_come_in_the_order_of_the_crops(embedder: Embedder) -> None:
    crops = [crop(seed) for seed in range(5)]
    together = embedder.embed(crops)
    alone = np.concatenate([embedder.embed([one]) for one in crops])
    assert_same_vectors(together, alone)
    assert_same_vectors(embedder.embed(crops[::-1]), alone[::-1])


def test_crops_of_several_sizes_go_together(embedder: Embedder) -> None:
    sizes = [(1, 0), (2, 1), (16, 3), (embedder.input_side, embedder.input_side / 4)]
    vectors = embedder.embed([crop(1, side, radius) for side, radius in sizes])
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_the_same_crop_has_the_same_vector_each_time(embedder: Embedder, make: Make) -> None:
    vectors = embedder.embed([crop(3), crop(3)])
    assert_same_vectors(vectors[0], vectors[1])
    assert float(vectors[0] @ vectors[1]) == pytest.approx(1, abs=1e-5)
    for made in (embedder, make(embedder.name)):
        assert_same_vectors(made.embed([crop(3)])[0], vectors[0])


def test_different_things_have_different_vectors(embedder: Embedder) -> None:
    vectors = embedder.embed([crop(seed) for seed in range(6)])
    similarities = vectors @ vectors.T
    most = 0.9999 if embedder.name in KNOWS_NOTHING else 0.999
    assert similarities[~np.eye(6, dtype=bool)].max() < most


def test_a_view_with_a_little_noise_is_nearer_than_another_thing(embedder: Embedder) -> None:
    one, other = crop(0), crop(1)
    noise = np.random.default_rng(9).integers(-4, 5, one.crop.image_rgb.shape)
    image = np.clip(one.crop.image_rgb + noise, 0, 255).astype(np.uint8)
    again = faded(Crop(image, one.crop.mask, 1.0, one.crop.window_xyxy), GaussianFade())
    vectors = embedder.embed([one, again, other])
    near, far = np.linalg.norm(vectors[1:].astype(np.float64) - vectors[0], axis=1)
    assert near < far / 5
    if embedder.name not in KNOWS_NOTHING:
        assert float(vectors[0] @ vectors[1]) > float(vectors[0] @ vectors[2]) + 0.01


def test_crops_do_not_change(embedder: Embedder) -> None:
    one = crop(4)
    arrays = one.image_rgb, one.weights, one.crop.image_rgb, one.crop.mask
    before = [array.copy() for array in arrays]
    embedder.embed([one, one])
    for array, kept in zip(arrays, before, strict=True):
        np.testing.assert_array_equal(array, kept)


def test_vectors_belong_to_the_caller(embedder: Embedder) -> None:
    first = embedder.embed([crop(0)])
    kept = first.copy()
    embedder.embed([crop(1)])
    np.testing.assert_array_equal(first, kept)
    first[:] = 0
    assert_same_vectors(embedder.embed([crop(0)]), kept)


def test_two_threads_get_what_one_gets(embedder: Embedder) -> None:
    batches = [[crop(seed), crop(seed + 1)] for seed in range(16)]
    alone = [embedder.embed(batch) for batch in batches]
    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(embedder.embed, batches))
    assert_same_vectors(np.stack(together), np.stack(alone))


def test_a_recipe_may_have_its_parameters(embedder: Embedder) -> None:
    assert catalogue.checked_model(embedder.name, embedder.parameters()) == embedder.parameters()
    assert embedder.name in catalogue.PARAMETERS
    assert catalogue.names_a_place({"any": embedder.parameters().get(catalogue.FILE)}) is None


def test_its_parameters_are_json_and_make_it_again(
    embedder: Embedder, model_files: dict[str, Path]
) -> None:
    parameters = json.loads(json.dumps(embedder.parameters()))
    if catalogue.FILE in parameters:  # the file itself is given again, not found by its name
        of_file = (catalogue.FILE, *catalogue.DIGESTS)
        parameters = {k: v for k, v in parameters.items() if k not in of_file}
        parameters[MODELS[embedder.name]] = str(model_files[embedder.name])
    again = make_embedder(embedder.name, parameters)
    assert again.parameters() == embedder.parameters()
    assert again.dimension == embedder.dimension
    assert_same_vectors(again.embed([crop(2)]), embedder.embed([crop(2)]))
