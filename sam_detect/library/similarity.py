"""What counts as similar in a library: the weights of its vectors' parts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from sam_detect.labelling.part_weights import part_factors, part_weights, spread_over
from sam_detect.library.library import Library
from sam_detect.library.snapshot_reader import SnapshotReader
from sam_detect.registry import BUILT_IN, load_class


def library_stats(library: Library) -> dict[str, Any]:
    """``Library.stats`` with ``part_weights``, see :func:`learnt_part_weights`."""
    return {**library.stats(), "part_weights": learnt_part_weights(library)}


def learnt_part_weights(library: Library) -> dict[str, float]:
    """How much each part of the vectors counts, by its name, as the examples teach it; empty for
    vectors of one part, for embedders that are not built in, and without examples.

    Raises:
        LibraryCorruptError: the library is damaged.
    """
    recipe = library.recipe
    # What is not built in is never imported because a library names it.
    if recipe is None or recipe.embedder not in BUILT_IN["embedder"]:
        return {}
    parts = load_class("embedder", recipe.embedder).parts
    examples = replace(SnapshotReader(library).snapshot().examples(), parts=parts)
    return part_weights(examples, spread_over(part_factors(examples), parts))
