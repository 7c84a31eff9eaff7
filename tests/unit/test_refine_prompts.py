"""Annotations as prompts of SAM 2, on a small model of random weights."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("sam2")

import skimage.data  # noqa: E402
from sam2_helpers import write_small_sam2  # noqa: E402

from sam_detect.microscopy.refine import objects as refining  # noqa: E402
from sam_detect.microscopy.refine.objects import How, refine_objects  # noqa: E402
from sam_detect.segmentation.sam2 import SAM2Segmenter  # noqa: E402
from sam_detect.types import Annotation, Frame, Masks  # noqa: E402
from sam_detect.types.polygons import mask_polygons  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_torch_thread")
BOXES = [(20, 30, 60, 70), (80, 20, 120, 64), (100, 90, 150, 130)]


@pytest.fixture(scope="module")
def segmenter(tmp_path_factory: pytest.TempPathFactory) -> SAM2Segmenter:
    return SAM2Segmenter(write_small_sam2(tmp_path_factory.mktemp("models")), "cpu")


@pytest.fixture
def frame() -> Frame:
    return Frame(np.repeat(skimage.data.coins()[:150, :180, None], 3, axis=2))


def coarse(frame: Frame) -> Masks:
    crops = [np.ones((y1 - y0, x1 - x0), np.bool_) for x0, y0, x1, y1 in BOXES]
    return Masks.from_crops(size_hw=frame.size_hw, boxes_xyxy=BOXES, crops=crops)


def annotations(masks: Masks) -> list[Annotation]:
    return [
        Annotation(
            polygons=tuple(mask_polygons(masks.crop(i), masks.boxes_xyxy[i].tolist())),
            tags=("cell",), id=str(i),
        )
        for i in range(len(masks))
    ]  # fmt: skip


@pytest.mark.parametrize("prompt", ["box", "point", "mask"])
def test_each_prompt_gives_what_the_segmenter_gives(
    segmenter: SAM2Segmenter, frame: Frame, prompt: str
) -> None:
    masks = coarse(frame)
    drawn = refining._prompted(frame, segmenter, masks, prompt)
    middles = [((x0 + x1 - 1) // 2, (y0 + y1 - 1) // 2) for x0, y0, x1, y1 in BOXES]
    expected = {
        "box": lambda: segmenter.segment_boxes(frame, masks.boxes_xywh.tolist()),
        "mask": lambda: segmenter.segment_masks(frame, masks),
        "point": lambda: segmenter.segment_points(
            frame, [refining._deepest(masks, i) for i in range(len(masks))]
        ),
    }[prompt]()
    for index, one in enumerate(drawn):
        assert one is not None
        assert np.array_equal(one[0], expected.crop(index))
        assert list(one[1]) == expected.boxes_xyxy[index, :2].tolist()
        x, y = refining._deepest(masks, index)
        # Of a rectangle the farthest pixels are a line about the middle.
        assert min(abs(x - middles[index][0]), abs(y - middles[index][1])) <= 1


def test_best_takes_the_prompt_with_the_best_predicted_iou(
    segmenter: SAM2Segmenter, frame: Frame
) -> None:
    masks = coarse(frame)
    each = [refining._ask(frame, segmenter, masks, prompt) for prompt in ("box", "point", "mask")]
    best = np.argmax([answer.predicted_ious for answer in each], axis=0)
    drawn = refining._prompted(frame, segmenter, masks, "best")
    for index, which in enumerate(best.tolist()):
        one = drawn[index]
        assert one is not None
        assert np.array_equal(one[0], each[which].crop(index))


def test_a_picture_is_encoded_once_for_all_annotations(
    segmenter: SAM2Segmenter, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = np.repeat(skimage.data.coins()[150:300, :180, None], 3, axis=2)
    frame, encoded = Frame(part), list[Frame]()
    before = type(segmenter.encoder)._encode

    def count(self: object, frames: list[Frame]) -> object:
        encoded.extend(frames)
        return before(self, frames)  # type: ignore[arg-type]

    monkeypatch.setattr(type(segmenter.encoder), "_encode", count)
    answers = refine_objects(frame, segmenter, annotations(coarse(frame)), How("best"))
    assert len(answers) == 3
    assert len(encoded) == 1
    for answer in answers:
        assert isinstance(answer, str) or answer.properties["refined_by"] == "sam2 best"
