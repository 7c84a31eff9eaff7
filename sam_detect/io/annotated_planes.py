"""Annotations of stacks: which plane each lies in."""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace

from sam_detect.errors import ImageError, MaskError
from sam_detect.io.decoding import DEFAULT_MAX_PIXELS
from sam_detect.io.images import is_turned
from sam_detect.io.stack_axes import PlaneRanges
from sam_detect.io.stacks import Plane, plane_count, planes_at, planes_of
from sam_detect.types import AnnotatedImage, Annotation, Location


def fitted(
    image: AnnotatedImage, size_hw: tuple[int, int], *, in_stack: bool
) -> tuple[AnnotatedImage, list[str]]:
    """The annotations of a picture as they lie in it, and a line for each thing that was changed.
    All annotated pictures that are learnt, refined or measured pass here.

    Args:
        size_hw: of the picture as it is read.
        in_stack: whether it is a plane of a stack, or a stack of which one was read.

    Raises:
        MaskError: they were made on a picture of another size, or in several planes.
    """
    said = image.size_hw
    turned = image.plane is None and said == size_hw[::-1] and is_turned(image.path)
    image, scaled = image.fitted(size_hw, turned=turned)
    image, moved = (image, "") if in_stack else image.in_one_plane()
    return image, [line for line in (scaled, moved) if line]


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
            if plane_count(image.path, max_pixels=max_pixels) == 1:
                image, _ = image.in_one_plane()  # noqa: PLW2901
            if not image.outlines:
                by_plane |= {plane.location: [] for plane in planes_of(
                    image.path, ranges, max_pixels=max_pixels)}  # fmt: skip
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
        except (ImageError, MaskError) as error:
            problems.append(
                f"{image.path}: {error}" if isinstance(error, MaskError) else str(error)
            )
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
