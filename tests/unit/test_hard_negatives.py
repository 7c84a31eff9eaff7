"""What lies around an example: what counts, how it is kept, and when the picture is proposed."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from library_helpers import COLOURS, as_converted, regions, snapshot_of, unrecorded
from strategies import QUICK, counts_garbage

from sam_detect import SAMDetect
from sam_detect.cli.app import run
from sam_detect.errors import LibraryCorruptError, MaskError, StoreError
from sam_detect.features.hard_negatives import (
    BACKGROUND_REGIONS,
    BACKGROUND_SIDE,
    REGIONS_KEPT,
    HardNegatives,
    _region,
)
from sam_detect.interfaces import Segmenter
from sam_detect.labelling import KNNLabeller
from sam_detect.library.example import MAX_REGIONS, Example, with_checksums
from sam_detect.library.library import Library
from sam_detect.library.reindex import embed_examples
from sam_detect.library.snapshot_reader import read_snapshot
from sam_detect.library.webp import encode_webp
from sam_detect.segmentation import NaiveSegmenter
from sam_detect.types import NO_HINTS, Frame, Hints, Masks, Point
from sam_detect.types.masks import encode_crop
from sam_detect.vector_store import MemoryVectorStore, QdrantVectorStore

Box = tuple[int, int, int, int]
SIDE = 160
EXAMPLE = (60, 60, 100, 100)
"""Its crop shows 35 to 125 both ways: 1600 pixels are a fifth of 90 x 90."""


class Chosen(Segmenter):
    """Proposes boxes that a test chooses, and counts how often it is asked."""

    def __init__(self, *boxes: Box, qualities: Sequence[float] | None = None) -> None:
        self.boxes, self.calls = boxes, 0
        self.qualities = [0.8] * len(boxes) if qualities is None else qualities

    def propose(self, frame: Frame, hints: Hints = NO_HINTS) -> Masks:
        self.calls += 1
        return masks_of(*self.boxes, size_hw=frame.size_hw, qualities=self.qualities)


class Another(Chosen):
    """A segmenter of another name."""


def masks_of(
    *boxes: Box, size_hw: tuple[int, int] = (SIDE, SIDE), qualities: Sequence[float] | None = None
) -> Masks:
    crops = [np.ones((y1 - y0, x1 - x0), bool) for x0, y0, x1, y1 in boxes]
    places = np.array(boxes, np.int64).reshape(-1, 4)
    return Masks.from_crops(
        size_hw=size_hw, boxes_xyxy=places, crops=crops, predicted_ious=qualities
    )


def picture(*painted: tuple[Box, str], side: int = SIDE, seed: int = 0) -> Frame:
    """Boxes in the colours of names on a light ground with some noise."""
    image = np.random.default_rng(seed).integers(225, 245, (side, side, 3), dtype=np.uint8)
    for (x0, y0, x1, y1), name in painted:
        image[y0:y1, x0:x1] = COLOURS[name]
    return Frame(image, f"{seed}.png")


def detector(segmenter: Segmenter, **settings: Any) -> SAMDetect:
    settings = {"embedder": "average", "vector_store": MemoryVectorStore(), **settings}
    return SAMDetect(segmenter=segmenter, **settings)


def learnt(made: SAMDetect, frame: Frame, *boxes: Box, label: str = "nut") -> list[HardNegatives]:
    """The surroundings of examples, as the library has them, in their order."""
    made.learn_frame(frame, masks_of(*boxes, size_hw=frame.size_hw), [label] * len(boxes))
    found = {tuple(e.bbox): e.hard_negatives for e in made.library.read()}
    kept = [found[x0, y0, x1 - x0, y1 - y0] for x0, y0, x1, y1 in boxes]
    assert all(each is not None for each in kept)
    return [each for each in kept if each is not None]


def around(*proposals: Box, **options: Any) -> HardNegatives:
    """What is kept of proposals around ``EXAMPLE``."""
    return learnt(detector(Chosen(*proposals, **options)), picture((EXAMPLE, "nut")), EXAMPLE)[0]


def hard_negatives_of(made: SAMDetect, label: str) -> npt.NDArray[np.float32]:
    model = KNNLabeller().fitted_to(made.snapshot(), None).decision
    assert model is not None
    return model.hard_negatives[model.not_of[label]]


# -- what counts -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("box", "touching"),
    [
        ((60, 60, 100, 100), None),  # the example itself
        ((60, 60, 100, 84), None),  # nearly it: IoU 0.6
        ((60, 60, 100, 78), None),  # neither it nor another: IoU 0.45
        ((60, 60, 100, 72), True),  # a third of it
        ((75, 75, 85, 85), True),  # a highlight on it
        ((48, 48, 112, 112), True),  # it and its shadow: IoU 0.39
        ((88, 60, 108, 100), True),  # more than half of this lies on it
        ((95, 60, 115, 100), None),  # a quarter of this: neither part nor apart
        ((99, 60, 115, 100), False),  # its border reaches in by one pixel in sixteen
        ((35, 35, 125, 66), None),  # a little of this, but more of the example
        ((104, 60, 116, 70), False),  # beside it
        ((110, 60, 130, 70), False),  # beside it, and the crop shows most
        ((120, 60, 140, 70), None),  # the crop shows a quarter; too small for background
    ],
)
def test_what_touches_what_lies_beside_and_what_is_the_object(
    box: Box, touching: bool | None
) -> None:
    found = around(box)
    assert found.touching.tolist() == ([] if touching is None else [touching])
    assert len(found.masks) == len(found.touching) == len(found.vectors)
    for index in range(len(found.masks)):
        x0, y0, x1, y1 = box[0] - 35, box[1] - 35, min(box[2] - 35, 90), box[3] - 35
        assert found.masks.boxes_xyxy[index].tolist() == [x0, y0, x1, y1], "in the crop"
        assert found.masks.areas[index] == (x1 - x0) * (y1 - y0)


@pytest.mark.parametrize(
    ("box", "touching"),
    [
        ((70, 70, 90, 90), None),  # its hole
        ((71, 70, 90, 90), None),  # nearly its hole
        ((60, 60, 100, 100), None),  # it with the hole filled
        ((60, 60, 101, 100), None),
        ((76, 76, 84, 84), None),  # dirt in the hole: no other object, and no part of it
        ((60, 60, 100, 68), True),  # a part of it
        ((104, 60, 116, 70), False),  # beside it
    ],
)
def test_the_hole_and_the_disc_of_a_ring_do_not_speak_against_it(
    box: Box, touching: bool | None
) -> None:
    assert around_ring(10, box) == ([] if touching is None else [touching])


def test_of_a_thin_ring_neither() -> None:
    """The disc shares a quarter with it, and the hole nearly all of the disc."""
    assert around_ring(3, (63, 63, 97, 97), (60, 60, 100, 100)) == []


def around_ring(rim: int, *proposals: Box) -> list[bool]:
    """What touches a ring as large as ``EXAMPLE``, of what is proposed."""
    ring = np.zeros((SIDE, SIDE), np.bool_)
    ring[60:100, 60:100] = True
    ring[60 + rim : 100 - rim, 60 + rim : 100 - rim] = False
    made = detector(Chosen(*proposals))
    made.learn_frame(picture((EXAMPLE, "nut")), Masks.from_dense(ring[None]), ["ring"])
    [example] = made.library.read()
    assert example.hard_negatives is not None
    return [bool(each) for each in example.hard_negatives.touching]


@pytest.mark.parametrize(
    ("proposed", "given", "kept"),
    [
        (EXAMPLE, 0.7, 0.7),
        ((60, 60, 100, 84), 0.3, 0.3),
        ((60, 60, 100, 72), 0.7, None),
        (EXAMPLE, 1.5, 1.0),
        (EXAMPLE, -2.0, 0.0),
    ],
)
def test_the_quality_is_that_of_the_proposal_of_the_example(
    proposed: Box, given: float, kept: float | None
) -> None:
    found = around(proposed, (75, 75, 85, 85), qualities=[given, 0.99])
    assert found.quality == (None if kept is None else pytest.approx(kept))
    assert found.proposer.endswith(":Chosen")


def test_the_better_fitting_proposal_gives_the_quality() -> None:
    found = around((60, 60, 100, 84), EXAMPLE, qualities=[0.9, 0.4])
    assert found.quality == pytest.approx(0.4)


def test_so_many_of_each_are_kept_the_best_proposed() -> None:
    strips = [(60, 60 + 3 * i, 100, 63 + 3 * i) for i in range(REGIONS_KEPT + 4)]
    beside = [(104, 38 + 5 * i, 108, 42 + 5 * i) for i in range(REGIONS_KEPT + 4)]
    # Those that are left over are too small for background.
    found = around(*(box for pair in zip(strips, beside, strict=True) for box in pair))
    assert found.touching.tolist() == [True] * REGIONS_KEPT + [False] * REGIONS_KEPT
    kept = (found.masks.boxes_xyxy + 35).tolist()
    assert kept == [list(box) for box in (strips[:REGIONS_KEPT] + beside[:REGIONS_KEPT])]


def test_without_proposals_nothing_is_known_around_it() -> None:
    found = around()
    assert (found.quality, len(found.masks), found.vectors.shape[0]) == (None, 0, 0)
    made = detector(Chosen())
    assert made.add_examples_from_file(picture(), "auto", "nut").added == 0


def test_an_example_that_is_the_whole_picture_has_no_counterexamples() -> None:
    """It has no outline: what lies in a picture of a nut is most likely the nut."""
    frame, whole = picture(((50, 50, 110, 110), "nut")), (0, 0, SIDE, SIDE)
    made = detector(Chosen((50, 50, 110, 110), (0, 0, SIDE, 40)))
    assert learnt(made, frame, whole)[0].touching.tolist() == []
    almost = (0, 0, SIDE, SIDE - 1)
    assert learnt(made, frame, almost)[0].touching.tolist() == [True, True]


# -- the background of the picture ---------------------------------------------------------------

ELSEWHERE = (130, 130, 160, 160)
PART = (60, 60, 100, 72)


def test_what_lies_elsewhere_in_the_picture_is_kept_with_a_crop_of_its_own() -> None:
    found = around(EXAMPLE, ELSEWHERE, (60, 60, 100, 72))
    assert found.touching.tolist() == [True, False]
    assert len(found.masks) == 1
    (crop,) = found.background
    assert (crop.area, crop.scale) == (900, 1.0)
    x0, y0, x1, y1 = crop.window_xyxy
    assert (x0 + x1, y0 + y1) == (290, 290)
    assert len(found.vectors) == 2


@pytest.mark.parametrize(
    ("box", "kept"),
    [
        ((120, 10, 160, 50), True),
        ((120, 10, 140, 30), True),  # a quarter of the example
        ((121, 10, 140, 30), False),  # less
        ((0, 0, 160, 40), True),  # four times the example
        ((0, 0, 160, 41), False),  # more
        ((88, 100, 128, 140), True),  # the crop shows too little of it
        ((90, 60, 130, 100), False),  # a quarter of it is the example
    ],
)
def test_background_is_of_about_the_size_of_the_example_and_shares_nothing(
    box: Box, kept: bool
) -> None:
    assert len(around(EXAMPLE, box).background) == kept


def test_background_hardly_overlaps_and_the_best_proposed_is_kept() -> None:
    boxes = [(0, 0, 30, 30), (0, 8, 30, 38), (0, 22, 30, 52), (130, 0, 160, 30)]
    windows = [crop.window_xyxy for crop in around(EXAMPLE, *boxes).background]
    assert [(x0 + x1, y0 + y1) for x0, y0, x1, y1 in windows] == [(30, 30), (30, 74), (290, 30)]


def test_so_much_background_is_kept_shared_among_the_examples() -> None:
    examples = [(20, 20, 40, 40), (100, 20, 120, 40), (20, 100, 40, 120)]
    grid = [(x, y, x + 20, y + 20) for y in range(160, 400, 24) for x in range(0, 400, 24)]
    assert len(grid) > 2 * BACKGROUND_REGIONS
    for count in (1, 3):
        made = detector(Chosen(*grid))
        found = learnt(made, picture(side=420), *examples[:count])
        counts = [len(each.background) for each in found]
        assert sum(counts) == BACKGROUND_REGIONS
        assert max(counts) - min(counts) <= 1
        corners = {crop.window_xyxy for each in found for crop in each.background}
        assert len(corners) == BACKGROUND_REGIONS, "none twice"
        assert {y0 for _, y0, _, _ in corners} <= {160 - 13, 184 - 13}, "the best proposed"


def test_other_objects_of_the_picture_are_no_background() -> None:
    frame, other = picture((EXAMPLE, "nut"), (ELSEWHERE, "nut")), (130, 0, 160, 30)
    made = detector(Chosen(EXAMPLE, ELSEWHERE, other))
    assert [len(e.background) for e in learnt(made, frame, EXAMPLE, ELSEWHERE)] == [1, 0]
    for others, touching in ((masks_of(), [True, True]), (masks_of(ELSEWHERE), [True])):
        made = detector(Chosen(EXAMPLE, ELSEWHERE, other))
        made.learn_frame(frame, masks_of(EXAMPLE), ["nut"], others=others)
        [found] = [e.hard_negatives for e in made.library.read()]
        assert found is not None
        assert found.touching.tolist() == touching, "certainly no object"
        assert len(found.background) == len(touching)


def test_background_like_the_example_may_be_an_object_without_a_label() -> None:
    for name, counted in (("berry", 1), ("nut", 0)):
        made = detector(Chosen(EXAMPLE, PART, ELSEWHERE))
        learnt(made, picture((EXAMPLE, "nut"), (ELSEWHERE, name)), EXAMPLE)
        assert made.snapshot().examples().hard_negatives.background.tolist() == [False, True]
        assert len(hard_negatives_of(made, "nut")) == 1 + counted


def test_background_that_may_be_an_object_is_left_out_sooner_than_what_lies_nearby() -> None:
    """One outline in a picture full of objects says nothing against the others."""
    found = {}
    for place, box in (("nearby", (104, 60, 120, 76)), ("elsewhere", ELSEWHERE)):
        made = detector(Chosen(EXAMPLE, PART, box))
        learnt(made, picture((EXAMPLE, "nut"), (box, "leaf")), EXAMPLE)
        found[place] = len(hard_negatives_of(made, "nut"))
    assert found == {"nearby": 2, "elsewhere": 1}


def test_a_negative_and_an_example_that_is_its_picture_have_no_background() -> None:
    made = detector(Chosen(EXAMPLE, ELSEWHERE))
    made.learn_frame(picture(), masks_of(EXAMPLE), ["nut"], negative=True)
    assert [e.hard_negatives for e in made.library.read()] == [None]
    assert learnt(made, picture(), (0, 0, SIDE, SIDE))[0].background == ()


def test_background_speaks_against_its_like_elsewhere_and_the_explanation_says_so() -> None:
    tent = (110, 110, 150, 150)
    proposals = (EXAMPLE, tent)
    found = {}
    for name in ("background", "nothing"):
        elsewhere = (tent,) if name == "background" else ()
        segmenter = Chosen(EXAMPLE, PART, *elsewhere)
        made = detector(segmenter)
        learnt(made, picture((EXAMPLE, "nut"), (tent, "berry")), EXAMPLE)
        segmenter.boxes, segmenter.qualities = proposals, [0.8, 0.8]
        found[name] = made.detect(picture((EXAMPLE, "nut"), (tent, "berry"), seed=5))[1]
    with_background, without = found["background"], found["nothing"]
    assert with_background.confidence < without.confidence
    assert with_background.explanation is not None
    assert with_background.explanation.nearest_is_background
    assert without.explanation is not None
    assert not without.explanation.nearest_is_background


@pytest.mark.parametrize("crop_side", [16, 200])
def test_background_is_embedded_again_to_the_same_vector(crop_side: int) -> None:
    big, side = (220, 220, 400, 400), 420
    frame = picture((EXAMPLE, "nut"), (big, "leaf"), side=side)
    made = detector(Chosen((10, 220, 150, 400), big), embedder="appearance", crop_side=crop_side)
    [found] = learnt(made, frame, (10, 10, 150, 150))
    assert [max(c.mask.shape) for c in found.background] == [min(crop_side, BACKGROUND_SIDE)] * 2
    [(_, payload)] = embed_examples(list(made.library.read()), made.pipeline.features)
    assert payload is not None
    assert payload == next(iter(made.library.points())).payload["surroundings"]
    expected = made.pipeline.features.embed_masks(frame, masks_of(big, size_hw=(side, side)))
    assert float(found.vectors[1] @ expected[0]) > 0.9, "as in the picture, but for the reduction"


# -- at which scale ----------------------------------------------------------------------------


@pytest.mark.parametrize("embedder", ["average", "appearance"])
def test_a_region_has_the_vector_it_would_have_in_the_picture(embedder: str) -> None:
    part, frame = (70, 70, 84, 84), picture((EXAMPLE, "nut"), ((70, 70, 84, 84), "leaf"))
    made = detector(Chosen(part), embedder=embedder)
    found = learnt(made, frame, EXAMPLE)[0]
    expected = made.pipeline.features.embed_masks(frame, masks_of(part))
    np.testing.assert_allclose(found.vectors, expected, atol=1e-3)
    assert found.vectors.any()


def test_each_of_several_examples_has_the_vectors_of_its_own_regions() -> None:
    first, second = (20, 60, 50, 90), (100, 60, 130, 90)
    parts = [(20, 60, 50, 69), (22, 72, 30, 80), (100, 60, 130, 69)]
    frame = picture((first, "nut"), (second, "leaf"), (parts[1], "berry"))
    made = detector(Chosen(*parts))
    found = learnt(made, frame, first, second)
    expected = made.pipeline.features.embed_masks(frame, masks_of(*parts))
    np.testing.assert_allclose(found[0].vectors, expected[:2], atol=1e-3)
    np.testing.assert_allclose(found[1].vectors, expected[2:], atol=1e-3)
    hard_negatives = made.snapshot().examples().hard_negatives
    owned = {made.snapshot().examples().boxes_xywh[owner][0]: [] for owner in hard_negatives.owners}
    for owner, vector in zip(hard_negatives.owners, hard_negatives.vectors, strict=True):
        owned[made.snapshot().examples().boxes_xywh[owner][0]].append(vector)
    np.testing.assert_allclose(owned[20], expected[:2], atol=1e-3)
    np.testing.assert_allclose(owned[100], expected[2:], atol=1e-3)


@pytest.mark.parametrize("crop_side", [48, 64, 100])
def test_a_reduced_crop_keeps_areas_right(crop_side: int) -> None:
    example, part = (130, 130, 290, 290), (130, 130, 290, 170)
    frame = picture((example, "nut"), (part, "leaf"), side=420)
    made = detector(Chosen(part), crop_side=crop_side)
    found = learnt(made, frame, example)[0]
    (kept,) = made.library.read()
    assert max(kept.crop.mask.shape) == crop_side
    assert found.masks.size_hw == kept.crop.mask.shape
    assert found.masks.areas[0] / kept.crop.scale**2 == pytest.approx(160 * 40, rel=0.15)
    region = _region(kept.crop, found.masks, 0, made.pipeline.features)
    assert region.area == pytest.approx(160 * 40, rel=0.15), "in pixels of the picture, for fades"
    part_mask = masks_of(part, size_hw=(420, 420))
    (whole,) = made.pipeline.features.embed_masks(frame, part_mask)
    assert float(found.vectors[0] @ whole) > 0.95


def test_a_region_that_a_reduced_crop_does_not_show_is_left_out() -> None:
    example, speck = (130, 130, 290, 290), (150, 150, 152, 152)
    made = detector(Chosen(speck, (130, 130, 290, 170)), crop_side=16)
    found = learnt(made, picture((example, "nut"), side=420), example)[0]
    assert found.touching.tolist() == [True]


def test_what_reaches_beyond_the_picture_is_no_trouble() -> None:
    """The crop of an object at the border shows repeated pixels beyond it."""
    corner, frame = (0, 0, 30, 30), picture(((0, 0, 30, 30), "nut"))
    found = learnt(detector(Chosen((0, 0, 30, 8), (34, 0, 40, 6))), frame, corner)[0]
    assert found.touching.tolist() == [True, False]
    assert (found.masks.boxes_xyxy[:, 0] > 0).all()


# -- several examples --------------------------------------------------------------------------

TWIN = (104, 60, 120, 76)


def test_examples_learnt_together_are_no_counterexamples_of_each_other() -> None:
    frame, made = picture((EXAMPLE, "nut"), (TWIN, "nut")), detector(Chosen(EXAMPLE, TWIN))
    assert [len(each.masks) for each in learnt(made, frame, EXAMPLE, TWIN)] == [0, 0]


def test_a_part_of_one_example_is_no_counterexample_of_its_neighbour() -> None:
    part = (104, 60, 120, 65)
    made = detector(Chosen(EXAMPLE, TWIN, part))
    first, second = learnt(made, picture((EXAMPLE, "nut"), (TWIN, "nut")), EXAMPLE, TWIN)
    assert (len(first.masks), second.touching.tolist()) == (0, [True])


def test_an_unnamed_twin_beside_an_example_does_not_speak_against_its_label() -> None:
    frame = picture((EXAMPLE, "nut"), (TWIN, "nut"), ((60, 104, 76, 120), "leaf"))
    made = detector(Chosen(EXAMPLE, TWIN, (60, 104, 76, 120)))
    assert learnt(made, frame, EXAMPLE)[0].touching.tolist() == [False, False]
    hard_negatives, (twin, leaf) = (
        hard_negatives_of(made, "nut"),
        made.snapshot().examples().hard_negatives.vectors,
    )
    assert len(hard_negatives) == 1
    assert float(hard_negatives[0] @ leaf) > 0.999 > float(hard_negatives[0] @ twin)
    learnt(made, frame, TWIN)
    assert all(
        float(hard_negative @ leaf) > 0.999 for hard_negative in hard_negatives_of(made, "nut")
    )
    found = {tuple(d["bbox"]): d["label"] for d in made.detect(frame)}
    assert found[60, 60, 40, 40] == found[104, 60, 16, 16] == "nut"
    assert found[60, 104, 16, 16] is None


def test_where_every_object_is_outlined_what_lies_beside_is_none_however_alike() -> None:
    stain = (110, 60, 126, 76)
    frame = picture((EXAMPLE, "nut"), (stain, "nut"))
    around_it = []
    for others in (None, masks_of(), masks_of(stain)):
        made = detector(Chosen(EXAMPLE, stain))
        made.learn_frame(frame, masks_of(EXAMPLE), ["nut"], others=others)
        [found] = [e.hard_negatives for e in made.library.read()]
        assert found is not None
        around_it.append(found.touching.tolist())
        if others is not None and not len(others):
            [hard_negative] = hard_negatives_of(made, "nut")
            assert float(hard_negative @ made.snapshot().examples().vectors[0]) > 0.9
    assert around_it == [[False], [True], []], "maybe an object; none; another object"


def test_other_objects_of_another_size_of_picture_are_refused() -> None:
    made = detector(Chosen(EXAMPLE))
    small = masks_of(size_hw=(9, 9))
    with pytest.raises(MaskError, match="9x9"):
        made.learn_frame(picture(), masks_of(EXAMPLE), ["nut"], others=small)


def test_food_on_a_plate_is_a_counterexample_of_the_plate_alone() -> None:
    plate, food = (50, 50, 110, 110), (65, 65, 95, 95)
    frame = picture((plate, "leaf"), (food, "nut"))
    made = detector(Chosen(plate, food))
    assert learnt(made, frame, plate, label="plate")[0].touching.tolist() == [True]
    elsewhere = picture((food, "nut"), seed=5)
    made = detector(Chosen(food), vector_store=made.library.store)
    learnt(made, elsewhere, food, label="food")
    assert (len(hard_negatives_of(made, "plate")), len(hard_negatives_of(made, "food"))) == (1, 0)


def test_what_touches_a_negative_is_no_evidence() -> None:
    """A nut with its shadow is no nut, but the nut in it is one."""
    segmenter = Chosen(EXAMPLE, (60, 60, 100, 72))
    made, frame = detector(segmenter), picture((EXAMPLE, "nut"))
    shadow = masks_of((50, 50, 114, 114))
    made.learn_frame(frame, shadow, ["nut"], negative=True)
    assert [e.hard_negatives for e in made.library.read()] == [None]
    assert segmenter.calls == 0
    assert made.detect(frame).label.tolist() == [None] * len(made.detect(frame))


# -- when pictures are proposed ----------------------------------------------------------------


def test_a_picture_is_proposed_once_a_call() -> None:
    segmenter, frame = Chosen(EXAMPLE, TWIN), picture((EXAMPLE, "nut"))
    made = detector(segmenter)
    made.learn_frame(frame, masks_of(EXAMPLE, TWIN), ["nut", "leaf"])
    assert segmenter.calls == 1
    made.learn_frame(frame, masks_of((20, 20, 40, 40)), ["nut"])
    assert segmenter.calls == 1, "the same frame again"
    made.add_examples_from_file(frame.image_rgb, "auto", "nut")
    assert segmenter.calls == 2
    made.add_example(frame.image_rgb, "nut")
    assert segmenter.calls == 3
    made.add_example(frame.image_rgb, "nut", np.eye(SIDE, dtype=bool))
    assert segmenter.calls == 4


@pytest.fixture
def proposed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the pictures that the command line segments."""
    names: list[str] = []
    plain = NaiveSegmenter.propose

    def counted(self: NaiveSegmenter, frame: Frame, hints: Hints) -> Masks:
        names.append(Path(frame.source_id).name)
        return plain(self, frame, hints)

    monkeypatch.setattr(NaiveSegmenter, "propose", counted)
    return names


@pytest.mark.parametrize(
    ("options", "times"),
    [
        (["--label", "nut", "--box", "60,60,40,40", "--box", "104,60,16,16"], 1),
        (["--label", "nut", "--point", "80,80", "--box", "104,60,16,16"], 1),
        (["--label", "nut", "--masks", "auto"], 1),
        (["--annotations", "boxes.json"], 1),
        (["--annotations", "outlines.json"], 1),
        (["--label", "nut", "--negative", "--box", "60,60,40,40"], 1),
        (["--annotations", "outlines.json", "--negative"], 0),
    ],
)
def test_the_command_line_proposes_a_picture_once(
    options: list[str],
    times: int,
    proposed: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    frame = picture((EXAMPLE, "nut"), (TWIN, "leaf"))
    cv2.imwrite("one.png", frame.image_rgb)
    outline = {"segmentation": [[60, 60, 100, 60, 100, 100, 60, 100]]}
    for name, extra in (("boxes.json", {}), ("outlines.json", outline)):
        annotation = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [60, 60, 40, 40]}
        second = {**annotation, "id": 2, "bbox": [104, 60, 16, 16]}
        data = {
            "images": [{"id": 1, "file_name": "one.png", "width": SIDE, "height": SIDE}],
            "annotations": [{**annotation, **extra}, *([] if extra else [second])],
            "categories": [{"id": 1, "name": "nut"}],
        }
        Path(name).write_text(json.dumps(data))
    assert run(["learn", "one.png", *options]) == 0
    assert proposed == ["one.png"] * times


# -- who compares qualities --------------------------------------------------------------------


class Listening(KNNLabeller):
    """Keeps what it was told of qualities."""

    heard: Any = "nothing"
    source: Any = "nothing"

    def label(self, *arguments: Any, **options: Any) -> Any:
        self.heard, self.source = options["qualities"], options["source"]
        return super().label(*arguments, **options)


def test_qualities_are_compared_only_with_those_of_the_same_segmenter() -> None:
    store, labeller, frame = MemoryVectorStore(), Listening(), picture((EXAMPLE, "nut"))

    def heard(segmenter: Segmenter) -> Any:
        made = detector(segmenter, vector_store=store, labeller=labeller)
        made.detect(picture((EXAMPLE, "nut"), seed=9))
        return labeller.heard

    mine, other = (kind(EXAMPLE, qualities=[0.25]) for kind in (Chosen, Another))
    first = detector(mine, vector_store=store)
    assert heard(mine) is None, "an empty library knows none"
    learnt(first, frame, EXAMPLE)
    assert np.asarray(heard(mine)).tolist() == [0.25]
    assert heard(other) is None
    first.learn_frame(frame, masks_of(TWIN), ["nut"], negative=True)
    assert heard(mine) is not None, "negatives have no quality"
    learnt(detector(other, vector_store=store), picture(seed=2), EXAMPLE)
    assert heard(mine) is None
    assert heard(other) is None


def test_a_converted_library_is_used_as_before() -> None:
    frame, store = picture((EXAMPLE, "nut")), MemoryVectorStore()
    segmenter = Chosen(EXAMPLE, (60, 60, 100, 72), qualities=[0.9, 0.2])
    made = detector(segmenter, vector_store=store)
    learnt(made, frame, EXAMPLE)
    as_converted(made.library)
    old = detector(segmenter, vector_store=store, labeller=Listening())
    classification = old.detect(picture((EXAMPLE, "nut"), seed=3)).classifications[0]
    assert isinstance(old.labeller, Listening)
    assert old.labeller.heard is None
    assert old.labeller.fitted_to(old.snapshot(), None).decision is None
    assert classification.label == "nut"
    # One and the same library, some of whose examples know what lies around them.
    old.learn_frame(picture((EXAMPLE, "nut"), seed=4), masks_of(EXAMPLE), ["nut"])
    arrays = old.snapshot().examples()
    assert np.isnan(arrays.qualities).sum() == 1
    assert set(arrays.hard_negatives.owners) == {
        int(np.flatnonzero(~np.isnan(arrays.qualities))[0])
    }
    assert old.detect(frame)[0]["label"] == "nut"


def test_pictures_are_told_apart_by_their_pixels() -> None:
    """All arrays have the name "array", and one file may lie at two paths."""
    made, frame = detector(Chosen()), picture((EXAMPLE, "nut"))
    other = picture(seed=1)
    for image, box in ((frame, EXAMPLE), (other, EXAMPLE), (frame, TWIN), (other, TWIN)):
        made.add_examples_from_file(image.image_rgb[..., ::-1], masks_of(box), "nut")
    learnt(made, replace(frame, source_id="copy.png"), (20, 20, 40, 40))
    sources = made.snapshot().examples().sources
    assert sorted(sources.count(source) for source in set(sources)) == [2, 3]


def test_a_labeller_is_told_whether_it_has_seen_the_picture() -> None:
    """By its pixels: an array has no name of its own."""
    labeller, image = Listening(), picture((EXAMPLE, "nut")).image_rgb
    made = detector(Chosen(EXAMPLE), labeller=labeller, color_order="rgb")
    made.add_examples_from_file(image, "auto", "nut")
    made.detect(image.copy())
    assert made.snapshot().examples().sources == (labeller.source,)
    made.detect(picture((EXAMPLE, "nut"), seed=7).image_rgb)
    assert made.snapshot().examples().sources != (labeller.source,)


# -- as text -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def point() -> Point:
    """An example with three regions around it."""
    proposals = (EXAMPLE, (60, 60, 100, 72), (75, 75, 85, 85), TWIN)
    made = detector(Chosen(*proposals))
    learnt(made, picture((EXAMPLE, "nut"), (TWIN, "leaf")), EXAMPLE)
    return next(iter(made.library.store.scan(with_vectors=True)))


def test_surroundings_come_back_from_their_text(point: Point) -> None:
    text = json.dumps(point.payload["surroundings"], allow_nan=False)
    (example,) = [Example.from_point(point)]
    back = HardNegatives.from_payload(json.loads(text), example.crop, dimension=4)
    assert example.hard_negatives is not None
    assert regions(back) == regions(example.hard_negatives)
    assert back.touching.tolist() == [True, True, False]
    np.testing.assert_array_equal(back.vectors, example.hard_negatives.vectors)
    assert back.to_payload() == point.payload["surroundings"]


def test_half_precision_is_enough() -> None:
    vectors = np.random.default_rng(0).normal(size=(5, 300)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    unknown = HardNegatives.unknown(Example.from_point(_example()).crop)
    masks = masks_of(*[(0, 0, 2, 2)] * 5, size_hw=unknown.masks.size_hw)
    one = replace(unknown, masks=masks, touching=np.ones(5, bool), vectors=vectors)
    back = HardNegatives.from_payload(
        one.to_payload(), Example.from_point(_example()).crop, dimension=300
    )
    assert (back.vectors * vectors).sum(axis=1).min() > 0.9999


def _example() -> Point:
    made = detector(Chosen())
    learnt(made, picture((EXAMPLE, "nut")), EXAMPLE)
    return next(iter(made.library.store.scan(with_vectors=True)))


HALF = "AAAAAAAAAAA="
"""Four numbers in half precision."""


def test_background_comes_back_from_its_text_and_is_covered_by_the_checksum() -> None:
    made = detector(Chosen(EXAMPLE, ELSEWHERE))
    [found] = learnt(made, picture((EXAMPLE, "nut"), (ELSEWHERE, "leaf")), EXAMPLE)
    point = next(iter(made.library.store.scan(with_vectors=True)))
    [stored] = json.loads(json.dumps(point.payload["background"], allow_nan=False))
    [crop] = found.background
    assert (stored["scale"], stored["window"]) == (crop.scale, list(crop.window_xyxy))
    again = Example.from_point(replace(point, payload={**point.payload, "background": [stored]}))
    assert again.hard_negatives is not None
    assert regions(again.hard_negatives) == regions(found)
    for other in ([], [{**stored, "scale": 0.5}]):
        with pytest.raises(LibraryCorruptError, match="its crop is not what was stored"):
            Example.from_point(replace(point, payload={**point.payload, "background": other}))


@pytest.mark.parametrize(
    ("side", "refused"), [(BACKGROUND_SIDE, False), (BACKGROUND_SIDE + 1, True)]
)
def test_a_crop_of_the_background_has_a_largest_side(side: int, refused: bool) -> None:
    made = detector(Chosen(EXAMPLE, ELSEWHERE))
    learnt(made, picture((EXAMPLE, "nut"), (ELSEWHERE, "leaf")), EXAMPLE)
    point = next(iter(made.library.store.scan(with_vectors=True)))
    large = {
        "webp": encode_webp(np.zeros((side, side, 3), np.uint8)),
        "mask": encode_crop(np.ones((side, side), bool)).decode("ascii"),
    }
    stored = [{**point.payload["background"][0], **large}]
    changed = with_checksums(replace(point, payload={**point.payload, "background": stored}))
    if not refused:
        found = Example.from_point(changed).hard_negatives
        assert found is not None
        assert found.background[0].mask.shape == (side, side)
        return
    with pytest.raises(LibraryCorruptError, match=f"{side}x{side} pixels"):
        Example.from_point(changed)


DAMAGES: dict[str, dict[str, Any]] = {
    "no quality at all": {"quality": ...},
    "no masks": {"masks": ...},
    "no vectors": {"vectors": ...},
    "no boxes": {"boxes": ...},
    "no touching": {"touching": ...},
    "no proposer": {"proposer": ...},
    "proposer a number": {"proposer": 3},
    "quality a word": {"quality": "good\nvery"},
    "quality true": {"quality": True},
    "quality NaN": {"quality": float("nan")},
    "quality infinite": {"quality": float("inf")},
    "quality of 400 digits": {"quality": 10**400},
    "quality of 101 %": {"quality": 1.01},
    "vectors no base64": {"vectors": "%%%"},
    "vectors a number": {"vectors": 7},
    "vectors not ASCII": {"vectors": "é"},
    "vectors half a number": {"vectors": "AAAA"},
    "vectors empty": {"vectors": ""},
    "vectors of two": {"vectors": HALF},
    "vectors too short": {"vectors": "AAAAAAAAAAAA"},
    "vectors no numbers": {"vectors": "AH4A" * 8},
    "vectors without end": {"vectors": "AHwA" * 8},
    "touching too few": {"touching": [True, False]},
    "touching text": {"touching": "yes"},
    "touching numbers": {"touching": [1, 1, 0]},
    "touching too many": {"touching": [True] * 3 + [False]},
    "touching 100,000": {"touching": [True] * 100_000},
    "boxes too few": {"boxes": [[0, 0, 4, 4]]},
    "boxes outside": {"boxes": [[0, 0, 4, 4], [0, 0, 4, 4], [88, 0, 92, 4]]},
    "boxes negative": {"boxes": [[0, 0, 4, 4], [0, 0, 4, 4], [-2, 0, 2, 4]]},
    "boxes inside out": {"boxes": [[0, 0, 4, 4], [0, 0, 4, 4], [4, 4, 0, 0]]},
    "boxes huge": {"boxes": [[0, 0, 4, 4], [0, 0, 4, 4], [0, 0, 2**62, 2**62]]},
    "boxes huger": {"boxes": [[0, 0, 4, 4], [0, 0, 4, 4], [0, 0, 10**40, 10**40]]},
    "boxes NaN": {"boxes": [[0, 0, 4, 4], [0, 0, 4, 4], [0, 0, float("nan"), 4]]},
    "boxes ragged": {"boxes": [[0, 0, 4, 4], [0, 0, 4], [0, 0, 4, 4]]},
    "boxes text": {"boxes": "0044"},
    "boxes of truths": {
        "boxes": [[0, 0, 2, 1], [0, 0, 2, 1], [0, False, 2, 1]],
        "masks": [encode_crop(np.ones((1, 2), bool)).decode()] * 3,
    },
    "masks too few": {"masks": ["0"]},
    "masks garbage": {"masks": ["oooo1" * 9] * 3},
    "masks empty": {"masks": [""] * 3},
    "masks of another size": {"masks": ["0d1"] * 3},
    "masks numbers": {"masks": [1, 2, 3]},
    "masks text": {"masks": "abc"},
    "masks and boxes too few": {
        "boxes": [[0, 0, 2, 1]],
        "masks": [encode_crop(np.ones((1, 2), bool)).decode()],
    },
}
OF_THE_MASKS = {
    "boxes too few", "boxes outside", "boxes negative", "boxes inside out", "masks too few",
    "masks garbage", "masks empty", "masks of another size", "masks and boxes too few",
}  # fmt: skip
"""What keeps the schema, but does not fit the crop, which labellers do not read."""


def many(count: int) -> dict[str, Any]:
    """So many regions as large as the crop, and nothing wrong with them."""
    full = encode_crop(np.ones((90, 90), bool)).decode()
    halves = base64.b64encode(np.ones(4 * count, "<f2").tobytes()).decode()
    return {
        "boxes": [[0, 0, 90, 90]] * count,
        "masks": [full] * count,
        "touching": [True] * count,
        "vectors": halves,
    }


def test_no_more_regions_are_read_than_any_version_keeps(point: Point) -> None:
    """A small file could hold millions, each as large as a crop."""
    assert 2 * REGIONS_KEPT <= MAX_REGIONS
    most = Example.from_point(damaged(point, many(MAX_REGIONS)))
    assert most.hard_negatives is not None
    assert len(most.hard_negatives.masks) == MAX_REGIONS
    for count in (MAX_REGIONS + 1, 100_000):
        for read in (Example.from_point, _snapshot_of):
            with pytest.raises(LibraryCorruptError, match="at most 64 items"):
                read(damaged(point, many(count)))


def damaged(point: Point, change: dict[str, Any]) -> Point:
    data = {**point.payload["surroundings"], **change}
    data = {key: value for key, value in data.items() if value is not ...}
    return with_checksums(Point(point.id, point.vector, {**point.payload, "surroundings": data}))


@pytest.mark.parametrize(("name", "change"), DAMAGES.items(), ids=DAMAGES)
def test_damaged_surroundings_are_named_in_one_line(
    name: str, change: dict[str, Any], point: Point
) -> None:
    bad = damaged(point, change)
    with pytest.raises(LibraryCorruptError, match=f"{point.id} is damaged") as caught:
        Example.from_point(bad)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300
    if "NaN" in name or "infinite" in name:
        return  # a file can say so, a store does not take it
    made = detector(Chosen(EXAMPLE))
    learnt(made, picture((EXAMPLE, "nut"), seed=8), EXAMPLE)
    unrecorded(made.library)
    made.library.store.upsert([bad])
    library = Library(made.library.store, "x")
    if name in OF_THE_MASKS:
        assert len(snapshot_of(library).examples().ids) == 2
        return
    with pytest.raises(LibraryCorruptError, match=f"{point.id} is damaged.*library repair$"):
        snapshot_of(library).examples()
    assert library.remove(ids=[point.id]) == 1
    assert len(snapshot_of(library).examples().ids) == 1


@pytest.mark.parametrize("data", [7, "text", [], [1], {}, True])
def test_surroundings_that_are_something_else_are_named(data: Any, point: Point) -> None:
    bad = Point(point.id, point.vector, {**point.payload, "surroundings": data})
    with pytest.raises(LibraryCorruptError, match="damaged"):
        Example.from_point(bad)
    with pytest.raises(LibraryCorruptError, match="damaged"):
        _snapshot_of(bad)


def _snapshot_of(point: Point) -> Any:
    store = MemoryVectorStore()
    store.upsert([point])
    return read_snapshot(store, "1").arrays


@pytest.mark.parametrize(
    "change",
    [{"area": None}, {"area": "large"}, {"area": 10**40}, {"bbox": "abcd"}, {"bbox": [1, 2]},
     {"bbox": None}, {"bbox": [0, 0, 10**20, 1]}],
)  # fmt: skip
def test_a_damaged_box_or_area_is_named(change: dict[str, Any], point: Point) -> None:
    bad = with_checksums(Point(point.id, point.vector, {**point.payload, **change}))
    with pytest.raises(LibraryCorruptError, match=f"{point.id} is.*: its (area|bbox)") as caught:
        _snapshot_of(bad)
    assert "\n" not in str(caught.value)


def test_the_advice_names_the_library(point: Point) -> None:
    store = QdrantVectorStore(collection_name="nuts")
    made = detector(Chosen(EXAMPLE), vector_store=store)
    learnt(made, picture((EXAMPLE, "nut"), seed=8), EXAMPLE)
    unrecorded(made.library)
    store.upsert([damaged(point, {"vectors": ""})])
    with pytest.raises(LibraryCorruptError, match=f"{point.id} is damaged.*repair --library nuts$"):
        snapshot_of(Library(store, "nuts")).examples()
    assert run(["library", "remove", point.id, "--library", "nuts"]) == 0
    assert len(snapshot_of(Library(store, "nuts")).examples().ids) == 1


plain = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6)
anything = st.recursive(
    plain | counts_garbage.filter(lambda value: not isinstance(value, bytes)),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=12,
)


@QUICK
@given(data=st.data())
def test_whatever_a_file_says_is_read_or_named(data: st.DataObject, point: Point) -> None:
    around = dict(point.payload["surroundings"])
    for key in data.draw(st.lists(st.sampled_from(sorted(around)), min_size=1, unique=True)):
        kind = data.draw(st.sampled_from(["anything", "shortened", "one of it", "missing"]))
        value = around[key]
        if kind == "missing":
            del around[key]
        elif kind == "shortened" and isinstance(value, (str, list)):
            around[key] = value[: data.draw(st.integers(0, len(value)))]
        elif kind == "one of it" and isinstance(value, list):
            place = data.draw(st.integers(0, len(value) - 1))
            around[key] = [*value[:place], data.draw(anything), *value[place + 1 :]]
        else:
            around[key] = data.draw(anything)
    changed = Point(point.id, point.vector, {**point.payload, "surroundings": around})
    for read in (Example.from_point, _snapshot_of):
        try:
            read(changed)
        except StoreError:
            assert not _finite(around)
        except LibraryCorruptError as error:
            assert "\n" not in str(error)  # noqa: PT017
            assert len(str(error)) < 300  # noqa: PT017


def _finite(value: Any) -> bool:
    """Whether a store takes it."""
    try:
        json.dumps(value, allow_nan=False)
    except ValueError:
        return False
    return True
