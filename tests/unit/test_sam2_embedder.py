"""SAM 2 embeddings: beside the official predictor, beside slow and obvious references."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from sam2.sam2_image_predictor import SAM2ImagePredictor
from sam2_helpers import small_model, write_small_sam2
from torch.nn.functional import interpolate

from sam_detect import SAMDetect
from sam_detect.embedding import sam2 as sam2_module
from sam_detect.embedding.sam2 import SAM2Embedder, window
from sam_detect.errors import ConfigError, MaskError, SamDetectError, UnavailableError
from sam_detect.fading import BlurFade, GaussianFade, IdentityFade
from sam_detect.fading.context import cut, faded
from sam_detect.models.sam2 import LoadedSAM2, load_sam2, shared_sam2
from sam_detect.models.sam2_features import SAM2Features, bilinear_rows
from sam_detect.types import Crop, FadedCrop, Frame, Masks
from sam_detect.types.masks import BoolArray
from sam_detect.vector_store import MemoryVectorStore
from tests.closeness import assert_same_vectors

TOLERANCE = 1e-5
"""Largest difference of a unit vector's element from the official one: float32 rounding."""
CPU = torch.device("cpu")
Floats = npt.NDArray[np.float32]

pytestmark = pytest.mark.usefixtures("one_torch_thread")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_sam2(tmp_path_factory.mktemp("sam2"))


@pytest.fixture(scope="module")
def embedder(checkpoint: Path) -> SAM2Embedder:
    return SAM2Embedder(checkpoint, device="cpu", batch_size=3)


@pytest.fixture(scope="module")
def by_frame(checkpoint: Path) -> SAM2Embedder:
    return SAM2Embedder(checkpoint, device="cpu", pooling="frame")


def crop(seed: int, height: int = 50, width: int = 50, fade: Any = None) -> FadedCrop:
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    radius = max(1.0, min(height, width) / 4)
    mask = np.asarray((x - width / 2) ** 2 + (y - height / 2) ** 2 <= radius**2)
    coarse = random.integers(0, 256, (height // 7 + 1, width // 7 + 1, 3)).astype(np.uint8)
    image = coarse.repeat(7, axis=0).repeat(7, axis=1)[:height, :width]
    return faded(Crop(image, mask, 1.0, (0, 0, width, height)), fade or IdentityFade())


def crops() -> list[FadedCrop]:
    sizes = [(50, 50), (8, 8), (33, 61), (64, 20), (1, 1), (256, 256), (300, 280)]
    fades = [GaussianFade(), IdentityFade(), BlurFade(3.0)]
    return [crop(i, *size, fade=fades[i % 3]) for i, size in enumerate(sizes)]


def official_predictor(model: Path | LoadedSAM2) -> SAM2ImagePredictor:
    predictor = SAM2ImagePredictor(shared_sam2(model, device="cpu").model)
    side = predictor.model.image_size
    # The official predictor knows the sizes of 1024-pixel models only.
    predictor._bb_feat_sizes = [(side // 4,) * 2, (side // 8,) * 2, (side // 16,) * 2]
    return predictor


def officially(predictor: SAM2ImagePredictor, image: npt.NDArray[np.uint8], mask: BoolArray) -> Any:
    """One object's vector, step by step: encode, shrink the mask, average, normalise."""
    predictor.set_image(image)
    features = predictor._features["image_embed"]
    whole = torch.from_numpy(mask.astype(np.float32))[None, None]
    small = interpolate(whole, features.shape[2:], mode="bilinear", align_corners=False)
    pooled = (features * small).sum(dim=(2, 3)) / small.sum()
    return (pooled / pooled.norm()).numpy()[0]


def spread(vectors: Floats) -> float:
    """How far the vectors differ from each other: a tolerance must be far below it."""
    return float(
        np.abs(vectors[:, None] - vectors[None])
        .max(axis=2)[~np.eye(len(vectors), dtype=bool)]
        .min()
    )


# Crops


def test_parity_of_crops_with_the_official_predictor(
    checkpoint: Path, embedder: SAM2Embedder
) -> None:
    predictor = official_predictor(checkpoint)
    seen = [(each.image_rgb, each.crop.mask) for each in crops()]
    expected = np.stack([officially(predictor, *piece) for piece in seen])
    assert spread(expected) > 100 * TOLERANCE
    np.testing.assert_allclose(embedder.embed(crops()), expected, atol=TOLERANCE)


@pytest.mark.parametrize("flags", [{"high_res": False}, {"obj_scores": False}])
def test_parity_of_features_with_the_official_predictor(
    tmp_path: Path, flags: dict[str, bool]
) -> None:
    loaded = small_model(tmp_path, seed=3, **flags)
    predictor = official_predictor(loaded)
    image = crop(0, 90, 130).image_rgb
    predictor.set_image(image)
    found = SAM2Features(loaded)([image])
    torch.testing.assert_close(found, predictor._features["image_embed"], atol=1e-6, rtol=1e-6)


def test_parity_of_features_without_the_no_memory_embedding(checkpoint: Path) -> None:
    loaded = load_sam2(checkpoint, device=CPU)
    loaded.model.directly_add_no_mem_embed = False
    predictor = SAM2ImagePredictor(loaded.model)
    predictor._bb_feat_sizes = [(64, 64), (32, 32), (16, 16)]
    predictor.set_image(crop(0).image_rgb)
    found = SAM2Features(loaded)([crop(0).image_rgb])
    torch.testing.assert_close(found, predictor._features["image_embed"], atol=1e-6, rtol=1e-6)


def test_an_encoder_of_another_class_is_asked_as_the_official_code_asks_it(
    checkpoint: Path,
) -> None:
    loaded = load_sam2(checkpoint, device=CPU)
    expected = SAM2Features(loaded)([crop(0).image_rgb])
    neck = loaded.model.image_encoder.neck
    neck.__class__ = type("OtherNeck", (type(neck),), {})
    torch.testing.assert_close(SAM2Features(loaded)([crop(0).image_rgb]), expected)


@pytest.mark.slow  # the real tiny architecture, at 1024 pixels
def test_parity_of_a_real_config_with_the_official_predictor(tmp_path: Path) -> None:
    from sam2.build_sam import build_sam2

    torch.manual_seed(0)
    model = build_sam2("configs/sam2.1/sam2.1_hiera_t.yaml", device="cpu")
    path = tmp_path / "sam2.1_hiera_tiny.pt"
    torch.save({"model": model.state_dict()}, path)
    found = SAM2Embedder(path, device="cpu").embed(crops()[:2])
    assert found.shape == (2, 256)
    predictor = SAM2ImagePredictor(model)
    expected = [officially(predictor, each.image_rgb, each.crop.mask) for each in crops()[:2]]
    np.testing.assert_allclose(found, np.stack(expected), atol=TOLERANCE)


def test_vectors_keep_the_interface(embedder: SAM2Embedder) -> None:
    vectors = embedder.embed(crops())
    assert (vectors.dtype, vectors.shape) == (np.float32, (len(crops()), 32))
    assert (embedder.dimension, embedder.input_side, embedder.of_frames) == (32, 256, False)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    assert embedder.embed([]).shape == (0, 32)


@pytest.mark.parametrize("batch_size", [1, 2, 100])
def test_the_size_of_batches_changes_nothing(
    checkpoint: Path, embedder: SAM2Embedder, batch_size: int
) -> None:
    other = SAM2Embedder(checkpoint, device="cpu", batch_size=batch_size)
    np.testing.assert_allclose(other.embed(crops()), embedder.embed(crops()), atol=TOLERANCE)


def test_a_model_that_runs_out_of_memory_gives_the_same_vectors(
    checkpoint: Path, embedder: SAM2Embedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = SAM2Embedder(load_sam2(checkpoint, device=CPU), batch_size=100)
    trunk, asked = embedder_model(other).model.image_encoder.trunk, []
    forward = trunk.forward

    def limited(batch: torch.Tensor) -> Any:
        asked.append(len(batch))
        if len(batch) > 2:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return forward(batch)

    monkeypatch.setattr(trunk, "forward", limited)
    np.testing.assert_allclose(other.embed(crops()), embedder.embed(crops()), atol=TOLERANCE)
    assert asked[0] > 2
    monkeypatch.setattr(trunk, "forward", lambda batch: limited(torch.cat([batch] * 3)))
    frame, masks = frame_with_masks()
    with pytest.raises(UnavailableError, match="memory does not suffice"):
        other.embed(crops())
    with pytest.raises(UnavailableError, match="memory does not suffice"):
        SAM2Embedder(embedder_model(other), pooling="frame").embed_frame(frame, masks)


def test_the_mask_decides_what_is_averaged(embedder: SAM2Embedder) -> None:
    one = crop(0)
    left, right = np.zeros((2, 50, 50), bool)
    left[10:40, 5:20], right[10:40, 30:45] = True, True
    parts = [faded(Crop(one.crop.image_rgb, mask, 1.0, (0, 0, 50, 50)), IdentityFade())
             for mask in (left, right)]  # fmt: skip
    vectors = embedder.embed(parts)
    assert float(vectors[0] @ vectors[1]) < 0.9999


def test_the_encoder_sees_the_fade(embedder: SAM2Embedder) -> None:
    seen = [crop(0), crop(0, fade=GaussianFade(2.0)), crop(0, fade=BlurFade(9.0))]
    vectors = embedder.embed(seen)
    assert spread(vectors) > 1e-3


@pytest.mark.parametrize("place", [(0, 0), (57, 31), (99, 99)])
def test_an_object_of_one_pixel_has_a_vector_of_its_own_place(
    embedder: SAM2Embedder, place: tuple[int, int]
) -> None:
    image = crop(5, 100, 100).crop.image_rgb
    mask = np.zeros((100, 100), bool)
    mask[place] = True
    [vector] = embedder.embed([faded(Crop(image, mask, 1.0, (0, 0, 100, 100)), IdentityFade())])
    features = SAM2Features(embedder_model(embedder))([image])
    there = interpolate(features, (100, 100), mode="bilinear", align_corners=False)
    there = there[0, :, place[0], place[1]]
    # Four cells at most are near a pixel, whether its mask is interpolated or its features are.
    assert float(torch.from_numpy(vector) @ (there / there.norm())) == pytest.approx(1, abs=0.01)


def embedder_model(embedder: SAM2Embedder) -> Any:
    return embedder._features._loaded


# Several occupancies


def test_several_occupancies_lie_side_by_side(checkpoint: Path, embedder: SAM2Embedder) -> None:
    image = crop(1, 200, 200).crop.image_rgb
    mask = np.zeros((200, 200), bool)
    mask[90:110, 95:105] = True
    box = (95, 90, 105, 110)
    wide = cut(image, mask[90:110, 95:105], box, occupancy=0.1, crop_side=256)
    tight = cut(image, mask[90:110, 95:105], box, occupancy=0.4, crop_side=256)
    several = SAM2Embedder(checkpoint, device="cpu", occupancies=(0.1, 0.4))
    assert (several.dimension, several.occupancy) == (64, 0.1)
    [found] = several.embed([faded(wide, IdentityFade())])
    alone = embedder.embed([faded(each, IdentityFade()) for each in (wide, tight)])
    assert np.linalg.norm(found) == pytest.approx(1, abs=1e-6)
    np.testing.assert_allclose(found.reshape(2, 32) * np.sqrt(2), alone, atol=TOLERANCE)


def test_a_window_is_what_would_have_been_cut(tmp_path: Path) -> None:
    mask = np.zeros((60, 60), bool)
    mask[28:32, 26:34] = True  # 32 pixels
    image = np.arange(60 * 60 * 3, dtype=np.uint32).reshape(60, 60, 3).astype(np.uint8)
    part, inside = window(image, mask, 0.125)  # 16 pixels a side
    np.testing.assert_array_equal(part, image[22:38, 22:38])
    np.testing.assert_array_equal(inside, mask[22:38, 22:38])
    assert window(image, mask, 0.8)[1].shape == (12, 12), "the box with its margin"
    assert window(image, mask, 0.001)[1].shape == (60, 60), "no more than the crop"
    corner = np.zeros((60, 60), bool)
    corner[:4, :4] = True
    for turned in (corner, corner[::-1], corner[:, ::-1], corner[::-1, ::-1]):
        inside = window(image, turned, 0.25)[1]
        assert (inside.shape, inside.sum()) == ((8, 8), 16)


@pytest.mark.parametrize("wrong", [(), (0.01,), (0.2, 0.9), (float("nan"),)])
def test_occupancies_out_of_range_are_refused(checkpoint: Path, wrong: Any) -> None:
    with pytest.raises(ConfigError, match=r"occupancies must be numbers from 0\.05 to 0\.80"):
        SAM2Embedder(checkpoint, device="cpu", occupancies=wrong)


def test_what_does_not_go_together_is_refused(checkpoint: Path) -> None:
    with pytest.raises(ConfigError, match="pooling 'crop'"):
        SAM2Embedder(checkpoint, pooling="frame", occupancies=(0.2,))
    for other in ("max", "auto"):
        with pytest.raises(ConfigError, match=f"pooling must be crop or frame, got '{other}'"):
            SAM2Embedder(checkpoint, pooling=other)


# Frames


def frame_with_masks() -> tuple[Frame, Masks]:
    image = crop(2, 120, 180).crop.image_rgb
    dense = np.zeros((6, 120, 180), bool)
    dense[0, 10:50, 20:60] = True
    dense[1, 60:120, 100:180] = True  # at the corner
    dense[2, 30, 90] = True  # one pixel
    dense[3, ::7, ::5] = True  # scattered
    dense[4] = True  # everything
    dense[5, 119, 179] = True  # the last pixel
    return Frame(image), Masks.from_dense(dense)


def test_a_frame_is_pooled_as_its_interpolated_map(by_frame: SAM2Embedder) -> None:
    frame, masks = frame_with_masks()
    features = SAM2Features(embedder_model(by_frame))([frame.image_rgb])
    whole = interpolate(features, frame.size_hw, mode="bilinear", align_corners=False)[0]
    means = [whole[:, torch.from_numpy(masks.dense(i))].mean(dim=1) for i in range(len(masks))]
    expected = torch.stack([mean / mean.norm() for mean in means]).numpy()
    found = by_frame.embed_frame(frame, masks)
    assert (found.dtype, by_frame.of_frames) == (np.float32, True)
    assert spread(expected[[0, 1, 2, 4, 5]]) > 100 * TOLERANCE
    np.testing.assert_allclose(found, expected, atol=TOLERANCE)


def test_masks_of_a_frame_keep_their_order_in_many_batches(
    by_frame: SAM2Embedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    frame, masks = frame_with_masks()
    together = by_frame.embed_frame(frame, masks)
    monkeypatch.setattr("sam_detect.embedding.sam2.MASKS_AT_ONCE", 4)
    np.testing.assert_allclose(by_frame.embed_frame(frame, masks), together, atol=1e-6)
    np.testing.assert_allclose(
        by_frame.embed_frame(frame, masks[[3, 0]]), together[[3, 0]], atol=1e-6
    )


@pytest.mark.parametrize(("length", "cells"), [(64, 16), (7, 16), (1, 4), (16, 16), (333, 64)])
def test_rows_interpolate_as_torch_does(length: int, cells: int) -> None:
    values = torch.randn(1, 1, cells, generator=torch.Generator().manual_seed(0))
    expected = interpolate(values, length, mode="linear", align_corners=False)[0, 0].numpy()
    np.testing.assert_allclose(
        bilinear_rows(length, cells) @ values[0, 0].numpy(), expected, atol=5e-5
    )


def test_masks_of_another_picture_are_refused(by_frame: SAM2Embedder) -> None:
    frame, _ = frame_with_masks()
    masks = Masks.from_dense(np.ones((120, 181), bool))
    with pytest.raises(MaskError, match="181x120 picture do not fit"):
        by_frame.embed_frame(frame, masks)
    assert by_frame.embed_frame(frame, Masks.empty((120, 180))).shape == (0, 32)


def test_an_empty_mask_or_one_outside_the_picture_never_gets_here() -> None:
    with pytest.raises(MaskError, match="at least one pixel"):
        Masks.from_dense(np.zeros((120, 180), bool))
    with pytest.raises(MaskError, match="inside the 180x120 picture"):
        Masks.from_crops(size_hw=(120, 180), boxes_xyxy=[[178, 0, 182, 2]],
                         crops=[np.ones((2, 4), bool)])  # fmt: skip


# Recipes


def test_large_objects_are_kept_larger_and_described_from_what_is_kept(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sam_detect.embedding.sam2.CROP_SIDE", 200)
    image = crop(2, 300, 300).crop.image_rgb
    dense = np.zeros((300, 300), bool)
    dense[60:200, 50:190] = True  # in a window of 314 pixels
    store = MemoryVectorStore()
    parts: dict[str, Any] = {"segmenter": "naive", "vector_store": store}
    detector = SAMDetect(embedder=SAM2Embedder(checkpoint, device="cpu"), **parts)
    detector.add_example(image, "thing", dense)
    [kept] = detector.library.read()
    assert (detector.recipe.crop_side, kept.crop.mask.shape) == (200, (200, 200))
    assert kept.vector is not None
    assert_same_vectors(detector.pipeline.features.embed_crops([kept.crop])[0], kept.vector)
    monkeypatch.undo()
    again = SAMDetect(embedder=SAM2Embedder(checkpoint, device="cpu"), **parts)
    assert again.recipe.crop_side == 200, "as the library has it"
    parts["vector_store"] = "memory"
    made = SAM2Embedder(checkpoint, device="cpu")
    assert made.crop_side == 256, "more than the model sees would be kept in vain"
    assert SAMDetect(embedder=made, crop_side=99, **parts).recipe.crop_side == 99
    by_frame = SAM2Embedder(checkpoint, device="cpu", pooling="frame")
    assert SAMDetect(embedder=by_frame, **parts).recipe.crop_side == 256
    assert by_frame.crop_side is None


@pytest.mark.parametrize(
    "options",
    [{}, {"pooling": "frame"}, {"occupancies": (0.1, 0.3)}, {"dtype": "bf16"}],
    ids=str,
)
def test_parameters_make_it_again(checkpoint: Path, options: dict[str, Any]) -> None:
    made = SAM2Embedder(checkpoint, device="cpu", **options)
    parameters = json.loads(json.dumps(made.parameters()))
    assert parameters.pop("file") == checkpoint.name, "and no path"
    again = SAM2Embedder(checkpoint, **parameters, device="cpu")
    assert again.parameters() == made.parameters()
    for name, value in options.items():
        assert parameters[name] == (list(value) if isinstance(value, tuple) else value)
    assert_same_vectors(again.embed(crops()[:2]), made.embed(crops()[:2]))


def test_a_model_that_is_loaded_already_is_taken(checkpoint: Path, embedder: SAM2Embedder) -> None:
    made = SAM2Embedder(load_sam2(checkpoint, device=CPU))
    np.testing.assert_allclose(made.embed(crops()), embedder.embed(crops()), atol=TOLERANCE)
    assert made.parameters() == embedder.parameters()


def test_other_weights_than_those_of_the_recipe_are_refused(
    embedder: SAM2Embedder, tmp_path: Path
) -> None:
    other = write_small_sam2(tmp_path, seed=1)
    with pytest.raises(UnavailableError, match="not those that the library was made with"):
        SAM2Embedder(other, device="cpu", digest=embedder.parameters()["digest"])


def test_the_recipe_has_the_precision_that_auto_is_here(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "dtype" not in SAM2Embedder(checkpoint, device="cpu", dtype="auto").parameters()
    monkeypatch.setattr(sam2_module, "resolve_dtype", lambda *_: torch.bfloat16)
    made = SAM2Embedder(checkpoint, device="cpu", dtype="auto")
    assert made.parameters()["dtype"] == "bf16"


def test_a_lower_precision_gives_near_vectors(checkpoint: Path, embedder: SAM2Embedder) -> None:
    lower = SAM2Embedder(checkpoint, device="cpu", dtype="bf16")
    found, exact = lower.embed(crops()), embedder.embed(crops())
    assert not np.array_equal(found, exact)
    assert (found * exact).sum(axis=1).min() > 0.99


def test_weights_that_give_no_numbers_are_said(checkpoint: Path) -> None:
    broken = SAM2Embedder(load_sam2(checkpoint, device=CPU))
    embedder_model(broken).model.no_mem_embed.fill_(float("inf"))
    for work in (lambda: broken.embed([crop(0)]), lambda: broken.embed_frame(*frame_with_masks())):
        with pytest.raises(SamDetectError, match=r"no usable vectors|sees no numbers"):
            work()


def test_weights_that_are_not_here_are_never_fetched() -> None:
    with pytest.raises(UnavailableError, match=r"sam-detect download-models --sam-model base"):
        SAM2Embedder("base", device="cpu")
