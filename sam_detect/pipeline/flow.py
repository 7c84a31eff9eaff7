"""The pipeline: the only module that knows the order of the rooms.

::

    frame -> propose -> embed -> label -> suppress overlaps -> detections

Pictures, key frames of videos, evaluation and the server all call :class:`Pipeline`. Each call
works on one immutable :class:`~sam_detect.library.snapshot.LibrarySnapshot`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from sam_detect import parts
from sam_detect.config import Settings
from sam_detect.errors import RecipeMismatchError
from sam_detect.features.extraction import FeatureExtractor, KnownVectors, StageTimer
from sam_detect.interfaces import Labeller, Segmenter
from sam_detect.labelling.decision import example_areas, plausible_sizes, undecided
from sam_detect.labelling.doubt import doubt_of, new_objects
from sam_detect.labelling.naming import Naming
from sam_detect.labelling.separate import separate_objects
from sam_detect.library.example import Example
from sam_detect.library.history import Added
from sam_detect.library.library import Library
from sam_detect.library.places import collection_of
from sam_detect.library.reindex import ConvertedExamples
from sam_detect.library.snapshot import LibrarySnapshot
from sam_detect.library.snapshot_reader import SnapshotReader
from sam_detect.models.sharing import LastUsed
from sam_detect.models.weights import default_segmenter
from sam_detect.pipeline import tiling
from sam_detect.pipeline.choosing import choose_features
from sam_detect.pipeline.learning import examples_of
from sam_detect.pipeline.proposals import Proposals
from sam_detect.pipeline.scaling import Scale, detect_at_scale
from sam_detect.segmentation import clicks, prompted
from sam_detect.segmentation.prompted import Outlined
from sam_detect.types import Areas, Candidates, Detections, Frame, Masks, Recipe
from sam_detect.types.masks import IntArray
from sam_detect.types.overlaps import ious

REACHED = 0.75
"""Mean best IoU of proposals with the outlined objects of a picture from which the segmenter
reaches them. Nuts and plates, outlined by hand, have .8 and more, nuclei and neurites .65."""


class Pipeline:
    """One set of parts and one library.

    Args:
        segmenter: proposes masks.
        features: turns masks into vectors.
        labeller: gives vectors their labels.
        library: the examples. If it has another recipe than ``features``, its examples are
            embedded again in memory, and learning is refused.
        segmenter_name: recorded with the examples; None is the segmenter's registered name.
        tile: side in pixels of the windows in which pictures are proposed; 0: chosen by the sizes
            of the examples (:mod:`sam_detect.pipeline.tiling`).
        outlines: of an object: "best", that of its best proposal, or "vote", what most of its
            proposals agree on (:mod:`sam_detect.labelling.merging`).
        scale: of the sides at which pictures are detected in, as of
            :func:`~sam_detect.pipeline.scaling.detect_at_scale`; None: as they are.
        propose: gives the proposals of a picture; takes what
            :func:`sam_detect.pipeline.tiling.propose` does. Evaluation has one that caches them.

    Raises:
        RecipeMismatchError: the library's kept crops cannot give vectors of this recipe.
    """

    def __init__(
        self,
        segmenter: Segmenter,
        features: FeatureExtractor,
        labeller: Labeller,
        library: Library,
        *,
        segmenter_name: str | None = None,
        tile: int = 0,
        outlines: Literal["best", "vote"] = "best",
        scale: Scale = None,
        propose: Callable[..., Masks] = tiling.propose,
    ) -> None:
        self.tile, self.outlines, self.scale, self._propose = tile, outlines, scale, propose
        self.segmenter, self.features, self.labeller = segmenter, features, labeller
        self.library = library
        self.segmenter_name = segmenter_name or parts.name_of("segmenter", segmenter)
        self._snapshots = SnapshotReader(library, features)
        self._naming = Naming(labeller, self.segmenter_name, vote=outlines == "vote")
        self._proposals = Proposals(segmenter, library, tile=tile, propose=propose)
        # A library that changes from this recipe to another was reindexed by another process.
        self.shares_recipe = library.recipe in (None, self.recipe)

    @classmethod
    def from_settings(
        cls, settings: Settings, given: Mapping[str, Any] = MappingProxyType({})
    ) -> Pipeline:
        """The parts and the library that settings describe.

        Args:
            given: room to an object that is its part, instead of the one of the settings.

        Raises:
            ConfigError: an option is of no part, or its part does not take the value.
            UnavailableError: a part needs a model that cannot be loaded.
            RecipeMismatchError: as of the constructor.
        """

        def part(room: str, make: Callable[..., Any], *arguments: Any) -> Any:
            return given[room] if room in given else make(settings, *arguments)

        store = part("store", parts.make_store, collection_of(settings.library))
        library = Library(store, settings.library)
        stored = library.recipe
        segmenter = part("segmenter", parts.make_segmenter, default_segmenter(stored))
        features = choose_features(settings, stored, given)
        labeller = part("labeller", parts.make_labeller, features.embedder)
        pipeline = cls(
            segmenter, features, labeller, library,
            tile=settings.tile or 0, outlines=settings.outlines, scale=settings.scale,
        )  # fmt: skip
        used = {"segmenter": pipeline.segmenter_name, "embedder": features.recipe.embedder,
                "fade": features.recipe.fade, "store": "qdrant"}  # fmt: skip
        parts.require_used(settings, {**used, **settings.chosen, **dict.fromkeys(given)})
        parts.require_shapes(settings, features.embedder)
        parts.warn_of_unused_device(settings, used["segmenter"], used["embedder"])
        return pipeline

    @property
    def recipe(self) -> Recipe:
        """How this pipeline makes vectors."""
        return self.features.recipe

    def snapshot(self) -> LibrarySnapshot:
        """The library as it is now, in this pipeline's recipe."""
        return self._snapshots.snapshot()

    def with_features(self, features: FeatureExtractor) -> Pipeline:
        return self.with_parts(features, self.library)

    def with_copied_library(self) -> Pipeline:
        """The same parts, with a copy of the library in memory: what it learns is not kept."""
        copied = ConvertedExamples(self.features).read(self.library)
        made = self.with_parts(self.features, Library(copied, self.library.name))
        made._proposals.original = self._proposals.original or self.library
        return made

    def with_parts(
        self,
        features: FeatureExtractor,
        library: Library,
        *,
        propose: Callable[..., Masks] | None = None,
    ) -> Pipeline:
        """The same with other features and another library; None keeps what proposes."""
        parts_here = self.segmenter, features, self.labeller, library
        return Pipeline(
            *parts_here, segmenter_name=self.segmenter_name, tile=self.tile,
            outlines=self.outlines, scale=self.scale, propose=propose or self._propose,
        )  # fmt: skip

    def with_threshold(self, threshold: float | None) -> Pipeline:
        """The same with another least confidence for a label, 0 to 1 (else ``ConfigError``); None:
        the labeller's."""
        if threshold is None:
            return self
        found = copy.copy(self)
        found._naming = self._naming.with_threshold(threshold)
        return found

    def remember_proposals(self, pictures: int) -> None:
        """Keeps the proposals of so many pictures, also when they are read anew: for a program that
        comes back to the pictures of a folder."""
        self._proposals.remembered = LastUsed(pictures)

    # -- detecting ---------------------------------------------------------------------------

    def detect(
        self,
        frame: Frame,
        *,
        snapshot: LibrarySnapshot | None = None,
        proposed: Candidates | None = None,
        carried: Masks | None = None,
        known: KnownVectors | None = None,
        scene: str | None = None,
        recall_taught: bool = True,
        explain_unknown: bool = True,
    ) -> Detections:
        """Detects and labels the objects of a frame.

        Args:
            snapshot: the library; None takes it as it is now.
            proposed: what :meth:`propose` gave for this frame and snapshot, if it was called.
            carried: masks that compete with the proposals, such as those a video carries from
                frame to frame.
            known: vectors that need not be computed again.
            scene: digest of a picture of the same scene in the same light, whose examples count
                like examples of this frame; None is the frame itself.
            recall_taught: whether outlines that were taught in this very picture are detected as
                they were taught. Evaluation turns it off.
            explain_unknown: whether masks that were not embedded get nearest neighbours, too.

        Returns:
            Labelled detections first, best first; then unknown ones.
        """
        snapshot = snapshot or self.snapshot()
        if self.scale is not None and proposed is None and carried is None:
            as_it_is = partial(
                self._detect, snapshot=snapshot, scene=scene, recall_taught=recall_taught,
                explain_unknown=explain_unknown,
            )  # fmt: skip
            return detect_at_scale(frame, self.scale, as_it_is)
        return self._detect(
            frame, snapshot=snapshot, proposed=proposed, carried=carried, known=known,
            scene=scene, recall_taught=recall_taught, explain_unknown=explain_unknown,
        )  # fmt: skip

    def _detect(
        self,
        frame: Frame,
        *,
        snapshot: LibrarySnapshot,
        proposed: Candidates | None = None,
        carried: Masks | None = None,
        known: KnownVectors | None = None,
        scene: str | None,
        recall_taught: bool,
        explain_unknown: bool,
    ) -> Detections:
        timer = StageTimer()
        if proposed is None:
            proposed = self.propose(frame, snapshot, known=known, timings_ms=timer.spent_ms)
        candidates = proposed
        if carried is not None:
            first = self.embed(frame, carried, snapshot, known=known, timings_ms=timer.spent_ms)
            candidates = first.then(proposed)
        with timer.on("label"):
            detections = self.label(candidates, snapshot, scene=scene, recall_taught=recall_taught)
        if explain_unknown:
            features = self.features.for_areas(example_areas(snapshot.examples()))
            embed = partial(features.embed_masks, frame, known=known, timings_ms=timer.spent_ms)
            detections = self._naming.with_neighbours(snapshot, detections, embed=embed)
        check = ""
        if carried is None:  # a video has many frames to be sure of
            surroundings = partial(self._proposals.surroundings, snapshot)
            check = doubt_of(frame, detections, snapshot.examples(), surroundings)
        return replace(detections, timings_ms=timer.spent_ms, check=check)

    def propose(
        self,
        frame: Frame,
        snapshot: LibrarySnapshot,
        *,
        known: KnownVectors | None = None,
        timings_ms: dict[str, float] | None = None,
        warn: bool = True,
        quick: bool = False,
    ) -> Candidates:
        """The segmenter's proposals of a frame, best first, with their vectors.

        Args:
            known, timings_ms: as of
                :meth:`~sam_detect.features.extraction.FeatureExtractor.embed_masks`.
            warn: whether it is said where objects as small as an example are lost.
            quick: as of :meth:`~sam_detect.pipeline.proposals.Proposals.hints`.
        """
        timer, hints_of = StageTimer(timings_ms), partial(self._proposals.hints, frame, snapshot)
        embed = partial(self.embed, frame, known=known, timings_ms=timer.spent_ms)
        with timer.on("propose"):
            hints = hints_of(quick=quick, untrained=True)
            if warn:
                self._proposals.warn_if_too_small(frame, hints)
            masks = self._proposals.for_library(frame, hints)
        candidates = embed(masks, snapshot)
        # Training takes longer than all the rest, and finds nothing where all is outlined already.
        trains = hints.outlined and not hints.crops
        if trains and self._may_hold_more(candidates, snapshot):
            with timer.on("propose"):
                masks = self._proposals.for_library(frame, hints_of(quick=quick))
            candidates = embed(masks, snapshot)
        return candidates

    def _may_hold_more(self, candidates: Candidates, snapshot: LibrarySnapshot) -> bool:
        """Whether a picture may have objects besides those that are outlined in it: the outlined
        ones are not well proposed either, or something else is like the examples."""
        outlined = snapshot.taught(candidates.frame).of(negative=False).masks
        reached = ious(outlined, candidates.masks).max(axis=1, initial=0)
        return reached.mean() < REACHED or bool(new_objects(self.label(candidates, snapshot)))

    def embed(
        self,
        frame: Frame,
        masks: Masks,
        snapshot: LibrarySnapshot,
        *,
        known: KnownVectors | None = None,
        timings_ms: dict[str, float] | None = None,
    ) -> Candidates:
        """Masks with the vectors of those that could be objects of the library: those of such an
        area that the segmenter did not exclude. Takes what :meth:`propose` does."""
        timer = StageTimer(timings_ms)
        with timer.on("label"):
            examples = snapshot.examples()
            plausible = plausible_sizes(masks.areas, examples) & ~masks.excluded
            described = np.flatnonzero(plausible)
        features, compared = self.features.for_areas(example_areas(examples)), masks[described]
        vectors = features.embed_masks(frame, compared, known=known, timings_ms=timer.spent_ms)
        candidates = Candidates(frame, masks, vectors, described)
        if features is not self.features and features.embedder.rechecks:
            with timer.on("label"):
                again = undecided(self._naming.labelled(snapshot, candidates), examples)
            crops, spent_ms = self.features.crops(frame, compared[again]), timer.spent_ms
            vectors[again] = self.features.embed_crops(crops, known=known, timings_ms=spent_ms)
        return candidates

    def label(
        self,
        candidates: Candidates,
        snapshot: LibrarySnapshot,
        *,
        scene: str | None = None,
        recall_taught: bool = True,
    ) -> Detections:
        """Labels candidates by their vectors, and keeps one for each object; takes what
        :meth:`detect` does."""
        frame = candidates.frame
        taught = snapshot.taught(frame) if recall_taught else None
        # An empty ``taught`` has the digest, too.
        picture = frame.digest if taught is None else taught.picture
        kept, classifications = self._naming.name(
            snapshot, candidates, source=scene or picture, taught=taught,
            here=None if taught is None else snapshot.of_picture(picture),
        )  # fmt: skip
        return Detections(
            frame.source_id, kept, tuple(classifications), self.recipe.to_dict(),
            location=frame.location, pixel_size_um=frame.pixel_size_um,
        )  # fmt: skip

    # -- outlining ---------------------------------------------------------------------------

    def all_proposals(
        self, frame: Frame, areas: Areas = None, near: IntArray | None = None
    ) -> Masks:
        """As :meth:`sam_detect.pipeline.proposals.Proposals.all_of`."""
        return self._proposals.all_of(frame, areas, near)

    def outline(
        self,
        frame: Frame,
        boxes_xywh: Sequence[Sequence[float]] = (),
        points_xy: Sequence[Sequence[float]] = (),
        *,
        of_finds: bool = False,
    ) -> Outlined:
        """One mask for each box, then one for each point, with how well each fits its box.

        Takes and raises what :func:`sam_detect.segmentation.prompted.outline` does.
        """
        near, areas = tiling.places(frame.size_hw, boxes_xywh, points_xy)
        propose = partial(self._proposals.all_of, areas=areas, near=near)
        if of_finds:
            propose = partial(self._proposals.of_finds, snapshot=self.snapshot(), near=near)
        outlined = partial(prompted.outline, frame, self.segmenter, of_finds=of_finds)
        return outlined(propose=propose, boxes_xywh=boxes_xywh, points_xy=points_xy)

    def outline_clicks(
        self,
        frame: Frame,
        clicks_xy: npt.ArrayLike,
        positive: npt.ArrayLike,
        box_xywh: Sequence[float] | None = None,
    ) -> Masks:
        """The mask of one object, from clicks on it and off it.

        Takes and raises what :func:`sam_detect.segmentation.clicks.mask_for_clicks` does.
        """
        given = clicks.Clicks.checked(clicks_xy, positive, box_xywh, frame.size_hw)
        boxes = [] if box_xywh is None else [box_xywh]
        near, areas = tiling.places(frame.size_hw, boxes, given.points_xy.tolist())
        propose = partial(self._proposals.all_of, areas=areas, near=near)
        return clicks.outline_clicks(
            frame, self.segmenter, propose=propose,
            clicks_xy=clicks_xy, positive=positive, box_xywh=box_xywh,
        )  # fmt: skip

    def separate_objects(self, frame: Frame, *, alike: bool = True) -> Masks:
        """The proposals of a frame that are its separate objects, best first.

        See :mod:`sam_detect.labelling.separate`.

        Args:
            alike: only the largest group of those that resemble each other.
        """
        masks = self.all_proposals(frame)
        embed = partial(self.features.embed_masks, frame) if alike else None
        prior = self.features.embedder.prior_similarity
        return masks[separate_objects(masks, embed, similarity=prior)]

    # -- learning ----------------------------------------------------------------------------

    def learn(
        self,
        frame: Frame,
        masks: Masks,
        labels: Sequence[str],
        *,
        negative: bool = False,
        others: Masks | None = None,
        batch: str | None = None,
    ) -> Added:
        """Learns masks of one frame, each under its label; durable when it returns.

        Args:
            negative: learn that these are *not* objects of their labels.
            others: all other objects of the picture, if every object is outlined (no masks, if
                the examples are all there are). Whatever else is proposed nearby is then known to
                be no object.
            batch: the learning batch they belong to, as ``library.new_batch()`` gives it; None
                makes one of their own.

        Raises:
            MaskError: the masks are of a picture of another size.
            LibraryError: a label is empty.
            RecipeMismatchError: the library has another recipe.
        """
        self._require_recipe()
        examples = self.make_examples(frame, masks, labels, negative=negative, others=others)
        return self.keep(examples, batch=batch)

    def keep(self, examples: Sequence[Example], *, batch: str | None = None) -> Added:
        """Stores examples of this recipe; takes and raises what :meth:`learn` does."""
        try:
            return self.library.add(examples, self.recipe, batch=batch)
        except RecipeMismatchError:
            self._require_recipe()  # says if it was reindexed while the examples were made
            raise

    def prepare_learning(self, frame: Frame) -> None:
        """Makes ahead what takes longest when the first example of a frame is made, where it does
        not depend on the example. It is cached, as :meth:`all_proposals` are."""
        if not tiling.levels(frame.size_hw, self.segmenter, tile=self._proposals.tile):
            self.all_proposals(frame)

    def make_examples(
        self,
        frame: Frame,
        masks: Masks,
        labels: Sequence[str],
        *,
        negative: bool = False,
        others: Masks | None = None,
    ) -> list[Example]:
        """The examples of N masks, with vectors and hard negatives; nothing is stored.

        Takes and raises what :meth:`learn` does.
        """
        return examples_of(
            frame, masks, labels, self.features, self.all_proposals,
            proposer=self.segmenter_name, negative=negative, others=others,
        )  # fmt: skip

    def _require_recipe(self) -> None:
        """Raises ``RecipeMismatchError`` unless the library takes examples of this recipe."""
        if self.shares_recipe and self.library.recipe not in (None, self.recipe):
            raise RecipeMismatchError(
                f"library '{self.library.name}' was reindexed by another process meanwhile: begin "
                "again, without options for the embedder and the fade; what was acknowledged is "
                "kept"
            )
        self.library.require_recipe(self.recipe)
