"""The component tree of an image, and the best disjoint ones of its nodes.

A node is a connected region of the pixels that reach a level; its parent is the region of a lower
level that holds it (Salembier, Oliveras and Garrido 1998). Objects that touch are one node at a low
level and several at a higher one.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from sam_detect.types.masks import FloatArray, IntArray

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
        ordered = np.argsort(quantised, axis=None, kind="stable")
        ends = np.cumsum(np.bincount(quantised.ravel(), minlength=LEVELS + 1))
        node_of = np.zeros(quantised.size, np.int64)
        levels, children, parents, count = list[IntArray](), list[IntArray](), list[IntArray](), 0
        # Nodes that no node of a level so far holds, and a pixel of each.
        tops, tops_at = np.zeros(0, np.int64), np.zeros(0, np.int64)
        for level in range(LEVELS, -1, -1):
            pixels = ordered[ends[level - 1] if level else 0 : ends[level]]
            if not len(pixels):
                continue
            reached = (quantised >= level).view(np.uint8)
            regions = cv2.connectedComponents(reached, connectivity=4)[1].ravel()
            # Without a pixel of this very level a region is a node of a higher one.
            found, first, which = np.unique(regions[pixels], return_index=True, return_inverse=True)
            nodes = count + np.arange(len(found))
            node_of[pixels] = nodes[which.ravel()]
            node_at = np.full(int(regions.max()) + 1, -1, np.int64)
            node_at[found] = nodes
            holder = node_at[regions[tops_at]]
            held = holder >= 0
            children.append(tops[held])
            parents.append(holder[held])
            tops = np.concatenate([tops[~held], nodes])
            tops_at = np.concatenate([tops_at[~held], pixels[first]])
            levels.append(np.full(len(nodes), level, np.int64))
            count += len(nodes)
        parent_of = np.arange(count)
        parent_of[np.concatenate(children)] = np.concatenate(parents)
        return cls(parent_of, np.concatenate(levels), node_of.reshape(values.shape))

    def sums(self, values: npt.NDArray[np.floating]) -> Values:
        """``(N,)`` sum of ``(H, W)`` values over the pixels of each node."""
        nodes, count = self.node_of.ravel(), len(self.parents)
        found = np.bincount(nodes, values.ravel(), minlength=count).astype(np.float64)
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
