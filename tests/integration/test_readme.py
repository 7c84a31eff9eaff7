"""The README's commands and code run as they are written."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import cv2
import numpy as np
import pytest
import roifile
import tifffile

from sam_detect.cli.app import run
from sam_detect.io import geojson, imagej
from sam_detect.types import AnnotatedImage, Annotation

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
NEEDS_A_SERVER = "--to-url"
NEEDS_A_CAMERA = "sam-detect video 0"
NEED_MODELS = ("sam-detect download-models", "sam-detect verify-models")
"""Run, on a server of this machine and on small models, in the tests of these names."""


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def commands() -> list[str]:
    lines = [line.split("#")[0].strip() for block in blocks("bash") for line in block.splitlines()]
    return [
        line for line in lines if line.startswith("sam-detect") and not line.startswith(NEED_MODELS)
    ]


@pytest.fixture
def kitchen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the files that the README names."""
    monkeypatch.chdir(tmp_path)
    pictures = ("table.jpg", "other.jpg", "far-away.jpg", "hazelnuts.jpg")
    for name in (*pictures, "photos/a.jpg", "slides/s.png"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        cv2.imwrite(str(path), table())
    outlines = {
        "images": [{"id": 1, "file_name": "s.png"}],
        "categories": [{"id": 1, "name": "nucleus"}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 1, "bbox": [214, 191, 87, 75]},
        ],
    }
    (tmp_path / "outlines.json").write_text(json.dumps(outlines))
    draw_nuts(tmp_path / "nuts")
    draw_cells()
    film_table(tmp_path / "clip.mp4")
    return tmp_path


def draw_cells() -> None:
    """A picture and a stack of cells, with outlines of some of them in two formats."""
    centres = [(40 + 60 * column, 40 + 55 * row) for row in range(3) for column in range(5)]
    cells = np.full((190, 320), 60, np.uint8)
    for centre in centres:
        cv2.circle(cells, centre, 15, 190, -1, cv2.LINE_AA)
    tifffile.imwrite("cells.tif", cells)
    names = {"axes": "ZCYX", "Channel": {"Name": ["DAPI", "LAMP1"]}}
    noise = np.random.default_rng(0).integers(0, 5, (8, 1, *cells.shape), np.uint8)
    tifffile.imwrite("stack.ome.tif", np.stack([cells, 255 - cells])[None] - noise, metadata=names)
    turn = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    circle = np.stack([np.cos(turn), np.sin(turn)], axis=1)

    def drawn(radius: float, location: tuple[int, int, int] | None = None) -> AnnotatedImage:
        outlines = tuple(
            Annotation(("cell",), polygons=((radius * circle + centre,),), location=location)
            for centre in centres[:4]
        )
        return AnnotatedImage("", "", outlines)

    Path("ten.geojson").write_bytes(geojson.encode(drawn(15)))
    Path("ten.zip").write_bytes(imagej.encode(drawn(15, (0, 3, 0))))
    Path("quickly-drawn.geojson").write_bytes(geojson.encode(drawn(19)))


def film_table(path: Path) -> None:
    """The table, which the camera passes."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 25, (800, 600))
    for frame in range(12):
        writer.write(np.roll(table(), -2 * frame, axis=1))
    writer.release()


def draw_nuts(folder: Path) -> None:
    """An annotated dataset of five pictures with two dates and two hazelnuts each."""
    (folder / "images").mkdir(parents=True)
    images, annotations = [], []
    for number in range(1, 6):
        picture = np.full((300, 400, 3), (215, 220, 225), np.uint8)
        shift = 6 * number
        for category, (x, y, w, h) in [
            (1, (20, 30 + shift, 100, 60)), (1, (250, 20, 90, 60)),
            (2, (60 + shift, 190, 40, 36)), (2, (280, 180 + shift, 38, 34)),
        ]:  # fmt: skip
            color = (30, 50, 90) if category == 1 else (60, 110, 180)
            cv2.ellipse(picture, ((x + w / 2, y + h / 2), (w, h), 0), color, -1, cv2.LINE_AA)
            polygon = cv2.ellipse2Poly((x + w // 2, y + h // 2), (w // 2, h // 2), 0, 0, 360, 10)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": category,
                    "bbox": [x, y, w, h],
                    "segmentation": [polygon.ravel().tolist()],
                }
            )
        cv2.imwrite(str(folder / "images" / f"{number}.png"), picture)
        images.append({"id": number, "file_name": f"{number}.png", "width": 400, "height": 300})
    categories = [{"id": 1, "name": "date"}, {"id": 2, "name": "hazelnut"}]
    whole = {"images": images, "categories": categories, "annotations": annotations}
    (folder / "annotations.json").write_text(json.dumps(whole))


def table() -> np.ndarray:
    """Dates and hazelnuts, drawn where the README's boxes are."""
    image = np.full((600, 800, 3), (215, 220, 225), np.uint8)
    for x, y, w, h, color in [
        (452, 184, 241, 173, (30, 50, 90)),
        (60, 300, 180, 150, (30, 50, 90)),
        (214, 191, 87, 75, (60, 110, 180)),
        (300, 40, 90, 80, (20, 160, 200)),
    ]:
        cv2.ellipse(image, ((x + w / 2, y + h / 2), (w, h), 0), color, -1, cv2.LINE_AA)
    return image


def test_every_command_of_the_readme_runs(kitchen: Path) -> None:
    ran = 0
    for command in commands():
        if NEEDS_A_SERVER in command or command.startswith(NEEDS_A_CAMERA):
            continue
        assert run(shlex.split(command)[1:]) == 0, command
        ran += 1
    assert ran >= 10
    assert (kitchen / "taken.png").stat().st_size > 1000
    assert (kitchen / "found" / "a.png").stat().st_size > 1000
    assert (kitchen / "counts.csv").read_text().splitlines()[-1].startswith("total,")
    assert (kitchen / "dataset" / "data.yaml").is_file()
    assert (kitchen / "nuclei.zip").is_file()
    assert (kitchen / "out" / "index.html").is_file()
    assert len((kitchen / "found.jsonl").read_text().splitlines()) == 12
    assert (kitchen / "kinds" / "annotations.json").is_file()
    found = json.loads((kitchen / "found.geojson").read_text())["features"]
    assert len(found) == 11, "all but the four that were shown"
    assert len(roifile.roiread(kitchen / "found.zip")) == 6 * 15 - 4
    assert (kitchen / "fine.geojson").is_file()


def test_the_python_of_the_readme_runs(kitchen: Path) -> None:
    code = blocks("python")
    assert len(code) == 3
    for block in code:
        exec(compile(block, "README.md", "exec"), {})


def test_every_document_that_the_readme_names_is_there() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert target.startswith("https://") or (ROOT / target).exists(), target
