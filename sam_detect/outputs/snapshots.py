"""Pictures of the objects that came into a video, outlined, for labelling later.

The folder is an annotated dataset in COCO's form, which ``sam-detect learn`` takes::

    sam-detect learn FOLDER --annotations FOLDER/annotations.json

A name that is wrong, or ``unknown``, is put right in the file's ``categories`` before that. The
folder ``outlined`` in it shows which object of each picture is meant.
"""

from __future__ import annotations

import json
import os
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sam_detect.errors import OutputError
from sam_detect.interfaces import VideoSink
from sam_detect.outputs._atomic import write_atomically, writing_to
from sam_detect.outputs._painting import paint_object
from sam_detect.outputs._palette import ColorRGB
from sam_detect.outputs._pictures import FOLDER_ENDING, stem_of, write_image
from sam_detect.outputs._text_sink import to_json
from sam_detect.outputs.coco import UNKNOWN_CATEGORY
from sam_detect.outputs.views import FirstViews, View
from sam_detect.types import ImageRGB, TrackedFrame

ANNOTATIONS = "annotations.json"
MOST = 1000
"""Pictures of one video."""
SETTLED = 3
"""Frames that an object must be seen in."""
LONGEST_NAME = 60
OUTLINED = "outlined"
COLOR: ColorRGB = (238, 51, 119)
LINE_PX = 2.0


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
        """The picture, the annotation and the category of each object."""
        names = {each["id"]: each["name"] for each in self._data["categories"]}
        files = {each["id"]: self.path / each["file_name"] for each in self._data["images"]}
        return [
            (files[a["image_id"]], a, names[a["category_id"]]) for a in self._data["annotations"]
        ]

    def add(self, view: View, category: str) -> Path:
        """Writes a picture named ``category-track-frame``, and its outline."""
        path = self._free_path(f"{_short(category)}-{view.track_id}-{view.frame.index}")
        write_image(path, view.frame.image_rgb)
        write_image(self.path / OUTLINED / f"{path.stem}.jpg", _outlined(view))
        image_id = 1 + max((each["id"] for each in self._data["images"]), default=0)
        height, width = view.frame.size_hw
        self._data["images"].append(
            {"id": image_id, "file_name": path.name, "width": width, "height": height,
             "video": view.frame.source_id, "frame": view.frame.index,
             "time_s": view.frame.time_s}
        )  # fmt: skip
        x0, y0, x1, y1 = view.masks.boxes_xyxy[0].tolist()
        self._data["annotations"].append(
            {"id": image_id, "image_id": image_id, "category_id": self._category(category),
             "segmentation": view.masks.rle(0), "bbox": [x0, y0, x1 - x0, y1 - y0],
             "area": int(view.masks.areas[0]), "iscrowd": 0, "track_id": view.track_id}
        )  # fmt: skip
        data = (to_json(self._data) + "\n").encode("ascii")
        write_atomically(self.annotations, lambda file: file.write(data))
        return path

    def _category(self, name: str) -> int:
        for each in self._data["categories"]:
            if each["name"] == name:
                return int(each["id"])
        number = 1 + max((each["id"] for each in self._data["categories"]), default=0)
        self._data["categories"].append({"id": number, "name": name})
        return number

    def _free_path(self, name: str) -> Path:
        safe = name.encode("utf-8", "replace").decode().replace("/", "_").replace("\\", "_")
        # The ending keeps a name such as "v1.5" from losing what follows its point.
        stem, number = stem_of(safe + FOLDER_ENDING), 1
        path = self.path / (stem + FOLDER_ENDING)
        with writing_to(path):
            while path.exists():
                number += 1
                path = self.path / f"{stem}-{number}{FOLDER_ENDING}"
        return path


class ViewSink(VideoSink):
    """Keeps a view of each new object in a folder, of those that :meth:`category_of` names.

    Args:
        folder: made if needed; what it holds already stays.
        settled: frames that an object must be seen in.
        rest: whether those count, too, that had not settled when the video ended.

    Raises:
        OutputError: here, in ``write`` and in ``close``, for what cannot be read or written.
    """

    def __init__(self, folder: Path, *, settled: int, rest: bool) -> None:
        self.folder = SnapshotFolder(folder)
        self.written: list[Path] = []
        self._views, self._rest = FirstViews(settled=settled), rest
        self._closed = False

    @abstractmethod
    def category_of(self, view: View) -> str | None:
        """What to call the object; None if it is not to be kept."""

    def write(self, tracked: TrackedFrame) -> None:
        if self._closed:
            raise OutputError("this output is closed already; make a new one")
        for view in self._views.add(tracked):
            self._keep(view)

    def close(self) -> list[Path]:
        if self._closed:
            return []
        self._closed = True
        for view in self._views.rest() if self._rest else ():
            self._keep(view)
        return [*self.written, self.folder.annotations] if self.written else []

    def _keep(self, view: View) -> None:
        category = self.category_of(view)
        if category is not None:
            self.written.append(self.folder.add(view, category))


class SnapshotSink(ViewSink):
    """Writes a picture of each new track into a folder, see :class:`SnapshotFolder`.

    The first view in which the object lies wholly in the picture is taken, or the first of all
    where there is none within a second; of at most ``MOST`` tracks.

    Args:
        output: the folder.
        inputs: the files being read; nothing that is there is overwritten anyway.
    """

    def __init__(
        self, output: str | os.PathLike[str], *, inputs: Sequence[str | os.PathLike[str]] = ()
    ) -> None:
        super().__init__(Path(output), settled=SETTLED, rest=True)

    def category_of(self, view: View) -> str | None:
        return (view.verdict.label or UNKNOWN_CATEGORY) if len(self.written) < MOST else None


def _short(name: str) -> str:
    """Its beginning: file names have 255 bytes at most."""
    kept = name.encode("utf-8", "replace")[: 2 * LONGEST_NAME]
    return kept.decode("utf-8", "ignore")[:LONGEST_NAME]


def _outlined(view: View) -> ImageRGB:
    """The view with its object outlined."""
    canvas = np.array(view.frame.image_rgb)
    x0, y0, x1, y1 = view.masks.boxes_xyxy[0].tolist()
    paint_object(canvas, view.masks.crop(0), (x0, y0, x1, y1), COLOR, line_px=LINE_PX)
    return canvas


def _read(path: Path) -> dict[str, Any]:
    """The annotations that a folder has; raises ``OutputError`` for a file of another kind."""
    parts = ("images", "annotations", "categories")
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if not all(isinstance(each["id"], int) for part in parts for each in data[part]):
            raise TypeError
        # Whoever put names in may have taken what is no object out of one list only.
        images, kinds = ({each["id"] for each in data[part]} for part in parts[::2])
        data["annotations"] = [
            each
            for each in data["annotations"]
            if each["image_id"] in images and each["category_id"] in kinds
        ]
        return dict(data)
    except FileNotFoundError:
        return {part: [] for part in parts}
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise OutputError(
            f"'{path}' is there, but cannot be read as annotations of snapshots; "
            "choose another folder"
        ) from error
