"""Planes of stacks in commands: which are read, and what can be done with them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from sam_detect.cli.feedback import Failures, note
from sam_detect.errors import ConfigError, ImageError

if TYPE_CHECKING:
    from sam_detect.api import SAMDetect
    from sam_detect.interfaces import Sink
    from sam_detect.io import Plane, PlaneRanges
    from sam_detect.io.linked import LinkedPlanes
    from sam_detect.types import Frame

STANDARD_INPUT = "-"
WITHOUT_PLANES = ("coco", "yolo", "counts")


def pictures_or_planes(
    detector: SAMDetect, paths: Sequence[str], ranges: PlaneRanges, failures: Failures
) -> dict[str, str | Frame | Plane]:
    """What is detected in, by the name that messages give it: pictures, or the planes of stacks
    that ranges select. What cannot be read is a failure."""
    pictures: dict[str, str | Frame | Plane] = {}
    for path in paths:
        with failures.guard(path):
            if ranges:
                pictures |= {plane.name: plane for plane in detector.planes(path, ranges)}
            else:
                pictures[path] = path if path != STANDARD_INPUT else _read_standard_input(detector)
    return pictures


def require_planes_fit(
    format_name: str | None, images: Sequence[str] = (), *, resume: bool = False
) -> None:
    """Raises ``ConfigError`` for what cannot be done with planes of stacks."""
    if format_name in WITHOUT_PLANES:
        raise ConfigError(f"--format {format_name} cannot tell the planes of a stack apart: take "
                          "json, csv, overlay or a format of annotations")  # fmt: skip
    if resume:
        raise ConfigError("--resume goes on with whole pictures: leave it out for planes of stacks")
    if STANDARD_INPUT in images:
        raise ConfigError("planes are selected of files: name one instead of -")


def require_link_fits(link_z: float | None, ranges: PlaneRanges) -> None:
    """Raises ``ConfigError`` where there are no planes to link."""
    if link_z is not None and ranges.z is None:
        raise ConfigError("--link-z links the planes of a stack: select several with --z")


def linked_planes(
    sinks: list[Sink], least_iou: float, read: Callable[[str], Frame]
) -> LinkedPlanes:
    """What writes the planes of stacks when their objects are linked through Z."""
    from sam_detect.io.linked import LinkedPlanes
    from sam_detect.io.stacks import plane_name
    from sam_detect.microscopy.volumes import link_volumes

    return LinkedPlanes(
        sinks,
        link=lambda planes: link_volumes(planes, least_iou=least_iou),
        read=lambda found: read(plane_name(found.source_id, found.location or (0, 0, 0))),
    )


def _read_standard_input(detector: SAMDetect) -> Frame:
    from sam_detect.io import MAX_BYTES, load_image_bytes

    if sys.stdin is None:
        raise ImageError("there is no standard input to read a picture from")
    if sys.stdin.isatty():
        note("reading a picture from standard input")
    data = sys.stdin.buffer.read(MAX_BYTES + 1)
    if not data:
        raise ImageError("standard input (-) is empty, expected a picture")
    return load_image_bytes(data, max_pixels=detector.settings.max_image_pixels)
