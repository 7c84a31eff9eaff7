"""``sam-detect learn``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sam_detect.cli import options
from sam_detect.cli.feedback import (
    Failures,
    find_pictures,
    note,
    open_detector,
    parse_numbers,
    progress,
    require_label,
)
from sam_detect.errors import ConfigError, MaskError, one_line

if TYPE_CHECKING:
    from sam_detect.detector import SAMDetect
    from sam_detect.library.library import Library
    from sam_detect.sources.annotations import AnnotatedImage
    from sam_detect.types import Frame, Masks

NOT_GIVEN = "annotated, but not among the pictures"
"""How ``read_coco`` ends its line about a picture of the file that was not given."""


@click.command()
@click.argument("images", nargs=-1, required=True, metavar="IMAGE|DIR...")
@click.option("--label", metavar="NAME", help="The name of the objects.")
@click.option("--box", "boxes", multiple=True, metavar="X,Y,W,H", help="Box around one object.")
@click.option("--point", "points", multiple=True, metavar="X,Y", help="A point on one object.")
@click.option(
    "--masks", metavar="auto|FILE", help="auto: every proposal. FILE: a mask or label-map picture."
)
@click.option("--negative", is_flag=True, help="Learn that these are *not* a --label.")
@click.option(
    "--annotations", type=click.Path(path_type=Path), help="COCO file with outlines and names."
)
@click.option("--tag", metavar="NAME", help="Only annotations of this category.")
@options.settings_options(
    *options.PROPOSALS,
    *options.RECIPE,
    *options.MODELS,
    *options.PLACE,
    "qdrant_batch_size",
    *options.GENERAL,
)
@options.general_options
def learn(
    images: tuple[str, ...],
    label: str | None,
    boxes: tuple[str, ...],
    points: tuple[str, ...],
    masks: str | None,
    negative: bool,
    annotations: Path | None,
    tag: str | None,
    as_json: bool,
    **settings: Any,
) -> int:
    """Learn objects from pictures.

    \b
    Outline them with --box or --point, take every proposal with --masks auto, or
    name a COCO file with --annotations. Learning the same thing twice adds nothing.
    With --json, a line {"added": N, "total": N} follows each batch that is safely stored.
    """
    _check_options(label, boxes, points, masks, annotations, tag)
    prompts = _Prompts(boxes, points, masks)
    detector = open_detector(settings)
    failures = Failures()
    paths = find_pictures(images, failures)
    with _reporting(as_json, detector.library) as report:
        if annotations is not None and paths:
            # Of pictures that are named one by one, others may well be annotated, too.
            whole = any(image not in paths for image in images)
            annotated = _read_annotations(annotations, paths, tag, failures, whole=whole)
            with progress(annotated, "learning") as pictures:
                for picture in pictures:
                    with failures.guard(picture.path):
                        frame = detector.read(picture.path)
                        found, labels = _outlined(detector, frame, picture, failures)
                        report.learn(detector, frame, found, labels, negative=negative)
        elif label is not None:
            with progress(paths, "learning") as steps:
                for path in steps:
                    with failures.guard(path):
                        frame = detector.read(path)
                        found = prompts.masks(detector, frame)
                        labels = [label] * len(found)
                        report.learn(detector, frame, found, labels, negative=negative)
    return failures.end(paths)


def _check_options(
    label: str | None,
    boxes: tuple[str, ...],
    points: tuple[str, ...],
    masks: str | None,
    annotations: Path | None,
    tag: str | None,
) -> None:
    require_label(label)
    if annotations is not None:
        if label or boxes or points or masks:
            raise ConfigError(
                "--annotations brings its own names and outlines: leave --label, --box, --point "
                "and --masks out"
            )
    elif label is None:
        raise ConfigError("learn needs --label NAME, or --annotations FILE")
    elif tag is not None:
        raise ConfigError("--tag chooses among --annotations: give that file too")
    elif not (boxes or points or masks):
        raise ConfigError(
            "learn needs to know where the objects are: --box x,y,w,h, --point x,y, "
            "--masks FILE, or --masks auto for every proposal"
        )


class _Prompts:
    """Where the objects are, by box, point or mask file."""

    def __init__(self, boxes: tuple[str, ...], points: tuple[str, ...], masks: str | None) -> None:
        self.boxes = [parse_numbers("--box", box, "x,y,w,h") for box in boxes]
        self.points = [parse_numbers("--point", point, "x,y") for point in points]
        self.file = masks

    def masks(self, detector: SAMDetect, frame: Frame) -> Masks:
        from sam_detect.segmentation import prompted
        from sam_detect.sources.mask_files import read_masks
        from sam_detect.types import Masks

        found = []
        needs_proposals = self.boxes or self.points or self.file == "auto"
        proposals = detector.segmenter.segment(frame) if needs_proposals else None
        if proposals is not None and self.file == "auto":
            found.append(proposals)
        elif self.file is not None:
            found.append(read_masks(self.file, frame.size_hw))
        if proposals is not None and self.boxes:
            found.append(prompted.masks_for_boxes(frame, proposals, self.boxes))
        if proposals is not None and self.points:
            found.append(prompted.masks_for_points(frame, proposals, self.points))
        return Masks.concatenate(found)


def _read_annotations(
    file: Path, paths: list[str], tag: str | None, failures: Failures, *, whole: bool
) -> list[AnnotatedImage]:
    """The annotated pictures; what had to be left out is a failure.

    Args:
        whole: whether the pictures of the file should all be there.
    """
    from sam_detect.sources.annotations import read_coco

    annotated, problems = read_coco(file, paths, tag=tag)
    elsewhere = [] if whole else [text for text in problems if text.endswith(NOT_GIVEN)]
    if elsewhere:
        note(f"{len(elsewhere)} other pictures of {file} are annotated, but not given")
    for problem in problems:
        if problem not in elsewhere:
            failures.add(str(file), problem)
    return annotated


def _outlined(
    detector: SAMDetect, frame: Frame, image: AnnotatedImage, failures: Failures
) -> tuple[Masks, list[str]]:
    """The picture's masks and labels; an outline that cannot be used is named and left out."""
    from sam_detect.segmentation.prompted import masks_for_boxes
    from sam_detect.types import Masks

    proposals: Masks | None = None
    masks, labels = [Masks.empty(frame.size_hw)], []
    for number, outline in enumerate(image.outlines, start=1):
        try:
            dense = outline.mask(frame.size_hw)
            if dense is not None:
                masks.append(Masks.from_dense(dense))
            else:
                if proposals is None:
                    proposals = detector.segmenter.segment(frame)
                masks.append(masks_for_boxes(frame, proposals, [outline.bbox_xywh or ()]))
            labels.append(outline.label)
        except MaskError as error:
            failures.add(image.path, f"{image.path}: outline {number}: {one_line(error)}")
    return Masks.concatenate(masks), labels


class _Report:
    """Acknowledges each committed batch."""

    def __init__(self, as_json: bool) -> None:
        self.as_json = as_json
        self.added = self.relabelled = self.known = 0

    def learn(
        self, detector: SAMDetect, frame: Frame, masks: Masks, labels: list[str], *, negative: bool
    ) -> None:
        """Learns one picture's objects, and says so once they are safe."""
        if not len(masks):
            return
        done = detector.learn_frame(frame, masks, labels, negative=negative)
        self.added += done.added
        self.relabelled += done.relabelled
        self.known += len(masks) - done.added - done.relabelled
        if self.as_json:
            click.echo(json.dumps({"added": done.added, "total": done.total}))


@contextmanager
def _reporting(as_json: bool, library: Library) -> Iterator[_Report]:
    """Sums up at the end, even where the run is stopped."""
    report = _Report(as_json)
    try:
        yield report
    finally:
        more = f", {report.relabelled} renamed" if report.relabelled else ""
        more += f", {report.known} known already" if report.known else ""
        note(f"learnt {report.added} new examples{more}; library '{library.name}'")
