"""Runs a method over the episodes of a dataset."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from sam_detect.errors import ConfigError
from sam_detect.evaluation.comparison import Comparison, compare
from sam_detect.evaluation.dataset import AnnotatedObject, AnnotatedPicture, Dataset, masks_of
from sam_detect.evaluation.episodes import Split, splits
from sam_detect.evaluation.methods import Found, Method, Shown
from sam_detect.sources import load_image
from sam_detect.types import Frame, Masks

Outline = Callable[[Frame, Sequence[Sequence[float]]], Masks]
"""One mask for each box ``x, y, width, height`` of a picture."""


@dataclass(frozen=True)
class Protocol:
    """How examples are drawn and what counts as found.

    Attributes:
        shots: examples of each label.
        seeds: one episode (of every group) each.
        iou: least overlap of a detection with its object.
        draw: ``cross`` searches other pictures than the examples', ``same`` theirs.
        group_by: field of the pictures within whose values examples and queries are drawn.
        task: ``instance`` counts objects, ``semantic`` pixels.
        exhaustive: the examples' pictures are annotated to the last object: what overlaps none of
            them may be learnt as background. The other objects are still no examples.
    """

    shots: int = 5
    seeds: tuple[int, ...] = (0, 1, 2)
    iou: float = 0.5
    draw: Literal["cross", "same"] = "cross"
    group_by: str | None = None
    task: Literal["instance", "semantic"] = "instance"
    exhaustive: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.shots, int) or self.shots < 1:
            raise ConfigError(f"shots must be a whole number of at least 1, got {self.shots}")
        whole = isinstance(self.seeds, tuple) and all(isinstance(s, int) for s in self.seeds)
        if not whole or not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise ConfigError(f"seeds are one or more different whole numbers, got {self.seeds}")
        if not isinstance(self.iou, (int, float)) or not 0 < self.iou <= 1:
            raise ConfigError(f"iou must be a number above 0 and at most 1, got {self.iou}")
        if self.draw not in ("cross", "same"):
            raise ConfigError(f"a protocol draws cross or same, got '{self.draw}'")
        if self.task not in ("instance", "semantic"):
            raise ConfigError(f"a task is instance or semantic, got '{self.task}'")


@dataclass(frozen=True, eq=False)
class Query:
    """What a method found in one picture, and its comparison with the annotated objects."""

    picture: AnnotatedPicture
    found: Found
    comparison: Comparison


@dataclass(frozen=True, eq=False)
class Episode:
    """One set of examples and all that was found with them."""

    split: Split
    queries: tuple[Query, ...]


def run(
    dataset: Dataset,
    method: Method,
    protocol: Protocol,
    *,
    outline: Outline,
    max_pixels: int,
    planned: Sequence[Split] | None = None,
) -> Iterator[Query | Episode]:
    """Yields each query as it is done, and each episode after its queries.

    Args:
        outline: gives the objects of a support picture their outlines, where they are boxes.
        max_pixels: larger pictures are refused.
        planned: the episodes; None draws them.

    Raises:
        ConfigError: the protocol does not fit the dataset.
        ImageError: a picture cannot be read.
    """
    for split in plan(dataset, protocol) if planned is None else planned:
        support = []
        for picture, objects in split.support:
            frame = load_image(picture.path, max_pixels=max_pixels)
            masks = outlines(frame, picture, objects, outline)
            others = None
            if protocol.exhaustive:
                rest = [o for o in picture.objects if o not in objects]
                others = outlines(frame, picture, rest, outline)
            support.append(Shown(frame, masks, tuple(o.label for o in objects), others))
        method.learn(support)
        queries = []
        for picture in split.queries:
            found = method.find(load_image(picture.path, max_pixels=max_pixels))
            comparison = compare(
                picture,
                found,
                shown=split.shown,
                boxes=dataset.boxes_only,
                iou_threshold=protocol.iou,
            )
            queries.append(Query(picture, found, comparison))
            yield queries[-1]
        yield Episode(split, tuple(queries))


def plan(dataset: Dataset, protocol: Protocol) -> list[Split]:
    """The episodes that a protocol draws."""
    return list(
        splits(
            dataset,
            shots=protocol.shots,
            seeds=protocol.seeds,
            protocol=protocol.draw,
            group_by=protocol.group_by,
        )
    )


def outlines(
    frame: Frame,
    picture: AnnotatedPicture,
    objects: Sequence[AnnotatedObject],
    outline: Outline,
) -> Masks:
    """The examples' outlines. A box is given the outline that a user's box would get."""
    if all(o.mask_rle is not None for o in objects):
        return masks_of(picture, objects)
    return outline(frame, [o.bbox_xywh for o in objects])
