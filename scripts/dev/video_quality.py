"""How well users' commands follow the objects of annotated videos, against their outlines.

    ./scripts/video-quality FOLDER... [--embedder NAME] [--json] [--video OPTION...]

A folder holds ``annotations.json`` (COCO with ``track_id``) and the frames. The objects are learnt
from the first frame with ``sam-detect learn FRAME --masks``, into a library of its own, and
followed with ``sam-detect video FRAMES --output out.jsonl``, which gets the options after
``--video``. All other settings are those that users have.

``J`` and ``F`` are the measures of DAVIS (Perazzi et al. 2016): the IoU of an object with the named
one that overlaps it most, and the F measure of that one's edge; 0 where nothing of its name
overlaps it. The first frame does not count. Every other named object is a false one. Of a frame
that was dropped (``--video --live``), what the frame before showed is compared.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sam_detect.errors import ImageError, SamDetectError
from sam_detect.io import find_images, load_image
from sam_detect.io.coco import read_coco
from sam_detect.types import AnnotatedImage, Masks, TrackedFrame
from sam_detect.types.masks import rle_to_mask
from scripts.dev.boundary import boundary_f
from scripts.dev.overlaps import iou_matrix

FIGURES = ("j", "f", "false_per_frame", "continuity", "switches", "seconds_per_frame")


@dataclass(frozen=True)
class Outlined:
    """The objects of one frame, annotated or followed.

    Attributes:
        masks: their N masks.
        ids: N numbers, each the same in all frames of an object.
        labels: their N names; None for what is followed without a name.
    """

    masks: Masks
    ids: tuple[int, ...]
    labels: tuple[str | None, ...]

    @classmethod
    def of_tracked(cls, tracked: TrackedFrame) -> Outlined:
        """What a stream followed."""
        found = tracked.detections
        return cls(found.masks, tuple(tracked.track_ids.tolist()), tuple(found.label))

    @classmethod
    def of_line(cls, line: str, size_hw: tuple[int, int]) -> Outlined:
        """What a line of JSON of ``sam-detect video`` says."""
        found = json.loads(line)["detections"]
        masks = [Masks.from_dense(rle_to_mask(each["segmentation"])) for each in found]
        return cls(
            Masks.concatenate([Masks.empty(size_hw), *masks]),
            tuple(int(each["track_id"] or 0) for each in found),
            tuple(each["label"] for each in found),
        )


@dataclass(frozen=True)
class ObjectQuality:
    """How well one object was followed in the frames that show it, the first left out.

    Attributes:
        id, label: the object.
        frames: how many those are.
        j: mean IoU with the one of its name that overlaps it most.
        f: mean F measure of the same one's edge.
        continuity: share of the frames in which that one is on the object's own track, that is on
            the one that overlapped it most in the first frame in which any did.
        switches: how often it is on another track than before.
    """

    id: int
    label: str | None
    frames: int
    j: float
    f: float
    continuity: float
    switches: int


@dataclass(frozen=True)
class VideoQuality:
    """How well the objects of a video were followed.

    Attributes:
        objects: one by one.
        false_per_frame: named objects that are not the best one of an object of their name, in the
            mean over all frames.
        false_tracks: tracks that were such in a frame.
        seconds_per_frame: of the command, its start included; None where they were not counted.
    """

    objects: tuple[ObjectQuality, ...]
    false_per_frame: float
    false_tracks: int
    seconds_per_frame: float | None = None

    @property
    def j(self) -> float:
        """Mean of the objects' J."""
        return _mean([each.j for each in self.objects])

    @property
    def f(self) -> float:
        """Mean of the objects' F."""
        return _mean([each.f for each in self.objects])

    @property
    def continuity(self) -> float:
        return _mean([each.continuity for each in self.objects])

    @property
    def switches(self) -> int:
        return sum(each.switches for each in self.objects)

    def to_dict(self) -> dict[str, Any]:
        """As plain data, means first."""
        return {**{name: getattr(self, name) for name in FIGURES}, **asdict(self)}


def video_quality(followed: Sequence[Outlined], outlined: Sequence[Outlined]) -> VideoQuality:
    """Compares what was followed with what was outlined, frame by frame.

    Raises:
        ImageError: they are of unequal numbers of frames.
    """
    if len(followed) != len(outlined):
        raise ImageError(f"{len(followed)} frames were followed, {len(outlined)} are outlined")
    best = [_best(f, o) for f, o in zip(followed, outlined, strict=True)]
    names = {i: name for each in outlined for i, name in zip(each.ids, each.labels, strict=True)}
    false = [
        {frame.ids[i] for i, name in enumerate(frame.labels) if name and i not in found.values()}
        for frame, found in zip(followed, best, strict=True)
    ]
    return VideoQuality(
        objects=tuple(_object(i, names[i], followed, outlined, best) for i in sorted(names)),
        false_per_frame=_mean([float(len(each)) for each in false]),
        false_tracks=len(set().union(*false)),
    )


def measure(
    folder: Path, *, embedder: str | None = None, video: Sequence[str] = ()
) -> VideoQuality:
    """Learns the objects of a video's first frame, then follows them through all of it, each with
    the command that users type, in a ``SAM_DETECT_HOME`` of its own.

    Args:
        folder: ``annotations.json`` (COCO, with ``track_id``), and the frames in or below it.
        embedder: of ``learn``; None for its default.
        video: options of ``video``.

    Raises:
        ImageError: the folder or its annotations cannot be read, a frame is not annotated, or a
            command failed.
    """
    images, _ = read_coco(folder / "annotations.json", find_images(folder))
    images = sorted(images, key=lambda image: image.path)
    outlined = [_outlined(image) for image in images]
    first = Path(images[0].path)
    with tempfile.TemporaryDirectory(prefix="video-quality-") as place:
        home = Path(place)
        parts = [] if embedder is None else ["--embedder", embedder]
        for label in sorted({str(label) for label in outlined[0].labels}):
            chosen = [i for i, each in enumerate(outlined[0].labels) if each == label]
            # A stack of masks: an object of several parts stays one.
            np.save(home / "masks.npy", [outlined[0].masks.dense(i) for i in chosen])
            masks = ["--masks", str(home / "masks.npy")]
            _command(home, "learn", str(first), "--label", label, *masks, *parts)
        start = time.monotonic()
        _command(home, "video", str(first.parent), "--output", str(home / "out.jsonl"), *video)
        elapsed_s = time.monotonic() - start
        lines = (home / "out.jsonl").read_text(encoding="ascii").splitlines()
    followed = shown_at(lines, [each.masks.size_hw for each in outlined])
    found = video_quality(followed, outlined)
    return replace(found, seconds_per_frame=elapsed_s / len(lines))


def shown_at(lines: Sequence[str], sizes_hw: Sequence[tuple[int, int]]) -> list[Outlined]:
    """What lines of JSON say for each frame of a video: of one that was dropped, what was shown
    before; nothing before the first line.

    Args:
        lines: of ``sam-detect video``, in order.
        sizes_hw: of each frame of the video.
    """
    line_of = {json.loads(line)["frame"]: line for line in lines}
    found: list[Outlined] = []
    for index, size_hw in enumerate(sizes_hw):
        before = found[-1] if found else Outlined(Masks.empty(size_hw), (), ())
        line = line_of.get(index)
        found.append(before if line is None else Outlined.of_line(line, size_hw))
    return found


def _command(home: Path, *arguments: str) -> None:
    environment = {**os.environ, "SAM_DETECT_HOME": str(home)}
    done = subprocess.run(
        [sys.executable, "-m", "sam_detect", *arguments],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise ImageError(f"sam-detect {arguments[0]} failed: {done.stderr.strip()}")


def _outlined(image: AnnotatedImage) -> Outlined:
    frame = load_image(image.path)
    drawn = [each.rle(frame.size_hw) for each in image.outlines]
    masks = [Masks.from_dense(rle_to_mask(rle)) for rle in drawn if rle is not None]
    if len(masks) < len(drawn):
        raise ImageError(f"an object of {image.path} has no outline")
    return Outlined(
        Masks.concatenate([Masks.empty(frame.size_hw), *masks]),
        tuple(int(each.references["track_id"] or 0) for each in image.outlines),
        tuple(str(each.label) for each in image.outlines),
    )


def _best(followed: Outlined, outlined: Outlined) -> dict[int, int]:
    """By number of an object, the index of the one of its name that overlaps it most."""
    ious = _ious(followed, outlined)
    same = np.array([[a == b for b in followed.labels] for a in outlined.labels], np.bool_)
    ious = np.where(same.reshape(ious.shape), ious, 0.0)
    return {
        number: int(row.argmax())
        for number, row in zip(outlined.ids, ious, strict=True)
        if row.any()
    }


def _object(
    number: int,
    label: str | None,
    followed: Sequence[Outlined],
    outlined: Sequence[Outlined],
    best: Sequence[dict[int, int]],
) -> ObjectQuality:
    overlaps, edges, tracks = [], [], []
    for frame, truth, found in zip(followed, outlined, best, strict=True):
        if number not in truth.ids:
            continue
        index, place = found.get(number), truth.ids.index(number)
        tracks.append(0 if index is None else frame.ids[index])
        drawn = truth.masks.dense(place)
        mask = np.zeros_like(drawn) if index is None else frame.masks.dense(index)
        overlaps.append(float((mask & drawn).sum() / (mask | drawn).sum()))
        edges.append(boundary_f(mask, drawn))
    named = [track for track in tracks if track]
    own = [track == named[0] for track in tracks] if named else [False] * len(tracks)
    return ObjectQuality(
        id=number, label=label, frames=len(tracks) - 1, j=_mean(overlaps[1:]), f=_mean(edges[1:]),
        continuity=_mean([float(each) for each in own[1:]]),
        switches=sum(a != b for a, b in itertools.pairwise(named)),
    )  # fmt: skip


def _ious(followed: Outlined, outlined: Outlined) -> npt.NDArray[np.float64]:
    """``(objects, tracks)``."""
    both = Masks.concatenate([outlined.masks, followed.masks])
    count = len(outlined.ids)
    return iou_matrix(both.crops(), both.boxes_xyxy)[:count, count:]


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if len(values) else 0.0


def main(arguments: Sequence[str] | None = None) -> int:
    given = parser().parse_args(arguments)
    figures = []
    for folder in given.folders:
        try:
            found = measure(folder, embedder=given.embedder, video=given.video)
        except SamDetectError as error:
            print(f"error: {error}", file=sys.stderr)
            return error.exit_code
        said = found.to_dict()
        figures.append({name: said[name] for name in FIGURES})
        _print(str(folder), said, as_json=given.json)
    if len(figures) > 1:
        means = {name: _mean([each[name] for each in figures]) for name in FIGURES}
        _print("mean", means, as_json=given.json)
    return 0


def _print(video: str, figures: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"video": video, **figures}), flush=True)
        return
    print(
        f"{video}: J {figures['j']:.3f}, F {figures['f']:.3f}, "
        f"false objects a frame {figures['false_per_frame']:.2f}, "
        f"continuity {figures['continuity']:.3f}, id switches {figures['switches']:g}, "
        f"{figures['seconds_per_frame']:.2f} s a frame",
        flush=True,
    )


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="scripts/video-quality", description=__doc__.splitlines()[0]
    )
    made.add_argument("folders", nargs="+", type=Path, metavar="FOLDER")
    made.add_argument("--embedder", help="of sam-detect learn [default: its own]")
    made.add_argument(
        "--json", action="store_true", help="one JSON object for each folder, and one of the means"
    )
    made.add_argument(
        "--video", nargs=argparse.REMAINDER, default=[], metavar="OPTION",
        help="all that follows is for sam-detect video",
    )  # fmt: skip
    return made


if __name__ == "__main__":
    sys.exit(main())
