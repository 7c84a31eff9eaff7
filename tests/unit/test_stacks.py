"""Files that hold more than the one picture that is read: it is said, and said of nothing else."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tifffile
from PIL import Image

from sam_detect import SAMDetect
from sam_detect.errors import MaskError
from sam_detect.evaluation.readers import open_dataset
from sam_detect.io import load_image, load_image_bytes
from sam_detect.io import tiff as tiff_module
from sam_detect.io.mask_files import read_masks
from sam_detect.vector_store import MemoryVectorStore

Write = Callable[[Path], None]


def values(*shape: int, dtype: Any = np.uint8) -> npt.NDArray[Any]:
    return np.random.default_rng(0).integers(0, 255, shape).astype(dtype)


def tiff(*shape: int, dtype: Any = np.uint8, **options: Any) -> Write:
    options.setdefault("photometric", "minisblack")
    return lambda path: tifffile.imwrite(path, values(*shape, dtype=dtype), **options)


def animation(path: Path) -> None:
    frames = [Image.fromarray(each) for each in values(3, 20, 30, 3)]
    frames[0].save(path, save_all=True, append_images=frames[1:])


def pyramid(path: Path) -> None:
    with tifffile.TiffWriter(path) as writer:
        writer.write(values(64, 64), subifds=1)
        writer.write(values(32, 32), subfiletype=1)
        writer.write(values(32, 32), subfiletype=1)


def with_preview(path: Path) -> None:
    with tifffile.TiffWriter(path) as writer:
        writer.write(values(64, 64))
        writer.write(values(16, 16))


NAMES = {"axes": "CYX", "Channel": {"Name": ["DAPI", "LAMP1", "TOM20"]}}
IN_PART: dict[str, tuple[Write, str]] = {
    "pages.tif": (tiff(3, 20, 30), "page 1 of 3"),
    "deep.tif": (tiff(3, 20, 30, dtype=np.uint16), "page 1 of 3"),
    "colour.tif": (tiff(4, 20, 30, 3, photometric="rgb"), "page 1 of 4"),
    "named.ome.tif": (tiff(3, 20, 30, metadata=NAMES), "channel 1 of 3 (DAPI, LAMP1, TOM20)"),
    "imagej.tif": (
        tiff(2, 3, 2, 20, 30, imagej=True, metadata={"axes": "TZCYX"}),
        "time point 1 of 2, slice 1 of 3, channel 1 of 2",
    ),
    "two.tif": (tiff(20, 30, 2, planarconfig="contig"), "channel 1 of 2"),
    "four.tif": (tiff(20, 30, 4, planarconfig="contig"), "channel 1 of 4"),
    "five.tif": (tiff(5, 20, 30, planarconfig="separate"), "channel 1 of 5"),
    "preview.tif": (with_preview, "picture 1 of 2"),
    "moving.gif": (animation, "frame 1 of 3"),
    "moving.webp": (animation, "frame 1 of 3"),
    "moving.png": (animation, "frame 1 of 3"),
}
WHOLE: dict[str, Write] = {
    "grey.tif": tiff(20, 30),
    "colour.tif": tiff(20, 30, 3, photometric="rgb"),
    "planes.tif": tiff(3, 20, 30, photometric="rgb", planarconfig="separate"),
    "opaque.tif": tiff(20, 30, 4, photometric="rgb", extrasamples=["unassalpha"]),
    "grey_opaque.tif": tiff(20, 30, 2, planarconfig="contig", extrasamples=["unassalpha"]),
    "levels.tif": pyramid,
    "one.ome.tif": tiff(20, 30, metadata={"axes": "YX"}),
    "still.gif": lambda path: Image.fromarray(values(20, 30)).save(path),
    "photo.jpg": lambda path: Image.fromarray(values(20, 30, 3)).save(path),
    "photo.png": lambda path: Image.fromarray(values(20, 30, 3)).save(path),
}


@pytest.mark.parametrize("name", IN_PART)
def test_what_is_left_out_of_a_file_is_said(tmp_path: Path, name: str) -> None:
    write, said = IN_PART[name]
    write(tmp_path / name)
    with pytest.warns(UserWarning, match="only") as caught:
        frame = load_image(tmp_path / name)
    assert said in frame.left_out
    assert [str(each.message) for each in caught if name in str(each.message)]
    with pytest.warns(UserWarning, match=r"^-: only"):
        assert load_image_bytes((tmp_path / name).read_bytes()).left_out == frame.left_out


@pytest.mark.parametrize("name", WHOLE)
def test_nothing_is_said_of_a_file_that_is_read_whole(tmp_path: Path, name: str) -> None:
    WHOLE[name](tmp_path / name)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load_image(tmp_path / name).left_out == ""


@pytest.mark.filterwarnings("ignore:.*was read")
def test_of_channels_the_first_is_read_and_not_taken_for_colours(tmp_path: Path) -> None:
    channels = values(20, 30, 4)
    for name, layout in (("contig", channels), ("separate", np.moveaxis(channels, -1, 0))):
        tifffile.imwrite(tmp_path / "x.tif", layout, photometric="minisblack", planarconfig=name)
        image = load_image(tmp_path / "x.tif").image_rgb
        assert (image == channels[..., :1]).all()


def test_detecting_warns_too(tmp_path: Path) -> None:
    IN_PART["pages.tif"][0](tmp_path / "x.tif")
    detector = SAMDetect(segmenter="naive", embedder="average", vector_store=MemoryVectorStore())
    with pytest.warns(UserWarning, match="page 1 of 3"):
        detector.detect(tmp_path / "x.tif")


def test_a_stack_of_masks_is_refused(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "m.tif", values(3, 20, 30), photometric="minisblack")
    with pytest.raises(MaskError, match=r"only page 1 of 3 was read") as caught:
        read_masks(tmp_path / "m.tif", (20, 30))
    assert "a file of its own" in str(caught.value)
    one = np.zeros((20, 30), np.uint8)
    one[2:8, 2:8], one[10:16, 15:25] = 1, 2
    tifffile.imwrite(tmp_path / "one.tif", one)
    assert len(read_masks(tmp_path / "one.tif", (20, 30))) == 2


def test_more_pages_than_anybody_counts_are_not_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiff_module, "MOST_PAGES", 5)
    tifffile.imwrite(tmp_path / "x.tif", values(7, 20, 30), photometric="minisblack")
    with pytest.warns(UserWarning, match="page 1 of more than 5"):
        load_image(tmp_path / "x.tif")


def test_no_file_that_a_tiff_names_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tifffile.imwrite(tmp_path / "other.tif", values(20, 30))
    xml = """<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image ID="Image:0">
    <Pixels DimensionOrder="XYCZT" ID="Pixels:0" SizeC="2" SizeT="1" SizeX="30" SizeY="20"
    SizeZ="1" Type="uint8"><TiffData FirstC="0" IFD="0" PlaneCount="1"/><TiffData FirstC="1" IFD="0"
    PlaneCount="1"><UUID FileName="other.tif">urn:uuid:1</UUID></TiffData></Pixels></Image></OME>"""
    tifffile.imwrite(tmp_path / "x.tif", values(20, 30), description=xml, metadata=None)
    opened: list[object] = []
    real = tifffile.FileHandle.__init__

    def noting(self: object, file: object, *arguments: Any, **options: Any) -> None:
        opened.append(file)
        real(self, file, *arguments, **options)

    monkeypatch.setattr(tifffile.FileHandle, "__init__", noting)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        load_image(tmp_path / "x.tif")
    assert opened
    assert not [each for each in opened if "other.tif" in str(getattr(each, "name", each))]


def label_map_of(pages: int) -> npt.NDArray[Any]:
    return np.stack([np.tril(np.ones((20, 30), np.uint16))] * pages)


@pytest.mark.parametrize(("pages", "said"), [(3, "and the same of its picture"), (1, "none such")])
def test_a_label_map_that_is_a_stack_belongs_to_such_a_picture(
    tmp_path: Path, pages: int, said: str
) -> None:
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    options: dict[str, Any] = {"photometric": "minisblack"}
    tifffile.imwrite(tmp_path / "images/a.tif", values(pages, 20, 30), **options)
    tifffile.imwrite(tmp_path / "masks/a.tif", label_map_of(3), **options)
    tifffile.imwrite(tmp_path / "images/b.tif", values(20, 30), **options)
    tifffile.imwrite(tmp_path / "masks/b.tif", label_map_of(1)[0], **options)
    dataset = open_dataset(tmp_path)
    [problem] = dataset.problems
    assert "masks/a.tif" in problem
    assert "page 1 of 3" in problem
    assert said in problem
    assert len(dataset.pictures) == (2 if pages == 3 else 1)
