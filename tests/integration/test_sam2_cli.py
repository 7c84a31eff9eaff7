"""`sam-detect ... --segmenter sam2` with a checkpoint made here, without any network."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch")
pytest.importorskip("sam2")

from cli_harness import Command, box_around, in_this_process, saved  # noqa: E402
from sam2_helpers import write_small_sam2  # noqa: E402

from sam_detect import SAMDetect  # noqa: E402
from sam_detect.io import load_image  # noqa: E402
from sam_detect.segmentation import sam2 as sam2_module  # noqa: E402
from sam_detect.segmentation.sam2 import SAM2Segmenter  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_torch_thread")

MODELS = ("--segmenter", "sam2", "--embedder", "sam2", "--points-per-side", "4", "--device", "cpu")


@pytest.fixture
def sam(capfd: pytest.CaptureFixture[str]) -> Command:
    return in_this_process(capfd)


@pytest.fixture
def checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    saved(tmp_path / "shapes.png")
    return write_small_sam2(tmp_path, sure=True).relative_to(tmp_path)


@pytest.mark.parametrize("prompts", ["grid", "adaptive", "blobs", "similarity"])
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
               "--embedder", "average", "--accept-guess", "--json")  # fmt: skip
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


def written(path: str, content: object) -> str:
    """A file that is to be a checkpoint."""
    if isinstance(content, bytes):
        Path(path).write_bytes(content)
    else:
        torch.save(content, path)
    return path


def spoilt(checkpoint: Path, value: float) -> dict[str, Any]:
    content: dict[str, Any] = torch.load(checkpoint, weights_only=True)
    content["model"]["no_mem_embed"].fill_(value)
    return content


BAD_MODELS: dict[str, tuple[Callable[[Path], str], tuple[str, ...]]] = {
    "missing": (lambda good: "none.pt", ("there is no", "none.pt")),
    "a folder": (lambda good: "./", ("is a folder", "file of weights")),
    "truncated": (
        lambda good: written("cut.pt", good.read_bytes()[:1000]), ("cut.pt", "damaged"),
    ),
    "a text": (lambda good: written("text.pt", b"hello"), ("text.pt", "damaged")),
    "empty": (lambda good: written("empty.pt", b""), ("empty.pt", "damaged")),
    "of something else": (
        lambda good: written("else.pt", {"weights": torch.ones(2)}), ("else.pt", "does not fit"),
    ),
    "of another model": (
        lambda good: written("other.pt", {"model": {"layer": torch.ones(2)}}),
        ("other.pt", "does not fit any SAM 2 model"),
    ),
    "NaN": (lambda good: written("nan.pt", spoilt(good, float("nan"))),
            ("nan.pt", "no_mem_embed", "NaN")),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_MODELS)
@pytest.mark.parametrize("part", ["segmenter", "embedder"])
def test_a_model_that_cannot_be_used_is_said_in_one_line(
    sam: Command, checkpoint: Path, name: str, part: str
) -> None:
    make, words = BAD_MODELS[name]
    sam("shapes.png", f"--{part}", "sam2", "--sam-model", make(checkpoint)).failed(*words, code=2)


def test_other_settings_that_cannot_be_used_are_said_in_one_line(
    sam: Command, checkpoint: Path
) -> None:
    for points in ("0", "257", "many", "2.5"):
        ran = sam("shapes.png", "--sam-model", checkpoint, "--points-per-side", points)
        ran.failed("points_per_side", "'auto'", "from 1 to 256", code=2)
    sam("shapes.png", "--sam-model", checkpoint, "--prompts", "all").failed("grid", code=2)
    if not torch.cuda.is_available():
        sam("shapes.png", "--sam-model", checkpoint, "--device", "cuda").failed(
            "no CUDA GPU", "'cpu'", code=2
        )


def mask_file(name: str, *pixels: tuple[int, int], size_hw: tuple[int, int] = (200, 280)) -> str:
    mask = np.zeros(size_hw, np.uint8)
    for x, y in pixels:
        mask[y, x] = 255
    Image.fromarray(mask).save(name)
    return name


@pytest.mark.parametrize(("how", "words"), [
    (lambda: ("--masks", mask_file("empty.png")), ("empty.png", "0 everywhere")),
    (lambda: ("--masks", mask_file("other.png", (5, 5), size_hw=(50, 60))), ("60x50", "280x200")),
    (lambda: ("--box", "300,10,30,30"), ("300,10,30,30", "280x200")),
    (lambda: ("--point", "10,200"), ("10,200", "outside", "280x200")),
])  # fmt: skip
@pytest.mark.parametrize("pooling", ["crop", "frame"])
def test_an_object_that_is_not_in_the_picture_is_said(
    sam: Command, checkpoint: Path, how: Callable[[], tuple[str, str]], words: tuple[str, ...],
    pooling: str,
) -> None:  # fmt: skip
    models = (*MODELS, "--sam-model", checkpoint, "--pooling", pooling)
    ran = sam("learn", "shapes.png", "--label", "x", *how(), *models)
    ran.failed("shapes.png", *words, code=1)
    assert "learnt 0 examples" in ran.err


@pytest.mark.parametrize("pooling", ["crop", "frame"])
def test_objects_and_pictures_of_one_pixel(sam: Command, checkpoint: Path, pooling: str) -> None:
    mask_file("pixel.png", (0, 0), size_hw=(1, 1))
    models = (*MODELS, "--sam-model", checkpoint, "--pooling", pooling)
    ran = sam("learn", "shapes.png", "--label", "x", "--masks", mask_file("one.png", (279, 199)),
              *models).worked()  # fmt: skip
    assert "learnt 1 example" in ran.err
    sam("learn", "pixel.png", "--label", "x", "--masks", "pixel.png", *models).worked()
    [found] = sam("detect", "pixel.png", *models, "--json").worked().json
    assert [each["bbox"] for each in found["detections"]] == [[0, 0, 1, 1]], "as it was taught"
    [found] = sam("detect", "shapes.png", *models, "--prompts", "blobs", "--json").worked().json
    assert found["recipe"]["embedder"] == "sam2"


def test_weights_that_give_no_numbers_are_said(sam: Command, checkpoint: Path) -> None:
    content = torch.load(checkpoint, weights_only=True)
    for tensor in content["model"].values():
        tensor.mul_(1e30)
    torch.save(content, checkpoint)
    sam("shapes.png", "--sam-model", checkpoint).failed("sees no numbers", "fp32", code=2)


@pytest.mark.parametrize("prompts", ["grid", "blobs"])
def test_the_grid_follows_the_examples(
    sam: Command, checkpoint: Path, monkeypatch: pytest.MonkeyPatch, prompts: str
) -> None:
    asked: list[tuple[int, str]] = []
    plain = sam2_module.masks_of_everything

    def noted(model: Any, image: Any, plan: Any, prompter: Any, features: Any) -> Any:
        asked.append((plan.per_side, str(getattr(prompter, "areas", None))))
        few = replace(plan, per_side=min(plan.per_side, 4))
        return plain(model, image, few, prompter, features)

    monkeypatch.setattr(sam2_module, "masks_of_everything", noted)
    options = ("--sam-model", checkpoint, "--embedder", "average", "--points-per-side", "auto",
               "--prompts", prompts, "--device", "cpu")  # fmt: skip
    sam("detect", "shapes.png", *options).worked()
    square = [(x, y) for x in range(20, 27) for y in range(30, 37)]
    sam("learn", "shapes.png", "--label", "x", "--masks", mask_file("m.png", *square),
        *options).worked()  # fmt: skip
    sam("detect", "shapes.png", *options).worked()
    areas = {"grid": ["None"] * 3, "blobs": ["(0, 0)", *[str((49 / np.e, 49 * np.e))] * 2]}[prompts]
    fine = int(np.ceil(np.hypot(200, 280) / (2 * (49 / np.pi) ** 0.5)))
    assert asked == list(zip([32, fine, fine], areas, strict=True))
