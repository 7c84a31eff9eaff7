"""OME-Zarr: planes and channels by its own metadata; what is damaged or hostile is named."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from sam_detect.errors import ImageError
from sam_detect.io import Plane, PlaneRanges, find_images, load_image, planes_of
from sam_detect.types import PixelSize

zarr = pytest.importorskip("zarr", minversion="3")
numcodecs = pytest.importorskip("numcodecs")

AXES = ("t", "c", "z", "y", "x")


def numbered() -> npt.NDArray[np.uint8]:
    """``(T, C, Z, Y, X)``: 100 t + 10 z + c."""
    t, c, z = np.ogrid[:2, :3, :4]
    return np.broadcast_to((100 * t + 10 * z + c)[..., None, None], (2, 3, 4, 20, 30)).astype("u1")


def write(
    root: Path, values: npt.NDArray[Any], *, version: str = "0.4", axes: Any = AXES, **given: Any
) -> Path:
    """An OME-Zarr of one level in chunks of 16 x 16."""
    new = version == "0.5"
    array = zarr.create_array(
        root / "0", shape=values.shape, chunks=(*[1] * (values.ndim - 2), 16, 16),
        dtype=values.dtype, zarr_format=3 if new else 2, overwrite=True,
        config={"write_empty_chunks": True},
    )  # fmt: skip
    array[...] = values
    units = {"x": "nanometer", "y": "micrometer", "z": "micrometer"}
    scale = {"x": 250.0, "y": 0.5, "z": 2.0}
    notes: dict[str, Any] = {
        "multiscales": [{
            "version": version,
            "axes": [{"name": a, **({"unit": units[a]} if a in units else {})} for a in axes],
            "datasets": [{"path": "0", "coordinateTransformations": [
                {"type": "scale", "scale": [scale.get(a, 1.0) for a in axes]},
            ]}],
        }],
        "omero": {"channels": [{"label": n} for n in ("DAPI", "LAMP1", "TOM20")]},
        **given,
    }  # fmt: skip
    if new:
        group = {"zarr_format": 3, "node_type": "group", "attributes": {"ome": notes}}
        (root / "zarr.json").write_text(json.dumps(group))
    else:
        (root / ".zgroup").write_text('{"zarr_format": 2}')
        (root / ".zattrs").write_text(json.dumps(notes))
    return root


def change(root: Path, **given: Any) -> None:
    """Changes the metadata of the array (zarr 2)."""
    file = root / "0" / ".zarray"
    file.write_text(json.dumps({**json.loads(file.read_text()), **given}))


def repath(root: Path, path: str) -> None:
    notes = json.loads((root / ".zattrs").read_text())
    notes["multiscales"][0]["datasets"][0]["path"] = path
    (root / ".zattrs").write_text(json.dumps(notes))


@pytest.fixture
def stack(tmp_path: Path) -> Path:
    return write(tmp_path / "s.ome.zarr", numbered())


def selected(stack: Path, **ranges: str) -> list[Plane]:
    return planes_of(stack, PlaneRanges(**ranges))


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_the_planes_and_channels_that_are_asked_for(tmp_path: Path, version: str) -> None:
    root = write(tmp_path / "s.ome.zarr", numbered(), version=version)
    planes = selected(root, z="2-3", t="1, 2", channel="tom20")
    assert [each.location for each in planes] == [(0, 1, 0), (0, 2, 0), (0, 1, 1), (0, 2, 1)]
    frames = [each.read() for each in planes]
    assert [int(each.image_rgb[19, 29, 0]) for each in frames] == [12, 22, 112, 122]
    assert {each.size_hw for each in frames} == {(20, 30)}
    assert frames[0].pixel_size_um == PixelSize(0.25, 0.5, 2.0)
    with pytest.raises(ImageError, match=r"no channel 'GFP'.*1-3 \(DAPI, LAMP1, TOM20\)"):
        selected(root, channel="GFP")
    with pytest.raises(ImageError, match="asks for plane 5, the file has 4"):
        selected(root, z="5", channel="1")


def test_fewer_axes_and_those_of_old_versions(tmp_path: Path) -> None:
    flat = write(tmp_path / "a.zarr", numbered()[0, 1], axes=("z", "y", "x"))
    assert [int(each.read().image_rgb[0, 0, 0]) for each in selected(flat, z="1-4")] == [
        1, 11, 21, 31,
    ]  # fmt: skip
    old = write(tmp_path / "b.zarr", numbered())
    notes = json.loads((old / ".zattrs").read_text())
    del notes["multiscales"][0]["axes"]
    (old / ".zattrs").write_text(json.dumps(notes))
    (plane,) = selected(old, z="3", t="2", channel="1")
    assert int(plane.read().image_rgb[0, 0, 0]) == 120
    assert plane.pixel_size_um is None


def test_positions_of_bioformats2raw(tmp_path: Path) -> None:
    root = tmp_path / "s.zarr"
    for number in range(2):
        write(root / str(number), numbered() + np.uint8(number * 3))
    (root / ".zattrs").write_text('{"bioformats2raw.layout": 3}')
    (root / ".zgroup").write_text('{"zarr_format": 2}')
    planes = selected(root, xy="1-2", channel="1")
    assert [int(each.read().image_rgb[0, 0, 0]) for each in planes] == [0, 3]
    assert [each.location for each in planes] == [(0, 0, 0), (1, 0, 0)]


def test_it_is_a_picture_among_others(stack: Path) -> None:
    assert find_images(stack.parent) == [str(stack)] == find_images(stack)
    with pytest.warns(UserWarning, match=r"only z 1 of 4, t 1 of 2, channel 1 of 3 was read"):
        frame = load_image(stack)
    assert frame.size_hw == (20, 30)


def test_missing_chunks_are_named(stack: Path) -> None:
    (stack / "0" / "0.0.2.0.1").unlink()
    (plane,) = selected(stack, z="3", channel="1")
    with pytest.warns(UserWarning, match=r"z 3.*1 of 4 chunks are missing.*0/0\.0\.2\.0\.1\) and"):
        frame = plane.read()
    assert (int(frame.image_rgb[0, 0, 0]), int(frame.image_rgb[0, 29, 0])) == (20, 0)
    for file in (stack / "0").glob("0.0.2.*"):
        file.unlink()
    with pytest.raises(ImageError, match=r"z 3.*none of its 4 chunks is there.*0/0\.0\.2\.0\.0"):
        plane.read()


def test_a_damaged_chunk_is_named(stack: Path) -> None:
    file = stack / "0" / "0.0.1.0.0"
    file.write_bytes(file.read_bytes()[:9])
    (plane,) = selected(stack, z="2", channel="1")
    with pytest.raises(ImageError, match=r"\(xy 1, z 2, t 1\) is damaged"):
        plane.read()


@pytest.mark.parametrize("path", ["../other.zarr/0", "/etc", "0/../../other.zarr/0", "a\\b"])
def test_no_path_leads_out(stack: Path, path: str) -> None:
    write(stack.parent / "other.zarr", numbered())
    repath(stack, path)
    with pytest.raises(ImageError, match=r"names? the path .* which leads out of it"):
        selected(stack, z="1")


def test_no_link_leads_out(stack: Path, tmp_path: Path) -> None:
    other = write(tmp_path / "other.zarr", numbered())
    chunk = stack / "0" / "0.0.0.0.0"
    chunk.unlink()
    chunk.symlink_to(other / "0" / "0.0.0.0.0")
    (plane,) = selected(stack, z="1", channel="1")
    with pytest.raises(ImageError, match=r"0/0\.0\.0\.0\.0 is no file, or a link out"):
        plane.read()
    shutil.rmtree(stack / "0")
    (stack / "0").symlink_to(other / "0")
    with pytest.raises(ImageError, match="is a link out of the stack"):
        selected(stack, z="1", channel="1")


def test_a_pipe_instead_of_a_chunk_is_not_waited_for(stack: Path) -> None:
    chunk = stack / "0" / "0.0.0.0.0"
    chunk.unlink()
    os.mkfifo(chunk)
    (plane,) = selected(stack, z="1", channel="1")
    with pytest.raises(ImageError, match="is no file"):
        plane.read()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"filters": [{"id": "pickle"}]}, "the codec 'pickle' is not read"),
        ({"dtype": "|O"}, "values of type object, expected numbers"),
        ({"shape": [2, 3, 4, 10**6, 10**6]}, "more than the limit"),
        ({"shape": [2, 3, 4, -1, 20]}, "do not fit"),
        ({"shape": [4, 20, 30]}, "do not fit"),
        ({"chunks": [1, 1, 1, 10**6, 10**6]}, "chunks of more than 1024 MiB"),
        ({"chunks": "many"}, "cannot be read"),
        ({"dimension_separator": "/../"}, "dimension_separator is not"),
    ],
)
def test_hostile_arrays_are_refused(stack: Path, given: dict[str, Any], said: str) -> None:
    change(stack, **given)
    with pytest.raises(ImageError, match=said):
        selected(stack, z="1", channel="1")


@pytest.mark.parametrize(
    ("notes", "said"),
    [
        ({}, "it has no 'multiscales'"),
        ({"multiscales": []}, "'multiscales' lack"),
        ({"multiscales": [{"datasets": [{}]}]}, "'multiscales' lack 'path'"),
        ({"multiscales": [{"datasets": [{"path": "7"}]}]}, "has no array '7'"),
        ({"multiscales": [{"axes": ["y", "x"], "datasets": [{"path": "0"}]}]}, "axes YX do not"),
        ({"plate": {}}, "is a plate or a well: name a field"),
        ([], "is no JSON object"),
    ],
)
def test_metadata_that_say_nothing_are_named(stack: Path, notes: Any, said: str) -> None:
    (stack / ".zattrs").write_text(json.dumps(notes))
    with pytest.raises(ImageError, match=said):
        selected(stack, z="1", channel="1")


def test_two_descriptions_of_one_array_are_refused(stack: Path) -> None:
    other = write(stack.parent / "v3.zarr", numbered(), version="0.5")
    shutil.copy(other / "0" / "zarr.json", stack / "0" / "zarr.json")
    with pytest.raises(ImageError, match="of zarr 2 and of zarr 3"):
        selected(stack, z="1", channel="1")


PACKERS = ("zlib", "gzip", "bz2", "lzma", "zstd", "blosc", "lz4")


def packed(root: Path, packer: str, *chunks: bytes) -> None:
    """Packs the chunks of the first plane (of zarr 2) anew."""
    codec = numcodecs.get_codec({"id": packer})
    change(root, compressor={"id": packer}, filters=None)
    for place, content in zip(("0.0", "0.1", "1.0", "1.1"), chunks, strict=True):
        (root / "0" / f"0.0.0.{place}").write_bytes(codec.encode(content))


def refused(plane: Plane, said: str) -> None:
    """The plane is not read, and ``zarr`` not asked to unpack it."""

    def never(*_: Any, **__: Any) -> None:
        pytest.fail("zarr unpacks it")

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(zarr, "open_array", never)
        with pytest.raises(ImageError, match=said):
            plane.values()


@pytest.mark.parametrize("packer", PACKERS)
def test_chunks_of_each_packer_are_read(stack: Path, packer: str) -> None:
    packed(stack, packer, *[bytes([7, 9] * 128)] * 4)
    assert set(np.unique(selected(stack)[0].values())) == {7, 9}


@pytest.mark.parametrize("packer", PACKERS)
def test_a_chunk_that_unpacks_to_more_is_refused(stack: Path, packer: str) -> None:
    plane = selected(stack)[0]
    packed(stack, packer, *[bytes(256)] * 3, bytes(20_000_000))
    refused(plane, "is damaged")


def test_chunks_too_large_to_read_several_of_are_refused(stack: Path) -> None:
    plane = selected(stack)[0]
    change(stack, shape=[2, 3, 4, 20_000, 20_000], chunks=[1, 1, 4, 16_000, 16_000])
    refused(plane, "its chunks are too large")


def test_a_file_larger_than_its_chunk_is_refused(stack: Path) -> None:
    plane = selected(stack)[0]
    change(stack, compressor=None, filters=None)
    with (stack / "0" / "0.0.0.0.0").open("r+b") as file:
        file.truncate(10**10)  # with nothing in it: it takes no room on the disk
    refused(plane, "larger than it should be")


def test_chunks_packed_twice_are_refused(stack: Path) -> None:
    change(stack, filters=[{"id": "bz2", "level": 1}], compressor={"id": "zlib", "level": 1})
    with pytest.raises(ImageError, match="packed twice"):
        selected(stack)


def sharded(root: Path) -> Path:
    write(root, numbered(), version="0.5")
    shutil.rmtree(root / "0")
    array = zarr.create_array(
        root / "0", shape=(2, 3, 4, 20, 30), shards=(1, 1, 4, 32, 32), chunks=(1, 1, 2, 16, 16),
        dtype="u1", zarr_format=3, compressors=zarr.codecs.GzipCodec(),
    )  # fmt: skip
    array[...] = numbered()
    return root


def test_shards_are_read(tmp_path: Path) -> None:
    planes = selected(sharded(tmp_path / "s.zarr"), z="1-4", t="1-2")
    assert [int(plane.values()[0, 0, 0]) for plane in planes] == [
        100 * t + 10 * z for t in (0, 1) for z in range(4)
    ]


def test_a_shard_that_unpacks_to_more_is_refused(tmp_path: Path) -> None:
    root = sharded(tmp_path / "s.zarr")
    plane = selected(root)[0]
    shard = root / "0" / "c" / "0" / "0" / "0" / "0" / "0"
    table = shard.read_bytes()[-8 * 16 - 4 :]
    bomb = numcodecs.get_codec({"id": "gzip"}).encode(bytes(20_000_000))
    entry = np.array([0, len(bomb)], "<u8").tobytes()
    shard.write_bytes(bomb + table[:16] + entry + table[32:])
    refused(plane, "unpacks to more")


@pytest.mark.parametrize("name", ["0/.zarray", "0/.zattrs", "0/zarr.json", ".zattrs"])
def test_a_pipe_instead_of_metadata_is_not_waited_for(stack: Path, name: str) -> None:
    (stack / name).unlink(missing_ok=True)
    os.mkfifo(stack / name)
    with pytest.raises(ImageError):
        selected(stack)[0].values()
