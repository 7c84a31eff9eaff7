"""The suite ``stages``: every room of the weights-free default, timed apart.

Times are of all pictures together. The library is an embedded Qdrant, as it is by default.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from sam_detect import parts
from sam_detect.bench import workload
from sam_detect.bench.measurements import Measurements
from sam_detect.bench.prepared import Picture, Prepared, embed_all, fade_all
from sam_detect.bench.suites import Options, Suite
from sam_detect.bench.timing import Trial
from sam_detect.library.snapshot import search as search_in_store
from sam_detect.masks import FloatArray
from sam_detect.outputs.json_lines import JSONSink
from sam_detect.outputs.overlay import OverlaySink
from sam_detect.vector_store.qdrant import QdrantVectorStore

WHOLE_MASKS = 10
"""Masks of each picture that are faded over the whole picture, which is slow."""


class StagesSuite(Suite):
    """Propose, fade and crop, embed, search, label, write; and all but writing as ``detect``."""

    takes = frozenset({"images"})

    def run(self, measurements: Measurements, options: Options) -> None:
        frames = workload.pictures(options.images)
        measurements.workload = workload.describe(frames)
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            measurements.announce("preparing")
            prepared = Prepared(frames, QdrantVectorStore(path=Path(folder, "libraries")))
            measurements.recipe = prepared.detector.recipe.to_dict()
            for trial in stages(prepared, Path(folder)):
                measurements.stage(trial)
            for name, (ours, reference) in pairs(prepared).items():
                measurements.pair(name, ours, reference)
        size = workload.megapixels(frames)
        total_ms = measurements.stages["detect"]["median_ms"]
        measurements.figures["megapixels"] = round(size, 4)
        measurements.figures["proposals"] = sum(len(p.masks) for p in prepared.pictures)
        measurements.figures["detect_seconds_per_megapixel"] = round(total_ms / size / 1000, 4)


def stages(prepared: Prepared, folder: Path) -> list[Trial]:
    """Each room by itself, in the order of the pipeline.

    ``search`` is of a library whose vectors are read already; ``label`` has its neighbours given
    and what it learns of the library learnt, as for any but the first picture.
    """
    detector, pictures = prepared.detector, prepared.pictures
    embedder, limit = prepared.maker.embedder, prepared.limit
    naming = prepared.naming
    return [
        _over(pictures, "propose", lambda p: detector.segmenter.segment(p.frame)),
        _over(pictures, "fade_crop", lambda p: prepared.faded(p.frame, p.masks)),
        _over(pictures, "embed", lambda p: embed_all(embedder, p.faded)),
        _over(pictures, "search", lambda p: detector.library.nearest(p.vectors, limit)),
        _over(pictures, "label", lambda p: naming.name(p.candidates)),
        Trial("write_json", lambda _: _write_json(pictures, folder / "found.jsonl")),
        Trial("write_overlay", lambda _: _write_overlays(pictures, folder / "overlays")),
        _over(pictures, "detect", lambda p: detector.detect_frame(p.frame)),
    ]


def pairs(prepared: Prepared) -> dict[str, tuple[Trial, Trial]]:
    """Ours and the reference, by name: what a choice costs, or spares.

    * ``embed_appearance_vs_average``: the default embedder beside the simplest that there is.
    * ``search_snapshot_vs_store``: neighbours among the vectors that a library keeps in the
      process beside the store's own search.
    * ``fade_gaussian_vs_identity``, ``fade_gaussian_vs_blur``: the default fade beside none, and
      beside the one that blurs.
    * ``fade_window_vs_whole_picture``: cutting a window first beside fading the whole picture.
    """
    pictures, library = prepared.pictures, prepared.detector.library
    embedder, fade, limit = prepared.maker.embedder, prepared.maker.fade, prepared.limit
    average = parts.make_embedder("average")
    found = {
        "embed_appearance_vs_average": (
            _over(pictures, "appearance", lambda p: embed_all(embedder, p.faded)),
            _over(pictures, "average", lambda p: embed_all(average, p.faded)),
        ),
        "search_snapshot_vs_store": (
            _over(pictures, "snapshot", lambda p: library.nearest(p.vectors, limit)),
            _over(pictures, "store", lambda p: search_in_store(library.store, p.vectors, limit)),
        ),
        "fade_window_vs_whole_picture": (
            _over(pictures, "window", lambda p: prepared.faded(p.frame, p.masks[:WHOLE_MASKS])),
            _over(pictures, "whole picture", lambda p: _fade_whole(p, fade)),
        ),
    }
    for name in ("identity", "blur"):
        found[f"fade_gaussian_vs_{name}"] = (
            _fading(pictures, "gaussian", fade),
            _fading(pictures, name, parts.make_fade(name)),
        )
    return found


def _over(pictures: Sequence[Picture], name: str, run: Callable[[Picture], Any]) -> Trial:
    """The work over all pictures; what one leaves is let go of before the next."""

    def over_all(_: Any) -> None:
        for picture in pictures:
            run(picture)

    return Trial(name, over_all)


def _fading(pictures: Sequence[Picture], name: str, fade: parts.AnyFade) -> Trial:
    return _over(pictures, name, lambda p: fade_all(p.crops, fade))


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


def _write_json(pictures: Sequence[Picture], path: Path) -> None:
    sink = JSONSink(path, multiple=True)
    for picture in pictures:
        sink.write(picture.frame, picture.detections)
    sink.close()


def _write_overlays(pictures: Sequence[Picture], folder: Path) -> None:
    sink = OverlaySink(folder, multiple=True)
    for picture in pictures:
        sink.write(picture.frame, picture.detections)
    sink.close()
