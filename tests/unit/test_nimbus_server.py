"""A NimbusImage server, by a local fake of its API: annotations go there and come back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
from local_server import LocalServer, QuietHandler

from sam_detect.errors import ImageError, OutputError
from sam_detect.formats import nimbus_server
from sam_detect.outputs.annotations import NimbusSink
from sam_detect.sources.annotation_files import read_annotations
from sam_detect.types import AnnotatedImage, Annotation, Classification, Detections, Frame, Masks

pytest.importorskip("nimbusimage")
DATASET = "5f" * 12
TOKEN = "a-secret-token"


class FakeNimbus(QuietHandler):
    """The routes of the API that the client calls; it keeps rows in lists."""

    annotations: list[dict[str, Any]]
    properties: list[dict[str, Any]]
    values: list[dict[str, Any]]
    refuse_after: int

    def answer(self) -> Any:
        assert self.headers["Girder-Token"] == TOKEN
        parts = urlsplit(self.path)
        query = {key: value[0] for key, value in parse_qs(parts.query).items()}
        size = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(size)) if size else None
        route = f"{self.command} {parts.path.removeprefix('/api/v1/')}"
        if route == "GET upenn_annotation":
            later = [a for a in self.annotations if a["_id"] > query.get("afterId", "")]
            return [a for a in later if a["datasetId"] == query["datasetId"]][: int(query["limit"])]
        if route == "POST upenn_annotation/multiple":
            if len(self.annotations) >= self.refuse_after:
                return None
            made = [
                row | {"_id": f"{len(self.annotations) + number:024x}"}
                for number, row in enumerate(body)
            ]
            self.annotations.extend(made)
            return made
        if route == "DELETE upenn_annotation/multiple":
            self.annotations[:] = [a for a in self.annotations if a["_id"] not in body]
            return {}
        if route == "GET annotation_property":
            return self.properties
        if route == "POST annotation_property":
            self.properties.append(body | {"_id": "ab" * 12})
            return self.properties[-1]
        if route == "GET annotation_property_values":
            return self.values
        if route == "POST annotation_property_values/multiple":
            self.values.extend(body)
            return {}
        return [] if route == "GET dataset_view" else None

    def do_GET(self) -> None:
        found = self.answer()
        content = json.dumps({"message": "refused"} if found is None else found).encode()
        self.send_response(400 if found is None else 200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def do_POST(self) -> None:
        self.do_GET()

    def do_DELETE(self) -> None:
        self.do_GET()


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[FakeNimbus]]:
    rows: dict[str, Any] = {
        "annotations": [], "properties": [], "values": [], "refuse_after": 10**9,
    }  # fmt: skip
    handler = type("Handler", (FakeNimbus,), rows)
    server = LocalServer(handler)
    monkeypatch.setenv("NI_API_URL", f"http://{server.host}/api/v1")
    monkeypatch.setenv("NI_TOKEN", TOKEN)
    monkeypatch.delenv("NI_API_KEY", raising=False)
    yield handler
    server.close()


def found(count: int = 2) -> tuple[Frame, Detections]:
    masks = np.zeros((count, 40, 50), np.bool_)
    for number in range(count):
        masks[number, 5 + number : 15 + number, 5:25] = True
        masks[number, 9 + number, 9] = False
    classes = (Classification("nut", "nut", 0.75),) * count
    frame = Frame(np.zeros((40, 50, 3), np.uint8), "a.tif", location=(0, 3, 1))
    return frame, Detections("a.tif", Masks.from_dense(masks), classes)


def test_what_is_uploaded_comes_back(fake: type[FakeNimbus]) -> None:
    frame, detections = found()
    sink = NimbusSink(f"nimbus:{DATASET}")
    sink.write(frame, detections)
    assert fake.annotations == []
    assert [str(path) for path in sink.close()] == [f"nimbus:{DATASET}"]
    assert [row["location"] for row in fake.annotations] == [{"XY": 0, "Z": 3, "Time": 1}] * 2
    assert {row["datasetId"] for row in fake.annotations} == {DATASET}
    images, problems = read_annotations(f"nimbus:{DATASET}", ["a.tif"], tag="nut")
    assert problems == []
    assert [each.location for each in images[0].outlines] == [(0, 3, 1)] * 2
    assert images[0].outlines[0].properties["confidence"] == 0.75
    for index, outline in enumerate(images[0].outlines):
        mask = outline.mask((40, 50))
        np.testing.assert_array_equal(mask, detections[index].mask)


def test_a_server_that_refuses_half_way_has_none_of_it(
    fake: type[FakeNimbus], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nimbus_server, "BATCH", 2)
    fake.refuse_after = 2
    frame, detections = found(5)
    with pytest.raises(OutputError, match="the server answers 400") as caught:
        nimbus_server.upload(
            DATASET, AnnotatedImage("", "", detections.to_annotations(location=frame.location))
        )
    assert TOKEN not in str(caught.value)
    assert fake.annotations == []


def test_a_server_that_is_not_there_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NI_API_URL", "http://127.0.0.1:9/api/v1")
    monkeypatch.setenv("NI_TOKEN", TOKEN)
    monkeypatch.setattr("nimbusimage._girder._RETRY_TOTAL", 0)
    with pytest.raises(ImageError, match="cannot be reached") as caught:
        nimbus_server.download(DATASET, [])
    assert TOKEN not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_without_an_address_or_credentials_it_says_what_is_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("NI_API_URL", "NI_TOKEN", "NI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ImageError, match="NI_API_URL"):
        nimbus_server.download(DATASET, [])


@pytest.mark.parametrize("name", ["nimbus:", "nimbus:../x", "found.json", "nimbus:a/b", None])
def test_other_names_are_files(name: str | None) -> None:
    assert nimbus_server.dataset_of(name) is None
    assert nimbus_server.dataset_of(Path(f"nimbus:{DATASET}")) == DATASET


def test_what_the_server_says_that_cannot_be_used_is_a_line(fake: type[FakeNimbus]) -> None:
    good = {"_id": "1" * 24, "datasetId": DATASET, "shape": "point", "tags": ["nut"],
            "coordinates": [{"x": 3, "y": 4}]}  # fmt: skip
    fake.annotations += [good, good | {"_id": "2" * 24, "shape": "line"}]
    images, problems = read_annotations(f"nimbus:{DATASET}", ["a.tif"])
    assert [each.point_xy for each in images[0].outlines] == [(3, 4)]
    assert problems == [f"nimbus:{DATASET}: annotation 2: a line outlines no object"]
    assert isinstance(images[0].outlines[0], Annotation)
