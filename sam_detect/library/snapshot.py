"""The library as one call sees it: an immutable snapshot, read from the store at once."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

import numpy as np

from sam_detect.errors import LibraryError, MaskError
from sam_detect.features.extraction import FeatureExtractor
from sam_detect.interfaces import Embedder, VectorStore
from sam_detect.library import lookup
from sam_detect.library.columns import ExampleColumns, Outlines
from sam_detect.library.example import LISTED_FIELDS, label_of
from sam_detect.library.index import DamagedIndexError, ExampleIndex
from sam_detect.library.kept import KeptFiles
from sam_detect.types import ExampleArrays, Frame, Masks, Neighbour, Point, Taught
from sam_detect.types.examples import ENOUGH_HERE
from sam_detect.types.masks import FloatArray, rle_to_crop
from sam_detect.types.memory import Fit

KEPT_FROM = 200
"""From so many examples on, what was read and fitted is kept for the next process. Fewer are read
from the store in a tenth of a second, and checked anew each time."""


@dataclass(frozen=True)
class LibrarySnapshot:
    """All that one call needs of a library, read at once and never changed.

    It is a :class:`~sam_detect.types.LabelMemory`. Of a very large library it holds an even sample
    as arrays, and asks the index or the store for the nearest neighbours.

    Attributes:
        generation: of the library (and of the recipe it is read in) when this was read.
        arrays: the examples.
        complete: whether these are all.
        prior_similarity: of the embedder, see :class:`~sam_detect.interfaces.Embedder`.
        outlines: of all examples.
        store: where they were read.
        files: where what is fitted to them is kept.
        content: names the arrays' content: the generation or, of a sample, a digest of it.
        index: of all examples of a large library; None where they are all in the arrays, or are
            searched in the store.
    """

    generation: str
    arrays: ExampleArrays
    complete: bool
    prior_similarity: float
    outlines: Outlines | ExampleIndex
    store: VectorStore
    files: KeptFiles = field(default_factory=KeptFiles)
    content: str = ""
    index: ExampleIndex | None = None

    @classmethod
    def of_examples(
        cls,
        examples: ExampleColumns,
        store: VectorStore,
        generation: str,
        features: FeatureExtractor | None,
        index: tuple[ExampleIndex, str] | None = None,
    ) -> LibrarySnapshot:
        """The snapshot of examples that were read from the store, or kept.

        Args:
            index: of all, and the digest of the sample that the examples are.
        """
        embedder = None if features is None else features.embedder
        prior = Embedder.prior_similarity if embedder is None else embedder.prior_similarity
        arrays = examples.arrays(embedder)
        files = KeptFiles(store.kept_path if len(arrays.ids) >= KEPT_FROM else None)
        own = generation, arrays
        if index is not None:
            return cls(*own, False, prior, index[0], store, files, index[1], index[0])
        complete = len(arrays.ids) == len(examples.outlines)
        return cls(*own, complete, prior, examples.outlines, store, files, generation)

    def examples(self) -> ExampleArrays:
        """All examples (of a very large library, an even sample of each label), as arrays."""
        return self.arrays

    def nearest(self, vectors: FloatArray, limit: int) -> list[list[Neighbour]]:
        """The nearest examples (negatives too) of each of ``(Q, D)`` vectors, nearest first."""
        if self.index is not None:
            try:
                return self.index.nearest(vectors, limit)
            except DamagedIndexError:
                self.index.discard()
        if not self.complete:
            return search(self.store, vectors, limit)
        arrays = self.arrays
        if not arrays.ids:
            return [[] for _ in vectors]
        similarities = vectors @ arrays.vectors.T
        last = max(similarities.shape[1] - limit, 0)
        bounds = np.partition(similarities, last, axis=1)[:, last]
        negatives = np.asarray(arrays.negatives, bool).tolist()
        found = []
        for row, bound in zip(similarities, bounds, strict=True):
            near = np.flatnonzero(row >= bound)
            # A stable sort keeps the order of ids among ties, as the stores do.
            near = near[np.argsort(-row[near], kind="stable")[:limit]]
            found.append([
                Neighbour(arrays.ids[i], arrays.labels[i], similarity, negatives[i])
                for i, similarity in zip(near.tolist(), row[near].tolist(), strict=True)
            ])  # fmt: skip
        return found

    def of_picture(self, picture: str) -> LibrarySnapshot | None:
        """The same with the examples of one picture only, given by its digest, where it has enough
        of a label (:data:`~sam_detect.types.examples.ENOUGH_HERE`) and is not the only one."""
        mine = np.array(self.arrays.sources, dtype=object) == picture
        counts = Counter(
            label for label, own, negative in
            zip(self.arrays.labels, mine.tolist(), self.arrays.negatives.tolist(), strict=True)
            if own and not negative
        )  # fmt: skip
        if mine.all() or max(counts.values(), default=0) < ENOUGH_HERE:
            return None
        name = f"{self.generation} {picture}"
        return replace(
            self, generation=name, arrays=self.arrays.where(mine), complete=True,
            files=KeptFiles(), content=name, index=None,
        )  # fmt: skip

    def vectors(self, ids: Sequence[str]) -> FloatArray:
        """``(N, D)`` vectors of examples; those that the arrays do not have come from the store.

        Raises:
            LibraryError: an example was removed meanwhile.
        """
        wanted = set(ids)
        rows = {key: row for row, key in enumerate(self.arrays.ids) if key in wanted}
        known = {key: self.arrays.vectors[row] for key, row in rows.items()}
        missing = sorted(wanted - set(known))
        if missing and self.index is not None:
            with suppress(DamagedIndexError):
                known |= self.index.vectors(missing)
            missing = sorted(wanted - set(known))
        if missing:
            for point in self.store.scan(missing, fields=(), with_vectors=True):
                known[point.id] = np.asarray(point.vector, np.float32)
        lost = sorted(wanted - set(known))
        if lost:
            raise LibraryError(
                f"example {lost[0]} was removed by another process meanwhile; try again"
            )
        dimension = self.arrays.vectors.shape[1]
        return np.array([known[key] for key in ids], np.float32).reshape(len(ids), dimension)

    def kept(self, name: str, form: type[Fit], make: Callable[[], Fit]) -> Fit:
        """What ``make`` gives of the examples: what another process kept under this name for these
        very examples, or else made and kept now. ``form`` is its type."""
        file = f"fit-{hashlib.blake2b(name.encode(), digest_size=8).hexdigest()}"
        arrays = self.arrays
        weights = b"" if arrays.scene_weights is None else arrays.scene_weights.tobytes()
        context = self.prior_similarity, weights, sorted(arrays.parts.items())
        key = f"{self.content} {name} {context}"
        found = self.files.read(file, key, form)
        if found is None:
            found = make()
            self.files.write(file, key, found)
        return found

    def taught(self, frame: Frame) -> Taught:
        """The outlines of all examples of this very picture, newest first, wherever its file is.

        Raises:
            LibraryCorruptError: an outline is damaged.
        """
        digest = frame.digest
        points = sorted(
            self.outlines.of_picture(digest),
            key=lambda point: str(point.payload["added"]),
            reverse=True,
        )
        boxes, crops, examples = [], [], []
        for point in points:
            rle, (label, negative) = point.payload["segmentation"], label_of(point)
            try:
                if tuple(rle["size"]) != frame.size_hw:  # before it is decoded
                    raise MaskError("its outline is not of its picture's size")
                box, crop = rle_to_crop(rle)
            except MaskError as error:
                raise lookup.damage_error(point.id, str(error), self.store.location) from error
            boxes.append(box)
            crops.append(crop)
            examples.append(Neighbour(point.id, label, 1.0, negative))
        masks = Masks.from_crops(size_hw=frame.size_hw, boxes_xyxy=boxes, crops=crops)
        return Taught(digest, masks, tuple(examples))


def search(store: VectorStore, vectors: FloatArray, limit: int) -> list[list[Neighbour]]:
    """What :meth:`LibrarySnapshot.nearest` gives, from the store."""
    found = store.search(vectors, limit, fields=LISTED_FIELDS)
    for hit in {hit.id: hit for row in found for hit in row}.values():
        lookup.check_read(Point(hit.id, None, hit.payload), LISTED_FIELDS, store.location)
    return [
        [Neighbour(h.id, h.payload["label"], h.similarity, h.payload["negative"]) for h in row]
        for row in found
    ]
