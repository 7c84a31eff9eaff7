"""Builds CLIP models from the configs of folders: open_clip's own towers, and nothing else.

open_clip itself would download what such a config names (a language model, a tokenizer, weights on
a hub), and a tokenizer of ``transformers`` may come with code. So a folder's config is read into
the models below, which know no such name, and open_clip gets only what they have checked.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, Literal

import timm
import torch
from open_clip.model import CLIP, CustomTextCLIP, set_model_preprocess_cfg
from open_clip.transform import PreprocessCfg, merge_preprocess_dict
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from sam_detect.errors import UnavailableError, one_line

FOLDER_CONFIG = "open_clip_config.json"
MAX_BYTES = 1 << 16

Width = Annotated[int, Field(ge=1, le=4096)]
Count = Annotated[int, Field(ge=1, le=128)]
Share = Annotated[float, Field(ge=0, le=1)]
Ratio = Annotated[float, Field(ge=0.1, le=16)]
Scale = Annotated[float, Field(ge=0, le=10)]
Side = Annotated[int, Field(ge=8, le=1024)]
Sides = Side | Annotated[list[Side], Field(min_length=2, max_length=2)]
Colour = Annotated[list[float], Field(min_length=3, max_length=3)]
Deviation = Annotated[
    list[Annotated[float, Field(ge=1e-4, le=1000)]], Field(min_length=3, max_length=3)
]


def _known_to_timm(name: str) -> str:
    if not timm.is_model(name):  # also what timm would download from a hub or read from a folder
        raise ValueError("is no architecture of timm")
    return name


class _Closed(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class _Norm(_Closed):
    eps: float = Field(1e-5, gt=0, le=1)


class _Activation(_Closed):
    approximate: Literal["none", "tanh"] = "none"


class _Tower(_Closed):
    """What both towers have."""

    width: Width = 768
    mlp_ratio: Ratio = 4.0
    ls_init_value: Scale | None = None
    final_ln_after_pool: bool = False
    output_tokens: bool = False
    act_kwargs: _Activation | None = None
    norm_kwargs: _Norm | None = None
    block_type: Literal["default", "custom"] | None = None
    qk_norm: bool = False
    scaled_cosine_attn: bool = False
    scale_heads: bool = False
    scale_attn_inner: bool = False
    scale_attn: bool = False
    scale_fc: bool = False


class _Vision(_Tower):
    layers: Count | Annotated[list[Count], Field(min_length=4, max_length=4)] = 12
    head_width: Width = 64
    patch_size: Count | None = 16
    image_size: Sides = 224
    patch_dropout: Share = 0.0
    attentional_pool: bool = False
    attn_pooler_queries: Width = 256
    attn_pooler_heads: Count = 8
    no_ln_pre: bool = False
    pos_embed_type: Literal["learnable", "sin_cos_2d"] = "learnable"
    pool_type: Literal["tok", "avg", "none"] = "tok"
    timm_model_name: Annotated[str, AfterValidator(_known_to_timm)] | None = None
    timm_model_pretrained: bool = False
    timm_pool: Literal["", "avg", "map", "token", "abs_attn", "rot_attn"] = "avg"
    timm_proj: Literal["", "none", "linear", "mlp"] | None = "linear"
    timm_proj_bias: bool = False
    timm_drop: Share = 0.0
    timm_drop_path: Share | None = None


class _Cleaning(_Closed):
    clean: Literal["lower", "whitespace", "canonicalize"] = "lower"


class _Text(_Tower):
    width: Width = 512
    context_length: Annotated[int, Field(ge=1, le=1024)] = 77
    vocab_size: Annotated[int, Field(ge=1, le=1_000_000)] = 49408
    heads: Count = 8
    layers: Count = 12
    embed_cls: bool = False
    pad_id: int = Field(0, ge=0, le=1_000_000)
    eos_id: int = Field(2, ge=0, le=1_000_000)
    no_causal_mask: bool = False
    pool_type: Literal["argmax", "first", "last", "eos", "none"] = "argmax"
    proj_bias: bool = False
    proj_type: Literal["linear", "none"] = "linear"
    tokenizer_kwargs: _Cleaning | None = None


class ModelConfig(_Closed):
    """The ``model_cfg`` of a folder."""

    embed_dim: Width
    vision_cfg: _Vision
    text_cfg: _Text
    quick_gelu: bool = False
    custom_text: bool = False
    init_logit_scale: float | None = Field(None, ge=-100, le=100)
    init_logit_bias: float | None = Field(None, ge=-100, le=100)
    nonscalar_logit_scale: bool = False


class Preprocessing(BaseModel):
    """The ``preprocess_cfg`` of a folder. The size is the model's, whatever this says."""

    model_config = ConfigDict(extra="ignore", strict=True, frozen=True, allow_inf_nan=False)

    mode: Literal["RGB"] = "RGB"
    mean: Colour | None = None
    std: Deviation | None = None
    interpolation: Literal["bicubic", "bilinear"] | None = None
    resize_mode: Literal["shortest", "longest", "squash"] | None = None
    fill_color: Annotated[int, Field(ge=0, le=255)] | None = None


class FolderConfig(BaseModel):
    """A folder's config, as far as it is used.

    Attributes:
        foreign_tokenizer: its texts need a tokenizer of ``transformers``, which is not loaded.
    """

    model_config = ConfigDict(extra="ignore", strict=True, frozen=True)

    model_cfg: ModelConfig
    preprocess_cfg: Preprocessing = Preprocessing()
    foreign_tokenizer: bool = False

    @property
    def digest(self) -> str:
        """16 hexadecimal digits that tell this model's settings from others'."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:16]

    def build(self, most_weights: int) -> Any:
        """The model with random weights, and with open_clip's preprocessing attached.

        Args:
            most_weights: how many there are to put into it. One that is far larger is refused
                before memory is taken for it.

        Raises:
            ValueError: the parts do not fit one another, or not the weights.
        """
        given = self.model_cfg.model_dump(exclude_unset=True)
        custom = given.pop("custom_text", False)
        given["text_cfg"].pop("tokenizer_kwargs", None)
        given["vision_cfg"]["timm_model_pretrained"] = False
        kind = CustomTextCLIP if custom else CLIP
        with torch.device("meta"):
            count = sum(parameter.numel() for parameter in kind(**given).parameters())
        if count > 1.5 * most_weights + 1_000_000:  # resized embeddings of positions may be larger
            raise ValueError(f"it describes {count} weights, and its file has {most_weights}")
        model = kind(**given)
        asked = self.preprocess_cfg.model_dump(exclude_none=True)
        settings = merge_preprocess_dict(PreprocessCfg(size=model.visual.image_size), asked)
        set_model_preprocess_cfg(model, settings)
        return model


def read_folder_config(folder: Path) -> FolderConfig:
    """The checked config of a folder as open_clip saves it.

    Raises:
        UnavailableError: it cannot be read, or asks for something else than open_clip's own
            towers with sensible values.
    """
    path = folder / FOLDER_CONFIG
    if not path.is_file():
        raise UnavailableError(f"the folder {folder} is no CLIP model: it has no {FOLDER_CONFIG}")
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise ValueError(f"it is longer than {MAX_BYTES >> 10} KiB")
        found = json.loads(data)
        text = found["model_cfg"]["text_cfg"]
        # Names of a tokenizer are left out, not followed: vectors of pictures need none.
        foreign = bool(text.pop("hf_tokenizer_name", None))
        if foreign:
            text.pop("tokenizer_kwargs", None)
            text.pop("tokenizer_mode", None)
        return FolderConfig(**{**found, "foreign_tokenizer": foreign})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(each) for each in first["loc"][:3])
        why = f"{place[:100]}: {first['msg'][0].lower()}{first['msg'][1:]}"
        if first["type"] == "extra_forbidden":
            why = f"{place[:100]} is not followed; only open_clip's own towers are built"
        raise UnavailableError(f"the CLIP config {path} cannot be used: {why}") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UnavailableError(
            f"the CLIP config {path} cannot be used: {one_line(error)[:120]}"
        ) from error
