"""``detect --explain`` and ``Detection.explanation``."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import pytest
from click.testing import CliRunner

from sam_detect.api import SAMDetect
from sam_detect.cli.app import cli
from sam_detect.embedding.lite import LENGTHS, WEIGHTS
from sam_detect.labelling import KNNLabeller
from tests.drawn_scene import Drawn, fresh, picture, square_mask, square_xy, with_square

KEYS = {
    "decision", "confidence", "threshold", "votes", "similarity", "half_similarity", "calibrated",
    "part_weights", "part_similarities", "log_odds", "hard_negative",
    "nearest_is_background", "quality", "typical_quality", "negative_factor",
    "suppressed", "suppressed_count", "prototype_similarity",
}  # fmt: skip


def test_each_detection_says_which_terms_decided() -> None:
    detector = fresh(labeller=KNNLabeller(threshold=0.9))
    detector.add_examples_from_file(next(Drawn().frames()), square_mask(), "square")
    found = detector.detect(picture(12)[:, :, ::-1])
    assert len(found.known)
    assert len(found) > len(found.known)
    for each in found:
        why = each.explanation
        assert why is not None
        assert why.recomputed() == pytest.approx(each.confidence, abs=1e-6)
        assert (why.decision == "label") == (each.label is not None)
        assert set(why.to_dict()) == KEYS
        json.dumps(why.to_dict())
    best = found[0].explanation
    assert best is not None
    assert {"similarity", "hard_negatives", "quality"} <= set(best.log_odds)
    assert best.suppressed_count >= len(best.suppressed) > 0
    assert sum(each.explanation.suppressed_count for each in found) > 0  # type: ignore[union-attr]


def test_it_says_how_much_each_part_counts_and_how_similar_it_is() -> None:
    detector = SAMDetect(segmenter="naive", embedder="lite")
    frame = next(Drawn().frames())
    detector.add_examples_from_file(frame, square_mask(), "square")
    found = [each for each in detector.detect(picture(12)[:, :, ::-1]) if each.neighbours]
    assert found
    for each in found:
        why = each.explanation
        assert why is not None
        assert list(why.part_weights) == list(why.part_similarities) == list(LENGTHS)
        assert sum(why.part_weights.values()) == pytest.approx(1)
        # The examples of one picture do not show how far away the next one is.
        assert why.part_weights["size"] == 0
    square, other = found[0].explanation, found[-1].explanation
    assert square is not None
    assert other is not None
    assert min(square.part_similarities.values()) > 0.8
    assert min(other.part_similarities.values()) < min(square.part_similarities.values())


def test_library_stats_and_explain_print_the_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for index in (0, 12):
        cv2.imwrite(f"{index}.png", picture(index)[:, :, ::-1])
    run = CliRunner().invoke
    x, y = square_xy(0)
    box = f"{x - 16},{y - 16},33,33"
    learnt = run(cli, ["learn", "0.png", "--label", "square", "--box", box, "--embedder", "lite"])
    assert learnt.exit_code == 0, learnt.output
    stats = json.loads(run(cli, ["library", "stats", "--json"]).stdout)
    assert stats["part_weights"] == pytest.approx(WEIGHTS, abs=1e-4)
    line = "what counts as similar: "
    assert line in run(cli, ["library", "stats"]).output
    assert line in run(cli, ["detect", "12.png", "--explain"]).stdout


def test_a_taught_outline_and_one_of_another_size_say_so() -> None:
    detector = with_square()
    decisions = [each.explanation.decision for each in detector.detect(picture(0)[:, :, ::-1])]  # type: ignore[union-attr]
    assert decisions[0] == "taught here"
    assert "label" not in {d for d in decisions if d == "other size"}


def test_explain_prints_a_table_or_adds_a_key(tmp_path: Path) -> None:
    path = str(tmp_path / "scene.png")
    cv2.imwrite(path, picture(0)[:, :, ::-1])
    x, y = square_xy(0)
    box = f"{x - 16},{y - 16},33,33"
    run = CliRunner().invoke
    assert run(cli, ["learn", path, "--label", "square", "--box", box]).exit_code == 0
    other = str(tmp_path / "later.png")
    cv2.imwrite(other, picture(12)[:, :, ::-1])
    table = run(cli, ["detect", other, "--explain"])
    assert table.exit_code == 0, table.output
    for words in ("hard neg", "sum", "1.00", "needs a confidence of 0.5", "log-odds", "'*': the"):
        assert words in table.output
    plain = run(cli, ["detect", other, "--json"])
    asked = run(cli, ["detect", other, "--json", "--explain"])
    first = json.loads(asked.stdout)["detections"][0]
    assert set(first.pop("explanation")) == KEYS
    assert set(first) == set(json.loads(plain.stdout)["detections"][0])
