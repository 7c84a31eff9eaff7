"""Vectors on disk: found again, by content, never wrong, and never more than allowed."""

from __future__ import annotations

import sqlite3
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sam_detect import SAMDetect
from sam_detect.features.extraction import VectorCache
from sam_detect.features.kept_vectors import KeptVectors
from sam_detect.types import Detections, Frame, Masks
from sam_detect.types.masks import FloatArray

DISCS = [(40, 40), (120, 50), (210, 40), (60, 150), (230, 150)]


def rows(count: int, start: int = 0, dimension: int = 16) -> dict[bytes, FloatArray]:
    return {
        str(number).encode(): np.full(dimension, number, np.float32)
        for number in range(start, start + count)
    }


def stored(path: Path) -> int:
    with sqlite3.connect(path) as file:
        return int(file.execute("SELECT COUNT(*) FROM vectors").fetchone()[0])


def test_what_is_written_is_read_again_and_nothing_else(tmp_path: Path) -> None:
    given = rows(1200)
    KeptVectors(tmp_path / "new" / "v.sqlite", 1 << 20).write(given)
    found = KeptVectors(tmp_path / "new" / "v.sqlite", 1 << 20).read([*given, b"another"])
    assert found.keys() == given.keys()
    for key, vector in given.items():
        np.testing.assert_array_equal(found[key], vector)
    assert KeptVectors(tmp_path / "none.sqlite", 1).read([b"1"]) == {}
    assert not (tmp_path / "none.sqlite").exists()


def test_those_used_longest_ago_give_way(tmp_path: Path) -> None:
    kept = KeptVectors(tmp_path / "v.sqlite", 100 * (64 + 64))
    kept.write(rows(60))
    kept.write(rows(30, start=60))
    assert len(kept.read([*rows(10)])) == 10  # the first ten are used again
    kept.write(rows(40, start=90))
    assert stored(kept.path) <= 100
    assert len(kept.read([*rows(10)])) == 10
    assert len(kept.read([*rows(40, start=90)])) == 40
    assert len(kept.read([*rows(50, start=10)])) < 50


def test_a_damaged_vector_or_file_is_made_again(tmp_path: Path) -> None:
    kept = KeptVectors(tmp_path / "v.sqlite", 1 << 20)
    kept.write(rows(3))
    with sqlite3.connect(kept.path) as file:
        file.execute("UPDATE vectors SET vector = zeroblob(64) WHERE vector = ?",
                     (np.full(16, 1, "<f4").tobytes(),))  # fmt: skip
    assert kept.read([*rows(3)]).keys() == {b"0", b"2"}
    kept.path.write_bytes(b"no database at all" * 100)
    assert kept.read([*rows(3)]) == {}
    kept.write(rows(3))
    assert len(kept.read([*rows(3)])) == 3


def test_a_file_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    kept = KeptVectors(tmp_path / "file" / "v.sqlite", 1 << 20)
    kept.write(rows(3))
    assert kept.read([*rows(3)]) == {}


def _write(path: str, start: int) -> None:
    for first in range(start, start + 100, 10):
        KeptVectors(Path(path), 1 << 20).write(rows(10, start=first))


def test_several_processes_write_at_once(tmp_path: Path) -> None:
    path = tmp_path / "v.sqlite"
    with ProcessPoolExecutor(2) as pool:
        list(pool.map(_write, [str(path)] * 2, [0, 100]))
    found = KeptVectors(path, 1 << 20).read([*rows(200)])
    assert len(found) == 200
    assert all((vector == int(key)).all() for key, vector in found.items())


def detected(**settings: Any) -> Detections:
    image = np.full((200, 280, 3), (228, 226, 220), np.uint8)
    y, x = np.mgrid[:200, :280]
    for cx, cy in DISCS:
        image[(x - cx) ** 2 + (y - cy) ** 2 <= 20**2] = (60, 40, 120)
    detector = SAMDetect(segmenter="naive", embedder="lite", vector_store="memory", **settings)
    picture = Image.fromarray(image)
    detector.learn(picture, "disc", boxes_xywh=[[20, 20, 41, 41], [100, 30, 41, 41]])
    return detector.detect(picture)


def test_a_second_run_embeds_nothing_and_finds_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sam_detect.embedding.lite import LiteEmbedder

    monkeypatch.setenv("SAM_DETECT_HOME", str(tmp_path))
    plain = detected()
    assert not (tmp_path / "cache").exists()
    first = detected(kept_vectors_mb=10)
    for name in ("embed", "embed_frame"):
        monkeypatch.setattr(LiteEmbedder, name, lambda *_: pytest.fail("embedded again"))
    second = detected(kept_vectors_mb=10, threshold=0.7)
    monkeypatch.undo()
    assert list(plain.label) == list(first.label)
    np.testing.assert_allclose(first.confidence, plain.confidence, atol=1e-5)
    np.testing.assert_allclose(second.confidence, first.confidence, atol=1e-5)
    np.testing.assert_array_equal(second.boxes_xyxy, first.boxes_xyxy)


def test_examples_of_another_size_do_not_share_vectors(tmp_path: Path) -> None:
    frame = Frame(np.zeros((40, 40, 3), np.uint8), "a.png")
    masks = Masks.from_dense(np.eye(40, dtype=np.bool_)[None])
    detector = SAMDetect(segmenter="naive", embedder="lite", vector_store="memory")
    cache = VectorCache(0, KeptVectors(tmp_path / "v.sqlite", 1 << 20))
    keys = [
        cache.keys_of_masks(frame, masks, detector.recipe, areas)
        for areas in (None, (10, 20), (300, 400), (10, 20))
    ]
    assert keys[1] == keys[3]
    assert keys[0] != keys[1] != keys[2]
