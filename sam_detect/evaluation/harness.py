"""From a dataset and a method to an :class:`Evaluation`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from sam_detect.errors import ConfigError, ImageError, one_line
from sam_detect.evaluation.comparison import overlap
from sam_detect.evaluation.dataset import AnnotatedPicture, Dataset
from sam_detect.evaluation.evaluation import AVERAGED, Evaluation
from sam_detect.evaluation.methods import Method
from sam_detect.evaluation.metrics import knn_purity, separability, silhouette
from sam_detect.evaluation.pipeline import PipelineMethod
from sam_detect.evaluation.readers import open_dataset
from sam_detect.evaluation.run import Episode, Protocol, Split, outlines, plan, run
from sam_detect.masks import FloatArray
from sam_detect.pipeline import Pipeline
from sam_detect.registry import load_custom
from sam_detect.sources import load_image
from sam_detect.types import Frame

Tick = Callable[[int, int], None]
"""Called with how many pictures of how many are done."""


def evaluate(
    dataset: Dataset,
    pipeline: PipelineMethod,
    protocol: Protocol,
    *,
    method: str = PipelineMethod.name,
    curve: Sequence[int] = (),
    max_pixels: int,
    tick: Tick = lambda done, of: None,
) -> Evaluation:
    """Runs the episodes of a protocol and measures what was found.

    Args:
        pipeline: the detector to measure; also what finds outlines for the boxes of examples.
        method: ``sam-detect`` for the pipeline, or a class of the user's own as
            ``package.module:Class`` (see :class:`~sam_detect.evaluation.methods.Method`).
        curve: numbers of shots to measure F1 at as well; those that leave no picture to search
            are left out, and named among the problems.

    Raises:
        ConfigError: an unknown method, or a protocol that does not fit the dataset.
        ImageError: a picture cannot be read.
    """
    measured = make_method(method, pipeline)
    dataset = _readable(dataset, max_pixels)
    protocols = {shots: replace(protocol, shots=shots) for shots in (protocol.shots, *curve)}
    planned, skipped = _planned(dataset, protocols, protocol.shots)
    dataset = replace(dataset, problems=(*dataset.problems, *skipped))
    total = sum(len(split.queries) for splits in planned.values() for split in splits)
    done = 0
    episodes: dict[int, list[Episode]] = {}
    for shots, splits in planned.items():
        steps = run(
            dataset,
            measured,
            protocols[shots],
            outline=pipeline.outline,
            max_pixels=max_pixels,
            planned=splits,
        )
        for step in steps:
            if isinstance(step, Episode):
                episodes.setdefault(shots, []).append(step)
            else:
                done += 1
                tick(done, total)
    memory = peak_memory_mb()
    recipe = measured.describe()
    points = {
        shots: Evaluation(dataset, protocols[shots], measured.name, recipe, tuple(found))
        for shots, found in episodes.items()
    }
    quality = None
    if method == PipelineMethod.name:
        quality = embedding_quality(dataset, pipeline, max_pixels=max_pixels)
    return replace(
        points[protocol.shots],
        embedding=quality,
        learning_curve=tuple(_point(points[shots]) for shots in sorted({*curve} & {*points})),
        peak_memory_mb=memory,
    )


def _planned(
    dataset: Dataset, protocols: Mapping[int, Protocol], needed: int
) -> tuple[dict[int, list[Split]], list[str]]:
    """The episodes for each number of shots, and a line for each that there are none for."""
    planned = {needed: plan(dataset, protocols[needed])}
    skipped = []
    for shots, protocol in protocols.items():
        try:
            planned[shots] = planned.get(shots) or plan(dataset, protocol)
        except ConfigError:
            left_out = f"left out {shots} shots, which leave no picture to search"
            skipped.append(f"learning curve: {left_out}")
    return planned, skipped


MEASURES = {
    "accuracy": (*AVERAGED, "per_class"),
    "inference_time": ("seconds_per_image", "seconds_per_megapixel", "seconds"),
    "embedding_quality": ("embedding",),
}
"""What :func:`measure` gives under each name."""


def measure(
    pipeline: Pipeline,
    dataset_path: str | Path,
    metrics: Sequence[str] | None = None,
    *,
    images: str | Path | None = None,
    max_pixels: int,
    **protocol: Any,
) -> dict[str, Any]:
    """Measures a pipeline's parts, with an empty library, on annotated pictures.

    Args:
        pipeline: whose parts are measured; its library is left alone.
        dataset_path: what ``sam-detect evaluate`` takes: a folder or a COCO file.
        metrics: of ``accuracy``, ``inference_time`` and ``embedding_quality`` those to give;
            None gives everything, as ``sam-detect evaluate --json`` does.
        images: the folder of a COCO file's pictures.
        max_pixels: larger pictures are refused.
        protocol: fields of :class:`~sam_detect.evaluation.run.Protocol` (``shots``,
            ``seeds``, ``iou``, ``group_by``, ...).

    Returns:
        A dict with a key for each of ``metrics``, or the whole evaluation.

    Raises:
        ConfigError: an unknown metric, or a protocol that does not fit the dataset.
        ImageError: the dataset cannot be read.
    """
    metrics = [metrics] if isinstance(metrics, str) else metrics
    unknown = [name for name in metrics or () if name not in MEASURES]
    if unknown:
        raise ConfigError(f"there is no metric '{unknown[0]}' (there are: {', '.join(MEASURES)})")
    known = {each.name for each in fields(Protocol)}
    for name in protocol:
        if name not in known:
            raise ConfigError(f"evaluate has no '{name}' (it has: {', '.join(sorted(known))})")
    if isinstance(protocol.get("seeds"), Iterable):
        protocol["seeds"] = tuple(protocol["seeds"])
    drawn = Protocol(**protocol)
    dataset = open_dataset(dataset_path, images, max_pixels=max_pixels)
    found = evaluate(dataset, PipelineMethod(pipeline), drawn, max_pixels=max_pixels).to_dict()
    if metrics is None:
        return found
    chosen = {name: {key: found[key] for key in MEASURES[name]} for name in metrics}
    if "embedding_quality" in chosen:
        chosen["embedding_quality"] = found["embedding"]
    return chosen


def _readable(dataset: Dataset, max_pixels: int) -> Dataset:
    """The dataset without pictures that are damaged behind their headers, which are named."""
    readable, problems = [], []
    for picture in dataset.pictures:
        try:
            load_image(picture.path, max_pixels=max_pixels)
        except ImageError as error:
            problems.append(f"left out: {one_line(error)}")
        else:
            readable.append(picture)
    if not readable:
        raise ImageError(f"no picture of {dataset.name} can be read: {problems[0]}")
    if not problems:
        return dataset
    return replace(dataset, pictures=tuple(readable), problems=(*dataset.problems, *problems))


def peak_memory_mb() -> float | None:
    """Most memory this process has had, in MB (2^20 bytes); None where the system cannot tell."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def make_method(name: str, pipeline: PipelineMethod) -> Method:
    """The pipeline itself, or a method of the user's own.

    Args:
        name: ``sam-detect``, or ``package.module:Class``.

    Raises:
        ConfigError: there is no such method, or the class is none.
    """
    if name == PipelineMethod.name:
        return pipeline
    if ":" not in name:
        raise ConfigError(
            f"there is no method '{name}': it is '{PipelineMethod.name}', or a class of your "
            "own as package.module:Class"
        )
    method_class = load_custom("method", name)
    try:
        method = method_class()
    except Exception as error:  # the user's own code: it may raise anything
        raise ConfigError(f"the method '{name}' cannot be made: {one_line(error)}") from error
    if not isinstance(method, Method):
        raise ConfigError(f"the method '{name}' needs a name, learn, find and describe")
    return method


def _point(evaluation: Evaluation) -> dict[str, Any]:
    figures = evaluation.figures
    shots = evaluation.protocol.shots
    return {"shots": shots, "f1": figures["f1"], "f1_spread": figures["f1_spread"]}


AWAY_IOU = 0.1
"""Proposals that overlap every object less are no objects."""


def embedding_quality(
    dataset: Dataset, pipeline: PipelineMethod, *, max_pixels: int
) -> dict[str, float | None]:
    """``separability``, ``knn_purity`` and ``silhouette`` of all objects of a dataset, and of as
    many proposals of each picture that are none.

    Raises:
        ImageError: a picture cannot be read.
    """
    vectors: list[FloatArray] = []
    labels: list[str | None] = []
    pictures: list[object] = []
    for picture in dataset.pictures:
        frame = load_image(picture.path, max_pixels=max_pixels)
        objects = [o for o in picture.objects if not o.crowd]
        if not objects:
            continue
        masks = outlines(frame, picture, objects, pipeline.outline)
        others = _no_objects(frame, picture, pipeline, dataset.boxes_only, most=len(objects))
        vectors += [pipeline.embed(frame, masks), others]
        labels += [*(o.label for o in objects), *[None] * len(others)]
        pictures += [picture.id] * (len(objects) + len(others))
    if not vectors:
        return {"separability": None, "knn_purity": None, "silhouette": None}
    together = np.concatenate(vectors)
    keys = [str(picture) for picture in pictures]
    return {
        "separability": separability(together, labels, keys),
        "knn_purity": knn_purity(together, labels, keys),
        "silhouette": silhouette(together, labels),
    }


def _no_objects(
    frame: Frame, picture: AnnotatedPicture, pipeline: PipelineMethod, boxes: bool, *, most: int
) -> FloatArray:
    """Vectors of the best proposals that overlap no object."""
    shared = overlap(pipeline.propose(frame), picture, picture.objects, boxes)
    away = np.flatnonzero(shared.max(axis=1, initial=0.0) < AWAY_IOU)
    return pipeline.vectors(frame, away[:most])
