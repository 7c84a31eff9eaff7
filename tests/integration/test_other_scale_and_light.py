"""A picture unlike those of the examples: a check by its count, and --scale auto."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from cli_harness import Command, in_this_process
from PIL import Image

from sam_detect.pipeline.scaling import at_size, detect_at_scale, rescaled
from sam_detect.types import Classification, Detections, Frame, Masks

BEANS = 9


def tray(seed: int, size_wh: tuple[int, int] = (360, 300)) -> tuple[np.ndarray, list[np.ndarray]]:
    """``(H, W, 3)`` uint8 RGB of brown beans on paper, and the mask of each."""
    rng = np.random.default_rng(seed)
    picture = rng.normal((222, 214, 190), 4, (size_wh[1], size_wh[0], 3))
    masks = []
    for index in range(BEANS):
        mask = np.zeros(picture.shape[:2], np.uint8)
        centre = 60 + index % 3 * 120, 50 + index // 3 * 100
        axes = int(rng.integers(20, 25)), int(rng.integers(11, 14))
        cv2.ellipse(mask, centre, axes, float(rng.integers(0, 180)), 0, 360, 1, -1)
        masks.append(mask > 0)
        picture[masks[-1]] = rng.normal((110, 62, 30), 7, (int(mask.sum()), 3))
    return np.clip(picture, 0, 255).astype(np.uint8), masks


@pytest.fixture
def sam(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Command:
    """The command in a folder of pictures of which one tray has been learnt."""
    monkeypatch.chdir(tmp_path)
    picture, masks = tray(1)
    Image.fromarray(picture).save("taught.png")
    ids = sum(number * mask for number, mask in enumerate(masks, start=1))
    Image.fromarray(np.asarray(ids, np.uint8)).save("ids.png")
    Path("trays").mkdir()
    other = Image.fromarray(tray(2)[0])
    other.save("trays/same.png")
    other.resize((1800, 1500), Image.Resampling.BICUBIC).save("trays/large.png")
    other.point(lambda value: value // 5).save("trays/dark.png")
    command = in_this_process(capfd)
    command("learn", "taught.png", "--label", "bean", "--masks", "ids.png").worked()
    return command


def test_a_count_that_may_be_wrong_says_why(sam: Command) -> None:
    printed = sam("detect", "trays", "--format", "counts").worked().out
    rows = {row["image"]: row for row in csv.DictReader(io.StringIO(printed))}
    assert int(rows["same.png"]["bean"]) == BEANS
    assert not rows["same.png"]["check"]
    assert int(rows["large.png"]["bean"]) < BEANS
    assert "larger" in rows["large.png"]["check"]
    assert "--scale auto" in rows["large.png"]["check"]
    assert int(rows["dark.png"]["bean"]) < BEANS
    assert "darker" in rows["dark.png"]["check"]
    assert not rows["total"]["check"]


def test_the_line_of_a_picture_and_its_json_have_the_check(sam: Command) -> None:
    line = sam("detect", "trays/dark.png").worked().out.splitlines()[0]
    assert "(check: " in line
    assert "darker" in line
    (found,) = sam("detect", "trays/dark.png", "--json").worked().json
    assert found["check"] in line
    (found,) = sam("detect", "trays/same.png", "--json").worked().json
    assert "check" not in found


@pytest.mark.parametrize("scale", ["auto", "0.2"])
def test_objects_of_another_size_are_found_at_their_scale(sam: Command, scale: str) -> None:
    (found,) = sam("detect", "trays/large.png", "--scale", scale, "--json").worked().json
    assert (found["height"], found["width"]) == (1500, 1800)
    beans = [each for each in found["detections"] if each["label"] == "bean"]
    assert len(beans) == BEANS
    assert "check" not in found
    truth = [cv2.resize(m.astype(np.uint8), (1800, 1500)) > 0 for m in tray(2)[1]]
    for each in beans:
        x, y, w, h = each["bbox"]
        mask = next(m for m in truth if m[y + h // 2, x + w // 2])
        assert abs(each["area"] / np.count_nonzero(mask) - 1) < 0.2


def test_auto_leaves_a_picture_of_the_same_scale_as_it_is(sam: Command) -> None:
    plain, auto = (
        sam("detect", "trays/same.png", "--json", *scale).worked().json[0]
        for scale in ([], ["--scale", "auto"])
    )
    assert json.dumps(plain["detections"]) == json.dumps(auto["detections"])


@pytest.mark.parametrize("scale", ["0", "-1", "nan", "wide", "100"])
def test_a_scale_out_of_range_is_a_usage_error(sam: Command, scale: str) -> None:
    said = sam("detect", "trays/same.png", "--scale", scale).failed("scale", code=2)
    assert "'auto' or a number" in said


def test_masks_come_back_to_their_place_whatever_the_rounding() -> None:
    frame = Frame(np.zeros((101, 77, 3), np.uint8))
    for scale in (0.125, 0.3, 1.7):
        small = rescaled(frame, scale)
        height, width = small.size_hw
        dense = np.zeros((2, height, width), bool)
        dense[0, -1, -1] = dense[1, :, 0] = True
        named = Classification("dot", "dot", 0.9)
        found = at_size(Detections("", Masks.from_dense(dense), (named, named)), frame)
        assert found.size_hw == (101, 77)
        (x0, y0, x1, y1), line = found.boxes_xyxy.tolist()
        assert (x1, y1) == (77, 101)
        assert max(x1 - x0, y1 - y0) <= 1 / scale + 1
        assert line[:2] == [0, 0]
        assert line[3] == 101


def test_the_best_scale_is_the_one_with_most_confidence_and_as_it_is_in_doubt() -> None:
    frame = Frame(np.zeros((400, 400, 3), np.uint8))
    surest = {400: 0.6, 200: 0.7, 100: 0.0, 800: 0.0}

    def detect(seen: Frame) -> Detections:
        dense = np.ones((1, *seen.size_hw), bool)
        answer = Classification("a", "a", surest[seen.size_hw[0]])
        return Detections(str(seen.size_hw[0]), Masks.from_dense(dense), (answer,))

    assert detect_at_scale(frame, "auto", detect).source_id == "400"
    surest[200] = 0.8
    assert detect_at_scale(frame, "auto", detect).source_id == "200"
