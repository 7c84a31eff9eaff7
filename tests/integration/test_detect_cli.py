"""What `detect` shows, which library it reads, and in which recipe."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from cli_harness import (
    DISCS,
    SQUARES,
    Command,
    at,
    box_around,
    box_of_square,
    drawn,
    in_this_process,
    saved,
)
from PIL import Image


@pytest.fixture
def sam(capfd: pytest.CaptureFixture[str]) -> Command:
    return in_this_process(capfd)


@pytest.fixture
def picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A picture in the working directory, and `other.png` beside it."""
    monkeypatch.chdir(tmp_path)
    saved(tmp_path / "other.png", drawn([(50, 60), (150, 70), (220, 140)], [(70, 150)], seed=1))
    saved(tmp_path / "shapes.png")
    return "shapes.png"


@pytest.fixture
def taught(sam: Command, picture: str) -> str:
    """The picture, two of whose discs and whose square the library `shapes` knows."""
    discs = [word for place in DISCS[:2] for word in ("--box", box_around(*place))]
    sam("learn", picture, "--library", "shapes", "--label", "disc", *discs).worked()
    square = ("--box", box_of_square(*SQUARES[0]))
    sam("learn", picture, "--library", "shapes", "--label", "square", *square).worked()
    return picture


# A library that does not exist


@pytest.mark.parametrize(
    "command",
    [
        ("detect", "other.png"), ("detect", "other.png", "--json"),
        ("detect", "other.png", "--label", "widget"), ("detect", "gone.png"),
        ("video", "other.png"),
        ("library", "list"), ("library", "show"), ("library", "show", "12345678"),
        ("library", "stats"), ("library", "export", "x.zip"), ("library", "rename", "disc", "ring"),
        ("library", "remove", "--label", "disc"), ("library", "reindex"),
        ("library", "push", "--to-url", "http://localhost:1"),
    ],
)  # fmt: skip
def test_a_mistyped_library_is_named_with_the_nearest(
    command: tuple[str, ...], sam: Command, taught: str
) -> None:
    ran = sam(*command, "--library", "shaeps")
    line = ran.failed("no library 'shaeps'", "did you mean 'shapes'?", code=2)
    assert "sam-detect learn" in line
    assert ran.out == ""
    assert "shaeps" not in sam("library", "list").worked().out


def test_a_library_that_resembles_none_is_named_with_those_that_there_are(
    sam: Command, taught: str
) -> None:
    line = sam("other.png", "--library", "bolts").failed("no library 'bolts'", code=2)
    assert "there are: shapes" in line
    assert "did you mean" not in line
    sam("library", "stats").failed("no library 'default'", "there are: shapes", code=2)


def test_without_a_name_other_libraries_are_named(sam: Command, taught: str) -> None:
    [line] = [each for each in sam(taught).worked().err.splitlines() if "--library NAME" in each]
    assert "there are: shapes" in line
    assert "--library NAME" not in sam(taught, "--library", "shapes").worked().err
    assert "--library NAME" not in sam(taught, "--store", "memory").worked().err


def test_the_name_may_come_from_the_environment(
    sam: Command, taught: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SAM_DETECT_LIBRARY", "Shape")
    sam("other.png").failed("no library 'Shape'", "did you mean 'shapes'?", code=2)


def test_the_default_library_need_not_exist(sam: Command, picture: str) -> None:
    assert "sam-detect learn shapes.png" in sam(picture).worked().out
    assert sam(picture, "--label", "widget").worked()
    assert sam(picture, "--library", "mine", "--store", "memory").worked()


def test_learning_says_that_a_library_is_new(sam: Command, picture: str) -> None:
    learn = ("learn", picture, "--label", "disc", "--box", box_around(*DISCS[0]), "--library")
    assert "; new library 'shapes' has 1\n" in sam(*learn, "shapes").worked().err
    assert "; library 'shapes' has 1\n" in sam(*learn, "shapes").worked().err
    typo = sam(*learn, "shaeps").worked().err
    assert "; new library 'shaeps' (there is also 'shapes') has 1\n" in typo


# --only and --unknown


def test_only_is_a_filter_on_every_output(sam: Command, taught: str) -> None:
    place = ("--library", "shapes")
    everything = sam(taught, *place, "--json").worked().json[0]["detections"]
    assert {each["label"] for each in everything} == {"disc", "square", None}
    discs = [each for each in everything if each["label"] == "disc"]

    only = (*place, "--only", "disc")
    assert sam(taught, *only, "--json").worked().json[0]["detections"] == discs
    sam(taught, *only, "--output", "found.csv").worked()
    with Path("found.csv").open() as table:
        assert [row["label"] for row in csv.DictReader(table)] == ["disc"] * len(discs)
    sam(taught, *only, "--output", "found.json", "--format", "coco").worked()
    assert len(json.loads(Path("found.json").read_text())["annotations"]) == len(discs)
    said = sam(taught, *only).worked().out
    assert said.splitlines()[0] == f"{taught}: {len(discs)} disc"
    assert not any(line.strip().startswith(("square", "unknown")) for line in said.splitlines())

    several = sam(taught, *place, "--only", "disc,square", "--json").worked()
    repeated = sam(taught, *place, "--only", "disc", "--only", " square", "--json").worked()
    named = [each for each in everything if each["label"] is not None]
    assert several.json[0]["detections"] == repeated.json[0]["detections"] == named
    also = sam(taught, *only, "--unknown", "--json").worked().json[0]["detections"]
    assert also == [each for each in everything if each["label"] != "square"]


def test_only_takes_labels_that_there_are(sam: Command, taught: str) -> None:
    ran = sam(taught, "--library", "shapes", "--only", "disc,discs")
    ran.failed("no label 'discs'", "it has: disc, square", code=2)
    assert ran.out == ""
    sam(taught, "--library", "shapes", "--only", "disc,").failed("--only", "visible", code=2)
    sam(taught, "--only", "disc").failed("no label 'disc'", "it has: none", code=2)
    sam("library", "rename", "disc", "ring, flat", "--library", "shapes").worked()
    ran = sam(taught, "--library", "shapes", "--only", "ring, flat", "--json").worked()
    assert {each["label"] for each in ran.json[0]["detections"]} == {"ring, flat"}


def test_unknown_objects_are_shown_where_that_is_asked_for(sam: Command, taught: str) -> None:
    place = ("--library", "shapes")
    assert "unknown" not in sam(taught, *place).worked().out.split("unknown\n", 1)[1]
    said = sam(taught, *place, "--unknown").worked().out
    found = sam(taught, *place, "--json", "--unknown").worked().json[0]["detections"]
    assert found == sam(taught, *place, "--json").worked().json[0]["detections"]
    rows = [line for line in said.splitlines() if line.strip().startswith("unknown")]
    assert len(rows) == sum(each["label"] is None for each in found) > 0

    sam(taught, *place, "--output", "named.png").worked()
    sam(taught, *place, "--output", "all.png", "--unknown").worked()
    pictures = [np.asarray(Image.open(name)) for name in ("named.png", "all.png")]
    assert (pictures[0] != pictures[1]).any()


def test_unknown_objects_of_a_first_picture_have_boxes_to_teach(sam: Command, picture: str) -> None:
    said = sam(picture, "--unknown").worked().out
    x, y = DISCS[0]
    assert f" {x - 19},{y - 19},39,39" in said
    assert "Teach it" in said


def test_an_emptied_library_is_named_in_the_command_that_teaches_it(
    sam: Command, taught: str
) -> None:
    for label in ("disc", "square"):
        sam("library", "remove", "--label", label, "--library", "shapes").worked()
    said = sam(taught, "--library", "shapes").worked().out
    assert said.endswith(
        "sam-detect learn shapes.png --label NAME --box x,y,w,h --library shapes\n"
    )


# --label: examples of this run


def test_label_takes_the_separate_objects_for_this_run_only(sam: Command, picture: str) -> None:
    ran = sam(picture, "--label", "widget", "--json").worked()
    found = ran.json[0]["detections"]
    assert sum(each["label"] == "widget" for each in found) == len(DISCS)
    for place in DISCS:
        assert at(found, *place)["label"] == "widget"
    [line] = [each for each in ran.err.splitlines() if "as 'widget'" in each]
    assert f"took {len(DISCS)} separate objects" in line
    assert "for this run only" in line
    assert "sam-detect learn shapes.png --masks auto --label widget" in line
    again = sam(picture, "--json").worked()
    assert {each["label"] for each in again.json[0]["detections"]} == {None}
    assert sam("library", "list", "--json").worked().json == [{"libraries": []}]


def test_label_finds_in_other_pictures_what_the_first_one_shows(sam: Command, picture: str) -> None:
    saved(Path("empty.png"), np.full((200, 280, 3), 228, np.uint8))
    ran = sam("empty.png", picture, "other.png", "--label", "widget", "--json").worked()
    assert "empty.png: no object stands out" in ran.err
    assert ran.err.count("for this run only") == 1
    nothing, _, other = (each["detections"] for each in ran.json)
    assert {each["label"] for each in nothing} <= {None}
    for place in ((50, 60), (150, 70), (220, 140)):
        assert at(other, *place)["label"] == "widget"
    assert at(other, 70, 150)["label"] is None


def test_label_works_beside_a_library_and_leaves_it_as_it_is(sam: Command, taught: str) -> None:
    def content() -> object:
        listed = sam("library", "show", "--library", "shapes", "--json").worked().json
        return listed, sam("library", "stats", "--library", "shapes", "--json").worked().json

    before, place = content(), ("--library", "shapes")
    for options in ((), ("--fade", "linear")):
        ran = sam("other.png", *place, "--label", "widget", "--json", *options).worked()
        assert {"widget", "square"} <= {each["label"] for each in ran.json[0]["detections"]}
        assert "--only" not in ran.err
        assert "--label widget --library shapes)" in ran.err
    assert content() == before
    ran = sam("other.png", *place, "--label", "disc", "--only", "disc").worked()
    assert "--only disc" in ran.err, "a filter may be what was meant"
    assert not any(line.strip().startswith("square") for line in ran.out.splitlines())
    assert content() == before


# Another recipe than the library's


def test_reading_with_another_fade_works_and_says_so_in_one_line(sam: Command, taught: str) -> None:
    place = ("--library", "shapes")
    before = sam("library", "stats", *place, "--json").worked().json
    usual = sam("other.png", *place, "--json").worked()
    assert "another recipe" not in usual.err
    for options in (
        ("--fade", "linear", "--max-distance", "9"), ("--embedder", "average"), ("--sigma", "7.5"),
    ):  # fmt: skip
        ran = sam("other.png", *place, "--json", *options).worked()
        [line] = [each for each in ran.err.splitlines() if "another recipe" in each]
        assert "its 3 examples get new vectors" in line
        assert len(line) < 400
        command = line.partition("To convert the library: ")[2]
        assert command.startswith("sam-detect library reindex --library shapes")
        assert options[0] in command
        labels = [each["label"] for each in ran.json[0]["detections"]]
        assert labels.count("disc") == 3
    assert sam("library", "stats", *place, "--json").worked().json == before
    assert sam(*command.split()[1:]).worked()
    assert "another recipe" not in sam("other.png", *place, "--json", *options).worked().err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--occupancy", "0.4"), ("crops made with occupancy 0.2", "needs the pictures")),
        (("--crop-side", "99"), ("crops made with crop_side 256", "needs the pictures")),
    ],
)
def test_what_the_crops_cannot_give_is_refused(
    options: tuple[str, ...], words: tuple[str, ...], sam: Command, taught: str
) -> None:
    ran = sam("other.png", "--library", "shapes", "--json", *options)
    ran.failed(*words, "new library", code=2)
    assert ran.out == ""


def test_learning_in_another_recipe_is_refused_before_a_picture_is_read(
    sam: Command, taught: str
) -> None:
    learn = ("learn", "gone.png", "--library", "shapes", "--label", "disc", "--masks", "auto")
    ran = sam(*learn, "--fade", "linear")
    ran.failed("another recipe", "reindex --library shapes", "--fade linear", code=2)
    assert "get new vectors" not in ran.err


def test_the_library_commands_work_whatever_fade_the_environment_names(
    sam: Command, taught: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    [example, *_] = sam("library", "show", "--library", "shapes", "--json").worked().json
    for fade in ("linear", "nowhere.fades:Gone", "nonsense"):
        monkeypatch.setenv("SAM_DETECT_FADE", fade)
        place = ("--library", "shapes")
        for command in (
            ("list",), ("list", *place), ("show", *place), ("stats", *place),
            ("show", example["id"], *place), ("export", "x.zip", *place),
            ("rename", "disc", "ring", *place), ("rename", "ring", "disc", *place),
            ("import", "x.zip", *place), ("remove", example["id"], *place),
            ("import", "x.zip", *place),
        ):  # fmt: skip
            sam("library", *command).worked()
    [stats] = sam("library", "stats", "--library", "shapes", "--json").worked().json
    assert stats["examples"] == 3
