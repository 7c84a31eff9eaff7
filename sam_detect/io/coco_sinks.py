"""COCO dataset files: of images, and of videos in the form of YouTube-VIS.

In the form of YouTube-VIS an annotation is a whole track (Yang et al. 2019, "Video instance
segmentation"): ``segmentations``, ``bboxes`` and ``areas`` have an entry per frame, null in the
frames that do not show the object.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from sam_detect.errors import OutputError
from sam_detect.interfaces import VideoSink
from sam_detect.io.files import (
    CLOSED,
    IMAGE_FORMATS,
    AtomicFile,
    InputGuard,
    stem_of,
    writing_to,
)
from sam_detect.io.text_sinks import DatasetTextSink, to_json
from sam_detect.types import Detection, Detections, Frame, TrackedFrame
from sam_detect.types.conversions import UNKNOWN_CATEGORY, COCODataset

BUFFERED = 4_000_000
"""Characters of a video's annotations in memory; the rest waits in a temporary file."""
NULL = "null, "


class COCOSink(DatasetTextSink):
    """One COCO file for all images, complete when the sink is closed.

    :class:`~sam_detect.types.conversions.COCODataset` says what is in it: polygons, and RLE for
    objects with holes. ``file_name`` is the image's path relative to the folder that all
    ``inputs`` have in common, with ``/``; without inputs it is the path as given. See
    :class:`DatasetTextSink` for the arguments.
    """

    @cached_property
    def _dataset(self) -> COCODataset:
        return COCODataset(self.labels)

    def add(self, name: str, detections: Detections) -> None:
        self._dataset.add(detections, name)

    def footer(self) -> str:
        return to_json(self._dataset.to_dict()) + "\n"


class COCOVideoSink(VideoSink):
    """One file of a video's tracks, which appears complete when the sink is closed.

    A track's category and ``score`` are those of its last frame; objects without a label have the
    category ``unknown``. If the size of the frames changes another entry of ``videos`` begins,
    since a video has one size. Each object without a track has an annotation of its own. Memory
    does not grow with the length of the video: annotations wait in a temporary file.

    Args:
        output: the file.
        inputs: the files being read, which are never overwritten.

    Raises:
        OutputError: here, in ``write`` and in ``close``, for what cannot be written.
    """

    def __init__(
        self, output: str | os.PathLike[str], *, inputs: Sequence[str | os.PathLike[str]] = ()
    ) -> None:
        path = Path(output)
        InputGuard(inputs).check(path)
        self._file = AtomicFile(path)
        self._texts = _Texts(path, self._file.folder)
        self._videos: list[_VideoEntry] = []
        self._closed = False

    def write(self, tracked: TrackedFrame) -> None:
        if self._closed:
            raise OutputError(CLOSED)
        if not self._videos or self._videos[-1].size_hw != tracked.frame.size_hw:
            number = len(self._videos) + 1
            self._videos.append(_VideoEntry(number, tracked.frame.size_hw, self._texts))
        try:
            self._videos[-1].add(tracked)
        except OutputError:  # a dataset that lacks a frame must not appear
            self._drop()
            raise

    def close(self) -> list[Path]:
        if self._closed:
            return []
        self._closed = True
        try:
            self._write_dataset()
            return [self._file.commit()]
        finally:
            self._drop()

    def _drop(self) -> None:
        self._closed = True
        self._file.discard()
        self._texts.close()

    def _write_dataset(self) -> None:
        tracks = [(video, key) for video in self._videos for key in video.tracks]
        names = sorted({video.tracks[key].category for video, key in tracks})
        categories = {name: number for number, name in enumerate(names, start=1)}
        write = self._file.write
        write(b'{"info": {"description": "objects tracked by sam-detect", "version": "1.0"}, ')
        write(b'"licenses": [], "videos": [')
        for video in self._videos:
            write(b", " if video.number > 1 else b"")
            video.write_entry(write)
        write(b'], "annotations": [')
        for number, (video, key) in enumerate(tracks, start=1):
            write(b", " if number > 1 else b"")
            video.write_annotation(write, key, number, categories[video.tracks[key].category])
        entries = [{"id": categories[n], "name": n, "supercategory": "object"} for n in names]
        write(b'], "categories": ' + to_json(entries).encode("ascii") + b"}\n")


class _Texts:
    """Texts that grow at the same time and are read one after the other, by key.

    They wait in a temporary file without a name, which disappears with the process.

    Raises:
        OutputError: here, in ``add`` and in ``copy``, for what the disk refuses.
    """

    def __init__(self, path: Path, folder: Path | None) -> None:
        self._path = path
        self._buffered: dict[Hashable, list[str]] = {}
        self._stored: dict[Hashable, list[tuple[int, int]]] = {}  # offset and size in the file
        self._size = self._end = 0
        with writing_to(path):
            self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - open until close()

    def add(self, key: Hashable, text: str) -> None:
        """Appends ASCII to the text of this key."""
        self._buffered.setdefault(key, []).append(text)
        self._size += len(text)
        if self._size <= BUFFERED:
            return
        with writing_to(self._path):
            for each, parts in self._buffered.items():
                data = "".join(parts).encode("ascii")
                self._stored.setdefault(each, []).append((self._end, len(data)))
                self._file.write(data)
                self._end += len(data)
            self._file.flush()
        self._buffered, self._size = {}, 0

    def copy(self, key: Hashable, write: Callable[[bytes], None]) -> None:
        """Writes the text of this key."""
        for offset, size in self._stored.get(key, ()):
            with writing_to(self._path):
                self._file.seek(offset)
                data = self._file.read(size)
            write(data)
        write("".join(self._buffered.get(key, ())).encode("ascii"))

    def close(self) -> None:
        """May be called twice."""
        self._file.close()


@dataclass
class _TrackEntry:
    """A track, and the first and last frame that show it."""

    id: int
    first: int
    last: int
    category: str = UNKNOWN_CATEGORY
    score: float = 0.0


class _VideoEntry:
    """Frames of one size, and the tracks in them."""

    PARTS = ("segmentations", "bboxes", "areas")

    def __init__(self, number: int, size_hw: tuple[int, int], texts: _Texts) -> None:
        self.number, self.size_hw, self.length = number, size_hw, 0
        self.tracks: dict[Hashable, _TrackEntry] = {}
        self._texts = texts

    def add(self, tracked: TrackedFrame) -> None:
        number = self.length
        self.length += 1
        separator = ", " if number else ""
        self._texts.add(self.number, separator + json.dumps(_name_of(tracked.frame)))
        pairs = zip(tracked.track_ids.tolist(), tracked.detections, strict=True)
        for index, (track, detection) in enumerate(pairs):
            self._add_object(track or (number, index), track, detection)

    def _add_object(self, key: Hashable, track_id: int, detection: Detection) -> None:
        number = self.length - 1
        entry = self.tracks.setdefault(key, _TrackEntry(track_id, number, number))
        gap = ", " + NULL * (number - entry.last - 1) if number > entry.first else ""
        values = (detection.mask_rle, detection.bbox, detection.area)
        for part, value in zip(self.PARTS, values, strict=True):
            self._texts.add((self.number, key, part), gap + json.dumps(value))
        entry.last = number
        entry.category = UNKNOWN_CATEGORY if detection.label is None else detection.label
        entry.score = detection.confidence

    def write_entry(self, write: Callable[[bytes], None]) -> None:
        """Its entry in ``videos``."""
        height, width = self.size_hw
        head = {"id": self.number, "width": width, "height": height, "length": self.length}
        write(to_json(head)[:-1].encode("ascii") + b', "file_names": [')
        self._texts.copy(self.number, write)
        write(b"]}")

    def write_annotation(
        self, write: Callable[[bytes], None], key: Hashable, number: int, category: int
    ) -> None:
        """A track's entry in ``annotations``, with an entry for each frame."""
        height, width = self.size_hw
        track = self.tracks[key]
        head = {
            "id": number, "video_id": self.number, "category_id": category,
            "track_id": track.id or None, "iscrowd": 0, "score": round(track.score, 6),
        }  # fmt: skip
        write(to_json(head)[:-1].encode("ascii"))
        before = (NULL * track.first).encode("ascii")
        after = b", null" * (self.length - 1 - track.last)
        for part in self.PARTS:
            write(f', "{part}": ['.encode("ascii") + before)
            self._texts.copy((self.number, key, part), write)
            write(after + b"]")
        write(f', "width": {width}, "height": {height}}}'.encode("ascii"))


def _name_of(frame: Frame) -> str:
    """An image's own name; for a frame of a video, the name that tools which cut it into images
    give it: a folder named after the video, and the frame's number."""
    if Path(frame.source_id).suffix.lower() in IMAGE_FORMATS:
        return frame.source_id
    return f"{stem_of(frame.source_id)}/{frame.index:05d}.jpg"
