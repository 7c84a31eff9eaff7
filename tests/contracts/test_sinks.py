"""What every output format promises, checked for all that are registered."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sam_detect.errors import OutputError, one_line
from sam_detect.interfaces import Sink
from sam_detect.registry import load_class, names
from sam_detect.types import Classification, Detections, Frame, Masks, Neighbour

ANNOTATIONS = {
    "geojson": ".geojson",
    "imagej": ".zip",
    "labelme": ".json",
    "labelmap": ".tif",
    "nimbus": ".json",
}
"""With the ending of a file."""
PICTURES = {"overlay", *ANNOTATIONS}
"""Formats that write a file for each picture."""
FOLDERS = {"yolo"}
"""Formats that write a folder. It may not hold one of their outputs already."""
NEEDS_FILE = PICTURES | FOLDERS
ENDINGS = {"overlay": ".png", "coco": ".json", "counts": ".csv", "yolo": "", **ANNOTATIONS}

formats = pytest.mark.parametrize("name", names("format"))
file_formats = pytest.mark.parametrize("name", [n for n in names("format") if n not in FOLDERS])


def picture(source_id: str = "x.jpg", labels: tuple[str | None, ...] = ("nut", None)) -> Frame:
    rng = np.random.default_rng(len(labels))
    return Frame(rng.integers(0, 256, (48, 64, 3), np.uint8), source_id)


def found(source_id: str = "x.jpg", labels: tuple[str | None, ...] = ("nut", None)) -> Detections:
    crops = [np.ones((10, 12), np.bool_)] * len(labels)
    boxes = [(2 + 15 * i, 5 + 3 * i, 14 + 15 * i, 15 + 3 * i) for i in range(len(labels))]
    neighbours = (Neighbour("0a", "nut", 0.9),)
    return Detections(
        source_id=source_id,
        masks=Masks.from_crops(size_hw=(48, 64), boxes_xyxy=boxes, crops=crops),
        classifications=tuple(
            Classification(label, label or "nut", 0.75, neighbours) for label in labels
        ),
    )


def make(name: str, output: object, **options: object) -> Sink:
    sink = load_class("format", name)(output, **options)
    assert isinstance(sink, Sink)
    return sink


def write_one(name: str, path: Path) -> list[Path]:
    sink = make(name, path)
    sink.write(picture(), found())
    return sink.close()


def target(name: str, folder: Path, stem: str = "out") -> Path:
    return folder / (stem + ENDINGS.get(name, f".{name}"))


def visible(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


@formats
def test_one_picture_gives_the_file_that_was_named(name: str, tmp_path: Path) -> None:
    path = target(name, tmp_path / "made" / "for it")
    sink = make(name, path)
    sink.write(picture(), found())
    written = sink.close()
    assert written == [path] or (name in FOLDERS and all(path in each.parents for each in written))
    assert all(each.stat().st_size > 0 for each in written)
    assert visible(tmp_path) == sorted(str(each.relative_to(tmp_path)) for each in written)


@formats
def test_a_text_path_works_as_well(name: str, tmp_path: Path) -> None:
    sink = make(name, str(target(name, tmp_path)))
    sink.write(picture(), found())
    assert sink.close()[0].is_relative_to(target(name, tmp_path))


@formats
def test_several_pictures(name: str, tmp_path: Path) -> None:
    output = tmp_path / "out" if name in NEEDS_FILE else target(name, tmp_path)
    sources = [tmp_path / "in" / each for each in ("a/x.jpg", "b/x.png", "c/X.tif")]
    for source in sources:
        source.parent.mkdir(parents=True)
        Image.fromarray(picture().image_rgb).save(source)
    sink = make(name, output, multiple=True, inputs=sources)
    for source in sources:
        sink.write(picture(str(source)), found(str(source)))
    written = sink.close()
    assert len(written) == (3 if name in PICTURES else 9 if name in FOLDERS else 1)
    assert len({str(path).casefold() for path in written}) == len(written)
    outputs = [each for each in visible(tmp_path) if not each.startswith("in/")]
    assert outputs == sorted(str(path.relative_to(tmp_path)) for path in written)


@formats
def test_a_second_picture_needs_multiple(name: str, tmp_path: Path) -> None:
    sink = make(name, target(name, tmp_path))
    sink.write(picture(), found())
    with pytest.raises(OutputError, match="one picture"):
        sink.write(picture("y.jpg"), found("y.jpg"))


@formats
@pytest.mark.parametrize(
    "labels", [(), (None,), ("=1+1",), ('Nüsse, "große"\n細胞',), ("\ud800",), ("x" * 500,)]
)
def test_any_label_and_none_can_be_written(
    name: str, labels: tuple[str | None, ...], tmp_path: Path
) -> None:
    sink = make(name, target(name, tmp_path))
    sink.write(picture(labels=labels), found(labels=labels))
    assert sink.close()[0].stat().st_size > 0


@formats
def test_output_is_deterministic(name: str, tmp_path: Path) -> None:
    contents = []
    for stem in ("1", "2"):
        sink = make(name, target(name, tmp_path, stem))
        sink.write(picture(), found())
        contents.append([path.read_bytes() for path in sink.close()])
    assert contents[0] == contents[1]


@formats
def test_a_stream_gets_what_a_file_gets(name: str, tmp_path: Path) -> None:
    if name in NEEDS_FILE:
        with pytest.raises(OutputError, match="stdout"):
            make(name, None)
        return
    stream = io.StringIO()
    sinks = make(name, stream, multiple=True), make(name, target(name, tmp_path), multiple=True)
    for sink in sinks:
        for source_id in ("x.jpg", "ü.jpg"):
            sink.write(picture(source_id), found(source_id))
    assert sinks[0].close() == []
    assert sinks[1].close()[0].read_text(encoding="utf-8") == stream.getvalue()
    assert not stream.closed


@pytest.mark.parametrize("name", sorted(FOLDERS))
def test_a_folder_is_not_there_until_it_is_whole_and_is_not_written_to_twice(
    name: str, tmp_path: Path
) -> None:
    sink = make(name, target(name, tmp_path))
    sink.write(picture(), found())
    assert visible(tmp_path) == []
    before = {path: path.read_bytes() for path in sink.close()}
    with pytest.raises(OutputError, match="already"):
        make(name, target(name, tmp_path))
    assert before == {path: path.read_bytes() for path in before}


@pytest.mark.parametrize("name", sorted(FOLDERS))
def test_a_full_disk_leaves_no_half_of_a_folder(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="No space left") as caught:
        write_one(name, target(name, tmp_path))
    assert str(target(name, tmp_path)) in str(caught.value)
    assert visible(tmp_path) == []


@file_formats
def test_nothing_is_there_until_it_is_whole(name: str, tmp_path: Path) -> None:
    path = target(name, tmp_path)
    path.write_bytes(b"old")
    sink = make(name, path)
    assert path.read_bytes() == b"old"
    sink.write(picture(), found())
    if name not in NEEDS_FILE:  # a picture is whole when it is written
        assert path.read_bytes() == b"old"
    sink.close()
    assert path.read_bytes() != b"old"


@formats
def test_an_output_that_is_given_up_leaves_nothing(name: str, tmp_path: Path) -> None:
    sink = make(name, target(name, tmp_path))
    del sink
    assert visible(tmp_path) == []


@file_formats
def test_an_output_whose_one_picture_failed_leaves_the_old_file(name: str, tmp_path: Path) -> None:
    path = target(name, tmp_path)
    path.write_bytes(b"old")
    assert make(name, path).close() == []
    assert path.read_bytes() == b"old"
    assert visible(tmp_path) == [path.name]


@file_formats
def test_the_pictures_being_read_are_never_overwritten(name: str, tmp_path: Path) -> None:
    path = target(name, tmp_path)
    Image.fromarray(picture().image_rgb).save(path, format="PNG")
    before = path.read_bytes()
    (tmp_path / "link").symlink_to(path)

    def named_at_construction() -> None:
        make(name, path, inputs=[tmp_path / "link"]).write(picture(), found())

    def known_by_the_frame() -> None:
        make(name, path).write(picture(str(path)), found(str(path)))

    attempts: list[Callable[[], None]] = [named_at_construction, known_by_the_frame]
    for attempt in attempts:
        with pytest.raises(OutputError, match="being read") as caught:
            attempt()
        assert one_line(caught.value) == str(caught.value)
        assert path.read_bytes() == before


@formats
def test_what_cannot_be_written_is_one_line(name: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    (tmp_path / "folder" / "inside").mkdir(parents=True)
    for path in (target(name, tmp_path / "file"), target(name, tmp_path, "x" * 300)):
        with pytest.raises(OutputError) as caught:
            write_one(name, path)
        assert one_line(caught.value) == str(caught.value)
        assert str(path) in str(caught.value)
    assert visible(tmp_path) == ["file"]


@file_formats
def test_a_full_disk_is_one_line_and_leaves_the_old_file(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = target(name, tmp_path)
    path.write_bytes(b"old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="No space left") as caught:
        write_one(name, path)
    assert str(path) in str(caught.value)
    del caught  # its traceback holds the sink
    assert path.read_bytes() == b"old"
    assert visible(tmp_path) == [path.name]
