"""A window that shows a video's objects while they are followed, and teaches their names.

The thread of the window does nothing but the window: frames are taken, worked on and drawn on
another one. So the window reacts to keys, moves, closes and shows its state, however long a
detection takes.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future

import numpy as np

from sam_detect.errors import one_line
from sam_detect.library.history import LearningBatch
from sam_detect.outputs.video import TrackPainter
from sam_detect.types import Frame, ImageRGB, Masks, TrackedFrame
from sam_detect.video.controls import Action, Controls, Learn, Outline, Quit, TakeBack
from sam_detect.video.display import (
    Click,
    Display,
    WindowLayout,
    draw_caption,
    draw_outlined,
    window_for,
)
from sam_detect.video.stream import Stream
from sam_detect.video.teaching import Taught
from sam_detect.video.threads import start_daemon

WAIT_S = 0.005
"""Time to wait for a key before checking for the next frame."""
LATE_S = 0.3
"""A frame of a file that is later than this restarts the pacing: later frames are not shown faster
to make up for a slow detection."""
_NOTHING = np.full((270, 480, 3), 24, np.uint8)
"""Is shown until the first frame is there."""

Drawn = tuple[TrackedFrame, ImageRGB]
"""A frame, and a copy of its picture with its objects drawn in."""


class Viewer(Iterator[TrackedFrame]):
    """Shows frames as they are taken from it, and reacts to keys and clicks.

    Taking the next frame waits until it is there and until the one before has been shown long
    enough. It ends with the frames, or when the user quits; all named objects are learnt by
    then.

    Args:
        stream: learns objects that are named.
        frames: the stream's frames; they are taken on another thread, one ahead.
        display: where they are shown. It is left open.
        labels: names that are known, for completing.
        paced: whether frames wait for their time stamps: a file's, which would fly by.
    """

    def __init__(
        self,
        stream: Stream,
        frames: Iterator[TrackedFrame],
        display: Display,
        *,
        labels: Sequence[str] = (),
        paced: bool = False,
    ) -> None:
        self.controls = Controls(labels)
        self._stream, self._frames, self._paced = stream, frames, paced
        self._painter = TrackPainter()
        self._display = display
        self._coming: Future[Drawn] | None = None
        self._shown: Drawn | None = None
        self._outlining: tuple[Frame, Future[Masks]] | None = None
        self._learning: list[tuple[Learn, Future[Taught]]] = []
        self._undoing: list[Future[list[LearningBatch]]] = []
        self._began_s: float | None = None
        self._is_over = self._is_closed = False
        self.controls.message = "waiting for the first frame ..."
        display.resize(window_for(_NOTHING.shape[:2]))
        self._layout = WindowLayout(_NOTHING.shape[:2], display.room_hw)
        # What stays while a name is typed: keys that come while it is drawn may be lost.
        self._rendered: tuple[ImageRGB, Masks | None, WindowLayout, ImageRGB] | None = None
        self._draw()

    def __next__(self) -> TrackedFrame:
        """The next frame, which is on the screen from now on; raises what taking it raised."""
        coming = self._coming or self._take()
        self._attend(0)
        while not self._is_over and (self.controls.held or not self._is_due(coming)):
            self._attend(WAIT_S)
        if self._is_over:
            self._finish()
            raise StopIteration
        self._coming = None
        try:
            drawn = coming.result()
        except StopIteration:
            self._finish()
            raise
        if self._shown is None:
            self.controls.message = ""
            self._display.resize(window_for(drawn[0].frame.size_hw))
        self._shown = drawn
        self._draw()
        self._take()
        return drawn[0]

    def _take(self) -> Future[Drawn]:
        """Begins to take and draw the next frame."""
        future: Future[Drawn] = Future()
        self._coming = future

        def work() -> None:
            try:
                tracked = next(self._frames)
                future.set_result((tracked, self._painter.draw(tracked)))
            except BaseException as error:  # raised where the frame is taken
                future.set_exception(error)

        start_daemon(work, "sam-detect viewer")  # a source may block for long
        return future

    def _is_due(self, coming: Future[Drawn]) -> bool:
        """Whether the frame is there and its time has come."""
        if not coming.done():
            return False
        if not self._paced or coming.exception() is not None:
            return True
        time_s, now = coming.result()[0].frame.time_s or 0.0, time.monotonic()
        if self._began_s is None or now - (self._began_s + time_s) > LATE_S:
            self._began_s = now - time_s
        return now >= self._began_s + time_s

    def _attend(self, wait_s: float) -> None:
        """Handles events, and shows what changed."""
        events = self._display.events(wait_s)
        if events is None:
            self._is_over = self._is_closed = True
            return
        for event in events:
            self._handle(event)
        reported = self._report()
        if events or reported or self._display.room_hw != self._layout.room_hw:
            self._draw()

    def _handle(self, event: str | Click) -> None:
        if self._shown is None:
            self._is_over |= event == "q"
            return
        tracked = self._shown[0]
        action: Action | None
        if isinstance(event, Click):
            point = self._layout.in_image(event.point_xy)
            action = None if point is None else self.controls.click(point, tracked)
        else:
            action = self.controls.key(event, tracked)
        if isinstance(action, Quit):
            self._is_over = True
        elif isinstance(action, Outline):
            frame = tracked.frame
            self._outlining = frame, self._stream.outline(frame, action.point_xy)
        elif isinstance(action, Learn):
            self._learn(action, tracked)
        elif isinstance(action, TakeBack):
            self._undoing.append(self._stream.take_back(action.track_id))
            self.controls.message = "taking back what was learnt ..."

    def _learn(self, asked: Learn, tracked: TrackedFrame) -> None:
        """Learns the object as it is on the screen."""
        outline: Masks | Future[Masks]
        if asked.track_id is None and self._outlining is not None:
            frame, outline = self._outlining
        else:
            frame = tracked.frame
            outline = tracked.detections.masks[tracked.track_ids == asked.track_id]
        future = self._stream.learn_outlined(
            frame, outline, asked.label, negative=asked.negative, track_id=asked.track_id or 0
        )
        self._learning.append((asked, future))
        self.controls.message = f"learning: {_sentence(asked, asked.track_id)} ..."

    def _report(self) -> bool:
        """Says what was outlined and learnt meanwhile, or why it was not; whether anything was."""
        done = [each for each in self._learning if each[1].done()]
        for each in done:
            self._learning.remove(each)
            asked, future = each
            error = future.exception()
            if error is None:
                taught = future.result()
                count = f"{taught.total} example{'' if taught.total == 1 else 's'}"
                text = _sentence(asked, taught.track_id)
                self.controls.message = f"learnt: {text}; the library has {count}"
            else:
                self.controls.message = f"not learnt: {one_line(error)}"
        undone = [each for each in self._undoing if each.done()]
        for undoing in undone:
            self._undoing.remove(undoing)
            self.controls.message = _taken_back(undoing)
        return self._report_outline() or bool(done) or bool(undone)

    def _report_outline(self) -> bool:
        pointed = self.controls.pointed
        if pointed is None or pointed.outline is not None or self._outlining is None:
            return False
        _, future = self._outlining
        if not future.done():
            return False
        error = future.exception()
        if error is None:
            pointed.outline = future.result()
        else:
            self.controls.nothing_there(one_line(error))
        return True

    def _finish(self) -> None:
        """Waits until all named objects are learnt, and what was wrong is taken back."""
        while self._learning or self._undoing:
            if self._is_closed:
                time.sleep(WAIT_S)
                self._report()
            else:
                self._attend(WAIT_S)

    def _draw(self) -> None:
        """Shows the picture, with the selection highlighted, and the caption."""
        if self._is_closed:
            return
        tracked, image = self._shown or (None, _NOTHING)
        chosen, pointed = self.controls.chosen, self.controls.pointed
        outline = None if pointed is None else pointed.outline
        self._layout = WindowLayout((image.shape[0], image.shape[1]), self._display.room_hw)
        last = self._rendered
        if (
            last is None
            or last[0] is not image
            or last[1] is not outline
            or last[2] != self._layout
        ):
            whole = image if outline is None else draw_outlined(image, outline)
            last = self._rendered = image, outline, self._layout, self._layout.render(whole)
        canvas = last[3].copy()
        if tracked is not None and chosen is not None:
            boxes = tracked.detections.boxes_xyxy[tracked.track_ids == chosen]
            for x0, y0, x1, y1 in boxes.tolist():
                self._layout.mark(canvas, (x0, y0, x1, y1))
        draw_caption(canvas, self.controls.caption)
        self._display.show(canvas)


def _sentence(asked: Learn, track_id: int | None) -> str:
    """What was taught of an object on a track."""
    which = f"#{track_id}" if track_id else "this"
    return f"{which} is {'not ' if asked.negative else ''}'{asked.label}'"


def _taken_back(undoing: Future[list[LearningBatch]]) -> str:
    """What is said of it."""
    error = undoing.exception()
    if error is not None:
        return f"not taken back: {one_line(error)}"
    labels = [
        f"{but}'{label}'"
        for batch in undoing.result()
        for but, counted in (("", batch.labels), ("not ", batch.negatives))
        for label in counted
    ]
    return f"taken back: {', '.join(labels) or 'nothing new was learnt'}"
