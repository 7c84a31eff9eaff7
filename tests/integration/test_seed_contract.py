"""The lines that the seeds promised to users, run as a user would write them."""

from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from cli_harness import DISCS, as_a_process, box_around, drawn, in_this_process, saved

from sam_detect import SAMDetect
from sam_detect.errors import ConfigError, RecipeMismatchError, UnavailableError
from sam_detect.fading import ExponentialFade, GaussianFade, IdentityFade, LinearFade


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with `image.jpg`."""
    monkeypatch.chdir(tmp_path)
    saved(tmp_path / "image.jpg", quality=95)
    return tmp_path


class CustomFade:
    """Half of the context, wherever it is."""

    def apply(self, image: Any, mask: Any, distance_map: Any) -> Any:
        assert image.shape[:2] == mask.shape == distance_map.shape
        assert (distance_map[mask.astype(bool)] == 0).all()
        weight = np.where(distance_map > 0, 0.5, 1.0)
        return (image * weight[..., None]).astype(image.dtype)


# The command line


def test_quickstart() -> None:
    first = as_a_process("image.jpg").worked()
    assert "nothing known" in first.out
    second = as_a_process("image.jpg", "--label", "widget").worked()
    assert "widget" in second.out
    third = as_a_process("image.jpg").worked()
    assert "nothing known" in third.out, "only the memory of that run was primed"


def test_quickstart_with_a_server(capfd: pytest.CaptureFixture[str]) -> None:
    sam = in_this_process(capfd)
    faded = ("--fade", "gaussian", "--sigma", "30", "--min-fade", "0.05", "--top-k", "5", "--json")
    # Port 1 in place of 6333: no server may be there by chance.
    ran = sam("image.jpg", "--store", "qdrant", "--qdrant-url", "http://localhost:1", *faded)
    ran.failed("no Qdrant server answers at http://localhost:1", "start it", code=1)
    assert ran.out == ""
    [found] = sam("image.jpg", *faded).worked().json
    assert found["recipe"]["fade_params"]["sigma"] == 30
    assert found["recipe"]["fade_params"]["min_fade"] == 0.05


def test_production_flags_say_that_a_model_is_needed(capfd: pytest.CaptureFixture[str]) -> None:
    sam = in_this_process(capfd)
    line = ("image.jpg", "--segmenter", "sam2", "--sam-model", "base", "--embedder", "clip",
            "--device", "cpu")  # fmt: skip
    sam(*line).failed("'base' is not on this machine", "download-models", code=2)
    sam("image.jpg", "--embedder", "clip").failed("CLIP model", "not on this machine", code=2)
    for flags in (
        ("--segmenter", "naive", "--embedder", "average", "--device", "cpu", "--store", "memory"),
        ("--fade", "identity", "--store", "memory"),
    ):
        sam("image.jpg", *flags).worked()


def test_a_custom_fade_by_name(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    package = folder / "mine"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "fades.py").write_text(
        "class Dim:\n    def apply(self, image, mask, distance_map):\n        return image // 2\n"
        "class Broken:\n    def apply(self, image, mask, distance_map):\n        return None\n"
        "class Needy:\n    def __init__(self, x):\n        pass\n    apply = None\n"
    )
    ran = as_a_process("image.jpg", "--fade", "mine.fades:Dim", "--json").worked()
    assert ran.json[0]["recipe"]["fade"] == "mine.fades:Dim"
    sam = in_this_process(capfd)
    sam("image.jpg", "--fade", "mine.fades:Broken").failed("Broken", code=1)
    sam("image.jpg", "--fade", "mine.fades:Needy").failed("mine.fades:Needy", code=2)
    sam("image.jpg", "--fade", "mine.fades:Gone").failed("mine.fades:Gone", code=2)


# Python


def test_fading_section() -> None:
    image = cv2.imread("image.jpg")
    for fade in (
        GaussianFade(sigma=30, min_fade=0.05),
        LinearFade(max_distance=100, min_fade=0.05),
        ExponentialFade(decay=0.05, max_distance=200),
        IdentityFade(),
        CustomFade(),
    ):
        detector = SAMDetect(fade_config=fade, vector_store="memory")
        detector.add_examples_from_file(image_path="image.jpg", masks="auto", label="thing")
        assert "thing" in {found["label"] for found in detector.detect(image)}


def test_the_fade_examples_run_in_sequence_on_one_library() -> None:
    """Configuration, then Research: each with the default library, as a user types them."""
    detector = SAMDetect(fade_config=GaussianFade(sigma=30, min_fade=0.05))
    detector.add_examples_from_file(image_path="image.jpg", masks="auto", label="thing")
    taught = detector.library.stats()["examples"]
    for fade in (
        LinearFade(max_distance=100, min_fade=0.05),
        ExponentialFade(decay=0.05, max_distance=200),
        CustomFade(),
        GaussianFade(sigma=20),
        LinearFade(max_distance=100),
        ExponentialFade(decay=0.05),
    ):
        made = SAMDetect(fade_config=fade)
        assert set(made.detect("image.jpg").known.label) == {"thing"}
        detector.set_fade_strategy(fade)
        assert set(detector.detect("image.jpg").known.label) == {"thing"}
        assert detector.recipe == made.recipe
        with pytest.raises(RecipeMismatchError, match=r"reindex|module of its own"):
            made.add_example(image="image.jpg", label="thing")
    assert SAMDetect().recipe.fade_params["sigma"] == 30
    assert SAMDetect().library.stats()["examples"] == taught


def test_research_section() -> None:
    detector = SAMDetect()
    detector.add_examples_from_file(image_path="image.jpg", masks="auto", label="thing")
    for fade in (GaussianFade(sigma=20), LinearFade(max_distance=100), ExponentialFade(decay=0.05)):
        detector.set_fade_strategy(fade)
        assert detector.recipe.fade in type(fade).__name__.lower()
        assert "thing" in {found["label"] for found in detector.detect("image.jpg")}


def test_a_device_without_a_gpu(folder: Path) -> None:
    """Works, and says so once."""
    code = (
        "from sam_detect import SAMDetect\n"
        "for _ in range(3):\n"
        "    detector = SAMDetect(device='cuda')\n"
        "assert len(detector.detect('image.jpg')) > 3\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout == ""
    assert ran.stderr.count("'cuda' changes nothing") == 1


def write_video(path: Path) -> None:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 5, (280, 200))
    if not writer.isOpened():
        pytest.skip("this OpenCV cannot write a video")
    for step in range(4):
        discs = [(x + 4 * step, y) for x, y in DISCS]
        writer.write(np.ascontiguousarray(drawn(discs, seed=step)[..., ::-1]))
    writer.release()


def test_opencv_loop(folder: Path) -> None:
    write_video(folder / "video.avi")
    detector = SAMDetect()
    mask = np.zeros((200, 280), bool)
    rows, columns = np.mgrid[:200, :280]
    mask[(columns - DISCS[0][0]) ** 2 + (rows - DISCS[0][1]) ** 2 <= 400] = True
    detector.add_examples_from_file(image_path="image.jpg", masks=mask, label="disc")

    capture = cv2.VideoCapture(str(folder / "video.avi"))
    frames = 0
    while True:
        ok, frame = capture.read()
        if not ok:
            break
        before = frame.copy()
        results = detector.detect(frame)
        named = [result for result in results if result["label"] == "disc"]
        assert len(named) >= len(DISCS) - 1
        for result in named:
            assert result["mask"].shape == frame.shape[:2]
            assert result["mask"].dtype == bool
            assert 0 <= result["confidence"] <= 1
        shown = detector.visualize(frame, results)
        assert (shown.shape, shown.dtype) == (frame.shape, frame.dtype)
        assert np.array_equal(frame, before), "the caller's frame is not drawn into"
        frames += 1
    capture.release()
    assert frames == 4


def test_batch_example(folder: Path) -> None:
    images = folder / "datasets" / "objects"
    for number in range(3):
        saved(images / f"{number}.jpg", drawn(seed=number), quality=95)
    Path("crops").mkdir()
    learn = ("learn", images / "0.jpg", "--label", "disc", "--box", box_around(*DISCS[0]))
    as_a_process(*learn).worked()

    detector = SAMDetect()
    added = 0
    for image_path in sorted(images.glob("*.jpg")):
        results = detector.detect(str(image_path))
        for i, result in enumerate(results):
            crop = detector.get_crop(image_path, result["mask"])
            crop.save(f"crops/{image_path.stem}_{i}.png")
            if result["confidence"] > 0.85:
                added += detector.add_example(image=crop, label=result["label"]).added
    assert len(list(Path("crops").glob("*.png"))) >= 12
    assert added >= 3
    assert len(SAMDetect().library) == added + 1
    assert {example.label for example in detector.library.read()} == {"disc"}


# What needs a model


def test_performance_tuning_says_that_a_model_is_needed() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(UnavailableError, match="'sam2_hiera_large' is not on") as caught:
            SAMDetect(
                sam_model="sam2_hiera_large",
                device="cpu",
                tensorrt_enabled=True,
                embedding_cache_size=10000,
                qdrant_batch_size=32,
                embedding_model="clip-vit-b",
            )
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, ConfigError)


def test_model_classes_say_that_a_model_is_needed() -> None:
    from sam_detect.segmentation import SAM2Segmenter

    with pytest.raises(UnavailableError, match=r"download-models.*'naive' needs no model"):
        SAM2Segmenter(model_size="base", device="cpu")
    from sam_detect.embedding import CLIPEmbedder, SAM2Embedder

    with pytest.raises(UnavailableError, match=r"not on this machine.*download-models"):
        CLIPEmbedder(model_name="openai/clip-vit-base-patch32", device="cpu")
    with pytest.raises(UnavailableError, match=r"not on this machine.*download-models"):
        SAM2Embedder(model_size="base", device="cpu")
