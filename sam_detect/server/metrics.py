"""What a service counts, in the text format of Prometheus."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


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
        self.batches = Histogram(
            "sam_detect_batch_size",
            "Pictures of a micro-batch.",
            buckets=(1, 2, 3, 4, 6, 8),
            registry=registry,
        )
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
