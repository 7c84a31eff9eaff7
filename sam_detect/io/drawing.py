"""Colours of labels; anti-aliased masks, panels and text on ``(H, W, 3)`` uint8 images, which are
changed in place."""

from __future__ import annotations

import unicodedata
import zlib
from collections.abc import Iterable, Mapping
from functools import cache, lru_cache

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from sam_detect.errors import UnavailableError
from sam_detect.types import ImageRGB, Masks
from sam_detect.types.masks import BoolArray, FloatArray

Alpha = npt.NDArray[np.uint8]
BoxXYXY = tuple[int, int, int, int]
ColorRGB = tuple[int, int, int]

PALETTE: tuple[ColorRGB, ...] = (
    (230, 159, 0),
    (86, 180, 233),
    (0, 178, 129),
    (240, 228, 66),
    (38, 122, 214),
    (230, 92, 0),
    (222, 135, 184),
    (238, 51, 119),
    (160, 123, 255),
    (168, 224, 95),
)
"""The colour-blind safe palette of Okabe and Ito (its darkest three lightened, so that they stand
out on dark micrographs), and three more of other lightness."""

UNKNOWN: ColorRGB = (205, 205, 205)

DIFFERENT_LABELS = 50.0
DIFFERENT_IMAGE = 80.0
"""CIELAB distances above which a colour differs enough from the colours of other labels, and from
the image around the objects."""
NEAR_PIXELS = 0.2
"""Share of the pixels around the objects that may be closer to a colour than that."""
LIGHTER, DARKER = 0.45, 0.2
"""Weight of a lightened or darkened colour against one of the palette."""
LIGHTNESS = 0.7
"""Weight of lightness in the distance from the image, where light and shadow alternate."""
HALF_CHROMA = 30.0
"""Chroma that gets half of the largest weight in the distance from the image, where hue counts."""

# Normal, protanopic and deuteranopic vision in linear RGB (Machado, Oliveira and Fernandes 2009,
# "A physiologically-based model for simulation of color vision deficiency").
COLOR_VISION = np.array(
    [
        np.eye(3),
        [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ],
        [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ],
    ]
)

RIM_OPACITY = 0.55
BLACK: ColorRGB = (0, 0, 0)
PANEL_COLOR: ColorRGB = (18, 20, 24)
PANEL_TEXT: ColorRGB = (245, 245, 245)
SYSTEM_FONTS = (
    "DejaVuSans.ttf",
    "NotoSans-Regular.ttf",
    "Arial Unicode.ttf",
    "arial.ttf",
    "segoeui.ttf",
    "NotoSansCJK-Regular.ttc",
    "msyh.ttc",
    "NotoSansArabic-Regular.ttf",
    "NotoSansHebrew-Regular.ttf",
    "NotoSansDevanagari-Regular.ttf",
    "NotoSansThai-Regular.ttf",
    "Nirmala.ttf",
    "LeelawUI.ttf",
)
PILLOW_FONT = ""
OPENCV_FONT = "uni"
"""Part of OpenCV 5: Latin, Greek, Cyrillic, Chinese, Japanese, Korean."""
LONGEST_TEXT = 32
UNASSIGNED = "\U0010fffe"
"""A code point without a character: shows what a font draws for a character that it lacks."""


def extend_colors(
    colors: dict[str, ColorRGB],
    labels: Iterable[str],
    around: Mapping[str, npt.NDArray[np.uint8]] | None = None,
) -> None:
    """Adds a colour for each label that ``colors`` lacks; those that are there keep theirs.

    It is the colour that differs most from the colours of the other labels and from the image
    around the label's objects, for normal and for red-green colour-blind vision. Ties are broken
    by the label's name. After thirty labels colours repeat.

    Args:
        colors: of labels, extended in place.
        labels: those that need a colour.
        around: for labels ``(K, 3)`` uint8, RGB: pixels of the image at their objects.
    """
    for label in sorted(set(labels) - set(colors)):
        first = zlib.crc32(label.encode("utf-8", "replace")) % len(PALETTE)
        rotated = PALETTE[first:] + PALETTE[:first]
        weights = dict.fromkeys(rotated, 1.0)
        weights |= dict.fromkeys((_mix(color, 255, 0.55) for color in rotated), LIGHTER)
        weights |= dict.fromkeys((_mix(color, 0, 0.45) for color in rotated), DARKER)
        taken = set(colors.values())
        free = [color for color in weights if color not in taken] or list(rotated)
        score = np.array([weights[color] for color in free])
        if taken:
            closest = color_distances(free, list(taken)).min(axis=1)
            score *= np.minimum(closest / DIFFERENT_LABELS, 1)
        pixels = None if around is None else around.get(label)
        if pixels is not None and len(pixels):
            distances = color_distances(free, pixels, by_hue=True)
            near = np.quantile(distances, NEAR_PIXELS, axis=1)
            score *= np.minimum(near / DIFFERENT_IMAGE, 1)
        colors[label] = free[int(np.argmax(score.round(2)))]


def color_distances(
    first: npt.ArrayLike, second: npt.ArrayLike, *, by_hue: bool = False
) -> npt.NDArray[np.float32]:
    """``(M, N)`` CIELAB distances of RGB colours: the smallest for normal, protanopic and
    deuteranopic vision.

    Args:
        by_hue: whether lightness has the weight :data:`LIGHTNESS` and large chroma less weight, and
            the result is the mean of the smallest distance and that for normal vision.
    """
    seen = zip(_lab(first, by_hue=by_hue), _lab(second, by_hue=by_hue), strict=True)
    distances = [np.linalg.norm(a[:, None] - b[None], axis=2) for a, b in seen]
    smallest = np.min(distances, axis=0)
    return np.asarray((distances[0] + smallest) / 2 if by_hue else smallest, np.float32)


def _lab(colors: npt.ArrayLike, *, by_hue: bool) -> npt.NDArray[np.float32]:
    """``(3, N, 3)`` CIELAB of RGB colours, for each kind of vision in :data:`COLOR_VISION`."""
    srgb = np.asarray(colors, np.float64).reshape(-1, 3) / 255
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    seen = np.clip(np.einsum("vij,nj->vni", COLOR_VISION, linear), 0, 1)
    back = np.where(seen <= 0.0031308, seen * 12.92, 1.055 * seen ** (1 / 2.4) - 0.055)
    lab = np.asarray(cv2.cvtColor(back.astype(np.float32), cv2.COLOR_RGB2LAB), np.float32)
    if by_hue:
        lab[..., 0] *= LIGHTNESS
        chroma = np.linalg.norm(lab[..., 1:], axis=-1, keepdims=True)
        lab[..., 1:] *= 100 / (chroma + HALF_CHROMA)
    return lab


def _mix(color: ColorRGB, other: int, share: float) -> ColorRGB:
    red, green, blue = (round(value + share * (other - value)) for value in color)
    return red, green, blue


def text_color_on(color: ColorRGB) -> ColorRGB:
    """Near-black or white, whichever has more contrast on ``color``."""
    linear = [(v / 255 / 12.92) if v <= 10 else ((v / 255 + 0.055) / 1.055) ** 2.4 for v in color]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    # WCAG's contrasts are equal at 0.18, but there small white letters on colour read better
    return (16, 16, 16) if luminance > 0.25 else (255, 255, 255)


def draw_masks(canvas: ImageRGB, masks: Masks, color: ColorRGB, **style: float) -> None:
    """Draws masks as :func:`draw_mask` does, whose options it takes, the largest first."""
    for index in np.argsort(-masks.areas, kind="stable").tolist():
        draw_mask(canvas, masks.crop(index), masks.boxes_xyxy[index].tolist(), color, **style)


def draw_mask(
    canvas: ImageRGB,
    mask: BoolArray,
    box_xyxy: BoxXYXY,
    color: ColorRGB,
    *,
    line_px: float,
    line_opacity: float = 1.0,
    fill_opacity: float = 0.0,
) -> None:
    """A translucent fill, a line along the edge and a dark rim that separates it from the ground.

    Args:
        canvas: the image, changed in place.
        mask: ``(h, w)`` bool, fills the box.
        box_xyxy: half-open, in pixels.
        color: of fill and line.
        line_px: width of the line, centred on the edge.
        line_opacity: 0 to 1.
        fill_opacity: 0 to 1.
    """
    pad = int(np.ceil(line_px)) + 3
    x0, y0 = max(0, box_xyxy[0] - pad), max(0, box_xyxy[1] - pad)
    x1 = min(canvas.shape[1], box_xyxy[2] + pad)
    y1 = min(canvas.shape[0], box_xyxy[3] + pad)
    padded = np.zeros((y1 - y0, x1 - x0), np.uint8)
    top, left = box_xyxy[1] - y0, box_xyxy[0] - x0
    padded[top : top + mask.shape[0], left : left + mask.shape[1]] = mask
    inside = cv2.distanceTransform(padded, cv2.DIST_L2, cv2.DIST_MASK_3)
    outside = cv2.distanceTransform(1 - padded, cv2.DIST_L2, cv2.DIST_MASK_3)
    # distances are to the centre of the next pixel; the edge is half a pixel closer
    depth = inside - outside - (padded - np.float32(0.5))
    depth = cv2.GaussianBlur(depth, (5, 5), 1.0)  # the pixels' steps become curves
    half = line_px / 2
    line = np.clip(half + 0.5 - np.abs(depth), 0, 1) * line_opacity
    rim = np.clip(half + 1.5 + depth, 0, 1) * np.clip(-depth, 0, 1) * (RIM_OPACITY * line_opacity)
    fill = np.clip(depth + 0.5, 0, 1) * fill_opacity
    _blend(canvas[y0:y1, x0:x1], rim, BLACK)
    _blend(canvas[y0:y1, x0:x1], 1 - (1 - fill) * (1 - line), color)


def draw_alpha(
    canvas: ImageRGB, alpha: Alpha, corner_xy: tuple[int, int], color: ColorRGB, opacity: float = 1
) -> None:
    """A colour through an ``(h, w)`` uint8 coverage, cropped at the image's edge."""
    x, y = corner_xy
    part = canvas[y : y + alpha.shape[0], x : x + alpha.shape[1]]
    weight = alpha[: part.shape[0], : part.shape[1]].astype(np.float32) * np.float32(opacity / 255)
    _blend(part, weight, color)


def _blend(part: ImageRGB, weight: FloatArray, color: ColorRGB) -> None:
    """Blends a colour into a part of an image, by a weight of 0 to 1 for each pixel."""
    if part.size:
        flat = np.empty_like(part)
        flat[...] = color
        part[...] = cv2.blendLinear(part, flat, 1 - weight, weight)


def rounded_rectangle(size_wh: tuple[int, int], radius: float) -> Alpha:
    """``(h, w)`` uint8 coverage of a rectangle with round corners."""
    width, height = size_wh
    radius = min(radius, width / 2, height / 2)
    dx = np.abs(np.arange(width) + 0.5 - width / 2) - (width / 2 - radius)
    dy = np.abs(np.arange(height) + 0.5 - height / 2) - (height / 2 - radius)
    outside = np.hypot(np.maximum(dx, 0)[None, :], np.maximum(dy, 0)[:, None])
    return np.asarray(np.rint(np.clip(radius + 0.5 - outside, 0, 1) * 255), np.uint8)


def clean(text: str) -> str:
    """A label as it is drawn: one line, at most :data:`LONGEST_TEXT` characters."""
    shown = "".join(c if unicodedata.category(c)[0] != "C" else " " for c in text)
    shown = " ".join(shown.split())
    return shown if len(shown) <= LONGEST_TEXT else shown[: LONGEST_TEXT - 3].rstrip() + "..."


@lru_cache(maxsize=4096)
def text_alpha(text: str, size_px: int) -> Alpha:
    """``(h, w)`` coverage of a line of text; all of one size have the same height and baseline.

    The first font that has all characters is used: Pillow's own, one of the system, OpenCV's.
    If there is none it is the one that lacks the fewest (they are drawn as boxes).
    """
    font = _font_for(text)
    if font == OPENCV_FONT:
        return _draw_with_opencv(text, size_px)
    face = _load_font(font, size_px)
    width = max(1, int(np.ceil(face.getlength(text))) + 1)
    image = Image.new("L", (width, line_height(size_px)), 0)
    ImageDraw.Draw(image).text((0, _baseline(size_px)), text, font=face, fill=255, anchor="ls")
    return np.array(image)


def line_height(size_px: int) -> int:
    """Height of what :func:`text_alpha` returns, in pixels."""
    return round(size_px * 1.3)


def _baseline(size_px: int) -> int:
    return round(size_px * 0.98)


def _font_for(text: str) -> str:
    best, fewest = PILLOW_FONT, len(text) + 1
    for font in (PILLOW_FONT, *_installed_fonts()):
        missing = sum(not _has_character(font, character) for character in set(text))
        if missing < fewest:
            best, fewest = font, missing
        if not missing:
            break
    return best


@cache
def _installed_fonts() -> tuple[str, ...]:
    """Those of :data:`SYSTEM_FONTS` that this machine has, and OpenCV's."""
    found = []
    for name in SYSTEM_FONTS:
        try:
            ImageFont.truetype(name, 16)
        except OSError:
            continue
        found.append(name)
    return (*found, *([OPENCV_FONT] if hasattr(cv2, "FontFace") else []))


@lru_cache(maxsize=64)
def _load_font(name: str, size_px: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.truetype(name, size_px) if name else ImageFont.load_default(size=size_px)
    if not isinstance(font, ImageFont.FreeTypeFont):
        raise UnavailableError(
            "Pillow was built without FreeType; install its wheel: pip install pillow"
        )
    return font


@lru_cache(maxsize=8192)
def _has_character(font: str, character: str) -> bool:
    """Whether a font draws this character differently from one that it cannot have."""
    if character.isspace() or unicodedata.combining(character):
        return True
    return _glyph(font, character) != _glyph(font, UNASSIGNED)


def _glyph(font: str, character: str) -> tuple[tuple[int, ...], bytes]:
    if font == OPENCV_FONT:
        drawn = _draw_with_opencv(character, 20)
        return drawn.shape, drawn.tobytes()
    mask = _load_font(font, 20).getmask(character)
    return mask.size, bytes(mask)


def _draw_with_opencv(text: str, size_px: int) -> Alpha:
    face = cv2.FontFace(OPENCV_FONT)
    canvas = np.zeros((line_height(size_px), (len(text) + 2) * 2 * size_px), np.uint8)
    (end_x, _), _ = cv2.putText(canvas, text, (1, _baseline(size_px)), 255, face, size_px, 400)
    return np.ascontiguousarray(canvas[:, : max(1, int(end_x) + 1)])
