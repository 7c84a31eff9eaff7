"""The fading room: crops whose context is faded by its distance from the object."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from sam_detect.options import Options, shown
from sam_detect.registry import room_attribute

if TYPE_CHECKING:
    from sam_detect.fading.fades import BlurFade as BlurFade
    from sam_detect.fading.fades import ExponentialFade as ExponentialFade
    from sam_detect.fading.fades import GaussianFade as GaussianFade
    from sam_detect.fading.fades import IdentityFade as IdentityFade
    from sam_detect.fading.fades import LinearFade as LinearFade


Sigma = Annotated[
    float | None,
    Field(
        ge=0.01,
        le=10_000,
        description="Width of the gaussian (or blur) fade.",
        json_schema_extra=shown("PIXELS"),
    ),
]


class DistanceOptions(Options):
    """Of every fade that follows the distance."""

    min_fade: float | None = Field(
        None,
        ge=0,
        le=1,
        description="Least weight of what is far away.",
        json_schema_extra=shown("0-1"),
    )
    max_distance: float | None = Field(
        None,
        ge=0.01,
        le=100_000,
        description="Distance from the object where the fade ends.",
        json_schema_extra=shown("PIXELS"),
    )


class GaussianOptions(DistanceOptions):
    """Of ``gaussian``."""

    sigma: Sigma = None
    sigma_per_diameter: float | None = Field(
        None,
        ge=0.001,
        le=100,
        description="Width without sigma, as a share of the object's diameter.",
        json_schema_extra=shown("SHARE", hidden=True, without="sigma"),
    )


class ExponentialOptions(DistanceOptions):
    """Of ``exponential``."""

    decay: float | None = Field(
        None,
        ge=1e-6,
        le=1000,
        description="Rate of the exponential fade per pixel.",
        json_schema_extra=shown("RATE"),
    )


class BlurOptions(Options):
    """Of ``blur``."""

    sigma: Sigma = None


OPTIONS = {
    "gaussian": GaussianOptions,
    "linear": DistanceOptions,
    "exponential": ExponentialOptions,
    "blur": BlurOptions,
}


def __getattr__(name: str) -> Any:
    return room_attribute("fade", name)
