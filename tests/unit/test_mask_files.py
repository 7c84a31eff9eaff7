"""Masks from picture and numpy files."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from sam_detect.errors import MaskError
from sam_detect.io import to_frame
from sam_detect.io.mask_files import given_masks, read_masks
from sam_detect.types import Masks

SIZE = (20, 30)


def two_squares(first: int, second: int, dtype: type = np.uint8) -> npt.NDArray[np.generic]:
    """A 3 x 4 rectangle at (2, 1) and a 5 x 5 one at (20, 10)."""
    values = np.zeros(SIZE, dtype)
    values[1:5, 2:5] = first
    values[10:15, 20:25] = second
    return values


def write(path: Path, values: npt.NDArray[np.generic]) -> Path:
    if path.suffix == ".npy":
        np.save(path, values)
    else:
        assert cv2.imwrite(str(path), values)
    return path


BOXES = [[2, 1, 5, 5], [20, 10, 25, 15]]


@pytest.mark.parametrize("ending", [".png", ".bmp", ".tif", ".PNG", ".npy"])
def test_each_region_of_a_black_and_white_mask_is_an_object(tmp_path: Path, ending: str) -> None:
    masks = read_masks(write(tmp_path / f"m{ending}", two_squares(255, 255)), SIZE)
    assert masks.boxes_xyxy.tolist() == BOXES
    assert masks.areas.tolist() == [12, 25]
    assert masks.size_hw == SIZE


def test_any_single_value_is_white(tmp_path: Path) -> None:
    for value in (1, 7, 200):
        masks = read_masks(write(tmp_path / "m.png", two_squares(value, value)), SIZE)
        assert masks.boxes_xyxy.tolist() == BOXES


def test_regions_that_touch_at_a_corner_are_one(tmp_path: Path) -> None:
    values = np.zeros(SIZE, np.uint8)
    values[2:4, 2:4] = values[4:6, 4:6] = 255
    assert len(read_masks(write(tmp_path / "m.png", values), SIZE)) == 1


def test_specks_beside_a_large_region_are_left_out_and_named(tmp_path: Path) -> None:
    values = np.zeros((60, 60), np.uint8)
    values[10:50, 10:50] = values[3, 3:7] = values[55, 2:17] = 255
    with pytest.warns(UserWarning, match=r"left out 2 of 3 regions, of at most 15 pixels"):
        masks = read_masks(write(tmp_path / "m.png", values), (60, 60))
    assert masks.areas.tolist() == [1600]
    values[10:50, 10:50] = 0  # alone they are what was outlined
    assert len(read_masks(write(tmp_path / "m.png", values), (60, 60))) == 2


@pytest.mark.parametrize(
    ("name", "dtype"),
    [("m.png", np.uint8), ("m.png", np.uint16), ("m.tif", np.uint16), ("m.npy", np.int32),
     ("m.npy", np.int64), ("m.npy", np.float32), ("m.npy", np.int8)],
)  # fmt: skip
def test_each_value_of_a_label_map_is_an_object(tmp_path: Path, name: str, dtype: type) -> None:
    values = two_squares(3, 9, dtype)
    values[17:19, 0:2] = 3  # a second region of the first object
    masks = read_masks(write(tmp_path / name, values), SIZE)
    assert masks.areas.tolist() == [16, 25]
    assert masks.boxes_xyxy.tolist() == [[0, 1, 5, 19], BOXES[1]]


def test_a_map_of_classes_is_refused(tmp_path: Path) -> None:
    values = np.zeros(SIZE, np.uint8)
    for column, value in ((1, 1), (8, 2), (15, 1), (22, 2)):
        values[3:8, column : column + 4] = value
    with pytest.raises(MaskError, match=r"seems to hold classes \(1, 2\), not objects"):
        read_masks(write(tmp_path / "classes.png", values), SIZE)
    values[values == 2] = 1
    assert len(read_masks(write(tmp_path / "one.png", values), SIZE)) == 4


def test_an_object_of_a_label_map_may_have_a_speck_beside_it(tmp_path: Path) -> None:
    values = two_squares(1, 2)
    values[18, 1] = values[18, 28] = 1
    values[18, 5] = 2
    assert len(read_masks(write(tmp_path / "map.png", values), SIZE)) == 2


def test_a_label_map_keeps_values_beyond_a_byte_apart(tmp_path: Path) -> None:
    masks = read_masks(write(tmp_path / "m.png", two_squares(1, 257, np.uint16)), SIZE)
    assert masks.boxes_xyxy.tolist() == BOXES


def test_a_boolean_array_is_a_black_and_white_mask(tmp_path: Path) -> None:
    masks = read_masks(write(tmp_path / "m.npy", two_squares(1, 1, np.bool_)), SIZE)
    assert masks.boxes_xyxy.tolist() == BOXES


@pytest.mark.parametrize("dtype", [np.bool_, np.uint8, np.float64])
def test_a_stack_of_masks_is_one_object_each_and_may_overlap(tmp_path: Path, dtype: type) -> None:
    stack = np.stack([two_squares(1, 0, dtype), two_squares(1, 1, dtype)])
    masks = read_masks(write(tmp_path / "m.npy", stack), SIZE)
    assert masks.areas.tolist() == [12, 37]


def test_a_colour_picture_of_a_mask_is_black_and_white_as_well(tmp_path: Path) -> None:
    colour = np.zeros((*SIZE, 3), np.uint8)
    colour[1:5, 2:5] = (255, 255, 255)
    assert read_masks(write(tmp_path / "m.png", colour), SIZE).boxes_xyxy.tolist() == [BOXES[0]]
    colour[1:5, 2:5] = (0, 0, 255)
    assert read_masks(write(tmp_path / "m.png", colour), SIZE).boxes_xyxy.tolist() == [BOXES[0]]


def test_transparency_is_no_mask(tmp_path: Path) -> None:
    picture = np.zeros((*SIZE, 4), np.uint8)
    picture[..., 3] = 255
    picture[1:5, 2:5, :3] = 255
    assert read_masks(write(tmp_path / "m.png", picture), SIZE).boxes_xyxy.tolist() == [BOXES[0]]


def test_a_mask_that_is_all_object_is_one(tmp_path: Path) -> None:
    masks = read_masks(write(tmp_path / "m.png", np.full(SIZE, 255, np.uint8)), SIZE)
    assert masks.boxes_xyxy.tolist() == [[0, 0, 30, 20]]


# Channels last: masks, or colours and opacity


ONE, OTHER, BOTH = two_squares(1, 0), two_squares(0, 1), two_squares(1, 1)
NEAR = np.roll(ONE, 2, axis=1)
STACKS: dict[str, npt.NDArray[np.generic]] = {
    "two of 1": np.dstack([ONE, OTHER]),
    "two of 255": np.dstack([ONE, OTHER]) * np.uint8(255),
    "two that overlap": np.dstack([ONE, NEAR]) * np.uint8(255),
    "one in the other": np.dstack([ONE, BOTH]) * np.uint8(255),
    "two of booleans": np.dstack([ONE, OTHER]) > 0,
    "two of 16 bits": np.dstack([ONE, OTHER]).astype(np.uint16),
    "two label maps": np.dstack([BOTH * 3 + ONE, BOTH * 2 + OTHER]),
    "four of 1": np.dstack([ONE, OTHER, NEAR, BOTH]),
    "four of 255": np.dstack([ONE, OTHER, NEAR, two_squares(0, 1)]) * np.uint8(255),
    "four of which one is empty": np.dstack([ONE, OTHER, NEAR, 0 * ONE]) * np.uint8(255),
    "four of numbers": np.dstack([ONE, OTHER, NEAR, BOTH]).astype(np.int64),
    "four of fractions": np.dstack([ONE, ONE, ONE, OTHER]).astype(np.float32) / 2,
}


@pytest.mark.parametrize("name", STACKS)
def test_masks_as_channels_are_not_read_as_opacity(name: str, tmp_path: Path) -> None:
    """The last of them would be lost."""
    stack = STACKS[name]
    count = stack.shape[2]
    expected = rf"has shape \(20, 30, {count}\): it may be {count} masks.*give masks as \(N, H, W\)"
    with pytest.raises(MaskError, match=f"(?i){expected}"):
        read_masks(write(tmp_path / "m.npy", stack), SIZE)
    frame = to_frame(np.zeros((*SIZE, 3), np.uint8))
    with pytest.raises(MaskError, match=f"(?i){expected}"):
        given_masks(frame, stack, lambda _: Masks.empty(SIZE))


def test_the_advice_for_masks_as_channels_works(tmp_path: Path) -> None:
    stack = np.moveaxis(STACKS["four of 255"], -1, 0)
    assert len(read_masks(write(tmp_path / "m.npy", stack), SIZE)) == 4


FULL = np.full(SIZE, 255, np.uint8)
PICTURES: dict[str, npt.NDArray[np.generic]] = {
    "opaque grey": np.dstack([BOTH * 255, FULL]),
    "white on nothing": np.dstack([FULL, BOTH * 255]),
    "white with its opacity": np.dstack([BOTH * 255] * 2),
    "opaque colours": np.dstack([ONE * 255, OTHER * 255, 0 * ONE, FULL]),
    "colours on nothing": np.dstack([ONE * 255, OTHER * 255, 0 * ONE, BOTH * 255]),
    "black on nothing": np.dstack([0 * ONE] * 3 + [BOTH * 255]),
    "white, opacity forgotten": np.dstack([BOTH * 255] * 3 + [0 * ONE]),
    "colours of any strength": np.dstack([ONE * 200, OTHER * 9, ONE * 3, BOTH * 255]),
}


@pytest.mark.parametrize("name", PICTURES)
def test_an_array_with_opacity_is_a_picture_of_masks(name: str, tmp_path: Path) -> None:
    masks = read_masks(write(tmp_path / "m.npy", PICTURES[name]), SIZE)
    assert sorted(masks.boxes_xyxy.tolist()) == BOXES


def test_the_opacity_of_a_file_is_opacity(tmp_path: Path) -> None:
    colour = STACKS["four of 255"]
    assert read_masks(write(tmp_path / "m.png", colour), SIZE).boxes_xyxy.tolist() == [BOXES[1]]


# What is refused


def test_a_pickle_is_not_read_and_the_way_out_is_named(tmp_path: Path) -> None:
    file = tmp_path / "a_seg.npy"
    np.save(file, np.array({"masks": np.ones(SIZE, np.int32)}))
    with pytest.raises(MaskError, match=r"Python objects, which are not read.* array 'masks'"):
        read_masks(file, SIZE)


@pytest.mark.parametrize("name", ["m.png", "m.npy"])
def test_a_mask_of_another_size_is_refused_with_both(tmp_path: Path, name: str) -> None:
    file = write(tmp_path / name, two_squares(1, 2))
    with pytest.raises(MaskError, match=r"30x20.*picture 20x30") as caught:
        read_masks(file, (30, 20))
    assert str(file) in str(caught.value)


def test_a_stack_of_another_size_is_refused(tmp_path: Path) -> None:
    file = write(tmp_path / "m.npy", np.ones((2, *SIZE), np.bool_))
    with pytest.raises(MaskError, match="30x20"):
        read_masks(file, (30, 20))


@pytest.mark.parametrize("name", ["m.png", "m.npy"])
def test_a_mask_without_an_object_is_refused(tmp_path: Path, name: str) -> None:
    file = write(tmp_path / name, np.zeros(SIZE, np.uint8))
    with pytest.raises(MaskError, match="0 everywhere") as caught:
        read_masks(file, SIZE)
    assert str(file) in str(caught.value)


def test_a_stack_without_an_object_or_with_an_empty_one_is_refused(tmp_path: Path) -> None:
    for stack in (np.zeros((0, *SIZE), np.bool_), np.zeros((2, *SIZE), np.bool_)):
        with pytest.raises(MaskError):
            read_masks(write(tmp_path / "m.npy", stack), SIZE)


def npy_header(shape: str) -> bytes:
    """A file that promises an array of this shape and holds nothing of it."""
    header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode()


def zipped() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a.npy", b"")
    return buffer.getvalue()


BROKEN: dict[str, tuple[str, bytes]] = {
    "an empty picture": ("m.png", b""),
    "an empty array": ("m.npy", b""),
    "noise as a picture": ("m.png", bytes(range(256))),
    "noise as an array": ("m.npy", bytes(range(256))),
    "text": ("m.txt", b"mask"),
    "half a picture header": ("m.png", b"\x89PNG\r\n\x1a\n\x00\x00"),
    "half an array header": ("m.npy", b"\x93NUMPY\x01\x00"),
    "an array cut short": ("m.npy", npy_header("(20, 30)")),
    "an array of absurd size": ("m.npy", npy_header("(999999999999, 999999999999)")),
    "an array of negative size": ("m.npy", npy_header("(-1, 4)")),
    "an archive of arrays": ("m.npy", zipped()),
    "an archive cut short": ("m.npy", zipped()[:10]),
    "a pickle": ("m.npy", b"\x80\x04K\x05."),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_file_that_holds_no_mask_is_refused_by_name(tmp_path: Path, what: str) -> None:
    name, content = BROKEN[what]
    file = tmp_path / name
    file.write_bytes(content)
    with pytest.raises(MaskError) as caught:
        read_masks(file, SIZE)
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_or_a_folder_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "folder.npy").mkdir()
    for file in (tmp_path / "no.png", tmp_path / "no.npy", tmp_path, tmp_path / "folder.npy"):
        with pytest.raises(MaskError, match="cannot be read") as caught:
            read_masks(file, SIZE)
        assert str(file) in str(caught.value)


@pytest.mark.parametrize(
    "values",
    [
        np.zeros(5),
        np.array(5),
        np.zeros((1, 2, 3, 4)),
        np.zeros(SIZE, np.complex64),
        np.full(SIZE, "a"),
        np.zeros(SIZE, "datetime64[s]"),
        np.zeros(SIZE, [("a", "u1")]),
    ],
    ids=lambda v: f"{v.shape} {v.dtype}",
)
def test_an_array_that_is_no_mask_is_refused(
    tmp_path: Path, values: npt.NDArray[np.generic]
) -> None:
    with pytest.raises(MaskError, match="must have shape"):
        read_masks(write(tmp_path / "m.npy", values), SIZE)


class Boom:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (exec, ("raise SystemError('executed')",))


def test_an_array_file_is_never_executed(tmp_path: Path) -> None:
    file = tmp_path / "m.npy"
    np.save(file, np.array([Boom()], dtype=object), allow_pickle=True)
    with pytest.raises(MaskError, match="cannot be read"):
        read_masks(file, SIZE)


def test_the_picture_file_is_free_again_after_reading(tmp_path: Path) -> None:
    file = write(tmp_path / "m.npy", two_squares(1, 2))
    masks = read_masks(file, SIZE)
    write(file, np.zeros(SIZE, np.uint8))
    assert masks.areas.tolist() == [12, 25]
