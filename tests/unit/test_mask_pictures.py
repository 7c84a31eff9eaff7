"""Which pixels of a mask picture are objects: greys, colours, pieces; and what is refused."""

from __future__ import annotations

import io
import re
import warnings
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
import skimage.data
from PIL import Image
from scipy.spatial import cKDTree

from sam_detect.errors import MaskError
from sam_detect.io.annotation_files import load_annotations
from sam_detect.io.mask_files import read_masks
from sam_detect.io.mask_pictures import count_pieces, objects_of
from sam_detect.types.masks import BoolArray

SIZE = (160, 220)
CENTRES = ((50, 40), (110, 60), (170, 45), (60, 115), (150, 120))
Values = npt.NDArray[Any]


def ellipse(centre: tuple[int, int], axes: tuple[int, int] = (22, 13), angle: int = 20) -> Values:
    return cv2.ellipse(np.zeros(SIZE, np.uint8), centre, axes, angle, 0, 360, 1, -1)


def beans() -> Values:
    """Five separate beans, numbered."""
    return sum(number * ellipse(at, angle=40 * number) for number, at in enumerate(CENTRES, 1))  # type: ignore[return-value]


def jpeg(values: Values, quality: int) -> Values:
    data = io.BytesIO()
    Image.fromarray(values).save(data, "JPEG", quality=quality)
    return np.asarray(Image.open(data))


def objects(values: Values, **more: Any) -> list[Values]:
    found = []
    for _, ((x0, y0, x1, y1), crop) in objects_of(values, "m", **more):
        mask = np.zeros(values.shape[:2], bool)
        mask[y0:y1, x0:x1] = crop
        found.append(mask)
    return found


def require_beans(found: list[Values], least: float = 0.9) -> None:
    assert len(found) == len(CENTRES)
    for number in range(1, 6):
        true = beans() == number
        best = max(found, key=lambda mask: int((mask & true).sum()))
        assert (best & true).sum() >= least * (best | true).sum()


WHITE = (beans() > 0).astype(np.uint8) * 255
RGB = np.array([[0, 0, 0], [255, 0, 0], [0, 255, 0], [0, 0, 255], [200, 200, 0], [9, 99, 9]],
               np.uint8)  # fmt: skip


# Two values, also with soft edges


SOFT: dict[str, Values] = {
    "anti-aliased once": cv2.resize(cv2.resize(WHITE, None, fx=4, fy=4), SIZE[::-1],
                                    interpolation=cv2.INTER_AREA),
    **{f"blurred by {sigma}": cv2.GaussianBlur(WHITE, (0, 0), sigma) for sigma in (0.6, 1, 2)},
    **{f"in steps of {step}": cv2.GaussianBlur(WHITE, (0, 0), 1) // step * step + WHITE % step
       for step in (16, 85)},
    **{f"JPEG of {quality}": jpeg(WHITE, quality) for quality in (40, 75, 95)},
    "16 bits": cv2.GaussianBlur(WHITE.astype(np.uint16) * 257, (0, 0), 1.5),
    "grey in three channels": np.dstack([cv2.GaussianBlur(WHITE, (0, 0), 1)] * 3),
    "opacity of white": np.dstack([np.full_like(WHITE, 255)] * 3
                                  + [cv2.GaussianBlur(WHITE, (0, 0), 1)]),
}  # fmt: skip


@pytest.mark.parametrize("name", SOFT)
def test_a_mask_with_soft_edges_has_its_objects_and_says_so(name: str) -> None:
    with pytest.warns(UserWarning, match=r"has \d+ greys, as of soft edges"):
        require_beans(objects(SOFT[name]), 0.85)


TWO: dict[str, Values] = {
    "1": WHITE // 255, "128": WHITE // 2, "255": WHITE, "bool": WHITE > 0,
    "16 bits": WHITE.astype(">u2"),
    "float": (WHITE / 255).astype(np.float32), "float of 255": WHITE.astype(np.float64),
    "red": WHITE[..., None] * np.array([1, 0, 0], np.uint8),
    "opaque": np.dstack([WHITE] * 3 + [np.full_like(WHITE, 255)]),
    "black on nothing": np.dstack([np.zeros_like(WHITE)] * 3 + [WHITE]),
    "white on nothing": np.dstack([np.full_like(WHITE, 255), WHITE]),
    "white, with colours below what is transparent": np.dstack(
        [np.full((*SIZE, 3), 255, np.uint8) - RGB[beans() * 0 + 5] * (WHITE[..., None] == 0), WHITE]
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", TWO)
def test_two_values_are_a_mask(name: str) -> None:
    with pytest.warns(UserWarning, match="5 pieces of one value are 5 examples"):
        require_beans(objects(TWO[name]), 1)


@pytest.mark.parametrize("values", [255 - WHITE, (WHITE == 0).astype(np.uint8), 2 - WHITE // 255,
                                    RGB[np.where(beans(), beans(), 5)]])  # fmt: skip
def test_a_background_that_is_not_0_is_refused(values: Values) -> None:
    with pytest.raises(MaskError, match="seems to be the background, which must be 0"):
        objects(values)


def test_the_advice_for_an_object_that_covers_the_edges_works(tmp_path: Path) -> None:
    np.save(tmp_path / "m.npy", WHITE == 0)
    assert len(read_masks(tmp_path / "m.npy", SIZE)) == 1
    assert len(objects(np.full(SIZE, 255, np.uint8))) == 1


# Numbers and colours


def test_numbers_and_colours_are_objects_also_where_they_touch() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        opaque = np.dstack([RGB[beans()], np.full(SIZE, 255, np.uint8)])
        numbers = (beans(), beans().astype(np.uint16) * 999, beans().astype(np.float32))
        for values in (*numbers, RGB[beans()], opaque):
            require_beans(objects(values), 1)
        touching = np.zeros(SIZE, np.uint8)
        touching[40:80, 40:80], touching[40:80, 80:120], touching[80:120, 60:100] = 1, 2, 3
        for values in (touching, RGB[touching]):
            assert [int(mask.sum()) for mask in objects(values)] == [1600] * 3


def test_many_numbers_are_many_objects() -> None:
    blocks = np.kron(np.arange(1, 70_001, dtype=np.uint32).reshape(200, 350), np.ones((2, 2)))
    assert len(objects_of(blocks.astype(np.uint32), "m")) == 70_000
    few = np.zeros((400, 400), np.uint16)
    few[::2, ::2] = np.arange(1, 40_001).reshape(200, 200)  # single pixels, apart
    assert len(objects_of(few, "m")) == 40_000


def palette_png(path: Path, numbers: Values, colours: list[tuple[int, int, int]]) -> Path:
    image = Image.fromarray(numbers.astype(np.uint8))
    image.putpalette([value for colour in colours for value in colour])
    image.save(path)
    return path


VOC = [(0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0), (0, 0, 128), (128, 0, 128)]


def test_a_palette_s_entries_are_objects_whatever_their_colours(tmp_path: Path) -> None:
    numbers = beans()
    edges = cv2.dilate((numbers > 0).astype(np.uint8), np.ones((5, 5))) - (numbers > 0)
    void = np.where(edges, 255, numbers)
    full = VOC + [(1, 1, 1)] * 249 + [(224, 224, 192)]
    swapped = np.where(numbers == 0, 5, np.where(numbers == 5, 0, numbers))
    alike = [(0, 0, 0), *[(255, value, 0) for value in (9, 8, 7, 6, 5)]]
    for name, (drawn, colours) in {
        "plain": (numbers, VOC), "void": (void, full), "one brightness": (numbers, alike),
        "black is not the first": (swapped, [VOC[5], *VOC[1:5], (0, 0, 0)]),
        "one colour": (numbers, [(7, 7, 7)] * 6),
    }.items():  # fmt: skip
        found = read_masks(palette_png(tmp_path / f"{name}.png", drawn, colours), SIZE)
        require_beans([found.dense(i) for i in range(len(found))], 1)


@pytest.mark.parametrize("kind", ["1", "P", "L"])
def test_black_and_white_files_of_any_mode(tmp_path: Path, kind: str) -> None:
    file = tmp_path / "m.png"
    if kind == "P":  # white is the first entry
        palette_png(file, WHITE == 0, [(255, 255, 255), (0, 0, 0)])
    else:
        Image.fromarray(WHITE).convert(kind).save(file)
    with pytest.warns(UserWarning, match="5 pieces"):
        assert len(read_masks(file, SIZE)) == 5
    with pytest.warns(UserWarning, match="5 pieces"):
        assert len(load_annotations(file)[0][0].outlines) == 5


# What shows no objects


PHOTOS: dict[str, Values] = {
    **{name: getattr(skimage.data, name)() for name in ("camera", "coins", "page", "text")},
    "in colour": np.random.default_rng(0).integers(0, 255, (60, 80, 3), np.uint8),
    "a label map as JPEG": jpeg(beans() * 40, 75),
    "a resized label map": cv2.resize(beans() * 40, None, fx=0.7, fy=0.7),
    "soft colours": cv2.GaussianBlur(RGB[beans()], (0, 0), 1),
    "probabilities": cv2.GaussianBlur(WHITE, (0, 0), 2) / 255,
    "NaN": np.where(WHITE, 1, np.nan), "negative": -WHITE.astype(np.int16),
    "noise": np.random.default_rng(0).integers(0, 60_000, (300, 300)).astype(np.uint16),
}  # fmt: skip


@pytest.mark.parametrize("pieces", [None, "each", "one"])
@pytest.mark.parametrize("name", PHOTOS)
def test_what_shows_no_objects_is_refused(name: str, pieces: str | None) -> None:
    with pytest.raises(
        MaskError, match=r"it has (\d+ (greys|colours)|fractions|numbers|no pixels)"
    ):
        objects(PHOTOS[name], pieces=pieces)


@pytest.mark.parametrize("white", [2, 255])
def test_classes_are_refused_and_the_advice_works(white: int) -> None:
    """A class of black and white is no soft edge of the other."""
    values = np.where(beans() > 3, white, np.minimum(beans(), 1)).astype(np.uint8)
    with pytest.raises(MaskError, match=rf"classes \(1, {white}\).*--pieces each"):
        objects(values)
    require_beans(objects(values, pieces="each"), 1)


# Void borders


def outlined(width: int, numbers: Values) -> BoolArray:
    """Where outlines of so many pixels lie, half of them inside of the objects."""
    grown = cv2.dilate(numbers, np.ones((width // 2 + 1,) * 2, np.uint8))
    inside = cv2.erode(numbers, np.ones(((width + 1) // 2 + 1,) * 2, np.uint8))
    return np.asarray((grown != inside) | (cv2.dilate(numbers, np.ones((3, 3))) != grown))


def touching() -> Values:
    """Nine numbers in a block, each beside the next ones."""
    blocks = np.kron(np.arange(1, 10).reshape(3, 3), np.ones((30, 40))).astype(np.uint8)
    return np.pad(blocks, ((20, 50), (30, 70)))


@pytest.mark.parametrize("numbers", [beans(), touching(), np.minimum(touching(), 1), beans() * 40],
                         ids=["apart", "touching", "one", "far apart values"])  # fmt: skip
@pytest.mark.parametrize("width", [2, 3, 5])
def test_void_borders_are_no_object(width: int, numbers: Values) -> None:
    border = outlined(width, numbers)
    colours = np.random.default_rng(0).integers(9, 200, (256, 3), np.uint8)[numbers]
    colours[numbers == 0] = 0
    white = np.where(border[..., None], 255, colours).astype(np.uint8)
    voc = np.where(border[..., None], (224, 224, 192), colours).astype(np.uint8)
    for values, named in (
        (np.where(border, 255, numbers).astype(np.uint8), "255"),
        (np.where(border, 255, numbers).astype(np.uint16), "255"),
        (np.where(border, 255, numbers).astype(np.uint8)[..., None], "255"),
        (voc, "#e0e0c0"), (white, "#ffffff"),
    ):  # fmt: skip
        with pytest.warns(UserWarning, match=f"{named}, thin outlines around .* and no object"):
            found = objects(values)
        assert len(found) == len(np.unique(values[~border & (numbers > 0)], axis=0))
        assert not any((mask & border).any() for mask in found)


def test_a_void_border_is_none_in_a_file_and_a_data_set(tmp_path: Path) -> None:
    values = np.where(outlined(3, beans()), 255, beans()).astype(np.uint8)
    for name in ("m.png", "m.tif"):
        Image.fromarray(values).save(tmp_path / name)
        for read in (lambda file: read_masks(file, SIZE),
                     lambda file: load_annotations(file)[0][0].outlines):  # fmt: skip
            with pytest.warns(UserWarning, match="255, thin outlines"):
                assert len(read(tmp_path / name)) == 5


NO_VOID: dict[str, Values] = {
    "an object like the others": np.where(beans() == 5, 255, beans()),
    "one that touches two": np.where(touching() == 5, 255, touching()),
    "a thin one beside others": np.where(np.abs(np.indices(SIZE)[0] - 80) < 2, 255, beans()),
    "a ring around one of many": np.where(
        cv2.dilate(ellipse(CENTRES[0]), np.ones((5, 5))) & (beans() == 0), 255, beans()),
    "many cells": np.pad(np.kron(np.arange(1, 301).reshape(15, 20), np.ones((9, 9), np.uint16)), 9),
}  # fmt: skip


@pytest.mark.parametrize("name", NO_VOID)
def test_an_object_of_255_is_one(name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert 255 in {number for number, _ in objects_of(NO_VOID[name].astype(np.uint16), "m")}


@pytest.mark.parametrize("step", [16, 51, 85])
def test_soft_edges_of_thin_white_lines_are_not_outlined_by_them(step: int) -> None:
    lines = np.zeros(SIZE, np.uint8)
    for x in (40, 100, 160):
        cv2.line(lines, (x, 30), (x + 30, 120), 255, 5)
    soft = cv2.GaussianBlur(lines, (0, 0), 0.6).astype(int)
    with pytest.warns(UserWarning, match="as of soft edges"):
        assert (
            len(objects(np.minimum(255, (soft + step // 2) // step * step).astype(np.uint8))) == 3
        )


# Values that smoothing leaves at edges

FEW = {
    "five": beans(),
    "two": ellipse(CENTRES[0]) + ellipse(CENTRES[4]) * 2,
    "two that touch": np.where(ellipse((50, 40)), 1, 2 * ellipse((85, 50))).astype(np.uint8),
    "six in any order": np.pad(np.kron(np.array([[3, 1, 5], [2, 6, 4]], np.uint8) * 1,
                                       np.ones((40, 50), np.uint8)), 31)[:, 1:],
}  # fmt: skip


def smoothed(values: Values) -> dict[str, Values]:
    deep, (height, width) = values.astype(np.uint16), values.shape
    turned = cv2.getRotationMatrix2D((width / 2, height / 2), 10, 1)
    return {
        **{f"JPEG of {quality}": jpeg(values, quality) for quality in (75, 90, 95)},
        **{f"resized by {by}": cv2.resize(deep, None, fx=by, fy=by)
           for by in (0.45, 0.7, 1.3, 2, 3)},
        "bicubic": cv2.resize(values, None, fx=1.7, fy=1.7, interpolation=cv2.INTER_CUBIC),
        "by area": cv2.resize(values, None, fx=0.6, fy=0.6, interpolation=cv2.INTER_AREA),
        "Pillow": np.asarray(Image.fromarray(values).resize(
            (int(width * 0.8), int(height * 0.8)), Image.Resampling.BILINEAR)),
        "turned": cv2.warpAffine(values, turned, (width, height)),
        "blurred": cv2.GaussianBlur(deep, (0, 0), 0.7),
    }  # fmt: skip


def refusal(values: Values, pieces: str | None) -> str:
    try:
        return f"none, but {len(objects(values, pieces=pieces))} objects"
    except MaskError as error:
        return str(error)


@pytest.mark.parametrize("pieces", [None, "one", "each"])
@pytest.mark.parametrize("name", FEW)
def test_label_maps_that_were_smoothed_are_refused(name: str, pieces: str | None) -> None:
    refusals = {how: refusal(values, pieces) for how, values in smoothed(FEW[name]).items()}
    greys = r"it has \d+ greys, most of them .* resized or saved as JPEG: save it as PNG"
    expected = rf"{greys}|it seems to hold classes" if pieces is None else greys
    assert {how: said for how, said in refusals.items() if not re.match(expected, said)} == {}


def cells(count: int, gap: bool = False) -> Values:
    """Cells of any size without background between them, or with a line of it."""
    points = np.random.default_rng(count).uniform(0, 240, (count, 2))
    numbers = cKDTree(points).query(np.indices((240, 240)).reshape(2, -1).T)[1] + 1
    numbers = numbers.reshape(240, 240).astype(np.uint16)
    edge = cv2.erode(numbers, np.ones((2, 2))) != numbers
    return np.where(edge, 0, numbers) if gap else numbers


def neurites(width: int) -> Values:
    """A bundle of thin objects side by side, which bend, in any order."""
    numbers = np.zeros((200, 300), np.uint16)
    for row, number in enumerate(np.random.default_rng(0).permutation(30) + 1):
        points = [(x, 20 + row * width + int(20 * np.sin(x / 40))) for x in range(5, 295, 5)]
        cv2.polylines(numbers, [np.array(points)], False, int(number), width)
    return numbers


SOUND: dict[str, Values] = {
    **{f"{name} objects": values for name, values in FEW.items()},
    **{f"{count} cells": cells(count) for count in (12, 200, 1500)},
    **{f"{count} cells with gaps": cells(count, True) for count in (12, 200, 1500)},
    **{f"neurites of {width}": neurites(width) for width in (2, 3, 5)},
    "objects of 3 pixels": np.kron(np.arange(1, 901).reshape(30, 30),
                                   np.pad([[1, 1], [1, 0]], 1)).astype(np.uint16),
    "objects of 9 pixels that touch": np.kron(
        np.random.default_rng(1).permutation(900).reshape(30, 30) + 1, np.ones((3, 3), np.uint16)),
    "layers": np.repeat(np.arange(1, 10), [2, 9, 3, 12, 2, 1, 9, 14, 30])[:, None]
              * np.ones(90, np.uint16),
    "nested": sum(ellipse((60, 60), (r, r)) for r in (40, 38, 20, 6)),
}  # fmt: skip


@pytest.mark.parametrize("name", SOUND)
def test_sound_label_maps_are_read(name: str) -> None:
    numbers = {number for number, _ in objects_of(SOUND[name], "m")}
    assert numbers == {*np.unique(SOUND[name]).tolist()} - {0}


@pytest.mark.parametrize("sides", [(3, 3), (5, 1), (5, 2), (5, 3), (7, 3)])
def test_a_class_of_borders_is_not_what_smoothing_leaves(sides: tuple[int, int]) -> None:
    grown, inside = (
        change((beans() > 0).astype(np.uint8), np.ones((side, side)))
        for change, side in zip((cv2.dilate, cv2.erode), sides, strict=True)
    )
    assert len(objects(grown + inside, pieces="each")) == 10


# Pieces


def behind_bars(width: int, *, across: bool = True) -> Values:
    mask = ellipse((110, 80), (70, 45), 15)
    for x in range(60, 180, 28):
        mask[:, x : x + width] = 0
    if across:
        mask[70 : 70 + width] = 0
    return mask


@pytest.mark.parametrize("width", [2, 4, 7])
@pytest.mark.parametrize("across", [False, True])
def test_an_object_behind_thin_things_is_one(width: int, across: bool) -> None:
    mask = behind_bars(width, across=across)
    count = count_pieces(mask > 0)  # without specks
    assert count >= 5
    with pytest.warns(UserWarning, match=f"1 example of {count} pieces, as they share a hull"):
        [found] = objects(mask)
    assert (found != (mask > 0)).sum() <= 3
    assert len(objects(mask, pieces="each")) == count
    numbers = mask * 3 + ellipse((20, 20), (9, 9))  # of a label map a number is one object
    assert len(objects(numbers)) == 2
    assert len(objects(numbers, pieces="each")) == count + 1


@pytest.mark.parametrize("gap", [1, 2, 4, 8, 20])
def test_separate_round_objects_are_not_one_however_near(gap: int) -> None:
    near = ellipse((60, 80), (20, 20)) | ellipse((101 + gap, 80), (20, 20))
    long = ellipse((60, 50), (22, 12), 0) | ellipse((60, 75 + gap), (22, 12), 0)
    for mask in (near, long):
        with pytest.warns(UserWarning, match="2 pieces of one value are 2 examples"):
            assert len(objects(mask)) == 2
        assert len(objects(mask, pieces="one")) == 1


def test_specks_are_no_pieces() -> None:
    mask = behind_bars(4)
    mask[2, 2] = 1
    with pytest.warns(UserWarning, match="left out 1 of"):
        [found] = objects(mask, pieces="one")
    assert not found[2, 2]
