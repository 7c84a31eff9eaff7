"""What an evaluation says of its episodes; the detector as a method; predictions for others."""

from __future__ import annotations

import io
import json
import threading
from collections import defaultdict
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from closeness import SCORE_TOLERANCE
from evaluation_helpers import Oracle, Says, dataset_folder, detector, no_outlines, opened
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from sam_detect.errors import ConfigError, ImageError
from sam_detect.evaluation import harness
from sam_detect.evaluation.dataset import Dataset, masks_of
from sam_detect.evaluation.evaluation import Evaluation, write_predictions
from sam_detect.evaluation.harness import MEASURES, evaluate
from sam_detect.evaluation.methods import Method, Predictions, SupportImage
from sam_detect.evaluation.pipeline import EvaluationCache, PipelineMethod
from sam_detect.evaluation.readers import open_dataset
from sam_detect.evaluation.run import Episode, Protocol, run
from sam_detect.interfaces import Segmenter
from sam_detect.io import load_image
from sam_detect.types import NO_HINTS, Frame, Hints, Masks
from sam_detect.types.masks import FloatArray
from tests.closeness import assert_same_vectors, same_vectors

LIMIT = 10**6
NUMBER = (int, float)
MAYBE = (int, float, type(None))
DESIGNED = {
    "dataset": str, "task": str, "protocol": str, "shots": int, "seeds": list, "recipe": dict,
    "episodes": list, "precision": MAYBE, "recall": MAYBE, "f1": MAYBE, "f1_macro": MAYBE,
    "mean_iou": MAYBE, "ap": MAYBE, "ap50": MAYBE, "msa": MAYBE, "ar100": MAYBE,
    "proposal_recall": MAYBE, "proposals_per_image": MAYBE, "per_class": dict,
    "expected_calibration_error": MAYBE, "reliability": list,
    "seconds_per_image": NUMBER, "peak_memory_mb": NUMBER,
}  # fmt: skip
"""Keys of ``evaluate --json`` that others rely on."""
PREDICTED = {"image_id", "category_id", "bbox", "segmentation", "score"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six pictures of four discs and two squares."""
    return dataset_folder(tmp_path_factory.mktemp("drawn") / "six", 6)


@pytest.fixture(scope="module")
def six(folder: Path) -> Dataset:
    return open_dataset(folder)


def vectors(method: PipelineMethod, frame: Frame, indices: npt.NDArray[np.int64]) -> FloatArray:
    """The vectors of some proposals of a frame."""
    return method.embed(frame, method.propose(frame)[indices])


def evaluated(dataset: Dataset, method: Method, **how: Any) -> Evaluation:
    protocol = Protocol(**{"shots": 1, "seeds": (0,), **how})
    steps = run(dataset, method, protocol, outline=no_outlines, max_pixels=LIMIT)
    episodes = tuple(step for step in steps if isinstance(step, Episode))
    return Evaluation(dataset, protocol, method.name, method.describe(), episodes)


def told(dataset: Dataset, says: Says, **how: Any) -> dict[str, Any]:
    """What ``--json`` would say of a method that finds all, and names it as it is told."""
    whole = evaluated(dataset, Oracle(dataset, says), **how).to_dict()
    json.dumps(whole, allow_nan=False)
    return whole


def worse_in_the_second_episode(oracle: Oracle, label: str, number: int) -> str | None:
    if len(oracle.learnt) == 2 and number < 2:
        return None if number == 0 else "disc"  # the first is a disc, the second a square
    return label


# Figures


def test_figures_are_taken_over_all_objects_of_a_seed_and_averaged_over_seeds(
    six: Dataset,
) -> None:
    whole = told(six, worse_in_the_second_episode, seeds=(0, 1))
    # First seed: all is right. Second, of each picture: 4 right, 1 false, 2 missed.
    assert [e["f1"] for e in whole["episodes"]] == pytest.approx([1, 8 / 11])
    assert whole["precision"] == pytest.approx((1 + 4 / 5) / 2)
    assert whole["recall"] == pytest.approx((1 + 4 / 6) / 2)
    assert whole["f1"] == pytest.approx((1 + 8 / 11) / 2)
    assert whole["f1_spread"] == pytest.approx((1 - 8 / 11) / 2**0.5)
    assert whole["f1_macro"] == pytest.approx((1 + (3 / 4 + 2 / 3) / 2) / 2)
    assert whole["msa"] == pytest.approx((1 + 4 / 7) / 2)
    assert whole["mean_iou"] == 1
    assert (whole["proposal_recall"], whole["proposals_per_image"]) == (1, 6)
    assert [each["low"] for each in whole["reliability"]] == sorted(
        each["low"] for each in whole["reliability"]
    )
    errors = [e["expected_calibration_error"] for e in whole["episodes"]]
    assert whole["expected_calibration_error"] == pytest.approx(sum(errors) / 2)


def test_figures_of_a_label_are_averaged_over_seeds(six: Dataset) -> None:
    whole = told(six, worse_in_the_second_episode, seeds=(0, 1))
    counts = [len(e["query_image_ids"]) for e in whole["episodes"]]
    disc, square = whole["per_class"]["disc"], whole["per_class"]["square"]
    assert disc["tp"] == pytest.approx((4 * counts[0] + 3 * counts[1]) / 2)
    assert (disc["fp"], disc["fn"]) == (counts[1] / 2, counts[1] / 2)
    assert disc["f1"] == pytest.approx((1 + 3 / 4) / 2)
    assert square["f1"] == pytest.approx((1 + 2 / 3) / 2)
    assert (square["precision"], square["recall"]) == pytest.approx((1, 0.75))
    assert whole["confusion"]["rows"] == ["disc", "square", "nothing"]
    total = sum(counts)
    assert whole["confusion"]["counts"] == [
        [4 * total - counts[1], 0, counts[1], 0],
        [counts[1], 2 * total - counts[1], 0, 0],
        [0, 0, 0, 0],
    ]


@pytest.mark.parametrize("exhaustive", [False, True])
def test_other_objects_of_the_examples_pictures_are_shown_only_where_all_are_annotated(
    six: Dataset, exhaustive: bool
) -> None:
    @dataclass
    class Listener(Noisy):
        def learn(self, support: Sequence[SupportImage]) -> None:
            super().learn(support)
            self.support = support

    method = Listener(six)
    whole = evaluated(six, method, exhaustive=exhaustive).to_dict()
    assert whole["exhaustive"] is exhaustive
    objects = {str(p.path): len(p.objects) for p in six.pictures}
    for shown in method.support:
        total = len(shown.masks) + (0 if shown.others is None else len(shown.others))
        assert (shown.others is not None) is exhaustive
        assert total == objects[shown.frame.source_id] if exhaustive else len(shown.masks) == total


def test_the_groups_of_a_seed_are_taken_together(tmp_path: Path) -> None:
    data = opened(tmp_path / "x", 7, fields=lambda i: {"light": "day" if i < 5 else "night"})

    def blind_by_night(oracle: Oracle, label: str, number: int) -> str | None:
        return label if len(oracle.learnt) == 1 else None

    whole = told(data, blind_by_night, group_by="light")
    day, night = whole["episodes"]
    assert (day["group"], day["f1"], night["group"], night["f1"]) == ("day", 1, "night", 0)
    right, missed = 6 * len(day["query_image_ids"]), 6 * len(night["query_image_ids"])
    assert right > missed > 0
    assert whole["recall"] == pytest.approx(right / (right + missed))
    assert whole["f1"] == pytest.approx(2 * right / (2 * right + missed))
    assert whole["f1_spread"] is None, "there is one seed"


def test_what_does_not_apply_is_null(six: Dataset, tmp_path: Path) -> None:
    blind = told(six, lambda oracle, label, number: "-")
    assert (blind["precision"], blind["recall"], blind["f1"]) == (None, 0, 0)
    assert (blind["expected_calibration_error"], blind["reliability"]) == (None, [])
    assert (blind["mean_iou"], blind["ap"], blind["embedding"]) == (None, 0, None)
    lone = opened(tmp_path / "lone", [["disc"], ["square"], ["disc"], ["square"]])
    nothing_to_find = told(lone, lambda oracle, label, number: label, draw="same")
    names = ("precision", "recall", "f1", "f1_macro", "mean_iou", "ap", "msa", "proposal_recall")
    assert [nothing_to_find[name] for name in names] == [None] * len(names)
    assert nothing_to_find["proposals_per_image"] == 1


def test_pixels_are_counted_where_asked(six: Dataset) -> None:
    whole = told(six, worse_in_the_second_episode, seeds=(0, 1), task="semantic")
    assert (whole["task"], whole["ap"], whole["proposal_recall"]) == ("semantic", None, None)
    assert (whole["expected_calibration_error"], whole["reliability"]) == (None, [])
    by_seed = []
    for episode in whole["episodes"]:
        worse = episode["seed"] == 1
        counts = np.zeros(3)
        for picture in six.pictures:
            if picture.id in episode["query_image_ids"]:
                areas = masks_of(picture, picture.objects).areas
                lost, misnamed = areas[:2] * worse
                counts += [areas.sum() - lost - misnamed, misnamed, lost + misnamed]
        by_seed.append(2 * counts[0] / (2 * counts[0] + counts[1] + counts[2]))
    assert by_seed[1] < 0.8
    assert whole["f1"] == pytest.approx(np.mean(by_seed))
    assert [e["f1"] for e in whole["episodes"]] == pytest.approx(by_seed)


def test_seconds_are_those_of_a_mean_picture(six: Dataset) -> None:
    whole = told(six, lambda oracle, label, number: label)
    assert whole["seconds"] == {"propose": 0.25, "label": 0.5}
    assert whole["seconds_per_image"] == 0.75
    assert whole["seconds_per_megapixel"] == pytest.approx(0.75 / 0.012)


def test_every_promised_key_is_there(six: Dataset) -> None:
    for task in ("instance", "semantic"):
        protocol = Protocol(shots=1, seeds=(0, 2), task=task)  # type: ignore[arg-type]
        pipeline = PipelineMethod(detector().pipeline)
        whole = evaluate(six, pipeline, protocol, curve=(1, 2), max_pixels=LIMIT).to_dict()
        assert whole == json.loads(json.dumps(whole, allow_nan=False))
        for key, kind in DESIGNED.items():
            assert isinstance(whole[key], kind), (key, whole[key])  # type: ignore[arg-type]
        assert (whole["dataset"], whole["task"], whole["protocol"]) == ("six", task, "cross")
        assert (whole["shots"], whole["seeds"], whole["iou"]) == (1, [0, 2], 0.5)
        assert whole["recipe"]["embedder"] == "lite"
        assert whole["f1"] > 0.9, "drawn discs and squares are easy"
        assert set(whole["per_class"]) == {"disc", "square"}
        assert [e["seed"] for e in whole["episodes"]] == [0, 2]
        for episode in whole["episodes"]:
            assert len(episode["support_annotation_ids"]) == 2
            assert {"group", "query_image_ids", "f1", "per_class"} <= episode.keys()
        assert [point["shots"] for point in whole["learning_curve"]] == [1, 2]
        assert whole["learning_curve"][0]["f1"] == whole["f1"]
        assert set(whole["embedding"]) == {"separability", "knn_purity", "silhouette"}
        assert whole["embedding"]["separability"] > 0.9
        assert whole["seconds_per_image"] > 0


# The detector as a method


class Counting(Segmenter):
    """Counts how often it is asked."""

    def __init__(self, inner: Segmenter) -> None:
        self.inner, self.asked = inner, 0

    def propose(self, frame: Frame, hints: Hints = NO_HINTS) -> Masks:
        self.asked += 1
        return self.inner.propose(frame, hints)


def support_of(dataset: Dataset, count: int) -> list[SupportImage]:
    """A disc and a square of each of the first pictures."""
    found = []
    for picture in dataset.pictures[:count]:
        frame = load_image(picture.path, max_pixels=LIMIT)
        labels = tuple(o.label for o in picture.objects[:2])
        found.append(SupportImage(frame, masks_of(picture, picture.objects[:2]), labels))
    return found


def frames_of(dataset: Dataset) -> list[Frame]:
    return [load_image(picture.path, max_pixels=LIMIT) for picture in dataset.pictures]


def contents(masks: Masks, labels: Sequence[Any], scores: Any) -> list[Any]:
    rles = [masks.rle(i)["counts"] for i in range(len(masks))]
    return [rles, list(labels), np.asarray(scores, np.float32).tolist()]


@pytest.mark.parametrize(
    "settings", [{}, {"labeller": "prototype", "fade": "linear", "top_k": 1, "threshold": 0.7}]
)
def test_it_finds_what_detect_finds(six: Dataset, settings: dict[str, Any]) -> None:
    pipeline = PipelineMethod(detector(**settings).pipeline)
    pipeline.learn(support_of(six, 4))  # forgotten again
    pipeline.learn(support_of(six, 2))
    user = detector(**settings)
    for shown in support_of(six, 2):
        user.learn_frame(shown.frame, shown.masks, shown.labels)
    named = 0
    for frame in frames_of(six)[1:]:  # something was taught in one of them
        found = pipeline.find(frame, recall_taught=True)
        detected = user.detect(frame)
        assert contents(found.masks, found.labels, found.scores) == contents(
            detected.masks, detected.label, detected.confidence
        )
        named += sum(label is not None for label in found.labels)
    assert named > 10


def test_what_is_remembered_is_what_would_be_made_again(six: Dataset) -> None:
    memory = EvaluationCache()
    counting = Counting(detector().segmenter)
    first = PipelineMethod(detector(segmenter=counting).pipeline, memory)
    frames = frames_of(six)
    for method in (first, PipelineMethod(detector(segmenter=counting).pipeline, memory)):
        method.learn(support_of(six, 2))
        remembered = [method.find(frame) for frame in frames]
    assert counting.asked == len(frames), "each picture is proposed once"
    fresh = PipelineMethod(detector(segmenter=Counting(detector().segmenter)).pipeline)
    fresh.learn(support_of(six, 2))
    for frame, kept in zip(frames, remembered, strict=True):
        made = fresh.find(frame)
        assert contents(made.masks, made.labels, made.scores) == contents(
            kept.masks, kept.labels, kept.scores
        )
        assert kept.seconds.keys() == made.seconds.keys() == {"propose", "fade", "embed", "label"}


@pytest.mark.parametrize(
    "other",
    [{"fade": "identity"}, {"sigma": 3.0}, {"occupancy": 0.5}, {"embedder": "average"},
     {"min_area": 450}],
)  # fmt: skip
def test_recipes_and_segmenters_do_not_share_what_they_made(
    six: Dataset, other: dict[str, Any]
) -> None:
    frame = frames_of(six)[0]
    memory = EvaluationCache()
    few = np.arange(3)
    before = vectors(PipelineMethod(detector().pipeline, memory), frame, few)
    shared, fresh = (
        PipelineMethod(detector(**other).pipeline, memory),
        PipelineMethod(detector(**other).pipeline),
    )
    assert_same_vectors(vectors(shared, frame, few), vectors(fresh, frame, few))
    assert shared.propose(frame).areas.tolist() == fresh.propose(frame).areas.tolist()
    again = vectors(PipelineMethod(detector().pipeline, memory), frame, few)
    assert_same_vectors(again, before)
    assert not same_vectors(before, vectors(fresh, frame, few))


@dataclass(frozen=True)
class BySize(Segmenter):
    """Squares of a side that follows the sizes sought."""

    uses = ("areas",)

    def propose(self, frame: Frame, hints: Hints = NO_HINTS) -> Masks:
        side = round(hints.areas[0] ** 0.5) if hints.areas else 6
        corners = np.arange(0, min(frame.size_hw) - side, 2 * side)
        squares = [np.array([x, x, x + side, x + side]) for x in corners]
        crops = [np.ones((side, side), bool)] * len(squares)
        return Masks.from_crops(size_hw=frame.size_hw, boxes_xyxy=squares, crops=crops)


def test_a_segmenter_that_goes_by_sizes_is_asked_for_those_of_the_episode(six: Dataset) -> None:
    one, other = frames_of(six)[:2]
    pipeline = PipelineMethod(detector(segmenter=BySize()).pipeline)
    assert set(pipeline.propose(one).areas.tolist()) == {36}
    for side in (10, 14):
        mask = np.zeros(one.size_hw, bool)
        mask[:side, :side] = True
        pipeline.learn([SupportImage(one, Masks.from_dense(mask), ("square",))])
        found = pipeline.find(other)
        direct = detector(segmenter=BySize())
        direct.learn_frame(one, Masks.from_dense(mask), ["square"])
        assert set(found.proposals.areas.tolist()) == {side**2}
        expected = direct.detect(other)
        assert found.masks.areas.tolist() == expected.masks.areas.tolist()
        np.testing.assert_allclose(found.scores, expected.confidence, atol=SCORE_TOLERANCE)


def test_windows_are_proposed_by_several_threads(
    six: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    threads: list[str] = []

    class Watched(BySize):
        thread_safe = True

        def propose(self, frame: Frame, hints: Hints = NO_HINTS) -> Masks:
            threads.append(threading.current_thread().name)
            return super().propose(frame, hints)

    method = PipelineMethod(detector(segmenter=Watched(), tile=64).pipeline)
    method.learn(support_of(six, 2))
    frame = frames_of(six)[0]
    threads.clear()
    found = [method.find(frame) for _ in range(2)]
    assert len(threads) > 4, "windows, each of them once"
    assert all("ThreadPool" in name for name in threads[:4])
    assert found[0].seconds["propose"] == found[1].seconds["propose"], "as when they were made"


def test_pictures_are_evaluated_at_another_scale(six: Dataset) -> None:
    frame, user = frames_of(six)[0], detector(scale=0.5)
    method = PipelineMethod(user.pipeline)
    method.learn(support_of(six, 2))
    for shown in support_of(six, 2):
        user.learn_frame(shown.frame, shown.masks, shown.labels)
    found, expected = method.find(frame, recall_taught=True), user.detect(frame)
    assert found.masks.size_hw == frame.size_hw
    assert found.masks.areas.tolist() == expected.masks.areas.tolist()


def test_vectors_are_made_as_they_are_asked_for(six: Dataset) -> None:
    frame = frames_of(six)[0]
    pipeline = PipelineMethod(detector().pipeline)
    pieces = [vectors(pipeline, frame, np.array(some)) for some in ([4], [2, 4, 0], [0, 1, 2])]
    whole = vectors(PipelineMethod(detector().pipeline), frame, np.arange(5))
    for piece, some in zip(pieces, ([4], [2, 4, 0], [0, 1, 2]), strict=True):
        assert np.allclose(piece, whole[some], atol=1e-6)


# SAMDetect.evaluate


def test_a_detector_evaluates_itself_and_stays_as_it_is(six: Dataset, folder: Path) -> None:
    user = detector()
    shown = support_of(six, 1)[0]
    user.learn_frame(shown.frame, shown.masks, shown.labels)
    learnt = user.library.stats()
    frame = frames_of(six)[3]
    before = user.detect(frame)
    metrics = ["accuracy", "inference_time", "embedding_quality"]
    found = user.evaluate(dataset_path=str(folder), metrics=metrics, shots=1, seeds=[0])
    assert list(found) == metrics
    assert found["accuracy"]["f1"] > 0.9
    assert set(found["accuracy"]) == set(MEASURES["accuracy"])
    assert found["inference_time"]["seconds_per_image"] > 0
    assert found["embedding_quality"]["knn_purity"] > 0.9
    assert user.library.stats() == learnt
    after = user.detect(frame)
    assert contents(before.masks, before.label, before.confidence) == contents(
        after.masks, after.label, after.confidence
    )


def test_a_detector_gives_everything_unless_told_what(folder: Path) -> None:
    whole = detector().evaluate(folder, shots=1, seeds=(1,), draw="same", images=folder / "images")
    assert set(DESIGNED) <= set(whole)
    assert (whole["dataset"], whole["protocol"]) == ("six", "same")


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"metrics": ["accuracy", "speed"]}, r"'speed' \(there are: accuracy, inference_time"),
        ({"metrics": "accuracy,speed"}, r"'accuracy,speed'"),
        ({"shot": 3}, r"'shot' \(it has: draw, exhaustive, group_by"),
        ({"seeds": 3}, "seeds"),
        ({"seeds": "ab"}, "seeds"),
        ({"draw": "other"}, "cross, same, each; got 'other'"),
    ],
)
def test_an_unknown_metric_or_option_is_named(
    folder: Path, asked: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        detector().evaluate(folder, **asked)


def test_one_metric_may_be_asked_for_by_its_name(folder: Path) -> None:
    found = detector().evaluate(folder, metrics="inference_time", shots=1, seeds=[0])
    assert list(found) == ["inference_time"]


def test_a_dataset_that_is_none_is_named(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="nowhere"):
        detector().evaluate(tmp_path / "nowhere")


def test_a_baseline_has_no_vectors_to_judge(six: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PipelineMethod, "embed", lambda *_, **__: pytest.fail("nothing to embed"))
    pipeline = PipelineMethod(detector().pipeline)
    protocol = Protocol(shots=1, seeds=(0,))
    found = evaluate(
        six, pipeline, protocol, method="scripts.dev.baselines:OtsuWatershed", max_pixels=LIMIT
    ).to_dict()
    assert (found["method"], found["embedding"]) == ("watershed", None)
    assert found["f1"] == 1, "all discs stand apart"


# Predictions


@dataclass
class Noisy:
    """Finds objects a little beside where they are, some under wrong names, some twice."""

    dataset: Dataset
    name: str = "noisy"

    def learn(self, support: Sequence[SupportImage]) -> None:
        self.generator = np.random.default_rng(len(support))

    def find(self, frame: Frame) -> Predictions:
        picture = next(p for p in self.dataset.pictures if str(p.path) == frame.source_id)
        true = masks_of(picture, picture.objects)
        dense, labels = [], []
        for index, each in enumerate(picture.objects):
            for _ in range(int(self.generator.integers(0, 3))):
                shift = tuple(int(v) for v in self.generator.integers(-4, 5, 2))
                dense.append(np.roll(true.dense(index), shift, (0, 1)))
                labels.append(self.generator.choice([each.label] * 3 + ["disc", "?"]))
        scores = self.generator.random(len(dense)).astype(np.float32)
        masks = Masks.concatenate([Masks.empty(frame.size_hw), *map(Masks.from_dense, dense)])
        names = tuple(None if label == "?" else str(label) for label in labels)
        return Predictions(masks, names, scores, masks, {"label": 0.1})

    def describe(self) -> dict[str, Any]:
        return {}


def rescored(annotations: dict[str, Any], predictions: dict[str, Any], iou: float) -> float:
    """F1 from the two files alone, slowly: micro over the objects of a seed, averaged."""
    counts: dict[int, list[int]] = defaultdict(lambda: [0, 0, 0])
    for episode in predictions["episodes"]:
        shown = set(episode["support_annotation_ids"])
        of_seed = counts[episode["seed"]]
        for image in episode["query_image_ids"]:
            left = [a for a in annotations["annotations"] if a["image_id"] == image]
            left = [a for a in left if a["id"] not in shown]
            mine = [d for d in episode["detections"] if d["image_id"] == image]
            for each in sorted(mine, key=lambda d: -d["score"]):
                same = [a for a in left if a["category_id"] == each["category_id"]]
                best = max(same, key=lambda a: _iou(a, each), default=None)
                if best is not None and _iou(best, each) >= iou:
                    left.remove(best)
                    of_seed[0] += 1
                else:
                    of_seed[1] += 1
            of_seed[2] += len(left)
    return float(np.mean([2 * tp / (2 * tp + fp + fn) for tp, fp, fn in counts.values()]))


def _iou(a: dict[str, Any], b: dict[str, Any]) -> float:
    one, other = (coco_mask.decode(each["segmentation"]).astype(bool) for each in (a, b))
    return float((one & other).sum() / (one | other).sum())


def coco_stats(annotations: dict[str, Any], episodes: Sequence[dict[str, Any]]) -> Any:
    """COCOeval's own summary over the query pictures of a seed's episodes."""
    wanted = {image for episode in episodes for image in episode["query_image_ids"]}
    truth = COCO()
    truth.dataset = {
        **annotations,
        "images": [i for i in annotations["images"] if i["id"] in wanted],
        "annotations": [a for a in annotations["annotations"] if a["image_id"] in wanted],
    }
    with redirect_stdout(io.StringIO()):
        truth.createIndex()
        found = truth.loadRes([dict(d) for e in episodes for d in e["detections"]])
        scored = COCOeval(truth, found, "segm")
        scored.evaluate()
        scored.accumulate()
        scored.summarize()
    return scored.stats


@pytest.fixture(scope="module")
def noisy(folder: Path, six: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """An imperfect method's evaluation, the annotation file, and the predictions file."""
    evaluation = evaluated(six, Noisy(six), seeds=(0, 1, 2), group_by="light")
    path = tmp_path_factory.mktemp("written") / "predictions.json"
    write_predictions(path, six, evaluation.episodes)
    annotations = json.loads((folder / "annotations.json").read_text())
    return evaluation, annotations, json.loads(path.read_text())


def test_predictions_have_the_promised_shape(noisy: Any) -> None:
    evaluation, annotations, predictions = noisy
    assert set(predictions) == {"episodes"}
    assert len(predictions["episodes"]) == 6
    boxes, whole = 0, evaluation.to_dict()
    for episode, told_of in zip(predictions["episodes"], whole["episodes"], strict=True):
        same = ("seed", "group", "support_annotation_ids", "query_image_ids")
        assert set(episode) == {*same, "detections"}
        assert all(episode[key] == told_of[key] for key in same)
        assert {a["id"] for a in annotations["annotations"]} > set(same_ids(episode))
        scores: dict[int, list[float]] = defaultdict(list)
        for each in episode["detections"]:
            assert set(each) == PREDICTED
            assert each["image_id"] in episode["query_image_ids"]
            assert each["category_id"] in {7, 3}
            assert 0 <= each["score"] <= 1
            assert each["bbox"] == coco_mask.toBbox(each["segmentation"]).tolist()
            scores[each["image_id"]].append(each["score"])
            boxes += 1
        assert all(of_one == sorted(of_one, reverse=True) for of_one in scores.values())
    named = [label for q in evaluation.queries for label in q.found.labels if label is not None]
    unknown = sum(len(q.found.labels) for q in evaluation.queries) - len(named)
    assert boxes == len(named)
    assert unknown > 0, "the method should say unknown of something"


def same_ids(episode: dict[str, Any]) -> list[int]:
    ids = episode["support_annotation_ids"]
    assert len(ids) == len(set(ids)) == 2
    return list(ids)


def test_predictions_give_the_same_f1_to_whoever_counts(noisy: Any) -> None:
    evaluation, annotations, predictions = noisy
    f1 = evaluation.to_dict()["f1"]
    assert 0.2 < f1 < 0.8
    assert rescored(annotations, predictions, 0.5) == pytest.approx(f1, abs=1e-9)
    assert rescored(annotations, predictions, 0.7) < f1 - 0.02


def test_predictions_give_the_same_average_precision_to_pycocotools(noisy: Any) -> None:
    evaluation, annotations, predictions = noisy
    whole = evaluation.to_dict()
    by_seed = defaultdict(list)
    for episode in predictions["episodes"]:
        by_seed[episode["seed"]].append(episode)
    stats = np.mean([coco_stats(annotations, each) for each in by_seed.values()], axis=0)
    assert 0.05 < whole["ap"] < 0.9
    assert (whole["ap"], whole["ap50"], whole["ar100"]) == pytest.approx(stats[[0, 1, 8]], abs=1e-6)


def test_predictions_of_the_rest_of_a_picture_count_alike(
    folder: Path, six: Dataset, tmp_path: Path
) -> None:
    says: Says = lambda oracle, label, number: None if number in (0, 5) else label  # noqa: E731
    evaluation = evaluated(six, Oracle(six, says), seeds=(0, 1, 2), shots=2, draw="same")
    write_predictions(tmp_path / "p.json", six, evaluation.episodes)
    predictions = json.loads((tmp_path / "p.json").read_text())
    annotations = json.loads((folder / "annotations.json").read_text())
    # As the documentation says: examples are left out, and what was found of them.
    for episode in predictions["episodes"]:
        shown = {a["id"]: a for a in annotations["annotations"]}
        examples = [shown[i] for i in episode["support_annotation_ids"]]
        detections = episode["detections"]
        episode["detections"] = [d for d in detections if not _on_any(d, examples)]
        assert len(episode["detections"]) < len(detections)
    f1 = evaluation.to_dict()["f1"]
    assert 0.5 < f1 < 1
    assert rescored(annotations, predictions, 0.5) == pytest.approx(f1)


def _on_any(detection: dict[str, Any], examples: Sequence[dict[str, Any]]) -> bool:
    near = (a for a in examples if a["image_id"] == detection["image_id"])
    return any(_iou(each, detection) >= 0.5 for each in near)


def test_as_many_proposals_as_objects_stand_for_what_is_no_object(
    six: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    def specks(frame: Frame) -> Masks:
        boxes = [[x, 0, x + 2, 2] for x in range(30)]
        crops = [np.ones((2, 2), np.bool_)] * len(boxes)
        return Masks.from_crops(size_hw=frame.size_hw, boxes_xyxy=boxes, crops=crops)

    labels: list[str | None] = []
    monkeypatch.setattr(harness, "separability", lambda _, given, __: labels.extend(given))
    method = PipelineMethod(detector().pipeline)
    monkeypatch.setattr(method, "propose", specks)
    harness.embedding_quality(six, method, max_pixels=LIMIT)
    assert labels.count(None) == len(labels) / 2 > 0
