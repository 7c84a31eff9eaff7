"""A server of weights on this machine that can be told to misbehave."""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import pytest
from local_server import LocalServer, QuietHandler

CLIP = "timm/vit_base_patch32_clip_224.openai"
SAFE = "open_clip_model.safetensors"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
HANG_S = 3.0
"""A server that hangs answers in the end: who waits for less never sees it."""


def content(size: int = 600_000, seed: int = 0) -> bytes:
    """Bytes that look like no others."""
    return np.random.default_rng(seed).bytes(size)


@dataclass
class Served:
    """What is served at a path, and how.

    Attributes:
        break_after: for each answer in turn: so many bytes, then the connection ends; None (and
            after the last entry): all.
        hang_after: bytes until the server falls silent for HANG_S; -1: before its answer.
        drip_s: pause after each block of 16 kB.
        status: answers with this HTTP status instead.
        etag: of the content; empty for none.
        ranges: whether parts can be asked for.
        headers: sent besides; those of a hub, for example.
    """

    content: bytes
    break_after: list[int | None] = field(default_factory=list)
    hang_after: int | None = None
    drip_s: float = 0
    status: int = 200
    etag: str = '"one"'
    ranges: bool = True
    length: bool = True
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Asked:
    """One request that came."""

    method: str
    path: str
    range: str | None
    if_range: str | None
    authorization: str | None
    agent: str | None = None
    status: int = 0


class ModelServer(LocalServer):
    """Serves the files that are put into ``files``; ``asked`` tells the requests."""

    def __init__(self) -> None:
        self.files: dict[str, Served] = {}
        self.asked: list[Asked] = []
        super().__init__(_handler(self))

    @property
    def url(self) -> str:
        return f"http://{self.host}"

    @property
    def gets(self) -> list[Asked]:
        """But for what huggingface_hub asks once a day for itself."""
        own = "/api/agent-harnesses"
        return [each for each in self.asked if each.method == "GET" and each.path != own]

    def sam2(self, size: str = "tiny", data: bytes | None = None, **how: object) -> Served:
        """Serves a SAM 2.1 checkpoint of a size."""
        name = f"sam2.1_hiera_{size}"
        data = content() if data is None else data
        return self.hub(f"facebook/{name.replace('_', '-')}", f"{name}.pt", data, **how)

    def clip(self, filename: str = SAFE, **how: object) -> Served:
        """Serves OpenAI's ViT-B/32."""
        return self.hub(CLIP, filename, content(seed=1), **how)

    def hub(self, repository: str, filename: str, data: bytes, **how: object) -> Served:
        """Serves a file as the hub does: with commit and SHA-256 in the headers."""
        served = Served(data, **how)  # type: ignore[arg-type]
        served.headers = {
            "X-Repo-Commit": COMMIT,
            "X-Linked-Etag": f'"{hashlib.sha256(served.content).hexdigest()}"',
            "X-Linked-Size": str(len(served.content)),
            **served.headers,
        }
        for revision in ("main", COMMIT):
            self.files[f"/{repository}/resolve/{revision}/{filename}"] = served
        return served


def use_hub(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    """Has another address for the hub, in this process and in those that it starts: what
    ``HF_ENDPOINT`` says is read once, when ``huggingface_hub`` is imported."""
    from huggingface_hub import constants

    template = url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setenv("HF_ENDPOINT", url)
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)


@contextmanager
def running() -> Iterator[ModelServer]:
    server = ModelServer()
    try:
        yield server
    finally:
        server.close()


def _handler(server: ModelServer) -> type[QuietHandler]:
    class Handler(QuietHandler):
        def do_HEAD(self) -> None:
            self._answer(send_body=False)

        def do_GET(self) -> None:
            self._answer(send_body=True)

        def _answer(self, *, send_body: bool) -> None:
            head = self.headers
            asked = Asked(self.command, self.path, head.get("Range"), head.get("If-Range"),
                          head.get("Authorization"), head.get("User-Agent"))  # fmt: skip
            server.asked.append(asked)
            served = server.files.get(self.path)
            if served is None or served.status != 200:
                asked.status = 404 if served is None else served.status
                self._end(
                    asked.status, {"Content-Length": "0", **(served.headers if served else {})}
                )
                return
            if served.hang_after == -1:
                server.closing.wait(HANG_S)
            first = _first(asked, served)
            if first > len(served.content) or (first and first == len(served.content)):
                asked.status = 416
                self._end(416, {"Content-Length": "0"})
                return
            asked.status = 206 if first else 200
            self._end(asked.status, _described(served, first))
            if send_body:
                self._send(served, first)

        def _end(self, status: int, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()

        def _send(self, served: Served, first: int) -> None:
            cut = served.break_after.pop(0) if served.break_after else None
            body = served.content[first:]
            try:
                for start in range(0, len(body), 16_384):
                    block = body[start : start + 16_384]
                    if cut is not None and start + len(block) > cut:
                        self.wfile.write(body[start:cut])
                        break
                    if served.hang_after is not None and start >= served.hang_after >= 0:
                        server.closing.wait(HANG_S)
                    self.wfile.write(block)
                    if served.drip_s:
                        time.sleep(served.drip_s)
            except OSError:
                pass
            if cut is not None or not served.length:
                self.wfile.flush()
                self.close_connection = True

    return Handler


def _first(asked: Asked, served: Served) -> int:
    """The first byte asked for, where this server answers with parts."""
    found = re.fullmatch(r"bytes=(\d+)-", asked.range or "")
    if found is None or not served.ranges:
        return 0
    versions = (served.etag, served.headers.get("Last-Modified"))
    if asked.if_range is not None and asked.if_range not in versions:
        return 0
    return int(found[1])


def _described(served: Served, first: int) -> dict[str, str]:
    size = len(served.content)
    headers = {"Content-Type": "application/octet-stream", **served.headers}
    if served.length:
        headers["Content-Length"] = str(size - first)
    if served.etag:
        headers["ETag"] = served.etag
    if first:
        headers["Content-Range"] = f"bytes {first}-{size - 1}/{size}"
    return headers
