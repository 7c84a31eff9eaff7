"""Segmenter `sam2`, on a small model of random weights: the form of what it finds, its options,
and what a user reads when something is wrong."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("sam2")

import cv2  # noqa: E402
import skimage.data  # noqa: E402
from sam2_helpers import write_small_sam2  # noqa: E402

from sam_detect import registry  # noqa: E402
from sam_detect.errors import (  # noqa: E402
    ConfigError,
    ImageError,
    MaskError,
    UnavailableError,
)
from sam_detect.fading import context  # noqa: E402
from sam_detect.segmentation import _sam2_masks as masks_module  # noqa: E402
from sam_detect.segmentation import sam2 as sam2_module  # noqa: E402
from sam_detect.segmentation._sam2_masks import Cut, Limits, cut_out  # noqa: E402
from sam_detect.segmentation._sam2_prompters import (  # noqa: E402
    BlobPrompter,
    Covered,
)
from sam_detect.segmentation.sam2 import SAM2Segmenter  # noqa: E402
from sam_detect.types import NO_HINTS, ExampleCrops, Frame, Hints, Masks  # noqa: E402
from tests.closeness import same_masks  # noqa: E402

LOOSE: dict[str, Any] = {
    "points_per_side": 8,
    "pred_iou_thresh": 0.4,
    "stability_score_thresh": 0.6,
    "stability_score_offset": 0.2,
    "mask_threshold": 12,
}

pytestmark = pytest.mark.usefixtures("one_torch_thread")


def cut(logits: torch.Tensor, size_hw: tuple[int, int], limits: Limits) -> Cut | None:
    return cut_out(logits[None], size_hw, limits)[0]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_sam2(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def segmenter(small: Path) -> SAM2Segmenter:
    return SAM2Segmenter(small, "cpu", **LOOSE)


def coins(shift: int = 0) -> Frame:
    part = skimage.data.coins()[shift : 150 + shift, :180, None]
    return Frame(np.repeat(part, 3, axis=2))


def check_form(masks: Masks, frame: Frame) -> None:
    assert masks.size_hw == frame.size_hw
    for values in (masks.predicted_ious, masks.stabilities):
        assert values.dtype == np.float32
        assert ((values >= 0) & (values <= 1)).all()
    assert (np.diff(masks.predicted_ious) <= 0).all()
    for index, crop in enumerate(masks.crops()):
        assert np.count_nonzero(crop) == masks.areas[index] > 0
        assert all(edge.any() for edge in (crop[0], crop[-1], crop[:, 0], crop[:, -1]))
    x, y = masks.prompts_xy.T
    assert ((x >= 0) & (x < frame.size_hw[1]) & (y >= 0) & (y < frame.size_hw[0])).all()


def test_masks_are_well_formed_and_best_first(segmenter: SAM2Segmenter) -> None:
    masks = segmenter.propose(coins())
    assert len(masks) > 3
    check_form(masks, coins())


def test_the_same_picture_has_the_same_masks(segmenter: SAM2Segmenter, small: Path) -> None:
    first = segmenter.propose(coins())
    segmenter.propose(coins(20))
    assert same_masks(segmenter.propose(coins()), first)
    assert same_masks(SAM2Segmenter(small, "cpu", **LOOSE).propose(coins()), first)


def test_two_threads_get_what_one_gets(segmenter: SAM2Segmenter) -> None:
    frames = [coins(10 * i) for i in range(3)]
    alone = [segmenter.propose(frame) for frame in frames]
    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(segmenter.propose, frames))
    assert all(map(same_masks, alone, together))


@pytest.mark.parametrize("size_hw", [(1, 2), (1, 200), (300, 3), (7, 5)])
def test_pictures_of_any_shape_are_taken(
    segmenter: SAM2Segmenter, size_hw: tuple[int, int]
) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*size_hw, 3), dtype=np.uint8)
    check_form(segmenter.propose(Frame(image)), Frame(image))


def test_a_picture_of_one_colour_has_no_objects(segmenter: SAM2Segmenter) -> None:
    assert len(segmenter.propose(Frame(np.full((40, 50, 3), 7, np.uint8)))) == 0


@pytest.mark.parametrize("given", [
    np.random.default_rng(0).random((20, 20, 3), np.float32), np.zeros((20, 20, 3)), "picture.png",
])  # fmt: skip
def test_floats_are_refused_and_not_seen_as_black(segmenter: SAM2Segmenter, given: Any) -> None:
    for ask in (
        segmenter.propose,
        lambda frame: segmenter.segment_boxes(frame, [(1, 1, 5, 5)]),
        lambda frame: segmenter.segment_points(frame, [(1, 1)]),
    ):
        with pytest.raises(ImageError, match="uint8"):
            ask(given)
    if isinstance(given, np.ndarray):
        with pytest.raises(ImageError, match="uint8"):
            Frame(given)


def test_limits_of_area_and_number_hold(small: Path, segmenter: SAM2Segmenter) -> None:
    loose = {**LOOSE, "box_nms_thresh": 1.0}
    everything = SAM2Segmenter(small, "cpu", **loose).propose(coins())
    least, most = (int(np.quantile(everything.areas, q)) for q in (0.3, 0.7))
    limited = SAM2Segmenter(small, "cpu", **loose, min_area=least, max_area=most).propose(coins())
    wanted = (everything.areas >= least) & (everything.areas <= most)
    assert 0 < len(limited) == wanted.sum() < len(everything)
    few = SAM2Segmenter(small, "cpu", **LOOSE, max_proposals=2).propose(coins())
    assert same_masks(few, segmenter.propose(coins())[:2])


def test_boxes_and_points_have_one_mask_each(segmenter: SAM2Segmenter) -> None:
    frame = coins()
    masks = segmenter.segment_boxes(frame, [(10, 10, 40, 40), (90, 20, 60, 70)])
    assert len(masks) == 2
    assert np.isnan(masks.prompts_xy).all()
    masks = segmenter.segment_points(frame, [(20, 30), (100, 80), (150, 140)])
    assert masks.prompts_xy.tolist() == [[20, 30], [100, 80], [150, 140]]
    assert len(segmenter.segment_boxes(frame, [])) == len(segmenter.segment_points(frame, [])) == 0


def test_clicks_have_one_mask_together(segmenter: SAM2Segmenter) -> None:
    frame = coins()
    one = segmenter.segment_clicks(frame, [(20, 30)], [True])
    assert same_masks(one, segmenter.segment_points(frame, [(20, 30)]))
    box = (10, 10, 40, 40)
    boxed = segmenter.segment_clicks(frame, np.zeros((0, 2)), [], box)
    assert same_masks(boxed, segmenter.segment_boxes(frame, [box]))
    assert np.isnan(boxed.prompts_xy).all()
    three = segmenter.segment_clicks(frame, [(100, 80), (20, 30), (40, 40)], [False, True, False])
    assert len(three) == 1
    assert three.prompts_xy.tolist() == [[20, 30]]
    assert not same_masks(three, one), "negative clicks matter"
    both = segmenter.segment_clicks(frame, [(20, 30)], [True], box)
    assert not same_masks(both, boxed), "a click in the box matters"


def test_clicks_that_cannot_be_are_refused(segmenter: SAM2Segmenter, small: Path) -> None:
    with pytest.raises(MaskError, match="needs a click on it or a box"):
        segmenter.segment_clicks(coins(), [(20, 30)], [False])
    with pytest.raises(MaskError, match="180x150"):
        segmenter.segment_clicks(coins(), [(200, 30)], [True])
    blind = SAM2Segmenter(small, "cpu", mask_threshold=1e6)
    with pytest.raises(MaskError, match="finds nothing at 20,30"):
        blind.segment_clicks(coins(), [(40, 40), (20, 30)], [False, True])


def test_masks_are_drawn_anew_in_their_order(segmenter: SAM2Segmenter) -> None:
    frame = coins()
    given = segmenter.segment_points(frame, [(20, 30), (100, 80)])
    drawn = segmenter.segment_masks(frame, given)
    assert len(drawn) == 2
    one = segmenter.segment_masks(frame, given[[1]])
    assert same_masks(one, drawn[[1]])
    empty = segmenter.segment_masks(frame, given[[]])
    assert len(empty) == 0
    by_box = segmenter.segment_boxes(frame, [(*xy, 9, 9) for xy in given.boxes_xyxy[:, :2]])
    assert not same_masks(drawn, by_box), "the mask itself matters"
    with pytest.raises(MaskError, match="do not fit"):
        segmenter.segment_masks(Frame(frame.image_rgb[:100]), given)


def test_several_frames_get_what_each_gets(
    segmenter: SAM2Segmenter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sam2_module.FRAMES_AT_ONCE, "cpu", 2)
    frames = [coins(10 * i) for i in range(3)]
    together = segmenter.propose_batch(frames)
    alone = [segmenter.propose(frame) for frame in frames]
    assert [len(masks) for masks in together] == [len(masks) for masks in alone]
    for a, b in zip(together, alone, strict=True):
        np.testing.assert_allclose(a.predicted_ious, b.predicted_ious, atol=1e-4)
    assert segmenter.propose_batch([]) == []


def test_prompts_outside_the_picture_are_refused(segmenter: SAM2Segmenter) -> None:
    with pytest.raises(MaskError, match="180x150"):
        segmenter.segment_boxes(coins(), [(200, 10, 5, 5)])
    with pytest.raises(MaskError, match="180x150"):
        segmenter.segment_points(coins(), [(10, 150)])
    with pytest.raises(MaskError, match="two numbers"):
        segmenter.segment_points(coins(), [(10,)])


def test_a_prompt_with_no_answer_says_so(small: Path) -> None:
    blind = SAM2Segmenter(small, "cpu", mask_threshold=1e6)
    with pytest.raises(MaskError, match="finds nothing at 20,30"):
        blind.segment_points(coins(), [(20, 30)])


def test_prompts_that_follow_do_not_encode_again(
    segmenter: SAM2Segmenter, monkeypatch: pytest.MonkeyPatch
) -> None:
    frame = coins(5)
    segmenter.propose(frame)
    monkeypatch.setattr(segmenter.model, "encode", lambda images: pytest.fail("encoded again"))
    assert len(segmenter.segment_points(frame, [(20, 30)])) == 1


@pytest.mark.parametrize("options", [
    {"points_per_side": 0}, {"points_per_side": 257}, {"pred_iou_thresh": 1.1},
    {"pred_iou_thresh": float("nan")}, {"stability_score_thresh": -1}, {"box_nms_thresh": 2},
    {"crop_nms_thresh": -0.1}, {"crop_n_layers": -1}, {"crop_overlap_ratio": 1.5},
    {"crop_n_points_downscale_factor": 0}, {"min_mask_region_area": -1}, {"min_area": -1},
    {"max_area": -5}, {"max_proposals": -1}, {"points_per_batch": 0}, {"dtype": "int8"},
    {"points_per_side": "many"}, {"prompts": "everywhere"}, {"preset": "telescopy"},
    {"stability_score_offset": -1},
])  # fmt: skip
def test_a_parameter_out_of_its_range_is_named(small: Path, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(options))) as caught:
        SAM2Segmenter(small, "cpu", **options)
    assert "\n" not in str(caught.value)


def test_the_least_area_is_not_above_the_most(small: Path) -> None:
    with pytest.raises(ConfigError, match="larger than max_area"):
        SAM2Segmenter(small, "cpu", min_area=9, max_area=8)


def test_the_microscopy_preset_gives_way_to_what_is_given(small: Path) -> None:
    preset = SAM2Segmenter(small, "cpu", preset="microscopy").config
    assert (preset.per_side, preset.limits.area) == (128, (30, 0))
    given = SAM2Segmenter(small, "cpu", preset="microscopy", points_per_side=9, min_area=5).config
    assert (given.per_side, given.limits.area) == (9, (5, 0))


def test_without_the_extra_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(path: str) -> Any:
        raise ModuleNotFoundError("No module named 'sam2'", name="sam2")

    monkeypatch.setattr(registry, "_import", missing)
    with pytest.raises(UnavailableError, match=r"needs the package sam2: pip install 'sam-detect"):
        registry.load_class("segmenter", "sam2")


def test_too_little_memory_is_met_with_smaller_batches(
    small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    segmenter = SAM2Segmenter(small, "cpu", **LOOSE, points_per_batch=16)
    expected = segmenter.propose(coins())
    decode = segmenter.model.decoder.decode

    def full(frame: Any, prompts: Any, **options: Any) -> Any:
        if len(prompts) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return decode(frame, prompts, **options)

    monkeypatch.setattr(segmenter.model.decoder, "decode", full)
    assert len(segmenter.propose(coins())) == len(expected)
    assert segmenter.model.chunk == 2

    def fuller(*_: Any, **__: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(segmenter.model.decoder, "decode", fuller)
    with pytest.raises(UnavailableError, match="memory does not suffice"):
        segmenter.propose(coins())


def test_bf16_finds_about_the_same(small: Path, segmenter: SAM2Segmenter) -> None:
    found = SAM2Segmenter(small, "cpu", **LOOSE, dtype="bf16").propose(coins())
    check_form(found, coins())
    expected = len(segmenter.propose(coins()))
    assert 0.5 * expected <= len(found) <= 2 * expected


@pytest.mark.slow
def test_the_compiled_decoder_finds_the_same(small: Path, segmenter: SAM2Segmenter) -> None:
    compiled = SAM2Segmenter(small, "cpu", **LOOSE, compile=True).propose(coins())
    expected = segmenter.propose(coins())
    assert len(compiled) == len(expected)
    np.testing.assert_allclose(compiled.predicted_ious, expected.predicted_ious, atol=1e-4)


def test_without_a_compiler_it_says_so_and_goes_on(
    small: Path, segmenter: SAM2Segmenter, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = segmenter.propose(coins())
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.warns(UserWarning, match=r"compile=True changes nothing: .* no C\+\+ compiler"):
        made = SAM2Segmenter(small, "cpu", **LOOSE, compile=True)
    assert same_masks(made.propose(coins()), expected)


def test_where_compiling_fails_it_says_so_once_and_goes_on(
    small: Path, segmenter: SAM2Segmenter, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    tried: list[Any] = []

    def broken(*graph: Any) -> Any:
        tried.append(graph)
        raise OSError("the compiler is broken")

    monkeypatch.setenv("SAM_DETECT_HOME", str(tmp_path))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "put back afterwards")
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR")
    monkeypatch.setattr("shutil.which", lambda name: "/usr/bin/g++")
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=broken))
    made = SAM2Segmenter(small, "cpu", **LOOSE, compile=True)
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"].startswith(str(tmp_path))
    with pytest.warns(UserWarning, match="changes nothing: .*the compiler is broken") as told:
        found = made.propose(coins())
    assert not any("\n" in str(each.message) for each in told)
    assert len(tried) == 2, "once for each half of the decoder, in many chunks"
    assert same_masks(found, segmenter.propose(coins()))


# Small logits to masks


def square_logits(at: tuple[int, int, int, int], size: int = 64) -> torch.Tensor:
    logits = torch.full((size, size), -5.0)
    x0, y0, x1, y1 = at
    logits[y0:y1, x0:x1] = 5.0
    return logits


@pytest.mark.parametrize("size_hw", [(64, 64), (200, 130), (40, 700), (9, 11), (1, 1)])
@pytest.mark.parametrize("seed", range(3))
def test_scaling_in_the_box_equals_scaling_everything(size_hw: tuple[int, int], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(1, 1, 9, 9, generator=generator) - 0.7
    logits = torch.nn.functional.interpolate(coarse, (64, 64), mode="bicubic")[0, 0]
    full = torch.nn.functional.interpolate(logits[None, None], size_hw, mode="bilinear")[0, 0]
    found = cut(logits, size_hw, Limits(0, 0, 0.1))
    expected = (full > 0).numpy()
    if found is None:
        assert not expected.any()
        return
    dense = np.zeros(size_hw, bool)
    x0, y0, x1, y1 = found.box_xyxy
    dense[y0:y1, x0:x1] = found.crop()
    np.testing.assert_array_equal(dense, expected)
    assert found.area == expected.sum()
    stability = (full > 0.1).sum() / (full > -0.1).sum()
    assert found.stability == pytest.approx(float(stability), abs=1e-6)


def test_a_mask_is_scaled_only_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    lerp = torch.lerp
    monkeypatch.setattr(torch, "lerp", lambda *a: sizes.append(tuple(lerp(*a).shape)) or lerp(*a))
    cut(square_logits((10, 20, 14, 26)), (640, 640), Limits(0, 0))
    assert max(side for size in sizes for side in size) <= 80


@pytest.mark.parametrize("seed", range(20))
def test_the_bound_drops_nothing_that_is_stable(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    side = 5 + 3 * seed
    coarse = 3 * torch.randn(1, 1, side, side, generator=generator) - 1
    logits = torch.nn.functional.interpolate(coarse, (256, 256), mode="bicubic")[0, 0]
    exact = cut(logits, (800, 700), Limits(0, 0, 0.5))
    assert exact is not None
    assert cut(logits, (800, 700), Limits(0, exact.stability - 1e-6, 0.5)) is not None
    assert cut(logits, (800, 700), Limits(0, exact.stability + 1e-6, 0.5)) is None


@pytest.mark.parametrize("size_hw", [(256, 192), (64, 64), (40, 51), (7, 90)])
def test_the_bound_drops_no_tiny_mask_that_is_stable(size_hw: tuple[int, int]) -> None:
    """Bumps of a few pixels, steep and flat, of which some touch the border."""
    generator = torch.Generator().manual_seed(0)
    count = 700
    steps = torch.arange(64.0)
    middle, radius, height = (torch.rand(3, count, 2, generator=generator)
                              * torch.tensor([64.0, 3.0, 12.0])[:, None, None])  # fmt: skip
    y, x = (((steps - middle[:, axis, None]) / (0.7 + radius[:, axis, None])) ** 2
            for axis in (0, 1))  # fmt: skip
    logits = height[:, :1, None] + 0.6 - 2 * (y[:, :, None] + x[:, None, :])
    exact = cut_out(logits, size_hw, Limits(0, 0, 0.5))
    found = [(each, one) for each, one in zip(exact, logits, strict=True) if each is not None]
    assert len(found) > 150
    assert sum(0.3 < each.stability < 1 for each, _ in found) > 60
    axes = masks_module.axis_of(size_hw[0], 64), masks_module.axis_of(size_hw[1], 64)
    bounds = [Limits(0, max(0.0, each.stability - 1e-6), 0.5) for each, _ in found]
    assert all(
        bool(masks_module.may_be_stable(one[None], axes, limits)[0])
        for (_, one), limits in zip(found, bounds, strict=True)
    )


def test_the_bound_spares_the_scaling(monkeypatch: pytest.MonkeyPatch) -> None:
    logits = torch.linspace(-1, 1, 64).expand(64, 64)
    monkeypatch.setattr(masks_module, "_scaled_up", lambda *_: pytest.fail("scaled up"))
    assert cut(logits, (200, 200), Limits(0, 0.9, 0.5)) is None


def test_small_holes_and_specks_are_removed() -> None:
    logits = square_logits((10, 10, 40, 40))
    logits[20:23, 20:23] = -5
    logits[50:52, 50:52] = 5
    before = cut(logits, (64, 64), Limits(0, 0))
    after = cut(logits, (64, 64), Limits(0, 0, region_area=9))
    assert before is not None
    assert after is not None
    assert (before.area, after.area) == (900 - 9 + 4, 900)
    kept = cut(logits, (64, 64), Limits(0, 0, region_area=8))
    assert kept is not None
    assert kept.area == 900 - 9


# Where to ask


AUTO: dict[str, Any] = {**LOOSE, "points_per_side": "auto", "mask_threshold": 0}


def asked_by(segmenter: SAM2Segmenter, frame: Frame, hints: Hints = NO_HINTS) -> int:
    """Number of prompts."""
    counts: list[int] = []
    ask = segmenter.model.decode

    def counted(features: Any, points: Any, size: Any, **options: Any) -> None:
        counts.append(len(points))
        ask(features, points, size, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(segmenter.model, "decode", counted)
        segmenter.propose(frame, hints)
    return sum(counts)


def test_the_grid_follows_the_smallest_example(small: Path) -> None:
    segmenter = SAM2Segmenter(small, "cpu", **AUTO)
    assert "areas" in segmenter.uses
    assert asked_by(segmenter, coins()) == 32**2
    assert asked_by(segmenter, coins(), Hints((5000, 6000))) == 16**2
    least = SAM2Segmenter(small, "cpu", **AUTO, min_area=5000)
    assert asked_by(least, coins(), Hints((2, 9000))) == 16**2, "nothing below min_area is sought"
    usual = SAM2Segmenter(small, "cpu", **{**AUTO, "preset": "microscopy"}).config
    assert usual.per_side == 128, "while no sizes are known"


def test_a_number_of_points_is_kept_whatever_the_examples(segmenter: SAM2Segmenter) -> None:
    assert segmenter.uses == ()
    assert asked_by(segmenter, coins(), Hints((5, 9))) == asked_by(segmenter, coins())


def test_blobs_are_sought_at_the_sizes_of_the_examples(small: Path) -> None:
    segmenter = SAM2Segmenter(small, "cpu", prompts="blobs", max_area=500)
    sized = segmenter.prompter.knowing(Hints((100, 200)))
    assert isinstance(sized, BlobPrompter)
    assert sized.areas == pytest.approx((100 / np.e, 500))
    asked = SAM2Segmenter(small, "cpu", prompts="blobs", min_area=70).prompter
    least = asked.knowing(Hints((100, 200)))
    assert isinstance(least, BlobPrompter)
    assert least.areas == pytest.approx((70, 200 * np.e))
    assert isinstance(segmenter.prompter, BlobPrompter)
    assert segmenter.prompter.areas == (0, 500)


def test_fewer_points_are_asked_where_objects_are_found(small: Path) -> None:
    options = {**LOOSE, "points_per_side": 16, "mask_threshold": 0}
    found = {
        prompts: asked_by(SAM2Segmenter(small, "cpu", **options, prompts=prompts), coins())
        for prompts in ("grid", "adaptive")
    }
    assert found["adaptive"] < found["grid"] == 256


@pytest.mark.parametrize("prompts", ["adaptive", "blobs"])
def test_other_prompts_find_masks(small: Path, prompts: str) -> None:
    masks = SAM2Segmenter(small, "cpu", **LOOSE, prompts=prompts).propose(coins())
    assert len(masks) > 1
    check_form(masks, coins())


def test_similarity_asks_where_the_picture_is_like_the_examples(small: Path) -> None:
    def left_half(image_rgb: Any) -> Any:
        similar = np.zeros(image_rgb.shape[:2], np.float32)
        similar[:, : image_rgb.shape[1] // 2] = 0.9
        yield similar

    segmenter = SAM2Segmenter(small, "cpu", **LOOSE, prompts="similarity")
    assert "similarity" in segmenter.uses
    masks = segmenter.propose(coins(), Hints((100, 5000), similarity=left_half))
    assert len(masks) > 1
    check_form(masks, coins())
    assert (masks.prompts_xy[:, 0] <= coins().size_hw[1] / 2 + 2).all()
    without = segmenter.propose(coins())
    grid = SAM2Segmenter(small, "cpu", **LOOSE).propose(coins())
    assert without.crop_rles == grid.crop_rles, "the grid, where nothing is known"
    other = SAM2Segmenter(small, "cpu", **LOOSE, prompts="blobs")
    assert "similarity" not in other.uses


def test_the_forest_asks_at_each_object_a_tenth_of_the_grids_prompts(small: Path) -> None:
    """Random weights say nothing of masks: what counts is where they are asked, and how often."""
    image, objects = discs()
    cuts = [
        context.cut(image, crop, box, occupancy=0.2, crop_side=256)
        for crop, box in zip(objects.crops(), objects.boxes_xyxy.tolist(), strict=True)
    ]
    options = {**LOOSE, "points_per_side": 32, "pred_iou_thresh": 0, "stability_score_thresh": 0}
    plain = SAM2Segmenter(small, "cpu", **options, prompts="forest")
    assert "crops" in plain.uses
    hints = Hints((250, 260), ExampleCrops({"disc": cuts[:10]}))
    assert 30 <= asked_by(plain, Frame(image), hints) <= 102
    masks = plain.propose(Frame(image), hints)
    check_form(masks, Frame(image))
    assert same_masks(plain.propose(Frame(image), hints), masks)
    guided = plain.prompter.knowing(hints)
    points = np.concatenate(list(guided.rounds(image, 32, Covered(image.shape[:2]))))
    columns, rows = (points * image.shape[1::-1]).astype(int).T
    assert all(objects.dense(i)[rows, columns].any() for i in range(len(objects)))
    few = Hints(crops=ExampleCrops({"disc": cuts[:2]}))
    assert asked_by(plain, Frame(image), few) == 32**2, "too few examples for a forest"
    assert "crops" not in SAM2Segmenter(small, "cpu", **options).uses


def discs() -> tuple[Any, Masks]:
    """Thirty bright discs in rows, which touch their neighbours, on a grained ground."""
    image = np.random.default_rng(0).normal(60, 5, (160, 200)).clip(0, 255).astype(np.uint8)
    masks = []
    for number in range(30):
        mask = np.zeros(image.shape, np.uint8)
        at = 22 + 18 * (number % 10), 30 + 40 * (number // 10)
        cv2.circle(mask, at, 9, 1, thickness=-1)
        image[mask > 0] = 150 + number
        masks.append(mask > 0)
    return np.repeat(image[..., None], 3, axis=2), Masks.from_dense(np.stack(masks))


def test_what_is_too_small_follows_the_grid_and_the_models_resolution(small: Path) -> None:
    def least(**options: Any) -> float:
        return SAM2Segmenter(small, "cpu", **options).smallest_area((1024, 2048))

    assert least(points_per_side=4) == 1024 * 2048 / 8**2
    assert least(points_per_side=256) == 50 * 1024 * 2048 / 256**2, "the model sees 256 pixels"
    assert least(points_per_side=4, prompts="blobs") == least(points_per_side=256)
    auto = SAM2Segmenter(small, "cpu", points_per_side="auto")
    assert auto.smallest_area((1024, 2048), Hints((2000, 3000))) < 2000
    assert auto.worked_pixels((1024, 2048)) == 256**2
