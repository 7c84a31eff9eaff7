"""Makes a library's vectors again from the crops it keeps: in memory, for reading in another recipe
than its own (:class:`ConvertedExamples`), or in its place (:func:`reindex`)."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from sam_detect.errors import LibraryError, RecipeMismatchError
from sam_detect.features.extraction import FeatureExtractor
from sam_detect.features.hard_negatives import HardNegatives, embed_hard_negatives
from sam_detect.interfaces import VectorStore
from sam_detect.library import lookup, places
from sam_detect.library import manifest as manifests
from sam_detect.library.example import NAMING_FIELDS, VECTOR_CHECKSUM, Example, with_checksums
from sam_detect.library.history import earlier_states, with_earlier_states
from sam_detect.library.library import BATCH, Library
from sam_detect.registry import load_class
from sam_detect.types import Point, Recipe
from sam_detect.types.masks import FloatArray

Made = tuple[FloatArray, dict[str, Any] | None]
"""An example's new vector and the payload of its hard negatives."""
Batches = Sequence[list[str]]


class ConvertedExamples:
    """A library's examples in the recipe of an extractor, in memory and without their crops.
    Safe for several threads; each vector is made by one of them.
    """

    def __init__(self, features: FeatureExtractor) -> None:
        self._features, self._recipe = features, features.recipe.to_dict()
        self._made: dict[str, tuple[str, Made]] = {}
        # The order of locks: docs/architecture.md, "Which lock before which".
        self._making = threading.Lock()

    def differs(self, manifest: dict[str, Any]) -> bool:
        """Whether a library's manifest says another recipe."""
        return bool(manifest["recipe"] != self._recipe)

    def generation(self, manifest: dict[str, Any]) -> str:
        """That of the library, and of the recipe where it is another one."""
        if not self.differs(manifest):
            return str(manifest["generation"])
        return f"{manifest['generation']} as {json.dumps(self._recipe, sort_keys=True)}"

    def read(self, library: Library) -> VectorStore:
        """The examples as they are now, in a store of their own. Vectors are made for those that
        are new or changed since the last time; none where the library has that recipe. The library
        is held for one batch at a time.

        Raises:
            RecipeMismatchError: the kept crops cannot give these vectors.
            LibraryCorruptError: an example is damaged.
            ExtensionError: the fade or the embedder broke its contract.
        """
        recipe, mine = self._features.recipe, library.recipe
        same = mine is None or mine == recipe
        if mine is not None and not same and len(library):
            require_convertible(library.name, mine, self._features)
        ids = [point.id for point in library.store.scan(fields=())]
        points: list[Point] = []
        for start in range(0, len(ids), BATCH):
            batch = ids[start : start + BATCH]
            if same:
                points += lookup.read(library.store, batch, fields=NAMING_FIELDS, with_vectors=True)
            else:
                points += self._converted(library, batch)
        with self._making:
            there = {point.id for point in points}
            self._made = {key: each for key, each in self._made.items() if key in there}
        store: VectorStore = load_class("store", "memory")()
        store.replace_all(points, manifests.new_manifest(library.name, recipe))
        return store

    def _converted(self, library: Library, ids: Sequence[str]) -> list[Point]:
        stored = {p.id: p.payload for p in lookup.read(library.store, ids, fields=NAMING_FIELDS)}
        made = self._vectors(library, {k: p[VECTOR_CHECKSUM] for k, p in stored.items()})
        return [
            with_checksums(Point(key, made[key][0], {**payload, "surroundings": made[key][1]}))
            for key, payload in stored.items()
            if key in made
        ]

    def _vectors(self, library: Library, checksums: dict[str, str]) -> dict[str, Made]:
        """What was or is made of examples, which have these checksums in the library."""

        def missing() -> set[str]:
            return {k for k, each in checksums.items() if self._made.get(k, ("",))[0] != each}

        examples = list(library.read(sorted(missing()))) if missing() else []
        # Only the crops are needed from here on: the lock of the store may be another thread's,
        # which waits for this one.
        with self._making:
            still = missing()  # without what another thread has made meanwhile
            examples = [example for example in examples if example.id in still]
            made = embed_examples(examples, self._features) if examples else []
            for example, each in zip(examples, made, strict=True):
                self._made[example.id] = checksums[example.id], each
            lost = missing()  # removed meanwhile
            return {key: self._made[key][1] for key in checksums if key not in lost}


def embed_stored(
    library: Library, features: FeatureExtractor, ids: Sequence[str]
) -> dict[str, Made]:
    """The vectors of some examples in another recipe, from the crops that the library keeps.

    Ids name contents, so a vector stays right whatever happens to the library meanwhile.
    """
    examples = list(library.read(ids)) if ids else []
    made = embed_examples(examples, features)
    return {example.id: each for example, each in zip(examples, made, strict=True)}


def embed_examples(examples: Sequence[Example], features: FeatureExtractor) -> list[Made]:
    """The new vectors of examples and of their hard negatives."""
    vectors = features.embed_crops(example.crop for example in examples)
    around = [e.hard_negatives or HardNegatives.unknown(e.crop) for e in examples]
    again = embed_hard_negatives(around, [example.crop for example in examples], features)
    return [
        (vector, new.to_payload() if example.hard_negatives else None)
        for example, vector, new in zip(examples, vectors, again, strict=True)
    ]


def require_convertible(name: str, mine: Recipe, features: FeatureExtractor) -> None:
    """Raises ``RecipeMismatchError`` unless kept crops of one recipe serve those of an extractor.

    Args:
        name: the library's, for the message.
        mine: its recipe.
    """
    wanted = features.recipe
    if features.embedder.of_frames:
        raise RecipeMismatchError(
            f"library '{name}' keeps crops, but vectors of the embedder {wanted.embedder} with "
            "pooling 'frame' need the whole pictures: learn them into a new library, or use "
            "pooling 'crop'"
        )
    differences = mine.differences(wanted)
    for field in places.CROP_FIELDS:
        if field in differences:
            ours, theirs = differences[field]
            raise RecipeMismatchError(
                f"library '{name}' keeps crops made with {field} {ours}; {theirs} needs the "
                "pictures: leave it out, or learn them again into a new library"
            )


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
    require_convertible(library.name, Recipe(**before["recipe"]), features)
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
        new = {**manifests.with_new_generation(manifest), "recipe": features.recipe.to_dict()}
        made = {key: made[key] for key in ids}
        manifests.replace_all(library.store, _with_vectors(library, made), new)
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
    every = [[point, *(state.point for state in earlier_states(point))] for point in points]
    examples = [Example.from_point(with_earlier_states(p, [])) for each in every for p in each]
    made = iter(embed_examples(examples, features))
    return {point.id: [next(made) for _ in each] for point, each in zip(points, every, strict=True)}


def _with_vectors(library: Library, made: dict[str, list[Made]]) -> Iterator[Point]:
    for point in lookup.read(library.store, list(made)):
        now, *before = made[point.id]
        earlier = [
            replace(state, point=_changed(state.point, new))
            for state, new in zip(earlier_states(point), before, strict=True)
        ]
        yield with_earlier_states(_changed(point, now), earlier)


def _changed(point: Point, made: Made) -> Point:
    vector, around = made
    return replace(point, vector=vector, payload={**point.payload, "surroundings": around})
