"""Which objects of a dataset are shown as examples, and which pictures are searched for others."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sam_detect.errors import ConfigError
from sam_detect.evaluation.dataset import AnnotatedObject, AnnotatedPicture, Dataset, Id


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


def splits(
    dataset: Dataset,
    *,
    shots: int,
    seeds: Sequence[int],
    protocol: str = "cross",
    group_by: str | None = None,
) -> Iterator[Split]:
    """The episodes of a dataset: one for each seed and group.

    The pictures of a group are shuffled by the seed, and walked until ``shots`` objects of every
    label are chosen; a picture that adds none is passed over. ``cross`` searches the
    pictures that gave no example, ``same`` in those that did.

    Raises:
        ConfigError: no picture has the field to group by, there is no object to show, or no
            picture is left to search.
    """
    for group, pictures in _groups(dataset, group_by).items():
        where = f"{dataset.name}, {group_by} {group}" if group_by else dataset.name
        found = [_split(pictures, shots, seed, protocol, group) for seed in seeds]
        for split in found:
            if not split.support:
                raise ConfigError(f"{where} has no object to show")
            if not split.queries:
                raise ConfigError(
                    f"{where} leaves no picture to search after {shots} examples of each label: "
                    f"ask for fewer shots, or for --protocol same"
                )
            yield split


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
    pictures: Sequence[AnnotatedPicture], shots: int, seed: int, protocol: str, group: str | None
) -> Split:
    generator = random.Random(seed)  # noqa: S311 - repeatable, not secret
    walked = list(pictures)
    generator.shuffle(walked)
    counts = Counter(o.label for picture in pictures for o in picture.objects if not o.crowd)
    # The last object of a label is left to be found.
    wanted = {label: min(shots, max(count - 1, 1)) for label, count in sorted(counts.items())}
    problems = [
        f"{_where(group)}only {counts[label]} of '{label}': {number} shown instead of {shots}"
        for label, number in wanted.items()
        if number < shots
    ]
    support = []
    for picture in walked:
        chosen = _choose(picture, wanted, generator)
        if chosen:
            support.append((picture, chosen))
    giving = {picture.id for picture, _ in support}
    queries = [picture for picture in pictures if (picture.id in giving) == (protocol == "same")]
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


def _where(group: str | None) -> str:
    return "" if group is None else f"{group}: "
