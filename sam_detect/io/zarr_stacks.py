"""Stacks in OME-Zarr (NGFF 0.1 to 0.5) on a disk, by ``zarr``.

What a folder says of itself is read and checked here, before ``zarr`` opens an array: paths stay
below the folder, values are plain numbers, and codecs are from a closed list (some run code).
"""

from __future__ import annotations

import itertools
import json
import math
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt

from sam_detect.errors import ImageError, one_line
from sam_detect.io._readers import at_once
from sam_detect.io.decoding import check_pixels
from sam_detect.io.physical_sizes import pixel_size
from sam_detect.io.stack_axes import Position
from sam_detect.io.unpacking import PACKERS, fits
from sam_detect.registry import needing_extra
from sam_detect.types import PixelSize

MARKS = (".zattrs", ".zgroup", "zarr.json")
ROLES = {"z": "z", "t": "t", "c": "channel"}
OLD_AXES = ("t", "c", "z", "y", "x")
"""Of NGFF 0.1 and 0.2, which name none."""
MAX_METADATA_BYTES = 1 << 24
MAX_CHUNK_BYTES = 1 << 30
SPARE_BYTES = 1 << 20
CHUNKS_AT_A_TIME = 10
"""So many are unpacked at once by ``zarr``."""
MOST_POSITIONS = 10_000
MOST_CHUNKS = 100_000
"""Of one plane."""
CODECS = frozenset({
    "blosc", "zlib", "gzip", "zstd", "lz4", "bz2", "lzma", "shuffle", "delta", "bytes", "crc32c",
    "crc32", "transpose", "sharding_indexed",
})  # fmt: skip
"""That give numbers and nothing else. Others, such as pickle, can run what a file says."""


def is_zarr(path: str | os.PathLike[str]) -> bool:
    """Whether a path is a folder that says it is a zarr."""
    return os.path.isdir(path) and any(os.path.isfile(os.path.join(path, m)) for m in MARKS)


@contextmanager
def open_zarr(name: str, *, max_pixels: int) -> Iterator[tuple[Sequence[Position], Sequence[str]]]:
    """The positions of an OME-Zarr, and the names of its channels.

    Raises:
        ImageError: it is no OME-Zarr image, is damaged or hostile, or its planes are too large.
    """
    notes = _notes(name, "")
    parts = [""]
    if "multiscales" not in notes:
        if "plate" in notes or "well" in notes:
            raise ImageError(f"'{name}' is a plate or a well: name a field of it, such as "
                             f"{name}/A/1/0")  # fmt: skip
        numbers = itertools.takewhile(
            lambda part: is_zarr(os.path.join(name, part)), map(str, range(MOST_POSITIONS))
        )
        parts = list(numbers) if "bioformats2raw.layout" in notes else []
        if not parts:
            raise ImageError(f"'{name}' is no OME-Zarr image: it has no 'multiscales'; name the "
                             "folder of an image")  # fmt: skip
    read = [(part, _notes(name, part)) for part in parts]
    positions = [_ZarrPosition(name, part, each, max_pixels) for part, each in read]
    yield positions, _channel_names(read[0][1])


class _ZarrPosition:
    colours = False

    def __init__(self, name: str, part: str, notes: Mapping[str, Any], max_pixels: int) -> None:
        try:
            image = notes["multiscales"][0]
            level = image["datasets"][0]  # level 0 is the full size
            self._array = _below(name, part, level["path"])
            self._shape = _checked_array(name, self._array)["shape"]
            axes, units = _axes(image, len(self._shape))
        except (KeyError, IndexError, TypeError, AttributeError) as error:
            raise ImageError(f"'{name}' is no OME-Zarr image that can be read: its 'multiscales' "
                             f"lack {error}; export it again") from error  # fmt: skip
        if axes[-2:] != ["y", "x"] or not set(axes[:-2]) <= set(ROLES) or (
            len(set(axes)) < len(axes) or len(axes) != len(self._shape)
        ):  # fmt: skip
            raise ImageError(f"'{name}': its axes {''.join(axes).upper()} do not fit an array of "
                             f"{len(self._shape)} axes; expected some of TCZ, then YX")  # fmt: skip
        check_pixels((self._shape[-1], self._shape[-2]), max_pixels, name)
        self._roles = [ROLES[axis] for axis in axes[:-2]]
        self.counts = {"z": 1, "t": 1, "channel": 1} | dict(
            zip(self._roles, self._shape[:-2], strict=True)
        )
        steps = _scale(image, len(axes)) * _scale(level, len(axes))
        by_axis = dict(zip(axes, zip(steps.tolist(), units, strict=True), strict=True))
        none = (None, None)
        (x, x_unit), (y, y_unit), (z, z_unit) = (by_axis.get(axis, none) for axis in "xyz")
        self.pixel_size_um: PixelSize | None = pixel_size(x, y, z, units=(x_unit, y_unit, z_unit))

    def locate(self, *, z: int, t: int, channel: int) -> ZarrPlane:
        at = {"z": z, "t": t, "channel": channel}
        return ZarrPlane(self._array, tuple(at[role] for role in self._roles))


@dataclass(frozen=True)
class ZarrPlane:
    """A plane of a zarr array: see :class:`~sam_detect.io.stack_axes.StoredPlane`.

    Attributes:
        array: the array's folder, below the stack's.
        index: of the axes before Y and X.
    """

    array: str
    index: tuple[int, ...]

    def read(self, path: str, name: str, max_pixels: int) -> npt.NDArray[Any]:
        with needing_extra("an OME-Zarr"):
            import zarr

        facts = _checked_array(path, self.array)
        check_pixels((facts["shape"][-1], facts["shape"][-2]), max_pixels, name)
        files = self._require_chunks(path, name, facts)
        needed = facts["chunk_bytes"] * min(len(files), CHUNKS_AT_A_TIME)
        if needed > 2 * MAX_CHUNK_BYTES:
            raise ImageError(f"{name}: its chunks are too large; export it with smaller ones")
        try:
            for file in files:
                self._require_fitting(file, facts)
            opened: Any = zarr.open_array(os.path.abspath(os.path.join(path, self.array)), mode="r")
            with at_once(needed):
                values: npt.NDArray[Any] = np.asarray(opened[self.index])
        except MemoryError as error:
            raise ImageError(f"{name} does not fit into memory; reduce it") from error
        except Exception as error:  # a damaged chunk makes codecs raise nearly anything
            raise ImageError(f"{name} is damaged ({one_line(error)[:200]}); copy or export the "
                             "stack again") from error  # fmt: skip
        if values.ndim != 2 or values.dtype.kind not in "buif":
            raise ImageError(f"{name}: its values have shape {values.shape} and type "
                             f"{values.dtype}, expected grey values; export it again")  # fmt: skip
        return values

    def _require_chunks(self, path: str, name: str, facts: Mapping[str, Any]) -> list[str]:
        """The files of the plane's chunks. Raises ``ImageError`` where none is there, and warns
        where some are not: a zarr leaves out chunks of its fill value, and so does a copy that
        broke off."""
        folder = os.path.join(path, self.array)
        chunks = facts["chunks"]
        grid = [
            [at // size] for at, size in zip(self.index, chunks[:-2], strict=True)
        ] + [
            list(range(math.ceil(extent / size)))
            for extent, size in zip(facts["shape"][-2:], chunks[-2:], strict=True)
        ]  # fmt: skip
        if math.prod(map(len, grid)) > MOST_CHUNKS:
            raise ImageError(f"{name} has more than {MOST_CHUNKS:,} chunks; export it with larger "
                             "ones")  # fmt: skip
        root, missing = os.path.realpath(path), []
        keys = [facts["prefix"] + facts["separator"].join(map(str, at)) for at in
                itertools.product(*grid)]  # fmt: skip
        for key in keys:
            file = os.path.join(folder, key)
            if not os.path.lexists(file):
                missing.append(key)
            elif not os.path.isfile(file) or (
                os.path.commonpath([root, os.path.realpath(file)]) != root
            ):  # fmt: skip
                raise ImageError(f"{name}: its chunk {self.array}/{key} is no file, or a link out "
                                 "of the stack; copy the file there")  # fmt: skip
        if len(missing) == len(keys):
            raise ImageError(f"{name} is missing: none of its {len(keys)} chunks is there (the "
                             f"first is {self.array}/{missing[0]}); copy or export the stack "
                             "again")  # fmt: skip
        if missing:
            warnings.warn(
                f"{name}: {len(missing)} of {len(keys)} chunks are missing (the first is "
                f"{self.array}/{missing[0]}) and read as {facts['fill']}; if they should be there, "
                "copy the stack again",
                stacklevel=2,
            )
        return [os.path.join(folder, key) for key in keys if key not in set(missing)]

    def _require_fitting(self, file: str, facts: Mapping[str, Any]) -> None:
        """Raises ``ValueError`` for a file of a chunk, or of a shard of several, that unpacks to
        more than there should be."""
        data = np.memmap(file, np.uint8, "r")
        if data.size > 2 * math.prod(facts["chunks"]) * facts["dtype"].itemsize + SPARE_BYTES:
            raise ValueError(f"{os.path.basename(file)} is larger than it should be")
        pieces, inner = [(0, data.size)], facts["inner"]
        if inner:  # a table of the offset and size of each
            grid = [size // part for size, part in zip(facts["chunks"], inner, strict=True)]
            last = data.size - 16 * math.prod(grid) - facts["checksum_bytes"]
            table = np.frombuffer(data, "<u8", 2 * math.prod(grid), facts["at_end"] * last)
            at = zip(self.index, facts["chunks"], inner, strict=False)
            own = tuple(index % size // part for index, size, part in at)
            pieces = table.reshape(*grid, 2)[own].reshape(-1, 2).tolist()
        for start, size in pieces:
            piece = data[start : start + size].tobytes()
            for packer in PACKERS.intersection(facts["codecs"]):
                if piece and not fits(packer, piece, facts["chunk_bytes"]):
                    raise ValueError(f"{os.path.basename(file)} unpacks to more than it should")


def _notes(name: str, part: str) -> dict[str, Any]:
    """The attributes of a group: OME's own, where they are of NGFF 0.5."""
    folder = Path(name, part)
    file = folder / "zarr.json"
    if file.exists():
        found = _json(file, name).get("attributes", {})
        return dict(found.get("ome", found)) if isinstance(found, dict) else {}
    file = folder / ".zattrs"
    return _json(file, name) if file.exists() else {}


def _json(file: Path, name: str) -> dict[str, Any]:
    """Raises ``ImageError`` for what is no JSON object, or lies outside the stack."""
    root = os.path.realpath(name)
    if os.path.commonpath([root, os.path.realpath(file)]) != root:
        raise ImageError(f"'{name}': {file.name} is a link out of the stack; copy the file there")
    try:
        if not file.is_file():  # reading a pipe may never end
            raise ImageError(f"'{name}': {file} is a pipe or device, expected a file")
        if file.stat().st_size > MAX_METADATA_BYTES:
            raise ImageError(f"'{name}': {file} is larger than {MAX_METADATA_BYTES >> 20} MiB")
        found = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise ImageError(f"'{name}': {file} cannot be read ({one_line(error)[:100]}); copy or "
                         "export the stack again") from error  # fmt: skip
    if not isinstance(found, dict):
        raise ImageError(f"'{name}': {file} is no JSON object; export the stack again")
    return found


def _below(name: str, part: str, path: Any) -> str:
    """The folder of an array, below the stack's.

    Raises:
        ImageError: the path leads elsewhere.
    """
    given = PurePosixPath(part, str(path))
    if not isinstance(path, str) or "\\" in path or given.is_absolute() or ".." in given.parts:
        raise ImageError(f"'{name}': its 'multiscales' name the path {str(path)[:60]!r}, which "
                         "leads out of it; export the stack again")  # fmt: skip
    root = os.path.realpath(name)
    if os.path.commonpath([root, os.path.realpath(os.path.join(name, given))]) != root:
        raise ImageError(f"'{name}': {given} is a link out of the stack, which is not followed")
    return str(given)


def _checked_array(name: str, array: str) -> dict[str, Any]:
    """What an array says of itself: ``shape``, ``chunks`` (of files), ``prefix`` and ``separator``
    of their names, and the ``fill`` value.

    Raises:
        ImageError: it is not there, or is not one of plain numbers.
    """
    folder = Path(name, array)
    new = (folder / "zarr.json").exists()
    if not new and not (folder / ".zarray").exists():
        raise ImageError(f"'{name}' has no array '{array}', which its 'multiscales' name; copy or "
                         "export the stack again")  # fmt: skip
    if new and (folder / ".zarray").exists():
        raise ImageError(f"'{name}': '{array}' is an array of zarr 2 and of zarr 3, expected one; "
                         "export the stack again")  # fmt: skip
    given = _json(folder / ("zarr.json" if new else ".zarray"), name)
    if (folder / ".zattrs").exists():  # which zarr reads, too
        _json(folder / ".zattrs", name)
    try:
        facts = _facts_v3(given) if new else _facts_v2(given)
        shape, chunks = facts["shape"], facts["chunks"]
        parts = facts["inner"] or chunks
        plain = all(type(n) is int and n > 0 for n in (*shape, *chunks, *parts))
        if not plain or len(shape) != len(chunks) or len(shape) < 2:
            raise ValueError(f"shape {shape} and chunks {chunks} do not fit")
        if facts["dtype"].kind not in "buif":
            raise ValueError(f"values of type {facts['dtype']}, expected numbers")
        if math.prod(chunks) * facts["dtype"].itemsize > MAX_CHUNK_BYTES:
            raise ValueError(f"chunks of more than {MAX_CHUNK_BYTES >> 20} MiB")
        packers = [codec for codec in facts["codecs"] if codec in PACKERS]
        if len(packers) > 1:
            raise ValueError(f"packed twice, by {packers[0]} and {packers[1]}")
        others = sorted(set(facts["codecs"]) - CODECS)
        if others:
            raise ValueError(f"the codec {others[0]!r:.40} is not read")
        value_bytes = 8 if "delta" in facts["codecs"] else facts["dtype"].itemsize
        facts["chunk_bytes"] = math.prod(parts) * value_bytes + 4  # and a check sum
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise ImageError(f"'{name}': its array '{array}' cannot be read ({one_line(error)[:150]}); "
                         "export the stack again") from error  # fmt: skip
    return facts


def _facts_v2(given: Mapping[str, Any]) -> dict[str, Any]:
    codecs = [given.get("compressor"), *(given.get("filters") or ())]
    separator = given.get("dimension_separator", ".")
    if separator not in (".", "/"):
        raise ValueError("its dimension_separator is not . or /")
    return {
        "shape": given["shape"], "chunks": given["chunks"], "dtype": np.dtype(str(given["dtype"])),
        "prefix": "", "separator": separator, "fill": given.get("fill_value"),
        "codecs": [each["id"] for each in codecs if each is not None], "inner": None,
    }  # fmt: skip


def _facts_v3(given: Mapping[str, Any]) -> dict[str, Any]:
    naming = given.get("chunk_key_encoding", {"name": "default"})
    old = naming["name"] == "v2"
    separator = naming.get("configuration", {}).get("separator", "." if old else "/")
    if separator not in (".", "/"):
        raise ValueError("its separator is not . or /")
    if given["chunk_grid"]["name"] != "regular" or given.get("storage_transformers"):
        raise ValueError("its grid of chunks is not regular")
    shards: Mapping[str, Any] = {}
    if any(each["name"] == "sharding_indexed" for each in given["codecs"]):
        (shards,) = (each["configuration"] for each in given["codecs"])
    return {
        "inner": shards.get("chunk_shape"),
        "checksum_bytes": 4 * ("crc32c" in _codecs(shards.get("index_codecs", ()))),
        "at_end": shards.get("index_location", "end") == "end",
        "shape": given["shape"], "chunks": given["chunk_grid"]["configuration"]["chunk_shape"],
        "dtype": np.dtype(str(given["data_type"])), "prefix": "" if old else f"c{separator}",
        "separator": separator, "fill": given.get("fill_value"),
        "codecs": list(_codecs(given["codecs"])),
    }  # fmt: skip


def _codecs(given: Any) -> Iterator[str]:
    """Names of codecs, and of those inside shards."""
    for each in given:
        yield str(each["name"]).removeprefix("numcodecs.")
        inner = each.get("configuration", {})
        yield from _codecs(inner.get("codecs", ()))
        yield from _codecs(inner.get("index_codecs", ()))


def _axes(image: Mapping[str, Any], count: int) -> tuple[list[str], list[Any]]:
    """Names and units of the axes."""
    given = image.get("axes")
    if given is None:
        return list(OLD_AXES)[-count:], [None] * count
    pairs = [(each, None) if isinstance(each, str) else (each["name"], each.get("unit"))
             for each in given]  # fmt: skip
    return [str(name).lower() for name, _ in pairs], [unit for _, unit in pairs]


def _scale(given: Mapping[str, Any], count: int) -> npt.NDArray[np.float64]:
    """From one value to the next along each axis."""
    for each in given.get("coordinateTransformations") or ():
        if isinstance(each, Mapping) and each.get("type") == "scale":
            found = each.get("scale")
            if isinstance(found, list) and len(found) == count and all(
                isinstance(n, (int, float)) for n in found
            ):  # fmt: skip
                return np.array(found, np.float64)
    return np.ones(count)


def _channel_names(notes: Mapping[str, Any]) -> list[str]:
    """The names that ``omero`` gives the channels; none where one lacks."""
    try:
        channels = notes["omero"]["channels"]
        names = [str(each["label"]) for each in channels]
    except (KeyError, TypeError):
        return []
    return [" ".join(each.split())[:40] for each in names]
