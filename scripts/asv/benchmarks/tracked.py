"""What asv tracks of each commit: figures of ``./scripts/bench`` and ``sam-detect evaluate``.

They are read from the JSON that these commands print, which is a contract, so that one version of
this file measures every commit. asv takes an increase for a regression, so lower is better in all:
of a pair ours by the reference is tracked, of F1 what it lacks of 1.

The environment says what is measured (see scripts/dev/metrics.py): ``SAM_DETECT_CHECKOUT`` is the
checkout, ``SAM_DETECT_TEST_DATA`` the folder of annotated sets. What cannot be measured is NaN,
which asv shows as absent.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, ClassVar

ABSENT = float("nan")
SETS = ("nuts_dates", "food_plates", "bccd_blood", "dsb2018_nuclei")
GROUPS = {"dsb2018_nuclei": "modality"}

Record = dict[str, Any]


def measured(*arguments: str) -> Record:
    """The JSON of a command of the measured checkout."""
    return _printed("sam_detect", *arguments)


def benched(*arguments: str) -> Record:
    """The JSON of a suite; in older commits these are of the command ``sam-detect bench``."""
    if Path(os.environ["SAM_DETECT_CHECKOUT"], "scripts", "dev", "bench").is_dir():
        return _printed("scripts.dev.bench", *arguments)
    return measured("bench", *arguments)


def _printed(module: str, *arguments: str) -> Record:
    env = {**os.environ, "PYTHONPATH": os.environ["SAM_DETECT_CHECKOUT"]}
    command = [sys.executable, "-m", module, *arguments, "--json"]
    done = subprocess.run(command, env=env, stdout=subprocess.PIPE, check=True)
    found: Record = json.loads(done.stdout)
    return found


def number(record: Record, *keys: str) -> float:
    """A number some keys deep; NaN where it is absent or null."""
    found: Any = record
    for key in keys:
        found = found.get(key) if isinstance(found, dict) else None
    return ABSENT if found is None else float(found)


class _Stages:
    """The stages of a suite."""

    setup_cache_timeout: ClassVar[float] = 7200
    param_names: ClassVar[list[str]] = ["stage"]

    def track_ms(self, record: Record, stage: str) -> float:
        return number(record, "stages", stage, "median_ms")

    def track_peak_mb(self, record: Record, stage: str) -> float:
        return number(record, "stages", stage, "peak_memory_mb")

    track_ms.unit = "ms"  # type: ignore[attr-defined]
    track_peak_mb.unit = "MB"  # type: ignore[attr-defined]


class _Pairs:
    """The pairs of a suite: time (or memory) of ours by that of the reference."""

    setup_cache_timeout: ClassVar[float] = 7200
    param_names: ClassVar[list[str]] = ["pair"]
    unit = "ours / reference"

    def track_ratio(self, record: Record, pair: str) -> float:
        return 1 / number(record, "pairs", pair, "ratio")


class Stages(_Stages):
    params = ("propose", "fade_crop", "embed", "search", "label", "write_json", "write_overlay",
              "detect")  # fmt: skip

    def setup_cache(self) -> Record:
        return benched("stages")


class StagesPairs(_Pairs):
    params = ("embed_appearance_vs_average", "search_snapshot_vs_store",
              "fade_window_vs_whole_picture", "fade_gaussian_vs_identity",
              "fade_gaussian_vs_blur")  # fmt: skip
    setup_cache = Stages.setup_cache


class Store(_Stages):
    params = ("memory_search_10000", "embedded_search_10000", "embedded_insert_10000",
              "embedded_open_10000")  # fmt: skip

    def setup_cache(self) -> Record:
        return benched("store", "--sizes", "10000")


class StorePairs(_Pairs):
    params = ("embedded_vs_local_search_10000", "memory_vs_local_search_10000",
              "embedded_vs_local_memory_10000")  # fmt: skip
    setup_cache = Store.setup_cache


class Video(_Stages):
    params = ("live",)

    def setup_cache(self) -> Record:
        return benched("video")

    def track_latency_p95_ms(self, record: Record, stage: str) -> float:
        return number(record, "stages", stage, "latency_p95_ms")

    track_latency_p95_ms.unit = "ms"  # type: ignore[attr-defined]

    def track_f1_not_found(self, record: Record, stage: str) -> float:
        return 1 - number(record, "figures", "stream_f1")


class VideoPairs(_Pairs):
    params = ("stream_vs_every_frame",)
    setup_cache = Video.setup_cache


class SAM2Pairs(_Pairs):
    params = ("masks_vs_official", "masks_bf16_vs_official", "decoder_vs_official",
              "memory_vs_official", "embed_batched_vs_single",
              "embed_frame_vs_single", "video_vs_official")  # fmt: skip

    def setup_cache(self) -> Record:
        return benched("sam2")


class Quality:
    """What is found in the annotated sets with five examples of each label, over three seeds. The
    same seeds draw the same examples: these figures hold on a busy machine, too."""

    setup_cache_timeout: ClassVar[float] = 7200
    param_names: ClassVar[list[str]] = ["dataset"]
    params = SETS
    unit = "share"

    def setup_cache(self) -> Record:
        data = Path(os.environ["SAM_DETECT_TEST_DATA"])
        return {name: evaluated(data / name) for name in SETS if (data / name).is_dir()}

    def track_f1_not_found(self, records: Record, dataset: str) -> float:
        return 1 - number(records, dataset, "f1")

    def track_objects_not_proposed(self, records: Record, dataset: str) -> float:
        return 1 - number(records, dataset, "proposal_recall")

    def track_ms_per_image(self, records: Record, dataset: str) -> float:
        return 1000 * number(records, dataset, "seconds_per_image")

    def track_peak_mb(self, records: Record, dataset: str) -> float:
        return number(records, dataset, "peak_memory_mb")

    track_ms_per_image.unit = "ms"  # type: ignore[attr-defined]
    track_peak_mb.unit = "MB"  # type: ignore[attr-defined]


def evaluated(folder: Path) -> Record:
    """The evaluation of one set."""
    grouped = ("--group-by", GROUPS[folder.name]) if folder.name in GROUPS else ()
    return measured("evaluate", str(folder), *grouped)
