"""Small SAM 2 models: Meta's real classes, few numbers, made by a seed and written to files."""

from __future__ import annotations

from pathlib import Path

import torch

from scripts.dev.seeded_sam2 import seeded_sam2

SIDE = 256
"""The side that the small models see a picture at; their logits are a fourth of it."""
CONFIG = """
model:
  _target_: sam2.modeling.sam2_base.SAM2Base
  image_encoder:
    _target_: sam2.modeling.backbones.image_encoder.ImageEncoder
    scalp: 1
    trunk:
      _target_: sam2.modeling.backbones.hieradet.Hiera
      embed_dim: 8
      num_heads: 1
      stages: [1, 1, 2, 1]
      global_att_blocks: [3]
      window_pos_embed_bkg_spatial_size: [7, 7]
    neck:
      _target_: sam2.modeling.backbones.image_encoder.FpnNeck
      position_encoding:
        _target_: sam2.modeling.position_encoding.PositionEmbeddingSine
        num_pos_feats: 32
        normalize: true
        scale: null
        temperature: 10000
      d_model: 32
      backbone_channel_list: [64, 32, 16, 8]
      fpn_top_down_levels: [2, 3]
      fpn_interp_model: nearest
  memory_attention:
    _target_: sam2.modeling.memory_attention.MemoryAttention
    d_model: 32
    pos_enc_at_input: true
    layer:
      _target_: sam2.modeling.memory_attention.MemoryAttentionLayer
      activation: relu
      dim_feedforward: 32
      dropout: 0.1
      pos_enc_at_attn: false
      self_attention:
        _target_: sam2.modeling.sam.transformer.RoPEAttention
        feat_sizes: [16, 16]
        embedding_dim: 32
        num_heads: 1
        downsample_rate: 1
        dropout: 0.1
      d_model: 32
      pos_enc_at_cross_attn_keys: true
      pos_enc_at_cross_attn_queries: false
      cross_attention:
        _target_: sam2.modeling.sam.transformer.RoPEAttention
        feat_sizes: [16, 16]
        embedding_dim: 32
        num_heads: 1
        downsample_rate: 1
        dropout: 0.1
        rope_k_repeat: true
        kv_in_dim: 8
    num_layers: 1
  memory_encoder:
    _target_: sam2.modeling.memory_encoder.MemoryEncoder
    in_dim: 32
    out_dim: 8
    position_encoding:
      _target_: sam2.modeling.position_encoding.PositionEmbeddingSine
      num_pos_feats: 8
      normalize: true
      scale: null
      temperature: 10000
    mask_downsampler:
      _target_: sam2.modeling.memory_encoder.MaskDownSampler
      embed_dim: 32
      kernel_size: 3
      stride: 2
      padding: 1
    fuser:
      _target_: sam2.modeling.memory_encoder.Fuser
      layer:
        _target_: sam2.modeling.memory_encoder.CXBlock
        dim: 32
        kernel_size: 7
        padding: 3
      num_layers: 1
  num_maskmem: 7
  image_size: 256
  use_mask_input_as_output_without_sam: true
  directly_add_no_mem_embed: true
  use_high_res_features_in_sam: {high_res}
  multimask_output_in_sam: true
  iou_prediction_use_sigmoid: {sigmoid}
  use_obj_ptrs_in_encoder: true
  pred_obj_scores: {obj_scores}
  pred_obj_scores_mlp: {obj_scores}
  fixed_no_obj_ptr: {obj_scores}
"""


def small_config(*, high_res: bool = True, obj_scores: bool = True, sigmoid: bool = True) -> str:
    """The YAML of a small model; the flags are those in which SAM 2's own configs differ."""
    flags = {"high_res": high_res, "obj_scores": obj_scores, "sigmoid": sigmoid}
    text = CONFIG
    for name, value in flags.items():
        text = text.replace("{" + name + "}", str(value).lower())
    return text


def write_small_sam2(
    folder: Path, name: str = "small", *, seed: int = 0, sure: bool = False, **flags: bool
) -> Path:
    """Writes ``NAME.pt`` and ``NAME.yaml``; returns the checkpoint.

    A model that is ``sure`` of its masks has them pass the default thresholds.
    """
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / f"{name}.yaml"
    config.write_text(small_config(**flags), encoding="utf-8")
    path = folder / f"{name}.pt"
    torch.save({"model": seeded_state(config, seed, sure=sure)}, path)
    return path


def seeded_state(config: Path, seed: int, *, sure: bool = False) -> dict[str, torch.Tensor]:
    """Random weights with which every part of the model matters, and logits that are not flat."""
    model = seeded_sam2(config, seed)
    for head in model.sam_mask_decoder.output_hypernetworks_mlps:
        head.layers[-1].weight.data *= 10 * (100 if sure else 1)
    if sure:
        model.sam_mask_decoder.iou_prediction_head.layers[-1].bias.data += 4
    state: dict[str, torch.Tensor] = model.state_dict()
    return state
