"""A video's objects as YouTube-VIS has them: COCO, in which an annotation is a whole track.

The form is that of the dataset's own files (Yang et al. 2019, "Video instance segmentation"):
``segmentations``, ``bboxes`` and ``areas`` have an entry a frame, null where the object is not
seen.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sam_detect.errors import OutputError
from sam_detect.interfaces import VideoSink
from sam_detect.outputs._atomic import AtomicFile, InputGuard
from sam_detect.outputs._pictures import WRITERS, stem_of
from sam_detect.outputs._spool import Spool
from sam_detect.outputs._text_sink import to_json
from sam_detect.outputs.coco import UNKNOWN_CATEGORY
from sam_detect.types import Detection, Frame, TrackedFrame

Write = Callable[[bytes], None]
NOTHING = "null, "


class COCOVideoSink(VideoSink):
    """One file, which appears whole when the sink is closed; until then its parts are on the disk.

    A track's category and ``score`` are what its last frame says of it; objects without a name
    are of the category ``unknown``. Where the size of the frames changes another entry of
    ``videos`` begins, since a video has one size. Objects that are on no track each have an
    annotation of their own.

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
        self._spool = Spool(path, self._file.folder)
        self._videos: list[_Video] = []
        self._closed = False

    def write(self, tracked: TrackedFrame) -> None:
        if self._closed:
            raise OutputError("this output is closed already; make a new one")
        if not self._videos or self._videos[-1].size_hw != tracked.frame.size_hw:
            self._videos.append(_Video(tracked.frame.size_hw, self._spool))
        try:
            self._videos[-1].add(tracked)
        except OutputError:  # what is missing now would be missing for good
            self._give_up()
            raise

    def close(self) -> list[Path]:
        if self._closed:
            return []
        self._closed = True
        try:
            self._write_dataset()
            return [self._file.commit()]
        finally:
            self._give_up()

    def _give_up(self) -> None:
        self._closed = True
        self._file.discard()
        self._spool.close()

    def _write_dataset(self) -> None:
        tracks = [(n, t) for n, v in enumerate(self._videos, start=1) for t in v.tracks.values()]
        names = sorted({track.category for _, track in tracks})
        categories = {name: number for number, name in enumerate(names, start=1)}
        write = self._file.write
        write(b'{"info": {"description": "objects tracked by sam-detect", "version": "1.0"}, ')
        write(b'"licenses": [], "videos": [')
        for number, video in enumerate(self._videos, start=1):
            write(b", " if number > 1 else b"")
            video.write_entry(write, number)
        write(b'], "annotations": [')
        for number, (place, track) in enumerate(tracks, start=1):
            write(b", " if number > 1 else b"")
            ids = {"id": number, "video_id": place, "category_id": categories[track.category]}
            self._videos[place - 1].write_annotation(write, track, ids)
        write(b'], "categories": ')
        entries = [
            {"id": number, "name": name, "supercategory": "object"}
            for name, number in categories.items()
        ]
        write((to_json(entries) + "}\n").encode("ascii"))


class _Track:
    """What one track was in the frames that show it.

    Attributes:
        id: its number; 0 for none.
        first, last: the first and the last frame that shows it, by their number in the video.
        parts: segmentations, boxes and areas from the first to the last of them.
    """

    def __init__(self, track_id: int, number: int, spool: Spool) -> None:
        self.id, self.first, self.last = track_id, number, number
        self.category, self.score = UNKNOWN_CATEGORY, 0.0
        self.parts = (spool.text(), spool.text(), spool.text())

    def see(self, number: int, detection: Detection) -> None:
        gap = ", " + NOTHING * (number - self.last - 1) if number > self.first else ""
        seen = (detection.mask_rle, detection.bbox, detection.area)
        for part, value in zip(self.parts, seen, strict=True):
            part.add(gap + json.dumps(value))
        self.last = number
        self.category = UNKNOWN_CATEGORY if detection.label is None else detection.label
        self.score = detection.confidence


class _Video:
    """Frames of one size, and the tracks in them."""

    def __init__(self, size_hw: tuple[int, int], spool: Spool) -> None:
        self.size_hw, self.length = size_hw, 0
        self.tracks: dict[Any, _Track] = {}
        self._spool, self._names = spool, spool.text()

    def add(self, tracked: TrackedFrame) -> None:
        number = self.length
        self.length += 1
        self._names.add((", " if number else "") + json.dumps(_name_of(tracked.frame)))
        for index, detection in enumerate(tracked.detections):
            track = int(tracked.track_ids[index])
            key = track or (number, index)
            if key not in self.tracks:
                self.tracks[key] = _Track(track, number, self._spool)
            self.tracks[key].see(number, detection)

    def write_entry(self, write: Write, number: int) -> None:
        """Its entry in ``videos``."""
        height, width = self.size_hw
        head = {"id": number, "width": width, "height": height, "length": self.length}
        write(to_json(head)[:-1].encode("ascii") + b', "file_names": [')
        self._names.copy(write)
        write(b"]}")

    def write_annotation(self, write: Write, track: _Track, ids: dict[str, int]) -> None:
        """A track's entry in ``annotations``, with an entry for each frame."""
        height, width = self.size_hw
        score = round(track.score, 6)
        head = {**ids, "track_id": track.id or None, "iscrowd": 0, "score": score}
        write(to_json(head)[:-1].encode("ascii"))
        before = (NOTHING * track.first).encode("ascii")
        after = b", null" * (self.length - 1 - track.last)
        for name, part in zip(("segmentations", "bboxes", "areas"), track.parts, strict=True):
            write(f', "{name}": ['.encode("ascii") + before)
            part.copy(write)
            write(after + b"]")
        write(f', "width": {width}, "height": {height}}}'.encode("ascii"))


def _name_of(frame: Frame) -> str:
    """A picture's own name; of a video's frame, what tools that cut it into pictures would call it:
    a folder named as the video, and the frame's number."""
    if Path(frame.source_id).suffix.lower() in WRITERS:
        return frame.source_id
    return f"{stem_of(frame.source_id)}/{frame.index:05d}.jpg"
