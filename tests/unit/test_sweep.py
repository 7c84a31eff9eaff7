"""The same evaluation over a grid of settings."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
from evaluation_helpers import dataset_folder, detector

from sam_detect import SAMDetect
from sam_detect.errors import ConfigError
from sam_detect.evaluation.dataset import Dataset
from sam_detect.evaluation.harness import MOST_VARIANTS, evaluate, sweep, variants
from sam_detect.evaluation.pipeline import PipelineMethod
from sam_detect.evaluation.readers import open_dataset
from sam_detect.evaluation.run import Protocol
from sam_detect.pipeline.flow import Pipeline
from sam_detect.types import Frame, Hints, Masks

LIMIT = 10**6
WATERSHED = "scripts.dev.baselines:OtsuWatershed"
ONCE = Protocol(shots=1, seeds=(0,))
TIMES = ("seconds", "seconds_per_image", "seconds_per_megapixel", "peak_memory_mb")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Three pictures of four discs and two squares."""
    return open_dataset(dataset_folder(tmp_path_factory.mktemp("drawn") / "three", 3))


def swept(data: Dataset, *specs: str, **settings: Any) -> list[dict[str, Any]]:
    def make(changed: Mapping[str, str]) -> Pipeline:
        return detector(**{**settings, **changed}).pipeline

    found = sweep(data, ONCE, variants(specs), make=make, max_pixels=LIMIT)
    return [each.to_dict() for each in found]


def figures(whole: dict[str, Any]) -> str:
    """All but times and the variant, as text."""
    kept = {key: value for key, value in whole.items() if key not in (*TIMES, "variant")}
    return json.dumps(kept)


# The grid


def test_every_combination_in_the_order_that_was_asked_for() -> None:
    assert variants(["top_k=1,5 threshold=0.5,auto"]) == [
        {"top_k": "1", "threshold": "0.5"},
        {"top_k": "1", "threshold": "auto"},
        {"top_k": "5", "threshold": "0.5"},
        {"top_k": "5", "threshold": "auto"},
    ]
    assert variants(["top_k=1,5", "threshold=0.5,auto"]) == variants(
        ["top_k=1,5 threshold=0.5,auto"]
    )
    assert variants([]) == variants([" "]) == [{}]


def test_values_that_are_given_twice_are_taken_once() -> None:
    assert variants(["top_k=1,1,5"]) == [{"top_k": "1"}, {"top_k": "5"}]
    assert variants(["top_k=1", "top_k=5,1"]) == [{"top_k": "1"}, {"top_k": "5"}]
    assert variants(["top-k=1"]) == [{"top_k": "1"}]


def test_what_a_fade_does_not_have_is_left_out_for_it() -> None:
    assert variants(["fade=gaussian,linear sigma=10,30"]) == [
        {"fade": "gaussian", "sigma": "10"},
        {"fade": "gaussian", "sigma": "30"},
        {"fade": "linear"},
    ]
    crossed = variants(["fade=identity,linear max_distance=20 top_k=1,5"])
    assert crossed == [
        {"fade": "identity", "top_k": "1"},
        {"fade": "identity", "top_k": "5"},
        {"fade": "linear", "max_distance": "20", "top_k": "1"},
        {"fade": "linear", "max_distance": "20", "top_k": "5"},
    ]


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("sigam=1", r"no 'sigam' to vary \(it has: method, shots, iou, .*sigma"),
        ("library=a,b", "no 'library' to vary"),
        ("sigma", r"key=a,b,\.\.\. such as sigma=10,30, got 'sigma'"),
        ("sigma=", "got 'sigma='"),
        ("sigma=,", "got 'sigma=,'"),
        ("fade=gausian sigma=1", "gausian"),
        ("top_k=" + ",".join(map(str, range(MOST_VARIANTS + 1))), f"{MOST_VARIANTS + 1} variants"),
    ],
)
def test_what_is_no_grid_is_named(spec: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        variants([spec])


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("shots=1,two", "shots is a whole number, got 'two'"),
        ("shots=1,1.5", "shots is a whole number, got '1.5'"),
        ("shots=1,0", "at least 1, got 0"),
        ("shots=1,100", "no picture to search after 100"),
        ("iou=0.5,x", "iou is a number, got 'x'"),
        ("iou=0.5,nan", "got nan"),
        ("method=sam-detect,magic", "no method 'magic'"),
        ("top_k=1,x", "top_k.*'x'"),
        ("sigma=10,-3", "sigma"),
    ],
)
def test_what_is_wrong_with_the_last_is_said_before_the_first_runs(
    data: Dataset, spec: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PipelineMethod, "embed", lambda *_, **__: pytest.fail("it has run"))
    with pytest.raises(ConfigError, match=words):
        swept(data, spec)


# What it finds


def test_a_variant_gives_what_it_gives_alone(data: Dataset) -> None:
    together = swept(data, "fade=gaussian,linear sigma=2,30", labeller="prototype", fade="identity")
    assert [each["variant"] for each in together] == [
        {"fade": "gaussian", "sigma": "2"},
        {"fade": "gaussian", "sigma": "30"},
        {"fade": "linear"},
    ]
    for found in together:
        alone = PipelineMethod(detector(**found["variant"], labeller="prototype").pipeline)
        single = evaluate(data, alone, ONCE, max_pixels=LIMIT).to_dict()
        assert figures(found) == figures(single)
    assert len({str(each["recipe"]["fade_params"]) for each in together}) == 3
    assert len({each["embedding"]["silhouette"] for each in together}) == 3


def test_pictures_are_proposed_once_for_all_that_agree(
    data: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    kind = type(detector().segmenter)
    propose = kind.propose

    def counted(self: Any, frame: Frame, hints: Hints) -> Masks:
        asked.append(frame.source_id)
        return propose(self, frame, hints)

    monkeypatch.setattr(kind, "propose", counted)
    swept(data, "top_k=1,5 fade=identity,linear")
    assert len(asked) == len(set(asked)) == len(data.pictures)
    swept(data, "min_area=0,400")
    assert len(asked) == 3 * len(data.pictures), "another segmenter proposes anew"


def test_methods_and_protocols_can_be_varied(data: Dataset) -> None:
    found = swept(data, f"method=sam-detect,{WATERSHED} shots=1,2 iou=0.5,0.99")
    assert [(e["method"], e["shots"], e["iou"]) for e in found] == [
        (method, shots, iou)
        for method in ("sam-detect", "watershed")
        for shots in (1, 2)
        for iou in (0.5, 0.99)
    ]
    for each in found:
        assert len(each["episodes"][0]["support_annotation_ids"]) == 2 * each["shots"]
    strict, loose = found[1], found[0]
    assert strict["f1"] < loose["f1"]
    assert [each["embedding"] is None for each in found] == [False] * 4 + [True] * 4


def test_it_says_what_comes_next_and_how_far_it_is(data: Dataset) -> None:
    said: list[str] = []
    ticks: list[tuple[int, int]] = []

    def announce(what: str) -> Any:
        said.append(what)
        return lambda done, of: ticks.append((done, of))

    grid = variants(["top_k=1,5", f"method={WATERSHED}"])

    def make(changed: Mapping[str, str]) -> Pipeline:
        return detector(**changed).pipeline

    done = list(sweep(data, ONCE, grid, make=make, max_pixels=LIMIT, announce=announce))
    assert said == [f"top_k=1, method={WATERSHED}", f"top_k=5, method={WATERSHED}"]
    queries = len(done[0].queries)
    assert ticks == 2 * [(number, queries) for number in range(1, queries + 1)]


def test_a_users_library_and_its_recipe_play_no_part(data: Dataset) -> None:
    user = SAMDetect(vector_store="qdrant", library="mine", embedder="average")
    user.add_example(data.pictures[0].path, "disc")
    learnt = user.library.stats()
    (found,) = swept(data, "top_k=1", store="qdrant", library="mine")
    assert found["recipe"]["embedder"] == "lite"
    assert user.library.stats() == learnt


def test_values_with_spaces_and_commas_stand_in_quotes() -> None:
    spec = 'text_templates="a photo of a {}.|a {}","a {}, from above" top_k=1,5'
    assert variants([spec]) == [
        {"text_templates": text, "top_k": k}
        for text in ("a photo of a {}.|a {}", "a {}, from above")
        for k in ("1", "5")
    ]
    assert variants(['text_none="an empty table"']) == [{"text_none": "an empty table"}]
    with pytest.raises(ConfigError, match="not closed"):
        variants(['text_templates="a {}'])


def test_what_sam2_takes_can_be_varied() -> None:
    spec = "segmenter=sam2 pred_iou_thresh=0.7,0.8 dtype=fp32 compile=true"
    assert len(variants([spec])) == 2
    assert variants(['embedder=sam2 occupancies="0.15,0.4","0.2"']) == [
        {"embedder": "sam2", "occupancies": each} for each in ("0.15,0.4", "0.2")
    ]
