"""Where models run, and in which precision."""

from __future__ import annotations

import torch

from sam_detect.errors import UnavailableError

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def resolve_device(name: str) -> torch.device:
    """``auto``, ``cpu``, ``cuda`` or ``mps`` as a device; raises ``UnavailableError``."""
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        return torch.device(next((each for each, is_there in there.items() if is_there), "cpu"))
    if name != "cpu" and not there.get(name.partition(":")[0], False):
        raise UnavailableError(f"device '{name}' is not on this machine: use 'auto' or 'cpu'")
    return torch.device(name)


def resolve_dtype(name: str, device: torch.device) -> torch.dtype:
    """A precision by name; ``auto`` is float32. Raises ``UnavailableError``."""
    if name == "auto":
        return torch.float32
    if name not in DTYPES:
        raise UnavailableError(f"no precision is named '{name}' (auto, {', '.join(DTYPES)})")
    return DTYPES[name]
