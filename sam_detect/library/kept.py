"""What was made of a library's examples, kept in its folder for the next process.

Reading and fitting thousands of examples takes seconds, and each process would do it again. A kept
file holds one object under a key that names the examples (the library's generation) and whatever
else it depends on. It is written in one step. A file with another key, a damaged one or none is
nothing worse than the work done again: it is never an error, and what is in it is never executed.

::

    8 bytes   FORMAT
    4 bytes   CRC-32 of all that follows
    8 bytes   length of the header
    header    JSON: the key, the object, and of each array its dtype, shape and place
    arrays    each at a multiple of 64 bytes

An object is a dataclass of plain values, arrays, other such dataclasses, and mappings and
sequences of these. :func:`to_plain` and :func:`from_plain` go by its annotations, so that a new
field is kept as the others are.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import mmap
import os
import secrets
import sys
import types
import typing
import zlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
import numpy.typing as npt

FORMAT = b"SDKEPT 1"
ALIGNMENT = 64
HEAD_BYTES = len(FORMAT) + 4 + 8
SUFFIX = ".kept"
MOST_FITS = 4
"""So many fits are kept of a library (one for each labeller); the oldest give way."""
MOST_WRITERS = 8
"""So many processes may write at once; older files than theirs are leftovers."""

Form = TypeVar("Form")
Array = npt.NDArray[Any]


class KeptFiles:
    """The kept files of one library.

    Args:
        folder: where they are; made with the first. None: nothing is kept.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder

    def read(self, name: str, key: str, form: type[Form]) -> Form | None:
        """The object that was kept under this name and key; None where there is none, or where it
        is damaged. Its arrays are mapped, and may not be written."""
        if self._folder is None:
            return None
        try:
            with open(self._folder / (name + SUFFIX), "rb") as file:
                content = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
            plain, arrays = _parsed(content, _full_key(key, form))
            return cast(Form, from_plain(form, plain, arrays))
        except (OSError, ValueError, KeyError, TypeError, IndexError, RecursionError):
            return None

    def write(self, name: str, key: str, kept: Any) -> None:
        """Keeps an object, in place of what has this name. Where that is not possible (a full disk,
        a folder that may only be read, a library that was just removed) nothing is kept."""
        if self._folder is None:
            return
        arrays: list[Array] = []
        plain = to_plain(kept, arrays)
        temporary = self._folder / f".{name}-{os.getpid()}-{secrets.token_hex(4)}"
        with suppress(OSError):
            # Not its parents: they went with the library.
            self._folder.mkdir(exist_ok=True)
            try:
                _write(temporary, _full_key(key, type(kept)), plain, arrays)
                os.replace(temporary, self._folder / (name + SUFFIX))
            finally:
                temporary.unlink(missing_ok=True)
            self._sweep()

    def _sweep(self) -> None:
        """Removes the oldest of many fits, and what killed processes left."""
        assert self._folder is not None  # noqa: S101 - for mypy
        for pattern, most in (("fit-*" + SUFFIX, MOST_FITS), (".*", MOST_WRITERS)):
            found = sorted(self._folder.glob(pattern), key=lambda path: path.stat().st_mtime)
            for path in found[:-most]:
                path.unlink(missing_ok=True)


def _full_key(key: str, form: type) -> str:
    """The key with the code that makes such objects: other code would make another one."""
    return f"{key} {_code_of(form.__module__)}"


@cache
def _code_of(module: str) -> str:
    """A digest of the sources of the package that a module is in."""
    digest = hashlib.blake2b(digest_size=16)
    for path in sorted(Path(str(sys.modules[module].__file__)).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _write(path: Path, key: str, plain: Any, arrays: Sequence[Array]) -> None:
    packed = [np.ascontiguousarray(each) for each in arrays]
    places, end = [], 0
    for each in packed:
        places.append({"dtype": each.dtype.str, "shape": each.shape, "start": end})
        end += -(-each.nbytes // ALIGNMENT) * ALIGNMENT
    header = json.dumps({"key": key, "content": plain, "arrays": places}).encode()
    header += b" " * (-(HEAD_BYTES + len(header)) % ALIGNMENT)
    length = len(header).to_bytes(8, "little")
    checksum = zlib.crc32(header, zlib.crc32(length))
    with open(path, "wb") as file:
        file.write(FORMAT + bytes(4) + length + header)
        for each in packed:
            padded = (each.reshape(-1).view(np.uint8).data, bytes(-each.nbytes % ALIGNMENT))
            for part in padded:
                checksum = zlib.crc32(part, checksum)
                file.write(part)
        file.seek(len(FORMAT))
        file.write(checksum.to_bytes(4, "little"))


def _parsed(content: memoryview, key: str) -> tuple[Any, list[Array]]:
    """The object as plain data, and its arrays; raises ``ValueError`` for another file."""
    if content[: len(FORMAT)] != FORMAT or len(content) < HEAD_BYTES:
        raise ValueError("another format")
    start = HEAD_BYTES + int.from_bytes(content[HEAD_BYTES - 8 : HEAD_BYTES], "little")
    # Before the whole is checked: most files that are not wanted are of other examples.
    header = json.loads(bytes(content[HEAD_BYTES:start]))
    if header["key"] != key:
        raise ValueError("another key")
    checksum = int.from_bytes(content[len(FORMAT) : len(FORMAT) + 4], "little")
    if zlib.crc32(content[len(FORMAT) + 4 :]) != checksum:
        raise ValueError("damaged")
    arrays = []
    for each in header["arrays"]:
        dtype, shape = np.dtype(each["dtype"]), tuple(each["shape"])
        if dtype.hasobject:
            raise ValueError("no plain array")
        count = int(np.prod(shape, dtype=np.int64))
        flat = np.frombuffer(content, dtype, count, start + each["start"]) if count else ()
        arrays.append(np.asarray(flat, dtype).reshape(shape))
    return header["content"], arrays


# -- objects as plain data ---------------------------------------------------------------------


def to_plain(value: Any, arrays: list[Array]) -> Any:
    """JSON data for a value; its arrays are added to ``arrays``, and their places stand for them.

    Raises:
        TypeError: there is something in it that cannot be kept.
    """
    if isinstance(value, np.ndarray) and not value.dtype.hasobject:
        arrays.append(value)
        return len(arrays) - 1
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = dataclasses.fields(value)
        return [to_plain(getattr(value, field.name), arrays) for field in fields]
    if isinstance(value, Mapping):
        return [[to_plain(k, arrays), to_plain(v, arrays)] for k, v in value.items()]
    if isinstance(value, (list, tuple)):
        if all(type(each) is str for each in value):  # of thousands of examples
            return list(value)
        return [to_plain(each, arrays) for each in value]
    if value is None or isinstance(value, (str, bool, int, float)):
        return value.item() if isinstance(value, np.generic) else value
    raise TypeError(
        f"{type(value).__name__} cannot be kept: only plain values, arrays, dataclasses"
    )


def from_plain(form: Any, plain: Any, arrays: Sequence[Array]) -> Any:
    """The value of type ``form`` that :func:`to_plain` was given.

    Raises:
        TypeError, ValueError, IndexError: the data is not of that type.
    """
    origin, inner = typing.get_origin(form), typing.get_args(form)
    if origin in (typing.Union, types.UnionType):
        if plain is None:
            return None
        [one] = [each for each in inner if each is not type(None)]
        return from_plain(one, plain, arrays)
    if form is np.ndarray or origin is np.ndarray:
        return arrays[plain]
    if dataclasses.is_dataclass(form):
        known = _annotations(cast(type, form))
        named = zip(known.items(), plain, strict=True)
        return cast(Any, form)(**{n: from_plain(f, each, arrays) for (n, f), each in named})
    if origin in (dict, Mapping, _MAPPING):
        key, value = inner
        return {from_plain(key, k, arrays): from_plain(value, v, arrays) for k, v in plain}
    if origin is tuple and inner[-1] is not ...:
        pairs = zip(inner, plain, strict=True)
        return tuple(from_plain(one, each, arrays) for one, each in pairs)
    if origin in (tuple, list, _SEQUENCE):
        if inner[0] in (str, int, bool):  # of thousands of examples
            if not all(type(each) is inner[0] for each in plain):
                raise TypeError(f"not all are {inner[0]}")
            return (list if origin is list else tuple)(plain)
        return (list if origin is list else tuple)(from_plain(inner[0], p, arrays) for p in plain)
    if form is float and isinstance(plain, (int, float)):
        return float(plain)
    if not isinstance(form, type) or not isinstance(plain, form):
        raise TypeError(f"{plain!r:.40} is no {form}")
    return plain


_MAPPING, _SEQUENCE = typing.get_origin(Mapping[str, int]), typing.get_origin(Sequence[int])


@cache
def _annotations(form: type) -> dict[str, Any]:
    hints = typing.get_type_hints(form)
    return {field.name: hints[field.name] for field in dataclasses.fields(form)}
