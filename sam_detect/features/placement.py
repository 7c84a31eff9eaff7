"""Whether annotated outlines lie on what their picture shows, or are of another picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from sam_detect.errors import MaskError
from sam_detect.masks import BoolArray
from sam_detect.types import AnnotatedImage, Annotation, Frame, ImageRGB

MOST_OUTLINES, PLACES = 24, 12
"""Outlines that are compared, and other places of the picture that each is compared with."""
SIDE = 48
"""Pixels of the shorter side that are compared; larger outlines are sampled."""
BAND = 0.12
"""Width of the bands on both sides of an outline, in square roots of its area."""
LEAST, LEAST_OF_ONE = 0.7, 0.5
"""Mean share of places that fit worse. Of the right outlines of nuclei, glands, neurites, nuts and
dates it is at least .88 from five on (.72 of four), of those of another picture about .5."""
MICROMETRES_FIT_BETTER = 0.2


def placed(image: AnnotatedImage, frame: Frame) -> tuple[AnnotatedImage, str]:
    """The annotations where they lie on what the picture shows, and a line about what was changed.

    Raises:
        MaskError: they fit the picture no better than elsewhere in it.
    """
    if image.fit == "as-is" or not any(each.is_outlined for each in image.outlines):
        return image, ""
    if frame.image_rgb.min() == frame.image_rgb.max():
        raise MaskError(f"the picture has the value {frame.image_rgb.max()} everywhere as it is "
                        "read, so the outlines lie on nothing; check its plane, channel and "
                        "contrast (--fit as-is takes them all the same)")  # fmt: skip
    share, count = _share(image.outlines, frame)
    size = frame.pixel_size_um
    if size is not None and image.size_hw is None:
        outlines = [each.scaled(1 / size.x, 1 / size.y) for each in image.outlines]
        other, _ = _share(outlines, frame)
        if other >= max(LEAST, share + MICROMETRES_FIT_BETTER):
            seen = f"its outlines are in micrometres, and a pixel is {size.x:.4g} of them"
            if image.fit == "scale":
                return replace(image, outlines=tuple(outlines)), f"{seen}: scaled to pixels"
            raise MaskError(f"{seen}: scale them (--fit scale)")
    if share >= LEAST - LEAST_OF_ONE / max(1, count):
        return image, ""
    reach = np.max([each.reach_xy() for each in image.outlines], axis=0)
    height, width = frame.size_hw
    in_um = "" if size is None else f" of {size.x:.4g} micrometres"
    raise MaskError(
        f"its outlines lie on nothing that differs from its surroundings: {share:.0%} of other "
        f"places fit them worse, and of the right outlines nearly all do. They reach "
        f"{reach[0]:.0f},{reach[1]:.0f}, and the picture is {width}x{height} pixels{in_um}: are "
        "they of another picture, or in another unit? --fit as-is takes them all the same"
    )


def _share(outlines: Sequence[Annotation], frame: Frame) -> tuple[float, int]:
    """The mean share of other places that fit outlines worse than their own, and of how many
    outlines; one outside the picture fits nowhere."""
    outlined = [each for each in outlines if each.is_outlined]
    step = -(-len(outlined) // MOST_OUTLINES) or 1
    random, shares = np.random.default_rng(0), list[float]()
    height, width = frame.size_hw
    for each in outlined[::step]:
        try:
            found = each.crop(frame.size_hw)
        except MaskError:
            shares.append(0.0)
            continue
        if found is None:
            continue
        (left, top, _, _), crop = found
        h, w = crop.shape
        if 2 * w > width or 2 * h > height:  # there is no other place
            continue
        zones = _Zones(crop)
        own = zones.explained(frame.image_rgb, left, top)
        xs = random.integers(0, width - w + 1, PLACES).tolist()
        ys = random.integers(0, height - h + 1, PLACES).tolist()
        others = [zones.explained(frame.image_rgb, x, y) for x, y in zip(xs, ys, strict=True)]
        shares.append(float(np.mean([(own > other) + (own == other) / 2 for other in others])))
    return (float(np.mean(shares)), len(shares)) if shares else (1.0, 0)


class _Zones:
    """The inside of an outline, and the bands on both of its sides."""

    def __init__(self, crop: BoolArray) -> None:
        import cv2

        self._margin = max(2, round(BAND * float(np.sqrt(np.count_nonzero(crop)))))
        self._step = max(1, min(crop.shape) // SIDE)
        whole = np.pad(crop.view(np.uint8), self._margin)[:: self._step, :: self._step]
        square = np.ones((2 * max(1, self._margin // self._step) + 1,) * 2, np.uint8)
        zones = whole + cv2.erode(whole, square) + cv2.dilate(whole, square)
        self._near = zones > 0
        self._zones = [zones[self._near] == zone for zone in (1, 2, 3)]

    def explained(self, image: ImageRGB, x: int, y: int) -> float:
        """The share of the colours' variance that the zones explain, with the crop at x, y."""
        high, wide = self._near.shape
        rows = np.arange(high) * self._step + (y - self._margin)
        columns = np.arange(wide) * self._step + (x - self._margin)
        rows, columns = (
            np.clip(at, 0, side - 1)
            for at, side in zip((rows, columns), image.shape[:2], strict=True)
        )
        near = image[np.ix_(rows, columns)][self._near].astype(np.float32)
        within = sum(float(near[zone].var(axis=0).sum()) * int(np.count_nonzero(zone))
                     for zone in self._zones if zone.any())  # fmt: skip
        total = float(near.var(axis=0).sum()) * len(near)
        return 1 - (within + 1) / (total + 1)
