"""Every extension point, on one page.

Subclass one (or, for a fade, write any object with ``apply``), pass an instance to
:class:`~sam_detect.api.SAMDetect`, or register it as an entry point of the group
``sam_detect.<room>`` to give it a name on the command line. One abstract method does the work;
the rooms add batching. What a part returns is checked for every caller (:class:`Part`): a result
that breaks the contract, or an exception of any type, becomes an ``ExtensionError`` that names the
part. ``tests/contracts`` runs the same suite over every registered name.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
from typing_extensions import Self

from sam_detect.contracts import Part
from sam_detect.options import require_number
from sam_detect.types import (
    NO_HINTS,
    Classification,
    Detections,
    FadedCrop,
    Frame,
    HintName,
    Hints,
    Hit,
    ImageRGB,
    LabelMemory,
    Masks,
    Point,
    TrackedFrame,
)
from sam_detect.types.masks import BoolArray, FloatArray, IntArray


class Source(ABC):
    """Yields the frames of one thing a user named: a picture, a folder, a video, a camera."""

    name: str = ""
    """What the user called it, without what is secret in an address."""
    live: bool = False
    """Whether frames come by themselves, and the newest counts."""
    reconnects: int = 0
    """How often it was opened again after a break."""
    damaged: int = 0
    """Parts of it that could not be decoded."""

    @abstractmethod
    def frames(self) -> Iterator[Frame]:
        """The frames, in order. Raises ``ImageError`` for one that cannot be read."""

    def stop(self) -> None:  # noqa: B027 - most sources never wait
        """Ends :meth:`frames` soon, also where it waits; called from another thread."""


class Segmenter(Part, room="segmenter"):
    """Proposes masks for whatever looks like an object."""

    uses: tuple[HintName, ...] = ()
    """What its proposals depend on; the rest of the :class:`Hints` that it is given is empty.

    ``areas``; ``crops``, or ``crops where outlined``: only for pictures in which some of the
    examples are outlined, and only where the proposals without them leave something to be found;
    ``similarity``, or ``separable similarity``: only where it tells some label's examples from what
    surrounds them, and not for the frames of a video."""
    thread_safe: bool = False
    """Whether several threads may call :meth:`propose` at once: for the windows of a picture."""

    @abstractmethod
    def propose(self, frame: Frame, hints: Hints = NO_HINTS) -> Masks:
        """Proposals, best first; none for a picture without structure. The same picture and hints
        give the same ones; with another processor or batch size, scores and single pixels at an
        edge may differ. Those that are unlike the examples are :attr:`Masks.excluded`."""

    def smallest_area(self, size_hw: tuple[int, int], hints: Hints = NO_HINTS) -> float:
        """Pixels of the smallest objects proposed in a picture of this size: most of those that
        are smaller are lost. 0 where no such limit is known."""
        return 0.0

    def worked_pixels(self, size_hw: tuple[int, int]) -> int:
        """How many pixels a picture of this size has as it is worked on."""
        return size_hw[0] * size_hw[1]


@runtime_checkable
class PromptedSegmenter(Protocol):
    """A segmenter that also draws what a user points at. For any other one, a mask is chosen among
    its proposals (``sam_detect.segmentation.prompted``)."""

    def segment_boxes(self, frame: Frame, boxes_xywh: Sequence[Sequence[float]]) -> Masks:
        """One mask for each box ``x, y, width, height`` in pixels, in their order; ``MaskError``
        if a box is malformed, empty or outside the picture, or nothing is in it."""

    def segment_points(self, frame: Frame, points_xy: Sequence[Sequence[float]]) -> Masks:
        """One mask for each point ``x, y`` in pixels on an object, in their order; ``MaskError``
        if a point is malformed or outside the picture, or nothing is there."""


@runtime_checkable
class ClickedSegmenter(Protocol):
    """A segmenter that also draws one object from several clicks. For any other one, its mask is
    chosen among proposals, or combined of them (``sam_detect.segmentation.clicks``)."""

    def segment_clicks(
        self,
        frame: Frame,
        clicks_xy: npt.ArrayLike,
        positive: npt.ArrayLike,
        box_xywh: Sequence[float] | None = None,
    ) -> Masks:
        """The mask of one object.

        Args:
            clicks_xy: ``(N, 2)`` x, y in pixels; N may be 0 with a box.
            positive: ``(N,)`` bool, whether each click is on the object and not off it.
            box_xywh: ``x, y, width, height`` in pixels, around the object; None without one.

        Raises:
            MaskError: a click or the box is malformed or outside the picture, there is neither a
                positive click nor a box, or nothing is found.
        """


@runtime_checkable
class RedrawingSegmenter(Protocol):
    """A segmenter that also refines masks, such as those of a video's frame before."""

    def segment_masks(self, frame: Frame, masks: Masks) -> Masks:
        """One mask for each of the frame's, in their order.

        Raises:
            MaskError: the masks are of a picture of another size, or nothing is found at one.
        """


@runtime_checkable
class Fade(Protocol):
    """Fades a crop's context by its distance from the object. Any object with ``apply`` is one."""

    def apply(self, image: ImageRGB, mask: BoolArray, distance_map: FloatArray) -> npt.NDArray[Any]:
        """The faded image.

        Args:
            image: ``(h, w, 3)`` uint8, RGB.
            mask: ``(h, w)`` bool, the object.
            distance_map: ``(h, w)`` float32, distance in pixels of the *picture* from the object;
                0 on it.

        Returns:
            ``(h, w, 3)``, uint8 or float in 0..255.
        """


class WeightFade(ABC):
    """A fade that is a plain weight: the faded image is ``image * weights``."""

    @abstractmethod
    def weights(self, distance_map: FloatArray) -> FloatArray:
        """``(h, w)`` float32 in 0..1 for distances in pixels; 1 where the distance is 0."""

    def apply(self, image: ImageRGB, mask: BoolArray, distance_map: FloatArray) -> npt.NDArray[Any]:
        """The image times the weights, ``(h, w, 3)`` uint8."""
        fitted = self.for_area(float(np.count_nonzero(mask)))
        faded = image * fitted.weights(distance_map)[:, :, None]
        return np.asarray(np.rint(faded), np.uint8)

    def for_area(self, area: float) -> WeightFade:
        """This fade for an object of ``area`` pixels; itself unless its width follows the size."""
        return self


class Embedder(Part, room="embedder"):
    """Turns faded crops into unit vectors whose dot product is their similarity.

    The same crop gives the same vector, equal within 1e-6 in each component, alone or in any
    batch, with any number of threads, in any process on any processor. Equal bits are not
    promised. On a GPU, or with ``bf16`` or ``fp16``, the difference may be larger.
    """

    name: ClassVar[str]
    version: ClassVar[int]
    """Raised whenever the algorithm changes, so that the same crop would get another vector: old
    libraries then ask for ``reindex``."""
    input_side: int
    """Crops are reduced to at most this side (pixels) before they are faded."""
    prior_similarity: ClassVar[float] = 0.9
    """Similarity to expect of two objects of one label while a library has too few to tell."""
    default_fade: ClassVar[str] = "gaussian"
    """The fade, unless another one is chosen."""
    occupancy: float | None = None
    """Share of a crop's area that its object may take at most; None: any."""
    crop_side: int | None = None
    """Longest side, pixels, of the crops that a library keeps for it; None: the usual one."""
    cheap: bool = False
    """Whether a vector is made about as quickly as one that is known can be found."""
    parts: Mapping[str, int] = MappingProxyType({})
    """Dimensions of the parts of a vector by name, in their order; labellers learn how much each
    counts. In all vectors a part has the same length, the root of its usual weight. Empty: one."""
    of_frames: bool = False
    """Whether vectors come from whole pictures, by :meth:`embed_frame`. A library, which keeps
    crops, cannot make them again."""

    rechecks: bool = False
    """Whether masks that its vectors of a frame leave undecided are described by their crops."""

    @property
    @abstractmethod
    def dimension(self) -> int:
        """Length D of the vectors."""

    @abstractmethod
    def embed(self, crops: Sequence[FadedCrop]) -> FloatArray:
        """``(N, D)`` float32, each of length 1, in the order of the crops.

        Each has ``image_rgb`` ``(h, w, 3)`` uint8, faded; ``weights`` ``(h, w)`` float32, 0 to 1;
        and ``crop.image_rgb`` and ``crop.mask`` (bool): the picture before fading, the object."""

    def embed_frame(self, frame: Frame, masks: Masks, crops: Iterable[FadedCrop]) -> FloatArray:
        """``(N, D)`` float32, each of length 1: N masks of a picture that is seen as a whole. Asked
        of embedders :attr:`of_frames`; ``MaskError`` for masks of a picture of another size.

        The crops of the masks are cut and faded only when they are asked for, one by one."""
        raise NotImplementedError(f"the embedder {self.name} describes crops, not frames")

    def for_areas(self, areas: tuple[int, int] | None) -> Embedder:
        """This embedder for the masks of a picture in which objects of about these sizes are
        sought; itself unless it goes by sizes. It may be one :attr:`of_frames`, whose vectors are
        comparable with those of :meth:`embed`: examples are always described by their crops.

        Args:
            areas: as of :class:`Hints`.
        """
        return self

    def scene_weights(self) -> FloatArray | None:
        """``(D,)`` in 0..1: how far each dimension still tells in a picture taken from elsewhere,
        in other light, than the only one that examples come from. None: all tell fully."""
        return None

    def parameters(self) -> dict[str, Any]:
        """What else decides the vectors (model name, pooling, ...), as plain JSON data.

        A library makes its embedder again with these as arguments of the constructor. The
        ``digest`` of weights tells that it runs a pretrained model; without one, the default
        segmenter of its libraries is ``naive``.
        """
        return {}


@runtime_checkable
class TextEncoder(Protocol):
    """An embedder that also makes vectors of texts, comparable with those of crops."""

    @property
    def text_scale(self) -> float:
        """What similarities are multiplied by before a softmax over texts."""

    def embed_texts(self, texts: Sequence[str]) -> FloatArray:
        """``(N, D)`` float32, each of length 1, in the order of the texts."""


class StoredPoints(Protocol):
    """Points to read, one way or another."""

    def scan(
        self,
        ids: Sequence[str] | None = None,
        *,
        fields: Sequence[str] | None = None,
        with_vectors: bool = False,
    ) -> Iterator[Point]:
        """As :meth:`VectorStore.scan`."""


class VectorStore(Part, room="store"):
    """Vectors with payload, exact cosine k-NN, and one small manifest.

    A write has reached the disk (or the server) when its method returns.
    Vectors are kept at length 1; one that has it comes back bit for bit.
    Raises ``StoreError`` (or ``LibraryBusyError``) where the backend fails.
    """

    exclusive: bool = False
    """Whether a session keeps every other writer out. Then a library records how many examples it
    has, and notices where one is missing."""
    kept_path: Path | None = None
    """Folder for what is made of the points and can be made again; None: nowhere."""

    @property
    @abstractmethod
    def location(self) -> str:
        """Where it lives, for people."""

    @abstractmethod
    def session(self) -> AbstractContextManager[None]:
        """Holds the store for several calls that belong together. May be nested."""

    @abstractmethod
    def read_manifest(self) -> dict[str, Any] | None:
        """What :meth:`write_manifest` wrote last, or None for a store that was never written."""

    @abstractmethod
    def write_manifest(self, manifest: dict[str, Any]) -> None:
        """Replaces the manifest in one step."""

    @abstractmethod
    def upsert(self, points: Sequence[Point]) -> None:
        """Adds points, or replaces those whose id is there. All vectors have one length."""

    @abstractmethod
    def delete(self, ids: Sequence[str]) -> None:
        """Removes points; ids that are not there are ignored."""

    @abstractmethod
    def search(
        self, vectors: FloatArray, limit: int, *, fields: Sequence[str] = ()
    ) -> list[list[Hit]]:
        """For each row of ``(Q, D)`` vectors the ``limit`` nearest points, nearest first."""

    @abstractmethod
    def scan(
        self,
        ids: Sequence[str] | None = None,
        *,
        fields: Sequence[str] | None = None,
        with_vectors: bool = False,
    ) -> Iterator[Point]:
        """All points by id order (or those of ``ids`` that exist), with all or the named fields."""

    @abstractmethod
    def count(self) -> int:
        """Number of points."""

    @abstractmethod
    def replace_all(self, points: Iterable[Point], manifest: dict[str, Any]) -> None:
        """Puts other points (of any length) and another manifest in place, or changes nothing."""

    @abstractmethod
    def destroy(self) -> None:
        """Removes the points, the manifest and everything kept for them."""

    @abstractmethod
    def size_bytes(self) -> int:
        """Bytes used on disk (or in memory)."""

    def salvage(self) -> AbstractContextManager[Sequence[StoredPoints | None]]:
        """What can be read of a damaged store: as it is, then other ways; None where one fails."""
        return nullcontext([self])


class Labeller(Part, room="labeller"):
    """Names vectors by the examples near them, or says that it does not know."""

    labels: Sequence[str] | None = None
    """The only labels that it gives; None: those of the examples."""
    threshold: float = 0.5
    """Least confidence, 0 to 1, for a label; below it an object is unknown. Also what a video
    compares with, once it has combined the confidences of several key frames."""

    def with_threshold(self, threshold: float) -> Self:
        """This labeller with another least confidence for a label, 0 to 1.

        Raises:
            ConfigError: a threshold out of that range.
        """
        found = copy.copy(self)
        found.threshold = require_number("threshold", threshold, 0, 1)
        return found

    @abstractmethod
    def label(
        self,
        vectors: FloatArray,
        memory: LabelMemory,
        *,
        qualities: FloatArray | None = None,
        areas: IntArray | None = None,
        source: str | None = None,
    ) -> list[Classification]:
        """One classification for each of ``(Q, D)`` unit vectors, all of one picture.

        The other vectors of the picture may decide about each, by their qualities.

        Args:
            vectors: one for each object.
            memory: the examples.
            qualities: ``(Q,)`` the segmenter's quality of each proposal, 0 to 1; None where the
                qualities of the examples are not known.
            areas: ``(Q,)`` pixels of each in its picture, where known.
            source: digest of the picture; its own examples have the same light.
        """


class Sink(Part, room="format"):
    """Writes the detections of one or many pictures in one format.

    The command line makes it as ``Class(output, multiple=..., inputs=..., include_unknown=...)``,
    with those of the last three that its constructor takes.
    """

    @abstractmethod
    def write(self, frame: Frame, detections: Detections) -> None:
        """Takes one picture's detections."""

    @abstractmethod
    def close(self) -> list[Path]:
        """Completes the output; returns the files written."""


class VideoSink(Part, room="video format"):
    """Writes the tracked objects of one video in one format."""

    @abstractmethod
    def write(self, tracked: TrackedFrame) -> None:
        """Takes the next frame."""

    @abstractmethod
    def close(self) -> list[Path]:
        """Completes the output, however many frames came; returns the files written."""
