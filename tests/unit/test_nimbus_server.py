"""A NimbusImage server, by a local fake of its API: annotations go there and come back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from local_server import LocalServer
from nimbus_fake import DATASET, TOKEN, FakeNimbus, new_handler

from sam_detect.errors import ImageError, OutputError
from sam_detect.io import nimbus_server
from sam_detect.io.annotation_files import read_annotations
from sam_detect.io.annotation_sinks import NimbusSink
from sam_detect.types import AnnotatedImage, Annotation, Classification, Detections, Frame, Masks

pytest.importorskip("nimbusimage")


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[FakeNimbus]]:
    handler = new_handler()
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
    assert problems == [f"nimbus:{DATASET}: annotation {'2' * 24}: a line outlines no object"]
    assert isinstance(images[0].outlines[0], Annotation)
