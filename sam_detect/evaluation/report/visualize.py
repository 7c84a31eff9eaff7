"""Pictures of an evaluation with what was found, missed and found falsely."""

from __future__ import annotations

from pathlib import Path

from sam_detect.evaluation.dataset import masks_of
from sam_detect.evaluation.evaluation import Evaluation
from sam_detect.evaluation.report.results import Names, Result, results_of
from sam_detect.io import write_image
from sam_detect.io.drawing import draw_masks
from sam_detect.io.overlay import at_most
from sam_detect.types import ImageRGB, Masks

SHOWN, FOUND, FALSE, MISSED = (60, 120, 255), (40, 190, 90), (240, 140, 20), (230, 40, 60)
"""Colours, RGB, of the examples, of right and false detections, and of missed objects."""
LINE_PX = 1.5
MOST_PIXELS = 16_000_000


def write_pictures(folder: Path, evaluation: Evaluation, *, max_pixels: int) -> list[Path]:
    """Writes each picture of the first seed's episodes: examples blue, what was found green, false
    detections orange, missed objects red.

    Args:
        folder: made if needed; files in it are named like the pictures.
        max_pixels: larger pictures are refused.

    Raises:
        ImageError: a picture cannot be read.
        OutputError: the folder cannot be written to.
    """
    names = Names(evaluation.dataset.pictures)
    first = evaluation.protocol.seeds[0]
    written = []
    for result in results_of(evaluation):
        if result.split.seed == first and result.matches is not None:
            path = (folder / names.of(result.query.picture)).with_suffix(".png")
            image = result.query.picture.read(max_pixels=max_pixels).image_rgb
            write_image(path, _drawn(image, result))
            written.append(path)
    return written


def _drawn(image_rgb: ImageRGB, result: Result) -> ImageRGB:
    picture, found, matches = result.query.picture, result.query.found.masks, result.matches
    assert matches is not None  # noqa: S101 - for mypy
    known = result.split.shown
    sought = [o for o in picture.objects if not o.crowd and o.id not in known]
    missed = [o for o, is_missed in zip(sought, matches.missed, strict=True) if is_missed]
    shown = [o for o in picture.objects if o.id in known]
    groups = [
        (masks_of(picture, missed), MISSED),
        (found[matches.false], FALSE),
        (found[matches.objects >= 0], FOUND),
        (masks_of(picture, shown), SHOWN),
    ]
    together = Masks.concatenate([masks for masks, _ in groups])
    reduced, together = at_most(MOST_PIXELS, image_rgb, together)
    canvas: ImageRGB = reduced.copy()
    start = 0
    for masks, color in groups:
        draw_masks(canvas, together[start : start + len(masks)], color, line_px=LINE_PX)
        start += len(masks)
    return canvas
