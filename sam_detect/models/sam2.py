"""Loads SAM 2 models: Meta's classes from the ``sam2`` package, any checkpoint that fits them.

A checkpoint is read with ``weights_only``, and ``sam2_config`` builds what a config describes from
a closed list of classes: neither file can make anything else run.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from sam2.modeling.sam2_base import SAM2Base

from sam_detect.errors import ConfigError
from sam_detect.models.catalogue import SAM2Weights, find_sam2
from sam_detect.models.reading import count_numbers, read_weights
from sam_detect.models.running import enough_memory, resolve_device, with_index
from sam_detect.models.sam2_config import build, config_path, digest_of, read_config
from sam_detect.models.sharing import Shared, file_key
from sam_detect.models.weights import checked_sha256, find_weights, require_sam2


@dataclass(frozen=True)
class LoadedSAM2:
    """A SAM 2 model with its weights, in evaluation mode.

    Attributes:
        model: Meta's model.
        name: Meta's name of it, or the checkpoint's file name without its ending.
        device: where it is.
        file: name of the checkpoint's file; None for one of Meta's that was found by its name.
        config_digest: of the settings in the config; None where ``file`` is.
    """

    model: SAM2Base
    name: str
    device: torch.device
    file: str | None = None
    config_digest: str | None = None

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) of the weights, by name and value: the same in whatever file they lie."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.model.state_dict().items()):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            # As bytes, because numpy knows no bfloat16.
            digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().data)
        return digest.hexdigest()


def load_sam2(
    model: str | Path, *, config: str | Path | None = None, device: torch.device
) -> LoadedSAM2:
    """A SAM 2 model by name or from a checkpoint file.

    Args:
        model: a name (``tiny``, ``base``, ``sam2.1_hiera_large``, ...) whose weights are on this
            machine, or the path of a checkpoint (``.pt`` or ``.pth``).
        config: the model's config: one of the ``sam2`` package (``configs/sam2.1/...``) or a YAML
            file. Without it the one of the name, or of a checkpoint that which
            :func:`~sam_detect.models.weights.config_of` finds.
        device: where the model is to run.

    Raises:
        ConfigError: a file is missing, damaged, of something else, or config and weights do not
            fit together.
        UnavailableError: no weights of this name are on this machine.
    """
    return _load(require_sam2(model, config), device)


_SHARED: Shared[LoadedSAM2] = Shared()


def shared_sam2(
    model: str | Path | LoadedSAM2, *, config: str | Path | None = None, device: str = "auto"
) -> LoadedSAM2:
    """As :func:`load_sam2`, but one model for all who ask for the same weights, config and device,
    as long as any of them holds it. None of them may change it.

    Args:
        model: as for :func:`load_sam2`, whose file is loaded again if it has changed; or a model
            that is loaded already, which is given back.
        config: as for :func:`load_sam2`.
        device: as for :func:`~sam_detect.models.running.resolve_device`.
    """
    if isinstance(model, LoadedSAM2):
        return model
    where = with_index(resolve_device(device))
    found = require_sam2(model, config)
    files = file_key(found.path), file_key(config_path(found.config))
    return _SHARED.get((found.name, files, where), lambda: _load(found, where))


def _load(found: SAM2Weights, device: torch.device) -> LoadedSAM2:
    checked_sha256(found.path)
    state = read_weights(found.path)
    part = read_config(found.config)
    there, needed = count_numbers(state), part.image_encoder.trunk.weights()
    if needed > 2 * there:  # memory is only taken for what can be filled
        raise ConfigError(
            f"the checkpoint {found.path} does not fit the config {found.config}: it has {there} "
            f"numbers, and the image encoder alone needs about {needed}"
        )
    built = build(part, found.config)
    _load_weights(state, built, found.path, found.config)
    with enough_memory():
        ready = built.to(device).eval().requires_grad_(False)
    official = find_sam2(found.name)
    known = None if official is None else (official.config, find_weights(official))
    named = (found.config, found.path) == known
    return LoadedSAM2(
        model=ready,
        name=found.name,
        device=device,
        file=None if named else found.path.name,
        config_digest=None if named else digest_of(part),
    )


def _load_weights(
    state: Mapping[str, torch.Tensor], model: SAM2Base, path: Path, config: str
) -> None:
    """Loads the weights into the model, or says what does not fit."""
    wanted = model.state_dict()
    common = wanted.keys() & state.keys()
    for kind, names in {
        "lacks": wanted.keys() - common,
        "also has": state.keys() - common,
        "has of another size": {n for n in common if wanted[n].shape != state[n].shape},
    }.items():
        if names:
            raise ConfigError(
                f"the checkpoint {path} does not fit the config {config}: it {kind} "
                f"{len(names)} of {len(wanted)} weights, such as {min(names)}"
            )
    model.load_state_dict(dict(state))
