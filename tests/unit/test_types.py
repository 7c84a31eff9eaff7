"""The nouns: what they refuse, how they index, and the JSON they become."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import QUICK, BoolArray, masks_nhw

from sam_detect.errors import ImageError, MaskError
from sam_detect.types import (
    Classification,
    Crop,
    Detection,
    Detections,
    Frame,
    Masks,
    Neighbour,
    Recipe,
)

RECIPE = Recipe(
    embedder="average",
    embedder_version=1,
    model={},
    fade="gaussian",
    fade_params={"sigma": 30.0, "min_fade": 0.1},
    occupancy=0.2,
    crop_side=256,
    crop_version=1,
    dimension=4,
)


def squares(count: int = 4) -> Masks:
    """``count`` squares in a 20 x 10 picture; number i is at (4 i, 1) and has side i + 1."""
    return Masks.from_crops(
        size_hw=(10, 20),
        boxes_xyxy=[[4 * i, 1, 5 * i + 1, 2 + i] for i in range(count)],
        crops=[np.ones((i + 1, i + 1), np.bool_) for i in range(count)],
        predicted_ious=[0.5 + i / 10 for i in range(count)],
        prompts_xy=[[4 * i, 1] for i in range(count)],
    )


def detections() -> Detections:
    """Four detections, of areas 1, 4, 9, 16; the last is unknown."""
    classifications = [
        Classification(
            label=None if i == 3 else f"thing-{i}",
            best_label="thing-0",
            confidence=(i + 1) / 8,
            neighbours=(
                Neighbour(id=f"n{i}", label="thing-0", similarity=0.9),
                Neighbour(id=f"m{i}", label="thing-1", similarity=0.5, negative=True),
            ),
        )
        for i in range(4)
    ]
    return Detections(
        source_id="nuts.png",
        masks=squares(),
        classifications=tuple(classifications),
        recipe=RECIPE.to_dict(),
        timings_ms={"segment": 12.34567},
    )


# Frame


def test_a_frame_knows_its_size() -> None:
    frame = Frame(np.zeros((3, 5, 3), np.uint8))
    assert frame.size_hw == (3, 5)
    assert (frame.source_id, frame.index, frame.location) == ("array", 0, None)


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [
        ((3, 5), np.uint8),
        ((3, 5, 4), np.uint8),
        ((3, 5, 1), np.uint8),
        ((1, 3, 5, 3), np.uint8),
        ((0, 5, 3), np.uint8),
        ((3, 0, 3), np.uint8),
        ((3, 5, 3), np.float32),
        ((3, 5, 3), np.int8),
        ((), np.uint8),
    ],
)
def test_a_frame_refuses_what_is_no_rgb_picture_and_says_what_it_got(
    shape: tuple[int, ...], dtype: Any
) -> None:
    with pytest.raises(ImageError, match="a frame needs") as caught:
        Frame(np.zeros(shape, dtype))
    assert str(shape) in str(caught.value)


# Masks


@QUICK
@given(masks_nhw())
def test_masks_give_back_the_dense_masks_they_were_made_from(dense: BoolArray) -> None:
    masks = Masks.from_dense(dense)
    assert len(masks) == len(dense)
    assert masks.areas.tolist() == [int(mask.sum()) for mask in dense]
    for index, mask in enumerate(dense):
        np.testing.assert_array_equal(masks.dense(index), mask)
        x0, y0, x1, y1 = masks.boxes_xyxy[index]
        np.testing.assert_array_equal(masks.crop(index), mask[y0:y1, x0:x1])
        crop = masks.crop(index)
        assert crop[0].any(), "boxes are tight"
        assert crop[-1].any()
        assert crop[:, 0].any()
        assert crop[:, -1].any()


def test_masks_have_the_documented_types() -> None:
    for masks in (squares(), Masks.empty((10, 20))):
        assert masks.boxes_xyxy.dtype == np.int64
        assert masks.areas.dtype == np.int64
        for values in (masks.predicted_ious, masks.stabilities, masks.prompts_xy):
            assert values.dtype == np.float32
        assert masks.boxes_xyxy.shape == (len(masks), 4)
        assert masks.prompts_xy.shape == (len(masks), 2)


def test_masks_without_prompts_have_nan_prompts_and_full_quality() -> None:
    masks = Masks.from_dense(np.eye(3, dtype=np.bool_))
    assert np.isnan(masks.prompts_xy).all()
    assert masks.predicted_ious.tolist() == [1]
    assert masks.stabilities.tolist() == [1]


def test_one_dense_mask_is_a_batch_of_one() -> None:
    assert len(Masks.from_dense(np.ones((2, 3), np.bool_))) == 1


@pytest.mark.parametrize("shape", [(3,), (2, 2, 2, 2), ()])
def test_masks_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(MaskError, match="need shape"):
        Masks.from_dense(np.ones(shape, np.bool_))


def test_a_mask_of_another_size_than_the_picture_is_refused() -> None:
    with pytest.raises(MaskError, match="3x2 does not fit a picture of 9x8"):
        Masks.from_dense(np.ones((2, 3), np.bool_), size_hw=(8, 9))


def test_an_empty_mask_is_refused() -> None:
    with pytest.raises(MaskError, match="at least one pixel"):
        Masks.from_dense(np.zeros((2, 3), np.bool_))
    with pytest.raises(MaskError, match="at least one pixel"):
        Masks.from_crops(
            size_hw=(4, 4), boxes_xyxy=[[0, 0, 2, 2]], crops=[np.zeros((2, 2), np.bool_)]
        )


@pytest.mark.parametrize("box", [[-1, 0, 1, 2], [0, -1, 2, 1], [3, 0, 5, 2], [0, 3, 2, 5]], ids=str)
def test_a_box_outside_its_picture_is_refused(box: list[int]) -> None:
    with pytest.raises(MaskError, match="inside the 4x4 picture"):
        Masks.from_crops(size_hw=(4, 4), boxes_xyxy=[box], crops=[np.ones((2, 2), np.bool_)])


def test_a_crop_of_another_size_than_its_box_is_refused() -> None:
    with pytest.raises(MaskError, match="does not fill the box"):
        Masks.from_crops(
            size_hw=(4, 4), boxes_xyxy=[[0, 0, 2, 3]], crops=[np.ones((2, 2), np.bool_)]
        )


@pytest.mark.parametrize(
    "name", ["boxes_xyxy", "areas", "predicted_ious", "stabilities", "prompts_xy", "excluded"]
)
def test_arrays_that_are_not_parallel_are_refused_by_name(name: str) -> None:
    masks = squares(2)
    arrays = {
        field: getattr(masks, field)
        for field in (
            "boxes_xyxy", "crop_rles", "areas", "predicted_ious", "stabilities", "prompts_xy",
            "excluded",
        )
    }  # fmt: skip
    arrays[name] = arrays[name][:1]
    with pytest.raises(MaskError, match=f"{name} must have shape .* for 2 masks"):
        Masks(size_hw=masks.size_hw, **arrays)


def test_concatenated_masks_keep_their_order_and_everything_else() -> None:
    masks = squares()
    again = Masks.concatenate([masks[:1], Masks.empty(masks.size_hw), masks[1:]])
    assert again.crop_rles == masks.crop_rles
    for name in ("boxes_xyxy", "areas", "predicted_ious", "stabilities", "prompts_xy"):
        np.testing.assert_array_equal(getattr(again, name), getattr(masks, name))


def test_masks_of_two_pictures_are_not_concatenated() -> None:
    with pytest.raises(MaskError, match="one size"):
        Masks.concatenate([Masks.empty((3, 4)), Masks.empty((4, 3))])
    with pytest.raises(MaskError, match="nothing to concatenate"):
        Masks.concatenate([])


SELECTIONS = [
    slice(None), slice(1, 3), slice(None, None, -1), slice(4, 9), [], (), [0], [2, 0], [-1, -4],
    [1, 1], [True, False, True, False], np.array([3, 1]), np.array([], np.int64),
    np.array([False] * 4), np.array([True, True, False, True]), np.array([2], np.uint8),
]  # fmt: skip


@pytest.mark.parametrize("selection", SELECTIONS, ids=repr)
def test_masks_and_detections_index_like_numpy(selection: Any) -> None:
    found, areas = detections(), np.array([1, 4, 9, 16])
    index: Any = np.array(selection, np.int64) if len_or_one(selection) == 0 else selection
    expected = areas[list(index) if isinstance(index, tuple) else index].tolist()
    assert found.masks[selection].areas.tolist() == expected
    chosen = found[selection]
    assert isinstance(chosen, Detections)
    assert chosen.area.tolist() == expected
    assert [d.area for d in chosen] == expected
    assert [int(d.mask.sum()) for d in chosen] == expected
    assert [classification.confidence for classification in chosen.classifications] == [
        a**0.5 / 8 for a in expected
    ]
    assert (chosen.source_id, chosen.recipe) == (found.source_id, found.recipe)


def len_or_one(selection: Any) -> int:
    return 1 if isinstance(selection, slice) else len(selection)


@pytest.mark.parametrize("index", [0, 3, -1, -4, np.int64(2), np.uint8(1)])
def test_an_integer_gives_one_detection(index: Any) -> None:
    one = detections()[index]
    assert isinstance(one, Detection)
    assert one.area == [1, 4, 9, 16][index]


@pytest.mark.parametrize("index", [4, -5, 100])
def test_an_integer_out_of_range_is_an_index_error(index: int) -> None:
    with pytest.raises(IndexError):
        detections()[index]
    with pytest.raises(IndexError):
        detections()[[index]]


def test_a_boolean_selection_of_another_length_is_an_index_error() -> None:
    with pytest.raises(IndexError):
        detections()[np.array([True, False])]


@QUICK
@given(st.lists(st.integers(-4, 3), max_size=6), st.data())
def test_selecting_twice_is_selecting_the_selection(first: list[int], data: st.DataObject) -> None:
    second = data.draw(st.lists(st.integers(0, len(first) - 1), max_size=4)) if first else []
    areas = [1, 4, 9, 16]
    chosen = detections()[first][second]
    assert chosen.area.tolist() == [areas[first[i]] for i in second]


def test_detections_filter_by_confidence_as_numpy_does() -> None:
    found = detections()
    assert found[found.confidence > 0.3].label.tolist() == ["thing-2", None]
    assert found[found.label == "thing-1"].area.tolist() == [4]


def test_known_leaves_out_what_has_no_label() -> None:
    assert detections().known.label.tolist() == ["thing-0", "thing-1", "thing-2"]
    assert len(detections()[[]].known) == 0


def test_arrays_of_detections_are_parallel_even_when_empty() -> None:
    for found in (detections(), detections()[[]]):
        for name in ("label", "best_label", "confidence", "score", "area", "boxes_xyxy", "xyxy"):
            assert len(getattr(found, name)) == len(found), name
    assert detections()[[]].confidence.dtype == np.float64


def test_masks_without_classifications_are_refused() -> None:
    with pytest.raises(MaskError, match="4 masks need as many classifications, got 0"):
        Detections(source_id="a", masks=squares(), classifications=())


# Detection


def test_a_detection_answers_as_attribute_and_as_key() -> None:
    one = detections()[1]
    for name in ("mask", "polygon", "label", "confidence", "bbox", "area", "neighbours"):
        np.testing.assert_array_equal(one[name], getattr(one, name))
        np.testing.assert_array_equal(one.get(name), getattr(one, name))
        assert name in one
    assert one.get("colour") is None
    assert one.get("colour", "red") == "red"
    assert "colour" not in one
    assert set(one.keys()) >= {"mask", "label", "confidence", "bbox", "area", "neighbours"}
    assert dict(one)["label"] == "thing-1"
    assert one.bbox == [4, 1, 2, 2]
    assert one.mask.shape == (10, 20)
    assert one.score == pytest.approx(0.6)


def test_an_unknown_key_names_the_keys_there_are() -> None:
    with pytest.raises(KeyError, match=r"no 'colour'.*label.*confidence"):
        detections()[0]["colour"]


def test_a_detection_shows_what_it_is_and_not_its_pixels() -> None:
    text = repr(detections()[0])
    assert "thing-0" in text
    assert len(text) < 200


def test_detections_show_what_was_found_and_not_their_arrays() -> None:
    assert repr(detections()) == (
        "Detections('nuts.png': 1 'thing-0', 1 'thing-1', 1 'thing-2', 1 unknown)"
    )
    assert repr(detections()[[]]) == "Detections('nuts.png': 0 unknown)"


# JSON


def test_the_json_of_detections_has_the_designs_shape() -> None:
    data = json.loads(json.dumps(detections().to_dict(), allow_nan=False))
    assert list(data) == ["image", "width", "height", "recipe", "timings_ms", "detections"]
    assert (data["image"], data["width"], data["height"]) == ("nuts.png", 20, 10)
    assert data["recipe"]["fade"] == "gaussian"
    assert data["timings_ms"] == {"segment": 12.346}
    one = data["detections"][3]
    assert list(one) == [
        "label", "confidence", "bbox", "area", "score", "segmentation", "best_label", "neighbours",
    ]  # fmt: skip
    assert one["label"] is None
    assert one["best_label"] == "thing-0"
    assert one["confidence"] == 0.5
    assert one["bbox"] == [12, 1, 4, 4]
    assert one["area"] == 16
    assert one["segmentation"]["size"] == [10, 20]
    assert isinstance(one["segmentation"]["counts"], str)
    assert one["neighbours"] == [
        {"id": "n3", "label": "thing-0", "similarity": 0.9},
        {"id": "m3", "label": "thing-1", "similarity": 0.5, "negative": True},
    ]


def test_no_detections_are_json_as_well() -> None:
    assert json.loads(json.dumps(detections()[[]].to_dict()))["detections"] == []


def test_numbers_of_numpy_become_json_too() -> None:
    """A user's own labeller may well give float32."""
    classification = Classification(
        label="a",
        best_label="a",
        confidence=np.float32(0.75),
        neighbours=(Neighbour(id="n", label="a", similarity=np.float32(0.5)),),
    )
    found = Detections(
        source_id="a",
        masks=squares(1),
        classifications=(classification,),
        timings_ms={"s": np.float32(1.5)},
    )
    data = json.loads(json.dumps(found.to_dict()))
    assert data["detections"][0]["confidence"] == 0.75
    assert data["detections"][0]["neighbours"][0]["similarity"] == 0.5
    assert data["timings_ms"] == {"s": 1.5}


# Crop


def test_a_crops_area_is_in_pixels_of_the_picture() -> None:
    mask = np.zeros((4, 4), np.bool_)
    mask[1:3, 1:3] = True
    crop = Crop(np.zeros((4, 4, 3), np.uint8), mask, scale=0.5, window_xyxy=(0, 0, 8, 8))
    assert crop.area == 16


def test_a_crop_whose_mask_has_another_size_is_refused() -> None:
    with pytest.raises(MaskError, match="must have its image's size"):
        Crop(np.zeros((4, 5, 3), np.uint8), np.ones((4, 4), np.bool_), 1.0, (0, 0, 5, 4))


def test_a_crop_without_an_object_is_refused() -> None:
    with pytest.raises(MaskError, match="at least one pixel"):
        Crop(np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4), np.bool_), 1.0, (0, 0, 4, 4))


# Recipe


def test_a_recipe_survives_json() -> None:
    again = Recipe(**json.loads(json.dumps(RECIPE.to_dict())))
    assert again == RECIPE
    assert again.differences(RECIPE) == {}


@pytest.mark.parametrize("field", sorted(RECIPE.to_dict()))
def test_every_field_of_a_recipe_makes_a_difference(field: str) -> None:
    other = Recipe(**RECIPE.to_dict() | {field: "another"})
    assert other != RECIPE
    assert RECIPE.differences(other) == {field: (RECIPE.to_dict()[field], "another")}
    assert other.differences(RECIPE) == {field: ("another", RECIPE.to_dict()[field])}


def test_changing_the_dict_of_a_recipe_does_not_change_the_recipe() -> None:
    RECIPE.to_dict()["fade_params"]["sigma"] = 1.0
    assert RECIPE.fade_params["sigma"] == 30.0
