"""The results of a run over many pictures, kept next to its output until the run is complete.

``OUTPUT.progress`` has a first line that says how the run is done, and a line for each picture that
is done. It is written as the run goes on, so that it is there after any end of the process; a line
that was only half written is cut off. Whatever the format of the output: a run that is resumed
writes it anew, from these results and those of the other pictures.
"""

from __future__ import annotations

import json
import os
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sam_detect import __version__
from sam_detect.cli.feedback import Failures, counted, note
from sam_detect.errors import ConfigError, ImageError, SamDetectError
from sam_detect.io.files import InputGuard, writing_to
from sam_detect.io.text_sinks import to_json
from sam_detect.types import Classification, Detections, Frame, Masks, Neighbour, PixelSize
from sam_detect.types.explanation import Explanation, Suppressed
from sam_detect.types.masks import rle_to_crop

if TYPE_CHECKING:
    from sam_detect.api import SAMDetect
    from sam_detect.io import Plane
    from sam_detect.pipeline.batch import Outcome

SUFFIX = ".progress"
NOT_OF_RESULTS = frozenset({
    "device", "offline", "embedding_cache_size", "kept_vectors_mb", "frame_rate",
    "stream_timeout_s", "stream_retries", "playlist_hosts", "store", "qdrant_url",
    "qdrant_api_key", "qdrant_batch_size", "qdrant_timeout_s", "lock_timeout_s",
})  # fmt: skip
"""Settings by which no result changes."""


def facts_of(detector: SAMDetect, *, label: str | None, explain: bool) -> dict[str, Any]:
    """What decides the results of a run, by the name under which a change of it is told."""
    settings = {**detector.settings.model_dump(), **detector.settings.options}
    manifest = detector.library.manifest()
    facts = {
        "version of sam-detect": __version__,
        "segmenter": detector.pipeline.segmenter_name,
        "recipe": detector.recipe.to_dict(),
        "library": [detector.library.name, manifest and manifest["generation"]],
        "--label": label,
        "--explain": explain,
        "settings": {k: v for k, v in sorted(settings.items()) if k not in NOT_OF_RESULTS},
    }
    plain: dict[str, Any] = json.loads(to_json(facts))
    return plain


@dataclass(frozen=True)
class _Line:
    """Where the result of a picture is, and what its file was like."""

    offset: int
    length: int
    file: list[int]


class RunProgress:
    """The results so far of one run.

    Args:
        output: what the run writes.
        facts: :func:`facts_of` this run.
        resume: whether the results of a run before this one count; else they are dropped.
        inputs: the pictures, which are never overwritten.

    Attributes:
        count: how many results there are.

    Raises:
        ConfigError: the run before was done in another way, or its file is none of ours.
        OutputError: here and in ``add``, for what cannot be written.
    """

    def __init__(
        self, output: Path, facts: Mapping[str, Any], *, resume: bool, inputs: Iterable[str] = ()
    ) -> None:
        self.path = output.with_name(output.name + SUFFIX)
        InputGuard([*inputs]).check(self.path)
        self._lines: dict[str, _Line] = {}
        with writing_to(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            there = resume and self.path.exists()
            self._file = self.path.open("r+b" if there else "w+b", buffering=0)
        end = self._read(facts) if there else 0
        with writing_to(self.path):
            self._file.truncate(end)
        self._end = end
        self.count = len(self._lines)
        if not end:
            self._append({"sam_detect_run": facts})

    def has(self, picture: str) -> bool:
        """Whether there is a result of this picture, whose file is as it was."""
        line = self._lines.get(picture)
        return line is not None and bool(line.file) and line.file == _state_of(picture)

    def get(self, picture: str) -> Detections | None:
        """The result of a picture; None where there is none, or a damaged one."""
        line = self._lines.get(picture)
        if line is None:
            return None
        self._file.seek(line.offset)
        try:
            return _detections_of(json.loads(self._file.read(line.length))["result"])
        except (SamDetectError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return None

    def add(self, picture: str, detections: Detections, *, explain: bool) -> None:
        """Keeps the result of a picture."""
        similarities = [each.similarity for each in detections]
        result = {**detections.to_dict(explain=explain), "similarities": similarities}
        self._append({"picture": picture, "file": _state_of(picture), "result": result})
        self.count += 1

    def close(self, *, complete: bool) -> None:
        """Ends the record; it is removed once the run is complete."""
        self._file.close()
        if complete:
            with writing_to(self.path):
                self.path.unlink(missing_ok=True)

    def _append(self, line: Mapping[str, Any]) -> None:
        data = (to_json(line) + "\n").encode("ascii")
        with writing_to(self.path):
            self._file.seek(self._end)
            try:
                rest = memoryview(data)
                while rest:
                    rest = rest[self._file.write(rest) or 0 :]
            except OSError:
                self._file.truncate(self._end)
                raise
        self._end += len(data)

    def _read(self, facts: Mapping[str, Any]) -> int:
        """Finds the results; returns the end of the last complete line."""
        end = 0
        for number, line in enumerate(self._complete_lines()):
            read = _parsed(line)
            if number == 0:
                _require_same(self.path, read.get("sam_detect_run"), facts)
            elif isinstance(read.get("picture"), str):
                self._lines[read["picture"]] = _Line(end, len(line), read.get("file", []))
            end += len(line)
        return end

    def _complete_lines(self) -> Iterator[bytes]:
        with self.path.open("rb") as file:
            for line in file:
                if line.endswith(b"\n"):
                    yield line


def _parsed(line: bytes) -> dict[str, Any]:
    try:
        read = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return read if isinstance(read, dict) else {}


def _require_same(path: Path, before: Any, now: Mapping[str, Any]) -> None:
    """Raises ``ConfigError`` where results of the run before would not fit those of this one."""
    if not isinstance(before, dict):
        raise ConfigError(
            f"'{path}' is not the progress of a run; remove it, or leave out --resume"
        )
    changed = [name for name, value in now.items() if before.get(name) != value]
    if "settings" in changed and isinstance(before.get("settings"), dict):
        old, new = before["settings"], now["settings"]
        names = sorted(k for k in {**old, **new} if old.get(k) != new.get(k))
        changed[changed.index("settings")] = ", ".join(f"--{k.replace('_', '-')}" for k in names)
    if changed:
        raise ConfigError(
            f"the run cannot be resumed: since it began, this has changed: {', '.join(changed)}; "
            "leave out --resume to begin again"
        )


def _state_of(picture: str) -> list[int]:
    """Size and time of a file; nothing for what is no file, such as standard input."""
    try:
        found = os.stat(picture)
    except (OSError, ValueError):
        return []
    return [found.st_size, found.st_mtime_ns]


def _detections_of(data: Mapping[str, Any]) -> Detections:
    """The detections of ``Detections.to_dict()``; any error where it is damaged."""
    size = int(data["height"]), int(data["width"])
    found = data["detections"]
    boxes, crops = [], []
    for each in found:
        if tuple(each["segmentation"]["size"]) != size:  # before it is decoded
            raise ValueError("an outline is not of its picture's size")
        box, crop = rle_to_crop(each["segmentation"])
        boxes.append(box)
        crops.append(crop)
    scores = [float(each["score"]) for each in found]
    masks = Masks.from_crops(size_hw=size, boxes_xyxy=boxes, crops=crops, predicted_ious=scores)
    classifications = tuple(
        Classification(
            each["label"],
            each["best_label"],
            float(each["confidence"]),
            tuple(Neighbour(**neighbour) for neighbour in each["neighbours"]),
            explanation=_explanation_of(each.get("explanation"), similarity),
        )
        for each, similarity in zip(found, data["similarities"], strict=True)
    )
    pixel_size = data.get("pixel_size_um")
    return Detections(
        data["image"], masks, classifications, data["recipe"], data["timings_ms"],
        pixel_size_um=None if pixel_size is None else PixelSize(**pixel_size),
        check=str(data.get("check", "")),
    )  # fmt: skip


def _explanation_of(data: Mapping[str, Any] | None, similarity: float | None) -> Explanation | None:
    if data is None:
        return None if similarity is None else Explanation(prototype_similarity=similarity)
    suppressed = tuple(Suppressed(**each) for each in data["suppressed"])
    return Explanation(**{**data, "suppressed": suppressed})


@contextmanager
def keeping_progress(
    output: Path | None,
    pictures: Sequence[str],
    failures: Failures,
    facts: Mapping[str, Any],
    *,
    resume: bool,
) -> Iterator[RunProgress | None]:
    """Keeps the results of a run of several pictures until it is complete; None without an output,
    and for one that is a pipe or a device.

    Raises:
        ConfigError: the run cannot be resumed.
    """
    regular = output is not None and (output.is_file() or output.is_dir() or not output.exists())
    if output is None or not regular or len(pictures) < 2:
        if resume:
            raise ConfigError("--resume goes on with the output of several pictures: name a file "
                              "or folder with --output")  # fmt: skip
        yield None
        return
    progress = RunProgress(output, facts, resume=resume, inputs=pictures)
    if resume:
        done = sum(map(progress.has, pictures))
        note(f"{done} of {counted(len(pictures), 'picture')} are done already")
    try:
        yield progress
    except BaseException:
        progress.close(complete=not progress.count)
        if progress.count:
            after = counted(progress.count, "picture")
            note(f"{after} done; the same command with --resume does the others")
        raise
    progress.close(complete=not failures.failed)
    if failures.failed:
        note(f"the same command with --resume tries only these again ({progress.path})")


def results(
    detector: SAMDetect,
    pictures: Mapping[str, str | Frame | Plane],
    workers: int | None,
    progress: RunProgress | None,
    *,
    explain: bool,
) -> Generator[tuple[str, Outcome], None, None]:
    """The outcome of each picture by its name, in their order; those that are done already are
    only read again.

    Args:
        workers: None takes as many as suit the detector.
    """
    from sam_detect.pipeline.batch import default_workers

    done = {path for path in pictures if progress is not None and progress.has(path)}
    waiting = [picture for path, picture in pictures.items() if path not in done]
    wanted = default_workers(detector.pipeline, len(waiting)) if workers is None else workers
    several = min(wanted, max(1, len(waiting)))
    with closing(detector.detect_each(waiting, workers=several)) as outcomes:
        for path in pictures:
            known = progress.get(path) if progress is not None and path in done else None
            outcome = _read_again(detector, path, known) if path in done else next(outcomes)
            made = outcome.detections
            if progress is not None and made is not None and made is not known:
                progress.add(path, made, explain=explain)
            yield path, outcome


def _read_again(detector: SAMDetect, path: str, found: Detections | None) -> Outcome:
    """A picture with its known detections; where these are damaged, with new ones."""
    from sam_detect.pipeline.batch import Outcome

    try:
        frame = detector.read(path)
    except ImageError as error:
        return Outcome(error=error)
    if found is None or found.size_hw != frame.size_hw:
        return next(detector.detect_each([frame]))
    return Outcome(frame, found)
