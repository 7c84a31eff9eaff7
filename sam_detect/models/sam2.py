"""Loads SAM 2 models: Meta's classes and configurations from the ``sam2`` package, and any
checkpoint that fits one of them.

A checkpoint is read with ``weights_only``. The configuration of the user's own is told from the
shapes of its weights: no configuration of others is read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import sam2
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from sam2.modeling.sam2_base import SAM2Base

from sam_detect.errors import ConfigError
from sam_detect.models.catalogue import SAM2Weights, sam2_model
from sam_detect.models.reading import Weights, read_weights
from sam_detect.models.running import enough_memory, resolve_device, with_index
from sam_detect.models.sharing import Shared, file_key
from sam_detect.models.weights import checked_sha256, require_sam2

DECODER_EXTRAS = {
    "dynamic_multimask_via_stability": True,
    "dynamic_multimask_stability_delta": 0.05,
    "dynamic_multimask_stability_thresh": 0.98,
}
"""What ``sam2.build_sam.build_sam2`` adds to every configuration by default."""
TRUNK = "image_encoder.trunk"
CONFIGS: dict[tuple[int, int, bool], str] = {
    (width, blocks, release == "sam2.1"): sam2_model(f"{release}_hiera_{size}").config
    for release in ("sam2", "sam2.1")
    for size, width, blocks in (
        ("tiny", 96, 12),
        ("small", 96, 16),
        ("base_plus", 112, 24),
        ("large", 144, 48),
    )
}
"""Meta's configurations, by what the weights show: width and number of blocks of the trunk, and
whether they have what came with SAM 2.1."""


@dataclass(frozen=True)
class LoadedSAM2:
    """A SAM 2 model with its weights, in evaluation mode.

    Attributes:
        model: Meta's model.
        name: Meta's name of it, or the checkpoint's file name without its ending.
        device: where it is.
        file: name of the checkpoint's file; None for one of Meta's that was found by its name.
    """

    model: SAM2Base
    name: str
    device: torch.device
    file: str | None = None

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) of the weights, by name and value: the same in whatever file they lie."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.model.state_dict().items()):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            # As bytes, because numpy knows no bfloat16.
            digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().data)
        return digest.hexdigest()


def load_sam2(model: str | Path, *, device: torch.device) -> LoadedSAM2:
    """A SAM 2 model by name or from a checkpoint file.

    Args:
        model: a name (``tiny``, ``base``, ``sam2.1_hiera_large``, ...) whose weights are on this
            machine, or the path of a checkpoint (``.pt``, ``.pth`` or ``.safetensors``) of one of
            Meta's sizes.
        device: where the model is to run.

    Raises:
        ConfigError: the weights are those of no model that is known.
        UnavailableError: no weights of this name are on this machine, or the file is damaged.
    """
    return _load(require_sam2(model), device)


_SHARED: Shared[LoadedSAM2] = Shared()


def shared_sam2(model: str | Path | LoadedSAM2, *, device: str = "auto") -> LoadedSAM2:
    """As :func:`load_sam2`, but one model for all who ask for the same weights and device, as long
    as any of them holds it. None of them may change it.

    Args:
        model: as for :func:`load_sam2`, whose file is loaded again if it has changed; or a model
            that is loaded already, which is given back.
        device: as for :func:`~sam_detect.models.running.resolve_device`.
    """
    if isinstance(model, LoadedSAM2):
        return model
    where = with_index(resolve_device(device))
    found = require_sam2(model)
    key = found.name, file_key(found.path), where
    return _SHARED.get(key, lambda: _load(found, where))


def build(config: str) -> SAM2Base:
    """The model of a configuration of the ``sam2`` package, with random weights, as Meta's
    ``build_sam2`` makes it; that one fails in a program that uses hydra itself."""
    settings = OmegaConf.load(Path(sam2.__path__[0], config)).model
    settings.sam_mask_decoder_extra_args = DECODER_EXTRAS
    model: SAM2Base = instantiate(settings, _convert_="all")
    return model


def _load(found: SAM2Weights, device: torch.device) -> LoadedSAM2:
    checked_sha256(found.path)
    state = read_weights(found.path)
    model = build(found.config or _config_of(state, found.path))
    _load_weights(state, model, found.path)
    with enough_memory():
        ready = model.to(device).eval().requires_grad_(False)
    file = found.path.name if found.config is None else None
    return LoadedSAM2(ready, found.name, device, file)


def _config_of(state: Weights, path: Path) -> str:
    """Meta's configuration that the weights of a file are of.

    Raises:
        ConfigError: there is none.
    """
    patches = state.get(f"{TRUNK}.patch_embed.proj.weight")
    width = 0 if patches is None or not patches.ndim else patches.shape[0]
    blocks = sum(name.startswith(f"{TRUNK}.blocks.") and name.endswith(".norm1.weight")
                 for name in state)  # fmt: skip
    config = CONFIGS.get((width, blocks, "no_obj_embed_spatial" in state))
    if config is None:
        raise ConfigError(
            f"the checkpoint {path} does not fit any SAM 2 model of Meta's: its image encoder has "
            f"{blocks} blocks of width {width}"
        )
    return config


def _load_weights(state: Mapping[str, torch.Tensor], model: SAM2Base, path: Path) -> None:
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
                f"the checkpoint {path} does not fit its SAM 2 model: it {kind} "
                f"{len(names)} of {len(wanted)} weights, such as {min(names)}"
            )
    model.load_state_dict(dict(state))
