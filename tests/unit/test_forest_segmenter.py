"""The segmenter that learns from the examples: its component tree, and what it finds."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from sam_detect import SAMDetect
from sam_detect.fading import context
from sam_detect.segmentation import ForestSegmenter, NaiveSegmenter
from sam_detect.segmentation import _forest_objects as forests
from sam_detect.segmentation._component_tree import LEVELS, ComponentTree
from sam_detect.segmentation._pixel_forest import PixelForest, ellipse_fill
from sam_detect.segmentation._predicted_iou import PredictedIoU
from sam_detect.types import NO_HINTS, Crop, ExampleCrops, Frame, Hints, Masks
from scripts.dev.overlaps import iou_matrix
from tests.closeness import same_masks

Image = npt.NDArray[np.uint8]
RADIUS = 9
STEP = 15
"""Less than twice the radius: neighbours touch."""


def tissue(seed: int = 0, *, gain: float = 1.0) -> tuple[Frame, Masks]:
    """Rows of discs that touch, on an uneven ground; and their masks."""
    generator = np.random.default_rng(seed)
    height, width = 160, 200
    ground = cv2.GaussianBlur(generator.normal(0, 1, (height, width)), (0, 0), 6)
    picture = 60 + 120 * ground
    masks, taken = [], np.zeros((height, width), np.bool_)
    for row, column in itertools.product(range(5), range(8)):
        if (row + column) % 4 == 3:
            continue
        x = 20 + STEP * column + 6 * (column // 3) + int(generator.integers(0, 2))
        y = 22 + 28 * row + int(generator.integers(-2, 3))
        mask = np.zeros((height, width), np.uint8)
        cv2.circle(mask, (x, y), RADIUS, 1, -1)
        free = mask.astype(bool) & ~taken
        masks.append(free)
        taken |= free
        shade = cv2.GaussianBlur(free.astype(np.float32), (0, 0), 1.2)
        picture = np.maximum(picture, shade * generator.integers(140, 170))
    noisy = gain * picture + generator.normal(0, 4, picture.shape)
    grey = np.clip(noisy, 0, 255).astype(np.uint8)
    return Frame(np.repeat(grey[..., None], 3, axis=2), f"tissue-{seed}"), Masks.from_dense(masks)


def grains() -> tuple[Frame, Masks]:
    """Discs as bright as their ground, which are only of a finer grain; and their masks."""
    generator = np.random.default_rng(0)
    picture = 110 + 60 * cv2.GaussianBlur(generator.normal(0, 1, (170, 220)), (0, 0), 3)
    fine, masks = 110 + generator.normal(0, 22, picture.shape), []
    for y, x in itertools.product(range(25, 160, 30), range(25, 210, 34)):
        mask = np.zeros(picture.shape, np.uint8)
        cv2.circle(mask, (x, y), 11, 1, -1)
        masks.append(mask > 0)
        picture = np.where(mask > 0, fine, picture)
    grey = np.clip(picture, 0, 255).astype(np.uint8)
    return Frame(np.repeat(grey[..., None], 3, axis=2), "grains"), Masks.from_dense(masks)


def crops_of(frame: Frame, masks: Masks, *, occupancy: float = 0.2) -> list[Crop]:
    return [
        context.cut(frame.image_rgb, crop, box, occupancy=occupancy, crop_side=256)
        for crop, box in zip(masks.crops(), masks.boxes_xyxy.tolist(), strict=True)
    ]


def objects(forest: PixelForest, frame: Frame) -> Masks:
    learnt = forests.Learnt(forest, forests.Prior.of(forest))
    return forests.fitting_objects(forests.View.of(learnt, frame))


def plain(image_rgb: Image, views: Sequence[object]) -> list[Masks]:
    return [NaiveSegmenter().propose(Frame(image_rgb))] * len(views)


def found(proposed: Masks, wanted: Masks, least: float = 0.7) -> float:
    """Share of the wanted masks that one of the proposals fits."""
    both = Masks.concatenate([proposed, wanted])
    shared = iou_matrix(both.crops(), both.boxes_xyxy)[: len(proposed), len(proposed) :]
    return float((shared.max(axis=0, initial=0) >= least).mean())


# -- the component tree ---------------------------------------------------------------------------


def slow_best(tree: ComponentTree, values: npt.NDArray[np.float64]) -> float:
    """The largest sum over nodes of which none holds another, by trying all sets."""
    above = []
    for node in range(len(values)):
        chain, at = set(), node
        while tree.parents[at] != at:
            at = int(tree.parents[at])
            chain.add(at)
        above.append(chain)
    best = 0.0
    for size in range(1, len(values) + 1):
        for chosen in itertools.combinations(range(len(values)), size):
            if not any(above[one] & set(chosen) for one in chosen):
                best = max(best, float(values[list(chosen)].sum()))
    return best


@pytest.mark.parametrize("seed", range(12))
def test_the_best_disjoint_nodes_are_those_of_all_sets(seed: int) -> None:
    generator = np.random.default_rng(seed)
    picture = np.asarray(generator.integers(0, 4, (3, 4)) / LEVELS, np.float32)
    tree = ComponentTree.of(picture)
    values = generator.normal(0.1, 1, len(tree.parents))
    chosen = np.unique(tree.best_disjoint(values))
    assert values[chosen[chosen >= 0]].sum() == pytest.approx(max(0, slow_best(tree, values)))


def test_sums_are_over_the_connected_pixels_that_reach_the_level() -> None:
    generator = np.random.default_rng(3)
    picture = cv2.GaussianBlur(generator.random((24, 30)), (0, 0), 2).astype(np.float32)
    tree, weights = ComponentTree.of(picture), generator.random(picture.shape)
    sums, quantised = tree.sums(weights), np.clip(picture * LEVELS, 0, LEVELS).astype(np.uint8)
    for y, x in itertools.product(range(0, 24, 5), range(0, 30, 5)):
        reaches = (quantised >= quantised[y, x]).astype(np.uint8)
        _, regions = cv2.connectedComponents(reaches, connectivity=4)
        expected = weights[regions == regions[y, x]].sum()
        assert sums[tree.node_of[y, x]] == pytest.approx(expected)


def test_a_tree_of_one_level_is_its_root() -> None:
    tree = ComponentTree.of(np.zeros((3, 5), np.float32))
    assert tree.parents.tolist() == [0]
    assert tree.best_disjoint(np.array([1.0])).tolist() == [[0] * 5] * 3
    assert (tree.best_disjoint(np.array([-1.0])) == -1).all()


def test_an_ellipse_fills_itself_and_two_discs_do_not() -> None:
    drawn = np.zeros((80, 120), np.uint8)
    cv2.ellipse(drawn, (60, 40), (40, 20), 30, 0, 360, 1, -1)
    assert ellipse_fill(drawn > 0) == pytest.approx(1, abs=0.01)
    two = np.zeros((80, 120), np.uint8)
    for x in (30, 58):
        cv2.circle(two, (x, 40), 15, 1, -1)
    assert ellipse_fill(two > 0) < 0.95
    assert ellipse_fill(np.ones((1, 3), np.bool_)) == 0


# -- what it finds --------------------------------------------------------------------------------


def test_touching_objects_are_found_from_a_few_examples() -> None:
    frame, masks = tissue()
    rest = masks[8:]
    forest = PixelForest(crops_of(frame, masks[:8]))
    proposed = objects(forest, frame)
    assert found(proposed, rest) >= 0.9
    assert len(proposed) <= 1.15 * len(masks), "disjoint objects and hardly anything else"
    shared = iou_matrix(proposed.crops(), proposed.boxes_xyxy)
    assert np.triu(shared, 1).max() < 0.05
    assert (np.diff(proposed.predicted_ious) <= 0).all()


def test_it_finds_them_in_another_picture_too_in_other_light() -> None:
    frame, masks = tissue()
    other, wanted = tissue(1, gain=0.75)
    forest = PixelForest(crops_of(frame, masks[:8]))
    assert found(objects(forest, other), wanted) >= 0.85


def test_the_same_picture_gives_the_same_objects() -> None:
    frame, masks = tissue()
    one, two = (objects(PixelForest(crops_of(frame, masks[:5])), frame) for _ in range(2))
    assert one.crop_rles == two.crop_rles
    assert np.array_equal(one.predicted_ious, two.predicted_ious)


def test_outlines_have_the_resolution_of_the_picture() -> None:
    """Small objects are enlarged for the forest, large ones reduced."""
    frame, masks = tissue()
    for by in (0.5, 4):
        size = (round(200 * by), round(160 * by))
        image = cv2.resize(
            frame.image_rgb, size, interpolation=cv2.INTER_AREA if by < 1 else cv2.INTER_CUBIC
        )
        scaled = Masks.from_dense([
            cv2.resize(masks.dense(i).astype(np.float32), size) > 0.5 for i in range(len(masks))
        ])  # fmt: skip
        seen = Frame(np.asarray(image, np.uint8))
        proposed = objects(PixelForest(crops_of(seen, scaled[:8])), seen)
        assert found(proposed, scaled[8:], 0.6 if by < 1 else 0.8) >= 0.85


def knowing(crops: Mapping[str, Sequence[Crop]], outlined: int = 0) -> Hints:
    return Hints(crops=ExampleCrops(crops), outlined=outlined)


def counted_trainings(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Is told of how many examples each forest learns."""
    trained: list[int] = []
    before = forests.Forests.of

    def count(crops: Mapping[str, Sequence[Crop]]) -> forests.Forests:
        trained.append(sum(map(len, crops.values())))
        return before(crops)

    monkeypatch.setattr(forests.Forests, "of", count)
    return trained


def test_without_enough_examples_it_is_naive() -> None:
    frame, masks = tissue()
    plain, few = NaiveSegmenter().propose(frame), {"disc": crops_of(frame, masks[:2])}
    for hints in (NO_HINTS, knowing(few)):
        assert ForestSegmenter().propose(frame, hints).crop_rles == plain.crop_rles


def test_in_a_picture_that_it_does_not_fit_it_proposes_nothing() -> None:
    frame, masks = tissue()
    generator = np.random.default_rng(5)
    noise = cv2.GaussianBlur(generator.random((160, 200)), (0, 0), 1.5)
    noise = (255 * (noise - noise.min()) / np.ptp(noise)).astype(np.uint8)
    other = Frame(np.repeat(noise[..., None], 3, axis=2))
    assert len(objects(PixelForest(crops_of(frame, masks[:8])), other)) == 0


@pytest.mark.parametrize("outlined_here", [0, 8])
def test_all_proposals_are_ranked_alike(outlined_here: int) -> None:
    frame, masks = tissue()
    crops = crops_of(frame, masks[:8])
    proposed = ForestSegmenter().propose(frame, knowing({"disc": crops}, outlined_here))
    assert (np.diff(proposed.predicted_ious) <= 0).all()
    best = proposed[: 2 * len(masks)]  # of each object about two
    assert found(best, masks[8:]) >= 0.9
    whole = proposed.areas > 4 * masks.areas.max()
    assert whole.any(), "naive proposes clusters, too"
    assert proposed.predicted_ious[whole].max() < (0.2 if not outlined_here else 1e-9)
    rare = knowing({"disc": crops, "rare": crops[:1]}, outlined_here)
    ious = ForestSegmenter().propose(frame, rare).predicted_ious
    assert np.isin(NaiveSegmenter().propose(frame).predicted_ious, ious).all()


def variants(mask: Image) -> dict[str, Image]:
    """An outline, and what is wrong with others of the same object."""
    x = np.flatnonzero(mask.any(axis=0))
    half, ring = mask.copy(), np.ones((7, 7), np.uint8)
    half[:, : int(x.mean())] = 0
    return {
        "whole": mask,
        "part": half,
        "smaller": cv2.erode(mask, ring),
        "larger": cv2.dilate(mask, ring),
        "beside": np.roll(mask, RADIUS, axis=0),
    }


@pytest.mark.parametrize("scale", [1, 3])
def test_the_predicted_iou_is_high_for_whole_objects_only(scale: int) -> None:
    frame, masks = tissue()
    size = (200 * scale, 160 * scale)
    seen = Frame(np.asarray(cv2.resize(frame.image_rgb, size, interpolation=cv2.INTER_CUBIC)))
    enlarged = [
        cv2.resize(masks.dense(i).astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
        for i in range(len(masks))
    ]
    shown = Masks.from_dense([each > 0 for each in enlarged[:8]])
    forest = PixelForest(crops_of(seen, shown))
    predict, picture = PredictedIoU(forest, plain), forest.see(seen.image_rgb)
    # Of each, as far as its neighbours do not touch it there.
    drawn = [variants(each) for each in enlarged[8:]]
    mean = {
        name: float(predict(picture, Masks.from_dense([each[name] > 0 for each in drawn])).mean())
        for name in drawn[0]
    }
    assert mean["whole"] > 0.6
    assert max(value for name, value in mean.items() if name != "whole") < mean["whole"] - 0.2, mean


def test_the_predicted_iou_is_nought_for_quite_another_size() -> None:
    frame, masks = tissue()
    forest = PixelForest(crops_of(frame, masks[:5]))
    predict = PredictedIoU(forest, plain)
    everything = Masks.from_dense([np.ones(frame.size_hw, np.bool_)])
    assert predict(forest.see(frame.image_rgb), everything).tolist() == [0]


def test_an_example_is_seen_by_trees_that_did_not_learn_it(monkeypatch: pytest.MonkeyPatch) -> None:
    frame, masks = tissue()
    forest = PixelForest(crops_of(frame, masks[:4]))
    learnt: list[int] = []
    before = PixelForest._trained

    def count(self: PixelForest, samples: list[object], trees: int) -> object:
        learnt.append(len(samples))
        return before(self, samples, trees)  # type: ignore[arg-type]

    monkeypatch.setattr(PixelForest, "_trained", count)
    for index in range(4):
        seen, mask = forest.see_example(index, known=False)
        assert seen.kinds.shape[:2] == mask.shape
    forest.see_example(0, known=True)
    # Examples 0 and 3 are a group; each group's trees are trained once.
    assert learnt == [2, 3, 3]


def test_each_label_has_a_forest_of_its_own() -> None:
    frame, masks = tissue()
    crops = {"a": crops_of(frame, masks[:4]), "b": crops_of(frame, masks[4:8])}
    whole = ForestSegmenter().propose(frame, knowing(crops))
    alone = [objects(PixelForest(each), frame) for each in crops.values()]
    assert len(whole) == sum(map(len, alone)) + len(NaiveSegmenter().propose(frame))


@pytest.mark.parametrize("size_hw", [(1, 1), (3, 200), (40, 40)])
@pytest.mark.parametrize("value", [0, 255])
def test_a_constant_picture_has_no_objects(size_hw: tuple[int, int], value: int) -> None:
    frame, masks = tissue()
    forest = PixelForest(crops_of(frame, masks[:4]))
    assert len(objects(forest, Frame(np.full((*size_hw, 3), value, np.uint8)))) == 0


def test_crops_without_surroundings_do_no_harm() -> None:
    """As of a library whose objects fill their crops."""
    image = np.random.default_rng(0).integers(0, 255, (12, 12, 3)).astype(np.uint8)
    full = Crop(image, np.ones((12, 12), np.bool_), 1.0, (0, 0, 12, 12))
    frame, _ = tissue()
    assert len(objects(PixelForest([full] * 3), frame)) <= 1


def test_a_detector_finds_more_of_what_was_shown() -> None:
    frame, masks = grains()
    rest, count = masks[6:], {}
    for name in ("off", "auto"):
        segmenter = NaiveSegmenter(forest=name)  # type: ignore[arg-type]
        detector = SAMDetect(segmenter=segmenter, embedder="average", vector_store="memory")
        detector.pipeline.learn(frame, masks[:6], ["disc"] * 6)
        detections = detector.pipeline.detect(frame, recall_taught=False)
        named = [i for i, label in enumerate(detections.label.tolist()) if label == "disc"]
        count[name] = found(detections.masks[named], rest, 0.6)
    assert count["auto"] >= 0.85
    assert count["off"] < 0.5


def test_it_is_told_how_many_examples_are_of_the_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[int] = []
    before = ForestSegmenter.propose

    def note(self: ForestSegmenter, frame: Frame, hints: Hints) -> Masks:
        told.append(hints.outlined)
        return before(self, frame, hints)

    monkeypatch.setattr(ForestSegmenter, "propose", note)
    (frame, masks), (other, _) = tissue(), tissue(1)
    detector = SAMDetect(segmenter="forest", embedder="average", vector_store="memory")
    detector.pipeline.learn(frame, masks[:4], ["disc"] * 4)
    detector.pipeline.learn(frame, masks[4:6], ["disc"] * 2, negative=True)
    told.clear()
    detector.pipeline.detect(frame)
    detector.pipeline.detect(other)
    assert told == [4, 0]


def test_naive_learns_for_pictures_with_outlines(monkeypatch: pytest.MonkeyPatch) -> None:
    (frame, masks), (other, _) = tissue(), tissue(1)
    trained = counted_trainings(monkeypatch)
    for given in ("auto", "off"):
        segmenter = NaiveSegmenter(forest=given)  # type: ignore[arg-type]
        detector = SAMDetect(segmenter=segmenter, embedder="average", vector_store="memory")
        detector.pipeline.learn(frame, masks[:5], ["disc"] * 5)
        detector.pipeline.detect(other)
        assert trained == []
        detector.pipeline.detect(frame)
        assert trained == ([5] if given == "auto" else [])
        trained.clear()


@pytest.mark.parametrize("outlined", [4, 12])
def test_naive_learns_only_where_something_is_left_to_find(
    outlined: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture, masks = np.full((220, 300, 3), 225, np.uint8), []
    for y, x in itertools.product((40, 110, 180), (40, 110, 180, 250)):
        mask = np.zeros(picture.shape[:2], np.uint8)
        cv2.circle(mask, (x, y), 16, 1, -1)
        picture[mask == 1] = (60, 90, 150)
        masks.append(mask.astype(bool))
    frame, drawn = Frame(picture, "tray"), Masks.from_dense(masks)
    trained: list[object] = []
    before = forests.Forests.of
    monkeypatch.setattr(forests.Forests, "of", lambda crops: trained.append(crops) or before(crops))
    detector = SAMDetect(segmenter="naive", embedder="average", vector_store="memory")
    detector.pipeline.learn(frame, drawn[:outlined], ["disc"] * outlined, others=drawn)
    found = detector.pipeline.detect(frame)
    assert len(found.known) == 12
    assert bool(trained) == (outlined < 12)


def test_qualities_compare_only_where_no_forest_judges_them() -> None:
    (frame, masks), (other, _) = tissue(), tissue(1)
    detector = SAMDetect(segmenter="naive", embedder="average", vector_store="memory")
    detector.pipeline.learn(frame, masks[:8], ["disc"] * 8)
    assert set(detector.pipeline.snapshot().examples().proposers) == {"naive"}
    snapshot = detector.pipeline.snapshot()
    assert detector.pipeline.propose(frame, snapshot).masks.rated_by == "examples"
    assert detector.pipeline.propose(other, snapshot).masks.rated_by == "naive"
    for picture, compared in ((frame, False), (other, True)):
        (best, *_) = detector.pipeline.detect(picture, recall_taught=False)
        assert best.explanation is not None
        assert ("quality" in best.explanation.log_odds) == compared


def test_a_label_with_too_few_examples_leaves_all_to_the_examples() -> None:
    """A forest that does not know a label cannot tell its objects from parts of others."""
    frame, masks = tissue()
    crops = {"disc": crops_of(frame, masks[:8]), "rare": crops_of(frame, masks[8:9])}
    plain = NaiveSegmenter().propose(frame)
    auto = NaiveSegmenter().propose(frame, knowing(crops, 9))
    assert auto.rated_by == "naive"
    assert same_masks(auto, plain)
    asked = ForestSegmenter().propose(frame, knowing(crops, 9))
    assert asked.rated_by == "naive"
    assert len(asked) > len(plain)


def test_what_is_learnt_with_a_forest_is_rated_as_without() -> None:
    frame, masks = tissue()
    detector = SAMDetect(segmenter="forest", embedder="average", vector_store="memory")
    detector.pipeline.learn(frame, masks[:8], ["disc"] * 8)
    assert set(detector.pipeline.snapshot().examples().proposers) == {"naive"}


def test_it_is_trained_again_when_something_was_learnt(monkeypatch: pytest.MonkeyPatch) -> None:
    frame, masks = tissue()
    trained = counted_trainings(monkeypatch)
    detector = SAMDetect(segmenter="forest", embedder="average", vector_store="memory")
    detector.pipeline.learn(frame, masks[:4], ["disc"] * 4)
    for _ in range(2):
        detector.pipeline.detect(frame)
    detector.pipeline.learn(frame, masks[4:6], ["disc"] * 2)
    detector.pipeline.detect(frame)
    assert trained == [4, 6]
