"""The restructured decoder and our pipeline beside Meta's own, on the same weights (fp32).

Tolerances: predicted IoUs to 1e-5; mask logits to 1e-4 of the largest; masks of the automatic
pipeline at IoU >= .99 for at least 99 % of them, in both directions.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("sam2")

import skimage.data  # noqa: E402
from pycocotools import mask as coco_masks  # noqa: E402
from sam2.automatic_mask_generator import SAM2AutomaticMaskGenerator  # noqa: E402
from sam2.build_sam import build_sam2  # noqa: E402
from sam2.sam2_image_predictor import SAM2ImagePredictor  # noqa: E402
from sam2_helpers import small_model, write_small_sam2  # noqa: E402

from sam_detect.models.running import BatchSize  # noqa: E402
from sam_detect.models.sam2 import load_sam2  # noqa: E402
from sam_detect.models.sam2_features import FrameFeatures  # noqa: E402
from sam_detect.segmentation import _sam2_masks as cutting  # noqa: E402
from sam_detect.segmentation._sam2_automatic import _suppressed  # noqa: E402
from sam_detect.segmentation._sam2_decoder import FastDecoder  # noqa: E402
from sam_detect.segmentation._sam2_model import (  # noqa: E402
    ALL_MASKS,
    THREE_MASKS,
    OfficialDecoder,
    PromptedModel,
    Prompts,
)
from sam_detect.segmentation.sam2 import SAM2Segmenter  # noqa: E402
from sam_detect.types import Frame, Masks  # noqa: E402

CPU = torch.device("cpu")
FORMS = {
    "sam2.1": {},
    "no high-resolution features": {"high_res": False},
    "no object scores": {"obj_scores": False},
    "plain": {"high_res": False, "obj_scores": False, "sigmoid": False},
}
BASE: dict[str, Any] = {
    "points_per_side": 12,
    "pred_iou_thresh": 0.5,
    "stability_score_thresh": 0.9,
    "stability_score_offset": 0.2,
    "box_nms_thresh": 1.0,
}
SMALL_MASKS: dict[str, Any] = {
    **BASE, "pred_iou_thresh": 0.4, "stability_score_thresh": 0.8, "mask_threshold": 12,
    "box_nms_thresh": 0.8,
}  # fmt: skip
"""Every mask a few pixels to a third of the picture; about a fifth of the prompts pass."""
pytestmark = [
    pytest.mark.usefixtures("one_torch_thread"),
    pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:FutureWarning"),
]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_sam2(tmp_path_factory.mktemp("models"))


def coins() -> Frame:
    return Frame(np.repeat(skimage.data.coins()[:200, :240, None], 3, axis=2))


def random_features(model: Any, seed: int = 0) -> FrameFeatures:
    generator = torch.Generator().manual_seed(seed)
    channels, side = model.hidden_dim, model.sam_image_embedding_size

    def noise(*shape: int) -> torch.Tensor:
        return torch.randn(1, *shape, generator=generator)

    fine = (noise(channels // 8, 4 * side, 4 * side), noise(channels // 4, 2 * side, 2 * side))
    return FrameFeatures(noise(channels, side, side), fine)


def answers(
    decoder: FastDecoder | OfficialDecoder, model: Any, prompts: Prompts, tokens: slice
) -> tuple[torch.Tensor, torch.Tensor]:
    """IoUs ``(B, M)`` and logits ``(B, M, h, w)`` of a decoder, for features of noise."""
    asked = PromptedModel(model, dtype=torch.float32, chunk=5, fast=False)
    sparse, dense = asked.embed(prompts, (200, 240))
    with torch.inference_mode():
        frame = decoder.prepare(random_features(model))
        decoded = decoder.decode(frame, sparse, masks=dense, tokens=tokens)  # type: ignore[arg-type]
        return decoded.ious, torch.stack([decoded.mask_logits([i])[0] for i in range(len(prompts))])


def some_prompts(kind: str, model: Any, count: int = 5) -> Prompts:
    generator = np.random.default_rng(0)
    points = generator.uniform(0, 200, (count, 2)).astype(np.float32)
    if kind == "boxes":
        return Prompts.boxes(np.concatenate([points / 2, points / 2 + 60], axis=1))
    if kind == "masks":
        side = 4 * model.sam_image_embedding_size
        logits = torch.from_numpy(generator.normal(0, 5, (count, 1, side, side)).astype(np.float32))
        return Prompts(points[:, None], np.ones((count, 1), np.int32), logits)
    if kind == "several points":
        return Prompts(points.repeat(3, 0).reshape(count, 3, 2) + np.arange(3)[None, :, None],
                       np.tile(np.array([[1, 0, 1]], np.int32), (count, 1)))  # fmt: skip
    return Prompts.at(points)


def assert_equal_answers(model: Any, prompts: Prompts, tokens: slice) -> None:
    assert FastDecoder.supports(model)
    ious, logits = answers(FastDecoder(model), model, prompts, tokens)
    true_ious, true_logits = answers(OfficialDecoder(model), model, prompts, tokens)
    assert logits.shape == true_logits.shape
    assert true_ious.std() > 0.001, "prompts that are answered alike would show nothing"
    torch.testing.assert_close(ious, true_ious, rtol=0, atol=1e-5)
    scale = float(true_logits.abs().max())
    torch.testing.assert_close(logits, true_logits, rtol=0, atol=1e-4 * scale)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", ["points", "several points", "boxes", "masks"])
def test_parity_of_the_decoder(tmp_path: Path, form: str, kind: str) -> None:
    model = small_model(tmp_path, **FORMS[form]).model
    tokens = THREE_MASKS if kind == "points" else ALL_MASKS
    assert_equal_answers(model, some_prompts(kind, model), tokens)


def test_parity_of_the_decoder_of_the_real_tiny_model() -> None:
    torch.manual_seed(0)
    model = build_sam2("configs/sam2.1/sam2.1_hiera_t.yaml", device="cpu").requires_grad_(False)
    assert_equal_answers(model, some_prompts("points", model, 3), THREE_MASKS)


def test_bf16_is_near_fp32(small: Path) -> None:
    model = load_sam2(small, device=CPU).model
    prompts = some_prompts("points", model)
    ious, logits = answers(FastDecoder(model, torch.bfloat16), model, prompts, THREE_MASKS)
    true_ious, true_logits = answers(OfficialDecoder(model), model, prompts, THREE_MASKS)
    assert (ious - true_ious).abs().max() < 0.02
    assert (logits - true_logits).std() < 0.05 * true_logits.std()


def test_another_form_of_decoder_is_left_to_the_official_one(small: Path) -> None:
    model = load_sam2(small, device=CPU).model
    assert isinstance(
        PromptedModel(model, dtype=torch.float32, chunk=1, fast=True).decoder, FastDecoder
    )
    model.sam_mask_decoder.output_upscaling[2] = torch.nn.ReLU()
    assert not FastDecoder.supports(model)
    decoder = PromptedModel(model, dtype=torch.float32, chunk=1, fast=True).decoder
    assert isinstance(decoder, OfficialDecoder)


def official_predictor(path: Path) -> SAM2ImagePredictor:
    return for_small_pictures(SAM2ImagePredictor(load_sam2(path, device=CPU).model))


def for_small_pictures(predictor: SAM2ImagePredictor) -> SAM2ImagePredictor:
    """The official predictor has the sizes of its feature maps written down, for 1024 pixels."""
    predictor._bb_feat_sizes = [(64, 64), (32, 32), (16, 16)]
    return predictor


@pytest.mark.parametrize("scale", [1, 3], ids=["enlarged", "reduced"])
def test_parity_of_the_encoder(small: Path, scale: int) -> None:
    image = coins().image_rgb.repeat(scale, axis=0).repeat(scale, axis=1)[::, 1:]
    image = image // 2 + np.random.default_rng(0).integers(0, 99, image.shape, dtype=np.uint8)
    predictor = official_predictor(small)
    predictor.set_image(image)
    true = predictor._features
    model = PromptedModel(predictor.model, dtype=torch.float32, chunk=4, fast=True)
    with torch.inference_mode():
        ours, again = model.encode([image, image[::-1]])
    torch.testing.assert_close(ours.image_embed, true["image_embed"], rtol=0, atol=1e-4)
    for mine, theirs in zip(ours.high_res, true["high_res_feats"], strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-4)
    assert not torch.allclose(again.image_embed, ours.image_embed, atol=0.01)


@pytest.mark.parametrize("multiple", [True, False])
def test_parity_of_prompted_masks(small: Path, multiple: bool) -> None:
    predictor, frame = official_predictor(small), coins()
    predictor.set_image(frame.image_rgb)
    segmenter = SAM2Segmenter(small, "cpu")
    for x, y in [(30, 40), (120, 100), (200, 20)]:
        if multiple:
            masks, ious, _ = predictor.predict(np.array([[x, y]]), np.array([1]))
            ours = segmenter.segment_points(frame, [(x, y)])
        else:
            box = np.array([x - 20, y - 20, x + 30, y + 40])
            masks, ious, _ = predictor.predict(box=box, multimask_output=False)
            ours = segmenter.segment_boxes(frame, [(x - 20, y - 20, 50, 60)])
        best = int(ious.argmax())
        assert ours.predicted_ious[0] == pytest.approx(ious[best], abs=1e-5)
        assert (ours.dense(0) != masks[best].astype(bool)).mean() < 1e-3


CLICKS: dict[str, tuple[list[tuple[float, float]], list[bool], list[float] | None]] = {
    "one": ([(30, 40)], [True], None),
    "two": ([(30, 40), (120.5, 100.25)], [True, True], None),
    "negative": ([(120, 100), (30, 40), (90, 60)], [True, False, False], None),
    "box": ([], [], [20, 30, 60, 50]),
    "box and clicks": ([(40, 50), (75, 70)], [True, False], [20, 30, 60, 50]),
    "box and negative": ([(75, 70)], [False], [20, 30, 60, 50]),
}


@pytest.mark.parametrize("which", CLICKS)
@pytest.mark.parametrize("fast", [True, False])
def test_parity_of_clicks(small: Path, which: str, fast: bool) -> None:
    clicks, positive, box = CLICKS[which]
    predictor, frame = official_predictor(small), coins()
    predictor.set_image(frame.image_rgb)
    corners = None if box is None else np.array([*box[:2], box[0] + box[2], box[1] + box[3]])
    masks, ious, _ = predictor.predict(
        np.array(clicks) if clicks else None,
        np.array(positive, int) if clicks else None,
        box=corners,
        multimask_output=which == "one",
    )
    ours = SAM2Segmenter(small, "cpu", fast=fast).segment_clicks(frame, clicks, positive, box)
    best = int(ious.argmax())
    assert len(ours) == 1
    assert ours.predicted_ious[0] == pytest.approx(ious[best], abs=1e-5)
    assert (ours.dense(0) != masks[best].astype(bool)).mean() < 1e-3


def official_masks(path: Path, frame: Frame, options: dict[str, Any]) -> list[dict[str, Any]]:
    model = load_sam2(path, device=CPU).model
    generator = SAM2AutomaticMaskGenerator(model, output_mode="coco_rle", **options)
    for_small_pictures(generator.predictor)
    found: list[dict[str, Any]] = generator.generate(frame.image_rgb)
    return [each for each in found if each["area"]]


def overlaps(ours: Masks, true: list[dict[str, Any]]) -> np.ndarray:
    mine = [ours.rle(i) for i in range(len(ours))]
    encoded = [{**rle, "counts": rle["counts"].encode()} for rle in mine]
    theirs = [each["segmentation"] for each in true]
    return np.asarray(coco_masks.iou(encoded, theirs, [0] * len(theirs)))


def in_batches(segmenter: SAM2Segmenter) -> SAM2Segmenter:
    """The segmenter drawing as on a GPU: the masks of several prompts at once."""
    segmenter.model.at_once = BatchSize(3)
    return segmenter


@pytest.mark.parametrize(
    ("options", "least"),
    [
        (BASE, 50),
        ({**BASE, "box_nms_thresh": 0.7}, 1),
        (SMALL_MASKS, 10),
        ({**SMALL_MASKS, "points_per_batch": 7}, 10),
        ({**SMALL_MASKS, "crop_n_layers": 1, "crop_n_points_downscale_factor": 2}, 10),
        ({**SMALL_MASKS, "points_per_side": 6, "use_m2m": True}, 3),
        ({**SMALL_MASKS, "pred_iou_thresh": 0, "stability_score_thresh": 0.3}, 40),
    ],
    ids=["masks", "nms", "small masks", "batches", "crops", "m2m", "no predicted IoU"],
)
def test_parity_of_automatic_masks(
    small: Path, options: dict[str, Any], least: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    frame = coins()
    true = official_masks(small, frame, options)
    assert len(true) >= least
    assert_same_masks(SAM2Segmenter(small, "cpu", **options).propose(frame), true)
    monkeypatch.setattr(cutting, "ONE_BY_ONE", ())
    together = in_batches(SAM2Segmenter(small, "cpu", **options))
    assert_same_masks(together.propose(frame), true)


def assert_same_masks(ours: Masks, true: list[dict[str, Any]]) -> None:
    ious = overlaps(ours, true)
    assert (ious.max(axis=0) >= 0.99).mean() >= 0.99, "masks of the official generator"
    assert (ious.max(axis=1) >= 0.99).mean() >= 0.99, "masks of ours"
    assert abs(len(ours) - len(true)) <= 0.01 * len(true)
    prompts = np.array([each["point_coords"][0] for each in true])
    scores = np.array([(each["predicted_iou"], each["stability_score"]) for each in true])
    agreeing = 0
    for mine, point in enumerate(ours.prompts_xy):
        asked_alike = np.abs(prompts - point).max(axis=1) < 1e-3
        near = np.abs(scores - (ours.predicted_ious[mine], ours.stabilities[mine])) < (1e-4, 1e-3)
        agreeing += (asked_alike & near.all(axis=1) & (ious[mine] >= 0.99)).any()
    assert agreeing >= 0.99 * len(ours), "the same prompt, IoU, stability and mask"


def test_parity_of_which_small_boxes_are_one() -> None:
    """Meta's boxes end at the last pixel: these two have an IoU of 1/4, not of 4/9."""
    boxes = np.array([[0, 0, 3, 3], [0, 0, 2, 2]])
    assert _suppressed(boxes, torch.tensor([0.9, 0.8]), 0.3) == [0, 1]
    assert _suppressed(boxes, torch.tensor([0.8, 0.9]), 0.2) == [1]


def test_the_fast_and_the_official_decoder_find_the_same(small: Path) -> None:
    frame = coins()
    fast = SAM2Segmenter(small, "cpu", **SMALL_MASKS).propose(frame)
    slow = SAM2Segmenter(small, "cpu", fast=False, **SMALL_MASKS).propose(frame)
    assert len(fast) == len(slow) >= 10
    np.testing.assert_allclose(fast.predicted_ious, slow.predicted_ious, atol=1e-5)
    np.testing.assert_allclose(fast.boxes_xyxy, slow.boxes_xyxy, rtol=0, atol=1)
