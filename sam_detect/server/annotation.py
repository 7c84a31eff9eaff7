"""Annotating the pictures of a folder: what a page shows, and what its users decide.

Nothing here knows HTTP. Everything that a user decides is in the library when a method returns;
what is kept here is only made again more slowly.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sam_detect.api import SAMDetect
from sam_detect.errors import NotFoundError
from sam_detect.types import Candidates, Detections, ImageRGB, Masks

OPEN_PICTURES = 4
"""So many of the last pictures keep their proposals."""
NEIGHBOURS = 3


@dataclass(frozen=True)
class ShownObject:
    """An object of a picture as the page shows it.

    Attributes:
        id: of this outline in this picture; the same as long as the outline is.
        label: its name; None for unknown.
        best_label: the nearest one.
        confidence: 0 to 1.
        taught: whether a user named this outline.
        bbox_xywh: in pixels.
        rings: the outlines of its parts with their holes, ``[[x, y], ...]`` in pixels.
        neighbours: the examples that decided, nearest first.
    """

    id: str
    label: str | None
    best_label: str | None
    confidence: float
    taught: bool
    bbox_xywh: list[int]
    rings: list[list[list[float]]]
    neighbours: list[dict[str, Any]]


class _OpenPicture:
    """A picture with its proposals, and the masks of the objects that were shown last."""

    def __init__(self, candidates: Candidates) -> None:
        self.candidates = candidates
        self.shown: dict[str, Masks] = {}


class AnnotationSession:
    """The pictures of one folder and one library. Safe for several threads.

    Args:
        detector: proposes, names, and keeps what users decide.
        paths: of the pictures, in the order in which they are shown.

    Attributes:
        names: of the pictures, as users see them.
    """

    def __init__(self, detector: SAMDetect, paths: Sequence[str]) -> None:
        self._detector, self._paths = detector, list(paths)
        self.names = [Path(path).name for path in paths]
        self._open: OrderedDict[int, _OpenPicture] = OrderedDict()
        self._lock = threading.RLock()

    @property
    def detector(self) -> SAMDetect:
        return self._detector

    def path(self, picture: int) -> str:
        """Raises ``ImageError`` where there is no such picture."""
        if not 0 <= picture < len(self._paths):
            raise NotFoundError(f"there is no picture {picture}; there are {len(self._paths)}")
        return self._paths[picture]

    def size_hw(self, picture: int) -> tuple[int, int]:
        """Of a picture, in pixels; raises ``ImageError`` where it cannot be read."""
        return self._opened(picture).candidates.frame.size_hw

    def pixels(self, picture: int) -> ImageRGB:
        """Of a picture; raises as :meth:`size_hw`."""
        return self._opened(picture).candidates.frame.image_rgb

    def objects(self, picture: int) -> list[ShownObject]:
        """The objects of a picture, named by the library as it is now, best first.

        Raises:
            ImageError: there is no such picture, or it cannot be read.
        """
        with self._lock:
            opened = self._opened(picture)
            found = self._detector.label(opened.candidates)
            ids = [_id_of(found.masks, index) for index in range(len(found))]
            opened.shown |= {each: found.masks[[index]] for index, each in enumerate(ids)}
            return [_shown(found, index, each) for index, each in enumerate(ids)]

    def name(self, picture: int, ids: Sequence[str], label: str) -> list[ShownObject]:
        """Learns objects under a name; in the library when it returns.

        Returns:
            The picture's objects as they are named then.

        Raises:
            ImageError: there is no such picture.
            LibraryError: an empty name, or an object that was not shown.
        """
        return self._learn(picture, ids, label, negative=False)

    def reject(self, picture: int, ids: Sequence[str], label: str) -> list[ShownObject]:
        """Learns that objects are not what a name says; else as :meth:`name`."""
        return self._learn(picture, ids, label, negative=True)

    def undo(self) -> dict[str, int]:
        """Takes the last step of the library back: how many examples of each label it had.

        Raises:
            LibraryError: there is nothing to take back.
        """
        with self._lock:
            return dict(self._detector.library.undo().labels)

    def thumbnail(self, example_id: str) -> Any:
        """``(h, w, 3)`` uint8 RGB: the crop that the library keeps of an example. Raises
        ``LibraryError`` where there is no such example."""
        return self._detector.library.get(example_id).crop.image_rgb

    def _learn(
        self, picture: int, ids: Sequence[str], label: str, *, negative: bool
    ) -> list[ShownObject]:
        with self._lock:
            opened = self._opened(picture)
            unknown = [each for each in ids if each not in opened.shown]
            if not ids or unknown:
                raise NotFoundError(
                    f"no such object in this picture: {', '.join(unknown) or 'none was given'}; "
                    "load the picture again"
                )
            masks = Masks.concatenate([opened.shown[each] for each in ids])
            self._detector.pipeline.learn(
                opened.candidates.frame, masks, [label] * len(ids), negative=negative
            )
            return self.objects(picture)

    def _opened(self, picture: int) -> _OpenPicture:
        with self._lock:
            found = self._open.pop(picture, None)
            if found is None:
                found = _OpenPicture(self._detector.propose(self.path(picture)))
            self._open[picture] = found
            while len(self._open) > OPEN_PICTURES:
                self._open.popitem(last=False)
            return found


def _id_of(masks: Masks, index: int) -> str:
    box = repr(masks.boxes_xyxy[index].tolist()).encode()
    return hashlib.blake2b(box + masks.crop_rles[index], digest_size=9).hexdigest()


def _shown(found: Detections, index: int, object_id: str) -> ShownObject:
    each, masks = found.classifications[index], found.masks
    polygons = masks.polygons_with_holes(index)
    neighbours = [
        {"id": near.id, "label": near.label, "similarity": round(near.similarity, 4),
         "negative": near.negative}
        for near in each.neighbours[:NEIGHBOURS]
    ]  # fmt: skip
    return ShownObject(
        id=object_id,
        label=each.label,
        best_label=each.best_label,
        confidence=round(each.confidence, 4),
        taught=each.taught,
        bbox_xywh=masks.boxes_xywh[index].tolist(),
        rings=[ring.tolist() for polygon in polygons for ring in polygon],
        neighbours=neighbours,
    )
