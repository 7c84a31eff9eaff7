"""A video's objects as YouTube-VIS has them: COCO, in which an annotation is a whole track.

The form is that of the dataset's own files (Yang et al. 2019, "Video instance segmentation"):
``segmentations``, ``bboxes`` and ``areas`` have an entry a frame, null where the object is not
seen.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sam_detect.errors import OutputError
from sam_detect.interfaces import VideoSink
from sam_detect.masks import MaskRLE
from sam_detect.outputs._atomic import AtomicFile, InputGuard
from sam_detect.outputs._pictures import WRITERS, stem_of
from sam_detect.outputs._text_sink import to_json
from sam_detect.outputs.coco import UNKNOWN_CATEGORY
from sam_detect.types import Detection, Frame, TrackedFrame


class COCOVideoSink(VideoSink):
    """One file, complete when the sink is closed; until then the outlines are kept in memory.

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
        InputGuard(inputs).check(Path(output))
        self._file = AtomicFile(Path(output))
        self._videos: list[_Video] = []
        self._closed = False

    def write(self, tracked: TrackedFrame) -> None:
        if self._closed:
            raise OutputError("this output is closed already; make a new one")
        if not self._videos or self._videos[-1].size_hw != tracked.frame.size_hw:
            self._videos.append(_Video(tracked.frame.size_hw))
        self._videos[-1].add(tracked)

    def close(self) -> list[Path]:
        if self._closed:
            return []
        self._closed = True
        try:
            self._file.write((to_json(self._dataset()) + "\n").encode("ascii"))
            return [self._file.commit()]
        finally:
            self._file.discard()

    def _dataset(self) -> dict[str, Any]:
        tracks = [(n, t) for n, v in enumerate(self._videos, start=1) for t in v.tracks.values()]
        names = sorted({track.category for _, track in tracks})
        categories = {name: number for number, name in enumerate(names, start=1)}
        return {
            "info": {"description": "objects tracked by sam-detect", "version": "1.0"},
            "licenses": [],
            "videos": [v.to_dict(number) for number, v in enumerate(self._videos, start=1)],
            "annotations": [
                self._videos[video - 1].annotation(track, number, video, categories)
                for number, (video, track) in enumerate(tracks, start=1)
            ],
            "categories": [
                {"id": number, "name": name, "supercategory": "object"}
                for name, number in categories.items()
            ],
        }


@dataclass
class _Track:
    """What one track was in the frames that show it, by their number in the video."""

    id: int
    category: str = UNKNOWN_CATEGORY
    score: float = 0.0
    seen: dict[int, tuple[MaskRLE, list[int], int]] = field(default_factory=dict)

    def see(self, number: int, detection: Detection) -> None:
        self.seen[number] = (detection.mask_rle, detection.bbox, detection.area)
        self.category = UNKNOWN_CATEGORY if detection.label is None else detection.label
        self.score = detection.confidence


@dataclass
class _Video:
    """Frames of one size, and the tracks in them."""

    size_hw: tuple[int, int]
    names: list[str] = field(default_factory=list)
    tracks: dict[Any, _Track] = field(default_factory=dict)

    def add(self, tracked: TrackedFrame) -> None:
        number = len(self.names)
        self.names.append(_name_of(tracked.frame))
        for index, detection in enumerate(tracked.detections):
            track = int(tracked.track_ids[index])
            key = track or (number, index)
            self.tracks.setdefault(key, _Track(track)).see(number, detection)

    def to_dict(self, number: int) -> dict[str, Any]:
        height, width = self.size_hw
        length = len(self.names)
        return {"id": number, "width": width, "height": height, "length": length,
                "file_names": self.names}  # fmt: skip

    def annotation(
        self, track: _Track, number: int, video: int, categories: dict[str, int]
    ) -> dict[str, Any]:
        height, width = self.size_hw
        frames = [track.seen.get(i, (None, None, None)) for i in range(len(self.names))]
        return {
            "id": number,
            "video_id": video,
            "category_id": categories[track.category],
            "track_id": track.id or None,
            "segmentations": [segmentation for segmentation, _, _ in frames],
            "bboxes": [bbox for _, bbox, _ in frames],
            "areas": [area for _, _, area in frames],
            "iscrowd": 0,
            "score": round(track.score, 6),
            "width": width,
            "height": height,
        }


def _name_of(frame: Frame) -> str:
    """A picture's own name; of a video's frame, what tools that cut it into pictures would call it:
    a folder named as the video, and the frame's number."""
    if Path(frame.source_id).suffix.lower() in WRITERS:
        return frame.source_id
    return f"{stem_of(frame.source_id)}/{frame.index:05d}.jpg"
