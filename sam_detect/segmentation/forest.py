"""Segmenter ``forest``: what ``naive`` proposes and, in every picture, the objects that a pixel
classifier finds, which is trained on the examples (``_forest_objects``)."""

from __future__ import annotations

from sam_detect.segmentation.naive import NaiveSegmenter


class ForestSegmenter(NaiveSegmenter):
    """:class:`NaiveSegmenter` that learns from the examples for all pictures, not only for those
    that many of them are from. Takes and raises what :class:`NaiveSegmenter` does."""

    least_outlined = 0
    rates_as = "naive"
