"""SAM 2's video memory against Meta's own predictor, on one model of random weights."""

from __future__ import annotations

import contextlib
import copy
import io
import tempfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image
from sam2.sam2_video_predictor import SAM2VideoPredictor

from sam_detect.io import load_image
from sam_detect.models.sam2 import LoadedSAM2
from sam_detect.segmentation.sam2 import SAM2Segmenter
from sam_detect.types.masks import BoolArray
from scripts.dev.bench.measurements import Measurements, Trial
from scripts.dev.bench.stages import drawn

FRAMES = 5
"""Frames after the first one, of a video that lies in a folder."""
STEP_PX = 4
"""How far the picture moves from frame to frame."""


def official_video_predictor(loaded: LoadedSAM2) -> SAM2VideoPredictor:
    """Meta's predictor of a model of any size, which shares its weights."""
    made: Any = copy.copy(loaded.model)
    made.__class__ = SAM2VideoPredictor
    made.fill_hole_area, made.non_overlap_masks = 0, False
    made.clear_non_cond_mem_around_input = made.add_all_frames_to_correct_as_cond = False
    made.binarize_mask_from_pts_for_mem_enc = True
    return made


def measure_video(measurements: Measurements, loaded: LoadedSAM2) -> None:
    """Adds the pair ``video_vs_official``: an object is followed through a folder of frames, from
    their files to its masks; and the share of the frames in which the masks are the same."""
    outline = np.zeros((loaded.model.image_size,) * 2, np.bool_)
    third = loaded.model.image_size // 3
    outline[third : 2 * third, third : 2 * third] = True
    results: dict[str, list[BoolArray]] = {}
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        _write_frames(Path(folder), loaded.model.image_size)

        def ours(_: Any) -> None:
            segmenter = SAM2Segmenter(loaded, dtype="fp32")
            first, *later = sorted(Path(folder).iterdir())
            follow = segmenter.follow(load_image(first), outline)
            results["ours"] = [follow(load_image(path)) > 0.5 for path in later]

        @torch.inference_mode()
        def official(_: Any) -> None:
            predictor: Any = official_video_predictor(loaded)
            with contextlib.redirect_stderr(io.StringIO()):  # its progress bars
                state = predictor.init_state(folder)
                predictor.add_new_mask(state, 0, 0, outline)
                _, *later = predictor.propagate_in_video(state)
            results["official"] = [logits[0, 0].cpu().numpy() > 0 for _, _, logits in later]

        measurements.announce("video_vs_official")
        SAM2Segmenter(loaded, dtype="fp32").encoder(load_image(Path(folder, "000.jpg")))
        mine, theirs = measurements.accumulate(
            [Trial("a video, frame by frame", ours), Trial("a video, official", official)], 1
        )
    frame = 1 / FRAMES
    measurements.add_pair("video_vs_official", mine.scaled(frame), theirs.scaled(frame))
    same = [
        float((a & b).sum() / max(1, (a | b).sum())) >= 0.99 or not (a | b).any()
        for a, b in zip(results["ours"], results["official"], strict=True)
    ]
    measurements.figures["video_same_share"] = float(np.mean(same))


def _write_frames(folder: Path, side: int) -> None:
    """Frames of the model's own side, so that neither side scales them."""
    picture = cv2.resize(drawn(), (side, side), interpolation=cv2.INTER_AREA)
    for index in range(FRAMES + 1):
        moved = np.roll(picture, index * STEP_PX, axis=1)
        Image.fromarray(moved).save(folder / f"{index:03}.jpg", quality=95)
