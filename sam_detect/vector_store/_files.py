"""The directory of an embedded library, and the one small file that says what is in it.

::

    NAME/
      library.json   manifest, name and vector length of the current shard, least number of points
      .lock, .queue  held by the process that uses the library, and by the next in line
      shard-3/       the engine's files; another shard-N is a leftover of a killed process
      kept/          what was made of the points, and can be made again

``library.json`` is replaced in one step, so whatever it names is complete. It is made before the
first shard and removed after the last: shards without it are damage, never leftovers.
"""

from __future__ import annotations

import ctypes
import errno
import hashlib
import json
import mmap
import os
import re
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from sam_detect.errors import ConfigError, LibraryCorruptError, SamDetectError, StoreError

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

M_ARENA_MAX = -8
"""Of glibc's ``malloc.h``."""
FORMAT = "sam-detect embedded library"
FORMAT_VERSION = 1
STATE_FILE = "library.json"
MAX_STATE_BYTES = 1 << 20
"""Thousands of times what a manifest takes."""
TEMPORARY_SUFFIX = ".new"
NAME_PATTERN = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,99}")
SHARD_PATTERN = re.compile(r"shard-([0-9]+)")
BLOCK = 1 << 20
DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True)
class State:
    """What ``library.json`` says.

    Attributes:
        manifest: the caller's manifest, or None before it was written.
        shard: name of the shard directory, or None while there are no points.
        dimension: length of the shard's vectors, or None without a shard.
        least_points: a number of points that the shard is known to have reached and not to have
            fallen below; fewer mean damage.
    """

    manifest: dict[str, Any] | None = None
    shard: str | None = None
    dimension: int | None = None
    least_points: int = 0


def check_name(name: str) -> str:
    """The collection's name, if it can name a directory (and a server's collection).

    Raises:
        ConfigError: it has other characters, begins with a dot, is empty or too long.
    """
    if not isinstance(name, str) or not NAME_PATTERN.fullmatch(name):
        raise ConfigError(
            f"a library's name has 1 to 100 letters, digits, spaces, '_', '-' or '.', and no dot "
            f"in front (letters that are not ASCII count several times); got {name!r}"
        )
    return name


class LibraryFiles:
    """Reads and writes a library's directory. Everything that writes needs the lock.

    Args:
        directory: of this library; need not exist.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._state_path = directory / STATE_FILE
        self.lock_path, self.queue_path = directory / ".lock", directory / ".queue"
        self.kept_path = directory / "kept"

    def exists(self) -> bool:
        """Whether there is a library, damaged ones included.

        Raises:
            StoreError: the directory cannot be read, or it is a file.
        """
        with self.errors("read"):
            if self._state_path.is_file():
                return True
            try:
                return bool(self.shards())
            except (FileNotFoundError, NotADirectoryError):
                self._check_place()
                return False

    def read_state(self) -> State | None:
        """None where there is no library.

        Raises:
            LibraryCorruptError: ``library.json`` is damaged, or missing where there are shards.
        """
        if not self.exists():
            return None
        with self.errors("read"):
            try:
                with open(self._state_path, "rb") as file:
                    text = file.read(MAX_STATE_BYTES + 1)
            except FileNotFoundError:
                raise self.corrupt(f"{STATE_FILE} is missing") from None
        if len(text) > MAX_STATE_BYTES:
            raise self.corrupt(f"{STATE_FILE} is larger than {MAX_STATE_BYTES} bytes")
        return self._parse(text)

    def write_state(self, state: State) -> None:
        """Replaces ``library.json`` in one step; it is on disk when this returns."""
        content = {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "data": {
                "shard": state.shard,
                "dimension": state.dimension,
                "least_points": state.least_points,
            },
            "manifest": state.manifest,
        }
        try:
            content["checksum"] = _checksum(content)
            text = json.dumps(content, allow_nan=False, indent=1).encode("utf-8")
        except (TypeError, ValueError) as error:
            raise StoreError(f"a manifest must be plain JSON data: {error}") from error
        with self.errors("written"):
            temporary = self.directory / (STATE_FILE + TEMPORARY_SUFFIX)
            with open(temporary, "wb") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, self._state_path)
            sync_directory(self.directory)

    def shards(self) -> dict[str, int]:
        """Name to number of every shard directory, the current one and leftovers."""
        matches = (SHARD_PATTERN.fullmatch(path.name) for path in self.directory.iterdir())
        return {match[0]: int(match[1]) for match in matches if match}

    def shard_path(self, state: State) -> Path:
        """The current shard's directory.

        Raises:
            LibraryCorruptError: it is not there.
        """
        path = self.directory / str(state.shard)
        if not path.is_dir():
            raise self.corrupt(f"{state.shard} is missing")
        return path

    def new_shard(self) -> Path:
        """A directory name that no shard has."""
        return self.directory / f"shard-{max(self.shards().values(), default=0) + 1}"

    def sweep(self, state: State) -> None:
        """Removes what a killed process left: shards that ``library.json`` does not name."""
        with self.errors("written"):
            for name in self.shards():
                path = self.directory / name
                if name != state.shard and path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                elif name != state.shard:
                    path.unlink()

    def may_be_written(self) -> bool:
        """Whether this process may write the library's files, as far as they are there."""
        shards = self.directory.glob("shard-*")
        found = [self.directory, self._state_path, self.lock_path, self.queue_path]
        for shard in shards:
            found += [shard, *shard.glob("*"), *shard.glob("wal/*")]
        return all(os.access(path, os.W_OK) for path in found if path.exists())

    def remove(self) -> None:
        """Removes the library; a kill in between leaves it whole, empty, or gone."""
        self.write_state(State())
        self.sweep(State())
        shutil.rmtree(self.kept_path, ignore_errors=True)
        with self.errors("written"):
            (self.directory / (STATE_FILE + TEMPORARY_SUFFIX)).unlink(missing_ok=True)
            self._state_path.unlink()

    def size_bytes(self) -> int:
        """Bytes that the files take on disk (sparse files take less than their length)."""
        total = 0
        for folder, _, names in os.walk(self.directory):
            for name in names:
                with suppress(FileNotFoundError):  # another process just removed it
                    found = os.lstat(os.path.join(folder, name))
                    total += getattr(found, "st_blocks", -(-found.st_size // 512)) * 512
        return total

    def require_space(self, needed: int) -> None:
        """Raises ``StoreError`` unless so many bytes are free.

        The engine writes through memory maps, where a full disk ends the process (SIGBUS)
        instead of raising an error: it must be seen beforehand.
        """
        with self.errors("read"):
            free = shutil.disk_usage(self.directory).free
        if free < needed:
            raise self.disk_full(f"{free / 1e6:.1f} MB are free, {needed / 1e6:.1f} MB are needed")

    def require_memory(self, needed: int) -> None:
        """Raises ``StoreError`` unless so much of a limit on this process's memory is left.

        Where memory ends, the engine writes a backtrace, for which it needs memory, and waits for
        itself without end: that must be seen beforehand.
        """
        if not _memory_is_limited():
            return
        try:
            # Not writable, so that only a limit refuses it, and no guess of what memory there is.
            flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
            mmap.mmap(-1, needed, flags=flags, prot=mmap.PROT_READ).close()
        except (OSError, ValueError) as error:
            why = f"less than {needed >> 20} MB are left of this process's limit"
            raise self.out_of_memory(why) from error

    # -- errors ------------------------------------------------------------------------------

    def corrupt(self, why: str) -> LibraryCorruptError:
        remedy = (
            # It holds the recipe, without which no vector has a meaning: nothing can be repaired.
            "restore it from an export, and before that move the directory away"
            if why.startswith(STATE_FILE)
            else "save what is left with 'sam-detect library repair', restore it from an export, "
            "or move the directory away"
        )
        return LibraryCorruptError(
            f"the library in {self.directory} is damaged ({why}); nothing was changed: {remedy}"
        )

    def out_of_memory(self, why: str) -> StoreError:
        return StoreError(
            f"there is not enough memory to use the library in {self.directory} ({why}); nothing "
            "was changed: end other programs, or raise the limit (ulimit -v)"
        )

    def disk_full(self, why: str) -> StoreError:
        return StoreError(
            f"the disk of the library in {self.directory} is full ({why}); what was acknowledged "
            f"is kept: free some space and try again"
        )

    @contextmanager
    def errors(self, action: str) -> Iterator[None]:
        """Turns errors of the operating system into ours: it "cannot be read", or "written"."""
        try:
            yield
        except SamDetectError:
            raise
        except OSError as error:
            if error.errno in DISK_FULL:
                raise self.disk_full(error.strerror or "no space left") from error
            if isinstance(error, NotADirectoryError):
                raise self._not_a_directory() from error
            raise StoreError(
                f"the library in {self.directory} cannot be {action}: "
                f"{error.strerror or error}; check the directory and its permissions, or choose "
                f"another with SAM_DETECT_HOME"
            ) from error

    def _check_place(self) -> None:
        for folder in (self.directory, *self.directory.parents):
            # Each is read once: another process may make or remove the directory between two.
            try:
                mode = folder.lstat().st_mode
            except (FileNotFoundError, NotADirectoryError):
                continue
            if stat.S_ISDIR(mode) or (stat.S_ISLNK(mode) and folder.is_dir()):
                return
            raise self._not_a_directory(folder)

    def _not_a_directory(self, path: Path | None = None) -> StoreError:
        return StoreError(
            f"{path or self.directory} must be a directory to hold the library "
            f"'{self.directory.name}', and is not; move it away, or choose another place with "
            "SAM_DETECT_HOME"
        )

    def _parse(self, text: bytes) -> State:
        try:
            content = json.loads(text)
            checksum = content.pop("checksum", None)  # None: an older version wrote it
            ours = content["format_version"] == FORMAT_VERSION
            if ours and checksum not in (None, _checksum(content)):
                raise ValueError
            version, data, manifest = (content[k] for k in ("format_version", "data", "manifest"))
            state = State(manifest, data["shard"], data["dimension"], data["least_points"])
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise self.corrupt(f"{STATE_FILE} is not as it was written") from error
        if version != FORMAT_VERSION:
            raise StoreError(
                f"the library in {self.directory} has format {version!r}, this version reads "
                f"{FORMAT_VERSION}; use the sam-detect that made it, or a newer one"
            )
        sound = isinstance(manifest, dict | None) and isinstance(state.least_points, int)
        if state.shard is not None:
            named = isinstance(state.shard, str) and SHARD_PATTERN.fullmatch(state.shard)
            sound = bool(sound and named and isinstance(state.dimension, int))
        if not sound:
            raise self.corrupt(f"{STATE_FILE} has unexpected content")
        return state


def _memory_is_limited() -> bool:
    """Whether this process has a limit on its memory; prepares it for that at the first call."""
    if resource is None:
        return False
    limits = [resource.getrlimit(kind)[0] for kind in (resource.RLIMIT_AS, resource.RLIMIT_DATA)]
    if all(limit == resource.RLIM_INFINITY for limit in limits):
        return False
    _use_one_arena()
    return True


@cache
def _use_one_arena() -> None:
    """Keeps glibc from setting 64 MB aside for each thread, which a limit counts as used."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(M_ARENA_MAX, 1)


def is_library_folder(folder: Path) -> bool:
    """Whether a folder holds an embedded library, perhaps a damaged one."""
    try:
        with open(folder / STATE_FILE, "rb") as file:
            if FORMAT.encode() in file.read(4096):
                return True
    except (OSError, ValueError):
        pass
    try:
        return any((shard / "segments").is_dir() for shard in folder.glob("shard-[0-9]*"))
    except OSError:
        return False


def _checksum(content: dict[str, Any]) -> str:
    text = json.dumps(content, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def copy_without_holes(source: str, target: str) -> None:
    """Copies a file, and leaves out what is zero: the engine's files are mostly that."""
    with open(source, "rb") as old, open(target, "wb") as new:
        while block := old.read(BLOCK):
            if block.count(0) == len(block):
                new.seek(len(block), os.SEEK_CUR)
            else:
                new.write(block)
        new.truncate(new.tell())


def sync_directory(directory: Path) -> None:
    """Makes renames in a directory durable, where the system can."""
    if os.name != "posix":
        return
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
