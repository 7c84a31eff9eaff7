"""What is done on a GPU, by the same code on a CPU: masks cut out in batches, on one device, with
few answers waited for, and in smaller batches where memory does not suffice."""

from __future__ import annotations

import subprocess
import sys
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("sam2")

import skimage.data  # noqa: E402
from sam2_helpers import write_small_sam2  # noqa: E402
from torch._subclasses import FakeTensorMode  # noqa: E402

from sam_detect.errors import UnavailableError  # noqa: E402
from sam_detect.models.running import BatchSize, float32_products, precision  # noqa: E402
from sam_detect.models.sam2 import load_sam2  # noqa: E402
from sam_detect.models.sam2_features import _norms, encode  # noqa: E402
from sam_detect.segmentation import _sam2_masks as cutting  # noqa: E402
from sam_detect.segmentation import _sam2_model as drawing  # noqa: E402
from sam_detect.segmentation._sam2_masks import Limits, cut_out  # noqa: E402
from sam_detect.segmentation._sam2_model import (  # noqa: E402
    ALL_MASKS,
    THREE_MASKS,
    UPSCALED_AT_ONCE,
    PromptedModel,
    Prompts,
)
from sam_detect.segmentation.sam2 import SAM2Segmenter  # noqa: E402
from sam_detect.types import Frame, Masks  # noqa: E402
from tests.closeness import same_masks  # noqa: E402

LOOSE: dict[str, Any] = {
    "points_per_side": 8, "pred_iou_thresh": 0.4, "stability_score_thresh": 0.6,
    "stability_score_offset": 0.2, "mask_threshold": 12,
}  # fmt: skip

pytestmark = pytest.mark.usefixtures("one_torch_thread")


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_sam2(tmp_path_factory.mktemp("models"))


def coins(shift: int = 0) -> Frame:
    part = skimage.data.coins()[shift : 150 + shift, :180, None]
    return Frame(np.repeat(part, 3, axis=2))


def blobs(seed: int, side: int = 64) -> torch.Tensor:
    """Logits of 24 masks: large and small, in one piece and in many, all but empty and full."""
    generator = torch.Generator().manual_seed(seed)
    kinds = ((9, 0.7), (4, 1.0), (20, 2.0), (5, 3.0), (3, 99.0), (3, -99.0))
    coarse = [2 * torch.randn(4, 1, cells, cells, generator=generator) - o for cells, o in kinds]
    return torch.cat([
        torch.nn.functional.interpolate(each, (side, side), mode="bicubic")[:, 0] for each in coarse
    ])  # fmt: skip


LIMITS = {
    "none": Limits(0, 0, 0.1),
    "stability": Limits(0, 0.85, 0.1),
    "area": Limits(0, 0.5, 0.1, area=(30, 9000)),
    "specks and holes": Limits(0, 0.5, 0.1, region_area=30),
    "another threshold": Limits(0, 0.5, 0.1, threshold=0.7),
}


@pytest.mark.parametrize("size_hw", [(64, 64), (200, 130), (40, 700), (9, 11), (1, 1)])
@pytest.mark.parametrize("limits", LIMITS)
def test_many_masks_are_cut_out_as_each_is(
    size_hw: tuple[int, int], limits: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    logits = blobs(len(limits))
    expected = [cut_out(each[None], size_hw, LIMITS[limits])[0] for each in logits]
    monkeypatch.setattr(cutting, "ONE_BY_ONE", ())
    monkeypatch.setattr(cutting, "WINDOW_PIXELS", 3 * 200 * 130)
    assert cut_out(logits, size_hw, LIMITS[limits]) == expected
    if size_hw[0] > 20:
        assert 1 < sum(each is not None for each in expected) < len(expected)


def test_how_often_a_gpu_is_waited_for_is_not_by_masks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cutting, "ONE_BY_ONE", ())
    waits: list[str] = []
    for name in ("cpu", "nonzero", "item", "tolist", "__bool__", "__int__", "__float__"):
        plain = getattr(torch.Tensor, name)
        monkeypatch.setattr(
            torch.Tensor, name,
            lambda self, *a, name=name, plain=plain: (waits.append(name), plain(self, *a))[1],
        )  # fmt: skip
    cuts = cut_out(blobs(0), (200, 130), Limits(0, 0, 0.1))
    assert sum(cut is not None for cut in cuts) >= 16
    assert waits == ["cpu", "nonzero", "cpu"]


def test_no_masks_are_no_masks() -> None:
    assert cut_out(torch.zeros(0, 64, 64), (50, 50), Limits()) == []
    assert cut_out(torch.full((2, 64, 64), -9.0), (50, 50), Limits()) == [None, None]


@pytest.fixture
def large_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many masks are scaled up at once, as on a GPU."""
    monkeypatch.setattr(cutting, "ONE_BY_ONE", ())


def in_batches(segmenter: SAM2Segmenter, at_once: int = 3) -> SAM2Segmenter:
    segmenter.model.at_once = BatchSize(at_once)
    return segmenter


def test_prompted_masks_in_batches_are_the_same(
    small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frame = coins()
    each = SAM2Segmenter(small, "cpu", **LOOSE)
    together = in_batches(SAM2Segmenter(small, "cpu", **LOOSE))
    points = [(20, 30), (100, 80), (150, 140), (60, 60)]
    boxes = [(x, y, 25, 9) for x, y in points]
    outlines = each.segment_points(frame, points)

    def drawn(segmenter: SAM2Segmenter) -> list[Masks]:
        return [
            segmenter.segment_points(frame, points),
            segmenter.segment_boxes(frame, boxes),
            segmenter.segment_masks(frame, outlines),
        ]

    expected = drawn(each)
    monkeypatch.setattr(cutting, "ONE_BY_ONE", ())
    assert all(same_masks(*pair) for pair in zip(drawn(together), expected, strict=True))


@pytest.mark.parametrize(("kind", "batch"), [("cpu", False), ("cuda", True), ("mps", True)])
def test_the_device_says_how_masks_are_drawn(kind: str, batch: bool) -> None:
    assert (UPSCALED_AT_ONCE[kind] > 1) is (kind not in cutting.ONE_BY_ONE) is batch


# On one device: FakeTensorMode computes nothing, and knows of each tensor where it would be


@pytest.fixture
def model_here(small: Path) -> Any:
    return load_sam2(small, device=torch.device("cpu")).model


@pytest.fixture
def pretended_gpu(model_here: Any) -> Iterator[FakeTensorMode]:
    """Tensors of a GPU that is not there; what mixes them with others raises."""
    _norms.cache_clear()
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        yield mode
    _norms.cache_clear()


def moved(model: Any, mode: FakeTensorMode, device: torch.device) -> Any:
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    try:
        return model._apply(lambda tensor: mode.from_tensor(tensor).to(device))
    finally:
        torch.__future__.set_overwrite_module_params_on_conversion(False)


@pytest.mark.parametrize("fast", [True, False], ids=["fast", "official"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.filterwarnings("ignore:CUDA is not available.*Disabling autocast:UserWarning")
def test_all_of_it_is_on_one_device(
    model_here: Any, pretended_gpu: FakeTensorMode, dtype: torch.dtype, fast: bool
) -> None:
    gpu, size = torch.device("cuda", 0), (150, 180)
    there = moved(model_here, pretended_gpu, gpu)
    with torch.inference_mode():
        model = PromptedModel(there, dtype=dtype, chunk=4, fast=fast)
        features = encode(there, [coins().image_rgb, coins(9).image_rgb], dtype)[1]
        frame = model._prepare(features)
        points = np.array([[30, 40], [90, 90], [10, 100], [5, 5]], np.float32)
        decoded = model.decoder.decode(
            frame, model.embed(Prompts.at(points), size)[0], masks=None, tokens=THREE_MASKS
        )
        logits = decoded.mask_logits([0, 2, 3])
        assert (logits.device, logits.shape, logits.dtype) == (gpu, (3, 3, 64, 64), torch.float32)
        shown = logits[:1, 0].expand(4, 1, -1, -1)
        again = Prompts(points[:, None], np.ones((4, 1), np.int32), shown)
        sparse, dense = model.embed(again, size)
        decoded = model.decoder.decode(frame, sparse, masks=dense, tokens=ALL_MASKS)
        one, ious = model.one_mask_each(decoded, [1, 3], ALL_MASKS)
        assert (one.shape, ious.shape) == ((2, 64, 64), (2,))
        measured = cutting._measured(one, Limits())
        axes = cutting.axis_of(size[0], 64), cutting.axis_of(size[1], 64)
        stable = cutting.may_be_stable(one, axes, Limits())
        corners, sizes = np.array([[0, 3], [9, 9]]), np.array([[40, 20], [9, 9]])
        windows = cutting._Windows(np.array([0, 1]), corners, sizes)
        values = cutting._scaled_up(one, windows, axes)
        assert (measured.device, stable.device, values.device) == (gpu, gpu, gpu)
        assert values.shape == (2, 20, 40)


# Too little memory


def run_out(monkeypatch: pytest.MonkeyPatch, module: Any, most: int) -> list[int]:
    """Has a module's forward run out of memory for more inputs at once; gives what it was asked."""
    asked: list[int] = []
    forward = module.forward

    def limited(batch: torch.Tensor, *rest: Any) -> Any:
        asked.append(len(batch))
        if len(batch) > most:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")
        return forward(batch, *rest)

    monkeypatch.setattr(module, "forward", limited)
    return asked


def test_frames_are_encoded_in_smaller_batches(
    small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load_sam2(small, device=torch.device("cpu")).model
    images = [coins(shift).image_rgb for shift in (0, 5, 10, 15, 20)]
    expected = [encode(model, [image], torch.float32)[0] for image in images]
    asked = run_out(monkeypatch, model.image_encoder, 2)
    found = encode(model, images, torch.float32)
    assert asked == [5, 2, 2, 1]
    for ours, true in zip(found, expected, strict=True):
        torch.testing.assert_close(ours.image_embed, true.image_embed, atol=1e-5, rtol=0)
        torch.testing.assert_close(ours.high_res, true.high_res, atol=1e-5, rtol=0)
    run_out(monkeypatch, model.image_encoder, 0)
    with pytest.raises(UnavailableError, match=r"memory does not suffice.*smaller model.*'cpu'"):
        encode(model, images, torch.float32)


@pytest.mark.usefixtures("large_windows")
def test_masks_are_drawn_in_smaller_batches(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    segmenter = in_batches(SAM2Segmenter(small, "cpu", **LOOSE, points_per_batch=16), 8)
    expected = segmenter.propose(coins())
    assert len(expected) > 3
    asked = limited_drawing(monkeypatch, segmenter, 2)
    assert same_masks(segmenter.propose(coins()), expected)
    assert max(asked) > 2
    assert segmenter.model.at_once.size == 2
    assert segmenter.model.chunk == 16


@pytest.mark.usefixtures("large_windows")
def test_prompts_are_decoded_in_smaller_chunks_where_their_masks_cannot_be_drawn(
    small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is decoded leaves no room: a chunk is begun again, and nothing of it is there twice."""
    segmenter = in_batches(SAM2Segmenter(small, "cpu", **LOOSE, points_per_batch=16), 1)
    expected = segmenter.propose(coins())
    decode = segmenter.model.decoder.decode
    decoded: list[int] = []

    def counted(frame: Any, prompts: Any, **options: Any) -> Any:
        decoded.append(len(prompts))
        return decode(frame, prompts, **options)

    cut = cut_out
    drawn: list[int] = []

    def crowded(*inputs: Any) -> Any:
        drawn.append(decoded[-1])
        if decoded[-1] > 4 and len(drawn) % 3 == 0:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")
        return cut(*inputs)

    monkeypatch.setattr(segmenter.model.decoder, "decode", counted)
    monkeypatch.setattr(drawing, "cut_out", crowded)
    assert same_masks(segmenter.propose(coins()), expected)
    assert segmenter.model.chunk == 4


def limited_drawing(
    monkeypatch: pytest.MonkeyPatch, segmenter: SAM2Segmenter, most: int
) -> list[int]:
    decoder: Any = segmenter.model.decoder
    draw, asked = decoder._draw, []

    def limited(frame: Any, hyper: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
        asked.append(len(hyper))
        if len(hyper) > most:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")
        made: torch.Tensor = draw(frame, hyper, image)
        return made

    monkeypatch.setattr(decoder, "_draw", limited)
    return asked


@pytest.mark.parametrize("said", [
    "MPS backend out of memory (MPS allocated: 9.00 GB, max allowed: 9.07 GB).",
    "[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: you tried ...",
    "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
])  # fmt: skip
def test_what_other_devices_say_is_understood(said: str) -> None:
    def run(part: slice) -> int:
        if part.stop - part.start > 1:
            raise RuntimeError(said)
        return part.start

    size = BatchSize(4)
    assert list(size.parts(5, run)) == [0, 1, 2, 3, 4]
    assert size.size == 1


def test_another_error_is_no_lack_of_memory() -> None:
    calls: list[slice] = []

    def run(part: slice) -> int:
        calls.append(part)
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="shapes"):
        list(BatchSize(4).parts(5, run))
    assert calls == [slice(0, 4)]


def test_what_failed_is_let_go_before_the_next_try() -> None:
    """An error holds all that its function held, as long as it is handled."""
    held: list[Any] = []

    class Large:
        pass

    def run(part: slice) -> bool:
        large = Large()
        alive = [each() for each in held if each() is not None]
        held.append(weakref.ref(large))
        if part.stop - part.start > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return not alive

    assert list(BatchSize(4).parts(2, run)) == [True, True]


# TF32


def switches() -> tuple[bool, bool]:
    return torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32


def turn(products: bool, convolutions: bool) -> None:
    torch.backends.cuda.matmul.allow_tf32 = products
    torch.backends.cudnn.allow_tf32 = convolutions


@pytest.fixture
def switches_put_back() -> Iterator[None]:
    before = switches()
    yield
    turn(*before)


GPU = torch.device("cuda", 0)


@pytest.mark.usefixtures("switches_put_back")
@pytest.mark.parametrize("before", [(False, True), (True, True), (False, False)])
def test_tf32_is_for_lower_precisions_and_only_meanwhile(before: tuple[bool, bool]) -> None:
    turn(*before)
    with float32_products(GPU, torch.bfloat16):
        assert switches() == (True, True)
        with float32_products(GPU, torch.float32):
            assert switches() == (False, False), "the reference is exact"
        assert switches() == (True, True)
    assert switches() == before
    with pytest.raises(KeyError), float32_products(GPU, torch.float32):
        raise KeyError
    assert switches() == before
    with precision(torch.device("cpu"), torch.bfloat16):
        assert switches() == before


def test_tf32_of_whoever_uses_the_newer_switches_is_put_back() -> None:
    code = """
import torch
from sam_detect.models.running import float32_products
newer = torch.backends, torch.backends.cuda.matmul, torch.backends.cudnn.conv
square = torch.compile(lambda x: x @ x, backend="eager")
for set_by_user in (newer[:1], newer[1:]):
    for each in set_by_user:
        each.fp32_precision = "tf32"
    with float32_products(torch.device("cuda"), torch.float32):
        assert [each.fp32_precision for each in newer[1:]] == ["ieee", "ieee"]
        square(torch.ones(2, 2))
    assert [each.fp32_precision for each in newer] == ["tf32"] * 3
"""
    if not hasattr(torch.backends.cuda.matmul, "fp32_precision"):
        pytest.skip("this version of torch has only the older switches")
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
