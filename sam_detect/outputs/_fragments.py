"""Repairs an MP4 in fragments whose writing broke off: what is whole of it plays."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

HEADER = struct.Struct(">I4s")
"""A box begins with its length and its kind (ISO/IEC 14496-12, 4.2)."""
FRAGMENT = b"moof"


def cut_to_whole(path: Path) -> None:
    """Takes away a last fragment that is not whole: players may stumble over it.

    Raises:
        OSError: the file cannot be read or cut.
    """
    with path.open("r+b") as file:
        file.truncate(_whole_bytes(file))


def _whole_bytes(file: BinaryIO) -> int:
    """Where the last whole box ends; a fragment's pictures, the box after it, belong to it."""
    boxes = list(boxes_of(file))
    if boxes and boxes[-1][0] == FRAGMENT:
        return boxes[-1][1]
    return boxes[-1][2] if boxes else 0


def boxes_of(file: BinaryIO) -> Iterator[tuple[bytes, int, int]]:
    """``(kind, start, end)`` of the boxes that are whole, in their order."""
    size = file.seek(0, 2)
    start = 0
    while start + HEADER.size <= size:
        file.seek(start)
        length, kind = HEADER.unpack(file.read(HEADER.size))
        if length < HEADER.size or start + length > size:
            return
        yield kind, start, start + length
        start += length
