"""What is known of all pictures of a folder: which one to annotate next, and which unknown objects
are alike.

A picture is surveyed once, in the background, and again when it was shown. Of its objects the
vectors are kept as float16, so a thousand pictures take about as much memory as one of them open.
"""

from __future__ import annotations

import io
import threading
from collections.abc import Sequence, Set
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from sam_detect.errors import NotFoundError
from sam_detect.server.pictures import OpenPicture, id_of
from sam_detect.types import Detections, ImageRGB, Masks
from sam_detect.types.masks import BoolArray, FloatArray

Policy = Literal["folder", "uncertain", "diverse"]
POLICIES: tuple[Policy, ...] = get_args(Policy)
OBJECTS_KEPT = 100
"""How many objects of a picture are grouped: the best ones."""
GROUPED = 3000
"""How many objects of all pictures are grouped at once."""
ALIKE = 0.175
"""Unknown objects are grouped while the mean cosine distance between two groups is below this.
Above .25 nuts of three kinds are one group; blood cells, which had no part in it, want less.
"""
LEAST_IN_GROUP = 2
THUMBNAIL_SIDE, AROUND = 96, 0.15
"""Pixels of a thumbnail's longer side; and how much is shown around the object, as a share of its
longer side."""
SURROUNDINGS, PAPER = 90, (235, 235, 235)
"""What is around an object in its thumbnail is so opaque (of 255), on this grey."""
NEAR_DUPLICATE = 0.02
"""Pictures whose mean vectors are closer are about the same picture (cosine distance)."""


@dataclass(frozen=True)
class Surveyed:
    """What the survey keeps of a picture.

    Attributes:
        generation: of the library that named its objects.
        digest: of the picture's pixels.
        ids: of N objects, the best ones.
        masks: their outlines.
        thumbnails: of each, WebP.
        labels: of each; None for unknown.
        confidences: ``(N,)`` of the nearest label, 0 to 1.
        taught: ``(N,)`` bool, whether a user named it.
        vectors: ``(N, D)`` float16 unit vectors; zeros where an object was not compared.
        mean: ``(D,)`` float32, the picture's own direction.
    """

    generation: str
    digest: str
    ids: tuple[str, ...]
    masks: Masks
    thumbnails: tuple[bytes, ...]
    labels: tuple[str | None, ...]
    confidences: FloatArray
    taught: npt.NDArray[np.bool_]
    vectors: npt.NDArray[np.float16]
    mean: FloatArray

    @classmethod
    def of(cls, opened: OpenPicture, found: Detections) -> Surveyed:
        """What is kept of the detections in a picture."""
        candidates = opened.candidates
        rows = {
            id_of(candidates.masks, index): row
            for row, index in enumerate(candidates.described.tolist())
        }
        kept = min(len(found), OBJECTS_KEPT)
        ids = tuple(id_of(found.masks, index) for index in range(kept))
        dimension = candidates.vectors.shape[1] if candidates.vectors.ndim > 1 else 0
        vectors = np.zeros((kept, dimension), np.float16)
        for index, each in enumerate(ids):
            if each in rows:
                vectors[index] = candidates.vectors[rows[each]]
        mean = vectors.astype(np.float32).sum(axis=0)
        shown = found.classifications[:kept]
        return cls(
            generation=opened.generation,
            digest=opened.digest,
            ids=ids,
            masks=found.masks[:kept],
            thumbnails=tuple(
                _thumbnail(opened.image_rgb, box, found.masks.crop(index))
                for index, box in enumerate(found.masks.boxes_xyxy[:kept].tolist())
            ),
            labels=tuple(each.label for each in shown),
            confidences=np.array([each.confidence for each in shown], np.float32),
            taught=np.array([each.taught for each in shown], np.bool_),
            vectors=vectors,
            mean=mean / max(float(np.linalg.norm(mean)), 1e-9),
        )

    def outline(self, object_id: str) -> Masks:
        """The outline of an object, one mask; raises ``NotFoundError`` where it has none."""
        return self.masks[[self._row(object_id)]]

    def thumbnail(self, object_id: str) -> bytes:
        """A picture of an object, WebP; raises as :meth:`outline`."""
        return self.thumbnails[self._row(object_id)]

    def _row(self, object_id: str) -> int:
        if object_id not in self.ids:
            raise NotFoundError("this object is no longer there; load the groups again")
        return self.ids.index(object_id)

    @property
    def uncertainty(self) -> float:
        """How unsure the labels are on average, 0 to 1: highest where a confidence is one half.
        What a user named is sure; a picture without objects is 0."""
        if not self.ids:
            return 0.0
        return float(unsure(self.confidences, self.taught).mean())


def unsure(confidences: FloatArray, taught: BoolArray) -> FloatArray:
    """``(N,)`` in 0..1 of N objects: 1 for a confidence of one half, 0 for what was taught."""
    return np.where(taught, 0, 1 - np.abs(2 * confidences - 1))


@dataclass(frozen=True)
class Group:
    """Unknown objects that are alike.

    Attributes:
        label: the name that most of them are nearest to, where they have one; else None.
        members: picture and id of each, those in the middle of the group first.
    """

    label: str | None
    members: tuple[tuple[int, str], ...]


class Survey:
    """The pictures that were surveyed. Safe for several threads."""

    def __init__(self) -> None:
        self._pictures: dict[int, Surveyed] = {}
        self._outdated: set[int] = set()
        self._lock = threading.Lock()
        self.version = 0
        """Rises with each picture that is put in."""

    def put(self, picture: int, surveyed: Surveyed) -> None:
        with self._lock:
            self._pictures[picture] = surveyed
            self._outdated.discard(picture)
            self.version += 1

    def last(self, picture: int) -> Surveyed | None:
        """What was found last in a picture, also where it is to be surveyed again: a page may
        still show that."""
        with self._lock:
            return self._pictures.get(picture)

    def require(self, picture: int) -> Surveyed:
        """As :meth:`last`; raises ``NotFoundError`` where the picture was never surveyed."""
        found = self.last(picture)
        if found is None:
            raise NotFoundError("this picture changed; load the groups again")
        return found

    def forget(self, picture: int) -> None:
        """Has a picture surveyed again."""
        with self._lock:
            self._outdated.add(picture)
            self.version += 1

    def all(self) -> dict[int, Surveyed]:
        """The pictures of which nothing changed since."""
        with self._lock:
            return {
                number: each
                for number, each in self._pictures.items()
                if number not in self._outdated
            }

    def order(self, policy: Policy, pictures: Sequence[int], done: Set[int]) -> list[int]:
        """The pictures in the order in which to annotate them; those that are done come last.

        Args:
            policy: ``folder``: as they are given. ``uncertain``: those of which the labels are
                least sure first. ``diverse``: each as different as possible from all before it,
                and from those that are done (farthest-first, Gonzalez 1985).
            pictures: their numbers, as on disk.
            done: those that are finished.
        """
        surveyed = self.all()
        open_ = [each for each in pictures if each not in done]
        last = [each for each in pictures if each in done]
        seen = [each for each in open_ if each in surveyed]
        unseen = [each for each in open_ if each not in surveyed]
        before = [each for each in last if each in surveyed]
        if policy == "uncertain":
            by = {each: -surveyed[each].uncertainty for each in seen}
            seen = _apart(sorted(seen, key=lambda each: (by[each], each)), surveyed)
        elif policy == "diverse":
            seen = _farthest_first(seen, before, surveyed)
        else:
            return open_ + last
        return seen + unseen + last

    def groups(self, skip: Set[int] = frozenset()) -> list[Group]:
        """Objects without a sure name, grouped by how alike they are, the unknown ones before those
        of a name. Large groups of clear outlines come first, scraps of background last.

        Average linkage on cosine distances (Sokal and Michener 1958).

        Args:
            skip: pictures whose objects are left out.
        """
        members: list[tuple[int, str, str | None]] = []
        vectors: list[npt.NDArray[np.float16]] = []
        clear: list[float] = []
        for picture, each in self.all().items():
            if picture in skip:
                continue
            for row, (key, label) in enumerate(zip(each.ids, each.labels, strict=True)):
                if not each.taught[row] and each.vectors[row].any():
                    members.append((picture, key, label))
                    vectors.append(each.vectors[row])
                    clear.append(float(each.masks.predicted_ious[row]))
        chosen = range(min(len(members), GROUPED))
        stacked = np.array([vectors[i] for i in chosen], np.float32)
        found: list[tuple[float, Group]] = []
        for label in sorted({members[i][2] or "" for i in chosen}):
            rows = [i for i in chosen if (members[i][2] or "") == label]
            parts = [rows] if label else [[rows[i] for i in part] for part in _alike(stacked[rows])]
            for part in parts:
                if len(part) >= LEAST_IN_GROUP or label:
                    ordered = [part[i] for i in _middle_first(stacked[part])]
                    group = Group(label or None, tuple(members[i][:2] for i in ordered))
                    quality = float(np.median([clear[i] for i in part]))
                    found.append((len(part) * quality**2, group))
        found.sort(key=lambda each: (each[1].label is not None, -each[0]))
        return [group for _, group in found]


def _thumbnail(image_rgb: ImageRGB, box_xyxy: Sequence[int], mask: npt.NDArray[np.bool_]) -> bytes:
    """An object with a little of what is around it, which is faded."""
    x0, y0, x1, y1 = box_xyxy
    margin = max(2, round(AROUND * max(x1 - x0, y1 - y0)))
    top, left = max(0, y0 - margin), max(0, x0 - margin)
    small = Image.fromarray(np.ascontiguousarray(image_rgb[top : y1 + margin, left : x1 + margin]))
    object_only = Image.new("L", small.size, SURROUNDINGS)
    object_only.paste(255, (x0 - left, y0 - top), Image.fromarray(mask))
    small.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
    small.paste(PAPER, (0, 0), ImageOps.invert(object_only.resize(small.size)))
    data = io.BytesIO()
    small.save(data, "WEBP", quality=70, method=0)
    return data.getvalue()


def _alike(vectors: FloatArray) -> list[list[int]]:
    """Indices of vectors in groups."""
    if len(vectors) < LEAST_IN_GROUP:
        return [[i] for i in range(len(vectors))]
    from scipy.cluster.hierarchy import fcluster, linkage

    tree = linkage(vectors, method="average", metric="cosine")
    numbers = fcluster(tree, t=ALIKE, criterion="distance")
    parts: dict[int, list[int]] = {}
    for index, number in enumerate(numbers.tolist()):
        parts.setdefault(number, []).append(index)
    return list(parts.values())


def _middle_first(vectors: FloatArray) -> list[int]:
    middle = vectors.mean(axis=0)
    return [int(i) for i in np.argsort(-(vectors @ middle), kind="stable")]


def _apart(ordered: Sequence[int], surveyed: dict[int, Surveyed]) -> list[int]:
    """The same order, in which near duplicates of a picture come after all others."""
    first: list[int] = []
    later: list[int] = []
    for each in ordered:
        mean = surveyed[each].mean
        duplicate = any(
            mean.size == surveyed[other].mean.size
            and mean @ surveyed[other].mean > 1 - NEAR_DUPLICATE
            for other in first
        )
        (later if duplicate else first).append(each)
    return first + later


def _farthest_first(
    pictures: Sequence[int], before: Sequence[int], surveyed: dict[int, Surveyed]
) -> list[int]:
    if not pictures:
        return []
    means = np.array([surveyed[each].mean for each in pictures], np.float32)
    given = np.array([surveyed[each].mean for each in before], np.float32)
    nearest = (means @ given.T).max(axis=1) if len(given) else means @ means.mean(axis=0) * -1
    ordered: list[int] = []
    left = np.ones(len(pictures), np.bool_)
    while left.any():
        index = int(np.where(left, nearest, np.inf).argmin())
        if not ordered and not len(given):
            nearest = np.full(len(pictures), -np.inf, np.float32)
        ordered.append(pictures[index])
        left[index] = False
        nearest = np.maximum(nearest, means @ means[index])
    return ordered
