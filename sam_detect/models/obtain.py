"""Gets weights onto this machine: looks what is here, fetches what is not, checks both."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import filelock

from sam_detect.config import Settings
from sam_detect.errors import ConfigError, DownloadError, OutputError, SamDetectError
from sam_detect.models.catalogue import (
    CLIP_MODELS,
    DEFAULT,
    SAM2_MODELS,
    CLIPModel,
    SAM2Model,
    clip_model,
    sam2_model,
)
from sam_detect.models.download import (
    Remote,
    Watcher,
    discard_part,
    keep_part,
    transfer,
    unfinished_bytes,
)
from sam_detect.models.hub import locate
from sam_detect.models.records import Record, is_whole, read_record, sha256_of, write_record
from sam_detect.models.weights import NO_MODEL, clip_path, models_dir, sam2_path

POLL_S = 0.1


@dataclass(frozen=True)
class Wanted:
    """One file of weights that somebody asks for.

    Attributes:
        path: where it is, or (unless ``locate`` finds it under another name) will be.
        locate: asks the network for the file's name and where it is.
    """

    kind: str
    name: str
    aliases: tuple[str, ...]
    licence: str | None
    size_bytes: int | None
    source: str
    path: Path
    locate: Callable[[], tuple[str, Remote]]


@dataclass(frozen=True)
class Obtained:
    """A file of weights that is here, and checked."""

    kind: str
    name: str
    path: Path
    downloaded: bool
    """False: it was here already."""
    record: Record


def wanted(
    sam_models: Sequence[str], clip_models: Sequence[str], settings: Settings
) -> list[Wanted]:
    """What the names ask for, each file once; both defaults where nothing is named.

    Raises:
        UnknownNameError, ConfigError, UnavailableError: as the catalogue does.
    """
    if not sam_models and not clip_models:
        sam_models = clip_models = [DEFAULT]
    found = [_sam2(sam2_model(name), settings) for name in sam_models]
    found += [_clip(clip_model(name), settings) for name in clip_models]
    return list({(each.kind, each.name): each for each in found}.values())


def known(settings: Settings) -> list[Wanted]:
    """Every model of the catalogue, and every other one that is on this machine."""
    clip = [*CLIP_MODELS, *_others_here()]
    return [*(_sam2(m, settings) for m in SAM2_MODELS), *(_clip(m, settings) for m in clip)]


def obtain(each: Wanted, settings: Settings, watcher: Watcher) -> Obtained:
    """Brings one file here, unless it is; a file that is here is read and checked.

    Raises:
        DownloadError: it cannot be had; the message says why and what to do.
        OutputError: the folder cannot be written.
    """
    with _alone(each, watcher):
        record = _check_here(each.path, settings, watcher)
        if record is not None:
            return Obtained(each.kind, each.name, each.path, False, record)
        if settings.offline:
            raise _offline(each)
        filename, remote = each.locate()
        path = each.path.with_name(filename)
        if path != each.path:  # another process may have brought it here under this name
            record = _check_here(path, settings, watcher)
            if record is not None:
                return Obtained(each.kind, each.name, path, False, record)
        size = f" ({each.size_bytes / 1e6:.0f} MB)" if each.size_bytes else ""
        watcher.say(f"downloading {each.name}{size} from {remote.host}")
        record = _fetch(remote, path, settings, watcher)
        return Obtained(each.kind, each.name, path, True, record)


def state(each: Wanted) -> str:
    """``here``, ``damaged``, ``unfinished`` or ``missing``, without reading all of a file."""
    if each.path.is_file():
        try:
            return "here" if is_whole(each.path) else "damaged"
        except SamDetectError:
            return "damaged"
    return "unfinished" if unfinished_bytes(each.path) else "missing"


def _sam2(model: SAM2Model, settings: Settings) -> Wanted:
    remote = Remote(_mirrored(model.url, settings.mirror_url))
    return Wanted(
        "sam2", model.name, model.aliases, model.licence, model.size_bytes, model.url,
        sam2_path(model), lambda: (model.filename, remote),
    )  # fmt: skip


def _clip(model: CLIPModel, settings: Settings) -> Wanted:
    return Wanted(
        "clip", model.name, model.aliases, model.licence, model.size_bytes,
        f"https://huggingface.co/{model.hub}" if model.hub else "",
        clip_path(model), lambda: locate(model, timeout_s=settings.download_timeout_s),
    )  # fmt: skip


def _others_here() -> Iterator[CLIPModel]:
    """CLIP weights on this machine that the catalogue does not list."""
    listed = {model.name for model in CLIP_MODELS}
    for folder in sorted((models_dir() / "clip").glob("*/*/")):
        files = [
            file.name
            for suffix in ("safetensors", "bin")
            for file in sorted(folder.glob(f"[!.]*.{suffix}"))
        ]
        model = CLIPModel(folder.parent.name, folder.name, "", tuple(files))
        if files and model.name not in listed:
            yield model


def _mirrored(url: str, mirror: str | None) -> str:
    """The same path on another server."""
    if mirror is None:
        return url
    base = urlsplit(mirror)
    if base.scheme not in ("http", "https") or not base.netloc:
        raise ConfigError(f"mirror_url is a URL such as https://mirror.example, got '{mirror}'")
    path = base.path.rstrip("/") + urlsplit(url).path
    return urlunsplit((base.scheme, base.netloc, path, "", ""))


@contextmanager
def _alone(each: Wanted, watcher: Watcher) -> Iterator[None]:
    """One process at a time gets this file; another one waits, and then finds it here."""
    folder = each.path.parent
    lock = filelock.FileLock(folder / f".{each.name.replace('/', '-')}.lock")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            watcher.say(f"another process is getting {each.name}: waiting for it")
            lock.acquire(poll_interval=POLL_S)
    except OSError as error:
        raise OutputError(
            f"cannot write into {folder}: {error.strerror}; choose another folder with "
            f"SAM_DETECT_HOME"
        ) from error
    try:
        yield
    finally:
        lock.release()


def _check_here(path: Path, settings: Settings, watcher: Watcher) -> Record | None:
    """The record of the file that is here, made now for one that somebody put here; None where it
    must be fetched."""
    if not path.is_file():
        return None
    record = read_record(path)
    if record is None:
        return _recorded(path, path, _hashed(path, watcher), "", published=False)
    if is_whole(path, thoroughly=True):
        return record
    if settings.offline:
        raise DownloadError(
            f"{path} is damaged (its SHA-256 is not the recorded one), and it cannot be "
            f"downloaded again while offline (SAM_DETECT_OFFLINE)"
        )
    watcher.say(f"{path} is damaged (its SHA-256 is not the recorded one)")
    return None


def _fetch(remote: Remote, path: Path, settings: Settings, watcher: Watcher) -> Record:
    """Downloads, checks against what is published or was recorded, and puts in place."""
    part = transfer(remote, path, timeout_s=settings.download_timeout_s, watcher=watcher)
    before = read_record(path)
    found = _hashed(part, watcher)
    if remote.sha256 is not None and found != remote.sha256:
        discard_part(path)
        raise DownloadError(
            f"what came from {remote.url} is not the file: its SHA-256 is {found}, published is "
            f"{remote.sha256}; it was discarded, try again"
        )
    if remote.sha256 is None and before is not None and found != before.sha256:
        discard_part(path)
        raise DownloadError(
            f"{remote.url} is another file than on {before.added[:10]}: its SHA-256 is {found}, "
            f"recorded was {before.sha256}; it was discarded. Delete {path.name}.json in "
            f"{path.parent} to take it nevertheless"
        )
    record = _recorded(path, part, found, remote.url, published=remote.sha256 is not None)
    keep_part(path)
    return record


def _hashed(path: Path, watcher: Watcher) -> str:
    total = path.stat().st_size
    return sha256_of(path, lambda done: watcher.checked(done, total))


def _recorded(path: Path, content: Path, sha256: str, url: str, *, published: bool) -> Record:
    """Writes the record of ``path``, whose bytes are (still) in ``content``.

    Before they are put in place: a process killed between the two leaves a download to complete,
    and never a file that nothing is known of.
    """
    found = content.stat()
    now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    record = Record(sha256, published, found.st_size, found.st_mtime_ns, url, now)
    write_record(path, record)
    return record


def _offline(each: Wanted) -> DownloadError:
    return DownloadError(
        f"{each.name} is not on this machine, and nothing is downloaded while offline "
        f"(SAM_DETECT_OFFLINE): put {each.path.name} from {each.source} into {each.path.parent}; "
        f"{NO_MODEL[each.kind]}"
    )
