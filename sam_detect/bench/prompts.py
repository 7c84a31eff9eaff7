"""The suite ``prompts``: how many objects each way to ask SAM 2 reaches, with how many prompts.

Neither weights nor their speed matter here: see :mod:`~sam_detect.bench.coverage`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from sam_detect.bench.measurements import Measurements
from sam_detect.bench.suites import Options, Suite
from sam_detect.bench.timing import Trial
from sam_detect.errors import ConfigError
from sam_detect.evaluation.dataset import masks_of
from sam_detect.evaluation.readers import open_dataset
from sam_detect.registry import needing_extra
from sam_detect.sources import load_image

if TYPE_CHECKING:
    from sam_detect.bench.coverage import Scene, Way


class PromptsSuite(Suite):
    """Coverage on drawn pictures, and on the annotated ones of a user; the time of choosing."""

    repeat = 3
    takes: ClassVar[frozenset[str]] = frozenset({"datasets"})

    def run(self, measurements: Measurements, options: Options) -> None:
        with needing_extra("the suite 'prompts'"):
            from sam_detect.bench import coverage
        drawn = coverage.drawn_scenes()
        sets = {"drawn": drawn, **{path.name: _scenes(path) for path in options.datasets}}
        measurements.workload = ", ".join(
            f"{name} ({len(scenes)} pictures, {sum(len(s.objects) for s in scenes)} objects)"
            for name, scenes in sets.items()
        )
        for name, way in coverage.WAYS.items():
            measurements.stage(_asking(name, drawn, way))
        for name, scenes in sets.items():
            measurements.announce(name)
            measurements.figures |= coverage.figures(name, scenes)


def _asking(name: str, scenes: Sequence[Scene], way: Way) -> Trial:
    from sam_detect.bench.coverage import coverage

    return Trial(f"drawn_{name}", lambda _: coverage(scenes, way))


def _scenes(path: Path) -> Sequence[Scene]:
    """The pictures of a dataset that have objects, with these; boxes are filled."""
    from sam_detect.bench.coverage import Scene

    scenes = []
    for picture in open_dataset(path).pictures:
        objects = [each for each in picture.objects if not each.crowd]
        if objects:
            frame = load_image(str(picture.path))
            scenes.append(Scene(frame.image_rgb, masks_of(picture, objects)))
    if not scenes:
        raise ConfigError(f"the dataset {path} has no picture with an outlined object")
    return scenes
