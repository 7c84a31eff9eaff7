"""The library: a named, persistent, editable set of labelled examples in one recipe."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sam_detect.errors import LibraryError, LibraryNotFoundError, RecipeMismatchError
from sam_detect.interfaces import VectorStore
from sam_detect.library import manifest as manifests
from sam_detect.library.example import LIGHT_FIELDS, Example
from sam_detect.masks import FloatArray
from sam_detect.types import ExampleArrays, Neighbour, Point, Recipe

SNAPSHOT_LIMIT = 5000
"""Up to this many examples are read once and searched in memory; more are searched in the store."""


@dataclass(frozen=True)
class Added:
    """What a committed batch did.

    Attributes:
        added: examples that were not there before.
        relabelled: examples that were there under another label.
        total: examples in the library now.
    """

    added: int
    relabelled: int
    total: int


class Library:
    """Examples in a vector store, with the recipe that made their vectors.

    Several processes may use one library: what is read is read at once and kept, so a reader
    holds the store's lock for milliseconds, and a writer for one batch.

    Args:
        store: where the points live.
        name: its name, for people.
        prior_similarity: see :class:`~sam_detect.interfaces.Embedder`.
    """

    def __init__(self, store: VectorStore, name: str, *, prior_similarity: float = 0.9) -> None:
        self.store = store
        self.name = name
        self.prior_similarity = prior_similarity
        self._snapshot: tuple[str, ExampleArrays, bool] | None = None

    # -- what it is --------------------------------------------------------------------------

    def manifest(self) -> dict[str, Any] | None:
        """The checked manifest in the present format, or None for a library without examples."""
        found = self.store.read_manifest()
        if found is None:
            return None
        version = manifests.check(found, self.store.location)
        if version < manifests.FORMAT_VERSION:
            found = self._migrate()
        return found

    @property
    def recipe(self) -> Recipe | None:
        """How its vectors were made; None while it is empty and unmade."""
        found = self.manifest()
        return None if found is None else Recipe.from_dict(found["recipe"])

    @property
    def generation(self) -> str:
        found = self.store.read_manifest()
        return "" if found is None else f"{found['generation']}-{found['recipe']}"

    def __len__(self) -> int:
        return self.store.count()

    def require(self) -> dict[str, Any]:
        """The manifest of a library that must exist."""
        found = self.manifest()
        if found is None:
            raise LibraryNotFoundError(
                f"there is no library '{self.name}' in {self.store.location}; "
                f"make it with: sam-detect learn IMAGE --label NAME --library {self.name}"
            )
        return found

    # -- reading -----------------------------------------------------------------------------

    def listing(self, label: str | None = None) -> Iterator[Point]:
        """Light listing: points without vector whose payload has ``LIGHT_FIELDS``."""
        for point in self.store.scan(fields=LIGHT_FIELDS):
            if label is None or point.payload["label"] == label:
                yield point

    def get(self, example_id: str) -> Example:
        """One whole example; raises ``LibraryError`` where the id is unknown."""
        for point in self.store.scan([example_id], with_vectors=True):
            return Example.from_point(point)
        raise LibraryError(
            f"library '{self.name}' has no example {example_id}; "
            f"see: sam-detect library list --library {self.name}"
        )

    def read(self, ids: Sequence[str] | None = None) -> Iterator[Example]:
        """Whole examples (all, or those of the ids that exist), in the order of ids."""
        return (Example.from_point(point) for point in self.store.scan(ids, with_vectors=True))

    def stats(self) -> dict[str, Any]:
        """``examples``, ``negatives``, ``classes: {name: count}``, ``recipe`` and ``bytes``."""
        found = self.manifest()
        classes: Counter[str] = Counter()
        negatives = 0
        for point in self.store.scan(fields=("label", "negative")):
            negatives += bool(point.payload["negative"])
            classes[point.payload["label"]] += not point.payload["negative"]
        return {
            "library": self.name,
            "location": self.store.location,
            "examples": sum(classes.values()) + negatives,
            "negatives": negatives,
            "classes": {name: classes[name] for name in sorted(classes) if classes[name]},
            "recipe": None if found is None else found["recipe"],
            "bytes": self.store.size_bytes(),
        }

    def examples(self) -> ExampleArrays:
        return self._read_snapshot()[1]

    def nearest(self, vectors: FloatArray, limit: int) -> list[list[Neighbour]]:
        _, arrays, complete = self._read_snapshot()
        if not complete:
            found = self.store.search(vectors, limit, fields=("label", "negative"))
            return [
                [
                    Neighbour(h.id, h.payload["label"], h.similarity, h.payload["negative"])
                    for h in row
                ]
                for row in found
            ]
        if not arrays.ids:
            return [[] for _ in vectors]
        similarities = vectors @ arrays.vectors.T
        # A stable sort keeps the order of ids among ties, as the stores do.
        order = np.argsort(-similarities, axis=1, kind="stable")[:, :limit]
        return [
            [
                Neighbour(arrays.ids[i], arrays.labels[i], float(row[i]), bool(arrays.negatives[i]))
                for i in nearest
            ]
            for row, nearest in zip(similarities, order, strict=True)
        ]

    # -- writing -----------------------------------------------------------------------------

    def add(self, examples: Sequence[Example], recipe: Recipe) -> Added:
        """Adds a batch; when it returns, the batch is durable.

        Raises:
            RecipeMismatchError: the library was made with another recipe.
        """
        with self.store.session():
            found = self.manifest()
            if found is None:
                # The recipe is on record before the first vector: a crash in between leaves an
                # empty library, never vectors that nobody can tell the making of.
                found = manifests.new_manifest(self.name, recipe)
                self.store.write_manifest(found)
            else:
                self.require_recipe(recipe)
            unique = {example.id: example for example in examples}
            there = {
                point.id: point.payload["label"]
                for point in self.store.scan(list(unique), fields=("label",))
            }
            new = [example for example in unique.values() if example.id not in there]
            renamed = [e for e in unique.values() if e.id in there and there[e.id] != e.label]
            if new or renamed:
                self.store.upsert([example.to_point() for example in [*new, *renamed]])
                self._commit(found)
            return Added(added=len(new), relabelled=len(renamed), total=self.store.count())

    def rename(self, old: str, new: str) -> int:
        """Gives all examples of one label another; returns how many."""
        if not new.strip():
            raise LibraryError("a label needs at least one visible character")
        with self.store.session():
            found = self.require()
            points = list(self.store.scan(self._ids_of(old), with_vectors=True))
            for point in points:
                point.payload["label"] = new
            self.store.upsert(points)
            self._commit(found)
        return len(points)

    def remove(self, *, label: str | None = None, ids: Sequence[str] = ()) -> int:
        """Removes all examples of a label, or those with the ids; returns how many."""
        with self.store.session():
            found = self.require()
            chosen = (
                self._ids_of(label)
                if label is not None
                else [point.id for point in self.store.scan(list(ids), fields=("label",))]
            )
            missing = sorted(set(ids) - set(chosen))
            if missing:
                raise LibraryError(
                    f"library '{self.name}' has no example {missing[0]}; nothing was removed"
                )
            self.store.delete(chosen)
            self._commit(found)
        return len(chosen)

    def require_recipe(self, recipe: Recipe) -> None:
        """Raises ``RecipeMismatchError`` unless the library has this recipe (or is empty)."""
        mine = self.recipe
        if mine is None or mine == recipe:
            return
        changes = ", ".join(
            f"{name} is {ours!r}, not {theirs!r}"
            for name, (ours, theirs) in mine.differences(recipe).items()
        )
        raise RecipeMismatchError(
            f"library '{self.name}' was made with another recipe ({changes}); leave the option out, "
            f"or convert it: sam-detect library reindex --library {self.name} "
            f"--embedder {recipe.embedder} --fade {recipe.fade}"
        )

    # -- inside ------------------------------------------------------------------------------

    def _ids_of(self, label: str) -> list[str]:
        ids = [point.id for point in self.listing(label)]
        if not ids:
            labels = sorted({point.payload["label"] for point in self.listing()})
            raise LibraryError(
                f"library '{self.name}' has no label '{label}' (it has: {', '.join(labels) or 'none'})"
            )
        return ids

    def _commit(self, manifest: dict[str, Any]) -> None:
        """Tells readers that the examples changed."""
        self.store.write_manifest({**manifest, "generation": manifest["generation"] + 1})

    def _migrate(self) -> dict[str, Any]:
        with self.store.session():
            old = self.store.read_manifest()
            assert old is not None
            version = manifests.check(old, self.store.location)
            new = {**old, "format_version": manifests.FORMAT_VERSION}
            points = (
                Point(p.id, p.vector, manifests.migrate_payload(p.payload, version))
                for p in self.store.scan(with_vectors=True)
            )
            self.store.replace_all(points, new)
        return new

    def _read_snapshot(self) -> tuple[str, ExampleArrays, bool]:
        generation = self.generation
        if self._snapshot is None or self._snapshot[0] != generation:
            with self.store.session():
                generation = self.generation
                arrays, complete = self._read_arrays()
            self._snapshot = (generation, arrays, complete)
        return self._snapshot

    def _read_arrays(self) -> tuple[ExampleArrays, bool]:
        fields = ("label", "negative", "source", "bbox")
        complete = self.store.count() <= SNAPSHOT_LIMIT
        ids = None if complete else self._even_sample()
        points = list(self.store.scan(ids, fields=fields, with_vectors=True))
        vectors = [point.vector for point in points if point.vector is not None]
        return (
            ExampleArrays(
                ids=tuple(point.id for point in points),
                labels=tuple(point.payload["label"] for point in points),
                sources=tuple(point.payload["source"] for point in points),
                boxes_xywh=np.array(
                    [point.payload["bbox"] for point in points], dtype=np.int64
                ).reshape(-1, 4),
                negatives=np.array([point.payload["negative"] for point in points], dtype=bool),
                vectors=np.stack(vectors) if vectors else np.zeros((0, 0), np.float32),
            ),
            complete,
        )

    def _even_sample(self) -> list[str]:
        """The ids of ``SNAPSHOT_LIMIT`` examples, as many of each label as there is room for."""
        groups: dict[tuple[str, bool], list[str]] = {}
        for point in self.store.scan(fields=("label", "negative")):
            key = (point.payload["label"], bool(point.payload["negative"]))
            groups.setdefault(key, []).append(point.id)
        share = max(1, SNAPSHOT_LIMIT // len(groups))
        # Ids are hashes, so the first by id are a random, repeatable choice.
        return [example_id for group in groups.values() for example_id in group[:share]]
