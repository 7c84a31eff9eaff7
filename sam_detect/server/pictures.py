"""The pictures that an annotation session has open: their proposals, and their pixels as tiles."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from sam_detect.api import SAMDetect
from sam_detect.errors import ImageError, NotFoundError
from sam_detect.models.sharing import file_key
from sam_detect.server.client_texts import called, without_folders
from sam_detect.types import Candidates, Detections, Frame, ImageRGB, Masks
from sam_detect.types.overlaps import meeting_boxes, shared_pixels

OPEN_PICTURES = 4
"""How many of the last pictures keep their proposals."""
TILE_SIDE = 512
NEIGHBOURS = 3
CLOSE_PX = 0.35
"""Outlines are shown this close to the true ones."""
SAME_IOU = 0.5
"""A proposal that overlaps a drawn or a deleted outline by this IoU is that object."""
PART_SHARE = 0.8
"""A proposal of which this share lies within a drawn outline is a part of that object."""


@dataclass(frozen=True)
class ShownObject:
    """An object of a picture as the page shows it.

    Attributes:
        id: of this outline in this picture; the same as long as the outline is.
        label: its name; None for unknown.
        best_label: the nearest one.
        confidence: 0 to 1.
        taught: whether a user named this outline.
        drawn: whether a user drew this outline.
        bbox_xywh: in pixels.
        rings: the outlines of its parts with their holes, ``[[x, y], ...]`` in pixels.
        neighbours: the examples that decided, nearest first.
    """

    id: str
    label: str | None
    best_label: str | None
    confidence: float
    taught: bool
    drawn: bool
    bbox_xywh: list[int]
    rings: list[list[list[float]]]
    neighbours: list[dict[str, Any]]


@dataclass
class OpenPicture:
    """A picture with its proposals.

    Attributes:
        candidates: the proposals with their vectors.
        generation: of the library when they were made.
        digest: of the picture's pixels.
        file: what changes when the file does.
        masks: outlines by id, those that were shown and those that were drawn.
        rings: of outlines, by id.
        known: what was detected and drawn last, after what it holds for.
        naming: held while that is made, so that of two threads that need it only one makes it.
    """

    candidates: Candidates
    generation: str
    digest: str
    file: object
    masks: dict[str, Masks] = field(default_factory=dict)
    rings: dict[str, list[list[list[float]]]] = field(default_factory=dict)
    known: tuple[object, Detections, Masks] | None = None
    naming: threading.Lock = field(default_factory=threading.Lock)
    _reduced: dict[int, ImageRGB] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def image_rgb(self) -> ImageRGB:
        return self.candidates.frame.image_rgb

    @property
    def levels(self) -> int:
        """How often the picture is halved until it fits one tile; 0 where it does."""
        side = max(self.image_rgb.shape[:2])
        return max(0, int(np.ceil(np.log2(max(side, 1) / TILE_SIDE))))

    def tile(self, reduced: int, column: int, row: int) -> ImageRGB:
        """``(h, w, 3)`` uint8: a tile of the picture, halved ``reduced`` times.

        Raises:
            NotFoundError: there is no such tile.
        """
        top, left = row * TILE_SIDE, column * TILE_SIDE
        if 0 <= reduced <= self.levels and min(top, left) >= 0:
            tile = self._halved(reduced)[top : top + TILE_SIDE, left : left + TILE_SIDE]
            if tile.size:
                return tile
        raise NotFoundError("there is no such tile")

    def _halved(self, times: int) -> ImageRGB:
        if not times:
            return self.image_rgb
        with self._lock:
            if times not in self._reduced:
                height, width = self.image_rgb.shape[:2]
                size_xy = [max(1, -(-side // 2**times)) for side in (width, height)]
                self._reduced[times] = np.asarray(
                    cv2.resize(self.image_rgb, size_xy, interpolation=cv2.INTER_AREA), np.uint8
                )
            return self._reduced[times]

    def shown(self, found: Detections, drawn: set[str]) -> list[ShownObject]:
        """Detections as the page shows them; their masks are kept by their ids."""
        return [self._shown(found, index, drawn) for index in range(len(found))]

    def outline_rings(self, object_id: str, masks: Masks, index: int) -> list[list[list[float]]]:
        """The rings of a mask, as they are shown; made once for each id."""
        if object_id not in self.rings:
            polygons = masks.polygons_with_holes(index, tolerance_px=CLOSE_PX)
            self.rings[object_id] = [
                np.round(ring, 2).tolist() for polygon in polygons for ring in polygon
            ]
        return self.rings[object_id]

    def _shown(self, found: Detections, index: int, drawn: set[str]) -> ShownObject:
        each, masks = found.classifications[index], found.masks
        object_id = id_of(masks, index)
        self.masks.setdefault(object_id, masks[[index]])
        neighbours = [
            {"id": near.id, "label": near.label, "similarity": round(near.similarity, 4),
             "negative": near.negative}
            for near in each.neighbours[:NEIGHBOURS]
        ]  # fmt: skip
        return ShownObject(
            id=object_id,
            label=each.label,
            best_label=each.best_label,
            confidence=round(float(each.confidence), 4),
            taught=each.taught,
            drawn=object_id in drawn,
            bbox_xywh=masks.boxes_xywh[index].tolist(),
            rings=self.outline_rings(object_id, masks, index),
            neighbours=neighbours,
        )


class OpenPictures:
    """The last pictures that were opened. Safe for several threads: two that want one picture
    wait for the one that opens it.

    Args:
        detector: proposes.
        path: of a picture, by its number; raises ``NotFoundError`` where there is none.
    """

    def __init__(self, detector: SAMDetect, path: Callable[[int], str]) -> None:
        self._detector, self._path = detector, path
        self._open: OrderedDict[int, OpenPicture] = OrderedDict()
        # The order of locks: docs/architecture.md, "Which lock before which".
        self._lock = threading.Lock()
        self._opening: dict[int, threading.Lock] = {}

    def get(self, picture: int) -> OpenPicture:
        """A picture with its proposals, opened now if it is not, or if its file changed.

        Raises:
            NotFoundError: there is no such picture.
            ImageError: it cannot be read.
        """
        path = self._path(picture)
        file = _file(path)
        with self._lock:
            opening = self._opening.setdefault(picture, threading.Lock())
        with opening:
            with self._lock:
                found = self._open.get(picture)
                if found is not None and found.file == file:
                    self._open.move_to_end(picture)
                    return found
            return self._keep(picture, self._propose(path, file))

    def read(self, picture: int) -> OpenPicture:
        """A picture with its proposals, which is not kept open; raises as :meth:`get`."""
        if self.is_open(picture):
            return self.get(picture)
        path = self._path(picture)
        return self._propose(path, _file(path))

    def frame(self, picture: int) -> Frame:
        """The pixels of a picture; raises as :meth:`get`. Proposes nothing, and does not wait for
        a thread that opens the picture: that one may wait for the store, which the caller holds."""
        opened = self._found(picture)
        return self._read(self._path(picture)) if opened is None else opened.candidates.frame

    def refresh(self, picture: int) -> OpenPicture:
        """A picture that is open, with proposals by the library as it is now; raises as
        :meth:`get`."""
        return self._keep(picture, self.proposed_again(picture))

    def put(self, picture: int, made: OpenPicture) -> None:
        """Puts what :meth:`proposed_again` made in the place of an open picture, unless that is of
        another file meanwhile, or no longer open."""
        with self._lock:
            opened = self._open.get(picture)
            if opened is not None and opened.file == made.file:
                self._open[picture] = made

    def proposed_again(self, picture: int) -> OpenPicture:
        """A picture with proposals by the library as it is now, which does not yet take the place
        of the one that is open; raises as :meth:`get`."""
        opened = self.get(picture)
        pipeline = self._detector.pipeline
        snapshot = pipeline.snapshot()
        if opened.generation == snapshot.generation:
            return opened
        candidates = pipeline.propose(opened.candidates.frame, snapshot, warn=False)
        return replace(
            opened, candidates=candidates, generation=snapshot.generation, known=None,
            naming=threading.Lock(),
        )  # fmt: skip

    def is_open(self, picture: int) -> bool:
        """Whether a picture is open, and its file is as it was."""
        return self._found(picture) is not None

    def is_open_before(self, picture: int, generation: str) -> bool:
        """Whether a picture is open with proposals of another generation of the library."""
        with self._lock:
            found = self._open.get(picture)
        return found is not None and found.generation != generation

    def _found(self, picture: int) -> OpenPicture | None:
        """A picture that is open, and whose file is as it was."""
        with self._lock:
            found = self._open.get(picture)
        with suppress(ImageError):
            if found is not None and found.file == _file(self._path(picture)):
                return found
        return None

    def _propose(self, path: str, file: object) -> OpenPicture:
        pipeline = self._detector.pipeline
        frame, snapshot = self._read(path), pipeline.snapshot()
        candidates = pipeline.propose(frame, snapshot, warn=False)
        digest = frame.digest
        return OpenPicture(candidates, snapshot.generation, digest, file)

    def _read(self, path: str) -> Frame:
        with called(path, without_folders(path)):
            return self._detector.read(path)

    def _keep(self, picture: int, opened: OpenPicture) -> OpenPicture:
        with self._lock:
            self._open[picture] = opened
            self._open.move_to_end(picture)
            while len(self._open) > OPEN_PICTURES:
                self._open.popitem(last=False)
        return opened


def id_of(masks: Masks, index: int) -> str:
    """The id of an outline in its picture."""
    box = repr(masks.boxes_xyxy[index].tolist()).encode()
    return hashlib.blake2b(box + masks.crop_rles[index], digest_size=9).hexdigest()


def without_same(candidates: Candidates, drawn: Masks, hidden: Masks) -> Candidates:
    """The candidates without those that are drawn or deleted outlines themselves."""
    if not len(drawn) + len(hidden):
        return candidates
    others = Masks.concatenate([drawn, hidden])
    both = Masks.concatenate([others, candidates.masks])
    pairs = meeting_boxes(both.boxes_xyxy)
    pairs = pairs[(pairs[:, 0] < len(others)) & (pairs[:, 1] >= len(others))]
    shared = shared_pixels(both.crop, both.boxes_xyxy, pairs)
    first, second = both.areas[pairs].T
    same = shared > SAME_IOU * (first + second - shared)
    same |= (pairs[:, 0] < len(drawn)) & (shared > PART_SHARE * second)
    kept = np.ones(len(candidates.masks), np.bool_)
    kept[pairs[same, 1] - len(others)] = False
    return candidates.where(kept)


def _file(path: str) -> object:
    try:
        return file_key(Path(path))
    except OSError as error:
        name = without_folders(path)
        raise ImageError(f"{name} is no longer there: choose another picture") from error
