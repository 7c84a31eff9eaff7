"""From a dataset and a method to an :class:`Evaluation`, also for each of a grid of settings."""

from __future__ import annotations

import itertools
import math
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from sam_detect import options
from sam_detect.config import known_settings
from sam_detect.errors import ConfigError, ImageError, one_line
from sam_detect.evaluation.comparison import overlap
from sam_detect.evaluation.dataset import Dataset
from sam_detect.evaluation.evaluation import AVERAGED, Evaluation
from sam_detect.evaluation.methods import Method
from sam_detect.evaluation.metrics.embedding import knn_purity, separability, silhouette
from sam_detect.evaluation.pipeline import EvaluationCache, PipelineMethod
from sam_detect.evaluation.readers import open_dataset
from sam_detect.evaluation.run import Episode, Protocol, Split, outlines, run, splits
from sam_detect.io import PlaneRanges
from sam_detect.pipeline.flow import Pipeline
from sam_detect.registry import load_custom
from sam_detect.types.masks import FloatArray

Tick = Callable[[int, int], None]
"""Called with how many pictures of how many are done."""
Announce = Callable[[str], Tick]
"""Is told which variant comes next, and gives what its pictures are counted by."""


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
    planned, skipped = _planned(dataset, protocol, curve)
    dataset = replace(dataset, problems=(*dataset.problems, *skipped))
    total = sum(len(split.queries) for of_point in planned.values() for split in of_point)
    done = itertools.count(1)
    points = {}
    for point, of_point in planned.items():
        steps = run(
            dataset, measured, point, outline=pipeline.outline, max_pixels=max_pixels,
            planned=of_point,
        )  # fmt: skip
        episodes = []
        for step in steps:
            if isinstance(step, Episode):
                episodes.append(step)
            else:
                tick(next(done), total)
        recipe = measured.describe()
        points[point] = Evaluation(dataset, point, measured.name, recipe, tuple(episodes))
    memory = peak_memory_mb()
    quality = None
    if method == PipelineMethod.name:
        quality = embedding_quality(dataset, pipeline, max_pixels=max_pixels)
    shown = sorted((p for p in points if p.shots in curve), key=lambda p: p.shots)
    return replace(
        points[protocol],
        embedding=quality,
        learning_curve=tuple(
            {"shots": p.shots, **{k: points[p].figures[k] for k in ("f1", "f1_spread")}}
            for p in shown
        ),
        peak_memory_mb=memory,
    )


def _planned(
    dataset: Dataset, protocol: Protocol, curve: Sequence[int]
) -> tuple[dict[Protocol, list[Split]], list[str]]:
    """The episodes for each number of shots, and a line for each that there are none for."""
    planned, skipped = {protocol: splits(dataset, protocol)}, []
    for shots in curve:
        point = replace(protocol, shots=shots)
        try:
            planned[point] = planned.get(point) or splits(dataset, point)
        except ConfigError:
            left_out = f"left out {shots} shots, which leave no picture to search"
            skipped.append(f"learning curve: {left_out}")
    return planned, skipped


def _readable(dataset: Dataset, max_pixels: int) -> Dataset:
    """The dataset without pictures that are damaged behind their headers, which are named."""
    readable, problems = [], []
    for picture in dataset.pictures:
        try:
            picture.read(max_pixels=max_pixels)
        except ImageError as error:
            problems.append(f"left out: {one_line(error)}")
        else:
            readable.append(picture)
    if not readable:
        raise ImageError(f"no picture of {dataset.name} can be read: {problems[0]}")
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
    """The pipeline itself (``sam-detect``), or a method of the user's own
    (``package.module:Class``).

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


AWAY_IOU = 0.1
"""Proposals that overlap every object less are no objects."""


def embedding_quality(
    dataset: Dataset, pipeline: PipelineMethod, *, max_pixels: int
) -> dict[str, float | None]:
    """``separability``, ``knn_purity`` and ``silhouette`` of all objects of a dataset, and of as
    many proposals of each picture that are none: the best that overlap no object.

    Raises:
        ImageError: a picture cannot be read.
    """
    vectors: list[FloatArray] = []
    labels: list[str | None] = []
    pictures: list[str] = []
    for picture in dataset.pictures:
        frame = picture.read(max_pixels=max_pixels)
        objects = [o for o in picture.objects if not o.crowd]
        if not objects:
            continue
        masks = outlines(frame, picture, objects, pipeline.outline)
        proposed = pipeline.propose(frame)
        shared = overlap(proposed, picture, picture.objects, dataset.boxes_only)
        away = np.flatnonzero(shared.max(axis=1, initial=0.0) < AWAY_IOU)[: len(objects)]
        vectors += [pipeline.embed(frame, masks), pipeline.embed(frame, proposed[away])]
        labels += [*(o.label for o in objects), *[None] * len(away)]
        pictures += [str(picture.id)] * (len(objects) + len(away))
    if not vectors:
        return {"separability": None, "knn_purity": None, "silhouette": None}
    together = np.concatenate(vectors)
    return {
        "separability": separability(together, labels, pictures),
        "knn_purity": knn_purity(together, labels, pictures),
        "silhouette": silhouette(together, labels),
    }


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
    ranges: PlaneRanges | None = None,
    max_pixels: int,
    fit: str = "check",
    **protocol: Any,
) -> dict[str, Any]:
    """Measures a pipeline's parts, with an empty library, on annotated pictures.

    Args:
        pipeline: whose parts are measured; its library is left alone.
        dataset_path: what ``sam-detect evaluate`` takes: a folder or a COCO file.
        metrics: of ``accuracy``, ``inference_time`` and ``embedding_quality`` those to give;
            None gives everything, as ``sam-detect evaluate --json`` does.
        images: the folder of a COCO file's pictures.
        ranges: planes and channels of stacks.
        max_pixels: larger pictures are refused.
        fit: what is done with annotations that do not fit their picture: ``check`` refuses them,
            ``scale`` scales those of another size, ``as-is`` takes all.
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
    dataset = open_dataset(dataset_path, images, ranges=ranges, max_pixels=max_pixels, fit=fit)
    found = evaluate(dataset, PipelineMethod(pipeline), drawn, max_pixels=max_pixels).to_dict()
    if metrics is None:
        return found
    chosen = {name: {key: found[key] for key in MEASURES[name]} for name in metrics}
    if "embedding_quality" in chosen:
        chosen["embedding_quality"] = found["embedding"]
    return chosen


# -- sweeps ----------------------------------------------------------------------------------

MOST_VARIANTS = 200
OF_PROTOCOL: dict[str, tuple[type, str]] = {
    "shots": (int, "a whole number"),
    "iou": (float, "a number"),
}
OWN_KEYS = ("method", *OF_PROTOCOL)
"""What a sweep may vary in addition to the settings."""
OF_LIBRARIES = ("library", "store")
"""Settings that change nothing: every episode has a library of its own, in memory."""


def sweep(
    dataset: Dataset,
    protocol: Protocol,
    grid: Sequence[Mapping[str, str]],
    *,
    make: Callable[[Mapping[str, str]], Pipeline],
    max_pixels: int,
    method: str = PipelineMethod.name,
    curve: Sequence[int] = (),
    announce: Announce = lambda what: lambda done, of: None,
) -> Iterator[Evaluation]:
    """Evaluates each variant; pictures are proposed and embedded once for all that agree in it.

    Args:
        grid: what to change for each, of :func:`variants`.
        make: gives the pipeline with the settings of a variant.
        max_pixels: larger pictures are refused.

    Raises:
        ConfigError: a value out of its range, or a protocol that does not fit the dataset.
        ImageError: a picture cannot be read.
    """
    cache = EvaluationCache()
    # All are made before any is run: what is wrong with the last should not cost an hour.
    prepared = []
    for variant in grid:
        settings = {key: value for key, value in variant.items() if key not in OWN_KEYS}
        pipeline = PipelineMethod(make(settings), cache)
        prepared.append((variant, pipeline, _varied(protocol, variant)))
    for variant, pipeline, varied in prepared:
        make_method(variant.get("method", method), pipeline)
        splits(dataset, varied)
    for variant, pipeline, varied in prepared:
        found = evaluate(
            dataset,
            pipeline,
            varied,
            method=variant.get("method", method),
            curve=curve,
            max_pixels=max_pixels,
            tick=announce(", ".join(f"{key}={value}" for key, value in variant.items())),
        )
        yield replace(found, variant=dict(variant))


def variants(specs: Sequence[str]) -> list[dict[str, str]]:
    """Every combination of the values of ``key=a,b`` texts; one empty one without any.

    A key that is given twice has all its values. Values with spaces or commas stand in double
    quotes: ``text_templates="a photo of a {}.","a {}, from above"``.
    Where fades are varied, a parameter that one of them does not have is left out for it, and
    combinations that are then the same are run once.

    Raises:
        ConfigError: a text that is no such list, a key that nothing has, or too many combinations.
    """
    values: dict[str, list[str]] = {}
    for key, listed in (_parsed(text) for spec in specs for text in _split(spec, r"\s")):
        values[key] = list(dict.fromkeys([*values.get(key, []), *listed]))
    count = math.prod(len(of_key) for of_key in values.values())
    if count > MOST_VARIANTS:
        raise ConfigError(f"the sweep has {count} variants, at most {MOST_VARIANTS} are run")
    rows = (dict(zip(values, row, strict=True)) for row in itertools.product(*values.values()))
    fitting = [_without_options_of_others(row) for row in rows]
    return [row for index, row in enumerate(fitting) if row not in fitting[:index]]


def _without_options_of_others(variant: dict[str, str]) -> dict[str, str]:
    for room in options.ROOMS:
        name = variant.get(room)
        if name is not None and name != "auto":
            others = _options_of_room(room) - options.options_of(room, name).model_fields.keys()
            variant = {key: value for key, value in variant.items() if key not in others}
    return variant


def _options_of_room(room: str) -> set[str]:
    return {o for o in options.fields() if any(r == room for r, _ in options.parts_with(o))}


def _split(text: str, separator: str) -> list[str]:
    """The parts of a text between separators that stand outside of double quotes."""
    if text.count('"') % 2:
        raise ConfigError(f"a quotation mark of --sweep is not closed: {text}")
    return re.findall(rf'(?:"[^"]*"|[^{separator}"])+', text)


def _parsed(spec: str) -> tuple[str, list[str]]:
    key, equals, listed = spec.partition("=")
    key = key.strip().replace("-", "_")
    values = [text for value in _split(listed, ",") if (text := value.replace('"', ""))]
    unused = {*OF_LIBRARIES, *_options_of_room("store")}
    known = [*OWN_KEYS, *(name for name in known_settings() if name not in unused)]
    if key not in known:
        raise ConfigError(f"a sweep has no '{key}' to vary (it has: {', '.join(known)})")
    if not equals or not values:
        raise ConfigError(f"--sweep takes key=a,b,... such as sigma=10,30, got '{spec}'")
    return key, values


def _varied(protocol: Protocol, variant: Mapping[str, str]) -> Protocol:
    changed: dict[str, Any] = {}
    for key, (number, what) in OF_PROTOCOL.items():
        if key in variant:
            try:
                changed[key] = number(variant[key])
            except ValueError:
                raise ConfigError(f"{key} is {what}, got '{variant[key]}'") from None
    return replace(protocol, **changed)
