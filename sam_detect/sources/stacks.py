"""What a file holds besides the one picture that is read: pages, channels, frames."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any, BinaryIO

from PIL import Image

MOST_PAGES = 2000
"""So many pages of a TIFF are looked at."""
AXES = {"C": "channel", "Z": "slice", "T": "time point", "S": "channel"}
"""Names of tifffile's axes; all others are pages."""
ALPHA = (1, 2)
"""Values of a TIFF's ExtraSamples that mean opacity."""
EXTRA_SAMPLES = 338
MOST_NAMES = 8


@dataclass(frozen=True)
class Contents:
    """Attributes:
    left_out: what is not read, as part of a sentence; empty where all is.
    channels: grey values of each pixel that are not colours; 1 for all usual pictures.
    """

    left_out: str = ""
    channels: int = 1


def contents_of_tiff(file: BinaryIO) -> Contents:
    """What a TIFF holds; nothing is said of what cannot be understood."""
    import tifffile  # on use: only TIFFs need it

    try:
        # An OME-TIFF may name further files: nothing that a file names is opened.
        with tifffile.TiffFile(file, _multifile=False) as tiff:
            pages = sum(1 for _ in itertools.islice(iter(tiff.pages), MOST_PAGES + 1))
            if pages > MOST_PAGES:
                return Contents(f"only page 1 of more than {MOST_PAGES} was read")
            first = tiff.pages.first
            grey = first.photometric in (
                tifffile.PHOTOMETRIC.MINISBLACK, tifffile.PHOTOMETRIC.MINISWHITE,
            )  # fmt: skip
            extra = first.tags.get(EXTRA_SAMPLES)
            opaque = extra is None or not set(_numbers(extra.value)) & set(ALPHA)
            channels = int(first.samplesperpixel) if grey and opaque else 1
            return Contents(_left_out(tiff, channels), channels)
    except Exception:  # odd metadata say nothing about the pixels, which Pillow reads
        return Contents()


def frames_left_out(image: Image.Image) -> str:
    """What is not read of an animation (GIF, WebP, PNG)."""
    frames = getattr(image, "n_frames", 1) if getattr(image, "is_animated", False) else 1
    return f"only frame 1 of {frames} was read" if frames > 1 else ""


def _left_out(tiff: Any, channels: int) -> str:
    """Which page and channel of a TIFF are read, of how many."""
    series = tiff.series[0]
    counts: dict[str, int] = {}
    for axis, count in zip(series.axes, series.shape, strict=True):
        if axis not in "YX" and count > 1 and not (axis == "S" and channels == 1):
            name = AXES.get(axis, "page")
            counts[name] = counts.get(name, 1) * count
    read = [f"{name} 1 of {count}" for name, count in counts.items()]
    if "channel" in counts:
        read[list(counts).index("channel")] += _names_of_channels(tiff)
    said = [f"only {', '.join(read)} was read"] if read else []
    others = [each for each in tiff.series[1:]
              if not each.keyframe.is_reduced and not each.keyframe.is_mask]  # fmt: skip
    if others:
        said.append(f"only picture 1 of {1 + len(others)} was read")
    return "; ".join(said)


def _names_of_channels(tiff: Any) -> str:
    """`` (DAPI, LAMP1)``, where the file names its channels."""
    names: list[str] = []
    if tiff.is_ome:
        import tifffile

        pixels = tifffile.xml2dict(tiff.ome_metadata)["OME"]["Image"]
        pixels = (pixels[0] if isinstance(pixels, list) else pixels)["Pixels"]
        channels = pixels.get("Channel", [])
        channels = channels if isinstance(channels, list) else [channels]
        names = [str(each["Name"]) for each in channels if "Name" in each]
    kept = [" ".join(name.split())[:40] for name in names[:MOST_NAMES]]
    return f" ({', '.join(kept)})" if kept else ""


def _numbers(value: Any) -> tuple[int, ...]:
    return tuple(value) if isinstance(value, (tuple, list)) else (int(value),)
