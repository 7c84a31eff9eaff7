"""All annotations of a file refined, and compared with the truth."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from sam_detect.errors import ConfigError, ImageError, MaskError, one_line
from sam_detect.interfaces import PromptedSegmenter, Segmenter
from sam_detect.io.annotated_planes import annotated_planes, fitted
from sam_detect.io.annotation_files import pictures_of, read_annotations
from sam_detect.io.coco import why_unmatched
from sam_detect.io.stack_axes import PlaneRanges
from sam_detect.microscopy.refine.files import AnnotationFile
from sam_detect.microscopy.refine.objects import PROMPTS, How, refine_objects
from sam_detect.types import AnnotatedImage, Annotation, Frame
from sam_detect.types.labels import shown_label
from sam_detect.types.masks import intersection

MOST_PADDING, MOST_SMOOTHING = 20, 3.0


@dataclass(frozen=True)
class Agreement:
    """Objects of the truth and the outlines that overlap them: at most one each, chosen before.

    Attributes:
        matched: how many.
        before, after: their mean IoU; None without any.
    """

    matched: int
    before: float | None
    after: float | None


@dataclass(eq=False)
class Refined:
    """What became of the annotations of a file.

    Attributes:
        file: as it was read.
        changed: the refined annotations, by ``id()`` of those of the file.
        kept: a line for each that was asked for and is kept as it was.
        problems: a line for each picture or annotation that cannot be used.
        total: how many annotations were asked for.
        agreement: with the truth, where it was given.
    """

    file: AnnotationFile
    changed: dict[int, Annotation] = field(default_factory=dict)
    kept: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    total: int = 0
    agreement: Agreement | None = None

    def content(self) -> bytes:
        """The whole file, with what changed; raises ``OutputError``."""
        return self.file.encode(self.changed)

    def replace(self) -> Path:
        """Puts :meth:`content` in the place of the file: :meth:`AnnotationFile.replace`."""
        return self.file.replace(self.content())


def refine_file(
    read: Callable[[Any], Frame],
    segmenter: Segmenter,
    annotations: Path,
    images: Sequence[str],
    *,
    tag: str | None = None,
    ranges: PlaneRanges | None = None,
    truth: Path | None = None,
    prompts: str = "box",
    padding: int = 0,
    smoothing: float = 0.7,
    output_tag: str | None = None,
    steps: Callable[[list[AnnotatedImage]], Iterable[AnnotatedImage]] = iter,
) -> Refined:
    """Redraws the annotations of a file. Writes nothing: see :meth:`Refined.content`.

    Args:
        read: makes frames of pictures.
        segmenter: prompted with the annotations, if it is a
            :class:`~sam_detect.interfaces.PromptedSegmenter`; else GrabCut redraws them.
        annotations: the file.
        images: paths of pictures.
        tag: only annotations with this tag.
        ranges: only those in these planes of stacks.
        truth: file of annotations to compare with.
        prompts: ``box``, ``point``, ``mask`` or ``best``: the one with the best predicted IoU.
        padding: pixels by which outlines grow (-20 to 20).
        smoothing: how far polygons may be from the mask, in pixels (0 to 3).
        output_tag: label of what is refined.
        steps: walks the pictures, such as with a bar of progress.

    Raises:
        ConfigError: a value out of its range.
        ImageError: the file cannot be read, no annotation has the tag, or no picture is at hand.
    """
    if prompts not in PROMPTS:
        raise ConfigError(f"prompts must be one of {', '.join(PROMPTS)}, got '{prompts}'")
    if not isinstance(segmenter, PromptedSegmenter) and prompts != "box":
        raise ConfigError(f"prompts '{prompts}' needs SAM 2 (--segmenter sam2): other segmenters "
                          "work on the outline itself")  # fmt: skip
    if abs(padding) > MOST_PADDING or not 0 <= smoothing <= MOST_SMOOTHING:
        raise ConfigError(f"padding must be from -{MOST_PADDING} to {MOST_PADDING} pixels and "
                          f"smoothing from 0 to {MOST_SMOOTHING:g}")  # fmt: skip
    label = None if output_tag is None else shown_label(output_tag)
    how = How(prompts, padding, smoothing, label)
    done = Refined(AnnotationFile(annotations))
    done.problems += done.file.problems
    chosen = _chosen(done.file, images, tag, ranges, done.problems)
    true = {} if truth is None else _truth(truth, images)
    pairs: list[tuple[float, float]] = []
    for image in steps(chosen):
        try:
            frame = read(image.picture)
            fitted(image, frame.size_hw, in_stack=True)
        except ImageError as error:
            done.problems.append(one_line(error))
            continue
        except MaskError as error:
            done.problems.append(f"{image.name}: {one_line(error)}")
            continue
        done.total += len(image.outlines)
        for outline, answer in zip(
            image.outlines, refine_objects(frame, segmenter, image.outlines, how), strict=True
        ):
            if isinstance(answer, str):
                done.kept.append(f"{image.name}: annotation {_named(outline)}: {answer}")
            else:
                done.changed[id(outline)] = answer
        after = [done.changed.get(id(each), each) for each in image.outlines]
        pairs += _pairs(true.get(image.path, ()), image.outlines, after, frame)
    if truth is not None:
        before, now = np.mean(pairs, axis=0).tolist() if pairs else (None, None)
        done.agreement = Agreement(len(pairs), before, now)
    return done


def _chosen(
    file: AnnotationFile,
    images: Sequence[str],
    tag: str | None,
    ranges: PlaneRanges | None,
    problems: list[str],
) -> list[AnnotatedImage]:
    """The pictures or planes with the annotations that are asked for."""
    wanted = None if tag is None else shown_label(tag)
    found, known = [], set[str]()
    for image, path in zip(file.images, pictures_of(file.path, file.images, images), strict=True):
        known |= {each for outline in image.outlines for each in outline.tags}
        outlines = tuple(o for o in image.outlines if wanted is None or wanted in o.tags)
        if path is None and outlines:
            names = [each.file_name for each in file.images]
            problems.append(why_unmatched(image.file_name, images, names))
        elif path is not None and outlines:
            found.append(replace(image, path=path, outlines=outlines))
    if wanted is not None and wanted not in known:
        raise ImageError(f"{file.path} has no annotation with the tag '{tag}' (it has: "
                         f"{', '.join(sorted(known)[:8]) or 'none'})")  # fmt: skip
    if not found:
        first = f": {problems[0]}" if problems else ""
        raise ImageError(f"{file.path} has no annotation of these pictures{first}")
    placed = any(o.location not in (None, (0, 0, 0)) for image in found for o in image.outlines)
    if ranges or placed:
        return annotated_planes(found, ranges or PlaneRanges(), problems, elsewhere=not ranges)
    return found


def _truth(file: Path, images: Sequence[str]) -> dict[str, tuple[Annotation, ...]]:
    found, _ = read_annotations(file, images, label="object", pieces="one")
    return {image.path: image.outlines for image in found}


def _named(outline: Annotation) -> str:
    return f"'{outline.label}'" if outline.id is None else f"{outline.id}"


def _pairs(
    true: Sequence[Annotation],
    before: Sequence[Annotation],
    after: Sequence[Annotation],
    frame: Frame,
) -> list[tuple[float, float]]:
    """IoU before and after of each outline with its true object. The assignment has the largest sum
    of IoU before (Kuhn 1955)."""
    from scipy.optimize import linear_sum_assignment

    here = [each for each in true if each.location in (None, frame.location or (0, 0, 0))]
    ious = [[_iou(one, each, frame.size_hw) for each in before] for one in here]
    if not ious:
        return []
    table = np.array(ious)
    rows, columns = linear_sum_assignment(-table)
    return [
        (float(table[row, column]), _iou(here[row], after[column], frame.size_hw))
        for row, column in zip(rows.tolist(), columns.tolist(), strict=True)
        if table[row, column] > 0
    ]


def _iou(one: Annotation, other: Annotation, size_hw: tuple[int, int]) -> float:
    """0 where one of them is no outline in the picture."""
    try:
        a, b = one.crop(size_hw), other.crop(size_hw)
    except MaskError:
        return 0.0
    if a is None or b is None:
        return 0.0
    shared = intersection(a[1], a[0], b[1], b[0])
    return shared / (int(np.count_nonzero(a[1])) + int(np.count_nonzero(b[1])) - shared)
