"""Few-shot detection: the objects that carry a tag in a file of annotations become the examples,
and everything else like them is sought by the one pipeline."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from sam_detect.config import Settings
from sam_detect.errors import ImageError, MaskError, one_line
from sam_detect.io import PlaneRanges, planes_of
from sam_detect.io.annotated_planes import annotated_planes
from sam_detect.io.annotation_files import read_annotations
from sam_detect.pipeline.batch import default_workers, detect_many, prepare_many
from sam_detect.pipeline.flow import Pipeline
from sam_detect.types import AnnotatedImage, Annotation, Detections
from sam_detect.types.labels import normalised_label


@dataclass(frozen=True)
class Shown:
    """What was learnt from tagged annotations.

    Attributes:
        label: that the examples and the objects found have.
        examples, negatives: how many objects were learnt; the same outline twice is one.
        smallest_area: of the examples, in pixels.
        problems: path of a picture and a line, for each thing that could not be used.
        guessed: path of a picture and how many boxes of it no proposal fits.
        notes: path of a picture and a line, for each thing that was changed to fit it.
    """

    label: str
    examples: int
    negatives: int
    smallest_area: int
    problems: tuple[tuple[str, str], ...]
    guessed: tuple[tuple[str, int], ...]
    notes: tuple[tuple[str, str], ...] = ()


def learn_tagged(
    pipeline: Pipeline,
    settings: Settings,
    given: Mapping[str, Any],
    annotated: Sequence[AnnotatedImage],
    *,
    tag: str,
    negative_tag: str | None = None,
    label: str | None = None,
    workers: int | None = None,
) -> Shown:
    """Learns the annotations with a tag as examples; others of the same pictures stay unseen.

    Args:
        pipeline, settings, given: as of :func:`~sam_detect.pipeline.batch.prepare_many`.
        annotated: pictures with their annotations; those with neither tag are not learnt.
        tag: of the examples.
        negative_tag: of objects that are *not* what is sought; None for none.
        label: of the examples; None: the tag.
        workers: processes; None: as many as are worth it.

    Raises:
        ImageError: no annotation has one of the tags, or no example can be used.
        LibraryError: the tag or the label is empty.
        RecipeMismatchError: the library has another recipe.
    """
    name = normalised_label(tag if label is None else label)
    batch = pipeline.library.new_batch()
    learnt, areas = (set[str](), set[str]()), list[int]()
    problems, guessed = list[tuple[str, str]](), list[tuple[str, int]]()
    notes = list[tuple[str, str]]()
    wanted = [tag] if negative_tag is None else [tag, negative_tag]
    for negative, each in enumerate(wanted):
        chosen = _tagged(annotated, each, name)
        count = default_workers(pipeline, len(chosen)) if workers is None else workers
        answers = prepare_many(
            pipeline, settings, given, chosen, workers=count, negative=bool(negative),
            accept_guess=True,
        )  # fmt: skip
        with closing(answers):
            for image, answer in zip(chosen, answers, strict=True):
                try:
                    prepared = answer.get()
                except (ImageError, MaskError) as error:
                    problems.append((image.name, one_line(error)))
                    continue
                problems += [(image.name, problem) for problem in prepared.problems]
                notes += [(image.name, line) for line in prepared.notes]
                guessed += [(image.name, len(prepared.guessed))] if prepared.guessed else []
                if prepared.examples:
                    pipeline.keep(prepared.examples, batch=batch)
                    learnt[negative].update(example.id for example in prepared.examples)
                    areas += [] if negative else prepared.masks.areas.tolist()
        if not negative and not learnt[0]:
            first = f": {problems[0][1]}" if problems else ""
            raise ImageError(f"no outline with the tag '{tag}' can be used{first}")
    shown, negatives = map(len, learnt)
    return Shown(name, shown, negatives, min(areas), tuple(problems), tuple(guessed), tuple(notes))


def fewshot(
    pipeline: Pipeline,
    settings: Settings,
    given: Mapping[str, Any],
    images: Sequence[str],
    annotations: str | Path,
    *,
    tag: str,
    ranges: PlaneRanges | None = None,
    fit: str = "check",
    **options: Any,
) -> list[Detections]:
    """Learns the annotations with a tag, and finds the other objects like them.

    Args:
        pipeline, settings, given: as of :func:`~sam_detect.pipeline.batch.prepare_many`.
        images: paths of pictures, of which some are annotated.
        annotations: file of annotations, in any format that is read.
        tag: of those that are the examples.
        ranges: planes and channels of stacks to seek in; the examples may lie in any plane.
        fit: as of :func:`~sam_detect.io.annotation_files.read_annotations`.
        options: as of :func:`learn_tagged`, such as ``negative_tag``.

    Returns:
        What is found in each picture or plane, without what was shown there. Annotations that
        cannot be used are left out, each with a ``UserWarning``.
    """
    sought: list[Any] = list(images)
    annotated, problems = read_annotations(annotations, images, fit=fit, untagged=tag)
    if ranges:
        most = settings.max_image_pixels
        annotated = annotated_planes(annotated, ranges, problems, elsewhere=True, max_pixels=most)
        sought = [plane for path in images for plane in planes_of(path, ranges, max_pixels=most)]
    shown = learn_tagged(pipeline, settings, given, annotated, tag=tag, **options)
    for problem in [
        *problems,
        *(f"{path}: {problem}" for path, problem in (*shown.problems, *shown.notes)),
    ]:
        warnings.warn(problem, stacklevel=3)
    workers = options.get("workers") or 1
    with closing(detect_many(pipeline, settings, given, sought, workers=workers)) as outcomes:
        found = [outcome.get()[1] for outcome in outcomes]
    return [without_shown(each.only({shown.label})) for each in found]


def without_shown(detections: Detections) -> Detections:
    """Only what was not taught in this very picture."""
    return detections[np.array([not each.taught for each in detections.classifications], bool)]


def _tagged(annotated: Sequence[AnnotatedImage], tag: str, label: str) -> list[AnnotatedImage]:
    """The pictures that have annotations with a tag, with these only, under one label."""
    wanted = normalised_label(tag)
    found = []
    for image in annotated:
        outlines = tuple(_relabelled(o, label) for o in image.outlines if wanted in o.tags)
        found += [replace(image, outlines=outlines)] if outlines else []
    if not found:
        known = sorted({each for image in annotated for o in image.outlines for each in o.tags})
        raise ImageError(f"no annotation has the tag '{tag}' (there are: {_listed(known)})")
    return found


def _relabelled(outline: Annotation, label: str) -> Annotation:
    return replace(outline, tags=(label,))


def _listed(names: Iterable[str], most: int = 10) -> str:
    names = list(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return (", ".join(names[:most]) or "none") + more
