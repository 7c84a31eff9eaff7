"""Changes of examples by hand, each of which can be undone: rename, merge, move, remove, and to
undo a learning batch.

A change is a replacement of each of some examples by none, one or several others. What is replaced
is put into the journal first. Undoing it brings an example back where all that took its place is
still as the change left it: what others changed meanwhile stays as they want it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

from sam_detect.errors import LibraryError, NotFoundError
from sam_detect.features.extraction import FeatureExtractor
from sam_detect.library import history, lookup
from sam_detect.library.example import LISTED_FIELDS, Example, label_of, with_checksums
from sam_detect.library.journal import Became, Change, Journal, digest_of
from sam_detect.library.library import BATCH, Library
from sam_detect.library.lookup import same_outline
from sam_detect.library.reindex import embed_examples, require_convertible
from sam_detect.library.writing import counting_writer
from sam_detect.types import Point
from sam_detect.types.labels import normalised_label, shown_label

Replace = Callable[[Point], list[Point]]


@dataclass(frozen=True)
class Undone:
    """What undoing a change did.

    Attributes:
        restored: examples that are as they were before the change.
        kept: those that others changed meanwhile, and which stay as they are.
    """

    change: Change
    restored: int
    kept: int


class Changes:
    """Changes the examples of a library.

    Args:
        library: whose examples are changed; other processes may use it, too.
        features: makes vectors again if the library was reindexed between a change and its undo.
    """

    def __init__(self, library: Library, features: Callable[[], FeatureExtractor]) -> None:
        self._library, self._features = library, features
        self._journal = Journal(library.store)

    def log(self) -> list[Change]:
        """The changes that can be undone, newest first."""
        return self._journal.changes()

    # -- what can be done ----------------------------------------------------------------------

    def rename(self, labels: Sequence[str], new: str, *, merge: bool = False) -> Change:
        """Gives all examples of some labels another one.

        Args:
            merge: whether the library may have the new label already.

        Raises:
            LibraryError: a label is not there, or the new one is no name or (without ``merge``)
                is there already.
        """
        new = normalised_label(new)
        with self._library.store.session():
            listed = self._listed()
            there = {label_of(point)[0] for point in listed}
            old = list(dict.fromkeys(shown_label(each) for each in labels))
            for label in old:
                if label not in there:
                    raise LibraryError(lookup.no_label(label, there, self._library.name))
            if not merge and new in there and old != [new]:
                raise LibraryError(f"there is a label '{new}' already: merge the two")
            old = [label for label in old if label != new]
            if not old:
                raise LibraryError(f"the label is '{new}' already")

            def renamed(point: Point) -> Point:
                for label in old:
                    point = history.with_renamed_label(point, label, new)
                return point

            chosen = [point for point in listed if label_of(point)[0] in old]
            ids = {point.id for point in chosen}
            earlier = [p.id for p in self._library.store.scan(fields=("before",))
                       if p.payload.get("before") and p.id not in ids]  # fmt: skip
            return self._relabel(
                listed, chosen, renamed, label=new, action="merge" if merge else "rename",
                also=earlier,
            )  # fmt: skip

    def move(self, ids: Collection[str], label: str, *, shown: str | None = None) -> Change:
        """Gives some examples another label.

        Args:
            ids: whole ids.
            shown: the label that they had when they were chosen; None: any.

        Raises:
            LibraryError: one of them is gone, or has another label than ``shown`` meanwhile; or the
                label is no name, or they have it already.
        """
        label = normalised_label(label)
        with self._library.store.session():
            listed = self._listed()
            chosen = self._chosen(listed, ids, shown)
            chosen = [point for point in chosen if label_of(point)[0] != label]
            if not chosen:
                raise LibraryError(f"the label is '{label}' already")
            return self._relabel(
                listed, chosen, lambda point: history.with_label(point, label), label=label,
                action="move",
            )  # fmt: skip

    def remove(self, ids: Collection[str], *, shown: str | None = None) -> Change:
        """Removes some examples; takes and raises what :meth:`move` does."""
        with self._library.store.session():
            chosen = self._chosen(self._listed(ids), ids, shown)
            return self._apply(
                [p.id for p in chosen], lambda _: [], action="remove",
                labels=_labels_of(chosen), target="", examples=len(chosen),
            )  # fmt: skip

    def remove_label(self, label: str) -> Change:
        """Removes all examples of a label, negatives too; raises ``LibraryError`` without any."""
        with self._library.store.session():
            self._library.require()
            ids = lookup.of_label(self._library.store, label, self._library.name)
            return self._apply(
                ids, lambda _: [], action="remove", labels=(shown_label(label),), target="",
                examples=len(ids),
            )  # fmt: skip

    def undo_batch(self, batch: str) -> Change:
        """What :meth:`Library.undo` does of a learning batch, so that it can be undone, too.

        Raises:
            NotFoundError: nothing is left of this batch.
        """
        with self._library.store.session():
            listed = self._listed()
            chosen = [p for p in listed if batch and p.payload["batch"] == batch]
            if not chosen:
                raise NotFoundError(f"nothing is left of the learning batch '{batch}'")
            mine, known = {p.id for p in chosen}, {p.id for p in listed}

            def restored(point: Point) -> list[Point]:
                former = history.restore_replaced(point)
                return [each for each in former if each.id in mine or each.id not in known]

            return self._apply(
                [p.id for p in chosen], restored, action="undo batch", labels=_labels_of(chosen),
                target="", examples=len(chosen),
            )  # fmt: skip

    def undo(self, change_id: str | None = None) -> Undone:
        """Takes a change back.

        Args:
            change_id: None: the newest one.

        Raises:
            NotFoundError: there is no such change.
            RecipeMismatchError: the library was reindexed since, to a recipe that the examples'
                crops cannot give.
        """
        with self._library.store.session():
            changes = {change.id: change for change in reversed(self._journal.changes())}
            if not changes or (change_id or next(reversed(changes))) not in changes:
                raise NotFoundError("there is no such change that could be undone")
            change = changes[change_id or next(reversed(changes))]
            with self._journal.read(change) as (archive, became):
                recipe = self._library.recipe
                converts = recipe is not None and recipe != archive.recipe
                if converts:
                    require_convertible(self._library.name, archive.recipe, self._features())
                restored, kept = self._restore(archive.points(), became, converts)
            self._journal.forget(change)
        return Undone(change, restored, kept)

    def undo_last(self) -> Undone | history.LearningBatch:
        """Takes back the newest change or the newest learning batch, whichever is newer; raises as
        :meth:`undo` and :meth:`Library.undo` do."""
        with self._library.store.session():
            change = next(iter(self.log()), None)
            batches = self._library.log()
            if change is not None and (not batches or batches[0].id < change.id):
                return self.undo(change.id)
            return self._library.undo()

    # -- inside --------------------------------------------------------------------------------

    def _listed(self, ids: Collection[str] | None = None) -> list[Point]:
        """All examples, or those of the ids that exist, with what lists show."""
        self._library.require()
        wanted = None if ids is None else list(ids)
        return list(lookup.read(self._library.store, wanted, fields=LISTED_FIELDS))

    def _chosen(
        self, listed: Sequence[Point], ids: Collection[str], shown: str | None
    ) -> list[Point]:
        known = {point.id: point for point in listed}
        expected = None if shown is None else shown_label(shown)
        gone = [key for key in ids if key not in known]
        other = [key for key in ids if key in known
                 and expected not in (None, label_of(known[key])[0])]  # fmt: skip
        if gone or other or not ids:
            what = [f"{len(gone)} of {len(ids)} were removed"] * bool(gone)
            what += [f"{len(other)} of {len(ids)} have another label"] * bool(other)
            why = " and ".join(what) + " meanwhile" if what else "no example was chosen"
            raise LibraryError(f"{why}; nothing was changed, load the examples again")
        return [known[key] for key in dict.fromkeys(ids)]

    def _relabel(
        self,
        listed: Sequence[Point],
        chosen: Sequence[Point],
        renamed: Callable[[Point], Point],
        *,
        label: str,
        action: str,
        also: Sequence[str] = (),
    ) -> Change:
        """Gives examples a label. A negative of this label gives way where the library says of the
        same outline, in the same picture, that it is one; and to the same negative."""
        ids = {point.id for point in chosen}
        after = {p.id: history.with_label(p, label).id for p in chosen}
        own = [p for p in listed if p.id not in ids and label_of(p)[0] == label]
        claimed: dict[str, list[Point]] = {}
        for point in (*own, *chosen):
            if not label_of(point)[1] and point.payload["picture"]:
                claimed.setdefault(point.payload["picture"], []).append(point)
        taken = {point.id for point in own}
        dropped = set()
        for point in (*own, *chosen):
            if not label_of(point)[1]:
                continue
            outline = point.payload["segmentation"]
            positives = claimed.get(point.payload["picture"], ())
            same = any(same_outline(each.payload["segmentation"], outline) for each in positives)
            if same or (point.id in after and after[point.id] in taken):
                dropped.add(point.id)
            taken.add(after.get(point.id, point.id))

        def replaced(point: Point) -> list[Point]:
            return [] if point.id in dropped else [renamed(point)]

        changed = [*after, *sorted(dropped - ids), *also]
        return self._apply(
            changed, replaced, action=action, labels=_labels_of(chosen), target=label,
            examples=len(chosen), dropped=len(dropped),
        )  # fmt: skip

    def _apply(
        self,
        ids: Sequence[str],
        replace: Replace,
        *,
        action: str,
        labels: tuple[str, ...],
        target: str,
        examples: int,
        dropped: int = 0,
    ) -> Change:
        """Puts a change on record, then makes it; in a session of the store."""
        library = self._library
        library.store.write_manifest(library.require())  # says so where it may only be read
        ids = list(dict.fromkeys(ids))
        became: dict[str, dict[str, str]] = {}

        def before() -> Iterator[Point]:
            for point in self._whole(ids):
                became[point.id] = {each.id: digest_of(each) for each in replace(point)}
                yield point

        change = self._journal.write(
            library.require(), before(), became, action=action, labels=labels, target=target,
            examples=examples, dropped=dropped,
        )  # fmt: skip
        stay = {key for after in became.values() for key in after}
        with counting_writer(library.store, library.require()) as writer:
            for start in range(0, len(ids), BATCH):
                points = list(self._whole(ids[start : start + BATCH]))
                writer.upsert([each for point in points for each in replace(point)])
                writer.delete([point.id for point in points if point.id not in stay])
        return change

    def _restore(self, points: Iterable[Point], became: Became, converts: bool) -> tuple[int, int]:
        library, restored, kept = self._library, 0, 0
        asked = list({*became, *(key for after in became.values() for key in after)})
        listed = lookup.read(library.store, asked, fields=LISTED_FIELDS) if asked else ()
        now = {point.id: digest_of(point) for point in listed}
        with counting_writer(library.store, library.require()) as writer:
            waiting: list[Point] = []
            for point in points:
                after = became.get(point.id, {})
                done = now.get(point.id) == after.get(point.id)
                done = done and all(now.get(key) == digest for key, digest in after.items())
                # A process that was killed may have made a part of the change.
                begun = now.get(point.id) == digest_of(point) and all(
                    now.get(key) in (None, digest) for key, digest in after.items()
                    if key != point.id
                )  # fmt: skip
                if not done and not begun:
                    kept += 1
                    continue
                restored += 1
                waiting.append(point)
                if len(waiting) == BATCH:
                    writer.upsert(self._converted(waiting, converts))
                    waiting = []
                writer.delete([key for key in after if key not in became and key in now])
            writer.upsert(self._converted(waiting, converts))
        return restored, kept

    def _converted(self, points: Sequence[Point], converts: bool) -> list[Point]:
        """The points with vectors in the library's recipe."""
        if not converts or not points:
            return list(points)
        examples = [Example.from_point(point) for point in points]
        made = embed_examples(examples, self._features())
        return [
            with_checksums(Point(point.id, vector, {**point.payload, "surroundings": around}))
            for point, (vector, around) in zip(points, made, strict=True)
        ]

    def _whole(self, ids: Sequence[str]) -> Iterator[Point]:
        for start in range(0, len(ids), BATCH):
            yield from lookup.read(
                self._library.store, ids[start : start + BATCH], with_vectors=True
            )


def _labels_of(points: Iterable[Point]) -> tuple[str, ...]:
    return tuple(sorted({label_of(point)[0] for point in points}))
