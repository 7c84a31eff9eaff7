"""Results: classifications, the detections of an image, and those of a video's frame."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from sam_detect.errors import MaskError
from sam_detect.types.annotations import Annotation, Location
from sam_detect.types.examples import Neighbour
from sam_detect.types.explanation import Explanation, replaced
from sam_detect.types.frames import (
    Frame,
    Index,
    Masks,
    PixelSize,
    Selection,
    Volume,
    area_um2,
    as_index,
)
from sam_detect.types.masks import BoolArray, FloatArray, IntArray, MaskRLE
from sam_detect.types.polygons import EXACT_TOLERANCE_PX, Polygon, Ring
from sam_detect.types.short import short_repr


@dataclass(frozen=True)
class Classification:
    """The labeller's answer for one vector.

    Attributes:
        label: the label, or None for unknown.
        best_label: the closest label; None only if the library is empty.
        confidence: 0 to 1, see ``docs/labelling.md``.
        neighbours: the nearest examples, nearest first.
        taught: whether this outline was learnt with this label in this image.
    """

    label: str | None
    best_label: str | None
    confidence: float
    neighbours: tuple[Neighbour, ...] = ()
    taught: bool = False
    explanation: Explanation | None = field(default=None, compare=False)

    @classmethod
    def decided(
        cls,
        best_label: str,
        confidence: float,
        *,
        threshold: float,
        neighbours: Sequence[Neighbour] = (),
        explanation: Explanation | None = None,
    ) -> Classification:
        """The one rule between a label and unknown, for images and for videos: ``best_label`` if
        the confidence, limited to 0..1, is at least the threshold of the labeller."""
        confidence = min(1.0, max(0.0, confidence))
        label = best_label if confidence >= threshold else None
        if explanation is not None:
            explanation = replaced(
                explanation,
                decision="below threshold" if label is None else "label",
                confidence=confidence,
                threshold=threshold,
            )
        return cls(label, best_label, confidence, tuple(neighbours), explanation=explanation)

    def decided_otherwise(self, known: bool, explanation: Explanation) -> Classification:
        """This classification with or without its best label, whatever its confidence."""
        explanation = replaced(explanation, decision="label" if known else "below threshold")
        label = self.best_label if known else None
        return replaced(self, label=label, explanation=explanation)


@dataclass(frozen=True, eq=False)
class Detection:
    """One found object; answers ``d.label`` and ``d["label"]`` alike."""

    masks: Masks = field(repr=False)
    classification: Classification = field(repr=False)

    FIELDS = (
        "mask", "polygon", "label", "confidence", "bbox", "area", "neighbours", "best_label",
        "score", "mask_rle",
    )  # fmt: skip

    @property
    def label(self) -> str | None:
        return self.classification.label

    @property
    def best_label(self) -> str | None:
        return self.classification.best_label

    @property
    def confidence(self) -> float:
        return self.classification.confidence

    @property
    def neighbours(self) -> tuple[Neighbour, ...]:
        return self.classification.neighbours

    @property
    def explanation(self) -> Explanation | None:
        """The terms that decided between a label and unknown; None in videos and where the
        labeller gives none."""
        return self.classification.explanation

    @property
    def similarity(self) -> float | None:
        """Plain cosine to the mean of the best label's examples, -1 to 1; None where it was not
        compared with examples."""
        return None if self.explanation is None else self.explanation.prototype_similarity

    @property
    def mask(self) -> BoolArray:
        """``(H, W)`` bool, made on demand."""
        return self.masks.dense(0)

    @property
    def mask_rle(self) -> MaskRLE:
        return self.masks.rle(0)

    @property
    def polygon(self) -> Ring:
        """``(K, 2)`` x, y of the outline in pixels; of several parts that of the largest. Holes are
        filled."""
        return self.masks.polygons(0)[0]

    @property
    def bbox(self) -> list[int]:
        """``[x, y, w, h]`` in pixels."""
        box: list[int] = self.masks.boxes_xywh[0].tolist()
        return box

    @property
    def area(self) -> int:
        return int(self.masks.areas[0])

    @property
    def score(self) -> float:
        """The proposal's own quality, 0 to 1."""
        return float(self.masks.predicted_ious[0])

    def __getitem__(self, key: str) -> Any:
        if key not in self.FIELDS:
            raise KeyError(f"a detection has no {key!r}; it has {', '.join(self.FIELDS)}")
        return getattr(self, key)

    def get(self, key: str, default: Any = None) -> Any:
        """``d[key]``, or ``default`` if a detection has no such field."""
        return self[key] if key in self.FIELDS else default

    def __contains__(self, key: object) -> bool:
        return key in self.FIELDS

    def __iter__(self) -> Iterator[str]:
        return iter(self.FIELDS)

    def keys(self) -> tuple[str, ...]:
        return self.FIELDS

    def __repr__(self) -> str:
        return (
            f"Detection(label={self.label!r}, confidence={self.confidence:.3f}, bbox={self.bbox}, "
            f"area={self.area})"
        )

    def to_dict(self, *, explain: bool = False) -> dict[str, Any]:
        """The JSON form of ``detect --json``.

        Args:
            explain: adds the key ``explanation``, as ``--explain`` does.
        """
        explanation = None if self.explanation is None else self.explanation.to_dict()
        return {
            "label": self.label,
            "confidence": round(float(self.confidence), 6),
            "bbox": self.bbox,
            "area": self.area,
            "score": round(self.score, 6),
            "segmentation": self.mask_rle,
            "best_label": self.best_label,
            "neighbours": [neighbour.to_dict() for neighbour in self.neighbours],
            **({"explanation": explanation} if explain else {}),
        }


@dataclass(frozen=True, eq=False)
class Detections:
    """All detections of one image: indexes like numpy, iterates as :class:`Detection`.

    Attributes:
        source_id: the image's path, as given or found.
        masks: the N masks.
        classifications: N classifications, parallel to the masks.
        recipe: the recipe that made the vectors, as plain data.
        timings_ms: milliseconds per stage.
        location: (xy, z, t) of the plane of a stack, from 0; None for other images.
        pixel_size_um: of a pixel, or None where the file does not say it.
        volumes: of N objects the volume that each belongs to; empty where planes are not linked.
        check: why the count of the picture may be wrong; empty without a doubt.
    """

    source_id: str
    masks: Masks
    classifications: tuple[Classification, ...]
    recipe: dict[str, Any] = field(default_factory=dict)
    timings_ms: dict[str, float] = field(default_factory=dict)
    location: Location | None = None
    pixel_size_um: PixelSize | None = None
    volumes: tuple[Volume | None, ...] = ()
    check: str = ""

    def __post_init__(self) -> None:
        if len(self.masks) != len(self.classifications):
            raise MaskError(
                f"{len(self.masks)} masks need as many classifications, "
                f"got {len(self.classifications)}"
            )
        if self.volumes and len(self.volumes) != len(self.masks):
            raise MaskError(
                f"{len(self.masks)} masks need as many volumes, got {len(self.volumes)}"
            )

    @classmethod
    def of(cls, frame: Frame, found: Detections | Sequence[Detection]) -> Detections:
        """Any selection of an image's detections as a batch."""
        if isinstance(found, Detections):
            return found
        masks = [Masks.empty(frame.size_hw), *(detection.masks for detection in found)]
        classifications = tuple(detection.classification for detection in found)
        return cls(
            frame.source_id, Masks.concatenate(masks), classifications, location=frame.location,
            pixel_size_um=frame.pixel_size_um,
        )  # fmt: skip

    @property
    def size_hw(self) -> tuple[int, int]:
        return self.masks.size_hw

    @property
    def label(self) -> npt.NDArray[np.object_]:
        """``(N,)`` of str or None."""
        return np.array([each.label for each in self.classifications], dtype=object)

    @property
    def best_label(self) -> npt.NDArray[np.object_]:
        """``(N,)`` of str or None."""
        return np.array([each.best_label for each in self.classifications], dtype=object)

    @property
    def confidence(self) -> npt.NDArray[np.float64]:
        """``(N,)`` in 0..1."""
        return np.array([each.confidence for each in self.classifications], dtype=np.float64)

    @property
    def score(self) -> FloatArray:
        """``(N,)`` in 0..1: the proposals' own quality."""
        return self.masks.predicted_ious

    @property
    def area(self) -> IntArray:
        return self.masks.areas

    @property
    def boxes_xyxy(self) -> IntArray:
        """``(N, 4)`` int64 ``x0, y0, x1, y1`` in pixels, half-open."""
        return self.masks.boxes_xyxy

    @property
    def xyxy(self) -> IntArray:
        """``boxes_xyxy`` under the name in other libraries."""
        return self.masks.boxes_xyxy

    def polygons(self) -> list[list[Ring]]:
        """For each detection the outlines of its parts, the largest first.

        An outline is ``(K, 2)`` float64, x and y in pixels; pixel ``i`` covers ``[i, i + 1]``.
        Holes are filled: see :meth:`polygons_with_holes`.
        """
        return [self.masks.polygons(index) for index in range(len(self))]

    def polygons_with_holes(
        self, *, tolerance_px: float = EXACT_TOLERANCE_PX
    ) -> list[list[Polygon]]:
        """For each detection its parts, the largest first; a part is a tuple of its outline and
        those of its holes, as of :meth:`polygons`. By default they cover exactly the masks'
        pixels; with a tolerance in pixels they are simplified."""
        polygons = self.masks.polygons_with_holes
        return [polygons(index, tolerance_px=tolerance_px) for index in range(len(self))]

    @property
    def known(self) -> Detections:
        """Only those with a label."""
        return self[[i for i, label in enumerate(self.label) if label is not None]]

    def only(self, labels: Collection[str], *, unknown: bool = False) -> Detections:
        """Only those with one of these labels; with ``unknown`` also those without a label."""
        wanted = (unknown if label is None else label in labels for label in self.label)
        return self[[i for i, each in enumerate(wanted) if each]]

    def __len__(self) -> int:
        return len(self.classifications)

    def __repr__(self) -> str:
        counts = Counter(self.label)
        unknown = counts.pop(None, 0)
        parts = [f"{number} {label!r}" for label, number in counts.most_common()]
        parts += [f"{unknown} unknown"] if unknown or not parts else []
        return f"Detections({self.source_id!r}: {', '.join(parts)})"

    @overload
    def __getitem__(self, selection: Index) -> Detection: ...
    @overload
    def __getitem__(self, selection: Selection) -> Detections: ...
    def __getitem__(self, selection: Index | Selection) -> Detection | Detections:
        if isinstance(selection, (int, np.integer)):
            index = int(selection)
            if not -len(self) <= index < len(self):
                raise IndexError(f"detection {index} of {len(self)} does not exist")
            index %= len(self)
            return Detection(masks=self.masks[[index]], classification=self.classifications[index])
        keep = np.arange(len(self))[as_index(selection)]
        return Detections(
            source_id=self.source_id,
            masks=self.masks[keep],
            classifications=tuple(self.classifications[i] for i in keep),
            recipe=self.recipe,
            timings_ms=self.timings_ms,
            location=self.location,
            pixel_size_um=self.pixel_size_um,
            volumes=tuple(self.volumes[i] for i in keep) if self.volumes else (),
            check=self.check,
        )

    def __iter__(self) -> Iterator[Detection]:
        return (self[index] for index in range(len(self)))

    def measures(self, index: int) -> dict[str, float]:
        """What is known of the size of one object: ``area_um2``, ``volume_id``, ``volume_voxels``
        and ``volume_um3``, each only where it is known."""
        volume = self.volumes[index] if self.volumes else None
        found = area_um2(int(self.area[index]), self.pixel_size_um)
        return found | ({} if volume is None else volume.to_dict())

    def to_dict(self, *, explain: bool = False) -> dict[str, Any]:
        """The JSON object of ``detect --json``; with the explanations of ``--explain``."""
        height, width = self.size_hw
        place: dict[str, Any] = {} if self.location is None else {"location": list(self.location)}
        size = self.pixel_size_um
        if size is not None:
            place["pixel_size_um"] = size.to_dict()
        return {
            "image": self.source_id,
            **place,
            "width": width,
            "height": height,
            "recipe": self.recipe,
            "timings_ms": {name: round(float(value), 3) for name, value in self.timings_ms.items()},
            **({"check": self.check} if self.check else {}),
            "detections": [
                {**detection.to_dict(explain=explain), **self.measures(index)}
                for index, detection in enumerate(self)
            ],
        }

    def to_annotations(
        self, *, location: Location | None = None, tolerance_px: float = EXACT_TOLERANCE_PX
    ) -> tuple[Annotation, ...]:
        """An annotation of each detection, for files of annotations: see
        :func:`sam_detect.types.conversions.to_annotations`."""
        from sam_detect.types.conversions import to_annotations

        return to_annotations(self, location, tolerance_px)

    def to_coco(self) -> dict[str, Any]:
        """A COCO dataset of this image: see :class:`sam_detect.types.conversions.COCODataset`.

        Objects without a label get the category ``unknown``; ``detections.known`` excludes them.
        """
        from sam_detect.types.conversions import COCODataset

        dataset = COCODataset()
        dataset.add(self, self.source_id)
        return dataset.to_dict()

    def to_pandas(self) -> Any:
        """A ``pandas.DataFrame`` with a row for each detection.

        Columns: image, label (None for unknown), confidence, best_label, x, y, w, h, area (in
        pixels), score.

        Raises:
            UnavailableError: pandas is not installed.
        """
        from sam_detect.types.conversions import to_pandas

        return to_pandas(self)

    def to_supervision(self, labels: Sequence[str] | None = None) -> Any:
        """A ``supervision.Detections``, for its annotators, trackers and metrics.

        ``class_id`` is the label's index in ``labels``, ``data["class_name"]`` its name. Objects
        without a label have the class ``unknown``, the last one.

        Args:
            labels: the labels in the order of their numbers, for equal numbers in several images;
                by default those of this image, sorted.

        Raises:
            UnavailableError: supervision is not installed.
            ConfigError: a detection's label is not among ``labels``.
        """
        from sam_detect.types.conversions import to_supervision

        return to_supervision(self, labels)


@dataclass(frozen=True, eq=False)
class TrackedFrame:
    """One frame of a video and the objects in it.

    Attributes:
        frame: the image, with its place in the video (``index``, ``time_s``).
        detections: the N objects.
        track_ids: ``(N,)`` int64, from 1; an object keeps its own from frame to frame. 0 for
            objects that are not tracked.
        key: whether this is a key frame, on which the detector ran; else detections were carried
            here by motion.
    """

    frame: Frame
    detections: Detections
    track_ids: IntArray
    key: bool = False

    __repr__ = short_repr

    def __post_init__(self) -> None:
        if self.track_ids.shape != (len(self.detections),):
            raise MaskError(
                f"{len(self.detections)} detections need as many track ids, "
                f"got {self.track_ids.shape}"
            )

    def to_dict(self) -> dict[str, Any]:
        """The JSON object of a line of ``sam-detect video --json``; only a key frame's
        detections have ``neighbours``."""
        height, width = self.detections.size_hw
        time_s = self.frame.time_s
        detections = [each.to_dict() for each in self.detections]
        if not self.key:  # they would be most of the file
            detections = [
                {k: v for k, v in each.items() if k != "neighbours"} for each in detections
            ]
        return {
            "video": self.frame.source_id,
            "frame": self.frame.index,
            "time_s": None if time_s is None else round(time_s, 6),
            "key": self.key,
            "width": width,
            "height": height,
            "detections": [
                {"track_id": int(track) or None, **detection}
                for track, detection in zip(self.track_ids, detections, strict=True)
            ],
        }
