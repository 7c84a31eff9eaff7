"""``sam-detect video``."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sam_detect.cli import options
from sam_detect.cli.feedback import Failures, note, open_detector
from sam_detect.cli.video_outputs import Outputs
from sam_detect.cli.video_progress import Progress
from sam_detect.errors import ConfigError
from sam_detect.registry import names

if TYPE_CHECKING:
    from sam_detect.api import SAMDetect
    from sam_detect.types import TrackedFrame
    from sam_detect.video.display import Display
    from sam_detect.video.stream import Stream
    from sam_detect.video.threads import Recorder


@click.command(cls=options.Sectioned, advanced=("embedder", "min_area", "max_area"))
@click.argument("source", metavar="0|FILE|DIR|GLOB|URL")
@click.option(
    "--output",
    "outputs",
    type=click.Path(path_type=Path),
    multiple=True,
    help="File to write, by its ending: .mp4 (annotated), .jsonl, .txt (MOT) or .json (COCO); "
    "may be given several times.",
)
@click.option(
    "--format",
    "formats",
    multiple=True,
    metavar="|".join([*names("video format"), "PKG.MOD:CLASS"]),
    help="Format of an output whose ending does not say it; of several, in their order.",
)
@click.option("--show", is_flag=True, help="Show it in a window, where objects can be named.")
@click.option(
    "--track/--no-track",
    default=True,
    help="Follow objects from frame to frame [default]; or look at every frame on its own.",
)
@click.option(
    "--every",
    type=click.IntRange(min=1),
    default=10,
    metavar="N",
    show_default=True,
    help="Frames from one look of the detector to the next.",
)
@click.option("--unknown", is_flag=True, help="Follow objects without a name, too.")
@click.option(
    "--snapshots",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Folder for a picture of each new object and its outline, for `learn`.",
)
@click.option(
    "--collect-unknown",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Folder for a picture of each kind of object without a name; follows them, too.",
)
@options.settings_options(
    *options.section("Proposals", "Vectors", "Labels", "Library", "Source", "Machine")
)
@options.verbose_option
@options.general_options
def video(  # noqa: PLR0917 - click gives them by name
    source: str,
    outputs: tuple[Path, ...],
    formats: tuple[str, ...],
    show: bool,
    track: bool,
    every: int,
    unknown: bool,
    snapshots: Path | None,
    collect_unknown: Path | None,
    as_json: bool,
    **settings: Any,
) -> int:
    """Find and follow the objects of a video.

    \b
      sam-detect video clip.mp4 --output found.mp4
      sam-detect video 0 --show

    SOURCE is a camera's number, a video file, a folder or pattern of frames, or an address: http,
    https (a file, a playlist or a camera's MJPEG), rtsp or rtsps. An object keeps its track's
    number while it is seen, and is named by all looks at it together. Ctrl-C ends it; what was
    written plays.
    """
    wanted = Outputs.of(outputs, formats, as_json=as_json, snapshots=snapshots,
                        collect_unknown=collect_unknown)  # fmt: skip
    if not track and (snapshots or collect_unknown):
        raise ConfigError("--no-track follows nothing: leave --snapshots and --collect-unknown out")
    detector = open_detector(settings)
    unknown = unknown or collect_unknown is not None
    if not len(detector.library) and not unknown:
        note("the library is empty, so nothing can be named: learn something first, or --unknown")
    failures = Failures()
    with (
        detector.stream(source, every=every, unknown=unknown, track=track) as stream,
        _display(show=show) as display,
        wanted.recorder(detector, source, live=stream.live) as recorder,
        Progress(stream, recorder) as progress,
    ):
        frames: Iterator[TrackedFrame] = _Recorded(stream, recorder, progress)
        if display is not None:
            frames = _viewer(detector, stream, frames, display)
        while True:
            with failures.guard(stream.name):
                for _ in frames:
                    pass
                break
    return failures.end([stream.name])


class _Recorded(Iterator["TrackedFrame"]):
    """A stream's frames, each on its way to the outputs."""

    def __init__(self, stream: Stream, recorder: Recorder, progress: Progress) -> None:
        self._stream, self._recorder, self._progress = stream, recorder, progress

    def __next__(self) -> TrackedFrame:
        tracked = next(self._stream)
        self._recorder.write(tracked)
        self._progress.update(tracked)
        return tracked


@contextlib.contextmanager
def _display(*, show: bool) -> Iterator[Display | None]:
    """A window, where one is asked for."""
    if not show:
        yield None
        return
    from sam_detect.video.display import CvDisplay
    from sam_detect.video.threads import short_switch_interval

    display = CvDisplay()
    try:
        with short_switch_interval():  # keys must not wait for a detection
            yield display
    finally:
        display.close()


def _viewer(
    detector: SAMDetect, stream: Stream, frames: Iterator[TrackedFrame], display: Display
) -> Iterator[TrackedFrame]:
    """The frames, each as it is shown."""
    from sam_detect.video.window import Viewer

    labels = sorted(set(detector.snapshot().examples().labels))
    return Viewer(stream, frames, display, labels=labels, paced=not stream.live)
