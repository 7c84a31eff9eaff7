"""Zero-shot labelling: the name whose text is nearest to what is seen, in CLIP's common space."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from sam_detect.errors import ConfigError, LibraryError
from sam_detect.interfaces import Labeller, TextEncoder
from sam_detect.labelling.examples import KNNLabeller
from sam_detect.options import require_number
from sam_detect.types import Classification, Explanation, LabelMemory
from sam_detect.types.labels import normalised_label
from sam_detect.types.masks import FloatArray, IntArray

TEMPLATES = (
    "a photo of a {}.",
    "a close-up photo of a {}.",
    "a cropped photo of a {}.",
    "a photo of the small {}.",
    "a picture of a {} on a plain background.",
)
"""What is said of each name; the mean of these is steadier than any one of them."""
NOTHING = ("background", "an empty surface", "a blurry texture", "something else")
"""What an object is compared with that has none of the names."""

MOST_VOTES = 5
"""How many of the best names are kept as the reason."""

Scores = npt.NDArray[np.float64]


class TextLabeller(Labeller):
    """Names what is seen by the texts of names, with no example or together with examples.

    A name's vector is the unit mean of its templates' vectors (Radford et al. 2021, "Learning
    Transferable Visual Models From Natural Language Supervision", 3.1.4). The probability of a
    name is its share of a softmax over all names and over ``none``; what is nearer to that
    stays unknown. With examples, names are weighed by ``text_weight * text + (1 - text_weight) *
    examples``, where the examples' part is the confidence of
    :class:`~sam_detect.labelling.examples.KNNLabeller`. What a negative example is nearest to never
    gets its label.

    Args:
        labels: the names to tell apart; None takes those of the library's examples.
        encoder: makes vectors of texts, comparable with those of crops.
        templates: texts with ``{}`` for the name.
        none: texts of what has none of the names.
        text_weight: 0 to 1; with 1 only texts count.
        top_k: how many of the nearest examples are compared.
        threshold: as of :class:`~sam_detect.labelling.examples.KNNLabeller`; "auto" is one half.

    Raises:
        ConfigError: a value out of its range.
    """

    def __init__(
        self,
        labels: Sequence[str] | None = None,
        *,
        encoder: TextEncoder,
        templates: Sequence[str] = TEMPLATES,
        none: Sequence[str] = NOTHING,
        text_weight: float = 1.0,
        top_k: int = 5,
        threshold: float | str = "auto",
    ) -> None:
        self.labels = _names(labels)
        self.templates, self.none = _checked_templates(templates), tuple(none)
        if isinstance(none, str) or not all(self.none) or not self.none:
            raise ConfigError(f"none must be a list of texts, got {none!r}")
        self.text_weight = require_number("text_weight", text_weight, 0, 1)
        self._encoder = encoder
        self._examples = KNNLabeller(top_k, threshold)
        self.threshold = self._examples.threshold
        self._texts: dict[tuple[str, ...], FloatArray] = {}

    def with_threshold(self, threshold: float) -> TextLabeller:
        found = super().with_threshold(threshold)
        found._examples = self._examples.with_threshold(threshold)
        return found

    def label(
        self,
        vectors: FloatArray,
        memory: LabelMemory,
        *,
        qualities: FloatArray | None = None,
        areas: IntArray | None = None,
        source: str | None = None,
    ) -> list[Classification]:
        by_example = self._examples.label(
            vectors, memory, qualities=qualities, areas=areas, source=source
        )
        if not len(vectors) or not self.text_weight:
            return by_example
        names = self._candidates(memory)
        shares = self.probabilities(vectors, names)
        found = [
            self._classify(dict(zip(names, row, strict=True)), classification)
            for row, classification in zip(shares.tolist(), by_example, strict=True)
        ]
        adaptive = self._examples.adaptive
        return found if adaptive is None else adaptive.decide(found)

    def probabilities(self, vectors: FloatArray, names: Sequence[str]) -> Scores:
        """``(Q, N)``: the share of each name for each of ``(Q, D)`` unit vectors; with the share of
        ``none`` each row adds up to 1."""
        prompts = [[text.replace("{}", name) for text in self.templates] for name in names]
        texts = np.stack(
            [self._vector(*each) for each in [*prompts, *([text] for text in self.none)]]
        )
        if texts.shape[1] != vectors.shape[1]:
            raise ConfigError(
                f"vectors of length {vectors.shape[1]} cannot be compared with texts of length "
                f"{texts.shape[1]}: the labeller 'text' needs the embedder whose texts they are"
            )
        logits = self._encoder.text_scale * (vectors.astype(np.float64) @ texts.T)
        shares = np.exp(logits - logits.max(axis=1, keepdims=True))
        return np.asarray((shares / shares.sum(axis=1, keepdims=True))[:, : len(names)])

    def _candidates(self, memory: LabelMemory) -> tuple[str, ...]:
        """All names that something may have."""
        examples = memory.examples() if self.labels is None or self.text_weight < 1 else None
        learnt = [] if examples is None else examples.labels
        names = tuple(dict.fromkeys([*(self.labels or ()), *sorted(set(learnt))]))
        if not names:
            raise ConfigError(
                "the labeller 'text' needs names to look for: --text-labels nut,date "
                "(text_labels=[...]), or a library with examples"
            )
        return names

    def _classify(self, shares: Mapping[str, float], seen: Classification) -> Classification:
        """The text's shares and what the examples say, weighed."""
        weight = self.text_weight
        scores = {name: weight * share for name, share in shares.items()}
        if seen.best_label is not None:
            known = scores.get(seen.best_label, 0.0)
            scores[seen.best_label] = known + (1 - weight) * seen.confidence
        if seen.neighbours and seen.neighbours[0].negative:
            scores[seen.neighbours[0].label] = 0.0
        best = max(scores, key=lambda name: (scores[name], name))
        ordered = sorted(scores.items(), key=lambda each: (-each[1], each[0]))
        return Classification.decided(
            best,
            scores[best],
            threshold=self.threshold,
            neighbours=seen.neighbours,
            explanation=Explanation(votes=dict(ordered[:MOST_VOTES]), calibrated=1.0),
        )

    def _vector(self, *texts: str) -> FloatArray:
        """The unit mean of the vectors of texts, made once."""
        if texts not in self._texts:
            mean = self._encoder.embed_texts(texts).mean(axis=0)
            self._texts[texts] = np.asarray(mean / max(float(np.linalg.norm(mean)), 1e-12))
        return self._texts[texts]


def _names(labels: Sequence[str] | None) -> tuple[str, ...] | None:
    if labels is None:
        return None
    if isinstance(labels, str):
        raise ConfigError(f"labels must be a list of names, got the text {labels!r}")
    try:
        names = tuple(dict.fromkeys(normalised_label(name) for name in labels))
    except LibraryError as error:
        raise ConfigError(f"labels must be names of at least one character: {error}") from error
    if not names:
        raise ConfigError(f"labels must be names of at least one character, got {labels!r}")
    return names


def _checked_templates(templates: Sequence[str]) -> tuple[str, ...]:
    wrong = [each for each in templates if "{}" not in each]
    if isinstance(templates, str) or wrong or not len(templates):
        raise ConfigError(
            "templates must be texts with {} where the name goes, such as 'a photo of a {}.', "
            f"got {templates!r}"
        )
    return tuple(templates)
