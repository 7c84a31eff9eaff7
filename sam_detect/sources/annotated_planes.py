"""Annotations of stacks: which plane each lies in."""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace

from sam_detect.errors import ImageError
from sam_detect.sources.decoding import DEFAULT_MAX_PIXELS
from sam_detect.sources.stack_axes import PlaneRanges
from sam_detect.sources.stacks import Plane, planes_at, planes_of
from sam_detect.types import AnnotatedImage, Annotation, Location


def annotated_planes(
    images: Iterable[AnnotatedImage],
    ranges: PlaneRanges,
    problems: list[str],
    *,
    elsewhere: bool,
    max_pixels: int = DEFAULT_MAX_PIXELS,
) -> list[AnnotatedImage]:
    """The annotated planes of stacks, each with the annotations that lie in it.

    An annotation that does not say its plane lies in the selected one, if that is only one.

    Args:
        images: stacks with their annotations.
        ranges: which planes count, and the channels that are read.
        problems: gets a line for each stack with annotations that cannot be used.
        elsewhere: whether annotations outside the ranges count, too; else they are left out, with a
            warning.

    Raises:
        ImageError: no annotation lies in a plane that counts.
    """
    found: list[AnnotatedImage] = []
    left_out = "there is none"
    for image in images:
        by_plane: dict[Location, list[Annotation]] = defaultdict(list)
        try:
            selected: list[Plane] | None = None
            outside = unplaced = 0
            for outline in image.outlines:
                location = outline.location
                if location is None:
                    selected = selected or planes_of(image.path, ranges, max_pixels=max_pixels)
                    if len(selected) > 1:
                        unplaced += 1
                        continue
                    location = selected[0].location
                elif not (elsewhere or ranges.has(location)):
                    outside += 1
                    continue
                by_plane[location].append(outline)
            planes = planes_at(
                image.path, sorted(by_plane), channel=ranges.channel, max_pixels=max_pixels
            )
        except ImageError as error:
            problems.append(str(error))
            continue
        if outside:
            left_out = f"{image.path}: {outside} annotations lie in planes that are not selected"
            warnings.warn(left_out, stacklevel=2)
        if unplaced:
            problems.append(f"{image.path}: {unplaced} annotations do not say which plane they lie "
                            "in, and several are selected: select the one plane that they lie "
                            "in")  # fmt: skip
        found += [
            replace(image, outlines=tuple(by_plane[plane.location]), plane=plane)
            for plane in planes
        ]
    if not found:
        first = problems[0] if problems else left_out
        raise ImageError(f"no annotation lies in a plane that can be used: {first}")
    return found
