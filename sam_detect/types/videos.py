"""Results of a video: the detections of a frame, with their tracks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sam_detect.errors import MaskError
from sam_detect.masks import IntArray
from sam_detect.types.frames import Frame
from sam_detect.types.results import Detections


@dataclass(frozen=True, eq=False)
class TrackedFrame:
    """One frame of a video and the objects in it.

    Attributes:
        frame: the image, with its place in the video (``index``, ``time_s``).
        detections: the N objects.
        track_ids: ``(N,)`` int64, from 1; an object keeps its own from frame to frame. 0 for
            objects that are not tracked.
        key: whether this is a key frame, on which the detector ran; else detections were carried
            here by motion.
    """

    frame: Frame
    detections: Detections
    track_ids: IntArray
    key: bool = False

    def __post_init__(self) -> None:
        if self.track_ids.shape != (len(self.detections),):
            raise MaskError(
                f"{len(self.detections)} detections need as many track ids, "
                f"got {self.track_ids.shape}"
            )

    def to_dict(self) -> dict[str, Any]:
        """The JSON object of a line of ``sam-detect video --json``; only a key frame's
        detections have ``neighbours``."""
        height, width = self.detections.size_hw
        time_s = self.frame.time_s
        return {
            "video": self.frame.source_id,
            "frame": self.frame.index,
            "time_s": None if time_s is None else round(time_s, 6),
            "key": self.key,
            "width": width,
            "height": height,
            "detections": [
                {"track_id": int(track) or None, **self._plain(detection.to_dict())}
                for track, detection in zip(self.track_ids, self.detections, strict=True)
            ],
        }

    def _plain(self, detection: dict[str, Any]) -> dict[str, Any]:
        """Without neighbours if this is no key frame: they would be most of the file."""
        if not self.key:
            detection.pop("neighbours")
        return detection
