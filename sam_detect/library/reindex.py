"""Makes a library's vectors again, from the crops it kept."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from sam_detect.errors import LibraryError, RecipeMismatchError
from sam_detect.interfaces import VectorStore
from sam_detect.library import manifest as manifests
from sam_detect.library import remedies, schema
from sam_detect.library.checksums import sealed
from sam_detect.library.library import BATCH, Library
from sam_detect.library.maker import VectorMaker
from sam_detect.library.surroundings import Surroundings, described
from sam_detect.masks import FloatArray
from sam_detect.types import Point, Recipe

Batches = Sequence[list[str]]
Made = tuple[FloatArray, dict[str, Any] | None]
"""An example's new vector and the payload of its surroundings."""


def reindex(
    library: Library,
    maker: VectorMaker,
    *,
    into: VectorStore | None = None,
    walk: Callable[[Batches], Iterable[list[str]]] = iter,
) -> int:
    """Puts another recipe's vectors in place of the library's, in one step; returns how many.

    A process killed in between leaves the old ones. The crops stay as they were learnt. While the
    vectors are made other processes can use the library, learn into it as well.

    Args:
        maker: makes the new vectors.
        into: a store to put the result in instead; the library then stays as it is.
        walk: walks the batches of ids, for a progress bar.

    Raises:
        RecipeMismatchError: the recipe needs crops that the library did not keep.
        LibraryCorruptError: a crop is damaged; nothing was changed.
        LibraryError: another process reindexed the library meanwhile.
    """
    target = into if into is not None else library.store
    recipe = maker.recipe
    if maker.embedder.of_frames:
        raise RecipeMismatchError(
            f"library '{library.name}' keeps crops, but vectors of the embedder {recipe.embedder} "
            "with pooling 'frame' need the whole pictures: learn them into a new library, or use "
            "pooling 'crop'"
        )
    before = _convertible(library, recipe)
    made: dict[str, Made] = {}
    for batch in walk(_batches(_ids(library))):
        made.update(_vectors(library, maker, batch))
    with library.store.session():
        manifest = library.require()
        if manifest["recipe"] != before:
            raise LibraryError(
                f"library '{library.name}' was reindexed by another process meanwhile; "
                "nothing was changed, try again"
            )
        ids = _ids(library)
        for batch in _batches([key for key in ids if key not in made]):
            made.update(_vectors(library, maker, batch))
        new = {**manifests.changed(manifest), "recipe": recipe.to_dict()}
        target.replace_all(_with_vectors(library, made), new)
    return len(ids)


def _convertible(library: Library, recipe: Recipe) -> dict[str, Any]:
    """The library's recipe as plain data, if its crops serve the new one."""
    manifest = library.require()
    mine = manifests.read_recipe(manifest, library.store.location)
    differences = mine.differences(recipe)
    for name in remedies.OF_THE_CROPS:
        if name in differences:
            raise RecipeMismatchError(
                f"library '{library.name}' keeps crops made with {name} {differences[name][0]}; "
                f"{differences[name][1]} needs the pictures: leave it out, or learn them again "
                "into a new library"
            )
    return dict(manifest["recipe"])


def _ids(library: Library) -> list[str]:
    return [point.id for point in library.store.scan(fields=())]


def _batches(ids: Sequence[str]) -> Batches:
    return [list(ids[start : start + BATCH]) for start in range(0, len(ids), BATCH)]


def _vectors(library: Library, maker: VectorMaker, ids: Sequence[str]) -> dict[str, Made]:
    """Ids name contents, so a vector stays right whatever happens to the library meanwhile."""
    examples = list(library.read(ids))
    vectors = maker.vectors(example.crop for example in examples)
    around = [e.surroundings or Surroundings.unknown(e.crop) for e in examples]
    again = described(around, [example.crop for example in examples], maker)
    return {
        example.id: (vector, new.to_payload() if example.surroundings else None)
        for example, vector, new in zip(examples, vectors, again, strict=True)
    }


def _with_vectors(library: Library, made: dict[str, Made]) -> Iterator[Point]:
    for point in library.store.scan():
        vector, around = made[point.id]
        payload = {**schema.known_fields(point.payload), "surroundings": around}
        yield sealed(replace(point, vector=vector, payload=payload))
