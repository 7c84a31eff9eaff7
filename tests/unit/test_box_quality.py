"""scripts/box-quality, on drawn pictures whose objects stand apart."""

from __future__ import annotations

from pathlib import Path

import pytest
from evaluation_helpers import dataset_folder

from scripts.dev import box_quality


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_right_boxes_become_their_objects_and_wrong_ones_are_warned_of(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = dataset_folder(tmp_path / "two", 2)
    assert box_quality.main([str(folder), "--objects", "3"]) == 0
    tables = [block.splitlines() for block in capsys.readouterr().out.strip().split("\n\n")]
    assert [tuple(table[:1]) for table in tables] == [(head,) for head in box_quality.HEADS]
    ious, warned, auto = (cells(table[2]) for table in tables)
    assert ious[:2] == ["two", "6"]
    assert float(ious[2]) > 0.9
    assert float(ious[2]) >= float(ious[4])
    assert warned[1] == "0.00"
    assert warned[4] == "1.00", "nothing fits a box on empty ground"
    taken, right, share = (float(cell) for cell in auto[1:])
    assert taken > 0
    assert right == 1
    assert 0 < share <= 1


def test_a_box_on_the_ground_touches_no_object(tmp_path: Path) -> None:
    from sam_detect.evaluation.readers import open_dataset

    [picture] = open_dataset(dataset_folder(tmp_path / "one", 1)).pictures
    for each in picture.objects:
        boxes = dict(box_quality.boxes_of(each, picture, seed=0))
        assert boxes["exact"] == each.bbox_xywh
        assert not any(box_quality._touch(boxes["ground"], o.bbox_xywh) for o in picture.objects)
        assert box_quality._touch(boxes["half"], each.bbox_xywh)


def test_what_is_no_dataset_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert box_quality.main([str(tmp_path / "none")]) == 1
    assert "none" in capsys.readouterr().err
