"""Checksums of stored examples: what changes is noticed, and nothing that was not changed."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from library_helpers import (
    PartsSegmenter,
    as_converted,
    detector,
    disc_masks,
    discs,
    local_mode_store,
    taught,
)

from sam_detect.errors import LibraryCorruptError
from sam_detect.fading import LinearFade
from sam_detect.interfaces import VectorStore
from sam_detect.library import lookup
from sam_detect.library.example import (
    FORMAT_4_HAS,
    NAMING_FIELDS,
    PAYLOAD_FIELDS,
    check_point,
    with_checksums,
)
from sam_detect.library.integrity import verify
from sam_detect.library.library import Library
from sam_detect.library.reindex import reindex
from sam_detect.library.transfer import copy_library
from sam_detect.types import Point
from sam_detect.vector_store import MemoryVectorStore

pytestmark = pytest.mark.filterwarnings("ignore:Local mode performs exact:UserWarning")


def require_sound(store: VectorStore) -> int:
    """Checks every example; returns how many there are."""
    points = list(store.scan(with_vectors=True))
    for point in points:
        check_point(point)
    return len(points)


def test_whatever_writes_examples_gives_them_right_checksums(store: VectorStore) -> None:
    made = taught(store, segmenter=PartsSegmenter(), embedder="appearance")
    made.add_examples_from_file(discs(), disc_masks()[:2], "leaf", negative=True)
    assert require_sound(store) == 12
    made.library.rename("leaf", "blade")
    assert require_sound(store) == 12
    reindex(made.library, replace(made.pipeline.features, fade=LinearFade(9)))
    assert require_sound(store) == 12
    there = local_mode_store()
    copy_library(made.library, Library(there, "there"))
    assert require_sound(there) == 12
    as_converted(made.library)
    assert Library(store, "again").stats()["examples"] == 12
    assert require_sound(store) == 12


def test_stored_vectors_come_back_bit_for_bit(store: VectorStore) -> None:
    """Also those that are not quite of length 1, and after they were stored again."""
    made = taught(store, "nut", embedder="appearance")
    (point, *_) = made.library.store.scan(with_vectors=True)
    rng = np.random.default_rng(0)
    width = len(np.asarray(point.vector))
    odd = [with_checksums(replace(point, id=f"00000000-0000-4000-8000-{n:012d}",
                                    vector=rng.normal(size=width) * 10.0 ** (n - 3)))
           for n in range(6)]  # fmt: skip
    for _ in range(3):
        store.upsert(odd)
        odd = list(store.scan([each.id for each in odd], with_vectors=True))
        assert require_sound(store) == 11


def flipped(data: Any, rng: np.random.Generator) -> Any:
    """The data with one bit of one of its leaves changed."""
    if isinstance(data, dict):
        key = sorted(data)[int(rng.integers(len(data)))]
        return {**data, key: flipped(data[key], rng)}
    if isinstance(data, list):
        at = int(rng.integers(len(data))) if data else 0
        return [flipped(v, rng) if i == at else v for i, v in enumerate(data)] or [0]
    if isinstance(data, str):
        at = int(rng.integers(len(data))) if data else 0
        return data[:at] + chr(ord(data[at : at + 1] or "a") ^ 1) + data[at + 1 :]
    if isinstance(data, bool) or data is None:
        return not data
    return data + 1 if isinstance(data, int) else data * (1 + 1e-9)


def whole(point: Point) -> Point:
    return lookup.check_read(point, PAYLOAD_FIELDS, "memory")


def for_naming(point: Point) -> Point:
    light = {name: point.payload[name] for name in NAMING_FIELDS}
    return lookup.check_read(replace(point, payload=light), NAMING_FIELDS, "memory")


def test_any_changed_field_or_element_is_noticed() -> None:
    made = taught(MemoryVectorStore(), "nut", segmenter=PartsSegmenter())
    (point, *_) = made.library.store.scan(with_vectors=True)
    rng = np.random.default_rng(0)
    assert whole(point).payload == point.payload
    assert set(for_naming(point).payload) == set(NAMING_FIELDS)
    for name in point.payload:
        for _ in range(20):
            payload = copy.deepcopy(point.payload)
            payload[name] = flipped(payload[name], rng)
            with pytest.raises(LibraryCorruptError, match=f"{point.id} is damaged: "):
                whole(replace(point, payload=payload))
        kept = {key: value for key, value in point.payload.items() if key != name}
        if name in FORMAT_4_HAS:
            assert whole(replace(point, payload=kept)).payload[name] == FORMAT_4_HAS[name]
            continue
        with pytest.raises(LibraryCorruptError, match=f"it has no {name}"):
            whole(replace(point, payload=kept))
    with pytest.raises(LibraryCorruptError, match="it is not what was stored"):
        whole(replace(point, id="00000000-0000-4000-8000-000000000000"))
    for at in range(len(np.asarray(point.vector))):
        for bit in range(32):
            bits = np.array(point.vector, np.float32).view(np.uint32)
            bits[at] ^= np.uint32(1 << bit)
            changed = replace(point, vector=bits.view(np.float32))
            if changed.vector[at] != point.vector[at]:  # type: ignore[index]
                for check in (whole, for_naming):
                    with pytest.raises(LibraryCorruptError, match="its vector is not what was"):
                        check(changed)


CHANGES: dict[str, Callable[[Point], Point]] = {
    "label": lambda p: replace(p, payload={**p.payload, "label": "nuu"}),
    "polarity": lambda p: replace(p, payload={**p.payload, "negative": True}),
    "area": lambda p: replace(p, payload={**p.payload, "area": p.payload["area"] + 1}),
    "batch": lambda p: replace(p, payload={**p.payload, "batch": ""}),
    "vector": lambda p: replace(p, vector=np.asarray(p.vector)[::-1]),
    "surroundings": lambda p: replace(p, payload={**p.payload, "surroundings": None}),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_no_picture_is_named_by_a_damaged_example(
    change: Callable[[Point], Point], store: VectorStore
) -> None:
    """It is neither used nor left out silently, and the others can be had back."""
    made = taught(store, segmenter=PartsSegmenter())
    point = list(store.scan(with_vectors=True))[3]
    store.upsert([change(point)])
    again = detector(store)
    with pytest.raises(LibraryCorruptError, match=f"{point.id} is damaged.*library repair"):
        again.detect(discs("leaf", 9))
    made.library.remove(ids=[point.id])
    assert [d.label for d in detector(store).detect(discs("leaf", 9))] == ["leaf"] * 5


def test_a_damaged_label_is_in_no_list_and_no_count(store: VectorStore) -> None:
    made = taught(store, "nut")
    point = next(store.scan(with_vectors=True))
    store.upsert([replace(point, payload={**point.payload, "label": "nuu"})])
    for attempt in (
        made.library.stats,
        lambda: list(made.library.listing()),
        lambda: made.library.remove(label="nuu"),
        lambda: made.library.rename("nuu", "nut"),
    ):
        with pytest.raises(LibraryCorruptError, match=f"{point.id} is damaged: it is not what"):
            attempt()


def test_another_sound_example_in_its_place_is_noticed(store: VectorStore) -> None:
    """As where the engine falls back to an older state: its own checksums are right."""
    library = taught(store, "nut").library
    if not store.exclusive:
        pytest.skip("a server keeps no record of all examples")
    point = next(store.scan(with_vectors=True))
    store.upsert([with_checksums(replace(point, payload={**point.payload, "label": "older"}))])
    assert verify(library).problem == "its examples are not those that were stored"
    for attempt in (library.stats, lambda: detector(store).detect(discs("leaf", 9))):
        with pytest.raises(LibraryCorruptError, match=r"not those that were stored.*repair"):
            attempt()
    store.delete([point.id])
    assert verify(library).problem == "it has 4 examples, 5 were stored"
    with pytest.raises(LibraryCorruptError, match=r"it has 4 examples, 5 were stored.*repair"):
        library.stats()
