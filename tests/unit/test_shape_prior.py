"""Shapes as evidence of their own, and negatives as a margin: options of the labellers."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from sam_detect import SAMDetect
from sam_detect.errors import ConfigError
from sam_detect.interfaces import Segmenter
from sam_detect.labelling import KNNLabeller
from sam_detect.labelling.shape_prior import ShapePrior
from sam_detect.types import NO_HINTS, Frame, Hints, Masks

Mask = npt.NDArray[np.bool_]
SIDE = 240


def ellipse(x: int, y: int, axes: tuple[int, int], turned: int = 0) -> Mask:
    mask = np.zeros((SIDE, SIDE), np.uint8)
    cv2.ellipse(mask, (x, y), axes, turned, 0, 360, 1, -1)
    return mask.astype(bool)


ROUND = [ellipse(30 + 45 * i, 40, (14 + i % 2, 13)) for i in range(5)]
PARTS = [mask & (np.arange(SIDE)[:, None] < 36) for mask in ROUND]
"""Proposals that touch an example and are none: hard negatives."""
FURTHER = ellipse(40, 110, (14, 14))
LONG = ellipse(130, 110, (18, 11), 30)
SQUARE = np.zeros((SIDE, SIDE), np.bool_)
SQUARE[160:186, 60:86] = True


def picture() -> Frame:
    image = np.full((SIDE, SIDE, 3), 40, np.uint8)
    for mask in [*ROUND, FURTHER, LONG, SQUARE]:
        image[mask] = 180
    noise = np.random.default_rng(0).integers(0, 6, image.shape)
    return Frame((image + noise).astype(np.uint8), "drawn")


class Given(Segmenter):
    def propose(self, frame: Frame, hints: Hints = NO_HINTS) -> Masks:
        return Masks.from_dense([*ROUND, FURTHER, LONG, SQUARE, *PARTS])


def confidences(**options: float | str) -> dict[str, float]:
    """After the round ones were taught."""
    made = SAMDetect(segmenter=Given(), embedder="lite", vector_store="memory",
                     labeller=KNNLabeller(**options))  # type: ignore[arg-type]  # fmt: skip
    made.pipeline.learn(picture(), Masks.from_dense(ROUND), ["cell"] * len(ROUND))
    return confidences_of(made)


def confidences_of(made: SAMDetect) -> dict[str, float]:
    """Of the round one that was not shown, the long one, and the square."""
    found = made.pipeline.detect(picture(), recall_taught=False)
    answers = {}
    for name, wanted in (("round", FURTHER), ("long", LONG), ("square", SQUARE)):
        [index] = [i for i in range(len(found)) if (found.masks.dense(i) == wanted).all()]
        explanation = found.classifications[index].explanation
        assert explanation is not None
        assert explanation.recomputed() == pytest.approx(explanation.confidence, abs=1e-6)
        answers[name] = found.classifications[index].confidence
    return answers


def test_an_unusual_shape_costs_confidence() -> None:
    without, mild, strong = (confidences(shape_prior=weight) for weight in (0.0, 0.5, 2.0))
    for name in ("long", "square"):
        assert without[name] > mild[name] > strong[name]
    assert without["square"] > 0.8
    assert strong["square"] < 0.4
    assert strong["round"] == pytest.approx(without["round"], abs=1e-3)


def test_shapes_are_known_only_of_vectors_that_tell_them() -> None:
    made = SAMDetect(segmenter=Given(), embedder="average", vector_store="memory")
    made.pipeline.learn(picture(), Masks.from_dense(ROUND), ["cell"] * len(ROUND))
    assert ShapePrior.of(made.snapshot().examples()) is None
    made = SAMDetect(segmenter=Given(), embedder="lite", vector_store="memory")
    assert ShapePrior.of(made.snapshot().examples()) is None, "no examples"
    made.pipeline.learn(picture(), Masks.from_dense(ROUND[:1]), ["cell"])
    assert ShapePrior.of(made.snapshot().examples()) is None, "one shape is no distribution"
    made.pipeline.learn(picture(), Masks.from_dense(ROUND[1:]), ["cell"] * 4)
    prior = ShapePrior.of(made.snapshot().examples())
    assert prior is not None
    own = made.snapshot().examples().vectors[0]
    assert prior.odds("cell", own) == 0
    assert prior.odds("other", own) == 0


def with_a_negative(negatives: str) -> dict[str, float]:
    """Confidences after the long one was taught as a negative in a mirrored picture."""
    made = SAMDetect(segmenter=Given(), embedder="lite", vector_store="memory",
                     labeller=KNNLabeller(negatives=negatives))  # fmt: skip
    frame = picture()
    made.pipeline.learn(frame, Masks.from_dense(ROUND), ["cell"] * len(ROUND))
    other = Frame(np.ascontiguousarray(frame.image_rgb[:, ::-1]), "mirrored")
    mirrored = Masks.from_dense([np.ascontiguousarray(LONG[:, ::-1])])
    made.pipeline.learn(other, mirrored, ["cell"], negative=True)
    return confidences_of(made)


def test_negatives_act_near_them_or_everywhere() -> None:
    without, local, margin = confidences(), with_a_negative("local"), with_a_negative("margin")
    assert local["square"] == pytest.approx(without["square"], abs=1e-3)
    assert margin["square"] < local["square"] - 0.2, "farther away only a margin counts"
    assert min(local["round"], margin["round"]) > 0.9


def test_options_out_of_range() -> None:
    with pytest.raises(ConfigError, match="neither 'local' nor 'margin'"):
        KNNLabeller(negatives="global")
    with pytest.raises(ConfigError, match="shape_prior"):
        KNNLabeller(shape_prior=-1)
