"""What the requests of a service have done: pictures detected, examples learnt, by a detector for
each library that is asked for."""

from __future__ import annotations

import asyncio
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from sam_detect.api import SAMDetect
from sam_detect.errors import ConfigError, MaskError, SamDetectError
from sam_detect.library.places import DEFAULT_LIBRARY, list_libraries, not_found
from sam_detect.server.changes import masks_of
from sam_detect.server.client_texts import heard
from sam_detect.server.editing import reshape
from sam_detect.server.metrics import Metrics
from sam_detect.server.problems import problem_of
from sam_detect.server.schemas import Asked, Learning
from sam_detect.server.uploads import Upload
from sam_detect.server.work import WorkQueue
from sam_detect.types import Masks
from sam_detect.types.masks import checked_rle
from sam_detect.types.polygons import checked_ring, share_inside

QUICK_PIXELS = 16_000_000
"""A picture of more takes long: pictures of usual cameras do not wait for it."""
MOST_OPEN = 8
"""How many of the last libraries stay open."""


@dataclass(frozen=True)
class ServiceLimits:
    """What a service takes.

    Attributes:
        waiting: requests that may wait.
        seconds: to answer a request.
        upload_bytes: of a request with pictures.
    """

    waiting: int = 64
    seconds: float = 60.0
    upload_bytes: int = 64 << 20


class Detectors:
    """Detectors with the same settings and different libraries. Safe for several threads.

    Args:
        settings: as of :class:`SAMDetect`, by name.
        default: is used where a request names no library.
    """

    def __init__(self, settings: Mapping[str, Any], default: SAMDetect) -> None:
        self._settings, self.default = dict(settings), default
        self._open = OrderedDict({self.default.library.name: self.default})
        # The order of locks: docs/architecture.md, "Which lock before which".
        self._lock = threading.Lock()

    def names(self) -> list[str]:
        """Of the libraries that are there."""
        there = list_libraries(self.default.settings)
        own = self.default.library
        return sorted({*there, *([own.name] if own.manifest() else [])})

    def get(self, library: str | None, *, make: bool = False) -> SAMDetect:
        """The detector of a library.

        Args:
            library: its name; None: the default one.
            make: whether the library may be a new one.

        Raises:
            LibraryNotFoundError: there is no such library. The one named "default" need not exist
                where it is that of the service.
            ConfigError: this is no name of a library.
        """
        if library is None or library == self.default.library.name:
            _require(self.default, make or self.default.settings.library == DEFAULT_LIBRARY)
            return self.default
        with self._lock:
            found = self._open.pop(library, None)
            if found is None:
                with heard():  # said when the service began
                    found = SAMDetect(**{**self._settings, "library": library})
            _require(found, make)
            self._open[library] = found
            while len(self._open) > MOST_OPEN:
                self._open.popitem(last=False)
            return found

    def open_libraries(self) -> dict[str, int]:
        """How many examples each open library has, as its manifest says: no lock is waited for.
        Those that are being written, or cannot be read, are left out."""
        found = {}
        for name, detector in self._open.copy().items():
            with suppress(SamDetectError):
                library = detector.library
                contents = (library.manifest() or {}).get("contents")
                if contents is not None or not library.store.exclusive:
                    found[name] = contents["examples"] if contents else len(library)
        return found


def _require(detector: SAMDetect, new: bool) -> None:
    """Raises ``LibraryNotFoundError`` for a library that does not exist, unless it may be new."""
    if not new and detector.library.manifest() is None:
        raise not_found(detector.settings, make="learn into it (POST /v1/examples)")


def require_no_memory_store(settings: Mapping[str, Any]) -> None:
    """Raises ``ConfigError`` where examples would not outlive the service."""
    if settings.get("store") == "memory":
        raise ConfigError("a service keeps its examples: leave --store memory out")


class Service:
    """What the requests of a service share: the detectors, the queue and the figures."""

    def __init__(self, detectors: Detectors, limits: ServiceLimits) -> None:
        self.detectors, self.limits = detectors, limits
        self.queue = WorkQueue(limits.waiting, limits.seconds)
        self.metrics = Metrics(lambda: len(self.queue))

    def count_examples(self) -> None:
        """Notes how many examples the open libraries have."""
        for name, count in self.detectors.open_libraries().items():
            self.metrics.examples.labels(name).set(count)

    async def run(
        self, work: Callable[[Any, Upload], Any], how: Any, upload: Upload,
        gone: Callable[[], Any] | None = None,
    ) -> Any:  # fmt: skip
        """Has a worker do something with a picture; takes and raises what :meth:`WorkQueue.run`
        does."""
        most = self.detectors.default.settings.max_image_pixels
        slow = await asyncio.to_thread(upload.pixels, most) > QUICK_PIXELS
        return await self.queue.run(partial(work, how, upload), slow=slow, gone=gone)

    def detect(self, how: Asked, upload: Upload) -> dict[str, Any]:
        """What is found in a picture; one that cannot be read has a ``problem``. Raises what
        :meth:`Detectors.get` does."""
        detector = self.detectors.get(how.library)
        snapshot = detector.snapshot()
        try:
            pipeline = detector.pipeline.with_threshold(how.threshold)
            with heard(upload.path, upload.name) as said:
                detections = pipeline.detect(
                    upload.read(detector), snapshot=snapshot, explain_unknown=how.unknown
                )
        except (SamDetectError, OSError, MemoryError) as error:
            # One picture is no reason to fail the others of the request.
            return {"image": upload.name, "problem": problem_of(error)}
        shown = detections if how.unknown else detections.known
        self.metrics.note_stages(detections.timings_ms)
        return {**shown.to_dict(explain=how.explain), "warnings": said}

    async def detect_for_job(self, upload: Upload, options: dict[str, Any]) -> dict[str, Any]:
        """The result of a picture of a job; between others, as soon as it is its turn."""
        work = partial(self.detect, Asked(**options), upload)
        found: dict[str, Any] = await self.queue.call(work)
        return found

    def learn(self, learning: Learning, upload: Upload) -> dict[str, Any]:
        """What was learnt; raises what :meth:`SAMDetect.learn` does."""
        detector = self.detectors.get(learning.library, make=True)
        with heard(upload.path, upload.name) as said:
            frame = upload.read(detector)
            learnt = detector.learn(
                frame, learning.label, boxes_xywh=learning.boxes_xywh,
                points_xy=learning.points_xy, negative=learning.negative,
                masks=_outlined(learning, frame.size_hw), accept_guess=learning.accept_guess,
            )  # fmt: skip
        return {
            "added": learnt.added, "relabelled": learnt.relabelled, "total": learnt.total,
            "batch": learnt.batch, "warnings": [*said, *learnt.warnings],
            "boxes_xywh": learnt.masks[~learnt.guesses].boxes_xywh.tolist(),
        }  # fmt: skip


def _outlined(learning: Learning, size_hw: tuple[int, int]) -> Masks | None:
    """The masks and polygons; None without any. Raises ``MaskError`` where one is malformed, or
    lies mostly outside of the picture."""
    found = [masks_of([checked_rle(dict(each))], size_hw) for each in learning.masks]
    for index, each in enumerate(learning.polygons_xy):
        outside = 1 - share_inside([(checked_ring(each),)], size_hw)
        if outside > 0.5:
            raise MaskError(
                f"polygons_xy.{index}: {outside:.0%} of the outline lies outside of the picture, "
                f"which is {size_hw[1]}x{size_hw[0]} pixels: give its corners in pixels of this one"
            )
        found.append(reshape([each], size_hw))
    return Masks.concatenate(found) if found else None
