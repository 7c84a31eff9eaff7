"""The measure of clicks on the annotation page: the scripted user, and F1 of held-out pictures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from sam_detect.types import Classification, Detections, Masks
from scripts.dev import annotation_clicks
from scripts.dev.held_out import Compared, chosen, clicks_to_share, compared, f1_of
from scripts.dev.selecting import best_clean_box, presses
from scripts.dev.truth import Truth, brushed, ends_of

SIZE = (120, 160)


def discs(*circles: tuple[int, int, int]) -> Masks:
    """Masks of discs x, y, radius."""
    drawn = np.zeros((len(circles), *SIZE), np.uint8)
    for image, (x, y, radius) in zip(drawn, circles, strict=True):
        cv2.circle(image, (x, y), radius, 1, -1)
    return Masks.from_dense(drawn > 0)


def test_one_box_selects_objects_that_lie_together() -> None:
    middles = [(10, 10), (20, 10), (30, 12), (100, 100)]
    assert presses(middles, [True, True, True, False], [False] * 4) == 1
    # One that must not be selected lies among them, and is taken out again.
    assert presses([*middles, (20, 11)], [True, True, True, False, False], [False] * 5) == 2
    assert (
        presses([*middles, (20, 11)], [True, True, True, False, False], [False] * 4 + [True]) == 1
    )


def test_objects_apart_take_a_click_each() -> None:
    middles = [(0, 0), (50, 50), (100, 100)]
    wanted, between = [True, False, True], [(40, 40), (60, 60), (30, 70)]
    assert presses([*middles, *between], [*wanted, False, False, False], [False] * 6) == 2
    assert presses(middles, [False] * 3, [False] * 3) == 0


def test_the_best_box_holds_what_is_wanted_in_it() -> None:
    middles = [(10, 10), (20, 10), (30, 12), (100, 100)]
    found = best_clean_box(middles, [True, True, True, True], [False] * 4)
    assert found.tolist() == [True] * 4
    assert not best_clean_box(middles, [True, False, False, False], [False] * 4).any()


def test_a_stroke_paints_a_long_object_and_not_a_ring() -> None:
    long = np.zeros(SIZE, np.bool_)
    long[50:58, 20:90] = True
    assert brushed(Masks.from_dense(long[None]), 0)[1] == 1
    ring = np.zeros(SIZE, np.uint8)
    cv2.circle(ring, (60, 60), 40, 1, 3)
    assert brushed(Masks.from_dense(ring[None] > 0), 0)[1] > 1


def test_a_line_goes_from_one_end_of_an_object_to_the_other() -> None:
    long = np.zeros(SIZE, np.bool_)
    long[50:58, 20:90] = True
    ends = ends_of(long)
    np.testing.assert_allclose(ends[np.argsort(ends[:, 0])], [(20, 54), (90, 54)], atol=1)
    np.testing.assert_allclose(np.ptp(ends_of(long.T), axis=0), (0, 70), atol=1)
    dot = np.zeros(SIZE, np.bool_)
    dot[7, 9] = True
    np.testing.assert_allclose(ends_of(dot).mean(axis=0), (9.5, 7.5))


def detections(masks: Masks, labels: list[str | None]) -> Detections:
    named = tuple(Classification(label, label, 0.9) for label in labels)
    return Detections("a.png", masks, named, {})


def test_f1_counts_an_object_once_and_only_under_its_label() -> None:
    truth = Truth(discs((30, 30, 10), (80, 30, 10)), ("nut", "date"))
    both = detections(discs((30, 30, 10), (80, 30, 10)), ["nut", "date"])
    assert f1_of([both], [truth]) == 1
    twice = detections(discs((30, 30, 10), (31, 30, 10)), ["nut", "nut"])
    assert f1_of([twice], [truth]) == pytest.approx(0.5)
    wrong = detections(discs((30, 30, 10), (80, 30, 10)), ["nut", "nut"])
    assert f1_of([wrong], [truth]) == pytest.approx(0.5)
    unknown = detections(discs((30, 30, 10), (80, 30, 10)), ["nut", None])
    assert f1_of([unknown], [truth]) == pytest.approx(2 / 3)


def test_f1_counts_as_reached_when_it_is_kept() -> None:
    assert clicks_to_share([(4, 0.1), (9, 0.8), (12, 0.8)]) == 9
    # It fell again after that.
    assert clicks_to_share([(4, 0.8), (9, 0.2), (12, 0.75), (20, 0.8)]) == 12
    assert clicks_to_share([(4, 0.0)]) == 4


def test_policies_are_compared_with_random_orders_of_the_same_draws() -> None:
    found = compared([
        ("random", 0, 20), ("random", 0, 30), ("random", 1, 40), ("random", 1, 60),
        ("diverse", 0, 20), ("diverse", 1, 49), ("uncertain", 1, 40), ("uncertain", 2, 10),
    ])  # fmt: skip
    assert found["random"].runs == 4
    assert found["random"].mean == 37.5
    assert found["random"].spread == pytest.approx(17.078, abs=1e-3)
    assert found["random"].difference is None
    # 5 fewer in one draw, 1 fewer in the other.
    assert (found["diverse"].difference, found["diverse"].error) == (-3, 2)
    assert (found["uncertain"].mean, found["uncertain"].difference, found["uncertain"].error) == (
        25,
        -10,
        None,
    )
    assert compared([("folder", 0, 7)]) == {"folder": Compared(1, 7, 0, None, None)}


def test_the_same_pictures_are_held_out_each_time() -> None:
    assert chosen(12, 0.25, 0) == chosen(12, 0.25, 0)
    assert chosen(12, 0.25, 0) != chosen(12, 0.25, 1)
    assert len(chosen(12, 0.25, 0)) == 3
    assert len(chosen(12, 5, 0)) == 5
    assert len(chosen(2, 0.01, 0)) == 1
    assert len(chosen(3, 9, 0)) == 2


@pytest.fixture
def drawn_set(tmp_path: Path) -> Path:
    """Four pictures of discs: dark ones with the name of one label, light ones of another."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    (tmp_path / "images").mkdir()
    for number in range(4):
        image = np.full((240, 320, 3), 120, np.uint8)
        image += np.random.default_rng(number).integers(0, 6, image.shape, np.uint8)
        for k in range(6):
            x, y, light = 40 + 48 * k, 60 + 30 * (k % 3) + 12 * number, k % 2
            cv2.circle(image, (x, y), 16, (230, 220, 200) if light else (20, 30, 40), -1)
            ring = np.asarray(cv2.ellipse2Poly((x, y), (16, 16), 0, 0, 360, 10))
            points = ring.ravel().tolist()
            annotations.append({
                "id": len(annotations) + 1, "image_id": number + 1, "category_id": 1 + light,
                "segmentation": [points], "bbox": [x - 16, y - 16, 32, 32], "area": 800,
                "iscrowd": 0,
            })  # fmt: skip
        cv2.imwrite(str(tmp_path / "images" / f"{number}.png"), image)
        images.append({"id": number + 1, "file_name": f"{number}.png", "width": 320, "height": 240})
    (tmp_path / "annotations.json").write_text(json.dumps({
        "images": images, "annotations": annotations,
        "categories": [{"id": 1, "name": "dark"}, {"id": 2, "name": "light"}],
    }))  # fmt: skip
    return tmp_path


def test_a_drawn_set_is_labelled_completely_in_few_clicks(
    drawn_set: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert annotation_clicks.main([str(drawn_set), "--held-out", "1", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["pictures"] == 3
    assert record["right"] == record["objects"] == 18
    assert record["extra"] == 0
    # Each label is named once; the other pictures take little more than a click.
    assert record["clicks"] <= 12
    assert record["f1"] == 1
    assert record["clicks_to_f1"] == record["f1_curve"][0][0]
    clicks = [count for count, _ in record["f1_curve"]]
    assert clicks == sorted(clicks)


def test_a_bounded_user_goes_on_when_enough_have_names(
    drawn_set: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ways = [
        ["--objects", "2", "--impatient", "--policy", policy] for policy in ("diverse", "random")
    ]
    for way in ways:
        assert annotation_clicks.main([str(drawn_set), *way, "--json"]) == 0
        record = json.loads(capsys.readouterr().out)
        assert record["pictures"] == 4
        assert 0 < record["right"] <= record["objects"]


def test_several_draws_are_summed_up_for_each_policy(
    drawn_set: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    way = ["--held-out", "2", "--draws", "0,1", "--policy", "folder,random", "--once",
           "--objects", "2", "--impatient"]  # fmt: skip
    assert annotation_clicks.main([str(drawn_set), *way]) == 0
    *_, folder, by_chance = capsys.readouterr().out.splitlines()
    assert f"{drawn_set.name}, folder: " in folder
    assert "2 runs; " in folder
    assert "against random, standard error" in folder
    assert by_chance.endswith("2 runs")
