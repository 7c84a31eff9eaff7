"""``sam-detect learn``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sam_detect.cli import options
from sam_detect.cli.annotated import GUESSED, Annotations, Preview
from sam_detect.cli.feedback import (
    Failures,
    LearningReport,
    counted,
    find_pictures,
    name_of_library,
    note,
    open_detector,
    parse_numbers,
    progress,
    require_label,
)
from sam_detect.cli.planes import pictures_or_planes
from sam_detect.errors import ConfigError, MaskError
from sam_detect.types.labels import normalised_label, shown_label, similar_labels

if TYPE_CHECKING:
    from sam_detect.api import SAMDetect
    from sam_detect.segmentation.prompted import Outlined
    from sam_detect.types import Frame, Masks

HINT = (
    "hint: a negative acts on what looks the same. If the wrong find is another kind of thing "
    "with a name, teaching that works better: sam-detect learn IMAGE --label NAME --box x,y,w,h"
)
"""Measured in docs/labelling.md."""


ADVANCED = (
    "accept_guess", "exhaustive", "workers", "pixel_centres", "fit", "min_area", "max_area",
    *options.PLANES,
)  # fmt: skip


@click.command(cls=options.Sectioned, advanced=ADVANCED)
@click.argument("images", nargs=-1, required=True, metavar="IMAGE|DIR...")
@click.option("--label", metavar="NAME", help="What the objects are.")
@click.option(
    "--box",
    "boxes",
    multiple=True,
    metavar="X,Y,W,H",
    help="Box around one object, in pixels; may be repeated.",
)
@click.option(
    "--point",
    "points",
    multiple=True,
    metavar="X,Y",
    help="A point on one object; may be repeated.",
)
@click.option(
    "--masks",
    metavar="auto|FILE",
    help="auto: the separate objects of one kind. FILE: a mask or label-map picture.",
)
@click.option(
    "--pieces",
    type=click.Choice(["one", "each"]),
    help="Whether an outline in several pieces is one object or several, of --masks FILE or "
    "--annotations.  [default: one; of a mask of one value each, unless they share a hull]",
)
@click.option(
    "--preview",
    metavar="PICTURE",
    help="Write the pictures with the outlines that were taken; a folder for several.",
)
@click.option(
    "--accept-guess", is_flag=True,
    help="Learn the outline of a box, too, that nothing fits, so that it is a guess.",
)  # fmt: skip
@click.option("--negative", is_flag=True, help="Learn that these are *not* what --label says.")
@click.option(
    "--exhaustive", is_flag=True,
    help="Every object in the pictures is outlined: all else is background.",
)  # fmt: skip
@click.option(
    "--annotations",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="File or folder with outlines and names: COCO, GeoJSON (QuPath), ImageJ's regions, "
    "LabelMe, label maps, NimbusImage, YOLO (a folder with data.yaml, classes.txt or obj.names), "
    "sam-detect's JSON.",
)
@click.option("--tag", metavar="NAME", help="Only annotations with this tag or of this category.")
@click.option(
    "--negative-tag",
    metavar="NAME",
    help="Annotations with this tag are *not* what --tag (or --label) says.",
)
@click.option(
    "--pixel-centres",
    is_flag=True,
    help="Coordinates of --annotations are those of pixels' centres, as of OpenCV's contours.",
)
@click.option(
    "--workers",
    type=click.IntRange(1),
    metavar="N",
    help="Processes that share the pictures of --annotations.  [default: the cores; 1 for SAM 2 "
    "and CLIP]",
)
@options.fit_option
@options.plane_options
@options.settings_options(*options.section("Proposals", "Vectors", "Library", "Machine"))
@options.verbose_option
@options.general_options
def learn(  # noqa: PLR0917 - click gives them by name
    images: tuple[str, ...],
    label: str | None,
    boxes: tuple[str, ...],
    points: tuple[str, ...],
    masks: str | None,
    pieces: str | None,
    preview: str | None,
    accept_guess: bool,
    negative: bool,
    exhaustive: bool,
    annotations: Path | None,
    tag: str | None,
    negative_tag: str | None,
    pixel_centres: bool,
    workers: int | None,
    fit: str,
    xy: str | None,
    z: str | None,
    t: str | None,
    channel: str | None,
    as_json: bool,
    **settings: Any,
) -> int:
    """Learn objects from pictures.

    \b
      sam-detect learn tray.jpg --label date --box 40,60,80,50 --box 300,90,85,60
      sam-detect learn slides/ --annotations slides/annotations.json

    \b
    Outline them with --box or --point, take the separate objects of one kind with
    --masks auto, or name a file of annotations with --annotations; --label then names those
    without a tag. Learning the same thing twice adds nothing.
    Of stacks the first plane is read, or those that --z, --t, --xy and --channel select.
    With --json, a line {"added": N, "total": N} follows each batch that is safely stored.
    """
    from sam_detect.io import PlaneRanges

    prompts = _Prompts(
        label,
        [parse_numbers("--box", box, "x,y,w,h") for box in boxes],
        [parse_numbers("--point", point, "x,y") for point in points],
        masks,
        negative,
        accept_guess,
        pieces,
    )
    _check_options(prompts, annotations, tag, negative_tag, workers)
    _refuse_idle(prompts, annotations, tag)
    ranges = PlaneRanges(xy, z, t, channel)
    detector = open_detector(settings, learns=True)
    library = name_of_library(detector)
    _note_similar_label(detector, label)
    failures = Failures()
    files = paths = find_pictures(images, failures)
    pictures: dict[str, Any] = {}
    if annotations is None:
        pictures = pictures_or_planes(detector, paths, ranges, failures)
        paths = [*pictures] if ranges else paths
    prompts.require_one_picture(paths)
    annotated = wrong = None
    if annotations is not None and paths:
        # Of pictures that are named one by one, others may well be annotated, too.
        whole = any(image not in paths for image in images)
        read = partial(
            Annotations,
            annotations,
            paths,
            failures,
            whole=whole,
            centres=pixel_centres,
            pieces=pieces,
            ranges=ranges,
            max_pixels=detector.settings.max_image_pixels,
            fit=fit,
        )
        annotated = read(tag, label)
        if annotated.tags and negative_tag is None and label not in annotated.tags:
            options.refuse(f"all that is taken of {annotations} has names of its own", "label")
        if negative_tag is not None:
            wrong = read(negative_tag, label, named=tag or label)
        paths = list(annotated.by_name)
    shown = None
    if preview is not None:
        shown = Preview(preview, files, several=len(paths) > 1)
    report = LearningReport(as_json, negative, exhaustive, accept_guess)
    with report.summary(library), progress(paths, "learning") as steps:
        if annotated is not None:
            annotated.learn(detector, steps, report, shown, workers)
            if wrong is not None:
                report.negative = True
                wrong.learn(detector, list(wrong.by_name), report, None, workers)
        else:
            for path in steps:
                with failures.guard(path):
                    frame = detector.read(pictures[path])
                    found, labels = prompts.of(detector, frame, path)
                    if shown is not None:
                        shown.write(frame, found, prompts.boxes)
                    if len(labels) < len(found):
                        failures.add(path, GUESSED)
                    report.learn(detector, frame, found, labels)
    if report.negative and report.added + report.relabelled:
        note(HINT)
    return failures.end(paths)


def _note_similar_label(detector: SAMDetect, label: str | None) -> None:
    """A remark where a new label may be a misspelt one of the library."""
    if label is None or detector.library.manifest() is None:
        return
    new = normalised_label(label)
    # Unchecked: an example that is damaged is no reason not to learn others.
    stored = (point.payload.get("label") for point in detector.library.store.scan(fields=["label"]))
    known = {shown_label(each) for each in stored if isinstance(each, str)}
    similar = [] if new in known else similar_labels(new, known)
    if similar:
        note(f"the library has a label '{similar[0]}'; did you mean it?")


def _check_options(
    prompts: _Prompts,
    annotations: Path | None,
    tag: str | None,
    negative_tag: str | None,
    workers: int | None,
) -> None:
    if prompts.pieces is not None and annotations is None and prompts.file in (None, "auto"):
        raise ConfigError("--pieces says what the pieces of an outline are: it needs --masks FILE "
                          "or --annotations FILE")  # fmt: skip
    if annotations is not None:
        if prompts:
            raise ConfigError(
                "--annotations brings its own outlines: leave --box, --point and --masks out"
            )
        if negative_tag is not None and tag is None and prompts.label is None:
            raise ConfigError("--negative-tag needs --tag NAME, which says what they are not")
    elif negative_tag is not None:
        raise ConfigError("--negative-tag chooses among --annotations: give that file too")
    elif prompts.label is None:
        raise ConfigError("learn needs --label NAME, or --annotations FILE")
    elif tag is not None or workers is not None:
        option = "--tag chooses among" if tag is not None else "--workers share"
        raise ConfigError(f"{option} --annotations: give that file too")
    elif not prompts:
        raise ConfigError(
            "learn needs to know where the objects are: --box x,y,w,h, --point x,y, "
            "--masks FILE, or --masks auto for the separate objects of one kind"
        )
    require_label(prompts.label)


def _refuse_idle(prompts: _Prompts, annotations: Path | None, tag: str | None) -> None:
    if annotations is None:
        options.refuse("it is about the coordinates of --annotations", "pixel_centres", "fit")
        if not prompts.boxes:
            options.refuse("only the outline of a --box is ever a guess", "accept_guess")
    elif tag is not None:
        options.refuse(f"what --tag chooses is called '{tag}'", "label")
    if prompts.negative:
        options.refuse("nothing is learnt of what is around negatives", "exhaustive")
        if prompts.file not in (None, "auto") and not prompts.boxes and not prompts.points:
            options.refuse("--masks FILE has the outlines", *options.section("Proposals"))


@dataclass
class _Prompts:
    """Where the objects are, by box, point or mask file; all have one label."""

    label: str | None
    boxes: list[list[float]]
    points: list[list[float]]
    file: str | None
    negative: bool
    accept_guess: bool
    pieces: str | None = None

    def __bool__(self) -> bool:
        return bool(self.boxes or self.points or self.file is not None)

    def of(self, detector: SAMDetect, frame: Frame, path: str) -> tuple[Masks, list[str]]:
        """The masks in one picture, and their labels; guesses come last and have none."""
        from sam_detect.io.mask_files import read_masks
        from sam_detect.types import Masks

        found = []
        if self.file is not None and self.file != "auto":
            if frame.left_out:
                raise MaskError(
                    f"{path} is a stack, of which {frame.left_out}, and nothing says that the mask "
                    f"{self.file} belongs to that one: save the page of the mask as a file of its "
                    "own, and learn from that"
                )
            found.append(read_masks(self.file, frame.size_hw, pieces=self.pieces))
        if self.file == "auto":
            found.append(detector.pipeline.separate_objects(frame))
            left_out = len(detector.pipeline.all_proposals(frame)) - len(found[0])
            if left_out:
                note(
                    f"{path}: took {counted(len(found[0]), 'separate object')} of one kind; left "
                    f"out {counted(left_out, 'proposal')} (parts, background, unlike the others)"
                )
        shown = detector.pipeline.outline(frame, self.boxes, self.points, of_finds=self.negative)
        for line in (*self._taken(shown), *(f"warning: {p}" for p in shown.problems(self.boxes))):
            note(line)
        found.append(shown.masks)
        masks = Masks.concatenate(found)
        if not len(masks):
            note(f"nothing was found in {path}")
        guess = [False] * (len(masks) - len(shown.fits)) + (~shown.fits).tolist()
        masks = masks[sorted(range(len(masks)), key=guess.__getitem__)]
        return masks, [str(self.label)] * (len(masks) - sum(guess) * (not self.accept_guess))

    def require_one_picture(self, paths: list[str]) -> None:
        """Raises ``ConfigError`` where boxes or points would be used in several pictures."""
        if len(paths) > 1 and (self.boxes or self.points):
            option = "--box" if self.boxes else "--point"
            raise ConfigError(
                f"{option} shows an object of one picture, and {len(paths)} pictures were given: "
                f"name one picture, or use --annotations FILE for several"
            )

    def _taken(self, shown: Outlined) -> Iterator[str]:
        """A line for each box and point: what it became."""
        from sam_detect.segmentation.prompted import clip_box

        named = [("box", each) for each in self.boxes] + [("point", each) for each in self.points]
        numbers = [*range(1, len(self.boxes) + 1), *range(1, len(self.points) + 1)]
        for index, ((what, values), number) in enumerate(zip(named, numbers, strict=True)):
            x0, y0, x1, y1 = shown.masks.boxes_xyxy[index].tolist()
            area = int(shown.masks.areas[index])
            share = ""
            if what == "box":
                left, top, right, bottom = clip_box(values, shown.masks.size_hw)
                share = f", {area / ((right - left) * (bottom - top)):.0%} of the box"
            yield (
                f"{what} {number} ({','.join(f'{v:g}' for v in values)}): took "
                f"{counted(area, 'pixel')}{share}, {x1 - x0}x{y1 - y0} at {x0},{y0}"
            )
