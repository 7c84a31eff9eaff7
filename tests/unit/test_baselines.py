"""The baselines: on drawn pictures whose objects are known."""

from __future__ import annotations

import json

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from sam_detect.evaluation.methods import Method, Predictions, SupportImage
from sam_detect.types import Frame, Masks
from scripts.dev.baselines import OtsuWatershed, TemplateMatching, watershed
from scripts.dev.baselines.template import (
    THRESHOLDS,
    clipped,
    correlation,
    examples_of,
    templates_of,
    thresholds,
)
from scripts.dev.baselines.watershed import Channel, best_channel, mean_lab, pass_of
from scripts.dev.overlaps import iou_matrix

Image = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]
Colour = tuple[int, int, int]

METHODS = [OtsuWatershed, TemplateMatching]
GREY, WHITE, BLACK = (110, 110, 110), (230, 230, 230), (20, 20, 20)
RED, BLUE = (200, 50, 40), (50, 60, 200)


def ground(colour: Colour = BLACK, height: int = 120, width: int = 160) -> Image:
    noise = np.random.default_rng(0).normal(0, 3, (height, width, 3))
    return np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)


def ellipse(image: Image, center_xy: tuple[int, int], axes: tuple[int, int], colour: Colour,
            angle: float = 0) -> Mask:  # fmt: skip
    """Draws an ellipse, with the ground's noise kept, and returns its mask."""
    filled = np.zeros(image.shape[:2], np.uint8)
    cv2.ellipse(filled, center_xy, axes, angle, 0, 360, 1, -1)
    mask = filled.astype(bool)
    noise = np.random.default_rng(1).normal(0, 3, (int(mask.sum()), 3))
    image[mask] = np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)
    return mask


def shown(image: Image, masks: list[Mask], labels: list[str]) -> SupportImage:
    return SupportImage(Frame(image), Masks.from_dense(np.stack(masks)), tuple(labels))


def discs(colour: Colour = WHITE, paper: Colour = BLACK) -> SupportImage:
    image = ground(paper)
    masks = [ellipse(image, xy, (r, r), colour) for xy, r in (((30, 30), 11), ((90, 70), 12))]
    return shown(image, masks, ["disc", "disc"])


def best_iou(found: Masks, wanted: Mask) -> float:
    overlaps = [
        (found.dense(i) & wanted).sum() / (found.dense(i) | wanted).sum() for i in range(len(found))
    ]
    return float(max(overlaps, default=0))


def learnt(method: Method, *support: SupportImage) -> Method:
    method.learn(support)
    return method


def label_at(found: Predictions, wanted: Mask) -> set[str | None]:
    """Labels of the detections that are this object."""
    return {
        found.labels[i] for i in range(len(found.masks)) if best_iou(found.masks[[i]], wanted) > 0.5
    }


# Both


@pytest.mark.parametrize("make", METHODS)
@pytest.mark.parametrize(("paper", "ink"), [(BLACK, WHITE), (WHITE, BLACK)])
def test_finds_discs_brighter_or_darker_than_their_ground(
    make: type[Method], paper: Colour, ink: Colour
) -> None:
    query = ground(paper)
    wanted = [ellipse(query, xy, (12, 12), ink) for xy in ((40, 80), (120, 40))]
    found = learnt(make(), discs(ink, paper)).find(Frame(query))
    assert len(found.masks) == 2
    assert min(best_iou(found.masks, mask) for mask in wanted) > 0.75
    assert found.labels == ("disc", "disc")


@pytest.mark.parametrize("make", METHODS)
def test_names_objects_by_their_colour(make: type[Method]) -> None:
    image = ground(GREY)
    masks = [ellipse(image, (30, 30), (12, 12), RED), ellipse(image, (90, 70), (12, 12), BLUE)]
    query = ground(GREY)
    red, blue = (ellipse(query, xy, (12, 12), c) for xy, c in (((120, 30), RED), ((40, 90), BLUE)))
    found = learnt(make(), shown(image, masks, ["red", "blue"])).find(Frame(query))
    assert label_at(found, red) == {"red"}
    assert label_at(found, blue) == {"blue"}
    assert len(found.masks) == 2


@pytest.mark.parametrize("make", METHODS)
@pytest.mark.parametrize(("paper", "ink"), [(BLACK, WHITE), (WHITE, BLACK)])
def test_an_object_cut_by_the_border_is_found_inside_the_picture(
    make: type[Method], paper: Colour, ink: Colour
) -> None:
    query = ground(paper)
    cut = ellipse(query, (5, 60), (12, 12), ink)
    example = discs(ink, paper)
    one = SupportImage(example.frame, example.masks[[0]], ("disc",))
    found = learnt(make(), one).find(Frame(query))
    assert best_iou(found.masks, cut) > 0.6


@pytest.mark.parametrize("make", METHODS)
def test_learns_from_an_example_cut_by_the_border(make: type[Method]) -> None:
    image, query = ground(), ground()
    mask = ellipse(image, (2, 118), (14, 14), WHITE)
    ellipse(query, (2, 118), (14, 14), WHITE)
    found = learnt(make(), shown(image, [mask], ["corner"])).find(Frame(query))
    assert best_iou(found.masks, mask) > 0.7


@pytest.mark.parametrize("make", METHODS)
@pytest.mark.parametrize("size_hw", [(1, 1), (3, 50), (7, 7), (40, 30)])
def test_pictures_smaller_than_the_examples(make: type[Method], size_hw: tuple[int, int]) -> None:
    noise = np.random.default_rng(2).integers(0, 256, (*size_hw, 3)).astype(np.uint8)
    found = learnt(make(), discs()).find(Frame(noise))
    assert found.masks.size_hw == found.proposals.size_hw == size_hw
    assert set(found.labels) <= {"disc"}


@pytest.mark.parametrize("make", METHODS)
@pytest.mark.parametrize("at", [(60, 80), (0, 0), (119, 159)])
def test_an_example_of_one_pixel(make: type[Method], at: tuple[int, int]) -> None:
    image = ground()
    mask = np.zeros(image.shape[:2], bool)
    mask[at] = True
    image[at] = 255
    found = learnt(make(), shown(image, [mask], ["dot"])).find(Frame(image))
    assert set(found.labels) <= {"dot"}
    assert (found.masks.areas <= 16).all()


@pytest.mark.parametrize("make", METHODS)
def test_an_example_that_is_the_whole_picture(make: type[Method]) -> None:
    image = ground()
    whole = np.ones(image.shape[:2], bool)
    found = learnt(make(), shown(image, [whole], ["all"])).find(Frame(image))
    assert set(found.labels) <= {"all"}


@pytest.mark.parametrize("make", METHODS)
@pytest.mark.parametrize("grey", [0, 90, 255])
def test_nothing_in_a_picture_of_one_colour(make: type[Method], grey: int) -> None:
    found = learnt(make(), discs()).find(Frame(np.full((80, 90, 3), grey, np.uint8)))
    assert len(found.masks) == len(found.proposals) == 0


@pytest.mark.parametrize("make", METHODS)
def test_nothing_without_examples(make: type[Method]) -> None:
    query = discs().frame
    assert len(make().find(query).masks) == 0
    method = learnt(make(), discs())
    assert len(method.find(query).masks) == 2
    method.learn([])
    assert len(method.find(query).masks) == 0


@pytest.mark.parametrize("make", METHODS)
def test_a_picture_that_shows_no_example_teaches_nothing(make: type[Method]) -> None:
    none = SupportImage(Frame(ground(WHITE)), Masks.empty((120, 160)), ())
    query = discs().frame
    plain, with_none = (learnt(make(), *s).find(query) for s in ([discs()], [none, discs(), none]))
    assert plain.masks.crop_rles == with_none.masks.crop_rles
    assert plain.scores.tolist() == with_none.scores.tolist()


@pytest.mark.parametrize("make", METHODS)
def test_learning_forgets_what_was_known(make: type[Method]) -> None:
    method = learnt(make(), discs())
    other = discs()
    method.learn([SupportImage(other.frame, other.masks, ("coin", "coin"))])
    assert set(method.find(other.frame).labels) == {"coin"}


@pytest.mark.parametrize("make", METHODS)
def test_what_is_found_keeps_to_its_contract(make: type[Method]) -> None:
    query = ground()
    for x, radius in ((20, 6), (60, 12), (120, 25)):
        ellipse(query, (x, 60), (radius, radius), WHITE)
    found = learnt(make(), discs()).find(Frame(query))
    assert len(found.masks) == len(found.labels) == len(found.scores) > 0
    assert found.scores.dtype == np.float32
    assert ((found.scores >= 0) & (found.scores <= 1)).all()
    assert len(found.proposals) >= len(found.masks)
    assert set(found.seconds) == {"propose", "label"}
    assert all(value > 0 for value in found.seconds.values())


@pytest.mark.parametrize("make", METHODS)
def test_no_object_is_found_twice(make: type[Method]) -> None:
    image, query = ground(), ground()
    masks = [ellipse(image, (30, 30), (9, 9), WHITE), ellipse(image, (90, 70), (16, 16), WHITE)]
    wanted = [ellipse(query, (x, 60), (12, 12), WHITE) for x in (30, 75, 130)]
    found = learnt(make(), shown(image, masks, ["small", "large"])).find(Frame(query))
    overlaps = iou_matrix(found.masks.crops(), found.masks.boxes_xyxy)
    assert min(best_iou(found.masks, mask) for mask in wanted) > 0.5
    assert (overlaps - np.eye(len(overlaps))).max() <= 0.3


@pytest.mark.parametrize("make", METHODS)
def test_the_same_every_time(make: type[Method]) -> None:
    query = Frame(np.random.default_rng(3).integers(0, 256, (90, 100, 3)).astype(np.uint8))
    first, second = (learnt(make(), discs()).find(query) for _ in range(2))
    assert first.proposals.crop_rles == second.proposals.crop_rles
    assert first.scores.tolist() == second.scores.tolist()


@pytest.mark.parametrize("make", METHODS)
def test_says_what_it_is(make: type[Method]) -> None:
    method = make()
    assert method.name in ("watershed", "template")
    assert json.loads(json.dumps(method.describe())) == method.describe() != {}


# Watershed


def test_takes_touching_discs_apart() -> None:
    query = ground()
    wanted = [ellipse(query, (x, 60), (12, 12), WHITE) for x in (60, 82)]
    found = learnt(OtsuWatershed(), discs()).find(Frame(query))
    assert min(best_iou(found.masks, mask) for mask in wanted) > 0.75


def test_areas_unlike_the_examples_are_proposed_but_not_named() -> None:
    query = ground()
    small = ellipse(query, (20, 60), (3, 3), WHITE)
    large = ellipse(query, (100, 60), (50, 50), WHITE)
    found = learnt(OtsuWatershed(), discs()).find(Frame(query))
    assert len(found.masks) == 0
    assert best_iou(found.proposals, small) > 0.5
    assert best_iou(found.proposals, large) > 0.5


def test_a_region_is_not_given_a_label_whose_areas_it_does_not_have(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A large blue disc among large red and small blue ones: nearest to the small blue one."""
    saturated = Channel("saturation", bright=True)
    monkeypatch.setattr(watershed, "best_channel", lambda examples: saturated)
    image, query = ground(GREY), ground(GREY)
    masks = [ellipse(image, (40, 40), (14, 14), RED), ellipse(image, (110, 70), (5, 5), BLUE)]
    ellipse(query, (60, 60), (14, 14), BLUE)
    found = learnt(OtsuWatershed(), shown(image, masks, ["red", "blue"])).find(Frame(query))
    assert len(found.proposals) == 2  # the disc, once for each label
    assert len(found.masks) == 0


def test_of_two_labels_for_one_place_the_nearer_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    image, query = ground(), ground()
    masks = [ellipse(image, (30, 30), (9, 9), WHITE), ellipse(image, (90, 70), (16, 16), WHITE)]
    large, small = (ellipse(query, (60, 60), (r, r), WHITE) for r in (15, 11))
    regions = {"small": Masks.from_dense(small), "large": Masks.from_dense(large)}
    monkeypatch.setattr(watershed, "regions_of", lambda frame, each: regions[each.label])
    found = learnt(OtsuWatershed(), shown(image, masks, ["small", "large"])).find(Frame(query))
    assert found.labels == ("large",)
    assert len(found.proposals) == 2


def test_examples_of_several_pictures_narrow_the_areas() -> None:
    low, high = pass_of("disc", [discs()]).areas
    closer = pass_of("disc", [discs(), discs()]).areas
    areas = discs().masks.areas
    assert (low, high) == pytest.approx((areas.min() / 4, areas.max() * 4))
    assert closer == pytest.approx((areas.min() / 2**1.5, areas.max() * 2**1.5))


@pytest.mark.parametrize(
    ("paper", "ink", "wanted"),
    [
        (BLACK, WHITE, {("grey", True), ("red", True), ("green", True), ("blue", True)}),
        (WHITE, BLACK, {("grey", False), ("red", False), ("green", False), ("blue", False)}),
        (GREY, (110, 60, 110), {("green", False), ("a", True)}),
        (GREY, (150, 110, 40), {("b", True), ("blue", False), ("saturation", True)}),
    ],
)
def test_the_channel_is_one_in_which_the_examples_stand_out(
    paper: Colour, ink: Colour, wanted: set[tuple[str, bool]]
) -> None:
    example = discs(ink, paper)
    channel = best_channel([(example.frame.image_rgb, example.masks)])
    assert (channel.name, channel.bright) in wanted


def test_an_example_without_surroundings_gives_grey() -> None:
    image = ground()
    whole = Masks.from_dense(np.ones(image.shape[:2], bool))
    assert best_channel([(image, whole)]) == Channel("grey", bright=True)


def test_mean_colours_are_those_of_the_masks() -> None:
    image = np.zeros((4, 6, 3), np.uint8)
    image[:, 3:] = 255
    halves = np.zeros((2, 4, 6), bool)
    halves[0, :, :3] = halves[1, :, 3:] = True
    assert mean_lab(image, Masks.from_dense(halves))[:, 0] == pytest.approx([0, 100], abs=0.1)
    assert mean_lab(image, Masks.empty((4, 6))).shape == (0, 3)


def test_a_large_picture_gives_masks_in_full_resolution(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(watershed, "WORKING_PIXELS", 200_000)
    query = ground(height=1000, width=1100)
    wanted = ellipse(query, (600, 700), (60, 60), WHITE)
    example = ground(height=300, width=300)
    mask = ellipse(example, (150, 150), (60, 60), WHITE)
    found = learnt(OtsuWatershed(), shown(example, [mask], ["disc"])).find(Frame(query))
    assert found.masks.size_hw == (1000, 1100)
    assert best_iou(found.masks, wanted) > 0.93


# Template


@pytest.mark.parametrize(("angle", "scale"), [(45, 1.0), (90, 1.0), (130, 0.8), (0, 1.25)])
def test_finds_a_turned_and_scaled_example(angle: float, scale: float) -> None:
    image, query = ground(), ground()
    mask = ellipse(image, (60, 60), (22, 8), WHITE)
    axes = (round(22 * scale), round(8 * scale))
    wanted = ellipse(query, (90, 55), axes, WHITE, angle)
    found = learnt(TemplateMatching(), shown(image, [mask], ["stick"])).find(Frame(query))
    assert best_iou(found.masks[[0]], wanted) > 0.6


def test_an_asymmetric_example_is_turned_the_right_way() -> None:
    """A half disc, whose mask would not lie on it if picture and mask turned differently."""
    image = ground(height=100, width=100)
    mask = ellipse(image, (50, 50), (20, 20), WHITE)
    image[:, :50], mask[:, :50] = BLACK, False
    for turns in (1, 2, 3):
        query, wanted = np.rot90(image, turns).copy(), np.rot90(mask, turns)
        found = learnt(TemplateMatching(), shown(image, [mask], ["half"])).find(Frame(query))
        assert best_iou(found.masks[[0]], wanted) > 0.8


def test_correlation_is_that_of_the_formula() -> None:
    picture = cv2.GaussianBlur(
        np.random.default_rng(4).integers(0, 256, (30, 34, 3)).astype(np.uint8), (0, 0), 2
    )
    mask = np.zeros((30, 34), bool)
    mask[10:18, 12:20] = True
    (example,) = examples_of([shown(picture, [mask], ["patch"])])
    template = next(t for t in templates_of(0, example, most_pixels=1e6) if t.weights.sum() > 0)
    found = correlation(picture, template)
    assert found.shape == (30, 34)
    down, across = (side // 2 for side in template.weights.shape)
    keep = template.weights > 0
    centred = template.image_rgb[keep] - template.image_rgb[keep].mean(axis=0)
    for y, x in ((down, across), (15, 16), (14, 20)):
        window = picture[y - down : y + down + 1, x - across : x + across + 1][keep]
        other = window - window.mean(axis=0)
        wanted = (other * centred).sum() / np.sqrt((other**2).sum() * (centred**2).sum())
        assert found[y, x] == pytest.approx(wanted, abs=1e-3)


def test_the_threshold_follows_how_alike_the_examples_are() -> None:
    image = ground(height=200, width=200)
    alike = [ellipse(image, (x, 40), (14, 14), WHITE) for x in (40, 150)]
    unlike = [ellipse(image, (40, 120), (30, 6), WHITE), ellipse(image, (150, 130), (12, 25), GREY)]
    examples = examples_of([shown(image, alike + unlike, ["same", "same", "other", "other"])])
    found = thresholds(
        examples, [t for i, e in enumerate(examples) for t in templates_of(i, e, most_pixels=4e4)]
    )
    assert THRESHOLDS[0] <= found["other"] < found["same"] <= THRESHOLDS[1]


def test_one_example_gets_the_middle_threshold() -> None:
    example = discs()
    one = examples_of([SupportImage(example.frame, example.masks[[0]], ("disc",))])
    templates = list(templates_of(0, one[0], most_pixels=1e5))
    assert thresholds(one, templates) == {"disc": pytest.approx(sum(THRESHOLDS) / 2)}


def test_whole_examples_are_preferred_to_cut_ones() -> None:
    image = ground()
    masks = [ellipse(image, xy, (12, 12), WHITE) for xy in ((3, 40), (80, 60))]
    both = examples_of([shown(image, masks, ["disc", "disc"])])
    assert [example.center_xy for example in both] == [(80, 60)]
    other = examples_of([shown(image, masks, ["cut", "disc"])])
    assert {example.label for example in other} == {"cut", "disc"}


def test_outlines_are_clipped_to_the_picture() -> None:
    outline = np.ones((5, 7), bool)
    whole = clipped(outline, (10, 10), (20, 30))
    corner = clipped(outline, (0, 19), (20, 30))
    assert whole is not None
    assert whole[1] == (7, 8, 14, 13)
    assert corner is not None
    assert corner[1] == (0, 17, 4, 20)
    assert corner[0].shape == (3, 4)
    outline[:, 3:] = False
    assert clipped(outline, (0, 10), (20, 30)) is None


def test_an_example_without_contrast_matches_nothing() -> None:
    image = np.full((60, 60, 3), 90, np.uint8)
    mask = np.zeros((60, 60), bool)
    mask[20:30, 20:30] = True
    image[mask] = 91
    ghost = shown(image, [mask], ["ghost"])
    (example,) = examples_of([ghost])
    assert list(templates_of(0, example, most_pixels=1e4)) == []
    assert len(learnt(TemplateMatching(), ghost).find(discs().frame).proposals) == 0


def test_a_place_without_contrast_is_no_match() -> None:
    query = np.full((120, 160, 3), 90, np.uint8)
    cv2.circle(query, (60, 60), 12, (92, 92, 92), -1)
    method = learnt(TemplateMatching(), discs())
    assert len(method.find(Frame(query)).proposals) == 0
    cv2.circle(query, (60, 60), 12, (102, 102, 102), -1)
    assert len(method.find(Frame(query)).masks) == 1
