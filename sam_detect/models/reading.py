"""Reads weights from a file without executing anything that it holds."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from sam_detect.errors import UnavailableError, one_line

Weights = dict[str, torch.Tensor]
SAFETENSORS = ".safetensors"


def read_weights(path: Path) -> Weights:
    """The tensors of a weights file by name, on the CPU.

    Takes ``.safetensors`` files, and what ``torch.save`` wrote of a state dict, as it is or under
    ``state_dict`` or ``model``; a common prefix ``module.`` is left out.

    Raises:
        UnavailableError: the file is missing, damaged or something else, or it could only be read
            by executing what it holds.
    """
    if not path.is_file():
        raise UnavailableError(f"there is no weights file {path}")
    found = _safetensors(path) if path.suffix == SAFETENSORS else _checkpoint(path)
    for key in ("state_dict", "model"):
        if isinstance(found, Mapping) and isinstance(found.get(key), Mapping):
            found = found[key]
    if not isinstance(found, Mapping) or not found:
        raise UnavailableError(f"{path} holds no weights, but {type(found).__name__}")
    if not all(isinstance(name, str) for name in found):
        raise UnavailableError(f"{path} is no plain weights file: a name in it is no text")
    weights = dict(found)
    if all(name.startswith("module.") for name in weights):
        weights = {name[len("module.") :]: value for name, value in weights.items()}
    _require_sound(weights, path)
    return weights


def _require_sound(weights: Mapping[str, Any], path: Path) -> None:
    """Refuses what is no tensor, claims more memory than the file has, or is NaN or infinite."""
    for name, value in weights.items():
        if not isinstance(value, torch.Tensor):
            raise UnavailableError(f"{path} is no plain weights file: '{name}' is no tensor")
        plain = value.layout == torch.strided and value.device.type == "cpu"
        # A tensor without strides of its own can claim any size; looking at it would take that.
        if not plain or value.numel() * value.element_size() > value.untyped_storage().nbytes():
            raise UnavailableError(f"{path} is no plain weights file: '{name}' is no dense tensor")
        if value.is_floating_point() and not torch.isfinite(value).all():
            raise UnavailableError(
                f"the weights in {path} are damaged ('{name}' has NaN or infinite values): "
                "download them again"
            )


def _safetensors(path: Path) -> Any:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise _damaged(path, error) from error


def _checkpoint(path: Path) -> Any:
    _require_plain_archive(path)
    try:
        # The default of old versions would execute the file, so it is said here.
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "Unsupported" not in str(error) and "Weights only load failed" not in str(error):
            raise _damaged(path, error) from error
        raise UnavailableError(
            f"{path} is damaged, or holds more than weights and would have to be executed, which "
            f"is never done: use a {SAFETENSORS} file or a plain state dict"
        ) from error
    except Exception as error:  # bytes that are damaged make torch raise anything
        raise _damaged(path, error) from error


def _require_plain_archive(path: Path) -> None:
    """Refuses programs of ``torch.jit.save``, such as OpenAI's own CLIP files; and archives that
    unpack to more than they are, and would fill memory: torch writes weights uncompressed."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return  # no archive, or none that is sound: torch says what it thinks of it
    if any(member.filename.endswith("/constants.pkl") for member in members):
        raise UnavailableError(
            f"{path} is a TorchScript archive, a program that would have to be executed: use "
            f"the same model's {SAFETENSORS} file"
        )
    claimed = sum(member.file_size for member in members)
    if claimed > path.stat().st_size:
        raise UnavailableError(
            f"{path} is no plain weights file: its {path.stat().st_size} bytes unpack to {claimed}"
        )


def _damaged(path: Path, error: BaseException) -> UnavailableError:
    return UnavailableError(
        f"{path} cannot be read as weights; it may be damaged or incomplete: {one_line(error)}"
    )
