"""What the requests of a service have done: pictures detected, examples learnt."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Query
from pydantic import BaseModel, ConfigDict, Field

from sam_detect.errors import SamDetectError
from sam_detect.server.detectors import Detectors
from sam_detect.server.http import problem_of
from sam_detect.server.metrics import Metrics
from sam_detect.server.uploads import Upload
from sam_detect.server.work import WorkQueue
from sam_detect.types import Detections

LibraryName = Annotated[str, Field(min_length=1, max_length=100)]
LibraryQuery = Annotated[LibraryName | None, Query(description="None: that of the service.")]


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


class Body(BaseModel):
    """What a request says; unknown fields are refused."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class Learning(Body):
    """What a picture shows. Boxes are ``x, y, width, height`` in pixels, points ``x, y``."""

    model_config = ConfigDict(
        extra="forbid", allow_inf_nan=False,
        json_schema_extra={"example": {"label": "nut", "boxes_xywh": [[40, 60, 80, 50]]}},
    )  # fmt: skip

    label: Annotated[str, Field(min_length=1, max_length=200, pattern=r"\S")]
    boxes_xywh: Annotated[list[tuple[float, float, float, float]], Field(max_length=1000)] = []
    points_xy: Annotated[list[tuple[float, float]], Field(max_length=1000)] = []
    negative: bool = False
    library: LibraryName | None = None


@dataclass(frozen=True)
class Asked:
    """How pictures are to be detected; requests that ask alike are worked on together."""

    library: str | None
    threshold: float | None
    unknown: bool
    explain: bool


def asked(
    library: LibraryQuery = None,
    threshold: Annotated[float | None, Query(ge=0, le=1, description="Least confidence.")] = None,
    unknown: Annotated[bool, Query(description="Also what has no label.")] = False,
    explain: Annotated[bool, Query(description="Why each has its label.")] = False,
) -> Asked:
    """The query of a detection."""
    return Asked(library, threshold, unknown, explain)


class Service:
    """What the requests of a service share: the detectors, the queue and the figures."""

    def __init__(self, detectors: Detectors, limits: ServiceLimits) -> None:
        self.detectors, self.limits = detectors, limits
        self.queue = WorkQueue(limits.waiting, limits.seconds, self._batched)
        self.metrics = Metrics(lambda: len(self.queue))

    def count_examples(self) -> None:
        """Notes how many examples the open libraries have."""
        for name, count in self.detectors.open_libraries().items():
            self.metrics.examples.labels(name).set(count)

    def _batched(self, size: int) -> None:
        self.metrics.batches.observe(size)

    async def run(
        self, key: Any, work: Any, item: Any, gone: Callable[[], Any] | None = None
    ) -> Any:
        """Has the worker do something; takes and raises what :meth:`WorkQueue.run` does."""
        return await self.queue.run(key, work, item, gone=gone)

    def detect(self, items: Sequence[tuple[Asked, Upload]]) -> list[dict[str, Any]]:
        """The pictures of a micro-batch, all asked for alike."""
        try:
            detector = self.detectors.get(items[0][0].library)
        except SamDetectError as error:
            return [error for _ in items]  # type: ignore[misc]  # the queue raises it for each
        snapshot, found = detector.snapshot(), []
        for how, upload in items:
            try:
                frame, pipeline = upload.read(detector), detector.pipeline
                detections = pipeline.detect(frame, snapshot=snapshot, explain_unknown=how.unknown)
                if how.threshold is not None:
                    detections = _at_least(detections, how.threshold)
                shown = detections if how.unknown else detections.known
                self.metrics.note_stages(detections.timings_ms)
                found.append(shown.to_dict(explain=how.explain))
            except (SamDetectError, OSError, MemoryError) as error:
                # One picture is no reason to fail those of others.
                found.append({"image": upload.name, "problem": problem_of(error)})
        return found

    def detect_for_job(self, upload: Upload, options: dict[str, Any]) -> dict[str, Any]:
        """The result of a picture of a job; between others, as soon as it is its turn."""
        how = Asked(options["library"], options["threshold"], options["unknown"], explain=False)
        found: dict[str, Any] = self.queue.call(how, self.detect, (how, upload))
        return found

    def learn(self, items: Sequence[tuple[Learning, Upload]]) -> list[Any]:
        """Learns; an answer or an error for each."""
        return [self._learn(*item) for item in items]

    def _learn(self, learning: Learning, upload: Upload) -> Any:
        try:
            detector = self.detectors.get(learning.library, make=True)
            frame = upload.read(detector)
            learnt = detector.learn(
                frame, learning.label, boxes_xywh=learning.boxes_xywh,
                points_xy=learning.points_xy, negative=learning.negative,
            )  # fmt: skip
        except SamDetectError as error:
            return error
        return {
            "added": learnt.added, "relabelled": learnt.relabelled, "total": learnt.total,
            "batch": learnt.batch, "warnings": list(learnt.warnings),
            "boxes_xywh": learnt.masks.boxes_xywh.tolist(),
        }  # fmt: skip


def _at_least(detections: Detections, threshold: float) -> Detections:
    """The detections without the labels that are less sure."""
    return detections[[i for i, each in enumerate(detections) if each.confidence >= threshold]]
