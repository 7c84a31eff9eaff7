"""Files that are either complete or not there."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
import weakref
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import IO, Any, BinaryIO

from sam_detect.errors import OutputError


class AtomicFile:
    """A file that appears at ``path``, whole, when :meth:`commit` is called.

    Until then its bytes are in a hidden file beside it, which is removed if they are given up.
    Missing parent folders are made. A link is written through, and a device or pipe (such as
    ``/dev/stdout``) is written to directly, since it must not be replaced.

    Raises:
        OutputError: the path is a folder, or cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._target = Path(os.path.realpath(path))
        self._temporary: Path | None = None
        try:
            mode = _mode_of(self._target)
            if mode is not None and stat.S_ISDIR(mode):
                raise OutputError(f"'{path}' is a folder; name a file in it to write to")
            if mode is None or stat.S_ISREG(mode):
                self._target.parent.mkdir(parents=True, exist_ok=True)
                self._temporary = self._target.with_name(f".sam-detect-{secrets.token_hex(8)}.tmp")
                # not tempfile: that makes files which only their owner may read
                flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | getattr(os, "O_BINARY", 0)
                self.file: BinaryIO = os.fdopen(os.open(self._temporary, flags, 0o666), "wb")
                if mode is not None:
                    os.chmod(self._temporary, stat.S_IMODE(mode))
            else:
                self.file = open(self._target, "wb", buffering=0)  # noqa: SIM115
        except (OSError, ValueError) as error:
            raise cannot_write(path, error) from error
        self._discard = weakref.finalize(self, _discard, self.file, self._temporary)

    @property
    def folder(self) -> Path | None:
        """Where its bytes are until then; None where they are written directly."""
        return None if self._temporary is None else self._temporary.parent

    def write(self, data: bytes) -> None:
        with writing_to(self.path):
            self.file.write(data)

    def commit(self) -> Path:
        """Puts the file in place and returns its path."""
        with writing_to(self.path):
            self.file.flush()
            if self._temporary is not None:
                os.fsync(self.file.fileno())
                self.file.close()
                os.replace(self._temporary, self._target)
            self._discard.detach()
            self.file.close()
        return self.path

    def discard(self) -> None:
        """Gives up what was written; nothing changes at ``path``."""
        self._discard()


def write_atomically(path: Path, write: Callable[[IO[bytes]], Any]) -> Path:
    """Has ``write`` fill a file that then appears at ``path`` whole; raises ``OutputError``."""
    output = AtomicFile(path)
    try:
        with writing_to(path):
            write(output.file)
        return output.commit()
    finally:
        output.discard()


@contextlib.contextmanager
def writing_to(path: Path | str) -> Any:
    """What the system refuses becomes an ``OutputError``; a reader who left stays a broken pipe."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise cannot_write(path, error) from error


def cannot_write(path: Path | str, error: Exception) -> OutputError:
    reason = getattr(error, "strerror", None) or " ".join(str(error).split())
    return OutputError(f"cannot write {str(path)!r}: {reason}; choose another place with --output")


class InputGuard:
    """Knows the files being read, so that none of them is overwritten."""

    def __init__(self, inputs: Iterable[str | os.PathLike[str]]) -> None:
        self._identities = {identity for path in inputs if (identity := _identity(path))}

    def add(self, picture: str) -> None:
        identity = _identity(picture)
        if identity is not None:
            self._identities.add(identity)

    def check(self, path: Path) -> None:
        """Raises ``OutputError`` where writing ``path`` would overwrite one."""
        if _identity(path) in self._identities:
            raise OutputError(f"'{path}' is being read; choose another name with --output")


def _identity(path: str | os.PathLike[str]) -> tuple[int, int] | None:
    """What a file is under all its names, links included; None for what does not exist."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return None
    return (found.st_dev, found.st_ino) if stat.S_ISREG(found.st_mode) else None


def _mode_of(path: Path) -> int | None:
    try:
        return path.stat().st_mode
    except FileNotFoundError:
        return None


def _discard(file: BinaryIO, temporary: Path | None) -> None:
    with contextlib.suppress(OSError):
        file.close()
    if temporary is not None:
        with contextlib.suppress(OSError):
            temporary.unlink()
