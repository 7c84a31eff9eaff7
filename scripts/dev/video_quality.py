"""How well the objects of annotated videos are followed, against their outlines in every frame.

    ./scripts/video-quality FOLDER... [--every N] [--segmenter NAME] [--json]

A folder holds ``annotations.json`` (COCO with ``track_id``) and the frames. The objects are learnt
from the first frame; the figures are of the frames after it.

``J`` is the region similarity of DAVIS (Perazzi et al. 2016): the mean IoU of an object with the
one track that has to stay on it, over the frames after the first; where the track is gone it is 0.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from sam_detect.api import SAMDetect
from sam_detect.errors import ImageError, SamDetectError
from sam_detect.masks import iou_matrix, rle_to_mask
from sam_detect.sources import find_images, load_image
from sam_detect.sources.annotations import AnnotatedImage, read_coco
from sam_detect.types import Masks, TrackedFrame
from sam_detect.vector_store import MemoryVectorStore

FOUND_IOU = 0.3
"""A named object that overlaps every outlined one less is a false one."""


@dataclass(frozen=True)
class Outlined:
    """The visible objects of one frame.

    Attributes:
        masks: their N masks.
        ids: N numbers, each the same in all frames of an object.
        labels: their N names.
    """

    masks: Masks
    ids: tuple[int, ...]
    labels: tuple[str, ...]


@dataclass(frozen=True)
class ObjectQuality:
    """How well one object was followed in the frames that show it, the first left out.

    Attributes:
        id, label: the object.
        frames: how many those are.
        j: mean IoU with its own track, that is with the one that overlaps it most in the first
            frame in which any does.
        continuity: share of the frames in which the track that overlaps it most is its own, and
            has its name.
        switches: how often another track than before overlaps it most.
    """

    id: int
    label: str
    frames: int
    j: float
    continuity: float
    switches: int


@dataclass(frozen=True)
class VideoQuality:
    """How well the objects of a video were followed.

    Attributes:
        objects: one by one.
        false_per_frame: named objects that are none, or have another name, in the mean.
        false_tracks: tracks that were such in a frame.
    """

    objects: tuple[ObjectQuality, ...]
    false_per_frame: float
    false_tracks: int

    @property
    def j(self) -> float:
        """Mean of the objects' J."""
        return _mean([each.j for each in self.objects])

    @property
    def continuity(self) -> float:
        return _mean([each.continuity for each in self.objects])

    @property
    def switches(self) -> int:
        return sum(each.switches for each in self.objects)

    def to_dict(self) -> dict[str, object]:
        """As plain data, means first."""
        means = {"j": self.j, "continuity": self.continuity, "switches": self.switches}
        return {**means, **asdict(self)}


def video_quality(tracked: Sequence[TrackedFrame], outlined: Sequence[Outlined]) -> VideoQuality:
    """Compares what was followed with what was outlined, frame by frame.

    Raises:
        ImageError: they are of unequal numbers of frames.
    """
    if len(tracked) != len(outlined):
        raise ImageError(f"{len(tracked)} frames were followed, {len(outlined)} are outlined")
    ious = [_ious(t, o) for t, o in zip(tracked, outlined, strict=True)]
    names = {i: name for each in outlined for i, name in zip(each.ids, each.labels, strict=True)}
    objects = [_followed(i, names[i], tracked, outlined, ious) for i in sorted(names)]
    false = [_false(t, o, iou) for t, o, iou in zip(tracked, outlined, ious, strict=True)]
    return VideoQuality(
        objects=tuple(objects),
        false_per_frame=_mean([float(len(each)) for each in false]),
        false_tracks=len(set().union(*false)),
    )


def measure(detector: SAMDetect, folder: str | Path, *, every: int = 10) -> VideoQuality:
    """Learns the objects of a video's first frame, then follows them through all of it.

    Args:
        detector: its library should know nothing else.
        folder: ``annotations.json`` (COCO, with ``track_id``), and the frames in or below it.
        every: frames from one key frame to the next.

    Raises:
        ImageError: the folder or its annotations cannot be read, or a frame is not annotated.
    """
    pictures = find_images(folder)
    images, _ = read_coco(Path(folder) / "annotations.json", pictures)
    outlined = [_outlined(image) for image in sorted(images, key=lambda image: image.path)]
    first = load_image(min(image.path for image in images))
    detector.learn_frame(first, outlined[0].masks, outlined[0].labels)
    frames = Path(first.source_id).parent
    with detector.stream(frames, every=every) as stream:
        return video_quality(list(stream), outlined)


def _outlined(image: AnnotatedImage) -> Outlined:
    frame = load_image(image.path)
    drawn = [each.rle(frame.size_hw) for each in image.outlines]
    masks = [Masks.from_dense(rle_to_mask(rle)) for rle in drawn if rle is not None]
    if len(masks) < len(drawn):
        raise ImageError(f"an object of {image.path} has no outline")
    return Outlined(
        Masks.concatenate([Masks.empty(frame.size_hw), *masks]),
        tuple(int(each.track_id or 0) for each in image.outlines),
        tuple(each.label for each in image.outlines),
    )


def _followed(
    object_id: int,
    label: str,
    tracked: Sequence[TrackedFrame],
    outlined: Sequence[Outlined],
    ious: Sequence[npt.NDArray[np.float64]],
) -> ObjectQuality:
    own, before, switches = 0, 0, 0
    overlaps, right = [], []
    shown = [i for i, each in enumerate(outlined) if object_id in each.ids]
    for place in shown:
        row = ious[place][outlined[place].ids.index(object_id)]
        best = int(row.argmax()) if row.any() else -1
        track = int(tracked[place].track_ids[best]) if best >= 0 else 0
        own = own or track
        mine = tracked[place].track_ids == own
        overlaps.append(float(row[mine].max()) if mine.any() else 0.0)
        right.append(
            track == own > 0 and tracked[place].detections.classifications[best].label == label
        )
        switches += track != before and track > 0 and before > 0
        before = track or before
    return ObjectQuality(
        object_id, label, len(shown) - 1, _mean(overlaps[1:]), _mean(right[1:]), switches
    )


def _false(tracked: TrackedFrame, outlined: Outlined, ious: npt.NDArray[np.float64]) -> set[int]:
    """The tracks of named objects that are none of that name."""
    found = tracked.detections.label
    same = np.equal.outer(np.array(outlined.labels, object), found).astype(np.bool_)
    overlap = np.where(same, ious, 0.0).max(axis=0, initial=0.0)
    named = np.array([label is not None for label in found], np.bool_)
    return set(tracked.track_ids[named & (overlap < FOUND_IOU)].tolist())


def _ious(tracked: TrackedFrame, outlined: Outlined) -> npt.NDArray[np.float64]:
    """``(objects, tracks)``."""
    both = Masks.concatenate([outlined.masks, tracked.detections.masks])
    count = len(outlined.ids)
    return iou_matrix(both.crops(), both.boxes_xyxy)[:count, count:]


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if len(values) else 0.0


def main(arguments: Sequence[str] | None = None) -> int:
    given = parser().parse_args(arguments)
    for folder in given.folders:
        try:
            detector = SAMDetect(
                vector_store=MemoryVectorStore(),
                segmenter=given.segmenter,
                embedder=given.embedder,
                embedding_cache_size=10_000,
            )
            found = measure(detector, folder, every=given.every)
        except SamDetectError as error:
            print(f"error: {error}", file=sys.stderr)
            return error.exit_code
        print(json.dumps({"video": str(folder), **found.to_dict()}) if given.json
              else f"{folder}: {told(found)}", flush=True)  # fmt: skip
    return 0


def told(found: VideoQuality) -> str:
    return (
        f"J {found.j:.3f}, continuity {found.continuity:.3f}, id switches {found.switches}, "
        f"false objects a frame {found.false_per_frame:.2f} (tracks: {found.false_tracks})"
    )


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="scripts/video-quality", description=__doc__.splitlines()[0]
    )
    made.add_argument("folders", nargs="+", type=Path, metavar="FOLDER")
    made.add_argument("--every", type=int, default=10, help="frames from one key frame to the next")
    made.add_argument("--segmenter", default="naive")
    made.add_argument("--embedder", default="appearance")
    made.add_argument("--json", action="store_true", help="one JSON object for each folder")
    return made


if __name__ == "__main__":
    sys.exit(main())
