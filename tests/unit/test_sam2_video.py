"""SAM 2's video memory beside Meta's own predictor, on the same random weights (fp32), and in
``video``.

No trained weights are here: what is compared are the mask logits of every frame.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("sam2")

import cv2  # noqa: E402
from hydra.utils import instantiate  # noqa: E402
from omegaconf import OmegaConf  # noqa: E402
from PIL import Image  # noqa: E402
from sam2_helpers import CONFIG, SIDE, write_small_sam2  # noqa: E402

from sam_detect.cli.app import run  # noqa: E402
from sam_detect.errors import ConfigError  # noqa: E402
from sam_detect.models.sam2_features import encode  # noqa: E402
from sam_detect.segmentation._sam2_video import VideoMemory  # noqa: E402
from sam_detect.segmentation.naive import NaiveSegmenter  # noqa: E402
from sam_detect.segmentation.sam2 import SAM2Segmenter  # noqa: E402
from sam_detect.types import Frame  # noqa: E402
from sam_detect.video.appearance import SoftMask  # noqa: E402
from sam_detect.video.propagation import FeatureMemory  # noqa: E402
from sam_detect.video.propagators import by_segmenter, find_propagator  # noqa: E402
from scripts.dev.seeded_sam2 import seeded_sam2  # noqa: E402

FRAMES = 20
"""More than SAM 2 remembers: 7 memories and 16 object pointers."""
TRACKING = """
  sigmoid_scale_for_mem_enc: 20.0
  sigmoid_bias_for_mem_enc: -10.0
  no_obj_embed_spatial: true
  add_tpos_enc_to_obj_ptrs: true
  proj_tpos_enc_in_obj_ptrs: true
  use_signed_tpos_enc_to_obj_ptrs: true
  only_obj_ptrs_in_the_past_for_eval: true
  multimask_output_for_tracking: true
  use_multimask_token_for_obj_ptr: true
  multimask_min_pt_num: 0
  multimask_max_pt_num: 1
  use_mlp_for_obj_ptr_proj: true
"""
"""How SAM 2.1 tracks; the small model is like SAM 2.0 without it."""
TOLERANCE = 1e-3
"""Of the logits' spread. A memory that is kept in bfloat16 may be rounded the other way."""
CPU = torch.device("cpu")
pytestmark = [
    pytest.mark.usefixtures("one_torch_thread"),
    pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:FutureWarning"),
]


def _disc(index: int, number: int) -> tuple[int, int]:
    return 60 + 6 * index, 80 + 90 * number


def _outline(index: int, number: int) -> np.ndarray:
    drawn = np.zeros((SIDE, SIDE), np.uint8)
    cv2.circle(drawn, _disc(index, number), 26, 1, -1)
    return drawn.astype(bool)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two discs that move over a spotted ground, as JPEG files at the model's own side, so that
    nothing is scaled."""
    place = tmp_path_factory.mktemp("frames")
    noise = np.random.default_rng(0)
    ground = cv2.blur(noise.integers(0, 255, (SIDE, SIDE, 3), np.uint8), (7, 7))
    for index in range(FRAMES):
        image = ground.copy()
        for number, colour in enumerate(((200, 60, 40), (50, 80, 220))):
            cv2.circle(image, _disc(index, number), 26, colour, -1)
        Image.fromarray(image).save(place / f"{index:03}.jpg", quality=95)
    return place


@pytest.fixture(scope="module")
def frames(folder: Path) -> list[Frame]:
    return [Frame(np.array(Image.open(path)), path.name) for path in sorted(folder.iterdir())]


@pytest.fixture(scope="module", params=["sam2.1", "sam2.0"])
def models(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Ours, and Meta's predictor with the same weights."""
    place = tmp_path_factory.mktemp("model")
    config = place / "small.yaml"
    more = TRACKING if request.param == "sam2.1" else ""
    config.write_text(CONFIG.read_text(encoding="utf-8") + more, encoding="utf-8")
    ours = seeded_sam2(config)
    # A random model sees no object: it is told that all are there.
    ours.sam_mask_decoder.pred_obj_score_head.layers[-1].bias.data += 40
    settings = OmegaConf.load(config)
    settings.model._target_ = "sam2.sam2_video_predictor.SAM2VideoPredictor"
    settings.model.binarize_mask_from_pts_for_mem_enc = True
    settings.model.sam_mask_decoder_extra_args = {
        "dynamic_multimask_via_stability": True,
        "dynamic_multimask_stability_delta": 0.05,
        "dynamic_multimask_stability_thresh": 0.98,
    }
    official = instantiate(settings.model, _recursive_=True).eval()
    official.load_state_dict(ours.state_dict())
    return ours, official


def _official(
    predictor: Any, folder: Path, begins: Sequence[int], removed: int | None = None
) -> list[np.ndarray]:
    """Logits ``(objects, H, W)`` of each frame after the first: objects begin in these frames; the
    last one is removed in one."""
    state = predictor.init_state(str(folder))
    found: dict[int, dict[int, np.ndarray]] = {}
    predictor.add_new_mask(state, 0, 0, _outline(0, 0))
    steps = [(begin, number) for number, begin in enumerate(begins) if number] + (
        [(removed, -1)] if removed is not None else []
    )
    at = 0
    for until, number in [*sorted(steps), (FRAMES - 1, None)]:
        for index, ids, logits in predictor.propagate_in_video(state, at, until - at):
            found.setdefault(index, {})
            found[index] |= dict(zip(ids, logits[:, 0].numpy(), strict=True))
        at = until
        if number == -1:
            predictor.remove_object(state, ids[-1], need_output=False)
        elif number is not None:
            predictor.add_new_mask(state, until, number, _outline(until, number))
    return [found[index] for index in range(1, FRAMES)]


def _logits(memory: VideoMemory, frame: Frame) -> np.ndarray:
    likely = memory.follow(encode(memory._model, [frame.image_rgb], torch.float32)[0])
    return np.asarray(np.log(likely) - np.log1p(-likely), np.float64)


def _ours(
    model: Any, frames: list[Frame], begins: Sequence[int], removed: int | None = None
) -> Iterator[dict[int, np.ndarray]]:
    memories: dict[int, VideoMemory] = {}
    for index, frame in enumerate(frames):
        yield {number: _logits(memory, frame) for number, memory in memories.items()}
        for number, begin in enumerate(begins):
            if begin == index:
                features = encode(model, [frame.image_rgb], torch.float32)[0]
                memories[number] = VideoMemory(
                    model, features, _outline(index, number), torch.float32
                )
        if removed == index:
            memories.popitem()


def _assert_same(ours: list[dict[int, Any]], true: list[dict[int, Any]], objects: int) -> None:
    compared = 0
    for index, (mine, theirs) in enumerate(zip(ours, true, strict=True), 1):
        for number, logits in mine.items():
            spread = theirs[number].std()
            assert spread > 0.05, "flat logits prove nothing"
            inside = np.abs(theirs[number]) < 12  # else a float32 probability is 0 or 1
            assert inside.mean() > 0.5
            difference = np.abs(logits - theirs[number])[inside].max()
            assert difference < TOLERANCE * max(1, spread), (index, number, difference)
            compared += 1
    assert compared >= objects


@pytest.mark.parametrize("begins", [(0,), (0, 0), (0, 5)], ids=["one", "two", "one later"])
def test_parity_of_each_frame(
    models: tuple[Any, Any], folder: Path, frames: list[Frame], begins: tuple[int, ...]
) -> None:
    ours, official = models
    found = list(_ours(ours, frames, begins))[1:]
    _assert_same(found, _official(official, folder, begins), FRAMES - 1)


def test_parity_after_an_object_is_removed(
    models: tuple[Any, Any], folder: Path, frames: list[Frame]
) -> None:
    ours, official = models
    found = list(_ours(ours, frames, (0, 0), removed=8))[1:]
    assert [len(each) for each in found] == [2] * 8 + [1] * (FRAMES - 9)
    _assert_same(found, _official(official, folder, (0, 0), removed=8), FRAMES - 1)


def test_only_what_a_later_frame_looks_at_is_kept(
    models: tuple[Any, Any], frames: list[Frame]
) -> None:
    model, _ = models
    features = [encode(model, [frame.image_rgb], torch.float32)[0] for frame in frames[:2]]
    memory = VideoMemory(model, features[0], _outline(0, 0), torch.float32)
    for _ in range(40):
        memory.follow(features[1])
    kept = memory._outputs["non_cond_frame_outputs"]
    assert sorted(kept) == list(range(25, 41)), "16 object pointers"
    assert [at for at, each in kept.items() if "maskmem_features" in each] == list(range(34, 41))


# -- in a video ----------------------------------------------------------------------------------


class Follows(NaiveSegmenter):
    """Follows everything to the same place."""

    def __init__(self, found: np.ndarray) -> None:
        super().__init__()
        self.found, self.outlines = found.astype(np.float32), list[np.ndarray]()

    def follow(self, frame: Frame, mask: np.ndarray) -> Any:
        self.outlines.append(mask)
        return lambda later: self.found


def test_an_object_is_begun_with_what_is_in_the_picture_and_is_its_mask_in_the_next() -> None:
    frame, found = Frame(np.zeros((30, 40, 3), np.uint8)), np.zeros((30, 40))
    found[10:20, 5:25] = 0.9
    found[20, 5:25] = 0.3
    segmenter = Follows(found)
    outline = SoftMask(np.ones((6, 8), np.float32), (-3, 27))
    memory = by_segmenter(segmenter).remember(frame, outline)
    assert memory is not None
    assert np.argwhere(segmenter.outlines[0]).tolist() == [
        [y, x] for y in (27, 28, 29) for x in range(5)
    ]
    carried = memory.carry(frame, outline)
    assert carried is not None
    assert (carried.area, carried.box_xyxy) == (200, (5, 10, 25, 20))
    assert memory.carry(frame, outline, least_px=201) is None
    segmenter.found[:] = 0
    assert memory.carry(frame, outline) is None
    outside = SoftMask(np.ones((6, 8), np.float32), (50, 0))
    assert by_segmenter(segmenter).remember(frame, outside) is None


def test_sam2_carries_where_it_is_the_segmenter(tmp_path: Path) -> None:
    frame = Frame(np.random.default_rng(0).integers(0, 255, (96, 96, 3), np.uint8))
    mask = SoftMask(np.ones((60, 60), np.float32), (20, 20))
    sam2 = SAM2Segmenter(write_small_sam2(tmp_path), "cpu", points_per_side=4)
    with pytest.raises(ConfigError, match="--segmenter sam2"):
        find_propagator("sam2", live=False, segmenter=NaiveSegmenter())
    assert find_propagator("flow", live=False, segmenter=sam2) is None
    for name, live, by_sam2 in [
        ("sam2", False, True), ("sam2", True, True), ("auto", False, True),
        ("auto", True, False),  # too slow on a CPU
        ("features", False, False),
    ]:  # fmt: skip
        propagator = find_propagator(name, live=live, segmenter=sam2)
        assert propagator is not None
        memory = propagator.remember(frame, mask)
        assert isinstance(memory, FeatureMemory) != by_sam2, (name, live)
        if by_sam2:
            assert memory is not None
            memory.carry(frame, mask)


def test_the_command_follows_with_sam2(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SAM_DETECT_HOME", str(tmp_path / "home"))
    checkpoint = write_small_sam2(tmp_path)
    Image.fromarray(_outline(0, 0)).save(tmp_path / "disc.png")
    first = sorted(folder.iterdir())[0]
    model = ["--segmenter", "sam2", "--sam-model", str(checkpoint), "--device", "cpu"]
    taught = ["--label", "disc", "--masks", str(tmp_path / "disc.png"), "--embedder", "average"]
    assert run(["learn", str(first), *taught, *model]) == 0
    out = tmp_path / "out.jsonl"
    followed = ["--propagate", "sam2", "--every", "8", "--output", str(out)]
    assert run(["video", str(folder), *followed, *model]) == 0
    lines = [json.loads(line) for line in out.read_text(encoding="ascii").splitlines()]
    assert [line["frame"] for line in lines] == list(range(FRAMES))
    assert [found["label"] for found in lines[0]["detections"]] == ["disc"]
