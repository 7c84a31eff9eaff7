"""Checks the models on this machine: are their weights the published ones, and are our masks and
vectors those of the official code? For users with real weights; a row for each check.
"""

from __future__ import annotations

import gc
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import skimage.data
import torch
from PIL import Image
from pycocotools import mask as coco_masks
from sam2.automatic_mask_generator import SAM2AutomaticMaskGenerator
from sam2.modeling.sam2_base import SAM2Base

from sam_detect.api import SAMDetect
from sam_detect.embedding.clip import CLIPEmbedder
from sam_detect.evaluation.machine import describe_machine, machine_name, versions
from sam_detect.fading import IdentityFade, context
from sam_detect.models.catalogue import SAM2Weights
from sam_detect.models.clip import encode_images, find_clip, load_clip, name_of
from sam_detect.models.weights import published_sha256, require_sam2, sha256_of
from sam_detect.segmentation._sam2_prompters import Covered, Prompter
from sam_detect.segmentation.sam2 import SAM2Segmenter, make_prompter
from sam_detect.types import Crop, FadedCrop, Frame, ImageRGB, Masks
from sam_detect.types.masks import BoolArray, FloatArray
from sam_detect.types.overlaps import ious
from sam_detect.vector_store import MemoryVectorStore

POINTS_PER_SIDE = 16
"""Of the grid for the comparison of masks; what `detect` uses has twice as many."""
SAME_SHARE = 0.99
"""Least share of the official masks that ours must have, at an IoU of .99, in fp32."""
SAME_VECTOR = 1e-4
"""Most that a component of a unit vector may differ in fp32."""
MATCHED_IOU = 0.75
"""From which a mask counts as that of the whole grid."""
SAME_IOU = 0.99
"""From which a mask counts as the same."""
SHAPES_PER_ROW = 6
LEARNT = 3
"""Shapes of each kind that are shown in the quality check; the others are to be found."""

GeneratorOptions = dict[str, Any]


@dataclass(frozen=True)
class Check:
    """One answer.

    Attributes:
        name: what was checked.
        found: the result.
        right: whether it is as it must be; None where there is nothing that it must be.
    """

    name: str
    found: str
    right: bool | None = None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def verify(sam_model: str, clip_model: str, device: str) -> Iterator[Check]:
    """Each check as it is done.

    Args:
        sam_model, clip_model: as the settings of these names.
        device: auto, cpu, cuda or mps.

    Raises:
        UnavailableError: a model, its package or the device is not on this machine.
    """
    segmenter = SAM2Segmenter(sam_model, device, points_per_side=2 * POINTS_PER_SIDE)
    embedder = CLIPEmbedder(clip_model, device)
    where = segmenter.device
    yield Check("machine", f"{machine_name(describe_machine())}; models run on {where}")
    yield Check("versions", ", ".join(f"{name} {v}" for name, v in versions().items()))
    sam2 = require_sam2(sam_model)
    yield _weights(f"SAM 2 {sam2.name}", sam2.path)
    found = find_clip(clip_model)
    yield _weights(f"CLIP {name_of(found)}", found.path)
    yield from _masks(segmenter, sam2)
    yield from _vectors(embedder, clip_model)
    yield _quality(segmenter, embedder)


def _weights(name: str, path: Path) -> Check:
    checksum = sha256_of(path)
    published = published_sha256(path)
    if published is None:
        return Check(f"weights of {name}", f"SHA-256 {checksum}, nothing to compare with ({path})")
    same = checksum == published
    said = f"SHA-256 {checksum}, {'as' if same else 'NOT as'} published"
    return Check(f"weights of {name}", said, same)


def _masks(used: SAM2Segmenter, weights: SAM2Weights) -> Iterator[Check]:
    """The masks of everything against the official generator's, and the time of both."""
    coins = np.repeat(skimage.data.coins()[:, :, None], 3, axis=2)
    frame = Frame(coins, "coins")
    plain = SAM2Segmenter(
        weights.path,
        str(used.device),
        dtype="fp32",
        points_per_side=POINTS_PER_SIDE,
    )
    official = official_generator(plain.model.model, {"points_per_side": POINTS_PER_SIDE})
    theirs, slow = _timed(lambda: official.generate(frame.image_rgb))
    ours, fast = _timed(lambda: _afresh(plain, frame))
    true = [each["segmentation"] for each in theirs if each["area"]]
    share = same_share(ours, true)
    yield Check(
        "SAM 2 masks, fp32",
        f"{len(ours)}, of the official generator's {len(true)} {share:.1%} the same",
        share >= SAME_SHARE,
    )
    speed = f"{fast:.2f} s, the official generator {slow:.2f} s: {slow / fast:.1f}x"
    yield Check(f"SAM 2 time, {POINTS_PER_SIDE}x{POINTS_PER_SIDE} points", speed)
    chosen, seconds = _timed(lambda: _afresh(used, frame))
    dtype = str(used.dtype).removeprefix("torch.")
    yield Check("SAM 2 as detect uses it", f"{len(chosen)} masks in {seconds:.2f} s, {dtype}")
    for name in ("adaptive", "blobs"):
        yield Check(f"SAM 2 prompts {name}", _recall(used, name, frame, chosen))


def official_generator(model: SAM2Base, options: GeneratorOptions) -> SAM2AutomaticMaskGenerator:
    """Meta's own generator on a model of any size, giving COCO run lengths."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # its transforms are scripted
        made = SAM2AutomaticMaskGenerator(model, output_mode="coco_rle", **options)
    # Its predictor takes it that models see 1024 pixels; so small ones can be measured, too.
    side = model.image_size
    made.predictor._bb_feat_sizes = [(side // each, side // each) for each in (4, 8, 16)]
    return made


def same_share(
    ours: Masks, true: Sequence[Mapping[str, Any]], *, least_iou: float = SAME_IOU
) -> float:
    """Share of the true masks (COCO RLEs) that ours has at an IoU of .99, or another, or more."""
    if not len(ours) or not true:
        return float(len(ours) == len(true))
    mine: list[Any] = [ours.rle(index) for index in range(len(ours))]
    theirs: list[Any] = list(true)
    overlaps = np.asarray(coco_masks.iou(mine, theirs, [0] * len(theirs)))
    return float((overlaps.max(axis=0) >= least_iou).mean())


def _recall(used: SAM2Segmenter, prompts: str, frame: Frame, wanted: Masks) -> str:
    """What a prompter finds of the masks of the whole grid, and for how many prompts."""
    asking, counting = copy(used), _Counting(make_prompter(prompts))
    asking.prompter = counting
    found, seconds = _timed(lambda: _afresh(asking, frame))
    true = [wanted.rle(index) for index in range(len(wanted))]
    share = same_share(found, true, least_iou=MATCHED_IOU)
    asked = f"{counting.prompts} of the grid's {used.config.per_side**2} prompts"
    has = f"{share:.1%} of its {len(wanted)} masks (IoU {MATCHED_IOU})"
    return f"{asked}, {has}, in {seconds:.2f} s"


class _Counting(Prompter):
    """Another prompter; counts what the last picture is asked."""

    def __init__(self, prompter: Prompter) -> None:
        self.prompter, self.prompts = prompter, 0
        self.needs_cover = prompter.needs_cover

    def rounds(self, image_rgb: ImageRGB, per_side: int, covered: Covered) -> Iterator[FloatArray]:
        self.prompts = 0
        for points in self.prompter.rounds(image_rgb, per_side, covered):
            self.prompts += len(points)
            yield points


def _afresh(segmenter: SAM2Segmenter, frame: Frame) -> Masks:
    """Its masks of a frame that it has not seen, of which nothing is kept."""
    return segmenter.propose(Frame(frame.image_rgb, frame.source_id))


def _vectors(embedder: CLIPEmbedder, clip_model: str) -> Iterator[Check]:
    """The vectors of crops against open_clip called directly."""
    generator = np.random.default_rng(0)
    images = [generator.integers(0, 256, (200, 160, 3), dtype=np.uint8) for _ in range(8)]
    crops = [_crop(image) for image in images]
    loaded = load_clip(find_clip(clip_model), device=torch.device("cpu"))
    plain = encode_images(loaded, [Image.fromarray(image) for image in images]).float().numpy()
    plain /= np.linalg.norm(plain, axis=1, keepdims=True)
    ours, seconds = _timed(lambda: embedder.embed(crops))
    off = float(np.abs(ours - plain).max())
    yield Check("CLIP vectors", f"differ from open_clip's by {off:.1e} at most", off <= SAME_VECTOR)
    yield Check("CLIP time", f"{1000 * seconds / len(crops):.0f} ms for each crop")


def _crop(image: ImageRGB) -> FadedCrop:
    size = (image.shape[0], image.shape[1])
    mask = np.zeros(size, np.bool_)
    mask[size[0] // 4 : -size[0] // 4, size[1] // 4 : -size[1] // 4] = True
    crop = Crop(image, mask, 1.0, (0, 0, size[1], size[0]))
    return context.faded(crop, IdentityFade())


def _quality(segmenter: SAM2Segmenter, embedder: CLIPEmbedder) -> Check:
    """Some drawn shapes are learnt, the others searched."""
    image, masks, labels = _shapes()
    detector = SAMDetect(segmenter, embedder, vector_store=MemoryVectorStore(), color_order="rgb")
    frame = detector.read(image)
    chosen = [i for i, label in enumerate(labels) if labels[:i].count(label) < LEARNT]
    shown = Masks.from_dense(np.stack([masks[i] for i in chosen]))
    detector.learn_frame(frame, shown, [labels[i] for i in chosen])
    known = detector.detect(frame).known
    overlap = ious(known.masks, Masks.from_dense(np.stack(masks)))
    same = np.array([[a == b for b in labels] for a in known.label], bool).reshape(overlap.shape)
    right = int(((overlap > 0.5) & same).any(axis=0).sum())
    f1 = 2 * right / max(1, len(known) + len(masks))
    said = f"F1 {f1:.2f}: {right} of {len(masks)} drawn shapes, {len(known)} named detections"
    return Check("quality", said)


def _shapes() -> tuple[ImageRGB, list[BoolArray], list[str]]:
    """Discs, squares and triangles on a grained ground, ``(420, 640, 3)``."""
    generator = np.random.default_rng(0)
    image = np.full((420, 640, 3), (222, 220, 212), np.uint8)
    masks, labels = [], []
    for number in range(4 * SHAPES_PER_ROW):
        x, y = 60 + 104 * (number % SHAPES_PER_ROW), 55 + 104 * (number // SHAPES_PER_ROW)
        radius = int(generator.integers(22, 38))
        mask = np.zeros(image.shape[:2], np.uint8)
        label = ("disc", "square", "triangle")[number % 3]
        if label == "disc":
            cv2.circle(mask, (x, y), radius, 1, -1)
        else:
            corners = 4 if label == "square" else 3
            turn = 2 * np.pi * (np.arange(corners) / corners + generator.random())
            points = np.column_stack([x + radius * np.cos(turn), y + radius * np.sin(turn)])
            cv2.fillPoly(mask, [points.round().astype(np.int32)], 1)
        image[mask == 1] = generator.integers(30, 170, 3)
        masks.append(mask.astype(bool))
        labels.append(label)
    grained = image.astype(np.int16) + generator.integers(-5, 6, image.shape)
    return np.clip(grained, 0, 255).astype(np.uint8), masks, labels


def _timed(run: Callable[[], Any]) -> tuple[Any, float]:
    """What it gives, and the seconds of a second run, with garbage collected first and the GPU idle
    at both ends."""
    run()
    gc.collect()
    _await_gpu()
    started = time.perf_counter()
    made = run()
    _await_gpu()
    return made, time.perf_counter() - started


def _await_gpu() -> None:
    """Waits for a GPU that this process uses."""
    cuda: Any = torch.cuda  # in part without types
    if cuda.is_available() and cuda.is_initialized():
        cuda.synchronize()
