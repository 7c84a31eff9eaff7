"""Which proposals of a picture are its separate objects, without boxes or points.

A segmenter proposes everything: objects, their parts, several as one, texture, the background. Of
a picture that shows things of one kind, such as parts on a tray, those are taken that stand out,
lie apart, and resemble each other:

1. **No background**: nothing that covers more than ``LARGE`` of the picture, or touches two or more
   of its sides.
2. **Stands out**: the quality of the proposal is at least ``OF_THE_BEST`` of the best one left.
3. **One per object**: greedily by quality, none that shares more than ``INSIDE`` of the smaller of
   two with a better one, so that no part is taken in addition to its whole.
4. **Alike**: two are alike if the similarity ``s`` of their vectors is above the one to expect of
   two objects of one kind (``s0``, the embedder's ``prior_similarity``), and their areas differ by
   a factor below ``exp(SIZE)``. The one with the largest ``sum_j q_j (s_ij - s0)`` over those that
   are like it, itself included, begins the group (``q``: quality); then the members are all those
   that are like their mean (weighted by ``q``) and their median size, until nothing changes.
5. Where that leaves one object or none, the best proposal of any size is taken: it may be a picture
   of one thing.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from sam_detect.types import Masks
from sam_detect.types.masks import BoolArray, FloatArray, IntArray
from sam_detect.types.overlaps import Clashes, meeting_boxes, shared_pixels, sparse_nms

LARGE = 0.2
"""Of a picture's area: what covers more is rather what several objects lie on."""
SIDES = 2
"""What touches so many sides of its picture goes on beyond it."""
OF_THE_BEST = 0.8
INSIDE = 0.6
SIZE = 1.4
"""Log of the factor by which areas of one kind differ at most from the median: seen from aside, or
half hidden, the same thing is smaller."""
ROUNDS = 5


def separate_objects(
    masks: Masks, embed: Callable[[Masks], FloatArray] | None = None, *, similarity: float = 0.0
) -> IntArray:
    """Indices of the separate objects among a picture's proposals, best first.

    Args:
        masks: the proposals, with their qualities.
        embed: makes ``(N, D)`` unit vectors of N of them; asked at most once, for those that stand
            out. None: the objects need not be alike (step 4 is left out).
        similarity: what to expect of two objects of one kind.
    """
    sides = _sides_touched(masks)
    share = masks.areas / (masks.size_hw[0] * masks.size_hw[1])
    apart = _apart(masks, (sides < SIDES) & (share <= LARGE))
    if len(apart) > 1 and embed is not None:
        apart = apart[_alike(masks[apart], embed(masks[apart]), similarity)]
    if len(apart) > 1:
        return apart
    return _apart(masks, (sides < SIDES) | (share <= LARGE))[:1]


def _apart(masks: Masks, usable: BoolArray) -> IntArray:
    """Indices of what stands out among usable proposals, one for each object, best first."""
    quality = _quality(masks)
    if not usable.any():
        return np.zeros(0, np.int64)
    usable = usable & (quality >= OF_THE_BEST * quality[usable].max())
    order = np.flatnonzero(usable)
    order = order[np.argsort(-quality[order], kind="stable")]
    chosen = masks[order]
    pairs = meeting_boxes(chosen.boxes_xyxy)
    shared = shared_pixels(chosen.crop, chosen.boxes_xyxy, pairs)
    inside = shared > INSIDE * chosen.areas[pairs].min(axis=1)
    kept = sparse_nms(range(len(order)), Clashes(len(order), pairs[inside]), len(order))
    return np.asarray(order[kept], np.int64)


def _alike(masks: Masks, vectors: FloatArray, similarity: float) -> IntArray:
    """Indices of the largest group of masks that are of one kind, in their order."""
    quality = _quality(masks)
    sizes = np.log(masks.areas)
    beyond = vectors.astype(np.float64) @ vectors.T.astype(np.float64) - similarity
    near = (beyond > 0) & (np.abs(sizes[:, None] - sizes[None, :]) < SIZE)
    np.fill_diagonal(near, val=True)
    first = int(np.argmax((near * beyond * quality[None, :]).sum(axis=1)))
    members = np.flatnonzero(near[first])
    for _ in range(ROUNDS):
        mean = (vectors[members] * quality[members, None]).sum(axis=0)
        mean = mean / max(float(np.linalg.norm(mean)), 1e-12)
        fitting = np.abs(sizes - np.median(sizes[members])) < SIZE
        found = np.flatnonzero((vectors @ mean > similarity) & fitting)
        if not len(found) or np.array_equal(found, members):
            break
        members = found
    return np.asarray(members, np.int64)


def _quality(masks: Masks) -> npt.NDArray[np.float64]:
    """``(N,)``: the proposals' own qualities; 0 where a segmenter knows none."""
    return np.nan_to_num(masks.predicted_ious.astype(np.float64))


def _sides_touched(masks: Masks) -> IntArray:
    """``(N,)``: how many sides of the picture each mask touches."""
    height, width = masks.size_hw
    x0, y0, x1, y1 = masks.boxes_xyxy.T
    touched = np.stack([x0 <= 0, y0 <= 0, x1 >= width, y1 >= height])
    return np.asarray(touched.sum(axis=0), np.int64)
