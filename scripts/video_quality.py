"""Says how well the objects of annotated videos are followed.

.venv/bin/python scripts/video_quality.py FOLDER... [--every N] [--segmenter NAME] [--json]

A folder holds ``annotations.json`` (COCO with ``track_id``) and the frames. The objects are learnt
from the first frame; the figures are of the frames after it.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from sam_detect import SAMDetect  # noqa: E402
from sam_detect.errors import SamDetectError  # noqa: E402
from sam_detect.vector_store import MemoryVectorStore  # noqa: E402
from sam_detect.video.quality import VideoQuality, measure  # noqa: E402


def main(arguments: Sequence[str] | None = None) -> int:
    given = parser().parse_args(arguments)
    for folder in given.folders:
        try:
            detector = SAMDetect(
                vector_store=MemoryVectorStore(),
                segmenter=given.segmenter,
                embedder=given.embedder,
                embedding_cache_size=10_000,
            )
            found = measure(detector, folder, every=given.every)
        except SamDetectError as error:
            print(f"error: {error}", file=sys.stderr)
            return error.exit_code
        print(json.dumps({"video": str(folder), **found.to_dict()}) if given.json
              else f"{folder}: {told(found)}", flush=True)  # fmt: skip
    return 0


def told(found: VideoQuality) -> str:
    return (
        f"J {found.j:.3f}, continuity {found.continuity:.3f}, id switches {found.switches}, "
        f"false objects a frame {found.false_per_frame:.2f} (tracks: {found.false_tracks})"
    )


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="scripts/video-quality", description=__doc__.splitlines()[0]
    )
    made.add_argument("folders", nargs="+", type=Path, metavar="FOLDER")
    made.add_argument("--every", type=int, default=10, help="frames from one look to the next")
    made.add_argument("--segmenter", default="naive")
    made.add_argument("--embedder", default="appearance")
    made.add_argument("--json", action="store_true", help="one JSON object for each folder")
    return made


if __name__ == "__main__":
    sys.exit(main())
