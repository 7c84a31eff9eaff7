"""Requests that are made from the service's OpenAPI document: none may be answered by a fault."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

pytest.importorskip("fastapi", reason="the extra 'server' is not installed")
schemathesis = pytest.importorskip("schemathesis", reason="schemathesis is not installed")

from hypothesis import HealthCheck, given, settings  # noqa: E402

from sam_detect.api import SAMDetect  # noqa: E402
from sam_detect.server.access import Access  # noqa: E402
from sam_detect.server.detecting import Detectors, ServiceLimits  # noqa: E402
from sam_detect.server.listening import served  # noqa: E402
from sam_detect.server.service import service_app  # noqa: E402
from tests.integration.page_harness import draw_photos  # noqa: E402

OPERATIONS = 17


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("openapi")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SAM_DETECT_HOME", str(folder / "home"))
        photo = draw_photos(folder / "photos") / "0.png"
        options = {"segmenter": "naive", "embedder": "appearance"}
        detector = SAMDetect(**options)
        detector.learn(photo, "nut", boxes_xywh=[[40, 40, 40, 40]])
        app = service_app(Detectors(options, detector), Access("127.0.0.1"), ServiceLimits())
        with served(app, "127.0.0.1", 0) as address:
            yield address


def test_no_request_is_answered_by_a_fault(url: str) -> None:
    document = schemathesis.openapi.from_url(f"{url}openapi.json")
    operations = [each.ok() for each in document.get_all_operations()]
    assert len(operations) == OPERATIONS
    for operation in operations:

        @settings(
            max_examples=12, deadline=None, database=None, derandomize=True,
            suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        def check(case: object) -> None:
            answer = case.call(base_url=url.rstrip("/"))  # type: ignore[attr-defined]
            assert answer.status_code < 500 or answer.status_code == 503, answer.text
            if answer.status_code >= 400:
                assert answer.headers["content-type"][0] == "application/problem+json"
                assert answer.json()["status"] == answer.status_code
            else:
                case.validate_response(answer)  # type: ignore[attr-defined]

        given(operation.as_strategy())(check)()


def test_every_operation_says_what_it_does(url: str) -> None:
    document = httpx.get(f"{url}openapi.json").json()
    for path, methods in document["paths"].items():
        for operation in methods.values():
            assert operation["summary"], path
            assert "application/problem+json" in str(operation["responses"]["429"])


def references(node: Any) -> Iterator[str]:
    """All that a document refers to."""
    for each in node if isinstance(node, list) else []:
        yield from references(each)
    for name, each in node.items() if isinstance(node, dict) else []:
        if name == "$ref":
            yield each
        yield from references(each)


def test_the_document_is_whole(url: str) -> None:
    document = httpx.get(f"{url}openapi.json").json()
    found = set(references(document))
    assert {"#/components/schemas/Picture", "#/components/schemas/Learning"} <= found
    for reference in found:
        place: Any = document
        for part in reference.removeprefix("#/").split("/"):
            place = place[part]
    assert document["components"]["securitySchemes"] == {
        "token": {"type": "http", "scheme": "bearer"}
    }
    assert document["security"] == [{}, {"token": []}], "this one has no token"
    for path, methods in document["paths"].items():
        for operation in methods.values():
            answers = operation["responses"]
            good = next(each for status, each in answers.items() if status.startswith("2"))
            for media, content in good["content"].items():
                assert media != "application/json" or "$ref" in content["schema"], path
            assert answers["422"]["content"]["application/problem+json"]["schema"]
    schemas = document["components"]["schemas"]
    pictures = schemas["Body_detect"]["properties"]["images"]["items"]
    for picture in (pictures, schemas["Body_learn"]["properties"]["image"]):
        assert (picture["type"], picture["format"]) == ("string", "binary")


@pytest.fixture(scope="module")
def made(url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    """A client that is made from the document, by others' code."""
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))  # ruff is there
    generator = shutil.which("openapi-python-client", path=path)
    if generator is None:
        pytest.skip("openapi-python-client is not installed")
    folder = tmp_path_factory.mktemp("made")
    (folder / "openapi.json").write_bytes(httpx.get(f"{url}openapi.json").content)
    command = [generator, "generate", "--path", "openapi.json", "--output-path", "made_client",
               "--meta", "none", "--config", "config.json", "--fail-on-warning"]  # fmt: skip
    files = dict.fromkeys(("image/webp", "application/jsonl"), "application/octet-stream")
    (folder / "config.json").write_text(json.dumps({"content_type_overrides": files}))
    done = subprocess.run(
        command, cwd=folder, env={**os.environ, "PATH": path}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))

        def part(name: str) -> Any:
            return importlib.import_module(f"made_client.{name}")

        yield SimpleNamespace(
            models=part("models"), types=part("types"), client=part("client").Client(url),
            learn=part("api.pictures.learn"), detect=part("api.pictures.detect"),
            undo=part("api.libraries.undo"), examples=part("api.libraries.examples"),
            stats=part("api.libraries.library_stats"), begin=part("api.jobs.begin"),
            state=part("api.jobs.state"),
        )  # fmt: skip


def test_a_client_that_is_made_from_the_document_learns_detects_and_undoes(
    made: SimpleNamespace, tmp_path: Path
) -> None:
    photo = (draw_photos(tmp_path / "photos") / "0.png").read_bytes()

    def file(name: str) -> Any:
        return made.types.File(payload=BytesIO(photo), file_name=name, mime_type="image/png")

    def learn(label: str, **shown: Any) -> Any:
        said = made.models.Learning(label=label, library="made", **shown)
        body = made.models.BodyLearn(image=file("0.png"), request=json.dumps(said.to_dict()))
        return made.learn.sync(client=made.client, body=body)

    def detect(**query: Any) -> Any:
        body = made.models.BodyDetect(images=[file("0.png"), file("again.png")])
        return made.detect.sync(client=made.client, body=body, library="made", **query)

    mine = learn("nut", boxes_xywh=[[40, 40, 40, 40], [130, 50, 40, 40]])
    assert (mine.added, mine.total, len(mine.boxes_xywh)) == (2, 2, 2)
    found = detect(unknown=True)
    assert [each.image for each in found.results] == ["0.png", "again.png"]
    other = min(found.results[0].detections,  # a nut that was not shown
                key=lambda each: abs(each.bbox[0] - 60) + abs(each.bbox[1] - 140))  # fmt: skip
    assert (other.label, len(other.bbox)) == ("nut", 4)
    assert 0 < other.confidence <= 1
    # What was found is learnt as it was found, and a polygon as it was drawn.
    theirs = learn("stick", masks=[other.segmentation],
                   polygons_xy=[[[280, 110], [300, 110], [300, 190], [280, 190]]])  # fmt: skip
    assert theirs.added == 2
    assert sorted(box[2:] for box in theirs.boxes_xywh)[0] == [20.0, 80.0]
    # Two users: mine takes mine back, not what was learnt last.
    undone = made.undo.sync("made", client=made.client, batch=mine.batch)
    assert (undone.batch, undone.examples) == (mine.batch, 2)
    stats = made.stats.sync("made", client=made.client)
    assert stats.classes.additional_properties == {"stick": 2}
    assert {each.label for each in made.examples.sync(client=made.client, library="made").examples
            } == {"stick"}  # fmt: skip
    lost = made.undo.sync("made", client=made.client, batch="nothing")
    assert (lost.status, "nothing" in lost.detail) == (409, True)
    body = made.models.BodyBegin(images=[file("job.png")], request='{"library": "made"}')
    job = made.begin.sync(client=made.client, body=body)
    assert (job.total, made.state.sync(job.id, client=made.client).id) == (1, job.id)


MISSPELT = [
    ("POST", "v1/detect?treshold=0.3", "treshold", "threshold"),
    ("POST", "v1/detect?threshold=0.3&Unknown=true", "Unknown", "unknown"),
    ("GET", "v1/examples?libary=parts", "libary", "library"),
    ("DELETE", "v1/examples/0123abcd?libary=parts", "libary", "library"),
    ("GET", "v1/libraries?x=1", "x", "none"),
    ("POST", "v1/libraries/default/undo?batches=1", "batches", "batch"),
    ("GET", "v1/jobs?start=1", "start", "limit"),
]


@pytest.mark.parametrize(("method", "path", "name", "right"), MISSPELT)
def test_what_is_misspelt_is_refused(
    url: str, method: str, path: str, name: str, right: str, tmp_path: Path
) -> None:
    photo = draw_photos(tmp_path / "photos", 1) / "0.png"
    files = {"images": photo.read_bytes()} if path.startswith("v1/detect") else None
    answer = httpx.request(method, url + path, files=files)
    assert answer.status_code == 422
    assert answer.json()["detail"].startswith(f"{name}: ")
    assert right in answer.json()["detail"]


WRONG = [
    ("v1/detect?threshold=2", {}, "threshold: "),
    ("v1/detect", {"json": {"images": [{"data": 7}]}}, "images.0.data: "),
    ("v1/detect", {"json": {"pictures": []}}, "images: "),
    ("v1/detect", {"json": {"images": [], "colour": "red"}}, "images: "),
    ("v1/examples", {"data": {"request": '{"label": "nut", "boxes_xywh": [[1, 2, 3]]}'}},
     "boxes_xywh.0.3: "),
    ("v1/examples", {"data": {"request": '{"label": "nut", "boxes": []}'}}, "boxes: "),
    ("v1/examples", {"data": {"request": '{"boxes_xywh": []}'}}, "label: "),
    ("v1/examples", {"data": {"request": "{"}}, "Invalid JSON: "),
    ("v1/examples", {"data": {}}, "request: "),
    ("v1/examples", {"data": {"request": '{"label": "a", "polygons_xy": [['
                              + "[]," * 300_000 + "[]]]}"}}, "the JSON has too many values"),
    ("v1/jobs", {"data": {"request": '{"tresh": 1}'}}, "tresh: "),
    ("v1/jobs", {"json": {"folder": "a", "threshold": "high"}}, "threshold: "),
    ("v1/jobs", {"json": {"folder": "a", "tresh": 1}}, "tresh: "),
]  # fmt: skip


@pytest.mark.parametrize(("path", "content", "named"), WRONG)
def test_what_is_wrong_is_named(
    url: str, path: str, content: dict[str, Any], named: str, tmp_path: Path
) -> None:
    photo = draw_photos(tmp_path / "photos", 1) / "0.png"
    if "json" not in content:
        field = "image" if "examples" in path else "images"
        content = {**content, "files": {field: photo.read_bytes()}}
    answer = httpx.post(url + path, **content)
    assert answer.status_code == 422
    assert answer.json()["detail"].startswith(named)


def test_a_stream_says_what_is_wrong_with_its_query(url: str) -> None:
    from websockets.exceptions import InvalidStatus
    from websockets.sync.client import connect

    place = url.replace("http", "ws", 1) + "v1/stream?"
    for query, said in (("treshold=1", "treshold: "), ("threshold=2", "threshold: ")):
        with pytest.raises(InvalidStatus) as caught:
            connect(place + query)
        assert caught.value.response.status_code == 422
        assert json.loads(caught.value.response.body)["detail"].startswith(said)


MASK = {"size": [230, 320], "counts": [0, 4, 73596]}


@pytest.mark.parametrize(
    ("shown", "said"),
    [
        ({"masks": [{**MASK, "size": [230, 321]}]}, "masks"),
        ({"masks": [{"size": [230, 320], "counts": "0"}]}, "runs"),
        ({"masks": [{"size": [99, 99], "counts": "i1"}]}, "RLE"),
        ({"polygons_xy": [[[1, 1], [2, 2]]]}, "3 points"),
        ({"polygons_xy": [[[900, 900], [910, 900], [905, 910]]]}, "outside of the picture"),
        ({"polygons_xy": [[[1e300, 0], [0, 1e300], [5, 5]]]}, "coordinate"),
    ],
)
def test_outlines_that_cannot_be_are_refused(
    url: str, shown: dict[str, Any], said: str, tmp_path: Path
) -> None:
    photo = draw_photos(tmp_path / "photos", 1) / "0.png"
    answer = httpx.post(
        f"{url}v1/examples", files={"image": photo.read_bytes()},
        data={"request": json.dumps({"label": "nut", **shown})},
    )  # fmt: skip
    assert answer.status_code == 422
    assert said in answer.json()["detail"]
