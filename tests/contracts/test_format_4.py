"""A library that an earlier version wrote in format 4 opens as it is.

``fixtures/format_4.tar.xz`` was made with the code of commit 241c189: an embedded library of drawn
discs (learnt, relabelled, one negative), its export, and what that version read of it.
"""

from __future__ import annotations

import hashlib
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from library_helpers import disc_masks, discs

from sam_detect import SAMDetect
from sam_detect.features.hard_negatives import HardNegatives
from sam_detect.library.integrity import verify
from sam_detect.library.library import Library
from sam_detect.library.transfer import import_library
from sam_detect.vector_store import MemoryVectorStore, QdrantVectorStore

FIXTURE = Path(__file__).parents[1] / "fixtures" / "format_4.tar.xz"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    with tarfile.open(FIXTURE) as tar:
        tar.extractall(tmp_path, filter="data")
    return tmp_path


def expected(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "expected.json").read_text())
    return found


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def examples_of(library: Library) -> dict[str, Any]:
    """As the fixture's maker wrote them down; surroundings by their place in the payload."""
    found = {}
    for e, point in zip(library.read(), library.points(), strict=True):
        around = point.payload["surroundings"]
        said = None
        if around is not None:
            vectors = np.frombuffer(_bytes(around["vectors"]), "<f2").astype(np.float32)
            shown = [around["proposer"], around["quality"], around["touching"]]
            said = [*shown, digest(vectors.tobytes())]
        assert e.vector is not None
        found[e.id] = [
            e.label, e.negative, e.source, list(e.bbox), e.area, e.added,
            e.segmentation["counts"], digest(e.crop.image_rgb.tobytes()),
            digest(e.crop.mask.tobytes()), e.crop.scale, list(e.crop.window_xyxy), e.picture,
            digest(e.vector.tobytes()), said, e.batch, len(e.before),
        ]  # fmt: skip
    return found


def _around(library: Library) -> list[HardNegatives]:
    return [e.hard_negatives for e in library.read() if e.hard_negatives is not None]


def _bytes(text: str) -> bytes:
    import base64

    return base64.b64decode(text)


def test_it_is_read_as_it_was_written(folder: Path) -> None:
    library = Library(QdrantVectorStore(path=folder, collection_name="nuts"), "nuts")
    want = expected(folder)
    assert examples_of(library) == want["examples"]
    assert [batch.to_dict() for batch in library.log()] == want["log"]
    stats = library.stats()
    assert {name: stats[name] for name in want["stats"]} == want["stats"]
    assert verify(library).sound
    assert library.require()["format_version"] == 4, "reading changes nothing"


def test_its_export_is_the_same_library(folder: Path) -> None:
    library = Library(MemoryVectorStore(), "nuts")
    assert import_library(library, folder / "nuts.zip").added == 5
    assert examples_of(library) == expected(folder)["examples"]


def test_it_is_learnt_into_undone_and_found_with(folder: Path) -> None:
    store = QdrantVectorStore(path=folder, collection_name="nuts")
    detector = SAMDetect(segmenter="naive", vector_store=store)
    known = {each.label for each in detector.detect(discs("leaf", 9)) if each.label}
    assert "leaf" in known
    before = examples_of(detector.library)
    assert all(not around.background for around in _around(detector.library))
    assert detector.add_examples_from_file(discs("berry", 5), disc_masks(), "berry").total == 10
    assert detector.library.require()["format_version"] == 5, "an older version must refuse it"
    assert detector.library.undo().labels == {"berry": 5}
    assert examples_of(detector.library) == before
    assert detector.library.undo().to_dict()["labels"] == {"fig": 1}
    assert verify(detector.library).sound
