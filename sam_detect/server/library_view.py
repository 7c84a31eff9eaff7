"""The library as a page shows it and as its users change it.

Nothing here knows HTTP. What is kept here follows the library's generation and can be made again;
what users change is in the library, and can be undone, when a method returns.
"""

from __future__ import annotations

import base64
import io
import threading
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np
from PIL import Image

from sam_detect.api import SAMDetect
from sam_detect.errors import NotFoundError
from sam_detect.labelling.leave_one_out import LeftOut, leave_one_out
from sam_detect.library.changes import Changes, Undone
from sam_detect.library.example import Example, label_of
from sam_detect.library.journal import Change
from sam_detect.server.client_texts import without_folders
from sam_detect.server.library_files import FORMATS, LibraryTransfer
from sam_detect.types import ImageRGB
from sam_detect.types.labels import shown_label
from sam_detect.types.masks import FloatArray

MOST_EXAMPLES = 100
"""Of one request."""
MOST_MAP_POINTS = 5000
Order = Literal["doubt", "newest"]
THUMBNAIL_SIDE = 128
MARGIN = 0.3
"""What a thumbnail shows around an object, as a share of the object's longer side."""
AROUND = 0.55
"""The brightness of what is not the object."""


@dataclass(frozen=True)
class ShownExample:
    """An example as the page shows it.

    Attributes:
        others: what the other examples say of it; None where they were not asked (in libraries of
            more than 5,000 examples only a sample is).
        thumbnail: a WebP picture as ``data:`` URL: the object, its surroundings darker.
    """

    id: str
    label: str
    negative: bool
    source: str
    added: str
    bbox_xywh: list[int]
    others: LeftOut | None
    thumbnail: str


@dataclass(frozen=True)
class ExamplePage:
    """Some examples of a label.

    Attributes:
        total: how many there are, of which ``examples`` begin at ``offset``.
    """

    generation: str
    label: str
    negative: bool
    offset: int
    total: int
    examples: list[ShownExample]


@dataclass(frozen=True)
class VectorMap:
    """The vectors in two dimensions, parallel lists of at most 5,000.

    Attributes:
        x, y: the first two principal components, -1 to 1, in one scale.
        total: examples in the library.
    """

    generation: str
    ids: list[str]
    labels: list[str]
    negatives: list[bool]
    x: list[float]
    y: list[float]
    total: int


@dataclass
class _KnownExamples:
    """What is known of one generation."""

    generation: str
    rows: dict[str, dict[str, Any]] = field(default_factory=dict)
    groups: dict[tuple[str, bool], list[str]] = field(default_factory=dict)
    others: dict[str, LeftOut] | None = None
    map: VectorMap | None = None


class LibraryView:
    """One library. Safe for several threads; other processes may use the library, too.

    Args:
        detector: whose library this is; its labeller says what examples confirm each other.

    Attributes:
        files: exports and uploads of the library.
    """

    def __init__(self, detector: SAMDetect) -> None:
        self._detector = detector
        self._changes = Changes(detector.library, lambda: detector.pipeline.features)
        self._last = _KnownExamples("")
        # The order of locks: docs/architecture.md, "Which lock before which".
        self._lock = threading.RLock()
        self.files = LibraryTransfer(detector.library)

    # -- reading -------------------------------------------------------------------------------

    def overview(self) -> dict[str, Any]:
        """``name``, ``generation``, ``examples``, ``formats``, ``undo`` (the newest change, or
        None), and ``labels``: each ``label`` with how many examples say that something is one
        (``positives``), and how many that it is not (``negatives``)."""
        contents = self._contents()
        names = sorted({label for label, _ in contents.groups}, key=lambda n: (n.casefold(), n))
        sizes = {key: len(ids) for key, ids in contents.groups.items()}
        labels = [
            {"label": name, "positives": sizes.get((name, False), 0),
             "negatives": sizes.get((name, True), 0)}
            for name in names
        ]  # fmt: skip
        newest = next(iter(self._changes.log()), None)
        return {
            "name": self._detector.library.name,
            "generation": contents.generation,
            "examples": len(contents.rows),
            "labels": labels,
            "formats": list(FORMATS),
            "undo": None if newest is None else change_to_dict(newest),
        }

    def examples(
        self,
        label: str,
        *,
        negative: bool = False,
        order: Order = "doubt",
        offset: int = 0,
        limit: int = MOST_EXAMPLES,
    ) -> ExamplePage:
        """Some examples of a label.

        Args:
            negative: those that are not the label.
            order: the doubtful ones first, or the newest.
            limit: at most :data:`MOST_EXAMPLES`.

        Raises:
            NotFoundError: no such label.
            LibraryCorruptError: one of them is damaged.
        """
        contents, label = self._contents(), shown_label(label)
        ids, others = self._ordered(contents, label, negative, order)
        offset, limit = max(0, offset), max(1, min(limit, MOST_EXAMPLES))
        page = ids[offset : offset + limit]
        whole = {each.id: each for each in self._detector.library.read(page)} if page else {}
        shown = [_shown(whole[key], others.get(key)) for key in page if key in whole]
        return ExamplePage(contents.generation, label, negative, offset, len(ids), shown)

    def page_of(self, example_id: str, *, order: Order = "doubt") -> ExamplePage:
        """The page of :meth:`examples` that has an example; raises ``NotFoundError``."""
        contents = self._contents()
        row = contents.rows.get(example_id)
        if row is None:
            raise NotFoundError("this example is not in the library (any more)")
        label, negative = row["label"], row["negative"]
        place = self._ordered(contents, label, negative, order)[0].index(example_id)
        offset = place - place % MOST_EXAMPLES
        return self.examples(label, negative=negative, order=order, offset=offset)

    def map(self) -> VectorMap:
        """The vectors of all examples (of a very large library, of a sample) in two dimensions."""
        contents = self._contents()
        with self._lock:
            if contents.map is None:
                arrays = self._detector.snapshot().examples()
                count = min(len(arrays.ids), MOST_MAP_POINTS)
                places = principal_components(arrays.vectors[:count])
                contents.map = VectorMap(
                    contents.generation,
                    list(arrays.ids[:count]),
                    list(arrays.labels[:count]),
                    arrays.negatives[:count].tolist(),
                    np.round(places[:, 0], 4).tolist(),
                    np.round(places[:, 1], 4).tolist(),
                    len(contents.rows),
                )
            return contents.map

    def log(self) -> list[dict[str, Any]]:
        """Changes that can be undone and learning batches, newest first: ``type`` is "change" or
        "batch", the rest as :func:`change_to_dict` and ``LearningBatch.to_dict`` have it."""
        entries = [{"type": "change", **change_to_dict(each)} for each in self._changes.log()]
        if self._contents().rows:
            batches = self._detector.library.log()
            for each in batches:
                sources = [without_folders(source) for source in each.sources]
                entries.append({"type": "batch", **each.to_dict(), "sources": sources})
        return sorted(entries, key=lambda e: (e["time"] or "", e["type"]), reverse=True)

    # -- changing ------------------------------------------------------------------------------

    def rename(self, label: str, new: str) -> Change:
        """As :meth:`Changes.rename`; a label that is there already is not merged."""
        return self._changes.rename([label], new)

    def merge(self, labels: Sequence[str], into: str) -> Change:
        """Gives all examples of some labels one label; raises as :meth:`Changes.rename`."""
        return self._changes.rename(labels, into, merge=True)

    def move(self, ids: Sequence[str], label: str, *, shown: str | None = None) -> Change:
        """As :meth:`Changes.move`."""
        return self._changes.move(ids, label, shown=shown)

    def remove(self, ids: Sequence[str], *, shown: str | None = None) -> Change:
        """As :meth:`Changes.remove`."""
        return self._changes.remove(ids, shown=shown)

    def remove_label(self, label: str) -> Change:
        """As :meth:`Changes.remove_label`."""
        return self._changes.remove_label(label)

    def undo(self, change: str | None = None) -> Undone:
        """As :meth:`Changes.undo`."""
        return self._changes.undo(change)

    def undo_batch(self, batch: str) -> Change:
        """As :meth:`Changes.undo_batch`."""
        return self._changes.undo_batch(batch)

    # -- inside --------------------------------------------------------------------------------

    def _contents(self) -> _KnownExamples:
        library = self._detector.library
        with self._lock:
            generation = library.generation
            if self._last.generation != generation or not generation:
                contents = _KnownExamples(generation)
                if generation:
                    with library.store.session():
                        contents.generation = library.generation
                        points = list(library.listing())
                    for point in points:
                        label, negative = label_of(point)
                        contents.rows[point.id] = {
                            "label": label, "negative": negative, "added": point.payload["added"]
                        }  # fmt: skip
                        contents.groups.setdefault((label, negative), []).append(point.id)
                self._last = contents
            return self._last

    def _ordered(
        self, contents: _KnownExamples, label: str, negative: bool, order: Order
    ) -> tuple[list[str], dict[str, LeftOut]]:
        """The ids of a label's examples in this order, and what the others say, where known."""
        found = contents.groups.get((label, negative), [])
        if not found and (label, not negative) not in contents.groups:
            raise NotFoundError(f"there is no label '{label}' (any more)")
        others, ids = contents.others or {}, sorted(found)
        if order == "doubt":
            others = self._others(contents)
            ids.sort(key=lambda key: -others[key].doubt if key in others else 1.0)
        else:
            ids.sort(key=lambda key: str(contents.rows[key]["added"]), reverse=True)
        return ids, others

    def _others(self, contents: _KnownExamples) -> dict[str, LeftOut]:
        with self._lock:
            if contents.others is None:
                snapshot = self._detector.snapshot()
                found = leave_one_out(self._detector.labeller, snapshot)
                contents.others = dict(zip(snapshot.examples().ids, found, strict=True))
            return contents.others


def change_to_dict(change: Change) -> dict[str, Any]:
    """``id``, ``time``, ``action``, ``labels``, ``target``, ``examples`` and ``dropped``."""
    return {**asdict(change), "time": change.time}


def _shown(example: Example, others: LeftOut | None) -> ShownExample:
    data = io.BytesIO()
    Image.fromarray(thumbnail(example)).save(data, "WEBP", quality=80, method=0)
    text = base64.b64encode(data.getvalue()).decode("ascii")
    return ShownExample(
        id=example.id,
        label=shown_label(example.label),
        negative=example.negative,
        source=without_folders(example.source),
        added=example.added,
        bbox_xywh=list(example.bbox),
        others=others,
        thumbnail=f"data:image/webp;base64,{text}",
    )


def principal_components(vectors: FloatArray) -> FloatArray:
    """``(N, 2)`` float32: the first two principal components of ``(N, D)`` vectors, in -1 to 1.

    The component of largest magnitude of each axis is positive, so that the same vectors always
    give the same map.
    """
    count = len(vectors)
    if count == 0:
        return np.zeros((0, 2), np.float32)
    centred = np.asarray(vectors, np.float64) - np.asarray(vectors, np.float64).mean(axis=0)
    # The covariance has the same axes, and is smaller where there are many examples.
    table = centred.T @ centred if count > centred.shape[1] else centred
    axes = np.linalg.svd(table, full_matrices=False)[2][:2]
    signs = [np.sign(axis[np.argmax(np.abs(axis))]) or 1.0 for axis in axes]
    places = np.zeros((count, 2))
    places[:, : len(axes)] = centred @ (axes * np.array(signs)[:, None]).T
    return np.asarray(places / max(float(np.abs(places).max()), 1e-12), np.float32)


def thumbnail(example: Example) -> ImageRGB:
    """``(h, w, 3)`` uint8, at most :data:`THUMBNAIL_SIDE`: the object, and a little around it."""
    crop = example.crop
    rows, columns = np.flatnonzero(crop.mask.any(axis=1)), np.flatnonzero(crop.mask.any(axis=0))
    height, width = rows[-1] + 1 - rows[0], columns[-1] + 1 - columns[0]
    half = max(2, round(max(height, width) * (0.5 + MARGIN)))
    y, x = (rows[0] + rows[-1] + 1) // 2, (columns[0] + columns[-1] + 1) // 2
    window = np.s_[max(0, y - half) : y + half, max(0, x - half) : x + half]
    image = crop.image_rgb[window].astype(np.float32)
    image[~crop.mask[window]] *= AROUND
    shown = Image.fromarray(image.astype(np.uint8))
    shown.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
    return np.asarray(shown)
