"""``sam-detect video``."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sam_detect.cli import options
from sam_detect.cli.feedback import Failures, note, open_detector
from sam_detect.errors import ConfigError
from sam_detect.registry import load_class

if TYPE_CHECKING:
    from sam_detect.interfaces import VideoSink
    from sam_detect.video.recording import Recorder

FORMAT_OF_SUFFIX = {".mp4": "annotated", ".jsonl": "jsonl", ".ndjson": "jsonl"}


@click.command()
@click.argument("source", metavar="FILE|DIR|GLOB")
@options.settings_options(
    *options.PROPOSALS,
    *options.RECIPE,
    *options.MODELS,
    *options.LABELLING,
    *options.PLACE,
    *options.GENERAL,
)
@click.option(
    "--output",
    "outputs",
    type=click.Path(path_type=Path),
    multiple=True,
    help="File to write, by its ending: .mp4 (annotated) or .jsonl; may be given several times.",
)
@click.option(
    "--every",
    type=click.IntRange(min=1),
    default=10,
    show_default=True,
    help="Frames from one look of the detector to the next.",
)
@click.option("--unknown", is_flag=True, help="Follow objects without a name, too.")
@options.general_options
def video(
    source: str,
    outputs: tuple[Path, ...],
    every: int,
    unknown: bool,
    as_json: bool,
    **settings: Any,
) -> int:
    """Find and follow the objects of a video.

    SOURCE is a video file, or a folder or pattern of frames. An object keeps its track's number
    while it is seen, and is named by all looks at it together.
    """
    detector = open_detector(settings)
    failures = Failures()
    with (
        detector.stream(source, every=every, unknown=unknown) as stream,
        _recorder(outputs, as_json, source) as recorder,
    ):
        while True:
            with failures.guard(source):
                for tracked in stream:
                    recorder.write(tracked)
                break
    done = stream.statistics
    note(f"{done.frames} frames, {done.keys} of them looked at, {done.fps:.1f} frames a second")
    return failures.end([source])


@contextlib.contextmanager
def _recorder(outputs: Sequence[Path], as_json: bool, source: str) -> Iterator[Recorder]:
    """Writes what was asked for; a run that is stopped, or fails, keeps what it has done."""
    from sam_detect.video.recording import Recorder

    wanted: list[tuple[str, Path | None]] = [(_format_of(path), path) for path in outputs]
    sinks: list[VideoSink] = [
        load_class("video format", name)(path, inputs=[source])
        for name, path in (*wanted, *([("jsonl", None)] if as_json else []))
    ]
    recorder = Recorder(sinks, live=False)
    try:
        yield recorder
    finally:
        for written in recorder.close():
            note(f"wrote {written}")


def _format_of(path: Path) -> str:
    if path.suffix.lower() not in FORMAT_OF_SUFFIX:
        raise ConfigError(
            f"the format of '{path}' is not clear from '{path.suffix}': "
            f"end it with one of {', '.join(FORMAT_OF_SUFFIX)}"
        )
    return FORMAT_OF_SUFFIX[path.suffix.lower()]
