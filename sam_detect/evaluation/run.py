"""Draws the episodes of a protocol, and runs a method over them."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from sam_detect.errors import ConfigError
from sam_detect.evaluation.comparison import Comparison, compare
from sam_detect.evaluation.dataset import AnnotatedObject, AnnotatedPicture, Dataset, Id, masks_of
from sam_detect.evaluation.methods import Method, Predictions, SupportImage
from sam_detect.types import Frame, Masks

DRAWS = ("cross", "same", "each")
"""Where objects are searched, see :class:`Protocol`."""


@dataclass(frozen=True)
class Protocol:
    """How examples are drawn and what counts as found.

    Attributes:
        shots: examples of each label.
        seeds: one episode (of every group) each.
        iou: least overlap of a detection with its object.
        draw: ``cross`` searches other pictures than the examples', ``same`` theirs; ``each`` makes
            each picture an episode of its own, whose examples are its own.
        group_by: field of the pictures within whose values examples and queries are drawn.
        task: ``instance`` counts objects, ``semantic`` pixels.
        exhaustive: the examples' pictures are annotated to the last object: what overlaps none of
            them may be learnt as background. The other objects are still no examples.
    """

    shots: int = 5
    seeds: tuple[int, ...] = (0, 1, 2)
    iou: float = 0.5
    draw: Literal["cross", "same", "each"] = "cross"
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
        if self.draw not in DRAWS:
            raise ConfigError(f"a protocol draws {', '.join(DRAWS)}; got '{self.draw}'")
        if self.task not in ("instance", "semantic"):
            raise ConfigError(f"a task is instance or semantic, got '{self.task}'")


@dataclass(frozen=True)
class Split:
    """One episode's examples and queries.

    Attributes:
        seed: decides the order of the pictures.
        group: value of the field that pictures are grouped by; None without one.
        support: pictures with the objects that are shown of each.
        queries: pictures in which objects are searched.
        problems: one line for each label of which fewer were shown than asked for.
    """

    seed: int
    group: str | None
    support: tuple[tuple[AnnotatedPicture, tuple[AnnotatedObject, ...]], ...]
    queries: tuple[AnnotatedPicture, ...]
    problems: tuple[str, ...] = ()

    @property
    def shown(self) -> frozenset[Id]:
        """Ids of all examples."""
        return frozenset(each.id for _, objects in self.support for each in objects)


def splits(dataset: Dataset, protocol: Protocol) -> list[Split]:
    """The episodes of a dataset: one for each seed and group; with ``each``, one for each seed and
    picture that has more than ``shots`` objects of a label.

    The pictures of a group are shuffled by the seed, and walked until ``shots`` objects of every
    label are chosen; a picture that adds none is passed over. ``cross`` searches the
    pictures that gave no example, ``same`` and ``each`` in those that did.

    Raises:
        ConfigError: no picture has the field to group by, there is no object to show, or no
            picture is left to search.
    """
    found = []
    for group, pictures in _groups(dataset, protocol.group_by).items():
        where = dataset.name if group is None else f"{dataset.name}, {protocol.group_by} {group}"
        drawn_from = [pictures]
        if protocol.draw == "each":
            drawn_from = [(picture,) for picture in pictures if _has_more(picture, protocol.shots)]
            if not drawn_from:
                raise ConfigError(
                    f"{where} has no picture with more than {protocol.shots} objects of a label: "
                    "ask for fewer shots, or for --protocol same"
                )
        for seed, of_episode in itertools.product(protocol.seeds, drawn_from):
            split = _split(of_episode, protocol, seed, group)
            if not split.support:
                raise ConfigError(f"{where} has no object to show")
            if not split.queries:
                raise ConfigError(
                    f"{where} leaves no picture to search after {protocol.shots} examples of each "
                    "label: ask for fewer shots, or for --protocol same"
                )
            found.append(split)
    return found


def _has_more(picture: AnnotatedPicture, shots: int) -> bool:
    counts = Counter(each.label for each in picture.objects if not each.crowd)
    return any(count > shots for count in counts.values())


def _groups(
    dataset: Dataset, group_by: str | None
) -> dict[str | None, tuple[AnnotatedPicture, ...]]:
    if group_by is None:
        return {None: dataset.pictures}
    if not any(group_by in picture.fields for picture in dataset.pictures):
        known = sorted({name for picture in dataset.pictures for name in picture.fields})
        has = f"they have: {', '.join(known)}" if known else "they have none"
        raise ConfigError(f"no picture of {dataset.name} has the field '{group_by}' ({has})")
    names = sorted({str(picture.fields.get(group_by)) for picture in dataset.pictures})
    return {
        name: tuple(p for p in dataset.pictures if str(p.fields.get(group_by)) == name)
        for name in names
    }


def _split(
    pictures: Sequence[AnnotatedPicture], protocol: Protocol, seed: int, group: str | None
) -> Split:
    shots = protocol.shots
    generator = random.Random(seed)  # noqa: S311 - repeatable, not secret
    walked = list(pictures)
    generator.shuffle(walked)
    counts = Counter(o.label for picture in pictures for o in picture.objects if not o.crowd)
    # The last object of a label is left to be found.
    wanted = {label: min(shots, max(count - 1, 1)) for label, count in sorted(counts.items())}
    where = "" if group is None else f"{group}: "
    problems = [
        f"{where}only {counts[label]} of '{label}': {number} shown instead of {shots}"
        for label, number in wanted.items()
        if number < shots
    ]
    support = []
    for picture in walked:
        chosen = _choose(picture, wanted, generator)
        if chosen:
            support.append((picture, chosen))
    giving = {picture.id for picture, _ in support}
    queries = [
        picture for picture in pictures if (picture.id in giving) == (protocol.draw != "cross")
    ]
    return Split(seed, group, tuple(support), tuple(queries), tuple(problems))


def _choose(
    picture: AnnotatedPicture, wanted: dict[str, int], generator: random.Random
) -> tuple[AnnotatedObject, ...]:
    """Objects of the labels that still want examples, which then want fewer."""
    candidates = [o for o in picture.objects if not o.crowd]
    generator.shuffle(candidates)
    chosen = []
    for each in candidates:
        if wanted[each.label] > 0:
            wanted[each.label] -= 1
            chosen.append(each)
    return tuple(chosen)


Outline = Callable[[Frame, Sequence[Sequence[float]]], Masks]
"""One mask for each box ``x, y, width, height`` of a picture."""


@dataclass(frozen=True, eq=False)
class Query:
    """What a method found in one picture, and its comparison with the annotated objects."""

    picture: AnnotatedPicture
    found: Predictions
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
    for split in splits(dataset, protocol) if planned is None else planned:
        support = []
        for picture, objects in split.support:
            frame = picture.read(max_pixels=max_pixels)
            masks = outlines(frame, picture, objects, outline)
            others = None
            if protocol.exhaustive:
                rest = [o for o in picture.objects if o not in objects]
                others = outlines(frame, picture, rest, outline)
            support.append(SupportImage(frame, masks, tuple(o.label for o in objects), others))
        method.learn(support)
        queries = []
        for picture in split.queries:
            found = method.find(picture.read(max_pixels=max_pixels))
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


def outlines(
    frame: Frame,
    picture: AnnotatedPicture,
    objects: Sequence[AnnotatedObject],
    outline: Outline,
) -> Masks:
    """The examples' outlines. A box is given the outline that a user's box would get."""
    if all(o.mask_rle is not None for o in objects):
        return masks_of(picture, objects)
    return outline(frame, [o.corners_xy or o.bbox_xywh for o in objects])
