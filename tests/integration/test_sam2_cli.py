"""`sam-detect ... --segmenter sam2` with a checkpoint made here, without any network."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("sam2")

from cli_harness import Command, box_around, in_this_process, saved  # noqa: E402
from sam2_helpers import write_small_sam2  # noqa: E402

from sam_detect import SAMDetect  # noqa: E402
from sam_detect.segmentation.sam2 import SAM2Segmenter  # noqa: E402
from sam_detect.sources import load_image  # noqa: E402


@pytest.fixture
def sam(capfd: pytest.CaptureFixture[str]) -> Command:
    return in_this_process(capfd)


@pytest.fixture
def checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    saved(tmp_path / "shapes.png")
    return write_small_sam2(tmp_path, sure=True).relative_to(tmp_path)


@pytest.mark.parametrize("prompts", ["grid", "adaptive", "blobs"])
def test_a_picture_is_detected_with_a_checkpoint(
    sam: Command, checkpoint: Path, prompts: str
) -> None:
    ran = sam("detect", "shapes.png", "--segmenter", "sam2", "--sam-model", checkpoint,
              "--points-per-side", "8", "--prompts", prompts, "--device", "cpu",
              "--label", "thing", "--store", "memory", "--json").worked()  # fmt: skip
    [found] = ran.json
    assert "segmenter sam2" in ran.err
    assert (found["width"], found["height"]) == (280, 200)
    assert len(found["detections"]) >= 1
    for each in found["detections"]:
        x, y, w, h = each["bbox"]
        assert x >= 0 and y >= 0 and x + w <= 280 and y + h <= 200  # noqa: PT018
        assert each["area"] <= w * h
    assert {each["label"] for each in found["detections"]} <= {"thing", None}


def test_a_checkpoint_asks_for_sam2_by_itself(sam: Command, checkpoint: Path) -> None:
    ran = sam("shapes.png", "--sam-model", checkpoint, "--points-per-side", "4", "--json").worked()
    assert "segmenter sam2" in ran.err
    assert len(ran.json) == 1


def test_boxes_and_points_are_drawn_by_sam2(sam: Command, checkpoint: Path) -> None:
    model = write_small_sam2(Path(), "other", seed=2)  # whose answers differ from place to place
    box, point = box_around(120, 50), "210,40"
    options = ("--sam-model", model, "--points-per-side", "2", "--device", "cpu",
               "--embedder", "average", "--json")  # fmt: skip
    ran = sam("learn", "shapes.png", "--label", "disc", "--box", box, "--point", point, *options)
    assert ran.worked().json == [{"added": 2, "total": 2}]
    drawing, frame = SAM2Segmenter(model, "cpu", points_per_side=2), load_image("shapes.png")
    x, y, w, h = (int(each) for each in box.split(","))
    drawn = [
        drawing.segment_boxes(frame, [(x, y, w, h)]),
        drawing.segment_points(frame, [(210, 40)]),
    ]
    learnt = [each.segmentation for each in SAMDetect(segmenter="naive").library.read()]
    assert len(learnt) == 2
    assert all(masks.rle(0) in learnt for masks in drawn)
    shape = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [x, y, w, h]}
    boxes = {"images": [{"id": 1, "file_name": "shapes.png", "width": 280, "height": 200}],
             "annotations": [shape], "categories": [{"id": 1, "name": "disc"}]}  # fmt: skip
    Path("boxes.json").write_text(json.dumps(boxes))
    again = sam("learn", "shapes.png", "--annotations", "boxes.json", *options).worked()
    assert again.json == [{"added": 0, "total": 2}], "the same object, drawn in the same way"


def test_what_cannot_be_loaded_is_said_in_one_line(sam: Command, checkpoint: Path) -> None:
    sam("shapes.png", "--sam-model", "none.pt").failed("none.pt", code=2)
    Path("cut.pt").write_bytes(checkpoint.read_bytes()[:1000])
    Path("cut.yaml").write_text(checkpoint.with_suffix(".yaml").read_text())
    sam("shapes.png", "--sam-model", "cut.pt").failed("cut.pt", "damaged", code=2)
    sam("shapes.png", "--sam-model", checkpoint, "--points-per-side", "0").failed(
        "points_per_side", code=2
    )
    if not torch.cuda.is_available():
        sam("shapes.png", "--sam-model", checkpoint, "--device", "cuda").failed(
            "no CUDA GPU", "'cpu'", code=2
        )
