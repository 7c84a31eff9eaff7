"""sam-detect: show a few examples of an object, and it finds all the others.

Names are imported on first use, so that ``import sam_detect`` stays quick and needs no torch.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sam_detect.api import SAMDetect as SAMDetect
    from sam_detect.download_models import download_models as download_models
    from sam_detect.server.client import Client as Client
    from sam_detect.server.ui import AnnotationUI as AnnotationUI
    from sam_detect.types import Detection as Detection
    from sam_detect.types import Detections as Detections
    from sam_detect.types import Frame as Frame
    from sam_detect.types import Masks as Masks

__version__ = "0.1.0"

_EXPORTS = {
    "SAMDetect": "sam_detect.api",
    "AnnotationUI": "sam_detect.server.ui",
    "Client": "sam_detect.server.client",
    "Detection": "sam_detect.types",
    "Detections": "sam_detect.types",
    "Frame": "sam_detect.types",
    "Masks": "sam_detect.types",
    "download_models": "sam_detect.download_models",
}


class _Package(ModuleType):
    """This package. A function of it has the name of the module that ``python -m`` runs; importing
    a module sets it as an attribute of its package, which must not hide the function."""

    def __setattr__(self, name: str, value: object) -> None:
        if not (name in _EXPORTS and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __getattr__(name: str) -> Any:
    if name in _EXPORTS:
        return getattr(importlib.import_module(_EXPORTS[name]), name)
    raise AttributeError(f"module 'sam_detect' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted([*globals(), *_EXPORTS])
