"""Crops as text in a payload: lossless WebP, in base64.

Of 240 real crops (256 pixels, photographs and micrographs) WebP took 0.44 to 0.6 of the bytes of
PNG, at the same speed (about 2 ms a crop), bit for bit the same picture.
"""

from __future__ import annotations

import base64
import binascii
import io
import struct

import numpy as np
from PIL import Image, UnidentifiedImageError

from sam_detect.config import MAX_CROP_SIDE
from sam_detect.types import ImageRGB


def encode_webp(image_rgb: ImageRGB) -> str:
    """Base64 of a lossless WebP of ``(h, w, 3)`` uint8."""
    stream = io.BytesIO()
    # The quickest of WebP's efforts; the slowest saves another 10 to 14 % in 20 times the time.
    Image.fromarray(image_rgb).save(stream, "WEBP", lossless=True, quality=0, method=0)
    return base64.b64encode(stream.getvalue()).decode("ascii")


def decode(text: str, kind: str) -> ImageRGB:
    """``(h, w, 3)`` uint8 of :func:`encode_webp` (kind "WEBP"), or of a PNG in base64 ("PNG").

    Raises:
        ValueError: it is no such picture, or far larger than a crop.
    """
    if not isinstance(text, str):
        raise ValueError("its crop is no text")
    try:
        data = base64.b64decode(text, validate=True)
        if kind == "WEBP":
            _require_small(*_webp_size(data))
        with Image.open(io.BytesIO(data), formats=(kind,)) as image:
            _require_small(*image.size)
            return np.array(image.convert("RGB"), np.uint8)
    except (UnidentifiedImageError, binascii.Error) as error:
        raise ValueError(f"its crop is not a {kind} picture") from error
    except (OSError, EOFError, SyntaxError, struct.error, Image.DecompressionBombError) as error:
        raise ValueError(f"its crop cannot be decoded: {error}") from error


def _webp_size(data: bytes) -> tuple[int, int]:
    """Width and height of a plain lossless WebP, as :func:`encode_webp` writes it.

    Read here, since Pillow takes 8 bytes for each pixel of any WebP as soon as it opens it.
    """
    if data[:4] != b"RIFF" or data[8:16] != b"WEBPVP8L" or data[20:21] != b"\x2f":
        raise ValueError("its crop is not a WEBP picture, lossless and without more")
    sizes = int.from_bytes(data[21:25], "little")
    return (sizes & 0x3FFF) + 1, (sizes >> 14 & 0x3FFF) + 1


def _require_small(width: int, height: int) -> None:
    if max(width, height) > MAX_CROP_SIDE:
        raise ValueError(f"its crop has {width}x{height} pixels")
