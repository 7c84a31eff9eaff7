"""Unknown objects of a video: one picture of each kind, for labelling later."""

from __future__ import annotations

from itertools import count
from pathlib import Path

import numpy as np

from sam_detect.errors import ImageError, MaskError
from sam_detect.io import DEFAULT_MAX_PIXELS, load_image
from sam_detect.io.snapshots import ObjectSnapshot, SnapshotFolderSink
from sam_detect.pipeline.flow import Pipeline
from sam_detect.types import Masks
from sam_detect.types.conversions import UNKNOWN_CATEGORY
from sam_detect.types.masks import FloatArray, rle_to_mask

MOST = 200
"""Kinds in one folder."""
SETTLED = 12
"""Frames in which an object must stay unknown: more than from one key frame to the next."""


class UnknownCollector(SnapshotFolderSink):
    """Keeps one picture of each kind of unknown object in a :class:`SnapshotFolder`.

    An object is of an existing kind where its vector is as similar to the kind's picture as
    objects of one label are to each other. Kinds are called ``unknown-1``,
    ``unknown-2`` and so on, until they are renamed in the folder's annotations. Pictures that
    the folder has already count, so that another session adds only what is new.

    Args:
        pipeline: embeds the objects.
        folder: made if needed.
        similarity: cosine from which on two objects are of one kind; None takes what the embedder
            expects of two objects of one label.
        most: kinds that the folder may have.
        max_pixels: larger pictures in the folder are ignored.

    Raises:
        OutputError: here, in ``write`` and in ``close``, for what cannot be read or written.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        folder: Path,
        *,
        similarity: float | None = None,
        most: int = MOST,
        max_pixels: int = DEFAULT_MAX_PIXELS,
    ) -> None:
        super().__init__(folder, min_frames=SETTLED, keep_rest=False)
        self._pipeline, self._most, self._max_pixels = pipeline, most, max_pixels
        self._same = (
            pipeline.features.embedder.prior_similarity if similarity is None else similarity
        )
        self._kinds = self._load_kinds()

    def category_of(self, snapshot: ObjectSnapshot) -> str | None:
        """A new name for a new kind; None where the object is labelled, or its kind is known."""
        if snapshot.classification.label is not None or len(self._kinds) >= self._most:
            return None
        vector = self._pipeline.features.embed_masks(snapshot.frame, snapshot.masks)
        if len(self._kinds) and float((self._kinds @ vector[0]).max()) >= self._same:
            return None
        self._kinds = np.concatenate([self._kinds, vector])
        return self._next_name()

    def _next_name(self) -> str:
        """An unused name, also where kinds were renamed or removed."""
        names = {category for _, _, category in self.folder.entries()}
        candidates = (f"{UNKNOWN_CATEGORY}-{number}" for number in count(len(names) + 1))
        return next(name for name in candidates if name not in names)

    def _load_kinds(self) -> FloatArray:
        """The vectors of the pictures that are there; removed ones are forgotten."""
        vectors = [np.zeros((0, self._pipeline.recipe.dimension), np.float32)]
        for path, annotation, _ in self.folder.entries():
            try:
                frame = load_image(path, max_pixels=self._max_pixels)
                mask = rle_to_mask(annotation["segmentation"])
                masks = Masks.from_dense(mask, size_hw=frame.size_hw)
                vectors.append(self._pipeline.features.embed_masks(frame, masks))
            except (ImageError, MaskError, KeyError):
                continue
        return np.concatenate(vectors)
