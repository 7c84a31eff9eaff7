"""Which objects get a prompt: on scenes that a person can check, and on drawn ones."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("sam2")

from evaluation_helpers import dataset_folder

from sam_detect.errors import ConfigError
from sam_detect.segmentation._sam2_prompters import (
    AdaptivePrompter,
    Covered,
    GridPrompter,
    Prompter,
)
from sam_detect.types import ImageRGB, Masks
from sam_detect.types.masks import FloatArray
from scripts.dev import prompt_coverage
from scripts.dev.prompt_coverage import WAYS, Scene, Way, coverage, drawn_scenes, prompted


def scene(*boxes_xyxy: tuple[int, int, int, int], size_hw: tuple[int, int] = (80, 160)) -> Scene:
    """Dark rectangles on white; the last is in front, all of each counts."""
    image = np.full((*size_hw, 3), 255, np.uint8)
    masks = np.zeros((len(boxes_xyxy), *size_hw), np.bool_)
    for number, (x0, y0, x1, y1) in enumerate(boxes_xyxy):
        image[y0:y1, x0:x1] = 40 + 2 * number
        masks[number, y0:y1, x0:x1] = True
    return Scene(image, Masks.from_dense(masks))


class At(Prompter):
    """Asks at given points, one round for each list."""

    needs_cover = True

    def __init__(self, *rounds: list[tuple[float, float]]) -> None:
        self.given = rounds
        self.covered: list[list[bool]] = []

    def rounds(self, image_rgb: ImageRGB, per_side: int, covered: Covered) -> Iterator[FloatArray]:
        for points in self.given:
            made = np.array(points, np.float32).reshape(-1, 2)
            self.covered.append(covered.at(made).tolist())
            yield made


def test_a_prompt_on_an_object_finds_it_and_one_beside_all_finds_nothing() -> None:
    two = scene((0, 0, 16, 16), (144, 64, 160, 80))
    found, asked = prompted(two, At([(0.05, 0.1), (0.5, 0.5)]), 1)
    assert (found.tolist(), asked) == ([True, False], 2)
    found, asked = prompted(two, At([(0.101, 0.1)], [(0.999, 0.999)], []), 1)
    assert (found.tolist(), asked) == ([False, True], 2), "x of 16.16 is past the first"


def test_what_was_found_is_covered_and_nested_things_answer_together() -> None:
    nested = scene((8, 8, 24, 24), (12, 12, 16, 16))
    asking = At([(0.09, 0.17)], [(0.06, 0.11), (0.9, 0.9)])
    assert prompted(nested, asking, 1)[0].tolist() == [True, True]
    assert asking.covered == [[False], [True, False]]


def test_a_grid_reaches_what_its_points_lie_on() -> None:
    # Points of a 2x2 grid: x of 40 and 120, y of 20 and 60.
    four = scene((38, 18, 42, 22), (118, 18, 122, 22), (60, 30, 100, 50), (0, 56, 60, 64))
    found, asked = prompted(four, GridPrompter(), 2)
    assert (found.tolist(), asked) == ([True, True, False, True], 4)


def test_adaptive_reaches_what_the_grid_does_with_fewer_prompts() -> None:
    random = np.random.default_rng(0)
    places = [(x, y) for x in range(5, 150, 16) for y in range(5, 70, 16)]
    boxes = [(x, y, x + 4 + int(w), y + 4 + int(h)) for (x, y), (w, h) in
             zip(places, random.integers(0, 8, (len(places), 2)), strict=True)]  # fmt: skip
    many = scene(*boxes)
    whole, all_points = prompted(many, GridPrompter(), 32)
    fine, fewer = prompted(many, AdaptivePrompter(), 32)
    assert fine.tolist() == whole.tolist()
    assert fewer < 0.9 * all_points


def test_shares_are_of_all_objects_and_prompts_of_each_picture() -> None:
    scenes = [scene((38, 18, 42, 22)), scene((60, 30, 100, 50), (0, 56, 60, 64), (0, 0, 9, 9))]
    reached = coverage(scenes, Way(GridPrompter(), 2))
    assert (reached.found, reached.prompts) == (0.5, 4)


def test_auto_goes_by_the_areas_of_some_objects() -> None:
    scenes = [scene((0, 0, 4, 4), (30, 30, 40, 40))]
    auto = coverage(scenes, Way(GridPrompter(), None))
    assert auto.prompts == 40**2, "the smallest is of 16 pixels"
    assert auto.found == 1


@pytest.fixture(scope="module")
def drawn() -> list[Scene]:
    return drawn_scenes()


def test_drawn_scenes_are_the_same_each_time(drawn: list[Scene]) -> None:
    for one, other in zip(drawn, drawn_scenes(), strict=True):
        assert np.array_equal(one.image_rgb, other.image_rgb)
        assert one.objects.crop_rles == other.objects.crop_rles


@pytest.mark.parametrize(("number", "most"), [(0, 1200), (1, 500), (2, 4000), (3, 1400)],
                         ids=["touching", "faint", "of all sizes", "long"])  # fmt: skip
def test_blobs_of_known_sizes_reach_nearly_everything(
    drawn: list[Scene], number: int, most: int
) -> None:
    """Things that touch each other hid one another, and faint ones were not seen, when maxima were
    of all scales together and the least contrast was one for all pictures: 0.54 and 0.00."""
    reached = coverage([drawn[number]], WAYS["blobs_auto"])
    assert reached.found >= 0.97
    grid = coverage([drawn[number]], WAYS["grid_auto"])
    assert reached.prompts <= min(most, 0.5 * grid.prompts)


def test_blobs_of_any_of_these_sizes_reach_nearly_everything(drawn: list[Scene]) -> None:
    reached = coverage(drawn, WAYS["blobs_auto"])
    assert reached.found >= 0.99
    assert reached.prompts < 0.4 * coverage(drawn, WAYS["grid_auto"]).prompts


def test_the_command_counts_drawn_and_annotated_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(prompt_coverage, "drawn_scenes", lambda: [prompt_coverage._faint()])
    ways = {way: WAYS[way] for way in ("grid_32", "adaptive_auto", "blobs_auto")}
    monkeypatch.setattr(prompt_coverage, "WAYS", ways)
    folder = str(dataset_folder(tmp_path / "two", 2))
    assert prompt_coverage.main([folder, "--json"]) == 0
    drawn, two = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert (drawn["set"], two["set"]) == ("drawn", "two")
    assert drawn["grid_32"]["prompts"] == two["grid_32"]["prompts"] == 1024
    assert 0.8 < drawn["grid_32"]["found"] < drawn["blobs_auto"]["found"]
    assert two["grid_32"]["found"] == two["blobs_auto"]["found"] == 1
    assert two["blobs_auto"]["prompts"] < two["adaptive_auto"]["prompts"] < 1024
    assert prompt_coverage.main([folder]) == 0
    assert "two (2 pictures, 12 objects)" in capsys.readouterr().out
    assert prompt_coverage.main([str(tmp_path / "none")]) == 1
    assert "none" in capsys.readouterr().err


def named(scene: Scene) -> Scene:
    return replace(scene, labels=("disc",) * len(scene.objects))


@pytest.mark.parametrize("number", [0, 3], ids=["touching", "long"])
def test_ten_examples_lead_to_nearly_all_objects_with_a_tenth_of_a_fine_grids_prompts(
    drawn: list[Scene], number: int
) -> None:
    reached = prompt_coverage.guided_coverage([named(drawn[number])], 10, same=True)
    assert reached["grid_128"].found == 1
    assert reached["forest_128"].found >= 0.99
    assert reached["forest_128"].prompts <= 0.1 * reached["grid_128"].prompts
    if number:  # where few objects touch, about one prompt an object does
        assert reached["forest_32"].found == 1 > reached["grid_32"].found
        assert reached["forest_32"].prompts <= 0.1 * reached["grid_32"].prompts


def test_objects_are_sought_in_other_pictures_of_their_group(drawn: list[Scene]) -> None:
    shown, scene, sought = next(
        prompt_coverage._episodes(
            [replace(named(each), group=str(i // 2)) for i, each in enumerate([*drawn[:2]] * 2)],
            10,
            np.random.default_rng(0),
            same=False,
        )
    )
    assert len(shown["disc"]) == 10
    assert scene.group == "0"
    assert len(sought) == len(scene.objects), "all objects of another picture"
    with pytest.raises(ConfigError, match="lower --shots"):
        prompt_coverage.guided_coverage([named(drawn[1])], 10_000, same=True)
