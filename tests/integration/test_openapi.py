"""Requests that are made from the service's OpenAPI document: none may be answered by a fault."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

pytest.importorskip("fastapi", reason="the extra 'server' is not installed")
schemathesis = pytest.importorskip("schemathesis", reason="schemathesis is not installed")

from hypothesis import HealthCheck, given, settings  # noqa: E402

from sam_detect.api import SAMDetect  # noqa: E402
from sam_detect.server.access import Access  # noqa: E402
from sam_detect.server.detecting import ServiceLimits  # noqa: E402
from sam_detect.server.detectors import Detectors  # noqa: E402
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
        app = service_app(Detectors(options, detector), Access("127.0.0.1"), ServiceLimits(),
                          jobs_in=folder / "jobs")  # fmt: skip
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
