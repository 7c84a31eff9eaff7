"""Formats of phones, microscopes and cameras: read, or named with the way out; and none of them
takes more memory than its picture has."""

from __future__ import annotations

import io
import subprocess
import sys
import threading
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pillow_heif
import pytest
import tifffile
from PIL import Image

from sam_detect.errors import ImageError
from sam_detect.io import (
    PlaneRanges,
    _readers,
    decoding,
    find_images,
    load_image,
    planes_of,
    to_frame,
)
from sam_detect.io.images import picture_size

HEIGHT, WIDTH = 60, 90
GREY = (np.indices((HEIGHT, WIDTH)).sum(0) % 200).astype(np.uint8)
PICTURE = Image.fromarray(np.dstack([GREY, GREY[::-1], GREY[:, ::-1]]))


def heic(path: Path, *others: Image.Image, primary: int = 0) -> None:
    """A HEIC of the picture, and of others behind it."""
    file = pillow_heif.from_pillow(PICTURE)
    for other in others:
        file.add_from_pillow(other)
    file.save(path, primary_index=primary)


def cut(path: Path, share: float) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])


def close_to(image_rgb: npt.NDArray[Any]) -> bool:
    return float(np.abs(image_rgb.astype(int) - np.asarray(PICTURE)).mean()) < 8


@contextmanager
def silent() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


# -- phones ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.HEIC", "a.heif", "a.hif", "a.jpg"])
def test_heic_is_read_whatever_its_ending(name: str, tmp_path: Path) -> None:
    Image.init()
    heic(tmp_path / name)
    before = set(Image.OPEN)
    with silent():
        frame = load_image(tmp_path / name)
    assert close_to(frame.image_rgb)
    assert picture_size(tmp_path / name) == (HEIGHT, WIDTH) == frame.size_hw
    assert set(Image.OPEN) == before, "Pillow belongs to the whole process"


@pytest.mark.parametrize("form", ["PNG", "AVIF", "JPEG"])
def test_a_picture_that_is_called_heic_is_read_as_what_it_is(form: str, tmp_path: Path) -> None:
    PICTURE.save(tmp_path / "a.heic", form)
    assert close_to(load_image(tmp_path / "a.heic").image_rgb)


def test_the_main_picture_of_a_heic_with_several_is_read(tmp_path: Path) -> None:
    heic(tmp_path / "a.heic", PICTURE.resize((30, 20)), primary=1)
    with pytest.warns(UserWarning, match="only frame 2 of 2 was read"):
        assert load_image(tmp_path / "a.heic").size_hw == (20, 30)


@pytest.mark.parametrize("ending", ["heic", "avif"])
def test_one_that_is_cut_off_is_damaged(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.{ending}"
    heic(path) if ending == "heic" else PICTURE.save(path)
    cut(path, 0.6)
    with pytest.raises(ImageError, match="damaged or cut off"):
        load_image(path)


def test_a_second_picture_behind_a_jpeg_is_no_warning(tmp_path: Path) -> None:
    """Depth, or light: MPO, or Ultra HDR."""
    small = PICTURE.resize((30, 20))
    PICTURE.save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=[small, small])
    with silent():
        frame = load_image(tmp_path / "a.jpg")
    assert frame.left_out == ""
    assert close_to(frame.image_rgb)


# -- folders -----------------------------------------------------------------------------------


def test_a_folder_says_which_pictures_it_passes_over(tmp_path: Path) -> None:
    for name in ("a.jpg", "b.CR2", "b2.cr2", "c.czi", "notes.txt", ".d.cr2"):
        (tmp_path / name).write_bytes(b"x")
    for argument in (tmp_path, f"{tmp_path}/*"):
        with pytest.warns(UserWarning, match=r"3 of 4 pictures .* \(2 \.cr2, 1 \.czi\)"):
            assert find_images(argument) == [str(tmp_path / "a.jpg")]
    (tmp_path / "a.jpg").unlink()
    with pytest.raises(ImageError, match=r"no picture files .*2 \.cr2, 1 \.czi cannot be read"):
        find_images(tmp_path)


def test_a_folder_with_nothing_else_says_nothing(tmp_path: Path) -> None:
    for ending in ("heic", "avif", "lsm", "svs", "qptiff", "btf", "JPG"):
        (tmp_path / f"a.{ending}").write_bytes(b"x")
    (tmp_path / "notes.txt").write_bytes(b"x")
    with silent():
        assert len(find_images(tmp_path)) == 7


@pytest.mark.parametrize("ending", ["lsm", "svs", "qptiff", "btf"])
def test_tiffs_of_microscopes_are_read_with_their_planes(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.{ending}"
    tifffile.imwrite(path, np.stack([GREY, GREY // 2]), bigtiff=ending == "btf",
                     compression="lzw", photometric="minisblack")  # fmt: skip
    with pytest.warns(UserWarning, match="only page 1 of 2 was read; detect reads others with --z"):
        first = load_image(path)
    assert (first.image_rgb[..., 0] == GREY).all()
    assert (planes_of(path, PlaneRanges(z="2"))[0].read().image_rgb[..., 0] == GREY // 2).all()


@pytest.mark.parametrize("ending", ["NEF", "dng", "arw"])
def test_the_thumbnail_of_a_raw_file_is_not_taken_for_the_picture(
    ending: str, tmp_path: Path
) -> None:
    tifffile.imwrite(tmp_path / f"a.{ending}", GREY, subfiletype=1)
    with pytest.raises(ImageError, match=f"a.{ending}.* is not a picture that can be read"):
        load_image(tmp_path / f"a.{ending}")


# -- TIFF --------------------------------------------------------------------------------------

CODECS = ("lzw", "zlib", "jpeg", "jpeg2000", "zstd", "lzma", "packbits", "png")


def page(path: Path, codec: str, dtype: str, predictor: bool) -> None:
    values = (GREY.astype(np.float64) * 100 + 7).astype(dtype) if dtype != "u1" else GREY
    tifffile.imwrite(path, np.stack([values, values]), compression=codec, predictor=predictor,
                     photometric="minisblack")  # fmt: skip


@pytest.mark.parametrize(
    ("codec", "dtype", "predictor"),
    [(codec, "u1", False) for codec in CODECS]
    + [(codec, dtype, True) for codec in ("lzw", "zlib", "zstd") for dtype in ("u2", "f4", "f8")],
)
def test_compressed_pages_are_the_same_with_and_without_z(
    codec: str, dtype: str, predictor: bool, tmp_path: Path
) -> None:
    pytest.importorskip("imagecodecs")
    page(tmp_path / "a.tif", codec, dtype, predictor)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        plain = load_image(tmp_path / "a.tif").image_rgb
    plane = planes_of(tmp_path / "a.tif", PlaneRanges(z="1"))[0].read().image_rgb
    assert np.abs(plain[..., 0].astype(int) - plane[..., 0]).max() <= 2
    assert plain.std() > 20


WITHOUT_CODECS = """
import sys
sys.modules["imagecodecs"] = None
from sam_detect.errors import ImageError
from sam_detect.io import (PlaneRanges, load_image, planes_of, to_frame)
for path in sys.argv[1:]:
    for read in (load_image, lambda path: planes_of(path, PlaneRanges(z="1"))[0].read()):
        try:
            print("read", int(read(path).image_rgb.max()))
        except ImageError as error:
            print(error)
"""


def without_codecs(*paths: Path) -> list[str]:
    """What reading each file plainly and as a plane gives in the base install."""
    command = [sys.executable, "-W", "ignore", "-c", WITHOUT_CODECS, *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    return done.stdout.splitlines()


def test_the_base_install_names_the_extra_and_shows_no_black_picture(tmp_path: Path) -> None:
    pytest.importorskip("imagecodecs")  # which writes them
    page(tmp_path / "lzw.tif", "lzw", "u1", False)
    page(tmp_path / "j2k.tif", "jpeg2000", "u1", False)
    page(tmp_path / "zstd.tif", "zstd", "f8", False)
    said = without_codecs(*(tmp_path / f"{name}.tif" for name in ("lzw", "j2k", "zstd")))
    assert said[0] == "read 148"
    for line in said[1:]:
        assert "pip install 'sam-detect[microscopy]'" in line


@pytest.mark.parametrize("lost", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
@pytest.mark.parametrize("channels", [1, 3])
def test_nan_reads_the_same_both_ways(
    lost: float, dtype: str, channels: int, tmp_path: Path
) -> None:
    values = (GREY / 40 - 2).astype(dtype)
    values[:20, :20] = lost
    options: dict[str, Any] = {"photometric": "rgb"} if channels == 3 else {}
    tifffile.imwrite(tmp_path / "a.tif", np.stack([values] * channels, -1).squeeze(), **options)
    count = 400 * channels
    with pytest.warns(UserWarning, match=f"a.tif: {count:,} of .* are NaN or infinite"):
        plain = load_image(tmp_path / "a.tif").image_rgb
    with pytest.warns(UserWarning, match=f"{count:,} of .* are NaN or infinite"):
        plane = planes_of(tmp_path / "a.tif", PlaneRanges())[0].read().image_rgb
    assert not plain[:20, :20].any()
    assert np.abs(plain.astype(int) - plane).max() <= 1


def test_a_picture_of_nan_alone_is_black(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.full((20, 30), np.nan, np.float32))
    with pytest.warns(UserWarning, match="600 of 600 values are NaN"):
        assert not load_image(tmp_path / "a.tif").image_rgb.any()


# -- transparency ------------------------------------------------------------------------------

CLEAR = np.dstack([np.asarray(PICTURE), np.zeros((HEIGHT, WIDTH), np.uint8)])


def invisible(path: Path) -> None:
    """The picture, transparent everywhere, in the format of the path's ending."""
    image = Image.fromarray(CLEAR)
    if path.suffix == ".tif":  # with 16 bits
        tifffile.imwrite(path, CLEAR.astype(np.uint16) * 257, photometric="rgb",
                         extrasamples=["unassalpha"])  # fmt: skip
    elif path.stem == "grey":
        image.convert("LA").save(path)
    elif path.stem == "palette":
        PICTURE.quantize(2).point(lambda _: 1).save(path, transparency=1)
    else:
        image.save(path, exact=True) if path.suffix == ".webp" else image.save(path)


@pytest.mark.parametrize("name", ["a.png", "a.webp", "a.tif", "grey.png", "palette.png"])
def test_a_picture_that_is_transparent_everywhere_says_so(name: str, tmp_path: Path) -> None:
    invisible(tmp_path / name)
    with pytest.warns(UserWarning, match=rf"{name}: the picture is transparent everywhere") as said:
        assert (load_image(tmp_path / name).image_rgb == 255).all()
    assert len(said) == 1


@pytest.mark.parametrize("image", [CLEAR, Image.fromarray(CLEAR)], ids=["array", "Pillow"])
def test_one_in_memory_says_so_too(image: Any) -> None:
    with pytest.warns(UserWarning, match="transparent everywhere"):
        to_frame(image)


@pytest.mark.parametrize("opacity", [1, 255])
def test_one_that_is_visible_in_a_pixel_says_nothing(opacity: int, tmp_path: Path) -> None:
    seen = CLEAR.copy()
    seen[-1, -1, 3] = opacity
    Image.fromarray(seen).save(tmp_path / "a.png")
    with silent():
        load_image(tmp_path / "a.png")
        to_frame(seen)


# -- limits ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ending", "options"),
    [("tif", {"compression": "tiff_lzw"}), ("tif", {}), ("webp", {}), ("gif", {}), ("png", {}),
     ("jpg", {}), ("jp2", {}), ("avif", {}), ("bmp", {})],
)  # fmt: skip
def test_the_projects_own_limit_counts_for_each_format(
    ending: str, options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pillow's is lower, and belongs to the process: it is there again afterwards."""
    PICTURE.save(tmp_path / f"a.{ending}", **options)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert load_image(tmp_path / f"a.{ending}").size_hw == (HEIGHT, WIDTH)
    with pytest.raises(ImageError, match="more than the limit of 1,000"):
        load_image(tmp_path / f"a.{ending}", max_pixels=1000)
    assert Image.MAX_IMAGE_PIXELS == 100


MORE = r"unpack to more|INSUFFICIENT_SPACE"


def encoded(form: str, side: int) -> bytes:
    data = io.BytesIO()
    Image.new("L", (side, side)).save(data, form)
    return data.getvalue()


def tiff_of(path: Path, codec: int, data: bytes, dtype: str) -> None:
    """A page of 20 x 20 whose one piece is the data."""
    tifffile.imwrite(path, np.zeros((20, 20), dtype), compression="zlib", photometric="minisblack")
    with tifffile.TiffFile(path, mode="r+") as file:
        tags = file.pages.first.tags
        tags["Compression"].overwrite(codec)
        file.filehandle.seek(0, 2)
        tags["StripOffsets"].overwrite((file.filehandle.tell(),))
        tags["StripByteCounts"].overwrite((len(data),))
        file.filehandle.seek(0, 2)
        file.filehandle.write(data)


@pytest.mark.parametrize(
    ("codec", "data"),
    [(7, lambda: encoded("JPEG", 2000)), (34712, lambda: encoded("JPEG2000", 2000)),
     (34933, lambda: encoded("PNG", 2000)), (8, lambda: zlib.compress(bytes(50_000_000)))],
)  # fmt: skip
@pytest.mark.parametrize("dtype", ["u1", "f8"])
def test_a_piece_of_a_tiff_that_unpacks_to_more_is_refused(
    codec: int, data: Callable[[], bytes], dtype: str, tmp_path: Path
) -> None:
    pytest.importorskip("imagecodecs")
    tiff_of(tmp_path / "a.tif", codec, data(), dtype)
    with pytest.raises(ImageError, match=MORE):
        planes_of(tmp_path / "a.tif", PlaneRanges())[0].values()
    if dtype == "f8":  # others are read by Pillow
        with pytest.raises(ImageError, match=MORE):
            load_image(tmp_path / "a.tif")


def test_the_base_install_refuses_it_too(tmp_path: Path) -> None:
    tiff_of(tmp_path / "a.tif", 8, zlib.compress(bytes(50_000_000)), "f8")
    for line in without_codecs(tmp_path / "a.tif"):
        assert "unpack to more than their part of the page" in line


def test_many_channels_are_refused_by_their_bytes(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((20, 20, 2), np.uint8), compression="zlib",
                     planarconfig="contig", photometric="minisblack")  # fmt: skip
    with tifffile.TiffFile(tmp_path / "a.tif", mode="r+") as file:
        tags = file.pages.first.tags
        tags["SamplesPerPixel"].overwrite(65_000)
        tags["ImageWidth"].overwrite(20_000)
        tags["ImageLength"].overwrite(20_000)
    with pytest.raises(ImageError, match="pixels of 65,000 bytes"):
        load_image(tmp_path / "a.tif")


def test_what_is_decoded_at_one_time_has_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_readers, "MOST_AT_ONCE_BYTES", 100)
    inside, most, lock = 0, 0, threading.Lock()
    two = threading.Barrier(2, timeout=60)

    def decode(needed: int) -> None:
        nonlocal inside, most
        with _readers.at_once(needed):
            with lock:
                inside += needed
                most = max(most, inside)
            if needed == 50:
                two.wait()  # both are inside
            with lock:
                inside -= needed

    for sizes in ((50, 50), (60, 60, 60, 60), (300, 20, 300)):
        most = 0
        threads = [threading.Thread(target=decode, args=(size,)) for size in sizes]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert most <= max(100, *sizes)
        assert not inside


def test_each_picture_counts_while_it_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    PICTURE.save(tmp_path / "a.png")
    counted: list[int] = []

    @contextmanager
    def at_once(needed: int) -> Iterator[None]:
        counted.append(needed)
        yield

    monkeypatch.setattr(decoding, "at_once", at_once)
    load_image(tmp_path / "a.png")
    assert counted == [4 * HEIGHT * WIDTH]


@pytest.mark.parametrize("bits", [8, 12, 16])
def test_tiffs_in_which_0_is_white_are_turned(tmp_path: Path, bits: int) -> None:
    """Values of 12 bits are in 16."""
    grey = np.full((60, 80), 200, np.uint8)
    grey[20:40, 30:50] = 60
    values = (grey.astype(np.int64) << (bits - 8)).astype(np.uint8 if bits == 8 else np.uint16)
    tifffile.imwrite(tmp_path / "black.tif", values)
    tifffile.imwrite(tmp_path / "white.tif", 2**bits - 1 - values, photometric="miniswhite")
    black, white = (load_image(tmp_path / f"{name}.tif").image_rgb for name in ("black", "white"))
    assert np.abs(black.astype(int) - white).max() <= 1
