"""Annotating the pictures of a folder: what a page shows, and what its users decide.

Nothing here knows HTTP. Everything that a user decides is on disk when a method returns: examples
in the library, and what else was done in the journal.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sam_detect.api import SAMDetect
from sam_detect.errors import ImageError, LibraryError, NotFoundError
from sam_detect.io import find_images
from sam_detect.library.snapshot import LibrarySnapshot
from sam_detect.server.changes import Changes, edited, example_item, learning, outline_step
from sam_detect.server.journal import Change, Journal, Step
from sam_detect.server.pictures import OpenPicture, OpenPictures, ShownObject, id_of, without_same
from sam_detect.server.uploads import shown_name
from sam_detect.types import Detections, Frame, Masks


@dataclass(frozen=True)
class Named:
    """A decision about one object.

    Attributes:
        object: its id.
        label: its name.
        negative: whether it is *not* of this name.
    """

    object: str
    label: str
    negative: bool = False


@dataclass(frozen=True)
class UndoResult:
    """What undo or redo did.

    Attributes:
        title: of the change.
        picture: number of the picture it was in; None where that is no longer in the folder.
    """

    title: str
    picture: int | None


class AnnotationSession:
    """The pictures of some folders and one library. Safe for several threads.

    Args:
        detector: proposes, names, and keeps what users decide.
        sources: folders, patterns or pictures, as users named them.
        journal: keeps what was done.
    """

    def __init__(self, detector: SAMDetect, sources: Sequence[str], journal: Journal) -> None:
        self.detector, self._sources, self.journal = detector, list(sources), journal
        self._paths: list[str] = []
        self._numbers: dict[str, int] = {}
        self._digests: dict[str, int] = {}
        self._missing: set[int] = set()
        self.queue: list[int] = []
        """The order in which the pictures were last asked for."""
        self._lock = threading.RLock()
        self._changing = threading.RLock()
        """Held while something is decided: thousands of objects take minutes, and pictures are
        shown meanwhile. The order of locks: docs/architecture.md, "Which lock before which"."""
        self.pictures = OpenPictures(detector, self.path)
        self.refresh()
        self._changes = Changes(detector, journal, self._frame)

    # -- pictures ----------------------------------------------------------------------------

    def refresh(self) -> None:
        """Takes up pictures that were added to the folders, and notes those that are gone. The
        number of a picture never changes."""
        there: set[int] = set()
        for source in self._sources:
            try:
                found = find_images(source)
            except ImageError:
                continue  # a folder may be empty for a while
            for path in found:
                key = str(Path(path).absolute())
                with self._lock:
                    if key not in self._numbers:
                        self._numbers[key] = len(self._paths)
                        self._paths.append(path)
                    there.add(self._numbers[key])
        with self._lock:
            self._missing = set(range(len(self._paths))) - there

    @property
    def names(self) -> list[str]:
        """Of the pictures, as users see them."""
        with self._lock:
            return [shown_name(path, number) for number, path in enumerate(self._paths)]

    @property
    def missing(self) -> set[int]:
        """Numbers of the pictures whose files are gone."""
        with self._lock:
            return set(self._missing)

    def path(self, picture: int) -> str:
        """Raises ``NotFoundError`` where there is no such picture."""
        with self._lock:
            if not 0 <= picture < len(self._paths):
                raise NotFoundError(f"there is no picture {picture}; there are {len(self._paths)}")
            return self._paths[picture]

    def opened(self, picture: int) -> OpenPicture:
        """A picture with its proposals; raises as :meth:`OpenPictures.get`."""
        found = self.pictures.get(picture)
        self.know(found, picture)
        return found

    def know(self, opened: OpenPicture, picture: int) -> None:
        """Notes which picture has these pixels."""
        with self._lock:
            self._digests[opened.digest] = picture

    def finished(self) -> set[int]:
        """Numbers of the pictures that users marked as finished."""
        named, shown = self.journal.finished(), self.names
        with self._lock:
            found = {self._digests[d] for d in named if d in self._digests}
            # A picture that was not opened yet is known by its name.
            unopened = set(range(len(self._paths))) - set(self._digests.values())
            names = {name for digest, name in named.items() if digest not in self._digests}
            return found | {i for i in unopened if i < len(shown) and shown[i] in names}

    def after(self, picture: int) -> list[int]:
        """The unfinished pictures in the order of the queue, those after one first."""
        done = self.finished() | self.missing
        with self._lock:
            order = self.queue or list(range(len(self._paths)))
        place = order.index(picture) + 1 if picture in order else 0
        return [each for each in order[place:] + order[:place] if each not in done]

    # -- what is shown -----------------------------------------------------------------------

    def objects(self, picture: int) -> list[ShownObject]:
        """The objects of a picture, named by the library as it is now, best first.

        Raises:
            NotFoundError: there is no such picture.
            ImageError: it cannot be read.
        """
        return self.shown(self.opened(picture))

    def shown(self, opened: OpenPicture) -> list[ShownObject]:
        """The objects of an open picture."""
        found, drawn = self.detections(opened)
        return opened.shown(found, {id_of(drawn, index) for index in range(len(drawn))})

    def detections(self, opened: OpenPicture) -> tuple[Detections, Masks]:
        """What is known of an open picture, and the outlines that were drawn in it; made again
        only when the library or what was drawn has changed."""
        with opened.naming:
            snapshot, version = self.detector.snapshot(), self.journal.version
            known = opened.known
            if known is None or known[0] != (snapshot.generation, version):
                known = (snapshot.generation, version), *self._known(opened, snapshot)
                opened.known = known
            return known[1:]

    def is_named(self, picture: int) -> bool:
        """Whether the objects of an open picture are named by the library as it is now; raises as
        :meth:`opened`."""
        known = self.opened(picture).known
        now = self.detector.snapshot().generation, self.journal.version
        return known is not None and known[0] == now

    def _known(self, opened: OpenPicture, snapshot: LibrarySnapshot) -> tuple[Detections, Masks]:
        pipeline = self.detector.pipeline
        size_hw = opened.candidates.frame.size_hw
        drawn, hidden = edited(self.journal.steps_of(opened.digest), size_hw)
        candidates = without_same(opened.candidates, drawn, hidden)
        if len(drawn):
            frame = opened.candidates.frame
            own = pipeline.embed(frame, drawn, snapshot)
            candidates = own.then(candidates)
        for index in range(len(drawn)):
            opened.masks.setdefault(id_of(drawn, index), drawn[[index]])
        return pipeline.label(candidates, snapshot), drawn

    def outline(self, picture: int, object_id: str) -> Masks:
        """The outline of an object, one mask; raises ``NotFoundError`` where it is not shown."""
        return self._outline(self.opened(picture), object_id)

    def thumbnail(self, example: str) -> Any:
        """``(h, w, 3)`` uint8 RGB: the crop that the library keeps of an example. Raises
        ``ExampleNotFoundError`` where there is no such one."""
        return self.detector.library.get(example).crop.image_rgb

    # -- what users decide -------------------------------------------------------------------

    def name(self, picture: int, ids: Sequence[str], label: str) -> list[ShownObject]:
        """Learns objects under a name; in the library when it returns.

        Returns:
            The picture's objects as they are named then.

        Raises:
            NotFoundError: there is no such picture, or an object that was not shown.
            LibraryError: an empty name.
        """
        return self.decide(picture, [Named(each, label) for each in ids])

    def decide(self, picture: int, named: Sequence[Named]) -> list[ShownObject]:
        """Learns what each of some objects is, or is not; raises as :meth:`name`."""
        opened = self.opened(picture)
        self.decide_in_many(
            [(opened.digest, self._outline(opened, each.object), each) for each in named]
        )
        return self.shown(opened)

    def decide_in_many(self, decisions: Sequence[tuple[str, Masks, Named]]) -> None:
        """Learns what objects of several pictures are, as one change; raises as :meth:`name`.

        Args:
            decisions: each with the digest of its picture and its outline.
        """
        if not decisions:
            raise NotFoundError("no object was given")
        pictures: dict[str, list[tuple[Masks, Named]]] = {}
        for digest, mask, named in decisions:
            pictures.setdefault(digest, []).append((mask, named))
        with self._changing:
            batch = self._changes.new_batch()
            steps = [
                learning(
                    digest, [m for m, _ in each], [(n.label, n.negative) for _, n in each], batch
                )
                for digest, each in pictures.items()
            ]
            self._changes.do(_title([named for _, _, named in decisions], len(pictures)), steps)

    def delete(self, picture: int, ids: Sequence[str]) -> list[ShownObject]:
        """Removes objects from the picture: they are no longer proposed there, and what was
        learnt of them is forgotten; raises as :meth:`name`."""
        opened = self.opened(picture)
        with self._changing:
            self._changes.do(f"delete {len(ids)}", self._removing(opened, ids))
        return self.shown(opened)

    def delete_in_many(self, outlines: Sequence[tuple[str, Masks]]) -> None:
        """Removes outlines that have no name from several pictures, as one change.

        Args:
            outlines: each with the digest of its picture.
        """
        steps = []
        for digest, mask in outlines:
            rle = mask.rle(0)
            steps.append(outline_step(digest, "draw", rle, there=False))  # perhaps it was drawn
            steps.append(outline_step(digest, "hide", rle, there=True))
        pictures = {digest for digest, _ in outlines}
        with self._changing:
            self._changes.do(f"delete {len(outlines)} in {len(pictures)} pictures", steps)

    def draw(self, picture: int, masks: Masks, label: str | None = None) -> list[str]:
        """Adds outlines that a user drew; under a name, they are learnt at once.

        Returns:
            Their ids.

        Raises:
            MaskError: the masks are of a picture of another size.
        """
        opened = self.opened(picture)
        with self._changing:
            masks.require_fit(opened.candidates.frame)
            self._changes.do("draw", self._drawing(opened, masks, label))
        return [id_of(masks, index) for index in range(len(masks))]

    def replace(self, picture: int, ids: Sequence[str], masks: Masks) -> list[str]:
        """Puts edited outlines in the place of objects; what was learnt of these is learnt of the
        new outlines instead. Returns the ids of these; raises as :meth:`draw` and :meth:`name`."""
        opened = self.opened(picture)
        with self._changing:
            masks.require_fit(opened.candidates.frame)
            taught = [each for each in self.shown(opened) if each.id in ids and each.taught]
            labels = sorted({str(each.label) for each in taught})
            if len(labels) > 1:
                raise LibraryError(f"give these one name first: they are {', '.join(labels)}")
            steps = self._removing(opened, ids)
            self._changes.do(
                "edit", [*steps, *self._drawing(opened, masks, next(iter(labels), None))]
            )
        return [id_of(masks, index) for index in range(len(masks))]

    def finish(self, picture: int, finished: bool = True) -> None:
        """Marks a picture as finished, or as not finished."""
        opened = self.opened(picture)
        with self._changing:
            data = {"there": finished, "name": self.names[picture]}
            title = "finish" if finished else "reopen"
            self._changes.do(f"{title} {data['name']}", [Step(opened.digest, "finish", data)])

    # -- undo --------------------------------------------------------------------------------

    def undo(self) -> UndoResult:
        """Takes the last change back; raises as :meth:`Changes.undo`."""
        with self._changing:
            return self._outcome(self._changes.undo())

    def redo(self) -> UndoResult:
        """Makes the last change again that was undone; raises as :meth:`undo`."""
        with self._changing:
            return self._outcome(self._changes.redo())

    @property
    def undoable(self) -> dict[str, str | None]:
        """What ``undo`` and ``redo`` would do now."""
        last, first = self.journal.last_done(), self.journal.first_undone()
        return {"undo": last.title if last else None, "redo": first.title if first else None}

    # -- inside ------------------------------------------------------------------------------

    def _removing(self, opened: OpenPicture, ids: Sequence[str]) -> list[Step]:
        """The steps that take objects out of a picture."""
        shown = {each.id: each for each in self.shown(opened)}
        steps, picture = [], opened.digest
        for each in ids:
            rle = self._outline(opened, each).rle(0)
            found = shown.get(each)
            if found is not None and found.taught and found.label is not None:
                item = example_item(picture, rle, found.label, False)
                item["id"] = found.neighbours[0]["id"]
                steps.append(Step(picture, "forget", {"items": [item], "batch": ""}))
            if found is not None and found.drawn:
                steps.append(outline_step(picture, "draw", rle, there=False))
            steps.append(outline_step(picture, "hide", rle, there=True))
        return steps

    def _drawing(self, opened: OpenPicture, masks: Masks, label: str | None) -> list[Step]:
        """The steps that add outlines."""
        steps, each = [], [masks[[index]] for index in range(len(masks))]
        for mask in each:
            opened.masks[id_of(mask, 0)] = mask
            steps.append(outline_step(opened.digest, "hide", mask.rle(0), there=False))
            steps.append(outline_step(opened.digest, "draw", mask.rle(0), there=True))
        if label is not None:
            batch = self._changes.new_batch()
            steps.append(learning(opened.digest, each, [(label, False)] * len(each), batch))
        return steps

    def _outline(self, opened: OpenPicture, object_id: str) -> Masks:
        if object_id not in opened.masks:
            self.shown(opened)  # the page may have it from a process before this one
        if object_id not in opened.masks:
            raise NotFoundError(
                f"no such object in this picture: {object_id[:40]}; load the picture again"
            )
        return opened.masks[object_id]

    def _frame(self, digest: str) -> Frame:
        """The picture with these pixels, wherever it is now in the folders."""
        with self._lock:
            known = self._digests.get(digest)
            unseen = set(range(len(self._paths))) - set(self._digests.values()) - self._missing
        for picture in [*([] if known is None else [known]), *sorted(unseen)]:
            try:
                frame = self.pictures.frame(picture)
            except ImageError:
                continue
            found = frame.digest
            with self._lock:
                self._digests[found] = picture
            if found == digest:
                return frame
        raise ImageError("the picture of this change is no longer in the folder: put it back first")

    def _outcome(self, change: Change) -> UndoResult:
        places = [self._digests.get(step.picture) for step in change.steps]
        return UndoResult(change.title, next((p for p in places if p is not None), None))


def _title(named: Sequence[Named], pictures: int) -> str:
    labels = sorted({("not " if each.negative else "") + each.label for each in named})
    shown = labels[0] if len(labels) == 1 else f"{len(labels)} names"
    shown += f", {len(named)} objects" if len(named) > 1 else ""
    return f"{shown} in {pictures} pictures" if pictures > 1 else shown
