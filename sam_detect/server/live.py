"""A video that is followed while others look at it: what is shown, and what they teach.

Knows no HTTP. The thread that takes frames shows them here; requests come from other threads.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass, field
from functools import partial
from pathlib import PurePath
from typing import Any

import numpy as np

from sam_detect.errors import ConfigError, MaskError, NotFoundError
from sam_detect.library.history import LearningBatch
from sam_detect.types import Frame, Masks, TrackedFrame
from sam_detect.types.labels import normalised_label
from sam_detect.video.stream import Stream
from sam_detect.video.teaching import Taught
from sam_detect.video.threads import WAKE_S, queue_length, start_daemon

LATE_S = 0.3
"""A frame of a file that is later than this restarts the pacing: later frames are not shown faster
to make up for a slow detection."""
REACH = 0.006
"""Largest distance of a click from its object, as a share of the picture's longer side."""
SEEN = 32
"""Objects that were clicked on and may still be named; each holds its frame."""
SETTLE_S = 60.0
"""How long the end waits for what is being learnt."""


@dataclass(frozen=True, eq=False)
class ClickedObject:
    """An object that a user clicked on.

    Attributes:
        key: names it.
        frame: in which it was clicked on.
        masks: its outline, as soon as it is there.
        track_id: its track; 0 where it is on none.
    """

    key: str
    frame: Frame
    masks: Future[Masks]
    track_id: int


@dataclass(frozen=True, eq=False)
class ShownFrame:
    """What is shown now.

    Attributes:
        number: counts what was shown, from 1.
        tracked: the frame and its objects.
        named: what was taught since this frame was made: track to label and outline (None: that of
            the frame).
    """

    number: int
    tracked: TrackedFrame
    named: dict[int, tuple[str | None, Masks | None]] = field(default_factory=dict)


class LiveSession:
    """One video.

    Args:
        stream: learns what is named.
        labels: names that are known.
        paced: whether frames wait for their time stamps: a file's, which would fly by.

    Attributes:
        id: another one for each run: what was clicked on in another run means nothing here.
        name: of the source; of a file without its folders.
        live: whether frames come on whether they are taken or not.
        paused, ended, finished: where the video stands; ``finished`` is final.
    """

    def __init__(self, stream: Stream, labels: Sequence[str] = (), *, paced: bool = False) -> None:
        self.id = secrets.token_urlsafe(8)
        self.name = (
            stream.name if "://" in stream.name else PurePath(stream.name).name or stream.name
        )
        self.live = stream.live
        self.paused = self.ended = self.finished = False
        self._stream, self._paced = stream, paced
        self._labels = set(labels)
        # The order of locks: docs/architecture.md, "Which lock before which".
        self._changed = threading.Condition(threading.RLock())
        self._shown: ShownFrame | None = None
        self._seen: OrderedDict[str, ClickedObject] = OrderedDict()
        self._working: set[Future[Any]] = set()
        self._taught: list[int] = []
        self._listeners: list[Callable[[], None]] = []
        self._began_s: float | None = None

    @property
    def shown(self) -> ShownFrame | None:
        """What is shown now; None before the first frame."""
        return self._shown

    @property
    def labels(self) -> list[str]:
        """The names that are known, sorted."""
        with self._changed:
            return sorted(self._labels)

    def listen(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Has a function called, from any thread, after every change; gives what ends that."""
        with self._changed:
            self._listeners.append(listener)

        def leave() -> None:
            with self._changed:
                self._listeners.remove(listener)

        return leave

    def show(self, frames: Iterator[TrackedFrame]) -> Iterator[TrackedFrame]:
        """Shows frames as they are taken from it, each when its time has come, until they end or
        a user finishes; raises what taking them raises, and then goes on."""
        return iter(partial(self.show_next, frames), None)

    def show_next(self, frames: Iterator[TrackedFrame]) -> TrackedFrame:
        """Takes a frame and shows it; raises ``StopIteration`` after the last one."""
        self._wait_for_resume()
        if self.finished:
            raise StopIteration
        tracked = next(frames)
        self._wait_until_due(tracked)
        with self._changed:
            self._shown = ShownFrame(self._shown.number + 1 if self._shown else 1, tracked)
        self._tell()
        return tracked

    def end(self) -> None:
        """The frames are over: the last one stays, and can be named."""
        with self._changed:
            self.ended, self.paused = True, False
        self._tell()

    def wait(self) -> None:
        """Until a user finishes."""
        with self._changed:
            while not self.finished:
                self._changed.wait(WAKE_S)

    def finish(self) -> None:
        """Ends the video, after all that was named is learnt; may be called twice."""
        with self._changed:
            if self.finished:
                return
            self.finished = True
        self._tell()

        def close() -> None:  # a source may not give a frame for long
            self.settle()
            self._stream.close()

        start_daemon(close, "sam-detect finish")

    def settle(self) -> None:
        """Waits until what was named is learnt, and what was wrong is taken back."""
        with self._changed:
            working = list(self._working)
        wait(working, SETTLE_S)

    def pause(self, *, paused: bool) -> None:
        """Stops the video, or lets it go on."""
        with self._changed:
            self.paused = paused and not self.ended
            self._began_s = None
        self._tell()

    def look(
        self,
        tracked: TrackedFrame,
        *,
        point_xy: tuple[float, float] | None = None,
        box_xywh: tuple[float, float, float, float] | None = None,
    ) -> ClickedObject:
        """The object at a point or in a box of a frame: one of its objects, or an outline that is
        made in the background, whose future raises ``MaskError`` where nothing is there.

        Raises:
            MaskError: the place is not in the picture.
        """
        height, width = tracked.frame.size_hw
        if box_xywh is not None:
            x, y, wide, high = box_xywh
            if not (0 <= x < x + wide <= width and 0 <= y < y + high <= height):
                raise MaskError("the box is not in the picture")
            outline = self._stream.outline(tracked.frame, box_xywh=box_xywh)
            return self._keep(tracked.frame, outline, 0)
        if point_xy is None or not (0 <= point_xy[0] < width and 0 <= point_xy[1] < height):
            raise MaskError("the point is not in the picture")
        point = int(point_xy[0]), int(point_xy[1])
        place = object_at(tracked, point)
        if place is not None:
            return self._keep_object(tracked, place)
        return self._keep(tracked.frame, self._stream.outline(tracked.frame, point), 0)

    def look_at_track(self, track_id: int) -> ClickedObject:
        """The object of a track, as it is now; raises ``NotFoundError`` where it is not shown."""
        shown = self._shown
        if shown is not None:
            places = np.flatnonzero(shown.tracked.track_ids == track_id).tolist()
            if places:
                return self._keep_object(shown.tracked, places[0])
            masks = shown.named.get(track_id, (None, None))[1]
            if masks is not None:  # it was begun in this very frame
                return self._keep(shown.tracked.frame, _done(masks), track_id)
        raise NotFoundError(f"#{track_id} is not in the picture")

    def seen(self, key: str) -> ClickedObject:
        """What was clicked on; raises ``NotFoundError`` where that is too long ago."""
        with self._changed:
            found = self._seen.get(key)
        if found is None:
            raise NotFoundError("that was clicked on too long ago: click on it again")
        return found

    def name_object(
        self, seen: ClickedObject, label: str, *, negative: bool = False
    ) -> Future[Taught]:
        """Learns an object, or that it does not have this label.

        Raises:
            LibraryError: the name is empty.
            ConfigError: the video is finished.
        """
        label = normalised_label(label)
        if self.finished:
            raise ConfigError("the video is finished")
        taught = self._stream.learn_outlined(
            seen.frame, seen.masks.result() if seen.masks.done() else seen.masks, label,
            negative=negative, track_id=seen.track_id,
        )  # fmt: skip

        def learnt(done: Future[Taught]) -> None:
            if done.exception() is None:
                on = done.result().track_id
                outline = None if seen.track_id else seen.masks.result()
                with self._changed:
                    self._taught = [each for each in self._taught if each != on] + [on]
                    if not negative:
                        self._labels.add(label)
                self._rename(seen.frame, on, None if negative else label, outline)

        return self._work(taught, learnt)

    def take_back(self, track_id: int | None = None) -> Future[list[LearningBatch]]:
        """Takes back all that was taught on a track in this run; None is the one taught last. The
        future raises ``ConfigError`` where nothing was taught. Raises it if the video is finished.
        """
        if self.finished:
            raise ConfigError("the video is finished")
        undone = self._stream.take_back(track_id)

        def taken(done: Future[list[LearningBatch]]) -> None:
            shown = self._shown
            if done.exception() is None and shown is not None:
                with self._changed:
                    on = track_id or (self._taught[-1] if self._taught else 0)
                    self._taught = [each for each in self._taught if each != on]
                self._rename(shown.tracked.frame, on, None, None)

        return self._work(undone, taken)

    def _rename(self, frame: Frame, on: int, label: str | None, outline: Masks | None) -> None:
        """Shows a new name in the frame that stands still; another one has it from the stream."""
        with self._changed:
            shown = self._shown
            if shown is not None and on and (shown.tracked.frame is frame or outline is None):
                named = {each: now for each, now in shown.named.items() if each != on}
                named[on] = (
                    label,
                    outline if outline is not None else shown.named.get(on, (None, None))[1],
                )
                self._shown = ShownFrame(shown.number + 1, shown.tracked, named)
        self._tell()

    def _work(self, future: Future[Any], then: Callable[[Future[Any]], None]) -> Future[Any]:
        """The same result, which is there only when ``then`` has run."""
        shown: Future[Any] = Future()
        with self._changed:
            self._working.add(shown)

        def done(finished: Future[Any]) -> None:
            try:
                then(finished)
                shown.set_result(finished.result())
            except BaseException as error:
                shown.set_exception(error)
            finally:
                with self._changed:
                    self._working.discard(shown)

        future.add_done_callback(done)
        return shown

    def _keep_object(self, tracked: TrackedFrame, place: int) -> ClickedObject:
        masks = tracked.detections.masks[[place]]
        return self._keep(tracked.frame, _done(masks), int(tracked.track_ids[place]))

    def _keep(self, frame: Frame, masks: Future[Masks], track_id: int) -> ClickedObject:
        seen = ClickedObject(secrets.token_urlsafe(8), frame, masks, track_id)
        with self._changed:
            self._seen[seen.key] = seen
            while len(self._seen) > min(SEEN, max(4, queue_length(frame))):
                self._seen.popitem(last=False)
        return seen

    def _wait_for_resume(self) -> None:
        with self._changed:
            while self.paused and not self.finished:
                self._changed.wait(WAKE_S)

    def _wait_until_due(self, tracked: TrackedFrame) -> None:
        if not self._paced:
            return
        time_s = tracked.frame.time_s or 0.0
        with self._changed:
            while not self.finished:
                now = time.monotonic()
                if self._began_s is None or now - (self._began_s + time_s) > LATE_S:
                    self._began_s = now - time_s
                left = self._began_s + time_s - now
                if left <= 0:
                    return
                self._changed.wait(min(left, WAKE_S))

    def _tell(self) -> None:
        with self._changed:
            self._changed.notify_all()
            listeners = list(self._listeners)
        for each in listeners:
            each()


def object_at(tracked: TrackedFrame, point_xy: tuple[int, int]) -> int | None:
    """The place among the objects of the smallest one at a point, or close to it.

    Args:
        point_xy: in pixels of the frame.
    """
    x, y = point_xy
    found, reach = tracked.detections, round(REACH * max(tracked.detections.size_hw))
    x0, y0, x1, y1 = found.boxes_xyxy.T
    about = (x0 - reach <= x) & (x < x1 + reach) & (y0 - reach <= y) & (y < y1 + reach)

    def covers(index: int, reach: int) -> bool:
        left, top = x - int(x0[index]), y - int(y0[index])
        near = found.masks.crop(index)[
            max(0, top - reach) : max(0, top + reach + 1),
            max(0, left - reach) : max(0, left + reach + 1),
        ]
        return bool(near.any())

    near = [i for i in np.flatnonzero(about).tolist() if covers(i, reach)]
    if not near:
        return None
    return int(min(near, key=lambda i: (not covers(i, 0), int(found.area[i]))))


def _done(masks: Masks) -> Future[Masks]:
    future: Future[Masks] = Future()
    future.set_result(masks)
    return future
