"""Carrying libraries: to one file and back, and from store to store."""

from __future__ import annotations

import itertools
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Literal

from sam_detect.errors import LibraryError, OutputError, RecipeMismatchError
from sam_detect.io.files import write_atomically
from sam_detect.library import lookup, places
from sam_detect.library import manifest as manifests
from sam_detect.library.archive import Archive, write_archive
from sam_detect.library.example import LISTED_FIELDS, example_id, label_of
from sam_detect.library.history import Added, new_batch, with_label, with_replaced
from sam_detect.library.library import BATCH, Library
from sam_detect.library.lookup import same_outline
from sam_detect.types import Point, Recipe
from sam_detect.vector_store._files import is_library_folder

OnConflict = Literal["keep", "replace"]


def export_library(library: Library, file: Path) -> int:
    """Writes a library into one file, whole or not at all; returns the number of examples.

    Raises:
        OutputError: the file cannot be written.
        LibraryCorruptError: an example is damaged, so the file could not be imported.
    """
    with library.store.session():
        manifest = {**library.require(), "name": library.name}
        target, count = Path(os.path.realpath(file)), 0
        own = next(filter(is_library_folder, target.parents), None)
        if own is not None:
            raise OutputError(
                f"the export {file} would be in {own}, among the files of a library; "
                "choose another folder"
            )
        if os.path.exists(target) and not os.path.isfile(target):
            raise OutputError(f"the export needs a file name, and {file} is something else")

        def write(stream: IO[bytes]) -> None:
            nonlocal count
            count = write_archive(stream, manifest, library.points())

        try:
            write_atomically(target, write)
        except OutputError as error:
            why = getattr(error.__cause__, "strerror", None) or str(error.__cause__ or error)
            raise OutputError(f"the export {file} cannot be written: {why}") from error
    return count


@dataclass(frozen=True)
class Conflict:
    """An example of a file that contradicts the library.

    Attributes:
        id: of the example in the file.
        label: what the file calls it; "not nut" for a negative.
        own_label: what the library calls it.
        own_id: the example of the library; another one where one of the two is a negative.
    """

    id: str
    label: str
    own_label: str
    own_id: str


@dataclass(frozen=True)
class Imported:
    """What an import did, or would do.

    Attributes:
        library: the name of the library.
        classes: ``{label: examples}`` in the file, negatives left out.
        negatives: how many there are in the file.
        added: examples of the file that the library did not have.
        known: those that it has already; they stay as they are.
        conflicts: those where the library says something else.
        replaced: of the conflicts, those where the file's word was taken.
        total: examples in the library afterwards.
    """

    library: str
    recipe: Recipe
    classes: dict[str, int]
    negatives: int
    added: int
    known: int
    conflicts: tuple[Conflict, ...]
    replaced: int
    total: int


def import_library(
    library: Library, file: Path, *, conflicts: OnConflict = "keep", dry_run: bool = False
) -> Imported:
    """Adds the examples of an exported file: all of them, or nothing.

    All of the file is checked first. Then the new and the existing examples are written to a new
    place, and one step switches over: a process that is killed leaves the library as it was.

    Args:
        conflicts: what counts where the file and the library have another label for one object:
            the library's ("keep") or the file's ("replace"). All else that the library knows of
            an example stays as it is.
        dry_run: only says what would be done.

    Raises:
        LibraryCorruptError: the file is not an export, or is damaged.
        LibraryError: the file cannot be read, or was written by a newer version.
        RecipeMismatchError: the library has another recipe.
    """
    with Archive.open(file) as archive:
        _require_same(library, archive.recipe, f"the export {file}")
        archive.check()
        with library.store.session():
            _require_same(library, archive.recipe, f"the export {file}")
            merge = _Merge(library, archive, conflicts)
            done = merge.plan()
            if not dry_run and (done.added or done.replaced or library.manifest() is None):
                merge.write()
    return done


class _Merge:
    """What becomes of each example of a file, in a library whose session is held."""

    def __init__(self, library: Library, archive: Archive, conflicts: OnConflict) -> None:
        self._library, self._archive = library, archive
        self._replace = conflicts == "replace"
        self._own: dict[str, tuple[str, bool]] = {}
        self._claims: dict[tuple[str, str], list[str]] = {}
        newest = ""
        for point in lookup.read(library.store, fields=LISTED_FIELDS):
            label, negative = self._own[point.id] = label_of(point)
            newest = max(newest, point.payload["batch"])
            if not negative:
                self._claims.setdefault((label, point.payload["picture"]), []).append(point.id)
        # A library that is restored keeps its batches; what is added to another is one batch.
        self._batch = new_batch(newest) if self._own else None
        self._left_out: set[str] = set()
        self._relabelled: dict[str, str] = {}
        self._dropped: set[str] = set()
        self._dropped_by: dict[str, list[str]] = {}

    def plan(self) -> Imported:
        """Reads the file, and decides about each example."""
        named: Counter[tuple[str, bool]] = Counter()
        conflicts, known = [], 0
        for point in self._archive.points():
            said = label_of(point)
            named[said] += 1
            own = self._own.get(point.id)
            if own == said:
                known += 1
            against = [point.id] if own not in (None, said) else self._contradicted(point)
            conflicts += [
                Conflict(point.id, _text(*said), _text(*self._own[key]), key) for key in against
            ]
            if own is not None or (against and not self._replace):
                self._left_out.add(point.id)
            if self._replace and own is None:
                self._dropped_by[point.id] = [key for key in against if key not in self._dropped]
                self._dropped.update(against)
            elif self._replace and against and not (own and own[1]) and not said[1]:
                self._relabelled[point.id] = said[0]
        classes = {label: n for (label, negative), n in sorted(named.items()) if not negative}
        added = self._archive.count - len(self._left_out)
        return Imported(
            library=self._library.name,
            recipe=self._archive.recipe,
            classes=classes,
            negatives=named.total() - sum(classes.values()),
            added=added,
            known=known,
            conflicts=tuple(conflicts),
            replaced=len(self._relabelled) + len(self._dropped),
            total=len(self._own) + added - len(self._dropped),
        )

    def write(self) -> None:
        """Puts what the file adds and what the library has in the library's place, in one step."""
        library = self._library
        found = library.manifest()
        if found is None or not self._own:
            new = manifests.new_manifest(library.name, self._archive.recipe)
        else:
            new = manifests.with_new_generation(found)
        before = "" if found is None else found["generation"]
        manifests.replace_all(library.store, self._merged(before), new)

    def _merged(self, generation: str) -> Iterator[Point]:
        store = self._library.store
        for point in self._archive.points():
            if point.id in self._left_out:
                continue
            if self._batch is None:
                yield point
                continue
            contradicting = self._dropped_by.get(point.id, ())
            dropped = (
                list(lookup.read(store, contradicting, with_vectors=True)) if contradicting else []
            )
            yield with_replaced(_of_batch(point, self._batch), dropped)
        for point in lookup.read(store, with_vectors=True) if self._own else ():
            if point.id in self._dropped:
                continue
            label = self._relabelled.get(point.id)
            if label is None or self._batch is None:
                yield point
            else:
                yield with_replaced(_of_batch(with_label(point, label), self._batch), [point])
        # A server has no lock between processes.
        if self._library.generation != generation:
            raise LibraryError(
                f"library '{self._library.name}' was changed by another process meanwhile; "
                "nothing was imported, try again"
            )

    def _contradicted(self, point: Point) -> list[str]:
        """The library's examples that contradict this one."""
        (label, negative), data = label_of(point), point.payload
        if not data["picture"] or point.id in self._own:
            return []
        outline, store = data["segmentation"], self._library.store
        if not negative:
            contradicting = example_id(
                digest=data["picture"], mask_rle=outline, label=label, negative=True
            )
            return [contradicting] if contradicting in self._own else []
        there = self._claims.get((label, data["picture"]), ())
        near = lookup.read(store, there, fields=LISTED_FIELDS) if there else ()
        return [each.id for each in near if same_outline(each.payload["segmentation"], outline)]


def _of_batch(point: Point, batch: str) -> Point:
    return replace(point, payload={**point.payload, "batch": batch, "before": []})


def _text(label: str, negative: bool) -> str:
    return f"not {label}" if negative else label


def copy_library(source: Library, target: Library) -> Added:
    """Adds all examples of one library to another, perhaps on a server.

    Both can be used by others meanwhile. What is done is kept, and a second try goes on.

    Raises:
        RecipeMismatchError: the target has another recipe.
        LibraryError: source and target are the same, or the source was reindexed meanwhile.
    """
    recipe = Recipe(**source.require()["recipe"])
    here = source.store.location
    if places.options_of(here) and here == target.store.location:
        raise LibraryError(
            f"{here} cannot be copied to itself; where QDRANT_URL is set, unset it to copy from "
            "the embedded library"
        )
    _require_same(target, recipe, f"library '{source.name}' in {here}")
    # The recipe of an empty library is carried too.
    done = target.add([], recipe)
    added = relabelled = 0
    points = _points_of(source, recipe)
    while batch := list(itertools.islice(points, BATCH)):
        done = target.add(batch, recipe)
        added, relabelled = added + done.added, relabelled + done.relabelled
    return Added(added=added, relabelled=relabelled, total=done.total)


def _points_of(library: Library, recipe: Recipe) -> Iterator[Point]:
    """All points, damaged ones refused; the library is held for one batch at a time."""
    ids = [point.id for point in library.store.scan(fields=())]
    for start in range(0, len(ids), BATCH):
        with library.store.session():
            if library.recipe != recipe:
                raise LibraryError(
                    f"library '{library.name}' was reindexed while it was copied; copy it again"
                )
            batch = list(library.points(ids[start : start + BATCH]))
        yield from batch


def _require_same(library: Library, recipe: Recipe, what: str) -> None:
    mine = library.recipe
    if mine is None or mine == recipe or not len(library):
        return
    differing = ", ".join(
        f"{name} is {theirs!r} there and {ours!r} here"
        for name, (ours, theirs) in mine.differences(recipe).items()
    )
    raise RecipeMismatchError(
        f"{what} was made with another recipe than library '{library.name}' ({differing}); "
        "take another library name, or reindex one of them"
    )
