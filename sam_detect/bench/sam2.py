"""The suite ``sam2``: our masks against the official generator's, on the same weights.

The weights are random (a seed makes them), because speed, memory and equality need no trained
ones: the same architecture does the same work. What random masks cannot tell is quality.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from sam_detect.bench.measurements import Measurements
from sam_detect.bench.sam2_workload import Workload
from sam_detect.bench.suites import Options, Suite
from sam_detect.config import load_settings
from sam_detect.registry import needing_extra


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
