"""The pipeline: one snapshot for each call, and hooks that change nothing but who does the work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from closeness import SCORE_TOLERANCE
from library_helpers import DiscSegmenter, detector, disc_masks, discs, taught

from sam_detect import SAMDetect
from sam_detect.errors import ConfigError
from sam_detect.evaluation.methods import SupportImage
from sam_detect.evaluation.pipeline import PipelineMethod
from sam_detect.interfaces import VectorStore
from sam_detect.library.snapshot import LibrarySnapshot
from sam_detect.pipeline import dense_similarity
from sam_detect.pipeline import proposals as proposals_module
from sam_detect.pipeline.dense_similarity import DenseSimilarity, similarity_to
from sam_detect.segmentation.naive import NaiveSegmenter
from sam_detect.types import NO_HINTS, Crop, Detections, Frame, HintName, Hints, Masks, chunks
from sam_detect.vector_store import MemoryVectorStore
from tests.closeness import same_masks


class CountingStore(MemoryVectorStore):
    """Counts how often its manifest is read, and its points."""

    def __init__(self) -> None:
        super().__init__()
        self.manifests = self.scans = 0

    def read_manifest(self) -> dict[str, Any] | None:
        self.manifests += 1
        return super().read_manifest()

    def scan(self, *given: Any, **how: Any) -> Any:
        self.scans += 1
        return super().scan(*given, **how)


def knowing(store: VectorStore | None = None) -> SAMDetect:
    return taught(store or MemoryVectorStore(), "nut", "leaf")


def frame_of(name: str = "nut", number: int = 7) -> Frame:
    return Frame(np.ascontiguousarray(discs(name, number)[..., ::-1]), "other.png")


def test_a_detection_reads_the_manifest_once() -> None:
    store = CountingStore()
    made = knowing(store)
    made.detect(frame_of())
    store.manifests = store.scans = 0
    made.detect(frame_of("leaf"))
    assert (store.manifests, store.scans) == (1, 0), "the library has not changed"


def test_a_detection_sees_one_generation_though_the_library_changes_meanwhile(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = knowing()
    before = made.detect(frame_of())
    propose = made.segmenter.propose

    def changes(frame: Frame, hints: Hints) -> Masks:
        if "leaf" in made.library.stats()["classes"]:
            made.library.remove(label="leaf")
            made.library.rename("nut", "stone")
        return propose(frame, hints)

    monkeypatch.setattr(made.segmenter, "propose", changes)
    assert same(made.detect(frame_of()), before)
    assert set(made.detect(frame_of()).known.label.tolist()) == {"stone"}


def same(one: Detections, other: Detections) -> bool:
    np.testing.assert_allclose(one.confidence, other.confidence, atol=SCORE_TOLERANCE)
    return one.label.tolist() == other.label.tolist() and same_masks(one.masks, other.masks)


def test_proposals_that_are_given_are_not_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    made, frame = knowing(), frame_of()
    expected = made.detect(frame)
    pipeline = made.pipeline
    snapshot = pipeline.snapshot()
    proposed = pipeline.propose(frame, snapshot)
    monkeypatch.setattr(made.segmenter, "propose", lambda *_: pytest.fail("proposed twice"))
    assert same(pipeline.detect(frame, snapshot=snapshot, proposed=proposed), expected)


def test_proposals_are_labelled_with_other_thresholds(monkeypatch: pytest.MonkeyPatch) -> None:
    made, frame = knowing(), frame_of()
    expected = made.detect(frame).known
    candidates = made.propose(frame)
    monkeypatch.setattr(made.segmenter, "propose", lambda *_: pytest.fail("proposed twice"))
    assert same(made.label(candidates).known, expected)
    confidences = sorted(expected.confidence.tolist())
    assert len(confidences) > 2
    between = (confidences[0] + confidences[-1]) / 2
    surer = made.label(candidates, threshold=between).known
    assert sorted(surer.confidence.tolist()) == [each for each in confidences if each >= between]
    assert same(made.label(candidates).known, expected), "the detector's own threshold stays"
    with pytest.raises(ConfigError, match="threshold"):
        made.label(candidates, threshold=2)


def test_proposals_are_labelled_by_size() -> None:
    made, frame = knowing(), frame_of()
    candidates = made.propose(frame)
    known = made.label(candidates).known
    areas = np.sort(known.masks.areas)
    least, most = int(areas[1]), int(areas[-2])
    found = made.label(candidates, min_area=least, max_area=most)
    assert found.masks.areas.min() >= least
    assert found.masks.areas.max() <= most
    wanted = [i for i, area in enumerate(known.masks.areas) if least <= area <= most]
    assert same(found.known, known[wanted])


def test_carried_masks_compete_with_the_proposals(monkeypatch: pytest.MonkeyPatch) -> None:
    made, frame = knowing(), frame_of()
    carried = Masks.from_dense(disc_masks()[:2])
    monkeypatch.setattr(made.segmenter, "propose", lambda f, _: Masks.empty(f.size_hw))
    found = made.pipeline.detect(frame, carried=carried)
    assert found.label.tolist() == ["nut", "nut"]
    assert sorted(found.masks.areas.tolist()) == sorted(carried.areas.tolist())


def test_known_vectors_are_not_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    made, frame = knowing(), frame_of()
    pipeline = made.pipeline
    monkeypatch.setattr(type(pipeline.features.embedder), "cheap", False)

    class Known:
        """Remembers crops by their place in the batch."""

        def __init__(self) -> None:
            self.vectors_of: dict[bytes, Any] = {}
            self.made = 0

        def keys_of_crops(self, crops: Any, recipe: Any) -> list[bytes]:
            return [crop.image_rgb.tobytes() + crop.mask.tobytes() for crop in crops]

        def vectors(self, keys: Any, make: Any) -> Any:
            missing = [i for i, key in enumerate(keys) if key not in self.vectors_of]
            self.made += len(missing)
            for index, vector in zip(missing, make(missing), strict=True):
                self.vectors_of[keys[index]] = vector
            return np.stack([self.vectors_of[key] for key in keys])

    known = Known()
    first = pipeline.detect(frame, known=known)
    count = known.made
    assert count >= len(first)
    assert same(pipeline.detect(frame, known=known), first)
    assert known.made == count


class Following(DiscSegmenter):
    """Proposes the discs that are like the examples."""

    uses: tuple[HintName, ...] = ("similarity",)

    def propose(self, frame: Frame, hints: Hints = NO_HINTS) -> Masks:
        masks = super().propose(frame, hints)
        if hints.similarity is None:
            return masks
        maps = [cv2.resize(e, frame.size_hw[::-1]) for e in hints.similarity(frame.image_rgb)]
        similar = np.max(maps, axis=0)
        means = [similar[masks.dense(index)].mean() for index in range(len(masks))]
        return masks[np.flatnonzero(np.array(means) > 0.5)]


def two_kinds() -> npt.NDArray[np.uint8]:
    """Nuts, but for the last disc, which has the colour of the ground."""
    picture = discs("nut", seed=7)
    picture[disc_masks()[4]] = discs("nut", seed=8)[:1, :1]
    return picture


def test_a_segmenter_may_follow_what_is_like_the_examples(monkeypatch: pytest.MonkeyPatch) -> None:
    fitted: list[dict[str, int]] = []

    def counted(crops: Mapping[str, Sequence[Crop]], **options: bool) -> DenseSimilarity | None:
        fitted.append({label: len(each) for label, each in crops.items()})
        return similarity_to(crops, **options)

    monkeypatch.setattr(proposals_module, "similarity_to", counted)
    made = detector(segmenter=Following())
    assert len(made.detect(two_kinds())) == 5, "without examples nothing is alike or unlike"
    assert not fitted
    made.add_examples_from_file(discs("nut", 1), disc_masks()[:3], "nut")
    for _ in range(2):
        found = made.detect(two_kinds())
        assert len(found) == 4
        assert {each.label for each in found} == {"nut"}
    assert fitted == [{"nut": 3}], "once for a library as it is"
    made.add_examples_from_file(discs("leaf", 2), disc_masks()[:2], "leaf")
    made.detect(two_kinds())
    assert fitted[1:] == [{"nut": 3, "leaf": 2}]


def test_proposals_that_followed_one_episode_do_not_reach_another() -> None:
    method = PipelineMethod(detector(segmenter=Following()).pipeline)
    frame = Frame(np.ascontiguousarray(two_kinds()[..., ::-1]), "other.png")
    masks = Masks.from_dense(disc_masks()[:3])
    method.learn([SupportImage(frame_of(number=1), masks, ("nut",) * 3, None)])
    assert len(method.find(frame).proposals) == 4
    assert len(method.propose(frame)) == 5, "what learning from this picture would see"
    assert len(method.find(frame).proposals) == 4


def test_at_most_so_many_examples_of_a_label_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sam_detect.pipeline.proposals.EXAMPLES_SEEN", 2)
    made = taught(MemoryVectorStore(), "nut", "leaf")
    snapshot = made.pipeline.snapshot()
    seen = snapshot.examples().positive_ids(2)
    labels = dict(zip(snapshot.examples().ids, snapshot.examples().labels, strict=True))
    assert sorted(labels[each] for each in seen) == ["leaf", "leaf", "nut", "nut"]
    made.learn(discs("nut", 5), masks=disc_masks()[:1], label="nut", negative=True)
    again = made.pipeline.snapshot().examples()
    assert len(again.ids) == 11
    assert len(again.positive_ids(100)) == 10, "a negative is no example"


def test_evaluation_follows_the_examples_of_each_episode() -> None:
    method = PipelineMethod(detector(segmenter=Following()).pipeline)
    picture = Frame(np.ascontiguousarray(two_kinds()[:, :, ::-1]), "two.png")
    masks = Masks.from_dense(disc_masks()[:3])
    assert len(method.propose(picture)) == 5
    for name in ("nut", "leaf"):
        method.learn([SupportImage(frame_of(name), masks, (name,) * 3)])
        found = method.find(picture)
        assert found.seconds["propose"] > 0
        direct = detector(segmenter=Following())
        direct.learn_frame(frame_of(name), masks, [name] * 3)
        assert len(found.proposals) == len(direct.detect(picture)) < 5


class Choosing(Following):
    """Follows the examples where they can be trusted."""

    uses = ("separable similarity",)


@pytest.fixture
def discs_are_large_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dense_similarity, "MOST_ENLARGED", 4)


def test_small_examples_are_not_followed() -> None:
    assert proposals_of(taught(MemoryVectorStore(), "nut", segmenter=Choosing())) == 5


def proposals_of(made: SAMDetect, **how: Any) -> int:
    """How many discs of :func:`two_kinds` are proposed."""
    frame = Frame(np.ascontiguousarray(two_kinds()[..., ::-1]), "other.png")
    return len(made.pipeline.propose(frame, made.pipeline.snapshot(), **how).masks)


@pytest.mark.usefixtures("discs_are_large_enough")
def test_a_segmenter_may_follow_only_examples_that_show_what_they_are_like() -> None:
    made = detector(segmenter=Choosing())
    made.add_examples_from_file(discs("nut", 1), disc_masks()[:4], "nut")
    assert proposals_of(made) == 5, "four do not show it"
    made.add_examples_from_file(discs("nut", 2), disc_masks()[:1], "nut")
    assert proposals_of(made) == 4
    assert proposals_of(made, quick=True) == 5, "not in a video"


@pytest.mark.usefixtures("discs_are_large_enough")
def test_examples_that_tell_too_little_are_not_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dense_similarity, "LEAST_CONTRAST", 1.01)
    assert proposals_of(taught(MemoryVectorStore(), "nut", segmenter=Choosing())) == 5
    monkeypatch.setattr(dense_similarity, "LEAST_CONTRAST", 0.3)
    assert proposals_of(taught(MemoryVectorStore(), "nut", segmenter=Choosing())) == 4


@pytest.mark.usefixtures("discs_are_large_enough")
def test_a_copy_in_memory_follows_the_crops_that_the_library_keeps() -> None:
    made = taught(MemoryVectorStore(), "nut", segmenter=Choosing())
    copied = made.in_memory()
    assert proposals_of(copied) == 4
    copied.add_examples_from_file(discs("nut", 3), disc_masks()[:1], "nut")
    assert proposals_of(copied) == 4, "its own example is seen, too"
    made.library.remove(label="nut")
    copied.add_examples_from_file(discs("nut", 4), disc_masks()[:1], "nut")
    assert proposals_of(copied) == 5, "two with a crop are not enough"


@pytest.mark.usefixtures("discs_are_large_enough")
def test_of_very_many_labels_none_is_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proposals_module, "MOST_LABELS", 1)
    monkeypatch.setattr(proposals_module, "SEEN_WHERE_SEPARABLE", 5)
    names = ("nut", "leaf")
    assert proposals_of(taught(MemoryVectorStore(), *names[:1], segmenter=Choosing())) == 4
    assert proposals_of(taught(MemoryVectorStore(), *names, segmenter=Choosing())) == 5


class LastIsNothing(DiscSegmenter):
    """Gives the last disc quality 0."""

    def propose(self, frame: Frame, hints: Hints = NO_HINTS) -> Masks:
        qualities = np.array([0.9, 0.9, 0.9, 0.9, 0.0], np.float32)
        return replace(super().propose(frame, hints), predicted_ious=qualities)


class LastIsUnlike(DiscSegmenter):
    """Excludes the last disc."""

    def propose(self, frame: Frame, hints: Hints = NO_HINTS) -> Masks:
        found = super().propose(frame, hints)
        return replace(found, excluded=np.arange(len(found)) == len(found) - 1)


def test_what_a_segmenter_finds_unlike_the_examples_stays_unknown() -> None:
    assert len(taught(MemoryVectorStore(), "nut").detect(discs("nut", 7)).known) == 5
    made = taught(MemoryVectorStore(), "nut", segmenter=LastIsNothing())
    assert len(made.detect(discs("nut", 7)).known) == 5, "its qualities may mean anything"
    made = taught(MemoryVectorStore(), "nut", segmenter=LastIsUnlike())
    found = made.pipeline.detect(made.read(discs("nut", 7)), explain_unknown=True)
    assert (len(found), len(found.known)) == (5, 4)
    [unknown] = [each for each in found if each.label is None]
    assert unknown.explanation is not None
    assert unknown.explanation.decision == "unlike"
    assert unknown.explanation.recomputed() == unknown.confidence == 0
    assert unknown.neighbours, "what it resembles is said nevertheless"


@pytest.mark.usefixtures("discs_are_large_enough")
def test_what_is_proposed_in_one_episode_is_not_taken_for_that_of_another() -> None:
    method = PipelineMethod(detector(segmenter=Choosing()).pipeline)
    frame = Frame(np.ascontiguousarray(two_kinds()[..., ::-1]), "other.png")
    masks = Masks.from_dense(disc_masks()[:4])
    shown = [frame_of(number=1), frame_of(number=2)]
    method.learn([SupportImage(each, masks, ("nut",) * 4, None) for each in shown])
    assert len(method.find(frame).proposals) == 4
    assert len(method.propose(frame)) == 5


@pytest.mark.parametrize(("embedder", "tolerance"), [("appearance", 1e-5), ("lite", 1e-3)])
def test_very_many_proposals_are_described_and_compared_in_chunks(
    embedder: str, tolerance: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the same results as all at once (``lite`` sees few masks in windows, many in tiles)."""
    made = taught(MemoryVectorStore(), "nut", "leaf", segmenter=NaiveSegmenter(), embedder=embedder)
    frame = made.read(discs("nut", 7))
    whole = made.pipeline.detect(frame)
    seen: list[int] = []
    nearest = LibrarySnapshot.nearest

    def counted(self: LibrarySnapshot, vectors: Any, limit: int) -> Any:
        seen.append(len(vectors))
        return nearest(self, vectors, limit)

    monkeypatch.setattr(LibrarySnapshot, "nearest", counted)
    monkeypatch.setattr(chunks, "ROWS", 7)
    found = made.pipeline.detect(frame)
    assert len(seen) > 2
    assert max(seen) <= 7
    assert len(found) == len(whole) > 5
    assert found.masks.crop_rles == whole.masks.crop_rles
    assert [each.label for each in found] == [each.label for each in whole]
    assert np.allclose(found.confidence, whole.confidence, atol=10 * tolerance)
    for one, other in zip(found.known, whole.known, strict=True):
        similarities = [[each.similarity for each in d.neighbours] for d in (one, other)]
        assert np.allclose(*similarities, atol=tolerance)
        assert one.explanation is not None
        assert other.explanation is not None
        by_part = one.explanation.part_similarities
        assert by_part == pytest.approx(other.explanation.part_similarities, abs=50 * tolerance)
