"""Channels of stacks as users write them: which ones, with what colour and contrast."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sam_detect.errors import ConfigError, ImageError
from sam_detect.io.pixels import SAMPLED_VALUES, own_stretch

Colour = tuple[float, float, float]
"""Red, green and blue at full intensity, 0 to 1."""

WHITE: Colour = (1.0, 1.0, 1.0)
COLOURS: dict[str, Colour] = {
    "red": (1.0, 0.0, 0.0),
    "green": (0.0, 1.0, 0.0),
    "blue": (0.0, 0.0, 1.0),
    "magenta": (1.0, 0.0, 1.0),
    "cyan": (0.0, 1.0, 1.0),
    "yellow": (1.0, 1.0, 0.0),
    "white": WHITE,
}
"""By name; of several channels, in the order in which they are selected."""
OTHER_NAMES = {"grey": "white", "gray": "white"}
_NUMBER = r"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?"
_CONTRAST = re.compile(rf"\s*({_NUMBER})(%?)\s*-\s*({_NUMBER})(%?)\s*", re.ASCII)
_HEX = re.compile("#[0-9a-f]{6}", re.ASCII)


@dataclass(frozen=True)
class Limit:
    """A value of a channel, or a percentile of its values."""

    number: float
    percentile: bool = False

    def of(self, values: npt.NDArray[Any], method: Any) -> float:
        """The value; a percentile is one of the ``values``, by numpy's ``method``."""
        if not self.percentile:
            return self.number
        return float(np.percentile(values, self.number, method=method))


@dataclass(frozen=True)
class Contrast:
    """What becomes black, and what full intensity."""

    low: Limit
    high: Limit

    @property
    def limits(self) -> tuple[float, float] | None:
        """The two values, where no percentile has to be measured."""
        if self.low.percentile or self.high.percentile:
            return None
        return self.low.number, self.high.number

    def of(self, values: npt.NDArray[Any]) -> tuple[float, float]:
        """The two values in a picture of these (finite) values."""
        flat = values.reshape(-1)
        sample = flat[:: -(-flat.size // SAMPLED_VALUES)]
        return self.low.of(sample, "lower"), self.high.of(sample, "higher")


@dataclass(frozen=True)
class ChannelChoice:
    """A channel that a user selects.

    Attributes:
        number: from 0.
        colour: None where the user leaves it open.
        contrast: likewise.
    """

    number: int
    colour: Colour | None = None
    contrast: Contrast | None = None

    @property
    def stretch(self) -> Callable[[npt.NDArray[Any]], tuple[float, float]]:
        """The values of a picture that become black and full intensity."""
        return own_stretch if self.contrast is None else self.contrast.of


def chosen_channels(
    text: str | None, count: int, names: Sequence[str], path: str
) -> list[ChannelChoice]:
    """The channels that a user names, each as ``NUMBER|NAME[:COLOUR][:LOW-HIGH]``; warns where
    nothing says which one of several.

    Raises:
        ConfigError: a contrast that is empty or beyond 0 to 100 %.
        ImageError: there is no such channel.
    """
    if text is None:
        if count > 1:
            warnings.warn(f"{path}: only channel 1 of {count} is read; --channel selects others",
                          stacklevel=5)  # fmt: skip
        return [ChannelChoice(0)]
    known = {each.casefold(): number for number, each in reversed(list(enumerate(names)))}
    known |= {str(number + 1): number for number in range(count) if str(number + 1) not in known}
    found: dict[int, ChannelChoice] = {}
    for each in map(str.strip, text.split(",")):
        choice = _choice(each, known)
        if choice is None:
            called = f" ({', '.join(names[:8])})" if names else ""
            raise ImageError(
                f"{path}: there is no channel '{each}', the file has channels 1-{count}{called}; "
                f"a colour ({', '.join(COLOURS)} or #rrggbb) and a contrast (100-4000, 1%-99.5%) "
                "may follow, as in 1:green:100-4000"
            )
        found.setdefault(choice.number, choice)
    return list(found.values())


def _choice(text: str, known: dict[str, int]) -> ChannelChoice | None:
    """What a user writes of one channel; a name may have colons itself."""
    colour: Colour | None = None
    contrast: Contrast | None = None
    name = text
    while name.strip().casefold() not in known:
        name, colon, last = name.rpartition(":")
        if not colon:
            return None
        if colour is None and (as_colour := _colour(last)) is not None:
            colour = as_colour
        elif contrast is None and (match := _CONTRAST.fullmatch(last)) is not None:
            contrast = _contrast(match, text)
        else:
            return None
    return ChannelChoice(known[name.strip().casefold()], colour, contrast)


def _colour(text: str) -> Colour | None:
    name = text.strip().casefold()
    if _HEX.fullmatch(name):
        red, green, blue = (int(name[at : at + 2], 16) / 255 for at in (1, 3, 5))
        return red, green, blue
    return COLOURS.get(OTHER_NAMES.get(name, name))


def _contrast(match: re.Match[str], text: str) -> Contrast:
    low, high = (Limit(float(match[at]), bool(match[at + 1])) for at in (1, 3))
    percentiles = [each.number for each in (low, high) if each.percentile]
    if not all(0 <= each <= 100 for each in percentiles):
        raise ConfigError(f"--channel '{text}': percentiles lie between 0% and 100%")
    if not np.isfinite([low.number, high.number]).all() or (
        low.percentile == high.percentile and low.number >= high.number
    ):
        raise ConfigError(f"--channel '{text}': the first limit of a contrast is below the second")
    return Contrast(low, high)
