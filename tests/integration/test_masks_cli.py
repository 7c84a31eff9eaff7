"""``learn`` from mask pictures and annotations in pieces: what becomes an example, and is said."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from cli_harness import DISCS, RADIUS, Command, in_this_process, saved
from PIL import Image

from sam_detect import SAMDetect
from sam_detect.errors import ConfigError
from sam_detect.types.masks import crop_to_rle
from sam_detect.vector_store import MemoryVectorStore


@pytest.fixture
def sam(capfd: pytest.CaptureFixture[str]) -> Command:
    return in_this_process(capfd)


@pytest.fixture
def size_hw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[int, int]:
    """Of the drawn picture ``shapes.png`` in the current folder."""
    monkeypatch.chdir(tmp_path)
    with Image.open(saved(tmp_path / "shapes.png")) as image:
        return image.height, image.width


def discs(size_hw: tuple[int, int], count: int = 3) -> np.ndarray:
    mask = np.zeros(size_hw, np.uint8)
    for x, y in DISCS[:count]:
        cv2.circle(mask, (x, y), RADIUS, 255, -1)
    return mask


def in_nine(size_hw: tuple[int, int]) -> np.ndarray:
    """The first disc behind two upright and two level bars."""
    mask, (x, y) = discs(size_hw, 1), DISCS[0]
    for at in (-7, 5):
        mask[:, x + at : x + at + 3] = mask[y + at : y + at + 3] = 0
    assert cv2.connectedComponents(mask)[0] == 10
    return mask


def learn(sam: Command, *arguments: Any) -> Any:
    return sam("learn", "shapes.png", "--label", "disc", *arguments)


def test_a_mask_of_separate_objects_is_an_example_each(
    sam: Command, size_hw: tuple[int, int]
) -> None:
    Image.fromarray(discs(size_hw)).save("m.png")
    Image.fromarray(discs(size_hw)).save("m.jpg", quality=80)
    said = learn(sam, "--masks", "m.png").worked().err
    assert "m.png: 3 pieces of one value are 3 examples (learn --pieces one, in Python" in said
    assert "learnt 3 examples; " in said
    said = learn(sam, "--annotations", "m.jpg", "--library", "b").worked().err
    assert "m.jpg has" in said
    assert "learnt 3 examples; " in said
    said = learn(sam, "--masks", "m.png", "--pieces", "one", "--library", "c").worked().err
    assert "learnt 1 example of 3 pieces; " in said


def test_an_object_behind_bars_is_one_example(sam: Command, size_hw: tuple[int, int]) -> None:
    Image.fromarray(in_nine(size_hw)).save("m.png")
    for number, option in enumerate(("--masks", "--annotations")):
        said = learn(sam, option, "m.png", "--library", f"one{number}").worked().err
        assert "9 pieces of one value are 1 example of 9 pieces, as they share a hull" in said
        assert "learnt 1 example of 9 pieces; " in said
        each = learn(sam, option, "m.png", "--pieces", "each", "--library", f"each{number}")
        assert "learnt 9 examples; " in each.worked().err


def coco(size_hw: tuple[int, int], segmentation: Any) -> dict[str, Any]:
    return {
        "images": [{"id": 1, "file_name": "shapes.png", "width": size_hw[1], "height": size_hw[0]}],
        "categories": [{"id": 1, "name": "disc"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "iscrowd": 0,
                         "segmentation": segmentation}],
    }  # fmt: skip


@pytest.mark.parametrize("name", ["polygons", "run lengths", "label map", "LabelMe's mask"])
def test_one_annotation_in_pieces_is_one_example(
    sam: Command, size_hw: tuple[int, int], name: str
) -> None:
    mask = in_nine(size_hw)
    crop, whole = mask > 0, (0, 0, size_hw[1], size_hw[0])
    if name == "polygons":
        found, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        content: Any = coco(size_hw, [(each[:, 0] + 0.5).ravel().tolist() for each in found])
    elif name == "run lengths":
        content = coco(size_hw, crop_to_rle(crop, whole, size_hw))
    elif name == "LabelMe's mask":
        png = io.BytesIO()
        Image.fromarray(crop).save(png, "PNG")
        shape = {"label": "disc", "shape_type": "mask", "points": [[0, 0], [9, 9]],
                 "mask": base64.b64encode(png.getvalue()).decode()}  # fmt: skip
        content = {"shapes": [shape], "imagePath": "shapes.png"}
    file = "map.png" if name == "label map" else "a.json"
    if name == "label map":
        numbers = np.where(crop, 7, 0).astype(np.uint8)
        x, y = DISCS[3]
        cv2.circle(numbers, (x, y), RADIUS, 9, -1)
        cv2.circle(numbers, (12, 12), 4, 11, -1)
        Image.fromarray(numbers).save(file)
    else:
        Path(file).write_text(json.dumps(content))
    said = learn(sam, "--annotations", file).worked().err
    alone = name != "label map"
    some = "1 example of 9" if alone else "3 examples, 1 of them of 9"
    assert f"learnt {some} pieces; " in said
    each = learn(sam, "--annotations", file, "--pieces", "each", "--library", "each").worked().err
    assert f"learnt {9 if alone else 11} examples; " in each


def test_an_option_that_cannot_act_is_a_usage_error(sam: Command, size_hw: tuple[int, int]) -> None:
    for given in (("--masks", "auto"), ("--box", "10,10,40,40")):
        learn(sam, *given, "--pieces", "one").failed("--pieces", "--masks FILE", code=2)
    assert learn(sam, "--masks", "auto", "--pieces", "both").code == 2


def test_python_takes_mask_files_and_pieces(size_hw: tuple[int, int]) -> None:
    def learnt(masks: Any, **more: Any) -> int:
        detector = SAMDetect(vector_store=MemoryVectorStore(), embedder="average")
        return detector.learn("shapes.png", "disc", masks=masks, **more).added

    Image.fromarray(discs(size_hw)).save("m.png")
    with pytest.warns(
        UserWarning, match=r"3 examples \(learn --pieces one, in Python pieces='one'"
    ):
        assert learnt("m.png") == 3
    with pytest.warns(UserWarning, match="1 example of 9 pieces"):
        assert learnt(in_nine(size_hw)) == 1
    assert learnt(Path("m.png"), pieces="one") == 1
    assert learnt(discs(size_hw)[None] > 0) == 1, "an array of masks has one object each"
    assert learnt(in_nine(size_hw) > 0, pieces="each") == 9
    numbers = cv2.connectedComponents(discs(size_hw))[1]
    assert learnt(numbers) == 3
    for masks, pieces in (("m.png", "two"), ("auto", "one"), (None, "one"), ("no.png", None)):
        with pytest.raises(ConfigError, match=r"pieces|must be 'auto'"):
            learnt(masks, pieces=pieces, boxes_xywh=[[10, 10, 40, 40]])


# Photographs beside annotations


@pytest.mark.parametrize("mode", ["L", "RGB", "P"])
@pytest.mark.parametrize("elsewhere", [False, True])
def test_labelme_s_photographs_are_no_label_maps(
    sam: Command, size_hw: tuple[int, int], mode: str, elsewhere: bool
) -> None:
    folder = Path("labelme")
    folder.mkdir()
    x, y = DISCS[0]
    square = [[x - 15, y - 15], [x + 15, y - 15], [x + 15, y + 15], [x - 15, y + 15]]
    shape = {"label": "disc", "points": square, "shape_type": "polygon"}
    with Image.open("shapes.png") as image:
        for name in ("a", "b"):
            image.convert(mode).save(folder / f"{name}.png")
    # The second JSON file is called otherwise than the picture that it names.
    for name, file in (("a", "a"), ("b", "second")):
        data = {"shapes": [shape], "imagePath": f"{name}.png"}
        (folder / f"{file}.json").write_text(json.dumps(data))
    pictures = folder
    if elsewhere:
        pictures = Path("pictures")
        pictures.mkdir()
        for each in folder.glob("*.png"):
            each.with_suffix(".png").replace(pictures / each.name)
            (folder / each.name).write_bytes((pictures / each.name).read_bytes())
    for label in ((), ("--label", "disc")):
        library = f"b{len(label)}"
        said = sam("learn", pictures, "--annotations", folder, *label, "--library", library)
        assert "learnt 1 example, 1 known already; " in said.worked().err


def test_a_photograph_for_a_mask_says_what_was_seen(sam: Command, size_hw: tuple[int, int]) -> None:
    for option in ("--masks", "--annotations"):
        said = learn(sam, option, "shapes.png")
        said.failed("shapes.png", "colours, most of them in thin or scattered bits", code=1)


def test_a_mask_of_another_size_is_refused_before_it_is_decoded(
    sam: Command, size_hw: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    from sam_detect.io.decoding import PictureFile

    Image.new("1", (19_000, 19_000)).save("m.png")
    monkeypatch.setattr(PictureFile, "values", lambda _: pytest.fail("it is decoded"))
    learn(sam, "--masks", "m.png").failed("m.png is 19000x19000, the picture", code=1)
    learn(sam, "--annotations", "m.png").failed("more than the limit of", code=1)
