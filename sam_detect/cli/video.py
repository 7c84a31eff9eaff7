"""``sam-detect video``."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sam_detect.cli import options
from sam_detect.cli.feedback import Failures, note, open_detector
from sam_detect.errors import ConfigError, SamDetectError, one_line
from sam_detect.registry import load_class

if TYPE_CHECKING:
    from sam_detect.interfaces import VideoSink
    from sam_detect.video.recording import Recorder
    from sam_detect.video.statistics import Statistics

FORMAT_OF_SUFFIX = {".mp4": "annotated", ".jsonl": "lines", ".ndjson": "lines"}


@click.command()
@click.argument("source", metavar="0|FILE|DIR|GLOB|URL")
@options.settings_options(
    *options.PROPOSALS,
    *options.RECIPE,
    *options.MODELS,
    *options.LABELLING,
    *options.PLACE,
    *options.STREAMS,
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

    SOURCE is a camera's number, a video file, a folder or pattern of frames, or an address: http,
    https (a file, a playlist or a camera's MJPEG), rtsp or rtsps. An object keeps its track's
    number while it is seen, and is named by all looks at it together. Ctrl-C ends it; what was
    written plays.
    """
    detector = open_detector(settings)
    failures = Failures()
    with (
        detector.stream(source, every=every, unknown=unknown) as stream,
        _recorder(outputs, as_json, source, live=stream.live) as recorder,
    ):
        while True:
            with failures.guard(stream.name):
                for tracked in stream:
                    recorder.write(tracked)
                break
    note(_summary(stream.statistics))
    return failures.end([stream.name])


def _summary(done: Statistics) -> str:
    seen = f"{done.frames} frames, {done.keys} of them looked at, {done.fps:.1f} frames a second"
    beside = {"dropped": done.dropped, "got back": done.reconnects, "damaged": done.damaged}
    return ", ".join([seen, *(f"{what} {count}" for what, count in beside.items() if count)])


@contextlib.contextmanager
def _recorder(
    outputs: Sequence[Path], as_json: bool, source: str, *, live: bool
) -> Iterator[Recorder]:
    """Writes what was asked for; a run that is stopped, or fails, keeps what it has done."""
    from sam_detect.video.recording import Recorder

    wanted: list[tuple[str, Path | None]] = [(_format_of(path), path) for path in outputs]
    sinks: list[VideoSink] = [
        load_class("video format", name)(path, inputs=[source])
        for name, path in (*wanted, *([("lines", None)] if as_json else []))
    ]
    recorder = Recorder(sinks, live=live)
    try:
        yield recorder
    except BaseException:
        try:
            _say_written(recorder.close(hurry=True))
        except (SamDetectError, OSError) as error:  # what ended the run is said, this beside it
            note(f"warning: {one_line(error)}")
        raise
    _say_written(recorder.close())


def _say_written(paths: Sequence[Path]) -> None:
    for written in paths:
        note(f"wrote {written}")


def _format_of(path: Path) -> str:
    if path.suffix.lower() not in FORMAT_OF_SUFFIX:
        raise ConfigError(
            f"the format of '{path}' is not clear from '{path.suffix}': "
            f"end it with one of {', '.join(FORMAT_OF_SUFFIX)}"
        )
    return FORMAT_OF_SUFFIX[path.suffix.lower()]
