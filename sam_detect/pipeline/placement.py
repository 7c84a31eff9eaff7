"""Whether annotated outlines lie on what their picture shows, or are of another picture."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from sam_detect.errors import MaskError
from sam_detect.types import AnnotatedImage, Annotation, Frame, ImageRGB
from sam_detect.types.annotations import reach_xy
from sam_detect.types.masks import BoolArray
from sam_detect.types.scratch import LARGE

MOST_OUTLINES, PLACES = 24, 12
"""Outlines that are compared, and other places of the picture that each is compared with."""
SIDE = 48
"""Pixels of the shorter side that are compared; larger outlines are sampled."""
BAND = 0.12
"""Width of the bands on both sides of an outline, in square roots of its area."""
LEAST, LEAST_OF_ONE = 0.65, 0.5
"""Mean share of places that fit worse. Of the right outlines of nuclei, glands, neurites, food and
nuts it is at least .81, of coarse, moved and far too large ones .62 (of three .53); of those of
another picture it is about .5."""
BETTER_SCALED = 0.2
DOUBTFUL, SURE = 0.8, 0.9
"""Outlines of a share below the first are in another unit if a factor brings them to the second."""
FACTOR_STEP, ENOUGH, MOST_SCALED = 0.01, 5, 8
"""Factors are tried in steps of 1 %, which move the outlines by less than their bands; at least and
at most so many outlines are scaled: with fewer, one of the factors would fit by chance."""


def placed(image: AnnotatedImage, frame: Frame) -> tuple[AnnotatedImage, str]:
    """The annotations where they lie on what the picture shows, and a line about what was changed.

    Raises:
        MaskError: they fit the picture no better than elsewhere in it, or are in micrometres.
    """
    if image.fit == "as-is" or not any(each.is_outlined for each in image.outlines):
        return image, ""
    if (frame.image_rgb.min(axis=(0, 1)) == frame.image_rgb.max(axis=(0, 1))).all():
        raise MaskError("the picture as it is read has one colour everywhere "
                        f"({', '.join(map(str, frame.image_rgb[0, 0]))}), so the outlines lie on "
                        "nothing; check its plane, channel and contrast (--fit "
                        "as-is takes them all the same)")  # fmt: skip
    (share, count), size = _share(image.outlines, frame), frame.pixel_size_um
    if size is not None and image.size_hw is None:
        scaled = tuple(each.scaled(1 / size.x, 1 / size.y) for each in image.outlines)
        if _share(scaled, frame)[0] >= max(LEAST, share + BETTER_SCALED):
            seen = f"its outlines are in micrometres, and a pixel is {size.x:.4g} of them"
            if image.fit == "scale":
                return replace(image, outlines=scaled), f"{seen}: scaled to pixels"
            raise MaskError(f"{seen}: scale them (--fit scale)")
    factor = _fitting_factor(image.outlines, frame) if count and share < DOUBTFUL else None
    if factor is not None:
        raise MaskError(
            f"its outlines fit the picture when they are {factor:.3g} times as large: are they in "
            "micrometres, or of a smaller copy? Give them in pixels of this picture (--fit as-is "
            "takes them all the same)"
        )
    if count == 0 or share >= LEAST - LEAST_OF_ONE / count:
        return image, ""
    (x, y), (height, width) = reach_xy(image.outlines), frame.size_hw
    unit = "" if size is None else f" of {size.x:.4g} micrometres"
    raise MaskError(
        "its outlines lie on nothing that differs from its surroundings: other places of the "
        f"picture fit them as well ({share:.0%} worse; right ones: nearly all). They reach {x:.0f},"
        f"{y:.0f}, and the picture is {width}x{height} pixels{unit}: are they of another picture, "
        "or in another unit? --fit as-is takes them all the same"
    )


def _fitting_factor(outlines: Sequence[Annotation], frame: Frame) -> float | None:
    """By how much outlines have to be enlarged to fit; None where no factor makes them fit."""
    outlined = [each for each in outlines if each.is_outlined]
    (x, y), (height, width) = reach_xy(outlined), frame.size_hw
    image, few = _textured(frame), outlined[:: -(-len(outlined) // MOST_SCALED)]
    most = min(width / max(x, 1), height / max(y, 1))

    def fit(factor: float) -> float:
        total = 0.0
        for each in few:
            try:
                found = each.scaled(factor, factor).crop(frame.size_hw)
            except MaskError:  # it has no pixel, which is said of it alone
                continue
            if found is not None:
                (left, top, _, _), crop = found
                total += _explained(crop, image)(left, top)
        return total

    factors = np.exp(np.arange(5 * FACTOR_STEP, np.log(most), FACTOR_STEP)).tolist()
    if len(few) < ENOUGH or not factors:
        return None
    best = max(factors, key=fit)
    share, count = _share([each.scaled(best, best) for each in outlined], frame)
    return best if count >= ENOUGH and share >= SURE else None


def _textured(frame: Frame) -> ImageRGB:
    """``(H, W, 3 or 4)``: the picture with its texture; of a large one only windows are read."""
    image = frame.image_rgb
    if image.shape[0] * image.shape[1] > LARGE:
        return image
    import cv2

    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    return np.dstack([image, cv2.absdiff(grey, cv2.blur(grey, (5, 5)))])


def _share(outlines: Sequence[Annotation], frame: Frame) -> tuple[float, int]:
    """The mean share of other places that fit outlines worse than their own, and of how many
    outlines; one outside the picture fits nowhere."""
    outlined, outside, image = [each for each in outlines if each.is_outlined], 0, _textured(frame)
    random, shares, (height, width) = np.random.default_rng(0), list[float](), frame.size_hw
    for each in outlined[:: -(-len(outlined) // MOST_OUTLINES)]:
        try:
            found = each.crop(frame.size_hw)
        except MaskError:
            outside += 1
            continue
        if found is None or 2 * max(found[1].shape[0] / height, found[1].shape[1] / width) > 1:
            continue  # there is no other place
        (left, top, _, _), crop = found
        xs = random.integers(0, width - crop.shape[1] + 1, PLACES).tolist()
        ys = random.integers(0, height - crop.shape[0] + 1, PLACES).tolist()
        fit = _explained(crop, image)
        own, others = fit(left, top), np.array([fit(*at) for at in zip(xs, ys, strict=True)])
        shares.append(float(np.mean((own > others) + (own == others) / 2)))
    count = len(shares) + outside
    return (sum(shares) / count, count) if shares else (1.0, 0)  # outside, each is named


def _explained(crop: BoolArray, image: ImageRGB) -> Callable[[int, int], float]:
    """What gives for a crop at x, y the share of the variance there, of a colour or of the texture,
    that is explained by three zones: its inside, and the bands on both sides of its outline."""
    import cv2

    margin = max(2, round(BAND * float(np.sqrt(np.count_nonzero(crop)))))
    step = max(1, min(crop.shape) // SIDE)
    whole = np.pad(crop.view(np.uint8), margin)[::step, ::step]
    square = np.ones((2 * max(1, margin // step) + 1,) * 2, np.uint8)
    number = whole + cv2.erode(whole, square) + cv2.dilate(whole, square)
    near = number > 0
    zones = [zone for value in (1, 2, 3) if (zone := number[near] == value).any()]
    rows, columns = (np.arange(side) * step - margin for side in near.shape)

    def explained(x: int, y: int) -> float:
        at = np.ix_(np.clip(rows + y, 0, len(image) - 1),
                    np.clip(columns + x, 0, image.shape[1] - 1))  # fmt: skip
        seen = image[at][near].astype(np.float32)
        within = sum(seen[zone].var(axis=0) * len(seen[zone]) for zone in zones)
        return float(1 - ((within + 1) / (seen.var(axis=0) * len(seen) + 1)).min())

    return explained
