"""A picture in which something was taught is never named against it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from library_helpers import DiscSegmenter, PartsSegmenter, detector, disc_masks, discs, taught

from sam_detect.api import SAMDetect
from sam_detect.errors import LibraryCorruptError
from sam_detect.evaluation.methods import SupportImage
from sam_detect.evaluation.pipeline import PipelineMethod
from sam_detect.interfaces import Segmenter
from sam_detect.io import to_frame
from sam_detect.labelling.naming import apply_negative_outlines, suppress
from sam_detect.types import NO_HINTS, Classification, Detections, Frame, Hints, ImageRGB, Masks
from sam_detect.types.scratch import strips
from sam_detect.vector_store import MemoryVectorStore

FIRST = (30, 30)
"""The middle of the first disc."""


def with_fig(segmenter: Segmenter | None = None) -> SAMDetect:
    """Knows five equal discs of `discs("nut", 0)`, of which one was taught as a fig."""
    made = taught(MemoryVectorStore(), "nut", segmenter=segmenter or DiscSegmenter())
    made.add_example(discs("nut", 0), "fig", disc_masks()[0])
    assert made.library.stats()["classes"] == {"fig": 1, "nut": 4}
    return made


def at(found: Detections, place_xy: tuple[int, int]) -> Detections:
    """The detections on a pixel."""
    x, y = place_xy
    return found[np.array([each.mask[y, x] for each in found], bool)]


def grown(mask: npt.NDArray[np.bool_], pixels: int) -> npt.NDArray[np.bool_]:
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * pixels + 1, 2 * pixels + 1))
    return cv2.dilate(mask.astype(np.uint8), disc).astype(bool)


class Fixed(Segmenter):
    """Proposes given masks, all of them good."""

    def __init__(self, *masks: npt.NDArray[np.bool_]) -> None:
        self._masks = masks

    def propose(self, frame: Frame, hints: Hints = NO_HINTS) -> Masks:
        if not self._masks:
            return Masks.empty(frame.size_hw)
        return Masks.from_dense(np.stack(self._masks))


def test_a_taught_object_keeps_its_label() -> None:
    made = with_fig()
    [fig] = at(made.detect(discs("nut", 0)), FIRST)
    assert (fig.label, fig.confidence) == ("fig", 1.0)
    assert fig.classification.taught
    assert fig.neighbours[0].id in {point.id for point in made.library.listing("fig")}
    assert fig.neighbours[0].similarity == 1
    found = made.detect(discs("nut", 0))
    assert sorted(found.label) == ["fig", *["nut"] * 4]
    # It is the picture that is known: a disc like this one in another picture is a nut.
    elsewhere = made.detect(discs("nut", 7))
    assert set(elsewhere.label) == {"nut"}
    assert not any(classification.taught for classification in elsewhere.classifications)


@pytest.mark.parametrize("recall_taught", [True, False])
def test_a_picture_is_hashed_once_for_each_detection(
    recall_taught: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether something was taught in it (0), or not (7)."""
    made, hashed = with_fig(), []

    def counted(image_rgb: ImageRGB) -> Iterator[slice]:
        hashed.append(image_rgb.shape)
        return strips(image_rgb)

    monkeypatch.setattr(f"{Frame.__module__}.strips", counted)
    for number in (0, 7):
        frame = made.read(discs("nut", number))
        assert len(made.pipeline.detect(frame, recall_taught=recall_taught)) >= 5
        assert hashed == [frame.image_rgb.shape]
        hashed.clear()


def test_wherever_its_file_lies(tmp_path: Path) -> None:
    made = with_fig()
    cv2.imwrite(str(tmp_path / "another name.png"), discs("nut", 0))
    assert "fig" in made.detect(tmp_path / "another name.png").label


@pytest.mark.parametrize(
    "others",
    [
        [grown(disc_masks()[0], 3)],
        [grown(disc_masks()[0], 1)],
        [disc_masks()[0] & (np.arange(160) < 30)],
        [disc_masks()[0] | disc_masks()[1]],
        [np.roll(disc_masks()[0], 12, axis=1)],
        [],
    ],
    ids=["larger", "about the same", "a half", "two as one", "beside", "nothing"],
)
def test_what_overlaps_a_taught_outline_gives_way(others: list[Any]) -> None:
    made = with_fig()
    seen = detector(made.library.store, segmenter=Fixed(*others))
    found = seen.detect(discs("nut", 0))
    [fig] = at(found, FIRST)
    assert fig.label == "fig"
    assert (fig.mask == disc_masks()[0]).all()
    assert [each.label for each in at(found, (120, 34))] == ["nut"]
    assert len(found) == 5


def test_parts_of_taught_objects_are_no_objects() -> None:
    found = with_fig(PartsSegmenter()).detect(discs("nut", 0))
    named = found.known
    assert sorted(named.label) == ["fig", *["nut"] * 4]
    assert set(named.confidence) == {1.0}


def test_a_negative_denies_its_outline_the_label() -> None:
    made = taught(MemoryVectorStore(), "nut", "leaf")
    picture = discs("nut", 5)
    assert [each.label for each in at(made.detect(picture), FIRST)] == ["nut"]
    before = made.detect(picture)
    made.add_example(picture, "nut", grown(disc_masks()[0], 1), negative=True)
    [denied] = at(made.detect(picture), FIRST)
    assert (denied.label, denied.best_label, denied.confidence) == (None, "nut", 0.0)
    assert denied.neighbours[0].negative
    assert len(made.detect(picture)) == len(before)
    # Only that label is denied, and what was taught under another one is shown.
    made.add_example(picture, "stone", disc_masks()[0])
    assert [each.label for each in at(made.detect(picture), FIRST)] == ["stone"]


def test_only_about_the_same_outline_is_denied() -> None:
    # The labeller would call everything a nut: what is nearest to a negative decides elsewhere.
    classification = Classification("nut", "nut", 0.9)
    made = taught(MemoryVectorStore(), "nut")
    made.add_example(discs("nut", 0), "nut", grown(disc_masks()[0], 8), negative=True)
    frame = to_frame(discs("nut", 0), color_order="bgr", max_pixels=10**6)
    known = made.snapshot().taught(frame)
    # With the negative's outline they share .44, .62, .70 and .93.
    masks = Masks.from_dense(np.stack([grown(disc_masks()[0], n) for n in (0, 3, 4, 7)]))
    shown = apply_negative_outlines(masks, [classification] * 4, known.of(negative=True))
    assert [v.label for v in shown] == ["nut", "nut", None, None]


def test_what_holds_a_wrong_find_and_little_else_is_denied_too() -> None:
    """Its shadow, or the ground around it, would be found in its place."""
    made = taught(MemoryVectorStore(), "nut")
    made.add_example(discs("nut", 0), "nut", disc_masks()[0], negative=True)
    frame = to_frame(discs("nut", 0), color_order="bgr", max_pixels=10**6)
    # They hold all of the negative, and are 2.1, 3.6 and 5.5 times as large.
    dense = [grown(disc_masks()[0], n) for n in (7, 14, 24)]
    masks = Masks.from_dense(np.stack([*dense, grown(disc_masks()[1], 7)]))
    assert np.allclose(masks.areas[:3] / disc_masks()[0].sum(), (2.1, 3.6, 5.5), atol=0.1)
    classification, known = Classification("nut", "nut", 0.9), made.snapshot().taught(frame)
    shown = apply_negative_outlines(masks, [classification] * 4, known.of(negative=True))
    assert [v.label for v in shown] == [None, None, "nut", "nut"]


def test_the_newest_of_two_outlines_of_one_object_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    made = with_fig()
    monkeypatch.setattr("sam_detect.pipeline.learning.now", lambda: "2999-01-01T00:00:00+00:00")
    made.add_example(discs("nut", 0), "date", grown(disc_masks()[0], 1))
    found = made.detect(discs("nut", 0))
    assert [each.label for each in at(found, FIRST)] == ["date"]
    assert len(found) == 5


def test_taught_objects_may_lie_in_one_another() -> None:
    made = with_fig()
    plate = np.zeros_like(disc_masks()[0])
    plate[2:158, 2:158] = True
    made.add_example(discs("nut", 0), "plate", plate)
    assert sorted(made.detect(discs("nut", 0)).known.label) == ["fig", *["nut"] * 4, "plate"]


def test_taught_objects_may_overlap() -> None:
    made = with_fig()
    overlapping = np.roll(disc_masks()[0], 12, axis=1)  # IoU .36
    made.add_example(discs("nut", 0), "fig", overlapping)
    found = made.detect(discs("nut", 0)).known
    assert sorted(found.label) == ["fig", "fig", *["nut"] * 4]


def test_several_worth_more_together_do_not_replace_a_taught_one() -> None:
    whole = disc_masks()[0] | disc_masks()[1]
    masks = Masks.from_dense(np.stack([whole, *disc_masks()[:2]]))
    sure = [Classification("nut", "nut", 0.999)] * 2
    assert suppress(masks, [Classification("pair", "pair", 0.6), *sure])[0].tolist() == [1, 2]
    pair = Classification("pair", "pair", 1.0, taught=True)
    assert suppress(masks, [pair, *sure])[0].tolist() == [0]


def test_a_library_too_large_for_one_snapshot_knows_its_pictures(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = with_fig()
    monkeypatch.setattr("sam_detect.library.snapshot_reader.SNAPSHOT_LIMIT", 2)
    again = detector(made.library.store)
    assert sorted(again.detect(discs("nut", 0)).label) == ["fig", *["nut"] * 4]


@pytest.mark.parametrize(
    "outline", [None, {"size": [2, 2], "counts": "4"}, {"size": [160, 160], "counts": "!"}, "x"]
)
def test_a_damaged_outline_names_its_example(outline: Any) -> None:
    made = with_fig()
    store = made.library.store
    [fig] = [p for p in store.scan(with_vectors=True) if p.payload["label"] == "fig"]
    store.upsert([replace(fig, payload={**fig.payload, "segmentation": outline})])
    with pytest.raises(LibraryCorruptError, match=rf"example {fig.id} is damaged"):
        made.detect(discs("nut", 0))


def test_a_labeller_with_names_of_its_own_is_given_no_others() -> None:
    made = with_fig()
    made.labeller.labels = ("nut",)
    assert set(made.detect(discs("nut", 0)).known.label) == {"nut"}


def test_evaluation_counts_what_is_recognised() -> None:
    """The outlines that were shown are known, so giving them back would measure nothing."""
    pipeline = PipelineMethod(detector(MemoryVectorStore()).pipeline)
    frame = to_frame(discs("nut", 0), color_order="bgr", max_pixels=10**6)
    shown = Masks.from_dense(disc_masks())
    pipeline.learn([SupportImage(frame, shown, ("fig", *["nut"] * 4), None)])
    found = pipeline.find(frame)
    assert set(found.labels) == {"nut"}
    assert found.scores.max() < 1
