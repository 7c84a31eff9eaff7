"""How records with arrays are shown: on a line, with the arrays' shapes."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np

MOST_SHOWN = 80


def short_repr(record: Any) -> str:
    """``Name(field=value, ...)`` of a dataclass; of an array its dtype and shape."""
    shown = (f"{each.name}={_short(getattr(record, each.name))}" for each in fields(record))
    return f"{type(record).__name__}({', '.join(shown)})"


def _short(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"<{value.dtype} {value.shape}>"
    if isinstance(value, (tuple, list, dict)) and len(value) > 4:
        return f"<{type(value).__name__} of {len(value)}>"
    text = repr(value)
    return text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}...".replace("\n", " ")
