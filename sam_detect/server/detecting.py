"""What the requests of a service have done: pictures detected, examples learnt."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from fastapi import HTTPException, Query, Request, UploadFile
from pydantic import BaseModel, ConfigDict, Field, ValidationError, WithJsonSchema

from sam_detect.errors import ConfigError, MaskError, SamDetectError
from sam_detect.server.answers import Outline
from sam_detect.server.changes import masks_of
from sam_detect.server.detectors import Detectors
from sam_detect.server.editing import reshape
from sam_detect.server.http import first_problem, problem_of
from sam_detect.server.metrics import Metrics
from sam_detect.server.uploads import Upload
from sam_detect.server.warned import heard
from sam_detect.server.work import WorkQueue
from sam_detect.types import Masks
from sam_detect.types.masks import checked_rle
from sam_detect.types.polygons import checked_ring, share_inside

MOST_VALUES = 100_000
"""Of a JSON body: each may take a hundred times the memory that it takes in the text."""
FormFile = Annotated[UploadFile, WithJsonSchema({"type": "string", "format": "binary"})]
Said = TypeVar("Said", bound=BaseModel)
QUICK_PIXELS = 16_000_000
"""A picture of more takes long: pictures of usual cameras do not wait for it."""
Point = tuple[float, float]
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
    """What a picture shows. Boxes are ``x, y, width, height`` in pixels, points ``x, y``; a mask
    and a polygon (its corners) outline an object each."""

    model_config = ConfigDict(
        json_schema_extra={"example": {"label": "nut", "boxes_xywh": [[40, 60, 80, 50]]}}
    )

    label: Annotated[str, Field(min_length=1, max_length=200, pattern=r"\S")]
    boxes_xywh: Annotated[list[tuple[float, float, float, float]], Field(max_length=1000)] = []
    points_xy: Annotated[list[Point], Field(max_length=1000)] = []
    masks: Annotated[list[Outline], Field(max_length=1000)] = []
    polygons_xy: Annotated[list[list[Point]], Field(max_length=1000)] = []
    negative: bool = False
    accept_guess: bool = False
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


async def parsed(model: type[Said], said: Request | str) -> Said:
    """What the JSON of a form's field, or of a request without pictures, says; parsed in a thread:
    the loop goes on answering others. Raises ``ConfigError``, which names the field;
    ``HTTPException`` for text that is not in UTF-8."""
    if isinstance(said, Request):
        kind = said.headers.get("content-type", "").partition(";")[0].strip().casefold()
        if kind != "application/json":
            raise ConfigError("send pictures in the field 'images' of multipart/form-data, or JSON")
    data = said.encode() if isinstance(said, str) else await said.body()

    def parse() -> Said:
        # These characters separate values; in base64 there are none of them.
        if sum(map(data.count, b"{[,:")) > MOST_VALUES:
            raise ConfigError(f"the JSON has too many values: {MOST_VALUES} are read")
        try:
            return model.model_validate_json(data)
        except ValidationError as error:
            try:
                data.decode()
            except UnicodeDecodeError as bad:
                wrong = f"the JSON is not in UTF-8 (at byte {bad.start}): send it in UTF-8"
                raise HTTPException(400, wrong) from error
            raise ConfigError(first_problem(error)) from error

    return await asyncio.to_thread(parse)


def reference(name: str) -> dict[str, Any]:
    """A schema that another part of the OpenAPI document has."""
    return {"$ref": f"#/components/schemas/{name}"}


def form_text(name: str) -> Any:
    """The field ``request`` of a form: JSON that says what a schema allows."""
    media = {"contentMediaType": "application/json", "contentSchema": reference(name)}
    return WithJsonSchema({"type": "string", **media})


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
        self, work: Any, asked: Any, upload: Upload, gone: Callable[[], Any] | None = None
    ) -> Any:
        """Has a worker do something with a picture; takes and raises what :meth:`WorkQueue.run`
        does. Pictures of which the same is ``asked`` may be worked on together."""
        most = self.detectors.default.settings.max_image_pixels
        slow = await asyncio.to_thread(upload.pixels, most) > QUICK_PIXELS
        return await self.queue.run(asked, work, (asked, upload), slow=slow, gone=gone)

    def detect(self, items: Sequence[tuple[Asked, Upload]]) -> list[dict[str, Any]]:
        """The pictures of a micro-batch, all asked for alike."""
        try:
            detector = self.detectors.get(items[0][0].library)
        except SamDetectError as error:
            return [error for _ in items]  # type: ignore[misc]  # the queue raises it for each
        snapshot, found = detector.snapshot(), []
        for how, upload in items:
            try:
                pipeline = detector.pipeline.with_threshold(how.threshold)
                with heard(upload.path, upload.name) as said:
                    detections = pipeline.detect(
                        upload.read(detector), snapshot=snapshot, explain_unknown=how.unknown
                    )
                shown = detections if how.unknown else detections.known
                self.metrics.note_stages(detections.timings_ms)
                found.append({**shown.to_dict(explain=how.explain), "warnings": said})
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
            with heard(upload.path, upload.name) as said:
                frame = upload.read(detector)
                learnt = detector.learn(
                    frame, learning.label, boxes_xywh=learning.boxes_xywh,
                    points_xy=learning.points_xy, negative=learning.negative,
                    masks=_outlined(learning, frame.size_hw),
                    accept_guess=learning.accept_guess,
                )  # fmt: skip
        except SamDetectError as error:
            return error
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
