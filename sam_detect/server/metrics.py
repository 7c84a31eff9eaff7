"""What a service counts, in the text format of Prometheus; and the id and the log line of each
request.

A line has no header, no body and no query: these may hold secrets. A path has the names of its
route's parameters instead of their values.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import sys
import time
from collections.abc import Callable, Mapping
from datetime import datetime, timezone

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sam_detect.server.problems import REQUEST

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
REQUEST_ID = "X-Request-ID"
METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))
"""The names of others would be figures without end: anybody can make them up."""
_USABLE = re.compile(r"[A-Za-z0-9._-]{1,64}\Z")


class Metrics:
    """The figures of one service.

    Args:
        waiting: how many requests wait now.
    """

    def __init__(self, waiting: Callable[[], int]) -> None:
        self.registry = CollectorRegistry()
        registry = self.registry
        self.requests = Counter(
            "sam_detect_requests", "Requests that were answered.",
            ["method", "route", "status"], registry=registry,
        )  # fmt: skip
        self.in_flight = Gauge(
            "sam_detect_requests_in_flight", "Requests that are being answered.", registry=registry
        )
        self.streams = Gauge(
            "sam_detect_streams", "WebSockets of /v1/stream that are open.", registry=registry
        )
        self.seconds = Histogram(
            "sam_detect_request_seconds", "Time to answer a request.", ["route"],
            buckets=SECONDS, registry=registry,
        )  # fmt: skip
        self.stages = Histogram(
            "sam_detect_stage_seconds", "Time of the pipeline's stages for a picture.", ["stage"],
            buckets=SECONDS, registry=registry,
        )  # fmt: skip
        Gauge(
            "sam_detect_queue_length", "Requests that wait for the worker.", registry=registry
        ).set_function(waiting)
        Gauge(
            "sam_detect_memory_bytes", "Resident memory of this process.", registry=registry
        ).set_function(resident_bytes)
        self.examples = Gauge(
            "sam_detect_library_examples",
            "Examples of a library that is open.",
            ["library"],
            registry=registry,
        )

    def note_stages(self, timings_ms: Mapping[str, float]) -> None:
        """Notes the times of a picture's stages, in milliseconds."""
        for stage, spent in timings_ms.items():
            self.stages.labels(stage).observe(spent / 1000)

    def text(self) -> bytes:
        """All figures."""
        return generate_latest(self.registry)


def resident_bytes() -> float:
    """Bytes of this process in memory; its highest where the system does not tell the present."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return float(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        if sys.platform == "win32":
            return 0.0
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return float(peak * (1 if sys.platform == "darwin" else 1024))


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
