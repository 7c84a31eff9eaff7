"""CLIP models of ``open_clip``, loaded from files of this machine and from nowhere else.

``open_clip.create_model`` builds the architectures that open_clip itself describes, and no others.
Its own loading of weights is not used: where reading with ``weights_only`` raises ``TypeError`` it
tries again without, some of its models download parts, and it would run OpenAI's originals as
programs.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from open_clip.convert import convert_state_dict
from open_clip.model import (
    convert_to_custom_text_state_dict,
    resize_pos_embed,
    resize_text_pos_embed,
)
from open_clip.pretrained import get_pretrained_cfg
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image

from sam_detect.errors import ConfigError, UnavailableError, UnknownNameError, one_line
from sam_detect.models.catalogue import CLIPWeights, clip_model
from sam_detect.models.reading import Weights, read_weights
from sam_detect.models.running import enough_memory, with_index
from sam_detect.models.sharing import Shared, file_key
from sam_detect.models.weights import checked_sha256, own_file, require_clip

DIGEST_LENGTH = 16
"""Hexadecimal digits of a SHA-256 that tell the model of one recipe from others."""


@dataclass(frozen=True, eq=False)
class LoadedCLIP:
    """A CLIP model in evaluation mode, with what belongs to it.

    Attributes:
        name: for people.
        model: has ``encode_image`` and ``encode_text``.
        preprocess: open_clip's own way from a picture to the ``(3, h, w)`` float32 input.
        tokenize: open_clip's own way from texts to ``(N, length)`` int64.
        input_side: longest side of the input, pixels.
        dimension: length of the vectors.
        digest: of the weights file.
        device: where the model is.
        config_digest: of what open_clip says of the architecture of a file of the user's own; None
            for weights that have a name.
    """

    name: str
    model: Any
    preprocess: Callable[[Image.Image], torch.Tensor]
    tokenize: Callable[[Sequence[str]], torch.Tensor]
    input_side: int
    dimension: int
    digest: str
    device: torch.device
    config_digest: str | None = None

    @property
    def scale(self) -> float:
        """What similarities are multiplied by before the softmax over texts."""
        return float(self.model.logit_scale.detach().exp())


def find_clip(name: str, weights: Path | None = None) -> CLIPWeights:
    """The weights that a name means.

    Args:
        name: a name that :func:`~sam_detect.models.catalogue.clip_model` knows; or the path of a
            file of weights whose own name begins with open_clip's name of its architecture, as
            ``ViT-B-32-cells.safetensors``.
        weights: the file to take instead of the one of this name on this machine.

    Raises:
        UnknownNameError: no model has this name.
        UnavailableError: its weights are not on this machine.
        ConfigError: the name of the file does not tell the architecture.
    """
    own = None if _is_known(name) else own_file(name)
    if own is not None:
        return CLIPWeights(_architecture_of(own), "", weights or own)
    if weights is None:
        return require_clip(name)
    model = clip_model(name)
    return CLIPWeights(model.model, model.pretrained, weights)


def _is_known(name: str) -> bool:
    """Whether the catalogue has the name: no file of the working directory may stand for it."""
    try:
        clip_model(name)
    except UnknownNameError:
        return False
    except ConfigError:  # it has several
        return True
    return True


def _architecture_of(file: Path) -> str:
    """open_clip's architecture that the name of a file begins with; none of those whose text model
    open_clip would look for on a hub."""
    begun: list[str] = [
        name
        for name in open_clip.list_models()
        if file.name.startswith(name)
        and "hf_model_name" not in open_clip.get_model_config(name)["text_cfg"]
    ]
    if not begun:
        raise ConfigError(
            f"the architecture of the CLIP weights '{file}' is unknown: begin the file's name with "
            f"open_clip's name of it, such as ViT-B-32-{file.name}"
        )
    return max(begun, key=len)


def name_of(found: CLIPWeights) -> str:
    """One name for a model however it was asked for; :func:`find_clip` takes it again."""
    return f"{found.model}/{found.pretrained}" if found.pretrained else str(found.path)


def load_clip(found: CLIPWeights, *, device: torch.device) -> LoadedCLIP:
    """A model with its weights, ready to run.

    Args:
        found: as :func:`find_clip` gives it.
        device: to run on.

    Raises:
        UnavailableError: the weights cannot be read safely, do not fit the model, or the model
            needs files from the network.
    """
    digest = checked_sha256(found.path)[:DIGEST_LENGTH]
    state = read_weights(found.path)
    model = _build(found)
    _load_weights(model, state, found)
    with enough_memory():
        model = model.to(device).eval().requires_grad_(False)
    config = PreprocessCfg(**model.visual.preprocess_cfg)
    with torch.inference_mode():
        nothing = torch.zeros(1, *config.input_size, device=next(model.parameters()).device)
        dimension = int(model.encode_image(nothing).shape[1])
    described = json.dumps(open_clip.get_model_config(found.model), sort_keys=True).encode()
    config_digest = None if found.pretrained else hashlib.sha256(described).hexdigest()
    return LoadedCLIP(
        name=name_of(found),
        model=model,
        preprocess=image_transform_v2(config, is_train=False),
        tokenize=_tokenizer(found),
        input_side=int(np.max(config.size)),
        dimension=dimension,
        digest=digest,
        device=device,
        config_digest=config_digest and config_digest[:DIGEST_LENGTH],
    )


_SHARED: Shared[LoadedCLIP] = Shared()


def shared_clip(found: CLIPWeights, *, device: torch.device) -> LoadedCLIP:
    """As :func:`load_clip`, but one model for all who ask for the same file and device, as long
    as any of them holds it; loaded again if the file has changed. It must not be changed."""
    try:
        known = file_key(found.path)
    except OSError:
        return load_clip(found, device=device)  # which says what is missing
    key = found.model, found.pretrained, known, with_index(device)
    return _SHARED.get(key, lambda: load_clip(found, device=device))


def encode_images(loaded: LoadedCLIP, images: Sequence[Image.Image]) -> torch.Tensor:
    """``(N, D)`` vectors of pictures, of any length, on the model's device."""
    batch = torch.stack([loaded.preprocess(image) for image in images])
    with torch.inference_mode():
        vectors: torch.Tensor = loaded.model.encode_image(batch.to(loaded.device))
    return vectors


def encode_texts(loaded: LoadedCLIP, texts: Sequence[str]) -> torch.Tensor:
    """``(N, D)`` vectors of texts, of any length, on the model's device."""
    with torch.inference_mode():
        tokens = loaded.tokenize(list(texts)).to(loaded.device)
        vectors: torch.Tensor = loaded.model.encode_text(tokens)
    return vectors


def _build(found: CLIPWeights) -> Any:
    """The architecture with open_clip's preprocessing for these weights, not yet filled."""
    tag = get_pretrained_cfg(found.model, found.pretrained) if found.pretrained else {}
    try:
        with _without_logs():
            return open_clip.create_model(
                found.model,
                load_weights=False,
                pretrained_text=False,
                force_quick_gelu=bool(tag.get("quick_gelu")),
                force_preprocess_cfg=tag,
            )
    except (RuntimeError, OSError, ImportError) as error:
        raise UnavailableError(
            f"the CLIP model '{found.model}' cannot be built on this machine: {one_line(error)}"
        ) from error


def _load_weights(model: Any, state: Weights, found: CLIPWeights) -> None:
    """Puts weights into a model, in whichever of open_clip's forms they are."""
    try:
        state = convert_state_dict(model, state)
        if "positional_embedding" in state and not hasattr(model, "positional_embedding"):
            state = convert_to_custom_text_state_dict(state)
        for name in ("logit_scale", "logit_bias"):
            own = getattr(model, name, None)
            if own is not None and name in state:
                state[name] = state[name].reshape(own.shape)
        for name in ("input_resolution", "context_length", "vocab_size"):
            state.pop(name, None)  # what OpenAI's own files say of themselves
        resize_pos_embed(state, model)
        resize_text_pos_embed(state, model)
        model.load_state_dict(state)
    except (RuntimeError, KeyError, AttributeError, AssertionError, ValueError) as error:
        raise UnavailableError(
            f"the weights in {found.path} do not fit the CLIP model '{found.model}': "
            f"{one_line(error)[:200]}"
        ) from error


def _tokenizer(found: CLIPWeights) -> Callable[[Sequence[str]], torch.Tensor]:
    """open_clip's tokenizer. One that needs files from the network says so once it is used."""
    made: Callable[[Sequence[str]], torch.Tensor]
    text = (open_clip.get_model_config(found.model) or {}).get("text_cfg", {})
    foreign = bool(text.get("hf_tokenizer_name"))
    local = {"local_files_only": True, "trust_remote_code": False} if foreign else {}
    try:
        with _without_logs():
            made = open_clip.get_tokenizer(found.model, **local)
            return made
    except Exception as error:  # what is missing differs from tokenizer to tokenizer
        reason = one_line(error)

    def missing(_: Sequence[str]) -> torch.Tensor:
        raise UnavailableError(
            f"the texts of the CLIP model '{found.model}' need a tokenizer that is not on this "
            f"machine: {reason}"
        )

    return missing


@contextmanager
def _without_logs() -> Iterator[None]:
    """open_clip warns of a model without weights, which is what is asked of it here."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        yield
    finally:
        logging.disable(before)
