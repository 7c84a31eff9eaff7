"""Where weights lie on this machine: under ``models`` in ``SAM_DETECT_HOME``.

Nothing here downloads: what is missing is said, with the command that fetches it.
"""

from __future__ import annotations

from pathlib import Path

from sam_detect.config import home_dir
from sam_detect.errors import ConfigError, SamDetectError, UnavailableError
from sam_detect.models.catalogue import (
    SAM2_MODELS,
    CLIPModel,
    CLIPWeights,
    SAM2Model,
    SAM2Weights,
    clip_model,
    find_sam2,
    sam2_model,
)
from sam_detect.models.records import is_whole, read_record

CHECKPOINT_SUFFIXES = {".pt", ".pth", ".ckpt", ".bin", ".safetensors"}
NO_MODEL = {
    "sam2": "the segmenter 'naive' needs no model",
    "clip": "the embedder 'appearance' needs no model",
}


def models_dir() -> Path:
    """The folder of all weights."""
    return home_dir() / "models"


def sam2_path(model: SAM2Model) -> Path:
    """Where a checkpoint of Meta's lies, or would."""
    return models_dir() / "sam2" / model.filename


def clip_dir(model: CLIPModel) -> Path:
    """The folder of one model's weights."""
    return models_dir() / "clip" / model.model / model.pretrained


def clip_path(model: CLIPModel) -> Path:
    """Where the weights lie, or (in the preferred format) would."""
    places = [clip_dir(model) / filename for filename in model.filenames]
    return next((place for place in places if place.is_file()), places[0])


def require_sam2(name: str, config: str | None = None) -> SAM2Weights:
    """The SAM 2 checkpoint of a name, or of the path of a user's own file.

    Args:
        name: a size, one of Meta's names, or a path.
        config: of a user's own file: the name of a configuration of the ``sam2`` package, or the
            path of a YAML file. By default ``FILE.yaml`` beside ``FILE.pt``, else the one of the
            model of Meta's that the file's name begins with.

    Raises:
        UnavailableError: it is not on this machine, or damaged; the message says what to do.
        UnknownNameError: neither a known name nor a file.
        ConfigError: a file whose configuration nobody knows.
    """
    own = _own_file(name)
    if own is not None:
        return SAM2Weights(own.stem, config or config_of(own), own)
    model = sam2_model(name)
    path = sam2_path(model)
    _require(path, f"the SAM 2 model '{name}'", f"--sam-model {model.shortest}", NO_MODEL["sam2"])
    return SAM2Weights(model.name, config or model.config, path)


def require_clip(name: str) -> CLIPWeights:
    """The CLIP weights of a name, as :func:`~sam_detect.models.catalogue.clip_model` takes them.

    Raises:
        UnavailableError: they are not on this machine, or damaged; the message says what to do.
        UnknownNameError: nothing has this name.
    """
    model = clip_model(name)
    path = clip_path(model)
    _require(path, f"the CLIP model '{name}'", f"--clip-model {model.shortest}", NO_MODEL["clip"])
    return CLIPWeights(model.model, model.pretrained, path)


def available_sam2(name: str) -> bool:
    """Whether :func:`require_sam2` would find it."""
    try:
        require_sam2(name)
    except SamDetectError:
        return False
    return True


def available_clip(name: str) -> bool:
    """Whether :func:`require_clip` would find it."""
    try:
        require_clip(name)
    except SamDetectError:
        return False
    return True


def _require(path: Path, what: str, option: str, otherwise: str) -> None:
    command = f"sam-detect download-models {option}"
    if not path.is_file():
        raise UnavailableError(
            f"{what} is not on this machine ({path}): get it with {command}; {otherwise}"
        )
    if not is_whole(path):
        record = read_record(path)
        size = path.stat().st_size
        how = "its SHA-256 is not the recorded one"
        if record is not None and size != record.bytes:
            how = f"it has {size} bytes instead of {record.bytes}"
        raise UnavailableError(f"{path} is damaged, {how}: get it again with {command}")


def _own_file(name: str) -> Path | None:
    """The user's own checkpoint that ``name`` is the path of; None where it names a model."""
    path = Path(name).expanduser()
    like_a_file = path.suffix.lower() in CHECKPOINT_SUFFIXES
    if (like_a_file or path.name != name) and path.is_file():
        return path
    if find_sam2(name) is not None:
        return None
    if path.is_dir():
        raise UnavailableError(f"'{name}' is a folder: name the checkpoint in it")
    if like_a_file:
        raise UnavailableError(f"there is no checkpoint '{name}': name a file, or a model of SAM 2")
    return None


def config_of(path: Path) -> str:
    """The configuration of a user's own checkpoint: ``FILE.yaml`` beside ``FILE.pt``, else that of
    the model of Meta's that the file's name begins with.

    Raises:
        ConfigError: neither is there.
    """
    beside = path.with_suffix(".yaml")
    if beside.is_file():
        return str(beside)
    names = [model.name for model in SAM2_MODELS]
    like = next((name for name in names if path.stem.lower().startswith(name)), None)
    if like is None:
        raise ConfigError(
            f"nothing says which configuration the checkpoint '{path}' has: put {beside.name} "
            f"beside it, or begin its name with that of a model, such as {names[0]}"
        )
    return sam2_model(like).config
