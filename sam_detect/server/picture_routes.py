"""What the annotation page asks of one picture, and of groups of objects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query, Response
from pydantic import BaseModel, ConfigDict, Field

from sam_detect.errors import MaskError
from sam_detect.polygons import Ring as OutlineRing
from sam_detect.server import editing
from sam_detect.server.ahead import WorkAhead
from sam_detect.server.annotation import AnnotationSession, Named
from sam_detect.server.clicking import clicked
from sam_detect.server.http import as_image, as_json
from sam_detect.server.pictures import TILE_SIDE, ShownObject
from sam_detect.server.survey import Survey
from sam_detect.types import Masks

MOST_AT_ONCE = 10_000
MOST_POINTS = 20_000
LONGEST_LABEL = 200
MAX_AGE = {"Cache-Control": "private, max-age=3600"}

Label = Annotated[str, Field(min_length=1, max_length=LONGEST_LABEL, pattern=r"\S")]
ObjectId = Annotated[str, Field(min_length=1, max_length=40)]
Objects = Annotated[list[ObjectId], Field(min_length=1, max_length=MOST_AT_ONCE)]
Point = tuple[float, float]
Ring = Annotated[list[Point], Field(min_length=3, max_length=MOST_POINTS)]
Number = Annotated[int, Path(ge=0, le=2**31)]


class Body(BaseModel):
    """What a request says; unknown fields are refused."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class Decision(Body):
    """What a user decides of an object."""

    object: ObjectId
    label: Label
    negative: bool = False


class Decisions(Body):
    """... of several objects of a picture."""

    decisions: Annotated[list[Decision], Field(min_length=1, max_length=MOST_AT_ONCE)]


class GroupDecision(Decision):
    """... of an object of any picture."""

    picture: Annotated[int, Field(ge=0)]


class GroupDecisions(Body):
    """... of a group."""

    decisions: Annotated[list[GroupDecision], Field(min_length=1, max_length=MOST_AT_ONCE)]


class Chosen(Body):
    """Objects of a picture."""

    objects: Objects


class Finished(Body):
    """Whether a picture is finished."""

    finished: bool = True


class Prompt(Body):
    """What shows one object: points on it (``positive``) and next to it, with a box or without.

    Attributes:
        points: x, y in pixels.
        positive: of each point.
        box: ``x, y, width, height`` in pixels.
    """

    points: Annotated[list[Point], Field(max_length=1000)] = []
    positive: Annotated[list[bool], Field(max_length=1000)] = []
    box: tuple[float, float, float, float] | None = None


class Edit(Body):
    """What a tool does to objects, or draws anew.

    Attributes:
        tool: ``clicks``: objects that prompts show; ``brush`` and ``erase``: a stroke of a radius;
            ``reshape``: new rings; ``split``: along a line; ``merge``: several objects.
        objects: that are changed; none for a new one.
        prompts: each of a new object.
        points: of the stroke or the line, in pixels.
        keep: false only shows what it would be.
        label: the name of new objects.
    """

    tool: Literal["clicks", "brush", "erase", "reshape", "split", "merge"]
    objects: Annotated[list[ObjectId], Field(max_length=1000)] = []
    prompts: Annotated[list[Prompt], Field(max_length=1000)] = []
    points: Annotated[list[Point], Field(max_length=MOST_POINTS)] = []
    radius: Annotated[float, Field(gt=0, le=2000)] = 5
    rings: Annotated[list[Ring], Field(max_length=1000)] = []
    keep: bool = True
    label: Label | None = None


def picture_routes(session: AnnotationSession, ahead: WorkAhead) -> APIRouter:
    """A picture, its objects, and what users decide of them."""
    router = APIRouter(prefix="/api")

    @router.get("/pictures/{picture}")
    def picture_objects(picture: Number) -> Response:
        with ahead.waiting(picture):
            opened = session.opened(picture)
            height, width = opened.candidates.frame.size_hw
            return as_json({
                "id": picture, "name": session.names[picture], "width": width, "height": height,
                "tile": TILE_SIDE, "levels": opened.levels, "generation": opened.generation,
                "finished": picture in session.finished(), "objects": _plain(session.shown(opened)),
            })  # fmt: skip

    @router.get("/pictures/{picture}/tiles/{reduced}/{column}/{row}")
    def tile(picture: Number, reduced: Number, column: Number, row: Number) -> Response:
        with ahead.waiting():
            image = session.opened(picture).tile(reduced, column, row)
            return as_image(image, lossless=True, method=0, headers=MAX_AGE)

    @router.get("/pictures/{picture}/outlines/{outline}")
    def outline(
        picture: Number, outline: ObjectId, detail: Annotated[float, Query(ge=0, le=1)] = 1
    ) -> Response:
        """The rings of an outline, in as much detail as is asked for: to edit their vertices."""
        mask = session.outline(picture, outline)
        exact = [ring for polygon in mask.polygons_with_holes(0) for ring in polygon]
        return as_json({"rings": _rings(editing.simplified(exact, detail))})

    @router.post("/pictures/{picture}/decisions")
    def decide(picture: Number, body: Decisions) -> Response:
        with ahead.waiting(picture):
            named = [Named(each.object, each.label, each.negative) for each in body.decisions]
            found = session.decide(picture, named)
            return as_json({"objects": _plain(found), **session.undoable})

    @router.post("/pictures/{picture}/delete")
    def delete(picture: Number, body: Chosen) -> Response:
        with ahead.waiting(picture):
            found = session.delete(picture, body.objects)
            return as_json({"objects": _plain(found), **session.undoable})

    @router.post("/pictures/{picture}/outlines")
    def edit(picture: Number, body: Edit) -> Response:
        with ahead.waiting(picture):
            masks = _edited(session, picture, body)
            if not body.keep:
                rings = [r for polygon in masks.polygons_with_holes(0) for r in polygon]
                return as_json({"rings": _rings(rings)})
            if body.objects:
                made = session.replace(picture, body.objects, masks)
            else:
                made = session.draw(picture, masks, body.label)
            found = session.objects(picture)
            return as_json({"made": made, "objects": _plain(found), **session.undoable})

    @router.post("/pictures/{picture}/finished")
    def finish(picture: Number, body: Finished) -> dict[str, Any]:
        with ahead.waiting():
            session.finish(picture, body.finished)
            return {"finished": body.finished, **session.undoable}

    @router.post("/undo")
    def undo() -> dict[str, Any]:
        with ahead.waiting():
            return {**asdict(session.undo()), **session.undoable}

    @router.post("/redo")
    def redo() -> dict[str, Any]:
        with ahead.waiting():
            return {**asdict(session.redo()), **session.undoable}

    @router.get("/examples/{example}/thumbnail")
    def thumbnail(example: ObjectId) -> Response:
        return as_image(session.thumbnail(example), quality=80, headers=MAX_AGE)

    return router


def group_routes(session: AnnotationSession, survey: Survey, ahead: WorkAhead) -> APIRouter:
    """Objects of all pictures that are alike."""
    router = APIRouter(prefix="/api")

    @router.get("/groups")
    def groups() -> dict[str, Any]:
        with ahead.waiting():
            found = survey.groups(skip=session.finished() | session.missing)
            shown = [
                {"label": group.label,
                 "members": [{"picture": p, "object": o} for p, o in group.members]}
                for group in found
            ]  # fmt: skip
            return {"groups": shown, "surveyed": len(survey.all())}

    @router.post("/groups/decisions")
    def decide_group(body: GroupDecisions) -> dict[str, Any]:
        with ahead.waiting():
            decisions = []
            for each in body.decisions:
                surveyed = survey.require(each.picture)
                named = Named(each.object, each.label, each.negative)
                decisions.append((surveyed.digest, surveyed.outline(each.object), named))
            session.decide_in_many(decisions)
            for picture in {each.picture for each in body.decisions}:
                survey.forget(picture)
            return session.undoable

    @router.get("/pictures/{picture}/objects/{object_id}/thumbnail")
    def object_thumbnail(picture: Number, object_id: ObjectId) -> Response:
        data = survey.require(picture).thumbnail(object_id)
        return Response(data, media_type="image/webp", headers=MAX_AGE)

    return router


def _edited(session: AnnotationSession, picture: int, edit: Edit) -> Masks:
    """The outlines that a tool makes; raises ``MaskError`` where it makes none."""
    opened = session.opened(picture)
    frame = opened.candidates.frame
    given = [session.outline(picture, each) for each in edit.objects]
    points: Any = edit.points
    if edit.tool == "clicks":
        if not edit.prompts:
            raise MaskError("click on an object first")
        pipeline = session.detector.pipeline
        return Masks.concatenate([
            clicked(pipeline, opened, each.points, each.positive, each.box) for each in edit.prompts
        ])  # fmt: skip
    if edit.tool == "reshape":
        return editing.reshape(edit.rings, frame.size_hw)
    if edit.tool in ("brush", "erase"):
        start = given[0] if given else Masks.empty(frame.size_hw)
        return editing.brush(start, points, edit.radius, erase=edit.tool == "erase")
    if edit.tool == "merge":
        if len(given) < 2:
            raise MaskError("select two objects or more to merge them")
        return editing.merged(Masks.concatenate(given))
    if len(given) != 1:
        raise MaskError("select one object to split it")
    return Masks.concatenate(editing.split(given[0], points, frame.size_hw))


def _plain(found: list[ShownObject]) -> list[dict[str, Any]]:
    return [vars(each) for each in found]


def _rings(rings: Sequence[OutlineRing]) -> list[Any]:
    return [ring.round(2).tolist() for ring in rings]
