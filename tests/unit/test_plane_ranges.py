"""Planes and channels of stacks: those that ranges select, with the file's own values."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tifffile

from sam_detect.errors import ConfigError, ImageError
from sam_detect.io import Plane, PlaneRanges, planes_at, planes_of, to_frame

GREY: Any = {"photometric": "minisblack"}
SHAPE = (2, 3, 4, 10, 12)  # T, Z, C, Y, X


def numbered(dtype: Any = np.uint8) -> npt.NDArray[Any]:
    """Every plane has one value, 100 t + 10 z + c, so that a person sees which one was read."""
    t, z, c = np.ogrid[:2, :3, :4]
    return np.broadcast_to((100 * t + 10 * z + c)[..., None, None], SHAPE).astype(dtype)


def ome(path: Path) -> None:
    names = {"axes": "TZCYX", "Channel": {"Name": ["DAPI", "LAMP1", "TOM20", "ER"]}}
    tifffile.imwrite(path, numbered(), metadata=names, ome=True, compression="zlib")


def imagej(path: Path) -> None:
    tifffile.imwrite(path, numbered(), imagej=True, metadata={"axes": "TZCYX"})


def contiguous(path: Path) -> None:
    """As ImageJ writes stacks of more than 4 GB: one page, and the values of all of them."""
    axes = {"axes": "TZCYX"}
    tifffile.imwrite(path, numbered(np.uint16), imagej=True, metadata=axes, truncate=True)


@pytest.mark.parametrize("write", [ome, imagej])
def test_the_planes_and_channels_that_are_asked_for(tmp_path: Path, write: Any) -> None:
    write(tmp_path / "s.ome.tif")
    planes = planes_of(tmp_path / "s.ome.tif", PlaneRanges(z="2-3", t="1, 2", channel="3"))
    assert [each.location for each in planes] == [(0, 1, 0), (0, 2, 0), (0, 1, 1), (0, 2, 1)]
    frames = [each.read() for each in planes]
    assert [int(each.image_rgb[0, 0, 0]) for each in frames] == [12, 22, 112, 122]
    assert all((each.image_rgb == each.image_rgb[0, 0, 0]).all() for each in frames)
    assert [each.location for each in frames] == [each.location for each in planes]
    assert to_frame(planes[1]).source_id == str(tmp_path / "s.ome.tif")


def test_values_that_lie_behind_each_other_without_pages(tmp_path: Path) -> None:
    contiguous(tmp_path / "s.tif")
    planes = planes_of(tmp_path / "s.tif", PlaneRanges(z="1-3", t="1-2", channel="4"))
    shown = [int(each.read().image_rgb[5, 5, 1]) for each in planes]
    values = np.array([3, 13, 23, 103, 113, 123])
    assert shown == np.rint(255 * (values - 3) / 120).astype(int).tolist()


def test_one_contrast_for_all_planes_and_several_channels_blended(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "s.ome.tif", 100 * numbered(np.uint16), metadata={"axes": "TZCYX"})
    path = tmp_path / "s.ome.tif"
    planes = planes_of(path, PlaneRanges(z="1-3", t="1-2", channel="2,1"))
    colours = [each.read().image_rgb[0, 0, 0].tolist() for each in planes]
    values = np.array([1, 11, 21, 101, 111, 121])
    assert colours == np.rint(255 * (values - 1) / 120).astype(int).tolist()
    # Whatever is selected, the same plane looks the same: what is learnt of one fits the others.
    (alone,) = planes_of(path, PlaneRanges(z="2", channel="2,1"))
    (there,) = planes_at(path, [(0, 1, 0)], channel="2,1")
    for each in (alone, there):
        assert each.read().image_rgb[0, 0].tolist() == [21, 21, 0]


def test_planes_at_locations_that_are_not_there_are_named(tmp_path: Path) -> None:
    ome(tmp_path / "s.ome.tif")
    with pytest.raises(ImageError, match=r"xy 1, z 4, t 1.*no such plane, the file has 1 XY, 3 Z"):
        planes_at(tmp_path / "s.ome.tif", [(0, 3, 0)])
    with pytest.raises(ImageError, match=r"xy 2, z 1, t 1.*no such plane, the file has 1 XY"):
        planes_at(tmp_path / "s.ome.tif", [(1, 0, 0)])


def test_channels_by_name(tmp_path: Path) -> None:
    ome(tmp_path / "s.ome.tif")
    (plane,) = planes_of(tmp_path / "s.ome.tif", PlaneRanges(channel="tom20"))
    assert plane.read().image_rgb[0, 0].tolist() == [2, 2, 2]
    with pytest.raises(ImageError, match=r"no channel 'GFP'.*1-4 \(DAPI, LAMP1, TOM20, ER\)"):
        planes_of(tmp_path / "s.ome.tif", PlaneRanges(channel="GFP"))
    with pytest.warns(UserWarning, match="only channel 1 of 4 is read; --channel"):
        planes_of(tmp_path / "s.ome.tif", PlaneRanges(z="1"))


def test_a_colour_and_a_contrast_may_follow_a_channel(tmp_path: Path) -> None:
    ome(tmp_path / "s.ome.tif")  # channel c of plane z at t has the value 100 t + 10 z + c

    def shown(channel: str) -> list[int]:
        (plane,) = planes_of(tmp_path / "s.ome.tif", PlaneRanges(z="2", t="2", channel=channel))
        return plane.read().image_rgb[0, 0].tolist()

    assert shown("dapi") == [110, 110, 110]
    assert shown("dapi:green") == [0, 110, 0]
    assert shown("dapi : #ff8000") == [110, 55, 0]
    assert shown("dapi:100-120") == shown("dapi:100-120:grey") == [128, 128, 128]
    assert shown("1:blue:100-120, LAMP1:red, 3") == [111, 0, 140 + 100]
    assert shown("1:1.1e2-1e9") == [0, 0, 0]


def test_a_contrast_of_percentiles_is_that_of_the_file(tmp_path: Path) -> None:
    ramps = np.arange(101, dtype=np.uint16).reshape(1, 101).repeat(9, axis=0)
    tifffile.imwrite(tmp_path / "s.tif", np.stack([ramps, 10 + ramps]), photometric="minisblack")
    lowest_and_highest = {"1:20%-80%": (20, 90), "1:50-80%": (50, 90), "1:0%-100%": (0, 110)}
    for channel, (low, high) in lowest_and_highest.items():
        (plane,) = planes_of(tmp_path / "s.tif", PlaneRanges(z="1", channel=channel))
        expected = np.rint(255 * np.clip((np.arange(101) - low) / (high - low), 0, 1))
        assert np.abs(plane.read().image_rgb[0, :, 0] - expected).max() <= 1


def test_names_with_colons_stay_names(tmp_path: Path) -> None:
    names = {"axes": "CYX", "Channel": {"Name": ["a:red", "a"]}}
    values = np.stack([np.full((8, 9), value, np.uint8) for value in (3, 200)])
    tifffile.imwrite(tmp_path / "s.ome.tif", values, metadata=names, ome=True)
    for channel, colour in {
        "a:red": [3] * 3,
        "a:blue": [0, 0, 200],
        "A:Red:blue": [0, 0, 3],
    }.items():
        (plane,) = planes_of(tmp_path / "s.ome.tif", PlaneRanges(channel=channel))
        assert plane.read().image_rgb[0, 0].tolist() == colour


@pytest.mark.parametrize(
    ("channel", "error", "said"),
    [
        (
            "1:purple",
            ImageError,
            r"no channel '1:purple'.*a colour \(red, green.*as in 1:green:100",
        ),
        ("1:red:green", ImageError, "no channel '1:red:green'"),
        ("9:red", ImageError, "no channel '9:red', the file has channels 1-4"),
        (":red", ImageError, "no channel ':red'"),
        ("1:200-100", ConfigError, "the first limit of a contrast is below the second"),
        ("1:5%-5%", ConfigError, "the first limit of a contrast is below the second"),
        ("1:0-1e999", ConfigError, "the first limit of a contrast is below the second"),
        ("1:1%-101%", ConfigError, "percentiles lie between 0% and 100%"),
    ],
)
def test_what_is_no_colour_or_contrast_is_said(
    tmp_path: Path, channel: str, error: type[Exception], said: str
) -> None:
    ome(tmp_path / "s.ome.tif")
    with pytest.raises(error, match=said):
        planes_of(tmp_path / "s.ome.tif", PlaneRanges(channel=channel))


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (np.full((8, 10), 7, np.uint16), "all its pixels have the value 7, so nothing"),
        (np.full((8, 10), 0.5, np.float32), r"all its pixels have the value 0\.5"),
        (np.full((8, 10), np.nan, np.float32), "80 of 80 values are NaN or infinite"),
        (np.where(np.eye(8, 10), np.nan, np.arange(80.0).reshape(8, 10)), "8 of 80 values are NaN"),
        (np.minimum(np.arange(80) * 60, 4095).reshape(8, 10).astype(np.uint16),
         r"14% of its values are saturated \(4095\)"),
        (np.minimum(np.arange(80) * 4, 255).reshape(8, 10).astype(np.uint8),
         r"20% of its values are saturated \(255\)"),
    ],
)  # fmt: skip
def test_values_that_show_nothing_are_named(
    tmp_path: Path, values: npt.NDArray[Any], said: str
) -> None:
    tifffile.imwrite(tmp_path / "s.tif", np.stack([values] * 2), photometric="minisblack")
    (plane,) = planes_of(tmp_path / "s.tif", PlaneRanges(z="2"))
    with pytest.warns(UserWarning, match=rf"\(xy 1, z 2, t 1\): {said}"):
        plane.read()


@pytest.mark.filterwarnings("error")
def test_values_that_show_something_are_not(tmp_path: Path) -> None:
    values = np.arange(80, dtype=np.uint16).reshape(8, 10)
    bright = np.minimum(values * 55, 4095)  # five pixels in eighty at the camera's limit
    for number, each in enumerate((values, bright, values / 80)):
        path = tmp_path / f"{number}.tif"
        tifffile.imwrite(path, np.stack([each] * 2), photometric="minisblack")
        planes_of(path, PlaneRanges(z="2"))[0].read()


@pytest.mark.parametrize("values", [np.nan, 7.0], ids=["all NaN", "constant"])
def test_float_planes_without_contrast_are_black(tmp_path: Path, values: float) -> None:
    tifffile.imwrite(
        tmp_path / "s.tif", np.full((3, 8, 9), values, np.float32), photometric="minisblack"
    )
    planes = planes_of(tmp_path / "s.tif", PlaneRanges(z="1-3"))
    assert not any(each.read().image_rgb.any() for each in planes)


def test_nan_and_infinity_are_black(tmp_path: Path) -> None:
    stack = np.tile(np.linspace(0, 1, 9, dtype=np.float32), (2, 8, 1))
    stack[0, 0, 8], stack[0, 1, 8] = np.nan, np.inf
    tifffile.imwrite(tmp_path / "s.tif", stack, photometric="minisblack")
    frame = planes_of(tmp_path / "s.tif", PlaneRanges(z="1-2"))[0].read()
    assert frame.image_rgb[:3, 8, 0].tolist() == [0, 0, 255]


def test_planes_of_colours_stay_colours(tmp_path: Path) -> None:
    stack = np.zeros((2, 8, 9, 3), np.uint8)
    stack[1] = 200, 100, 50
    tifffile.imwrite(tmp_path / "s.tif", stack, photometric="rgb")
    plane = planes_of(tmp_path / "s.tif", PlaneRanges(z="2"))[0]
    assert plane.read().image_rgb[3, 3].tolist() == [200, 100, 50]


@pytest.mark.parametrize("text", ["", "0", "3-2", "1-", "a", "1;2", "-1", "1,,2", "²"])
def test_what_is_no_range_is_a_usage_error(text: str) -> None:
    with pytest.raises(ConfigError, match="expected numbers and ranges from 1"):
        PlaneRanges(z=text)


def test_ranges_outside_the_stack_say_how_many_planes_it_has(tmp_path: Path) -> None:
    ome(tmp_path / "s.ome.tif")
    for ranges in (PlaneRanges(z="2-4"), PlaneRanges(t="999999999"), PlaneRanges(xy="2")):
        with pytest.raises(ImageError, match=r"the file has \d \(1-\d\)"):
            planes_of(tmp_path / "s.ome.tif", ranges)


XML = (
    '<?xml version="1.0"?>{}<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image '
    'ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYCZT" Type="uint8" SizeX="12" SizeY="10" '
    'SizeC="1" SizeZ="{}" SizeT="1"><TiffData IFD="0"/></Pixels></Image></OME>'
)


MANY = "declares more than 1,000,000 planes"


@pytest.mark.parametrize(
    ("xml", "said"),
    [
        (XML.format('<!DOCTYPE x [<!ENTITY a "b">]>', 2), "defines entities"),
        (XML.format("", 10**10), MANY),
        (XML.format("", 3), "page 2 is missing"),
        *[(XML.format("", number), MANY) for number in (
            "&#51;00000000", "&#x663;00000000", "+300000000", "3_0000_0000", " 300000000 ",
            "-300000000",
        )],
        *[(XML.format("", 1).replace(*change), MANY) for change in (
            ('<TiffData IFD="0"/>', '<TiffData PlaneCount="&#51;00000000"/>'),
            ('<TiffData IFD="0"/>', '<TiffData NumPlanes="300000000"/>'),
            ('SizeX="12"', 'SizeX="12000000000"'),
            ("</Image>", "</Image>" + '<Pixels SizeX="12" SizeY="10" SizeZ="900000"/>' * 2),
            ("</OME>", '<A><ModuloAlongT Start="0" End="3e9"/></A></OME>'),
            ("</OME>", '<A><ModuloAlongT Start="0" End="3" Step="1e-9"/></A></OME>'),
        )],
    ],
)  # fmt: skip
def test_hostile_and_incomplete_metadata_is_refused(tmp_path: Path, xml: str, said: str) -> None:
    tifffile.imwrite(tmp_path / "s.ome.tif", numbered()[0, 0, 0], description=xml, metadata=None)
    with pytest.raises(ImageError, match=said):
        planes_of(tmp_path / "s.ome.tif", PlaneRanges(z="1-2"))


def test_a_truncated_stack_names_the_plane(tmp_path: Path) -> None:
    contiguous(tmp_path / "s.tif")
    planes = planes_of(tmp_path / "s.tif", PlaneRanges(z="1-3", t="1-2", channel="4"))
    data = (tmp_path / "s.tif").read_bytes()
    (tmp_path / "s.tif").write_bytes(data[:-100])
    assert planes[0].read().size_hw == (10, 12)
    with pytest.raises(ImageError, match=r"\(xy 1, z 3, t 2\) is cut off"):
        planes[-1].read()
    with pytest.raises(ImageError, match="is cut off: 1 of its 24 planes is there"):
        planes_of(tmp_path / "s.tif", PlaneRanges(z="1-3"))


def test_too_large_planes_are_refused_before_they_are_decoded(tmp_path: Path) -> None:
    ome(tmp_path / "s.ome.tif")
    with pytest.raises(ImageError, match="more than the limit of 100"):
        planes_of(tmp_path / "s.ome.tif", PlaneRanges(channel="1"), max_pixels=100)


def test_what_is_no_tiff_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(ImageError, match="is no TIFF"):
        planes_of(tmp_path / "x.png", PlaneRanges(z="1"))


def test_only_one_plane_is_in_memory(tmp_path: Path) -> None:
    count, side = 200, 256
    stack = np.zeros((count, side, side), np.uint16)
    tifffile.imwrite(tmp_path / "s.ome.tif", stack, metadata={"axes": "ZYX"})
    del stack
    tracemalloc.start()
    planes: list[Plane] = planes_of(tmp_path / "s.ome.tif", PlaneRanges(z=f"1-{count}"))
    for each in planes:
        each.read()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < count * side * side * 2 / 4
