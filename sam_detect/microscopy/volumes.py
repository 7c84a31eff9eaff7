"""Objects through the Z planes of a stack: those that overlap in neighbouring planes are one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from sam_detect.errors import ConfigError, MaskError
from sam_detect.types import Detections, Masks, Volume
from sam_detect.types.masks import IntArray
from sam_detect.types.overlaps import meeting_boxes, shared_pixels


def link_volumes(found: Sequence[Detections], *, least_iou: float) -> list[Detections]:
    """Gives objects of neighbouring Z planes that overlap one id.

    Objects of one label are paired one to one, those with the highest IoU first. A plane in which
    an object was not found ends its volume. Objects without a label belong to none.

    Args:
        found: of planes of one stack, ascending by Z in each XY and T, as
            :func:`~sam_detect.io.planes_of` gives them.
        least_iou: of masks in neighbouring planes, above 0, to 1.

    Returns:
        The same with their ``volumes``. Ids count from 1 through the whole stack.

    Raises:
        ConfigError: ``least_iou`` is out of its range.
        MaskError: a plane has no location.
    """
    if not 0 < least_iou <= 1:
        raise ConfigError(f"least_iou must be above 0 and at most 1, got {least_iou}")
    count = 0
    before: Detections | None = None
    ids: list[list[int]] = []
    for plane in found:
        if plane.location is None:
            raise MaskError(f"{plane.source_id} is no plane of a stack: only those are linked")
        own = [0] * len(plane)
        if before is not None and _follows(before, plane):
            for one, other in _pairs(before, plane, least_iou):
                own[other] = ids[-1][one]
        for index, label in enumerate(plane.label):
            if label is not None and not own[index]:
                count += 1
                own[index] = count
        ids.append(own)
        before = plane
    voxels: Counter[int] = Counter()
    for plane, own in zip(found, ids, strict=True):
        for number, area in zip(own, plane.area.tolist(), strict=True):
            voxels[number] += area
    return [
        replace(plane, volumes=tuple(_volume(number, voxels, plane) for number in own))
        for plane, own in zip(found, ids, strict=True)
    ]


def _follows(before: Detections, plane: Detections) -> bool:
    """Whether a plane is the next one above, of one XY and T."""
    (xy, z, t), there = before.location or (0, 0, 0), plane.location
    return there == (xy, z + 1, t) and before.size_hw == plane.size_hw


def _pairs(before: Detections, plane: Detections, least_iou: float) -> list[tuple[int, int]]:
    """Indices of objects that are one, in the one plane and in the next."""
    both = Masks.concatenate([before.masks, plane.masks])
    labels = [*before.label, *plane.label]
    pairs: IntArray = np.array(
        [(i, j) for i, j in meeting_boxes(both.boxes_xyxy).tolist()
         if i < len(before) <= j and labels[i] is not None and labels[i] == labels[j]],
        np.int64,
    ).reshape(-1, 2)  # fmt: skip
    shared = shared_pixels(both.crop, both.boxes_xyxy, pairs)
    ious = shared / (both.areas[pairs].sum(axis=1) - shared)
    taken: set[int] = set()
    found = []
    for index in np.lexsort((pairs[:, 1], pairs[:, 0], -ious)).tolist():
        one, other = pairs[index].tolist()
        if ious[index] >= least_iou and not taken & {one, other}:
            taken |= {one, other}
            found.append((one, other - len(before)))
    return found


def _volume(number: int, voxels: Counter[int], plane: Detections) -> Volume | None:
    if not number:
        return None
    size = plane.pixel_size_um
    um3 = None
    if size is not None and size.z is not None:
        um3 = float(f"{voxels[number] * size.area * size.z:.6g}")
    return Volume(number, voxels[number], um3)
