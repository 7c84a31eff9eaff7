"""The suite ``stages``: every stage of the weights-free default, timed apart.

Times are of all pictures together. The library is an embedded Qdrant, as it is by default.
Everything between the stages is made once, so that each can be run by itself.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import skimage.data

from sam_detect import parts
from sam_detect.config import Settings
from sam_detect.fading import context
from sam_detect.features.extraction import BATCH
from sam_detect.interfaces import Embedder, VectorStore
from sam_detect.io import load_image
from sam_detect.io.overlay import OverlaySink
from sam_detect.io.text_sinks import JSONSink
from sam_detect.library.library import Library
from sam_detect.library.snapshot import LibrarySnapshot
from sam_detect.library.snapshot import search as search_in_store
from sam_detect.pipeline.choosing import choose_features
from sam_detect.pipeline.flow import Pipeline
from sam_detect.types import (
    Candidates,
    Crop,
    Detections,
    FadedCrop,
    Frame,
    ImageRGB,
    Masks,
    Neighbour,
)
from sam_detect.types.masks import BoolArray, FloatArray
from sam_detect.vector_store.qdrant import QdrantVectorStore
from scripts.dev.bench.measurements import Measurements, Trial
from scripts.dev.bench.suites import Options

DRAWN_HW = (1000, 1200)
DRAWN_STEP = 100
"""Distance of the drawn objects from one another, pixels."""


def pictures(paths: Sequence[Path]) -> list[Frame]:
    """The pictures of a user, or those of the suite: coins on a table (0.5 megapixels, enlarged
    twofold), stained tissue (0.3), galaxies (0.3) and drawn discs and squares (1.2).

    Raises:
        ImageError: a picture cannot be read.
    """
    if paths:
        return [load_image(str(path)) for path in paths]
    coins = cv2.resize(skimage.data.coins(), None, fx=2, fy=2, interpolation=cv2.INTER_LANCZOS4)
    return [
        Frame(np.repeat(coins[:, :, None], 3, axis=2), "coins"),
        Frame(skimage.data.immunohistochemistry(), "tissue"),
        Frame(np.ascontiguousarray(skimage.data.hubble_deep_field()[:500, :600]), "galaxies"),
        Frame(drawn(), "drawn"),
    ]


def drawn() -> ImageRGB:
    """``(1000, 1200, 3)``: 120 discs and squares of several sizes on a faintly grained ground."""
    image = np.full((*DRAWN_HW, 3), (228, 226, 220), np.uint8)
    generator = np.random.default_rng(0)
    half = DRAWN_STEP // 2
    for y in range(half, DRAWN_HW[0], DRAWN_STEP):
        for x in range(half, DRAWN_HW[1], DRAWN_STEP):
            radius = int(generator.integers(12, 40))
            color = tuple(int(value) for value in generator.integers(20, 150, 3))
            if (x + y) // DRAWN_STEP % 2:
                cv2.circle(image, (x, y), radius, color, -1, cv2.LINE_AA)
            else:
                corners = (x - radius, y - radius), (x + radius, y + radius)
                cv2.rectangle(image, *corners, color, -1)
    grain = generator.integers(-4, 5, image.shape)
    return np.asarray(np.clip(image + grain, 0, 255), np.uint8)


def mask_iou(one: BoolArray, other: BoolArray) -> float:
    return float(np.count_nonzero(one & other) / np.count_nonzero(one | other))


def megapixels(frames: Sequence[Frame]) -> float:
    return sum(frame.size_hw[0] * frame.size_hw[1] for frame in frames) / 1e6


def describe(frames: Sequence[Frame]) -> str:
    """What distinguishes this choice of pictures from another, without their names."""
    digest = hashlib.sha256()
    for frame in frames:
        digest.update(repr(frame.size_hw).encode())
        digest.update(np.ascontiguousarray(frame.image_rgb).tobytes())
    return f"{len(frames)} pictures, {megapixels(frames):.2f} megapixels ({digest.hexdigest()[:8]})"


EXAMPLES = 25
"""Proposals of each picture that are learnt."""


@dataclass(frozen=True, eq=False)
class Picture:
    """A picture with what each room makes of it.

    Attributes:
        frame: the picture.
        masks: N proposals.
        vectors: ``(N, D)``.
        candidates: the proposals with their vectors.
        crops: N crops, not yet faded, at the embedder's side.
        faded: the same, faded.
        detections: what the detector finds.
    """

    frame: Frame
    masks: Masks
    vectors: FloatArray
    candidates: Candidates
    crops: list[Crop]
    faded: list[FadedCrop]
    detections: Detections


@dataclass(frozen=True)
class AnsweredSnapshot(LibrarySnapshot):
    """Answers a question that it was asked before from memory, so that labelling can be timed
    without the search.

    Attributes:
        limit: how many neighbours the labeller asked for last.
    """

    limit: int = 0
    answers: dict[tuple[int, int], list[list[Neighbour]]] = field(default_factory=dict)

    def nearest(self, vectors: FloatArray, limit: int) -> list[list[Neighbour]]:
        object.__setattr__(self, "limit", limit)
        asked = id(vectors), limit
        if asked not in self.answers:
            self.answers[asked] = super().nearest(vectors, limit)
        return self.answers[asked]


class Prepared:
    """The default pipeline over pictures.

    Args:
        frames: the pictures.
        store: where the library lives.

    Attributes:
        features: the default feature extractor.
        pipeline: the default pipeline, which has learnt some proposals of each picture under that
            picture's name.
        answered: its library with answers in place of searches.
        pictures: what each room makes of each picture.
    """

    def __init__(self, frames: Sequence[Frame], store: VectorStore) -> None:
        # Not the user's settings: figures of different machines and commits are of the defaults.
        settings = Settings.model_validate({})
        self.features = choose_features(settings, None)
        self.pipeline = Pipeline(
            parts.make_segmenter(settings),
            self.features,
            parts.make_labeller(settings),
            Library(store, "bench"),
        )
        proposed = [self.pipeline.segmenter.propose(frame) for frame in frames]
        for frame, masks in zip(frames, proposed, strict=True):
            chosen = np.unique(np.linspace(0, len(masks) - 1, EXAMPLES).astype(np.int64))
            if len(masks):
                name = Path(frame.source_id).stem or "picture"
                self.pipeline.learn(frame, masks[chosen], [name] * len(chosen))
        self.snapshot = self.pipeline.snapshot()
        self.answered = AnsweredSnapshot(**vars(self.snapshot))
        self.pictures = [self._picture(*each) for each in zip(frames, proposed, strict=True)]

    def crops(self, frame: Frame, masks: Masks) -> list[Crop]:
        """The crops of masks, reduced to the embedder's side."""
        side = self.features.embedder.input_side
        return [context.reduced(crop, side) for crop in self.features.crops(frame, masks)]

    def faded(self, frame: Frame, masks: Masks) -> list[FadedCrop]:
        """The crops of masks, faded: all that the embedder needs."""
        return fade_all(self.crops(frame, masks), self.features.fade)

    def label(self, candidates: Candidates) -> Detections:
        """Labels candidates whose neighbours are known."""
        return self.pipeline.label(candidates, self.answered, recall_taught=False)

    def _picture(self, frame: Frame, masks: Masks) -> Picture:
        crops = self.crops(frame, masks)
        vectors = self.features.embed_masks(frame, masks)
        candidates = Candidates(frame, masks, vectors, np.arange(len(masks)))
        faded = fade_all(crops, self.features.fade)
        return Picture(frame, masks, vectors, candidates, crops, faded, self.label(candidates))


def fade_all(crops: Sequence[Crop], fade: parts.AnyFade) -> list[FadedCrop]:
    return [context.faded(crop, fade) for crop in crops]


def embed_all(embedder: Embedder, crops: Sequence[FadedCrop]) -> list[FloatArray]:
    """Vectors in the batches that a detector makes them in."""
    starts = range(0, len(crops), BATCH)
    return [embedder.embed(crops[start : start + BATCH]) for start in starts]


WHOLE_MASKS = 10
"""Masks of each picture that are faded over the whole picture, which is slow."""


def run(measurements: Measurements, options: Options) -> None:
    """Propose, fade and crop, embed, search, label, write; and all but writing as ``detect``."""
    frames = pictures(options.images)
    measurements.workload = describe(frames)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        measurements.announce("preparing")
        prepared = Prepared(frames, QdrantVectorStore(path=Path(folder, "libraries")))
        measurements.recipe = prepared.pipeline.recipe.to_dict()
        for trial in stages(prepared, Path(folder)):
            measurements.stage(trial)
        for name, (ours, reference) in pairs(prepared).items():
            measurements.pair(name, ours, reference)
    size = megapixels(frames)
    total_ms = measurements.stages["detect"]["median_ms"]
    measurements.figures["megapixels"] = round(size, 4)
    measurements.figures["proposals"] = sum(len(p.masks) for p in prepared.pictures)
    measurements.figures["detect_seconds_per_megapixel"] = round(total_ms / size / 1000, 4)


def stages(prepared: Prepared, folder: Path) -> list[Trial]:
    """Each room by itself, in the order of the pipeline.

    ``search`` is of a library whose vectors are read already; ``label`` has its neighbours given
    and what it learns of the library learnt, as for any but the first picture.
    """
    pipeline, made = prepared.pipeline, prepared.pictures
    embedder, limit = prepared.features.embedder, prepared.answered.limit
    return [
        _over(made, "propose", lambda p: pipeline.segmenter.propose(p.frame)),
        _over(made, "fade_crop", lambda p: prepared.faded(p.frame, p.masks)),
        _over(made, "embed", lambda p: embed_all(embedder, p.faded)),
        _over(made, "search", lambda p: prepared.snapshot.nearest(p.vectors, limit)),
        _over(made, "label", lambda p: prepared.label(p.candidates)),
        Trial("write_json", lambda _: _write(made, JSONSink, folder / "found.jsonl")),
        Trial("write_overlay", lambda _: _write(made, OverlaySink, folder / "overlays")),
        _over(made, "detect", lambda p: pipeline.detect(p.frame)),
    ]


def pairs(prepared: Prepared) -> dict[str, tuple[Trial, Trial]]:
    """Ours and the reference, by name: what a choice costs, or spares.

    * ``embed_appearance_vs_average``: the default embedder against the simplest one.
    * ``search_snapshot_vs_store``: neighbours among the vectors that a library keeps in the
      process against the store's own search.
    * ``fade_gaussian_vs_identity``, ``fade_gaussian_vs_blur``: the default fade against none, and
      against the one that blurs.
    * ``fade_window_vs_whole_picture``: cutting a window first against fading the whole picture.
    """
    made, library = prepared.pictures, prepared.pipeline.library
    embedder, fade, limit = (
        prepared.features.embedder,
        prepared.features.fade,
        prepared.answered.limit,
    )
    average = parts.make_embedder("average")
    found = {
        "embed_appearance_vs_average": (
            _over(made, "appearance", lambda p: embed_all(embedder, p.faded)),
            _over(made, "average", lambda p: embed_all(average, p.faded)),
        ),
        "search_snapshot_vs_store": (
            _over(made, "snapshot", lambda p: prepared.snapshot.nearest(p.vectors, limit)),
            _over(made, "store", lambda p: search_in_store(library.store, p.vectors, limit)),
        ),
        "fade_window_vs_whole_picture": (
            _over(made, "window", lambda p: prepared.faded(p.frame, p.masks[:WHOLE_MASKS])),
            _over(made, "whole picture", lambda p: _fade_whole(p, fade)),
        ),
    }
    for name in ("identity", "blur"):
        other = parts.make_fade(name)
        found[f"fade_gaussian_vs_{name}"] = (
            _over(made, "gaussian", lambda p: fade_all(p.crops, fade)),
            _over(made, name, lambda p, other=other: fade_all(p.crops, other)),  # type: ignore[misc]
        )
    return found


def _over(pictures: Sequence[Picture], name: str, run: Callable[[Picture], Any]) -> Trial:
    """The work over all pictures; what one leaves is let go of before the next."""

    def over_all(_: Any) -> None:
        for picture in pictures:
            run(picture)

    return Trial(name, over_all)


def _fade_whole(picture: Picture, fade: parts.AnyFade) -> list[FloatArray]:
    """The picture faded around each of some masks, without cutting anything."""
    image = picture.frame.image_rgb
    faded = []
    for index in range(min(WHOLE_MASKS, len(picture.masks))):
        mask = picture.masks.dense(index)
        outside = (~mask).view(np.uint8)
        distances = cv2.distanceTransform(outside, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
        faded.append(fade.apply(image, mask, np.asarray(distances, np.float32)))
    return faded


def _write(
    pictures: Sequence[Picture], sink_class: type[JSONSink | OverlaySink], path: Path
) -> None:
    sink = sink_class(path, multiple=True)
    for picture in pictures:
        sink.write(picture.frame, picture.detections)
    sink.close()
