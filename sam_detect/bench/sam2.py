"""The suite ``sam2``: our masks against the official generator's, on the same weights.

The weights are random (a seed makes them), because speed, memory and equality need no trained
ones: the same architecture does the same work. What random masks cannot tell is quality.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from sam_detect.bench.measurements import Measurements
from sam_detect.bench.suites import Options, Suite
from sam_detect.config import load_settings
from sam_detect.registry import needing_extra


@dataclass(frozen=True)
class Workload:
    """What is measured.

    Attributes:
        config: the architecture, as ``models.sam2.load_sam2`` takes it.
        picture_side: of the picture whose masks are made, pixels.
        per_side: points along a side of its grid.
        large_side, large_per_side, large_masks: the same for the peak of memory, and about how
            many masks are to be found there.
        prompts: of the decoder alone; on a GPU, where they are decoded by the dozen, 16 times as
            many.
        embedded: objects of 100 that are really embedded one by one; the time is multiplied. On
            a GPU all of them are.
        threads: of torch.
        frame_hw: of the frame whose stages are timed on a GPU, pixels.
    """

    config: str = "configs/sam2.1/sam2.1_hiera_t.yaml"
    picture_side: int = 800
    per_side: int = 32
    large_side: int = 2000
    large_per_side: int = 16
    large_masks: int = 500
    prompts: int = 16
    embedded: int = 4
    threads: int = 2
    frame_hw: tuple[int, int] = (1080, 1920)


class SAM2Suite(Suite):
    """Pairs with Meta's own code: masks in fp32 and bf16, the decoder alone, peak memory, and
    embedding; on a GPU also the stages of a frame of a video."""

    repeat = 1
    takes = frozenset({"device"})

    def __init__(self, workload: Workload | None = None) -> None:
        self.workload = workload or Workload()

    def run(self, measurements: Measurements, options: Options) -> None:
        with needing_extra("the suite 'sam2'"):
            from sam_detect.bench.sam2_trials import measure
        device = load_settings({"device": options.device}).device
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            measure(measurements, self.workload, Path(folder), device)
