"""Changes sound files at random, and asks everything that reads them: each change is refused with
an error of ours, or what was read can be used by every command.

``tests/fuzz.py`` runs one target for as long as it is told; ``tests/integration/test_fuzzing.py``
runs all of them.
"""

from __future__ import annotations

import copy
import io
import json
import math
import os
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from sam_detect import SAMDetect
from sam_detect.config import Settings, load_settings
from sam_detect.errors import SamDetectError
from sam_detect.evaluation.readers import open_dataset
from sam_detect.io.coco import read_coco
from sam_detect.library.example import with_checksums
from sam_detect.library.library import Library
from sam_detect.library.manifest import check_recipe
from sam_detect.library.reindex import reindex
from sam_detect.library.transfer import export_library, import_library
from sam_detect.pipeline.choosing import choose_features
from sam_detect.types import Point
from sam_detect.vector_store import MemoryVectorStore

VALUES: list[Any] = [
    None, True, False, 0, -1, 1, 2, 255, 10**9, 2**63, -(2**63), 10**30, 10**400, 0.5, 1.0, -0.0,
    1e-300, 1e300, math.nan, math.inf, "", " ", "a", "nut", "a\nb", "\x9b31m", "\u202e", "\u200b",
    "\ud800", "u\u0308", "../../etc/passwd", "/dev/zero", "http://127.0.0.1:1/", "x" * 300,
    "os:system", "__main__:Fade", "default", "clip", "sam2", "linear", "identity", "2026-01-01",
    [], {}, [[]], [0, 0], [0, 0, 0, 0], [1, 1, 9, 9], [-5, 2, 10**6, 4], [math.nan] * 4, ["a"] * 4,
    [[1, 1, 5, 1, 5, 5]], {"size": [40, 40], "counts": "zzz"}, {"size": [1, 1], "counts": [1]},
    {"size": [10**9, 10**9], "counts": [9]}, {"a": {"a": {"a": {}}}},
]  # fmt: skip
NESTED: Any = []
for _ in range(200):
    NESTED = [NESTED]
VALUES.append(NESTED)
SECONDS = 20
"""No single change may take longer to read than that, on however busy a machine."""


class Choices:
    """Decisions taken from bytes, so that a fuzzer that changes bytes changes decisions."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def below(self, count: int) -> int:
        width = 1 if count <= 256 else 2
        part = self._data[self._at : self._at + width]
        self._at += width
        return int.from_bytes(part, "big") % max(count, 1)

    @property
    def more(self) -> bool:
        return self._at < len(self._data)


def changed(value: Any, choices: Choices) -> Any:
    """The value with some of its parts replaced, removed, doubled or renamed."""
    value = copy.deepcopy(value)
    for _ in range(1 + choices.below(3)):
        places = list(_places(value))
        holder, key = places[choices.below(len(places))]
        what = choices.below(7)
        if what == 0 and isinstance(holder, dict):
            holder[f"{key}x"] = holder.pop(key)
        elif what == 1:
            del holder[key]
        elif what == 2 and isinstance(holder, list):
            holder.append(copy.deepcopy(holder[key]))
        elif what > 3:
            holder[key] = _beside(holder[key], choices)
        else:
            holder[key] = copy.deepcopy(VALUES[choices.below(len(VALUES))])
        if not value:
            break
    return value


def _beside(value: Any, choices: Choices) -> Any:
    """A value like the given one, which may well be let in."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + (1, -1, 100, -value)[choices.below(4)]
    if isinstance(value, float):
        return value * (0.5, 2.0, 1.001, -1.0)[choices.below(4)]
    if isinstance(value, str):
        other = ("date", "u\u0308", "\u0646\u200c\u0645", value[::-1])
        return other[choices.below(len(other))]
    return value


def _places(value: Any) -> Any:
    keys = list(value) if isinstance(value, dict) else range(len(value))
    for key in keys:
        yield value, key
        if isinstance(value[key], (dict, list)) and len(value[key]):
            yield from _places(value[key])


def as_json(value: Any) -> str:
    """JSON as Python writes it: with NaN, long numbers and lone surrogates."""
    limit = sys.get_int_max_str_digits() if hasattr(sys, "get_int_max_str_digits") else 0
    assert limit == 0 or limit > 400
    return json.dumps(value)


# What is changed


@cache
def picture() -> np.ndarray:
    image = np.full((48, 64, 3), 220, np.uint8)
    image[10:22, 10:24] = (40, 60, 200)
    image[28:40, 36:52] = (60, 160, 40)
    return image


@cache
def folder() -> Path:
    """A folder of this process, with one picture."""
    from PIL import Image

    made = Path(tempfile.mkdtemp(prefix="fuzzing-"))
    os.environ["SAM_DETECT_HOME"] = str(made / "home")
    (made / "home").mkdir()
    for place in ("coco/images", "yolo/images/train", "yolo/labels/train"):
        (made / place).mkdir(parents=True)
    for place in ("coco/images", "yolo/images/train"):
        Image.fromarray(picture()).save(made / place / "a.png")
    return made


@cache
def exported() -> tuple[dict[str, Any], list[dict[str, Any]], bytes]:
    """Manifest, rows and vectors of a sound exported library."""
    detector = SAMDetect(embedder="average", segmenter="naive", vector_store=MemoryVectorStore())
    mask = np.zeros((2, 48, 64), bool)
    mask[0, 10:22, 10:24] = mask[1, 28:40, 36:52] = True
    detector.add_example(picture(), "nut", mask[0])
    detector.add_example(picture(), "fig", mask[1])
    detector.add_example(picture(), "nut", mask[1], negative=True)
    file = folder() / "sound.samlib"
    export_library(detector.library, file)
    with zipfile.ZipFile(file) as members:
        manifest = json.loads(members.read("library.json"))
        rows = [json.loads(line) for line in members.read("examples.jsonl").splitlines()]
        return manifest, rows, members.read("vectors.npy")


def _resealed(row: Any, vector: Any) -> Any:
    """The row with the checksums that fit it, as an attacker would make them."""
    with suppress(Exception):
        point = with_checksums(Point(row["id"], vector, row["payload"]))
        return {**row, "payload": point.payload}
    return row


# The targets


def archive(data: bytes) -> None:
    """Archive, import, every command."""
    choices = Choices(data)
    manifest, rows, vectors = exported()
    which, honest = choices.below(4), choices.below(4)
    if which == 0:
        manifest = changed(manifest, choices)
    elif which < 3:
        rows = changed(rows, choices)
    if honest:
        values = np.load(io.BytesIO(vectors))
        values = values[np.arange(len(rows)) % len(values)]
        with io.BytesIO() as stream:
            np.lib.format.write_array(stream, values, (1, 0))
            vectors = stream.getvalue()
        rows = [_resealed(row, values[i % len(values)]) for i, row in enumerate(rows)]
    members = {
        "library.json": as_json(manifest).encode("utf-8", "surrogatepass"),
        "examples.jsonl": b"".join(as_json(row).encode() + b"\n" for row in rows),
        "vectors.npy": vectors,
    }
    if which == 3:
        name = list(members)[choices.below(3)]
        content = bytearray(members[name])
        for _ in range(1 + choices.below(4)):
            content[choices.below(len(content))] = choices.below(256)
        members[name] = bytes(content)
    file = folder() / "changed.samlib"
    with zipfile.ZipFile(file, "w") as zipped:
        for name, content in members.items():
            zipped.writestr(name, bytes(content))
    store = MemoryVectorStore()
    library = Library(store, "new")
    try:
        import_library(library, file)
    except SamDetectError:
        assert not store.count()
        return
    use(library)


def use(library: Library) -> None:
    """All that reads or changes a library works on it, whatever its examples say."""
    json.dumps(library.stats(), allow_nan=False)
    examples = list(library.read())
    listed = list(library.listing())
    assert len(examples) == len(listed) == len(library)
    for each in examples:
        assert each.label.isprintable() or "\u200d" in each.label or "\u200c" in each.label
        assert each.crop.image_rgb.size
    with suppress(SamDetectError):  # a recipe may need what is not here
        detector = SAMDetect(segmenter="naive", vector_store=library.store)
        detector.detect(picture())
        detector.add_example(picture()[:, ::-1], "new")
    with suppress(SamDetectError):
        average = SAMDetect(
            segmenter="naive", embedder="average", vector_store=MemoryVectorStore(),
            occupancy=library.recipe.occupancy, crop_side=library.recipe.crop_side,
        )  # fmt: skip
        reindex(library, average.pipeline.features)
    export_library(library, folder() / "again.samlib")
    again = Library(MemoryVectorStore(), "again")
    import_library(again, folder() / "again.samlib")
    assert len(again) == len(library)
    for label in sorted({each.label for each in examples}):
        library.rename(label, "other")
    for each in list(library.listing()):
        library.remove(ids=[each.id])
    assert len(library) == 0


def recipe(data: bytes) -> None:
    choices = Choices(data)
    value = changed(exported()[0]["recipe"], choices)
    try:
        found = check_recipe(json.loads(as_json(value)))
    except (ValueError, SamDetectError):
        return
    with suppress(SamDetectError):
        choose_features(Settings(), found)


def config(data: bytes) -> None:
    """TOML of changed settings, and of bytes."""
    choices = Choices(data)
    file = folder() / "home" / "config.toml"
    if choices.below(3) == 0:
        file.write_bytes(data[1:])
    else:
        names = list(Settings.model_fields)
        lines = []
        for _ in range(1 + choices.below(3)):
            value = VALUES[choices.below(len(VALUES))]
            with suppress(ValueError):
                lines.append(f"{names[choices.below(len(names))]} = {_toml(value)}")
        file.write_text("\n".join(lines), encoding="utf-8", errors="replace")
    try:
        with suppress(SamDetectError):
            load_settings(environment={})
    finally:
        file.unlink()


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f'"{k}" = {_toml(v)}' for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return "''" if value is None else json.dumps(value).replace("NaN", "nan").lower()


def coco(data: bytes) -> None:
    """COCO, for learning and for evaluation."""
    choices = Choices(data)
    annotation = {
        "id": 1, "image_id": 1, "category_id": 7, "bbox": [10, 10, 14, 12], "iscrowd": 0,
        "segmentation": [[10, 10, 24, 10, 24, 22, 10, 22]], "track_id": 1,
    }  # fmt: skip
    sound = {
        "images": [{"id": 1, "file_name": "a.png", "width": 64, "height": 48}],
        "annotations": [annotation, {**annotation, "id": 2, "segmentation": None}],
        "categories": [{"id": 7, "name": "nut"}, {"id": 8, "name": "fig"}],
    }
    text = as_json(changed(sound, choices))
    if choices.below(8) == 0:
        text = text[: choices.below(len(text))]
    file = folder() / "coco" / "annotations.json"
    file.write_text(text, encoding="utf-8", errors="surrogatepass")
    with suppress(SamDetectError):
        found, problems = read_coco(file, [str(folder() / "coco" / "images" / "a.png")])
        assert all(len(problem) < 1000 for problem in problems)
        for outline in (each for image in found for each in image.outlines):
            with suppress(SamDetectError):
                outline.mask((48, 64))
    with suppress(SamDetectError):
        problems = open_dataset(folder() / "coco").problems
        assert all(problem.isprintable() and len(problem) <= 400 for problem in problems)


def yolo(data: bytes) -> None:
    """YOLO: data.yaml (of changed values, and of bytes) and rows."""
    choices = Choices(data)
    root = folder() / "yolo"
    sound = {"names": {"0": "nut", "1": "fig"}, "train": "images/train", "path": "."}
    text = as_json(changed(sound, choices))
    if choices.below(4) == 0:
        text = data.decode("latin-1")
    (root / "data.yaml").write_text(text, encoding="utf-8", errors="surrogatepass")
    words = ["0", "1", "0.5", "0.25", "-1", "nan", "inf", "1e999", "1_0", "x", "9" * 5000, "", "\n"]
    row = " ".join(words[choices.below(len(words))] for _ in range(choices.below(20)))
    (root / "labels" / "train" / "a.txt").write_text(f"0 0.5 0.5 0.25 0.25\n{row}\n")
    with suppress(SamDetectError):
        problems = open_dataset(root / "data.yaml").problems
        assert all(problem.isprintable() and len(problem) <= 400 for problem in problems)


TARGETS: dict[str, Callable[[bytes], None]] = {
    each.__name__: each for each in (archive, recipe, config, coco, yolo)
}


def timed(target: Callable[[bytes], None], data: bytes) -> None:
    """Runs a target once; fails where that takes absurdly long."""
    began = time.monotonic()
    target(data)
    assert time.monotonic() - began < SECONDS, data.hex()
