"""``sam-detect fewshot``: a few outlines in, the other objects out."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli_harness import Command, in_this_process
from PIL import Image

from sam_detect import SAMDetect
from sam_detect.io.coco import read_coco

GROUND, DISC, SQUARE = (30, 32, 34), (190, 180, 60), (60, 150, 190)
CELLS = [(40 + 60 * column, 40 + 55 * row) for row in range(4) for column in range(5)]
SQUARES = [(340, 50), (340, 130), (340, 200)]


@pytest.fixture
def command(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Command:
    monkeypatch.setenv("SAM_DETECT_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return in_this_process(capfd)


def drawn(path: Path, seed: int = 0) -> Path:
    """Twenty discs and three squares, with noise."""
    rng = np.random.default_rng(seed)
    image = np.full((260, 400, 3), GROUND, np.float64)
    y, x = np.mgrid[:260, :400]
    for cx, cy in CELLS:
        image[(x - cx) ** 2 + (y - cy) ** 2 <= 16**2] = DISC
    for cx, cy in SQUARES:
        image[(abs(x - cx) <= 15) & (abs(y - cy) <= 15)] = SQUARE
    image += rng.normal(0, 4, image.shape)
    Image.fromarray(np.clip(image, 0, 255).astype(np.uint8)).save(path)
    return path


def ring(centre: tuple[int, int], radius: float = 16.5) -> list[float]:
    turn = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    x, y = centre[0] + 0.5 + radius * np.cos(turn), centre[1] + 0.5 + radius * np.sin(turn)
    return [float(v) for v in np.stack([x, y], axis=1).ravel()]


def square(centre: tuple[int, int]) -> list[float]:
    x, y = centre
    return [x - 15, y - 15, x + 16, y - 15, x + 16, y + 16, x - 15, y + 16]


def outlined(path: Path, picture: str, **tagged: list[list[float]]) -> Path:
    """A COCO file of one picture: polygons by the name of their category."""
    names = list(tagged)
    path.write_text(
        json.dumps({
            "images": [{"id": 1, "file_name": picture, "width": 400, "height": 260}],
            "categories": [{"id": n, "name": name} for n, name in enumerate(names, 1)],
            "annotations": [
                {"id": 10 * n + i, "image_id": 1, "category_id": n, "segmentation": [each]}
                for n, name in enumerate(names, 1)
                for i, each in enumerate(tagged[name])
            ],
        })
    )  # fmt: skip
    return path


def centres(rows: list[dict[str, Any]]) -> set[tuple[int, int]]:
    """The drawn objects that boxes are around."""
    boxes = [row["bbox"] for row in rows]
    return {
        min(CELLS + SQUARES, key=lambda c: abs(c[0] - x - w / 2) + abs(c[1] - y - h / 2))
        for x, y, w, h in boxes
    }


def test_the_others_are_found_and_what_was_shown_is_not_sought_again(
    command: Command, tmp_path: Path
) -> None:
    drawn(tmp_path / "a.png")
    outlined(tmp_path / "five.json", "a.png", cell=[ring(c) for c in CELLS[:5]])
    given = ("fewshot", "a.png", "--annotations", "five.json", "--tag", "cell")
    command(*given, "--output", "found.json").worked()
    found = json.loads((tmp_path / "found.json").read_text())
    assert centres(found["annotations"]) == set(CELLS[5:])
    assert len(found["annotations"]) == len(CELLS) - 5
    assert [each["name"] for each in found["categories"]] == ["cell"]
    assert all(0.5 < each["similarity"] <= 1 for each in found["annotations"])
    # What is written is read again, by the same command too.
    [again], problems = read_coco(tmp_path / "found.json", ["a.png"])
    assert len(again.outlines) == len(CELLS) - 5
    assert not problems
    every = command(*given, "--include-shown", "--json", "--output-tag", "round").worked().json
    assert centres(every[0]["detections"]) == set(CELLS)
    assert {each["label"] for each in every[0]["detections"]} == {"round"}
    assert not (tmp_path / "home" / "libraries").exists()


def test_points_of_a_coco_file_show_the_objects(command: Command, tmp_path: Path) -> None:
    drawn(tmp_path / "a.png")
    file = outlined(tmp_path / "five.json", "a.png", cell=[ring(c) for c in CELLS[:5]])
    data = json.loads(file.read_text())
    for each, (x, y) in zip(data["annotations"], CELLS[:5], strict=True):
        del each["segmentation"]
        each["keypoints"] = [x, y, 2]
    file.write_text(json.dumps(data))
    given = ("fewshot", "a.png", "--annotations", "five.json", "--tag", "cell")
    rows = command(*given, "--json").worked().json[0]["detections"]
    assert centres(rows) == set(CELLS[5:])


def test_a_named_library_keeps_the_examples_for_other_pictures(
    command: Command, tmp_path: Path
) -> None:
    drawn(tmp_path / "a.png")
    drawn(tmp_path / "b.png", seed=1)
    outlined(tmp_path / "five.json", "a.png", cell=[ring(c) for c in CELLS[:5]])
    given = ("--annotations", "five.json", "--tag", "cell", "--library", "cells")
    ran = command("fewshot", "a.png", "b.png", *given, "--format", "jsonl", "--output", "f.jsonl")
    ran.worked()
    rows = [json.loads(line) for line in (tmp_path / "f.jsonl").read_text().splitlines()]
    assert [centres(row["detections"]) for row in rows] == [set(CELLS[5:]), set(CELLS)]
    later = command("detect", "b.png", "--library", "cells", "--json").worked().json
    known = [each for each in later[0]["detections"] if each["label"] == "cell"]
    assert centres(known) == set(CELLS)


def test_a_similarity_threshold_decides_instead_of_the_confidence(
    command: Command, tmp_path: Path
) -> None:
    drawn(tmp_path / "a.png")
    outlined(tmp_path / "five.json", "a.png", cell=[ring(c) for c in CELLS[:5]])
    given = ("fewshot", "a.png", "--annotations", "five.json", "--tag", "cell", "--json")
    counts = [
        len(command(*given, "--similarity-threshold", each).worked().json[0]["detections"])
        for each in ("-1", "0.9", "1")
    ]
    assert counts[0] > counts[1] >= len(CELLS) - 5
    assert counts[2] == 0
    command(*given, "--similarity-threshold", "2").failed("similarity_threshold", code=2)


def within(bbox: list[int], place: tuple[int, int], most: int = 60) -> bool:
    """Whether a box of about the size of a square is about a place."""
    x, y, width, height = bbox
    middle = abs(x + width / 2 - place[0]) < 10 and abs(y + height / 2 - place[1]) < 10
    return middle and max(width, height) < most


def test_negatives_keep_what_looks_the_same_out(command: Command, tmp_path: Path) -> None:
    drawn(tmp_path / "a.png")
    outlined(
        tmp_path / "n.json", "a.png",
        cell=[ring(c) for c in CELLS[:3]], other=[square(c) for c in SQUARES[:2]],
    )  # fmt: skip
    given = ("fewshot", "a.png", "--annotations", "n.json", "--tag", "cell")
    given = (*given, "--similarity-threshold", "-1", "--json")

    def found(*options: str) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = command(*given, *options).worked().json[0]["detections"]
        return rows

    def squares(rows: list[dict[str, Any]]) -> set[tuple[int, int]]:
        return {at for at in SQUARES if any(within(each["bbox"], at) for each in rows)}

    assert squares(found()) == set(SQUARES), "the threshold takes everything"
    with_negatives = found("--negative-tag", "other")
    assert squares(with_negatives) <= {SQUARES[2]}, "not those that were shown"
    assert set(CELLS[3:]) <= centres(with_negatives)


@pytest.mark.parametrize(
    ("arguments", "words", "code"),
    [
        (("--tag", "nucleus"), ("nucleus", "cell"), 1),
        (("--tag", "cell", "--negative-tag", "cell"), ("--negative-tag", "same"), 2),
        (("--tag", "cell", "--negative-tag", "dust"), ("dust", "cell"), 1),
        (("--tag", ""), ("label",), 1),
        (("--tag", "cell", "--output", "five.json"), ("five.json",), 1),
    ],
)
def test_what_cannot_be_meant_is_said(
    command: Command, tmp_path: Path, arguments: tuple[str, ...], words: tuple[str, ...], code: int
) -> None:
    drawn(tmp_path / "a.png")
    outlined(tmp_path / "five.json", "a.png", cell=[ring(c) for c in CELLS[:5]])
    before = (tmp_path / "five.json").read_bytes()
    command("fewshot", "a.png", "--annotations", "five.json", *arguments).failed(*words, code=code)
    assert (tmp_path / "five.json").read_bytes() == before


def test_few_strange_and_identical_examples_work(command: Command, tmp_path: Path) -> None:
    drawn(tmp_path / "a.png")
    for name, rings in (
        ("one", [ring(CELLS[0])]),
        ("same", [ring(CELLS[0])] * 6),
        ("edge", [ring(CELLS[0]), ring((900, 900)), ring((-3, 100))]),
    ):
        outlined(tmp_path / "given.json", "a.png", cell=rings)
        given = ("--annotations", "given.json", "--tag", "cell", "--json")
        if name == "edge":  # of three only one lies on a cell
            command("fewshot", "a.png", *given).failed("lie on nothing", code=1)
            given = (*given, "--fit", "as-is")
        ran = command("fewshot", "a.png", *given)
        assert ran.code == (1 if name == "edge" else 0), (name, ran.err)
        assert len(centres(ran.json[0]["detections"]) & set(CELLS)) >= 1, name
        learnt = "2 examples" if name == "edge" else "1 example"
        assert f"learnt {learnt} of 'cell'" in ran.err, name
        if name == "edge":
            assert "outline 2" in ran.err
            assert "no pixel" in ran.err
    outlined(tmp_path / "none.json", "a.png", cell=[ring((900, 900))])
    ran = command("fewshot", "a.png", "--annotations", "none.json", "--tag", "cell")
    ran.failed("cell", "no pixel", code=1)
    outlined(tmp_path / "other.json", "other.png", cell=[ring(CELLS[0])])
    ran = command("fewshot", "a.png", "--annotations", "other.json", "--tag", "cell")
    ran.failed("other.json", "none of the annotated pictures", code=1)


def test_a_constant_picture_has_no_finds(command: Command, tmp_path: Path) -> None:
    drawn(tmp_path / "a.png")
    Image.new("RGB", (400, 260), GROUND).save(tmp_path / "flat.png")
    outlined(tmp_path / "five.json", "a.png", cell=[ring(c) for c in CELLS[:5]])
    given = ("--annotations", "five.json", "--tag", "cell", "--json")
    rows = command("fewshot", "a.png", "flat.png", *given).worked().json
    assert [len(row["detections"]) for row in rows] == [len(CELLS) - 5, 0]
    outlined(tmp_path / "in_flat.json", "flat.png", cell=[ring(c) for c in CELLS[:5]])
    asked = ("fewshot", "flat.png", "--annotations", "in_flat.json", *given[2:])
    command(*asked).failed("one colour everywhere (30, 32, 34)", code=1)
    rows = command(*asked, "--fit", "as-is").json
    assert rows[0]["detections"] == []


def test_small_objects_are_announced_as_lost(command: Command, tmp_path: Path) -> None:
    drawn(tmp_path / "a.png")
    tiny = [ring((x, y), 2.5) for x, y in CELLS[:2]]
    outlined(tmp_path / "tiny.json", "a.png", cell=tiny)
    ran = command("fewshot", "a.png", "--annotations", "tiny.json", "--tag", "cell", "--json")
    assert "lower --min-area" in ran.err
    ran = command(
        "fewshot", "a.png", "--annotations", "tiny.json", "--tag", "cell", "--json", "--min-area", 5
    )
    assert "lower --min-area" not in ran.err


def test_from_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAM_DETECT_HOME", str(tmp_path / "home"))
    picture = str(drawn(tmp_path / "a.png"))
    file = outlined(tmp_path / "five.json", "a.png", cell=[ring(c) for c in CELLS[:5]])
    detector = SAMDetect(vector_store="memory")
    [found] = detector.fewshot([picture], file, tag="cell")
    assert len(found) == len(CELLS) - 5
    assert set(found.label) == {"cell"}
    assert all(each.similarity is not None and each.similarity > 0.5 for each in found)
    edge = outlined(tmp_path / "edge.json", "a.png", cell=[ring(CELLS[0]), ring((900, 900))])
    with pytest.warns(UserWarning, match=r"a\.png: outline 2.*no pixel"):
        SAMDetect(vector_store="memory").fewshot([picture], edge, tag="cell")


def test_the_page_runs_as_it_is_written(
    command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    page = Path(__file__).resolve().parents[2] / "docs" / "microscopy.md"
    text = page.read_text(encoding="utf-8")
    made, called, planes = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    typed = re.findall(r"```bash\nsam-detect (fewshot .*?)\n```", text)[0]
    monkeypatch.chdir(tmp_path)
    exec(compile(made, page.name, "exec"), {})
    said = command(*typed.split()).worked()
    assert "coins.png: 20 coin" in said.out, "24 without the four that are outlined"
    assert len(json.loads(Path("found.json").read_text())["annotations"]) == 20
    exec(compile(called, page.name, "exec"), {})
    compile(planes, page.name, "exec")  # of a stack that readers have
