"""Builds SAM 2 models from configs of others: Meta's classes, and nothing else.

A config is plain YAML in the form of the ``sam2`` package's own: each part names its class under
``_target_``, next to the parameters. Here the models below say which classes and parameters there
are, with the type and range of each. Nothing is imported, looked up or called because a config
names it.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import sam2
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from sam2.modeling.backbones.hieradet import Hiera
from sam2.modeling.backbones.image_encoder import FpnNeck, ImageEncoder
from sam2.modeling.memory_attention import MemoryAttention, MemoryAttentionLayer
from sam2.modeling.memory_encoder import CXBlock, Fuser, MaskDownSampler, MemoryEncoder
from sam2.modeling.position_encoding import PositionEmbeddingSine
from sam2.modeling.sam.transformer import RoPEAttention
from sam2.modeling.sam2_base import SAM2Base

from sam_detect.errors import ConfigError, one_line
from sam_detect.plain_yaml import PlainYAMLError, read_yaml

MAX_BYTES = 1 << 16
DECODER_EXTRAS = {
    "dynamic_multimask_via_stability": True,
    "dynamic_multimask_stability_delta": 0.05,
    "dynamic_multimask_stability_thresh": 0.98,
}
"""What ``sam2.build_sam.build_sam2`` adds to every config by default."""

Width = Annotated[int, Field(ge=1, le=512)]
Heads = Annotated[int, Field(ge=1, le=64)]
Cells = Annotated[int, Field(ge=1, le=128)]
Level = Annotated[int, Field(ge=0, le=3)]
Share = Annotated[float, Field(ge=0, le=1)]
Pair = Annotated[list[Cells], Field(min_length=2, max_length=2)]
FourStages = Annotated[list[Heads], Field(min_length=4, max_length=4)]


class Part(BaseModel):
    """One part of a model: its class, and the parameters that a config may give.

    The parameters are those that occur in the configs of the ``sam2`` package. What a config does
    not give is as the class has it.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)
    made: ClassVar[type]
    extras: ClassVar[dict[str, Any]] = {}
    target: str = Field(alias="_target_")

    @field_validator("target")
    @classmethod
    def _names_the_class(cls, value: str) -> str:
        if value != (expected := f"{cls.made.__module__}.{cls.made.__qualname__}"):
            raise ValueError(f"should be '{expected}'")
        return value

    def build(self) -> Any:
        """The part itself, with the parts that it is made of."""
        given = {name: value for name, value in self if name in self.model_fields_set - {"target"}}
        parameters = {
            name: value.build() if isinstance(value, Part) else value
            for name, value in given.items()
        }
        return self.made(**parameters, **self.extras)


class HieraPart(Part):
    made = Hiera
    embed_dim: Width = 96
    num_heads: Heads = 1
    drop_path_rate: Share = 0.0
    stages: FourStages = [2, 3, 16, 3]
    global_att_blocks: Annotated[
        list[Annotated[int, Field(ge=0, le=255)]], Field(max_length=64)
    ] = []
    window_pos_embed_bkg_spatial_size: Pair = [14, 14]
    window_spec: FourStages = [8, 4, 14, 7]

    def weights(self) -> int:
        """About how many weights it has: in each block 12 times the square of the width, which
        doubles from stage to stage."""
        return sum(
            12 * blocks * (self.embed_dim << stage) ** 2 for stage, blocks in enumerate(self.stages)
        )


class PositionPart(Part):
    made = PositionEmbeddingSine
    num_pos_feats: Width
    normalize: bool = True
    scale: Annotated[float, Field(ge=0, le=1000)] | None = None
    temperature: int = Field(10_000, ge=1, le=1_000_000)


class NeckPart(Part):
    made = FpnNeck
    position_encoding: PositionPart
    d_model: Width
    backbone_channel_list: Annotated[
        list[Annotated[int, Field(ge=1, le=4096)]], Field(min_length=4, max_length=4)
    ]
    fpn_top_down_levels: Annotated[list[Level], Field(max_length=4)] | None = None
    fpn_interp_model: Literal["nearest", "bilinear"] = "bilinear"


class ImageEncoderPart(Part):
    made = ImageEncoder
    scalp: Level = 0
    trunk: HieraPart
    neck: NeckPart


class AttentionPart(Part):
    made = RoPEAttention
    rope_theta: float = Field(10_000.0, ge=1, le=10_000_000)
    feat_sizes: Pair = [64, 64]
    rope_k_repeat: bool = False
    embedding_dim: Width
    num_heads: Heads
    downsample_rate: Heads = 1
    dropout: Share = 0.0
    kv_in_dim: Width | None = None


class AttentionLayerPart(Part):
    made = MemoryAttentionLayer
    activation: Literal["relu", "gelu", "glu"]
    dim_feedforward: int = Field(ge=1, le=4096)
    dropout: Share
    pos_enc_at_attn: bool
    self_attention: AttentionPart
    d_model: Width
    pos_enc_at_cross_attn_keys: bool
    pos_enc_at_cross_attn_queries: bool
    cross_attention: AttentionPart


class MemoryAttentionPart(Part):
    made = MemoryAttention
    d_model: Width
    pos_enc_at_input: bool
    layer: AttentionLayerPart
    num_layers: int = Field(ge=1, le=4)


class DownsamplerPart(Part):
    made = MaskDownSampler
    embed_dim: Width = 256  # in none of the package's configs; narrower models need it
    kernel_size: int = Field(4, ge=1, le=7)
    stride: int = Field(4, ge=2, le=4)
    padding: Level = 0


class BlockPart(Part):
    made = CXBlock
    dim: Width
    kernel_size: int = Field(7, ge=1, le=7)
    padding: Level = 3
    layer_scale_init_value: Share = 1e-6
    use_dwconv: Literal[True] = True


class FuserPart(Part):
    made = Fuser
    layer: BlockPart
    num_layers: int = Field(ge=1, le=4)


class MemoryEncoderPart(Part):
    made = MemoryEncoder
    in_dim: Width = 256  # in none of the package's configs; narrower models need it
    out_dim: Width
    position_encoding: PositionPart
    mask_downsampler: DownsamplerPart
    fuser: FuserPart


class SAM2Part(Part):
    """The whole model."""

    made = SAM2Base
    extras: ClassVar[dict[str, Any]] = {"sam_mask_decoder_extra_args": DECODER_EXTRAS}
    image_encoder: ImageEncoderPart
    memory_attention: MemoryAttentionPart
    memory_encoder: MemoryEncoderPart
    num_maskmem: int = Field(7, ge=1, le=64)
    image_size: int = Field(512, ge=64, le=2048)
    sigmoid_scale_for_mem_enc: float = Field(1.0, ge=-1000, le=1000)
    sigmoid_bias_for_mem_enc: float = Field(0.0, ge=-1000, le=1000)
    use_mask_input_as_output_without_sam: bool = False
    directly_add_no_mem_embed: bool = False
    no_obj_embed_spatial: bool = False
    use_high_res_features_in_sam: bool = False
    multimask_output_in_sam: bool = False
    iou_prediction_use_sigmoid: bool = False
    use_obj_ptrs_in_encoder: bool = False
    add_tpos_enc_to_obj_ptrs: bool = True
    proj_tpos_enc_in_obj_ptrs: bool = False
    use_signed_tpos_enc_to_obj_ptrs: bool = False
    only_obj_ptrs_in_the_past_for_eval: bool = False
    pred_obj_scores: bool = False
    pred_obj_scores_mlp: bool = False
    fixed_no_obj_ptr: bool = False
    multimask_output_for_tracking: bool = False
    use_multimask_token_for_obj_ptr: bool = False
    multimask_min_pt_num: int = Field(1, ge=0, le=16)
    multimask_max_pt_num: int = Field(1, ge=0, le=16)
    use_mlp_for_obj_ptr_proj: bool = False
    compile_image_encoder: Literal[False] = False  # SAM2Segmenter(compile=True) is for that


def config_path(config: str) -> Path:
    """The file of a config: one of the ``sam2`` package, or the path of a YAML file.

    Raises:
        ConfigError: there is no such file.
    """
    packaged = Path(sam2.__path__[0], config)
    path = packaged if packaged.is_file() else Path(config).expanduser()
    if not path.is_file():
        raise ConfigError(f"there is no SAM 2 config {config}")
    return path


def read_config(config: str) -> SAM2Part:
    """The ``model`` of a config file; nothing else in the file is looked at.

    Args:
        config: as for :func:`config_path`.

    Raises:
        ConfigError: it cannot be read, or asks for another class, parameter or value than those
            of this module.
    """
    try:
        with config_path(config).open("rb") as file:
            data = file.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise PlainYAMLError(f"it is longer than {MAX_BYTES >> 10} KiB")
        found = read_yaml(data.decode("utf-8-sig"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"the SAM 2 config {config} cannot be read: {one_line(error)}") from error
    model = found.get("model") if isinstance(found, dict) else None
    if not isinstance(model, dict):
        raise ConfigError(f"{config} is no SAM 2 config: it has no 'model'")
    try:
        return SAM2Part.model_validate(model)
    except ValidationError as error:
        first = error.errors()[0]
        why = "is not a parameter that a config may give"
        if first["type"] != "extra_forbidden":
            value = first["input"]
            got = "" if isinstance(value, (dict, list)) else f", got {str(value)[:60]!r}"
            said = first["msg"].removeprefix("Value error, ")
            why = f"{said[0].lower()}{said[1:]}{got}"
        place = ".".join(str(each) for each in first["loc"])[:200]
        raise ConfigError(f"the SAM 2 config {config} cannot be used: {place}: {why}") from error


def build(part: SAM2Part, config: str) -> SAM2Base:
    """The model that a config describes, with random weights.

    Args:
        config: the config's name, for errors.

    Raises:
        ConfigError: its values do not fit one another.
    """
    try:
        model: SAM2Base = part.build()
    except (AssertionError, RuntimeError, ValueError, TypeError, ArithmeticError) as error:
        raise ConfigError(
            f"the SAM 2 config {config} cannot be built: {one_line(error)[:200]}"
        ) from error
    return model


def digest_of(part: SAM2Part) -> str:
    """16 hexadecimal digits that tell this model's settings from others'."""
    return hashlib.sha256(part.model_dump_json().encode()).hexdigest()[:16]
