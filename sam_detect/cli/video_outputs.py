"""What ``sam-detect video`` writes, and where."""

from __future__ import annotations

import contextlib
import glob
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
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
    ".mp4": "annotated", ".jsonl": "jsonl", ".ndjson": "jsonl", ".txt": "mot", ".json": "coco",
}  # fmt: skip
TEXT_FORMATS = ("jsonl", "mot")
"""Those that stdout takes, a frame at a time."""
SNAPSHOTS = "snapshots"
NAMED_SINGLY = 5
"""Files of one output; of more, only how many there are is said."""


@dataclass(frozen=True)
class Outputs:
    """What is to be written.

    Attributes:
        formats: of each output, and its path; None is stdout.
        collect_unknown: folder for pictures of what has no name.
    """

    formats: tuple[tuple[str, Path | None], ...]
    collect_unknown: Path | None = None

    @classmethod
    def of(
        cls,
        paths: Sequence[Path],
        formats: Sequence[str],
        *,
        as_json: bool,
        snapshots: Path | None,
        collect_unknown: Path | None,
    ) -> Outputs:
        """What the options ask for.

        Raises:
            ConfigError: a format is not clear, or two outputs want the same place.
        """
        found: list[tuple[str, Path | None]] = list(_formats_of(paths, formats))
        if snapshots is not None:
            found.append((SNAPSHOTS, snapshots))
        if as_json:
            found.append(("jsonl", None))
        _require_places_of_their_own([*(path for _, path in found), collect_unknown])
        return cls(tuple(found), collect_unknown)

    @contextlib.contextmanager
    def recorder(self, detector: SAMDetect, source: str, *, live: bool) -> Iterator[Recorder]:
        """Writes it; a run that is stopped, or fails, keeps what it has done."""
        from sam_detect.video.threads import Recorder

        recorder = Recorder(self._sinks(detector, source), live=live)
        try:
            yield recorder
        except BaseException:
            try:
                _say_written(recorder.close(hurry=True))
            except (SamDetectError, OSError) as error:  # said in addition to what ended the run
                note(f"warning: {one_line(error)}")
            raise
        _say_written(recorder.close())

    def _require_apart_from(self, source: str) -> None:
        """Pictures that are written into the folder which is read would be its next frames.

        Raises:
            ConfigError: they would be.
        """
        read = os.path.dirname(source) if glob.has_magic(source) else source
        snapshots = (path for name, path in self.formats if name == SNAPSHOTS)
        for folder in (*snapshots, self.collect_unknown):
            if folder is not None and os.path.realpath(folder) == os.path.realpath(read):
                raise ConfigError(
                    f"'{folder}' is the folder that is being read: what is written there would "
                    "be its next frames; name another"
                )

    def _sinks(self, detector: SAMDetect, source: str) -> list[VideoSink]:
        self._require_apart_from(source)
        sinks: list[VideoSink] = []
        try:
            for name, path in self.formats:
                sinks.append(load_asked("video format", name)(path, inputs=[source]))
            if self.collect_unknown is not None:
                from sam_detect.video.collecting import UnknownCollector

                sinks.append(
                    UnknownCollector(
                        detector.pipeline,
                        self.collect_unknown,
                        max_pixels=detector.settings.max_image_pixels,
                    )
                )
        except BaseException:
            for sink in sinks:  # those that could be made
                sink.close()
            raise
        return sinks


def _formats_of(paths: Sequence[Path], formats: Sequence[str]) -> Iterator[tuple[str, Path | None]]:
    """The format of each output: as named, where there is one for each or one for each whose
    ending does not say it; else by its ending."""
    for name in formats:
        load_asked("video format", name)  # says which names there are
    if formats and not paths:
        yield _on_stdout(formats)
        return
    unclear = [path for path in paths if path.suffix.lower() not in FORMAT_OF_SUFFIX]
    takers = list(paths) if len(formats) == len(paths) else unclear
    if len(formats) != len(takers):
        _refuse(unclear, formats)
    named = dict(zip(takers, formats, strict=True))
    for path in paths:
        yield named.get(path) or FORMAT_OF_SUFFIX[path.suffix.lower()], path


def _on_stdout(formats: Sequence[str]) -> tuple[str, None]:
    if len(formats) > 1 or formats[0] not in TEXT_FORMATS:
        raise ConfigError(f"--format {formats[-1]} needs to know where to write: add --output PATH")
    return formats[0], None


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


def _require_places_of_their_own(paths: Sequence[Path | None]) -> None:
    names = Counter("stdout" if each is None else os.path.realpath(each) for each in paths[:-1])
    if paths[-1] is not None:
        names[os.path.realpath(paths[-1])] += 1
    for name, count in names.items():
        if count > 1:
            raise ConfigError(f"several outputs want '{name}': give each a place of its own")


def _say_written(paths: Sequence[Path]) -> None:
    by_folder = Counter(path.parent for path in paths)
    for path in paths:
        if by_folder[path.parent] <= NAMED_SINGLY:
            note(f"wrote {path}")
    for folder, count in by_folder.items():
        if count > NAMED_SINGLY:
            note(f"wrote {count} files in {folder}")
