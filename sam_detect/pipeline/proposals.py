"""The proposals of a frame: a segmenter, told what it may know of the examples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from sam_detect.interfaces import Segmenter
from sam_detect.labelling.decision import example_areas
from sam_detect.library.example import Example
from sam_detect.library.library import Library
from sam_detect.library.snapshot import LibrarySnapshot
from sam_detect.models.sharing import LastUsed, WhileAlive
from sam_detect.pipeline import tiling
from sam_detect.pipeline.dense_similarity import DenseSimilarity, similarity_to
from sam_detect.types import Areas, Crop, ExampleArrays, ExampleCrops, Frame, Hints, Masks
from sam_detect.types.masks import IntArray

EXAMPLES_SEEN = 32
"""So many examples of each label are seen pixel by pixel at most; each takes a pass of a network,
or is learnt by a forest."""
SEEN_WHERE_SEPARABLE, MOST_LABELS = 8, 16
"""The same where a segmenter wants it only if the examples are separable; and of so many labels at
most."""

FRAMES_KEPT = 4
"""The proposals of so many frames are cached: on the annotation page, pictures are opened ahead."""


class Proposals:
    """What a segmenter proposes, in windows where a picture is large.

    Args:
        segmenter: proposes masks.
        library: has the crops of the examples.
        tile: as of :class:`~sam_detect.pipeline.flow.Pipeline`.
        original: the library that has the crops of the examples, where ``library`` is a copy
            without crops.
        propose: as of :class:`~sam_detect.pipeline.flow.Pipeline`.
    """

    def __init__(
        self,
        segmenter: Segmenter,
        library: Library,
        *,
        tile: int,
        original: Library | None = None,
        propose: Callable[..., Masks] = tiling.propose,
    ) -> None:
        self.segmenter, self.library, self.tile = segmenter, library, tile
        self.original, self._propose = original, propose
        self._similarity: tuple[str, DenseSimilarity | None] | None = None
        self._crops_read: tuple[tuple[str, tuple[str, ...]], ExampleCrops] | None = None
        self._surroundings: tuple[str, tuple[float, float]] | None = None
        self._made: WhileAlive[Frame, dict[Any, Masks]] = WhileAlive(FRAMES_KEPT)
        self.remembered: LastUsed[tuple[str, Any], Masks] | None = None
        """Proposals of pictures that are read again and again, by their digest."""

    def hints(
        self,
        frame: Frame,
        snapshot: LibrarySnapshot,
        *,
        quick: bool = False,
        untrained: bool = False,
    ) -> Hints:
        """What the segmenter may know of a library's examples, for a frame.

        Args:
            quick: without the similarity to examples where the segmenter also works without.
            untrained: without crops where only pictures with outlined examples have them.
        """
        uses, examples = self.segmenter.uses, snapshot.examples()
        similarity = None
        if "similarity" in uses or ("separable similarity" in uses and not quick):
            similarity = self._similarity_to(snapshot)
        if not {"crops", "crops where outlined"} & {*uses}:
            return Hints(example_areas(examples), similarity=similarity)
        taught = snapshot.taught(frame)
        outlined = len(taught.of(negative=False))
        crops = ExampleCrops()
        if "crops" in uses or (outlined and not untrained):
            crops = self._crops_of(snapshot, taught.picture)
        return Hints(example_areas(examples), crops, outlined, similarity)

    def for_library(self, frame: Frame, hints: Hints, *, near: IntArray | None = None) -> Masks:
        """Proposals for the objects of a library, best first.

        Args:
            near: as of :meth:`all_of`.
        """
        return self._propose(frame, self.segmenter, hints, tile=self.tile, near=near)

    def warn_if_too_small(self, frame: Frame, hints: Hints) -> None:
        """Warns where objects as small as an example are lost."""
        tiling.warn_if_too_small(frame, self.segmenter, hints, self.tile)

    def all_of(self, frame: Frame, areas: Areas = None, near: IntArray | None = None) -> Masks:
        """Proposals of a frame, whatever the library knows, best first. Those of the last frames
        are cached.

        Args:
            areas: of the objects that are sought, as of :class:`~sam_detect.types.Hints`.
            near: ``(N, 4)`` boxes xyxy; of a picture that is proposed in windows only those that
                one of them meets.
        """
        hints = Hints(areas)
        plan = tuple(tiling.levels(frame.size_hw, self.segmenter, hints, self.tile))
        key = plan, None if near is None or not plan else near.tobytes()
        made = self._made.of(frame, dict)
        if key not in made:
            propose = partial(self.for_library, frame, hints, near=near)
            if self.remembered is None:
                made[key] = propose()
            else:
                made[key] = self.remembered.get((frame.digest, key), propose)
        return made[key]

    def of_finds(self, frame: Frame, snapshot: LibrarySnapshot, near: IntArray) -> Masks:
        """The proposals among which the finds of a library were, of pictures and of key frames.

        Args:
            near: as of :meth:`all_of`.
        """
        hints = self.hints(frame, snapshot)
        found = self.all_of(frame, hints.areas, near)
        if hints.similarity is None and not hints.crops:
            return found
        return Masks.concatenate([found, self.for_library(frame, hints, near=near)])

    def surroundings(self, snapshot: LibrarySnapshot) -> tuple[float, float]:
        """Of some examples the median longest side of their pictures in pixels, and the median
        brightness around them, 0 to 255; read once for a generation."""
        if self._surroundings is None or self._surroundings[0] != snapshot.generation:
            read = self._read(snapshot.examples().positive_ids(SEEN_WHERE_SEPARABLE))
            sides = [max(example.segmentation["size"]) for example in read]
            around = [np.median(e.crop.image_rgb[~e.crop.mask]) for e in read]
            found = float(np.median(sides)), float(np.nanmedian(around))
            self._surroundings = snapshot.generation, found
        return self._surroundings[1]

    def _crops_of(self, snapshot: LibrarySnapshot, picture: str) -> ExampleCrops:
        """The crops of examples, those of a picture first; read once for the same examples."""
        ids = snapshot.examples().positive_ids(EXAMPLES_SEEN, picture=picture)
        key = snapshot.generation, tuple(ids)
        if self._crops_read is None or self._crops_read[0] != key:
            self._crops_read = key, ExampleCrops(self._crops(ids))
        return self._crops_read[1]

    def _similarity_to(self, snapshot: LibrarySnapshot) -> DenseSimilarity | None:
        """The similarity to the library's examples, fitted once for a generation; None without
        examples, and where the segmenter wants separable ones and none are."""
        if self._similarity is None or self._similarity[0] != snapshot.generation:
            self._similarity = snapshot.generation, self._fitted(snapshot.examples())
        return self._similarity[1]

    def _fitted(self, examples: ExampleArrays) -> DenseSimilarity | None:
        choosy = "similarity" not in self.segmenter.uses
        ids = examples.positive_ids(SEEN_WHERE_SEPARABLE if choosy else EXAMPLES_SEEN)
        if choosy and len(ids) > SEEN_WHERE_SEPARABLE * MOST_LABELS:
            return None
        crops = self._crops(ids)
        found = similarity_to(crops, asked_for=not choosy) if crops else None
        return None if choosy and found is not None and not found.limits else found

    def _crops(self, ids: Sequence[str]) -> dict[str, list[Crop]]:
        """The crops of examples, by label."""
        crops: dict[str, list[Crop]] = {}
        for example in self._read(ids):
            crops.setdefault(example.label, []).append(example.crop)
        return crops

    def _read(self, ids: Sequence[str]) -> list[Example]:
        """Those of the examples of which a crop is kept."""
        if self.original is None:
            return list(self.library.read(ids))
        found = list(self.original.read(ids))
        learnt = sorted(set(ids) - {example.id for example in found})
        kept = self.library.store.scan(learnt, fields=("crop_webp",))
        return found + list(self.library.read([p.id for p in kept if "crop_webp" in p.payload]))
