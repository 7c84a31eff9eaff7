"""An option acts, or is refused (exit 2): none is taken and does nothing."""

from __future__ import annotations

import ast
import inspect
import json
import textwrap
from pathlib import Path
from typing import Any

import click
import cv2
import numpy as np
import numpy.typing as npt
import pytest
from dataset_files import coco, write
from PIL import Image

from sam_detect import SAMDetect
from sam_detect.cli.app import COMMANDS, cli, run
from sam_detect.config import known_settings
from sam_detect.errors import ConfigError, RecipeMismatchError
from sam_detect.types import Detections
from sam_detect.vector_store import MemoryVectorStore

SETTINGS: dict[str, Any] = {
    # A value each, that must change what is found here.
    "min_area": 700, "max_area": 900, "max_proposals": 2, "occupancy": 0.6, "sigma": 2.0,
    "min_fade": 0.9, "max_distance": 1.0, "sigma_per_diameter": 3.0, "top_k": 1, "threshold": 0.99,
    "similarity_threshold": 0.999, "negatives": "margin", "crop_side": 16, "color_order": "rgb",
    # Refused: they belong to parts or places that are not used here.
    "decay": 0.5, "pooling": "crop", "shape_prior": 9.0, "sam_model": "tiny", "prompts": "blobs",
    "points_per_side": 4, "text_labels": "nut", "text_templates": "a {}", "text_weight": 0.5,
    "clip_model": "base", "qdrant_url": "http://x", "qdrant_api_key": "k", "qdrant_batch_size": 5,
    "qdrant_timeout_s": 4, "lock_timeout_s": 1.0, "dtype": "bf16", "occupancies": "0.2,0.4",
    "pred_iou_thresh": 0.5, "stability_score_thresh": 0.5, "box_nms_thresh": 0.5,
    "crop_n_layers": 1, "compile": True, "text_none": "a table|a hand", "scale": 0.5,
}  # fmt: skip
DISCS = [(30, 30, 14, (60, 120, 200)), (100, 34, 14, (60, 130, 190)), (40, 100, 18, (60, 180, 60)),
         (110, 110, 18, (70, 175, 60)), (200, 40, 14, (62, 125, 195)), (226, 46, 14, (60, 180, 70)),
         (190, 140, 17, (60, 150, 130))]  # fmt: skip
ELSEWHERE = {
    "segmenter", "embedder", "fade", "labeller", "store", "similar_regions", "forest", "outlines",
    "tile", "library", "device", "offline", "embedding_cache_size", "kept_vectors_mb",
    "max_image_pixels", "frame_rate", "stream_timeout_s", "stream_retries", "playlist_hosts",
}  # fmt: skip
"""Which parts are used (each has tests of its own), where things are kept, how quick it is, and
what only videos read (tested below)."""


def commands() -> list[tuple[str, click.Command]]:
    found: list[tuple[str, click.Command | None]] = []
    with click.Context(cli) as context:
        for name in COMMANDS:
            command = cli.get_command(context, name)
            if isinstance(command, click.Group):
                found += [(f"{name} {each}", inner) for each, inner in command.commands.items()]
            else:
                found.append((name, command))
    return [(name, command) for name, command in found if command is not None]


# What each command takes, it uses


@pytest.mark.parametrize(("name", "command"), commands(), ids=[name for name, _ in commands()])
def test_each_parameter_of_a_command_is_read_in_it(name: str, command: click.Command) -> None:
    assert command.callback is not None
    source = textwrap.dedent(inspect.getsource(inspect.unwrap(command.callback)))
    function = ast.parse(source).body[0]
    assert isinstance(function, ast.FunctionDef)
    read = {each.id for each in ast.walk(function) if isinstance(each, ast.Name)}
    arguments = function.args
    named = {each.arg for each in (*arguments.args, *arguments.kwonlyargs)}
    assert named <= read, f"{name} never reads {named - read}"
    taken = {each.name for each in command.params if each.expose_value}
    assert named <= taken
    assert taken == named or arguments.kwarg, f"{name} has options that nothing reads"


# What each setting changes


def test_each_setting_is_tried_here() -> None:
    assert set(known_settings()) == {*SETTINGS, *ELSEWHERE}, "give it a value"


def scene() -> npt.NDArray[np.uint8]:
    """Six discs of two colours, two of them touching, and a bar; a little noise."""
    noise = np.random.default_rng(0).integers(225, 245, (200, 260, 3), dtype=np.uint8)
    for x, y, radius, colour in DISCS:
        cv2.circle(noise, (x, y), radius, colour, -1)
    cv2.rectangle(noise, (20, 160), (90, 172), (60, 120, 200), -1)
    return noise


def outcome(found: Detections) -> Any:
    rows = [(*each.bbox, each.area, each.label, round(each.confidence, 4),
             each.explanation and each.explanation.threshold,
             tuple(n.id for n in each.neighbours)) for each in found]  # fmt: skip
    return {k: v for k, v in found.recipe.items() if k != "dimension"}, rows


@pytest.fixture(scope="module")
def taught() -> MemoryVectorStore:
    """A library of what the scene shows, from the scene and from its mirror image."""
    store = MemoryVectorStore()
    detector, mirrored = SAMDetect("naive", "appearance", vector_store=store), np.flip(scene(), 1)
    for picture, places in ((scene(), [(x, y) for x, y, *_ in DISCS]),
                            (mirrored.copy(), [(259 - x, y) for x, y, *_ in DISCS])):  # fmt: skip
        detector.learn(picture, "nut", points_xy=[places[i] for i in (0, 1, 4)])
        detector.learn(picture, "leaf", points_xy=[places[i] for i in (2, 3)])
    detector.learn(mirrored.copy(), "leaf", points_xy=[(259 - x, y) for x, y, *_ in DISCS[6:]],
                   negative=True)  # fmt: skip
    return store


def changed(store: MemoryVectorStore, **option: Any) -> Any:
    """What is found with an option; None where it is refused."""
    given = {"segmenter": "naive", "embedder": "appearance", **option}
    try:
        found = SAMDetect(vector_store=store, **given).detect(scene())
    except (ConfigError, RecipeMismatchError):
        return None
    return outcome(found)


@pytest.fixture(scope="module")
def usual(taught: MemoryVectorStore) -> Any:
    return changed(taught)


@pytest.mark.parametrize("option", sorted(SETTINGS))
def test_a_setting_changes_what_is_found_or_is_refused(
    option: str, taught: MemoryVectorStore, usual: Any
) -> None:
    assert changed(taught, **{option: SETTINGS[option]}) != usual


def test_what_shapes_cost_needs_vectors_with_shapes() -> None:
    for name in ("average", "appearance"):
        with pytest.raises(ConfigError, match=f"shape_prior changes nothing .* '{name}'.*'lite'"):
            SAMDetect("naive", name, vector_store="memory", shape_prior=1)
        assert SAMDetect("naive", name, vector_store="memory", shape_prior=0)
    assert SAMDetect("naive", "lite", vector_store="memory", shape_prior=1)


def test_a_file_of_settings_may_hold_options_of_other_runs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SAM_DETECT_SHAPE_PRIOR", "1")
    monkeypatch.setenv("SAM_DETECT_QDRANT_TIMEOUT_S", "3")
    assert SAMDetect("naive", "average", vector_store="memory")


# What a command is asked for together


REFUSED = {
    "a page that is not served": ("video {dir} --port 80", "--port"),
    "its host": ("video {dir} --host 0.0.0.0", "--host"),
    "key frames of every frame": ("video {dir} --no-track --every 3", "--every"),
    "what carries nothing": ("video {dir} --no-track --propagate flow", "--propagate"),
    "the rate of a file": ("video {file} --frame-rate 3", "--frame-rate"),
    "a stream's time": ("video {dir} --stream-timeout-s 3", "--stream-timeout-s"),
    "a playlist of a camera": ("video 0 --playlist-hosts any", "--playlist-hosts"),
    "retries of a file": ("video {file} --stream-retries 3", "--stream-retries"),
    "outlines of a table": ("detect {file} --format csv --smoothing 2", "--smoothing"),
    "outlines that are printed": ("detect {file} --smoothing 2", "--smoothing"),
    "reasons that nothing shows": ("detect {file} --format csv --explain", "--explain"),
    "reasons in COCO": ("detect {file} --format coco --explain", "--explain"),
    "overlap of pixels": ("evaluate {dir} --task semantic --iou 0.6", "--iou"),
    "objects of pixels": ("evaluate {dir} --task semantic --visualize {dir}/x", "--visualize"),
    "parts of other methods": ("evaluate {dir} --method a.b:C --top-k 3", "--top-k"),
    "coordinates of no file": ("learn {file} --label a --box 1,1,9,9 --pixel-centres",
                               "--pixel-centres"),
    "how coordinates of no file fit": ("learn {file} --label a --box 1,1,9,9 --fit as-is", "--fit"),
    "guesses of a mask": ("learn {file} --label a --masks {file} --accept-guess", "--accept-guess"),
    "guesses of the separate": ("learn {file} --label a --masks auto --accept-guess",
                                "--accept-guess"),
    "guesses of a point": ("learn {file} --label a --point 30,30 --accept-guess", "--accept-guess"),
    "the background of negatives": ("learn {file} --label a --masks {file} --negative --exhaustive",
                                    "--exhaustive"),
    "proposals for masks": ("learn {file} --label a --masks {file} --negative --max-proposals 9",
                            "--max-proposals"),
    "who proposes for masks": ("learn {file} --label a --masks {file} --negative --segmenter naive",
                               "--segmenter"),
    "a name beside a tag": ("learn {file} --annotations {coco} --tag nut --label a", "--label"),
    "a name of those that have some": ("learn {file} --annotations {coco} --label a", "--label"),
    "pixels in YOLO": ("learn {file} --annotations {yolo} --pixel-centres", "--pixel-centres"),
    "the crop of none": ("library show --output {dir}/x.png", "--output"),
    "a server's time": ("library stats --qdrant-timeout-s 3", "qdrant_timeout_s"),
    "of all libraries": ("library list --qdrant-timeout-s 3", "qdrant_timeout_s"),
    "a lock on a server": ("library stats --qdrant-url http://127.0.0.1:9 --lock-timeout-s 1",
                           "lock_timeout_s"),
    "two limits": ("detect {file} --threshold 0.4 --similarity-threshold 0.5", "threshold"),
    "shapes by colours": ("detect {file} --embedder average --shape-prior 1", "shape_prior"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_an_option_that_cannot_act_is_a_usage_error(
    case: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "scene.png"
    Image.fromarray(scene()).save(file)
    line, option = REFUSED[case]
    data = coco(image={"file_name": "scene.png", "height": 200, "width": 260})
    write(tmp_path / "scene.txt", "0 .1154 .15 .1077 .14")
    places = {"dir": tmp_path, "file": file, "coco": write(tmp_path / "a.json", json.dumps(data)),
              "yolo": write(tmp_path / "classes.txt", "nut")}  # fmt: skip
    words = [each.format(**places) for each in line.split()]
    assert run(words) == 2
    [said] = [e for e in capfd.readouterr().err.splitlines() if e.startswith("error: ")]
    assert f"{option} would change nothing" in said or f"{option} changes nothing" in said


def test_the_same_options_are_taken_where_they_act(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "scene.png"
    Image.fromarray(scene()).save(file)
    mask = cv2.circle(np.zeros((200, 260), np.uint8), (30, 30), 14, 1, -1)
    Image.fromarray(mask).save(tmp_path / "mask.png")
    for line in (
        f"detect {file} --format geojson --output {tmp_path}/x.geojson --smoothing 2",
        f"detect {file} --format csv --output {tmp_path}/x.csv --explain",
        f"detect {file} --json --explain",
        f"detect {file} --similarity-threshold 0.5",
        f"video {tmp_path}/*.png --no-track --frame-rate 3 --json",
        "library list --lock-timeout-s 1",
        f"learn {file} --label a --box 16,16,29,29 --accept-guess",
        f"learn {file} --label a --masks {tmp_path}/mask.png --max-proposals 9",
        f"learn {file} --annotations {tmp_path}/mask.png --label a --fit as-is --max-proposals 9",
    ):
        assert run(line.split()) == 0, (line, capfd.readouterr().err)
