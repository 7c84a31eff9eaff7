"""Where a model runs, and in which floating-point numbers."""

from __future__ import annotations

import torch

from sam_detect.errors import ConfigError, UnavailableError

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def resolve_device(name: str) -> torch.device:
    """The device of a name: ``auto`` (the first of cuda, mps, cpu that is there), ``cpu``,
    ``cuda``, ``cuda:1`` or ``mps``.

    Raises:
        ConfigError: the name means no device that models run on.
        UnavailableError: the device is not on this machine.
    """
    if name == "auto":
        return torch.device(_first_available())
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError):
        device = torch.device("meta")
    if device.type not in ("cpu", "cuda", "mps"):
        raise ConfigError(f"device must be auto, cpu, cuda (or cuda:N) or mps, got {name!r}")
    if device.type == "cuda":
        _require_cuda(device)
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise UnavailableError("device 'mps' is not on this machine; use 'auto' or 'cpu'")
    return device


def numbered(device: torch.device) -> torch.device:
    """The same device by one name: ``cuda`` is ``cuda:0``, unless torch was told otherwise."""
    if device.type != "cuda" or device.index is not None:
        return device
    return torch.device("cuda", torch.cuda.current_device())


def resolve_dtype(name: str, device: torch.device) -> torch.dtype:
    """The numbers of a name: ``fp32``, ``bf16``, ``fp16``, or ``auto``: bf16 on a CUDA device
    that computes with it, else fp32, the reference.

    Raises:
        ConfigError: another name, or fp16 on a CPU, which is slower there than fp32.
    """
    if name == "auto":
        fast = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if fast else torch.float32
    if name not in DTYPES:
        raise ConfigError(f"dtype must be auto, {', '.join(DTYPES)}, got {name!r}")
    if name == "fp16" and device.type == "cpu":
        raise ConfigError("dtype fp16 is for GPUs; on a CPU use bf16 or fp32")
    return DTYPES[name]


def _first_available() -> str:
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _require_cuda(device: torch.device) -> None:
    if not torch.cuda.is_available():
        raise UnavailableError(
            f"device '{device}' was asked for, but torch {torch.__version__} finds no CUDA GPU "
            f"here; use 'auto' or 'cpu'"
        )
    count = torch.cuda.device_count()
    if device.index is not None and device.index >= count:
        raise UnavailableError(
            f"device '{device}' is not on this machine, which has {count} (cuda:0 is the first)"
        )
