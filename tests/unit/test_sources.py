"""Pictures in: every kind of file and array gives a frame, or one clear line."""

from __future__ import annotations

import contextlib
import io
import os
import struct
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from sam_detect.errors import ImageError, one_line
from sam_detect.io import (
    DEFAULT_MAX_PIXELS,
    cut_out_object,
    find_images,
    load_image,
    load_image_bytes,
    to_frame,
)
from sam_detect.io.images import natural_key
from sam_detect.io.pixels import alpha_mask, to_8_bits
from sam_detect.types import Frame

RED, GREEN, BLUE = (200, 30, 20), (20, 180, 40), (30, 40, 210)


@pytest.fixture(autouse=True)
def _nothing_on_stderr(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> Iterator[None]:
    """Neither warnings nor logs nor what C libraries print reach the user."""
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        yield
    assert [str(warning.message) for warning in warned] == []
    assert [record.getMessage() for record in caplog.get_records("call")] == []
    assert capfd.readouterr().err == ""


def quarters() -> np.ndarray[Any, Any]:
    """8 wide, 6 high: red | green over blue | white, so that each turn looks different."""
    rgb = np.zeros((6, 8, 3), np.uint8)
    rgb[:3, :4], rgb[:3, 4:], rgb[3:, :4], rgb[3:, 4:] = RED, GREEN, BLUE, (255, 255, 255)
    return rgb


def save(path: Path, array: np.ndarray[Any, Any], **options: Any) -> Path:
    Image.fromarray(array).save(path, **options)
    return path


# --- files -----------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["png", "bmp", "tif", "ppm", "tga", "webp", "gif", "jpg", "jp2"])
def test_every_format_gives_its_colours_as_rgb(tmp_path: Path, ending: str) -> None:
    large = quarters().repeat(8, 0).repeat(8, 1)
    options = {"lossless": True} if ending == "webp" else {"quality": 95} if ending == "jpg" else {}
    path = save(tmp_path / f"x.{ending}", large, **options)
    frame = load_image(path)
    assert frame.source_id == str(path)
    tolerance = {"jpg": 6, "gif": 40, "jp2": 2}.get(ending, 0)
    got, want = frame.image_rgb[10, 10].astype(int), np.array(RED)
    assert np.abs(got - want).max() <= tolerance
    assert np.abs(frame.image_rgb[40, 10].astype(int) - BLUE).max() <= tolerance
    assert frame.size_hw == (48, 64)


def test_the_path_is_kept_as_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path / "x.png", quarters())
    monkeypatch.chdir(tmp_path)
    assert load_image("./x.png").source_id == "./x.png"


@pytest.mark.parametrize("ending", ["jpg", "png", "tif", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied_once(tmp_path: Path, ending: str, orientation: int) -> None:
    upright = quarters().repeat(8, 0).repeat(8, 1)
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.swapaxes(0, 1),
        6: np.rot90(upright),
        7: upright[::-1, ::-1].swapaxes(0, 1),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save(tmp_path / f"x.{ending}", np.ascontiguousarray(stored), exif=exif)
    got = load_image(path).image_rgb
    assert got.shape == upright.shape
    assert np.abs(got[4::8, 4::8].astype(int) - upright[4::8, 4::8]).max() < 60


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
@pytest.mark.parametrize("ending", ["png", "tif"])
def test_16_bit_colour_is_stretched_and_upright(
    tmp_path: Path, ending: str, orientation: int
) -> None:
    upright = quarters().astype(np.uint16) * 8  # 11 bits: black on the type's full range
    stored = {1: upright, 3: upright[::-1, ::-1], 6: np.rot90(upright), 8: np.rot90(upright, -1)}
    path = tmp_path / f"x.{ending}"
    _save_16_bit_colour(path, np.ascontiguousarray(stored[orientation]), orientation)
    got = load_image(path).image_rgb
    assert got.shape == upright.shape
    assert np.abs(got.astype(int) - to_8_bits(upright)).max() == 0
    assert got.max() == 255


def _save_16_bit_colour(path: Path, rgb: np.ndarray[Any, Any], orientation: int) -> None:
    if path.suffix == ".tif":
        tifffile.imwrite(path, rgb, photometric="rgb", extratags=[(274, "H", 1, orientation, True)])
        return
    data = cv2.imencode(".png", rgb[..., ::-1])[1].tobytes()
    exif = Image.Exif()
    exif[0x0112] = orientation
    body = exif.tobytes().removeprefix(b"Exif\0\0")
    chunk = struct.pack(">I", len(body)) + b"eXIf" + body
    chunk += struct.pack(">I", zlib.crc32(b"eXIf" + body))
    path.write_bytes(data[:33] + chunk + data[33:])  # behind the header


def test_unusual_tiffs_are_read(tmp_path: Path) -> None:
    ramp = np.linspace(-3.0, 9.0, 48).reshape(6, 8)
    tifffile.imwrite(tmp_path / "double.tif", ramp)
    assert np.ptp(load_image(tmp_path / "double.tif").image_rgb) == 255
    planar = np.moveaxis(quarters(), -1, 0).astype(np.uint16) * 8
    tifffile.imwrite(tmp_path / "planar.tif", planar, photometric="rgb", planarconfig="separate")
    want = to_8_bits(quarters().astype(np.uint16) * 8)
    assert (load_image(tmp_path / "planar.tif").image_rgb == want).all()
    tifffile.imwrite(tmp_path / "big.tif", quarters(), bigtiff=True, photometric="rgb")
    assert (load_image(tmp_path / "big.tif").image_rgb == quarters()).all()


def test_tiffs_as_opencv_writes_them_are_read(tmp_path: Path) -> None:
    deep = quarters().astype(np.uint16) * 8
    cv2.imwrite(str(tmp_path / "lzw.tif"), deep[..., ::-1], [cv2.IMWRITE_TIFF_COMPRESSION, 5])
    assert (load_image(tmp_path / "lzw.tif").image_rgb == to_8_bits(deep)).all()
    cv2.imwrite(str(tmp_path / "real.tif"), quarters()[..., 0].astype(np.float64) / 255)
    assert (load_image(tmp_path / "real.tif").image_rgb[..., 1] == quarters()[..., 0]).all()


@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (5, 1), (1, 1, 3), (1, 5, 3), (5, 1, 4)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float64])
def test_pictures_of_one_pixel_a_side(tmp_path: Path, shape: tuple[int, ...], dtype: Any) -> None:
    tifffile.imwrite(
        tmp_path / "x.tif", np.ones(shape, dtype),
        photometric="rgb" if len(shape) == 3 else "minisblack",
    )  # fmt: skip
    assert load_image(tmp_path / "x.tif").size_hw == shape[:2]


def test_the_limit_is_the_settings_default() -> None:
    from sam_detect.config import Settings

    assert Settings.model_fields["max_image_pixels"].default == DEFAULT_MAX_PIXELS


def test_multi_page_files_give_their_first_picture(tmp_path: Path) -> None:
    first, second = quarters(), 255 - quarters()
    pages = [Image.fromarray(first), Image.fromarray(second)]
    pages[0].save(tmp_path / "x.tif", save_all=True, append_images=pages[1:])
    pages[0].save(tmp_path / "x.gif", save_all=True, append_images=pages[1:])
    with pytest.warns(UserWarning, match="page 1 of 2 was read"):
        found = load_image(tmp_path / "x.tif").image_rgb
    assert (found == first).all()
    with pytest.warns(UserWarning, match="frame 1 of 2 was read"):
        found = load_image(tmp_path / "x.gif").image_rgb
    assert np.abs(found[0, 0].astype(int) - RED).max() < 40


def test_cmyk_jpegs_of_adobe_are_not_inverted(tmp_path: Path) -> None:
    white = Image.new("CMYK", (16, 16), (0, 0, 0, 0))
    white.save(tmp_path / "x.jpg", quality=95)  # Pillow writes Adobe's marker and inversion
    assert load_image(tmp_path / "x.jpg").image_rgb.min() > 245


def test_a_misleading_ending_does_not_matter(tmp_path: Path) -> None:
    path = tmp_path / "x.jpg"
    path.write_bytes(save(tmp_path / "y.png", quarters()).read_bytes())
    assert (load_image(path).image_rgb == quarters()).all()


def test_bytes_are_read_like_files(tmp_path: Path) -> None:
    path = save(tmp_path / "x.png", quarters())
    frame = load_image_bytes(path.read_bytes())
    assert frame.source_id == "-"
    assert (frame.image_rgb == quarters()).all()
    for data in (b"", b"no picture"):
        with pytest.raises(ImageError):
            load_image_bytes(data)


# --- refused files ---------------------------------------------------------------------------


def refused(action: Any, *words: str) -> str:
    """The one line that the action's ImageError prints; it has all the words."""
    with pytest.raises(ImageError) as caught:
        action()
    line = str(caught.value)
    assert line == one_line(caught.value)
    assert len(line) < 400
    for word in words:
        assert word in line
    return line


def test_missing_files_folders_and_devices_are_refused(tmp_path: Path) -> None:
    refused(lambda: load_image(tmp_path / "no.png"), "no.png", "does not exist")
    refused(lambda: load_image(tmp_path), str(tmp_path), "folder")
    refused(lambda: load_image("a\0b"), "cannot be read")
    refused(lambda: load_image(""), "does not exist")
    refused(lambda: load_image("x" * 300), "cannot be read")
    (tmp_path / "link.png").symlink_to(tmp_path / "gone.png")
    refused(lambda: load_image(tmp_path / "link.png"), "link")
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    with pytest.raises(ImageError):
        load_image(tmp_path / "loop.png")
    refused(lambda: load_image("/dev/zero"), "device")
    os.mkfifo(tmp_path / "pipe.png")  # opening it would wait for ever
    refused(lambda: load_image(tmp_path / "pipe.png"), "is a pipe or device")


def test_a_file_that_may_not_be_read_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save(tmp_path / "x.png", quarters())
    path.chmod(0)
    if os.access(path, os.R_OK):  # root reads everything: have the system refuse

        def deny(*_: object, **__: object) -> None:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr("sam_detect.io.decoding.PictureFile.open", deny)
    refused(lambda: load_image(path), "x.png", "Permission denied", "permissions")


def test_empty_foreign_and_huge_files_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "x.png").write_bytes(b"")
    refused(lambda: load_image(tmp_path / "x.png"), "x.png", "empty")
    for content in (b"hello", b"%PDF-1.7\n", b"<svg/>", b"II*\0"):
        (tmp_path / "x.png").write_bytes(content * 3)
        refused(lambda: load_image(tmp_path / "x.png"), "x.png")
    script = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n"
    (tmp_path / "x.png").write_bytes(script)  # Pillow would have Ghostscript run it
    refused(lambda: load_image(tmp_path / "x.png"), "not a picture", "JPEG, PNG")
    path = save(tmp_path / "y.png", quarters())
    monkeypatch.setattr("sam_detect.io.decoding.MAX_BYTES", 20)
    refused(lambda: load_image(path), "bytes", "limit")


@pytest.mark.parametrize("ending", ["png", "jpg", "tif", "gif", "webp", "bmp", "jp2", "ppm"])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.7, 0.97])
def test_truncated_files_are_refused(tmp_path: Path, ending: str, share: float) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
    path = save(tmp_path / f"x.{ending}", noise)
    data = path.read_bytes()
    if ending in ("gif", "jp2"):  # their last bytes say nothing about the pixels
        share = min(share, 0.9)
    path.write_bytes(data[: int(len(data) * share)])
    refused(lambda: load_image(path), f"x.{ending}")


def test_truncated_16_bit_colour_is_refused(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 4096, (40, 40, 3), np.uint16)
    for ending in ("png", "tif"):
        path = tmp_path / f"x.{ending}"
        _save_16_bit_colour(path, noise, 1)
        path.write_bytes(path.read_bytes()[:-2000])
        refused(lambda path=path: load_image(path), path.name)


@settings(max_examples=60)
@given(st.data())
def test_damaged_files_give_a_frame_or_an_image_error(data: Any) -> None:
    ending = data.draw(st.sampled_from(["PNG", "JPEG", "TIFF", "GIF", "BMP", "WEBP", "PPM"]))
    buffer = io.BytesIO()
    Image.fromarray(quarters()).save(buffer, ending)
    content = bytearray(buffer.getvalue())
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        frame = load_image_bytes(bytes(content), max_pixels=100_000)
    except ImageError:
        return
    assert isinstance(frame, Frame)


def test_damaged_exif_data_is_no_reason_to_refuse_or_to_warn(tmp_path: Path) -> None:
    broken = b"Exif\0\0II*\0\x08\0\0\0\x05\0\x12\x01\x03\0"
    path = save(tmp_path / "x.jpg", quarters(), exif=broken)
    assert load_image(path).size_hw == (6, 8)


def test_damaged_tiffs_do_not_log(tmp_path: Path) -> None:
    path = tmp_path / "x.tif"
    tifffile.imwrite(path, np.linspace(-3.0, 9.0, 4800).reshape(60, 80))
    whole = path.read_bytes()
    for position in range(4, 200):
        content = bytearray(whole)
        content[position] ^= 0xFF
        path.write_bytes(content)
        with contextlib.suppress(ImageError):
            load_image(path)


def bomb(width: int, height: int) -> bytes:
    """A small PNG that says it is large."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(b"\0" * 100)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    )


def test_bombs_are_refused_before_they_are_decoded(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    path.write_bytes(bomb(60_000, 60_000))
    refused(lambda: load_image(path), "60000x60000", "max_image_pixels")
    refused(lambda: to_frame(Image.new("1", (300, 300)), max_pixels=1000), "300x300")
    tifffile.imwrite(tmp_path / "x.tif", np.zeros((30, 30)))  # of a kind that Pillow cannot read
    refused(lambda: load_image(tmp_path / "x.tif", max_pixels=899), "30x30")
    small = save(tmp_path / "y.png", quarters())
    refused(lambda: load_image(small, max_pixels=47), "8x6")
    assert load_image(small, max_pixels=48).size_hw == (6, 8)


def test_pillows_own_limit_is_neither_used_nor_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 5)  # at twice as many Pillow gives up
    seen: list[int | None] = []

    def stretch(_: object) -> tuple[float, float]:
        seen.append(Image.MAX_IMAGE_PIXELS)
        return 0, 40_000

    deep = tmp_path / "deep.png"
    Image.fromarray(np.arange(12, dtype=np.uint16).reshape(3, 4) * 3000).save(deep)
    assert load_image(deep, stretch=stretch).size_hw == (3, 4)
    assert seen == [5], "other threads may rely on it meanwhile"


# --- Pillow images ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "mode",
    ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "LAB", "HSV"],
)
def test_every_colour_mode_shows_its_grey(mode: str) -> None:
    start = Image.new("RGB", (5, 4), (255, 255, 255))
    if mode == "LAB":
        image = Image.merge("LAB", [Image.new("L", (5, 4), v) for v in (255, 128, 128)])
    elif mode in ("PA", "RGBa"):
        image = start.convert("P" if mode == "PA" else "RGBA").convert(mode)
    elif mode == "LA":
        image = start.convert("L").convert("LA")
    else:
        image = start.convert(mode)
    frame = to_frame(image)
    assert frame.image_rgb.shape == (4, 5, 3)
    assert frame.image_rgb.min() >= 250


@pytest.mark.parametrize("mode", ["I;16", "I;16B", "I;16L", "I", "F"])
def test_number_modes_are_stretched(mode: str) -> None:
    values = np.arange(20).reshape(4, 5) * 200  # 12 bits
    if mode.startswith("I;16"):
        data = values.astype(">u2" if mode == "I;16B" else "<u2").tobytes()
        image = Image.frombytes(mode, (5, 4), data)
    else:
        image = Image.fromarray(values.astype(np.int32 if mode == "I" else np.float32))
        assert image.mode == mode
    rgb = to_frame(image).image_rgb
    assert rgb[0, 0].tolist() == [0, 0, 0]
    assert rgb[-1, -1].tolist() == [255, 255, 255]
    assert (np.diff(rgb[..., 0].ravel().astype(int)) > 0).all()


def test_transparency_shows_a_white_page() -> None:
    image = Image.new("RGBA", (3, 1), (*RED, 255))
    image.putpixel((1, 0), (*RED, 0))
    image.putpixel((2, 0), (0, 0, 0, 51))
    assert to_frame(image).image_rgb[0].tolist() == [list(RED), [255, 255, 255], [204, 204, 204]]
    palette = Image.new("P", (2, 1), 0)
    palette.putpalette([*RED, *GREEN])
    palette.putpixel((1, 0), 1)
    palette.info["transparency"] = 1
    assert to_frame(palette).image_rgb[0].tolist() == [list(RED), [255, 255, 255]]
    palette.info["transparency"] = b"\xff\x00"
    assert to_frame(palette).image_rgb[0].tolist() == [list(RED), [255, 255, 255]]
    keyed = Image.new("RGB", (1, 1), RED)
    keyed.info["transparency"] = RED
    with pytest.warns(UserWarning, match="transparent everywhere"):
        assert to_frame(keyed).image_rgb[0, 0].tolist() == [255, 255, 255]


def test_arrays_and_pictures_see_the_same_white_page() -> None:
    rgba = np.random.default_rng(1).integers(0, 256, (9, 7, 4), np.uint8)
    ours = to_frame(rgba, color_order="rgb").image_rgb.astype(int)
    assert np.abs(ours - to_frame(Image.fromarray(rgba)).image_rgb).max() <= 1


def test_a_pillow_image_is_taken_as_it_lies(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    path = save(tmp_path / "x.png", quarters(), exif=exif)
    with Image.open(path) as image:
        frame = to_frame(image)
    assert frame.size_hw == (6, 8)
    assert load_image(path).size_hw == (8, 6)
    assert frame.source_id == str(path)


def test_damaged_or_empty_pillow_images_are_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "x.png", quarters().repeat(20, 0))
    path.write_bytes(path.read_bytes()[:60])
    with Image.open(path) as image:
        refused(lambda: to_frame(image), "x.png")
    refused(lambda: to_frame(Image.new("RGB", (0, 4))), "no pixels")
    closed = Image.open(save(tmp_path / "y.png", quarters()))
    closed.close()
    refused(lambda: to_frame(closed))


@pytest.mark.parametrize(
    ("alphas", "expected"),
    [
        ([255, 255, 255], None),
        ([0, 0, 0], None),
        ([0, 255, 254], [False, True, False]),
        ([0, 128, 200], [False, True, True]),
        ([0, 127, 100], None),
    ],
)
def test_alpha_masks(alphas: list[int], expected: list[bool] | None) -> None:
    rgba = np.zeros((1, 3, 4), np.uint8)
    rgba[0, :, 3] = alphas
    mask = alpha_mask(Image.fromarray(rgba))
    assert (None if mask is None else mask[0].tolist()) == expected


def test_the_alpha_mask_of_a_file_lies_on_its_picture(tmp_path: Path) -> None:
    rgba = np.zeros((4, 6, 4), np.uint8)
    rgba[:, :2] = (*RED, 255)
    exif = Image.Exif()
    exif[0x0112] = 6
    path = save(tmp_path / "x.png", rgba, exif=exif)
    mask = cut_out_object(path)
    assert mask is not None
    assert (mask == (load_image(path).image_rgb == RED).all(axis=2)).all()
    assert mask.shape == (6, 4)
    assert cut_out_object(save(tmp_path / "y.jpg", quarters())) is None
    assert alpha_mask(Image.new("I;16", (3, 3))) is None


# --- arrays ----------------------------------------------------------------------------------


def test_arrays_are_bgr_unless_said() -> None:
    rgb = quarters()
    assert (to_frame(rgb[..., ::-1]).image_rgb == rgb).all()
    assert (to_frame(rgb, color_order="rgb").image_rgb == rgb).all()
    with pytest.raises(ImageError, match="color_order"):
        to_frame(rgb, color_order="grb")  # type: ignore[arg-type]


def test_a_frame_shares_no_memory_with_the_array() -> None:
    for array in (quarters(), np.zeros((4, 4), np.uint8), np.ones((4, 4, 4), np.uint8)):
        for order in ("rgb", "bgr"):
            frame = to_frame(array, color_order=order)
            assert not np.shares_memory(frame.image_rgb, array)
            assert frame.image_rgb.flags.c_contiguous
            assert frame.image_rgb.flags.writeable


def test_frames_come_back_and_names_are_kept(tmp_path: Path) -> None:
    frame = to_frame(quarters(), source_id="cam 1")
    assert frame.source_id == "cam 1"
    assert to_frame(frame) is frame
    assert to_frame(quarters()).source_id == "array"
    path = save(tmp_path / "x.png", quarters())
    assert to_frame(str(path)).source_id == str(path)
    assert to_frame(path, source_id="other").source_id == "other"


def test_scaling_to_8_bits() -> None:
    assert to_8_bits(np.array([[True, False]])).tolist() == [[255, 0]]
    unit = np.linspace(0, 1, 256).reshape(16, 16)
    assert (to_8_bits(unit).ravel() == np.arange(256)).all()
    # a dark picture in 0..1 stays dark
    assert to_8_bits(np.full((2, 2), 0.1, np.float32)).max() == round(0.1 * 255)
    eight_bits = np.arange(256).reshape(16, 16)
    for dtype in (np.int32, np.int64, np.uint32, np.float32, np.float64):
        assert (to_8_bits(eight_bits.astype(dtype)) == eight_bits).all()
    assert to_8_bits(np.full((3, 3), 700, np.uint16)).max() == 0


def test_the_largest_numbers_do_not_overflow() -> None:
    for dtype in (np.float16, np.float32, np.float64):
        top = np.finfo(dtype).max
        assert to_8_bits(np.array([[-top, 0, top]], dtype)).tolist() == [[0, 128, 255]]
    assert to_8_bits(np.array([[0, 2**64 - 1]], np.uint64)).tolist() == [[0, 255]]
    assert to_8_bits(np.array([[-(2**63), 2**63 - 1]], np.int64)).tolist() == [[0, 255]]


def test_a_12_bit_picture_with_a_hot_pixel_keeps_its_contrast() -> None:
    picture = np.linspace(100, 4000, 10_000).reshape(100, 100).astype(np.uint16)
    calm = to_8_bits(picture)
    picture[50, 50] = 65_535
    hot = to_8_bits(picture)
    assert np.abs(np.delete(hot, 50, 0).astype(int) - np.delete(calm, 50, 0)).max() <= 1
    assert (calm.min(), calm.max()) == (0, 255)
    # where nearly everything has one value, the extremes decide
    speck = np.zeros((100, 100), np.uint16)
    speck[3, 3] = 9
    assert to_8_bits(speck)[3, 3] == 255


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros((0, 5, 3), np.uint8), ["no pixels"]),
        (np.zeros((5, 0), np.uint8), ["no pixels"]),
        (np.zeros(5), ["(H, W)", "(5,)"]),
        (np.zeros((3, 40, 50)), ["moveaxis"]),
        (np.zeros((2, 40, 50, 3)), ["one picture at a time"]),
        (np.zeros((4, 4, 2)), ["(4, 4, 2)"]),
        (np.zeros((4, 4), object), ["object"]),
        (np.zeros((4, 4), complex), ["complex"]),
        (np.zeros((4, 4), "U3"), ["<U3"]),
        (np.zeros((4, 4), "M8[s]"), ["datetime"]),
        (np.full((4, 4), np.nan), ["NaN"]),
        (np.array([[1.0, np.inf]]), ["infinite"]),
        (np.dstack([np.zeros((2, 2, 3)), np.full((2, 2), np.nan)]), ["opacity"]),
    ],
)
def test_what_is_no_picture_is_refused(array: np.ndarray[Any, Any], words: list[str]) -> None:
    refused(lambda: to_frame(array), *words)


@pytest.mark.parametrize("thing", [None, 3, [[1, 2], [3, 4]], b"x", object()])
def test_other_types_are_refused(thing: object) -> None:
    refused(lambda: to_frame(thing), type(thing).__name__)


DTYPES = st.one_of(
    hnp.boolean_dtypes(), hnp.integer_dtypes(), hnp.unsigned_integer_dtypes(),
    hnp.floating_dtypes(), hnp.complex_number_dtypes(), hnp.datetime64_dtypes(),
    hnp.unicode_string_dtypes(),
)  # fmt: skip


@settings(max_examples=300)
@given(
    hnp.arrays(DTYPES, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5)),
    st.sampled_from(["bgr", "rgb"]),
)
def test_any_array_is_a_frame_or_an_image_error(array: np.ndarray[Any, Any], order: Any) -> None:
    before = array.copy()
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*transparent everywhere")
            frame = to_frame(array, color_order=order)
    except ImageError:
        frame = None
    assert array.tobytes() == before.tobytes()
    if frame is not None:
        assert frame.size_hw == array.shape[:2]
        assert frame.image_rgb.dtype == np.uint8


@settings(max_examples=200)
@given(
    hnp.arrays(
        st.sampled_from([np.uint16, np.int16, np.int64, np.float32, np.float64]),
        hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=8),
        elements=st.integers(-(2**14), 2**14 - 1).map(abs),
    )
)
def test_scaling_keeps_the_order_of_values(array: np.ndarray[Any, Any]) -> None:
    scaled = to_8_bits(array).ravel()[np.argsort(array, axis=None)].astype(int)
    assert (np.diff(scaled) >= 0).all()


# --- finding files ---------------------------------------------------------------------------


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in (
        "img10.png", "img2.png", "IMG3.JPG", "notes.txt", ".hidden.png",
        "b/1.tif", "a/10.webp", "a/9.webp", ".cache/x.png", "a/deep/z.bmp",
    ):  # fmt: skip
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x")
    return tmp_path


def names_of(found: list[str], root: Path) -> list[str]:
    return [Path(path).relative_to(root).as_posix() for path in found]


def test_a_folder_is_searched_in_natural_order_and_in_depth(tree: Path) -> None:
    want = ["a/9.webp", "a/10.webp", "a/deep/z.bmp", "b/1.tif", "img2.png", "IMG3.JPG", "img10.png"]
    assert names_of(find_images(tree), tree) == want


def test_patterns(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert names_of(find_images(f"{tree}/*.png"), tree) == ["img2.png", "img10.png"]
    assert names_of(find_images(f"{tree}/**/*.webp"), tree) == ["a/9.webp", "a/10.webp"]
    assert names_of(find_images(f"{tree}/*"), tree) == ["img2.png", "IMG3.JPG", "img10.png"]
    monkeypatch.chdir(tree)
    assert find_images("img[0-9]*.png") == ["img2.png", "img10.png"]
    assert find_images("./a") == ["./a/9.webp", "./a/10.webp", "./a/deep/z.bmp"]


def test_a_file_is_itself_even_with_pattern_characters(tree: Path) -> None:
    odd = tree / "cells[1]*.dat"
    odd.write_bytes(b"x")
    assert find_images(odd) == [str(odd)]
    assert find_images(tree / "notes.txt") == [str(tree / "notes.txt")]


def test_nothing_found_names_what_was_asked(tree: Path) -> None:
    (tree / "none").mkdir()
    refused(lambda: find_images(tree / "none"), "none", "no picture files")
    refused(lambda: find_images(f"{tree}/*.xyz"), "*.xyz", "nothing")
    refused(lambda: find_images(f"{tree}/*.txt"), "none a picture")
    refused(lambda: find_images(tree / "no.png"), "no.png", "does not exist")
    refused(lambda: find_images(""))
    refused(lambda: find_images("a\0b"))


def test_linked_folders_cannot_make_an_endless_search(tree: Path) -> None:
    (tree / "a" / "loop").symlink_to(tree)
    assert len(find_images(tree)) == 7


@given(st.lists(st.text(alphabet="ab01239²٣-_.", min_size=1, max_size=8), max_size=8))
def test_natural_order_takes_any_name(names: list[str]) -> None:
    assert sorted(sorted(names, key=natural_key)) == sorted(names)


def test_the_real_pictures_are_read(test_data_dir: Path) -> None:
    for path in find_images(test_data_dir / "nuts_dates" / "images"):
        assert min(load_image(path).size_hw) > 100


def test_a_folder_says_which_linked_ones_it_does_not_enter(tmp_path: Path) -> None:
    folder, other = tmp_path / "a", tmp_path / "b"
    for number, place in enumerate((folder, other)):
        place.mkdir()
        Image.new("RGB", (8, 8)).save(place / f"{number}.png")
    (folder / "more").symlink_to(other)
    (folder / "x.ico").write_bytes(b"\0")
    with pytest.warns(UserWarning, match="linked folders|passed over") as said:
        found = find_images(str(folder))
    assert [Path(path).name for path in found] == ["0.png"]
    texts = " ".join(str(each.message) for each in said)
    assert f"linked folders are not searched ({folder / 'more'}): give them as well" in texts
    assert "1 .ico" in texts
