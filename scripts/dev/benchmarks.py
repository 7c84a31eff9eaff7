"""The table of docs/benchmarks.md: every set, method and number of shots, by ``evaluate``."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sam_detect import SAMDetect
from sam_detect.evaluation.harness import sweep
from sam_detect.evaluation.machine import stamp
from sam_detect.evaluation.readers import open_dataset
from sam_detect.evaluation.run import Protocol
from sam_detect.io import DEFAULT_MAX_PIXELS
from sam_detect.pipeline.flow import Pipeline

ROOT = Path(__file__).resolve().parents[2]
SHOTS = (1, 5, 10)
SEEDS = (0, 1, 2)
METHODS: dict[str, dict[str, str]] = {
    "default": {},
    "appearance": {"embedder": "appearance"},
    "average": {"embedder": "average"},
    "watershed": {"method": "scripts.dev.baselines:OtsuWatershed"},
    "template": {"method": "scripts.dev.baselines:TemplateMatching"},
}
GROUPS = {"dsb2018_nuclei": "modality"}
NOTES = {
    "bccd_blood": "boxes; many red cells are not annotated and count as false where they are found",
    "glas_glands": "hard on purpose: glands are textures with a border, not blobs",
    "em_neurites": "hard on purpose: cells parted by membranes a few pixels wide",
    "microcontrollers": "boxes; boards in clutter, one or two a picture",
    "dsb2018_nuclei": "examples and queries of one modality",
}
LONG = ("episodes", "confusion", "problems")
"""Fields of an evaluation that a result does not need."""
HEAD = """# Benchmarks

Made by one command, which needs the annotated sets (`SAM_DETECT_TEST_DATA`, see
[evaluation.md](evaluation.md)):

    ./scripts/benchmarks

F1 at IoU 0.5 (micro, over all objects), mean of seeds {seeds}, protocol `cross`: examples from some
pictures, sought in all others, only the outlines shown are known. ± is the standard deviation over
seeds. `default` embeds with `lite`; `appearance` and `average` are the same pipeline with these
embedders ([embedding.md](embedding.md)). `watershed` (Otsu + watershed with an
area filter) and `template` (template matching over scales and rotations) are what one does without
sam-detect, given the same examples ([evaluation.md](evaluation.md)). A dash: not measured (yet).
Confidence should be the share of right names among detections of that confidence: the expected
calibration error says how far it is off.
"""


def main() -> None:
    asked = _arguments()
    asked.results.parent.mkdir(parents=True, exist_ok=True)
    done = _known(asked.results)
    for name in _sets(asked):
        missing = [cell for cell in _cells(asked) if (name, *cell) not in done]
        started = time.monotonic()
        for (shots, method), record in zip(
            missing, _measure(asked.data / name, missing), strict=True
        ):
            with asked.results.open("a", encoding="utf-8") as file:
                file.write(json.dumps(record, allow_nan=False) + "\n")
            done[name, shots, method] = record
            spent, started = time.monotonic() - started, time.monotonic()
            said = f"{name}, {shots} shots, {method}: F1 {_f1(record)} ({spent:.0f} s)"
            print(said, file=sys.stderr)
    asked.output.write_text(_page(done), encoding="utf-8")
    print(f"wrote {asked.output}", file=sys.stderr)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    default = os.environ.get("SAM_DETECT_TEST_DATA", str(ROOT.parent / "shared" / "data"))
    parser.add_argument("data", nargs="?", type=Path, default=Path(default))
    parser.add_argument("--sets", help="only these, by comma")
    parser.add_argument("--methods", help="only these, by comma")
    parser.add_argument("--shots", help="only these, by comma")
    parser.add_argument("--results", type=Path, default=ROOT / "docs/metrics/benchmarks.jsonl")
    parser.add_argument("--output", type=Path, default=ROOT / "docs/benchmarks.md")
    asked = parser.parse_args()
    if not asked.data.is_dir():
        sys.exit(f"error: no annotated sets in {asked.data}: set SAM_DETECT_TEST_DATA")
    return asked


def _sets(asked: argparse.Namespace) -> list[str]:
    found = sorted(p.parent.name for p in asked.data.glob("*/annotations.json")
                   if (p.parent / "images").is_dir())  # fmt: skip
    return asked.sets.split(",") if asked.sets else found


def _cells(asked: argparse.Namespace) -> list[tuple[int, str]]:
    methods = asked.methods.split(",") if asked.methods else list(METHODS)
    shots = [int(s) for s in asked.shots.split(",")] if asked.shots else list(SHOTS)
    return [(k, method) for method in methods for k in shots]


def _known(results: Path) -> dict[tuple[str, int, str], dict[str, Any]]:
    lines = results.read_text(encoding="utf-8").splitlines() if results.exists() else []
    records = [json.loads(line) for line in lines]
    return {(r["dataset"], r["shots"], r["column"]): r for r in records}


def _measure(folder: Path, cells: list[tuple[int, str]]) -> Iterator[dict[str, Any]]:
    """The records of a set; its pictures are proposed once for all cells."""
    if not cells:
        return
    protocol = Protocol(seeds=SEEDS, group_by=GROUPS.get(folder.name))
    grid = [{**METHODS[method], "shots": str(shots)} for shots, method in cells]
    found = sweep(
        open_dataset(folder),
        protocol,
        grid,
        make=_pipeline,
        max_pixels=DEFAULT_MAX_PIXELS,
    )
    for (_, method), each in zip(cells, found, strict=True):
        record = {name: value for name, value in each.to_dict().items() if name not in LONG}
        yield {**stamp(), **record, "dataset": folder.name, "column": method}


def _pipeline(changed: Mapping[str, Any]) -> Pipeline:
    return SAMDetect(**changed, vector_store="memory").pipeline


def _page(done: dict[tuple[str, int, str], dict[str, Any]]) -> str:
    parts = [HEAD.format(seeds=", ".join(map(str, SEEDS)))]
    for shots in SHOTS:
        parts.append(f"\n## {shots} shot{'s' if shots > 1 else ''}\n\n{_table(done, shots)}")
    parts.append("\n## Where the default stands at 5 shots\n\n" + _details(done))
    notes = "\n".join(f"- `{name}`: {text}." for name, text in sorted(NOTES.items()))
    machine = next(iter(done.values()))["machine"] if done else {}
    parts.append(f"\n## The sets\n\n{notes}\n\nMeasured on {machine.get('cpu', 'an unknown CPU')}, "
                 f"{machine.get('cores', '?')} cores.\n")  # fmt: skip
    return "".join(parts)


def _table(done: dict[tuple[str, int, str], dict[str, Any]], shots: int) -> str:
    names = sorted({name for name, k, _ in done if k == shots})
    lines = ["| set | " + " | ".join(METHODS) + " |", "| --- |" + " ---: |" * len(METHODS)]
    for name in names:
        cells = [_f1(done.get((name, shots, method))) for method in METHODS]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _details(done: dict[tuple[str, int, str], dict[str, Any]]) -> str:
    keys = ("precision", "recall", "mean_iou", "ap", "ap50", "msa", "expected_calibration_error",
            "proposal_recall", "proposals_per_image", "seconds_per_image",
            "seconds_per_megapixel")  # fmt: skip
    lines = ["| set | " + " | ".join(k.replace("_", " ") for k in keys) + " |",
             "| --- |" + " ---: |" * len(keys)]  # fmt: skip
    for (name, shots, method), record in sorted(done.items()):
        if shots == 5 and method == "default":
            cells = [_short(record[key], key) for key in keys]
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _short(value: float | None, key: str) -> str:
    if value is None:
        return "-"
    return f"{value:.0f}" if key == "proposals_per_image" else f"{value:.2f}"


def _f1(record: dict[str, Any] | None) -> str:
    if record is None or record["f1"] is None:
        return "-"
    spread = record["f1_spread"]
    return f"{record['f1']:.3f}" + (f" ± {spread:.3f}" if spread is not None else "")


if __name__ == "__main__":
    main()
