"""The annotation page over HTTP."""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Any

from fastapi import Query

from sam_detect.library.snapshot_reader import SNAPSHOT_LIMIT
from sam_detect.server.access import Access
from sam_detect.server.ahead import WorkAhead
from sam_detect.server.annotation import AnnotationSession
from sam_detect.server.http import Guard, application
from sam_detect.server.library_routes import library_body_limit, library_routes
from sam_detect.server.library_view import LibraryView
from sam_detect.server.picture_routes import group_routes, picture_routes
from sam_detect.server.survey import POLICIES, Policy, Survey

MAX_BODY = 4 << 20
SCRIPTS = (
    "api", "controls", "counts", "dom", "groups", "keys", "library", "library_files",
    "library_map", "library_words", "naming", "outbox", "page", "queue", "shapes", "tags",
    "tools", "viewer", "why",
)  # fmt: skip
PAGE = {
    "/": "index.html", "/library": "library.html", "/icon.svg": "icon.svg",
    "/vendor/openseadragon.js": "vendor/openseadragon.min.js",
    **{f"/{name}.js": f"{name}.js" for name in SCRIPTS},
    **{f"/{name}.css": f"{name}.css" for name in ("page", "annotate", "library")},
}  # fmt: skip


def annotation_app(
    session: AnnotationSession, survey: Survey, ahead: WorkAhead, access: Access
) -> Guard:
    """The page and what it asks for."""
    app = application(PAGE)

    @app.get("/api/state")
    def state(picture: Annotated[int | None, Query(ge=0)] = None) -> dict[str, Any]:
        """What changes by itself; the page asks for it again and again."""
        opened = picture is not None and session.pictures.is_open(picture)
        return {
            "library": session.detector.library.name,
            "generation": session.opened(picture or 0).generation if opened else None,
            "learnt": session.detector.library.generation,
            "pictures": len(session.names),
            "surveyed": len(survey.all()),
            "survey": survey.version,
            **session.undoable,
        }

    @app.get("/api/labels")
    def labels() -> dict[str, Any]:
        counted = Counter(_counts(session)).most_common()
        return {"labels": [{"label": label, "examples": count} for label, count in counted]}

    @app.get("/api/pictures")
    def pictures(policy: Policy = "folder") -> dict[str, Any]:
        session.refresh()
        finished, missing, problems = session.finished(), session.missing, ahead.problems
        named = list(enumerate(session.names))
        there = [number for number, _ in named if number not in missing]
        order = session.queue = survey.order(policy, there, finished)
        return {
            "policies": POLICIES,
            "order": order,
            "pictures": [
                {"id": number, "name": name, "finished": number in finished,
                 "missing": number in missing, "problem": problems.get(number)}
                for number, name in named
            ],
        }  # fmt: skip

    app.include_router(picture_routes(session, ahead))
    app.include_router(group_routes(session, survey, ahead))
    app.include_router(library_routes(LibraryView(session.detector)))

    def body_limit(path: str) -> int:
        return library_body_limit(path) if path.startswith("/api/library/") else MAX_BODY

    return Guard(app, access, public=PAGE, body_limit=body_limit)


def _counts(session: AnnotationSession) -> Counter[str]:
    """How many examples each label has."""
    arrays = session.detector.snapshot().examples()
    if len(arrays.ids) >= SNAPSHOT_LIMIT:  # of more, these are only a sample
        return Counter(session.detector.library.stats()["classes"])
    return Counter(
        label for label, negative in zip(arrays.labels, arrays.negatives, strict=True)
        if not negative
    )  # fmt: skip
