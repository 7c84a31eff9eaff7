"""``sam-detect video``."""

from __future__ import annotations

import contextlib
import glob
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sam_detect.cli import options
from sam_detect.cli.feedback import Failures, counted, note, open_detector, printable
from sam_detect.cli.video_outputs import find_outputs, open_sinks, recording
from sam_detect.errors import ConfigError
from sam_detect.registry import names
from sam_detect.server.access import HOST, TOKEN

if TYPE_CHECKING:
    from sam_detect.api import SAMDetect
    from sam_detect.server.live import LiveSession
    from sam_detect.types import TrackedFrame
    from sam_detect.video.display import Display
    from sam_detect.video.stream import Stream
    from sam_detect.video.threads import Recorder


EVERY_S = 0.25
"""How often the line on the terminal changes."""
LABELS = 4
"""Names in a line; of more, only the number."""


@click.command(cls=options.Sectioned, advanced=("host", "port", "embedder", "min_area", "max_area"))
@click.argument("source", metavar="0|FILE|DIR|GLOB|URL")
@click.option(
    "--output",
    "outputs",
    type=click.Path(path_type=Path),
    multiple=True,
    help="File to write, by its ending: .mp4 (annotated), .jsonl, .csv or .txt (MOT); may be given "
    "several times.",
)
@click.option(
    "--format",
    "formats",
    multiple=True,
    metavar="|".join([*names("video format"), "PKG.MOD:CLASS"]),
    help="Format of an output whose ending does not say it; of several, in their order.",
)
@click.option(
    "--page", is_flag=True, help="Show it on a page in the browser, where objects can be named."
)
@click.option(
    "--host", default=HOST, show_default=True, metavar="ADDRESS",
    help=f"Where the page is served. For other machines to reach it, set {TOKEN}, too.",
)  # fmt: skip
@click.option(
    "--port", type=click.IntRange(0, 65_535), default=8000, show_default=True,
    help="Of the page; 0 takes a free one.",
)  # fmt: skip
@click.option("--show", is_flag=True, help="Show it in a window.")
@click.option(
    "--track/--no-track",
    default=True,
    help="Follow objects from frame to frame [default]; or detect in each frame independently.",
)
@click.option(
    "--every",
    type=click.IntRange(min=1),
    default=10,
    metavar="N",
    show_default=True,
    help="Frames from one key frame, where the detector runs, to the next.",
)
@click.option(
    "--propagate",
    type=click.Choice(["auto", "flow", "features", "sam2"]),
    default="auto",
    help="What carries outlines from frame to frame: optical flow, learned features (better and "
    "slower), or SAM 2's video memory [default: sam2 where it is the segmenter; else features "
    "where the embedder lite is installed].",
)
@click.option(
    "--live",
    is_flag=True,
    help="Play a file at its own rate, as a camera would give it: frames that come too fast are "
    "dropped.",
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
    page: bool,
    host: str,
    port: int,
    show: bool,
    track: bool,
    every: int,
    propagate: str,
    live: bool,
    unknown: bool,
    snapshots: Path | None,
    collect_unknown: Path | None,
    as_json: bool,
    **settings: Any,
) -> int:
    """Find and follow the objects of a video.

    \b
      sam-detect video clip.mp4 --output found.mp4
      sam-detect video 0 --page

    SOURCE is a camera's number, a video file, a folder or pattern of frames, or an address: http,
    https (a file, a playlist or a camera's MJPEG), rtsp or rtsps. An object keeps its track's
    number while it is visible, and its label is a vote over its key frames. Ctrl-C ends it; what
    was written plays.
    """
    wanted = find_outputs(
        outputs, formats, as_json=as_json, snapshots=snapshots, collect_unknown=collect_unknown
    )
    if not track and (snapshots or collect_unknown):
        raise ConfigError("--no-track follows nothing: leave --snapshots and --collect-unknown out")
    if not track:
        options.refuse("with --no-track every frame is a key frame", "every", "propagate")
    if not page:
        options.refuse("they serve the page that --page asks for", "host", "port")
    is_address = "://" in source
    if not (os.path.isdir(source) or glob.has_magic(source)) or is_address:
        options.refuse(f"'{source}' is no folder of pictures", "frame_rate")
    if not is_address:
        options.refuse(f"'{source}' is no address", "stream_timeout_s", "playlist_hosts")
        if not source.removeprefix("-").isdecimal():
            options.refuse(f"'{source}' is neither an address nor a camera", "stream_retries")
    if page:
        from sam_detect.cli.live_page import check_page

        check_page(host, show=show)
    detector = open_detector(settings, new=page)
    unknown = unknown or collect_unknown is not None
    if not len(detector.library) and not unknown and not page:
        note("the library is empty, so nothing can be named: learn something first, or --unknown")
    failures = Failures()
    with (
        detector.stream(
            source,
            every=every,
            live=live or None,
            unknown=unknown,
            track=track,
            propagate=propagate,
        ) as stream,
        _display(show=show) as display,
        recording(open_sinks(wanted, detector, source), live=stream.live) as recorder,
        Progress(stream, recorder) as progress,
    ):
        frames: Iterator[TrackedFrame] = _Recorded(stream, recorder, progress)
        if display is not None:
            from sam_detect.video.window import Viewer

            frames = Viewer(frames, display, paced=not stream.live)
        with _page(stream, detector, host if page else None, port, as_json) as session:
            taken = frames if session is None else session.show(frames)
            _take(taken, failures, stream.name)
            if session is not None and not session.finished:
                recorder.close()  # the outputs need not wait for those who look at the last frame
                session.end()
                with contextlib.suppress(KeyboardInterrupt):  # all is done
                    session.wait()
    return failures.end([stream.name])


@contextlib.contextmanager
def _page(
    stream: Stream, detector: SAMDetect, host: str | None, port: int, as_json: bool
) -> Iterator[LiveSession | None]:
    """The page, where one is asked for."""
    if host is None:
        yield None
        return
    from sam_detect.cli.live_page import live_page

    labels = detector.snapshot().examples().labels
    with live_page(stream, labels, host, port, as_json=as_json) as session:
        yield session


def _take(frames: Iterator[TrackedFrame], failures: Failures, name: str) -> None:
    """Takes all frames; one that cannot be read is a failure, and those after it come."""
    while True:
        with failures.guard(name):
            for _ in frames:
                pass
            return


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
    from sam_detect.pipeline.scheduling import short_switch_interval
    from sam_detect.video.display import Display

    display = Display()
    try:
        with short_switch_interval():  # keys must not wait for a detection
            yield display
    finally:
        display.close()


class Progress:
    """Reports on stderr: a line while the stream runs, where it is a terminal, and a summary at its
    end, however it ends."""

    def __init__(self, stream: Stream, recorder: Recorder) -> None:
        self._stream, self._recorder = stream, recorder
        self._live: Any = None
        self._next_s = 0.0
        self._names: dict[int, str | None] = {}

    def __enter__(self) -> Progress:
        if sys.stderr is not None and sys.stderr.isatty():
            from rich.console import Console
            from rich.live import Live

            # Rich would print what goes to stdout above the line, that is to stderr: right for a
            # terminal, wrong for a file or a pipe.
            both = sys.stdout is not None and sys.stdout.isatty()
            console = Console(stderr=True)
            self._live = Live(
                console=console, transient=True, auto_refresh=False, redirect_stdout=both
            )
            self._live.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        if self._live is not None:
            self._live.__exit__(*error)
        if self._stream.statistics.frames:
            note(self._done())
        if self._names:
            tracks = counted(len(self._names), "track")
            note(f"{tracks}: {summarize_labels(Counter(self._names.values()))}")

    def update(self, tracked: TrackedFrame) -> None:
        """Takes a frame; says how it goes, a few times a second."""
        for track, classification in zip(
            tracked.track_ids, tracked.detections.classifications, strict=True
        ):
            if track:
                self._names[int(track)] = classification.label
        now = time.monotonic()
        if self._live is None or now < self._next_s:
            return
        from rich.text import Text

        self._next_s = now + EVERY_S
        line = Text(self.text(tracked), no_wrap=True, overflow="ellipsis")
        self._live.update(line, refresh=True)

    def text(self, tracked: TrackedFrame) -> str:
        """The line: where it is, how fast, how late, what was lost, what waits, what is there."""
        numbers, stream = self._stream.statistics, self._stream
        lost = numbers.dropped + self._recorder.dropped
        labels = Counter(each.label for each in tracked.detections.classifications)
        return (
            f"frame {tracked.frame.index + 1}  {numbers.fps:.1f} fps  "
            f"{numbers.latency_ms(0.95):.0f} ms  {lost} dropped  "
            f"queue {stream.waiting}+{self._recorder.waiting}  {summarize_labels(labels)}"
        )

    def _done(self) -> str:
        done = self._stream.statistics
        text = f"{counted(done.frames, 'frame')}, {counted(done.keys, 'key frame')}"
        if done.frames > 1:
            text += f", {done.mean_fps:.1f} a second"
        if self._stream.live:
            text += f", {done.latency_ms(0.95):.0f} ms late at most (95 %)"
        lost = done.dropped + self._recorder.dropped
        counts = {"dropped": lost, "reconnects": done.reconnects, "damaged": done.damaged}
        return text + "".join(f", {what} {count}" for what, count in counts.items() if count)


def summarize_labels(counts: Counter[str | None]) -> str:
    """How many objects have which name, the most frequent first, those without one last."""
    known = sorted(
        ((label, count) for label, count in counts.items() if label is not None),
        key=lambda pair: (-pair[1], pair[0]),
    )
    texts = [f"{printable(label)} x{count}" for label, count in known[:LABELS]]
    if len(known) > LABELS:
        texts.append(f"{len(known) - LABELS} more names")
    if counts[None]:
        texts.append(f"unknown x{counts[None]}")
    return ", ".join(texts) or "nothing named"
