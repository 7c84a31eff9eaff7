"""Exported files as an adversary would make them, by name, made from a sound one."""

from __future__ import annotations

import base64
import io
import json
import os
import pickle
import struct
import uuid
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from sam_detect.library.example import with_checksums
from sam_detect.types import Point
from sam_detect.types.masks import encode_crop

Members = dict[str, bytes]
MANIFEST, EXAMPLES, VECTORS = "library.json", "examples.jsonl", "vectors.npy"
ROW = 70
"""What is wrong is wrong in this row, so that more before it are sound than one batch has."""


def unzipped(file: Path) -> Members:
    with zipfile.ZipFile(file) as members:
        return {name: members.read(name) for name in members.namelist()}


def zipped(members: Members) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as target:
        for name, data in members.items():
            target.writestr(name, data)
    return stream.getvalue()


def grown(members: Members, count: int = 80) -> Members:
    """The members with so many rows, which have ids of their own."""
    lines, vectors = members[EXAMPLES].splitlines(), np.load(io.BytesIO(members[VECTORS]))
    rows = [json.loads(lines[i % len(lines)]) for i in range(count)]
    vectors = np.resize(vectors, (count, vectors.shape[1]))
    for number, (row, vector) in enumerate(zip(rows, vectors, strict=True)):
        if number >= len(lines):
            row["id"] = str(uuid.UUID(int=number))
            row["payload"] = with_checksums(Point(row["id"], vector, row["payload"])).payload
    return {
        MANIFEST: members[MANIFEST],
        EXAMPLES: b"".join(json.dumps(row).encode() + b"\n" for row in rows),
        VECTORS: npy(vectors),
    }


def npy(array: Any) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=True)
    return stream.getvalue()


def nested(depth: int, kind: str = "{}") -> str:
    """JSON text of so many objects, or lists, in each other."""
    start, end = ('{"a":', "}") if kind == "{}" else ("[", "]")
    return start * depth + "1" + end * depth


class Bomb:
    """Whoever unpickles it makes a folder."""

    def __reduce__(self) -> Any:
        return os.mkdir, ("unpickled",)


# -- one member is wrong ------------------------------------------------------------------------

Change = Callable[[Members], Members]


def with_payload(**change: Any) -> Change:
    """Some fields of a payload changed, and the checksums made right again."""

    def made(members: Members) -> Members:
        return resealed(members, lambda payload: {**payload, **change})

    return made


def resealed(members: Members, change: Callable[[dict[str, Any]], dict[str, Any]]) -> Members:
    lines = members[EXAMPLES].splitlines(keepends=True)
    row = json.loads(lines[ROW])
    vector = np.load(io.BytesIO(members[VECTORS]))[ROW]
    payload = with_checksums(Point(row["id"], vector, change(row["payload"]))).payload
    lines[ROW] = json.dumps({"id": row["id"], "payload": payload}).encode() + b"\n"
    return {**members, EXAMPLES: b"".join(lines)}


def with_text(name: str, text: str) -> Change:
    """A field of the payload whose JSON is written out."""

    def made(members: Members) -> Members:
        lines = members[EXAMPLES].splitlines(keepends=True)
        row = json.loads(lines[ROW])
        row["payload"][name] = "PLACE"
        lines[ROW] = json.dumps(row).encode().replace(b'"PLACE"', text.encode(), 1) + b"\n"
        return {**members, EXAMPLES: b"".join(lines)}

    return made


def with_id(text: str) -> Change:
    def made(members: Members) -> Members:
        lines = members[EXAMPLES].splitlines(keepends=True)
        row = json.loads(lines[ROW])
        lines[ROW] = lines[ROW].replace(json.dumps(row["id"]).encode(), text.encode(), 1)
        return {**members, EXAMPLES: b"".join(lines)}

    return made


def with_recipe(**change: Any) -> Change:
    return lambda members: _manifest(members, lambda m: {**m, "recipe": {**m["recipe"], **change}})


def with_manifest(**change: Any) -> Change:
    return lambda members: _manifest(members, lambda m: {**m, **change})


def _manifest(members: Members, change: Callable[[Any], Any]) -> Members:
    return {**members, MANIFEST: json.dumps(change(json.loads(members[MANIFEST]))).encode()}


def with_member(name: str, data: bytes | Callable[[bytes], bytes]) -> Change:
    return lambda members: {**members, name: data(members[name]) if callable(data) else data}


def with_vector(values: Any) -> Change:
    def made(members: Members) -> Members:
        vectors = np.load(io.BytesIO(members[VECTORS]))
        vectors[ROW] = values
        with np.errstate(invalid="ignore"):
            return resealed({**members, VECTORS: npy(vectors)}, dict)

    return made


def with_vectors(change: Callable[[Any], Any]) -> Change:
    return lambda members: {**members, VECTORS: npy(change(np.load(io.BytesIO(members[VECTORS]))))}


def webp(size: tuple[int, int], **options: Any) -> str:
    stream = io.BytesIO()
    Image.new("RGB", size, (9, 9, 9)).save(stream, "WEBP", **options)
    return base64.b64encode(stream.getvalue()).decode()


def webp_bomb() -> str:
    """A header of 16384 x 16384 pixels, and nothing behind it."""
    body = b"VP8L" + struct.pack("<I", 20) + b"\x2f" + b"\xff\xff\xff\x0f" + bytes(15)
    return base64.b64encode(b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body).decode()


def animated_bomb() -> str:
    """A canvas of 16384 x 16384 pixels, for which Pillow would take 2 GB."""
    body = b"VP8X" + struct.pack("<I", 10) + b"\x02\0\0\0" + b"\xff\x3f\0" * 2
    return base64.b64encode(b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body).decode()


def regions(count: int) -> dict[str, Any]:
    """So many masks as large as a crop of 64 x 64 pixels."""
    full = encode_crop(np.ones((64, 64), bool)).decode()
    return {
        "proposer": "naive",
        "quality": 0.5,
        "boxes": [[0, 0, 64, 64]] * count,
        "masks": [full] * count,
        "touching": [True] * count,
        "vectors": base64.b64encode(np.ones(4 * count, "<f2").tobytes()).decode(),
    }


def small_crops(count: int, **change: Any) -> list[dict[str, Any]]:
    """So many crops of the background, of 8 x 8 pixels; some fields changed."""
    one = {"webp": webp((8, 8), lossless=True), "scale": 1.0, "window": [0, 0, 8, 8]}
    return [{**one, "mask": encode_crop(np.ones((8, 8), bool)).decode(), **change}] * count


def _twice(members: Members) -> Members:
    lines = members[EXAMPLES].splitlines(keepends=True)
    lines[ROW] = lines[3]
    vectors = np.load(io.BytesIO(members[VECTORS]))
    vectors[ROW] = vectors[3]
    return {**members, EXAMPLES: b"".join(lines), VECTORS: npy(vectors)}


CHANGES: dict[str, Change] = {
    # JSON
    "unknown field 130 deep": with_text("zzz", nested(130)),
    "unknown field 100000 deep": with_text("zzz", nested(100_000)),
    "unknown lists 100000 deep": with_text("zzz", nested(100_000, "[]")),
    "label 130 deep": with_text("label", nested(130)),
    "surroundings 130 deep": with_text("surroundings", nested(130)),
    "unknown field of 3 million lists": with_text("zzz", "[" + "[]," * 3_000_000 + "1]"),
    "unknown field of 3 million objects": with_text("zzz", "[" + "{}," * 3_000_000 + "1]"),
    "unknown field of 2 million texts": with_text("zzz", "[" + '"",' * 2_000_000 + "1]"),
    "a line of 20 MB": with_text("zzz", '"' + "x" * 20_000_000 + '"'),
    "lines without end": with_member(EXAMPLES, b" " * 60_000_000),
    "NaN": with_text("crop_scale", "NaN"),
    "Infinity": with_text("crop_scale", "-Infinity"),
    "a number of 5000 digits": with_text("area", "1" * 5000),
    "a number of 3 million digits": with_text("crop_scale", "0." + "1" * 3_000_000),
    "a float beyond all": with_text("crop_scale", "1e999"),
    "a lone surrogate": with_text("label", '"\\ud800"'),
    "a field twice": with_text("zzz", '1, "label": "other", "label": "nut"'),
    "lines in UTF-16": with_member(EXAMPLES, lambda data: data.decode().encode("utf-16")),
    "lines of nulls": with_member(EXAMPLES, b"null\n" * 80),
    "lines of lists": with_member(EXAMPLES, b"[]\n" * 80),
    "no payload": with_member(EXAMPLES, b'{"id": "x"}\n' * 80),
    "one line less": with_member(EXAMPLES, lambda data: data[: data[:-1].rindex(b"\n") + 1]),
    "one line more": with_member(EXAMPLES, lambda data: data + data[:4000].split(b"\n")[0] + b"\n"),
    # ids
    "an id that is a number": with_id("5"),
    "an id that is null": with_id("null"),
    "an id that is a list": with_id("[1]"),
    "an id in braces": with_id('"{00000000-0000-4000-8000-000000000000}"'),
    "an id with capitals": with_id('"AAAAAAAA-0000-4000-8000-000000000000"'),
    "an id that is a path": with_id('"../../../../etc/passwd"'),
    "an id twice": _twice,
    # fields
    "label a number": with_payload(label=7),
    "label empty": with_payload(label=""),
    "label of two lines": with_payload(label="a\nb"),
    "label without end": with_payload(label="x" * 100_000),
    "negative a word": with_payload(negative="no"),
    "source without end": with_payload(source="x" * 100_000),
    "bbox of 10**30": with_payload(bbox=[0, 0, 10**30, 10**30]),
    "bbox huge": with_payload(bbox=[0, 0, 2**40, 2**40]),
    "bbox negative": with_payload(bbox=[-5, 0, 3, 3]),
    "bbox empty": with_payload(bbox=[0, 0, 0, 0]),
    "bbox of fractions": with_payload(bbox=[0.5, 0.5, 3.0, 3.0]),
    "bbox outside": with_payload(bbox=[150, 150, 40, 40]),
    "area negative": with_payload(area=-5),
    "area zero": with_payload(area=0),
    "area huge": with_payload(area=2**62),
    "added a word": with_payload(added="yesterday"),
    "added in year 99999": with_payload(added="99999-01-01T00:00:00+00:00"),
    "picture a path": with_payload(picture="../../x"),
    "segmentation empty": with_payload(segmentation={}),
    "segmentation of 2**40 pixels": with_payload(
        segmentation={"size": [2**20, 2**20], "counts": "0"}),
    "segmentation of other pixels": with_payload(segmentation={"size": [160, 160], "counts": "01"}),
    "segmentation that crashes C code": with_payload(
        segmentation={"size": [160, 160], "counts": "oooo1" * 99}),
    "segmentation of 5 MB": with_payload(
        segmentation={"size": [160, 160], "counts": "0" * 5_000_000}),
    "crop no text": with_payload(crop_webp=[1]),
    "crop no base64": with_payload(crop_webp="%%%%"),
    "crop a bomb": with_payload(crop_webp=webp_bomb()),
    "crop an animated bomb": with_payload(crop_webp=animated_bomb()),
    "crop of 5000 x 5000": with_payload(crop_webp=webp((5000, 5000), lossless=True)),
    "crop larger than its recipe": with_payload(
        crop_webp=webp((400, 300), lossless=True),
        crop_mask=encode_crop(np.ones((300, 400), bool)).decode()),
    "crop with losses": with_payload(crop_webp=webp((64, 64))),
    "crop_mask of another size": with_payload(crop_mask="03"),
    "crop_mask that crashes C code": with_payload(crop_mask="oooo1" * 99),
    "crop_scale 1e300": with_payload(crop_scale=1e300),
    "crop_scale 0": with_payload(crop_scale=0),
    "crop_scale 1e-300": with_payload(crop_scale=1e-300),
    "crop_window empty": with_payload(crop_window=[5, 5, 5, 5]),
    "crop_window huge": with_payload(crop_window=[0, 0, 10**30, 10**30]),
    "regions 100000": with_payload(surroundings=regions(100_000)),
    "regions of another length": with_payload(
        surroundings={**regions(1), "vectors": base64.b64encode(bytes(10)).decode()}),
    "regions outside": with_payload(surroundings={**regions(1), "boxes": [[0, 0, 9, 9999]]}),
    "background 100000": with_payload(background=small_crops(100_000)),
    "background that no vector is of": with_payload(background=small_crops(1)),
    "background a bomb": with_payload(background=small_crops(1, webp=webp_bomb())),
    "background of 200 x 200": with_payload(
        background=small_crops(1, webp=webp((200, 200), lossless=True))),
    "background of half a crop": with_payload(background=[{"webp": webp((8, 8), lossless=True)}]),
    "background window empty": with_payload(background=small_crops(1, window=[5, 5, 5, 5])),
    "batch a path": with_payload(batch="../x"),
    "batch in year 9999": with_payload(batch="99991231T235959.999999Z-00000000"),
    "before without end": with_payload(before=[{}] * 1000),
    "before deep": with_payload(before=[{"a": {"a": {"a": {"a": {"a": {"a": {}}}}}}}]),
    "before half": with_payload(before=[{"by": "", "id": ""}]),
    "another checksum": with_text("checksum", '"' + "0" * 32 + '"'),
    "checksum a number": with_text("checksum", "7"),
    "not what was stored": lambda members: {
        **members,
        EXAMPLES: members[EXAMPLES].replace(b'"label": "leaf"', b'"label": "loaf"'),
    },
    # vectors
    "vector zero": with_vector(0),
    "vector long": with_vector(7),
    "vector NaN": with_vector(np.nan),
    "vector infinite": with_vector(np.inf),
    "vectors pickled": with_vectors(lambda v: np.array([[Bomb()] * v.shape[1]] * len(v), object)),
    "vectors a pickle": with_member(VECTORS, pickle.dumps(Bomb())),
    "vectors of doubles": with_vectors(lambda v: v.astype(np.float64)),
    "vectors by columns": with_vectors(np.asfortranarray),
    "vectors flat": with_vectors(np.ravel),
    "vectors too long": with_vectors(lambda v: np.concatenate([v, v], axis=1)),
    "vectors too many": with_vectors(lambda v: np.concatenate([v, v])),
    "vectors too few": with_vectors(lambda v: v[:-1]),
    "vectors of 10**9 rows": with_member(
        VECTORS, lambda data: data.replace(b"(80, 4)", b"(999999999, 4)")),
    "vectors with code": with_member(
        VECTORS, lambda data: data.replace(b"(80, 4)", b"(__import__('os'),)")),
    "vectors deep": with_member(VECTORS, b"\x93NUMPY\x01\x00\xf4\x01" + b"(" * 500),
    # recipes
    "crop_side 100000": with_recipe(crop_side=100_000),
    "crop_side 0": with_recipe(crop_side=0),
    "crop_side -5": with_recipe(crop_side=-5),
    "occupancy 1e-6": with_recipe(occupancy=1e-6),
    "occupancy 0": with_recipe(occupancy=0),
    "occupancy -1": with_recipe(occupancy=-1),
    "dimension 10**9": with_recipe(dimension=10**9),
    "dimension 0": with_recipe(dimension=0),
    "sigma 0": with_recipe(fade_params={"sigma": 0}),
    "sigma 1e308": with_recipe(fade="blur", fade_params={"sigma": 1e308}),
    "sigma a word": with_recipe(fade_params={"sigma": "wide"}),
    "min_fade 7": with_recipe(fade_params={"min_fade": 7}),
    "decay 1e300": with_recipe(fade="exponential", fade_params={"decay": 1e300}),
    "fade_params without end": with_recipe(fade_params={f"a{i}": i for i in range(1000)}),
    "embedder with an escape": with_recipe(embedder="\x1b[2J\x1b[31m"),
    "embedder without end": with_recipe(embedder="x" * 40_000),
    "model deep": with_recipe(model={"a": {"b": {"c": 1}}}),
    "recipe with more": with_recipe(surprise=1),
    "recipe null": with_manifest(recipe=None),
    "manifest of another kind": with_manifest(kind="something"),
    "manifest of format 0": with_manifest(format_version=0),
    "manifest of format 10**17": with_manifest(format_version=10**17),
    "manifest a list": with_member(MANIFEST, b"[]"),
    "manifest deep": with_member(MANIFEST, b"[" * 60_000),
    "manifest of 100 KB": with_member(MANIFEST, b" " * 100_000 + b"{}"),
    "name with an escape": with_manifest(name="\x1b[2J"),
    "name without end": with_manifest(name="x" * 5000),
    "name a number": with_manifest(name=7),
    "generation a list": with_manifest(generation=[1]),
    # members
    "a member more": with_member("/etc/passwd", b"x"),
    "a member above": with_member("../../evil", b"x"),
    "no members": lambda members: {},
}  # fmt: skip
"""What the members are made into."""


# -- the zip is wrong ---------------------------------------------------------------------------


def _with_twice(members: Members) -> bytes:
    stream = io.BytesIO(zipped(members))
    with zipfile.ZipFile(stream, "a") as target, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        target.writestr(MANIFEST, b"{}")
    return stream.getvalue()


def _packed(method: int) -> Callable[[Members], bytes]:
    def made(members: Members) -> bytes:
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w", method) as target:
            for name, data in members.items():
                target.writestr(name, data)
        return stream.getvalue()

    return made


def _in_directory(members: Members, offset: int, value: bytes, of: str = VECTORS) -> bytes:
    """The file with some bytes of a member's entry in the directory changed."""
    whole = bytearray(zipped(members))
    start = 0
    while True:
        start = whole.index(b"PK\x01\x02", start + 1)
        if whole[start + 46 : start + 46 + len(of)] == of.encode():
            whole[start + offset : start + offset + len(value)] = value
            return bytes(whole)


def _overlapping(members: Members) -> bytes:
    """The manifest is packed in some bytes more, which are those of the next member; what packs it
    ends before."""
    whole = zipped(members)
    with zipfile.ZipFile(io.BytesIO(whole)) as opened:
        longer = struct.pack("<I", opened.getinfo(MANIFEST).compress_size + 60)
    return _in_directory(members, 20, longer, of=MANIFEST)


def _swollen(members: Members) -> bytes:
    """Rows of which each has 6 MB of no use, and is otherwise sound."""
    lines = members[EXAMPLES].splitlines()
    waste = b', "zzz": "' + b"x" * 6_000_000 + b'"}}\n'
    return zipped({**members, EXAMPLES: b"".join(line[:-2] + waste for line in lines)})


def _many_members(members: Members) -> bytes:
    stream = io.BytesIO(zipped(members))
    with zipfile.ZipFile(stream, "a") as target:
        for number in range(20_000):
            target.writestr(str(number), b"")
    return stream.getvalue()


def _bomb(name: str) -> Callable[[Members], bytes]:
    """A member of 300 MB of spaces, in 1 MB."""

    def made(members: Members) -> bytes:
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as target:
            for other, data in members.items():
                if other != name:
                    target.writestr(other, data)
            with target.open(name, "w", force_zip64=True) as into:
                for _ in range(300):
                    into.write(b" " * (1 << 20))
        return stream.getvalue()

    return made


FILES: dict[str, Callable[[Members], bytes]] = {
    "a member twice": _with_twice,
    "bzip2": _packed(zipfile.ZIP_BZIP2),
    "LZMA": _packed(zipfile.ZIP_LZMA),
    "encrypted": lambda m: _in_directory(m, 8, b"\x01"),
    "another compression": lambda m: _in_directory(m, 10, b"\x63"),
    "a member at another's place": lambda m: _in_directory(m, 42, b"\0\0\0\0"),
    "overlapping members": _overlapping,
    "swollen rows": _swollen,
    "a member that claims 4 GB": lambda m: _in_directory(m, 24, b"\xfe\xff\xff\xff"),
    "a member packed in 4 GB": lambda m: _in_directory(m, 20, b"\xfe\xff\xff\xff"),
    "a member of another checksum": lambda m: _in_directory(m, 16, b"\0\0\0\0"),
    "20000 members": _many_members,
    "bomb in the manifest": _bomb(MANIFEST),
    "bomb in the examples": _bomb(EXAMPLES),
    "bomb in the vectors": _bomb(VECTORS),
    "cut off": lambda m: zipped(m)[:-300],
    "cut in the middle": lambda m: zipped(m)[: len(zipped(m)) // 2],
    "directory of 4 GB": lambda m: zipped(m)[:-10] + b"\xfe\xff\xff\xff" + zipped(m)[-6:],
    "empty": lambda m: b"",
    "zeros": lambda m: bytes(100_000),
    "a picture": lambda m: base64.b64decode(webp((9, 9))),
    "a pickle": lambda m: pickle.dumps(Bomb()),
}
"""What the file is made into."""


def write_all(sound: Path, folder: Path) -> dict[str, Path]:
    """Every hostile file, by its name, in a folder."""
    members, files = grown(unzipped(sound)), {}
    made = {name: zipped(change(members)) for name, change in CHANGES.items()}
    made |= {name: change(members) for name, change in FILES.items()}
    for number, (name, data) in enumerate(made.items()):
        files[name] = folder / f"{number:03d}.zip"
        files[name].write_bytes(data)
    return files
