"""Answers of a Qdrant server have limits, and no password of its URL is ever printed."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hostile_server import ANSWERS, dripping_body, endless, plain, server

from sam_detect.errors import ConfigError, StoreError
from sam_detect.vector_store import QdrantOptions, QdrantVectorStore, _connect
from sam_detect.vector_store._connect import ServerAddress
from sam_detect.vector_store.qdrant import server_collections

ALIASES = {"result": {"aliases": []}, "status": "ok", "time": 0.0}


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_connect, "ANSWER_S", 0.5)
    monkeypatch.setattr(_connect, "MAX_ANSWER_BYTES", 1 << 20)


@pytest.mark.parametrize("path", ["/", "/aliases"])
@pytest.mark.parametrize("what", ANSWERS)
def test_an_answer_that_never_ends_is_given_up_in_one_line(what: str, path: str) -> None:
    began = time.monotonic()
    with server({path: ANSWERS[what]}) as url, pytest.raises(StoreError) as caught:
        server_collections(url)
    assert url in str(caught.value)
    assert len(str(caught.value)) < 600
    assert "\n" not in str(caught.value)
    assert time.monotonic() - began < 8


@pytest.mark.parametrize(
    ("answer", "reason"),
    [(dripping_body, "its answer was not complete after"), (endless, "its answer is longer than")],
)
def test_the_reason_is_said(answer: Callable[[], Iterator[bytes]], reason: str) -> None:
    with server({"/": answer}) as url, pytest.raises(StoreError, match=reason):
        QdrantVectorStore(url=url).count()


def test_a_later_answer_on_the_same_connection_has_its_own_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def slow_to_begin() -> Iterator[bytes]:
        time.sleep(0.8)  # the server thinks: nothing has begun to come
        yield plain(ALIASES)

    with server({"/aliases": slow_to_begin}) as url:
        assert server_collections(url) == []


def test_pages_in_a_circle_are_given_up() -> None:
    from sam_detect.vector_store._collections import Record
    from sam_detect.vector_store._server import ServerStore

    class Client:
        def scroll(self, *_: Any, **__: Any) -> tuple[list[Any], str]:
            return [], str(uuid.UUID(int=1))

    store = ServerStore(Client, "nuts", location="http://there")  # type: ignore[arg-type]
    store._connected = Client()  # type: ignore[assignment]
    pages = store._pages("nuts~1", 10, None, {})
    with pytest.raises(StoreError, match="same page of points again"):
        list(pages)
    assert Record.read({"sam_detect": "[" * 100_000}) is None
    assert Record.read({"sam_detect": '{"manifest": 5, "dimension": 4, "made": 0}'}) is None


def test_names_that_no_library_has_are_left_out() -> None:
    names = ["nuts", "a\x9b31m", "\u202egpj", "../up", ""]
    aliases = [{"alias_name": name, "collection_name": f"{name}~1"} for name in names]
    body = {**ALIASES, "result": {"aliases": aliases}}
    with server({"/aliases": lambda: iter([plain(body)])}) as url:
        assert server_collections(url) == ["nuts"]


MALFORMED = [
    "http://joe:geheim@host:99999",
    "http://joe:geheim@host:port",
    "http://joe:ge/heim@host:6333",
    "http://joe:12/geheim@host:6333",
    "http://joe:ge#heim@host:6333",
    "http://joe:ge?heim@host",
    "http://joe:g@heim@[::1",
    "http:/joe:geheim@host",
    "ftp://joe:geheim@host",
    "joe:geheim@host:99999",
    "http://joe:ge heim@:6333",
    "://joe:geheim@host",
    "http://host:port?api_key=geheim",
]


@pytest.mark.parametrize("text", MALFORMED)
def test_no_password_of_a_malformed_address_is_shown(text: str) -> None:
    with pytest.raises(ConfigError, match="looks like http") as caught:
        ServerAddress.parse(text)
    assert "heim" not in str(caught.value)
    assert "joe" not in str(caught.value)


def test_a_server_that_answers_the_probe_and_then_is_silent_is_given_up() -> None:
    stopped = threading.Event()

    def silent() -> Iterator[bytes]:
        stopped.wait(60)
        yield b""

    class SilentLater(dict[str, Callable[[], Iterator[bytes]]]):
        """Answers the probe alone."""

        def __contains__(self, path: object) -> bool:
            return path != "/"

        def __missing__(self, path: str) -> Callable[[], Iterator[bytes]]:
            return silent

    with server(SilentLater({"/aliases": lambda: iter([plain(ALIASES)])})) as url:
        with pytest.raises(StoreError, match=r"did not answer in time.*QDRANT_TIMEOUT_S"):
            QdrantVectorStore(url=url, timeout_s=1).read_manifest()
        stopped.set()
    default = QdrantOptions.model_fields["qdrant_timeout_s"].default
    assert default == _connect.DEFAULT_TIMEOUT_S < 10
