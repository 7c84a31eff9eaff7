"""How large a pixel is, in micrometres, as files of microscopes say it: OME-XML, ImageJ's notes,
the resolution of a TIFF, the scale of an OME-Zarr."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from sam_detect.types import PixelSize

MICROMETRES = {
    "m": 1e6, "meter": 1e6, "metre": 1e6,
    "cm": 1e4, "centimeter": 1e4, "centimetre": 1e4,
    "mm": 1e3, "millimeter": 1e3, "millimetre": 1e3,
    "um": 1.0, "micron": 1.0, "microns": 1.0, "micrometer": 1.0, "micrometre": 1.0,
    "nm": 1e-3, "nanometer": 1e-3, "nanometre": 1e-3,
    "pm": 1e-6, "picometer": 1e-6, "picometre": 1e-6,
    "\u00e5": 1e-4, "angstrom": 1e-4,
    "in": 25_400.0, "inch": 25_400.0,
}  # fmt: skip
CENTIMETRES = 3
"""Of a TIFF's ResolutionUnit."""
FINEST_PRINT_UM = 20.0
"""A resolution per centimetre of larger pixels is one for printing (1,200 dots an inch are 21
micrometres), and so are all per inch, which are a default of many programs."""
RESOLUTION_TAGS = ("XResolution", "YResolution")


def pixel_size(x: Any, y: Any, z: Any = None, *, units: tuple[Any, Any, Any]) -> PixelSize | None:
    """A size from numbers and units as a file says them; None where X or Y is not known.

    Args:
        x, y, z: from one pixel, or plane, to the next.
        units: of X, Y and Z: words or signs of lengths.
    """
    sizes = [_micrometres(value, unit) for value, unit in zip((x, y, z), units, strict=True)]
    if sizes[0] is None or sizes[1] is None:
        return None
    return PixelSize(sizes[0], sizes[1], sizes[2])


def size_in_tiff(tiff: Any, number: int) -> PixelSize | None:
    """Of an open TIFF, whose OME-XML was checked; None where it does not say.

    Args:
        number: of the image, from 0, in OME-XML.
    """
    try:
        if tiff.is_ome:
            return _in_ome(tiff, number)
        return _in_imagej(tiff) if tiff.is_imagej else _in_tags(tiff)
    except (AttributeError, KeyError, IndexError, TypeError, ValueError):  # odd metadata
        return None


def _in_ome(tiff: Any, number: int) -> PixelSize | None:
    import tifffile

    images = tifffile.xml2dict(tiff.ome_metadata)["OME"]["Image"]
    pixels: Mapping[str, Any] = (images if isinstance(images, list) else [images])[number]["Pixels"]
    sizes = [pixels.get(f"PhysicalSize{axis}") for axis in "XYZ"]
    units = [pixels.get(f"PhysicalSize{axis}Unit", "um") for axis in "XYZ"]
    return pixel_size(*sizes, units=(units[0], units[1], units[2]))


def _in_imagej(tiff: Any) -> PixelSize | None:
    notes = tiff.imagej_metadata
    x, y = _steps(tiff)
    unit = notes.get("unit")
    return pixel_size(x, y, notes.get("spacing"), units=(unit, notes.get("yunit", unit),
                                                         notes.get("zunit", unit)))  # fmt: skip


def _in_tags(tiff: Any) -> PixelSize | None:
    unit = tiff.pages.first.tags.get("ResolutionUnit")
    if unit is None or int(unit.value) != CENTIMETRES:
        return None
    x, y = _steps(tiff)
    found = pixel_size(x, y, units=("cm", "cm", "cm"))
    return found if found is not None and max(found.x, found.y) < FINEST_PRINT_UM else None


def _steps(tiff: Any) -> list[float | None]:
    """Units from pixel to pixel along X and Y, by the resolution of the first page."""
    steps: list[float | None] = []
    for name in RESOLUTION_TAGS:
        tag = tiff.pages.first.tags.get(name)
        numerator, denominator = (0, 0) if tag is None else tag.value
        steps.append(denominator / numerator if numerator else None)
    return steps


def _micrometres(value: Any, unit: Any) -> float | None:
    """None for what is no length above 0."""
    # ImageJ writes the sign for micro as an escape; there are two such signs.
    name = str(unit).replace("\\u00B5", "u").replace("\u00b5", "u").replace("\u03bc", "u")
    factor = MICROMETRES.get(name.strip().casefold())
    if factor is None or isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    size = float(value) * factor
    return size if math.isfinite(size) and size > 0 else None
