"""The component tree of an image, and the best disjoint ones of its nodes.

A node is a connected region of the pixels that reach a level; its parent is the region of a lower
level that holds it (Salembier, Oliveras and Garrido 1998). Objects that touch are one node at a low
level and several at a higher one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from skimage.morphology import max_tree

from sam_detect.masks import FloatArray, IntArray

LEVELS = 48
"""Levels from 0 to 1."""
Values = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class ComponentTree:
    """N nodes; each level's nodes come before those of lower levels, the root is the last.

    Attributes:
        parents: ``(N,)`` index of the parent; the root is its own.
        levels: ``(N,)`` whole numbers.
        node_of: ``(H, W)`` the highest node that holds each pixel.
    """

    parents: IntArray
    levels: IntArray
    node_of: IntArray

    @classmethod
    def of(cls, values: FloatArray) -> ComponentTree:
        """The tree of ``(H, W)`` values in 0..1, with 4-connected regions."""
        quantised = np.clip(values * LEVELS, 0, LEVELS).astype(np.uint8)
        parent, order = max_tree(quantised, connectivity=1)
        level, above = quantised.ravel(), parent.ravel()
        is_node = level[above] != level
        is_node[order[0]] = True  # the root
        pixels = np.flatnonzero(is_node)
        pixels = pixels[np.argsort(-level[pixels].astype(np.int64), kind="stable")]
        index = np.zeros(level.size, np.int64)
        index[pixels] = np.arange(len(pixels))
        node_of = np.where(is_node, index, index[above])
        parents = node_of[above[pixels]]
        parents[-1] = len(pixels) - 1
        return cls(parents, level[pixels].astype(np.int64), node_of.reshape(values.shape))

    def sums(self, values: npt.NDArray[np.floating]) -> Values:
        """``(N,)`` sum of ``(H, W)`` values over the pixels of each node."""
        nodes = self.node_of.ravel()
        found: Values = np.zeros(len(self.parents))
        np.add.at(found, nodes, values.ravel())
        for these in self._by_level():
            np.add.at(found, self.parents[these], found[these])
        return found

    def best_disjoint(self, values: Values) -> IntArray:
        """``(H, W)`` the node, of those with the largest sum of ``(N,)`` values of which none holds
        another, that holds each pixel; -1 for none. By dynamic programming, from the leaves."""
        below, taken = np.zeros(len(values)), np.zeros(len(values), np.bool_)
        root = len(values) - 1
        for these in [*self._by_level(), np.array([root])]:
            taken[these] = (values[these] > 0) & (values[these] >= below[these])
            best = np.where(taken[these], values[these], below[these])
            if these[0] != root:
                np.add.at(below, self.parents[these], best)
        chosen = np.full(len(values), -1, np.int64)
        chosen[root] = root if taken[root] else -1
        for these in reversed(list(self._by_level())):
            over = chosen[self.parents[these]]
            chosen[these] = np.where(over >= 0, over, np.where(taken[these], these, -1))
        return np.asarray(chosen[self.node_of], np.int64)

    def _by_level(self) -> list[IntArray]:
        """The nodes but for the root, highest level first."""
        levels = self.levels[:-1]
        ends = np.flatnonzero(np.diff(levels)) + 1
        return [each for each in np.split(np.arange(len(levels)), ends) if len(each)]
