"""Checks what parts return, so that a part that breaks its contract is named.

:class:`Part`, the base class of all interfaces, wraps the methods of a subclass once, when the
class is created. So every caller gets checked results, and no caller checks anything itself.
"""

from __future__ import annotations

import functools
import inspect
import json
import numbers
from abc import ABC
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np

from sam_detect.errors import (
    ConfigError,
    ExtensionError,
    LibraryError,
    MaskError,
    SamDetectError,
    one_line,
)
from sam_detect.types import Classification, Frame, Masks, Point
from sam_detect.types.labels import normalised_label
from sam_detect.types.masks import FloatArray

Check = Callable[..., Any]
"""``check(result, part, *arguments)`` returns the result or raises ``BrokenContractError``."""
UNIT_TOLERANCE = 0.01
"""How far the length of a vector may differ from 1: half precision is no broken contract."""


class BrokenContractError(Exception):
    """What a method must return, and what it returned."""

    def __init__(self, expected: str, got: object) -> None:
        super().__init__(f"must return {expected}, but returned {got}")


class Part(ABC):  # noqa: B024 - the interfaces have the abstract methods
    """An extension: a class whose results are checked before anything uses them."""

    room: ClassVar[str] = "part"
    """The room it belongs to, as messages call it: segmenter, embedder, ..."""

    def __init_subclass__(cls, room: str | None = None, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.room = room or cls.room
        for name, check in CONTRACTS.get(cls.room, {}).items():
            method = inspect.getattr_static(cls, name, None)
            abstract = getattr(method, "__isabstractmethod__", False)
            if method is not None and not abstract and not hasattr(method, "checked_by"):
                setattr(cls, name, _checked(name, method, check))


def name_in_messages(part: object) -> str:
    """``the segmenter Mine``."""
    return f"the {getattr(part, 'room', 'part')} {type(part).__name__}"


def failure(part: str, method: str, error: Exception) -> ExtensionError:
    """The error to raise from an exception of any type that a user's own part raised.

    Args:
        part: as :func:`name_in_messages` returns it.
    """
    return ExtensionError(
        f"{part} failed in {method}(): {type(error).__name__}: {one_line(error)} (the traceback "
        "shows where: --debug on the command line)"
    )


def _checked(name: str, method: Any, check: Check) -> Callable[..., Any]:
    """The method, which raises :class:`ExtensionError` where it fails or its result is wrong.

    Exceptions of built-in parts stay as they are: they are bugs of sam-detect.
    """

    @functools.wraps(method)
    def call(self: Any, *arguments: Any, **options: Any) -> Any:
        bound = method.__get__(self, type(self)) if hasattr(method, "__get__") else method
        try:
            result = bound(*arguments, **options)
            return check(result, self, *arguments, *options.values())
        except BrokenContractError as error:
            raise ExtensionError(
                f"{name_in_messages(self)}: {name}() {error} (see sam_detect.interfaces)"
            ) from None
        except Exception as error:
            if _is_to_be_named(self, name, error):
                raise failure(name_in_messages(self), name, error) from error
            raise

    call.checked_by = check  # type: ignore[attr-defined]
    return cast(Callable[..., Any], call)


def _is_to_be_named(part: object, method: str, error: Exception) -> bool:
    """Whether an exception is the fault of a user's own part."""
    if type(part).__module__.partition(".")[0] == "sam_detect" or isinstance(error, MemoryError):
        return False
    # Masks that a segmenter built wrongly are no fault of the picture.
    bad_masks = method == "propose" and isinstance(error, MaskError)
    return bad_masks or not isinstance(error, SamDetectError)


def require_described(embedder: Any) -> None:
    """Raises ``ConfigError`` for an embedder without what a recipe says of it."""
    needed = {
        "name": 'a text, such as "mine"',
        "version": "a whole number, such as 1",
        "input_side": "pixels, such as 224",
        "dimension": "the length of its vectors",
    }
    for name, what in needed.items():
        value = getattr(embedder, name, None)
        whole = isinstance(value, (int, np.integer)) and value is not True and value >= 1
        if not (isinstance(value, str) and value if name == "name" else whole):
            has = "has none" if value is None else f"has {value!r}"
            raise ConfigError(f"{name_in_messages(embedder)} needs {name}: {what}; it {has}")


# -- the checks of results ------------------------------------------------------------------------


def anything(result: Any, part: object, *_: Any) -> Any:
    """Nothing to check: only exceptions are named."""
    return result


def require(right: bool, expected: str, got: object) -> None:
    """Raises ``BrokenContractError`` unless a result is right."""
    if not right:
        raise BrokenContractError(expected, got)


def proposals(result: Any, part: object, frame: Frame, *_: Any) -> Masks:
    """Masks of the frame's size, with finite qualities."""
    require(isinstance(result, Masks), "Masks (sam_detect.types.Masks)", shown(result))
    masks = cast(Masks, result)
    fits = masks.size_hw == frame.size_hw
    require(fits, f"Masks of the picture's size {frame.size_hw}", f"Masks of size {masks.size_hw}")
    finite = np.isfinite(masks.predicted_ious).all() and np.isfinite(masks.stabilities).all()
    require(bool(finite), "finite predicted_ious and stabilities", "NaN or infinity")
    return masks


def one_mask_each(result: Any, part: object, frame: Frame, places: Sequence[Any]) -> Masks:
    """As many masks of the frame's size as were asked for."""
    masks = proposals(result, part, frame)
    count = len(places)
    require(len(masks) == count, f"one mask for each of {count}", f"{len(masks)} masks")
    return masks


def one_mask(result: Any, part: object, frame: Frame, *_: Any) -> Masks:
    """One mask of the frame's size."""
    masks = proposals(result, part, frame)
    require(len(masks) == 1, "one mask", f"{len(masks)} masks")
    return masks


def same_room(result: Any, part: Part, *_: Any) -> Any:
    """A part of the same room."""
    require(getattr(result, "room", None) == part.room, f"a {part.room}", shown(result))
    return result


def unit_vectors(result: Any, part: Any, *arguments: Any) -> FloatArray:
    """One float vector of length 1 for each item of the last argument."""
    expected = (len(arguments[-1]), int(part.dimension))
    is_array = isinstance(result, np.ndarray)
    require(is_array, f"a numpy array of shape {expected}", shown(result))
    right = result.shape == expected and result.dtype.kind == "f"
    require(right, f"floats of shape {expected}", f"{result.dtype} of shape {result.shape}")
    require(bool(np.isfinite(result).all()), "finite vectors of length 1", "NaN or infinity")
    lengths = np.linalg.norm(result, axis=1)
    worst = lengths[np.abs(lengths - 1).argmax()] if len(lengths) else 1.0
    unit = bool(abs(worst - 1) <= UNIT_TOLERANCE)
    require(unit, "vectors of length 1 (divide each by its norm)", f"one of length {worst:g}")
    vectors: FloatArray = result.astype(np.float32, copy=False)
    return vectors


def one_vector_each_mask(result: Any, part: Any, frame: Any, masks: Any, *_: Any) -> FloatArray:
    """One float vector of length 1 for each mask."""
    return unit_vectors(result, part, masks)


def plain_parameters(result: Any, part: object, *_: Any) -> dict[str, Any]:
    """A dict that JSON can hold."""
    try:
        if isinstance(result, dict):
            json.dumps(result, allow_nan=False)
            return result
    except (TypeError, ValueError):
        pass
    raise BrokenContractError("a dict of texts, numbers and lists", shown(result))


def one_classification_each(
    result: Any, part: object, vectors: FloatArray, *_: Any
) -> Sequence[Classification]:
    """One classification for each vector, with a confidence from 0 to 1 and valid labels."""
    expected = "a list of Classifications (sam_detect.types.Classification)"
    require(isinstance(result, (list, tuple)), expected, shown(result))
    count = len(vectors)
    require(len(result) == count, f"one Classification for each of {count} vectors", len(result))
    for each in result:
        require(isinstance(each, Classification), expected, f"a list with {shown(each)}")
        real = isinstance(each.confidence, numbers.Real) and 0 <= float(each.confidence) <= 1
        require(real, "confidences from 0 to 1", shown(each.confidence))
    for label in {label for each in result for label in (each.label, each.best_label)} - {None}:
        try:
            normalised_label(label)
        except LibraryError as error:
            raise BrokenContractError("labels that are names, or None", error) from None
    answers: Sequence[Classification] = result
    return answers


def hits_each(result: Any, part: object, vectors: FloatArray, *_: Any) -> Any:
    """A list of hits for each vector."""
    listed, count = isinstance(result, (list, tuple)), len(vectors)
    got = len(result) if listed else shown(result)
    require(got == count, f"one list of Hits for each of {count} vectors", got)
    return result


def points(result: Iterable[Point], part: object, *_: Any) -> Iterator[Point]:
    """The points; an exception between two of them is named, too."""
    try:
        yield from result
    except Exception as error:
        if _is_to_be_named(part, "scan", error):
            raise failure(name_in_messages(part), "scan", error) from error
        raise


def whole_number(result: Any, part: object, *_: Any) -> int:
    """A number of things."""
    whole = isinstance(result, numbers.Integral) and not isinstance(result, bool)
    require(whole and int(result) >= 0, "a whole number, 0 or more", shown(result))
    return int(result)


def manifest(result: Any, part: object, *_: Any) -> Any:
    """A dict, or None."""
    right = result is None or isinstance(result, dict)
    require(right, "the dict that was written last, or None", shown(result))
    return result


def paths(result: Any, part: object, *_: Any) -> list[Path]:
    """The files that were written."""
    right = isinstance(result, (list, tuple)) and all(isinstance(p, Path) for p in result)
    require(right, "a list of pathlib.Path", shown(result))
    return list(result)


def shown(value: object) -> str:
    """A value in a few words, for a message."""
    if value is None:
        return "None"
    if isinstance(value, (str, bool, numbers.Number)):
        return f"{value!r:.60}"
    return f"a {type(value).__qualname__}"


CONTRACTS: dict[str, dict[str, Check]] = {
    "segmenter": {
        "propose": proposals,
        "segment_boxes": one_mask_each,
        "segment_points": one_mask_each,
        "segment_clicks": one_mask,
        "segment_masks": one_mask_each,
    },
    "embedder": {
        "embed": unit_vectors,
        "embed_frame": one_vector_each_mask,
        "embed_texts": unit_vectors,
        "for_areas": same_room,
        "parameters": plain_parameters,
    },
    "labeller": {"label": one_classification_each},
    "store": {
        "read_manifest": manifest,
        "search": hits_each,
        "scan": points,
        "count": whole_number,
        "size_bytes": whole_number,
        **dict.fromkeys(
            ("session", "write_manifest", "upsert", "delete", "replace_all", "destroy"), anything
        ),
    },
    "format": {"write": anything, "close": paths},
    "video format": {"write": anything, "close": paths},
}
"""Room to the methods of its parts, each with the check of its results."""
