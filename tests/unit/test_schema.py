"""The closed schema of what a library keeps: what passes, what is dropped, what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from library_helpers import PartsSegmenter, snapshot_of, taught

from sam_detect.config import known_settings
from sam_detect.errors import ConfigError, LibraryCorruptError, LibraryError, StoreError
from sam_detect.library import archive, example
from sam_detect.library import manifest as manifests
from sam_detect.library.example import with_checksums
from sam_detect.library.library import Library
from sam_detect.library.transfer import copy_library
from sam_detect.types import Point
from sam_detect.vector_store import MemoryVectorStore


def nested(depth: int) -> Any:
    value: Any = {}
    for _ in range(depth):
        value = {"a": value}
    return value


@pytest.fixture(scope="module")
def payload() -> dict[str, Any]:
    store = taught(MemoryVectorStore(), "nut", segmenter=PartsSegmenter()).library.store
    return next(store.scan()).payload


@pytest.fixture(scope="module")
def recipe() -> dict[str, Any]:
    return taught(MemoryVectorStore(), "nut").recipe.to_dict()


# -- JSON ---------------------------------------------------------------------------------------


def test_json_is_read_as_others_read_it(payload: dict[str, Any]) -> None:
    for value in (payload, {}, [], 'é\\"[', {'a"[[[\\': [1, -2, 1.5e3, None, True, "\\\\"]}):
        text = json.dumps(value, ensure_ascii=False).encode()
        assert archive.read_json(text) == json.loads(text)
    assert archive.read_json(b'["' + b"[{" * 1000 + b'"]') == ["[{" * 1000]


@pytest.mark.parametrize(
    "text",
    [
        b"[" * 100_000, b"[" * 13 + b"]" * 13, b'{"a":' * 13 + b"1" + b"}" * 13,
        b'["\\\\",' + b"[" * 13, b'["\\"",' + b"[" * 13, b'["\\\\\\"' + b"[" * 99 + b'"',
        b"[" + b"1," * 30_000 + b"1]", b"[" + b'"",' * 30_000 + b"1]", b"{}" * 30_000,
        b"NaN", b"[Infinity]", b"-Infinity", b"1e999", b"1" * 5000, b"1" * 20, b"1." + b"0" * 99,
        b'{"a": 1, "a": 2}', b"", b"{", b"\xff", b'"\xed\xa0\x80"', "[1]".encode("utf-16"),
        b"\xef\xbb\xbf[]", b"[1] x",
    ],
)  # fmt: skip
def test_json_with_anything_else_is_refused(text: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        archive.read_json(text)


# -- payloads -----------------------------------------------------------------------------------


def test_a_payload_is_what_an_example_stores(payload: dict[str, Any]) -> None:
    """A new field has to be declared in the schema, with its limits."""
    assert set(payload) == set(example.PAYLOAD_FIELDS)
    assert example.check_payload(payload) == payload
    assert example.check_payload({**payload, "x": nested(200)}) == payload
    assert example.check_payload({"label": "a", "negative": False}, ("label", "negative")) == {
        "label": "a",
        "negative": False,
    }


BAD_FIELDS: list[dict[str, Any]] = [
    {"label": ""}, {"label": " \u2003"}, {"label": "x" * 201}, {"label": 7}, {"label": "\ud800"},
    {"negative": 1}, {"negative": "yes"}, {"source": "x" * 10_001}, {"source": 3},
    {"bbox": [0, 0, 10**30, 1]}, {"bbox": [0, 0, 0, 1]}, {"bbox": [-1, 0, 2, 2]},
    {"bbox": [0, 0, 1.0, 1]}, {"bbox": [0, 0, True, 1]}, {"bbox": [0, 0, 1]}, {"bbox": "0011"},
    {"bbox": [0, 0, 161, 1]}, {"bbox": [0, 159, 1, 2]}, {"area": 0}, {"area": -5},
    {"area": 10**30}, {"area": 1.5}, {"area": True}, {"area": 1_000_000},
    {"added": "yesterday"}, {"added": "2026-13-01T00:00:00+00:00"}, {"added": 0},
    {"added": "2026-01-01T00:00:00+00:00" + " " * 99}, {"segmentation": []},
    {"segmentation": {"size": [1, 1]}}, {"segmentation": {"size": [2**16, 2**16], "counts": ""}},
    {"segmentation": {"size": [160, 160, 1], "counts": ""}},
    {"segmentation": {"size": [160, 160], "counts": "0" * 5_000_000}},
    {"picture": "../x"}, {"picture": "a" * 129}, {"picture": None}, {"crop_webp": 7},
    {"crop_webp": "A" * 7_000_000}, {"crop_mask": None}, {"crop_scale": 1e300},
    {"crop_scale": 0.0}, {"crop_scale": -1.0}, {"crop_scale": float("nan")},
    {"crop_scale": float("inf")}, {"crop_scale": "1"}, {"crop_window": [0, 0, 0, 1]},
    {"crop_window": [0, 0, 2**40, 1]}, {"crop_window": None}, {"surroundings": []},
    {"surroundings": nested(200)}, {"surroundings": "many"},
]  # fmt: skip


@pytest.mark.parametrize("change", BAD_FIELDS, ids=lambda change: str(change)[:40])
def test_a_payload_out_of_its_limits_is_refused(
    change: dict[str, Any], payload: dict[str, Any]
) -> None:
    with pytest.raises(ValueError, match=rf"it(s| has no) {next(iter(change))}|its area") as caught:
        example.check_payload({**payload, **change})
    assert len(str(caught.value)) < 200
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("name", sorted({*example.PAYLOAD_FIELDS} - {*example.FORMAT_4_HAS}))
def test_a_payload_without_a_field_is_refused(name: str, payload: dict[str, Any]) -> None:
    less = {key: value for key, value in payload.items() if key != name}
    with pytest.raises(ValueError, match=f"it has no {name}"):
        example.check_payload(less)


# -- recipes and manifests ----------------------------------------------------------------------

BAD_RECIPES: list[dict[str, Any]] = [
    {"crop_side": 100_000}, {"crop_side": 0}, {"crop_side": -5}, {"crop_side": 256.0},
    {"crop_side": "256"}, {"crop_side": True}, {"occupancy": 1e-6}, {"occupancy": 0.0},
    {"occupancy": -1.0}, {"occupancy": float("nan")}, {"occupancy": "0.2"}, {"occupancy": 0.9},
    {"dimension": 0}, {"dimension": 10**9}, {"dimension": -4}, {"dimension": 4.0},
    {"embedder": ""}, {"embedder": "a\x1b[2J"}, {"embedder": "\u202egnp"}, {"embedder": "x" * 999},
    {"embedder": None}, {"embedder_version": 0}, {"embedder_version": 10**12},
    {"crop_version": -1}, {"fade": "a\nb"}, {"fade": ""}, {"fade": []},
    {"fade_params": []}, {"fade_params": {"sigma": 0}}, {"fade_params": {"sigma": float("nan")}},
    {"fade_params": {"sigma": 1e308}}, {"fade_params": {"sigma": -3}},
    {"fade_params": {"sigma": "wide"}}, {"fade_params": {"sigma": True}},
    {"fade_params": {"sigma": [1]}}, {"fade_params": {"min_fade": 2}},
    {"fade_params": {"max_distance": 1e-300}}, {"fade_params": {"decay": 1e300}},
    {"fade_params": {"sigma_per_diameter": 1e300}}, {"fade_params": {"sigma_per_diameter": 0}},
    {"fade_params": {"a b": 1}}, {"fade_params": {"a": {"b": 1}}},
    {"fade_params": {f"a{number}": 1 for number in range(33)}}, {"model": {"a": nested(130)}},
    {"model": {"a": 10**30}}, {"model": {"a": float("inf")}}, {"model": {"a": "x" * 1001}},
    {"model": {"a": "\x1b"}}, {"model": {"a": [[1]]}}, {"model": {"a": [1] * 65}}, {"model": None},
    {"other": 1},
]  # fmt: skip


@pytest.mark.parametrize("change", BAD_RECIPES, ids=lambda change: str(change)[:40])
def test_a_recipe_out_of_its_limits_is_refused(
    change: dict[str, Any], recipe: dict[str, Any]
) -> None:
    assert manifests.check_recipe(recipe).to_dict() == recipe
    with pytest.raises(ValueError, match="it") as caught:
        manifests.check_recipe({**recipe, **change})
    assert len(str(caught.value)) < 200
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("data", [None, [], 7, "x", {}])
def test_what_is_no_recipe_is_refused(data: Any) -> None:
    with pytest.raises(ValueError, match="it"):
        manifests.check_recipe(data)


def test_the_limits_of_a_recipe_are_those_of_the_settings(recipe: dict[str, Any]) -> None:
    for name in ("occupancy", "crop_side", "sigma", "min_fade", "max_distance", "decay"):
        limits = known_settings()[name].metadata
        (low,) = (m.ge for m in limits if hasattr(m, "ge"))
        (high,) = (m.le for m in limits if hasattr(m, "le"))
        for value, allowed in ((low, True), (high, True), (low - 1, False), (high + 1, False)):
            in_fade = name not in recipe
            fade = {"sigma": "gaussian", "decay": "exponential"}.get(name, "linear")
            change = {"fade": fade, "fade_params": {name: value}} if in_fade else {name: value}
            if allowed:
                manifests.check_recipe({**recipe, **change})
                continue
            with pytest.raises(ValueError, match=name):
                manifests.check_recipe({**recipe, **change})


def test_unknown_fields_of_a_manifest_are_dropped() -> None:
    made = taught(MemoryVectorStore(), "nut").library
    manifest = made.require()
    made.store.write_manifest({**manifest, "unknown": nested(20)})
    assert Library(made.store, "x").require() == manifest
    assert made.rename("nut", "date") == 5
    assert "unknown" not in (made.store.read_manifest() or {})
    for change in ({"name": "a\x1b"}, {"name": ""}, {"generation": 7}, {"generation": "x" * 99}):
        made.store.write_manifest({**manifest, **change})
        with pytest.raises(LibraryCorruptError, match=next(iter(change))):
            made.require()


# -- where it is asked --------------------------------------------------------------------------


def test_no_library_is_made_that_could_not_be_read() -> None:
    made = taught(MemoryVectorStore(), "nut")
    for change in ({"crop_side": 5000}, {"embedder": "x\n"}, {"fade_params": {"sigma": 1e300}}):
        library = Library(MemoryVectorStore(), "new")
        with pytest.raises(ConfigError, match="no library can have this recipe"):
            library.add([], replace(made.recipe, **change))
        assert library.store.read_manifest() is None
    example = next(made.library.read())
    for wrong in ({"source": "x" * 99_999}, {"added": "now"}, {"area": -1}):
        with pytest.raises(LibraryError, match=f"{example.id} cannot be kept: its"):
            made.library.add([replace(example, **wrong)], made.recipe)
    assert made.library.stats()["examples"] == 5


@pytest.mark.parametrize("store", [MemoryVectorStore])
def test_no_store_takes_what_its_log_could_not_give_back(
    store: Callable[[], MemoryVectorStore],
) -> None:
    point = Point("00000000-0000-4000-8000-000000000000", np.ones(3, np.float32), nested(40))
    with pytest.raises(StoreError, match="nested deeper"):
        store().upsert([point])


def test_unknown_fields_go_no_further_than_the_store_that_has_them() -> None:
    """An older version imported them."""
    made = taught(MemoryVectorStore(), "nut")
    store = made.library.store
    for point in list(store.scan(with_vectors=True)):
        store.upsert([replace(point, payload={**point.payload, "unknown": nested(20)})])
    there = Library(MemoryVectorStore(), "there")
    copy_library(made.library, there)
    assert made.library.rename("nut", "date") == 5
    for one in (store, there.store):
        assert {key for point in one.scan() for key in point.payload} == set(example.PAYLOAD_FIELDS)


def test_vectors_that_are_not_of_length_1_are_named() -> None:
    made = taught(MemoryVectorStore(), "nut")
    manifest = made.library.require()
    made.library.store.write_manifest(
        {**manifest, "recipe": {**manifest["recipe"], "dimension": 5}}
    )
    with pytest.raises(LibraryCorruptError, match="recipe says 5"):
        snapshot_of(Library(made.library.store, "x")).examples()
    made.library.store.write_manifest(manifest)
    point = next(made.library.store.scan(with_vectors=True))
    made.library.store.upsert([with_checksums(replace(point, vector=np.zeros(4, np.float32)))])
    with pytest.raises(LibraryCorruptError, match=f"{point.id} has length 0"):
        snapshot_of(Library(made.library.store, "x")).examples()
