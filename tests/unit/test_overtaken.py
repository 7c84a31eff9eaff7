"""Who learns into a library goes on when another process reindexes it meanwhile."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from sam_detect import SAMDetect
from sam_detect.errors import RecipeMismatchError
from sam_detect.fading import IdentityFade, LinearFade
from sam_detect.features.extraction import FeatureExtractor
from sam_detect.library.library import Library
from sam_detect.library.reindex import reindex
from sam_detect.pipeline.flow import Pipeline
from sam_detect.vector_store import MemoryVectorStore


def picture(number: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_]]:
    image = np.full((64, 64, 3), 220, np.uint8)
    mask = np.zeros((64, 64), np.bool_)
    mask[20:40, 20 + number : 40 + number] = True
    image[mask] = (40, 60 + number, 200)
    return image, mask


@pytest.fixture
def store() -> MemoryVectorStore:
    made = MemoryVectorStore()
    learn(SAMDetect(embedder="average", vector_store=made), 0)
    return made


def learn(detector: SAMDetect, number: int) -> Any:
    image, mask = picture(number)
    return detector.add_example(image, "nut", mask)


def reindexed(store: MemoryVectorStore, **asked: Any) -> FeatureExtractor:
    other = SAMDetect(vector_store=store, **asked)
    library = Library(store, "default")
    reindex(library, other.pipeline.features)
    return other.pipeline.features


@pytest.mark.parametrize(
    "asked",
    [{"embedder": "average", "fade_strategy": LinearFade(50)}, {"embedder": "appearance"}],
    ids=["another fade", "another embedder"],
)
def test_a_learner_goes_on_in_the_new_recipe(store: MemoryVectorStore, asked: Any) -> None:
    learner = SAMDetect(vector_store=store)
    maker = reindexed(store, **asked)
    done = learn(learner, 5)
    assert (done.added, done.total) == (1, 2)
    assert learner.recipe == maker.recipe == learner.library.recipe
    image, mask = picture(5)
    fresh = SAMDetect(vector_store=MemoryVectorStore(), **asked)
    fresh.add_example(image, "nut", mask)
    (expected,) = fresh.library.store.scan(with_vectors=True)
    (found,) = store.scan([expected.id], with_vectors=True)
    np.testing.assert_allclose(found.vector, expected.vector, atol=1e-6)
    assert learner.detect(image)[0].label == "nut"


def test_one_that_is_overtaken_while_it_describes_does_so_again(
    store: MemoryVectorStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    learner = SAMDetect(vector_store=store)
    original = Pipeline.make_examples
    calls = []

    def overtaken(*given: Any, **how: Any) -> Any:
        made = original(*given, **how)
        calls.append(len(calls))
        if len(calls) == 1:
            reindexed(store, fade_strategy=IdentityFade())
        return made

    monkeypatch.setattr(Pipeline, "make_examples", overtaken)
    assert learn(learner, 5).total == 2
    assert calls == [0, 1]
    assert learner.recipe.fade == "identity"


def test_one_that_asked_for_its_recipe_is_told_to_begin_again(store: MemoryVectorStore) -> None:
    learner = SAMDetect(embedder="average", vector_store=store)
    reindexed(store, embedder="appearance")
    with pytest.raises(RecipeMismatchError, match=r"reindexed by another process meanwhile: begin"):
        learn(learner, 5)
    assert Library(store, "default").stats()["examples"] == 1


def test_one_that_tries_another_fade_is_told_how_to_convert(store: MemoryVectorStore) -> None:
    learner = SAMDetect(vector_store=store)
    learner.set_fade_strategy(LinearFade(50))
    with pytest.raises(RecipeMismatchError, match="another recipe"):
        learn(learner, 5)
