"""``sam-detect fewshot``."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sam_detect.cli import options
from sam_detect.cli.detect import format_asked, open_sinks
from sam_detect.cli.feedback import (
    Failures,
    counted,
    find_pictures,
    note,
    open_detector,
    progress,
    require_label,
)
from sam_detect.cli.planes import pictures_or_planes, require_link_fits, require_planes_fit
from sam_detect.cli.text import DetectionPrinter
from sam_detect.config import load_settings
from sam_detect.errors import ConfigError
from sam_detect.options import parts_with

if TYPE_CHECKING:
    from sam_detect.api import SAMDetect
    from sam_detect.io import PlaneRanges
    from sam_detect.microscopy.fewshot import Shown

PRESETS = {"min_area": 30, "points_per_side": 128}
"""Options of the segmenter, where it has them and the user chose no others."""
DEFAULT_SMOOTHING = 0.3
KEPT_VECTORS_MB = 1000
"""A run is repeated with other thresholds."""


@click.command(cls=options.Sectioned, advanced=("pixel_centres", "fit", *options.PLANES, "link_z"))
@click.argument("images", nargs=-1, required=True, metavar="IMAGE|DIR...")
@click.option(
    "--annotations", type=click.Path(path_type=Path), required=True, metavar="FILE",
    help="File or folder with outlines and their tags: COCO, GeoJSON (QuPath), ImageJ's regions, "
    "LabelMe, NimbusImage, sam-detect's JSON.",
)  # fmt: skip
@click.option("--tag", required=True, metavar="NAME", help="Annotations that are the examples.")
@click.option("--negative-tag", metavar="NAME", help="Annotations that are not what is sought.")
@click.option(
    "--output-tag", metavar="NAME", help="Tag of what is found.  [default: that of the examples]"
)
@click.option(
    "--include-shown", is_flag=True, help="Write the examples, too, as they were outlined."
)
@click.option(
    "--pixel-centres", is_flag=True,
    help="Coordinates of --annotations are those of pixels' centres, as of OpenCV's contours.",
)  # fmt: skip
@click.option(
    "--smoothing", type=click.FloatRange(0, 100), default=DEFAULT_SMOOTHING, show_default=True,
    metavar="PIXELS",
    help="How far written polygons may be from the outlines; up to 0.3 they cover exactly the "
    "same pixels.",
)  # fmt: skip
@click.option(
    "--output", type=click.Path(path_type=Path),
    help="File to write; a folder for several pictures in formats with a file for each.",
)  # fmt: skip
@click.option(
    "--format", "format_name", metavar="NAME",
    help="Format of the output, as of detect; by default that of its ending (.json: coco).",
)  # fmt: skip
@click.option(
    "--workers", type=click.IntRange(1), metavar="N",
    help="Processes that share the pictures.  [default: the cores; 1 for SAM 2 and CLIP]",
)  # fmt: skip
@options.fit_option
@options.plane_options
@options.link_option
@options.settings_options(*options.section("Proposals", "Vectors", "Labels", "Library", "Machine"))
@options.verbose_option
@options.general_options
def fewshot(
    images: tuple[str, ...],
    *,
    annotations: Path,
    tag: str,
    negative_tag: str | None,
    output_tag: str | None,
    include_shown: bool,
    pixel_centres: bool,
    smoothing: float,
    output: Path | None,
    format_name: str | None,
    workers: int | None,
    fit: str,
    xy: str | None,
    z: str | None,
    t: str | None,
    channel: str | None,
    link_z: float | None,
    as_json: bool,
    **settings: Any,
) -> int:
    """Outline a few objects, and find all the others.

    \b
      sam-detect fewshot cells/ --annotations ten.json --tag cell --output found.json

    The annotations with --tag are the examples. Everything like them is sought in all
    pictures, also in the rest of those with examples. Without --library the examples are
    kept for this run only.
    Of stacks --z, --t, --xy and --channel say where to seek; examples may lie in any plane.
    """
    from sam_detect.io import PlaneRanges
    from sam_detect.io.files import InputGuard

    ranges = PlaneRanges(xy, z, t, channel)
    require_label(output_tag)
    if negative_tag is not None and negative_tag == tag:
        raise ConfigError("--tag and --negative-tag are the same: objects are one or the other")
    if format_name is None and output is not None and output.suffix.lower() == ".json":
        format_name = "coco"
    format_name = format_asked(format_name, output, as_json)
    if ranges:
        require_planes_fit(format_name)
    require_link_fits(link_z, ranges)
    detector = open_detector(with_presets(settings), learns=True)
    if output is not None:
        InputGuard([annotations]).check(output)
    failures = Failures()
    paths = find_pictures(images, failures)
    if not paths:
        return failures.end(paths)
    shown = _learn(
        detector, annotations, paths, failures, pixel_centres=pixel_centres, fit=fit,
        ranges=ranges, tag=tag, negative_tag=negative_tag, label=output_tag, workers=workers,
    )  # fmt: skip
    _note_too_small(detector, shown)
    pictures = pictures_or_planes(detector, paths, ranges, failures)
    from sam_detect.microscopy.fewshot import without_shown
    from sam_detect.pipeline.batch import default_workers

    printer = None
    if not as_json and (format_name is None or output is not None):
        printer = DetectionPrinter(
            detector.library.name, several=len(pictures) > 1, objects=format_name is None,
            unknown=False, filtered=True, explain=False,
        )  # fmt: skip
    count = default_workers(detector.pipeline, len(pictures)) if workers is None else workers
    with (
        open_sinks(
            format_name, output, as_json, paths, several=len(paths) > 1,
            planes=bool(ranges) and len(pictures) > 1, smoothing=smoothing, explain=True,
            link_z=link_z, printed=printer is not None, labels={shown.label},
            read=lambda name: detector.read(pictures[name]),
        ) as sinks,
        contextlib.closing(detector.detect_each([*pictures.values()], workers=count)) as found,
        progress([*pictures], "detecting") as steps,
    ):  # fmt: skip
        for path, outcome in zip(steps, found, strict=True):
            with failures.guard(path):
                frame, detections = outcome.get()
                detections = detections.only({shown.label})
                if not include_shown:
                    detections = without_shown(detections)
                for sink in sinks:
                    sink.write(frame, detections)
                if printer is not None:
                    printer.show(detections)
    if printer is not None:
        printer.end()
    return failures.end([*pictures] if ranges else paths)


def with_presets(given: dict[str, Any]) -> dict[str, Any]:
    """The settings of a few-shot run: a library in memory unless one is named, and
    :data:`PRESETS`."""
    from sam_detect.models.weights import default_segmenter

    asked = load_settings(given)
    named = given.get("library") is not None or asked.store is not None
    segmenter = asked.segmenter if asked.segmenter != "auto" else default_segmenter(None)
    presets: dict[str, Any] = {
        name: value
        for name, value in PRESETS.items()
        if ("segmenter", segmenter) in parts_with(name) and name not in asked.options
    }
    if "kept_vectors_mb" not in asked.model_fields_set:
        presets["kept_vectors_mb"] = KEPT_VECTORS_MB
    return {**given, **presets, **({} if named else {"store": "memory"})}


def _learn(
    detector: SAMDetect,
    annotations: Path,
    paths: list[str],
    failures: Failures,
    *,
    pixel_centres: bool,
    fit: str,
    ranges: PlaneRanges,
    **options: Any,
) -> Shown:
    from sam_detect.io.annotated_planes import annotated_planes
    from sam_detect.io.annotation_files import read_annotations

    annotated, problems = read_annotations(
        annotations, paths, pixel_centres=pixel_centres, fit=fit, untagged=options["tag"]
    )
    if ranges:
        most = detector.settings.max_image_pixels
        annotated = annotated_planes(annotated, ranges, problems, elsewhere=True, max_pixels=most)
    for problem in problems:
        named = problem.startswith(f"{annotations}: ")
        note(f"warning: {problem}" if named else f"warning: {annotations}: {problem}")
    shown = detector.learn_tagged(annotated, **options)
    for path, line in shown.notes:
        note(f"{path}: {line}")
    for path, problem in shown.problems:
        failures.add(path, problem)
    for path, count in shown.guessed:
        note(f"warning: {path}: no object that was proposed fits {counted(count, 'box')} of it")
    negatives = f" and {counted(shown.negatives, 'negative')}" if shown.negatives else ""
    note(f"learnt {counted(shown.examples, 'example')} of '{shown.label}'{negatives}")
    return shown


def _note_too_small(detector: SAMDetect, shown: Shown) -> None:
    least = detector.settings.option("min_area") or 0
    if shown.smallest_area < least:
        note(
            f"warning: the smallest example has {shown.smallest_area} pixels, and objects of less "
            f"than {least} are not sought: lower --min-area"
        )
