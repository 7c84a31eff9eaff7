"""The embedder lite with pooling "frame": one pass over the picture for all of its masks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from sam_detect import SAMDetect
from sam_detect.embedding import AppearanceEmbedder, LiteEmbedder, _pyramid, lite
from sam_detect.errors import ConfigError, ExtensionError, MaskError
from sam_detect.fading import GaussianFade
from sam_detect.features.extraction import FeatureExtractor
from sam_detect.library.reindex import embed_stored, reindex
from sam_detect.models.efficientnet_lite0 import CHANNELS
from sam_detect.types import Classification, Crop, Frame, Masks
from sam_detect.vector_store import MemoryVectorStore
from sam_detect.video.key_frames import UnchangedVectors
from tests.closeness import assert_same_vectors, same_vectors

LEARNED = slice(AppearanceEmbedder().dimension, None)


class MeanColours:
    """A network whose features are the mean colours of each cell, and the number of pixels it
    got."""

    def __init__(self) -> None:
        self.shapes: list[tuple[int, ...]] = []

    def __call__(self, pictures: npt.NDArray[np.float32]) -> dict[int, npt.NDArray[np.float32]]:
        self.shapes.append(pictures.shape)
        count, _, height, width = pictures.shape
        found = {}
        for stride in (4, 8, 16):
            cells = pictures.reshape(count, 3, height // stride, stride, width // stride, stride)
            means = cells.mean(axis=(3, 5))
            repeats = -(-CHANNELS[stride] // 3)
            found[stride] = np.tile(means, (1, repeats, 1, 1))[:, : CHANNELS[stride]]
        return found


def discs(size_hw: tuple[int, int], places: Sequence[tuple[float, float, float]]) -> Masks:
    """Masks of discs, each ``x, y, radius``."""
    y, x = np.mgrid[: size_hw[0], : size_hw[1]]
    return Masks.from_dense(
        np.array([(x - cx) ** 2 + (y - cy) ** 2 <= r**2 for cx, cy, r in places])
    )


def textured(size_hw: tuple[int, int] = (180, 240), seed: int = 0) -> npt.NDArray[np.uint8]:
    """Smooth noise in colour."""
    noise = np.random.default_rng(seed).integers(0, 256, (*size_hw, 3)).astype(np.uint8)
    smooth = cv2.GaussianBlur(noise, (0, 0), 4).astype(np.float32)
    return np.asarray(np.clip((smooth - 127) * 6 + 127, 0, 255), np.uint8)


def directions(sums: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    colours = sums[:, :3]
    return np.asarray(colours / np.linalg.norm(colours, axis=1, keepdims=True), np.float32)


@pytest.mark.parametrize(
    ("size_hw", "places"),
    [
        ((180, 240), [(60, 60, 20), (170, 90, 22), (70, 130, 18)]),
        ((700, 900), [(x, y, 25) for x in range(40, 900, 70) for y in range(40, 700, 70)]),
        ((400, 500), [(x, y, 6) for x in range(10, 500, 16) for y in range(10, 400, 16)]),
        ((900, 60), [(30, 450, 24), (30, 880, 15)]),
        ((3, 200), [(100, 1, 1)]),
        ((1, 1), [(0, 0, 1)]),
    ],
    ids=["one tile", "tiles", "enlarged", "narrow", "flat", "a pixel"],
)
def test_means_are_those_of_the_mask_at_its_scale(
    size_hw: tuple[int, int], places: list[tuple[float, float, float]]
) -> None:
    """Whatever the tiles are: cells are means, so each mask has the mean of the cells it covers."""
    image, masks = textured(size_hw), discs(size_hw, places)
    network: Any = MeanColours()
    found = _pyramid.features_of_frame(network, image, masks)
    sides = (masks.boxes_xyxy[:, 2:] - masks.boxes_xyxy[:, :2]).max(axis=1)
    scales = _pyramid.scales_of(masks.areas, sides)
    for index, scale in list(enumerate(scales.tolist()))[:: max(1, len(places) // 12)]:
        height, width = size_hw
        size = max(1, round(width * scale)), max(1, round(height * scale))
        ways = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        level = (cv2.resize(image, size, interpolation=ways).astype(np.float32) - 127) / 128
        solid = cv2.resize(
            masks.dense(index).astype(np.float32), size, interpolation=cv2.INTER_AREA
        )
        for stride in (8, 16):
            filled = [-(-length // stride) * stride for length in level.shape[:2]]
            picture, cover = np.zeros((*filled, 3), np.float32), np.zeros(filled, np.float32)
            picture[: size[1], : size[0]], cover[: size[1], : size[0]] = level, solid
            rows, columns = filled[0] // stride, filled[1] // stride
            cells = picture.reshape(rows, stride, columns, stride, 3).mean(axis=(1, 3))
            shares = cover.reshape(rows, stride, columns, stride).mean(axis=(1, 3))
            expected = (cells * shares[:, :, None]).sum(axis=(0, 1))
            got = directions(found[stride][[index]])[0]
            assert got @ (expected / np.linalg.norm(expected)) > 0.999


def test_few_masks_do_not_cost_the_whole_picture() -> None:
    image, network = textured((2000, 3000)), MeanColours()
    masks = discs((2000, 3000), [(700, 700, 8), (2500, 1500, 8)])
    _pyramid.features_of_frame(network, image, masks)  # type: ignore[arg-type]
    assert sum(shape[2] * shape[3] for shape in network.shapes) <= 2 * 200**2


def test_many_masks_cost_the_picture_once() -> None:
    image, network = textured((200, 300)), MeanColours()
    masks = discs((200, 300), [(x, y, 20) for x in range(20, 300, 4) for y in range(20, 200, 12)])
    _pyramid.features_of_frame(network, image, masks, finest=1.0)  # type: ignore[arg-type]
    pixels = sum(shape[2] * shape[3] for shape in network.shapes)
    assert pixels < 3 * 200 * 300 < len(masks) * 96**2 / 10


@pytest.mark.parametrize("length", [1, 64, 65, 319, 320, 321, 577, 1000, 5000])
def test_tiles_share_out_every_cell_once(length: int) -> None:
    sides = _pyramid._sides(length)
    cells = [cell for side in sides for cell in range(side.inside.start, side.inside.stop)]
    assert cells == list(range(len(cells)))
    assert len(cells) * 8 >= length
    for cell in cells[:: max(1, len(cells) // 50)]:
        [side] = [each for each in sides if each.inside.start <= cell < each.inside.stop]
        assert max(0, cell * 8 - _pyramid.HALO) >= side.window.start
        assert min(length, cell * 8 + 8 + _pyramid.HALO) <= side.window.stop
        assert sides.index(side) in _pyramid._met(sides, cell, 1)


def test_scales_follow_the_mask_alone() -> None:
    areas = np.geomspace(1, 1e6, 100)
    scales = _pyramid.scales_of(areas, np.sqrt(areas))
    windows = np.sqrt(areas / 0.2) * scales
    enlarged = scales < _pyramid.LARGEST_SCALE
    assert (np.abs(np.log2(windows[enlarged] / 96)) <= 0.55).all()
    octaves = np.log2(scales[enlarged])
    np.testing.assert_allclose(octaves, np.round(octaves), atol=1e-9)
    assert scales.max() == _pyramid.LARGEST_SCALE
    long = _pyramid.scales_of(np.array([100.0]), np.array([300.0]))
    assert long[0] < 0.4, "a line is seen whole"


# Vectors


def pictured() -> tuple[Frame, Masks]:
    """Discs with stripes and discs with dots on noise; the first four have stripes."""
    height, width = 240, 420
    y, x = np.mgrid[:height, :width]
    random = np.random.default_rng(2)
    image = random.integers(90, 110, (height, width, 3)).astype(np.uint8)
    places = [(60 + 95 * (i % 4), 70 + 100 * (i // 4), 26 + 2 * (i % 3)) for i in range(8)]
    masks = discs((height, width), places)
    for index in range(8):
        inside = masks.dense(index)
        pattern = (y % 10 < 5) if index < 4 else (y % 10 < 5) & (x % 10 < 5)
        image[inside] = (160, 110, 50)
        image[inside & pattern] = (210, 150, 90)
    return Frame(image), masks


def extractor(areas: tuple[int, int] | None = (2000, 3000)) -> FeatureExtractor:
    return FeatureExtractor(LiteEmbedder("frame"), GaussianFade()).for_areas(areas)


def test_a_mask_has_about_the_vector_of_its_crop() -> None:
    """Only the context far from the object differs."""
    features, (frame, masks) = extractor(), pictured()
    of_frame = features.embed_masks(frame, masks)
    of_crops = features.embed_crops(features.crops(frame, masks))
    np.testing.assert_allclose(
        of_frame[:, : LEARNED.start], of_crops[:, : LEARNED.start], atol=1e-6
    )
    alike = of_frame[:, LEARNED] @ of_crops[:, LEARNED].T
    assert (alike.diagonal() > 0.86 * lite.LEARNED).all()
    striped = np.arange(8) < 4
    same = alike[striped[:, None] & striped[None, :]]
    assert same.min() > alike[striped[:, None] & ~striped[None, :]].max()


def test_a_mask_alone_has_about_the_vector_that_it_has_among_others() -> None:
    features, (frame, masks) = extractor(), pictured()
    together = features.embed_masks(frame, masks)
    for index in range(len(masks)):
        [alone] = features.embed_masks(frame, masks[[index]])
        assert alone @ together[index] > 0.98


def test_large_objects_are_reduced_in_crops_and_in_frames_alike() -> None:
    frame, masks = pictured()
    factor = 4
    large = Frame(
        cv2.resize(frame.image_rgb, None, fx=factor, fy=factor, interpolation=cv2.INTER_LINEAR)
    )
    dense = np.array([masks.dense(index) for index in range(len(masks))])
    other = Masks.from_dense(dense.repeat(factor, axis=1).repeat(factor, axis=2))
    features = extractor()
    small = features.embed_masks(frame, masks)[:, LEARNED]
    least = 0.8 * lite.LEARNED
    assert ((features.embed_masks(large, other)[:, LEARNED] * small).sum(axis=1) > least).all()
    crops = list(features.crops(large, other))
    assert crops[0].scale < 1
    assert ((features.embed_crops(crops)[:, LEARNED] * small).sum(axis=1) > least).all()


def test_without_examples_masks_are_described_by_their_crops() -> None:
    features, (frame, masks) = extractor(None), pictured()
    assert not features.embedder.of_frames
    crops = features.embed_crops(features.crops(frame, masks))
    assert_same_vectors(features.embed_masks(frame, masks), crops)
    for pooling, areas in (("crop", (100, 200)), ("frame", None)):
        embedder = LiteEmbedder(pooling)
        assert embedder.for_areas(areas) is embedder


def test_nothing_finer_is_seen_than_the_smallest_example() -> None:
    """What is smaller has fewer cells; what is as large has the vector that it had."""
    image, network = textured((300, 400)), MeanColours()
    masks = discs((300, 400), [(50, 50, 4), (150, 150, 9), (250, 200, 40)])
    _pyramid.features_of_frame(network, image, masks, finest=1.0)  # type: ignore[arg-type]
    pixels = sum(shape[2] * shape[3] for shape in network.shapes)
    assert pixels <= 2 * 448 * 320
    frame, shown = pictured()
    fine, same = extractor((10, 3000)), extractor((2000, 3000))
    assert_same_vectors(fine.embed_masks(frame, shown), same.embed_masks(frame, shown))
    part = discs(frame.size_hw, [(60, 70, 6)])
    of_fine, of_same = fine.embed_masks(frame, part), same.embed_masks(frame, part)
    assert (of_fine[0, LEARNED] @ of_same[0, LEARNED]) < 0.9 * lite.LEARNED


def test_the_cache_knows_the_sizes_that_vectors_were_made_for() -> None:
    frame, _ = pictured()
    part = discs(frame.size_hw, [(60, 70, 6)])
    made = FeatureExtractor(LiteEmbedder("frame"), GaussianFade(), cache_size=10)
    for areas in ((10, 3000), (2000, 3000)):
        cached = made.for_areas(areas).embed_masks(frame, part)
        assert_same_vectors(cached, extractor(areas).embed_masks(frame, part))
    assert made.recipe == made.for_areas(None).recipe
    assert made.recipe.model == {"pooling": "frame"}


def test_no_masks_are_no_vectors_and_other_masks_are_refused() -> None:
    embedder, (frame, masks) = LiteEmbedder("frame"), pictured()
    assert embedder.embed_frame(frame, Masks.empty(frame.size_hw), []).shape == (
        0, embedder.dimension,
    )  # fmt: skip
    with pytest.raises(MaskError):
        embedder.embed_frame(Frame(frame.image_rgb[:-1]), masks, [])


@pytest.mark.parametrize("size_hw", [(1, 1), (1, 300), (2, 3), (256, 40)])
def test_a_crop_of_any_shape_is_described(size_hw: tuple[int, int]) -> None:
    mask = np.ones(size_hw, bool)
    crop = Crop(textured(size_hw), mask, 1.0, (0, 0, size_hw[1], size_hw[0]))
    [vector] = extractor().embed_crops([crop])
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-5)


def test_masks_that_did_not_change_are_not_described_again() -> None:
    """In key frames of a video, as with crops."""
    features, (frame, masks) = extractor(), pictured()
    before = UnchangedVectors()
    first = features.embed_masks(frame, masks, known=before)
    after = UnchangedVectors(before)
    moved = Frame(frame.image_rgb.copy())
    moved.image_rgb[masks.dense(0)] = 0
    again = features.embed_masks(moved, masks, known=after)
    assert (after.made, after.taken) == (1, len(masks) - 1)
    np.testing.assert_array_equal(again[1:], first[1:])
    assert again[0] @ first[0] < 0.99


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
@pytest.mark.parametrize("pooling", ["crop", "frame"])
def test_an_engine_that_fails_is_said(
    wrong: float, pooling: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(pictures: npt.NDArray[np.float32]) -> dict[int, npt.NDArray[np.float32]]:
        found = MeanColours()(pictures)
        found[16][0] = wrong
        return found

    monkeypatch.setattr("sam_detect.embedding.lite.shared_network", lambda: broken)
    frame, masks = pictured()
    features = FeatureExtractor(LiteEmbedder(pooling), GaussianFade())
    with pytest.raises(ExtensionError, match=r"LiteEmbedder.*NaN or infinity"):
        features.for_areas((2000, 3000)).embed_masks(frame, masks)


def test_an_unknown_pooling_is_refused() -> None:
    with pytest.raises(ConfigError, match="pooling must be crop, frame or auto, got 'max'"):
        LiteEmbedder("max")


# Undecided masks


def test_what_is_undecided_is_described_by_its_crop(monkeypatch: pytest.MonkeyPatch) -> None:
    detector, (frame, masks) = learnt("auto"), pictured()
    pipeline, snapshot = detector.pipeline, detector.snapshot()
    features = pipeline.features
    of_crops = features.embed_crops(features.crops(frame, masks))
    of_frame = learnt("frame").pipeline.embed(frame, masks, snapshot).vectors
    assert not same_vectors(of_frame, of_crops)
    none, all_of_them = slice(0), slice(None)
    for share, enough, chosen in (
        (0.5, 1, all_of_them), (0.0, 1, none), (1.0, 1, none), (1.0, 1000, all_of_them),
    ):  # fmt: skip
        monkeypatch.setattr("sam_detect.labelling.decision.ENOUGH_EXAMPLES", enough)
        sure = [Classification(None, "striped", share)] * len(masks)
        with monkeypatch.context() as patched:
            patched.setattr(pipeline.labeller, "label", lambda *_, **__: sure)  # noqa: B023
            found = pipeline.embed(frame, masks, snapshot).vectors
        expected = of_frame.copy()
        expected[chosen] = of_crops[chosen]
        assert_same_vectors(found, expected)


@pytest.mark.parametrize("pooling", ["auto", "frame", "crop"])
def test_a_picture_without_proposals_has_nothing_undecided(pooling: str) -> None:
    detector, (frame, _) = learnt(pooling), pictured()
    found = detector.pipeline.embed(frame, Masks.empty(frame.size_hw), detector.snapshot())
    assert (len(found.masks), len(found.vectors)) == (0, 0)


def test_crops_that_did_not_change_are_not_described_again(monkeypatch: pytest.MonkeyPatch) -> None:
    detector, (frame, masks) = learnt("auto"), pictured()
    undecided = [Classification(None, "striped", 0.5)] * len(masks)
    monkeypatch.setattr(detector.pipeline.labeller, "label", lambda *_, **__: undecided)
    known = UnchangedVectors()
    detector.pipeline.embed(frame, masks, detector.snapshot(), known=known)
    assert (known.made, known.taken) == (2 * len(masks), 0), "by the frame, and by their crops"
    known = UnchangedVectors(known)
    detector.pipeline.embed(frame, masks, detector.snapshot(), known=known)
    assert (known.made, known.taken) == (0, 2 * len(masks))


# Libraries


def learnt(pooling: str) -> SAMDetect:
    frame, masks = pictured()
    detector = SAMDetect(
        segmenter="naive", embedder=LiteEmbedder(pooling), vector_store=MemoryVectorStore(),
        color_order="rgb",
    )  # fmt: skip
    detector.learn_frame(frame, masks[[0, 1, 4, 5]], ["striped", "striped", "dotted", "dotted"])
    return detector


def test_examples_bring_their_hard_negatives_and_are_found() -> None:
    detector, (frame, masks) = learnt("frame"), pictured()
    examples = list(detector.library.read())
    around = [each.hard_negatives.vectors for each in examples if each.hard_negatives is not None]
    assert len(around) == 4
    assert sum(map(len, around)) > 0
    assert all(np.isfinite(each).all() and each.any() for each in around)
    found = detector.detect(frame.image_rgb)
    for index, label in ((2, "striped"), (3, "striped"), (6, "dotted"), (7, "dotted")):
        x, y, width, height = masks.boxes_xywh[index].tolist()
        near = [
            each.label
            for each in found
            if abs(each.bbox[0] - x) + abs(each.bbox[1] - y) < (width + height) / 4
        ]
        assert label in near
        assert set(near) <= {label, None}


def test_a_library_of_frames_is_embedded_again_from_its_crops() -> None:
    detector = learnt("frame")
    before = {each.id: each for each in detector.library.read()}
    again = embed_stored(detector.library, detector.pipeline.features, list(before))
    for key, (vector, around) in again.items():
        assert_same_vectors(vector, before[key].vector)
        known = before[key].hard_negatives
        assert known is not None
        assert around == known.to_payload()


def test_reindexing_to_frames_gives_what_learning_would_have_given() -> None:
    of_crops, of_frames = learnt("crop"), learnt("frame")
    assert reindex(of_crops.library, of_frames.pipeline.features) == 4
    assert of_crops.library.recipe == of_frames.recipe
    expected = {each.id: each.vector for each in of_frames.library.read()}
    for each in of_crops.library.read():
        assert_same_vectors(each.vector, expected[each.id])
