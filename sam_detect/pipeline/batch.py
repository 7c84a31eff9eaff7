"""Many pictures, one after the other or by several processes; the results come in their order."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol, runtime_checkable

from sam_detect.config import Settings
from sam_detect.errors import ConfigError, ImageError, MaskError, one_line
from sam_detect.io import Plane
from sam_detect.io.annotated_planes import fitted
from sam_detect.io.stacks import plane_count
from sam_detect.library.example import Example
from sam_detect.models.catalogue import made_with_weights
from sam_detect.pipeline.flow import Pipeline
from sam_detect.pipeline.placement import placed
from sam_detect.pipeline.tiling import usable_cores
from sam_detect.pipeline.workers import Answer, Pool, Reader, Setup, attempt, in_order
from sam_detect.registry import BUILT_IN
from sam_detect.types import AnnotatedImage, Detections, Frame, Masks, Recipe
from sam_detect.types.polygons import require_mostly_inside

FEWEST_EACH = 4
"""Pictures from which on a worker is worth its start of about a second."""


@dataclass(frozen=True, eq=False)
class Outcome:
    """What became of one picture: ``frame`` and ``detections``, or ``error``."""

    frame: Frame | None = None
    detections: Detections | None = None
    error: Exception | None = None

    def get(self) -> tuple[Frame, Detections]:
        """The picture and its detections; raises what went wrong instead."""
        if self.frame is None or self.detections is None:
            raise self.error or ImageError("nothing is known of this picture")
        return self.frame, self.detections

    @classmethod
    def of(cls, answer: Answer[tuple[Frame, Detections]]) -> Outcome:
        return cls(error=answer.error) if answer.value is None else cls(*answer.value)


Outcomes = Generator[Outcome, None, None]


@runtime_checkable
class FrameEncoding(Protocol):
    """A segmenter whose model encodes several frames in less time than one by one."""

    @property
    def frames_at_once(self) -> int: ...

    def encode_together(self, frames: Sequence[Frame]) -> None:
        """Encodes frames that :meth:`propose` is given next."""


def default_workers(pipeline: Pipeline, pictures: int) -> int:
    """As many workers as there are cores, fewer for few pictures. One for a model that takes the
    cores or a GPU by itself, and for parts of others, of which this is not known."""
    light = (
        pipeline.segmenter_name == "naive"
        and pipeline.recipe.embedder in BUILT_IN["embedder"]
        and not made_with_weights(pipeline.recipe)
    )
    return max(1, min(usable_cores(), pictures // FEWEST_EACH)) if light else 1


def detect_many(
    pipeline: Pipeline,
    settings: Settings,
    given: Mapping[str, Any],
    pictures: Iterable[Any],
    *,
    workers: int = 1,
    threshold: float | None = None,
) -> Outcomes:
    """Detects in pictures; what fails of one of them does not stop the others.

    Args:
        pipeline: detects, and is what each worker makes again for itself.
        settings, given: of :meth:`~sam_detect.pipeline.flow.Pipeline.from_settings`.
        pictures: as :func:`~sam_detect.io.to_frame` takes them.
        workers: processes; 1 works in this one.
        threshold: as of :meth:`~sam_detect.pipeline.flow.Pipeline.with_threshold`.

    Returns:
        One :class:`Outcome` for each picture, in their order. Close it to stop early. At most
        :data:`AHEAD` pictures for each worker are held.

    Raises:
        ConfigError: fewer than one worker, or a part that cannot be sent to another process.
        UnavailableError: workers end before they do anything.
    """
    _require_workers(workers)
    read = Reader(settings)
    if workers == 1:
        return _one_by_one(pipeline.with_threshold(threshold), read, pictures)

    def ask(pool: Pool, picture: Any) -> Outcome:
        if not isinstance(picture, (str, os.PathLike, Plane)):  # files are read by the worker
            outcome = _read(picture, read)
            if outcome.frame is None:
                return outcome
            picture = outcome.frame
        return Outcome.of(pool.ask(_Detecting(picture, threshold)))

    return in_order(Setup.of(pipeline, settings, given), pictures, ask, workers)


def _one_by_one(pipeline: Pipeline, read: Reader, pictures: Iterable[Any]) -> Outcomes:
    segmenter = pipeline.segmenter
    encoding = segmenter if isinstance(segmenter, FrameEncoding) else None
    waiting = iter(pictures)
    while group := list(islice(waiting, encoding.frames_at_once if encoding else 1)):
        outcomes = [_read(picture, read) for picture in group]
        frames = [each.frame for each in outcomes if each.frame is not None]
        if encoding and len(frames) > 1:
            encoding.encode_together(frames)
        for each in outcomes:
            detecting = None if each.frame is None else _Detecting(each.frame)
            yield Outcome.of(attempt(detecting, pipeline, read)) if detecting else each


def _read(picture: Any, read: Reader) -> Outcome:
    try:
        return Outcome(read(picture))
    except Exception as error:  # raised where the outcome is taken
        return Outcome(error=error)


@dataclass(frozen=True, eq=False)
class _Detecting:
    """Detects in a picture, a file or a frame."""

    picture: str | os.PathLike[str] | Frame | Plane
    threshold: float | None = None

    @property
    def name(self) -> str:
        given = self.picture
        if isinstance(given, Plane):
            return given.name
        return given.source_id if isinstance(given, Frame) else os.fspath(given)

    def __call__(self, pipeline: Pipeline, read: Reader) -> tuple[Frame, Detections]:
        frame = read(self.picture)
        return frame, pipeline.with_threshold(self.threshold).detect(frame)


# -- learning --------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Prepared:
    """What is to be learnt of one annotated picture: its examples, not stored yet.

    Attributes:
        image: the picture and its outlines.
        recipe: that the examples are made in.
        masks, labels: of the outlines that can be used; masks without a label are guesses.
        examples: of those with a label.
        problems: a line for each outline that cannot be used.
        guessed: numbers (from 1) of outlines that are boxes which no proposal fits.
        notes: a line for each thing that was changed so that they fit the picture.
        frame: the picture, if it was asked for.
    """

    image: AnnotatedImage
    recipe: Recipe
    masks: Masks
    labels: list[str]
    examples: list[Example]
    problems: list[str]
    guessed: list[int]
    frame: Frame | None
    notes: list[str]


def prepare_many(
    pipeline: Pipeline,
    settings: Settings,
    given: Mapping[str, Any],
    images: Iterable[AnnotatedImage],
    *,
    workers: int = 1,
    negative: bool = False,
    exhaustive: bool = False,
    with_frames: bool = False,
    accept_guess: bool = False,
) -> Generator[Answer[Prepared], None, None]:
    """Makes the examples of annotated pictures; what fails of one does not stop the others.

    Args:
        pipeline, settings, given, workers: as of :func:`detect_many`.
        negative: they are *not* objects of their labels.
        exhaustive: the outlines are all objects of their pictures.
        with_frames: the pictures are given back, too.
        accept_guess: examples are made of guessed outlines, too.

    Returns:
        One answer for each picture, in their order; raises as :func:`detect_many`.
    """
    _require_workers(workers)
    how = negative, exhaustive, with_frames, accept_guess
    jobs = (_Preparing(image, *how) for image in images)
    if workers == 1:
        read = Reader(settings)
        return (attempt(job, pipeline, read) for job in jobs)
    return in_order(Setup.of(pipeline, settings, given), jobs, Pool.ask, workers)


@dataclass(frozen=True, eq=False)
class _Preparing:
    image: AnnotatedImage
    negative: bool
    exhaustive: bool
    with_frame: bool
    accept_guess: bool

    @property
    def name(self) -> str:
        return self.image.name

    def __call__(self, pipeline: Pipeline, read: Reader) -> Prepared:
        frame = read(self.image.picture)
        image, notes = fitted(self.image, frame.size_hw, in_stack=_in_stack(frame, self.image.path))
        if not self.negative:  # these may well lie on nothing
            image, moved = placed(image, frame)
            notes += [moved] if moved else []
        masks, labels, problems, guessed = _outlined(pipeline, frame, image, self.accept_guess)
        others = masks[len(labels) :] if self.exhaustive else None
        examples = pipeline.make_examples(
            frame, masks[: len(labels)], labels, negative=self.negative, others=others
        ) if labels else []  # fmt: skip
        return Prepared(
            self.image, pipeline.recipe, masks, labels, examples, problems, guessed,
            frame if self.with_frame else None, notes,
        )  # fmt: skip


def _in_stack(frame: Frame, path: str) -> bool:
    """Whether a picture is one of several planes, rather than one of channels alone."""
    try:
        return bool(frame.location or (frame.left_out and plane_count(path) > 1))
    except ImageError:  # a picture of several frames
        return True


def _outlined(
    pipeline: Pipeline, frame: Frame, image: AnnotatedImage, accept_guess: bool
) -> tuple[Masks, list[str], list[str], list[int]]:
    """``masks``, ``labels``, ``problems`` and ``guessed`` of :class:`Prepared`."""
    masks, labels, problems, guessed = [Masks.empty(frame.size_hw)], [], [], []
    guesses: list[Masks] = []
    for number, outline in enumerate(image.outlines, start=1):
        try:
            if outline.location not in (None, frame.location or (0, 0, 0)):
                numbers = ", ".join(
                    f"--{axis} {at + 1}"
                    for axis, at in zip(("xy", "z", "t"), outline.location, strict=True)
                )
                raise MaskError(f"it lies in another plane; select it with {numbers}")
            found = outline.crop(frame.size_hw)
            if outline.polygons and image.fit != "as-is":
                require_mostly_inside(outline.polygons, frame.size_hw)
            if found is not None:
                box, crop = found
                if crop.all() and crop.shape == frame.size_hw and len(image.outlines) > 1:
                    raise MaskError("it is the whole picture: leave it out, or give it alone")
                masks.append(
                    Masks.from_crops(size_hw=frame.size_hw, boxes_xyxy=[box], crops=[crop])
                )
            else:
                box_xywh, point = outline.corners_xy or outline.bbox_xywh, outline.point_xy
                shown = pipeline.outline(
                    frame,
                    [] if box_xywh is None else [box_xywh],
                    [point] if box_xywh is None and point is not None else [],
                )
                guessed += [] if shown.fits[0] else [number]
                if not (shown.fits[0] or accept_guess):
                    guesses.append(shown.masks)
                    continue
                masks.append(shown.masks)
            labels.append(str(outline.label))
        except MaskError as error:
            problems.append(f"{image.name}: outline {number}: {one_line(error)}")
    return Masks.concatenate([*masks, *guesses]), labels, problems, guessed


def _require_workers(workers: int) -> None:
    if workers < 1:
        raise ConfigError(f"workers must be at least 1, got {workers}")
