"""What the last run with a library said of its parts: it is said again only when it changes.

It is a convenience: a file that cannot be read or written is no error, and where two processes
write it at once, one of them says its line once more.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from pathlib import Path

from sam_detect.config import home_dir
from sam_detect.errors import OutputError
from sam_detect.io import write_atomically

FILE = "announced.json"
MOST_BYTES = 100_000
MOST_LIBRARIES = 200


def changed(library: str, text: str, *, make_home: bool) -> bool:
    """Whether the last run with this library said something else; remembers what this one says.

    Args:
        library: what tells it from others.
        text: what is said. Only digests of both are kept.
        make_home: whether the folder of all state may be made for it.
    """
    key, value = _digest(library), _digest(text)
    try:
        path = home_dir() / FILE
        said = _read(path)
        if said.get(key) == value:
            return False
        writable = path.is_file() or not os.path.lexists(path)  # a pipe would not let it go on
        if writable and (make_home or path.parent.is_dir()):
            said.pop(key, None)
            kept = dict([*said.items(), (key, value)][-MOST_LIBRARIES:])
            data = json.dumps(kept).encode()
            with contextlib.suppress(OutputError):
                write_atomically(path, lambda file: file.write(data))
    except OSError:
        pass
    return True


def _read(path: Path) -> dict[str, str]:
    try:
        if not path.is_file() or os.path.getsize(path) > MOST_BYTES:
            return {}
        said = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    rows = said.items() if isinstance(said, dict) else ()
    return {key: value for key, value in rows if isinstance(value, str)}


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:16]
