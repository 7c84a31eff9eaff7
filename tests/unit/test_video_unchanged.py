"""Vectors of unchanged crops, and key frames that are proposed in advance."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from sam_detect import SAMDetect
from sam_detect.embedding import AverageEmbedder
from sam_detect.errors import ExtensionError, MaskError
from sam_detect.fading import GaussianFade, IdentityFade
from sam_detect.features.extraction import FeatureExtractor
from sam_detect.interfaces import Segmenter
from sam_detect.types import NO_HINTS, Candidates, Crop, FadedCrop, Frame, Hints, Masks
from sam_detect.types.masks import FloatArray
from sam_detect.vector_store import MemoryVectorStore
from sam_detect.video.key_frames import (
    KEPT_UNSEEN,
    MOST_LEVELS,
    KeyFrameDetector,
    UnchangedVectors,
)
from sam_detect.video.threads import Reader
from sam_detect.video.tracks import TrackSnapshot
from tests.video_scenes import Scene, Thing, along, detector_that_knows

SIDE = 48


class Costly(AverageEmbedder):
    """Counts what it is asked for."""

    cheap = False

    def __init__(self) -> None:
        self.asked = 0

    def embed(self, crops: Sequence[FadedCrop]) -> FloatArray:
        self.asked += len(crops)
        return super().embed(crops)


def maker(**changes: object) -> FeatureExtractor:
    return FeatureExtractor(**{"embedder": Costly(), "fade": GaussianFade(), **changes})  # type: ignore[arg-type]


def crop(*, side: int = SIDE, side_px: int = 0) -> Crop:
    """A reddish square before a grey wall."""
    image = np.full((side, side, 3), (150, 150, 150), np.uint8)
    mask = np.zeros((side, side), bool)
    mask[side // 4 : side * 3 // 4, side // 4 : side * 3 // 4] = True
    image[mask] = (200, 90, 60)
    longest = side_px or side
    return Crop(image, mask, side / longest, (0, 0, longest, longest))


def noisy(crop: Crop, seed: int, levels: float = 8.0) -> Crop:
    noise = np.random.default_rng(seed).normal(0, levels, crop.image_rgb.shape)
    return replace(crop, image_rgb=np.clip(crop.image_rgb + noise, 0, 255).astype(np.uint8))


def brighter(crop: Crop, levels: float, where: str = "object") -> Crop:
    image = crop.image_rgb.astype(np.int16)
    image[crop.mask if where == "object" else ~crop.mask] += round(levels)
    return replace(crop, image_rgb=np.clip(image, 0, 255).astype(np.uint8))


def grown(crop: Crop, rows: int) -> Crop:
    mask = crop.mask.copy()
    mask[SIDE * 3 // 4 : SIDE * 3 // 4 + rows, SIDE // 4 : SIDE * 3 // 4] = True
    return replace(crop, mask=mask)


def taken(first: Crop, second: Crop) -> bool:
    """Whether the second has the vector of the first, embedded at the key frame before."""
    made = maker()
    before = UnchangedVectors()
    known = made.embed_crops([first], known=before)
    found = made.embed_crops([second], known=UnchangedVectors(before))
    again = made.embedder.asked == 1  # type: ignore[attr-defined]
    if again:
        np.testing.assert_array_equal(found, known)
    return again


def test_noise_is_no_change() -> None:
    assert taken(noisy(crop(), 1), noisy(crop(), 2))


@pytest.mark.parametrize(
    "other",
    [
        brighter(crop(), 20),
        brighter(crop(), 40, "around"),
        grown(crop(), 8),
        crop(side_px=60),
    ],
    ids=["colour", "surroundings", "outline", "size"],
)
def test_a_changed_crop_is_embedded_again(other: Crop) -> None:
    assert not taken(noisy(crop(), 1), noisy(other, 2))


@pytest.mark.parametrize(
    "other",
    [brighter(crop(), 3), brighter(crop(), 8, "around"), grown(crop(), 2), crop(side_px=50)],
    ids=["colour", "surroundings", "outline", "size"],
)
def test_a_little_is_no_change(other: Crop) -> None:
    assert taken(crop(), other)


def test_a_crop_of_few_pixels_is_always_embedded_again() -> None:
    assert not taken(crop(side=8), crop(side=8))


def test_a_slowly_changing_crop_is_embedded_again_in_time() -> None:
    made, kept = maker(), UnchangedVectors()
    described_at = 0.0
    for key_frame in range(12):
        level, before = key_frame * 2.0, made.embedder.asked
        made.embed_crops([brighter(crop(), level)], known=kept)
        if made.embedder.asked > before:
            described_at = level
        assert level - described_at <= MOST_LEVELS
        kept = UnchangedVectors(kept)
    assert 2 <= made.embedder.asked <= 6


def test_the_nearest_is_taken() -> None:
    made, before = maker(), UnchangedVectors()
    known = made.embed_crops([brighter(crop(), 5), crop(), brighter(crop(), -5)], known=before)
    found = made.embed_crops([brighter(crop(), 1)], known=UnchangedVectors(before))
    np.testing.assert_array_equal(found, known[[1]])


def test_vectors_of_the_same_key_frame_are_not_reused() -> None:
    made, kept = maker(), UnchangedVectors()
    made.embed_crops([crop(), crop()], known=kept)
    made.embed_crops([crop()], known=kept)
    assert made.embedder.asked == 3


def test_some_are_taken_and_some_made_in_their_order() -> None:
    made, before = maker(), UnchangedVectors()
    known = made.embed_crops([crop()], known=before)
    others = [brighter(crop(), 60), crop(), brighter(crop(), -60)]
    kept = UnchangedVectors(before)
    found = made.embed_crops(others, known=kept)
    plain = maker().embed_crops(others)
    np.testing.assert_array_equal(found, [plain[0], known[0], plain[2]])
    assert (kept.made, kept.taken) == (2, 1)


def test_a_vector_without_a_match_is_forgotten_after_some_key_frames() -> None:
    made, kept = maker(), UnchangedVectors()
    made.embed_crops([crop()], known=kept)
    for _ in range(KEPT_UNSEEN):
        kept = UnchangedVectors(kept)
        made.embed_crops([brighter(crop(), 60)], known=kept)
    asked = made.embedder.asked
    kept = UnchangedVectors(kept)
    made.embed_crops([crop()], known=kept)
    assert made.embedder.asked == asked, "still known, and known again"
    for _ in range(KEPT_UNSEEN + 1):
        kept = UnchangedVectors(kept)
        made.embed_crops([brighter(crop(), 60)], known=kept)
    made.embed_crops([crop()], known=UnchangedVectors(kept))
    assert made.embedder.asked == asked + 1


def test_what_comes_back_is_kept_as_long_again() -> None:
    made, kept = maker(), UnchangedVectors()
    made.embed_crops([crop()], known=kept)
    for _ in range(2):
        for _ in range(KEPT_UNSEEN):
            kept = UnchangedVectors(kept)
        kept = UnchangedVectors(kept)
        made.embed_crops([crop()], known=kept)
    assert made.embedder.asked == 1


def test_another_recipe_has_other_vectors() -> None:
    first, before = maker(), UnchangedVectors()
    first.embed_crops([crop()], known=before)
    second = maker(fade=IdentityFade())
    found = second.embed_crops([crop()], known=UnchangedVectors(before))
    np.testing.assert_array_equal(found, maker(fade=IdentityFade()).embed_crops([crop()]))


def test_vectors_of_two_recipes_are_kept_side_by_side() -> None:
    """As of an embedder that describes masks by the frame, and what is undecided by its crops."""
    makers, before = (maker(), maker(fade=IdentityFade())), UnchangedVectors()
    first = [each.embed_crops([crop()], known=before) for each in makers]
    kept = UnchangedVectors(before)
    again = [each.embed_crops([crop()], known=kept) for each in makers]
    np.testing.assert_array_equal(again, first)
    assert (kept.made, kept.taken) == (0, 2)


def test_where_describing_is_cheap_nothing_is_kept() -> None:
    kept = UnchangedVectors()
    maker(embedder=AverageEmbedder()).embed_crops([crop()], known=kept)
    assert (kept.made, kept.taken) == (0, 0)


def test_no_crops_have_no_vectors() -> None:
    assert UnchangedVectors().vectors([], lambda _: np.zeros((0, 4), np.float32)).shape == (0, 4)


# -- in a stream ---------------------------------------------------------------------------------


class NoisyScene(Scene):
    """A camera's noise differs from frame to frame."""

    def frame(self, index: int) -> Frame:
        clean = super().frame(index)
        noise = np.random.default_rng(index).normal(0, 2, clean.image_rgb.shape)
        return replace(clean, image_rgb=np.clip(clean.image_rgb + noise, 0, 255).astype(np.uint8))


THINGS = [Thing("cherry", along(60, 60, 0, 0), 20), Thing("leaf", along(150, 80, 0, 0), 20)]


class Outlining(Segmenter):
    """Proposes the true outlines."""

    name = "outlining"

    def __init__(self, scene: Scene) -> None:
        self._scene = scene

    def propose(self, frame: Frame, hints: Hints = NO_HINTS) -> Masks:
        return self._scene.outlined(frame.index).masks


def learnt(scene: Scene, detector: SAMDetect | None = None) -> SAMDetect:
    detector = detector or SAMDetect(Outlining(scene), Costly(), vector_store=MemoryVectorStore())
    outlined = scene.outlined(0)
    detector.learn_frame(scene.frame(0), outlined.masks, outlined.labels)
    return detector


def asked_at_key_frames(scene: Scene, *, track: bool) -> list[int]:
    detector = learnt(scene)
    asked, counts = detector.pipeline.features.embedder, []
    assert isinstance(asked, Costly)
    asked.asked = 0
    with detector.stream(scene, every=5, track=track) as stream:
        for tracked in stream:
            if tracked.key:
                counts.append(asked.asked)
            assert sorted(tracked.detections.label.tolist()) == ["cherry", "leaf"]
    return np.diff([0, *counts]).tolist()


def test_unchanged_objects_are_embedded_at_the_first_key_frame_only() -> None:
    # The camera moves: key frames of a still scene are rare anyway.
    first, *later = asked_at_key_frames(
        NoisyScene(THINGS, 21, camera=along(0, 0, 1, 0)), track=True
    )
    assert first >= 2
    assert later == [0] * 4


def test_frames_by_themselves_are_described_by_themselves() -> None:
    counts = asked_at_key_frames(NoisyScene(THINGS, 4), track=False)
    assert len(counts) == 4
    assert min(counts) >= 2


MOVING = Scene(
    [Thing("cherry", along(40, 50, 2, 1)), Thing("leaf", along(150, 80, -1, 0)),
     Thing("plum", along(100, 100, 0, -1), frames=(7, 99))], 26,
)  # fmt: skip


def test_proposing_ahead_does_not_change_the_detections(monkeypatch: pytest.MonkeyPatch) -> None:
    def found() -> list[dict[str, object]]:
        with learnt(MOVING).stream(MOVING, every=5, unknown=True) as stream:
            return [tracked.to_dict() for tracked in stream]

    ahead = found()
    monkeypatch.setattr(Reader, "ahead", lambda _: [])
    assert found() == ahead
    assert sum(len(each["detections"]) for each in ahead) > 40  # type: ignore[arg-type]


class Proposing(SAMDetect):
    """Says in which frames it proposes for detection; fails at one."""

    def __init__(self, fails_at: int = -1) -> None:
        super().__init__("naive", "average", vector_store=MemoryVectorStore())
        self.sought: list[int] = []
        self.came = threading.Condition()
        propose = self.pipeline.propose

        def noting(frame: Frame, *given: Any, **how: Any) -> Candidates:
            with self.came:
                self.sought.append(frame.index)
                self.came.notify_all()
            if frame.index == fails_at:
                raise ExtensionError("the segmenter failed")
            return propose(frame, *given, **how)

        self.pipeline.propose = noting  # type: ignore[method-assign]


def test_the_next_key_frame_is_proposed_while_it_still_waits() -> None:
    detector = Proposing()
    learnt(MOVING, detector)
    with detector.stream(MOVING, every=5) as stream:
        assert next(stream).key
        with detector.came:
            assert detector.came.wait_for(lambda: len(detector.sought) > 1, 10)
        assert detector.sought == [0, 5]
        keys = [0, *(tracked.frame.index for tracked in stream if tracked.key)]
    assert detector.sought == keys, "each once, and none for nothing"


def test_what_fails_ahead_fails_at_its_frame() -> None:
    detector = Proposing(fails_at=5)
    learnt(MOVING, detector)
    with detector.stream(MOVING, every=5) as stream:
        assert [next(stream).frame.index for _ in range(5)] == [0, 1, 2, 3, 4]
        with pytest.raises(ExtensionError, match="failed"):
            next(stream)


def test_a_still_scene_is_not_proposed_ahead() -> None:
    detector = Proposing()
    still = Scene([Thing("cherry", along(60, 60, 0, 0))], 41)
    learnt(still, detector)
    with detector.stream(still, every=5) as stream:
        keys = [tracked.frame.index for tracked in stream if tracked.key]
    assert detector.sought == keys == [0, 20, 40]


NOTHING = TrackSnapshot(Masks.empty(MOVING.size_hw), ())


@pytest.fixture
def key_frames() -> Iterator[KeyFrameDetector]:
    key_frames = KeyFrameDetector(detector_that_knows(MOVING).pipeline)
    yield key_frames
    key_frames.stop()
    assert key_frames.wait(10)


def overlap(found: Masks, truth: Masks) -> float:
    """IoU of all that is found with all that is there."""
    one, other = (np.any([m.dense(i) for i in range(len(m))], axis=0) for m in (found, truth))
    return float((one & other).sum() / (one | other).sum())


def test_proposals_of_another_frame_do_not_count(key_frames: KeyFrameDetector) -> None:
    key_frames.propose_ahead(MOVING.frame(20))
    result = key_frames.detect(frame := MOVING.frame(0), NOTHING, None).result(10)
    assert result.frame is frame
    assert overlap(result.found.known.masks, MOVING.outlined(0).masks) > 0.9


def test_proposals_made_before_something_was_learnt_do_not_count() -> None:
    detector, before, truth = Proposing(), MOVING.frame(10), MOVING.outlined(10)
    key_frames, frame = KeyFrameDetector(detector.pipeline), MOVING.frame(12)
    key_frames.propose_ahead(frame)
    key_frames.run(lambda: detector.learn_frame(before, truth.masks, truth.labels)).result(10)
    found = key_frames.detect(frame, NOTHING, None).result(10).found
    assert detector.sought == [12, 12], "other sizes are sought now"
    assert set(found.known.label.tolist()) == {"cherry", "leaf", "plum"}
    key_frames.stop()


def test_vectors_stay_with_their_masks() -> None:
    frame = MOVING.frame(0)
    masks = MOVING.outlined(0).masks
    rows = np.eye(3, dtype=np.float32)
    one = Candidates(frame, masks, rows[:1], np.array([1]))
    both = one.then(Candidates(frame, masks, rows[1:], np.array([0, 1])))
    assert len(both.masks) == 4
    assert both.described.tolist() == [1, 2, 3]
    np.testing.assert_array_equal(both.vectors, rows)
    with pytest.raises(MaskError, match="2 described"):
        Candidates(frame, masks, rows[:1], np.array([0, 1]))
