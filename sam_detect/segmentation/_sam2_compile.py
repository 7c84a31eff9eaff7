"""``torch.compile`` where this machine can compile, and the same without where it cannot."""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Callable
from typing import Any, TypeVar, cast

import torch

from sam_detect.config import home_dir
from sam_detect.errors import one_line

Function = TypeVar("Function", bound=Callable[..., Any])
COMPILERS = ("c++", "g++", "clang++", "cl")


def can_compile() -> bool:
    """Whether there is a C++ compiler; warns where there is none.

    Where there is, torch is told to keep what it compiles under ``SAM_DETECT_HOME``, for the next
    process, unless the user chose another folder.
    """
    if not any(map(shutil.which, COMPILERS)):
        _warn("there is no C++ compiler (such as g++) on this machine")
        return False
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(home_dir() / "cache" / "torchinductor"))
    return True


def compiled(function: Function) -> Function:
    """The function, compiled when it is first called with inputs of some form.

    Where that fails (a compiler that does not work, a GPU without Triton) it warns once, and is
    what it was.
    """
    return cast(Function, _Compiled(function))


class _Compiled:
    def __init__(self, plain: Callable[..., Any]) -> None:
        # Here, because it takes as long to import as the rest of torch.
        from torch._dynamo.exc import TorchDynamoException

        self._failure = TorchDynamoException
        self._plain = plain
        self._function: Callable[..., Any] = torch.compile(plain)

    def __call__(self, *inputs: Any) -> Any:
        try:
            return self._function(*inputs)
        except self._failure as error:
            _warn(one_line(error)[:160])
        self._function = self._plain
        return self._plain(*inputs)


def _warn(reason: str) -> None:
    warnings.warn(f"compile=True changes nothing: {reason}", stacklevel=2)
