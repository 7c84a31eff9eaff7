"""``SAMDetect``: the class that users call. A thin facade: it owns a :class:`Pipeline`."""

from __future__ import annotations

import os
import warnings
from collections.abc import Generator, Iterable, Sequence
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, overload

import numpy as np
import numpy.typing as npt
from PIL import Image

from sam_detect import parts
from sam_detect.errors import ConfigError, OutlineWarning, RecipeMismatchError
from sam_detect.fading import context
from sam_detect.interfaces import Embedder, Labeller, Segmenter, Source, VectorStore
from sam_detect.io import Plane, PlaneRanges, cut_out_object, planes_of, to_frame
from sam_detect.io.mask_files import given_masks
from sam_detect.io.overlay import draw
from sam_detect.library import places
from sam_detect.library.history import Added, Learnt
from sam_detect.library.library import Library
from sam_detect.library.snapshot import LibrarySnapshot
from sam_detect.microscopy.fewshot import Shown, fewshot, learn_tagged
from sam_detect.microscopy.refine.run import Refined, refine_file
from sam_detect.pipeline.batch import Outcomes, Prepared, detect_many, prepare_many
from sam_detect.pipeline.choosing import choose_features
from sam_detect.pipeline.flow import Pipeline
from sam_detect.pipeline.workers import Answer, Setup
from sam_detect.registry import needing_extra
from sam_detect.segmentation import prompted
from sam_detect.types import (
    AnnotatedImage,
    Candidates,
    Coordinates,
    Detection,
    Detections,
    Frame,
    Masks,
    Recipe,
)

if TYPE_CHECKING:
    from sam_detect.video.stream import Stream

ImageLike = npt.NDArray[Any] | Image.Image | str | os.PathLike[str] | bytes | IO[bytes] | Plane
MaskLike = npt.NDArray[Any] | Masks | str | Path | None


class SAMDetect:
    """Learns objects from examples and finds them again.

    Args:
        segmenter: proposes masks; None takes the settings' choice.
        embedder: turns crops into vectors; None takes the library's, else the default.
        fade_strategy: any object with ``apply(image, mask, distance_map)``; None takes the
            library's, else the default. ``fade_config`` is its other name.
        vector_store: where examples live; None is the embedded Qdrant (or the server that
            ``QDRANT_URL`` names).
        default_top_k: how many examples vote.
        labeller: names vectors; None takes the settings' choice.
        library: name of the library.
        sam_model, embedding_model: ask for ``sam2`` and for ``clip``, with these models.
        tensorrt_enabled: warns and runs without: there are no engines yet.
        settings: any field of :class:`~sam_detect.config.Settings`, and any option of the parts
            that are used (:mod:`sam_detect.options`), by name.

    Raises:
        ConfigError: a value out of its range, or an unknown name.
        UnavailableError: a part that needs a model that cannot be loaded.
        RecipeMismatchError: the library's kept crops cannot give the vectors that are asked for:
            another occupancy or crop side, or an embedder of whole pictures. Another fade or
            embedder is no error: the vectors are made again in memory, when they are needed first.
    """

    def __init__(
        self,
        segmenter: Segmenter | str | None = None,
        embedder: Embedder | str | None = None,
        fade_strategy: parts.AnyFade | str | None = None,
        vector_store: VectorStore | str | None = None,
        default_top_k: int | None = None,
        *,
        labeller: Labeller | str | None = None,
        library: str | None = None,
        fade_config: parts.AnyFade | str | None = None,
        sam_model: str | None = None,
        embedding_model: str | None = None,
        tensorrt_enabled: bool = False,
        **settings: Any,
    ) -> None:
        if fade_strategy is not None and fade_config is not None:
            raise ConfigError("fade_config is fade_strategy's other name: give one of them")
        fade = fade_strategy if fade_strategy is not None else fade_config
        rooms = {"segmenter": segmenter, "embedder": embedder, "fade": fade,
                 "store": vector_store, "labeller": labeller}  # fmt: skip
        named = {"library": library, "top_k": default_top_k, "sam_model": sam_model,
                 "clip_model": embedding_model}  # fmt: skip
        settings |= {name: value for name, value in named.items() if value is not None}
        self.settings, self._given = parts.settings_and_objects(rooms, settings)
        if tensorrt_enabled:
            warnings.warn("TensorRT engines are not available: running without", stacklevel=2)
        self.pipeline = Pipeline.from_settings(self.settings, self._given)

    def __repr__(self) -> str:
        made = self.recipe
        chosen = f"{self.pipeline.segmenter_name!r}, {made.embedder!r}, {made.fade!r}"
        return f"SAMDetect({chosen}, library={self.library.name!r})"

    def __enter__(self) -> SAMDetect:
        """For ``with``. Between calls nothing is held open, so nothing need be closed."""
        return self

    def __exit__(self, *error: object) -> None:
        return None

    def __getstate__(self) -> Setup:
        """For ``pickle`` and other processes: what the same detector is made from. A library in
        memory goes along. Raises ``ConfigError`` for a store that was given as an object."""
        return Setup.of(self.pipeline, self.settings, self._given)

    def __setstate__(self, setup: Setup) -> None:
        self.settings, self._given = setup.settings, setup.given
        self.pipeline = setup.make()

    @property
    def segmenter(self) -> Segmenter:
        return self.pipeline.segmenter

    @property
    def labeller(self) -> Labeller:
        return self.pipeline.labeller

    @property
    def library(self) -> Library:
        return self.pipeline.library

    @property
    def recipe(self) -> Recipe:
        """How this detector makes vectors."""
        return self.pipeline.recipe

    def snapshot(self) -> LibrarySnapshot:
        """The library as it is now, in this detector's recipe."""
        return self.pipeline.snapshot()

    # -- the recipe --------------------------------------------------------------------------

    def set_fade_strategy(self, fade: parts.AnyFade | str) -> None:
        """Fades with another strategy from now on: a fade, or the name of one.

        A library that has examples stays as it is: their vectors are made again in memory, from
        the kept crops, so that fades can be tried out. What this detector would learn no longer
        fits the library, and is refused with the command that converts it.
        """
        chosen = parts.make_fade(fade) if isinstance(fade, str) else fade
        parts.require_fade(chosen)
        self.pipeline = self.pipeline.with_features(replace(self.pipeline.features, fade=chosen))
        # What was asked for last: it is kept, also where another process reindexes the library.
        self._given = {**self._given, "fade": chosen}

    # -- detecting ---------------------------------------------------------------------------

    @overload
    def detect(  # type: ignore[overload-overlap]
        self, image: ImageLike | Frame, *, threshold: float | None = None
    ) -> Detections: ...
    @overload
    def detect(
        self, image: Sequence[ImageLike | Frame], *, workers: int = 1,
        threshold: float | None = None,
    ) -> list[Detections]: ...  # fmt: skip
    def detect(
        self, image: Any, *, workers: int = 1, threshold: float | None = None
    ) -> Detections | list[Detections]:
        """Detects and labels the objects of a picture, or of each of several.

        Args:
            image: a path, bytes, an open file, a PIL image, an array (BGR unless
                ``color_order="rgb"``) or a frame, or a list or tuple of these.
            workers: of a list, as of :meth:`detect_each`.
            threshold: least confidence for a label, 0 to 1; None: that of the settings.

        Returns:
            Named detections first, best first; then unknown ones. A list for a list. Raises
            ``ImageError`` for a picture that cannot be read, ``LibraryNotFoundError`` where the
            library that was named does not exist: nothing was learnt into it yet.
        """
        self.require_library()
        if not isinstance(image, (list, tuple)):
            return self.pipeline.with_threshold(threshold).detect(self.read(image))
        with closing(self.detect_each(image, workers=workers, threshold=threshold)) as outcomes:
            return [outcome.get()[1] for outcome in outcomes]

    def detect_each(self, images: Iterable[ImageLike | Frame], **options: Any) -> Outcomes:
        """The outcome of each of many pictures; :func:`sam_detect.pipeline.batch.detect_many` says
        what else it takes."""
        self.require_library()
        return detect_many(self.pipeline, self.settings, self._given, images, **options)

    def require_library(self) -> None:
        """Raises ``LibraryNotFoundError`` where a library is named that does not exist. The default
        one need not, nor one in a store that was given."""
        named = self.settings.library != places.DEFAULT_LIBRARY and "store" not in self._given
        if named and self.settings.store != "memory" and self.library.manifest() is None:
            raise places.not_found(self.settings, self.library.store.location)

    def propose(self, image: ImageLike | Frame) -> Candidates:
        """The proposals of a picture, for :meth:`label`; takes and raises what :meth:`detect` does.

        They are the slow part of :meth:`detect`: of one picture they are made once, and labelled
        as often as a user moves a slider.
        """
        return self.pipeline.propose(self.read(image), self.snapshot())

    def label(
        self,
        candidates: Candidates,
        *,
        threshold: float | None = None,
        min_area: int = 0,
        max_area: int | None = None,
    ) -> Detections:
        """Labels proposals by the library as it is now; returns what :meth:`detect` does.

        Args:
            candidates: of :meth:`propose`, made in the same recipe.
            threshold: least confidence for a label, 0 to 1; None: that of the settings.
            min_area, max_area: pixels of the smallest and the largest object; None: no limit.

        Raises:
            ConfigError: a threshold out of its range.
        """
        asked = candidates.of_areas(min_area, max_area)
        return self.pipeline.with_threshold(threshold).label(asked, self.snapshot())

    def outline(
        self,
        image: ImageLike | Frame,
        boxes_xywh: Coordinates = (),
        points_xy: Coordinates = (),
    ) -> Masks:
        """The objects at boxes and points: one mask for each box, then one for each point.

        Drawn by a segmenter that takes prompts (SAM 2), else chosen among the proposals. Takes and
        raises what :meth:`learn` does.
        """
        rows = _rows(boxes_xywh), _rows(points_xy)
        return self.pipeline.outline(self.read(image), *rows).masks

    def in_memory(self) -> SAMDetect:
        """The same detector with a copy of its library in memory: what it learns is not kept."""
        copied = object.__new__(type(self))
        copied.__dict__.update(self.__dict__)
        copied.pipeline = self.pipeline.with_copied_library()
        return copied

    # -- learning ----------------------------------------------------------------------------

    def learn(
        self,
        image: ImageLike | Frame,
        label: str,
        *,
        boxes_xywh: Coordinates = (),
        masks: MaskLike = None,
        points_xy: Coordinates = (),
        negative: bool = False,
        pieces: str | None = None,
        accept_guess: bool = False,
    ) -> Learnt:
        """Learns the objects of a picture that boxes, masks or points show.

        Args:
            image: the picture, as :meth:`detect` takes it.
            label: the name of all of them.
            boxes_xywh: ``x, y, width, height`` in pixels, each around one object.
            masks: a mask picture, by its path or as an array ``(H, W)``
                (:mod:`sam_detect.io.mask_pictures` says which objects it shows); an array
                ``(N, H, W)`` or :class:`Masks`, an object each; or "auto" for the separate objects
                of one kind that stand out (:mod:`sam_detect.labelling.separate`).
            points_xy: ``x, y`` in pixels, each on one object.
            negative: learn that these are *not* a ``label``.
            pieces: "one" or "each": whether the pieces of a mask picture of one value are one
                object; None: where they share a hull, which a warning says.
            accept_guess: learn the outline of a box that nothing fits, too, which is a guess.

        Returns:
            What was added, and the outlines that were taken: ``learn(...).preview().show()``.

        Warns:
            OutlineWarning: a box leaves the picture or covers all of it, looks like two corners,
                or nothing that was proposed fits it.

        Raises:
            ConfigError: none of boxes, masks and points is given, or ``pieces`` without a mask.
            MaskError: a mask picture shows no objects, a box or point is malformed, in fractions or
                outside the picture, or nothing is at a point.
            LibraryError: the label is empty.
        """
        if masks is None and not len(boxes_xywh) and not len(points_xy):
            raise ConfigError("learn needs boxes_xywh, masks or points_xy: where the objects are")
        boxes_xywh, points_xy = _rows(boxes_xywh), _rows(points_xy)
        frame, automatic = self.read(image), isinstance(masks, str) and masks == "auto"
        given = given_masks(frame, masks, self.pipeline.separate_objects, pieces)
        shown = self.pipeline.outline(frame, boxes_xywh, points_xy, of_finds=negative)
        problems = tuple(shown.problems(boxes_xywh))
        for problem in problems:
            warnings.warn(f"{frame.source_id}: {problem}", OutlineWarning, stacklevel=2)
        taken = Masks.concatenate([given, shown.masks]) if len(shown.masks) else given
        guesses = np.concatenate([np.zeros(len(given), np.bool_), ~(shown.fits | accept_guess)])
        sure = taken[~guesses]
        done = self.learn_frame(frame, sure, [label] * len(sure), negative=negative)
        return Learnt(
            **vars(done),
            masks=taken,
            box_ious=np.concatenate([np.full(len(given), np.nan, np.float32), shown.box_ious]),
            warnings=problems,
            guesses=guesses,
            left_out=len(self.pipeline.all_proposals(frame)) - len(given) if automatic else 0,
            frame=frame,
            boxes_xywh=boxes_xywh,
        )

    def add_example(
        self,
        image: ImageLike,
        label: str,
        mask: npt.NDArray[Any] | None = None,
        *,
        negative: bool = False,
    ) -> Added:
        """Learns one object.

        Args:
            image: the picture. An RGBA picture whose transparency outlines the object (as
                :meth:`get_crop` gives it) needs no mask.
            label: its name.
            mask: ``(H, W)``, true on the object. Without one, the object is the proposal that
                covers the picture's middle, else the whole picture.
            negative: learn that this is *not* a ``label``.
        """
        frame = self.read(image)
        if mask is None:
            alpha = cut_out_object(image, max_pixels=self.settings.max_image_pixels)
            mask = (
                prompted.middle_mask(self.pipeline.all_proposals(frame)) if alpha is None else alpha
            )
        masks = Masks.from_dense(np.asarray(mask, bool), size_hw=frame.size_hw)
        return self.learn_frame(frame, masks, [label] * len(masks), negative=negative)

    def add_examples_from_file(
        self,
        image_path: ImageLike | Frame,
        masks: MaskLike = "auto",
        label: str = "",
        *,
        negative: bool = False,
        pieces: str | None = None,
    ) -> Learnt:
        """:meth:`learn` of masks only: those given, by default the objects that stand out."""
        found = "auto" if masks is None else masks
        return self.learn(image_path, label, masks=found, negative=negative, pieces=pieces)

    def learn_frame(
        self, frame: Frame, masks: Masks, labels: Sequence[str], **options: Any
    ) -> Added:
        """Learns masks of one frame, each under its label; durable when it returns.

        Takes and raises what :meth:`~sam_detect.pipeline.flow.Pipeline.learn` does. If another
        process reindexed the library meanwhile, it goes on in the new recipe, unless the old one
        was asked for.
        """
        try:
            return self.pipeline.learn(frame, masks, labels, **options)
        except RecipeMismatchError:
            stored = self.library.recipe
            if not self.pipeline.shares_recipe or stored in (None, self.recipe):
                raise
            features = choose_features(self.settings, stored, self._given)
            if features.recipe != stored:
                raise
        self.pipeline = self.pipeline.with_features(features)
        return self.pipeline.learn(frame, masks, labels, **options)

    def prepare_each(
        self, images: Iterable[AnnotatedImage], **options: Any
    ) -> Generator[Answer[Prepared], None, None]:
        """What :meth:`learn_prepared` learns of each of many annotated pictures:
        :func:`sam_detect.pipeline.batch.prepare_many`, which says what else it takes."""
        return prepare_many(self.pipeline, self.settings, self._given, images, **options)

    def learn_prepared(self, prepared: Prepared, **options: Any) -> Added:
        """Learns what was prepared of one picture; durable when it returns.

        Takes and raises what :meth:`learn_frame` does, and does what that does where another
        process reindexed the library meanwhile.
        """
        if prepared.recipe == self.recipe:
            with suppress(RecipeMismatchError):
                return self.pipeline.keep(prepared.examples, batch=options.get("batch"))
        frame = prepared.frame or self.read(prepared.image.picture)
        masks = prepared.masks[: len(prepared.labels)]
        return self.learn_frame(frame, masks, prepared.labels, **options)

    def learn_tagged(self, annotated: Sequence[AnnotatedImage], **options: Any) -> Shown:
        """Learns the annotations of pictures that have a tag:
        :func:`sam_detect.microscopy.fewshot.learn_tagged`, which says what it takes and raises."""
        return learn_tagged(self.pipeline, self.settings, self._given, annotated, **options)

    def fewshot(
        self,
        images: Sequence[str],
        annotations: str | Path,
        tag: str,
        *,
        ranges: PlaneRanges | None = None,
        **options: Any,
    ) -> list[Detections]:
        """Learns the annotations with a tag, and finds the other objects like them:
        :func:`sam_detect.microscopy.fewshot.fewshot`, which says what it takes. ``SAMDetect(
        vector_store="memory")`` keeps the examples for itself."""
        parts_here = self.pipeline, self.settings, self._given
        return fewshot(*parts_here, images, annotations, tag=tag, ranges=ranges, **options)

    def refine(self, annotations: str | Path, images: Sequence[str], **options: Any) -> Refined:
        """Redraws the annotations of a file along the edges of their objects:
        :func:`sam_detect.microscopy.refine.run.refine_file`, which says what it takes."""
        return refine_file(self.read, self.segmenter, Path(annotations), images, **options)

    def evaluate(
        self,
        dataset_path: str | Path,
        metrics: Sequence[str] | None = None,
        *,
        images: str | Path | None = None,
        **protocol: Any,
    ) -> dict[str, Any]:
        """Measures this detector's parts, with an empty library, on annotated pictures.

        :func:`sam_detect.evaluation.harness.measure` says what it takes. Returns a dict with a key
        for each of ``metrics``, or the whole evaluation.
        """
        from sam_detect.evaluation.harness import measure  # imported when it is needed

        protocol |= {"images": images, "max_pixels": self.settings.max_image_pixels}
        return measure(self.pipeline, dataset_path, metrics, **protocol)

    def stream(
        self,
        source: int | str | Path | Source,
        *,
        every: int = 10,
        live: bool | None = None,
        unknown: bool = False,
        track: bool = True,
        propagate: str = "auto",
    ) -> Stream:
        """Finds and follows the objects of a video, frame by frame.

        Args:
            source: a camera's number, a video file, a folder or pattern of frames, an address
                (http, https, rtsp, rtsps), or any source of frames.
            every: frames from one key frame to the next, at most.
            live: whether the newest frame counts and others may be dropped; None: of cameras and
                streams. A file is then played at its own rate.
            unknown: whether objects that nothing in the library resembles are followed, too.
            track: whether objects are followed; else each frame is a key frame, and each id is 0.
            propagate: what carries masks: ``auto``, ``flow``, ``features`` or ``sam2``.

        Returns:
            An iterator of ``TrackedFrame``; close it, or use ``with``. Draw into copies.

        Raises:
            ConfigError: ``every`` is less than 1, or the source is an address of another kind.
            ImageError: the source is not there, or is no video.
            UnavailableError: the extra ``video`` is not installed.
        """
        with needing_extra("a video"):
            from sam_detect.video.stream import open_stream

        options = {"every": every, "unknown": unknown, "track": track, "propagate": propagate}
        return open_stream(self.pipeline, source, self.settings, live=live, **options)

    def get_crop(self, image: ImageLike, mask: npt.NDArray[Any]) -> Image.Image:
        """The object with its context, as an RGBA picture.

        Its colours are the picture's own; its transparency is the fade's weight, opaque exactly
        on the object, so that :meth:`add_example` learns the same object from it, also from a PNG
        file. Saved as JPEG, which has no transparency, it fades to black.
        """
        frame, features = self.read(image), self.pipeline.features
        masks = Masks.from_dense(np.asarray(mask, bool), size_hw=frame.size_hw)
        return context.cut_out(frame.image_rgb, masks, features.fade, occupancy=features.occupancy)

    def visualize(
        self,
        image: ImageLike | Frame,
        detections: Detections | Sequence[Detection],
        *,
        unknown: bool = False,
    ) -> npt.NDArray[np.uint8]:
        """The picture with its detections drawn in, ``(H, W, 3)`` uint8, in the arrays' order.

        Args:
            unknown: whether those without a label are drawn, too, as thin grey outlines.
        """
        frame = self.read(image)
        drawn = draw(frame.image_rgb, Detections.of(frame, detections), show_unknown=unknown)
        return drawn if self.settings.color_order == "rgb" else drawn[..., ::-1].copy()

    def planes(self, path: str | Path, ranges: PlaneRanges) -> list[Plane]:
        """The planes of a stack that ranges select: :func:`sam_detect.io.planes_of`. What
        takes a picture takes each of them, and reads it then."""
        return planes_of(path, ranges, max_pixels=self.settings.max_image_pixels)

    def read(self, image: ImageLike | Frame) -> Frame:
        """Any picture as a frame; raises ``ImageError`` where it is none."""
        order, most = self.settings.color_order, self.settings.max_image_pixels
        return to_frame(image, color_order=order, max_pixels=most)


def _rows(given: Coordinates) -> Sequence[Sequence[float]]:
    """Boxes or points as rows of numbers; one that is malformed is refused where it is used."""
    return given.tolist() if isinstance(given, np.ndarray) else given
