"""Anti-aliased masks, panels and text on ``(H, W, 3)`` uint8 images, changed in place."""

from __future__ import annotations

import unicodedata
from functools import cache, lru_cache

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from sam_detect.errors import UnavailableError
from sam_detect.masks import BoolArray, FloatArray
from sam_detect.outputs.colors import ColorRGB
from sam_detect.types import ImageRGB, Masks

Alpha = npt.NDArray[np.uint8]
BoxXYXY = tuple[int, int, int, int]

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


def draw_masks(
    canvas: ImageRGB,
    masks: Masks,
    color: ColorRGB,
    *,
    line_px: float,
    line_opacity: float = 1.0,
    fill_opacity: float = 0.0,
) -> None:
    """Draws masks as :func:`draw_mask` does, the largest first."""
    for index in np.argsort(-masks.areas, kind="stable").tolist():
        draw_mask(
            canvas, masks.crop(index), masks.boxes_xyxy[index].tolist(), color,
            line_px=line_px, line_opacity=line_opacity, fill_opacity=fill_opacity,
        )  # fmt: skip


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
