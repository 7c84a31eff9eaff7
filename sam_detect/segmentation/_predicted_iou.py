"""The IoU of a proposal with the object under it, predicted from what the examples show.

Each example tells which proposals are right and which are parts of it or hold more than it: a
segmenter's proposals for the example's own crop have a known IoU with its outline. Regression trees
(Geurts, Ernst and Wehenkel 2006) learn that IoU from the size and shape of a mask, what the pixel
forest says of its core, its rim and its surroundings, and how strong its outline is. SAM's decoder
has a head for the same (Kirillov et al. 2023); this one knows the objects that are sought.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np

from sam_detect.segmentation._pixel_forest import (
    EDGE,
    THREADS,
    PixelForest,
    SeenPicture,
    ellipse_fill,
    resampled,
)
from sam_detect.types import ImageRGB, Masks
from sam_detect.types.masks import BoolArray, FloatArray

MOST_CROPS = 12
"""Examples that are looked at."""
RIM = 0.1
"""Width of a mask's rim and of its surroundings, as a share of the typical example's side."""
LINE = 1.5
"""Pixels on both sides of an outline in which it is as strong as the gradient there."""
SIZES = np.log(8)
"""Masks that are smaller or larger than all examples by this factor are not looked at."""
OVERLAP = 0.5
"""A proposal is learnt from if it shares so much of itself, or of the example, with the example."""
FOLDS, LEAST_SHARE = 5, 0.7
"""What is predicted to be worse than this share of what is usual for the best proposal of an
example is no object. Those are predicted by trees that did not learn the example, in so many
groups."""
GROUPS = 5
"""IoUs from 0 to 1 are learnt in so many groups of the same weight."""
TREES, TREES_LEFT_OUT, LEAST_LEAF, FEATURES_TRIED = 100, 30, 4, 0.4

Propose = Callable[[ImageRGB, Sequence[SeenPicture]], list[Masks]]


class PredictedIoU:
    """Predicts the IoU of masks with objects like some examples.

    Args:
        forest: trained on the examples.
        propose: gives the proposals for a picture with each of several ways in which forests see
            it.
    """

    def __init__(self, forest: PixelForest, propose: Propose) -> None:
        from sklearn.base import clone
        from sklearn.ensemble import ExtraTreesRegressor
        from sklearn.model_selection import GroupKFold, cross_val_predict

        self._forest = forest
        self._typical = float(np.median(forest.log_areas))
        shown = [i for i in range(min(MOST_CROPS, len(forest.crops))) if forest.has_pixels(i)]
        forest.train_folds()
        with ThreadPoolExecutor(THREADS) as pool:
            rows = list(pool.map(functools.partial(self._of_example, propose=propose), shown))
        examples = np.repeat(shown, [len(ious) for _, ious in rows])
        features, ious = (np.concatenate(each) for each in zip(*rows, strict=True))
        group = np.minimum(ious * GROUPS, GROUPS - 1).astype(np.int64)
        weights = 1 / np.bincount(group)[group]
        self._trees = ExtraTreesRegressor(
            TREES, min_samples_leaf=LEAST_LEAF, max_features=FEATURES_TRIED, random_state=0
        )
        self._least = 0.0
        if len(shown) > 1:
            left_out = cross_val_predict(
                clone(self._trees).set_params(n_estimators=TREES_LEFT_OUT),
                features, ious, groups=examples,
                cv=GroupKFold(min(FOLDS, len(shown))), params={"sample_weight": weights},
            )  # fmt: skip
            best = [left_out[(examples == i) & (ious < 1)].max(initial=0) for i in shown]
            self._least = LEAST_SHARE * float(np.median(best))
        self._trees.fit(features, ious, sample_weight=weights)

    def __call__(self, seen: SeenPicture, masks: Masks) -> FloatArray:
        """``(N,)`` float32 in 0..1, of masks of a picture; 0 for those of quite another size.

        Args:
            seen: the picture as the forest sees it.
        """
        height, width = seen.light.shape
        areas = np.log(masks.areas * (height * width / (masks.size_hw[0] * masks.size_hw[1])))
        low, high = self._forest.log_areas.min() - SIZES, self._forest.log_areas.max() + SIZES
        of_size = np.flatnonzero((areas >= low) & (areas <= high))
        found = np.zeros(len(masks), np.float32)
        there = [(of_size[i], crop, corner) for i, crop, corner in _scaled(masks[of_size], seen)]
        if there:
            described = [self._describe(seen, crop, corner) for _, crop, corner in there]
            ious = self._trees.predict(np.array(described))
            found[[index for index, *_ in there]] = np.clip(ious, 0, 1)
        found[found < self._least] = 0
        return found

    def _of_example(self, index: int, propose: Propose) -> tuple[FloatArray, FloatArray]:
        """``(n, F)`` features of the proposals for an example's crop that share much with it, and
        of its own outline; and ``(n,)`` their IoU with it."""
        # Of two kinds are the pictures to come: of these examples, and of others.
        views = [self._forest.see_example(index, known=known) for known in (False, True)]
        proposed = propose(self._forest.crops[index].image_rgb, [seen for seen, _ in views])
        described, ious = [], []
        for (seen, mask), masks in zip(views, proposed, strict=True):
            for each in [mask, *_dense(masks, seen)]:
                shared = np.count_nonzero(each & mask)
                smaller = min(np.count_nonzero(each), np.count_nonzero(mask))
                if shared > OVERLAP * smaller:
                    described.append(self._describe(seen, *_trimmed(each)))
                    ious.append(shared / np.count_nonzero(each | mask))
        return np.array(described), np.array(ious)

    def _describe(self, seen: SeenPicture, crop: BoolArray, corner_xy: Sequence[int]) -> FloatArray:
        """Features of a mask, given as its crop and the corner of its box."""
        width = max(2, round(RIM * self._forest.side))
        (height, breadth), (left, top) = crop.shape, corner_xy
        x0, y0 = max(0, left - width - 1), max(0, top - width - 1)
        place = np.s_[y0 : top + height + width + 1, x0 : left + breadth + width + 1]
        # What lies outside is told from the background in each picture in another way.
        likely = seen.kinds[place][..., : EDGE + 1]
        light, slope = seen.light[place], seen.slope[place]
        mask = np.zeros(light.shape, np.uint8)
        mask[top - y0 : top - y0 + height, left - x0 : left - x0 + breadth] = crop
        # Padded, because an outline runs along the border of a picture, too.
        inside = cv2.distanceTransform(np.pad(mask, 1), cv2.DIST_L2, 3)[1:-1, 1:-1]
        outside = cv2.distanceTransform(1 - mask, cv2.DIST_L2, 3)
        core = inside > min(width, 0.7 * inside.max())
        rim = (inside > 0) & (inside <= width)
        ring = (outside > 0) & (outside <= width)
        if not ring.any():
            ring = rim
        line = np.maximum(inside, outside) <= LINE
        area = np.count_nonzero(crop)
        strength, within = slope[line].mean(), slope[core].mean()
        return np.array([
            np.log(area) - self._typical,
            ellipse_fill(crop),
            max(crop.shape) / min(crop.shape),
            area / crop.size,
            *likely[core].mean(axis=0), *likely[rim].mean(axis=0), *likely[ring].mean(axis=0),
            strength, np.quantile(slope[line], 0.2), within, np.quantile(slope[core], 0.9),
            strength / (within + 0.01),
            light[core].mean() - light[ring].mean(),
            light[core].std(), light[core].mean(), light[ring].std(),
        ], np.float32)  # fmt: skip


def _scaled(masks: Masks, seen: SeenPicture) -> Iterator[tuple[int, BoolArray, tuple[int, int]]]:
    """Of each mask of a picture that has a pixel where a forest sees it: its index, its crop and
    the corner xy of its box there."""
    boxes = masks.boxes_xyxy.tolist()
    for index, (crop, box) in enumerate(zip(masks.crops(), boxes, strict=True)):
        found = resampled(crop, box[:2], seen_hw=masks.size_hw, size_hw=seen.light.shape)
        if found is not None:
            yield index, found[1], found[0]


def _dense(masks: Masks, seen: SeenPicture) -> Iterator[BoolArray]:
    """``(h, w)`` each mask of a picture as a forest sees it."""
    for _, crop, (left, top) in _scaled(masks, seen):
        mask = np.zeros(seen.light.shape, np.bool_)
        mask[top : top + crop.shape[0], left : left + crop.shape[1]] = crop
        yield mask


def _trimmed(mask: BoolArray) -> tuple[BoolArray, tuple[int, int]]:
    """Crop of a mask, and the corner xy of its box."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    crop = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return crop, (int(columns[0]), int(rows[0]))
