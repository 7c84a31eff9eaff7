"""Moving scenes with known tracks, drawn by the tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import cv2
import numpy as np
import numpy.typing as npt

from sam_detect import SAMDetect
from sam_detect.interfaces import Source
from sam_detect.types import Frame, ImageRGB, Masks, TrackedFrame
from sam_detect.vector_store import MemoryVectorStore
from scripts.dev.video_quality import Outlined

FPS = 25.0
Place = Callable[[int], tuple[float, float]]
"""Frame number to the middle, x and y, in pixels of the world."""

COLOURS = {"cherry": (200, 40, 40), "plum": (60, 50, 190), "leaf": (40, 160, 60)}


@dataclass(frozen=True)
class Thing:
    """An object of a scene.

    Attributes:
        label: ``cherry`` (round), ``plum`` (an ellipse) or ``leaf`` (a triangle).
        place: where it is.
        radius: in pixels.
        frames: from which frame to before which it is there.
    """

    label: str
    place: Place
    radius: float = 11.0
    frames: tuple[int, int] = (0, 10_000)


@dataclass(frozen=True)
class Scene(Source):
    """Things before a wall, seen by a camera.

    Attributes:
        things: later ones are in front of earlier ones.
        count: how many frames.
        size_hw: of the frames.
        camera: where its left upper corner is in the world.
        bar: columns of the world that a grey bar covers, in front of everything.
        wall_rgb: its colour; its spots are of the seed.
        light: of each frame: what its values are multiplied with.
    """

    things: Sequence[Thing]
    count: int
    size_hw: tuple[int, int] = (144, 208)
    camera: Place = field(default=lambda _: (0.0, 0.0))
    bar: tuple[int, int] = (0, 0)
    light: Callable[[int], float] = field(default=lambda _: 1.0)
    wall_rgb: tuple[int, int, int] = (205, 198, 185)
    seed: int = 0

    def frames(self) -> Iterator[Frame]:
        for index in range(self.count):
            yield self.frame(index)

    def frame(self, index: int) -> Frame:
        image = self._drawn(index)[0]
        lit = np.clip(image.astype(np.float32) * self.light(index), 0, 255)
        return Frame(np.rint(lit).astype(np.uint8), "scene", index, time_s=index / FPS)

    def outlined(self, index: int, *, least: int = 40) -> Outlined:
        """The visible part of each thing; nothing of fewer pixels than ``least``."""
        owners = self._drawn(index)[1]
        shown = [i for i in range(len(self.things)) if np.count_nonzero(owners == i) >= least]
        masks = [Masks.from_dense(owners == i) for i in shown]
        return Outlined(
            Masks.concatenate([Masks.empty(self.size_hw), *masks]),
            tuple(i + 1 for i in shown),
            tuple(self.things[i].label for i in shown),
        )

    def every(self, step: int) -> Scene:
        """The same, of which only each so many-th frame is seen."""
        return replace(
            self,
            things=[replace(t, place=lambda i, p=t.place: p(i * step)) for t in self.things],
            count=self.count // step,
            camera=lambda i: self.camera(i * step),
        )

    def _drawn(self, index: int) -> tuple[ImageRGB, npt.NDArray[np.int16]]:
        left, top = self.camera(index)
        image = self._wall(left, top)
        owners = np.full(self.size_hw, -1, np.int16)
        for number, thing in enumerate(self.things):
            if not thing.frames[0] <= index < thing.frames[1]:
                continue
            x, y = thing.place(index)
            _paint(image, owners, number, thing, (x - left, y - top))
        x0, x1 = (round(x - left) for x in self.bar)
        if x1 > max(x0, 0):
            image[:, max(x0, 0) : x1] = (120, 118, 112)
            owners[:, max(x0, 0) : x1] = -1
        return image, owners

    def _wall(self, left: float, top: float) -> ImageRGB:
        """A wall with soft spots, so that a camera's movement can be seen."""
        height, width = self.size_hw
        noise = np.random.default_rng(self.seed).normal(size=(60, 90)).astype(np.float32)
        spots = cv2.GaussianBlur(cv2.resize(noise, (90 * 8, 60 * 8)), (0, 0), 2) * 14
        shift = np.array([[1, 0, left + 60], [0, 1, top + 60]], np.float32)
        seen = cv2.warpAffine(
            spots, shift, (width, height), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        )
        return np.clip(seen[..., None] + self.wall_rgb, 0, 255).astype(np.uint8)


def _paint(
    image: ImageRGB,
    owners: npt.NDArray[np.int16],
    number: int,
    thing: Thing,
    middle_xy: tuple[float, float],
) -> None:
    """Draws one thing, with a smooth edge and a lighter spot."""
    cover = np.zeros(image.shape[:2], np.uint8)
    fine = [round(v * 16) for v in middle_xy]
    r = round(thing.radius * 16)
    if thing.label == "leaf":
        corners = np.array([[fine[0], fine[1] - r], [fine[0] + r, fine[1] + r],
                            [fine[0] - r, fine[1] + r]])  # fmt: skip
        cv2.fillPoly(cover, [corners], 255, cv2.LINE_AA, 4)
    else:
        axes = (r, r if thing.label == "cherry" else round(r * 0.6))
        cv2.ellipse(cover, tuple(fine), axes, 0, 0, 360, 255, -1, cv2.LINE_AA, 4)
    colour = np.full_like(image, COLOURS[thing.label])
    spot = [round((v - thing.radius * 0.3) * 16) for v in middle_xy]
    lighter = tuple(min(255, c + 50) for c in COLOURS[thing.label])
    cv2.circle(colour, tuple(spot), round(thing.radius * 4), lighter, -1, cv2.LINE_AA, 4)
    share = cover[..., None].astype(np.float32) / 255
    image[:] = np.rint(image * (1 - share) + colour * share).astype(np.uint8)
    owners[cover > 127] = number


def along(x: float, y: float, dx: float, dy: float) -> Place:
    """A straight way."""
    return lambda index: (x + dx * index, y + dy * index)


def busy_scene() -> Scene:
    """Objects of three kinds: two of one kind cross, three pass behind a bar, one leaves, one
    enters, and the camera turns."""
    return Scene(
        [
            Thing("cherry", along(20, 30, 1.6, 0.2)),
            Thing("cherry", along(190, 60, -1.4, 0)),
            Thing("plum", along(40, 110, 1.2, -0.7)),
            Thing("plum", along(150, 40, -0.6, 0.9)),
            Thing("leaf", along(160, 118, 0.2, -0.1)),
            Thing("leaf", along(30, 70, -1.0, 0.3), frames=(0, 60)),
            Thing("cherry", along(-72, 126, 1.2, 0)),
        ],
        count=90,
        bar=(96, 116),
        camera=along(0, 0, 0.3, 0.1),
    )


def detector_that_knows(scene: Scene | None) -> SAMDetect:
    """A detector without weights that has learnt the objects of the first frame."""
    detector = SAMDetect(
        vector_store=MemoryVectorStore(),
        segmenter="naive",
        embedder="appearance",
        embedding_cache_size=10_000,
    )
    if scene is not None:
        outlined = scene.outlined(0)
        detector.learn_frame(scene.frame(0), outlined.masks, outlined.labels)
    return detector


def followed(scene: Scene, *, every: int = 10) -> list[TrackedFrame]:
    """What a stream says of all frames, once the objects of the first one are learnt."""
    with detector_that_knows(scene).stream(scene, every=every) as stream:
        return list(stream)
