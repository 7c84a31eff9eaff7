"""The suite ``server``: the annotation page and the HTTP service.

The pictures are those of the suite ``fewshot``: a megapixel with some hundred cells that touch. A
server in this process answers over a real socket. What is timed is what a user waits for: the first
picture, a click that names an object until the other suggestions are there, and the next picture,
which was opened ahead. A pair compares pictures that eight clients send to the service with the
same pictures given to the pipeline one after the other. Where a browser is there, frames a second
are counted while outlines are zoomed.
"""

from __future__ import annotations

import io
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from PIL import Image

from sam_detect.api import SAMDetect
from sam_detect.config import HOME_VARIABLE
from sam_detect.server.access import Access
from sam_detect.server.detecting import Detectors, ServiceLimits
from sam_detect.server.listening import served
from sam_detect.server.service import service_app
from sam_detect.server.ui import AnnotationUI
from scripts.dev.bench.fewshot import draw
from scripts.dev.bench.measurements import Measurements, Trial
from scripts.dev.bench.suites import Options

CLICKS, PAUSES_S = 40, (0.5, 1.0, 2.0, 3.0)
"""Objects that are named one by one; and how long a user takes from one to the next, in turn: some
clicks come while work ahead has begun."""
NEXT = 12
"""So often a user goes on to the next picture, each time after a click and a pause."""
CLIENTS, PICTURES = 8, 16
SHAPES = 1_000, 10_000
DRAWN_S = 3
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FRAMES = """async ([count, seconds, zoomed]) => {
  const { Shapes } = await import("./shapes.js");
  const [below, above] = [0, 1].map(() => {
    const canvas = document.body.appendChild(document.createElement("canvas"));
    Object.assign(canvas, { width: 1280, height: 720 });
    Object.assign(canvas.style, { position: "absolute", left: 0, top: 0 });
    return canvas;
  });
  const side = Math.ceil(Math.sqrt(count));
  const step = 4000 / side;
  const objects = Array.from({ length: count }, (_, i) => {
    const [x, y, r] = [(i % side + .5) * step, (Math.floor(i / side) + .5) * step, step * .4];
    const ring = Array.from({ length: 24 }, (_, k) => [x + r * Math.cos(k * Math.PI / 12), y + r * Math.sin(k * Math.PI / 12)]);
    return { id: String(i), label: i % 3 ? "cell" : null, confidence: .9, taught: i % 3 === 1, bbox_xywh: [x - r, y - r, 2 * r, 2 * r], rings: [ring] };
  });
  const shapes = new Shapes();
  shapes.set(objects, 4000, 4000);
  const colours = { taught: "#0a7d38", suggested: "#0b6bd0", unknown: "#9a5b00", selected: "#c2188b", wash: "rgb(194 24 139 / .2)", ground: "#fff", text: "#000" };
  const marks = { selected: new Set(), hovered: null };
  const view = { scale: .18, x: 20, y: 10, width: 1280, height: 720 };
  const outlines = () => shapes.draw(below.getContext("2d"), view, colours);
  outlines();
  const began = performance.now();
  let frames = 0;
  while (performance.now() - began < 1000 * seconds) {
    const now = await new Promise(requestAnimationFrame);
    const at = [2000 + 1500 * Math.sin(now / 500), 2000 + 1500 * Math.cos(now / 700)];
    marks.hovered = shapes.hit(below.getContext("2d"), ...at)?.id ?? null;
    if (zoomed) {
      view.scale = .18 * (1 + .5 * Math.sin(now / 300));
      outlines();
    }
    shapes.drawMarks(above.getContext("2d"), view, colours, marks);
    frames += 1;
  }
  for (const canvas of [below, above]) canvas.remove();
  return frames / ((performance.now() - began) / 1000);
}"""  # noqa: E501 - a script


def run(measurements: Measurements, options: Options) -> None:
    """Times of the page, the throughput of the service, and frames in a browser."""
    measurements.workload = "1000 x 1000 pixels of touching cells"
    with tempfile.TemporaryDirectory() as folder, _home(Path(folder) / "home"):
        pictures = Path(folder) / "pictures"
        pictures.mkdir()
        for index in range(2):
            Image.fromarray(draw(index)[0].image_rgb).save(pictures / f"{index}.png")
        _page(measurements, pictures)
        _service(measurements, pictures)


def _page(measurements: Measurements, pictures: Path) -> None:
    """What a user of the page waits for."""
    ui, access = AnnotationUI(SAMDetect(library="bench")), Access("127.0.0.1")
    with ui.app(pictures, access) as app, served(app, "127.0.0.1", 0) as url:
        with httpx.Client(base_url=url, timeout=600) as client:
            measurements.announce("first picture")
            spent, first = _timed(lambda: client.get("api/pictures/0").json())
            measurements.figures["first_open_ms"] = spent
            objects = [each["id"] for each in first["objects"]]
            measurements.figures["objects"] = len(objects)
            measurements.announce("clicks")

            def click(place: int) -> float:
                time.sleep(PAUSES_S[place % len(PAUSES_S)])
                body = {"decisions": [{"object": objects[place], "label": "cell"}]}
                answer = partial(client.post, "api/pictures/0/decisions", json=body)
                return _timed(lambda: answer().raise_for_status())[0]

            clicks = [click(place) for place in range(CLICKS)]
            measurements.figures["click_median_ms"] = float(np.median(clicks))
            measurements.figures["click_p95_ms"] = float(np.percentile(clicks, 95))
            measurements.announce("next picture")
            opened = []
            for place in range(CLICKS, CLICKS + NEXT):
                click(place)
                time.sleep(PAUSES_S[place // len(PAUSES_S) % len(PAUSES_S)])
                opened.append(_timed(lambda: client.get("api/pictures/1").raise_for_status())[0])
                client.get("api/pictures/0").raise_for_status()
            measurements.figures["next_open_median_ms"] = float(np.median(opened))
            measurements.figures["next_open_p95_ms"] = float(np.percentile(opened, 95))
        _frames(measurements, url)


def _service(measurements: Measurements, pictures: Path) -> None:
    """Pictures by the service, and by the pipeline alone."""
    settings: dict[str, Any] = {"library": "bench"}
    detector = SAMDetect(**settings)
    app = service_app(
        Detectors(settings, detector), Access("127.0.0.1"), ServiceLimits(seconds=600), logged=False
    )
    small = Image.open(pictures / "1.png").crop((0, 0, 300, 300))
    data = io.BytesIO()
    small.save(data, "PNG")
    path = pictures / "small.png"
    path.write_bytes(data.getvalue())
    with served(app, "127.0.0.1", 0) as url, httpx.Client(base_url=url, timeout=600) as client:

        def ask(_: int) -> None:
            files = {"images": ("small.png", data.getvalue())}
            client.post("v1/detect", files=files).raise_for_status()

        def by_service(_: object) -> None:
            with ThreadPoolExecutor(CLIENTS) as pool:
                list(pool.map(ask, range(PICTURES)))

        def by_pipeline(_: object) -> None:
            for _each in range(PICTURES):
                detector.pipeline.detect(detector.read(path), explain_unknown=False)

        measurements.pair(
            "service_throughput", Trial("service", by_service), Trial("pipeline", by_pipeline)
        )


def _frames(measurements: Measurements, url: str) -> None:
    """Frames a second while outlines are zoomed and pointed at, and only pointed at."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        measurements.skipped.append("frames a second: Playwright is not installed")
        return
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        measurements.skipped.append("frames a second: no chromium here")
        return
    as_root = hasattr(os, "geteuid") and os.geteuid() == 0
    with sync_playwright() as playwright:
        arguments = ["--no-sandbox"] if as_root else []
        chromium = playwright.chromium.launch(executable_path=path, args=arguments)
        page = chromium.new_page()
        page.goto(f"{url}library")
        for count in SHAPES:
            measurements.announce(f"{count} outlines")
            for name, zoomed in (("frames", True), ("hover_frames", False)):
                frames = page.evaluate(FRAMES, [count, DRAWN_S, zoomed])
                measurements.figures[f"{name}_per_second_{count}"] = round(frames, 1)
        chromium.close()


def _timed(work: Callable[[], Any]) -> tuple[float, Any]:
    began = time.perf_counter()
    made = work()
    return round(1000 * (time.perf_counter() - began), 1), made


@contextmanager
def _home(folder: Path) -> Iterator[None]:
    """Another folder for all state, while the block runs."""
    before = os.environ.get(HOME_VARIABLE)
    os.environ[HOME_VARIABLE] = str(folder)
    try:
        yield
    finally:
        if before is None:
            del os.environ[HOME_VARIABLE]
        else:
            os.environ[HOME_VARIABLE] = before
