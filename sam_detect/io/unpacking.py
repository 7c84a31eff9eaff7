"""How large packed data become: told without unpacking more, so that few bytes fill no memory."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zlib
from typing import Any

FILES: dict[str, Any] = {"gzip": gzip.open, "bz2": bz2.open, "lzma": lzma.open}
SIZE_AT = {"blosc": 4, "lz4": 0}
"""Where data begin by saying their size, which their decoder trusts."""
PACKERS = {*FILES, *SIZE_AT, "zlib", "zstd"}


def fits(packer: str, data: bytes, most_bytes: int) -> bool:
    """Whether packed data give no more than so many bytes; raises what their decoder raises."""
    if packer in SIZE_AT:
        start = SIZE_AT[packer]
        return int.from_bytes(data[start : start + 4], "little") <= most_bytes
    if packer == "zlib":
        return len(zlib.decompressobj().decompress(data, most_bytes + 1)) <= most_bytes
    if packer in FILES:
        return len(FILES[packer](io.BytesIO(data)).read(most_bytes + 1)) <= most_bytes
    from numcodecs import zstd

    try:
        zstd.decompress(data, bytearray(most_bytes))
    except RuntimeError as error:
        return "got" in str(error)  # less than there is room for
    return True
