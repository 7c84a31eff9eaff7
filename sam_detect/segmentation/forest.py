"""Segmenter ``forest``: what ``naive`` proposes and, in every picture, the objects that a pixel
classifier finds, which is trained on the examples (``_forest_objects``)."""

from __future__ import annotations

from typing import ClassVar

from sam_detect.segmentation.naive import NaiveSegmenter
from sam_detect.types import HintName


class ForestSegmenter(NaiveSegmenter):
    """:class:`NaiveSegmenter` that learns from the examples for all pictures, not only for those
    that many of them are from. Takes and raises what :class:`NaiveSegmenter` does."""

    _learns_from: ClassVar[HintName] = "crops"
