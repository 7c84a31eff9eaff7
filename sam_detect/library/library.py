"""The library: a named, persistent, editable set of labelled examples in one recipe."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from sam_detect.errors import (
    LibraryCorruptError,
    LibraryError,
    LibraryNotFoundError,
    RecipeMismatchError,
)
from sam_detect.interfaces import VectorStore
from sam_detect.library import history, lookup, places
from sam_detect.library import manifest as manifests
from sam_detect.library.example import (
    FORMAT_4_HAS,
    LISTED_FIELDS,
    PAYLOAD_FIELDS,
    Example,
    label_of,
)
from sam_detect.library.history import (
    Added,
    LearningBatch,
    new_batch,
    restore_replaced,
    time_of,
    with_renamed_label,
    with_replaced,
    without_batch,
)
from sam_detect.library.writing import counting_writer, point_to_store, with_normalised_label
from sam_detect.types import Point, Recipe
from sam_detect.types.labels import normalised_label, shown_label

BATCH = 64


class Library:
    """Examples in a vector store, with the recipe that made their vectors.

    Several processes may use one library: a reader holds the store's lock for one snapshot
    (:mod:`sam_detect.library.snapshot_reader`), and a writer for one batch.

    Args:
        store: where the points live.
        name: its name, for people.
    """

    def __init__(self, store: VectorStore, name: str) -> None:
        self.store = store
        self.name = name

    # -- what it is --------------------------------------------------------------------------

    def manifest(self) -> dict[str, Any] | None:
        """The checked manifest, or None for a library without examples."""
        found = self.store.read_manifest()
        return None if found is None else manifests.read(found, self.store.location)

    @property
    def recipe(self) -> Recipe | None:
        """How its vectors were made; None while it is empty and unmade."""
        found = self.manifest()
        return None if found is None else Recipe(**found["recipe"])

    @property
    def generation(self) -> str:
        """Changes whenever the examples or the recipe do; empty while there is no library."""
        found = self.manifest()
        return "" if found is None else str(found["generation"])

    def __len__(self) -> int:
        return self.store.count()

    def require(self) -> dict[str, Any]:
        """The manifest of a library that must exist."""
        found = self.manifest()
        if found is None:
            raise LibraryNotFoundError(
                f"there is no library '{self.name}' in {self.store.location}; make it with: "
                f"{places.LEARN} {self._place}"
            )
        return found

    # -- reading -----------------------------------------------------------------------------

    def listing(self, label: str | None = None) -> Iterator[Point]:
        """All examples, or those of a label: points without vector or crop, whose payload has
        ``LISTED_FIELDS``.

        Raises:
            LibraryCorruptError: one of them is damaged.
            LibraryError: no example has the label.
        """
        with self.store.session():
            points = self._listed(self.manifest() or {})
        if label is not None:
            labels = {label_of(point)[0] for point in points}
            points = [point for point in points if label_of(point)[0] == shown_label(label)]
            if not points:
                raise LibraryError(lookup.no_label(label, labels, self.name))
        yield from points

    def page(self, start: int, limit: int, label: str | None = None) -> tuple[list[Point], int]:
        """Some of :meth:`listing`, in the order of ids, and how many all are; raises as it does.

        Without a label no other example is read.
        """
        if label is not None:
            found = list(self.listing(label))
            return found[start : start + limit], len(found)
        with self.store.session():
            ids = [point.id for point in self.store.scan(fields=())]
            shown = ids[start : start + limit]
            return list(lookup.read(self.store, shown, fields=LISTED_FIELDS)), len(ids)

    def get(self, example_id: str) -> Example:
        """One whole example by its id or an unambiguous beginning of it (4 characters or more).

        Raises:
            ExampleNotFoundError: no example has this id.
            LibraryError: several have it.
        """
        for example in self.read(lookup.resolve(self.store, [example_id], self.name)):
            return example
        # Another thread or process removed it since its id was looked up.
        raise lookup.no_example(self.store, self.name, example_id, len(self))

    def read(self, ids: Sequence[str] | None = None) -> Iterator[Example]:
        """Whole examples (all, or those of the ids that exist), in the order of ids.

        Raises:
            LibraryCorruptError: one of them is damaged; the message says which.
        """
        return map(Example.from_point, self.points(ids))

    def points(self, ids: Sequence[str] | None = None) -> Iterator[Point]:
        """Whole examples as they are stored, unknown fields left out; raises as :meth:`read`."""
        for point in self.store.scan(ids, with_vectors=True):
            try:
                Example.from_point(point)
            except LibraryCorruptError as error:
                raise LibraryCorruptError(
                    f"library '{self.name}': {error}; keep what is sound: sam-detect library "
                    f"repair {self._place}"
                ) from error
            payload = {**FORMAT_4_HAS, **point.payload}
            yield replace(point, payload={name: payload[name] for name in PAYLOAD_FIELDS})

    def stats(self) -> dict[str, Any]:
        """``examples``, ``negatives``, ``classes: {name: count}``, ``recipe`` and ``bytes``."""
        with self.store.session():
            found = self.manifest()
            classes, negatives = lookup.count(self._listed(found or {}))
        return {
            "library": self.name,
            "location": self.store.location,
            "examples": sum(classes.values()) + negatives,
            "negatives": negatives,
            "classes": classes,
            "recipe": None if found is None else found["recipe"],
            "bytes": self.store.size_bytes(),
        }

    # -- writing -----------------------------------------------------------------------------

    def add(
        self, examples: Sequence[Example | Point], recipe: Recipe, *, batch: str | None = None
    ) -> Added:
        """Adds examples; when it returns, they are durable.

        Args:
            examples: examples, or whole points that are known to be sound.
            recipe: how their vectors were made.
            batch: the learning batch they belong to, as :meth:`new_batch` gives it. None: points
                keep the batch that they carry, and examples are a batch of their own.

        Raises:
            RecipeMismatchError: the library was made with another recipe.
            LibraryError: a label is no name, or an example has something that no library keeps.
        """
        with self.store.session():
            found = self._begin(recipe)
            own = batch or self._new_batch(found)
            named = [with_normalised_label(example) for example in examples]
            unique: dict[str, Point] = {}
            twice: Counter[tuple[str, str, str]] = Counter()
            for each in named:
                point = point_to_store(each, own if isinstance(each, Example) else batch)
                first, second = label_of(unique.setdefault(point.id, point))[0], label_of(point)[0]
                twice[str(point.payload["source"]), first, second] += first != second
            history.warn_of_two_names(+twice)
            old = {point.id: point for point in self._whole(list(unique))}
            against = lookup.find_contradicted(
                self.store, [e for e in named if isinstance(e, Example)]
            )
            taken = {p.id: p for p in self._whole([i for ids in against.values() for i in ids])}
            new = [key for key in unique if key not in old]
            names = {key: (label_of(was)[0], label_of(unique[key])[0]) for key, was in old.items()}
            relabelled = [key for key, (was, now) in names.items() if was != now]
            written = dict.fromkeys([*new, *relabelled, *against])
            points = []
            for key in written:
                replaced = [old[key]] if key in old else []
                mine = [taken.pop(each) for each in against.get(key, ()) if each in taken]
                point, replaced = unique[key], [*replaced, *mine]
                if replaced or point.payload["before"]:
                    point = with_replaced(point, replaced)
                points.append(point)
            gone = {each for ids in against.values() for each in ids} - set(written)
            if examples:
                # Even when all are there: their writer may have been killed before this.
                with counting_writer(self.store, found) as writer:
                    writer.upsert(points)
                    writer.delete(sorted(gone))
            changed = min(len(new), len(gone))
            return Added(
                added=len(new) - changed,
                relabelled=len(relabelled) + changed,
                total=self.store.count(),
                batch=own,
                renamed=Counter(names[key] for key in relabelled),
                twice=twice.total(),
            )

    def rename(self, old: str, new: str) -> int:
        """Gives all examples of one label another; returns how many.

        Done in batches: a process killed in between leaves some renamed, and renaming again
        completes it.
        """
        new = normalised_label(new)
        with self.store.session():
            found = self.require()
            ids = lookup.of_label(self.store, old, self.name)
            also = [point.id for point in self._changing() if point.id not in set(ids)]
            with counting_writer(self.store, found) as writer:
                for start in range(0, len(ids) + len(also), BATCH):
                    batch = [*ids, *also][start : start + BATCH]
                    points = [with_renamed_label(point, old, new) for point in self._whole(batch)]
                    writer.upsert(points)
                    writer.delete(sorted(set(batch) - {point.id for point in points}))
        return len(ids)

    def remove(self, *, label: str | None = None, ids: Sequence[str] = ()) -> int:
        """Removes all examples of a label, or those with the ids; returns how many.

        Raises:
            LibraryError: no example has the label, or one of the ids; nothing was removed.
        """
        with self.store.session():
            found = self.require()
            chosen = (
                lookup.of_label(self.store, label, self.name)
                if label is not None
                else lookup.resolve(self.store, ids, self.name)
            )
            with counting_writer(self.store, found) as writer:
                writer.delete(chosen)
        return len(chosen)

    # -- learning batches --------------------------------------------------------------------

    def new_batch(self) -> str:
        """The id of a learning batch that begins now, for several calls of :meth:`add`."""
        return self._new_batch(self.manifest() or {})

    def log(self) -> list[LearningBatch]:
        """The learning batches of which something is left, newest first."""
        with self.store.session():
            listed = self._listed(self.require())
            return history.log(listed, self._whole([point.id for point in self._changing()]))

    def undo(self, batch: str | None = None) -> LearningBatch:
        """Takes a learning batch back; returns what was taken back.

        What it added is removed, what it relabelled gets its former label, and what it removed as
        contradicting is restored. What a later batch relabelled since is kept, and is not counted;
        undoing that one later does not bring this one back. A process killed in between leaves a
        part of the batch, and undoing again completes it.

        Args:
            batch: its id; None is the newest one.

        Raises:
            LibraryError: there is no such batch, or it was taken back already.
        """
        with self.store.session():
            found, entries = self.require(), self.log()
            if batch is not None and batch not in {entry.id for entry in entries}:
                raise LibraryError(
                    f"library '{self.name}' has no learning batch '{batch}', or nothing is left of "
                    "it, as when it was taken back already; see: sam-detect library log"
                )
            if not entries or not entries[0].id:
                older = f"; its {len(self)} examples are older than that" if entries else ""
                raise LibraryError(
                    f"library '{self.name}' has no learning batch that could be taken back{older}"
                )
            batch = batch or entries[0].id
            mine = [p for p in lookup.read(self.store, fields=LISTED_FIELDS)
                    if p.payload["batch"] == batch]  # fmt: skip
            ids, changing = [p.id for p in mine], {p.id for p in self._changing()}
            taken = history.log(mine, self._whole([key for key in ids if key in changing]))
            later = list(changing - set(ids))
            with counting_writer(self.store, found) as writer:
                for start in range(0, len(ids), BATCH):
                    here = ids[start : start + BATCH]
                    former = {p.id: p for each in self._whole(here) for p in restore_replaced(each)}
                    # What was learnt again meanwhile is newer.
                    there = {point.id for point in self.store.scan(list(former), fields=())}
                    kept = there - set(here)
                    writer.upsert([p for key, p in former.items() if key not in kept])
                    writer.delete([key for key in here if key not in former])
                for start in range(0, len(later), BATCH):
                    whole = self._whole(later[start : start + BATCH])
                    parted = [without_batch(point, batch) for point in whole]
                    writer.upsert([new for new, old in zip(parted, whole, strict=True)
                                   if new is not old])  # fmt: skip
        nothing = LearningBatch(batch, time_of(batch).isoformat(timespec="seconds"))
        return next((entry for entry in taken if entry.id == batch), nothing)

    def destroy(self) -> int | None:
        """Removes the whole library, damaged ones too; returns how many examples it had.

        None where the damage does not let them be counted.

        Raises:
            LibraryCorruptError: it is something else than a library.
            LibraryError: a newer version made it.
        """
        with self.store.session():
            found = self.store.read_manifest()
            if found is None:
                self.require()
            if not manifests.may_be_removed(found):
                manifests.read(found, self.store.location)
            count: int | None = None
            with suppress(LibraryCorruptError):
                count = len(self)
            self.store.destroy()
        return count

    def require_recipe(self, recipe: Recipe) -> None:
        """Raises ``RecipeMismatchError`` unless the library has this recipe (or is empty)."""
        mine = self.recipe
        if mine is not None and mine != recipe:
            self._refuse_unless_empty(mine, recipe)

    # -- inside ------------------------------------------------------------------------------

    @property
    def _place(self) -> str:
        return places.options_of(self.store.location) or f"--library {self.name}"

    def _new_batch(self, manifest: dict[str, Any]) -> str:
        newest = manifests.ContentsRecord.of_manifest(manifest)
        return new_batch(after=newest.batch if newest else "")

    def _listed(self, manifest: dict[str, Any]) -> list[Point]:
        """All points with what lists show, checked, also that these are all. In a session."""
        points = list(lookup.read(self.store, fields=LISTED_FIELDS))
        manifests.require_complete(self.store, self.name, manifest, points)
        return points

    def _whole(self, ids: Sequence[str]) -> list[Point]:
        return list(lookup.read(self.store, ids, with_vectors=True)) if ids else []

    def _changing(self) -> list[Point]:
        """The points that keep earlier states; only these."""
        scanned = self.store.scan(fields=("before",))
        return [point for point in scanned if point.payload.get("before")]

    def _begin(self, recipe: Recipe) -> dict[str, Any]:
        """The manifest of a library that takes examples of this recipe."""
        found = self.manifest()
        if found is not None:
            mine = Recipe(**found["recipe"])
            if mine == recipe:
                return found
            self._refuse_unless_empty(mine, recipe)
        # The recipe is on record before the first vector: a crash in between leaves an
        # empty library, never vectors of an unknown recipe.
        new = manifests.new_manifest(self.name, recipe)
        if self.store.exclusive:
            new["contents"] = manifests.ContentsRecord().to_dict()
        if found is None:
            self.store.write_manifest(new)
        else:
            self.store.replace_all([], new)
        return new

    def _refuse_unless_empty(self, mine: Recipe, wanted: Recipe) -> None:
        if len(self):
            raise RecipeMismatchError(
                places.learning_message(self.name, self.store.location, mine, wanted)
            )
