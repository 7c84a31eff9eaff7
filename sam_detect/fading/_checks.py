"""Checks that the fades share."""

from __future__ import annotations

import math

from sam_detect.errors import ConfigError


def positive(name: str, value: float) -> float:
    """The value as a float, if it is a finite number above 0."""
    number = _number(value)
    if not math.isfinite(number) or number <= 0:
        raise ConfigError(f"{name} must be a number above 0, got {value!r}")
    return number


def fraction(name: str, value: float) -> float:
    """The value as a float, if it lies in 0..1."""
    number = _number(value)
    if not 0 <= number <= 1:
        raise ConfigError(f"{name} must lie between 0 and 1, got {value!r}")
    return number


def _number(value: float) -> float:
    """The value as a float; NaN where it is none, which every check refuses."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return math.nan
