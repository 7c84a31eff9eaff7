"""A local fake of the API of a NimbusImage server: annotations, properties and one picture."""

from __future__ import annotations

import json
import pickle
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
import numpy.typing as npt
from local_server import QuietHandler

DATASET = "5f" * 12
TOKEN = "a-secret-token"


class FakeNimbus(QuietHandler):
    """The routes of the API that the client calls; it keeps rows in lists."""

    annotations: list[dict[str, Any]]
    properties: list[dict[str, Any]]
    values: list[dict[str, Any]]
    refuse_after: int
    picture: npt.NDArray[np.uint8]
    layers: list[dict[str, Any]]
    interfaces: dict[str, Any]

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
        if route == "PUT upenn_collection/c/metadata":
            return {}
        if route == "POST worker_interface":
            self.interfaces[query["image"]] = body
            return {}
        return self.image(route, query)

    def image(self, route: str, query: dict[str, str]) -> Any:
        """The dataset's picture, brighter in the second of two Z planes, and its layers."""
        if route == "GET dataset_view":
            return [{"configurationId": "c"}] if self.layers else []
        if route.endswith("/tiles/region"):
            return self.picture + np.uint8(query["frame"])
        height, width = self.picture.shape
        frames = [{"Frame": z, "IndexZ": z} for z in range(2)]
        return {
            "GET upenn_collection/c": {"_id": "c", "meta": {"layers": self.layers}},
            f"GET folder/{DATASET}": {"name": "cells", "meta": {"selectedLargeImageId": "i"}},
            "GET item/i": {"_id": "i"},
            "GET item/i/tiles": {
                "sizeX": width, "sizeY": height, "dtype": "uint8", "frames": frames,
                "IndexRange": {"IndexZ": 2},
            },
        }.get(route)  # fmt: skip

    def do_GET(self) -> None:
        found = self.answer()
        if isinstance(found, np.ndarray):
            content = pickle.dumps(found)
        else:
            content = json.dumps({"message": "refused"} if found is None else found).encode()
        self.send_response(400 if found is None else 200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def do_POST(self) -> None:
        self.do_GET()

    def do_PUT(self) -> None:
        self.do_GET()

    def do_DELETE(self) -> None:
        self.do_GET()


def new_handler() -> type[FakeNimbus]:
    """A handler with a dataset of its own, which is empty."""
    rows: dict[str, Any] = {
        "annotations": [], "properties": [], "values": [], "refuse_after": 10**9,
        "picture": np.zeros((40, 50), np.uint8), "layers": [], "interfaces": {},
    }  # fmt: skip
    return type("Handler", (FakeNimbus,), rows)
