"""The annotation page in trouble: thousands of decisions at once, two who decide otherwise, a
library that others change, and a disk that is full. A process, a socket, and real faults."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import httpx
import numpy as np
import pytest

from sam_detect.interfaces import Segmenter
from sam_detect.types import NO_HINTS, Frame, Hints, Masks
from tests.browser import browser
from tests.integration.page_harness import Page, labels, objects, serving, taught

pytest.importorskip("fastapi", reason="the extra 'server' is not installed")

SIDE, PITCH = 100, 10


class Lattice(Segmenter):
    """Proposes ten thousand squares."""

    name = "lattice"

    def propose(self, frame: Frame, hints: Hints = NO_HINTS) -> Masks:
        corners = np.arange(SIDE) * PITCH + 2
        x, y = (each.ravel() for each in np.meshgrid(corners, corners))
        boxes = np.stack([x, y, x + 6, y + 6], axis=1)
        crops = [np.ones((6, 6), np.bool_)] * len(boxes)
        return Masks.from_crops(size_hw=frame.size_hw, boxes_xyxy=boxes, crops=crops)


def command(photos: Path, *arguments: str) -> None:
    """What another process does to the library."""
    subprocess.run(
        [sys.executable, "-m", "sam_detect", *arguments],
        env={**os.environ, "SAM_DETECT_HOME": str(photos.parent / "home")}, check=True,
        timeout=120, capture_output=True,
    )  # fmt: skip


def decide(client: httpx.Client, label: str, *ids: str) -> httpx.Response:
    decisions = [{"object": each, "label": label} for each in ids]
    return client.post("api/pictures/0/decisions", json={"decisions": decisions})


def undo_all(client: httpx.Client) -> int:
    count = 0
    while client.get("api/state").json()["undo"]:
        assert client.post("api/undo", json={}).status_code == 200
        count += 1
    return count


@pytest.mark.slow
def test_ten_thousand_objects_are_accepted_at_once_or_not_at_all(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    picture = np.full((SIDE * PITCH, SIDE * PITCH, 3), 220, np.uint8)
    for place in range(0, SIDE * PITCH, PITCH):
        cv2.line(picture, (place, 0), (place, SIDE * PITCH), (60, 110, 180), 3)
    cv2.imwrite(str(photos / "0.png"), picture)
    lattice = f"tests.integration.{Path(__file__).stem}:Lattice"
    options = ("--segmenter", lattice, "--embedder", "average")
    root = str(Path(__file__).parents[2])
    waited: list[float] = []
    with (
        serving(photos, *options, PYTHONPATH=root) as (url, process),
        httpx.Client(base_url=url, timeout=900) as client,
    ):
        ids = [each["id"] for each in objects(client)]
        assert len(ids) == SIDE * SIDE

        def memory() -> int:
            lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
            return next(int(line.split()[1]) >> 10 for line in lines if line.startswith("VmHWM"))

        before, ended = memory(), threading.Event()

        def others() -> None:
            with httpx.Client(base_url=url, timeout=60) as other:
                while not ended.wait(0.2):
                    for path in ("healthz", "api/state?picture=0", "api/pictures/0/tiles/0/0/0"):
                        began = time.monotonic()
                        assert other.get(path).status_code == 200
                        waited.append(time.monotonic() - began)

        with ThreadPoolExecutor(1) as pool:
            asking = pool.submit(others)
            too_many = decide(client, "square", *ids, ids[0])
            assert too_many.status_code == 422
            assert decide(client, "square", *ids[:-1], "unknown").status_code == 404
            assert labels(client) == {}
            began = time.monotonic()
            done = decide(client, "square", *ids)
            spent = time.monotonic() - began
            ended.set()
            asking.result()
        assert done.status_code == 200
        assert labels(client) == {"square": SIDE * SIDE}
        print(f"{spent:.0f} s, {memory() - before} MiB more, others waited {max(waited):.2f} s")
        assert max(waited) < 5
        # About .1 MiB an object: the crops of all of them are there until they are written.
        assert memory() - before < 2000
        assert undo_all(client) == 1
        assert labels(client) == {}


def test_two_pages_name_one_object_at_the_same_time(photos: Path) -> None:
    with serving(photos) as (url, _), httpx.Client(base_url=url, timeout=60) as client:
        chosen = objects(client)[0]["id"]
        names = [f"name {number}" for number in range(8)]
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda name: decide(client, name, chosen), names))
        assert [each.status_code for each in answers] == [200] * 8
        # The last one holds, and what was before it comes back, name by name.
        seen = []
        for _ in names:
            assert labels(client) == {taught(client)[chosen]: 1}
            seen.append(taught(client)[chosen])
            client.post("api/undo", json={})
        assert sorted(seen) == names
        assert (labels(client), taught(client)) == ({}, {})
        # Two servers on one library: each sees what the other one did, and can undo it.
        with serving(photos) as (second, _), httpx.Client(base_url=second, timeout=60) as other:
            with ThreadPoolExecutor(2) as pool:
                both = list(pool.map(lambda c: decide(c, "nut", chosen), (client, other)))
            assert [each.status_code for each in both] == [200, 200]
            assert decide(other, "date", chosen).status_code == 200
            assert labels(client) == labels(other) == {"date": 1}
            assert taught(client) == {chosen: "date"}
            stroke = {
                "tool": "brush",
                "points": [[120, 200], [150, 200]],
                "radius": 8,
                "keep": True,
            }
            assert other.post("api/pictures/0/outlines", json=stroke).is_success
            assert [each["drawn"] for each in objects(client)].count(True) == 1
            undo_all(client)
            assert labels(other) == {}
            assert not any(each["drawn"] for each in objects(other))


def test_a_library_that_others_change_meanwhile(photos: Path) -> None:
    with (
        serving(photos, "--embedder", "appearance") as (url, _),
        httpx.Client(base_url=url, timeout=60) as client,
        browser() as chromium,
    ):
        first, second, third = (each["id"] for each in objects(client)[:3])
        assert decide(client, "nut", first).status_code == 200
        page = Page(chromium)
        page.open(url)
        page.said(r"\(1 by you\)")
        command(photos, "library", "rename", "nut", "walnut")
        assert taught(client) == {first: "walnut"}
        page.page.locator("#label-keys").filter(has_text="walnut").wait_for()
        assert undo_all(client) == 1
        assert (labels(client), taught(client)) == ({}, {})
        # Removed: the page says so by what it shows, and a redo brings back what was named on it.
        assert client.post("api/redo", json={}).status_code == 200
        command(photos, "library", "remove", "--all", "--library", "default", "--yes")
        assert (labels(client), taught(client)) == ({}, {})
        page.page.locator("#label-keys:not(:has(li))").wait_for(state="attached")
        assert client.post("api/undo", json={}).status_code == 200
        assert client.post("api/redo", json={}).status_code == 200
        assert labels(client) == {"nut": 1}
        assert decide(client, "date", second).status_code == 200
        # In another recipe: it is refused as a whole, in words, and what is there stays.
        command(photos, "library", "reindex", "--embedder", "average")
        refused = decide(client, "date", third)
        assert (refused.status_code, "reindexed" in refused.json()["detail"]) == (409, True)
        assert taught(client) == {first: "nut", second: "date"}
        assert undo_all(client) == 2
        assert labels(client) == {}


@pytest.mark.skipif(sys.platform != "linux", reason="limits a process from outside")
def test_a_full_disk_keeps_what_was_saved_and_the_page_goes_on_afterwards(photos: Path) -> None:
    import resource

    with serving(photos) as (url, process), httpx.Client(base_url=url, timeout=60) as client:
        ids = [each["id"] for each in objects(client)]
        assert decide(client, "nut", ids[0]).status_code == 200
        before = labels(client), taught(client)
        for most in (0, 4096, 30_000):
            limits = (most, resource.RLIM_INFINITY)
            resource.prlimit(process.pid, resource.RLIMIT_FSIZE, limits)
            refused = [
                decide(client, "date", ids[1], ids[2]),
                client.post("api/pictures/0/delete", json={"objects": [ids[3]]}),
                client.post("api/pictures/0/outlines", json={"tool": "brush", "points": [[9, 9]]}),
                client.post("api/undo", json={}),
            ]
            for each in refused:
                assert each.status_code in (503, 507)
                assert "free some space" in each.json()["detail"]
            assert (labels(client), taught(client)) == before
            assert client.get("api/state").json()["undo"] == "nut"
            limits = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
            resource.prlimit(process.pid, resource.RLIMIT_FSIZE, limits)
            assert decide(client, "date", ids[1], ids[2]).status_code == 200
            assert client.post("api/undo", json={}).json()["title"] == "date, 2 objects"
            assert (labels(client), taught(client)) == before
    assert "Traceback" not in (photos.parent / "server.log").read_text()
