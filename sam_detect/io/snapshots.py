"""Images of the objects in a video, outlined, for labelling later.

The folder is a COCO dataset, which ``sam-detect learn`` reads::

    sam-detect learn FOLDER --annotations FOLDER/annotations.json

A name that is wrong, or ``unknown``, is corrected in the file's ``categories`` before that. The
folder ``outlined`` in it shows which object of each image is meant.
"""

from __future__ import annotations

import json
import os
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from sam_detect.errors import OutputError
from sam_detect.interfaces import VideoSink
from sam_detect.io.drawing import ColorRGB, draw_masks
from sam_detect.io.files import (
    CLOSED,
    FOLDER_EXTENSION,
    stem_of,
    write_atomically,
    write_image,
    writing_to,
)
from sam_detect.io.text_sinks import to_json
from sam_detect.types import Classification, Detections, Frame, Masks, TrackedFrame
from sam_detect.types.conversions import UNKNOWN_CATEGORY

ANNOTATIONS = "annotations.json"
MAX_SNAPSHOTS = 1000
"""Images of one video."""
MIN_FRAMES = 3
"""Frames that must show an object."""
MAX_NAME = 60
OUTLINED = "outlined"
COLOR: ColorRGB = (238, 51, 119)
LINE_PX = 2.0
CONTEXT = 3.0
"""Side of a snapshot, relative to its object: more than a crop of an example needs."""
MIN_SIDE_PX = 96
MAX_WAIT = 25
"""Frames to wait for one in which the object does not touch the border."""


@dataclass(frozen=True, eq=False)
class ObjectSnapshot:
    """One object, cut out of a frame with its context.

    Attributes:
        track_id: its track.
        frame: the cut, with the index and the time of its frame.
        masks: the object in it, alone.
        classification: of its track in the last frame that showed it.
        truncated: whether the border of the image cuts it off.
    """

    track_id: int
    frame: Frame
    masks: Masks
    classification: Classification
    truncated: bool


class SnapshotFolder:
    """A folder of outlined objects; what it holds already stays.

    Args:
        folder: made if needed.

    Raises:
        OutputError: here and in ``add``, for what cannot be read or written.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder
        with writing_to(folder):
            folder.mkdir(parents=True, exist_ok=True)
        self._data = _read(folder / ANNOTATIONS)

    @property
    def annotations(self) -> Path:
        return self.path / ANNOTATIONS

    def entries(self) -> list[tuple[Path, dict[str, Any], str]]:
        """The image, the annotation and the category of each object."""
        names = {each["id"]: each["name"] for each in self._data["categories"]}
        files = {each["id"]: self.path / each["file_name"] for each in self._data["images"]}
        return [
            (files[a["image_id"]], a, names[a["category_id"]]) for a in self._data["annotations"]
        ]

    def add(self, snapshot: ObjectSnapshot, category: str) -> Path:
        """Writes an image named ``category-track-frame``, and its outline."""
        frame, masks, track_id = snapshot.frame, snapshot.masks, snapshot.track_id
        short = category.encode("utf-8", "replace")[: 2 * MAX_NAME].decode("utf-8", "ignore")
        path = self._free_path(f"{short[:MAX_NAME]}-{track_id}-{frame.index}")
        write_image(path, frame.image_rgb)
        outlined = np.array(frame.image_rgb)
        draw_masks(outlined, masks, COLOR, line_px=LINE_PX)
        write_image(self.path / OUTLINED / f"{path.stem}.jpg", outlined)
        image_id = self._next_id("images")
        height, width = frame.size_hw
        self._data["images"].append(
            {"id": image_id, "file_name": path.name, "width": width, "height": height,
             "video": frame.source_id, "frame": frame.index, "time_s": frame.time_s}
        )  # fmt: skip
        x0, y0, x1, y1 = masks.boxes_xyxy[0].tolist()
        self._data["annotations"].append(
            {"id": image_id, "image_id": image_id, "category_id": self._category_id(category),
             "segmentation": masks.rle(0), "bbox": [x0, y0, x1 - x0, y1 - y0],
             "area": int(masks.areas[0]), "iscrowd": 0, "track_id": track_id}
        )  # fmt: skip
        data = (to_json(self._data) + "\n").encode("ascii")
        write_atomically(self.annotations, lambda file: file.write(data))
        return path

    def _category_id(self, name: str) -> int:
        for each in self._data["categories"]:
            if each["name"] == name:
                return int(each["id"])
        number = self._next_id("categories")
        self._data["categories"].append({"id": number, "name": name})
        return number

    def _next_id(self, part: str) -> int:
        return 1 + max((int(each["id"]) for each in self._data[part]), default=0)

    def _free_path(self, name: str) -> Path:
        safe = name.encode("utf-8", "replace").decode().replace("/", "_").replace("\\", "_")
        # the extension keeps a name such as "v1.5" from losing what follows its point
        stem, number = stem_of(safe + FOLDER_EXTENSION), 1
        path = self.path / (stem + FOLDER_EXTENSION)
        with writing_to(path):
            while path.exists():
                number += 1
                path = self.path / f"{stem}-{number}{FOLDER_EXTENSION}"
        return path


class SnapshotFolderSink(VideoSink):
    """Keeps a snapshot of each new object in a folder, if :meth:`category_of` names it.

    The first frame is taken in which the border does not cut the object off, or the first of all
    if there is none within :data:`MAX_WAIT` frames.

    Args:
        folder: made if needed; what it holds already stays.
        min_frames: frames that must show an object.
        keep_rest: whether objects count, too, that were shown in fewer when the video ended.

    Raises:
        OutputError: here, in ``write`` and in ``close``, for what cannot be read or written.
    """

    def __init__(self, folder: Path, *, min_frames: int, keep_rest: bool) -> None:
        self.folder = SnapshotFolder(folder)
        self.written: list[Path] = []
        self._min_frames, self._keep_rest = min_frames, keep_rest
        self._frames = 0
        self._waiting: dict[int, _Waiting] = {}
        self._done: set[int] = set()
        self._closed = False

    @abstractmethod
    def category_of(self, snapshot: ObjectSnapshot) -> str | None:
        """The category of the object; None if it is not to be kept."""

    def write(self, tracked: TrackedFrame) -> None:
        if self._closed:
            raise OutputError(CLOSED)
        self._frames += 1
        for index, track in enumerate(tracked.track_ids.tolist()):
            if track and track not in self._done:
                self._update(track, tracked, index)
        for track in [t for t, waiting in self._waiting.items() if self._is_ready(waiting)]:
            self._keep(track)

    def close(self) -> list[Path]:
        if self._closed:
            return []
        self._closed = True
        for track in list(self._waiting) if self._keep_rest else ():
            self._keep(track)
        return [*self.written, self.folder.annotations] if self.written else []

    def _update(self, track: int, tracked: TrackedFrame, index: int) -> None:
        waiting = self._waiting.get(track)
        truncated = _is_truncated(tracked.detections, index)
        if waiting is None:
            self._waiting[track] = _Waiting(cut(tracked, index), 1, self._frames)
            return
        if waiting.snapshot.truncated and not truncated:
            waiting.snapshot = cut(tracked, index)
        classification = tracked.detections.classifications[index]
        waiting.snapshot = replace(waiting.snapshot, classification=classification)
        waiting.frames += 1
        waiting.last_frame = self._frames

    def _is_ready(self, waiting: _Waiting) -> bool:
        waited = max(waiting.frames, self._frames - waiting.last_frame)
        enough = waiting.frames >= self._min_frames and not waiting.snapshot.truncated
        return enough or waited > max(MAX_WAIT, self._min_frames)

    def _keep(self, track: int) -> None:
        self._done.add(track)
        snapshot = self._waiting.pop(track).snapshot
        category = self.category_of(snapshot)
        if category is not None:
            self.written.append(self.folder.add(snapshot, category))


class SnapshotSink(SnapshotFolderSink):
    """Writes an image of each of at most :data:`MAX_SNAPSHOTS` tracks into a folder.

    Args:
        output: the folder, see :class:`SnapshotFolder`.
        inputs: the files being read; nothing that is there is overwritten anyway.
    """

    def __init__(
        self, output: str | os.PathLike[str], *, inputs: Sequence[str | os.PathLike[str]] = ()
    ) -> None:
        super().__init__(Path(output), min_frames=MIN_FRAMES, keep_rest=True)

    def category_of(self, snapshot: ObjectSnapshot) -> str | None:
        room = len(self.written) < MAX_SNAPSHOTS
        return (snapshot.classification.label or UNKNOWN_CATEGORY) if room else None


@dataclass
class _Waiting:
    """A track that is not kept yet: its snapshot, and how often and when it was shown."""

    snapshot: ObjectSnapshot
    frames: int
    last_frame: int


def cut(tracked: TrackedFrame, index: int) -> ObjectSnapshot:
    """One object of a frame with its context."""
    found, frame = tracked.detections, tracked.frame
    x0, y0, x1, y1 = found.boxes_xyxy[index].tolist()
    height, width = frame.size_hw
    half = max(CONTEXT * max(x1 - x0, y1 - y0), MIN_SIDE_PX) / 2
    left, top = max(0, int((x0 + x1) / 2 - half)), max(0, int((y0 + y1) / 2 - half))
    right = min(width, int((x0 + x1) / 2 + half) + 1)
    bottom = min(height, int((y0 + y1) / 2 + half) + 1)
    # a copy: a view of the array would keep the whole frame
    part = replace(frame, image_rgb=np.array(frame.image_rgb[top:bottom, left:right]))
    masks = Masks.from_crops(
        size_hw=part.size_hw,
        boxes_xyxy=np.array([[x0 - left, y0 - top, x1 - left, y1 - top]]),
        crops=[found.masks.crop(index)],
    )
    track, classification = int(tracked.track_ids[index]), found.classifications[index]
    return ObjectSnapshot(track, part, masks, classification, _is_truncated(found, index))


def _is_truncated(found: Detections, index: int) -> bool:
    x0, y0, x1, y1 = found.boxes_xyxy[index].tolist()
    height, width = found.size_hw
    return bool(x0 <= 0 or y0 <= 0 or x1 >= width or y1 >= height)


def _read(path: Path) -> dict[str, Any]:
    """The annotations in a folder; raises ``OutputError`` for a file of another kind."""
    parts = ("images", "annotations", "categories")
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if not all(isinstance(each["id"], int) for part in parts for each in data[part]):
            raise TypeError
        # an entry may have been removed by hand from one of the lists only
        images, categories = ({each["id"] for each in data[part]} for part in parts[::2])
        data["annotations"] = [
            each
            for each in data["annotations"]
            if each["image_id"] in images and each["category_id"] in categories
        ]
        return dict(data)
    except FileNotFoundError:
        return {part: [] for part in parts}
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise OutputError(
            f"'{path}' is there, but cannot be read as annotations of snapshots; "
            "choose another folder"
        ) from error
