"""Whether a library is what was stored, and what can be saved of one that is not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sam_detect.errors import LibraryCorruptError, LibraryError
from sam_detect.interfaces import StoredPoints
from sam_detect.library import manifest as manifests
from sam_detect.library import places
from sam_detect.library.example import Example
from sam_detect.library.library import Library
from sam_detect.library.manifest import ContentsRecord
from sam_detect.types import Point

Sound = Mapping[str, int]
"""Sound examples: id to checksum."""


@dataclass(frozen=True)
class Verification:
    """What a library has.

    Attributes:
        library: its name.
        place: the options that name it in a command.
        examples: sound examples.
        damaged: ``{id: why}`` of the others.
        stored: how many were stored; None where that is not known.
        problem: what is wrong with the library as a whole; empty where nothing is.
    """

    library: str
    place: str
    examples: int
    damaged: dict[str, str]
    stored: int | None
    problem: str

    @property
    def sound(self) -> bool:
        return not self.damaged and not self.problem

    def to_dict(self) -> dict[str, Any]:
        return {
            "sound": self.sound,
            "examples": self.examples,
            "stored": self.stored,
            "damaged": [{"id": key, "why": why} for key, why in self.damaged.items()],
            "problem": self.problem or None,
        }

    def lines(self) -> list[str]:
        """For people: each damaged example, what else is wrong, and the sum of it."""
        lines = [f"error: example {key} is damaged: {why}" for key, why in self.damaged.items()]
        lines += [f"error: library '{self.library}': {self.problem}"] * bool(self.problem)
        more = f", {len(self.damaged)} damaged" if self.damaged else ""
        then = "" if self.sound else f"; keep what is sound: sam-detect library repair {self.place}"
        return [*lines, f"library '{self.library}': {_sound(self.examples)}{more}{then}"]


@dataclass(frozen=True)
class Repaired:
    """What a repair did.

    Attributes:
        library: the library's name.
        examples: examples that the library has now, all sound.
        recovered: of these, those that were damaged or lost and came from the engine's log.
        removed: ``{id: why}`` of examples that could not be saved.
        lost: stored examples that are nowhere any more, as far as that is known.
        exact: whether the library is known to be exactly what was stored.
    """

    library: str
    examples: int
    recovered: int
    removed: dict[str, str]
    lost: int
    exact: bool

    @property
    def sound(self) -> bool:
        """Whether no example was lost."""
        return not self.removed and not self.lost

    def to_dict(self) -> dict[str, Any]:
        removed = [{"id": key, "why": why} for key, why in self.removed.items()]
        data = {**asdict(self), "removed": removed}
        del data["library"]
        return data

    def lines(self) -> list[str]:
        """For people: each removed example, how many are lost, and the sum of it."""
        lines = [f"removed example {key}: {why}" for key, why in self.removed.items()]
        if self.lost:
            lines.append(f"error: {self.lost} stored examples cannot be found any more")
        back = f", {self.recovered} recovered" if self.recovered else ""
        whole = "; it is as it was stored" if self.exact else ""
        return [*lines, f"library '{self.library}' has {_sound(self.examples)}{back}{whole}"]


def verify(library: Library) -> Verification:
    """Reads every example and compares it with its checksums, and all with their record.

    Raises:
        LibraryCorruptError: the library cannot be opened at all.
    """
    with library.store.session():
        manifest = library.require()
        sound, damaged = _examine(library.store)
    stored = ContentsRecord.of_manifest(manifest) if library.store.exclusive else None
    problem = ""
    if stored is not None:
        total = stored.sum if damaged else _sum(sound)
        problem = stored.problem(len(sound) + len(damaged), total)
    place = places.options_of(library.store.location)
    known = stored.examples if stored else None
    return Verification(library.name, place, len(sound), damaged, known, problem)


def repair(library: Library) -> Repaired:
    """Keeps what is sound; removes the rest. Nothing is changed in a library that is sound.

    Of the embedded engine, its files are read as they are, and their data alone. The result is put
    in place in one step: a process killed in between leaves the library as it was.

    Raises:
        LibraryCorruptError: nothing can be read any more; the message says what to do.
    """
    store = library.store
    with store.session():
        manifest = manifests.read(library.require(), store.location)
        stored = ContentsRecord.of_manifest(manifest) if store.exclusive else None
        with store.salvage() as ways:
            readings = [way for way in ways if way is not None]
            found = [_examine(reading) for reading in readings]
            if not any(sound for sound, _ in found) and (stored is None or stored.examples):
                raise LibraryCorruptError(
                    f"nothing of library '{library.name}' in {store.location} can be read any "
                    "more; nothing was changed: move it to another place, where it may still be "
                    "saved, and import an export or learn again"
                )
            sound = [each for each, _ in found]
            kept, exact = _choose(sound, found[0][1], stored) if found else ({}, True)
            first, why = found[0] if found else ({}, {})
            # Where these are exactly what was stored, another was removed before and is back.
            damaged = {} if exact else {key: text for key, text in why.items() if key not in kept}
            as_it_is = bool(ways) and ways[0] is not None
            if not (as_it_is and kept == first and not why and (exact or stored is None)):
                points = _points(kept, sound, readings)
                manifests.replace_all(store, points, manifests.with_new_generation(manifest))
    lost = 0 if stored is None else max(0, stored.examples - len(kept) - len(damaged))
    recovered = sum(key not in first for key in kept)
    return Repaired(library.name, len(kept), recovered, damaged, 0 if exact else lost, exact)


def _sound(count: int) -> str:
    return f"{count} sound example{'' if count == 1 else 's'}"


def _examine(store: StoredPoints) -> tuple[dict[str, int], dict[str, str]]:
    """The checksums of the sound examples, and what is wrong with the others, by id."""
    sound: dict[str, int] = {}
    damaged: dict[str, str] = {}
    for key in [point.id for point in store.scan(fields=())]:
        try:
            [point] = store.scan([key], with_vectors=True)
            Example.from_point(point)
            sound[key] = manifests.checksum_of(point)
        except (LibraryCorruptError, ValueError) as error:
            # What the engine says of its files names the library, and is no reason of an example.
            why = str(error).partition(f"{key} is damaged: ")[2]
            damaged[key] = why or "it cannot be read"
    return sound, damaged


def _sum(sound: Sound) -> int:
    return sum(sound.values()) % manifests.MODULUS


def _choose(
    readings: Sequence[Sound], damaged: Mapping[str, str], stored: ContentsRecord | None
) -> tuple[dict[str, int], bool]:
    """The sound examples to keep, and whether these are exactly those that were stored."""
    first = readings[0]
    mended, everything = dict(first), dict(first)
    for other in readings[1:]:
        everything = {**other, **everything}
        mended = {**{k: v for k, v in other.items() if k in damaged}, **mended}
    if stored is None:
        return mended, False
    for choice in (first, mended, *readings[1:], everything):
        if len(choice) == stored.examples and _sum(choice) == stored.sum:
            return dict(choice), True
        # What was removed and is back is what the sum has too much.
        back = _find_summands((_sum(choice) - stored.sum) % manifests.MODULUS, choice)
        if back and len(choice) == stored.examples + len(back):
            return {key: value for key, value in choice.items() if value not in back}, True
    return mended, False


def _find_summands(total: int, sound: Sound) -> set[int]:
    """One or two checksums with this sum; empty where there are none."""
    values = set(sound.values())
    if total in values:
        return {total}
    for value in values:
        other = (total - value) % manifests.MODULUS
        if other in values and other != value:
            return {value, other}
    return set()


def _points(
    kept: Sound, readings: Sequence[Sound], stores: Sequence[StoredPoints]
) -> Iterator[Point]:
    for key, checksum in kept.items():
        where = next(i for i, sound in enumerate(readings) if sound.get(key) == checksum)
        found = list(stores[where].scan([key], with_vectors=True))
        if len(found) != 1:
            raise LibraryError(f"example {key} changed while the library was repaired; try again")
        yield found[0]
