"""What ``sam-detect video`` writes, and where."""

from __future__ import annotations

import contextlib
import glob
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sam_detect.cli.feedback import note
from sam_detect.errors import ConfigError, SamDetectError, one_line
from sam_detect.registry import load_asked

if TYPE_CHECKING:
    from sam_detect.api import SAMDetect
    from sam_detect.interfaces import VideoSink
    from sam_detect.video.threads import Recorder

FORMAT_OF_SUFFIX = {
    ".mp4": "annotated", ".jsonl": "jsonl", ".ndjson": "jsonl", ".txt": "mot", ".csv": "csv",
}  # fmt: skip
TEXT_FORMATS = ("jsonl", "csv", "mot")
"""Those that stdout takes, a frame at a time."""
SNAPSHOTS, COLLECT_UNKNOWN = "snapshots", "collect-unknown"
NAMED_SINGLY = 5
"""Files of one folder that are named; of more, only their number is."""


Output = tuple[str, Path | None]
"""A format, and where to write it; None is stdout."""


def find_outputs(
    paths: Sequence[Path],
    formats: Sequence[str],
    *,
    as_json: bool,
    snapshots: Path | None,
    collect_unknown: Path | None,
) -> list[Output]:
    """The outputs that the options ask for.

    Raises:
        ConfigError: a format is not clear, or two outputs want the same place.
    """
    found = [*_formats_of(paths, formats)]
    if snapshots is not None:
        found.append((SNAPSHOTS, snapshots))
    if as_json:
        found.append(("jsonl", None))
    if collect_unknown is not None:
        found.append((COLLECT_UNKNOWN, collect_unknown))
    places = Counter("stdout" if path is None else os.path.realpath(path) for _, path in found)
    for place, count in places.items():
        if count > 1:
            raise ConfigError(f"several outputs want '{place}': give each a place of its own")
    return found


def open_sinks(outputs: Sequence[Output], detector: SAMDetect, source: str) -> list[VideoSink]:
    """Opens the outputs; where one of them fails, those before it are closed.

    Raises:
        ConfigError: pictures would be written into the folder that is read, and be its next frames.
    """
    read = os.path.dirname(source) if glob.has_magic(source) else source
    for name, path in outputs:
        if name not in (SNAPSHOTS, COLLECT_UNKNOWN) or path is None:
            continue
        if os.path.realpath(path) == os.path.realpath(read):
            raise ConfigError(
                f"'{path}' is the folder that is being read: what is written there would "
                "be its next frames; name another"
            )
    sinks: list[VideoSink] = []
    try:
        for name, path in outputs:
            if name == COLLECT_UNKNOWN and path is not None:
                from sam_detect.video.collecting import UnknownCollector

                most = detector.settings.max_image_pixels
                sinks.append(UnknownCollector(detector.pipeline, path, max_pixels=most))
            else:
                sinks.append(load_asked("video format", name)(path, inputs=[source]))
    except BaseException:
        for sink in sinks:
            sink.close()
        raise
    return sinks


@contextlib.contextmanager
def recording(sinks: Sequence[VideoSink], *, live: bool) -> Iterator[Recorder]:
    """Writes to sinks; a run that is stopped, or fails, keeps what it has done."""
    from sam_detect.video.threads import Recorder

    recorder = Recorder(sinks, live=live)
    try:
        yield recorder
    except BaseException:
        try:
            _report_written(recorder.close(drop_pending=True))
        except (SamDetectError, OSError) as error:  # in addition to what ended the run
            note(f"warning: {one_line(error)}")
        raise
    _report_written(recorder.close())


def _formats_of(paths: Sequence[Path], formats: Sequence[str]) -> Iterator[Output]:
    """The format of each output: as named, where there is one for each or one for each whose
    ending does not say it; else by its ending."""
    for name in formats:
        load_asked("video format", name)  # says which names there are
    if formats and not paths:
        if len(formats) > 1 or formats[0] not in TEXT_FORMATS:
            last = formats[-1]
            raise ConfigError(f"--format {last} needs to know where to write: add --output PATH")
        yield formats[0], None
        return
    unclear = [path for path in paths if path.suffix.lower() not in FORMAT_OF_SUFFIX]
    takers = list(paths) if len(formats) == len(paths) else unclear
    if len(formats) != len(takers):
        _refuse(unclear, formats)
    named = dict(zip(takers, formats, strict=True))
    for path in paths:
        yield named.get(path) or FORMAT_OF_SUFFIX[path.suffix.lower()], path


def _refuse(unclear: Sequence[Path], formats: Sequence[str]) -> None:
    if len(formats) > len(unclear):
        raise ConfigError(
            f"{len(formats)} --format for {len(unclear)} outputs that need one: name one for each "
            "output, or for each whose ending does not say it"
        )
    path = unclear[len(formats)]
    raise ConfigError(
        f"the format of '{path}' is not clear from '{path.suffix}': end it with one of "
        f"{', '.join(FORMAT_OF_SUFFIX)}, or add --format"
    )


def _report_written(paths: Sequence[Path]) -> None:
    by_folder = Counter(path.parent for path in paths)
    for path in paths:
        if by_folder[path.parent] <= NAMED_SINGLY:
            note(f"wrote {path}")
    for folder, count in by_folder.items():
        if count > NAMED_SINGLY:
            note(f"wrote {count} files in {folder}")
