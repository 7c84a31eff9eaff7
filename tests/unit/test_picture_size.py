"""Sizes and label values of picture files: as ``load_image`` sees them, without decoding."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageFile
from strategies import QUICK

from sam_detect.errors import ImageError
from sam_detect.io import load_image, picture_size
from sam_detect.io.decoding import PictureFile

GREY = np.arange(5 * 9, dtype=np.uint8).reshape(5, 9)


def exif(orientation: int) -> Image.Exif:
    data = Image.Exif()
    data[0x0112] = orientation
    return data


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("ending", ["jpg", "png", "tif", "webp", "avif", "jp2", "bmp", "gif"])
def test_the_size_is_that_of_the_picture_as_it_is_loaded(
    tmp_path: Path, ending: str, orientation: int
) -> None:
    path = tmp_path / f"a.{ending}"
    keeps = {} if ending in ("jp2", "bmp", "gif") else {"exif": exif(orientation)}
    Image.fromarray(np.stack([GREY] * 3, axis=2)).save(path, **keeps)
    size = picture_size(path)
    assert size == load_image(path).size_hw
    assert size == ((9, 5) if keeps and orientation > 4 else (5, 9))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("dtype", [np.uint16, np.float64])
@pytest.mark.parametrize("shape", [(5, 9), (5, 9, 3)])
def test_the_size_of_deep_and_unusual_tiffs(
    tmp_path: Path, shape: tuple[int, ...], dtype: Any, orientation: int
) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(
        path, np.ones(shape, dtype), photometric="rgb" if len(shape) == 3 else "minisblack",
        extratags=[(274, "H", 1, orientation, True)],
    )  # fmt: skip
    assert picture_size(path) == load_image(path).size_hw


def moved_behind_the_pixels(data: bytes, kind: bytes) -> bytes:
    """A PNG with its chunk of one kind put before the last one, IEND."""
    at = data.index(kind) - 4
    length = int.from_bytes(data[at : at + 4], "big") + 12
    chunk = data[at : at + length]
    rest = data[:at] + data[at + length :]
    return rest[:-12] + chunk + rest[-12:]


@pytest.mark.parametrize("moved", [False, True])
@pytest.mark.parametrize("what", ["EXIF", "XMP", "raw profile"])
def test_a_png_turned_by_words_behind_its_pixels(tmp_path: Path, what: str, moved: bool) -> None:
    path = tmp_path / "a.png"
    xmp = b'XML:com.adobe.xmp\0\0\0\0\0<x tiff:Orientation="6"/>'
    body = exif(6).tobytes()
    raw = b"Raw profile type exif\0\0" + zlib.compress(
        f"\nexif\n{len(body):8}\n{body.hex()}\n".encode()
    )
    kind, content = {
        "EXIF": (b"eXIf", body.removeprefix(b"Exif\0\0")), "XMP": (b"iTXt", xmp),
        "raw profile": (b"zTXt", raw),
    }[what]  # fmt: skip
    Image.fromarray(GREY).save(path)
    data = path.read_bytes()
    chunk = kind + content
    chunk = len(content).to_bytes(4, "big") + chunk + zlib.crc32(chunk).to_bytes(4, "big")
    data = data[:33] + chunk + data[33:]  # behind the header
    path.write_bytes(moved_behind_the_pixels(data, kind) if moved else data)
    assert picture_size(path) == load_image(path).size_hw == (9, 5)


@pytest.mark.parametrize("ending", ["png", "jpg", "tif"])
def test_no_pixel_is_decoded(tmp_path: Path, ending: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / f"a.{ending}"
    Image.fromarray(GREY).save(path)

    decoded: list[Any] = []

    def note(image: ImageFile.ImageFile) -> None:
        decoded.append(image)

    monkeypatch.setattr(ImageFile.ImageFile, "load", note)
    assert picture_size(path) == (5, 9)
    assert decoded == []


@pytest.mark.parametrize("content", [b"", b"no picture", b"\x89PNG\r\n\x1a\n", b"II*\0"])
def test_what_is_no_picture_has_no_size(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(content)
    with pytest.raises(ImageError, match=r"a\.png"):
        picture_size(path)


def test_a_huge_picture_has_no_size(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(GREY).save(path)
    with pytest.raises(ImageError, match="more than the limit of 44"):
        picture_size(path, max_pixels=44)


def test_any_bytes_behind_a_pngs_header_are_read_or_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(GREY).save(path)
    head = path.read_bytes()[:33]
    outcomes: set[str] = set()

    @QUICK
    @given(st.binary(max_size=60))
    def check(tail: bytes) -> None:
        path.write_bytes(head + tail)
        try:
            outcomes.add(str(picture_size(path)))
        except ImageError as error:
            outcomes.add(str(error))

    check()
    assert outcomes
    assert not [outcome for outcome in outcomes if "\n" in outcome]


# Label values


@pytest.mark.parametrize(
    ("name", "dtype", "largest"),
    [
        ("a.png", np.uint8, 255), ("a.png", np.uint16, 65535), ("a.tif", np.uint8, 255),
        ("a.tif", np.uint16, 65535), ("a.tif", np.uint32, 2**31 - 1), ("a.tif", np.int32, 2**30),
        ("a.tif", np.float32, 2**20), ("a.tif", np.uint64, 2**40), ("a.tif", np.float64, 2**40),
    ],
)  # fmt: skip
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_values_are_read_as_they_are(
    tmp_path: Path, name: str, dtype: Any, largest: int, compression: str | None
) -> None:
    values = np.zeros((4, 6), dtype)
    values[1, 2], values[3, 5] = 1, largest
    path = tmp_path / name
    if name.endswith("png"):
        Image.fromarray(values).save(path)
    else:
        tifffile.imwrite(path, values, compression=compression)
    read, _ = PictureFile(str(path), max_pixels=100).values(as_stored=True)
    np.testing.assert_array_equal(read.reshape(4, 6), values)


def test_of_a_palette_the_indices_are_read(tmp_path: Path) -> None:
    image = Image.fromarray(GREY)
    image.putpalette([value for i in range(256) for value in (255 - i, 7, i // 2)])
    image.save(tmp_path / "a.png")
    read, _ = PictureFile(str(tmp_path / "a.png"), max_pixels=100).values(as_stored=True)
    np.testing.assert_array_equal(read, GREY)
