"""The outline of an object that a user clicks on, or draws a line along, in a picture in which
others have names.

Those say how large the objects are, and which pixels are not part of this one. So one click is
often enough where nothing is proposed. A line from one end of the object to the other says its size
itself, also of one that is unlike the others, or half hidden by them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from sam_detect.errors import MaskError
from sam_detect.interfaces import ClickedSegmenter, PromptedSegmenter
from sam_detect.labelling.naming import observed_nesting
from sam_detect.library.snapshot import LibrarySnapshot
from sam_detect.pipeline.flow import Pipeline
from sam_detect.segmentation._places import Place, in_box, place_of, value_at
from sam_detect.segmentation.around_click import outline_along, outline_around
from sam_detect.segmentation.clicks import Clicks
from sam_detect.server.pictures import OpenPicture
from sam_detect.types import Frame, Masks, Taught
from sam_detect.types.masks import BoolArray, Box, intersection, tightened

SAME_IOU = 0.75
"""A proposal that overlaps an outline by this IoU is the same object, and drawn more exactly."""

SHARES = (0.5, 0.25, 0.75)
"""Of a line along an object: there are points that surely lie on it."""


def clicked(
    pipeline: Pipeline,
    opened: OpenPicture,
    clicks_xy: npt.ArrayLike,
    positive: npt.ArrayLike,
    box_xywh: Sequence[float] | None = None,
) -> Masks:
    """The mask of one object in a picture that is open.

    Takes and raises what :meth:`~sam_detect.pipeline.flow.Pipeline.outline_clicks` does. A box, a
    segmenter that draws masks itself, and an empty library leave it to that. A mask does not leave
    its box.
    """
    frame, segmenter = opened.candidates.frame, pipeline.segmenter
    clicks = Clicks.checked(clicks_xy, positive, box_xywh, frame.size_hw)
    if box_xywh is None and not isinstance(segmenter, PromptedSegmenter):
        snapshot = pipeline.snapshot()
        taught = snapshot.taught(frame).of(negative=False)
        areas = usual_areas(snapshot, taught)
        if areas:
            taken = _taken(snapshot, taught, clicks)
            place = outline_around(frame.image_rgb, clicks.points_xy, clicks.positive, areas, taken)
            if place is not None:
                return _proposed(opened.candidates.masks, _mask(frame, place), clicks)
    made = pipeline.outline_clicks(frame, clicks_xy, positive, box_xywh)
    return made if clicks.box_xyxy is None else _within(made, clicks, clicks.box_xyxy)


def _within(made: Masks, clicks: Clicks, box: Box) -> Masks:
    """What of a mask lies in its box; all of it, where a click outside says that it goes on."""
    points = clicks.pixels(positive=True)
    tight = tightened(box, in_box(*place_of(made, 0), box))
    if tight is None or (points < box[:2]).any() or (points >= box[2:]).any():
        return made
    return Masks.from_crops(size_hw=made.size_hw, boxes_xyxy=[tight[0]], crops=[tight[1]])


def along_line(pipeline: Pipeline, opened: OpenPicture, line_xy: npt.ArrayLike) -> Masks:
    """The mask of one object in a picture that is open, from one of its ends to the other.

    A segmenter that draws an object from several clicks itself gets three, on the line.

    Args:
        line_xy: ``(N, 2)`` x, y in pixels; the first and the last are the ends. One that lies
            outside of the picture is moved to its border.

    Raises:
        MaskError: there are not two points, they are not numbers, or no pixel is left.
    """
    frame, segmenter = opened.candidates.frame, pipeline.segmenter
    points = np.asarray(line_xy, np.float64).reshape(-1, 2)
    if len(points) < 2:
        raise MaskError("draw a line from one end of the object to the other")
    height, width = frame.size_hw
    ends = np.clip(points[[0, -1]], 0, (width - 0.5, height - 0.5))
    inner = ends[0] + np.outer(SHARES, ends[1] - ends[0])
    if isinstance(segmenter, ClickedSegmenter):
        return pipeline.outline_clicks(frame, inner, [True] * len(inner))
    clicks = Clicks.checked(inner[:1], [True], None, frame.size_hw)
    snapshot = pipeline.snapshot()
    taken = _taken(snapshot, snapshot.taught(frame).of(negative=False), clicks)
    place = outline_along(frame.image_rgb, ends, taken)
    if place is None:
        raise MaskError("nothing was found along the line: draw it across the whole object")
    return _proposed(opened.candidates.masks, _mask(frame, place), clicks)


def _mask(frame: Frame, place: Place) -> Masks:
    box, crop = place
    return Masks.from_crops(size_hw=frame.size_hw, boxes_xyxy=[box], crops=[crop])


def usual_areas(snapshot: LibrarySnapshot, taught: Taught) -> list[float]:
    """How large objects are, pixels, of each label, the one with most examples first: of those that
    a picture has examples of, or else of all.

    Args:
        taught: the positive examples of the picture.
    """
    areas: dict[str, list[int]] = {}
    if len(taught):
        for each, area in zip(taught.examples, taught.masks.areas.tolist(), strict=True):
            areas.setdefault(each.label, []).append(area)
    else:
        arrays = snapshot.examples()
        rows = zip(arrays.labels, arrays.negatives.tolist(), arrays.areas.tolist(), strict=False)
        for label, negative, area in rows:
            if not negative and area > 0:
                areas.setdefault(label, []).append(area)
    ordered = sorted(areas, key=lambda label: (-len(areas[label]), label))
    return [float(np.median(areas[label])) for label in ordered]


def _taken(snapshot: LibrarySnapshot, taught: Taught, clicks: Clicks) -> BoolArray:
    """``(H, W)`` what surely belongs to other objects: where no object lies in another one, all
    that is named in the picture, but for what is clicked on."""
    height, width = taught.masks.size_hw
    taken = np.zeros((height, width), np.bool_)
    if observed_nesting(snapshot.examples()):
        return taken
    x, y = clicks.pixels(positive=True)[0].tolist()
    for index, (x0, y0, x1, y1) in enumerate(taught.masks.boxes_xyxy.tolist()):
        crop = taught.masks.crop(index)
        if not (x0 <= x < x1 and y0 <= y < y1 and crop[y - y0, x - x0]):
            taken[y0:y1, x0:x1] |= crop
    return taken


def _proposed(proposals: Masks, made: Masks, clicks: Clicks) -> Masks:
    """The best proposal that is about the same and right at all clicks; else the mask as it is."""
    box, crop, area = made.boxes_xyxy[0], made.crop(0), int(made.areas[0])
    corners = proposals.boxes_xyxy
    meet = (corners[:, :2] < box[2:]).all(axis=1) & (corners[:, 2:] > box[:2]).all(axis=1)
    meet &= (proposals.areas >= SAME_IOU * area) & (proposals.areas * SAME_IOU <= area)
    for index in np.flatnonzero(meet).tolist():
        place = place_of(proposals, index)
        shared = intersection(crop, box.tolist(), place[1], list(place[0]))
        if shared >= SAME_IOU * (area + int(proposals.areas[index]) - shared) and all(
            value_at(place, int(x), int(y)) == flag
            for (x, y), flag in zip(
                clicks.points_xy.tolist(), clicks.positive.tolist(), strict=True
            )
        ):
            return proposals[[index]]
    return made
