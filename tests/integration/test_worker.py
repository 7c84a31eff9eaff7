"""The worker of NimbusImage as its server starts it: a process, one request, lines of JSON."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from local_server import LocalServer
from nimbus_fake import DATASET, TOKEN, FakeNimbus, new_handler

pytest.importorskip("nimbusimage")
ROOT = Path(__file__).resolve().parents[2]
WORKER = ROOT / "scripts" / "worker"
CENTRES = [(x, y) for y in (30, 80, 130) for x in (30, 80, 130, 180)]
RADIUS = 12


@pytest.fixture
def fake() -> Iterator[tuple[type[FakeNimbus], str]]:
    """Twelve discs, of which three are outlined in the first plane."""
    handler = new_handler()
    y, x = np.mgrid[:160, :210]
    picture = np.full((160, 210), 40, np.uint8)
    for cx, cy in CENTRES:
        picture[(x - cx) ** 2 + (y - cy) ** 2 <= RADIUS**2] = 200
    handler.picture = picture
    handler.layers = [
        {"id": "l", "channel": 0, "color": "#FFFFFF",
         "contrast": {"mode": "absolute", "blackPoint": 0, "whitePoint": 255}}
    ]  # fmt: skip
    angles = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    for number, (cx, cy) in enumerate(CENTRES[:3]):
        corners = [
            {"x": cx + 0.5 + RADIUS * np.cos(a), "y": cy + 0.5 + RADIUS * np.sin(a)} for a in angles
        ]
        handler.annotations.append({
            "_id": f"{number + 1:024x}", "datasetId": DATASET, "shape": "polygon",
            "tags": ["disc"], "channel": 0, "location": {"XY": 0, "Z": 0, "Time": 0},
            "coordinates": corners,
        })  # fmt: skip
    server = LocalServer(handler)
    yield handler, f"http://{server.host}/api/v1"
    server.close()


def ask(
    url: str, home: Path, request: str, parameters: dict[str, Any], worker: str = "fewshot"
) -> tuple[int, list[dict[str, Any]], str]:
    """The exit code, the lines of stdout and stderr of one request."""
    environment = {
        **os.environ, "PYTHONPATH": str(ROOT), "SAM_DETECT_HOME": str(home),
        "NI_API_KEY": "of another user", "SAM_DETECT_WORKER": worker,
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, str(WORKER / "entrypoint.py"), "--datasetId", DATASET, "--apiUrl", url,
         "--token", TOKEN, "--request", request, "--parameters", json.dumps(parameters)],
        capture_output=True, text=True, check=False, timeout=240, cwd=home, env=environment,
    )  # fmt: skip
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()], done.stderr


def form(**values: Any) -> dict[str, Any]:
    given = {name.replace("_", " "): value for name, value in values.items()}
    return {
        "workerInterface": {"Training Tag": ["disc"], "Model": "naive", **given},
        "tile": {"XY": 0, "Z": 0, "Time": 0}, "channel": 0, "tags": ["found"],
    }  # fmt: skip


def test_the_interface_has_the_names_and_defaults_that_users_know(
    fake: tuple[type[FakeNimbus], str], tmp_path: Path
) -> None:
    handler, url = fake
    code, lines, errors = ask(url, tmp_path, "interface", {"image": "sam-detect:1"})
    assert (code, lines) == (0, []), errors
    fields = handler.interfaces["sam-detect:1"]
    types = {name: field["type"] for name, field in fields.items()}
    assert "training tag" in fields["Few-shot"]["value"]
    assert types == {
        "Few-shot": "notes", "Training Tag": "tags", "Negative Tag": "tags", "Batch XY": "text",
        "Batch Z": "text",
        "Batch Time": "text", "Model": "select", "Similarity Threshold": "number",
        "Target Occupancy": "number", "Points per side": "number", "Min Mask Area": "number",
        "Max Mask Area": "number", "Smoothing": "number",
    }  # fmt: skip
    numbers = {n: (f["min"], f["max"], f["default"]) for n, f in fields.items() if "min" in f}
    assert numbers["Similarity Threshold"] == (0, 1, 0)
    assert numbers["Target Occupancy"] == (0.05, 0.8, 0.2)
    assert numbers["Points per side"] == (16, 256, 128)
    assert [numbers[n][2] for n in ("Min Mask Area", "Max Mask Area", "Smoothing")] == [30, 0, 0.3]
    assert fields["Model"]["default"] in fields["Model"]["items"]


def test_the_rest_of_the_objects_are_added_to_the_dataset(
    fake: tuple[type[FakeNimbus], str], tmp_path: Path
) -> None:
    handler, url = fake
    code, lines, errors = ask(url, tmp_path, "compute", form(Batch_Z="1-2"))
    assert code == 0, (lines, errors)
    steps = [line["progress"] for line in lines]
    assert steps == sorted(steps)
    assert steps[-1] == 1
    added = handler.annotations[3:]
    assert {tuple(row["tags"]) for row in added} == {("found",)}
    for z, expected in ((0, CENTRES[3:]), (1, CENTRES)):
        rows = [row for row in added if row["location"] == {"XY": 0, "Z": z, "Time": 0}]
        middles = [
            np.mean([[each["x"], each["y"]] for each in row["coordinates"]], axis=0) for row in rows
        ]
        places = {min(CENTRES, key=lambda c: float(np.hypot(*(m - c)))) for m in middles}
        assert places == set(expected)
        assert len(rows) == len(expected)
    assert TOKEN not in errors


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"Training_Tag": []}, "Training Tag is empty"),
        ({"Training_Tag": ["nucleus"]}, "no annotation has the training tag 'nucleus'"),
        ({"Negative_Tag": ["disc"]}, "share a tag"),
        ({"Batch_Z": "2-9"}, "Batch Z asks for plane 9"),
        ({"Batch_XY": "a"}, "Batch XY 'a' is no list of planes"),
        ({"Similarity_Threshold": 2}, "Similarity Threshold is 2: expected a number from 0 to 1"),
        ({"Points_per_side": 4}, "Points per side is 4: expected a number from 16 to 256"),
        ({"Smoothing": "much"}, "Smoothing is 'much'"),
        ({"Model": "sam3.pt"}, "Model 'sam3.pt' is not on this machine"),
    ],
)
def test_what_cannot_be_done_is_one_error_that_names_the_field(
    fake: tuple[type[FakeNimbus], str], tmp_path: Path, values: dict[str, Any], expected: str
) -> None:
    handler, url = fake
    code, lines, errors = ask(url, tmp_path, "compute", form(**values))
    assert code != 0
    assert expected in lines[-1]["error"]
    assert lines[-1]["type"] == "error"
    assert "Traceback" not in errors
    assert len(handler.annotations) == 3


def test_a_dataset_that_shows_nothing_is_an_error(
    fake: tuple[type[FakeNimbus], str], tmp_path: Path
) -> None:
    handler, url = fake
    handler.layers[0]["visible"] = False
    code, lines, _ = ask(url, tmp_path, "compute", form())
    assert code == 1
    assert "no layer of the dataset is visible" in lines[-1]["error"]


def test_a_server_that_refuses_half_way_is_reported_without_the_token(
    fake: tuple[type[FakeNimbus], str], tmp_path: Path
) -> None:
    handler, url = fake
    handler.refuse_after = 3
    code, lines, errors = ask(url, tmp_path, "compute", form())
    assert code == 1
    assert "the server answers 400" in lines[-1]["error"]
    assert TOKEN not in json.dumps(lines) + errors
    assert len(handler.annotations) == 3


def coarser(handler: type[FakeNimbus]) -> None:
    """The annotations become squares around their discs, and one of them vanishes."""
    for row, (x, y) in zip(handler.annotations, CENTRES, strict=False):
        r = RADIUS + 3
        row["coordinates"] = [
            {"x": x + 0.5 + a * r, "y": y + 0.5 + b * r}
            for a, b in ((-1, -1), (1, -1), (1, 1), (-1, 1))
        ]
    handler.annotations.append({
        **handler.annotations[0], "_id": "f" * 24,
        "coordinates": [{"x": 5.5, "y": 5.5}, {"x": 9.5, "y": 9.5}, {"x": 5.5, "y": 5.5}],
    })  # fmt: skip


def refined(**values: Any) -> dict[str, Any]:
    asked = {"Tag of objects to refine": ["disc"], "Model": "naive", **values}
    return {"workerInterface": asked, "tile": {"XY": 0, "Z": 0, "Time": 0}, "tags": ["fine"]}


def test_the_interface_of_refine_has_the_names_that_users_know(
    fake: tuple[type[FakeNimbus], str], tmp_path: Path
) -> None:
    handler, url = fake
    code, _, errors = ask(url, tmp_path, "interface", {"image": "refine:1"}, "refine")
    assert code == 0, errors
    fields = handler.interfaces["refine:1"]
    assert {name: (field["type"], field.get("default")) for name, field in fields.items()} == {
        "Refine": ("notes", None),
        "Batch XY": ("text", None), "Batch Z": ("text", None), "Batch Time": ("text", None),
        "Tag of objects to refine": ("tags", None), "Model": ("select", fields["Model"]["default"]),
        "Delete original annotations": ("checkbox", False), "Padding": ("number", 0),
        "Smoothing": ("number", 0.7),
    }  # fmt: skip
    assert (fields["Padding"]["min"], fields["Padding"]["max"]) == (-20, 20)


@pytest.mark.parametrize("delete", [False, True])
def test_annotations_of_a_dataset_are_refined(
    fake: tuple[type[FakeNimbus], str], tmp_path: Path, delete: bool
) -> None:
    handler, url = fake
    coarser(handler)
    asked = refined(**{"Delete original annotations": delete})
    code, lines, errors = ask(url, tmp_path, "compute", asked, "refine")
    assert code == 0, (lines, errors)
    assert any("1 annotations were kept" in json.dumps(line) for line in lines)
    made = [row for row in handler.annotations if row["tags"] == ["fine"]]
    assert len(made) == 3
    for row, (x, y) in zip(made, CENTRES, strict=False):
        corners = np.array([[each["x"], each["y"]] for each in row["coordinates"]])
        far = np.hypot(*(corners - (x + 0.5, y + 0.5)).T)
        assert np.median(np.abs(far - RADIUS)) < 1
        assert np.abs(far - RADIUS).max() < 4, "far less than the corners of the squares"
    assert f"annotation {'f' * 24}" in json.dumps(lines), "it is named by its own id"
    old = {row["_id"] for row in handler.annotations} - {row["_id"] for row in made}
    assert old == ({"f" * 24} if delete else {"f" * 24, *(f"{n:024x}" for n in (1, 2, 3))})


def test_originals_stay_where_the_refined_ones_are_refused(
    fake: tuple[type[FakeNimbus], str], tmp_path: Path
) -> None:
    handler, url = fake
    handler.refuse_after = 3
    asked = refined(**{"Delete original annotations": True})
    code, lines, _ = ask(url, tmp_path, "compute", asked, "refine")
    assert code == 1
    assert "the server answers 400" in lines[-1]["error"]
    assert len(handler.annotations) == 3


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"Padding": 30}, "Padding is 30: expected a number from -20 to 20"),
        ({"Tag of objects to refine": ["cell"]}, "no annotation has the tag to refine"),
        ({"Model": "sam3.pt"}, "Model 'sam3.pt' is not on this machine"),
    ],
)
def test_what_refine_cannot_do_is_one_error(
    fake: tuple[type[FakeNimbus], str], tmp_path: Path, values: dict[str, Any], expected: str
) -> None:
    handler, url = fake
    code, lines, errors = ask(url, tmp_path, "compute", refined(**values), "refine")
    assert code != 0
    assert expected in lines[-1]["error"]
    assert "Traceback" not in errors
    assert len(handler.annotations) == 3


def test_the_dockerfile_copies_files_that_exist_and_runs_pinned_and_unprivileged() -> None:
    text = (WORKER / "Dockerfile").read_text(encoding="utf-8")
    copied = [name for line in re.findall(r"^COPY (.+)", text, re.M) for name in line.split()[:-1]]
    assert copied
    assert all((ROOT / name).exists() for name in copied)
    ignored = (WORKER / "Dockerfile.dockerignore").read_text(encoding="utf-8")
    sent = {line[1:] for line in ignored.splitlines() if line.startswith("!")}
    assert set(copied) == sent
    assert re.search(r"^FROM \S+:\d", text, re.M)
    for command in re.findall(r"pip install ((?:[^&;\\]|\\\n)+)", text):
        assert "--require-hashes" in command or "--constraint scripts/constraints.txt" in command
    assert re.findall(r"^USER (\S+)", text, re.M)[-1] != "root"
    assert text.index("USER worker") < text.index("ENTRYPOINT")


@pytest.mark.docker
@pytest.mark.slow
def test_the_image_is_built_and_answers(tmp_path: Path) -> None:
    if shutil.which("docker") is None:
        pytest.skip("docker is not installed")
    if subprocess.run(["docker", "info"], capture_output=True, check=False).returncode:
        pytest.skip("no Docker engine is running")
    image = "sam-detect-worker:test"
    subprocess.run(
        ["docker", "build", "--file", str(WORKER / "Dockerfile"), "--tag", image, str(ROOT)],
        check=True,
    )
    told = subprocess.run(
        ["docker", "run", "--rm", image, "--help"], capture_output=True, text=True, check=True
    )
    assert "--datasetId" in told.stdout
