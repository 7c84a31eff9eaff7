"""Many pictures by several processes: order, errors, and how a run stops. Processes are real."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from cli_harness import DISCS, Ran, as_a_process, box_around, drawn, saved

from sam_detect import SAMDetect
from sam_detect.errors import ConfigError, ImageError
from sam_detect.pipeline.batch import default_workers, detect_many
from sam_detect.pipeline.workers import AHEAD
from sam_detect.types import Frame
from sam_detect.vector_store import QdrantVectorStore
from tests.closeness import SCORE_TOLERANCE

PARTS = '''
import os, time
from sam_detect.segmentation import NaiveSegmenter
class Marked(NaiveSegmenter):
    """Ends its process, or takes long, where a picture's first pixel says so."""
    def propose(self, frame, hints=None):
        red, green, blue = frame.image_rgb[0, 0].tolist()
        if (red, green, blue) == (255, 0, 0):
            os._exit(9)
        if (red, green, blue) == (0, 255, 0):
            open(f"working-{os.getpid()}", "w").close()
            time.sleep(60)
        print("a part may print")
        return super().propose(frame, hints)
'''
DEADLY, SLOW = (255, 0, 0), (0, 255, 0)
STOP_S = 8.0
"""Most seconds from a signal to the end: of a busy machine; a worker's picture takes 60."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library that knows discs, and parts that misbehave."""
    folder = tmp_path_factory.mktemp("batch")
    (folder / "own.py").write_text(PARTS)
    saved(folder / "shapes.png")
    boxes = [word for place in DISCS[:2] for word in ("--box", box_around(*place))]
    ran = sam(folder, "learn", "shapes.png", "--label", "disc", "--segmenter", "naive", *boxes)
    assert ran.code == 0, ran.err
    return folder


def environment(folder: Path) -> dict[str, str]:
    path = os.pathsep.join(each for each in sys.path if each)
    home = {"SAM_DETECT_HOME": str(folder / "home"), "PYTHONPATH": path}
    return {**os.environ, **home, "OMP_NUM_THREADS": "1"}


def sam(folder: Path, *arguments: str | Path) -> Ran:
    return as_a_process(*arguments, cwd=folder, env={**environment(folder)}, timeout=120)


def tray(path: Path, number: int, *, first: tuple[int, int, int] | None = None) -> Path:
    """A small picture of discs at places of its own; its first pixel may be a mark."""
    image = drawn([(40 + 7 * number, 45), (150, 60 + 5 * number)], [(220, 140)], seed=number)
    if first is not None:
        image[0, 0] = first
    return saved(path, image)


def without_times(line: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in line.items() if key != "timings_ms"}


def assert_same_results(found: list[dict[str, Any]], expected: list[dict[str, Any]]) -> None:
    """All but the times, numbers within the tolerance of scores."""
    flat = [json.dumps([without_times(each) for each in lines]) for lines in (found, expected)]
    assert same_plain(*(json.loads(each) for each in flat))


def same_plain(one: Any, other: Any) -> bool:
    if isinstance(one, float) and isinstance(other, float):
        return abs(one - other) <= SCORE_TOLERANCE
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same_plain(one[k], other[k]) for k in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same_plain, one, other))
    return bool(one == other)


# Results


def test_several_workers_give_what_one_gives_in_the_same_order(folder: Path) -> None:
    trays = folder / "trays"
    for number in range(9):
        tray(trays / f"{number}.png", number)
    for number in (2, 5, 8):
        (trays / f"{number}.png").write_bytes(b"no picture")
    alone = sam(folder, "detect", "trays", "--json", "--workers", "1")
    together = sam(folder, "detect", "trays", "--json", "--workers", "2")
    for ran in (alone, together):
        assert ran.code == 1
        named = [line for line in ran.errors if "trays" in line]
        assert [line.count(f"{number}.png") for line, number in zip(named, (2, 5, 8), strict=True)]
        assert "3 of 9 failed" in ran.err
    order = [Path(line["image"]).stem for line in together.json]
    assert order == ["0", "1", "3", "4", "6", "7"]
    assert sum(each["label"] == "disc" for line in together.json for each in line["detections"])
    assert_same_results(together.json, alone.json)


def test_workers_know_what_was_taken_as_examples_for_this_run_only(folder: Path) -> None:
    for number in range(4):
        tray(folder / "primed" / f"{number}.png", number)
    arguments = ("detect", "primed", "--label", "widget", "--json", "--store", "memory")
    alone, together = (sam(folder, *arguments, "--workers", n) for n in ("1", "2"))
    assert together.code == alone.code == 0, together.err
    assert any(e["label"] == "widget" for e in together.json[-1]["detections"])
    assert len(together.json) == 4
    for one, other in zip(alone.json, together.json, strict=True):
        ids = [{**d, "neighbours": []} for line in (one, other) for d in line["detections"]]
        half = len(ids) // 2
        assert same_plain(ids[:half], ids[half:])


def test_pictures_in_memory_are_worked_on_by_processes_too(tmp_path: Path) -> None:
    detector = SAMDetect(embedder="average", segmenter="naive", vector_store="memory")
    frames = [drawn(seed=number) for number in range(3)]
    detector.learn(frames[0], "disc", boxes_xywh=[[20, 20, 41, 41]])
    found = detector.detect([*frames], workers=2)
    for each, frame in zip(found, frames, strict=True):
        same = detector.detect(frame)
        assert each.label.tolist() == same.label.tolist()
        assert each.boxes_xyxy.tolist() == same.boxes_xyxy.tolist()
    with pytest.raises(ImageError):
        detector.detect([frames[0], tmp_path / "gone.png"], workers=2)


def test_the_warnings_of_a_worker_are_said(folder: Path) -> None:
    pages = folder / "pages"
    tray(pages / "0.png", 0)
    first, second = (tray(folder / f"page{n}.png", n) for n in (1, 2))
    from PIL import Image

    with Image.open(first) as one, Image.open(second) as other:
        one.save(pages / "1.tif", save_all=True, append_images=[other])
    ran = sam(folder, "detect", "pages", "--workers", "2").worked()
    assert "1.tif" in ran.err
    assert "page" in ran.err


# What cannot be sent, and what dies


def test_a_part_of_the_users_own_script_asks_for_one_worker(folder: Path) -> None:
    script = folder / "script.py"
    script.write_text(
        "from sam_detect import SAMDetect\n"
        "from sam_detect.embedding import AverageEmbedder\n"
        "class Own(AverageEmbedder): pass\n"
        "print('once')\n"
        "detector = SAMDetect(embedder=Own(), segmenter='naive', vector_store='memory')\n"
        "detector.detect(['shapes.png', 'shapes.png'], workers=2)\n"
    )
    ran = subprocess.run(
        [sys.executable, script], cwd=folder, env=environment(folder), capture_output=True,
        text=True, timeout=60, check=False,
    )  # fmt: skip
    assert "ConfigError" in ran.stderr
    assert "take one worker" in ran.stderr
    assert ran.stdout == "once\n"


def test_a_picture_that_ends_its_process_is_named_and_the_others_are_done(folder: Path) -> None:
    for number in range(5):
        tray(folder / "deadly" / f"{number}.png", number, first=DEADLY if number == 1 else None)
    ran = sam(folder, "detect", "deadly", "--json", "--segmenter", "own:Marked", "--workers", "2")
    assert [Path(line["image"]).stem for line in ran.json] == ["0", "2", "3", "4"]
    assert ran.code == 1
    assert "1.png" in ran.errors[0]
    assert "ended" in ran.errors[0]


def test_workers_that_die_one_after_the_other_end_the_run(folder: Path) -> None:
    for number in range(8):
        tray(folder / "all-deadly" / f"{number}.png", number, first=DEADLY)
    ran = sam(folder, "detect", "all-deadly", "--segmenter", "own:Marked", "--workers", "2")
    assert ran.code == 2
    assert "workers ended one after the other" in ran.errors[-1]


# Learning


def annotated(folder: Path, pictures: int, *, deadly: int = -1) -> Path:
    """A folder of trays with a COCO file of two discs in each, also of pictures that are damaged:
    of each three the last."""
    images, outlines = [], []
    for number in range(pictures):
        path = tray(folder / f"{number}.png", number, first=DEADLY if number == deadly else None)
        if number % 3 == 2:
            path.write_bytes(b"no picture")
        images.append({"id": number, "file_name": path.name})
        for x, y in ((40 + 7 * number, 45), (150, 60 + 5 * number)):
            box = [int(word) for word in box_around(x, y).split(",")]
            outlines.append(
                {"id": len(outlines), "image_id": number, "category_id": 1, "bbox": box}
            )
    data = {"images": images, "annotations": outlines, "categories": [{"id": 1, "name": "disc"}]}
    (folder / "found.json").write_text(json.dumps(data))
    return folder / "found.json"


def learnt(folder: Path, library: str) -> dict[str, tuple[dict[str, Any], list[float]]]:
    """What a library has, without times and what follows from them."""
    store = QdrantVectorStore(folder / "home" / "libraries", collection_name=library)
    passing = ("added", "batch", "checksum")
    found = {}
    for point in store.scan(with_vectors=True):
        known = {name: each for name, each in point.payload.items() if name not in passing}
        assert point.vector is not None
        found[point.id] = known, point.vector.tolist()
    return found


def test_several_workers_learn_what_one_learns(folder: Path) -> None:
    file = annotated(folder / "taught", 9)
    words = ("learn", "taught", "--annotations", file, "--json", "--embedder", "appearance")
    alone, together = (
        sam(folder, *words, "--library", name, "--workers", n)
        for name, n in (("a", "1"), ("b", "2"))
    )
    for ran in (alone, together):
        assert ran.code == 1
        assert "3 of 9 failed" in ran.err
        assert [line["total"] for line in ran.json] == [2, 4, 6, 8, 10, 12]
    assert [line for line in together.errors if "taught" in line] == [
        line for line in alone.errors if "taught" in line
    ]
    one, two = learnt(folder, "a"), learnt(folder, "b")
    assert len(one) == 12
    assert {point["label"] for point, _ in one.values()} == {"disc"}
    assert one.keys() == two.keys()
    assert all(same_plain(list(one[key]), list(two[key])) for key in one)


def test_a_picture_that_ends_its_process_is_not_learnt_and_the_others_are(folder: Path) -> None:
    file = annotated(folder / "deadly-taught", 5, deadly=1)
    words = ("learn", "deadly-taught", "--annotations", file, "--library", "c", "--json")
    ran = sam(folder, *words, "--segmenter", "own:Marked", "--workers", "2")
    assert ran.code == 1
    assert any("1.png" in line and "ended" in line for line in ran.errors)
    assert ran.json[-1]["total"] == 6


def test_workers_share_annotated_pictures_only(folder: Path) -> None:
    ran = sam(folder, "learn", "shapes.png", "--label", "x", "--masks", "auto", "--workers", "2")
    ran.failed("--workers", "--annotations", code=2)


# Stopping


@contextmanager
def slow_run(folder: Path, name: str) -> Iterator[tuple[subprocess.Popen[str], Callable[[], None]]]:
    """A run whose third and fourth pictures take a minute, and a function that waits until its
    workers have come to both, and what came before is kept."""
    trays = folder / name
    for number in range(6):
        tray(trays / f"{number}.png", number, first=SLOW if number in (2, 3) else None)
    for mark in folder.glob("working-*"):
        mark.unlink()
    line = [sys.executable, "-m", "sam_detect", "detect", name, "--workers", "2"]
    line += ["--segmenter", "own:Marked", "--output", f"{name}.jsonl"]
    process = subprocess.Popen(
        line, cwd=folder, env=environment(folder), text=True, stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )  # fmt: skip

    def wait() -> None:
        until(lambda: len(list(folder.glob("working-*"))) == 2)
        kept = folder / f"{name}.jsonl.progress"
        until(lambda: kept.exists() and b"/1.png" in kept.read_bytes())

    try:
        yield process, wait
    finally:
        process.kill()
        process.wait()


def until(holds: Callable[[], bool], most_s: float = 60) -> None:
    began = time.monotonic()
    while not holds():
        assert time.monotonic() - began < most_s
        time.sleep(0.05)


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    # One that ended and that its parent has not waited for yet.
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"


def workers_of(folder: Path) -> list[int]:
    return [int(mark.name.removeprefix("working-")) for mark in folder.glob("working-*")]


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_control_c_stops_at_once_and_keeps_what_was_done(folder: Path) -> None:
    with slow_run(folder, "stopped") as (process, wait):
        wait()
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
        assert time.monotonic() - began < STOP_S
    assert process.returncode == 130, err
    assert "stopped" in err
    assert "Traceback" not in err
    lines = (folder / "stopped.jsonl").read_text().splitlines()
    # The second may be kept, and not yet written; --resume writes it.
    written = [Path(json.loads(each)["image"]).stem for each in lines]
    assert written in (["0"], ["0", "1"])
    assert all(map(gone, workers_of(folder)))


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_no_worker_outlives_a_killed_run(folder: Path) -> None:
    with slow_run(folder, "killed") as (process, wait):
        wait()
        pids = workers_of(folder)
        process.kill()
        until(lambda: all(map(gone, pids)), STOP_S)


# In one process, and limits


def test_pictures_are_taken_only_as_far_ahead_as_workers_need(folder: Path) -> None:
    detector = SAMDetect(embedder="average", segmenter="naive", vector_store="memory")
    taken: list[int] = []

    def frames() -> Iterator[Frame]:
        for number in range(40):
            taken.append(number)
            yield Frame(drawn(seed=number))

    for workers in (1, 2):
        taken.clear()
        outcomes = detector.detect_each(frames(), workers=workers)
        for done in range(6):
            next(outcomes).get()
            assert len(taken) <= done + 1 + AHEAD * workers
        outcomes.close()


def test_the_number_of_workers() -> None:
    detector = SAMDetect(embedder="average", segmenter="naive", vector_store="memory")
    assert default_workers(detector.pipeline, 1) == 1
    assert default_workers(detector.pipeline, 10_000) == len(os.sched_getaffinity(0))
    with pytest.raises(ConfigError, match="workers must be at least 1"):
        detector.detect([], workers=0)


def test_frames_are_encoded_together_where_a_segmenter_can() -> None:
    detector = SAMDetect(embedder="average", segmenter="naive", vector_store="memory")

    class Encoding(type(detector.segmenter)):  # type: ignore[misc]
        frames_at_once = 3
        groups: list[list[str]] = []  # noqa: RUF012

        def encode_together(self, frames: list[Frame]) -> None:
            self.groups.append([each.source_id for each in frames])

    detector.pipeline.segmenter = Encoding()
    frames: list[Any] = [Frame(drawn(seed=n), f"{n}") for n in range(5)]
    frames.insert(1, "gone.png")
    outcomes = list(detect_many(detector.pipeline, detector.settings, {}, frames))
    assert Encoding.groups == [["0", "1"], ["2", "3", "4"]]
    assert [type(each.error) for each in outcomes] == [type(None), ImageError, *[type(None)] * 4]
