"""Where and how a model runs: device, precision, batches that fit into memory."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch

from sam_detect.errors import ConfigError, UnavailableError
from sam_detect.types.masks import FloatArray

Item = TypeVar("Item")
Result = TypeVar("Result")

NO_MEMORY = ("out of memory", "not enough memory", "can't allocate memory", "ALLOC_FAILED")
"""What torch says on CUDA, MPS and CPUs where it does not raise ``OutOfMemoryError``."""
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
NAMES_OF_DTYPES = {dtype: name for name, dtype in DTYPES.items()}


def resolve_device(name: str) -> torch.device:
    """The device of a name: ``auto`` (the first of cuda, mps, cpu that is there), ``cpu``,
    ``cuda``, ``cuda:1`` or ``mps``.

    Raises:
        ConfigError: the name means no device that models run on.
        UnavailableError: the device is not on this machine.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError):
        device = torch.device("meta")
    if device.type not in ("cpu", "cuda", "mps"):
        raise ConfigError(f"device must be auto, cpu, cuda (or cuda:N) or mps, got {name!r}")
    if device.type == "cuda":
        _require_cuda(device)
    elif device.type == "mps" and not torch.backends.mps.is_available():
        raise UnavailableError("device 'mps' is not on this machine; use 'auto' or 'cpu'")
    return device


def with_index(device: torch.device) -> torch.device:
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


@dataclass
class BatchSize:
    """How many items a model takes at once. Where memory does not suffice it is halved, and stays
    so: what did not fit once will hardly fit the next time."""

    size: int

    def parts(self, count: int, run: Callable[[slice], Result]) -> Iterator[Result]:
        """What ``run`` gives for each part of ``count`` items, in order.

        A part that fails is run again in smaller ones: ``run`` must change nothing before all of
        its work is done.

        Raises:
            RuntimeError, MemoryError: torch's own, where not even one item fits.
        """
        start = 0
        while start < count:
            part = slice(start, min(start + self.size, count))
            try:
                done = run(part)
            except (RuntimeError, MemoryError) as error:
                if part.stop - start == 1 or not ran_out_of_memory(error):
                    raise
            else:
                yield done
                start = part.stop
                continue
            # Only now is the error gone, and with it what the failed run still held.
            self.size = (part.stop - start) // 2
            empty_device_cache()


def in_batches(
    run: Callable[[Sequence[Item]], torch.Tensor], items: Sequence[Item], size: BatchSize | int
) -> torch.Tensor:
    """What ``run`` gives for all items, one row for each, at most ``size`` of them at a time.

    Where the device's memory does not suffice, the batches are halved until it does.

    Args:
        run: gives rows on any device.
        items: what is run.
        size: a :class:`BatchSize` keeps what was learnt for the next call.

    Raises:
        UnavailableError: not even one item fits.
    """
    batches = size if isinstance(size, BatchSize) else BatchSize(size)
    with enough_memory():
        # Fetched at the end: a GPU works on while the next batch is prepared.
        return torch.cat([*batches.parts(len(items), lambda part: run(items[part]))]).cpu()


def ran_out_of_memory(error: BaseException) -> bool:
    """Whether an error of torch means that memory did not suffice, on whatever device."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(said in str(error) for said in NO_MEMORY)


@contextmanager
def enough_memory() -> Iterator[None]:
    """Turns torch's error for too little memory into one that says what to do.

    Raises:
        UnavailableError: the body ran out of memory.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not ran_out_of_memory(error):
            raise
        raise UnavailableError(
            "the device's memory does not suffice for this model, not even for one input at a "
            "time: choose a smaller model or device 'cpu', or end what else uses the memory"
        ) from error


def empty_device_cache() -> None:
    """Returns the memory that torch caches to the device, for blocks of other sizes."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if torch.backends.mps.is_available():
        torch.mps.empty_cache()


@contextmanager
def precision(device: torch.device, dtype: torch.dtype) -> Iterator[None]:
    """What it surrounds runs in a lower precision where that is faster and safe (autocast), with
    :func:`float32_products` for the rest."""
    lower = dtype != torch.float32
    reduced = torch.autocast(device.type, dtype) if lower else nullcontext()
    with float32_products(device, dtype), reduced:
        yield


def float32_products(device: torch.device, dtype: torch.dtype) -> AbstractContextManager[None]:
    """On CUDA, how what stays in float32 is multiplied where the numbers of a model are ``dtype``.

    With a lower precision in TF32. With float32, the reference, exactly: convolutions, too, for
    which torch takes TF32 by default.
    """
    if device.type != "cuda":
        return nullcontext()
    return _tf32(dtype != torch.float32)


class _TF32:
    """Sets torch's switches of TF32 while a model runs; then they are as they were.

    They belong to the whole process. Where threads need them both ways at once, all are exact.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests: list[bool] = []
        self._before: list[Any] = []

    @contextmanager
    def __call__(self, allowed: bool) -> Iterator[None]:
        with self._lock:
            if not self._requests:
                self._before = [_switch(*each) for each in _switches()]
            self._requests.append(allowed)
            self._turn()
        try:
            yield
        finally:
            with self._lock:
                self._requests.remove(allowed)
                self._turn()

    def _turn(self) -> None:
        allowed = all(self._requests)
        for (where, name), before in zip(_switches(), self._before, strict=True):
            now: Any = allowed if name == OLDER else "tf32" if allowed else "ieee"
            if not self._requests:
                now = before
            if now is not None:
                setattr(where, name, now)


_tf32 = _TF32()
OLDER, NEWER = "allow_tf32", "fp32_precision"


def _switches() -> list[tuple[Any, str]]:
    """Where torch says whether products and convolutions may be in TF32.

    Since version 2.9 there are two switches for each. Both are set, in this order: the older one
    sets the newer, though not wherever it was set before; and ``torch.compile`` fails where the
    two differ.
    """
    products, convolutions = torch.backends.cuda.matmul, torch.backends.cudnn
    older = [(products, OLDER), (convolutions, OLDER)]
    if not hasattr(convolutions, "conv"):
        return older
    return [*older, (products, NEWER), (convolutions.conv, NEWER)]


def _switch(where: Any, name: str) -> Any:
    try:
        return getattr(where, name)
    except RuntimeError:  # an older one, which tells nothing once a newer one was set
        return None


def to_device(values: npt.ArrayLike | torch.Tensor, device: torch.device) -> torch.Tensor:
    """Values on a device, without a wait until a GPU has done what it was given before."""
    return torch.as_tensor(values).to(device, non_blocking=device.type == "cuda")


def unit_rows(vectors: torch.Tensor, model: str) -> FloatArray:
    """``(N, D)`` float32 with rows of length 1.

    Raises:
        UnavailableError: the model gave NaN or infinite values.
    """
    rows = np.asarray(vectors.detach().float().cpu().numpy(), np.float64)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    if not np.isfinite(lengths).all() or (lengths == 0).any():
        raise UnavailableError(
            f"the model '{model}' gives no usable vectors (NaN, infinite or zero): its weights are "
            "damaged, or need the dtype 'fp32'"
        )
    return np.asarray(rows / lengths, np.float32)
