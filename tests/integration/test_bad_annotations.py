"""Files of annotations as other programs and hasty hands leave them: ``fewshot`` works with what
can be used and says what cannot."""

from __future__ import annotations

import io
import json
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import roifile
from cli_harness import Command, in_this_process
from PIL import Image

CENTRES = [(40, 40), (100, 45), (160, 40), (45, 110), (110, 105), (165, 110)]
RADIUS = 14
Ring = list[list[float]]


@pytest.fixture
def command(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Command:
    monkeypatch.setenv("SAM_DETECT_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    draw("cells.png", CENTRES)
    return in_this_process(capfd)


def draw(path: str, centres: list[tuple[int, int]]) -> None:
    image = np.full((150, 205, 3), (30, 32, 34), np.float64)
    y, x = np.mgrid[:150, :205]
    for cx, cy in centres:
        image[(x - cx) ** 2 + (y - cy) ** 2 <= RADIUS**2] = (190, 180, 60)
    image += np.random.default_rng(0).normal(0, 4, image.shape)
    Path(path).parent.mkdir(exist_ok=True)
    Image.fromarray(np.clip(image, 0, 255).astype(np.uint8)).save(path)


def ring(number: int) -> Ring:
    turn = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    x, y = (at + 0.5 for at in CENTRES[number])
    return np.stack([x + RADIUS * np.cos(turn), y + RADIUS * np.sin(turn)], axis=1).tolist()


def feature(points: Ring) -> dict[str, Any]:
    return {
        "type": "Feature", "geometry": {"type": "Polygon", "coordinates": [points]},
        "properties": {"classification": {"name": "cell"}},
    }  # fmt: skip


def closed(number: int) -> dict[str, Any]:
    return feature([*ring(number), ring(number)[0]])


def as_json(value: Any) -> bytes:
    return json.dumps(value).encode()


def coco(*rows: dict[str, Any], images: int = 1) -> bytes:
    return as_json({
        "images": [{"id": i + 1, "file_name": "cells.png"} for i in range(images)],
        "categories": [{"id": 1, "name": "cell"}],
        "annotations": [{"id": i, "image_id": 1, "category_id": 1} | row
                        for i, row in enumerate(rows)],
    })  # fmt: skip


def polygon(number: int) -> dict[str, Any]:
    return {"segmentation": [np.ravel(ring(number)).tolist()]}


def regions_of_one_name() -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # zipfile says that this is odd
        for number in range(3):
            points = np.array(ring(number), np.float32)
            roi = roifile.ImagejRoi.frompoints(points, name="cell-1")
            file.writestr("cell-1.roi", roi.tobytes())
    return data.getvalue()


KINDS: dict[str, tuple[str, Callable[[], bytes], int, str]] = {
    "a list without a collection": (
        "shown.geojson", lambda: as_json([closed(0), closed(1)]), 4, "learnt 2 examples"),
    "one feature": ("shown.geojson", lambda: as_json(closed(0)), 5, "learnt 1 example"),
    "a ring that is not closed": (
        "shown.geojson", lambda: as_json([feature(ring(0)), closed(1)]), 4, "learnt 2 examples"),
    "regions of one name": (
        "shown.zip", regions_of_one_name, 5, "2 regions have the name of a later one: left out"),
    "an unknown picture": (
        "shown.json", lambda: coco(polygon(0), polygon(1), polygon(2) | {"image_id": 7}), 4,
        "annotation 2: its image is not in shown.json"),
    "one outline for several objects": (
        "shown.json", lambda: coco(polygon(0), polygon(1), polygon(1)), 4, "learnt 2 examples"),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_what_can_be_used_is_used_and_the_rest_is_said(command: Command, kind: str) -> None:
    name, made, others, said = KINDS[kind]
    Path(name).write_bytes(made())
    done = command("fewshot", "cells.png", "--annotations", name, "--tag", "cell", "--json")
    assert said in done.worked().err
    assert f"{name}: {name}" not in done.err
    assert len(done.json[0]["detections"]) == others


def test_boxes_of_no_area_are_left_out(command: Command) -> None:
    empty = {"bbox": [60.0, 40.0, 0, 0]}
    Path("shown.json").write_bytes(coco(polygon(0), empty, {"bbox": [60.0, 40.0, 30, 0]}))
    done = command("fewshot", "cells.png", "--annotations", "shown.json", "--tag", "cell")
    assert done.code == 1
    assert [each.split(" (")[0] for each in done.errors] == [
        "error: cells.png: outline 2: the box 60,40,0,0",
        "error: cells.png: outline 3: the box 60,40,30,0",
    ]
    assert "cells.png: 5 cell" in done.out
    Path("shown.json").write_bytes(coco(empty))
    done = command("fewshot", "cells.png", "--annotations", "shown.json", "--tag", "cell")
    done.failed("no outline with the tag 'cell' can be used", "has no pixel", code=1)


def test_files_of_one_name_in_two_folders_are_two_pictures(command: Command) -> None:
    draw("a/cells.png", CENTRES)
    draw("b/cells.png", CENTRES[:4])
    data = json.loads(coco(polygon(0), polygon(1)))
    data["images"] = [{"id": 1, "file_name": "b/cells.png"}, {"id": 2, "file_name": "a/cells.png"}]
    Path("shown.json").write_text(json.dumps(data))
    given = ("fewshot", "a", "b", "--annotations", "shown.json", "--tag", "cell")
    rows = command(*given, "--json").worked().json
    assert [(row["image"], len(row["detections"])) for row in rows] == [
        (str(Path("a", "cells.png")), 6), (str(Path("b", "cells.png")), 2)
    ]  # fmt: skip
    command(*given, "--output", "found", "--format", "geojson").worked()
    assert sorted(each.name for each in Path("found").iterdir()) == [
        "cells-2.geojson", "cells.geojson"
    ]  # fmt: skip
    # The name alone could mean either picture.
    Path("shown.json").write_bytes(coco(polygon(0)))
    command(*given).failed("cells.png", code=1)
