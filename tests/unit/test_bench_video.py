"""The suite ``video`` and the video that it draws."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("av")
pytest.importorskip("trackers")

from sam_detect.types import Classification, Detections, Masks
from scripts.asv.benchmarks import tracked
from scripts.dev.bench import video as suite
from scripts.dev.bench.measurements import Measurements
from scripts.dev.bench.suites import Options
from scripts.dev.bench.video import FPS, MovingScene, scene, there_and_back


def test_a_moment_of_the_scene_is_the_same_whenever_it_is_drawn() -> None:
    once, again, later = scene(3), scene(3), scene(9)
    assert (once.image_rgb == again.image_rgb).all()
    assert (once.masks == again.masks).all()
    assert (once.masks != later.masks).any(axis=(1, 2)).all(), "everything moves"
    assert once.masks.sum(axis=0).max() == 1, "a pixel shows one object"


def test_the_masks_of_the_scene_are_where_its_objects_are() -> None:
    moment = scene(0)
    ground = np.median(moment.image_rgb[~moment.masks.any(axis=0)], axis=0)
    for mask in moment.masks:
        assert np.abs(np.median(moment.image_rgb[mask], axis=0) - ground).max() > 60


def test_frames_repeat_without_a_jump() -> None:
    assert [there_and_back(i, 4) for i in range(9)] == [0, 1, 2, 3, 2, 1, 0, 1, 2]
    assert [there_and_back(i, 1) for i in range(3)] == [0, 0, 0]


def test_a_live_scene_keeps_its_own_pace() -> None:
    import time

    started = time.monotonic()
    images = [np.full((4, 4, 3), level, np.uint8) for level in (0, 9)]
    frames = list(MovingScene(images, 7, live=True).frames())
    assert [int(frame.image_rgb[0, 0, 0]) for frame in frames] == [0, 9, 0, 9, 0, 9, 0]
    assert time.monotonic() - started >= 6 / FPS
    assert [frame.index for frame in frames] == list(range(7))
    assert frames[6].time_s == pytest.approx(6 / FPS)


def test_f1_counts_what_is_found_under_its_name() -> None:
    truth = scene(0)
    masks = Masks.from_dense(truth.masks)

    def named(*labels: str | None) -> Detections:
        classifications = tuple(Classification(label, label, 0.9) for label in labels)
        return Detections("x", masks[: len(labels)], classifications)

    assert suite._f1([named(*truth.labels)], [truth]) == 1
    assert suite._f1([named(*truth.labels[:5])], [truth]) == pytest.approx(2 * 5 / 15, abs=1e-4)
    wrong = [truth.labels[1], truth.labels[0], None]
    assert suite._f1([named(*wrong)], [truth]) == 0


def test_the_slope_of_memory_is_that_after_settling() -> None:
    memory = suite._Memory(settle_s=10)
    memory._seen = [(0, 100), (5, 900), (10, 1000), (40, 1001), (70, 1002)]
    assert memory.slope_mb_per_min == pytest.approx(2)
    assert memory.peak_mb == 902
    memory._seen = memory._seen[:4]
    assert memory.slope_mb_per_min is None


def test_the_suite_measures_a_live_stream_and_a_file() -> None:
    measured = Measurements(repeat=1)
    small = suite.Workload(live_s=2.5, settle_s=0, file_frames=4, by_itself=4, rounds=1)
    suite.run(measured, Options(), small)
    assert (*measured.stages,) == tracked.Video.params
    assert (*measured.pairs,) == tracked.VideoPairs.params
    live, pair = measured.stages["live"], measured.pairs["stream_vs_every_frame"]
    assert 0 < live["fps"] <= FPS * 1.1
    assert live["latency_p95_ms"] >= live["median_ms"] > 0
    assert measured.figures["live_key_frames"] >= 1
    assert pair["ratio"] == pytest.approx(pair["b_median"] / pair["a_median"], rel=1e-3)
    assert measured.figures["stream_f1"] > 0.7
    assert measured.figures["every_frame_f1"] > 0.7
