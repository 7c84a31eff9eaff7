"""A window that shows a video's objects while they are followed, and teaches their names.

The thread of the window does nothing but the window: frames are taken, worked on and drawn on
another one. So the window reacts to keys, moves, closes and shows its state, however long a
detection takes.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

import numpy as np

from sam_detect.errors import one_line
from sam_detect.library.history import Added
from sam_detect.outputs.drawing import BoxXYXY
from sam_detect.outputs.video import TrackPainter
from sam_detect.types import Frame, ImageRGB, Masks, TrackedFrame
from sam_detect.video.controls import Action, Controls, Learn, Outline, Pointed, Quit
from sam_detect.video.display import (
    Click,
    Display,
    WindowLayout,
    draw_caption,
    draw_outlined,
    window_for,
)
from sam_detect.video.stream import Stream

WAIT_S = 0.005
"""Time to wait for a key before checking for the next frame."""
LATE_S = 0.3
"""A frame of a file that is later than this restarts the pacing: later frames are not shown faster
to make up for a slow detection."""
_NOTHING = np.full((270, 480, 3), 24, np.uint8)
"""Is shown until the first frame is there."""


@dataclass(frozen=True)
class _Drawn:
    """A frame with its objects drawn in."""

    tracked: TrackedFrame
    image_rgb: ImageRGB


@dataclass(frozen=True)
class _Asked:
    """An object that is being learnt, and its description for messages."""

    what: str
    future: Future[Added]


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
        display.resize(window_for(_NOTHING.shape[:2]))
        self._canvas = _Canvas(display)
        self._coming: Future[_Drawn] | None = None
        self._shown: _Drawn | None = None
        self._pointing: tuple[Frame, Future[Masks]] | None = None
        self._learning: list[_Asked] = []
        self._began_s: float | None = None
        self._is_over = self._is_closed = False
        self.controls.message = "waiting for the first frame ..."
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
            self._display.resize(window_for(drawn.tracked.frame.size_hw))
        self._shown = drawn
        self._draw()
        self._take()
        return drawn.tracked

    def _take(self) -> Future[_Drawn]:
        """Begins to take the next frame."""
        future: Future[_Drawn] = Future()
        self._coming = future
        # A daemon: a source may block for long, and stopping must not wait for it.
        threading.Thread(
            target=self._take_on, args=(future,), name="sam-detect viewer", daemon=True
        ).start()
        return future

    def _take_on(self, future: Future[_Drawn]) -> None:
        try:
            tracked = next(self._frames)
            future.set_result(_Drawn(tracked, self._painter.draw(tracked)))
        except BaseException as error:  # raised where the frame is taken
            future.set_exception(error)

    def _is_due(self, coming: Future[_Drawn]) -> bool:
        """Whether the frame is there and its time has come."""
        if not coming.done():
            return False
        if not self._paced or coming.exception() is not None:
            return True
        time_s, now = coming.result().tracked.frame.time_s or 0.0, time.monotonic()
        if self._began_s is None or now - (self._began_s + time_s) > LATE_S:
            self._began_s = now - time_s
        return now >= self._began_s + time_s

    def _attend(self, wait_s: float) -> None:
        """Does what was asked for meanwhile, and shows what came of it."""
        events = self._display.events(wait_s)
        if events is None:
            self._is_over = self._is_closed = True
            return
        for event in events:
            self._do(event)
        reported = self._report()
        if events or reported or self._canvas.is_resized:
            self._draw()

    def _do(self, event: str | Click) -> None:
        if self._shown is None:
            self._is_over |= event == "q"
            return
        tracked = self._shown.tracked
        action = self._action_of(event, tracked)
        if isinstance(action, Quit):
            self._is_over = True
        elif isinstance(action, Outline):
            frame = tracked.frame
            self._pointing = frame, self._stream.outline(frame, action.point_xy)
        elif action is not None:
            self._learn(action, tracked)

    def _action_of(self, event: str | Click, tracked: TrackedFrame) -> Action | None:
        if not isinstance(event, Click):
            return self.controls.key(event, tracked)
        point = self._canvas.in_picture(event.point_xy)
        return None if point is None else self.controls.click(point, tracked)

    def _learn(self, asked: Learn, tracked: TrackedFrame) -> None:
        """Has the object learnt as it is on the screen."""
        frame, outline, what = self._meant(asked, tracked)
        future = self._stream.learn_outlined(
            frame, outline, asked.label, negative=asked.negative, track_id=asked.track_id or 0
        )
        said = f"{what} is {'not ' if asked.negative else ''}'{asked.label}'"
        self._learning.append(_Asked(said, future))
        self.controls.message = f"learning: {said} ..."

    def _meant(
        self, asked: Learn, tracked: TrackedFrame
    ) -> tuple[Frame, Masks | Future[Masks], str]:
        """The frame, the outline, and what to call it."""
        if asked.track_id is None and self._pointing is not None:
            return *self._pointing, "this"
        index = tracked.track_ids.tolist().index(asked.track_id)
        return tracked.frame, tracked.detections.masks[[index]], f"#{asked.track_id}"

    def _report(self) -> bool:
        """Says what was outlined and learnt meanwhile, or why it was not; whether anything was."""
        done = [each for each in self._learning if each.future.done()]
        for asked in done:
            self._learning.remove(asked)
            error = asked.future.exception()
            if error is None:
                total = asked.future.result().total
                count = f"{total} example{'' if total == 1 else 's'}"
                self.controls.message = f"learnt: {asked.what}; the library has {count}"
            else:
                self.controls.message = f"not learnt: {one_line(error)}"
        return self._report_outline(self.controls.pointed) or bool(done)

    def _report_outline(self, pointed: Pointed | None) -> bool:
        if pointed is None or pointed.outline is not None or self._pointing is None:
            return False
        future = self._pointing[1]
        if not future.done():
            return False
        error = future.exception()
        if error is None:
            pointed.outline = future.result()
        else:
            self.controls.nothing_there(one_line(error))
        return True

    def _finish(self) -> None:
        """Waits until all named objects are learnt."""
        while self._learning:
            if self._is_closed:
                time.sleep(WAIT_S)
                self._report()
            else:
                self._attend(WAIT_S)

    def _draw(self) -> None:
        if self._is_closed:
            return
        controls, pointed = self.controls, self.controls.pointed
        image = _NOTHING if self._shown is None else self._shown.image_rgb
        outline = None if pointed is None else pointed.outline
        boxes = [] if self._shown is None else _boxes_of(controls.chosen, self._shown.tracked)
        self._canvas.show(image, outline=outline, boxes_xyxy=boxes, caption=controls.caption)


class _Canvas:
    """Lays out what a display shows, and keeps the part that stays while nothing moves."""

    def __init__(self, display: Display) -> None:
        self._display = display
        self._layout = WindowLayout(_NOTHING.shape[:2], display.room_hw)
        self._of: tuple[ImageRGB, Masks | None] | None = None
        self._rendered = _NOTHING

    @property
    def is_resized(self) -> bool:
        """Whether the window's size is no longer the one that was drawn for."""
        return self._display.room_hw != self._layout.room_hw

    def in_picture(self, point_xy: tuple[int, int]) -> tuple[int, int] | None:
        """The picture's pixel at a point of the window; None where the picture is not."""
        return self._layout.in_image(point_xy)

    def show(
        self,
        image_rgb: ImageRGB,
        *,
        outline: Masks | None,
        boxes_xyxy: Sequence[BoxXYXY],
        caption: str,
    ) -> None:
        """Shows a picture, with what is outlined and what is chosen set off."""
        layout = WindowLayout((image_rgb.shape[0], image_rgb.shape[1]), self._display.room_hw)
        before = (None, None) if self._of is None else self._of
        if layout != self._layout or before[0] is not image_rgb or before[1] is not outline:
            whole = image_rgb if outline is None else draw_outlined(image_rgb, outline)
            self._layout, self._of, self._rendered = (
                layout,
                (image_rgb, outline),
                layout.render(whole),
            )
        canvas = self._rendered.copy()
        for box in boxes_xyxy:
            layout.mark(canvas, box)
        draw_caption(canvas, caption)
        self._display.show(canvas)


def _boxes_of(track_id: int | None, tracked: TrackedFrame) -> list[BoxXYXY]:
    if track_id is None:
        return []
    chosen = tracked.detections.boxes_xyxy[tracked.track_ids == track_id]
    return [(x0, y0, x1, y1) for x0, y0, x1, y1 in chosen.tolist()]
