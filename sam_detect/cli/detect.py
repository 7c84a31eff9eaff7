"""``sam-detect detect``."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sam_detect.cli import options
from sam_detect.cli.feedback import Failures, announce, note, progress
from sam_detect.cli.text import print_detections
from sam_detect.errors import ConfigError, ImageError
from sam_detect.registry import load_class, names

if TYPE_CHECKING:
    from sam_detect.detector import SAMDetect
    from sam_detect.interfaces import Sink
    from sam_detect.types import Frame

FORMAT_OF_SUFFIX = {
    ".json": "json", ".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv",
    ".png": "overlay", ".jpg": "overlay", ".jpeg": "overlay", ".webp": "overlay",
    ".tif": "overlay", ".tiff": "overlay", ".bmp": "overlay",
}  # fmt: skip
STANDARD_INPUT = "-"


@click.command()
@click.argument("images", nargs=-1, required=True, metavar="IMAGE|DIR|GLOB|-...")
@options.settings_options(
    *options.PROPOSALS, *options.RECIPE, *options.LABELLING, *options.PLACE, *options.GENERAL
)
@click.option("--label", help="First learn every proposal of the pictures under this name.")
@click.option(
    "--output", "output", type=click.Path(path_type=Path), help="File or folder to write."
)
@click.option(
    "--format",
    "format_name",
    metavar="|".join(names("format")),
    help="Format of the output; by default that of the output's ending.",
)
@options.general_options
def detect(
    images: tuple[str, ...],
    label: str | None,
    output: Path | None,
    format_name: str | None,
    as_json: bool,
    **settings: Any,
) -> int:
    """Find and name the objects of pictures.

    IMAGE is a picture, a folder, a pattern such as 'scans/**/*.png', or - for a picture on
    standard input. What nothing in the library resembles is reported as unknown.
    """
    from sam_detect.detector import SAMDetect

    format_name = _format(format_name, output)
    paths, failures = _find(images)
    detector = SAMDetect(**settings)
    announce(detector)
    sinks = _sinks(format_name, output, as_json, paths, several=len(paths) > 1)
    with progress(paths, "detecting") as steps:
        for path in steps:
            with failures.guard(path):
                frame = _read(detector, path)
                if label is not None:
                    added = detector.add_examples_from_file(frame, "auto", label)
                    note(f"learnt {added.added} proposals of {path} as '{label}'")
                detections = detector.detect_frame(frame)
                for sink in sinks:
                    sink.write(frame, detections)
                if not sinks:
                    print_detections(detections, library=detector.library.name)
    for sink in sinks:
        for written in sink.close():
            note(f"wrote {written}")
    return failures.end(len(paths))


def _sinks(
    format_name: str | None, output: Path | None, as_json: bool, paths: list[str], *, several: bool
) -> list[Sink]:
    """What is written: the output, and JSON on stdout where that is asked for and free."""
    wanted = []
    if format_name is not None:
        wanted.append((format_name, output))
    if as_json and not (format_name is not None and output is None):
        wanted.append(("json", None))
    return [
        load_class("format", name)(place, multiple=several, inputs=paths) for name, place in wanted
    ]


def _format(name: str | None, output: Path | None) -> str | None:
    if name is not None:
        if name not in names("format"):
            raise ConfigError(
                f"no format is named '{name}' (available: {', '.join(names('format'))})"
            )
        return name
    if output is None:
        return None
    suffix = output.suffix.lower()
    if suffix in FORMAT_OF_SUFFIX:
        return FORMAT_OF_SUFFIX[suffix]
    if not suffix:
        return "overlay"
    raise ConfigError(f"the format of {output} is not clear from '{suffix}': add --format")


def _find(images: tuple[str, ...]) -> tuple[list[str], Failures]:
    from sam_detect.sources import find_images

    failures = Failures()
    paths: list[str] = []
    for image in images:
        if image == STANDARD_INPUT:
            paths.append(image)
            continue
        with failures.guard(image):
            paths += [path for path in find_images(image) if path not in paths]
    return paths, failures


def _read(detector: SAMDetect, path: str) -> Frame:
    if path != STANDARD_INPUT:
        return detector.read(path)
    from PIL import Image, UnidentifiedImageError

    try:
        return detector.read(Image.open(io.BytesIO(sys.stdin.buffer.read())))
    except UnidentifiedImageError as error:
        raise ImageError("standard input holds no picture that can be read") from error
