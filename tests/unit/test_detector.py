"""``SAMDetect``: what it promises of vectors, crops, colours and settings."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from qdrant_client import QdrantClient

from sam_detect import SAMDetect
from sam_detect.config import Settings
from sam_detect.embedding import AverageEmbedder
from sam_detect.errors import (
    ConfigError,
    ImageError,
    LibraryError,
    LibraryNotFoundError,
    MaskError,
    OutlineWarning,
    RecipeMismatchError,
    UnavailableError,
)
from sam_detect.fading import GaussianFade, IdentityFade, LinearFade
from sam_detect.interfaces import Segmenter
from sam_detect.segmentation import NaiveSegmenter
from sam_detect.types import NO_HINTS, Frame, Hints, Masks
from sam_detect.vector_store import MemoryVectorStore
from tests.closeness import same_vectors

DISCS = [(40, 40), (120, 50), (210, 40), (60, 150)]


def drawn(seed: int = 0) -> npt.NDArray[np.uint8]:
    """``(200, 280, 3)`` RGB: discs and a square on a light ground, on a gradient of blue."""
    image = np.full((200, 280, 3), (228, 226, 220), np.uint8)
    image[..., 2] -= np.linspace(0, 60, 280).astype(np.uint8)
    for x, y in DISCS:
        cv2.circle(image, (x, y), 20, (60, 40, 120), -1, cv2.LINE_AA)
    cv2.rectangle(image, (122, 122), (158, 158), (40, 120, 60), -1)
    grain = np.random.default_rng(seed).integers(-3, 4, image.shape)
    return np.clip(image + grain, 0, 255).astype(np.uint8)


def disc(x: int, y: int) -> npt.NDArray[np.bool_]:
    rows, columns = np.mgrid[:200, :280]
    return np.asarray((columns - x) ** 2 + (rows - y) ** 2 <= 400)


def in_memory(**options: Any) -> SAMDetect:
    return SAMDetect(vector_store=MemoryVectorStore(), **options)


def vectors_of(detector: SAMDetect) -> npt.NDArray[np.float32]:
    return detector.snapshot().examples().vectors


@pytest.fixture
def rgb() -> npt.NDArray[np.uint8]:
    return drawn()


@pytest.fixture
def bgr(rgb: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    return np.ascontiguousarray(rgb[..., ::-1])


# One picture, one vector


def test_a_file_and_the_same_picture_as_a_bgr_array_give_the_same_vectors(
    tmp_path: Path, rgb: npt.NDArray[np.uint8]
) -> None:
    path = tmp_path / "picture.png"
    Image.fromarray(rgb).save(path)
    detector = in_memory()
    assert detector.add_examples_from_file(image_path=path, masks="auto", label="thing").added == 4
    again = detector.add_examples_from_file(cv2.imread(str(path)), masks="auto", label="thing")
    assert again.added == 0, "the same pixels and masks are the same examples"
    found = detector.detect(cv2.imread(str(path))).known
    assert len(found) == 4
    for detection in found:
        assert detection.neighbours[0].similarity == pytest.approx(1, abs=1e-5)
    wrong = in_memory(color_order="rgb")
    wrong.add_examples_from_file(cv2.imread(str(path)), masks=disc(*DISCS[0]), label="thing")
    detector = in_memory()
    detector.add_examples_from_file(path, masks=disc(*DISCS[0]), label="thing")
    assert not np.allclose(vectors_of(wrong), vectors_of(detector), atol=1e-3)


def test_color_order_says_how_arrays_lie(
    rgb: npt.NDArray[np.uint8], bgr: npt.NDArray[np.uint8]
) -> None:
    made = []
    for detector, image in (
        (in_memory(), bgr),
        (in_memory(color_order="rgb"), rgb),
        (in_memory(color_order="rgb"), Image.fromarray(rgb)),
        (in_memory(), Image.fromarray(rgb)),
    ):
        detector.add_example(image, "disc", disc(*DISCS[0]))
        made.append(vectors_of(detector))
    assert all(same_vectors(made[0], other) for other in made[1:])


def test_visualize_gives_the_order_of_the_arrays(
    rgb: npt.NDArray[np.uint8], bgr: npt.NDArray[np.uint8]
) -> None:
    detector = in_memory()
    detector.add_example(bgr, "disc", disc(*DISCS[0]))
    found = detector.detect(bgr)
    shown = detector.visualize(bgr, found)
    assert (shown.shape, shown.dtype) == (bgr.shape, np.uint8)
    ground = detector.visualize(bgr, [])
    assert np.array_equal(ground, bgr)
    assert not np.array_equal(shown, bgr)
    in_rgb = in_memory(color_order="rgb")
    assert np.array_equal(in_rgb.visualize(rgb, []), rgb)
    assert np.array_equal(detector.visualize(bgr, list(found)), shown)


def test_a_negative_example_lowers_confidence(bgr: npt.NDArray[np.uint8]) -> None:
    detector = in_memory()
    detector.add_example(bgr, "disc", disc(*DISCS[0]))

    def confidence() -> float:
        return max(
            float(d.confidence)
            for d in detector.detect(bgr)
            if d.best_label == "disc" and d.mask[DISCS[1][1], DISCS[1][0]]
        )

    before = confidence()
    detector.add_example(bgr, "disc", disc(*DISCS[1]), negative=True)
    assert confidence() < before - 0.2


# Crops


@pytest.mark.parametrize("fade", [GaussianFade(), GaussianFade(sigma=30, min_fade=0.1),
                                  LinearFade(max_distance=60)])  # fmt: skip
def test_a_crop_that_is_learnt_is_the_same_object(
    tmp_path: Path, bgr: npt.NDArray[np.uint8], fade: Any
) -> None:
    def learnt(image: Any, mask: Any = None) -> npt.NDArray[np.float32]:
        detector = in_memory(fade_strategy=fade)
        assert detector.add_example(image=image, label="disc", mask=mask).added == 1
        return vectors_of(detector)[0]

    for x, y in DISCS[:3]:
        mask = disc(x, y)
        crop = in_memory(fade_strategy=fade).get_crop(bgr, mask)
        crop.save(tmp_path / "crop.png")
        direct = learnt(bgr, mask)
        assert float(direct @ learnt(crop)) > 0.97
        assert float(direct @ learnt(tmp_path / "crop.png")) > 0.97
        assert float(direct @ learnt(str(tmp_path / "crop.png"))) > 0.97


def test_a_crop_is_opaque_exactly_on_the_object(bgr: npt.NDArray[np.uint8]) -> None:
    for fade in (GaussianFade(), IdentityFade()):
        crop = in_memory(fade_strategy=fade).get_crop(bgr, disc(*DISCS[1]))
        assert crop.mode == "RGBA"
        opaque = np.asarray(crop)[..., 3] == 255
        assert opaque.sum() == disc(*DISCS[1]).sum()
        x0, y0, x1, y1 = crop.getchannel("A").point(lambda value: 255 * (value == 255)).getbbox()
        assert (x1 - x0, y1 - y0) == (41, 41)


@pytest.mark.parametrize("name", ["crop.jpg", "crop.JPEG", "crop.ppm", "crop.png", "crop.webp"])
def test_a_crop_saves_in_the_formats_of_pictures(
    tmp_path: Path, bgr: npt.NDArray[np.uint8], name: str
) -> None:
    crop = in_memory(fade_strategy=GaussianFade(sigma=30)).get_crop(bgr, disc(*DISCS[1]))
    crop.save(tmp_path / name)
    crop.save(str(tmp_path / name))
    saved = Image.open(tmp_path / name)
    assert saved.size == crop.size
    weights = np.asarray(crop)[..., 3:] / 255
    faded = np.asarray(crop)[..., :3] * weights
    shown = np.asarray(saved.convert("RGBA"), float)
    shown = shown[..., :3] * shown[..., 3:] / 255
    assert np.abs(shown - faded).mean() < 3


def test_a_crop_saves_into_a_stream_and_as_jpeg_still_shows_its_object(
    bgr: npt.NDArray[np.uint8],
) -> None:
    crop = in_memory().get_crop(bgr, disc(*DISCS[1]))
    stream = io.BytesIO()
    crop.save(stream, "jpeg", quality=95)
    detector = in_memory()
    assert detector.add_example(Image.open(stream), "disc").added == 1
    [example] = detector.library.read()
    assert 1000 < example.area < 1700, "the disc has 1317 pixels"
    assert crop.copy().mode == crop.resize((20, 20)).mode == "RGBA"


def test_a_detections_mask_makes_a_crop(bgr: npt.NDArray[np.uint8]) -> None:
    detector = in_memory()
    found = detector.detect(bgr)
    assert detector.get_crop(bgr, found[0]["mask"]).size[0] > 10
    with pytest.raises(MaskError):
        detector.get_crop(bgr, np.zeros((200, 280), bool))
    with pytest.raises(MaskError):
        detector.get_crop(bgr, np.ones((5, 5), bool))


def test_an_example_without_a_mask_is_what_lies_in_the_middle(rgb: npt.NDArray[np.uint8]) -> None:
    detector = in_memory(color_order="rgb")
    detector.add_example(rgb[110:170, 110:170], "square")
    [example] = detector.library.read()
    assert 800 < example.area < 1500, "the square has 1369 pixels"
    x, y, w, h = example.bbox
    assert abs(x + w / 2 - 30) < 4
    assert abs(y + h / 2 - 30) < 4
    plain = in_memory()
    plain.add_example(np.full((30, 20, 3), 90, np.uint8), "plain")
    assert [example.area for example in plain.library.read()] == [600]


# Learning


@pytest.mark.parametrize("label", ["", "  ", "\t", None, 3])
def test_a_label_is_a_visible_name(bgr: npt.NDArray[np.uint8], label: Any) -> None:
    detector = in_memory()
    with pytest.raises(LibraryError, match="label"):
        detector.add_example(bgr, label, disc(*DISCS[0]))
    assert len(detector.library) == 0


def test_masks_of_another_size_are_refused(bgr: npt.NDArray[np.uint8]) -> None:
    detector = in_memory()
    with pytest.raises(MaskError):
        detector.add_example(bgr, "x", np.ones((9, 9), bool))
    with pytest.raises(MaskError, match="9x9"):
        detector.add_examples_from_file(bgr, Masks.from_dense(np.ones((9, 9), bool)), "x")
    with pytest.raises(ConfigError, match="masks must be"):
        detector.add_examples_from_file(bgr, "all", "x")
    with pytest.raises(ImageError):
        detector.add_examples_from_file("gone.png", "auto", "x")


def test_a_list_gives_a_list(bgr: npt.NDArray[np.uint8]) -> None:
    found = in_memory().detect([bgr, bgr])
    assert [len(each) for each in found] == [len(found[0])] * 2
    assert in_memory().detect([]) == []


# Fades


def test_fades_can_be_tried_out_on_a_library(bgr: npt.NDArray[np.uint8]) -> None:
    detector = in_memory(fade_strategy=GaussianFade(sigma=30))
    detector.add_example(bgr, "disc", disc(*DISCS[0]))
    before = vectors_of(detector)
    stored = detector.library
    detector.set_fade_strategy(LinearFade(max_distance=20))
    assert detector.recipe.fade == "linear"
    assert not np.allclose(vectors_of(detector), before)
    assert any(found.label == "disc" for found in detector.detect(bgr))
    with pytest.raises(RecipeMismatchError, match=r"reindex|learn the pictures again"):
        detector.add_example(bgr, "disc", disc(*DISCS[1]))
    detector.set_fade_strategy(GaussianFade(sigma=30))
    assert detector.library is stored
    assert detector.add_example(bgr, "disc", disc(*DISCS[1])).total == 2


@pytest.mark.parametrize("bad", [object(), LinearFade, 3])
def test_a_fade_is_an_object_with_apply(bad: Any) -> None:
    with pytest.raises(ConfigError, match=r"apply|class"):
        in_memory(fade_strategy=bad)
    with pytest.raises(ConfigError, match=r"apply|class"):
        in_memory().set_fade_strategy(bad)


def test_fade_config_is_the_other_name() -> None:
    assert in_memory(fade_config=LinearFade(max_distance=9)).recipe.fade == "linear"
    with pytest.raises(ConfigError, match="other name"):
        in_memory(fade_config=LinearFade(), fade_strategy=LinearFade())


# Settings


def test_parts_are_taken_by_name_or_as_objects() -> None:
    assert in_memory(embedder="average").recipe.embedder == "average"
    assert in_memory(embedder=AverageEmbedder()).recipe.embedder == "average"
    assert isinstance(in_memory(segmenter="naive", min_area=7).segmenter, NaiveSegmenter)
    assert SAMDetect(vector_store="memory").library.store.location.startswith("memory")


@pytest.mark.parametrize("room", ["segmenter", "embedder", "labeller", "vector_store"])
def test_an_object_that_is_no_such_part_is_refused(room: str) -> None:
    with pytest.raises(ConfigError, match="got <object"):
        SAMDetect(**{room: object()})


@pytest.mark.parametrize("given", [{"default_top_k": 2}, {"top_k": 2}])
def test_top_k_has_two_names_and_both_work(
    bgr: npt.NDArray[np.uint8], given: dict[str, int]
) -> None:
    detector = in_memory(**given)
    for x, y in DISCS[:3]:
        detector.add_example(bgr, "disc", disc(x, y))
    assert {len(found.neighbours) for found in detector.detect(bgr)} == {2}
    with pytest.raises(ConfigError, match="top_k"):
        in_memory(**dict.fromkeys(given, 0))


def test_what_is_far_too_large_is_unknown_and_says_what_it_looks_like() -> None:
    image = np.full((400, 500, 3), (220, 226, 228), np.uint8)
    for x in (40, 90):
        cv2.circle(image, (x, 60), 9, (120, 40, 60), -1)
    cv2.circle(image, (300, 220), 130, (120, 40, 60), -1)
    detector = in_memory()
    rows, columns = np.mgrid[:400, :500]
    detector.add_example(image, "disc", (columns - 40) ** 2 + (rows - 60) ** 2 <= 81)
    found = detector.detect(image)
    assert all(each.neighbours for each in found)
    [large] = [each for each in found if 40_000 < each.area < 65_000]
    assert (large.label, large.best_label, large.confidence) == (None, "disc", 0.0)
    assert found.timings_ms["label"] > 0
    assert all(not each.neighbours for each in in_memory().detect(image))


class Sized(Segmenter):
    """Two squares; notes the areas that it is asked for."""

    uses = ("areas",)

    def __init__(self) -> None:
        self.asked: list[tuple[int, int] | None] = []

    def propose(self, frame: Frame, hints: Hints = NO_HINTS) -> Masks:
        self.asked.append(hints.areas)
        squares = np.zeros((2, *frame.size_hw), np.bool_)
        squares[0, 5:15, 5:15] = squares[1, 30:50, 30:50] = True
        return Masks.from_dense(squares)


def test_the_segmenter_is_told_the_sizes_that_are_sought(rgb: npt.NDArray[np.uint8]) -> None:
    segmenter = Sized()
    detector = in_memory(segmenter=segmenter)
    detector.detect(rgb)
    assert segmenter.asked == [None]
    for side in (30, 4, 12):
        mask = np.zeros((200, 280), bool)
        mask[100 : 100 + side, 100 : 100 + side] = True
        detector.add_example(rgb, "square", mask, negative=side == 4)
    detector.detect(rgb)
    assert segmenter.asked[-1] == (144, 900), "counterexamples are not sought"


def test_what_is_learnt_does_not_depend_on_what_was_learnt_before(
    rgb: npt.NDArray[np.uint8],
) -> None:
    segmenter = Sized()
    detector = in_memory(segmenter=segmenter)
    for x, y in DISCS[:2]:
        detector.add_example(rgb, "disc", disc(x, y)[:200])
    size = int(disc(*DISCS[0]).sum())
    assert segmenter.asked == [(size, size)] * 2
    frame = detector.read(rgb)
    detector.learn_frame(frame, detector.pipeline.all_proposals(frame), ["a", "b"])
    assert segmenter.asked[2] is None
    assert len(segmenter.asked) == 3, "masks that are there are looked around in"


def test_an_unknown_setting_is_named() -> None:
    with pytest.raises(ConfigError, match="no setting 'simga'"):
        in_memory(simga=3)


@pytest.mark.parametrize(
    "given",
    [
        {"embedding_model": "clip-vit-b"},
        {"clip_model": "clip-vit-b"},
        {"embedder": "clip"},
        {"embedder": "sam2"},
    ],
)
def test_what_needs_a_model_says_so(given: dict[str, Any]) -> None:
    with pytest.raises(UnavailableError, match=r"needs no model"):
        in_memory(**given)


@pytest.mark.parametrize("given", [{"sam_model": "sam2_hiera_large"}, {"segmenter": "sam2"}])
def test_weights_that_are_not_here_are_named(given: dict[str, Any]) -> None:
    with pytest.raises(UnavailableError, match=r"download-models.*needs no model"):
        in_memory(**given)


def test_a_model_for_a_part_that_runs_none_is_refused() -> None:
    for given in (
        {"segmenter": "naive", "sam_model": "base"},
        {"segmenter": NaiveSegmenter(), "sam_model": "base"},
        {"embedder": "average", "embedding_model": "clip-vit-b"},
    ):
        with pytest.raises(ConfigError, match=r"_model is an option of the .*: leave it out"):
            in_memory(**given)


def test_what_has_no_effect_is_taken_and_checked() -> None:
    assert in_memory(embedding_cache_size=10_000).settings.embedding_cache_size == 10_000
    for wrong in ({"embedding_cache_size": -1}, {"qdrant_batch_size": 0}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            in_memory(**wrong)
    with pytest.warns(UserWarning, match="TensorRT"):
        in_memory(tensorrt_enabled=True)


def test_a_device_that_no_part_uses_is_said_once_for_each_place() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        for _ in range(3):
            in_memory(device="cuda")
    assert [str(w.message) for w in caught] == [
        "device 'cuda' changes nothing: naive and lite run on the CPU"
    ]
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        in_memory(device="cpu")
        in_memory()


@pytest.mark.parametrize(("option", "part"), [
    ({"points_per_side": "auto"}, "naive"), ({"points_per_side": 8}, "naive"),
    ({"prompts": "blobs"}, "naive"),
])  # fmt: skip
def test_an_option_of_another_part_is_refused(option: dict[str, Any], part: str) -> None:
    [name] = option
    with pytest.raises(ConfigError, match=f"{name} is an option of .*'sam2'.* here .*'{part}'"):
        in_memory(**option)
    with pytest.raises(
        ConfigError, match=r"pooling is an option of .*'sam2'.* here .*'appearance'"
    ):
        in_memory(embedder="appearance", pooling="frame")
    with pytest.raises(ConfigError, match=r"the segmenter is an object \(set it there\)"):
        in_memory(segmenter=Sized(), prompts="blobs")


def test_points_are_sent_in_batches_of_the_size_asked_for(
    bgr: npt.NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    client = QdrantClient(":memory:")
    sent: list[int] = []
    upsert = client.upsert

    def recording(name: str, points: Any, **named: Any) -> Any:
        sent.append(len(points))
        return upsert(name, points, **named)

    monkeypatch.setattr(client, "upsert", recording)
    monkeypatch.setattr("sam_detect.vector_store._connect.connect", lambda *_, **__: client)
    detector = SAMDetect(qdrant_url="http://localhost:6333", qdrant_batch_size=2)
    masks = np.stack([disc(*place) for place in [*DISCS, (140, 140)]])
    assert detector.add_examples_from_file(bgr, masks, "thing").added == 5
    assert sent == [2, 2, 1]


def test_without_arguments_the_settings_are_the_defaults() -> None:
    assert in_memory().settings == Settings()


# Learning from boxes


def test_learn_gives_what_was_added_and_the_outlines(rgb: npt.NDArray[np.uint8]) -> None:
    detector = in_memory(color_order="rgb")
    boxes = [[x - 20, y - 20, 41, 41] for x, y in DISCS[:2]]
    with warnings.catch_warnings():
        warnings.simplefilter("error", OutlineWarning)
        done = detector.learn(rgb, boxes_xywh=boxes, points_xy=[DISCS[2]], label="disc")
    assert (done.added, done.relabelled, done.total, done.warnings) == (3, 0, 3, ())
    assert len(done.masks) == 3
    assert (done.box_ious[:2] > 0.8).all()
    assert np.isnan(done.box_ious[2])
    for index, place in enumerate(DISCS[:3]):
        found, wanted = done.masks.dense(index), disc(*place)
        assert np.count_nonzero(found & wanted) > 0.85 * np.count_nonzero(found | wanted)
    assert done.preview().size == (2 * 280, 2 * 200)
    given = np.stack([disc(*DISCS[3])])
    more = detector.learn(rgb, masks=given, boxes_xywh=boxes[:1], label="disc")
    assert (more.added, more.total, len(more.masks)) == (1, 4, 2)
    np.testing.assert_array_equal(more.masks.dense(0), given[0])
    assert detector.learn(rgb, "disc", boxes_xywh=boxes[:1], negative=True).total == 4


@pytest.mark.parametrize(
    ("box", "words"),
    [
        ([150, 85, 40, 40], "no object that was proposed fits it"),
        ([190, 20, 231, 61], "as x,y,w,h it would be 190,20,41,41"),
        ([-50, 20, 100, 60], "leaves the 280x200 picture"),
    ],
)
def test_a_box_that_may_not_mean_what_it_says_is_warned_of(
    rgb: npt.NDArray[np.uint8], box: list[float], words: str
) -> None:
    detector = in_memory(color_order="rgb")
    good = [DISCS[0][0] - 20, DISCS[0][1] - 20, 41, 41]
    with pytest.warns(OutlineWarning, match="box 2") as caught:
        done = detector.learn(rgb, boxes_xywh=[good, box], label="disc")
    [warned] = [each for each in caught if each.category is OutlineWarning]
    assert [str(warned.message)] == [f"array: {line}" for line in done.warnings]
    assert words in done.warnings[0]
    assert warned.filename == __file__, "it names the caller's line"


def test_a_guess_is_shown_and_learnt_only_where_it_is_accepted(
    rgb: npt.NDArray[np.uint8],
) -> None:
    detector = in_memory(color_order="rgb")
    boxes = [[DISCS[0][0] - 20, DISCS[0][1] - 20, 41, 41], [150, 85, 40, 40]]
    with pytest.warns(OutlineWarning, match="accept_guess=True"):
        done = detector.learn(rgb, "disc", boxes_xywh=boxes)
    assert (done.added, len(done.masks), done.guesses.tolist()) == (1, 2, [False, True])
    assert (np.asarray(done.preview()) != 0).any()
    with pytest.warns(OutlineWarning):
        assert detector.learn(rgb, "disc", boxes_xywh=boxes[1:]).added == 0
    with pytest.warns(OutlineWarning):
        both = detector.learn(rgb, "disc", boxes_xywh=boxes, accept_guess=True)
    assert (both.added, both.total, both.guesses.any()) == (1, 2, False)


def test_learn_takes_the_separate_objects_and_counts_what_it_leaves_out(
    rgb: npt.NDArray[np.uint8],
) -> None:
    detector = in_memory(color_order="rgb")
    done = detector.learn(rgb, masks="auto", label="disc")
    assert (done.added, len(done.masks)) == (4, 4)
    assert done.left_out == len(detector.pipeline.all_proposals(detector.read(rgb))) - 4


def test_learn_asks_where_the_objects_are(rgb: npt.NDArray[np.uint8]) -> None:
    with pytest.raises(ConfigError, match="boxes_xywh, masks or points_xy"):
        in_memory().learn(rgb, label="disc")
    with pytest.raises(ConfigError, match="'auto'"):
        in_memory().learn(rgb, label="disc", masks="all")
    with pytest.raises(LibraryError, match="label"):
        in_memory().learn(rgb, label=" ", boxes_xywh=[[20, 20, 41, 41]])


def test_a_library_that_does_not_exist_is_an_error_where_one_detects(
    rgb: npt.NDArray[np.uint8],
) -> None:
    with pytest.raises(LibraryNotFoundError, match="there is no library 'shapse'"):
        SAMDetect("naive", "average", library="shapse").detect(rgb)
    shapes = SAMDetect("naive", "average", library="shapes")
    shapes.add_example(rgb, "disc", disc(40, 40))
    assert shapes.detect(rgb)[0].label == "disc"
    mistyped = SAMDetect("naive", "average", library="shapse")
    for wrong in (rgb, [rgb, rgb]):
        with pytest.raises(LibraryNotFoundError, match="did you mean 'shapes'"):
            mistyped.detect(wrong)
    with pytest.raises(LibraryNotFoundError, match="shapes"):
        list(mistyped.detect_each([rgb]))
    # One that is about to be taught, the default one, and one in memory are no error.
    assert len(mistyped.propose(rgb).masks)
    mistyped.add_example(rgb, "ring", disc(40, 40))
    assert mistyped.detect(rgb)[0].label == "ring"
    assert all(each.label is None for each in SAMDetect("naive", "average").detect(rgb))
    for store in ("memory", MemoryVectorStore()):
        made = SAMDetect("naive", "average", vector_store=store, library="new")
        assert all(each.label is None for each in made.detect(rgb))
