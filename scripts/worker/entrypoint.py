#!/usr/bin/env python3
"""Few-shot segmentation, or refining what is annotated, as a worker of a NimbusImage server.

The server starts it in a container, with one request:

    entrypoint.py --apiUrl URL --token TOKEN --request interface --parameters '{"image": NAME}'
    entrypoint.py --apiUrl URL --token TOKEN --datasetId ID --request compute --parameters JSON

``interface`` sends the fields that a user fills in. ``compute`` takes their values. Which worker it
is, ``SAM_DETECT_WORKER`` says: ``fewshot`` (the default) learns the annotations with the training
tag, seeks objects like them and adds these to the dataset, all or none. ``refine`` redraws
annotations along the edges of their objects, adds these, all or none, and then deletes the old ones
if it is asked to. Progress, warnings and errors are JSON, one line each, on stdout. It trusts the
server: the client ``nimbusimage`` unpickles the images that it sends.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import tempfile
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sam_detect.cli.fewshot import with_presets
from sam_detect.errors import ConfigError, ImageError, SamDetectError, one_line
from sam_detect.models.weights import available_sam2
from sam_detect.options import parts_with
from sam_detect.types import AnnotatedImage, Annotation

Location = tuple[int, int, int]
CHECKPOINTS = tuple(f"sam2.1_hiera_{size}" for size in ("base_plus", "tiny", "small", "large"))
WITHOUT_WEIGHTS = ("auto", "forest", "naive")
AXES = {"xy": "XY", "z": "Z", "t": "Time"}
PLACEHOLDER = "ex. 1-3, 5-8"


def interface_of(checkpoints: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The fields of the form, by their names.

    Args:
        checkpoints: the files of SAM 2 that are on this machine; the first is the default.
    """
    models = [*checkpoints, *WITHOUT_WEIGHTS]
    fields: dict[str, dict[str, Any]] = {
        "Few-shot": _notes("Finds all objects like those that carry the training tag. Outline five "
                           "to ten, as different as they come; all are sought at the positions "
                           "below."),
        "Training Tag": {"type": "tags", "tooltip": "Annotations with it are the examples."},
        "Negative Tag": {"type": "tags", "tooltip": "Annotations of what is not sought."},
        **{
            f"Batch {axis}": {
                "type": "text",
                "vueAttrs": {
                    "label": f"{axis} positions to search; empty: the current one",
                    "placeholder": PLACEHOLDER,
                },
            }
            for axis in AXES.values()
        },
        "Model": {
            "type": "select", "items": models, "default": models[0],
            "tooltip": "What proposes objects. 'forest' learns the pixels of the examples.",
        },
        "Similarity Threshold": _number(
            0, 1, 0, "Least cosine to the mean of the examples; 0: calibrated on the examples."
        ),
        "Target Occupancy": _number(0.05, 0.8, 0.2, "Share of the crop that an object takes."),
        "Points per side": _number(16, 256, 128, "Density of the grid that SAM 2 is asked with."),
        "Min Mask Area": _number(0, 10**9, 30, "Pixels."),
        "Max Mask Area": _number(0, 10**9, 0, "Pixels; 0: no limit."),
        "Smoothing": _number(0, 3, 0.3, "Tolerance of the polygons, in pixels."),
    }  # fmt: skip
    return {name: {**each, "displayOrder": n} for n, (name, each) in enumerate(fields.items())}


def _notes(text: str) -> dict[str, Any]:
    return {"type": "notes", "value": text}


def _number(least: float, most: float, default: float, tooltip: str) -> dict[str, Any]:
    return {"type": "number", "min": least, "max": most, "default": default, "tooltip": tooltip}


@dataclass(frozen=True)
class Job:
    """What a user asked for.

    Attributes:
        tags, negative_tags: of the examples and of what is not sought.
        ranges: positions to search by the names of :data:`AXES`, as texts that count from 1.
        settings: of the detector.
        smoothing: of the polygons, in pixels.
        output_tags: of what is found.
        channel: that the new annotations belong to.
    """

    tags: tuple[str, ...]
    negative_tags: tuple[str, ...]
    ranges: dict[str, str]
    settings: dict[str, Any]
    smoothing: float
    output_tags: tuple[str, ...]
    channel: int

    @classmethod
    def of(cls, params: Mapping[str, Any], checkpoints: Sequence[str]) -> Job:
        """Checks the parameters of a request; raises ``ConfigError`` that names the field."""
        form, values = interface_of(checkpoints), _filled_in(params)
        numbers = {
            name: _checked_number(name, values.get(name), field)
            for name, field in form.items()
            if field["type"] == "number"
        }
        tags = _tags("Training Tag", values.get("Training Tag"))
        negative = _tags("Negative Tag", values.get("Negative Tag"))
        if not tags:
            raise ConfigError("Training Tag is empty: choose the tag of your examples")
        if set(tags) & set(negative):
            raise ConfigError("Training Tag and Negative Tag share a tag: choose different ones")
        output = _tags("tags", params.get("tags"))
        return cls(
            tags, negative, _ranges(params, values),
            _settings(values.get("Model"), form["Model"], numbers), numbers["Smoothing"],
            output or tags, int(params.get("channel") or 0),
        )  # fmt: skip


def _settings(model: Any, field: Mapping[str, Any], numbers: Mapping[str, float]) -> dict[str, Any]:
    model = field["default"] if model is None else model
    if model not in field["items"]:
        listed = ", ".join(field["items"])
        raise ConfigError(f"Model '{model}' is not on this machine: choose one of {listed}")
    found: dict[str, Any] = {
        "segmenter": model,
        "occupancy": numbers["Target Occupancy"],
        "min_area": int(numbers["Min Mask Area"]),
        "max_area": int(numbers["Max Mask Area"]),
    }
    if model not in WITHOUT_WEIGHTS:
        found |= {"segmenter": "sam2", "sam_model": model.removesuffix(".pt")}
    if ("segmenter", found["segmenter"]) in parts_with("points_per_side"):
        found["points_per_side"] = int(numbers["Points per side"])
    if numbers["Similarity Threshold"]:
        found["similarity_threshold"] = numbers["Similarity Threshold"]
    return found


def _filled_in(params: Mapping[str, Any]) -> Mapping[str, Any]:
    values = params.get("workerInterface")
    if not isinstance(values, Mapping):
        raise ConfigError("the request has no 'workerInterface': fill in the worker's form")
    return values


def _ranges(params: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, str]:
    """Positions by the names of :data:`AXES`; where a field is empty, the one that is shown."""
    tile = params.get("tile") or {}
    return {
        name: str(values.get(f"Batch {axis}") or "").strip() or str(int(tile.get(axis, 0)) + 1)
        for name, axis in AXES.items()
    }


def _checked_number(name: str, value: Any, field: Mapping[str, Any]) -> float:
    least, most = field["min"], field["max"]
    try:
        number = float(field["default"] if value in (None, "") else value)
    except (TypeError, ValueError):
        number = math.nan
    if not least <= number <= most:
        raise ConfigError(f"{name} is {value!r}: expected a number from {least} to {most}")
    return number


def _tags(name: str, value: Any) -> tuple[str, ...]:
    given = [] if value is None or value == "" else [value] if isinstance(value, str) else value
    if not isinstance(given, list) or not all(isinstance(each, str) for each in given):
        raise ConfigError(f"{name} is {value!r}: expected a list of tags")
    return tuple(given)


class Pictures:
    """The merged images of a dataset, each as a file in a folder, fetched on demand."""

    def __init__(self, dataset: Any, folder: Path) -> None:
        self._dataset, self._folder = dataset, folder
        layers = dataset.collections.layers
        if not any(layer.get("visible", True) for layer in layers):
            raise ImageError(
                "no layer of the dataset is visible: show the channels to search in, and run again"
            )
        self.counts = (dataset.num_xy, dataset.num_z, dataset.num_time)

    def has(self, location: Location) -> bool:
        """Whether the dataset has this position."""
        return all(0 <= at < count for at, count in zip(location, self.counts, strict=True))

    def fetch(self, location: Location) -> str:
        """The path of the image at a position (XY, Z, time) from 0, as its layers show it."""
        from PIL import Image

        path = self._folder / ("_".join(map(str, location)) + ".png")
        if not path.exists():
            xy, z, time = location
            merged = self._dataset.images.get_composite(xy=xy, z=z, time=time, dtype="uint8")
            Image.fromarray(merged).save(path, compress_level=1)
        return str(path)

    def locations(self, ranges: Mapping[str, str]) -> list[Location]:
        """The positions to search, in order."""
        from sam_detect.io import PlaneRanges

        try:
            chosen = PlaneRanges(**ranges)
            xys, zs, times = (
                chosen.of(name, count, "the dataset")
                for name, count in zip(AXES, self.counts, strict=True)
            )
        except SamDetectError as error:
            text = one_line(error)
            for name, axis in AXES.items():
                text = text.replace(f"--{name} ", f"Batch {axis} ")
            raise type(error)(text.replace("the file has", "it has")) from error
        return [(xy, z, time) for time in times for z in zs for xy in xys]


def refine_interface_of(checkpoints: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The fields of the form of ``refine``; takes what :func:`interface_of` does."""
    common, models = interface_of(checkpoints), [*checkpoints, "naive", "forest"]
    fields: dict[str, dict[str, Any]] = {
        "Refine": _notes("Redraws outlines along the edges of their objects. The old ones stay, "
                         "unless you ask for their deletion."),
        **{name: common[name] for name in (f"Batch {axis}" for axis in AXES.values())},
        "Tag of objects to refine": {"type": "tags", "tooltip": "Empty: all of them."},
        "Model": {
            "type": "select", "items": models, "default": models[0],
            "tooltip": "'naive' follows colours, 'forest' learns the texture of the objects.",
        },
        "Delete original annotations": {
            "type": "checkbox", "default": False,
            "tooltip": "When all new ones are in the dataset.",
        },
        "Padding": _number(-20, 20, 0, "Pixels by which outlines grow; below 0 they shrink."),
        "Smoothing": _number(0, 3, 0.7, "Tolerance of the polygons, in pixels."),
    }  # fmt: skip
    return {name: {**each, "displayOrder": n} for n, (name, each) in enumerate(fields.items())}


@dataclass(frozen=True)
class RefineJob:
    """What a user asked for.

    Attributes:
        tags: of the annotations to refine; empty for all.
        ranges: as of :class:`Job`.
        settings: of the detector.
        padding, smoothing: of the outlines, in pixels.
        delete: whether the old annotations go.
        output_tags: of the new ones; empty: those of the old ones.
    """

    tags: tuple[str, ...]
    ranges: dict[str, str]
    settings: dict[str, Any]
    padding: int
    smoothing: float
    delete: bool
    output_tags: tuple[str, ...]

    @classmethod
    def of(cls, params: Mapping[str, Any], checkpoints: Sequence[str]) -> RefineJob:
        """Checks the parameters of a request; raises ``ConfigError`` that names the field."""
        form, values = refine_interface_of(checkpoints), _filled_in(params)
        model, field = values.get("Model") or form["Model"]["default"], form["Model"]
        if model not in field["items"]:
            listed = ", ".join(field["items"])
            raise ConfigError(f"Model '{model}' is not on this machine: choose one of {listed}")
        settings = {"segmenter": model}
        if model not in WITHOUT_WEIGHTS:
            settings = {"segmenter": "sam2", "sam_model": model.removesuffix(".pt")}
        asked = "Tag of objects to refine"
        return cls(
            _tags(asked, values.get(asked)), _ranges(params, values), settings,
            int(_checked_number("Padding", values.get("Padding"), form["Padding"])),
            _checked_number("Smoothing", values.get("Smoothing"), form["Smoothing"]),
            values.get("Delete original annotations") is True, _tags("tags", params.get("tags")),
        )  # fmt: skip


def refine(context: Any, dataset_id: str, job: RefineJob) -> None:
    """Redraws, uploads and, if it is asked to, deletes the old annotations."""
    from sam_detect.api import SAMDetect
    from sam_detect.io.nimbus_server import delete, download, upload
    from sam_detect.microscopy.refine.objects import How, refine_objects

    context.progress(0.02, "Fetching annotations", ", ".join(job.tags) or "all tags")
    problems: list[str] = []
    outlines = [each for image in download(dataset_id, problems) for each in image.outlines]
    detector = SAMDetect(vector_store="memory", **job.settings)
    how = How(padding=job.padding, smoothing=job.smoothing)
    made: list[Annotation] = []
    old: list[Any] = []
    with tempfile.TemporaryDirectory(prefix="sam-detect-") as folder:
        pictures = Pictures(context.dataset, Path(folder))
        sought = pictures.locations(job.ranges)
        for number, location in enumerate(sought):
            here = [o for o in outlines if (o.location or (0, 0, 0)) == location
                    and (not job.tags or set(job.tags) & set(o.tags))]  # fmt: skip
            if not here:
                continue
            context.progress(
                0.1 + 0.8 * number / len(sought), "Refining", f"{number + 1} of {len(sought)}"
            )
            frame = detector.read(pictures.fetch(location))
            answers = refine_objects(frame, detector.segmenter, here, how)
            for outline, answer in zip(here, answers, strict=True):
                if isinstance(answer, str):
                    problems.append(f"annotation {outline.id}: {answer}")
                    continue
                made.append(replace(answer, tags=job.output_tags or outline.tags))
                old.append(outline.id)
    if not made and not problems:
        raise ImageError("no annotation has the tag to refine at these positions: choose another")
    if problems:
        context.warning(f"{len(problems)} annotations were kept", info="; ".join(problems))
    context.progress(0.92, "Uploading", f"{len(made)} annotations")
    upload(dataset_id, AnnotatedImage("", "", tuple(made)))
    if job.delete:
        delete(dataset_id, old)
    context.progress(1.0, "Complete", f"{len(made)} refined, {len(problems)} kept")


def compute(context: Any, dataset_id: str, job: Job) -> None:
    """Learns, finds and uploads."""
    from sam_detect.api import SAMDetect
    from sam_detect.io.nimbus_server import download, upload
    from sam_detect.microscopy.fewshot import without_shown

    context.progress(0.02, "Fetching annotations", ", ".join(job.tags))
    problems: list[str] = []
    outlines = [each for image in download(dataset_id, problems) for each in image.outlines]
    detector = SAMDetect(**with_presets({**job.settings, "library": None}))
    with tempfile.TemporaryDirectory(prefix="sam-detect-") as folder:
        pictures = Pictures(context.dataset, Path(folder))
        sought = pictures.locations(job.ranges)
        annotated = _annotated(outlines, job, pictures, problems)
        context.progress(0.1, "Learning the examples", "")
        shown = detector.learn_tagged(
            annotated, tag=job.tags[0],
            negative_tag=job.negative_tags[0] if job.negative_tags else None, workers=1,
        )  # fmt: skip
        problems += [f"{Path(path).stem}: {problem}" for path, problem in shown.problems]
        if problems:
            context.warning(f"{len(problems)} annotations were left out", info="; ".join(problems))
        found: list[Annotation] = []
        for number, location in enumerate(sought):
            xy, z, time = (at + 1 for at in location)
            context.progress(
                0.2 + 0.7 * number / len(sought), "Searching",
                f"{number + 1} of {len(sought)} (XY {xy}, Z {z}, Time {time})",
            )  # fmt: skip
            detections = detector.detect(pictures.fetch(location)).only({shown.label})
            rows = without_shown(detections).to_annotations(
                location=location, tolerance_px=job.smoothing
            )
            found += [
                replace(row, tags=job.output_tags, references={"channel": job.channel})
                for row in rows
            ]
    context.progress(0.92, "Uploading", f"{len(found)} annotations")
    upload(dataset_id, AnnotatedImage("", "", tuple(found)))
    context.progress(1.0, "Complete", f"{shown.examples} examples, {len(found)} objects found")


def _annotated(
    outlines: Sequence[Annotation], job: Job, pictures: Pictures, problems: list[str]
) -> list[AnnotatedImage]:
    """The examples by their positions, each with the first of the tags that were asked for."""
    placed: dict[Location, list[Annotation]] = {}
    for outline in outlines:
        wanted = [tags for tags in (job.tags, job.negative_tags) if set(tags) & set(outline.tags)]
        if not wanted:
            continue
        location = outline.location or (0, 0, 0)
        if not pictures.has(location):
            problems.append(f"annotation {outline.id}: the dataset has no position {location}")
            continue
        placed.setdefault(location, []).append(replace(outline, tags=(wanted[-1][0],)))
    if not placed:
        known = sorted({tag for outline in outlines for tag in outline.tags})
        listed = ", ".join(known[:10]) or "none"
        raise ImageError(
            f"no annotation has the training tag '{', '.join(job.tags)}' (there are: {listed})"
        )
    return [
        AnnotatedImage(pictures.fetch(location), "", tuple(found))
        for location, found in placed.items()
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Answers one request; the exit code is 0 only if it was done."""
    from nimbusimage.worker import WorkerContext

    parser = argparse.ArgumentParser(description="sam-detect as a NimbusImage worker.")
    parser.add_argument("--datasetId", default="")
    for name in ("--apiUrl", "--token", "--parameters"):
        parser.add_argument(name, required=True)
    parser.add_argument("--request", required=True, choices=("interface", "compute"))
    asked = parser.parse_args(arguments)
    os.environ |= {"NI_API_URL": asked.apiUrl, "NI_TOKEN": asked.token}
    os.environ.pop("NI_API_KEY", None)  # the client prefers it, and it may be another user's
    context = WorkerContext(asked.datasetId, asked.apiUrl, asked.token)
    checkpoints = [f"{name}.pt" for name in CHECKPOINTS if available_sam2(name)]
    try:
        params = json.loads(asked.parameters)
        if not isinstance(params, dict):
            raise ConfigError("--parameters must be a JSON object")
        worker = os.environ.get("SAM_DETECT_WORKER", "fewshot")
        if worker not in ("fewshot", "refine"):
            raise ConfigError(f"SAM_DETECT_WORKER is '{worker}': expected fewshot or refine")
        if asked.request == "interface":
            form_of = refine_interface_of if worker == "refine" else interface_of
            context.set_interface(str(params["image"]), form_of(checkpoints))
        elif worker == "refine":
            refine(context, asked.datasetId, RefineJob.of(params, checkpoints))
        else:
            compute(context, asked.datasetId, Job.of(params, checkpoints))
    except SamDetectError as error:
        context.error(one_line(error))
        return error.exit_code
    except Exception as error:  # the server shows only what is sent to it
        traceback.print_exc()
        context.error(f"{type(error).__name__}: {one_line(error)}".replace(asked.token, "..."))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
