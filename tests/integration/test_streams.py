"""``/v1/stream`` of ``sam-detect serve``: a process and a socket."""

from __future__ import annotations

import base64
import json
import os
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from sam_detect.interfaces import Segmenter
from sam_detect.segmentation import NaiveSegmenter
from sam_detect.types import NO_HINTS, Frame, Hints, Masks
from tests.integration.page_harness import TOKEN
from tests.integration.service_harness import learn, serving

pytest.importorskip("fastapi", reason="the extra 'server' is not installed")

from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

RELEASED = "RELEASED"
"""The variable that names a file: the segmenter waits until it is there."""


class Held(Segmenter):
    """Proposes nothing until a file is there."""

    name = "held"

    def propose(self, frame: Frame, hints: Hints = NO_HINTS) -> Masks:
        while not Path(os.environ[RELEASED]).exists():
            time.sleep(0.02)
        return NaiveSegmenter().propose(frame)


def test_a_stream_answers_each_picture_in_its_order(photo: Path, tmp_path: Path) -> None:
    other = photo.with_name("1.png").read_bytes()
    with serving(tmp_path / "home") as (client, _):
        learn(client, photo)
        url = f"{client.base_url}v1/stream".replace("http", "ws", 1)
        with connect(url) as socket:
            for message in (photo.read_bytes(), b"no picture", "text", other):
                socket.send(message)
            answers = [json.loads(socket.recv()) for _ in range(4)]
        assert [each["number"] for each in answers] == [1, 2, 3, 4]
        assert [each.get("problem", {}).get("status") for each in answers] == [None, 422, 422, None]
        assert [len(answers[i]["detections"]) for i in (0, 3)] == [5, 5]
        # Of many pictures only the latest is detected, and the service goes on when a client goes.
        with connect(f"{url}?latest=true&unknown=true") as socket:
            for _ in range(30):
                socket.send(other)
            answers = [json.loads(socket.recv()) for _ in range(30)]
        assert [each["number"] for each in answers] == list(range(1, 31))
        assert sum("skipped" in each for each in answers) > 10
        assert len(answers[-1]["detections"]) > 5
        with connect(url) as socket:
            socket.send(other)
        assert "sam_detect_streams 0.0" in client.get("/metrics").text
        with connect(f"{url}?library=none") as socket:
            socket.send(other)
            assert json.loads(socket.recv())["problem"]["status"] == 404


def test_streams_need_the_token_and_are_limited(photo: Path, tmp_path: Path) -> None:
    with serving(tmp_path / "home", SAM_DETECT_TOKEN=TOKEN) as (client, _):
        url = f"{client.base_url}v1/stream".replace("http", "ws", 1)
        named = f"token.{base64.urlsafe_b64encode(TOKEN.encode()).decode().rstrip('=')}"
        header = {"Authorization": f"Bearer {TOKEN}"}
        for options in (
            {}, {"additional_headers": {"Authorization": "Bearer no"}},
            {"additional_headers": header | {"Origin": "http://evil.example"}},
        ):  # fmt: skip
            with pytest.raises(InvalidStatus, match=r"HTTP 40[13]"), connect(url, **options):
                pass
        with connect(url, subprotocols=["sam-detect", named]) as socket:
            assert socket.subprotocol == "sam-detect"
        with pytest.raises(InvalidStatus), connect(f"{url}?threshold=7", additional_headers=header):
            pass
        with ExitStack() as stack:
            for _ in range(16):
                stack.enter_context(connect(url, additional_headers=header))
            with pytest.raises(InvalidStatus, match="503"), connect(url, additional_headers=header):
                pass


def test_a_stream_keeps_only_so_many_bytes_ahead(photo: Path, tmp_path: Path) -> None:
    released = tmp_path / "released"
    options = ("--segmenter", f"tests.integration.{Path(__file__).stem}:Held")
    environment = {RELEASED: str(released), "PYTHONPATH": str(Path(__file__).parents[2])}
    other = photo.with_name("1.png").read_bytes()  # of the one that is learnt, proposals are kept
    large, count = other + bytes(40 << 20), 7
    sent: list[int] = []
    released.touch()
    with serving(tmp_path / "home", *options, **environment) as (client, _):
        assert learn(client, photo).status_code == 200
        released.unlink()
        url = f"{client.base_url}v1/stream".replace("http", "ws", 1)
        with connect(url, ping_interval=None, close_timeout=1) as socket:
            socket.send(other)

            def send() -> None:
                for number in range(count):
                    socket.send(large)
                    sent.append(number)

            sending = threading.Thread(target=send, daemon=True)
            sending.start()
            last, since = 0, time.monotonic()
            while sending.is_alive() and time.monotonic() < since + 2:
                time.sleep(0.05)
                if len(sent) > last:
                    last, since = len(sent), time.monotonic()
            # Two are kept, one waits for room, and one is with the connection.
            assert 2 <= len(sent) <= 4, "further ones stay with the client"
            released.touch()
            answers = [json.loads(socket.recv(timeout=60)) for _ in range(count + 1)]
            sending.join()
    assert [each["number"] for each in answers] == list(range(1, count + 2))
    assert [len(each.get("detections", ())) for each in answers] == [5] * (count + 1)
