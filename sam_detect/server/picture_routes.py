"""What the annotation page asks of one picture, and of groups of objects."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Annotated, Any, Literal, TypeVar

from fastapi import APIRouter, Depends, Header, HTTPException, Path, Query, Response
from pydantic import Field

from sam_detect.errors import MaskError, NotFoundError
from sam_detect.server import editing
from sam_detect.server.ahead import WorkAhead
from sam_detect.server.annotation import AnnotationSession, Named
from sam_detect.server.changes import masks_of
from sam_detect.server.clicking import along_line, clicked
from sam_detect.server.http import as_image
from sam_detect.server.journal import AlreadyDoneError
from sam_detect.server.pictures import TILE_SIDE, ShownObject, id_of
from sam_detect.server.problems import PlainJSON
from sam_detect.server.schemas import Body, Point
from sam_detect.server.survey import Survey
from sam_detect.types import Masks
from sam_detect.types.polygons import Ring as OutlineRing
from sam_detect.types.scratch import reduced

MOST_AT_ONCE = 10_000
MOST_POINTS = 20_000
LONGEST_LABEL = 200
PREVIEW_SIDE = 1024
MAX_AGE = {"Cache-Control": "private, max-age=3600"}

Label = Annotated[str, Field(min_length=1, max_length=LONGEST_LABEL, pattern=r"\S")]
ObjectId = Annotated[str, Field(min_length=1, max_length=40)]
Objects = Annotated[list[ObjectId], Field(min_length=1, max_length=MOST_AT_ONCE)]
Ring = Annotated[list[Point], Field(min_length=3, max_length=MOST_POINTS)]
Done = TypeVar("Done")
Number = Annotated[int, Path(ge=0, le=2**31)]


class Decision(Body):
    """What a user decides of an object."""

    object: ObjectId
    label: Label
    negative: bool = False


class Decisions(Body):
    """What a user decides of several objects of a picture."""

    decisions: Annotated[list[Decision], Field(min_length=1, max_length=MOST_AT_ONCE)]


class GroupMember(Body):
    """An object of any picture."""

    picture: Annotated[int, Field(ge=0)]
    object: ObjectId


class GroupDecision(GroupMember, Decision):
    """What a user decides of an object of any picture."""


class GroupDecisions(Body):
    """What a user decides of the objects of a group."""

    decisions: Annotated[list[GroupDecision], Field(min_length=1, max_length=MOST_AT_ONCE)]


class GroupMembers(Body):
    """Objects of several pictures."""

    objects: Annotated[list[GroupMember], Field(min_length=1, max_length=MOST_AT_ONCE)]


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

    points: list[Point] = Field([], max_length=1000)
    positive: list[bool] = Field([], max_length=1000)
    box: tuple[float, float, float, float] | None = None


class Edit(Body):
    """What a tool does to objects, or draws anew.

    Attributes:
        tool: ``clicks``: objects that prompts show; ``along``: an object, by a line from one end of
            it to the other; ``brush`` and ``erase``: a stroke of a radius;
            ``reshape``: new rings; ``split``: along a line; ``merge``: several objects.
        objects: that are changed; none for a new one.
        prompts: each of a new object.
        points: of the stroke or the line, in pixels.
        keep: false only shows what it would be.
        label: the name of new objects.
    """

    tool: Literal["clicks", "along", "brush", "erase", "reshape", "split", "merge"]
    objects: list[ObjectId] = Field([], max_length=1000)
    prompts: list[Prompt] = Field([], max_length=1000)
    points: list[Point] = Field([], max_length=MOST_POINTS)
    radius: Annotated[float, Field(gt=0, le=2000)] = 5
    rings: list[Ring] = Field([], max_length=1000)
    keep: bool = True
    label: Label | None = None


class Once:
    """A request that may come again, such as after a lost connection: it is done once.

    Args:
        key: of the request; None: it is done whenever it comes.
        match: digest of the picture it is about, in quotation marks; None: any.
    """

    def __init__(
        self,
        key: Annotated[str | None, Header(alias="Idempotency-Key", max_length=100)] = None,
        match: Annotated[str | None, Header(alias="If-Match", max_length=200)] = None,
    ) -> None:
        self._key, self._match = key, match

    def do(
        self, session: AnnotationSession, picture: int | None, work: Callable[[], Done]
    ) -> Done | None:
        """What ``work`` returns; None where it was done before.

        Raises:
            HTTPException: 412, where the picture is another one now.
        """
        expected = None if self._match is None else self._match.strip('"')
        if picture is not None and expected not in (None, session.opened(picture).digest):
            name = session.names[picture]
            raise HTTPException(412, f"{name} is another picture now: this was not saved")
        if session.journal.of_request(self._key) is not None:
            return None
        with session.journal.asked_by(self._key):
            try:
                return work()
            except AlreadyDoneError:
                return None

    def drawn(self, session: AnnotationSession) -> list[str]:
        """The ids of the outlines that it drew when it was done before."""
        change = session.journal.of_request(self._key)
        steps = () if change is None else change.steps
        rles = [s.data["rle"] for s in steps if s.kind == "draw" and s.data["there"]]
        return [id_of(masks_of([rle], tuple(rle["size"])), 0) for rle in rles]


AskedOnce = Annotated[Once, Depends()]


def _divided(shape: Sequence[int], factor: float) -> tuple[int, int]:
    return max(1, round(shape[1] / factor)), max(1, round(shape[0] / factor))


def picture_routes(session: AnnotationSession, ahead: WorkAhead) -> APIRouter:
    """A picture, its objects, and what users decide of them."""
    router = APIRouter(prefix="/api")

    @router.get("/pictures/{picture}")
    def picture_objects(picture: Number) -> Response:
        with ahead.waiting(picture):
            opened = session.opened(picture)
            height, width = opened.candidates.frame.size_hw
            return PlainJSON({
                "id": picture, "name": session.names[picture], "width": width, "height": height,
                "tile": TILE_SIDE, "levels": opened.levels, "generation": opened.generation,
                "digest": opened.digest, "finished": picture in session.finished(),
                "objects": _plain(session.shown(opened)),
            })  # fmt: skip

    @router.get("/pictures/{picture}/preview")
    def preview(picture: Number) -> Response:
        """The picture, small: it is there before its objects are found."""
        image = session.pictures.frame(picture).image_rgb
        factor = max(1, max(image.shape[:2]) / PREVIEW_SIDE)
        return as_image(reduced(image, _divided(image.shape, factor)), quality=70, method=0)

    @router.get("/pictures/{picture}/objects/{object_id}/explanation")
    def explanation(picture: Number, object_id: ObjectId) -> Response:
        """The terms that decided about an object; ``explanation`` is null where there are none."""
        with ahead.waiting():
            found, _ = session.detections(session.opened(picture))
        rows = (row for row in range(len(found)) if id_of(found.masks, row) == object_id)
        row = next(rows, None)
        if row is None:
            raise NotFoundError(f"no such object in this picture: {object_id}; load it again")
        each = found.classifications[row]
        why = each.explanation
        return PlainJSON({
            "label": each.label, "best_label": each.best_label,
            "explanation": why.to_dict() if why is not None else None,
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
        rings = editing.simplified(mask.polygons_with_holes(0), detail)
        return PlainJSON({"rings": _rings(rings)})

    @router.post("/pictures/{picture}/decisions")
    def decide(picture: Number, body: Decisions, asked: AskedOnce) -> Response:
        with ahead.waiting(picture):
            named = [Named(each.object, each.label, each.negative) for each in body.decisions]
            asked.do(session, picture, lambda: session.decide(picture, named))
            return PlainJSON({"objects": _plain(session.objects(picture)), **session.undoable})

    @router.post("/pictures/{picture}/delete")
    def delete(picture: Number, body: Chosen, asked: AskedOnce) -> Response:
        with ahead.waiting(picture):
            asked.do(session, picture, lambda: session.delete(picture, body.objects))
            return PlainJSON({"objects": _plain(session.objects(picture)), **session.undoable})

    @router.post("/pictures/{picture}/outlines")
    def edit(picture: Number, body: Edit, asked: AskedOnce) -> Response:
        with ahead.waiting(picture):
            if not body.keep:
                masks = _edited(session, picture, body)
                rings = [r for polygon in masks.polygons_with_holes(0) for r in polygon]
                return PlainJSON({"rings": _rings(rings)})
            made = asked.do(session, picture, lambda: _keep(session, picture, body))
            made = asked.drawn(session) if made is None else made
            found = session.objects(picture)
            return PlainJSON({"made": made, "objects": _plain(found), **session.undoable})

    @router.post("/pictures/{picture}/finished")
    def finish(picture: Number, body: Finished, asked: AskedOnce) -> dict[str, Any]:
        with ahead.waiting():
            asked.do(session, picture, lambda: session.finish(picture, body.finished))
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

    def outline(member: GroupMember) -> tuple[str, Masks]:
        """The outline of a member, after the digest of its picture."""
        surveyed = survey.last(member.picture)
        if surveyed is None:  # the server was started again since
            ahead.survey(member.picture)
            surveyed = survey.require(member.picture)
        return surveyed.digest, surveyed.outline(member.object)

    def forget(members: Sequence[GroupMember]) -> None:
        for picture in {each.picture for each in members}:
            survey.forget(picture)

    @router.post("/groups/decisions")
    def decide_group(body: GroupDecisions, asked: AskedOnce) -> dict[str, Any]:
        def learn() -> None:
            session.decide_in_many([
                (*outline(each), Named(each.object, each.label, each.negative))
                for each in body.decisions
            ])  # fmt: skip
            forget(body.decisions)

        with ahead.waiting():
            asked.do(session, None, learn)
            return session.undoable

    @router.post("/groups/delete")
    def delete_group(body: GroupMembers, asked: AskedOnce) -> dict[str, Any]:
        def delete() -> None:
            session.delete_in_many([outline(each) for each in body.objects])
            forget(body.objects)

        with ahead.waiting():
            asked.do(session, None, delete)
            return session.undoable

    @router.get("/pictures/{picture}/objects/{object_id}/thumbnail")
    def object_thumbnail(picture: Number, object_id: ObjectId) -> Response:
        data = survey.require(picture).thumbnail(object_id)
        return Response(data, media_type="image/webp", headers=MAX_AGE)

    return router


def _keep(session: AnnotationSession, picture: int, edit: Edit) -> list[str]:
    """Puts what a tool makes into the picture; the ids of it."""
    masks = _edited(session, picture, edit)
    if edit.objects:
        return session.replace(picture, edit.objects, masks)
    return session.draw(picture, masks, edit.label)


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
    if edit.tool == "along":
        return along_line(session.detector.pipeline, opened, points)
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
