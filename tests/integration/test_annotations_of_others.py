"""Annotations as other programs write them, and of other pictures: learnt as they are meant, or
refused with what was seen."""

from __future__ import annotations

import gzip
import io
import json
import math
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import roifile
import tifffile
from cli_harness import Command, Ran, in_this_process
from PIL import Image

HEIGHT, WIDTH = 260, 400
CELLS = [(40 + 60 * column, 40 + 55 * row) for row in range(4) for column in range(6)]
RADIUS = 14


@pytest.fixture
def sam(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Command:
    monkeypatch.setenv("SAM_DETECT_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return in_this_process(capfd)


def scene(cells: list[tuple[int, int]] = CELLS) -> np.ndarray:
    rng = np.random.default_rng(0)
    image = np.full((HEIGHT, WIDTH), 40.0)
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    for cx, cy in cells:
        image[(x - cx) ** 2 + (y - cy) ** 2 <= RADIUS**2] = 170
    return np.clip(image + rng.normal(0, 6, image.shape), 0, 255).astype(np.uint8)


def ring(centre: tuple[float, float], scale: float = 1.0) -> np.ndarray:
    turn = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    corners = (RADIUS + 0.5) * np.stack([np.cos(turn), np.sin(turn)], axis=1)
    return (corners + np.add(centre, 0.5)) * scale


def coco(rings: list[np.ndarray], name: str = "a.png", **row: Any) -> dict[str, Any]:
    return {
        "images": [{"id": 1, "file_name": name, **row}],
        "categories": [{"id": 1, "name": "cell"}],
        "annotations": [
            {"id": i, "image_id": 1, "category_id": 1, "segmentation": [each.ravel().tolist()]}
            for i, each in enumerate(rings, start=1)
        ],
    }


def labelme(rings: list[np.ndarray], size_hw: tuple[int, int]) -> dict[str, Any]:
    return {
        "version": "5.5.0", "imagePath": "a.png", "imageHeight": size_hw[0],
        "imageWidth": size_hw[1], "shapes": [
            {"label": "cell", "points": each.tolist(), "shape_type": "polygon"} for each in rings
        ],
    }  # fmt: skip


def rois(rings: list[np.ndarray], name: str = "{:04d}-{:04d}", position: int = 0) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        for each in rings:
            x, y = each.mean(axis=0).astype(int).tolist()
            roi = roifile.ImagejRoi.frompoints(each.astype(np.float32), name=name.format(y, x))
            roi.position = position
            archive.writestr(f"{roi.name}.roi", roi.tobytes())
    return data.getvalue()


def written(name: str, content: Any) -> Path:
    file = Path(name)
    file.parent.mkdir(exist_ok=True, parents=True)
    if isinstance(content, np.ndarray):
        Image.fromarray(content).save(file)
        return file
    data = content if isinstance(content, bytes) else json.dumps(content).encode()
    file.write_bytes(data)
    return file


def examples(sam: Command, library: str = "default") -> list[dict[str, Any]]:
    """What a library holds, by the places of the boxes."""
    rows = sam("library", "list", "--library", library, "--json").json
    return sorted(rows, key=lambda row: row["bbox"])


def failed(ran: Ran) -> Ran:
    assert ran.code == 1, ran
    assert "Traceback" not in ran.err
    return ran


# Of another size


@pytest.mark.parametrize("fmt", ["coco", "labelme"])
@pytest.mark.parametrize("scale", [0.5, 2, 0.3])
def test_annotations_of_another_size_are_refused_and_scaled_where_that_is_asked_for(
    sam: Command, fmt: str, scale: float
) -> None:
    written("a.png", scene())
    size = round(HEIGHT * scale), round(WIDTH * scale)
    rings = [ring(c, scale) for c in CELLS[:4]]
    made = coco(rings, height=size[0], width=size[1]) if fmt == "coco" else labelme(rings, size)
    file = written("of.json", made)
    refused = failed(sam("learn", "a.png", "--annotations", file))
    assert f"made on {size[1]}x{size[0]} pixels, and the picture has 400x260" in refused.err
    assert "--fit scale" in refused.err
    assert not examples(sam)
    ran = sam("learn", "a.png", "--annotations", file, "--fit", "scale").worked()
    assert "scaled by" in ran.err
    for box, (x, y) in zip(examples(sam), sorted(CELLS[:4]), strict=True):
        assert np.allclose(box["bbox"], (x - 14, y - 14, 29, 29), atol=2)


def test_another_ratio_is_never_scaled_and_taken_as_it_is_where_that_is_asked_for(
    sam: Command,
) -> None:
    written("a.png", scene())
    file = written("of.json", coco([ring(c) for c in CELLS[:4]], height=260, width=300))
    for fit in ("check", "scale"):
        ran = failed(sam("learn", "a.png", "--annotations", file, "--fit", fit))
        assert "made on 300x260" in ran.err
    assert not examples(sam)
    sam("learn", "a.png", "--annotations", file, "--fit", "as-is").worked()
    assert len(examples(sam)) == 4


def test_fewshot_refine_and_evaluate_refuse_another_size_too(sam: Command) -> None:
    written("a.png", scene())
    file = written("of.json", coco([ring(c) for c in CELLS[:4]], height=130, width=200))
    for command in (
        ("fewshot", "a.png", "--annotations", file, "--tag", "cell"),
        ("refine", file, "--images", "a.png", "--output", "b.json"),
        ("evaluate", file, "--images", "."),
    ):
        assert "made on 200x130 pixels, and the picture has 400x260" in failed(sam(*command)).err


# Of CVAT, LabelMe's relatives and YOLO


def test_brushed_masks_of_cvat_are_objects_and_crowds_are_counted(sam: Command) -> None:
    written("a.png", scene())
    data = coco([ring(c) for c in CELLS[:4]])
    for row in data["annotations"]:
        row |= {"iscrowd": 1, "attributes": {"occluded": False}}
    sam("learn", "a.png", "--annotations", written("cvat.json", data)).worked()
    assert len(examples(sam)) == 4
    for row in data["annotations"][1:]:
        del row["attributes"]
    file = written("crowds.json", data)
    ran = sam("learn", "a.png", "--annotations", file, "--library", "b").worked()
    assert "3 annotations are crowds ('iscrowd': 1)" in ran.err
    assert len(examples(sam, "b")) == 1


def test_the_rotation_of_cvats_boxes_is_used(sam: Command) -> None:
    image = np.full((HEIGHT, WIDTH), 40, np.uint8)
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    along, across = np.cos(math.pi / 6), np.sin(math.pi / 6)
    for cx, cy in ((100, 80), (250, 80), (100, 180), (250, 180)):
        stick = abs((x - cx) * along + (y - cy) * across) <= 40
        image[stick & (abs((y - cy) * along - (x - cx) * across) <= 5)] = 200
    written("a.png", image)
    data = coco([])
    data["annotations"] = [
        {"id": i, "image_id": 1, "category_id": 1, "bbox": [cx - 40, cy - 5, 80, 10],
         "segmentation": [], "attributes": {"occluded": False, "rotation": 30.0}}
        for i, (cx, cy) in enumerate(((100, 80), (250, 80), (100, 180), (250, 180)))
    ]  # fmt: skip
    sam("learn", "a.png", "--annotations", written("of.json", data)).worked()
    assert np.allclose(examples(sam)[0]["bbox"], (63, 56, 75, 49), atol=5)  # 80 cos 30 + 10 sin 30


@pytest.mark.parametrize("fmt", ["cvat", "yolo"])
def test_turned_boxes_are_boxes_around_objects(sam: Command, fmt: str) -> None:
    """The discs in them are learnt, not their corners; and of a box around nothing, a guess."""
    written("a.png", scene())
    boxes = [(*centre, angle) for centre, angle in zip(CELLS[:3], (45, 30, 10), strict=True)]
    boxes.append((CELLS[0][0] + 27, CELLS[0][1] + 27, 45))
    data = coco([])
    data["annotations"] = [
        {"id": i, "image_id": 1, "category_id": 1, "bbox": [x - 14.5, y - 14.5, 30, 30],
         "segmentation": [], "attributes": {"rotation": float(angle)}}
        for i, (x, y, angle) in enumerate(boxes)
    ]  # fmt: skip
    of = written("of.json", data)
    if fmt == "yolo":
        rows = []
        for x, y, angle in boxes:
            turn = np.radians(np.array([45, 135, 225, 315]) + angle)
            corners = np.stack([np.cos(turn), np.sin(turn)], axis=1) * 15 * math.sqrt(2)
            places = np.add(corners, (x + 0.5, y + 0.5)) / (WIDTH, HEIGHT)
            rows.append("0 " + " ".join(f"{v:.6f}" for v in places.ravel()))
        written("a.txt", "\n".join(rows).encode())
        of = written("classes.txt", b"cell")
    ran = failed(sam("learn", "a.png", "--annotations", of))
    assert "fits 1 of 4 boxes (number 4)" in ran.err
    assert ("turned boxes" in ran.err) is (fmt == "yolo")
    found = examples(sam)
    assert len(found) == 3
    for each, (x, y) in zip(found, sorted(CELLS[:3]), strict=True):
        assert np.allclose(each["bbox"], (x - 14, y - 14, 29, 29), atol=2)
        assert each["area"] == pytest.approx(math.pi * 14.5**2, rel=0.08)  # a square has 900
    sam("learn", "a.png", "--annotations", of, "--accept-guess").worked()
    assert len(examples(sam)) == 4


def test_a_slice_number_in_a_picture_without_slices_is_no_matter(sam: Command) -> None:
    written("a.png", scene())
    file = written("a.zip", rois([ring(c) for c in CELLS[:4]], "cell-{}-{}", position=7))
    ran = sam("learn", "a.png", "--annotations", file).worked()
    assert "name a plane of a stack" in ran.err
    assert len(examples(sam)) == 4
    both = written("both/a.zip", rois([ring(CELLS[0])], "x-{}{}", position=2))
    with zipfile.ZipFile(both, "a") as archive:
        other = roifile.ImagejRoi.frompoints(ring(CELLS[1]).astype(np.float32), name="x-2")
        other.position = 3
        archive.writestr("x-2.roi", other.tobytes())
    assert "several planes" in failed(sam("learn", "a.png", "--annotations", both)).err


# Outlines that leave the picture


@pytest.mark.parametrize("fmt", ["coco", "labelme", "yolo"])
@pytest.mark.parametrize("centre", [(-9, 100), (408, 100), (200, -6), (-5, -5), (403, 263)])
def test_what_is_mostly_outside_of_the_picture_is_left_out(
    sam: Command, fmt: str, centre: tuple[int, int]
) -> None:
    written("a.png", scene([*CELLS, centre]))
    rings = [ring(c) for c in (*CELLS[:3], centre)]
    if fmt == "yolo":
        rows = ["0 " + " ".join(f"{v:.6f}" for v in (each / (WIDTH, HEIGHT)).ravel())
                for each in rings]  # fmt: skip
        written("a.txt", "\n".join(rows).encode())
        file = written("classes.txt", b"cell")
    else:
        file = written("of.json", coco(rings) if fmt == "coco" else labelme(rings, (260, 400)))
    ran = failed(sam("learn", "a.png", "--annotations", file))
    assert "of its outline is outside of the 400x260 picture" in ran.err
    assert len(examples(sam)) == 3
    if fmt != "yolo":
        sam("learn", "a.png", "--annotations", file, "--fit", "as-is").worked()
        assert len(examples(sam)) == 4


def test_what_is_mostly_inside_is_cut_off_at_the_edge(sam: Command) -> None:
    cells = [*CELLS[:3], (3, 100), (395, 100)]
    written("a.png", scene(cells))
    sam("learn", "a.png", "--annotations", written("of.json", coco([*map(ring, cells)]))).worked()
    assert len(examples(sam)) == 5


# Outlines that lie on nothing


def test_outlines_of_another_picture_are_refused_with_what_was_seen(sam: Command) -> None:
    written("a.png", scene())
    elsewhere = [ring((x + 30, y + 27)) for x, y in CELLS[:9]]
    file = written("of.json", coco(elsewhere))
    ran = failed(sam("learn", "a.png", "--annotations", file))
    assert "lie on nothing that differs from its surroundings" in ran.err
    assert "the picture is 400x260 pixels" in ran.err
    assert not examples(sam)
    sam("learn", "a.png", "--annotations", file, "--fit", "as-is").worked()
    assert len(examples(sam)) == 9
    negatives = ("--negative", "--library", "b")
    sam("learn", "a.png", "--annotations", file, *negatives).worked()  # that is what they are for


def test_outlines_in_micrometres_are_told_and_scaled(sam: Command) -> None:
    tifffile.imwrite("a.tif", scene(), imagej=True, resolution=(1 / 0.325, 1 / 0.325),
                     metadata={"unit": "um"})  # fmt: skip
    file = written("of.zip", rois([ring(c, 0.325) for c in CELLS[:8]]))
    fewshot = ("fewshot", "a.tif", "--annotations", file, "--tag", "cell", "--json")
    refused = failed(sam(*fewshot))
    assert "in micrometres, and a pixel is 0.325" in refused.err
    ran = sam(*fewshot, "--fit", "scale").worked()
    assert "scaled to pixels" in ran.err
    assert "no annotation has a tag, so all are taken as 'cell'" in ran.err
    assert len(json.loads(ran.out)["detections"]) == len(CELLS) - 8


def test_a_contrast_that_shows_nothing_is_said(sam: Command) -> None:
    tifffile.imwrite("a.tif", scene().astype(np.uint16), imagej=True)
    file = written("a.zip", rois([ring(c) for c in CELLS[:4]], "cell-{}-{}"))
    choice = ("--channel", "1:1000-4000")
    ran = failed(sam("learn", "a.tif", "--annotations", file, *choice))
    assert "lie outside of the contrast" in ran.err
    assert "the outlines lie on nothing" in ran.err
    nan = scene().astype(np.float32)
    nan[:] = np.nan
    tifffile.imwrite("n.tif", nan, imagej=True)
    ran = failed(sam("learn", "n.tif", "--annotations", file, "--z", "1"))
    assert "the outlines lie on nothing" in ran.err


def test_of_pictures_of_one_name_that_beside_the_annotations_is_meant(sam: Command) -> None:
    for day in ("day1", "day2"):
        written(f"{day}/a.png", scene())
    file = written("day2/of.json", coco([ring(c) for c in CELLS[:4]]))
    sam("learn", "day1", "day2", "--annotations", file).worked()
    assert {each["source"] for each in examples(sam)} == {"day2/a.png"}
    zipped = written("day1/a.zip", rois([ring(c) for c in CELLS[:4]], "cell-{}-{}"))
    sam("learn", "day1", "day2", "--annotations", zipped, "--library", "b").worked()
    away = written("a.zip", zipped.read_bytes())
    ran = failed(sam("learn", "day1", "day2", "--annotations", away, "--library", "c"))
    assert "2 have its name (day1/a.png, day2/a.png)" in ran.err


# What evaluate reads


@pytest.mark.parametrize("fmt", ["geojson", "imagej", "labelme", "nimbus"])
def test_evaluate_reads_what_learn_reads(sam: Command, fmt: str) -> None:
    from sam_detect.io import geojson, imagej, labelme, nimbus
    from sam_detect.types import AnnotatedImage, Annotation

    writers = {"geojson": geojson, "imagej": imagej, "labelme": labelme, "nimbus": nimbus}
    written("a.png", scene())
    outlines = tuple(Annotation(("cell",), ((ring(c),),)) for c in CELLS)
    image = AnnotatedImage("", "a.png", outlines, size_hw=(HEIGHT, WIDTH))
    file = written("a.zip" if fmt == "imagej" else "a.json", writers[fmt].encode(image))
    ran = sam("evaluate", file, "--protocol", "same", "--shots", "4", "--seeds", "0", "--json")
    assert json.loads(ran.worked().out)["f1"] > 0.9


def test_evaluate_reads_one_plane_and_channel_of_stacks_with_coco(sam: Command) -> None:
    planes = np.zeros((2, 2, HEIGHT, WIDTH), np.uint8)
    planes[1, 1] = scene()
    tifffile.imwrite("a.tif", planes, imagej=True, metadata={"axes": "ZCYX"})
    file = written("of.json", coco([ring(c) for c in CELLS], "a.tif"))
    asked = ("evaluate", file, "--protocol", "same", "--shots", "4", "--seeds", "0", "--json")
    ran = sam(*asked, "--z", "2", "--channel", "2").worked()
    assert json.loads(ran.out)["f1"] > 0.9
    assert "several are selected" in failed(sam(*asked, "--z", "1-2")).err


def test_packed_and_utf_16_files_are_read_and_bombs_are_not(sam: Command) -> None:
    written("a.png", scene())
    text = json.dumps(coco([ring(c) for c in CELLS[:4]]))
    for name, data in {
        "le.json": text.encode("utf-16"), "be.json": text.encode("utf-16-be"),
        "a.json.gz": gzip.compress(text.encode()), "u32.json": text.encode("utf-32"),
        "bom.json": text.encode("utf-8-sig"),
    }.items():  # fmt: skip
        library = name.partition(".")[0]
        sam("learn", "a.png", "--annotations", written(name, data), "--library", library).worked()
        assert len(examples(sam, library)) == 4, name
    whole = gzip.compress(text.encode())
    for name, data in {"cut.gz": whole[:-40], "bad.gz": whole[:30] + b"xx" + whole[32:]}.items():
        ran = failed(sam("learn", "a.png", "--annotations", written(name, data)))
        assert "export it again" in ran.err
        assert "Traceback" not in ran.err


def test_a_picture_in_two_sizes_is_refused(sam: Command) -> None:
    Image.fromarray(scene()).save("a.png")
    data = coco([ring(each) for each in CELLS[:4]], width=WIDTH, height=HEIGHT)
    half = coco([ring(each, 0.5) for each in CELLS[4:8]], width=WIDTH // 2, height=HEIGHT // 2)
    data["images"].append({**half["images"][0], "id": 2})
    data["annotations"] += [
        {**each, "id": 10 + each["id"], "image_id": 2} for each in half["annotations"]
    ]
    Path("a.json").write_text(json.dumps(data))
    for fit in ("check", "scale"):
        ran = sam("learn", "a.png", "--annotations", "a.json", "--fit", fit)
        assert ran.code == 1
        assert "several sizes (200x130, 400x260)" in ran.err


def test_an_outline_of_the_whole_picture_among_others_is_no_object(sam: Command) -> None:
    """As QuPath's users draw it to detect cells in it."""
    Image.fromarray(scene()).save("a.png")
    whole = np.array([(0, 0), (WIDTH, 0), (WIDTH, HEIGHT), (0, HEIGHT)], float)
    data = coco([*(ring(each) for each in CELLS[:5]), whole])
    Path("a.json").write_text(json.dumps(data))
    ran = sam("learn", "a.png", "--annotations", "a.json", "--json")
    assert ran.json == [{"added": 5, "total": 5}]
    assert "outline 6: it is the whole picture" in ran.err
