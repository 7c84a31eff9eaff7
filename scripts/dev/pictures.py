"""Makes the pictures of the documentation.

    ./scripts/pictures [--to docs/pictures]

``fewshot.webp``: drawn cells, ten of them outlined, and what ``sam-detect fewshot`` finds.
``refine.webp``: coins of a photograph that scikit-image carries, with the coarse outlines of
docs/refine.md and what ``sam-detect refine`` makes of them.
``annotate.webp``: the annotation page with the same photograph, in a browser, where one is here:
three coins were named.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import skimage.data
from PIL import Image

from sam_detect.io.drawing import draw_masks
from sam_detect.types import ImageRGB, Masks
from sam_detect.types.masks import rle_to_mask
from sam_detect.types.polygons import polygons_to_mask
from scripts.dev.bench.fewshot import draw

ROOT = Path(__file__).resolve().parents[2]
SHOWN, FOUND, COARSE = (80, 160, 255), (90, 220, 100), (255, 110, 80)
CELLS_PX, ENLARGED = 320, 2
"""Side of the part of the drawn cells that is shown, and its enlargement."""
EXAMPLES = 10
COINS = (44, 55), (101, 56), (270, 121)
PAGE: Any = {"width": 1280, "height": 720}
SETTLED_MS = 9000
"""Until the page has proposed again with what was learnt."""
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
LINE_PX = 2.0
GAP = 12
QUALITY = 80


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="scripts/pictures", description="Makes the pictures of the documentation."
    )
    parser.add_argument("--to", type=Path, default=ROOT / "docs" / "pictures")
    to = parser.parse_args(arguments).to.resolve()
    to.mkdir(parents=True, exist_ok=True)
    for name, make in (("fewshot", fewshot), ("refine", refine), ("annotate", annotate)):
        with tempfile.TemporaryDirectory() as folder:
            made = make(Path(folder))
        if not made:
            print(f"left out {name}: no chromium here")
            continue
        gap = np.full((made[0].shape[0], GAP, 3), 255, np.uint8)
        shown = [part for each in made for part in (gap, each)][1:]
        path = to / f"{name}.webp"
        Image.fromarray(np.hstack(shown)).save(path, quality=QUALITY)
        print(f"wrote {path}")
    return 0


def annotate(folder: Path) -> Sequence[ImageRGB]:
    """The annotation page; nothing without a browser."""
    from playwright.sync_api import sync_playwright

    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        return ()
    Image.fromarray(skimage.data.coins()).convert("RGB").save(folder / "coins.png")
    command = [sys.executable, "-m", "sam_detect", "annotate", str(folder / "coins.png"), "--json"]
    process = subprocess.Popen(
        [*command, "--port", "0"], stdout=subprocess.PIPE, text=True,
        env={**os.environ, "SAM_DETECT_HOME": str(folder / "home")},
    )  # fmt: skip
    try:
        assert process.stdout is not None
        url = json.loads(process.stdout.readline())["url"]
        with sync_playwright() as playwright:
            arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
            chromium = playwright.chromium.launch(executable_path=path, args=arguments)
            page = chromium.new_page(viewport=PAGE)
            page.goto(url)
            page.locator("#status").filter(has_text="named").wait_for(timeout=120_000)
            page.wait_for_timeout(500)
            box: Any = page.locator("#shapes").bounding_box()
            height, width = skimage.data.coins().shape
            scale = min(box["width"] / width, box["height"] / height)
            for index, (x, y) in enumerate(COINS):
                modifiers: Any = ["Shift"] if index else []
                page.locator("#viewer").click(
                    position={
                        "x": (box["width"] - scale * width) / 2 + scale * x,
                        "y": (box["height"] - scale * height) / 2 + scale * y,
                    },
                    modifiers=modifiers,
                    force=True,
                )
            page.fill("#label", "coin")
            page.click("#accept")
            page.locator("#status").filter(has_text="(3 by you)").wait_for(timeout=120_000)
            page.wait_for_timeout(SETTLED_MS)
            shot = page.screenshot()
            chromium.close()
    finally:
        process.kill()
        process.wait()
    image = Image.open(io.BytesIO(shot)).convert("RGB")
    return (np.asarray(image),)


def fewshot(folder: Path) -> tuple[ImageRGB, ImageRGB]:
    """Ten outlined cells, and all that are found."""
    frame, cells = draw(0)
    cells = cells[np.flatnonzero((cells.boxes_xyxy[:, 2:] < CELLS_PX).all(axis=1))]
    cells = Masks.from_dense(
        [cells.dense(index)[:CELLS_PX, :CELLS_PX] for index in range(len(cells))]
    )
    picture = np.ascontiguousarray(frame.image_rgb[:CELLS_PX, :CELLS_PX])
    Image.fromarray(picture).save(folder / "cells.png")
    shown = cells[np.linspace(0, len(cells) - 1, EXAMPLES).astype(int)]
    rows = [
        {"id": index + 1, "image_id": 1, "category_id": 1, "segmentation": shown.rle(index)}
        for index in range(len(shown))
    ]
    write_coco(folder / "ten.json", "cells.png", "cell", rows)
    run(folder, "fewshot", "cells.png", "--annotations", "ten.json", "--tag", "cell",
        "--output", "found.json")  # fmt: skip
    found = read_coco(folder / "found.json", picture.shape[:2])
    left, right = enlarged(picture, ENLARGED), enlarged(picture, ENLARGED)
    for canvas in (left, right):
        draw_masks(canvas, scaled(shown, ENLARGED), SHOWN, line_px=LINE_PX, fill_opacity=0.3)
    draw_masks(right, scaled(found, ENLARGED), FOUND, line_px=LINE_PX)
    return left, right


def refine(folder: Path) -> tuple[ImageRGB, ImageRGB]:
    """Coarse outlines, and the refined ones, as docs/refine.md makes them."""
    page = (ROOT / "docs" / "refine.md").read_text(encoding="utf-8")
    made, *_ = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    [typed] = re.findall(r"```bash\nsam-detect (.*?)\n```", page)
    subprocess.run([sys.executable, "-c", made], cwd=folder, check=True)
    run(folder, *typed.split())
    picture = np.asarray(Image.open(folder / "coins.png").convert("RGB"))
    size_hw = picture.shape[0], picture.shape[1]
    sides = []
    for name, color in (("coarse.json", COARSE), ("fine.json", FOUND)):
        masks = read_coco(folder / name, size_hw)
        canvas = enlarged(picture, ENLARGED)
        draw_masks(canvas, scaled(masks, ENLARGED), color, line_px=LINE_PX)
        sides.append(np.ascontiguousarray(canvas[: 100 * ENLARGED]))
    return sides[0], sides[1]


def run(folder: Path, *arguments: str) -> None:
    """A command as a user types it."""
    command = [sys.executable, "-m", "sam_detect", *arguments]
    subprocess.run(command, cwd=folder, check=True)


def write_coco(path: Path, picture: str, name: str, rows: list[dict[str, object]]) -> None:
    path.write_text(json.dumps({
        "images": [{"id": 1, "file_name": picture}],
        "categories": [{"id": 1, "name": name}],
        "annotations": rows,
    }))  # fmt: skip


def read_coco(path: Path, size_hw: tuple[int, ...]) -> Masks:
    height, width = size_hw
    dense = []
    for row in json.loads(path.read_text())["annotations"]:
        outline = row["segmentation"]
        if isinstance(outline, dict):
            dense.append(rle_to_mask(outline))
        else:
            rings = [np.reshape(ring, (-1, 2)).astype(np.float64) for ring in outline]
            dense.append(polygons_to_mask([(ring,) for ring in rings], (height, width)))
    return Masks.from_dense(dense, size_hw=(height, width))


def enlarged(picture: ImageRGB, times: int) -> ImageRGB:
    size = picture.shape[1] * times, picture.shape[0] * times
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_CUBIC), np.uint8)


def scaled(masks: Masks, times: int) -> Masks:
    """The masks of an enlarged picture."""
    crops = [np.kron(crop, np.ones((times, times), np.bool_)) for crop in masks.crops()]
    size_hw = masks.size_hw[0] * times, masks.size_hw[1] * times
    return Masks.from_crops(size_hw=size_hw, boxes_xyxy=masks.boxes_xyxy * times, crops=crops)


if __name__ == "__main__":
    sys.exit(main())
