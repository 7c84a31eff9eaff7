"""Fetches one file over HTTP, so that whatever breaks can be continued and nothing is half there.

The bytes go to ``FILE.part``; a JSON beside that says which version of the remote file they are
of (its ETag or date), so that only the same version is continued (``If-Range``).
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

import httpx

from sam_detect.errors import ConfigError, DownloadError, one_line
from sam_detect.models.records import write_json

ATTEMPTS = 5
"""A transfer that breaks is taken up again at once, as long as each attempt brings bytes."""
PAUSE_S = 1.0
SPARE_BYTES = 1 << 24
"""Free space that is left on the disk: records, and whoever else writes."""
FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True)
class Remote:
    """A file on a server.

    Attributes:
        sha256: what its source publishes (64 hexadecimal digits), or None.
        headers: to send to this server, and to none that it redirects to.
    """

    url: str
    sha256: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def host(self) -> str:
        return urlsplit(self.url).netloc


class Watcher(Protocol):
    """Who is told how a download goes."""

    def say(self, text: str) -> None:
        """One line for people."""

    def progressed(self, done: int, total: int | None) -> None:
        """So many bytes are here, of so many (None: unknown)."""

    def checked(self, done: int, total: int) -> None:
        """So many bytes of a file that is here were read to check it."""


class _BrokenError(Exception):
    """The transfer ended early; what came is kept."""


class _OutdatedError(Exception):
    """The part here is of another version of the file."""


@dataclass(frozen=True)
class _Version:
    """Which version of which file a part is of."""

    url: str
    validator: str | None
    """A strong ETag, or the date of the last change, for ``If-Range``."""
    total: int | None


def part_path(path: Path) -> Path:
    """Where the bytes of an unfinished download are kept."""
    return path.with_name(f"{path.name}.part")


def transfer(remote: Remote, path: Path, *, timeout_s: float, watcher: Watcher) -> Path:
    """Fetches a file into ``path.part``, continuing what is there; returns that path.

    Args:
        timeout_s: longest silence of the server.

    Raises:
        DownloadError: no network, no answer, no such file, no space, or a transfer that broke; the
            message says which and what to do. What came is kept for the next attempt.
        ConfigError: the URL is none.
    """
    part = part_path(path)
    with _client(timeout_s) as client, _explained(remote, part, timeout_s):
        for attempt in range(1, ATTEMPTS + 1):
            before = _size(part)
            try:
                _attempt(client, remote, part, watcher)
                break
            except _OutdatedError:
                discard_part(path)
            except (_BrokenError, httpx.ReadError, httpx.RemoteProtocolError, httpx.ReadTimeout):
                if attempt == ATTEMPTS or _size(part) <= before:
                    raise
                watcher.say(f"the connection broke{_so_far(part)}: taking it up again")
                time.sleep(PAUSE_S)
    return part


def discard_part(path: Path) -> None:
    """Removes what an unfinished download of ``path`` left."""
    part = part_path(path)
    part.unlink(missing_ok=True)
    _version_path(part).unlink(missing_ok=True)


def keep_part(path: Path) -> None:
    """Puts a finished download in its place, in one step."""
    part = part_path(path)
    os.replace(part, path)
    _version_path(part).unlink(missing_ok=True)


def _client(timeout_s: float) -> httpx.Client:
    return httpx.Client(follow_redirects=True, timeout=httpx.Timeout(timeout_s))


def _attempt(client: httpx.Client, remote: Remote, part: Path, watcher: Watcher) -> None:
    """One request; ends when the part is complete."""
    version, have = _read_version(part, remote.url), _size(part)
    if version is not None and have and version.total == have:
        return
    # The bytes are counted and checked as they are: no compression on the way.
    headers = {**remote.headers, "Accept-Encoding": "identity"}
    if version is not None and version.validator and have:
        headers |= {"Range": f"bytes={have}-", "If-Range": version.validator}
    with client.stream("GET", remote.url, headers=headers) as response:
        offset, total = _where(response, version, have)
        _require_space(part, None if total is None else total - offset)
        if offset == 0:
            part.unlink(missing_ok=True)
            write_json(_version_path(part), asdict(_version(remote.url, response, total)))
        _receive(response, part, offset, total, watcher)


def _where(response: httpx.Response, version: _Version | None, have: int) -> tuple[int, int | None]:
    """From which byte on the answer goes, and how long the whole file is."""
    if response.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
        raise _OutdatedError
    response.raise_for_status()
    kind = response.headers.get("Content-Type", "")
    encoded = response.headers.get("Content-Encoding", "identity") != "identity"
    if kind.startswith("text/html") or encoded:
        raise DownloadError(
            f"{response.url.host} answered with a web page instead of a file, as networks do that "
            f"want a login: open {response.url.scheme}://{response.url.host} in a browser"
        )
    if response.status_code != httpx.codes.PARTIAL_CONTENT:
        length = response.headers.get("Content-Length")
        return 0, int(length) if length and length.isdecimal() else None
    given = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", response.headers.get("Content-Range", ""))
    if given is None or int(given[1]) != have or version is None or version.total != int(given[2]):
        raise _OutdatedError
    return have, int(given[2])


def _receive(
    response: httpx.Response, part: Path, offset: int, total: int | None, watcher: Watcher
) -> None:
    done = offset
    with part.open("ab") as file:
        try:
            for chunk in response.iter_raw():
                file.write(chunk)
                done += len(chunk)
                watcher.progressed(done, total)
        finally:
            file.flush()
        os.fsync(file.fileno())
    if total is not None and done != total:
        raise _BrokenError


def _require_space(part: Path, needed: int | None) -> None:
    free = shutil.disk_usage(part.parent).free
    if needed is not None and free < needed + SPARE_BYTES:
        raise _no_space(part, f"{needed / 1e6:.0f} MB are needed, {free / 1e6:.0f} MB are free")


def _no_space(part: Path, figures: str) -> DownloadError:
    return DownloadError(
        f"no space for {part.stem} in {part.parent} ({figures}): make room, or choose another "
        f"folder with SAM_DETECT_HOME"
    )


@contextmanager
def _explained(remote: Remote, part: Path, timeout_s: float) -> Iterator[None]:
    """What goes wrong between here and there, in words."""
    again = "run the same command again to continue"
    try:
        yield
    except (_BrokenError, httpx.ReadError, httpx.RemoteProtocolError) as error:
        raise DownloadError(
            f"the transfer of {part.stem} from {remote.host} broke off{_so_far(part)}: {again}"
        ) from error
    except httpx.TimeoutException as error:
        raise DownloadError(
            f"{remote.host} did not answer within {timeout_s:g} s{_so_far(part)}: try again later, "
            f"or wait longer with SAM_DETECT_DOWNLOAD_TIMEOUT_S"
        ) from error
    except httpx.HTTPStatusError as error:
        raise _refused(remote, error.response.status_code) from error
    except (httpx.UnsupportedProtocol, httpx.InvalidURL) as error:
        raise ConfigError(
            f"'{remote.url}' is no URL to download from: {one_line(error)}"
        ) from error
    except httpx.RequestError as error:
        raise unreachable(remote.host, error) from error
    except OSError as error:
        if error.errno in FULL:
            raise _no_space(part, "the disk is full; what came is kept") from error
        raise DownloadError(f"cannot write {part}: {error.strerror or one_line(error)}") from error


def unreachable(host: str, error: Exception) -> DownloadError:
    """The error for a server that cannot be reached at all."""
    return DownloadError(
        f"cannot reach {host} ({one_line(error)}): is there a network, or a proxy to name in "
        f"HTTPS_PROXY? docs/models.md says how to get models without one"
    )


def _refused(remote: Remote, status: int) -> DownloadError:
    why = "there is no such file" if status in (404, 410) else "the server refuses"
    then = "try again later" if status == 429 or status >= 500 else "is it the right address?"
    return DownloadError(f"{remote.url}: {why} (HTTP {status}): {then}")


def _so_far(part: Path) -> str:
    version, have = _read_version(part, None), _size(part)
    if not have or version is None:
        return ""
    whole = f" of {version.total / 1e6:.1f}" if version.total is not None else ""
    return f" after {have / 1e6:.1f}{whole} MB"


def _version(url: str, response: httpx.Response, total: int | None) -> _Version:
    tag = response.headers.get("ETag")
    strong = tag if tag and not tag.startswith("W/") else None
    return _Version(url, strong or response.headers.get("Last-Modified"), total)


def _version_path(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def _read_version(part: Path, url: str | None) -> _Version | None:
    """The version of the part that is here; None where it is of another URL, or unknown."""
    try:
        found = _Version(**json.loads(_version_path(part).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
    return found if url in (None, found.url) else None


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def unfinished_bytes(path: Path) -> int:
    """How much of an unfinished download of ``path`` is here."""
    return _size(part_path(path))
