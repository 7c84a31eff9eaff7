"""The pictures of requests: written to files, and read by the readers that read all pictures, which
check what they are before they decode them."""

from __future__ import annotations

import base64
import binascii
import contextlib
import math
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from sam_detect.api import SAMDetect
from sam_detect.errors import ImageError
from sam_detect.io.images import picture_size
from sam_detect.server.client_texts import called
from sam_detect.types import Frame

LONGEST_NAME = 200


@dataclass(frozen=True)
class Upload:
    """A picture that came with a request.

    Attributes:
        name: as the client calls it; shown, and never used as a path.
        path: of the file that holds it for now.
    """

    name: str
    path: str

    def read(self, detector: SAMDetect) -> Frame:
        """The picture; raises ``ImageError`` where it is none, or is too large."""
        with called(self.path, self.name):
            frame = detector.read(self.path)
        return replace(frame, source_id=self.name)

    def pixels(self, most: int) -> int:
        """How many its header says; 0 for what :meth:`read` refuses, such as more than ``most``."""
        with contextlib.suppress(ImageError):
            return math.prod(picture_size(self.path, max_pixels=most))
        return 0


@contextmanager
def stored(pictures: Sequence[tuple[str, bytes]]) -> Iterator[list[Upload]]:
    """Names and contents as files, while the block runs."""
    with tempfile.TemporaryDirectory(prefix="sam-detect-") as folder:
        yield written(pictures, Path(folder))


def written(pictures: Sequence[tuple[str, bytes]], folder: Path) -> list[Upload]:
    """Names and contents as files in a folder; raises ``OSError`` where they cannot be written."""
    found = []
    for index, (name, data) in enumerate(pictures):
        (folder / str(index)).write_bytes(data)
        found.append(Upload(shown_name(name, index), str(folder / str(index))))
    return found


def shown_name(name: str | None, index: int) -> str:
    """A name to show: without folders, printable, and not too long."""
    last = PurePosixPath((name or "").replace("\\", "/")).name
    printable = "".join(c if c.isprintable() else "?" for c in last)[:LONGEST_NAME]
    return printable or f"image-{index}"


def decoded(data: str) -> bytes:
    """What base64 says; raises ``ImageError`` where it is none."""
    with contextlib.suppress(binascii.Error, ValueError):
        return base64.b64decode(data.partition(",")[2] if data[:5] == "data:" else data,
                                validate=True)  # fmt: skip
    raise ImageError("the picture is no base64")
