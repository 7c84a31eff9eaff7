"""Large files: read tile by tile into a scratch file, with the pixels of a small one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image

from sam_detect.errors import ImageError
from sam_detect.io import decoding, load_image, pixels, tiff
from sam_detect.types import scratch
from sam_detect.types.scratch import is_scratch, release

COLOUR = np.random.default_rng(0).integers(0, 255, (310, 420, 3)).astype(np.uint8)
DEEP = np.random.default_rng(1).integers(0, 4000, (310, 420)).astype(np.uint16)


def count_as_large(monkeypatch: pytest.MonkeyPatch) -> None:
    """The files of these tests are large from now on."""
    for module in (decoding, pixels, tiff, scratch):
        if hasattr(module, "LARGE"):
            monkeypatch.setattr(module, "LARGE", 50_000)
    for module in (tiff, scratch):
        monkeypatch.setattr(module, "ROWS_BYTES", 10_000)


@pytest.fixture
def small_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    count_as_large(monkeypatch)


FORMS: list[tuple[Any, dict[str, Any]]] = [
    (COLOUR, {"tile": (64, 64), "photometric": "rgb"}),
    (COLOUR, {"rowsperstrip": 7, "photometric": "rgb", "compression": "zlib"}),
    (COLOUR[..., 0], {"tile": (32, 48)}),
    (DEEP, {"tile": (64, 64), "compression": "zlib"}),
    (np.moveaxis(COLOUR, -1, 0), {"tile": (64, 64), "photometric": "rgb",
                                  "planarconfig": "separate"}),
    (np.dstack([COLOUR, COLOUR[..., 0]]), {"tile": (64, 64), "photometric": "minisblack",
                                           "planarconfig": "contig"}),
    (COLOUR, {"tile": (64, 64), "photometric": "rgb", "compression": "lzw", "predictor": True}),
    (DEEP, {"tile": (64, 64), "compression": "zstd"}),
    (COLOUR, {"tile": (64, 64), "photometric": "rgb", "compression": "jpeg2000"}),
]  # fmt: skip


@pytest.mark.parametrize(("array", "form"), FORMS)
def test_tiles_and_strips_give_the_pixels_of_the_whole(
    array: Any, form: dict[str, Any], tmp_path: Path
) -> None:
    path = tmp_path / "scan.tif"
    tifffile.imwrite(path, array, **form)
    with pytest.MonkeyPatch.context() as patched:
        count_as_large(patched)
        large = load_image(path, max_pixels=20_000)
    plain = load_image(path)
    assert is_scratch(large.image_rgb)
    assert not is_scratch(plain.image_rgb)
    np.testing.assert_array_equal(large.image_rgb, plain.image_rgb)
    assert large.left_out == plain.left_out
    assert large.digest == plain.digest


@pytest.mark.usefixtures("small_is_large")
def test_a_large_png_is_decoded_into_a_scratch_file(tmp_path: Path) -> None:
    Image.fromarray(COLOUR).save(tmp_path / "scan.png")
    frame = load_image(tmp_path / "scan.png")
    assert is_scratch(frame.image_rgb)
    release(frame.image_rgb)
    np.testing.assert_array_equal(frame.image_rgb, COLOUR)


@pytest.mark.usefixtures("small_is_large")
@pytest.mark.parametrize("opaque_rows", [0, 1])
def test_a_large_picture_is_transparent_where_all_of_its_parts_are(
    opaque_rows: int, tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    opacity = np.zeros(COLOUR.shape[:2], np.uint8)
    opacity[200 : 200 + opaque_rows] = 255
    Image.fromarray(np.dstack([COLOUR, opacity])).save(tmp_path / "scan.png")
    assert is_scratch(load_image(tmp_path / "scan.png").image_rgb)
    said = ["transparent everywhere" in str(each.message) for each in recwarn]
    assert said == ([] if opaque_rows else [True])


def test_a_large_slide_in_jpeg_is_read_by_its_tiles(tmp_path: Path) -> None:
    """As an SVS: its tiles are YCbCr, and ``max_pixels`` is below the size of the slide."""
    smooth = cv2.GaussianBlur(COLOUR, (0, 0), 9)
    tifffile.imwrite(tmp_path / "a.svs", smooth, tile=(64, 64), photometric="rgb",
                     compression="jpeg")  # fmt: skip
    plain = load_image(tmp_path / "a.svs")
    with pytest.MonkeyPatch.context() as patched:
        count_as_large(patched)
        large = load_image(tmp_path / "a.svs", max_pixels=20_000)
    assert is_scratch(large.image_rgb)
    assert np.abs(large.image_rgb.astype(int) - plain.image_rgb).max() <= 6


@pytest.mark.usefixtures("small_is_large")
def test_a_truncated_large_tiff_is_refused(tmp_path: Path) -> None:
    whole, cut = tmp_path / "scan.tif", tmp_path / "cut.tif"
    tifffile.imwrite(whole, COLOUR, tile=(64, 64), photometric="rgb")
    cut.write_bytes(whole.read_bytes()[:-40_000])
    with pytest.raises(ImageError, match=r"cut.tif' is damaged or cut off .*copy or export"):
        load_image(cut)


@pytest.mark.usefixtures("small_is_large")
def test_what_tiles_cannot_bound_is_refused(tmp_path: Path) -> None:
    """One strip with all pixels, tiles above the limit, and other formats."""
    one, tiles = tmp_path / "one.tif", tmp_path / "tiles.tif"
    tifffile.imwrite(one, COLOUR, photometric="rgb", rowsperstrip=310)
    tifffile.imwrite(tiles, COLOUR, photometric="rgb", tile=(64, 64))
    Image.fromarray(COLOUR).save(tmp_path / "scan.png")
    for path, most in ((one, 20_000), (tiles, 4000), (tmp_path / "scan.png", 20_000)):
        with pytest.raises(ImageError, match="420x310 pixels, more than the limit"):
            load_image(path, max_pixels=most)
    assert load_image(tiles, max_pixels=4096).size_hw == (310, 420)


@pytest.mark.usefixtures("small_is_large")
def test_a_full_disk_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tifffile.imwrite(tmp_path / "scan.tif", COLOUR, tile=(64, 64), photometric="rgb")
    usage = scratch.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(scratch.shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(ImageError, match=r"needs 0.0 GB in .* TMPDIR"):
        load_image(tmp_path / "scan.tif")


@pytest.mark.parametrize("size_wh", [(210, 155), (105, 78), (100, 70), (420, 310), (53, 39)])
def test_a_large_picture_is_reduced_like_a_small_one(
    size_wh: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """But for what rounding to whole numbers moves, of a smooth picture."""
    smooth = cv2.GaussianBlur(COLOUR, (0, 0), 9)
    mapped = scratch.scratch(smooth.shape, np.uint8, "scan")
    mapped[...] = smooth
    monkeypatch.setattr(scratch, "ROWS_BYTES", 20_000)
    exact = cv2.resize(smooth, size_wh, interpolation=cv2.INTER_AREA)
    np.testing.assert_array_equal(scratch.reduced(smooth, size_wh), exact)
    found = scratch.reduced(mapped, size_wh)
    assert found.shape == exact.shape
    assert np.abs(found.astype(int) - exact).max() <= 4
