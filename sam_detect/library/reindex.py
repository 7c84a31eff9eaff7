"""Makes a library's vectors again, from the crops it kept."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

from sam_detect.errors import LibraryError
from sam_detect.features.extraction import FeatureExtractor
from sam_detect.library import contents, lookup
from sam_detect.library import manifest as manifests
from sam_detect.library.converted import Made, described_again, require_convertible
from sam_detect.library.example import Example
from sam_detect.library.history import states, with_states
from sam_detect.library.library import BATCH, Library
from sam_detect.types import Point

Batches = Sequence[list[str]]


def reindex(
    library: Library,
    features: FeatureExtractor,
    *,
    walk: Callable[[Batches], Iterable[list[str]]] = iter,
) -> int:
    """Puts another recipe's vectors in place of the library's, in one step; returns how many.

    A process killed in between leaves the old ones. The crops stay as they were learnt. While the
    vectors are made other processes can use the library, learn into it as well.

    Args:
        features: makes the new vectors.
        walk: walks the batches of ids, for a progress bar.

    Raises:
        RecipeMismatchError: the recipe needs crops that the library did not keep.
        LibraryCorruptError: a crop is damaged; nothing was changed.
        LibraryError: another process reindexed the library meanwhile.
    """
    before = library.require()
    mine = manifests.read_recipe(before, library.store.location)
    require_convertible(library.name, mine, features)
    made: dict[str, list[Made]] = {}
    for batch in walk(_batches(_ids(library))):
        made.update(_vectors(library, features, batch))
    with library.store.session():
        manifest = library.require()
        if manifest["recipe"] != before["recipe"]:
            raise LibraryError(
                f"library '{library.name}' was reindexed by another process meanwhile; "
                "nothing was changed, try again"
            )
        ids = _ids(library)
        for batch in _batches([key for key in ids if key not in made]):
            made.update(_vectors(library, features, batch))
        new = {**manifests.changed(manifest), "recipe": features.recipe.to_dict()}
        made = {key: made[key] for key in ids}
        contents.replace_all(library.store, _with_vectors(library, made), new)
    return len(ids)


def _ids(library: Library) -> list[str]:
    return [point.id for point in library.store.scan(fields=())]


def _batches(ids: Sequence[str]) -> Batches:
    return [list(ids[start : start + BATCH]) for start in range(0, len(ids), BATCH)]


def _vectors(
    library: Library, features: FeatureExtractor, ids: Sequence[str]
) -> dict[str, list[Made]]:
    """Of each example and then of its earlier states. Ids name contents, so a vector stays right
    whatever happens to the library meanwhile."""
    points = list(library.points(ids))
    every = [[point, *(state.point for state in states(point))] for point in points]
    examples = [Example.from_point(with_states(p, [])) for each in every for p in each]
    made = iter(described_again(examples, features))
    return {point.id: [next(made) for _ in each] for point, each in zip(points, every, strict=True)}


def _with_vectors(library: Library, made: dict[str, list[Made]]) -> Iterator[Point]:
    for point in lookup.read(library.store, list(made)):
        now, *before = made[point.id]
        earlier = [
            replace(state, point=_changed(state.point, new))
            for state, new in zip(states(point), before, strict=True)
        ]
        yield with_states(_changed(point, now), earlier)


def _changed(point: Point, made: Made) -> Point:
    vector, around = made
    return replace(point, vector=vector, payload={**point.payload, "surroundings": around})
