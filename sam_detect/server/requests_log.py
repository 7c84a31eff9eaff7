"""The id, the log line and the count of each request.

A line has no header, no body and no query: these may hold secrets. A path has the names of its
route's parameters instead of their values.
"""

from __future__ import annotations

import json
import re
import secrets
import sys
import time
from datetime import datetime, timezone

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sam_detect.server.http import REQUEST
from sam_detect.server.metrics import Metrics

REQUEST_ID = "X-Request-ID"
METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))
"""The names of others would be figures without end: anybody can make them up."""
_USABLE = re.compile(r"[A-Za-z0-9._-]{1,64}\Z")


class RequestLog:
    """ASGI middleware: gives each request an id, logs it on stderr as JSON, and counts it.

    Args:
        app: what answers.
        metrics: counts.
        logged: whether requests are logged, too.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, *, logged: bool = True) -> None:
        self._app, self._metrics, self._logged = app, metrics, logged

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get(REQUEST_ID, "")
        request_id = given if _USABLE.match(given) else secrets.token_hex(8)
        REQUEST.set(request_id)  # each request has a context of its own
        status, began = 500, time.perf_counter()

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)[REQUEST_ID] = request_id
            await send(message)

        self._metrics.in_flight.inc()
        try:
            await self._app(scope, receive, sending)
        finally:
            self._metrics.in_flight.dec()
            spent = time.perf_counter() - began
            route = getattr(scope.get("route"), "path", "none")
            method = scope["method"] if scope["method"] in METHODS else "other"
            self._metrics.requests.labels(method, route, str(status)).inc()
            self._metrics.seconds.labels(route).observe(spent)
            if self._logged:
                log("request", request=request_id, method=method, route=route, status=status,
                    ms=round(1000 * spent, 1))  # fmt: skip


def log(event: str, **fields: object) -> None:
    """One line of JSON on stderr."""
    now = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
    print(json.dumps({"time": now, "event": event, **fields}), file=sys.stderr, flush=True)
