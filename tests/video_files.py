"""Small videos that tests make themselves, with PyAV; each picture says its own number.

A picture shows a dark disc that moves over a light ground, and along its top a row of black and
white blocks: the picture's number in binary. So whoever reads a video, however it was compressed,
can say which pictures came, and in which order.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import numpy.typing as npt

ImageRGB = npt.NDArray[np.uint8]

SIZE_HW = (120, 160)
BITS = 10
BLOCK = 16
GROUND, DISC = (228, 226, 220), (60, 40, 120)
RADIUS = 14
TICKS = 90_000


def picture(number: int, size_hw: tuple[int, int] = SIZE_HW) -> ImageRGB:
    """``(H, W, 3)`` RGB, at least 160 wide: the picture with this number (0 to 1023)."""
    height, width = size_hw
    image = np.full((height, width, 3), GROUND, np.uint8)
    cv2.circle(image, disc_xy(number, size_hw), RADIUS, DISC, -1, cv2.LINE_AA)
    for bit in range(BITS):
        image[:BLOCK, bit * BLOCK : (bit + 1) * BLOCK] = 255 * (number >> bit & 1)
    return image


def disc_xy(number: int, size_hw: tuple[int, int] = SIZE_HW) -> tuple[int, int]:
    """Where the middle of the disc is: from left to right and back, three pixels a picture."""
    free = size_hw[1] - 4 * RADIUS
    step = 3 * number % (2 * free)
    return 2 * RADIUS + min(step, 2 * free - step), size_hw[0] // 2 + BLOCK // 2


def pictures(
    count: int, size_hw: tuple[int, int] = SIZE_HW, *, first: int = 0
) -> Iterator[ImageRGB]:
    """So many pictures, with their numbers."""
    return (picture(number, size_hw) for number in range(first, first + count))


def number_of(image: ImageRGB) -> int:
    """Which picture this is."""
    middle = BLOCK // 2
    row = image[middle - 3 : middle + 3, : BITS * BLOCK].mean((0, 2))
    blocks = row.reshape(BITS, BLOCK)[:, 4:-4].mean(1)
    return sum(int(value > 127) << bit for bit, value in enumerate(blocks))


def write_video(
    path: Path,
    images: Iterable[ImageRGB] | int = 20,
    *,
    fps: int = 25,
    times_s: Sequence[float] | None = None,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    gop: int = 5,
    sound: bool = False,
    sound_s: float | None = None,
    container: dict[str, str] | None = None,
    options: dict[str, str] | None = None,
) -> Path:
    """Writes a video; its format is that of the ending (.mp4, .mkv, .avi, .ts, .webm, .mov, ...).

    Args:
        images: ``(H, W, 3)`` RGB (or ``(H, W, 4)`` RGBA) each, all of one size; or how many
            numbered ones.
        times_s: when each is shown; by default evenly.
        gop: pictures from one key picture to the next.
        sound: whether there is a silent sound track.
        sound_s: its length; by default that of the pictures.
        container, options: of the muxer and of the encoder.
    """
    given = pictures(images) if isinstance(images, int) else images
    with av.open(str(path), "w", options=container or {}) as out:
        shown = None
        count = 0
        for image in given:
            if shown is None:
                shown = out.add_stream(codec, rate=fps, options=options or _quick(codec))
                shown.height, shown.width = image.shape[:2]
                shown.pix_fmt = pix_fmt
                shown.codec_context.gop_size = gop
                shown.codec_context.time_base = Fraction(1, fps if times_s is None else TICKS)
                heard = _sound_track(out) if sound else None
            kind = "rgba" if image.shape[2] == 4 else "rgb24"
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format=kind)
            frame.pts = count if times_s is None else round(times_s[count] * TICKS)
            frame.time_base = shown.codec_context.time_base
            out.mux(shown.encode(frame))
            count += 1
        if shown is not None:
            out.mux(shown.encode(None))
            if heard is not None:
                _be_silent(out, heard, sound_s or count / fps)
    return path


def write_sound(path: Path, *, seconds: float = 0.5) -> Path:
    """A file with silence and no pictures."""
    with av.open(str(path), "w") as out:
        _be_silent(out, _sound_track(out), seconds)
    return path


def read_pictures(path: Path | str) -> list[ImageRGB]:
    """All pictures of a video, by PyAV alone: what a player would show."""
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def numbers(images: Iterable[ImageRGB]) -> list[int]:
    """Which pictures these are."""
    return [number_of(image) for image in images]


def turn(path: Path, degrees: int) -> Path:
    """Marks an MP4's pictures as to be turned clockwise when shown (0, 90, 180 or 270), as phones
    do: the matrix in its track header (ISO/IEC 14496-12, 8.3.2)."""
    cos, sin = {0: (1, 0), 90: (0, 1), 180: (-1, 0), 270: (0, -1)}[degrees]
    data = bytearray(path.read_bytes())
    start = data.index(b"tkhd") + 4 + (40 if data[data.index(b"tkhd") + 4] == 0 else 52)
    one, whole = 1 << 16, 1 << 30
    data[start : start + 36] = struct.pack(
        ">9i", cos * one, sin * one, 0, -sin * one, cos * one, 0, 0, 0, whole
    )
    path.write_bytes(data)
    return path


def _quick(codec: str) -> dict[str, str]:
    return {"preset": "ultrafast", "tune": "zerolatency"} if codec == "libx264" else {}


def _sound_track(out: av.container.OutputContainer) -> av.AudioStream:
    track = out.add_stream("aac", rate=16_000)
    track.layout = "mono"
    return track


def _be_silent(out: av.container.OutputContainer, track: av.AudioStream, seconds: float) -> None:
    for start in range(0, int(seconds * 16_000), 1024):
        silence = np.zeros((1, 1024), np.float32)
        frame = av.AudioFrame.from_ndarray(silence, format="fltp", layout="mono")
        frame.sample_rate, frame.pts = 16_000, start
        out.mux(track.encode(frame))
    out.mux(track.encode(None))
