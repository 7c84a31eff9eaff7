"""What is taken back where somebody says the opposite: nothing is both called so and not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from sam_detect.errors import MaskError
from sam_detect.interfaces import VectorStore
from sam_detect.labels import shown_label
from sam_detect.library import lookup
from sam_detect.library.checksums import LISTED_FIELDS
from sam_detect.library.example import Example, example_id
from sam_detect.masks import SAME_OUTLINE_IOU, MaskRLE, rle_to_mask
from sam_detect.types import Point


def opposed(store: VectorStore, examples: Sequence[Example]) -> dict[str, list[str]]:
    """The ids of stored examples that say the opposite of these, by the ids of these.

    A negative takes back that an object of the same picture, outlined about the same, has the
    label; a positive takes back that exactly this outline does not have it.
    """
    positives = [each for each in examples if not each.negative and each.picture]
    negatives = [each for each in examples if each.negative and each.picture]
    denied = {
        example_id(digest=e.picture, mask_rle=e.segmentation, label=e.label, negative=True): e.id
        for e in positives
    }
    there = store.scan(list(denied), fields=()) if denied else ()
    found = [(denied[point.id], point.id) for point in there]
    if negatives:
        found += _claimed(store, negatives)
    by_example: dict[str, list[str]] = {}
    for example, other in found:
        by_example.setdefault(example, []).append(other)
    return by_example


def _claimed(store: VectorStore, negatives: Sequence[Example]) -> Iterator[tuple[str, str]]:
    wanted = {(each.label, each.picture) for each in negatives}
    light = lookup.read(store, fields=LISTED_FIELDS)
    for point in [p for p in light if not p.payload["negative"] and _place(p) in wanted]:
        here = [each for each in negatives if (each.label, each.picture) == _place(point)]
        for each in here:
            if same_outline(each.segmentation, point.payload["segmentation"]):
                yield each.id, point.id
                break


def _place(point: Point) -> tuple[object, object]:
    return shown_label(point.payload["label"]), point.payload["picture"]


def same_outline(one_rle: MaskRLE, other_rle: MaskRLE) -> bool:
    """Whether two outlines of one picture are of one object."""
    if one_rle["size"] != other_rle["size"]:  # before either is decoded
        return False
    try:
        one, other = rle_to_mask(one_rle), rle_to_mask(other_rle)
    except MaskError:  # it is damaged: whoever reads it hears of it
        return False
    return bool(np.count_nonzero(one & other) >= SAME_OUTLINE_IOU * np.count_nonzero(one | other))
