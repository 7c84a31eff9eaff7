"""The library as a page shows it and as its users change it.

Nothing here knows HTTP. What is kept here follows the library's generation and can be made again;
what users change is in the library, and can be undone, when a method returns.
"""

from __future__ import annotations

import base64
import io
import secrets
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from sam_detect.api import SAMDetect
from sam_detect.errors import LibraryError, NotFoundError
from sam_detect.labelling.leave_one_out import LeftOut, leave_one_out
from sam_detect.library.changes import Changes, Undone
from sam_detect.library.example import Example, label_of
from sam_detect.library.journal import Change
from sam_detect.library.transfer import Imported, OnConflict, export_library, import_library
from sam_detect.server.client_texts import without_folders
from sam_detect.server.library_export import FORMATS, export_annotations
from sam_detect.server.library_pictures import principal_components, thumbnail
from sam_detect.types.labels import shown_label

MOST_EXAMPLES = 100
"""Of one request."""
MOST_MAP_POINTS = 5000
MOST_UPLOADS = 2
Order = Literal["doubt", "newest"]


@dataclass(frozen=True)
class ShownLabel:
    """A label with how many examples say that something is one, and how many that it is not."""

    label: str
    positives: int
    negatives: int


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
class _Contents:
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
        folder: for uploads and exports; goes with the view.
    """

    def __init__(self, detector: SAMDetect) -> None:
        self._detector = detector
        self._changes = Changes(detector.library, lambda: detector.pipeline.features)
        self._last = _Contents("")
        # The order of locks: docs/architecture.md, "Which lock before which".
        self._lock = threading.RLock()
        self._temporary = tempfile.TemporaryDirectory(prefix="sam-detect-library-")
        self.folder = Path(self._temporary.name)
        self._uploads: dict[str, Path] = {}

    # -- reading -------------------------------------------------------------------------------

    def overview(self) -> dict[str, Any]:
        """``name``, ``generation``, ``examples``, ``labels`` (:class:`ShownLabel`), ``formats``,
        and ``undo``: the newest change, or None."""
        contents = self._contents()
        names = sorted({label for label, _ in contents.groups}, key=lambda n: (n.casefold(), n))
        labels = [
            ShownLabel(
                name,
                len(contents.groups.get((name, False), ())),
                len(contents.groups.get((name, True), ())),
            )
            for name in names
        ]
        newest = next(iter(self._changes.log()), None)
        return {
            "name": self._detector.library.name,
            "generation": contents.generation,
            "examples": len(contents.rows),
            "labels": [asdict(each) for each in labels],
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

    # -- files ---------------------------------------------------------------------------------

    @contextmanager
    def export(self, name: str = "library") -> Iterator[Path]:
        """A zip of the library ("library"), or of its annotations in a format of
        :data:`~sam_detect.server.library_export.FORMATS`; gone afterwards.

        Raises:
            LibraryNotFoundError: there are no examples yet.
            NotFoundError: no such format.
            OutputError: it cannot be written.
        """
        library = self._detector.library
        library.require()
        with tempfile.TemporaryDirectory(dir=self.folder) as folder:
            if name == "library":
                file = Path(folder) / "library.zip"
                export_library(library, file)
                yield file
            else:
                yield export_annotations(library, name, Path(folder))

    def new_upload(self) -> Path:
        """Where an upload is to be written; give it to :meth:`check_upload` or remove it."""
        return self.folder / f"{secrets.token_hex(16)}.upload"

    def check_upload(self, path: Path) -> tuple[str, Imported]:
        """What importing an uploaded export would do. Changes nothing.

        Returns:
            The id of the upload for :meth:`import_upload`, and the plan. The last
            :data:`MOST_UPLOADS` uploads are kept.

        Raises:
            LibraryError: as :func:`~sam_detect.library.transfer.import_library`; the file is
                removed then.
        """
        try:
            plan = self._import(path, "keep", dry_run=True)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        with self._lock:
            self._uploads[path.stem] = path
            for old in list(self._uploads)[:-MOST_UPLOADS]:
                self._uploads.pop(old).unlink(missing_ok=True)
        return path.stem, plan

    def import_upload(self, upload: str, conflicts: OnConflict = "keep") -> Imported:
        """Adds the examples of an upload, all or none; raises as :meth:`check_upload`, and
        ``NotFoundError`` for an upload that is not kept."""
        with self._lock:
            path = self._uploads.get(upload)
        if path is None:
            raise NotFoundError("this upload is not kept any more: choose the file again")
        done = self._import(path, conflicts, dry_run=False)
        with self._lock:
            self._uploads.pop(upload, None)
        path.unlink(missing_ok=True)
        return done

    # -- inside --------------------------------------------------------------------------------

    def _import(self, path: Path, conflicts: OnConflict, *, dry_run: bool) -> Imported:
        try:
            return import_library(
                self._detector.library, path, conflicts=conflicts, dry_run=dry_run
            )
        except LibraryError as error:
            # Users know the name that the file had, not the one that it got here.
            raise type(error)(str(error).replace(str(path), "the file")) from error

    def _contents(self) -> _Contents:
        library = self._detector.library
        with self._lock:
            generation = library.generation
            if self._last.generation != generation or not generation:
                contents = _Contents(generation)
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
        self, contents: _Contents, label: str, negative: bool, order: Order
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

    def _others(self, contents: _Contents) -> dict[str, LeftOut]:
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
