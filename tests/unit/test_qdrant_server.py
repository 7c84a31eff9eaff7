"""The server store: reaching a server, what is refused, and how a name changes its meaning."""

from __future__ import annotations

import json
import logging
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

import numpy as np
import pytest
from qdrant_client import QdrantClient, models

from sam_detect.errors import ConfigError, StoreError
from sam_detect.types import Point
from sam_detect.vector_store import QdrantVectorStore, _collections, _connect
from sam_detect.vector_store._collections import Collections, Record, library_names
from sam_detect.vector_store._connect import ServerAddress
from sam_detect.vector_store._server import ServerStore
from sam_detect.vector_store.qdrant import server_collections

pytestmark = pytest.mark.filterwarnings("ignore:Local mode performs exact:UserWarning")


def points(count: int, dimension: int = 4) -> list[Point]:
    rng = np.random.default_rng(0)
    return [
        Point(str(uuid.UUID(int=n)), rng.normal(size=dimension), {"n": n}) for n in range(count)
    ]


# -- reaching a server -------------------------------------------------------------------------


class Answers(BaseHTTPRequestHandler):
    """Answers each path with what the test says: a status and a body (None: never)."""

    replies: ClassVar[dict[str, tuple[int, Any] | None]] = {}
    keys: ClassVar[list[str | None]] = []

    def do_GET(self) -> None:
        self.keys.append(self.headers.get("api-key"))
        reply = self.replies.get(self.path, (404, "not here"))
        if reply is None:
            time.sleep(20)
            return
        status, body = reply
        content = body.encode() if isinstance(body, str) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        pass


GREETING = {"title": "qdrant - vector search engine", "version": "1.19.0", "commit": "x"}
ALIASES = {
    "result": {
        "aliases": [
            {"alias_name": "nuts", "collection_name": "nuts~1"},
            {"alias_name": "a", "collection_name": "a~0f"},
            {"alias_name": "theirs", "collection_name": "their-collection"},
        ]
    },
    "status": "ok",
    "time": 0.0,
}


@pytest.fixture
def url() -> Iterator[str]:
    Answers.replies, Answers.keys = {"/": (200, GREETING), "/aliases": (200, ALIASES)}, []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    server.daemon_threads = True
    server.block_on_close = False
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_libraries_of_a_server_are_listed(url: str) -> None:
    assert server_collections(url) == ["a", "nuts"]


@pytest.mark.parametrize(
    ("replies", "parts"),
    [
        ({"/": (200, "<html>hello</html>")}, ["no Qdrant server answers", "docker compose up -d"]),
        ({"/": (404, "nothing")}, ["no Qdrant server answers", "leave out --qdrant-url"]),
        ({"/": (500, "oops\noops")}, ["no Qdrant server answers"]),
        ({"/": (200, {"hello": "world"})}, ["no Qdrant server answers"]),
        ({"/aliases": (401, "Must provide an API key")}, ["API key", "QDRANT_API_KEY"]),
        ({"/aliases": (403, "Invalid API key or JWT")}, ["API key", "QDRANT_API_KEY"]),
        ({"/": (200, {**GREETING, "version": "1.15.4"})}, ["1.15.4", "1.16", "update it"]),
    ],
    ids=["a page", "404", "500", "other JSON", "no key", "wrong key", "too old"],
)
def test_a_wrong_server_is_one_line(
    url: str, replies: dict[str, tuple[int, Any]], parts: list[str]
) -> None:
    Answers.replies = {**Answers.replies, **replies}
    with pytest.raises(StoreError) as caught:
        QdrantVectorStore(url=url).count()
    message = str(caught.value)
    assert "\n" not in message
    for part in [url, *parts]:
        assert part in message


def test_a_dead_server_is_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    store = QdrantVectorStore(url=f"http://127.0.0.1:{port}")
    for call in (store.count, store.read_manifest, lambda: store.upsert(points(1))):
        with pytest.raises(StoreError, match="docker compose up -d") as caught:
            call()
        assert f"http://127.0.0.1:{port}" in str(caught.value)


@pytest.mark.alone
def test_a_server_that_never_answers_is_given_up(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert _connect.PROBE_TIMEOUT_S <= 5
    monkeypatch.setattr(_connect, "PROBE_TIMEOUT_S", 1)
    Answers.replies = {"/": None}
    began = time.monotonic()
    with pytest.raises(StoreError, match="no Qdrant server answers"):
        QdrantVectorStore(url=url).count()
    assert time.monotonic() - began < 5


@pytest.mark.alone
def test_a_port_that_speaks_no_grpc_means_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setattr(_connect, "GRPC_PORT", silent.getsockname()[1])
        monkeypatch.setattr(_connect, "PROBE_TIMEOUT_S", 1)
        address = ServerAddress.parse("http://127.0.0.1:6333")
        began = time.monotonic()
        assert not _connect._grpc_answers(address, None)
        assert time.monotonic() - began < 5


def test_grpc_is_not_tried_beside_an_unusual_port(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "create_connection", lambda *_, **__: pytest.fail("tried"))
    assert not _connect._grpc_answers(ServerAddress.parse("http://127.0.0.1:7333"), None)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("http://localhost:6333", "http://localhost:6333"),
        ("http://localhost", "http://localhost:6333"),
        ("localhost:7000/", "http://localhost:7000"),
        ("https://me:secret@x.cloud.qdrant.io", "https://x.cloud.qdrant.io:6333"),
        ("http://[::1]:6333/path/", "http://[::1]:6333/path"),
    ],
)
def test_urls_are_read(text: str, expected: str) -> None:
    assert ServerAddress.parse(text).url == expected


@pytest.mark.parametrize("text", ["", "ftp://x", "http://", "http://x:99999", "http://x:y", "://"])
def test_urls_that_are_none(text: str) -> None:
    with pytest.raises(ConfigError, match="looks like http"):
        ServerAddress.parse(text)


@pytest.mark.parametrize(
    ("target", "warned"),
    [("http://127.0.0.1", False), ("http://[::1]", False), ("http://example.org", True)],
)
def test_a_key_over_plain_http_is_warned_of(
    target: str, warned: bool, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: Any, **__: Any) -> None:
        raise StoreError("far enough")

    monkeypatch.setattr(_connect, "_client", stop)
    with caplog.at_level(logging.WARNING), pytest.raises(StoreError):
        _connect.connect(target, "secret")
    assert ("unencrypted" in caplog.text) == warned
    assert "secret" not in caplog.text


@pytest.mark.filterwarnings("error")
def test_the_key_is_sent_and_never_shown(url: str) -> None:
    assert server_collections(url, "secret") == ["a", "nuts"]
    assert "secret" in Answers.keys
    store = QdrantVectorStore(url=url.replace("http://", "http://me:word@"), api_key="secret")
    assert "secret" not in store.location + repr(store)
    assert "word" not in store.location


def test_the_users_own_errors_stay_theirs() -> None:
    store = ServerStore(lambda: QdrantClient(":memory:"), "nuts", location="here")

    def broken() -> Iterator[Point]:
        yield from points(1)
        raise FileNotFoundError("picture.png not found")

    with pytest.raises(FileNotFoundError, match=r"picture\.png"):
        store.replace_all(broken(), {})


# -- the collections of a library --------------------------------------------------------------


@pytest.fixture
def client() -> QdrantClient:
    return QdrantClient(":memory:")


@pytest.fixture
def store(client: QdrantClient) -> ServerStore:
    return ServerStore(lambda: client, "nuts", location="here")


def collections_of(client: QdrantClient) -> set[str]:
    return {collection.name for collection in client.get_collections().collections}


def foreign(client: QdrantClient, name: str) -> None:
    size = models.VectorParams(size=4, distance=models.Distance.COSINE)
    client.create_collection(name, vectors_config=size)
    point = models.PointStruct(id=1, vector=[1, 0, 0, 0], payload={"theirs": True})
    client.upsert(name, [point])


def alias(client: QdrantClient, name: str, collection: str) -> None:
    made = models.CreateAlias(collection_name=collection, alias_name=name)
    client.update_collection_aliases([models.CreateAliasOperation(create_alias=made)])


@pytest.mark.parametrize("by_alias", [False, True], ids=["collection", "alias"])
def test_what_is_not_ours_is_left_alone(
    store: ServerStore, client: QdrantClient, by_alias: bool
) -> None:
    foreign(client, "theirs" if by_alias else "nuts")
    if by_alias:
        alias(client, "nuts", "theirs")
    calls = [
        store.count,
        store.read_manifest,
        store.destroy,
        lambda: list(store.scan()),
        lambda: store.upsert(points(1)),
        lambda: store.delete([str(uuid.UUID(int=1))]),
        lambda: store.write_manifest({}),
        lambda: store.replace_all(points(1), {}),
        lambda: store.search(np.ones((1, 4), np.float32), 1),
    ]
    for call in calls:
        with pytest.raises(StoreError, match="not made by sam-detect"):
            call()
    assert client.count("nuts").count == 1
    assert collections_of(client) == ({"theirs"} if by_alias else {"nuts"})


def test_collections_with_names_like_ours_are_left_alone(
    store: ServerStore, client: QdrantClient
) -> None:
    foreign(client, "nuts~old")
    foreign(client, "nuts2~1")
    store.upsert(points(3))
    store.replace_all(points(2), {"v": 1})
    store.destroy()
    assert collections_of(client) == {"nuts~old", "nuts2~1"}


def test_the_name_is_switched_in_one_request(
    store: ServerStore, client: QdrantClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.upsert(points(3))
    requests = []
    real = client.update_collection_aliases

    def record(steps: list[Any], **options: Any) -> Any:
        # At this moment both are complete.
        assert client.count("nuts").count == 3
        requests.append(len(steps))
        return real(steps, **options)

    monkeypatch.setattr(client, "update_collection_aliases", record)
    store.replace_all(points(7, dimension=2), {"v": 2})
    assert requests == [2]
    assert store.count() == 7
    assert len(collections_of(client)) == 1


def test_a_replacement_that_dies_before_the_switch_changes_nothing(
    store: ServerStore, client: QdrantClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.upsert(points(3))
    store.write_manifest({"v": 1})

    def die(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Collections, "switch", die)
    monkeypatch.setattr(client, "delete_collection", die)
    with pytest.raises(KeyboardInterrupt):
        store.replace_all(points(7), {"v": 2})
    monkeypatch.undo()
    assert (store.count(), store.read_manifest()) == (3, {"v": 1})
    assert len(collections_of(client)) == 2
    store.replace_all(points(4), {"v": 3})
    assert len(collections_of(client)) == 2, "it may be another process's, still at work"
    monkeypatch.setattr("sam_detect.vector_store._server.LEFTOVER_AGE_S", 0)
    store.replace_all(points(5), {"v": 4})
    assert (store.count(), len(collections_of(client))) == (5, 1)


def test_the_first_name_is_taken_by_one_process_only(
    client: QdrantClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process made the collection and names it while we wait."""
    mine = Collections(client, "nuts", "here")
    first = mine.create(Record(None, 4, time.time()), "1")
    timer = threading.Timer(0.3, alias, (client, "nuts", first))
    timer.start()
    ServerStore(lambda: client, "nuts", location="here").upsert(points(2))
    timer.join()
    assert collections_of(client) == {"nuts~1"}
    assert client.count("nuts").count == 2


def test_a_first_collection_that_nobody_names_is_made_again(
    client: QdrantClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_collections, "CREATION_WAIT_S", 0.2)
    Collections(client, "nuts", "here").create(Record(None, 9, time.time()), "1")
    store = ServerStore(lambda: client, "nuts", location="here")
    store.upsert(points(2))
    assert store.count() == 2


def test_a_scan_over_a_replacement_says_so(
    store: ServerStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sam_detect.vector_store._server.WHOLE_PAGE", 2)
    store.upsert(points(5))
    scan = store.scan()
    next(scan)
    store.replace_all(points(5), {})
    with pytest.raises(StoreError, match="replaced while it was read"):
        list(scan)


def test_libraries_are_listed_by_their_names(client: QdrantClient) -> None:
    foreign(client, "theirs")
    alias(client, "their-alias", "theirs")
    for name in ("b", "a"):
        ServerStore(lambda: client, name, location="here").write_manifest({})
    assert library_names(client, "here") == ["a", "b"]


def test_a_newer_record_is_not_taken_for_a_foreign_collection() -> None:
    record = Record({"a": 1}, 4, 0.0)
    assert Record.read(record.metadata()) == record
    newer = {**json.loads(record.metadata()["sam_detect"]), "more": True}
    assert Record.read({"sam_detect": json.dumps(newer)}) == record
    for metadata in (None, {}, {"sam_detect": "garbage"}, {"sam_detect": "[]"}, {"other": 1}):
        assert Record.read(metadata) is None
