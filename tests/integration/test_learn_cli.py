"""What ``learn`` says and shows of the outlines that it took, and which boxes it warns of."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli_harness import (
    DISCS,
    GROUND,
    RADIUS,
    SQUARES,
    Command,
    box_around,
    drawn,
    in_this_process,
    saved,
)
from PIL import Image

from sam_detect.segmentation import NaiveSegmenter
from sam_detect.types import Masks
from sam_detect.vector_store import QdrantVectorStore

SIDE = 2 * RADIUS + 1
OPTIONS = ("--segmenter", "naive", "--embedder", "average")
EMPTY = "150,85,40,40"
"""A box in which there is nothing but ground."""


@pytest.fixture
def sam(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Command:
    monkeypatch.chdir(tmp_path)
    return in_this_process(capfd)


@pytest.fixture
def picture(tmp_path: Path, sam: Command) -> Path:
    return saved(tmp_path / "shapes.png").relative_to(tmp_path)


def warnings_of(err: str) -> list[str]:
    return [line for line in err.splitlines() if line.startswith("warning: box")]


# What was taken


def test_each_box_and_point_says_what_it_became(sam: Command, picture: Path) -> None:
    x, y = DISCS[2]
    ran = sam("learn", picture, "--label", "disc", "--box", box_around(*DISCS[0]),
              "--box", box_around(*DISCS[1]), "--point", f"{x},{y}").worked()  # fmt: skip
    assert not warnings_of(ran.err), "boxes around objects are not warned of"
    lines = [line for line in ran.err.splitlines() if ": took " in line]
    assert [line.split(" (")[0] for line in lines] == ["box 1", "box 2", "point 1"]
    first = lines[0]
    assert first.startswith(f"box 1 ({box_around(*DISCS[0])}): took "), first
    pixels = int(first.split("took ")[1].split()[0])
    assert pixels == pytest.approx(np.pi * RADIUS**2, rel=0.1)
    assert f"{pixels / SIDE**2:.0%} of the box" in first
    assert "of the box" not in lines[2]


def test_one_example_is_one_example(sam: Command, picture: Path) -> None:
    line = ("learn", picture, "--label", "disc", "--box", box_around(*DISCS[0]))
    assert "learnt 1 example; new library 'default' has 1" in sam(*line).worked().err
    both = sam(*line, "--box", box_around(*DISCS[1])).worked().err
    assert "learnt 1 example, 1 known already; library 'default' has 2" in both
    again = sam(*line[:3], "ring", *line[4:], "--box", box_around(*DISCS[2])).worked().err
    assert "learnt 1 example, 1 corrected; library 'default' has 3" in again
    assert "1 example had the label 'disc', now 'ring'; to take this back" in again


@pytest.mark.parametrize("order", [("disc", "ring"), ("ring", "disc")])
@pytest.mark.parametrize("pictures", [1, 2])
def test_two_names_of_one_object_are_said_and_the_first_stays(
    sam: Command, order: tuple[str, str], pictures: int
) -> None:
    """In one file of annotations, as of those that give an object a class and a tag."""
    data: dict[str, Any] = {"images": [], "annotations": [], "categories": []}
    data["categories"] = [{"id": i, "name": name} for i, name in enumerate(order)]
    for number in range(pictures):
        saved(Path(f"{number}.png"), drawn(seed=number))
        data["images"].append(
            {"id": number, "file_name": f"{number}.png", "width": 280, "height": 200}
        )
        for category in (0, 1):
            for x, y in DISCS[:3]:
                left, top, right, bottom = x - 14, y - 14, x + 14, y + 14
                corners = [left, top, right, top, right, bottom, left, bottom]
                data["annotations"].append({
                    "id": len(data["annotations"]), "image_id": number, "category_id": category,
                    "segmentation": [corners], "bbox": [left, top, 28, 28], "iscrowd": 0,
                })  # fmt: skip
    Path("both.json").write_text(json.dumps(data))
    files = [f"{number}.png" for number in range(pictures)]
    ran = sam("learn", *files, "--annotations", "both.json", *OPTIONS).worked()
    for file in files:
        assert f"{file}: 3 outlines have two names, '{order[0]}' and '{order[1]}'" in ran.err
    assert "--tag" in ran.err
    assert "known already" not in ran.err
    assert f"learnt {3 * pictures} examples;" in ran.err
    [stats] = sam("library", "stats", "--json").worked().json
    assert stats["classes"] == {order[0]: 3 * pictures}


# Boxes that may not mean what they say


def test_a_box_on_empty_ground_is_a_guess_that_is_not_learnt(sam: Command, picture: Path) -> None:
    ran = sam("learn", picture, "--label", "disc", "--box", box_around(*DISCS[0]), "--box", EMPTY)
    [line] = warnings_of(ran.err)
    assert line.startswith(f"warning: box 2 ({EMPTY}): no object that was proposed fits it")
    assert "--accept-guess" in line
    assert "error: shapes.png: guessed outlines are not learnt: --preview PICTURE" in ran.err
    assert "learnt 1 example;" in ran.err
    assert ran.code == 1, "something that was asked for was not done"
    alone = sam("learn", picture, "--label", "disc", "--box", EMPTY, "--preview", "seen.png")
    assert alone.code == 1
    assert "learnt 0 examples" in alone.err
    x, y, w, h = (2 * int(v) for v in EMPTY.split(","))
    assert pink(colours("seen.png"))[y : y + h, x : x + w].any(), "the guess is shown"


def test_a_guess_is_learnt_where_it_is_accepted(sam: Command, picture: Path) -> None:
    boxes = ("--box", box_around(*DISCS[0]), "--box", EMPTY)
    ran = sam("learn", picture, "--label", "disc", *boxes, "--accept-guess").worked()
    assert len(warnings_of(ran.err)) == 1, "it is said all the same"
    assert "learnt 2 examples" in ran.err


def test_two_corners_are_warned_of(sam: Command, picture: Path) -> None:
    x, y = DISCS[4]
    corners = f"{x - RADIUS},{y - RADIUS},{x + RADIUS + 1},{y + RADIUS + 1}"
    ran = sam("learn", picture, "--label", "disc", "--box", corners, "--accept-guess").worked()
    [line] = warnings_of(ran.err)
    assert "leaves the 280x200 picture and looks like two corners" in line
    assert f"as x,y,w,h it would be {box_around(x, y)}" in line


def test_fractions_are_refused(sam: Command, picture: Path) -> None:
    ran = sam("learn", picture, "--label", "disc", "--box", "0.25,0.5,0.1,0.2")
    ran.failed("0.25,0.5,0.1,0.2", "fractions of the picture", "70,100,28,40", code=1)
    sam("library", "stats").failed("no library", code=2)


def test_a_box_around_the_whole_picture_is_warned_of(sam: Command, picture: Path) -> None:
    line = ("learn", picture, "--label", "disc", "--accept-guess", "--box")
    ran = sam(*line, "0,0,280,200").worked()
    assert "covers the whole picture" in warnings_of(ran.err)[0]


# Labels that may be misspelt


def test_a_label_that_resembles_another_is_remarked_on_and_learnt(
    sam: Command, picture: Path
) -> None:
    def learn(label: str, disc: int) -> str:
        box = box_around(*DISCS[disc])
        return sam("learn", picture, "--label", label, "--box", box).worked().err

    assert "did you mean" not in learn("hazelnut", 0)
    assert "did you mean" not in learn("hazelnut", 1), "that label is known"
    assert "the library has a label 'hazelnut'; did you mean it?" in learn("hazlenut", 2)
    assert "did you mean" not in learn("walnut", 3)
    ran = sam("library", "stats", "--json").worked()
    assert ran.json[0]["classes"] == {"hazelnut": 2, "hazlenut": 1, "walnut": 1}


def test_a_damaged_example_keeps_no_other_from_being_learnt(sam: Command, picture: Path) -> None:
    sam("learn", picture, "--label", "disc", "--box", box_around(*DISCS[0])).worked()
    store = QdrantVectorStore()
    [point] = store.scan(with_vectors=True)
    store.upsert([replace(point, payload={**point.payload, "label": "other", "source": 3})])
    line = ("learn", picture, "--label", "ring", "--box", box_around(*DISCS[1]))
    assert "learnt 1 example" in sam(*line).worked().err


# Boxes of finds


def test_a_negative_whose_box_is_that_of_a_find_means_that_find(
    sam: Command, picture: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A find that is the ground around an object, in whose box the object is the better outline."""
    x, y = DISCS[0]
    wrong = np.zeros((200, 280), np.bool_)
    wrong[y - RADIUS : y + RADIUS + 1, x - RADIUS : x + RADIUS + 1] = True
    wrong[y - RADIUS + 4 : y + RADIUS - 3, x - RADIUS + 4 : x + RADIUS - 3] = False
    proposed = Masks.from_dense(np.stack([wrong]))
    # As `detect` does, for objects of the sizes in the library.
    uses = property(lambda _: ("areas",), lambda *_: None)
    monkeypatch.setattr(NaiveSegmenter, "uses", uses, raising=False)
    monkeypatch.setattr(
        NaiveSegmenter, "propose", lambda _, __, hints: proposed if hints.areas else proposed[:0]
    )
    for more, same in (([], False), (["--negative"], True)):
        line = ("learn", picture, "--label", "disc", "--box", box_around(x, y), *more)
        ran = sam(*line, "--segmenter", "naive", "--embedder", "average").worked()
        assert (f"took {wrong.sum()} pixels" in ran.err) == same, ran.err


def test_a_box_that_leaves_the_picture_is_warned_of(sam: Command, picture: Path) -> None:
    line = ("learn", picture, "--label", "disc", "--accept-guess", "--box")
    ran = sam(*line, "-30,10,110,60").worked()
    assert "leaves the 280x200 picture: only the part inside is used" in warnings_of(ran.err)[0]
    fits = sam(*line, "0,-1,280,200.5").worked()
    assert "leaves" not in fits.err, "rounded boxes may end a pixel beyond it"


@pytest.mark.parametrize("prompt", [("--box", "1,2,30,30"), ("--point", "40,40")])
def test_one_box_is_not_used_in_several_pictures(
    sam: Command, picture: Path, prompt: tuple[str, str]
) -> None:
    saved(Path("folder/a.png"))
    saved(Path("folder/b.png"))
    ran = sam("learn", "folder", "--label", "disc", *prompt)
    ran.failed(prompt[0], "2 pictures were given", "--annotations", code=2)
    ran = sam("learn", picture, "folder/a.png", "--label", "disc", *prompt)
    ran.failed("2 pictures were given", code=2)
    sam("library", "stats").failed("no library", code=2)
    Path("folder/b.png").unlink()
    sam("learn", "folder", "--label", "disc", "--box", box_around(*DISCS[0])).worked()


def test_boxes_of_a_file_that_nothing_fits_are_counted(sam: Command, picture: Path) -> None:
    boxes = [[x - RADIUS, y - RADIUS, SIDE, SIDE] for x, y in DISCS[:3]]
    boxes.insert(1, [int(v) for v in EMPTY.split(",")])
    data = {
        "images": [{"id": 1, "file_name": "shapes.png", "width": 280, "height": 200}],
        "annotations": [
            {"id": n, "image_id": 1, "category_id": 1, "bbox": box}
            for n, box in enumerate(boxes, start=1)
        ],
        "categories": [{"id": 1, "name": "disc"}],
    }
    Path("boxes.json").write_text(json.dumps(data))
    line = ("learn", picture, "--annotations", "boxes.json")
    ran = sam(*line, "--preview", "seen.png")
    assert "no object that was proposed fits 1 of 4 boxes (number 2)" in ran.err
    assert "guessed outlines are not learnt" in ran.err
    assert "learnt 3 examples" in ran.err
    assert ran.code == 1
    x, y, w, h = (2 * int(v) for v in EMPTY.split(","))
    assert pink(colours("seen.png"))[y : y + h, x : x + w].any(), "the guess is shown"
    assert "learnt 1 example, 3 known" in sam(*line, "--accept-guess").worked().err


# Pictures of it


def colours(path: str | Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB")).astype(int)


def pink(image: np.ndarray) -> np.ndarray:
    """Where the colour of outlines is."""
    red, green, blue = np.moveaxis(image, 2, 0)
    return np.asarray((red > 200) & (green < 110) & (blue > 110))


def test_the_preview_shows_outlines_and_boxes(sam: Command, picture: Path) -> None:
    ran = sam("learn", picture, "--label", "disc", "--box", box_around(*DISCS[0]),
              "--box", EMPTY, "--preview", "seen/out.png", "--accept-guess").worked()  # fmt: skip
    assert "wrote seen/out.png" in ran.err
    seen = colours("seen/out.png")
    assert seen.shape == (400, 560, 3), "a small picture is enlarged"
    marked = pink(seen)
    x, y = DISCS[0]
    for dx, dy in ((RADIUS, 0), (-RADIUS, 0), (0, RADIUS), (0, -RADIUS)):
        row, column = 2 * (y + dy), 2 * (x + dx)
        assert marked[row - 4 : row + 6, column - 4 : column + 6].any(), "the outline"
    x, y = SQUARES[0]
    assert not pink(seen[2 * (y - 5) : 2 * (y + 25), 2 * (x - 25) : 2 * (x + 25)]).any()
    left, top, w, _ = (2 * int(v) for v in EMPTY.split(","))
    edge = seen[top, left + 30 : left + w]
    assert (edge.min(axis=1) > 240).any(), "white dashes"
    assert (edge.max(axis=1) < 60).any(), "black dashes"
    assert np.abs(seen[300, 20] - GROUND).max() < 6, "the rest as it was"


def test_previews_of_several_pictures_go_into_a_folder(sam: Command, picture: Path) -> None:
    saved(Path("other.png"), drawn(seed=1))
    line = ("learn", picture, "other.png", "--label", "disc", "--masks", "auto", "--preview")
    sam(*line, "seen").worked()
    assert sorted(path.name for path in Path("seen").iterdir()) == ["other.png", "shapes.png"]
    assert pink(colours("seen/other.png")).any()
    sam(*line, "one.png").failed("one.png", "folder", code=1)


def test_a_preview_never_overwrites_the_picture(sam: Command, picture: Path) -> None:
    before = picture.read_bytes()
    line = ("learn", picture, "--label", "disc", "--box", box_around(*DISCS[0]), "--preview")
    assert sam(*line, picture).code == 1
    assert picture.read_bytes() == before
    sam(*line, "x.docx").failed("x.docx", code=1)
    sam("library", "stats").failed("no library", code=2)


@pytest.mark.parametrize("size_hw", [(12, 9), (60, 2000), (2400, 1800)])
def test_a_preview_is_made_of_any_size(
    sam: Command, picture: Path, size_hw: tuple[int, int]
) -> None:
    height, width = size_hw
    saved(Path("any.png"), drawn([(width // 2, height // 2)], [], size_hw=size_hw))
    box = f"0,0,{width - 2},{height - 2}"
    line = ("learn", "any.png", "--label", "x", "--box", box, "--preview", "seen.png")
    sam(*line, "--accept-guess").worked()
    seen = colours("seen.png")
    assert max(seen.shape) >= 600
    assert seen.shape[0] / seen.shape[1] == pytest.approx(height / width)
    assert pink(seen).any()


def test_the_crop_of_an_example_is_shown_with_its_outline(sam: Command, picture: Path) -> None:
    sam("learn", picture, "--label", "disc", "--box", box_around(*DISCS[0])).worked()
    [example] = sam("library", "show", "--json").worked().json
    sam("library", "show", example["id"][:8], "--output", "crop.png").worked()
    crop = colours("crop.png")
    marked = pink(crop)
    rows, columns = np.nonzero(marked)
    across = rows.max() - rows.min(), columns.max() - columns.min()
    assert 0 < marked.mean() < 0.1, "a line, not an area"
    assert max(across) == pytest.approx(min(across), rel=0.1), "around a disc"
    assert 0.3 < max(across) / max(crop.shape) < 0.8
