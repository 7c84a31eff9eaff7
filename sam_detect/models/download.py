"""Gets weights from the Hugging Face hub into the shared cache of ``huggingface_hub``.

The library finds the file, sends the bytes and lays out the cache. Its ``hf_hub_download`` (as of
2.4) never continues what another call began, and does not check the bytes of plain HTTP; so they
go to a file that the next call continues, and that joins the cache only when its SHA-256 is the
published one.
"""

from __future__ import annotations

import contextlib
import errno
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import filelock

from sam_detect.errors import DownloadError, OutputError, SamDetectError, one_line
from sam_detect.models.catalogue import DEFAULT, Model, clip_model, sam2_model
from sam_detect.models.weights import (
    NO_MODEL,
    SHA256,
    cache_dir,
    cached_repository,
    find_weights,
    published_sha256,
    sha256_of,
    where_to_put,
)
from sam_detect.registry import needing_extra

ATTEMPTS = 5
"""A transfer that breaks off is resumed as long as each attempt brings bytes; ``huggingface_hub``
does not do so where the connection is reset."""
SPARE_BYTES = 1 << 24  # left free on the disk
FULL = (errno.ENOSPC, errno.EDQUOT)
PARTIAL = ".sam-detect.incomplete"
"""Ending of an unfinished download; ``huggingface_hub`` never writes one of this name."""

Models = Sequence[Model]


class Progress:
    """Shows how a download goes: lines, and a bar if stderr is a terminal.

    Args:
        say: prints a line; None for no output at all.
    """

    def __init__(self, say: Callable[[str], None] | None) -> None:
        from rich import progress
        from rich.console import Console

        self.say = say or (lambda _: None)
        columns = (
            progress.TextColumn("{task.description}"), progress.BarColumn(),
            progress.DownloadColumn(), progress.TransferSpeedColumn(),
            progress.TimeRemainingColumn(),
        )  # fmt: skip
        self._bar = progress.Progress(
            *columns,
            console=Console(stderr=True),
            transient=True,
            redirect_stdout=sys.stdout is not None and sys.stdout.isatty(),
            disable=say is None or sys.stderr is None or not sys.stderr.isatty(),
        )
        self._task = self._bar.add_task("", visible=False)

    def __enter__(self) -> Progress:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def update(self, what: str, done: int, total: int | None) -> None:
        """So many bytes are ``downloading`` or ``checking``, of so many (None: unknown)."""
        self._bar.update(
            self._task, description=what, completed=done, total=total, visible=done != total
        )


@dataclass(frozen=True)
class Obtained:
    """A file of weights that is on this machine, and checked.

    Attributes:
        downloaded: False if it was here already.
        published: whether the hub publishes this SHA-256; else there is nothing to compare with.
    """

    model: Model
    path: Path
    downloaded: bool
    sha256: str
    published: bool


@dataclass(frozen=True)
class _Remote:
    """A file on the hub: ``url`` names one revision of it, ``size`` is in bytes."""

    model: Model
    filename: str
    url: str
    sha256: str
    size: int | None


def models_of(sam_models: Sequence[str], clip_models: Sequence[str]) -> Models:
    """The models of names, each once; both defaults if nothing is named.

    Raises:
        UnknownNameError, ConfigError, UnavailableError: as the catalogue does.
    """
    if not sam_models and not clip_models:
        sam_models = clip_models = [DEFAULT]
    found: list[Model] = [sam2_model(name) for name in sam_models]
    found += [clip_model(name) for name in clip_models]
    return [*dict.fromkeys(found)]


def obtain(model: Model, *, offline: bool, progress: Progress) -> Obtained:
    """Brings a model to this machine, unless it is here; a file that is here is read and checked.

    Args:
        offline: download nothing. ``HF_HUB_OFFLINE`` says the same.

    Raises:
        DownloadError: it cannot be downloaded; the message says why and what to do.
        OutputError: the cache cannot be written.
        UnavailableError: ``huggingface_hub`` is not installed.
    """
    path = find_weights(model)
    problem = f"{model.name} is not on this machine, and nothing is downloaded"
    advice = f": {where_to_put(model)}; {NO_MODEL[model.kind]}"
    if path is not None:
        sha256, published = _sha256(path, progress), published_sha256(path)
        if published in (None, sha256):
            return Obtained(model, path, False, sha256, published is not None)
        damaged = f"{path} is damaged (its SHA-256 is not the published one)"
        problem, advice = f"{damaged}, and cannot be downloaded again", ""
    with needing_extra("download-models"):
        from huggingface_hub import constants
    if offline or constants.HF_HUB_OFFLINE:
        setting = "SAM_DETECT_OFFLINE" if offline else "HF_HUB_OFFLINE"
        raise DownloadError(f"{problem} while offline ({setting}){advice}")
    if path is not None:
        progress.say(damaged)
    with _without_telemetry():
        with _translated_errors(model, None):
            remote = _locate(model)
        return _download(remote, progress)


def is_unfinished(model: Model) -> bool:
    """Whether a part of the model waits to be continued."""
    cache = cache_dir()
    return cache is not None and any(cached_repository(cache, model).glob(f"blobs/*{PARTIAL}"))


def _locate(model: Model) -> _Remote:
    """The model's file on the hub, in the preferred format that is there.

    Raises:
        DownloadError: the repository has none, or what answers is no hub. Other errors are those
            of ``huggingface_hub``.
    """
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url

    for filename in model.filenames:
        url = hf_hub_url(model.hub, filename)
        try:
            found = get_hf_file_metadata(url, timeout=constants.HF_HUB_ETAG_TIMEOUT)
        except Exception as error:  # httpx's or its successor's, by the library's version
            if _status(error) == 404:
                continue
            raise
        if found.commit_hash is None or not SHA256.fullmatch(found.etag or ""):
            raise DownloadError(
                f"{urlsplit(url).netloc} does not answer as a Hugging Face hub (it names no "
                f"revision and SHA-256 of {model.hub}): does the network want a login in a "
                f"browser, or is HF_ENDPOINT wrong?"
            )
        url = hf_hub_url(model.hub, filename, revision=found.commit_hash)
        return _Remote(model, filename, url, str(found.etag), found.size)
    raise DownloadError(
        f"{constants.ENDPOINT}/{model.hub} has no {' or '.join(model.filenames)} (HTTP 404): is it "
        f"the right hub?"
    )


def _download(remote: _Remote, progress: Progress) -> Obtained:
    """Downloads a file into the cache, unless another process has just done so."""
    cache = cache_dir()
    assert cache is not None  # noqa: S101  huggingface_hub was imported
    blob = cached_repository(cache, remote.model) / "blobs" / remote.sha256
    partial = blob.with_name(blob.name + PARTIAL)
    with _translated_errors(remote.model, partial), _lock(blob, remote.model.name, progress):
        needed = not (blob.is_file() and _sha256(blob, progress) == remote.sha256)
        if needed:
            size = f" ({remote.size / 1e6:.0f} MB)" if remote.size else ""
            progress.say(
                f"downloading {remote.model.name}{size} from {urlsplit(remote.url).netloc}"
            )
            _transfer(remote, partial, progress)
            found = _sha256(partial, progress)
            if found != remote.sha256:
                partial.unlink()
                raise DownloadError(
                    f"what came from {remote.url} is not the file: its SHA-256 is {found}, "
                    f"published is {remote.sha256}; it was discarded, try again"
                )
            partial.replace(blob)
        path = _enter_into_cache(remote, blob)
    return Obtained(remote.model, path, needed, remote.sha256, True)


def _enter_into_cache(remote: _Remote, blob: Path) -> Path:
    """Has ``huggingface_hub`` enter a blob, which is here, into its cache."""
    from huggingface_hub import hf_hub_download

    path = Path(hf_hub_download(remote.model.hub, remote.filename))
    if not path.is_symlink():  # a system without symbolic links: it is a copy
        blob.unlink(missing_ok=True)
    elif published_sha256(path) != remote.sha256:
        raise DownloadError(f"{remote.model.hub} changed while it was downloaded: run it again")
    return path


def _transfer(remote: _Remote, partial: Path, progress: Progress) -> None:
    """Downloads into ``partial``, from its end on."""
    free = shutil.disk_usage(partial.parent).free
    if remote.size is not None and free < (need := remote.size - _size(partial)) + SPARE_BYTES:
        raise _no_space(partial, f"{need / 1e6:.0f} MB are needed, {free / 1e6:.0f} MB are free")
    for attempt in range(1, ATTEMPTS + 1):
        before = _size(partial)
        try:
            _request(remote, partial, progress)
            return
        except Exception as error:
            if attempt == ATTEMPTS or _size(partial) <= before or not _is_broken(error):
                raise
            progress.say(f"the connection broke after {_size(partial) / 1e6:.1f} MB: resuming")


def _request(remote: _Remote, partial: Path, progress: Progress) -> None:
    from huggingface_hub import file_download, utils

    class Bar(contextlib.nullcontext[Any]):
        """What the library takes for a progress bar, instead of its own on every stderr."""

        def __init__(self, total: int | None = None, initial: int = 0, **_: object) -> None:
            super().__init__(self)
            self.total, self.done = total, initial

        def update(self, count: int) -> None:
            self.done += count
            progress.update("downloading", self.done, self.total)

    if remote.size is not None and _size(partial) > remote.size:
        partial.unlink()
    headers = utils.build_hf_headers()  # type: ignore[attr-defined]  # its export is lazy
    with partial.open("ab", buffering=0) as file:
        file_download.http_get(
            remote.url,
            file,
            resume_size=_size(partial),
            headers={**headers, "Accept-Encoding": "identity"},
            expected_size=remote.size,
            tqdm_class=Bar,
        )


@contextlib.contextmanager
def _lock(blob: Path, name: str, progress: Progress) -> Iterator[None]:
    """One process at a time downloads a file; another one waits, and then finds it here."""
    blob.parent.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(blob.with_name(f".{blob.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        progress.say(f"another process is getting {name}: waiting for it")
        lock.acquire(poll_interval=0.1)
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def _without_telemetry() -> Iterator[None]:
    """``huggingface_hub`` tells the hub what is installed, and asks it which programs to look for,
    unless this is set."""
    from huggingface_hub import constants

    before = constants.HF_HUB_DISABLE_TELEMETRY
    constants.HF_HUB_DISABLE_TELEMETRY = True
    try:
        yield
    finally:
        constants.HF_HUB_DISABLE_TELEMETRY = before


@contextlib.contextmanager
def _translated_errors(model: Model, partial: Path | None) -> Iterator[None]:
    """Turns errors of the network and of the disk into one line."""
    try:
        yield
    except SamDetectError:
        raise
    except Exception as error:
        raise _user_error(model, partial, error) from error


def _user_error(
    model: Model, partial: Path | None, error: Exception
) -> DownloadError | OutputError:
    """The classes of network errors are those of the library's HTTP client, which has changed
    before: they are recognised by name."""
    from huggingface_hub import constants

    host, status = urlsplit(constants.ENDPOINT).netloc, _status(error)
    name, so_far = type(error).__name__, f" after {_size(partial) / 1e6:.1f} MB" if partial else ""
    if status in (401, 403):
        return DownloadError(
            f"{constants.ENDPOINT}/{model.hub} is not open to you (HTTP {status}): ask for access "
            f"there, then give your token in HF_TOKEN"
        )
    if status is not None:
        return DownloadError(
            f"{constants.ENDPOINT}/{model.hub}: the server refuses (HTTP {status}): try again later"
        )
    if "Timeout" in name:
        return DownloadError(
            f"{host} did not answer in time{so_far}: try again later, or wait longer with "
            f"HF_HUB_ETAG_TIMEOUT and HF_HUB_DOWNLOAD_TIMEOUT (in seconds)"
        )
    if _is_broken(error):
        return DownloadError(
            f"the transfer of {model.filenames[0]} from {host} broke off{so_far}: "
            f"run the same command again to continue"
        )
    if isinstance(error, OSError) and error.errno is not None and partial is not None:
        if error.errno in FULL:
            return _no_space(partial, "the disk is full; what came is kept")
        return OutputError(
            f"cannot write into {partial.parent}: {error.strerror or one_line(error)}; choose "
            f"another folder with HF_HOME"
        )
    return DownloadError(
        f"cannot reach {host} ({one_line(error)}): is there a network, or a proxy to name in "
        f"HTTPS_PROXY? docs/models.md says how to get models without one"
    )


def _is_broken(error: Exception) -> bool:
    """Whether a transfer ended early."""
    name = type(error).__name__
    return name in ("ReadError", "RemoteProtocolError") or "Consistency check" in str(error)


def _no_space(partial: Path, figures: str) -> DownloadError:
    return DownloadError(
        f"no space in {partial.parent} ({figures}): make room, or choose another folder with "
        f"HF_HOME"
    )


def _status(error: Exception) -> int | None:
    """The HTTP status that an error of the library is about."""
    return getattr(getattr(error, "response", None), "status_code", None)


def _sha256(path: Path, progress: Progress) -> str:
    total = path.stat().st_size
    return sha256_of(path, lambda done: progress.update("checking", done, total))


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0
