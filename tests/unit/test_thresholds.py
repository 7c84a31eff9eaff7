"""Thresholds that follow the candidates of a picture."""

from __future__ import annotations

import numpy as np
import pytest
from library_helpers import taught

from sam_detect.errors import ConfigError
from sam_detect.labelling import KNNLabeller, PrototypeLabeller
from sam_detect.labelling.thresholds import FEWEST, AdaptiveThreshold
from sam_detect.types import Classification
from sam_detect.vector_store import MemoryVectorStore


def confidences_of(*groups: tuple[float, int]) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    generator = np.random.default_rng(0)
    near = [centre + generator.uniform(-0.02, 0.02, count) for centre, count in groups]
    return np.concatenate(near).astype(np.float32)


def test_otsu_splits_two_groups_wherever_they_are() -> None:
    otsu = AdaptiveThreshold(None)
    for low, high in ((0.1, 0.9), (0.05, 0.3), (0.7, 0.97)):
        threshold = otsu.of(confidences_of((low, 60), (high, 25)))
        assert threshold is not None
        assert low + 0.02 < threshold < high - 0.02


def test_the_surest_share_keeps_its_labels() -> None:
    confidences = np.linspace(0, 1, 50, dtype=np.float32)
    for share in (0.02, 0.2, 1.0):
        threshold = AdaptiveThreshold(share).of(confidences)
        assert threshold is not None
        assert np.count_nonzero(confidences >= threshold) == round(50 * share)


def test_few_candidates_keep_the_usual_threshold() -> None:
    for threshold in (AdaptiveThreshold(None), AdaptiveThreshold(0.5)):
        few = [Classification("nut", "nut", 0.6)] * (FEWEST - 1)
        assert threshold.decide(few) == few


@pytest.mark.parametrize("written", ["top:101%", "top:20", "top:-5%", "Otsu", "top:%", 0.5, None])
def test_what_is_no_adaptive_threshold(written: object) -> None:
    assert AdaptiveThreshold.parsed(written) is None


@pytest.mark.parametrize("labeller", [KNNLabeller, PrototypeLabeller])
def test_a_picture_is_labelled_by_its_own_candidates(labeller: type[KNNLabeller]) -> None:
    """Candidates between what is known and noise."""
    snapshot = taught(MemoryVectorStore(), "nut", "leaf").snapshot()
    known = snapshot.examples().vectors
    noise = np.random.default_rng(0).normal(size=(40, known.shape[1]))
    steps = np.linspace(0, 1, 40)[:, None]
    vectors = (1 - steps) * known[np.arange(40) % len(known)] + steps * noise
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    for written, share in (("top:5%", 0.05), ("top:60%", 0.6)):
        found = labeller(threshold=written).label(vectors, snapshot)
        compared = [each for each in found if each.best_label is not None]
        named = [each.confidence for each in compared if each.label is not None]
        others = [each.confidence for each in compared if each.label is None]
        assert len(named) == pytest.approx(share * len(compared), abs=1)
        assert min(named) >= max(others)
        used = {each.explanation.threshold for each in compared if each.explanation is not None}
        assert used == {min(named)}


def test_two_thresholds_do_not_both_decide() -> None:
    with pytest.raises(ConfigError, match="give one of them"):
        KNNLabeller(threshold="otsu", similarity_threshold=0.5)
    with pytest.raises(ConfigError, match="more than 0 %"):
        KNNLabeller(threshold="top:0%")
    with pytest.raises(ConfigError, match="'otsu', 'top:N%'"):
        KNNLabeller(threshold="half")


def test_a_slider_takes_the_place_of_an_adaptive_threshold() -> None:
    assert KNNLabeller(threshold="otsu").with_threshold(0.7).adaptive is None
