"""Objects of a stack written with the volumes that they belong to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from sam_detect.interfaces import Sink
from sam_detect.types import Detections, Frame

Link = Callable[[Sequence[Detections]], list[Detections]]


class LinkedPlanes(Sink):
    """Holds the objects of a stack's planes until all are known, links them, and writes the planes.

    Only the objects are held. The pixels of each plane are read again when it is written.

    Args:
        sinks: what writes; closed by the code that opened them.
        link: gives the planes of one stack their volumes.
        read: the frame of a plane, by its detections.
    """

    def __init__(
        self, sinks: Sequence[Sink], *, link: Link, read: Callable[[Detections], Frame]
    ) -> None:
        self._sinks, self._link, self._read = sinks, link, read
        self._waiting: list[Detections] = []
        self.volumes = 0

    def write(self, frame: Frame, detections: Detections) -> None:
        if self._waiting and self._waiting[0].source_id != frame.source_id:
            self.close()
        self._waiting.append(detections)

    def close(self) -> list[Path]:
        """Writes the planes that wait; closes no sink."""
        linked, self._waiting = self._link(self._waiting), []
        self.volumes += len({v.id for plane in linked for v in plane.volumes if v is not None})
        for detections in linked:
            frame = self._read(detections)
            for sink in self._sinks:
                sink.write(frame, detections)
        return []
