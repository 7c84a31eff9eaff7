"""On a CUDA device: the same masks and vectors as elsewhere, and what a user meets there.

All of this code runs on a CPU in the other tests; here is what only a GPU can show.
"""

from __future__ import annotations

import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("sam2")

import skimage.data  # noqa: E402
from sam2_helpers import write_small_sam2  # noqa: E402
from small_models import write_small_clip  # noqa: E402

from sam_detect.embedding.clip import CLIPEmbedder  # noqa: E402
from sam_detect.embedding.sam2 import SAM2Embedder  # noqa: E402
from sam_detect.fading import IdentityFade  # noqa: E402
from sam_detect.fading.context import cut, faded  # noqa: E402
from sam_detect.models.running import float32_products  # noqa: E402
from sam_detect.models.sam2 import load_sam2  # noqa: E402
from sam_detect.segmentation.sam2 import SAM2Segmenter  # noqa: E402
from sam_detect.types import FadedCrop, Frame, Masks  # noqa: E402
from sam_detect.verification import official_generator, same_share  # noqa: E402
from scripts.dev.bench.measurements import PeakDeviceMemory  # noqa: E402

GPU = torch.device("cuda", 0)
OPTIONS: dict[str, Any] = {
    "points_per_side": 12, "pred_iou_thresh": 0.4, "stability_score_thresh": 0.8,
    "stability_score_offset": 0.2, "mask_threshold": 12, "box_nms_thresh": 1.0,
}  # fmt: skip
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:FutureWarning"),
]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_sam2(tmp_path_factory.mktemp("models"))


def coins(shift: int = 0) -> Frame:
    part = skimage.data.coins()[shift : 200 + shift, :240, None]
    return Frame(np.repeat(part, 3, axis=2))


def rles(masks: Masks) -> list[Any]:
    return [masks.rle(index) for index in range(len(masks))]


@pytest.mark.parametrize("more", [
    {}, {"crop_n_layers": 1, "crop_n_points_downscale_factor": 2},
    {"points_per_side": 6, "use_m2m": True},
], ids=["plain", "crops", "m2m"])  # fmt: skip
def test_parity_of_masks_with_the_official_generator(small: Path, more: dict[str, Any]) -> None:
    options = {**OPTIONS, **more}
    official = official_generator(load_sam2(small, device=GPU).model, options)
    with float32_products(GPU, torch.float32):
        true = [
            each["segmentation"] for each in official.generate(coins().image_rgb) if each["area"]
        ]
    ours = SAM2Segmenter(small, "cuda", **options, dtype="fp32").propose(coins())
    assert len(true) >= 3
    assert same_share(ours, true) >= 0.99
    assert abs(len(ours) - len(true)) <= max(1, 0.01 * len(true))


def test_masks_are_those_of_the_cpu(small: Path) -> None:
    here = SAM2Segmenter(small, "cpu", **OPTIONS).propose(coins())
    there = SAM2Segmenter(small, "cuda", **OPTIONS, dtype="fp32").propose(coins())
    assert len(here) >= 10
    assert same_share(there, rles(here)) >= 0.99


def test_bf16_is_the_default_and_most_masks_stay(small: Path) -> None:
    default = SAM2Segmenter(small, "cuda", **OPTIONS)
    assert default.dtype == torch.bfloat16
    exact = SAM2Segmenter(small, "cuda", **OPTIONS, dtype="fp32").propose(coins())
    found = default.propose(coins())
    assert 0.7 * len(exact) <= len(found) <= 1.4 * len(exact)
    assert same_share(exact, rles(found)) >= 0.7


def test_frames_together_have_the_masks_of_each(small: Path) -> None:
    segmenter = SAM2Segmenter(small, "cuda", **OPTIONS, dtype="fp32")
    frames = [coins(shift) for shift in (0, 5, 10, 15)]
    alone = [segmenter.propose(Frame(frame.image_rgb)) for frame in frames]
    for one, other in zip(segmenter.propose_batch(frames), alone, strict=True):
        assert same_share(one, rles(other)) >= 0.99


def test_the_gpu_is_waited_for_a_few_times_a_chunk(small: Path) -> None:
    options = {**OPTIONS, "pred_iou_thresh": 0.0, "stability_score_thresh": 0.0}
    segmenter = SAM2Segmenter(small, "cuda", **options, points_per_batch=64)
    segmenter.propose(coins(1))
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            masks = segmenter.propose(coins())
    finally:
        torch.cuda.set_sync_debug_mode("default")
    waits = [each for each in caught if "synchroniz" in str(each.message)]
    # 144 prompts in 3 chunks, each drawn in 4 parts: 1 answer for a chunk, 3 for a part.
    assert len(masks) > 200
    assert len(waits) <= 3 * (1 + 4 * 4)


def crops(count: int = 20) -> list[FadedCrop]:
    mask = np.zeros((40, 40), bool)
    mask[8:30, 10:33] = True
    return [
        faded(
            cut(coins(shift).image_rgb, mask, (9 * shift, 50, 9 * shift + 40, 90),
                occupancy=0.2, crop_side=256),
            IdentityFade(),
        )
        for shift in range(count)
    ]  # fmt: skip


def test_vectors_in_batches_are_those_of_the_cpu(small: Path, tmp_path: Path) -> None:
    clip = str(write_small_clip(tmp_path / "clip"))
    for make, tolerance in (
        (lambda device: SAM2Embedder(small, device), 1e-4),
        (lambda device: CLIPEmbedder(clip, device), 1e-4),
    ):
        here, there = make("cpu").embed(crops()), make("cuda").embed(crops())
        np.testing.assert_allclose(there, here, atol=tolerance)


def test_vectors_of_a_frame_are_those_of_the_cpu(small: Path) -> None:
    masks = SAM2Segmenter(small, "cpu", **OPTIONS).propose(coins())
    here, there = (
        SAM2Embedder(small, device, pooling="frame").embed_frame(coins(), masks)
        for device in ("cpu", "cuda")
    )
    np.testing.assert_allclose(there, here, atol=1e-4)


@pytest.fixture
def little_memory() -> Iterator[Any]:
    """Limits this process to what it has now and some megabytes more."""
    total = torch.cuda.get_device_properties(GPU).total_memory

    def limit(megabytes: float) -> None:
        torch.cuda.empty_cache()
        allowed = torch.cuda.memory_reserved() + megabytes * 2**20
        torch.cuda.set_per_process_memory_fraction(min(1.0, allowed / total))

    yield limit
    torch.cuda.set_per_process_memory_fraction(1.0)


def test_with_little_memory_the_masks_are_the_same(small: Path, little_memory: Any) -> None:
    options = {**OPTIONS, "points_per_side": 24, "points_per_batch": 576, "dtype": "fp32"}
    segmenter = SAM2Segmenter(small, "cuda", **options)
    expected = segmenter.propose(coins())
    taken = PeakDeviceMemory()
    with taken:
        segmenter.propose(coins())
    assert taken.peak_mb is not None
    little_memory(taken.peak_mb / 2)
    found = segmenter.propose(coins())
    assert segmenter.model.chunk < 576 or segmenter.model.at_once.size < 16
    assert same_share(found, rles(expected)) >= 0.99


def test_with_next_to_no_memory_the_message_says_what_to_do(small: Path) -> None:
    """In a process of its own: what other tests hold in CUDA's cache would suffice."""
    code = f"""
import numpy as np, torch
from sam_detect.errors import UnavailableError
from sam_detect.segmentation.sam2 import SAM2Segmenter
from sam_detect.types import Frame
segmenter = SAM2Segmenter({str(small)!r}, "cuda", points_per_side=12)
torch.cuda.empty_cache()
total = torch.cuda.get_device_properties(0).total_memory
torch.cuda.set_per_process_memory_fraction(torch.cuda.memory_reserved() / total)
try:
    segmenter.propose(Frame(np.random.default_rng(0).integers(0, 255, (200, 240, 3), np.uint8)))
except UnavailableError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=300
    )
    assert "memory does not suffice" in done.stdout


@pytest.mark.slow
def test_the_compiled_decoder_finds_the_same(small: Path) -> None:
    plain = SAM2Segmenter(small, "cuda", **OPTIONS, dtype="fp32").propose(coins())
    compiled = SAM2Segmenter(small, "cuda", **OPTIONS, dtype="fp32", compile=True)
    assert same_share(compiled.propose(coins()), rles(plain)) >= 0.98
