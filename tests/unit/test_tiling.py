"""Pictures proposed in windows: each object once, none cut, whatever borders it lies on."""

from __future__ import annotations

import itertools

import cv2
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from strategies import QUICK

from sam_detect import SAMDetect
from sam_detect.errors import ImageError
from sam_detect.interfaces import Segmenter
from sam_detect.pipeline import tiling
from sam_detect.pipeline.tiling import Level, levels, propose
from sam_detect.segmentation import NaiveSegmenter
from sam_detect.types import NO_HINTS, Frame, Hints, Masks
from sam_detect.types.masks import tight_box_xyxy
from sam_detect.vector_store import MemoryVectorStore


class Components(Segmenter):
    """The connected dark regions, as they are; remembers which windows it saw."""

    def __init__(self, least: float = 0.0) -> None:
        self.least = least
        self.seen: list[tuple[str, tuple[int, int]]] = []

    def propose(self, frame: Frame, hints: Hints = NO_HINTS) -> Masks:
        self.seen.append((frame.source_id, frame.size_hw))
        dark = (frame.image_rgb[..., 0] < 128).astype(np.uint8)
        count, labels = cv2.connectedComponents(dark, connectivity=8)
        masks = np.array([labels == i for i in range(1, count)]).reshape(-1, *frame.size_hw)
        return Masks.from_dense(masks, size_hw=frame.size_hw)

    def smallest_area(self, size_hw: tuple[int, int], hints: Hints = NO_HINTS) -> float:
        return self.least * size_hw[0] * size_hw[1]


def drawn(
    size_hw: tuple[int, int], *discs: tuple[int, int, int], ground: int = 220
) -> tuple[Frame, Masks]:
    """A picture of discs (x, y, radius), and their masks by box."""
    image = np.full((*size_hw, 3), ground, np.uint8)
    image[::2] += 1  # windows without any structure are skipped
    masks = []
    for x, y, radius in discs:
        alone = np.zeros(size_hw, np.uint8)
        cv2.circle(alone, (x, y), radius, 1, -1)
        image[alone > 0] = 40
        masks.append(alone > 0)
    found = Masks.from_dense(np.array(masks).reshape(-1, *size_hw), size_hw=size_hw)
    return Frame(image, "mosaic.tif"), found


def placed(masks: Masks) -> list[tuple[list[int], bytes]]:
    """Box and run lengths of each mask, sorted."""
    return sorted(zip(masks.boxes_xyxy.tolist(), masks.crop_rles, strict=True))


@pytest.mark.parametrize(
    "disc",
    [(100, 50, 8), (92, 40, 8), (100, 100, 8), (88, 100, 7), (50, 50, 8), (3, 197, 8), (199, 0, 9)],
    ids=["on 2 windows", "in the overlap", "on 4 corners", "at a border", "inside", "cut by the "
         "picture", "at its corner"],
)  # fmt: skip
def test_an_object_is_found_whole_and_once(disc: tuple[int, int, int]) -> None:
    frame, expected = drawn((200, 200), disc, (150, 20, 5))
    segmenter = Components()
    found = propose(frame, segmenter, Hints((60, 250)), tile=100)
    assert len(segmenter.seen) > 4
    assert placed(found) == placed(expected)


@QUICK
@given(st.integers(0, 2**32 - 1), st.integers(60, 300), st.integers(1, 300), st.integers(30, 200))
def test_windows_find_what_the_whole_picture_shows(
    seed: int, height: int, width: int, tile: int
) -> None:
    rng = np.random.default_rng(seed)
    image = np.full((height, width, 3), 200, np.uint8)
    for _ in range(12):
        center = (int(rng.integers(0, width)), int(rng.integers(0, height)))
        cv2.circle(image, center, int(rng.integers(1, 14)), (30, 30, 30), -1)
    assume(image.min() < image.max())  # a picture without structure has no proposals
    frame = Frame(image)
    assert placed(propose(frame, Components(), tile=tile)) == placed(Components().propose(frame))


@pytest.mark.parametrize("threads", [2, 5])
def test_threads_change_nothing(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    frame, _ = drawn((500, 700), (60, 60, 9), (250, 250, 14), (420, 90, 6), (630, 470, 20))
    rng = np.random.default_rng(0)
    grained = np.clip(frame.image_rgb + rng.normal(0, 6, frame.image_rgb.shape), 0, 255)
    frame = Frame(grained.astype(np.uint8))
    found = []
    for asked in (1, threads):
        monkeypatch.setenv("OMP_NUM_THREADS", str(asked))
        assert tiling._threads(NaiveSegmenter()) == asked
        assert tiling._threads(Components()) == 1
        found.append(propose(frame, NaiveSegmenter(), Hints((60, 1300)), tile=180))
    assert len(found[0]) > 4
    assert found[0].crop_rles == found[1].crop_rles
    np.testing.assert_array_equal(found[0].boxes_xyxy, found[1].boxes_xyxy)
    np.testing.assert_array_equal(found[0].predicted_ious, found[1].predicted_ious)


def test_an_error_in_one_window_ends_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """The windows that wait are not proposed any more."""
    seen: list[str] = []

    class Failing(Components):
        thread_safe = True

        def propose(self, frame: Frame, hints: Hints = NO_HINTS) -> Masks:
            seen.append(frame.source_id)
            raise ImageError("out of order")

    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    frame, _ = drawn((900, 900), (50, 50, 9))
    with pytest.raises(ImageError, match="out of order"):
        propose(frame, Failing(), Hints((60, 250)), tile=60)
    assert len(seen) <= 2 < len(Level(60, 20).windows((900, 900)))


def test_windows_without_structure_are_skipped() -> None:
    frame, expected = drawn((400, 400), (350, 350, 8))
    frame.image_rgb[:300] = 254  # the glass beside the tissue
    segmenter = Components()
    found = propose(frame, segmenter, Hints((60, 250)), tile=130)
    assert placed(found) == placed(expected)
    assert 0 < len(segmenter.seen) < len(levels((400, 400), segmenter, Hints((60, 250)), 130)[0]
                                         .windows((400, 400)))  # fmt: skip


def test_an_object_larger_than_a_window_is_found_on_the_next_level() -> None:
    frame, expected = drawn((300, 300), (150, 150, 90), (20, 20, 6), (270, 40, 6))
    assert placed(propose(frame, Components(), tile=64)) == placed(expected)


@pytest.mark.parametrize("size_hw", [(1, 900), (900, 1), (1, 1), (2, 3)])
def test_a_picture_of_one_pixel_height(size_hw: tuple[int, int]) -> None:
    frame = Frame(np.full((*size_hw, 3), 200, np.uint8))
    for tile in (0, 64):
        assert len(propose(frame, NaiveSegmenter(), Hints((9, 9)), tile=tile)) == 0


def test_windows_larger_than_the_picture_are_the_picture() -> None:
    frame, _ = drawn((200, 300), (40, 40, 9), (150, 90, 14))
    whole = NaiveSegmenter().propose(frame)
    segmenter = Components()
    assert placed(propose(frame, NaiveSegmenter(), Hints((9, 9)), tile=300)) == placed(whole)
    propose(frame, segmenter, Hints((9, 9)), tile=5000)
    assert segmenter.seen == [("mosaic.tif", (200, 300))]


@QUICK
@given(st.integers(1, 3000), st.integers(1, 3000), st.integers(8, 900), st.floats(1 / 16, 1 / 4))
def test_windows_cover_all_and_share_their_overlap(
    height: int, width: int, side: int, share: float
) -> None:
    level = Level(side, max(1, int(share * side)))
    covered = np.zeros((height, width), np.uint8)
    windows = level.windows((height, width))
    for x0, y0, x1, y1 in windows:
        assert 0 <= x0 < x1 <= width
        assert 0 <= y0 < y1 <= height
        assert max(x1 - x0, y1 - y0) <= side
        covered[y0:y1, x0:x1] = 1
    assert covered.all()
    columns = sorted({(x0, x1) for x0, _, x1, _ in windows})
    assert all(b[1] > a[1] for a, b in itertools.pairwise(columns))
    assert all(a[1] - b[0] >= level.overlap for a, b in itertools.pairwise(columns))


def test_the_smallest_example_decides_how_large_windows_are() -> None:
    naive = NaiveSegmenter()
    assert levels((3000, 3000), naive) == []
    assert levels((3000, 3000), naive, Hints((900, 2000))) == []
    assert levels((800, 800), naive, Hints((20, 20))) == []
    [level] = levels((3000, 3000), naive, Hints((113, 113)))
    assert tiling.MARGIN * naive.smallest_area((level.side, level.side)) <= 113
    assert 1000 < level.side < 1200
    [smaller] = levels((3000, 3000), naive, Hints((20, 60)))
    assert smaller.side < level.side
    both = levels((9000, 9000), naive, Hints((113, 400**2)))
    assert [each.side for each in both] == [level.side, 4 * level.side]
    assert both[1].overlap >= 2 * 400


def test_only_windows_near_what_is_shown() -> None:
    frame, expected = drawn((400, 400), (50, 50, 8), (350, 350, 8))
    segmenter = Components()
    near = np.array([[340, 340, 360, 360]])
    found = propose(frame, segmenter, Hints((60, 250)), tile=160, near=near)
    assert placed(found) == placed(expected[[1]])
    assert len(segmenter.seen) <= 4
    assert all(size == (size[0], size[0]) for _, size in segmenter.seen)


@pytest.mark.parametrize("side", [1e30, 1e200, 1e308])
def test_a_box_beyond_all_numbers_is_as_large_as_the_picture(side: float) -> None:
    near, areas = tiling.places((100, 120), [(0, 0, side, side)], [])
    assert (near.tolist(), areas) == ([[0, 0, 120, 100]], (6000, 12000))


def test_what_has_no_size_of_any_example_is_left_out_of_windows() -> None:
    frame, expected = drawn((400, 400), (50, 50, 2), (200, 200, 10), (340, 330, 45))
    found = propose(frame, Components(), Hints((300, 340)), tile=200)
    assert placed(found) == placed(expected[[1]])


def test_progress_is_told_of_each_window() -> None:
    frame, _ = drawn((300, 300))
    told: list[tuple[int, int]] = []
    token = tiling.progress.set(lambda done, count: told.append((done, count)))
    try:
        propose(frame, Components(), Hints((60, 90)), tile=170)
    finally:
        tiling.progress.reset(token)
    assert told == [(i, len(told)) for i in range(1, len(told) + 1)]
    assert len(told) == 4


def test_small_objects_of_a_large_picture_are_learnt_and_found_once() -> None:
    places = [(x, y) for x in range(60, 3000, 120) for y in range(60, 1000, 120)]
    frame, _ = drawn((1000, 3000))
    image = frame.image_rgb.copy()
    for x, y in places:
        cv2.circle(image, (x, y), 6, (60, 40, 120), -1)
    detector = SAMDetect(
        segmenter="naive", embedder="average", vector_store=MemoryVectorStore(), color_order="rgb"
    )
    boxes = [(x - 6, y - 6, 13, 13) for x, y in places[:3]]
    learnt = detector.learn(Frame(image), "disc", boxes_xywh=boxes)
    assert learnt.warnings == ()
    assert (learnt.box_ious > 0.7).all()
    found = detector.detect(Frame(image)).known
    centres = (found.boxes_xyxy[:, :2] + found.boxes_xyxy[:, 2:] - 1) / 2
    near = np.abs(centres[:, None] - np.array(places)[None]).max(axis=2) < 4
    assert (near.sum(axis=0) == 1).all(), "each disc once"
    assert near.any(axis=1).all(), "nothing but discs"
    assert tight_box_xyxy(found[0].mask) == tuple(found.boxes_xyxy[0].tolist())
