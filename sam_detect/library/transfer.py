"""Carrying libraries: to one file and back, and from store to store."""

from __future__ import annotations

import itertools
import os
import secrets
from collections.abc import Iterable, Iterator
from pathlib import Path

from sam_detect.errors import LibraryError, OutputError, RecipeMismatchError
from sam_detect.library import manifest as manifests
from sam_detect.library import remedies
from sam_detect.library.archive import Archive, write_archive
from sam_detect.library.library import BATCH, Added, Library
from sam_detect.types import Point, Recipe
from sam_detect.vector_store.qdrant import is_library_folder


def export_library(library: Library, file: Path) -> int:
    """Writes a library into one file, whole or not at all; returns the number of examples.

    Raises:
        OutputError: the file cannot be written.
        LibraryCorruptError: an example is damaged, so that nobody could import the file.
    """
    with library.store.session():
        manifest = library.require()
        target = Path(os.path.realpath(file))
        temporary = target.with_name(f".{target.name[:40]}.{secrets.token_hex(8)}.tmp")
        try:
            own = next(filter(is_library_folder, target.parents), None)
            if own is not None:
                raise OutputError(
                    f"the export {file} would lie in {own}, among the files of a library; "
                    "choose another folder"
                )
            if target.exists() and not target.is_file():
                raise OutputError(f"the export needs a file name, and {file} is something else")
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                with open(temporary, "xb") as stream:
                    count = write_archive(stream, manifest, library.points())
                    stream.flush()
                    os.fsync(stream.fileno())
                os.replace(temporary, target)
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or str(error)
            raise OutputError(f"the export {file} cannot be written: {why}") from error
    return count


def import_library(library: Library, file: Path) -> Added:
    """Adds the examples of an exported file; each batch is durable, and a second try goes on.

    The file is read twice: all of it is checked before anything is added.

    Raises:
        LibraryCorruptError: the file is not an export, or is damaged. Nothing was added.
        LibraryError: the file cannot be read, or was written by a newer version.
        RecipeMismatchError: the library has another recipe.
    """
    with Archive.open(file) as archive:
        _require_same(library, archive.recipe, f"the export {file}")
        archive.check()
        return _add_all(library, archive.points(checked=False), archive.recipe)


def copy_library(source: Library, target: Library) -> Added:
    """Adds all examples of one library to another, perhaps on a server.

    Both can be used by others meanwhile. What is done is kept, and a second try goes on.

    Raises:
        RecipeMismatchError: the target has another recipe.
        LibraryError: source and target are the same, or the source was reindexed meanwhile.
    """
    recipe = manifests.read_recipe(source.require(), source.store.location)
    here = source.store.location
    if remedies.options_of(here) and here == target.store.location:
        raise LibraryError(
            f"{here} cannot be copied to itself; where QDRANT_URL is set, unset it to copy from "
            "the embedded library"
        )
    _require_same(target, recipe, f"library '{source.name}' in {here}")
    return _add_all(target, _points_of(source, recipe), recipe)


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


def _add_all(library: Library, points: Iterable[Point], recipe: Recipe) -> Added:
    # The recipe of an empty library is carried too.
    done = library.add([], recipe)
    added = relabelled = 0
    iterator = iter(points)
    while batch := list(itertools.islice(iterator, BATCH)):
        done = library.add(batch, recipe)
        added, relabelled = added + done.added, relabelled + done.relabelled
    return Added(added=added, relabelled=relabelled, total=done.total)
