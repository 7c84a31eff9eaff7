"""The cache of vectors: keyed by content and recipe, least recently used goes first."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from sam_detect import SAMDetect
from sam_detect.embedding import AverageEmbedder
from sam_detect.errors import ExtensionError
from sam_detect.fading import GaussianFade, IdentityFade, LinearFade
from sam_detect.features.extraction import FeatureExtractor, VectorCache
from sam_detect.types import Crop, FadedCrop, Frame, Masks
from sam_detect.types.masks import FloatArray
from sam_detect.vector_store import MemoryVectorStore


class Counting(AverageEmbedder):
    """Counts what it is asked for."""

    def __init__(self) -> None:
        self.asked = 0

    def embed(self, crops: Sequence[FadedCrop]) -> FloatArray:
        self.asked += len(crops)
        return super().embed(crops)


class OfFrames(Counting):
    """Sees whole pictures: the mean colour of each mask."""

    of_frames = True

    def embed_frame(self, frame: Frame, masks: Masks, crops: Iterable[FadedCrop]) -> FloatArray:
        self.asked += len(masks)
        rows = [[*frame.image_rgb[masks.dense(i)].mean(axis=0), 1] for i in range(len(masks))]
        vectors = np.array(rows, np.float32).reshape(-1, 4)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def crop(seed: int = 0, *, side: int = 12, scale: float = 1.0, corner: int = 0) -> Crop:
    random = np.random.default_rng(seed)
    mask = np.zeros((side, side), bool)
    mask[3:8, 4:9] = True
    image = random.integers(0, 256, (side, side, 3)).astype(np.uint8)
    return Crop(image, mask, scale, (corner, 0, corner + side, side))


def maker(size: int = 100, **changes: Any) -> FeatureExtractor:
    return FeatureExtractor(**{"embedder": Counting(), "fade": GaussianFade(), "cache_size": size,
                          **changes})  # fmt: skip


def asked_again(made: FeatureExtractor, first: Crop, second: Crop) -> bool:
    """Whether the second is described after the first was."""
    made.embed_crops([first])
    counter = made.embedder
    assert isinstance(counter, Counting)
    before = counter.asked
    made.embed_crops([second])
    return counter.asked > before


def test_what_is_seen_again_is_not_described_again() -> None:
    made, crops = maker(), [crop(seed) for seed in range(5)]
    first = made.embed_crops(crops)
    assert made.embedder.asked == 5
    again = made.embed_crops([crop(seed) for seed in (3, 1, 4)])
    assert made.embedder.asked == 5
    np.testing.assert_array_equal(again, first[[3, 1, 4]])
    np.testing.assert_array_equal(made.embed_crops(crops), maker(0).embed_crops(crops))
    mixed = made.embed_crops([crop(1), crop(7), crop(0)])
    assert made.embedder.asked == 6
    np.testing.assert_array_equal(mixed, maker(0).embed_crops([crop(1), crop(7), crop(0)]))


def test_the_same_thing_twice_is_described_once() -> None:
    made = maker()
    vectors = made.embed_crops([crop(1), crop(2), crop(1)])
    assert made.embedder.asked == 2
    np.testing.assert_array_equal(vectors, maker(0).embed_crops([crop(1), crop(2), crop(1)]))


def test_every_part_of_the_content_counts() -> None:
    one = crop()
    pixel, mask = one.image_rgb.copy(), one.mask.copy()
    pixel[0, 0, 0] ^= 1
    mask[0, 0] = True
    assert asked_again(maker(), one, replace(one, image_rgb=pixel))
    assert asked_again(maker(), one, replace(one, mask=mask))
    assert asked_again(maker(), one, replace(one, scale=0.5))
    image, outline = one.image_rgb.reshape(9, 16, 3), one.mask.reshape(9, 16)
    assert asked_again(maker(), one, Crop(image, outline, 1.0, one.window_xyxy))
    assert not asked_again(maker(), one, replace(one))
    assert not asked_again(maker(), one, crop(corner=40)), "where it lies does not"


def test_every_part_of_the_recipe_counts() -> None:
    made = maker(fade=LinearFade(max_distance=9.0))
    made.embed_crops([crop()])
    made.fade.max_distance = 3.0
    first = made.embed_crops([crop()])
    assert made.embedder.asked == 2, "a fade that was changed in place"
    np.testing.assert_array_equal(first, maker(0, fade=LinearFade(3.0)).embed_crops([crop()]))
    other = replace(made, fade=IdentityFade())
    np.testing.assert_array_equal(
        other.embed_crops([crop()]), maker(0, fade=IdentityFade()).embed_crops([crop()])
    )


def test_what_was_used_last_is_kept() -> None:
    made = maker(2)
    made.embed_crops([crop(0), crop(1)])
    made.embed_crops([crop(0)])
    made.embed_crops([crop(2)])  # 1 goes
    assert made.embedder.asked == 3
    made.embed_crops([crop(0), crop(2)])
    assert made.embedder.asked == 3
    made.embed_crops([crop(1)])
    assert made.embedder.asked == 4


def test_no_more_is_kept_than_asked_for() -> None:
    cache = VectorCache(3)
    keys = [bytes([i]) for i in range(10)]
    found = cache.vectors(keys, lambda chosen: np.array([[i] for i in chosen], np.float32))
    assert found.ravel().tolist() == list(range(10)), "all of them, however few are kept"
    assert len(cache) == 3
    none = VectorCache(0)
    none.vectors(none.keys_of_crops([crop()], maker().recipe), lambda _: np.zeros((1, 4)))
    assert len(none) == 0


def test_without_a_cache_all_is_described_again() -> None:
    assert asked_again(maker(0), crop(), crop())


def test_nothing_to_describe_is_no_vectors() -> None:
    assert maker().embed_crops([]).shape == maker(0).embed_crops([]).shape == (0, 4)


def test_vectors_that_were_given_out_are_the_callers() -> None:
    made = maker()
    first = made.embed_crops([crop()])
    kept = first.copy()
    first[:] = 7
    second = made.embed_crops([crop()])
    np.testing.assert_array_equal(second, kept)
    second[:] = 7
    np.testing.assert_array_equal(made.embed_crops([crop()]), kept)


def test_masks_of_a_frame_are_kept_too() -> None:
    made = maker(embedder=OfFrames(), fade=IdentityFade())
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3)).astype(np.uint8)
    dense = np.zeros((3, 20, 30), bool)
    dense[0, 2:5, 2:5], dense[1, 2:5, 3:6], dense[2, 2:4, 2:5] = True, True, True
    masks = Masks.from_dense(dense)
    first = made.embed_masks(Frame(image), masks)
    again = made.embed_masks(Frame(image.copy()), masks[[2, 0]])
    assert made.embedder.asked == 3
    np.testing.assert_array_equal(again, first[[2, 0]])
    assert len({row.tobytes() for row in first}) == 3
    other = image.copy()
    other[0, 0] ^= 1
    made.embed_masks(Frame(other), masks[[0]])
    assert made.embedder.asked == 4
    assert made.embed_masks(Frame(image), Masks.empty((20, 30))).shape == (0, 4)


def test_a_detector_keeps_as_many_as_its_setting_says() -> None:
    image = np.full((60, 60, 3), 240, np.uint8)
    image[10:20, 10:20], image[35:50, 30:45] = (200, 0, 0), (0, 0, 200)
    for size, expected in ((0, 2), (100, 1)):
        embedder = Counting()
        detector = SAMDetect(embedder=embedder, vector_store=MemoryVectorStore(),
                             embedding_cache_size=size, color_order="rgb")  # fmt: skip
        first = detector.detect(image)
        count = embedder.asked
        assert count > 0
        second = detector.detect(image)
        assert embedder.asked == count * expected
        assert [d.bbox for d in first] == [d.bbox for d in second]


@pytest.mark.parametrize("size", [2, 50])
def test_threads_share_it(size: int) -> None:
    made, crops = maker(size), [crop(seed) for seed in range(8)]
    expected = maker(0).embed_crops(crops)

    def work(shift: int) -> bool:
        order = [(i + shift) % 8 for i in range(8)]
        return all(
            np.array_equal(made.embed_crops([crops[i] for i in order]), expected[order])
            for _ in range(20)
        )

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, range(4)))


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf])
def test_an_embedder_that_breaks_its_contract_is_named(value: float) -> None:
    class Broken(Counting):
        def embed(self, crops: Sequence[FadedCrop]) -> FloatArray:
            made = super().embed(crops)
            made[-1] = value
            return made

    made = maker(embedder=Broken())
    with pytest.raises(
        ExtensionError, match=r"embedder Broken: embed\(\) must return .* of length 1"
    ):
        made.embed_crops([crop(0), crop(1)])
