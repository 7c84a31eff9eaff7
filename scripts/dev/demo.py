"""The demo: coins of a photograph that scikit-image carries, learnt and found.

Every step is a process of its own, so what the later ones know comes from the library on disk.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import skimage.data
from PIL import Image

FOLDER = Path("demo-output")
COINS_XYWH = [(52, 210, 84, 84), (636, 212, 80, 82), (374, 338, 98, 96), (270, 62, 88, 86),
              (186, 490, 90, 86)]  # fmt: skip
"""Five of the 24 coins in the picture at twice its size."""


def main() -> None:
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir()
    photograph, turned = FOLDER / "coins.png", FOLDER / "coins-turned.png"
    picture = Image.fromarray(skimage.data.coins()).convert("RGB")
    picture = picture.resize((2 * picture.width, 2 * picture.height), Image.Resampling.LANCZOS)
    picture.save(photograph)
    darker = np.asarray(picture.rotate(180), np.float32) * 0.75
    Image.fromarray(darker.astype(np.uint8)).save(turned)

    boxes = [part for box in COINS_XYWH for part in ("--box", ",".join(map(str, box)))]
    say(f"1. Learn {len(COINS_XYWH)} of the 24 coins, outlined by a box each")
    run("learn", photograph, "--label", "coin", *boxes)

    say("2. A new process finds the others, and says which examples made it say so")
    first = detect(photograph, FOLDER / "found.png")
    best = max(first, key=lambda d: d["confidence"] if not is_learnt(d) else 0.0)
    because = ", ".join(f"{n['id'][:8]} ({n['similarity']:.2f})" for n in best["neighbours"][:3])
    print(f"   the coin at {best['bbox']} ({best['confidence']:.0%}): like {because}")

    say("3. Another picture, upside down and darker: the library still knows them")
    second = detect(turned, FOLDER / "remembered.png")

    say("4. What it remembers")
    run("library", "stats")
    print(f"\nLook at {FOLDER}/found.png and {FOLDER}/remembered.png.")
    if min(len(first), len(second)) < 15:
        sys.exit("error: fewer than 15 of the 24 coins were found")


def detect(picture: Path, output: Path) -> list[dict[str, Any]]:
    printed = run("detect", picture, "--json", "--output", output, capture=True)
    coins = [d for d in json.loads(printed)["detections"] if d["label"] == "coin"]
    print(f"   {len(coins)} coins of 24, drawn in {output}")
    return coins


def is_learnt(detection: dict[str, Any]) -> bool:
    return any(neighbour["similarity"] > 0.999 for neighbour in detection["neighbours"])


def say(text: str) -> None:
    print(f"\n{text}", flush=True)


def run(command: str, *arguments: object, capture: bool = False) -> str:
    """Runs sam-detect on a library of the demo's own, showing the command as a user types it."""
    words = [command, *map(str, arguments)]
    print("   $ sam-detect", " ".join(words), flush=True)
    done = subprocess.run(
        [sys.executable, "-m", "sam_detect", *words],
        env={**os.environ, "SAM_DETECT_HOME": str(FOLDER / "home"), "QDRANT_URL": ""},
        stdout=subprocess.PIPE if capture else None,
        stderr=subprocess.DEVNULL if capture else None,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        sys.exit(done.returncode)
    return done.stdout or ""


if __name__ == "__main__":
    main()
