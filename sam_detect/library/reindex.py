"""Makes a library's vectors again, from the crops it kept."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from sam_detect.errors import RecipeMismatchError
from sam_detect.interfaces import VectorStore
from sam_detect.library.library import Library
from sam_detect.library.maker import VectorMaker
from sam_detect.types import Point, Recipe

BATCH = 64
OF_THE_CROPS = ("occupancy", "crop_side", "crop_version")


def reindex(library: Library, maker: VectorMaker, *, into: VectorStore | None = None) -> int:
    """Puts another recipe's vectors in place of the library's, in one step; returns how many.

    A process killed in between leaves the old ones. The crops stay as they were learnt.

    Args:
        maker: makes the new vectors.
        into: a store to put the result in instead; the library then stays as it is.

    Raises:
        RecipeMismatchError: the recipe needs crops that the library did not keep.
    """
    target = into if into is not None else library.store
    recipe = maker.recipe
    with library.store.session():
        manifest = library.require()
        differences = Recipe.from_dict(manifest["recipe"]).differences(recipe)
        for name in OF_THE_CROPS:
            if name in differences:
                raise RecipeMismatchError(
                    f"library '{library.name}' keeps crops made with {name} "
                    f"{differences[name][0]}; another one needs the pictures: learn them again "
                    "into a new library"
                )
        new = {**manifest, "recipe": recipe.to_dict(), "generation": manifest["generation"] + 1}
        total = len(library)
        target.replace_all(_made_again(library, maker), new)
    return total


def _made_again(library: Library, maker: VectorMaker) -> Iterator[Point]:
    ids = [point.id for point in library.store.scan(fields=("label",))]
    for start in range(0, len(ids), BATCH):
        examples = list(library.read(ids[start : start + BATCH]))
        vectors = maker.vectors(example.crop for example in examples)
        for example, vector in zip(examples, vectors, strict=True):
            yield replace(example, vector=vector).to_point()
