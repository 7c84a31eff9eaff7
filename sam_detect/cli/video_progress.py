"""How ``sam-detect video`` goes: a line on the terminal meanwhile, and a summary at the end."""

from __future__ import annotations

import sys
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

from sam_detect.cli.feedback import counted, note, printable

if TYPE_CHECKING:
    from types import TracebackType

    from sam_detect.types import TrackedFrame
    from sam_detect.video.stream import Stream
    from sam_detect.video.threads import Recorder

EVERY_S = 0.25
"""How often the line changes."""
LABELS = 4
"""Names in a line; of more, only how many there are is said."""


class Progress:
    """Says on stderr how a stream goes: a line meanwhile, where it is a terminal, and at the end,
    however it comes, what was done and what was there."""

    def __init__(self, stream: Stream, recorder: Recorder) -> None:
        self._stream, self._recorder = stream, recorder
        self._live: Any = None
        self._next_s = 0.0
        self._names: dict[int, str | None] = {}

    def __enter__(self) -> Progress:
        if sys.stderr is not None and sys.stderr.isatty():
            from rich.console import Console
            from rich.live import Live

            # Rich would print what goes to stdout above the line, that is to stderr: right for a
            # terminal, wrong for a file or a pipe.
            both = sys.stdout is not None and sys.stdout.isatty()
            console = Console(stderr=True)
            self._live = Live(
                console=console, transient=True, auto_refresh=False, redirect_stdout=both
            )
            self._live.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live is not None:
            self._live.__exit__(kind, error, trace)
        if self._stream.statistics.frames:
            note(self._done())
        if self._names:
            tracks = counted(len(self._names), "track")
            note(f"{tracks}: {named(Counter(self._names.values()))}")

    def update(self, tracked: TrackedFrame) -> None:
        """Takes a frame; says how it goes, a few times a second."""
        for track, classification in zip(
            tracked.track_ids, tracked.detections.classifications, strict=True
        ):
            if track:
                self._names[int(track)] = classification.label
        now = time.monotonic()
        if self._live is None or now < self._next_s:
            return
        from rich.text import Text

        self._next_s = now + EVERY_S
        line = Text(self.text(tracked), no_wrap=True, overflow="ellipsis")
        self._live.update(line, refresh=True)

    def text(self, tracked: TrackedFrame) -> str:
        """The line: where it is, how fast, how late, what was lost, what waits, what is there."""
        numbers, stream = self._stream.statistics, self._stream
        lost = numbers.dropped + self._recorder.dropped
        waiting = f"{stream.waiting}+{self._recorder.waiting}"
        return "  ".join(
            (
                f"frame {tracked.frame.index + 1}",
                f"{numbers.fps:.1f} fps",
                f"{numbers.latency_ms(0.95):.0f} ms",
                f"{lost} dropped",
                f"queue {waiting}",
                named(Counter(v.label for v in tracked.detections.classifications)),
            )
        )

    def _done(self) -> str:
        done = self._stream.statistics
        text = f"{counted(done.frames, 'frame')}, {done.keys} looked at"
        if done.frames > 1:
            text += f", {done.mean_fps:.1f} a second"
        if self._stream.live:
            text += f", {done.latency_ms(0.95):.0f} ms late at most (95 %)"
        lost = done.dropped + self._recorder.dropped
        beside = {"dropped": lost, "got back": done.reconnects, "damaged": done.damaged}
        return text + "".join(f", {what} {count}" for what, count in beside.items() if count)


def named(counts: Counter[str | None]) -> str:
    """How many objects have which name, the most frequent first, those without one last."""
    known = sorted(
        ((label, count) for label, count in counts.items() if label is not None),
        key=lambda pair: (-pair[1], pair[0]),
    )
    texts = [f"{printable(label)} x{count}" for label, count in known[:LABELS]]
    if len(known) > LABELS:
        texts.append(f"{len(known) - LABELS} more names")
    if counts[None]:
        texts.append(f"unknown x{counts[None]}")
    return ", ".join(texts) or "nothing named"
