"""Drives ``sam-detect serve`` as other programs do: a process and a socket."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from tests.integration.page_harness import NUTS

BOXES = [[x - 20, y - 20, 40, 40] for x, y in NUTS[:2]]


@contextmanager
def serving(home: Path, *options: str, **environment: str) -> Iterator[tuple[httpx.Client, Any]]:
    """A client of a service, and its process; what it logs is in ``home/log``."""
    command = [sys.executable, "-m", "sam_detect", "serve", "--port", "0", "--json"]
    command += ["--segmenter", "naive", "--embedder", "appearance", *options]
    home.mkdir(exist_ok=True)
    with (home / "log").open("ab") as log:
        process = subprocess.Popen(
            command, env={**os.environ, "SAM_DETECT_HOME": str(home), **environment},
            stdout=subprocess.PIPE, stderr=log, text=True,
        )  # fmt: skip
        try:
            assert process.stdout is not None
            url = json.loads(process.stdout.readline())["url"]
            with httpx.Client(base_url=url, timeout=60) as client:
                yield client, process
        finally:
            process.kill()
            process.wait()
            process.stdout.close()


def learn(client: httpx.Client, photo: Path, **changes: Any) -> httpx.Response:
    request = {"label": "nut", "boxes_xywh": BOXES, **changes}
    files = {"image": (photo.name, photo.read_bytes())}
    return client.post("/v1/examples", files=files, data={"request": json.dumps(request)})


def detect(client: httpx.Client, *photos: Path, **query: Any) -> httpx.Response:
    files = [("images", (photo.name, photo.read_bytes())) for photo in photos]
    return client.post("/v1/detect", files=files, params=query)
