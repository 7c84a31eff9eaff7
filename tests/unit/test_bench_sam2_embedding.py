"""The bench of SAM 2 embeddings: what it compares is the same, and it says what it should."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from sam2_helpers import write_small_sam2

from sam_detect.embedding.sam2 import SAM2Embedder
from sam_detect.models.sam2 import load_sam2
from scripts.dev.bench.measurements import Measurements
from scripts.dev.bench.sam2_official import (
    drawn_objects,
    embed_officially,
    measure_embedding,
    rank_correlation,
)

pytestmark = pytest.mark.usefixtures("one_torch_thread")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_sam2(tmp_path_factory.mktemp("sam2"))


def test_both_sides_make_the_same_vectors(checkpoint: Path) -> None:
    crops = drawn_objects()[2][:3]
    loaded = load_sam2(checkpoint, device=torch.device("cpu"))
    ours, theirs = SAM2Embedder(loaded).embed(crops), embed_officially(loaded, crops)
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_it_measures_both_pairs_for_a_hundred_objects(checkpoint: Path) -> None:
    ticks = iter(range(1_000_000))
    measurements = Measurements(repeat=1, clock=lambda: float(next(ticks)))
    measure_embedding(measurements, checkpoint, device="cpu", sample=2)
    batched = measurements.pairs["embed_batched_vs_single"]
    frame = measurements.pairs["embed_frame_vs_single"]
    assert (batched["a_median"], batched["b_median"], batched["ratio"]) == (50_000, 50_000, 1)
    assert (frame["a_median"], frame["b_median"], frame["ratio"]) == (1000, 50_000, 50)
    assert measurements.figures["embed_frame_encoded_already_ms"] == 1000
    assert -1 <= measurements.figures["embed_frame_rank_correlation"] <= 1


def test_a_rank_correlation_sees_order_and_nothing_else() -> None:
    random = np.random.default_rng(0)
    rows = random.normal(size=(8, 3)).astype(np.float32)
    vectors = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    turn = np.linalg.qr(random.normal(size=(3, 3)))[0].astype(np.float32)
    assert rank_correlation(vectors, vectors @ turn) == pytest.approx(1)
    lifted = np.concatenate([vectors, np.ones((8, 1), np.float32)], axis=1) / np.sqrt(2)
    assert rank_correlation(vectors, lifted.astype(np.float32)) == pytest.approx(1)
    assert abs(rank_correlation(vectors, vectors[::-1].copy())) < 0.9
