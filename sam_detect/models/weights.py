"""Where weights lie on this machine: in the shared cache of ``huggingface_hub``, or in the folder
``models`` of ``SAM_DETECT_HOME``.

Nothing here downloads: if a file is missing, the error names the command that gets it. No torch.
"""

from __future__ import annotations

import hashlib
import os
import re
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from sam_detect.config import home_dir
from sam_detect.errors import SamDetectError, UnavailableError
from sam_detect.models import efficientnet_lite0
from sam_detect.models.catalogue import (
    DEFAULT,
    CLIPWeights,
    Model,
    SAM2Weights,
    clip_model,
    find_sam2,
    made_with_weights,
    sam2_model,
)
from sam_detect.types import Recipe

CHECKPOINT_SUFFIXES = {".pt", ".pth", ".ckpt", ".bin", ".safetensors"}
NO_MODEL = {
    "sam2": "the segmenter 'naive' needs no model",
    "clip": "the embedder 'appearance' needs no model",
}
SHA256 = re.compile(r"[0-9a-f]{64}")
BLOCK = 1 << 20


def models_dir() -> Path:
    """The folder for files of weights that the user puts here (and where older versions did)."""
    return home_dir() / "models"


def cache_dir() -> Path | None:
    """The cache of ``huggingface_hub`` (``HF_HUB_CACHE``); None if it is not installed."""
    try:
        from huggingface_hub import constants  # a light module: it imports no network library
    except ImportError:
        return None
    return Path(constants.HF_HUB_CACHE)


def cached_repository(cache: Path, model: Model) -> Path:
    """The folder of a model's repository in a cache of ``huggingface_hub``."""
    return cache / f"models--{model.hub.replace('/', '--')}"


def find_weights(model: Model) -> Path | None:
    """The model's file on this machine, None if there is none.

    In each place the preferred format is looked for first. ``huggingface_hub`` has a function for
    the cache, too, but importing it takes 0.3 s, and every run asks.
    """
    places = [models_dir() / model.folder]
    if (cache := cache_dir()) is not None:
        repository = cached_repository(cache, model)
        try:
            revision = (repository / "refs" / "main").read_text(encoding="utf-8").strip()
            places.append(repository / "snapshots" / revision)
        except (OSError, ValueError):
            pass
    files = (place / filename for place in places for filename in model.filenames)
    return next((file for file in files if file.is_file()), None)


def published_sha256(path: Path) -> str | None:
    """The SHA-256 that the hub publishes for a file of its cache, which is named by it; None for
    other files."""
    try:
        blob = Path(os.readlink(path))  # one step: the blob itself may be a link, to a shared store
    except OSError:
        return None
    known = blob.parent.name == "blobs" and SHA256.fullmatch(blob.name)
    return blob.name if known else None


def sha256_of(path: Path, progress: Callable[[int], None] | None = None) -> str:
    """The file's SHA-256 (64 hexadecimal digits); ``progress`` gets the bytes read so far."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
            if progress is not None:
                progress(file.tell())
    return digest.hexdigest()


def checked_sha256(path: Path) -> str:
    """The SHA-256 of a file of weights that is about to be loaded.

    Raises:
        UnavailableError: the file cannot be read, or the hub published another SHA-256.
    """
    try:
        sha256 = sha256_of(path)
    except FileNotFoundError as error:
        raise UnavailableError(f"there is no weights file {path}") from error
    except OSError as error:
        raise UnavailableError(f"cannot read the weights {path}: {error.strerror}") from error
    if published_sha256(path) not in (None, sha256):
        raise UnavailableError(
            f"{path} is damaged, its SHA-256 is not the published one: get it again with "
            f"sam-detect download-models"
        )
    return sha256


def require_sam2(model: str | Path) -> SAM2Weights:
    """The SAM 2 checkpoint of a name, or of the path of a user's own file.

    Args:
        model: a size, one of Meta's names, or a path.

    Raises:
        UnavailableError: it is not on this machine; the message says what to do.
        UnknownNameError: neither a known name nor a file.
    """
    name = str(model)
    own = own_file(name, known=find_sam2(name) is not None)
    if own is None:
        found = sam2_model(name)
        return SAM2Weights(found.name, found.config, _require(found, f"SAM 2 model '{name}'"))
    official = find_sam2(own.name)
    if official is not None and find_weights(official) == own:
        return SAM2Weights(official.name, official.config, own)
    return SAM2Weights(own.stem, None, own)


def require_clip(name: str) -> CLIPWeights:
    """The CLIP weights of a name, as :func:`~sam_detect.models.catalogue.clip_model` takes them.

    Raises:
        UnavailableError: they are not on this machine; the message says what to do.
        UnknownNameError: nothing has this name.
    """
    model = clip_model(name)
    return CLIPWeights(model.model, model.pretrained, _require(model, f"CLIP model '{name}'"))


def available_sam2(name: str) -> bool:
    """Whether :func:`require_sam2` would find it."""
    return _succeeds(lambda: require_sam2(name))


def available_clip(name: str) -> bool:
    """Whether :func:`require_clip` would find it."""
    return _succeeds(lambda: require_clip(name))


def _succeeds(require: Callable[[], object]) -> bool:
    try:
        require()
    except SamDetectError:
        return False
    return True


def default_segmenter(library: Recipe | None) -> str:
    """``sam2`` if its package and the weights of its default model are on this machine, else
    ``naive``.

    Args:
        library: recipe of the library that is used, None for a new one. One that was made
            without models continues without: its calibration holds for the segmenter that
            proposed its examples.
    """
    if library is not None and not made_with_weights(library):
        return "naive"
    here = find_spec("sam2") is not None and available_sam2(DEFAULT)
    return "sam2" if here else "naive"


def default_embedder() -> str:
    """``clip`` if its package and the weights of its default model are on this machine, else
    ``lite``; ``appearance`` where an install lacks what that needs, with a warning."""
    if find_spec("open_clip") is not None and available_clip(DEFAULT):
        return "clip"
    missing = efficientnet_lite0.missing_packages()
    if not missing:
        return "lite"
    warnings.warn(
        f"the embedder 'lite' needs {' and '.join(missing)}; 'appearance' is used, which finds "
        f"less: pip install {' '.join(missing)}",
        stacklevel=2,
    )
    return "appearance"


def where_to_put(model: Model) -> str:
    """How to bring a model here without a network, in words."""
    return f"put {model.filenames[0]} from {model.source} into {models_dir() / model.folder}"


def _require(model: Model, what: str) -> Path:
    found = find_weights(model)
    if found is None:
        raise UnavailableError(
            f"the {what} is not on this machine: get it with sam-detect download-models "
            f"{model.option}, or {where_to_put(model)}; {NO_MODEL[model.kind]}"
        )
    return found


def own_file(name: str, *, known: bool = False) -> Path | None:
    """The user's own file of weights that ``name`` is the path of; None if it names a model.

    Args:
        known: a model has this name. Then only a file with the ending of weights goes before it.

    Raises:
        UnavailableError: it is the path of a folder, or of a file that is not there.
    """
    path = Path(name).expanduser()
    like_a_file = path.suffix.lower() in CHECKPOINT_SUFFIXES
    if (like_a_file or path.name != name) and path.is_file():
        return path
    if known:
        return None
    if path.is_dir():
        raise UnavailableError(f"'{name}' is a folder: name the file of weights in it")
    if like_a_file:
        raise UnavailableError(
            f"there is no checkpoint '{name}': name a file of weights, or a model"
        )
    return None
