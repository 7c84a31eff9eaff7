"""``sam-detect learn``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sam_detect.cli import options
from sam_detect.cli.feedback import Failures, announce, note, parse_numbers, progress
from sam_detect.errors import ConfigError, MaskError, one_line

if TYPE_CHECKING:
    from sam_detect.detector import SAMDetect
    from sam_detect.library.library import Added
    from sam_detect.sources.annotations import AnnotatedImage
    from sam_detect.types import Frame, Masks


@click.command()
@click.argument("images", nargs=-1, required=True, metavar="IMAGE|DIR...")
@click.option("--label", help="The name of the objects.")
@click.option("--box", "boxes", multiple=True, metavar="X,Y,W,H", help="Box around one object.")
@click.option("--point", "points", multiple=True, metavar="X,Y", help="A point on one object.")
@click.option(
    "--masks", metavar="auto|FILE", help="auto: every proposal. FILE: a mask or label-map picture."
)
@click.option("--negative", is_flag=True, help="Learn that these are *not* a --label.")
@click.option(
    "--annotations", type=click.Path(path_type=Path), help="COCO file with outlines and names."
)
@click.option("--tag", help="Only annotations of this category.")
@options.settings_options(*options.PROPOSALS, *options.RECIPE, *options.PLACE, *options.GENERAL)
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
    from sam_detect.detector import SAMDetect
    from sam_detect.sources import find_images

    failures = Failures()
    paths: list[str] = []
    for image in images:
        with failures.guard(image):
            paths += [path for path in find_images(image) if path not in paths]
    detector = SAMDetect(**settings)
    announce(detector)
    report = _Report(as_json)
    if annotations is not None:
        _learn_annotated(detector, annotations, paths, tag, negative, failures, report)
    else:
        assert label is not None
        prompts = _Prompts(boxes, points, masks)
        with progress(paths, "learning") as steps:
            for path in steps:
                with failures.guard(path):
                    frame = detector.read(path)
                    found = prompts.masks(detector, frame)
                    labels = [label] * len(found)
                    report.batch(detector.learn_frame(frame, found, labels, negative=negative))
    report.end(detector.library.name)
    return failures.end(len(paths))


def _check_options(
    label: str | None,
    boxes: tuple[str, ...],
    points: tuple[str, ...],
    masks: str | None,
    annotations: Path | None,
    tag: str | None,
) -> None:
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


def _learn_annotated(
    detector: SAMDetect,
    file: Path,
    paths: list[str],
    tag: str | None,
    negative: bool,
    failures: Failures,
    report: _Report,
) -> None:
    from sam_detect.sources.annotations import read_coco

    annotated, problems = read_coco(file, paths, tag=tag)
    for problem in problems:
        failures.add(str(file), problem)
    by_path = {image.path: image for image in annotated}
    with progress(list(by_path), "learning") as steps:
        for path in steps:
            with failures.guard(path):
                frame = detector.read(path)
                masks, labels = _outlined(detector, frame, by_path[path], failures)
                if len(masks):
                    report.batch(detector.learn_frame(frame, masks, labels, negative=negative))


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
    """Acknowledges each committed batch, and sums up at the end."""

    def __init__(self, as_json: bool) -> None:
        self.as_json = as_json
        self.added = self.relabelled = self.total = 0

    def batch(self, done: Added) -> None:
        self.added += done.added
        self.relabelled += done.relabelled
        self.total = done.total
        if self.as_json:
            click.echo(json.dumps({"added": done.added, "total": done.total}))

    def end(self, library: str) -> None:
        if not self.as_json:
            again = f", {self.relabelled} renamed" if self.relabelled else ""
            note(f"learnt {self.added} new examples{again}; library '{library}' has {self.total}")
