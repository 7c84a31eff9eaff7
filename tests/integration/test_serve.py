"""``sam-detect serve`` as other programs have it: a process and a socket."""

from __future__ import annotations

import base64
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import cv2
import httpx
import numpy as np
import pytest
import tifffile

from tests.browser import browser
from tests.integration.cli_harness import in_this_process
from tests.integration.page_harness import TOKEN
from tests.integration.page_harness import serving as page_serving
from tests.integration.service_harness import BOXES, detect, learn, serving

pytest.importorskip("fastapi", reason="the extra 'server' is not installed")

from websockets.sync.client import connect

from sam_detect.api import SAMDetect
from sam_detect.server.client import Client
from sam_detect.types import Detections
from sam_detect.vector_store import QdrantVectorStore


def test_what_is_learnt_is_detected_also_after_a_kill(photo: Path, tmp_path: Path) -> None:
    other = photo.with_name("1.png")
    with serving(tmp_path / "home") as (client, process):
        answer = learn(client, photo)
        assert answer.status_code == 200
        assert (answer.json()["added"], answer.json()["total"]) == (2, 2)
        process.kill()
        process.wait()
    with serving(tmp_path / "home") as (client, _):
        found = detect(client, photo, other).json()["results"]
        assert [each["image"] for each in found] == ["0.png", "1.png"]
        assert [len(each["detections"]) for each in found] == [5, 5]
        assert {d["label"] for each in found for d in each["detections"]} == {"nut"}
        # The command gives the same.
        command = [sys.executable, "-m", "sam_detect", "detect", str(other), "--json"]
        done = subprocess.run(
            command, env={**os.environ, "SAM_DETECT_HOME": str(tmp_path / "home")},
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        mine = json.loads(done.stdout)
        assert [d["segmentation"] for d in found[1]["detections"]] == [
            d["segmentation"] for d in mine["detections"] if d["label"]
        ]
        as_text = base64.b64encode(other.read_bytes()).decode()
        body = {"images": [{"name": "../a/b.png", "data": as_text}]}
        again = client.post("/v1/detect", json=body, params={"unknown": True}).json()["results"][0]
        assert again["image"] == "b.png"
        assert len(again["detections"]) > 5
        assert detect(client, other, threshold=1).json()["results"][0]["detections"] == []


def test_examples_and_libraries(photo: Path, tmp_path: Path) -> None:
    with serving(tmp_path / "home") as (client, _):
        assert client.get("/v1/libraries").json() == {"libraries": []}
        assert learn(client, photo, library="parts", label="<b>bolt</b>").status_code == 200
        assert client.get("/v1/libraries").json() == {"libraries": ["parts"]}
        stats = client.get("/v1/libraries/parts").json()
        assert stats["classes"] == {"<b>bolt</b>": 2}
        listed = client.get("/v1/examples", params={"library": "parts", "limit": 1}).json()
        assert (listed["total"], len(listed["examples"])) == (2, 1)
        example = listed["examples"][0]["id"]
        crop = client.get(f"/v1/examples/{example}/thumbnail", params={"library": "parts"})
        assert crop.headers["content-type"] == "image/webp"
        gone = client.delete(f"/v1/examples/{example}", params={"library": "parts"})
        assert gone.json() == {"removed": 1}
        assert client.post("/v1/libraries/parts/undo").json()["examples"] == 1
        for path in ("/v1/libraries/nothing", "/v1/examples?library=nothing"):
            missing = client.get(path)
            assert missing.status_code == 404
            assert missing.headers["content-type"] == "application/problem+json"
        assert detect(client, photo, library="../../etc").status_code in (404, 422)


def test_a_library_that_does_not_exist_is_said_and_can_be_made(photo: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    with serving(home, "--library", "nuts") as (client, _):
        assert learn(client, photo).status_code == 200
    with serving(home, "--library", "nust") as (client, _):
        assert client.get("/readyz").status_code == 200
        assert "new library 'nust' (there is also 'nuts')" in (home / "log").read_text()
        for query in ({}, {"library": "nust"}, {"library": "nutz"}):
            told = detect(client, photo, **query)
            assert told.status_code == 404
            name = query.get("library", "nust")
            for words in (f"no library '{name}'", "did you mean 'nuts'?", "POST /v1/examples"):
                assert words in told.json()["detail"]
            assert "SAM_DETECT_HOME" not in told.text
        job = client.post("/v1/jobs", files=[("images", ("a.png", photo.read_bytes()))]).json()
        assert ended(client, job["id"])["problems"] == 1
        assert len(detect(client, photo, library="nuts").json()["results"][0]["detections"]) == 5
        assert learn(client, photo).json()["total"] == 2
        assert len(detect(client, photo).json()["results"][0]["detections"]) == 5


def test_a_guessed_outline_is_learnt_only_where_it_is_accepted(photo: Path, tmp_path: Path) -> None:
    nothing_there = [[3, 3, 24, 24]]
    with serving(tmp_path / "home") as (client, _):
        refused = learn(client, photo, boxes_xywh=nothing_there).json()
        assert (refused["added"], refused["boxes_xywh"]) == (0, [])
        assert "accept_guess" in refused["warnings"][0]
        partly = learn(client, photo, boxes_xywh=BOXES + nothing_there).json()
        assert (partly["added"], len(partly["warnings"])) == (2, 1)
        accepted = learn(client, photo, boxes_xywh=nothing_there, accept_guess=True).json()
        assert (accepted["added"], accepted["total"]) == (1, 3)


def test_a_batch_is_taken_back_once_also_where_another_has_relabelled(
    photo: Path, tmp_path: Path
) -> None:
    with serving(tmp_path / "home") as (client, _):
        mine = learn(client, photo).json()["batch"]
        other = learn(client, photo, label="date", boxes_xywh=BOXES[:1]).json()["batch"]

        def undo(batch: str) -> httpx.Response:
            return client.post("/v1/libraries/default/undo", params={"batch": batch})

        taken = undo(mine).json()
        assert (taken["batch"], taken["labels"], taken["examples"]) == (mine, {"nut": 1}, 1)
        again = undo(mine)
        assert (again.status_code, "already" in again.json()["detail"]) == (409, True)
        assert client.get("/v1/libraries/default").json()["classes"] == {"date": 1}
        assert undo(other).json()["labels"] == {"date": 1}
        assert client.get("/v1/libraries/default").json()["examples"] == 0


def test_an_outline_that_lies_mostly_outside_is_refused(photo: Path, tmp_path: Path) -> None:
    def at(x: float, y: float) -> list[list[float]]:
        return [[x, y], [x + 40, y], [x + 40, y + 40], [x, y + 40]]

    with serving(tmp_path / "home") as (client, _):
        for right in (at(40, 40), at(-15, 40)):
            assert learn(client, photo, boxes_xywh=[], polygons_xy=[right]).json()["added"] == 1
        for wrong in (at(-25, 40), at(-15, -15), at(4000, 40)):
            told = learn(client, photo, boxes_xywh=[], polygons_xy=[at(80, 80), wrong])
            assert told.status_code == 422
            assert "polygons_xy.1" in told.json()["detail"]
            assert "outside of the picture" in told.json()["detail"]
        assert client.get("/v1/libraries/default").json()["examples"] == 2


def test_bad_requests_are_problems(photo: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no picture")
    bomb = tmp_path / "bomb.png"
    header = (
        b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + b"\x00\x01\x86\xa0" * 2 + b"\x08\x02\x00\x00\x00"
    )
    bomb.write_bytes(header + photo.read_bytes()[29:])
    with serving(tmp_path / "home", "--max-upload", "1") as (client, _):
        found = detect(client, bad, photo, bomb).json()["results"]
        assert [each.get("problem", {}).get("status") for each in found] == [422, None, 422]
        assert str(tmp_path) not in json.dumps(found)
        assert "sam-detect-" not in json.dumps(found)
        assert learn(client, bad).status_code == 422
        assert learn(client, photo, boxes_xywh=[[900, 900, 5, 5]]).status_code == 422
        assert learn(client, photo, boxes_xywh=[]).status_code == 422
        assert learn(client, photo, label="  ").status_code == 422
        assert learn(client, photo, colour="red").status_code == 422
        assert client.post("/v1/detect", json={"images": [{"data": "%%"}]}).status_code == 422
        assert client.post("/v1/detect", json={"image_url": "http://x"}).status_code == 422
        assert client.post("/v1/detect", content=b"x").status_code == 422
        assert client.post("/v1/detect", data={"images": "text"}).status_code == 422
        large = tmp_path / "large.png"
        large.write_bytes(photo.read_bytes() + b"\0" * (2 << 20))
        assert detect(client, large).status_code == 413
        assert client.get("/v1/examples/zz/thumbnail").status_code == 422
        assert client.get("/v1/libraries").json() == {"libraries": []}, "nothing was learnt"


def test_tokens_ids_and_logs(photo: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    with serving(home, SAM_DETECT_TOKEN=TOKEN) as (client, _):
        assert detect(client, photo).status_code == 401
        assert client.get("/healthz").status_code == 200
        assert client.get("/docs").status_code == 200
        assert client.get("/openapi.json").status_code == 401
        client.headers["Authorization"] = f"Bearer {TOKEN}"
        right = client.get("/v1/libraries", headers={"X-Request-ID": "mine-1"})
        assert right.headers["x-request-id"] == "mine-1"
        odd = client.get("/v1/libraries", headers={"X-Request-ID": 'a"b c'})
        assert odd.headers["x-request-id"].isalnum()
        client.get("/v1/examples", params={"library": "secret-name"})
        missing = client.get("/v1/libraries/none", headers={"X-Request-ID": "mine-2"})
        assert missing.json()["instance"] == "urn:sam-detect:request:mine-2"
        foreign = client.post("/v1/libraries/a/undo", headers={"Origin": "https://elsewhere"})
        assert foreign.status_code == 403
        assert learn(client, photo).status_code == 200
        assert detect(client, photo).status_code == 200
        text = client.get("/metrics").text
        for figure in (
            'sam_detect_requests_total{method="POST",route="none",status="401"} 1.0',
            'sam_detect_library_examples{library="default"} 2.0',
            "sam_detect_queue_length 0.0",
            'sam_detect_stage_seconds_count{stage="propose"} 1.0',
        ):
            assert figure in text
        assert client.get("/readyz").json()["status"] == "ready"
    log = (home / "log").read_text()
    assert TOKEN not in log
    assert "secret-name" not in log
    lines = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
    assert any(line.get("request") == "mine-1" and line["status"] == 200 for line in lines)


def test_what_waits_is_limited_and_what_was_taken_is_done(photo: Path, tmp_path: Path) -> None:
    options = ("--queue", "2")
    with serving(tmp_path / "home", *options) as (client, process):
        assert learn(client, photo).status_code == 200
        with ThreadPoolExecutor(12) as pool:
            answers = list(pool.map(lambda _: detect(client, photo), range(24)))
        statuses = {each.status_code for each in answers}
        assert statuses == {200, 429}
        refused = next(each for each in answers if each.status_code == 429)
        assert int(refused.headers["retry-after"]) > 0
        assert "waiting already" in refused.json()["detail"]
        # What is being answered when the service is told to end is answered.
        with ThreadPoolExecutor(2) as pool:
            last = [pool.submit(detect, client, photo) for _ in range(2)]
            time.sleep(0.05)
            process.send_signal(signal.SIGTERM)
            assert all(each.result().status_code in (200, 503) for each in last)
        assert process.wait(30) in (0, -signal.SIGTERM)


def test_uploads_together_are_limited(photo: Path, tmp_path: Path) -> None:
    mb = 1 << 20
    with serving(tmp_path / "home", "--max-upload", "1") as (client, _):
        place = client.base_url

        def begun(sent: int) -> socket.socket:
            head = (
                f"POST /v1/detect HTTP/1.1\r\nHost: {place.host}\r\n"
                f"Content-Type: application/json\r\nContent-Length: {mb}\r\n\r\n"
            ).encode()
            found = opened.enter_context(socket.create_connection((place.host, place.port), 30))
            found.sendall(head + b" " * sent)
            return found

        with ExitStack() as opened:
            for _ in range(40):
                begun(1)
            assert detect(client, photo).status_code == 200, "what is only announced takes no room"
        with ExitStack() as opened:
            for _ in range(8):
                begun(mb - 1)
            last, deadline = begun(0), time.monotonic() + 30
            while (refused := detect(client, photo)).status_code != 429:
                assert time.monotonic() < deadline, "eight megabytes are there"
                with suppress(ConnectionError):
                    last.sendall(b" " * 1000)
            assert int(refused.headers["retry-after"]) > 0
            assert "uploads" in refused.json()["detail"]
            assert client.get("/healthz").status_code == 200, "it has no body"
        while detect(client, photo).status_code != 200:
            assert time.monotonic() < deadline, "there is room again"


def test_a_slow_client_is_given_up(photo: Path, tmp_path: Path) -> None:
    with serving(tmp_path / "home", "--timeout", "1") as (client, _):
        place = client.base_url
        with socket.create_connection((place.host, place.port), timeout=30) as slow:
            slow.sendall(
                f"POST /v1/detect HTTP/1.1\r\nHost: {place.host}\r\n"
                "Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{".encode()
            )
            assert b" 408 " in slow.recv(200)
        assert client.get("/healthz").status_code == 200


def test_two_services_teach_one_library(photo: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    with serving(home) as (one, _), serving(home) as (other, _):

        def teach(number: int) -> int:
            boxes = [[30 + 12 * number, 30 + 5 * number, 40, 40]]
            answer = learn((one, other)[number % 2], photo, boxes_xywh=boxes,
                           label=f"nut {number}", accept_guess=True)  # fmt: skip
            return int(answer.json()["added"])

        with ThreadPoolExecutor(4) as pool:
            added = list(pool.map(teach, range(8)))
        taught = {f"nut {number}": 1 for number in range(8)}
        assert added == [1] * 8
        for client in (one, other):
            assert client.get("/v1/libraries/default").json()["classes"] == taught
        # What one has learnt is what the other detects with, at once.
        learn(one, photo, label="date")
        found = detect(other, photo).json()["results"][0]["detections"]
        assert "date" in {each["label"] for each in found}


@pytest.mark.slow
def test_nothing_acknowledged_is_lost_in_fifty_kills(photo: Path, tmp_path: Path) -> None:
    acknowledged: dict[str, int] = {}
    for kill in range(50):
        with serving(tmp_path / "home") as (client, process):

            def load(number: int) -> None:
                label = f"{kill}-{number}"  # noqa: B023 - ends before the next kill
                mine = photo.with_name(f"{label}.png")
                for step in range(100):
                    # Another picture each time: what is taught again adds nothing.
                    picture = cv2.imread(str(photo))
                    picture[0, 0] = kill, number, step  # noqa: B023
                    cv2.imwrite(str(mine), picture)
                    try:
                        answer = learn(client, mine, boxes_xywh=BOXES[:1], label=label)
                    except httpx.HTTPError:
                        return
                    added = answer.json().get("added", 0)
                    acknowledged[label] = acknowledged.get(label, 0) + added

            threads = [threading.Thread(target=load, args=(number,)) for number in range(4)]
            for thread in threads:
                thread.start()
            wanted, end = sum(acknowledged.values()) + 1 + kill % 5, time.monotonic() + 60
            while sum(list(acknowledged.values())) < wanted and time.monotonic() < end:
                time.sleep(0.01)
            time.sleep(0.01 * (kill % 13))  # anywhere in the next request
            process.kill()
            for thread in threads:
                thread.join()
        with serving(tmp_path / "home") as (client, _):
            stats = client.get("/v1/libraries/default")
            there = stats.json()["classes"] if stats.status_code == 200 else {}
            lost = {label: n for label, n in acknowledged.items() if there.get(label, 0) < n}
            assert not lost
    assert sum(acknowledged.values()) >= 150


@pytest.mark.slow
def test_fifty_clients_for_five_minutes(photo: Path, tmp_path: Path) -> None:
    clients, seconds = 50, 300
    answered: list[int] = []
    taught: dict[str, int] = {}
    memory: list[float] = []

    def load(number: int, url: str, end: float) -> None:
        # A picture of its own: an outline that two name in one picture has the name given last.
        mine, step = cv2.imread(str(photo)), 0
        mine[0, 0] = number
        with Client(url, timeout=120, patience=240) as client:
            while time.monotonic() < end:
                step += 1
                if step % 20 == 1:
                    box = [40 + number % 5 * 8, 30 + step, 40, 40]
                    added = client.learn(mine, f"nut {number}", boxes_xywh=[box])["added"]
                    taught[f"nut {number}"] = taught.get(f"nut {number}", 0) + added
                else:
                    client.detect(mine)
            answered.append(step)

    with serving(tmp_path / "home") as (http, _):
        end = time.monotonic() + seconds
        threads = [
            threading.Thread(target=load, args=(number, str(http.base_url), end))
            for number in range(clients)
        ]
        for thread in threads:
            thread.start()
        while time.monotonic() < end:
            time.sleep(5)
            figures = http.get("/metrics").text
            memory.append(float(re.findall(r"^sam_detect_memory_bytes (\S+)", figures, re.M)[0]))
        for thread in threads:
            thread.join(300)
        stats = http.get("/v1/libraries/default").json()
        figures = http.get("/metrics").text
    # A client whose request was lost has raised an error, and is not here.
    assert len(answered) == clients
    assert stats["classes"] == taught
    assert "sam_detect_requests_in_flight 1.0" in figures
    warm = max(memory[len(memory) // 5 : len(memory) // 3])
    print(f"{sum(answered)} requests, {len(taught)} labels, memory {warm / 2**20:.0f} MiB, then "
          f"{max(memory[-5:]) / 2**20:.0f} MiB")  # fmt: skip
    assert max(memory[-5:]) < 1.25 * warm + (32 << 20)


def ended(client: httpx.Client, job: str) -> dict[str, Any]:
    """A job's state when it has ended; its events are read until then."""
    with client.stream("GET", f"/v1/jobs/{job}/events") as events:
        data = [line[6:] for line in events.iter_lines() if line.startswith("data: ")]
    found: dict[str, Any] = json.loads(data[-1])
    return found


def test_a_job_has_each_result_once_and_in_order(photo: Path, tmp_path: Path) -> None:
    temporary, count = tmp_path / "temporary", 30
    temporary.mkdir()
    with serving(tmp_path / "home", TMPDIR=str(temporary)) as (client, _):
        assert learn(client, photo).status_code == 200
        files = [("images", (f"{i}.png", photo.read_bytes())) for i in range(count)]
        files[7] = ("images", ("bad.png", b"no picture"))
        begun = client.post("/v1/jobs", files=files)
        assert begun.status_code == 202
        job = begun.json()["id"]
        assert begun.headers["location"] == f"/v1/jobs/{job}"
        while client.get(f"/v1/jobs/{job}").json()["done"] < 3:
            time.sleep(0.02)
        so_far = client.get(f"/v1/jobs/{job}/results").text.splitlines()
        state = ended(client, job)
        assert (state["state"], state["done"], state["problems"]) == ("done", count, 1)
        lines = client.get(f"/v1/jobs/{job}/results").text.splitlines()
        assert 3 <= len(so_far) <= count
        assert lines[: len(so_far)] == so_far
        names = [json.loads(line)["image"] for line in lines]
        assert names == [f"{i}.png" if i != 7 else "bad.png" for i in range(count)]
        assert len(json.loads(lines[0])["detections"]) == 5
        rest = client.get(f"/v1/jobs/{job}/results", params={"start": count - 2}).text
        assert rest.splitlines() == lines[-2:]
        assert client.get(f"/v1/jobs/{job}/results", params={"start": count}).text == ""
        # A client that was cut off is told only what is new to it.
        headers = {"Last-Event-ID": str(count)}
        again = client.get(f"/v1/jobs/{job}/events", headers=headers).text
        assert again.count("event: ") == 1
        kept = [each.name for each in temporary.rglob("*") if each.is_file()]
        assert kept == ["results.jsonl"], "the pictures are kept no longer"
        assert client.delete(f"/v1/jobs/{job}").json()["state"] == "removed"
        assert client.get(f"/v1/jobs/{job}").status_code == 404
        assert not [each for each in temporary.rglob("*") if each.is_file()]


def test_a_job_that_is_deleted_twice_stops_no_other(photo: Path, tmp_path: Path) -> None:
    with serving(tmp_path / "home") as (client, _):
        learn(client, photo)
        files = [("images", (f"{i}.png", photo.read_bytes())) for i in range(20)]
        job = client.post("/v1/jobs", files=files).json()["id"]
        while client.get(f"/v1/jobs/{job}").json()["state"] != "running":
            time.sleep(0.01)
        states = [client.delete(f"/v1/jobs/{job}").status_code for _ in range(3)]
        assert states == [200, 200, 404]
        later = client.post("/v1/jobs", files=files[:2]).json()["id"]
        assert ended(client, later)["done"] == 2
        assert client.get("/readyz").status_code == 200


def test_figures_wait_for_no_library(photo: Path, tmp_path: Path) -> None:
    """As while a backup of one is made."""
    home = tmp_path / "home"
    with serving(home) as (client, _):
        learn(client, photo)
        with QdrantVectorStore(home / "libraries").session():
            figures = client.get("/metrics", timeout=10)
            assert 'sam_detect_library_examples{library="default"} 2.0' in figures.text


def test_jobs_of_folders_stay_below_the_root_and_can_be_cancelled(
    photo: Path, tmp_path: Path
) -> None:
    root = tmp_path / "root"
    (root / "tray").mkdir(parents=True)
    for number in range(40):
        (root / "tray" / f"{number:02}.png").write_bytes(photo.read_bytes())
    (root / "away").symlink_to(photo.parent)
    (root / "tray" / "link.png").symlink_to(photo)
    with serving(tmp_path / "home", "--root", str(root)) as (client, _):
        learn(client, photo)
        for folder in ("..", "../photos", "away", str(photo.parent), "nothing", "tray/00.png"):
            refused = client.post("/v1/jobs", json={"folder": folder})
            assert refused.status_code == 422, folder
        job = client.post("/v1/jobs", json={"folder": "tray"}).json()
        assert job["total"] == 40, "a link that leads out of the root is left out"
        [told] = job["warnings"]
        assert told.startswith("tray: 1 of 41 pictures are passed over, since they are links")
        later = client.post("/v1/jobs", json={"folder": "tray"}).json()["id"]
        assert client.delete(f"/v1/jobs/{later}").json()["state"] == "cancelled"
        assert client.delete(f"/v1/jobs/{job['id']}").json()["state"] == "cancelled"
        done = client.get(f"/v1/jobs/{job['id']}").json()["done"]
        time.sleep(1)
        assert client.get(f"/v1/jobs/{job['id']}").json()["done"] <= done + 1
        assert [each["id"] for each in client.get("/v1/jobs").json()["jobs"]] == [later, job["id"]]
    with serving(tmp_path / "home") as (client, _):
        refused = client.post("/v1/jobs", json={"folder": "tray"})
        assert "--root" in refused.json()["detail"]


def test_warnings_of_readers_reach_the_client(photo: Path, tmp_path: Path) -> None:
    root, grey = tmp_path / "root", cv2.imread(str(photo), cv2.IMREAD_GRAYSCALE)
    (root / "tray").mkdir(parents=True)
    (root / "away").mkdir()
    stack = root / "tray" / "stack.tif"
    tifffile.imwrite(stack, np.stack([grey] * 5), photometric="minisblack")
    (root / "tray" / "plain.png").write_bytes(photo.read_bytes())
    (root / "tray" / "scan.czi").write_bytes(b"CZI")
    (root / "tray" / "linked").symlink_to(root / "away")
    with serving(tmp_path / "home", "--root", str(root)) as (client, _):
        learnt = learn(client, stack, accept_guess=True).json()
        found = detect(client, stack, photo, stack).json()["results"]
        for warned in (learnt["warnings"], found[0]["warnings"], found[2]["warnings"]):
            [line] = warned
            assert line.startswith("stack.tif: only page 1 of 5")
        assert found[1]["warnings"] == [], "of another picture"
        with ThreadPoolExecutor(4) as pool:  # as the two workers and the threads of jobs do
            several = list(pool.map(lambda each: detect(client, each), [stack, photo] * 10))
        counts = [len(each.json()["results"][0]["warnings"]) for each in several]
        assert counts == [1, 0] * 10
        with connect(f"{client.base_url}v1/stream".replace("http", "ws", 1)) as stream:
            stream.send(stack.read_bytes())
            assert "only page 1 of 5" in json.loads(stream.recv())["warnings"][0]
        job = client.post("/v1/jobs", json={"folder": "tray"}).json()
        warned = sorted(ended(client, job["id"])["warnings"])
        assert warned == sorted(job["warnings"])
        assert warned[0].startswith("tray: 1 of 3 pictures are passed over")
        assert ".czi" in warned[0]
        assert warned[1].startswith("tray: linked folders are not searched (tray/linked)")
        lines = client.get(f"/v1/jobs/{job['id']}/results").text.splitlines()
        results = {each["image"]: each["warnings"] for each in map(json.loads, lines)}
        assert results["plain.png"] == []
        assert results["stack.tif"][0].startswith("stack.tif: only page 1 of 5")
        service = Client(str(client.base_url))
        with pytest.warns(UserWarning, match="only page 1 of 5") as seen:
            service.detect(stack)
        assert seen[0].filename == __file__
        with pytest.warns(UserWarning, match="czi") as seen:
            service.submit(folder="tray")
        assert [each.filename for each in seen] == [__file__] * 2
        (root / "tray" / "plain.png").unlink()
        stack.unlink()
        refused = client.post("/v1/jobs", json={"folder": "tray"})
        assert (refused.status_code, ".czi" in refused.json()["detail"]) == (422, True)
        for each in (learnt, found, results, job, refused.json()):
            assert str(tmp_path) not in json.dumps(each)
            assert "sam-detect-" not in json.dumps(each)
    assert "only page" not in (tmp_path / "home" / "log").read_text(), "it is the client's"


def test_no_address_is_fetched(photo: Path, tmp_path: Path) -> None:
    with serving(tmp_path / "home") as (client, _):
        for picture in (
            {"url": f"{client.base_url}healthz"},
            {"data": "aa", "url": "http://a.org"},
        ):
            told = client.post("/v1/detect", json={"images": [picture]})
            assert (told.status_code, "images" in told.json()["detail"]) == (422, True)


def test_the_command_python_and_the_service_answer_alike(
    photo: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Same picture, same library, same options: the same answer."""
    home, other = tmp_path / "home", photo.with_name("1.png")
    monkeypatch.setenv("SAM_DETECT_HOME", str(home))
    parts = {"segmenter": "naive", "embedder": "appearance", "library": "nuts"}
    detector = SAMDetect(**parts)  # type: ignore[arg-type]
    detector.learn(photo, "nut", boxes_xywh=BOXES)
    detector.learn(photo, "stick", boxes_xywh=[[278, 106, 24, 88]])
    detector.learn(photo, "nut", boxes_xywh=[[60, 140, 40, 40]], negative=True)

    def plain(found: Any, *, unknown: bool) -> list[Any]:
        return [each for each in found["detections"] if unknown or each["label"]]

    command = in_this_process(capfd)
    confidences = sorted({round(each.confidence, 3) for each in detector.detect(other)})
    between = confidences[len(confidences) // 2] + 0.001
    seen = set()
    with serving(home, "--library", "nuts") as (client, _):
        service = Client(str(client.base_url))
        for threshold in (None, 0.0, 0.3, between, 0.8, 1.0):
            given = [] if threshold is None else ["--threshold", str(threshold)]
            options = [f"--{name}={value}" for name, value in parts.items()]
            [of_command] = command("detect", other, "--json", "--explain", *options, *given).json
            python = detector.detect(other, threshold=threshold)
            of_python = json.loads(json.dumps(python.to_dict(explain=True)))
            [again] = detector.detect([other], threshold=threshold)
            for unknown in (False, True):
                query: dict[str, Any] = {"unknown": unknown, "explain": True}
                query |= {} if threshold is None else {"threshold": threshold}
                expected = plain(of_command, unknown=unknown)
                of_service = detect(client, other, **query).json()["results"][0]
                assert of_service["detections"] == expected
                assert plain(of_python, unknown=unknown) == expected
                assert plain(again.to_dict(explain=True), unknown=unknown) == plain(
                    python.to_dict(explain=True), unknown=unknown
                )
                asked = service.detect(other, threshold=threshold, unknown=unknown)
                assert [each.label for each in asked] == [each["label"] for each in expected]
                assert asked.check == of_service.get("check", "") == python.check
                seen.add(len(expected))
        data = Path(other).read_bytes()
        for given_data in (data, io.BytesIO(data)):
            assert [each.label for each in service.detect(given_data)] == [
                each.label for each in service.detect(other)
            ]
        job = service.submit([other], threshold=between, unknown=True)
        job.wait(poll=0.05)
        [result] = job.results()
        [streamed] = service.stream([other], threshold=between, unknown=True)
        for found in (result, streamed):
            assert isinstance(found, Detections)
            labels = [each.label for each in detector.detect(other, threshold=between)]
            assert [each.label for each in found] == labels
    assert len(seen) > 2, "the thresholds make a difference"


@pytest.mark.alone
def test_a_large_picture_holds_up_no_other(photo: Path, tmp_path: Path) -> None:
    large = tmp_path / "large.png"
    cv2.imwrite(str(large), np.full((9000, 9000, 3), 90, np.uint8))
    with serving(tmp_path / "home", "--timeout", "600") as (client, _):
        assert learn(client, photo).status_code == 200
        with ThreadPoolExecutor(4) as pool:
            slow = [pool.submit(detect, client, large) for _ in range(2)]
            while "sam_detect_requests_in_flight 3.0" not in client.get("/metrics").text:
                time.sleep(0.02)
            for _ in range(3):
                assert len(detect(client, photo).json()["results"][0]["detections"]) == 5
            assert not all(each.done() for each in slow)
            assert all(each.result().status_code == 200 for each in slow)


def test_folders_with_odd_names(photo: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "tray").mkdir(parents=True)
    names = (b"plain.png", b"bad-\xff\xfe.png", "naïve ü.png".encode(), b"line\nbreak.png")
    for name in names:
        Path(os.fsdecode(os.path.join(os.fsencode(root / "tray"), name))).write_bytes(
            photo.read_bytes()
        )
    with serving(tmp_path / "home", "--root", str(root)) as (client, _):
        learn(client, photo)
        for folder in ("tray\0", "\0", "a" * 300, "b/" * 400, "tray/" + "c" * 999, "tray/../.."):
            refused = client.post("/v1/jobs", json={"folder": folder})
            assert (refused.status_code, "detail" in refused.json()) == (422, True), folder
        surrogate = {"content": b'{"folder": "\\udcff"}', "headers": {"Content-Type":
                     "application/json"}}  # fmt: skip
        assert client.post("/v1/jobs", **surrogate).status_code == 422
        job = client.post("/v1/jobs", json={"folder": "tray"})
        assert (job.status_code, job.json()["total"]) == (202, 4)
        state = ended(client, job.json()["id"])
        assert (state["done"], state["problems"]) == (4, 0)
        lines = client.get(f"/v1/jobs/{job.json()['id']}/results").text.splitlines()
        found = [json.loads(line) for line in lines]
        assert {len(each["detections"]) for each in found} == {5}
        assert {"bad-??.png", "naïve ü.png"} <= {each["image"] for each in found}


@pytest.mark.parametrize("server", ["serve", "annotate"])
def test_nothing_is_left_in_the_temporary_folder(photo: Path, tmp_path: Path, server: str) -> None:
    home, temporary = tmp_path / "home", tmp_path / "temporary"
    temporary.mkdir()
    if server == "serve":
        with serving(home, TMPDIR=str(temporary)) as (client, process):
            assert learn(client, photo).status_code == 200
            with connect(f"{client.base_url}v1/stream".replace("http", "ws", 1)) as stream:
                for _ in range(4):
                    stream.send(photo.read_bytes())
                stream.recv()
                process.send_signal(signal.SIGTERM)
                assert process.wait(30) == 0
    else:
        with page_serving(photo.parent, TMPDIR=str(temporary)) as (url, process):
            uploaded = httpx.post(f"{url}api/library/uploads", content=b"no archive", timeout=30)
            assert uploaded.status_code >= 400
            assert list(temporary.iterdir()), "there is a folder for uploads"
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) in (0, 1)
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_everybody_can_read_the_documentation(tmp_path: Path, scheme: str) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="no axe here")
    with browser() as chromium, serving(tmp_path / "home") as (client, _):
        page = chromium.new_page(viewport={"width": 820, "height": 1180}, color_scheme=scheme)
        page.goto(f"{client.base_url}docs")
        page.locator("details").first.wait_for()
        for each in page.locator("summary").all():
            each.click()
        rules = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]}
        found = axe.Axe().run(page, options=rules)
        assert found.violations_count == 0, found.generate_report()
        assert page.evaluate("document.documentElement.scrollWidth") <= 820


def test_fields_of_a_form_that_no_one_reads_are_refused(photo: Path, tmp_path: Path) -> None:
    data, request = photo.read_bytes(), json.dumps({"label": "nut", "boxes_xywh": BOXES})
    picture = ("a.png", data)
    with serving(tmp_path / "home") as (client, _):
        for path, files, fields, word in (
            ("/v1/detect", [("images", picture)], {"threshold": "1"}, "threshold"),
            ("/v1/detect", [("images", picture), ("image", picture)], {}, "image"),
            ("/v1/examples", [("image", picture)],
             {"request": request, "negative": "true"}, "negative"),
            ("/v1/examples", [("image", picture), ("image", picture)],
             {"request": request}, "more than once"),
            ("/v1/jobs", [("images", picture)], {"threshold": "1"}, "threshold"),
        ):  # fmt: skip
            answer = client.post(path, files=files, data=fields)
            assert answer.status_code == 422, path
            assert word in answer.json()["detail"]
        assert client.get("/v1/libraries").json() == {"libraries": []}
        assert detect(client, photo, photo).status_code == 200
        assert learn(client, photo).json()["added"] == 2
