"""Label maps: a TIFF or PNG file in which each object has a number of its own, and 0 is background.

TIFF holds the planes of a stack in one file (axes T, Z, Y, X): 16 bits as ImageJ reads them, 32
where there are more objects. PNG has 16 bits and one plane. The tags of the numbers are in the
file, too: in ImageJ's ``Info``, tifffile's description, or PNG's text ``sam-detect``. So are the
planes where they are not the first ones of a stack.
"""

from __future__ import annotations

import io
import json
import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from sam_detect.errors import ImageError, MaskError, OutputError
from sam_detect.io.annotation_values import checked_tags, polygons_of
from sam_detect.io.mask_pictures import MAX_PIXELS, objects_of
from sam_detect.types import AnnotatedImage, Annotation, Location
from sam_detect.types.polygons import mask_polygons, polygons_to_crop

KEY, PLANES = "sam-detect", "planes"
MAX_BYTES = 1 << 31
"""Of all planes, unpacked; and no more than so many times what the file has, from so many on."""
MIN_BYTES, MOST_PACKED = 1 << 26, 1100
MOST_RINGS = 200_000
"""Of all objects: pieces, and holes in them."""
MAX_16_BITS = 65_535
PNG_MAGIC = b"\x89PNG"
TIFF_MAGIC = (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")
Plane = npt.NDArray[np.integer[Any]]


def encode(image: AnnotatedImage, *, as_png: bool = False) -> bytes:
    """The objects of all planes. The larger ones are painted first, so that none hides another
    that is smaller; two annotations of one id have one number.

    Args:
        image: with ``size_hw``; ``references["planes"]`` are the planes, in their order, also
            those without an object.
        as_png: PNG rather than TIFF.

    Raises:
        OutputError: PNG for several planes or more than 65,535 objects.
        MaskError: an object has no pixel.
    """
    if image.size_hw is None:
        raise OutputError("a label map needs the size of its picture")
    planes: list[Location] = list(image.references.get("planes", ())) or [(0, 0, 0)]
    outlined = [each for each in image.outlines if each.is_outlined or each.bbox_xywh]
    numbers, tags = _numbered(outlined)
    dtype = np.uint16 if max(numbers, default=0) <= MAX_16_BITS else np.uint32
    values = np.zeros((len(planes), *image.size_hw), dtype)
    crops = [(number, each.location, *_crop(each, image.size_hw)) for number, each
             in zip(numbers, outlined, strict=True)]  # fmt: skip
    crops.sort(key=lambda row: -int(np.count_nonzero(row[3])))
    for number, location, (x0, y0, x1, y1), crop in crops:
        plane = planes.index(location) if location is not None else 0
        values[plane, y0:y1, x0:x1][crop] = number
    several = [] if planes == _first_planes(*_counts(planes)) else [list(at) for at in planes]
    note = json.dumps({KEY: tags, **({PLANES: several} if several else {})})
    if as_png:
        return _png(values, note)
    return _tiff(values, planes, note)


def decode(
    data: bytes, problems: list[str], pieces: str | None = None, name: str = "the label map"
) -> list[AnnotatedImage]:
    """The objects of a TIFF file as one picture without a name: :func:`of_planes`."""
    return of_planes(*_read_tiff(data), problems, pieces, name)


def of_planes(
    values: Plane, note: str, problems: list[str], pieces: str | None, name: str
) -> list[AnnotatedImage]:
    """The objects of ``(T, Z, Y, X)`` or ``(T, Z, Y, X, C)`` values; without tags where nothing
    says what their numbers mean. ``references["planes"]`` are the planes of a stack.

    Args:
        values: of a mask picture (:mod:`sam_detect.io.mask_pictures`); 0 is background.
        note: what sam-detect noted in the file.
        pieces: see :func:`~sam_detect.io.mask_pictures.separate`.
        name: of the file, for warnings.

    Raises:
        ImageError: it shows no objects.
    """
    t_count, z_count, *size = values.shape[:4]
    known: dict[int, tuple[str, ...]] = {}
    planes = _first_planes(t_count, z_count)
    try:
        said = json.loads(note) if KEY in note else {}
        for row in said.get(KEY, ()):
            tags = checked_tags(row["tags"])
            known |= {int(number): tags for number in row["numbers"]}
        if PLANES in said:
            planes = _checked_planes(said[PLANES], len(planes))
    except (MaskError, ValueError, ArithmeticError, TypeError, KeyError, AttributeError,
            RecursionError) as error:  # fmt: skip
        problems.append(f"its tags cannot be read: {error}")
    outlines: list[Annotation] = []
    placed, rings = planes != [(0, 0, 0)], 0
    most = values.max(initial=0)
    if placed and pieces is None and values.min(initial=most, where=values > 0) < most:
        pieces = "one"  # objects are numbered, also where a plane has one of them
    for plane, location in zip(values.reshape(-1, *values.shape[2:]), planes, strict=True):
        at = f"{name} at XY, Z, T {location}" if placed else name
        try:
            for number, (box, crop) in objects_of(plane, at, pieces, given=bool(known)):
                polygons = tuple(mask_polygons(crop, box))
                tags, where = known.get(number, ()), location if placed else None
                outlines.append(Annotation(tags, polygons, id=number, location=where))
                rings += sum(map(len, polygons))
                if rings > MOST_RINGS:
                    raise MaskError(f"it has more than {MOST_RINGS:,} pieces and holes: divide it")
        except MaskError as error:
            raise ImageError(f"{at}: {error}") from error
    references = {"planes": tuple(planes)} if placed else {}
    return [AnnotatedImage("", "", tuple(outlines), (size[0], size[1]), references)]


def _first_planes(t_count: int, z_count: int) -> list[Location]:
    return [(0, z, t) for t in range(t_count) for z in range(z_count)]


def _checked_planes(given: Any, count: int) -> list[Location]:
    """Planes as a file says them; raises ``ValueError`` where they are malformed."""
    planes = [tuple(each) for each in given]
    numbers = [number for each in planes for number in each]
    if not all(type(number) is int and number >= 0 for number in numbers) or (
        len(numbers) != 3 * len(planes) or len(set(planes)) != count or len(planes) != count
    ):
        raise ValueError("its planes are no list of XY, Z and T for each of them")
    return [(xy, z, t) for xy, z, t in planes]


def _counts(planes: Sequence[Location]) -> tuple[int, int]:
    """How many time points, and how many planes of each; planes of any choice lie one after the
    other."""
    t_count = len({(xy, t) for xy, _, t in planes})
    z_count = len(planes) // t_count
    return (t_count, z_count) if t_count * z_count == len(planes) else (1, len(planes))


def _numbered(outlined: Sequence[Annotation]) -> tuple[list[int], list[dict[str, Any]]]:
    """A number from 1 for each object, and the numbers of each combination of tags."""
    known: dict[Any, int] = {}
    by_tags: dict[tuple[str, ...], list[int]] = defaultdict(list)
    numbers = []
    for index, each in enumerate(outlined):
        key = (each.tags, str(each.id)) if each.id is not None else index
        if key not in known:
            known[key] = len(known) + 1
            by_tags[each.tags].append(known[key])
        numbers.append(known[key])
    return numbers, [{"tags": list(tags), "numbers": each} for tags, each in by_tags.items()]


def _crop(
    annotation: Annotation, size_hw: tuple[int, int]
) -> tuple[tuple[int, int, int, int], npt.NDArray[np.bool_]]:
    found = annotation.crop(size_hw) or polygons_to_crop(polygons_of(annotation), size_hw)
    if found is None:
        raise MaskError("its outline has no pixel inside the picture")
    return found


def _png(values: Plane, note: str) -> bytes:
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    if len(values) != 1 or values.dtype != np.uint16:
        raise OutputError(
            f"a PNG label map has one plane and {MAX_16_BITS} objects at most: name a .tif file"
        )
    data, text = io.BytesIO(), PngInfo()
    text.add_text(KEY, note)
    Image.fromarray(values[0]).save(data, format="PNG", pnginfo=text)
    return data.getvalue()


def _tiff(values: Plane, planes: Sequence[Location], note: str) -> bytes:
    import tifffile

    shaped = values.reshape(*_counts(planes), *values.shape[1:])
    data = io.BytesIO()
    if values.dtype == np.uint16:
        tifffile.imwrite(
            data, shaped, imagej=True, compression="zlib", metadata={"axes": "TZYX", "Info": note}
        )
    else:
        metadata = {"axes": "TZYX", KEY: note}
        tifffile.imwrite(data, shaped, compression="zlib", metadata=metadata)
    return data.getvalue()


def _read_tiff(data: bytes) -> tuple[Plane, str]:
    """``(T, Z, Y, X)`` or ``(T, Z, Y, X, C)``, and the note."""
    import tifffile

    try:
        with tifffile.TiffFile(io.BytesIO(data)) as file:
            series = file.series[0]
            axes = series.axes.removesuffix("S")
            if not axes.endswith("YX") or len(axes) > 4 or "S" in axes:
                raise ImageError(f"it is no label map: its axes are {series.axes}, expected T, Z, "
                                 "Y, X")  # fmt: skip
            shape = series.shape
            pixels = math.prod(shape[len(axes) - 2 : len(axes)])
            most = min(MAX_BYTES, max(MIN_BYTES, MOST_PACKED * len(data)))
            if series.nbytes > most or pixels > MAX_PIXELS:
                raise ImageError(
                    f"it has the size {shape}, more than the limit of {most:,} bytes "
                    f"for a file of {len(data):,}, or {MAX_PIXELS:,} pixels a plane"
                )
            values = series.asarray()
            shaped: Any = (file.shaped_metadata or ({},))[0]
            note = (file.imagej_metadata or {}).get("Info") or shaped.get(KEY) or ""
    except ImageError:
        raise
    except Exception as error:  # of a damaged file the parser may raise anything
        raise ImageError(f"it is no TIFF file that can be read: {error}") from error
    leading = shape[: len(axes) - 2]
    if len(leading) < 2:
        leading = (*leading, 1) if axes[0] == "T" else (1, *(leading or (1,)))
    note = note if isinstance(note, str) else ""
    return values.reshape(*leading, *shape[len(axes) - 2 :]), note
