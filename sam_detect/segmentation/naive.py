"""Segmenter ``naive``: proposals without weights.

1. Regions that differ from their surroundings: level sets of the image (``_level_sets``).
2. Where it is told how much each pixel is like the examples of a library, the level sets of this
   map are regions, too, and what is not more like them than its surroundings has score 0
   (``_similar_regions``).
3. In a picture that some of the examples are from, objects are added that a pixel classifier finds,
   which is trained on the examples; with many of them it judges all proposals
   (``_forest_objects``).
"""

from __future__ import annotations

import math
import threading
from dataclasses import replace
from typing import ClassVar, Literal

import cv2
import numpy as np

from sam_detect.errors import ConfigError
from sam_detect.interfaces import Segmenter
from sam_detect.models.sharing import WhileAlive
from sam_detect.options import require_number
from sam_detect.segmentation._forest_objects import Forests
from sam_detect.segmentation._level_sets import Basis, as_masks, propose
from sam_detect.segmentation._regions import enlarged
from sam_detect.types import NO_HINTS, ExampleCrops, Frame, HintName, Hints, Masks, SimilarityMap
from sam_detect.types.scratch import reduced

WORKING_PIXELS = 700_000
"""Larger images are reduced to this many pixels; the masks have full resolution."""
AREA_SHARES, LEAST_AREA = (4e-5, 0.7), 16
"""Automatic area limits, as shares of the image, and the least in pixels."""

_BASES: WhileAlive[Frame, dict[tuple[int, int], Basis]] = WhileAlive(1)
"""Of the last picture, by area limits: it is often looked at again, with other examples."""
_LEARNT: WhileAlive[ExampleCrops, Forests] = WhileAlive(8)
_LEARNING = threading.Lock()
"""The windows of a picture do not each train the same forests."""


class NaiveSegmenter(Segmenter):
    """Proposes regions that differ from their surroundings. Deterministic.

    Args:
        min_area: smallest mask in pixels; 0 or None: 0.004 % of the image, at least 16 pixels.
        max_area: largest mask in pixels; 0 or None: 70 % of the image.
        max_proposals: at most this many masks, the best.
        similar_regions: ``"auto"``: a library's examples choose among the proposals, and add some,
            where they tell objects from their surroundings; ``"off"``: never.
        forest: ``"auto"``: in a picture in which at least one of a library's examples is outlined,
            and where each label has enough of them, these train a pixel classifier, which adds
            proposals and judges them; ``"off"``: never.

    Raises:
        ConfigError: a negative area, less than one proposal, or another word.
    """

    thread_safe = True
    _learns_from: ClassVar[HintName] = "crops where outlined"

    def __init__(
        self,
        *,
        min_area: int | None = None,
        max_area: int | None = None,
        max_proposals: int = 1000,
        similar_regions: Literal["auto", "off"] = "auto",
        forest: Literal["auto", "off"] = "auto",
    ) -> None:
        require_number("min_area", min_area or 0, 0)
        require_number("max_area", max_area or 0, 0)
        require_number("max_proposals", max_proposals, 1)
        if min_area and max_area and min_area > max_area:
            raise ConfigError(f"min_area {min_area} is larger than max_area {max_area}")
        self.min_area, self.max_area = min_area or 0, max_area or 0
        for name, given in (("similar_regions", similar_regions), ("forest", forest)):
            if given not in ("auto", "off"):
                raise ConfigError(f"{name} '{given}' is neither 'auto' nor 'off'")
        self.max_proposals = max_proposals
        self.similar_regions, self.forest = similar_regions, forest
        self.uses = (
            *(("separable similarity",) if similar_regions == "auto" else ()),
            *((self._learns_from,) if forest == "auto" else ()),
        )

    def propose(self, frame: Frame, hints: Hints = NO_HINTS) -> Masks:
        found = replace(self._regions(frame, hints), rated_by="naive")
        forests = self._forests(hints) if self.forest == "auto" else None
        return found if forests is None else forests.with_objects(frame, found)

    def _forests(self, hints: Hints) -> Forests | None:
        """What is learnt of the examples; None where they cannot train a pixel classifier."""
        if not hints.crops:
            return None
        with _LEARNING:
            forests = _LEARNT.of(hints.crops, lambda: Forests.of(hints.crops))
        # Where they lack a label the examples decide, unless forests are asked for everywhere.
        trusted = forests.knows_all or self._learns_from == "crops"
        return replace(forests, outlined_here=hints.outlined) if trusted else None

    def _regions(self, frame: Frame, hints: Hints) -> Masks:
        """The regions of a picture that differ from their surroundings."""
        height, width = frame.size_hw
        factor = min(1.0, math.sqrt(WORKING_PIXELS / (height * width)))
        size_wh = width, height
        if factor < 1:
            size_wh = max(1, round(width * factor)), max(1, round(height * factor))
        pixels = size_wh[0] * size_wh[1]
        least = self._least_area(pixels, factor**2)
        most = self.max_area * factor**2 or AREA_SHARES[1] * pixels
        limits = (max(1, math.floor(least)), max(1, math.ceil(most)))

        def make() -> Basis:
            image = frame.image_rgb if factor == 1 else reduced(frame.image_rgb, size_wh)
            return Basis.of(image, limits)

        kept = _BASES.of(frame, dict)
        basis = kept[limits] = kept.get(limits) or make()
        regions, scores, excluded = propose(
            basis,
            limits=limits,
            max_proposals=self.max_proposals,
            similarity=_similar(frame, hints, size_wh) if self.similar_regions == "auto" else [],
        )
        if factor < 1:
            regions = [enlarged(region, size_wh[::-1], frame.size_hw) for region in regions]
        masks = as_masks(frame.size_hw, regions, scores, excluded)
        wanted = masks.areas >= self.min_area
        if self.max_area:
            wanted &= masks.areas <= self.max_area
        return masks[wanted]

    def smallest_area(self, size_hw: tuple[int, int], hints: Hints = NO_HINTS) -> float:
        share = self.worked_pixels(size_hw) / (size_hw[0] * size_hw[1])
        return max(1, math.floor(self._least_area(self.worked_pixels(size_hw), share))) / share

    def worked_pixels(self, size_hw: tuple[int, int]) -> int:
        return min(size_hw[0] * size_hw[1], WORKING_PIXELS)

    def _least_area(self, pixels: int, share: float) -> float:
        """Pixels of the smallest mask in an image of this many pixels, a share of the given one."""
        return self.min_area * share or max(LEAST_AREA, AREA_SHARES[0] * pixels)


def _similar(frame: Frame, hints: Hints, size_wh: tuple[int, int]) -> list[SimilarityMap]:
    """The similarity of a frame to the examples, as it is worked on; none without examples."""
    if hints.similarity is None:
        return []
    factor, found = size_wh[0] / frame.size_hw[1], []
    for each in hints.similarity.separable(frame.image_rgb):
        least, most = (round(area * factor**2) for area in each.areas)
        values = each.values
        if values is not None:
            values = np.asarray(cv2.resize(values, size_wh), np.float32)
        found.append(replace(each, values=values, areas=(least, most)))
    return found
