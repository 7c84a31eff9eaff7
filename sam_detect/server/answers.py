"""The answers of a service, for its OpenAPI document and the clients that are made from it."""

# ruff: noqa: UP013 - a table is read sooner than sixteen classes
# fmt: off
from __future__ import annotations

from typing import Any

from fastapi import Response
from typing_extensions import NotRequired, TypedDict  # pydantic reads Python's own from 3.12 on

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


def file_of(media: str) -> dict[str, Any]:
    """What a route says that answers with a file."""
    content = {media: {"schema": {"type": "string", "format": "binary"}}}
    return {"response_class": Response, "responses": {200: {"content": content}}}
