"""Words to pixels, in any script that a font on this machine has."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from functools import cache, lru_cache
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

Alpha = npt.NDArray[np.uint8]

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
OPENCV_FONT = "uni"  # OpenCV 5 carries it: Latin, Greek, Cyrillic, Chinese, Japanese, Korean
LONGEST_TEXT = 32
NO_CHARACTER = "\U0010fffe"  # never assigned: shows what a font draws for what it lacks

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def clean(text: str) -> str:
    """A label as it is drawn: one line, of bounded length."""
    shown = "".join(c if unicodedata.category(c)[0] != "C" else " " for c in text)
    shown = " ".join(shown.split())
    return shown if len(shown) <= LONGEST_TEXT else shown[: LONGEST_TEXT - 3].rstrip() + "..."


@lru_cache(maxsize=4096)
def text_alpha(text: str, size_px: int) -> Alpha:
    """``(h, w)`` coverage of a line of text; all of one size share height and baseline.

    A font is chosen for each text: Pillow's own where it has all characters, else one of the
    system, else OpenCV's, else the one that has most of them (which shows boxes for the others).
    """
    name = _font_for(text)
    if name == OPENCV_FONT:
        return _draw_with_opencv(text, size_px)
    font = _pillow_font(name, size_px)
    width = max(1, int(np.ceil(font.getlength(text))) + 1)
    image = Image.new("L", (width, line_height(size_px)), 0)
    draw = ImageDraw.Draw(image)
    if isinstance(font, ImageFont.FreeTypeFont):
        draw.text((0, _baseline(size_px)), text, font=font, fill=255, anchor="ls")
    else:
        draw.text((0, 0), text, font=font, fill=255)
    return np.array(image)


def line_height(size_px: int) -> int:
    """Height of the pictures that :func:`text_alpha` makes."""
    return round(size_px * 1.3)


def _baseline(size_px: int) -> int:
    return round(size_px * 0.98)


def _font_for(text: str) -> str:
    best, best_missing = "", len(text) + 1
    for name in ("", *SYSTEM_FONTS, OPENCV_FONT):
        if name and name != OPENCV_FONT and not _is_installed(name):
            continue
        if name == OPENCV_FONT and not hasattr(cv2, "FontFace"):
            continue
        missing = sum(not _has_character(name, character) for character in set(text))
        if missing == 0:
            return name
        if missing < best_missing:
            best, best_missing = name, missing
    return best


@cache
def _is_installed(name: str) -> bool:
    try:
        ImageFont.truetype(name, 16)
    except OSError:
        return False
    return True


@lru_cache(maxsize=64)
def _pillow_font(name: str, size_px: int) -> Font:
    return ImageFont.truetype(name, size_px) if name else ImageFont.load_default(size=size_px)


@lru_cache(maxsize=8192)
def _has_character(name: str, character: str) -> bool:
    """Whether a font draws this character otherwise than one that it cannot have."""
    if character.isspace() or unicodedata.combining(character):
        return True
    shape: Callable[[str], bytes] = _opencv_shape if name == OPENCV_FONT else _pillow_shape(name)
    return shape(character) != shape(NO_CHARACTER)


def _pillow_shape(name: str) -> Callable[[str], bytes]:
    font = _pillow_font(name, 20)

    def shape(character: str) -> bytes:
        mask: Any = font.getmask(character)
        return repr(mask.size).encode() + bytes(mask)

    return shape


def _opencv_shape(character: str) -> bytes:
    return _draw_with_opencv(character, 20).tobytes()


def _draw_with_opencv(text: str, size_px: int) -> Alpha:
    face = cv2.FontFace(OPENCV_FONT)
    height = line_height(size_px)
    canvas = np.zeros((height, (len(text) + 2) * 2 * size_px), np.uint8)
    (end_x, _), _ = cv2.putText(canvas, text, (1, _baseline(size_px)), 255, face, size_px, 400)
    return np.ascontiguousarray(canvas[:, : max(1, int(end_x) + 1)])
