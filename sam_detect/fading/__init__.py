"""The fading room: crops with their context faded by the distance from the object."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sam_detect.registry import room_attribute

if TYPE_CHECKING:
    from sam_detect.fading.blur import BlurFade as BlurFade
    from sam_detect.fading.exponential import ExponentialFade as ExponentialFade
    from sam_detect.fading.gaussian import GaussianFade as GaussianFade
    from sam_detect.fading.identity import IdentityFade as IdentityFade
    from sam_detect.fading.linear import LinearFade as LinearFade


def __getattr__(name: str) -> Any:
    return room_attribute("fade", name)
