"""A cache of vectors, so that an unchanged crop is not embedded twice."""

from __future__ import annotations

import hashlib
import json
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

from sam_detect.masks import FloatArray
from sam_detect.types import Crop, Frame, Masks, Recipe

Make = Callable[[Sequence[int]], FloatArray]


class KnownVectors(Protocol):
    """Looks up vectors that were computed before, by keys of its own."""

    def keys_of_crops(self, crops: Sequence[Crop], recipe: Recipe) -> Sequence[Any]:
        """One key for each crop."""

    def vectors(self, keys: Sequence[Any], make: Make) -> FloatArray:
        """``(N, D)`` vectors of N keys.

        Args:
            make: computes the ``(n, D)`` vectors of n of them, given by index.
        """


class VectorCache:
    """The vectors used last (LRU), by the content of their crops and the recipe.

    Args:
        size: how many vectors are kept; 0 turns the cache off.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._kept: OrderedDict[bytes, FloatArray] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._kept)

    def keys_of_crops(self, crops: Sequence[Crop], recipe: Recipe) -> list[bytes]:
        """One key for each crop: its pixels, its mask, its scale, and the recipe."""
        if not self._size:
            return [b""] * len(crops)
        head = _digest_of(recipe)
        return [
            _digest(head, crop.image_rgb.tobytes(), np.packbits(crop.mask).tobytes(),
                    repr((crop.mask.shape, crop.scale)).encode())
            for crop in crops
        ]  # fmt: skip

    def keys_of_masks(self, frame: Frame, masks: Masks, recipe: Recipe) -> list[bytes]:
        """One key for each mask of a picture: the picture's pixels, the mask, and the recipe."""
        if not self._size:
            return [b""] * len(masks)
        shape = repr(frame.image_rgb.shape).encode()
        head = _digest(_digest_of(recipe), shape, frame.image_rgb.tobytes())
        places = masks.boxes_xyxy.tolist()
        return [
            _digest(head, repr(place).encode(), outline)
            for place, outline in zip(places, masks.crop_rles, strict=True)
        ]

    def vectors(self, keys: Sequence[bytes], make: Make) -> FloatArray:
        """``(N, D)`` vectors of N keys.

        Args:
            make: computes the ``(n, D)`` vectors of n of them, given by index.
        """
        if not self._size or not keys:
            return make(range(len(keys)))
        known = self._look_up(keys)
        missing = {key: index for index, key in reversed(list(enumerate(keys))) if key not in known}
        if missing:
            indices = sorted(missing.values())
            made = make(indices)
            # Copies: a view of one row would keep all of them.
            new = {keys[i]: np.array(row) for i, row in zip(indices, made, strict=True)}
            known |= new
            self._keep(new)
        return np.stack([known[key] for key in keys])

    def _look_up(self, keys: Sequence[bytes]) -> dict[bytes, FloatArray]:
        with self._lock:
            found = {key: self._kept[key] for key in keys if key in self._kept}
            for key in found:
                self._kept.move_to_end(key)
        return found

    def _keep(self, new: dict[bytes, FloatArray]) -> None:
        with self._lock:
            self._kept.update(new)
            while len(self._kept) > self._size:
                self._kept.popitem(last=False)


def _digest_of(recipe: Recipe) -> bytes:
    return _digest(json.dumps(recipe.to_dict(), sort_keys=True, default=str).encode())


def _digest(*contents: bytes) -> bytes:
    digest = hashlib.blake2b(digest_size=16)
    for content in contents:
        digest.update(len(content).to_bytes(8, "little"))
        digest.update(content)
    return digest.digest()
