"""From ``detect`` into every format of annotations, and from each of them into ``learn``."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from cli_harness import DISCS, SQUARES, Command, box_around, in_this_process, saved
from PIL import Image

FILES = {
    "geojson": "found.geojson",
    "imagej": "found.zip",
    "labelme": "found.json",
    "labelmap": "found.tif",
    "nimbus": "found.json",
    "coco": "found.json",
    "json": "found.json",
}


@pytest.fixture
def sam(capfd: pytest.CaptureFixture[str]) -> Command:
    return in_this_process(capfd)


@pytest.fixture
def picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return saved(tmp_path / "shapes.png").relative_to(tmp_path)


def stats(sam: Command, library: str) -> dict[str, object]:
    told = json.loads(sam("library", "stats", "--library", library, "--json").worked().out)
    assert isinstance(told, dict)
    return told


@pytest.mark.parametrize("name", FILES)
def test_what_detect_writes_is_learnt(name: str, sam: Command, picture: Path) -> None:
    sam("learn", picture, "--label", "disc", "--box", box_around(*DISCS[0])).worked()
    found = sam("detect", picture, "--format", name, "--output", FILES[name], "--json").worked()
    count = sum(one["label"] == "disc" for one in json.loads(found.out)["detections"])
    assert count >= 3
    # The JSON of results has what is unknown, too: it has no tag.
    tag = ["--tag", "disc"]
    ran = sam("learn", picture, "--annotations", FILES[name], *tag, "--library", "again").worked()
    assert f"learnt {count} examples" in ran.err
    assert stats(sam, "again")["classes"] == {"disc": count}


def test_several_pictures_are_files_in_a_folder(sam: Command, picture: Path) -> None:
    saved(Path("other.png"))
    sam("learn", picture, "--label", "disc", "--box", box_around(*DISCS[0])).worked()
    pictures = (picture, "other.png")
    sam("detect", *pictures, "--format", "imagej", "--output", "rois").worked()
    assert sorted(path.name for path in Path("rois").iterdir()) == ["other.zip", "shapes.zip"]
    ran = sam("learn", *pictures, "--annotations", "rois", "--library", "again").worked()
    assert "learnt" in ran.err
    ran = sam("detect", *pictures, "--format", "geojson", "--output", "one.geojson")
    ran.failed("one.geojson", "expected a folder", code=1)


def test_a_yolo_dataset_is_learnt(sam: Command, picture: Path) -> None:
    Path("set/images").mkdir(parents=True)
    saved(Path("set/images/shapes.png"))
    sam("learn", picture, "--label", "disc", "--box", box_around(*DISCS[0])).worked()
    sam("detect", "set/images", "--format", "yolo", "--output", "set").worked()
    ran = sam("learn", "set/images", "--annotations", "set", "--library", "again").worked()
    rows = Path("set/labels/shapes.txt").read_text().splitlines()
    assert f"learnt {len(rows)} examples" in ran.err
    ran = sam("learn", picture, "--annotations", "set", "--library", "again")
    ran.failed("no annotation that can be used", code=1)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"names": ["disc", "square", "fig"]}, ("category 'fig'", "no object")),
        ({"val": "images/val"}, ("val: images/val", "passed over")),
        ({"test": ["images/test", "../test"]}, ("test: images/test", "passed over")),
        ({"val": "empty", "names": {"0": "disc", "7": "x"}}, ("val: empty", "passed over", "'x'")),
        ({"train": "gone"}, ("train: gone", "passed over")),
    ],
)
def test_what_a_yolo_dataset_does_not_have_is_said_and_is_no_failure(
    sam: Command,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    more: dict[str, Any],
    words: tuple[str, ...],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SAM_DETECT_HOME", str(tmp_path / "home"))
    Path("set/images").mkdir(parents=True)
    Path("set/empty").mkdir()
    saved(Path("set/images/shapes.png"))
    saved(Path("set/images/without.png"))
    box = [float(each) for each in box_around(*DISCS[0]).split(",")]
    x, y, w, h = box[0] + box[2] / 2, box[1] + box[3] / 2, box[2], box[3]
    width, height = Image.open("set/images/shapes.png").size
    Path("set/labels").mkdir()
    Path("set/labels/shapes.txt").write_text(f"0 {x / width} {y / height} {w / width} {h / height}")
    settings = {"names": ["disc"], "train": "images"} | more
    Path("set/data.yaml").write_text(json.dumps(settings))
    ran = sam("learn", "set/images", "--annotations", "set").worked()
    assert "learnt 1 example" in ran.err
    said = "\n".join(line for line in ran.err.splitlines() if line.startswith("warning: "))
    assert "without a label file, 1 in all" in said
    assert not [word for word in words if word not in said], said
    shutil.rmtree("set/images")
    sam("learn", ".", "--annotations", "set").failed(code=1)


def features(**tags: list[tuple[int, int]]) -> str:
    found = [
        {"type": "Feature", "geometry": {"type": "Point", "coordinates": [x, y]},
         "properties": {"classification": {"name": tag}}}
        for tag, centres in tags.items() for x, y in centres
    ]  # fmt: skip
    return json.dumps({"type": "FeatureCollection", "features": found})


def test_points_are_examples_and_a_negative_tag_says_what_is_not(
    sam: Command, picture: Path
) -> None:
    Path("shapes.geojson").write_text(features(disc=DISCS[:2], square=SQUARES[:1]))
    line = ("learn", picture, "--annotations", "shapes.geojson", "--tag", "disc")
    sam(*line, "--negative-tag", "square").worked()
    told = stats(sam, "default")
    assert told["classes"] == {"disc": 2}
    assert told["negatives"] == 1
    ran = sam("learn", picture, "--annotations", "shapes.geojson", "--negative-tag", "square")
    ran.failed("--negative-tag needs --tag", code=2)
    sam(*line, "--negative-tag", "fig").failed("no annotation with the tag 'fig'", code=1)


def test_an_annotation_of_another_plane_is_not_learnt_here(sam: Command, picture: Path) -> None:
    data = json.loads(features(disc=DISCS[:2]))
    data["features"][1]["geometry"]["plane"] = {"c": -1, "z": 3, "t": 0}
    Path("shapes.geojson").write_text(json.dumps(data))
    ran = sam("learn", picture, "--annotations", "shapes.geojson")
    assert "several planes of a stack" in ran.err
    assert "learnt 0 examples" in ran.err


def coco(name: str, polygon: list[int]) -> str:
    return json.dumps({
        "images": [{"id": 1, "file_name": name, "width": 10, "height": 10}],
        "categories": [{"id": 1, "name": "disc"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "segmentation": [polygon]}],
    })  # fmt: skip


@pytest.mark.parametrize("command", [("learn",), ("fewshot", "--tag", "disc")])
def test_why_no_annotation_is_of_a_given_picture_is_said(
    command: tuple[str, ...], sam: Command, picture: Path
) -> None:
    name, *tag = command
    for folder in ("a", "b"):
        Path(folder).mkdir()
        saved(Path(folder, "x.png"))
    triangle = [20, 20, 60, 20, 60, 60]
    Path("shared.json").write_text(coco("x.png", triangle))
    ran = sam(name, "a", "b", "--annotations", "shared.json", *tag)
    ran.failed("several pictures have this name", "a/x.png, b/x.png", "name the folder", code=1)
    Path("gone.json").write_text(coco("gone.png", triangle))
    ran = sam(name, picture, "--annotations", "gone.json", *tag)
    ran.failed("gone.png: annotated, but not among the pictures", code=1)
    Path("line.json").write_text(coco("shapes.png", triangle[:4]))
    ran = sam(name, picture, "--annotations", "line.json", *tag)
    ran.failed("line.json has no annotation that can be used", "at least 3 points", code=1)
    assert "among" not in ran.err
