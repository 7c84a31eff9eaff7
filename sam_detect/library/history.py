"""Learning batches: what was learnt together, what it replaced, and how it is undone.

An example that replaces others (an earlier label of the same object, or what contradicted it)
keeps their states in its payload, ``before``, the newest first: the batch that replaced the state
(``by``), its id, its vector (None: the same) and the fields of its payload that differ. So one
write of one example is all there is to do, and to undo.
"""

from __future__ import annotations

import base64
import re
import secrets
import uuid
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta, timezone
from typing import Any

import numpy as np
from PIL import Image

from sam_detect.library.example import (
    ID_NAMESPACE,
    KNOWN_FIELDS,
    MAX_STATES,
    example_id,
    label_of,
    with_checksums,
)
from sam_detect.library.manifest import BATCH_PATTERN
from sam_detect.types import Frame, Masks, Point
from sam_detect.types.labels import shown_label
from sam_detect.types.masks import BoolArray, FloatArray
from sam_detect.types.short import short_repr

TIME_FORMAT = "%Y%m%dT%H%M%S.%fZ"
KEPT_STATES = 16
"""Older states of an example are forgotten."""


def new_batch(after: str = "") -> str:
    """The id of a batch that begins now.

    Args:
        after: the newest batch there is; the new one sorts after it, whatever the clock says.
    """
    time = datetime.now(timezone.utc)
    if after:
        time = max(time, time_of(after) + timedelta(microseconds=1))
    return f"{time.strftime(TIME_FORMAT)}-{secrets.token_hex(4)}"


def time_of(batch: str) -> datetime:
    """When a batch began; raises ``ValueError`` for text that is no batch's id."""
    if not re.fullmatch(BATCH_PATTERN, batch):
        raise ValueError(f"'{batch}' is not the id of a learning batch")
    time = datetime.strptime(batch.partition("-")[0], TIME_FORMAT)
    return time.replace(tzinfo=timezone.utc)


@dataclass(frozen=True)
class EarlierState:
    """A state that an example, or one that it opposes, once had.

    Attributes:
        by: the batch that replaced it.
        point: whole, but without states of its own.
    """

    by: str
    point: Point


@dataclass(frozen=True)
class Added:
    """What a committed batch did.

    Attributes:
        added: examples that were not there before.
        relabelled: examples that were there under another label, or contradicted these.
        total: examples in the library now.
        batch: the id of the learning batch; empty where points kept batches of their own.
        renamed: how many had which label before, and have which now.
        twice: how many were left out, as the same outline came with another label before.
    """

    added: int
    relabelled: int
    total: int
    batch: str = ""
    renamed: Mapping[tuple[str, str], int] = field(default_factory=dict)
    twice: int = 0


@dataclass(frozen=True, kw_only=True, eq=False)
class Learnt(Added):
    """What :meth:`~sam_detect.api.SAMDetect.learn` did.

    Attributes:
        masks: the N outlines that it took: given masks first, then one for each box, then one for
            each point.
        box_ious: ``(N,)`` float32, overlap (IoU) of each outline's box with the given box; NaN
            where none was given.
        warnings: one line for each box that may not mean what it says, or that nothing fits.
        guesses: ``(N,)`` bool, outlines of boxes that nothing fits; they were not learnt.
        left_out: proposals that ``masks="auto"`` did not take.
        frame: the picture.
        boxes_xywh: the given boxes.
    """

    masks: Masks
    box_ious: FloatArray
    warnings: tuple[str, ...]
    guesses: BoolArray
    left_out: int
    frame: Frame
    boxes_xywh: Sequence[Sequence[float]] = ()

    __repr__ = short_repr

    def preview(self) -> Image.Image:
        """The picture with the outlines and the given boxes drawn in."""
        from sam_detect.io.overlay import draw_preview

        return Image.fromarray(draw_preview(self.frame.image_rgb, self.masks, self.boxes_xywh))


def warn_of_two_names(names: Mapping[tuple[str, str, str], int]) -> None:
    """Warns of outlines that came with two labels at once, of which the first is learnt.

    Args:
        names: picture, first and second label, and how many.
    """
    for (source, first, second), count in names.items():
        warnings.warn(
            f"{source}: {count} outline{'s have' if count > 1 else ' has'} two names, '{first}' "
            f"and '{second}': an object has one, and '{first}' is learnt. For the other, learn "
            f"only that (--tag), or: sam-detect library rename '{first}' '{second}'",
            stacklevel=4,
        )


@dataclass
class LearningBatch:
    """What is left of a learning batch.

    Attributes:
        id: empty for all that was learnt before batches were recorded.
        time: when it began, ISO 8601 in UTC.
        labels: ``{label: examples}``.
        negatives: ``{label: examples that are not of it}``.
        relabelled: how many of them had another label before.
        taken_back: examples that it removed because they contradict it.
        sources: the pictures.
    """

    id: str
    time: str
    labels: Counter[str] = field(default_factory=Counter)
    negatives: Counter[str] = field(default_factory=Counter)
    relabelled: int = 0
    taken_back: int = 0
    sources: list[str] = field(default_factory=list)

    @property
    def examples(self) -> int:
        return self.labels.total() + self.negatives.total()

    def to_dict(self) -> dict[str, Any]:
        return {
            "batch": self.id or None,
            "time": self.time or None,
            "examples": self.examples,
            "labels": dict(self.labels),
            "negatives": dict(self.negatives),
            "relabelled": self.relabelled,
            "taken_back": self.taken_back,
            "sources": self.sources,
        }


def earlier_states(point: Point) -> list[EarlierState]:
    """The earlier states that a whole point keeps, newest first."""
    own = {name: point.payload[name] for name in KNOWN_FIELDS}
    found = []
    for each in point.payload["before"]:
        text, vector = each["vector"], point.vector
        if text is not None:
            vector = np.frombuffer(base64.b64decode(text, validate=True), "<f4")
        found.append(
            EarlierState(each["by"], Point(each["id"], vector, {**own, **each["payload"]}))
        )
    return found


def with_earlier_states(point: Point, earlier: Sequence[EarlierState]) -> Point:
    """The point, with these earlier states and its checksums."""
    own = {name: point.payload[name] for name in KNOWN_FIELDS}
    before = []
    for state in earlier:
        differing = {k: v for k, v in state.point.payload.items() if k in own and own[k] != v}
        same = np.array_equal(np.asarray(state.point.vector), np.asarray(point.vector))
        vector = np.asarray(state.point.vector, "<f4").tobytes()
        before.append(
            {
                "by": state.by,
                "id": state.point.id,
                "vector": None if same else base64.b64encode(vector).decode("ascii"),
                "payload": differing,
            }
        )
    return with_checksums(replace(point, payload={**own, "before": before}))


def with_replaced(point: Point, replaced: Iterable[Point]) -> Point:
    """The point, with the states of the points that it replaces, and what these had replaced."""
    batch = point.payload["batch"]
    earlier = {(state.by, state.point.id): state for state in earlier_states(point)}
    for old in replaced:
        if old.payload["batch"] != batch:
            earlier.setdefault((batch, old.id), EarlierState(batch, old))
        for state in earlier_states(old):
            earlier.setdefault((state.by, state.point.id), state)
    direct = [state for (by, _), state in earlier.items() if by == batch]
    older = sorted((s for s in earlier.values() if s.by != batch), key=lambda s: s.by, reverse=True)
    room = max(0, KEPT_STATES - len(direct))
    return with_earlier_states(point, [*direct, *older[:room]][:MAX_STATES])


def with_label(point: Point, label: str) -> Point:
    """The point under another label; a negative's id goes with it, as in :func:`example_id`."""
    key, payload = point.id, {**point.payload, "label": label}
    if payload["negative"]:
        digest, rle = payload.get("picture"), payload["segmentation"]
        key = (
            example_id(digest=digest, mask_rle=rle, label=label, negative=True)
            if digest
            else str(uuid.uuid5(ID_NAMESPACE, f"{key}\nnot {label}"))
        )
    return with_checksums(Point(key, point.vector, payload))


def with_renamed_label(point: Point, old: str, new: str) -> Point:
    """The point with another label in place of one, also in its earlier states."""
    earlier = [
        replace(each, point=_renamed(each.point, old, new)) for each in earlier_states(point)
    ]
    return with_earlier_states(_renamed(point, old, new), earlier)


def _renamed(point: Point, old: str, new: str) -> Point:
    return with_label(point, new) if label_of(point)[0] == shown_label(old) else point


def restore_replaced(point: Point) -> list[Point]:
    """What a point's own batch replaced with it: whole, with their earlier states."""
    batch, earlier = point.payload["batch"], earlier_states(point)
    found, left = [], [state for state in earlier if state.by != batch]
    for state in earlier:
        if state.by != batch:
            continue
        mine, batches = [], {state.point.payload["batch"]}
        for each in left:  # newest first, so whatever replaced it comes before it
            if each.by in batches:
                mine.append(each)
                batches.add(each.point.payload["batch"])
        left = [each for each in left if not any(each is other for other in mine)]
        found.append(with_earlier_states(state.point, mine))
    return found


def without_batch(point: Point, batch: str) -> Point:
    """The point without the states that a batch gave it and another one replaced since: that other
    one has then replaced what the batch had."""
    earlier = earlier_states(point)
    by = next((each.by for each in earlier if each.point.payload["batch"] == batch), None)
    if by is None:
        return point
    left = [each for each in earlier if each.point.payload["batch"] != batch]
    left = [replace(each, by=by) if each.by == batch else each for each in left]
    return with_earlier_states(point, sorted(left, key=lambda each: each.by, reverse=True))


def log(listed: Iterable[Point], changing: Iterable[Point]) -> list[LearningBatch]:
    """The learning batches, newest first.

    Args:
        listed: all points, with what lists show.
        changing: the whole points that keep earlier states.
    """
    known = {(point.payload["batch"], point.id): point for point in listed}
    replaced: dict[tuple[str, str], EarlierState] = {}
    for point in changing:
        for state in earlier_states(point):
            known.setdefault((state.point.payload["batch"], state.point.id), state.point)
            replaced.setdefault((state.by, state.point.id), state)
    found: dict[str, LearningBatch] = {}
    for (batch, _), point in known.items():
        time = time_of(batch).isoformat(timespec="seconds") if batch else ""
        entry = found.setdefault(batch, LearningBatch(batch, time))
        data = point.payload
        (entry.negatives if data["negative"] else entry.labels)[data["label"]] += 1
        if data["source"] not in entry.sources:
            entry.sources.append(data["source"])
    for (by, key), state in replaced.items():
        if by not in found:
            continue
        after = known.get((by, key))
        if after is None:
            found[by].taken_back += 1
        elif after.payload["label"] != state.point.payload["label"]:
            found[by].relabelled += 1
    return sorted(found.values(), key=lambda entry: entry.id, reverse=True)
