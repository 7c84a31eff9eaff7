"""The pipeline: one snapshot for each call, and hooks that change nothing but who does the work."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from closeness import SCORE_TOLERANCE
from library_helpers import disc_masks, discs, taught

from sam_detect import SAMDetect
from sam_detect.interfaces import VectorStore
from sam_detect.types import Detections, Frame, Masks
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
    segment = made.segmenter.segment

    def changes(frame: Frame) -> Masks:
        if "leaf" in made.library.stats()["classes"]:
            made.library.remove(label="leaf")
            made.library.rename("nut", "stone")
        return segment(frame)

    monkeypatch.setattr(made.segmenter, "segment", changes)
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
    monkeypatch.setattr(made.segmenter, "segment", lambda _: pytest.fail("proposed twice"))
    assert same(pipeline.detect(frame, snapshot=snapshot, proposed=proposed), expected)


def test_carried_masks_compete_with_the_proposals(monkeypatch: pytest.MonkeyPatch) -> None:
    made, frame = knowing(), frame_of()
    carried = Masks.from_dense(disc_masks()[:2])
    monkeypatch.setattr(made.segmenter, "segment", lambda f: Masks.empty(f.size_hw))
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
