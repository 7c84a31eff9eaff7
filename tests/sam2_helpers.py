"""Small SAM 2 models: Meta's real classes, few numbers, made by a seed and written to files.

Their size is added to those that are told from the weights of a file, for the tests alone.
"""

from __future__ import annotations

from pathlib import Path

import torch

from sam_detect.models.sam2 import CONFIGS, LoadedSAM2
from scripts.dev.seeded_sam2 import seeded_sam2

SIDE = 256
"""The side that the small models see a picture at; their logits are a fourth of it."""
CONFIG = Path(__file__).parent / "fixtures" / "small_sam2.yaml"
FLAGS = {
    "high_res": ("use_high_res_features_in_sam",),
    "obj_scores": ("pred_obj_scores", "pred_obj_scores_mlp", "fixed_no_obj_ptr"),
    "sigmoid": ("iou_prediction_use_sigmoid",),
}
"""Those in which SAM 2's own configurations differ."""

CONFIGS[8, 5, False] = str(CONFIG)


def small_model(folder: Path, *, seed: int = 0, sure: bool = False, **flags: bool) -> LoadedSAM2:
    """A model of random weights with which every part of it matters, and logits that are not flat.

    Args:
        folder: gets the configuration with the flags, if there are any.
        sure: its masks pass the default thresholds.
        flags: as ``FLAGS``; all are true by default.
    """
    text = CONFIG.read_text(encoding="utf-8")
    for name, value in flags.items():
        for setting in FLAGS[name]:
            text = text.replace(f"{setting}: true", f"{setting}: {str(value).lower()}")
    config = (folder / "flags.yaml").absolute() if flags else CONFIG
    if flags:
        config.write_text(text, encoding="utf-8")
    model = seeded_sam2(config, seed)
    for head in model.sam_mask_decoder.output_hypernetworks_mlps:
        head.layers[-1].weight.data *= 10 * (100 if sure else 1)
    if sure:
        model.sam_mask_decoder.iou_prediction_head.layers[-1].bias.data += 4
    return LoadedSAM2(model, "small", torch.device("cpu"))


def write_small_sam2(
    folder: Path, name: str = "small", *, seed: int = 0, sure: bool = False
) -> Path:
    """Writes the checkpoint ``NAME.pt`` of a small model."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.pt"
    torch.save({"model": small_model(folder, seed=seed, sure=sure).model.state_dict()}, path)
    return path
