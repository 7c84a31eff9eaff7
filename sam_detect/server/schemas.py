"""What requests of a service say, how it is read, and the answers, for its OpenAPI document and the
clients that are made from it."""

# ruff: noqa: UP013 - a table is read sooner than sixteen classes
from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from fastapi import Path, Query, Request, Response, UploadFile
from pydantic import BaseModel, ConfigDict, Field, ValidationError, WithJsonSchema
from starlette.exceptions import HTTPException
from typing_extensions import NotRequired, TypedDict  # pydantic reads Python's own from 3.12 on

from sam_detect.errors import ConfigError
from sam_detect.server.problems import first_problem

MOST_IMAGES = 32
"""Pictures of one request; more are a job."""
MOST_VALUES = 100_000
"""Of a JSON body: each may take a hundred times the memory that it takes in the text."""
FormFile = Annotated[UploadFile, WithJsonSchema({"type": "string", "format": "binary"})]
Said = TypeVar("Said", bound=BaseModel)
LibraryName = Annotated[str, Field(min_length=1, max_length=100)]
LibraryQuery = Annotated[LibraryName | None, Query(description="None: that of the service.")]
ExampleId = Annotated[str, Path(pattern=r"^[0-9a-fA-F-]{4,40}$")]
JobId = Annotated[str, Path(pattern=r"^[0-9a-f]{16}$")]
Point = tuple[float, float]

# fmt: off
Box = tuple[float, float, float, float]
Problem = TypedDict("Problem", {
    "type": str, "title": str, "status": int, "detail": str, "instance": NotRequired[str]})
Outline = TypedDict("Outline", {"size": list[int], "counts": str})
Near = TypedDict("Near", {"id": str, "label": str, "similarity": float})
FoundObject = TypedDict("FoundObject", {
    "label": str | None, "confidence": float, "bbox": Box, "area": int, "score": float,
    "segmentation": Outline, "best_label": str | None, "neighbours": list[Near],
    "explanation": NotRequired[dict[str, Any] | None]})
FoundInPicture = TypedDict("FoundInPicture", {
    "image": str, "width": NotRequired[int], "height": NotRequired[int],
    "recipe": NotRequired[dict[str, Any]], "timings_ms": NotRequired[dict[str, float]],
    "check": NotRequired[str], "location": NotRequired[list[int]],
    "pixel_size_um": NotRequired[dict[str, Any]],
    "detections": NotRequired[list[FoundObject]], "warnings": NotRequired[list[str]],
    "problem": NotRequired[Problem]})
Found = TypedDict("Found", {"results": list[FoundInPicture]})
Learnt = TypedDict("Learnt", {
    "added": int, "relabelled": int, "total": int, "batch": str, "warnings": list[str],
    "boxes_xywh": list[Box]})
Example = TypedDict("Example", {
    "id": str, "label": str, "negative": bool, "bbox": Box, "area": int, "added": str,
    "source": str})
Examples = TypedDict("Examples", {"examples": list[Example], "total": int})
Removed = TypedDict("Removed", {"removed": int})
Libraries = TypedDict("Libraries", {"libraries": list[str]})
Stats = TypedDict("Stats", {
    "library": str, "location": str, "examples": int, "negatives": int, "classes": dict[str, int],
    "recipe": dict[str, Any] | None, "bytes": int})
Undone = TypedDict("Undone", {
    "batch": str | None, "time": str | None, "examples": int, "labels": dict[str, int],
    "negatives": dict[str, int], "relabelled": int, "taken_back": int, "sources": list[str]})
JobState = TypedDict("JobState", {
    "id": str, "state": str, "total": int, "done": int, "problems": int, "made": float,
    "reason": str | None, "warnings": list[str]})
JobList = TypedDict("JobList", {"jobs": list[JobState]})
Health = TypedDict("Health", {
    "status": str, "version": NotRequired[str], "waiting": NotRequired[int]})
# fmt: on
PROBLEM_ANSWERS: dict[int | str, dict[str, Any]] = {
    status: {
        "description": text,
        "content": {
            "application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}
        },
    }
    for status, text in {
        400: "cut off on the way, or not in UTF-8",
        401: "a token is needed",
        404: "what is named is not there",
        409: "the library does not allow it",
        413: "too large",
        422: "malformed",
        429: "too much waits already; see Retry-After",
        503: "not now; see Retry-After",
    }.items()
}  # fmt: skip


class Body(BaseModel):
    """What a request says; unknown fields are refused."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class Picture(Body):
    """A picture."""

    name: Annotated[str, Field(max_length=1000)] = ""
    data: Annotated[str, Field(description="The file in base64.")]


class Pictures(Body):
    """Pictures as text."""

    model_config = ConfigDict(
        json_schema_extra={"example": {"images": [{"name": "a.png", "data": "iV…"}]}}
    )

    images: Annotated[list[Picture], Field(min_length=1, max_length=MOST_IMAGES)]


class Learning(Body):
    """What a picture shows. Boxes are ``x, y, width, height`` in pixels, points ``x, y``; a mask
    and a polygon (its corners) outline an object each."""

    model_config = ConfigDict(
        json_schema_extra={"example": {"label": "nut", "boxes_xywh": [[40, 60, 80, 50]]}}
    )

    label: Annotated[str, Field(min_length=1, max_length=200, pattern=r"\S")]
    boxes_xywh: Annotated[list[Box], Field(max_length=1000)] = []
    points_xy: Annotated[list[Point], Field(max_length=1000)] = []
    masks: Annotated[list[Outline], Field(max_length=1000)] = []
    polygons_xy: Annotated[list[list[Point]], Field(max_length=1000)] = []
    negative: bool = False
    accept_guess: bool = False
    library: LibraryName | None = None


class JobOptions(Body):
    """How the pictures of a job are detected."""

    model_config = ConfigDict(
        json_schema_extra={"example": {"folder": "tray-7", "library": "nuts"}}
    )

    folder: Annotated[str | None, Field(min_length=1, max_length=1000)] = None
    library: LibraryName | None = None
    threshold: Annotated[float | None, Field(ge=0, le=1)] = None
    unknown: bool = False


@dataclass(frozen=True)
class Asked:
    """How pictures are to be detected: the query of a request."""

    library: LibraryQuery = None
    threshold: Annotated[float | None, Query(ge=0, le=1, description="Least confidence.")] = None
    unknown: Annotated[bool, Query(description="Also what has no label.")] = False
    explain: Annotated[bool, Query(description="Why each has its label.")] = False


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


def file_of(media: str) -> dict[str, Any]:
    """What a route says that answers with a file."""
    content = {media: {"schema": {"type": "string", "format": "binary"}}}
    return {"response_class": Response, "responses": {200: {"content": content}}}
