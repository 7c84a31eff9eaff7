"""How examples and queries are drawn, and what a method is allowed to see of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from evaluation_helpers import Oracle, box_of, dataset_folder, detector, no_outlines, opened

from sam_detect.errors import ConfigError
from sam_detect.evaluation.dataset import Dataset
from sam_detect.evaluation.methods import Predictions
from sam_detect.evaluation.pipeline import PipelineMethod
from sam_detect.evaluation.readers import open_dataset
from sam_detect.evaluation.run import Episode, Protocol, Query, Split, run, splits
from sam_detect.io import load_image
from sam_detect.segmentation import NaiveSegmenter
from sam_detect.segmentation.prompted import masks_for_boxes
from sam_detect.types import Frame, Masks
from sam_detect.types.masks import rle_to_mask

LIMIT = 10**6


@pytest.fixture(scope="module")
def eight(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Eight pictures of four discs and two squares; every other one taken by night."""
    return opened(tmp_path_factory.mktemp("drawn") / "eight", 8)


def every(
    dataset: Dataset, *, seeds: Iterable[int], protocol: str = "cross", **how: Any
) -> list[Split]:
    """All episodes of a protocol."""
    return splits(dataset, Protocol(seeds=tuple(seeds), draw=protocol, **how))  # type: ignore[arg-type]


def drawn(dataset: Dataset, *, shots: int = 2, seeds: tuple[int, ...] = (0,), **how: str) -> Split:
    """The only episode of a protocol."""
    (split,) = every(dataset, shots=shots, seeds=seeds, **how)
    return split


def labels_shown(split: Split) -> dict[str, int]:
    return dict(Counter(o.label for _, objects in split.support for o in objects))


def run_all(dataset: Dataset, method: Oracle, **how: object) -> tuple[list[Query], list[Episode]]:
    protocol = Protocol(**how)  # type: ignore[arg-type]
    steps = list(run(dataset, method, protocol, outline=no_outlines, max_pixels=LIMIT))
    queries = [step for step in steps if isinstance(step, Query)]
    return queries, [step for step in steps if isinstance(step, Episode)]


# Drawing


def test_the_same_seed_draws_the_same_and_others_draw_others(eight: Dataset) -> None:
    again = [every(eight, shots=2, seeds=range(6)) for _ in range(2)]
    assert again[0] == again[1]
    assert len({split.shown for split in again[0]}) == 6
    assert len({tuple(p.id for p, _ in split.support) for split in again[0]}) > 1


def test_a_seed_draws_the_same_whatever_other_seeds_are_asked_for(eight: Dataset) -> None:
    alone = drawn(eight, seeds=(4,))
    assert every(eight, shots=2, seeds=(1, 4, 0))[1] == alone


@pytest.mark.parametrize("shots", [1, 2, 3, 7])
def test_exactly_so_many_are_shown_of_each_label(eight: Dataset, shots: int) -> None:
    for split in every(eight, shots=shots, seeds=range(5)):
        assert labels_shown(split) == {"disc": shots, "square": shots}
        assert split.problems == ()
        ids = [o.id for _, objects in split.support for o in objects]
        assert len(ids) == len(set(ids)) == len(split.shown)
        for picture, objects in split.support:
            assert all(each in picture.objects for each in objects)


def test_not_only_the_first_objects_of_a_picture_are_shown(eight: Dataset) -> None:
    places = {
        picture.objects.index(each)
        for split in every(eight, shots=1, seeds=range(20))
        for picture, objects in split.support
        for each in objects
    }
    assert places == set(range(6))


def test_of_a_rare_label_the_last_object_is_left_to_be_found(tmp_path: Path) -> None:
    rare = [["disc"] * 3, ["disc", "square"], ["square", "disc"], ["disc"], ["disc", "square"]]
    data = opened(tmp_path / "rare", rare)
    for seed in range(5):
        split = drawn(data, shots=3, seeds=(seed,), protocol="same")
        assert labels_shown(split) == {"disc": 3, "square": 2}
        assert split.problems == ("only 3 of 'square': 2 shown instead of 3",)


def test_a_single_object_is_shown_though_none_is_left(tmp_path: Path) -> None:
    data = opened(tmp_path / "one", [["disc"], ["disc"], ["disc", "square"], ["disc"]])
    split = drawn(data)
    assert labels_shown(split) == {"disc": 2, "square": 1}
    assert split.problems == ("only 1 of 'square': 1 shown instead of 2",)


def test_cross_looks_in_every_picture_that_gave_no_example(eight: Dataset) -> None:
    for split in every(eight, shots=3, seeds=range(5)):
        giving = {picture.id for picture, _ in split.support}
        assert {p.id for p in split.queries} == {p.id for p in eight.pictures} - giving
        assert all(objects for _, objects in split.support)


def test_pictures_that_give_no_example_stay_queries(tmp_path: Path) -> None:
    # Discs are had from the first picture walked; only one picture has squares.
    data = opened(tmp_path / "x", [["disc"] * 6] * 5 + [["square"] * 6])
    for split in every(data, shots=2, seeds=range(6)):
        assert len(split.support) == 2
        assert len(split.queries) == 4


def test_same_looks_in_the_pictures_that_gave_examples(eight: Dataset) -> None:
    for split in every(eight, shots=3, seeds=range(5), protocol="same"):
        assert {p.id for p in split.queries} == {p.id for p, _ in split.support}


def test_each_picture_with_more_objects_than_shots_is_an_episode(tmp_path: Path) -> None:
    data = opened(tmp_path / "x", [["disc"] * 7, ["disc"] * 3, ["disc"] * 4, ["square"] * 5])
    found = every(data, shots=3, seeds=(0, 1), protocol="each")
    places = {picture.id: number for number, picture in enumerate(data.pictures)}
    assert [(s.seed, [places[p.id] for p in s.queries]) for s in found] == [
        (seed, [place]) for seed in (0, 1) for place in (0, 2, 3)
    ]
    for split in found:
        ((picture, shown),) = split.support
        assert picture.id == split.queries[0].id
        assert len(shown) == 3
    assert found[0].shown != found[3].shown, "another seed shows others"


def test_each_needs_a_picture_with_more_objects_than_shots(eight: Dataset) -> None:
    with pytest.raises(ConfigError, match="no picture with more than 9 objects"):
        every(eight, shots=9, seeds=(0,), protocol="each")


def test_groups_are_drawn_apart(eight: Dataset) -> None:
    found = every(eight, shots=2, seeds=(0, 1), group_by="light")
    assert [(s.group, s.seed) for s in found] == [
        ("day", 0), ("day", 1), ("night", 0), ("night", 1)
    ]  # fmt: skip
    for split in found:
        assert labels_shown(split) == {"disc": 2, "square": 2}
        of_group = {p.id for p in eight.pictures if p.fields["light"] == split.group}
        assert {p.id for p in split.queries} | {p.id for p, _ in split.support} == of_group


def test_a_group_says_what_it_has_too_little_of(tmp_path: Path) -> None:
    pictures = [["disc"] * 4, ["disc", "square"]] * 3 + [["disc"] * 4, ["disc"]]
    data = opened(tmp_path / "x", pictures)
    found = every(data, shots=3, seeds=(0,), group_by="light", protocol="same")
    said = [line for split in found for line in split.problems]
    assert said == ["night: only 3 of 'square': 2 shown instead of 3"]


def test_an_unknown_field_names_the_known_ones(eight: Dataset, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"the field 'modality' \(they have: light\)"):
        every(eight, shots=1, seeds=(0,), group_by="modality")
    plain = opened(tmp_path / "plain", 2, fields=lambda index: {})
    with pytest.raises(ConfigError, match=r"the field 'modality' \(they have none\)"):
        every(plain, shots=1, seeds=(0,), group_by="modality")


def test_no_picture_left_to_look_in_is_one_line(tmp_path: Path) -> None:
    few = opened(tmp_path / "few", 2)
    with pytest.raises(ConfigError, match=r"^few leaves no picture to search after 9 .*same$"):
        every(few, shots=9, seeds=(0,))
    assert len(drawn(few, shots=2, protocol="same").queries) >= 1


def test_a_group_without_objects_says_so(tmp_path: Path) -> None:
    data = opened(tmp_path / "x", [["disc"] * 4, [], ["disc"] * 4, []])
    with pytest.raises(ConfigError, match=r"x, light night has no object to show"):
        every(data, shots=1, seeds=(0,), group_by="light", protocol="same")


def test_crowds_are_never_shown(tmp_path: Path) -> None:
    folder = dataset_folder(tmp_path / "x", 4)
    file = folder / "annotations.json"
    file.write_text(file.read_text().replace('"iscrowd": 0', '"iscrowd": 1', 12))
    data = open_dataset(folder)
    crowds = {o.id for p in data.pictures for o in p.objects if o.crowd}
    assert len(crowds) == 12
    shown = {each for s in every(data, shots=3, seeds=range(5)) for each in s.shown}
    assert shown
    assert not shown & crowds


# What a method sees


def test_a_method_sees_of_the_annotations_only_what_is_shown(eight: Dataset) -> None:
    spy = Oracle(eight)
    queries, episodes = run_all(eight, spy, shots=2, seeds=(3, 5))
    assert len(spy.learnt) == len(episodes) == 2
    for shown, episode in zip(spy.learnt, episodes, strict=True):
        assert len(shown) == len(episode.split.support)
        for got, (picture, objects) in zip(shown, episode.split.support, strict=True):
            assert vars(got).keys() == {"frame", "masks", "labels", "others"}
            assert got.others is None
            pixels = load_image(picture.path, max_pixels=LIMIT).image_rgb
            assert np.array_equal(got.frame.image_rgb, pixels)
            assert got.labels == tuple(o.label for o in objects)
            assert len(got.masks) == len(objects)
            for index, each in enumerate(objects):
                assert each.mask_rle is not None
                assert np.array_equal(got.masks.dense(index), rle_to_mask(each.mask_rle))
    assert [frame.source_id for frame in spy.asked] == [str(q.picture.path) for q in queries]


def test_what_is_asked_comes_in_the_order_of_the_episodes(eight: Dataset) -> None:
    queries, episodes = run_all(eight, Oracle(eight), shots=2, seeds=(0, 1), group_by="light")
    assert [q for e in episodes for q in e.queries] == queries
    assert [[q.picture for q in e.queries] for e in episodes] == [
        list(e.split.queries) for e in episodes
    ]


def test_in_the_same_pictures_the_shown_objects_are_neither_found_nor_false(
    eight: Dataset,
) -> None:
    queries, (episode,) = run_all(eight, Oracle(eight), shots=2, seeds=(0,), draw="same")
    shown = episode.split.shown
    assert len(shown) == 4
    for query in queries:
        mine = [o for o in query.picture.objects if o.id in shown]
        assert mine
        assert len(query.comparison.object_labels) == 6 - len(mine)
        # The oracle finds the shown ones too: those are excused, and no others.
        assert query.comparison.excused.tolist() == [o in mine for o in query.picture.objects]


class Shifted(Oracle):
    """Finds everything four pixels to the right: at an IoU of .5 to .75."""

    def find(self, frame: Frame) -> Predictions:
        found = super().find(frame)
        moved = [np.roll(found.masks.dense(i), 4, axis=1) for i in range(len(found.masks))]
        return replace(found, masks=Masks.from_dense(np.stack(moved)))


def test_what_overlaps_a_shown_object_less_than_asked_for_is_no_find_of_it(
    eight: Dataset,
) -> None:
    for iou, excused in ((0.5, 4), (0.8, 0)):
        queries, _ = run_all(eight, Shifted(eight), shots=2, seeds=(0,), draw="same", iou=iou)
        assert sum(int(q.comparison.excused.sum()) for q in queries) == excused


def test_of_boxes_a_method_gets_the_outlines_that_a_users_box_would_get(tmp_path: Path) -> None:
    boxed = opened(tmp_path / "boxed", 4, boxes=True)
    assert boxed.boxes_only
    spy, user = Oracle(boxed), detector()
    list(run(boxed, spy, Protocol(shots=1, seeds=(0,)), outline=user.outline, max_pixels=LIMIT))
    (split,) = every(boxed, shots=1, seeds=(0,))
    for got, (_, objects) in zip(spy.learnt[0], split.support, strict=True):
        boxes = [o.bbox_xywh for o in objects]
        expected = masks_for_boxes(got.frame, user.pipeline.all_proposals(got.frame), boxes)
        for index, each in enumerate(objects):
            outline = got.masks.dense(index)
            assert np.array_equal(outline, expected.dense(index))
            if each.label == "disc":
                _, _, width, height = box_of(outline)
                assert outline.sum() < 0.9 * width * height, "a filled box is no outline"


def test_boxes_are_drawn_by_a_segmenter_that_draws() -> None:
    class Drawing(NaiveSegmenter):
        def segment_boxes(self, frame: Frame, boxes_xywh: Any) -> Masks:
            dense = np.zeros((len(boxes_xywh), *frame.size_hw), np.bool_)
            dense[:, :3, :5] = True
            return Masks.from_dense(dense)

        def segment_points(self, frame: Frame, points_xy: Any) -> Masks:
            return Masks.empty(frame.size_hw)

    pipeline = PipelineMethod(detector(segmenter=Drawing()).pipeline)
    pipeline.learn([])
    found = pipeline.outline(Frame(np.zeros((9, 9, 3), np.uint8)), [(1, 1, 2, 2), (0, 0, 9, 9)])
    assert found.areas.tolist() == [15, 15]


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"shots": 0}, "shots"),
        ({"shots": "many"}, "shots"),
        ({"seeds": ()}, "seeds"),
        ({"seeds": (1, 1)}, "seeds"),
        ({"seeds": ("a",)}, "seeds"),
        ({"iou": 0}, "iou"),
        ({"iou": 2}, "iou"),
        ({"iou": float("nan")}, "iou"),
        ({"iou": "half"}, "iou"),
        ({"draw": "sam"}, "cross, same, each"),
        ({"task": "panoptic"}, "instance or semantic"),
    ],
)
def test_a_protocol_out_of_its_range_is_named(wrong: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        Protocol(**wrong)  # type: ignore[arg-type]
    assert str(next(iter(wrong.values()))) in str(caught.value)
