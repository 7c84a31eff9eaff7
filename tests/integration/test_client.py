"""The Python client of the service: the results of ``SAMDetect``, and its errors."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from sam_detect import SAMDetect
from sam_detect.errors import (
    ConfigError,
    ImageError,
    LibraryBusyError,
    LibraryError,
    NotFoundError,
    UnavailableError,
)
from tests.integration.page_harness import TOKEN, draw_photos
from tests.integration.service_harness import BOXES, serving

pytest.importorskip("fastapi", reason="the extra 'server' is not installed")

from sam_detect.server.client import Client


def test_a_client_gives_what_a_detector_gives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photo = draw_photos(tmp_path / "photos") / "0.png"
    with serving(tmp_path / "home", SAM_DETECT_TOKEN=TOKEN) as (http, _):
        url = str(http.base_url)
        with Client(url) as stranger, pytest.raises(ConfigError, match="token"):
            stranger.libraries()
        with Client(url, TOKEN) as client:
            assert client.learn(photo, "nut", boxes_xywh=BOXES)["added"] == 2
            monkeypatch.setenv("SAM_DETECT_HOME", str(tmp_path / "home"))
            detector = SAMDetect("naive", "appearance")
            array = cv2.imread(str(photo.with_name("1.png")))
            mine = detector.detect(array)
            for image in (array, Image.fromarray(array[..., ::-1]), photo.with_name("1.png")):
                found = client.detect(image, unknown=True)
                assert found.label.tolist() == mine.label.tolist()
                assert (found.xyxy == mine.xyxy).all()
                assert np.allclose(found.confidence, mine.confidence, atol=1e-4)
                assert (found[0].mask == mine[0].mask).all()
                assert found[0].neighbours[0].id == mine[0].neighbours[0].id
            known = client.detect([photo, photo])
            assert [len(each) for each in known] == [5, 5]
            assert client.libraries() == ["default"]
            assert client.stats("default")["classes"] == {"nut": 2}
            job = client.submit([photo, array])
            assert job.wait(poll=0.05)["state"] == "done"
            assert [len(each) for each in job.results() if not isinstance(each, ImageError)] == [
                5,
                5,
            ]
            assert job.cancel()["state"] == "removed"
            assert client.undo("default")["examples"] == 2
            (tmp_path / "bad.png").write_bytes(b"no picture")
            for wrong, error in (
                (lambda: client.detect(tmp_path / "bad.png"), ImageError),
                (lambda: client.detect(tmp_path / "nothing.png"), ImageError),
                (lambda: client.detect(np.zeros((4, 4), np.uint8)), ImageError),
                (lambda: client.detect(photo, library="nothing"), NotFoundError),
                (lambda: client.learn(photo, "nut"), ConfigError),
                (lambda: client.undo("default"), LibraryError),
                (lambda: client.submit(folder="x"), ConfigError),
            ):
                with pytest.raises(error) as caught:
                    wrong()
                assert TOKEN not in str(caught.value)
    with Client(url, TOKEN) as client, pytest.raises(UnavailableError, match="running"):
        client.libraries()


def test_a_busy_service_is_asked_again(tmp_path: Path) -> None:
    photo = draw_photos(tmp_path / "photos") / "0.png"
    with serving(tmp_path / "home", "--queue", "1") as (http, _):
        url = str(http.base_url)
        with Client(url) as patient:
            patient.learn(photo, "nut", boxes_xywh=BOXES)
            # More than the queue holds: refused at once without patience.
            with Client(url, patience=0) as hasty, pytest.raises(LibraryBusyError, match="waiting"):
                hasty.detect([photo] * 12)
            with ThreadPoolExecutor(4) as pool:
                found = list(pool.map(lambda _: patient.detect(photo), range(8)))
            assert [len(each) for each in found] == [5] * 8


def test_a_client_streams_pictures(tmp_path: Path) -> None:
    photo = draw_photos(tmp_path / "photos") / "0.png"
    with serving(tmp_path / "home", SAM_DETECT_TOKEN=TOKEN) as (http, process):
        url = str(http.base_url)
        with Client(url) as stranger, pytest.raises(ConfigError, match="token"):
            next(stranger.stream([photo]))
        with Client(url, TOKEN) as client:
            client.learn(photo, "nut", boxes_xywh=BOXES)
            broken = tmp_path / "broken.png"
            broken.write_bytes(b"no picture")
            array = cv2.imread(str(photo))
            found = list(client.stream([photo, broken, array, array, array], threshold=0.1))
            assert isinstance(found[1], ImageError)
            assert [len(each) for each in found if not isinstance(each, ImageError)] == [5] * 4
            assert list(client.stream([])) == []
            with pytest.raises(NotFoundError, match="no library 'parts'"):
                list(client.stream([photo], library="parts"))
            # A camera that never ends, and a service that does.
            endless = client.stream(array for _ in iter(int, 1))
            assert len(next(endless)) == 5  # type: ignore[arg-type]
            process.kill()
            with pytest.raises(UnavailableError, match="is the service running"):
                list(endless)
