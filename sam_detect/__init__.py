"""sam-detect: show a few examples of an object, and it finds all the others.

Names are imported on first use, so that ``import sam_detect`` stays quick and needs no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sam_detect.detector import SAMDetect as SAMDetect
    from sam_detect.types import Detection as Detection
    from sam_detect.types import Detections as Detections
    from sam_detect.types import Frame as Frame
    from sam_detect.types import Masks as Masks

__version__ = "0.1.0"

_EXPORTS = {
    "SAMDetect": "sam_detect.detector",
    "Detection": "sam_detect.types",
    "Detections": "sam_detect.types",
    "Frame": "sam_detect.types",
    "Masks": "sam_detect.types",
}


def __getattr__(name: str) -> Any:
    if name in _EXPORTS:
        return getattr(importlib.import_module(_EXPORTS[name]), name)
    raise AttributeError(f"module 'sam_detect' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted([*globals(), *_EXPORTS])
