"""Names to parts, without importing any part before it is asked for.

Built-in names are listed here as ``module:Class``; others come from entry points of the group
``sam_detect.<room>``. A class named as ``package.module:Class`` works where a room allows it.
"""

from __future__ import annotations

import difflib
import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from sam_detect.errors import ConfigError, UnavailableError, UnknownNameError, one_line

BUILT_IN: dict[str, dict[str, str]] = {
    "segmenter": {
        "naive": "sam_detect.segmentation.naive:NaiveSegmenter",
        "forest": "sam_detect.segmentation.forest:ForestSegmenter",
        "sam2": "sam_detect.segmentation.sam2:SAM2Segmenter",
    },
    "fade": {
        "identity": "sam_detect.fading.fades:IdentityFade",
        "gaussian": "sam_detect.fading.fades:GaussianFade",
        "linear": "sam_detect.fading.fades:LinearFade",
        "exponential": "sam_detect.fading.fades:ExponentialFade",
        "blur": "sam_detect.fading.fades:BlurFade",
    },
    "embedder": {
        "average": "sam_detect.embedding.average:AverageEmbedder",
        "appearance": "sam_detect.embedding.appearance:AppearanceEmbedder",
        "lite": "sam_detect.embedding.lite:LiteEmbedder",
        "clip": "sam_detect.embedding.clip:CLIPEmbedder",
        "sam2": "sam_detect.embedding.sam2:SAM2Embedder",
    },
    "store": {
        "memory": "sam_detect.vector_store.memory:MemoryVectorStore",
        "qdrant": "sam_detect.vector_store.qdrant:QdrantVectorStore",
    },
    "labeller": {
        "knn": "sam_detect.labelling.examples:KNNLabeller",
        "prototype": "sam_detect.labelling.examples:PrototypeLabeller",
        "text": "sam_detect.labelling.text:TextLabeller",
    },
    "format": {
        "json": "sam_detect.io.text_sinks:JSONSink",
        "jsonl": "sam_detect.io.text_sinks:JSONLinesSink",
        "coco": "sam_detect.io.coco_sinks:COCOSink",
        "yolo": "sam_detect.io.yolo_sink:YOLOSink",
        "csv": "sam_detect.io.tables:CSVSink",
        "counts": "sam_detect.io.tables:CountsSink",
        "overlay": "sam_detect.io.overlay:OverlaySink",
        "geojson": "sam_detect.io.annotation_sinks:GeoJSONSink",
        "imagej": "sam_detect.io.annotation_sinks:ImageJSink",
        "labelme": "sam_detect.io.annotation_sinks:LabelMeSink",
        "labelmap": "sam_detect.io.annotation_sinks:LabelMapSink",
        "nimbus": "sam_detect.io.annotation_sinks:NimbusSink",
    },
    "video format": {
        "annotated": "sam_detect.io.video_sinks:AnnotatedVideoSink",
        "jsonl": "sam_detect.io.text_sinks:VideoLinesSink",
        "csv": "sam_detect.io.tables:TracksSink",
        "mot": "sam_detect.io.tables:MOTSink",
        "snapshots": "sam_detect.io.snapshots:SnapshotSink",
    },
}

MODEL_PACKAGES = {"torch", "torchvision", "sam2", "open_clip", "hydra", "omegaconf",
                  "huggingface_hub"}  # fmt: skip
VIDEO_PACKAGES = {"av", "trackers", "supervision"}
MICROSCOPY_PACKAGES = {"imagecodecs", "zarr", "nimbusimage"}
EXTRAS = {"microscopy": MICROSCOPY_PACKAGES, "models": MODEL_PACKAGES, "video": VIDEO_PACKAGES}
"""Which packages each extra installs."""


@contextmanager
def needing_extra(what: str) -> Iterator[None]:
    """Imports packages of an extra that something needs.

    Raises:
        UnavailableError: one of them is not installed; the message says how to get it.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        extra = next((name for name, has in EXTRAS.items() if package in has), None)
        if extra is None:
            raise
        raise UnavailableError(
            f"{what} needs the package {package}: pip install 'sam-detect[{extra}]'"
        ) from error


def names(room: str) -> list[str]:
    """Every name registered for a room, built-in first, then entry points by name."""
    found = list(BUILT_IN[room])
    others = {entry.name for entry in entry_points(group=f"sam_detect.{room}")}
    return found + sorted(others.difference(found))


def load_class(room: str, name: str) -> Any:
    """The class registered under a name.

    Raises:
        UnknownNameError: nothing has this name; the message lists what has.
        UnavailableError: the name is known, but needs a package that is not installed.
        ConfigError: another package offers the name, but cannot be imported.
    """
    if name in BUILT_IN[room]:
        with needing_extra(f"the {room} '{name}'"):
            return _import(BUILT_IN[room][name])
    for entry in entry_points(group=f"sam_detect.{room}", name=name):
        try:
            return entry.load()
        except Exception as error:  # another package's code: it may raise anything
            raise ConfigError(
                f"the {room} '{name}' cannot be loaded: {one_line(error)} ({entry.value})"
            ) from error
    known = names(room)
    close = difflib.get_close_matches(name, known, n=1)
    guess = f"; did you mean '{close[0]}'?" if close else ""
    raise UnknownNameError(f"no {room} is named '{name}'{guess} (available: {', '.join(known)})")


def load_asked(room: str, name: str) -> Any:
    """The class that a user asked for: by its registered name, or as ``package.module:Class``.

    Never for a name that a file says: importing a class runs its code.

    Raises:
        ConfigError: as of :func:`load_class` and :func:`load_custom`.
    """
    return load_custom(room, name) if ":" in name else load_class(room, name)


def load_custom(room: str, path: str) -> Any:
    """The class named ``package.module:Class``, looked for in the working directory as well.

    Raises:
        ConfigError: the module cannot be imported or has no such class.
    """
    module_name, _, class_name = path.partition(":")
    if not module_name or not class_name:
        raise ConfigError(f"a custom {room} is named package.module:Class, got '{path}'")
    here = str(Path.cwd())
    added = here not in sys.path
    if added:
        sys.path.append(here)  # last: nothing there may stand for an installed package
    try:
        return _import(path)
    except Exception as error:  # the user's own code: it may raise anything
        raise ConfigError(f"the {room} '{path}' cannot be loaded: {one_line(error)}") from error
    finally:
        if added and here in sys.path:
            sys.path.remove(here)


def _import(path: str) -> Any:
    module_name, _, class_name = path.partition(":")
    return getattr(importlib.import_module(module_name), class_name)


def room_attribute(room: str, attribute: str) -> Any:
    """Lets a room's package offer its classes by name without importing them first.

    Raises:
        AttributeError: the room has no class of this name.
        UnavailableError: it needs a package that is not installed.
    """
    for name, path in BUILT_IN[room].items():
        if path.endswith(f":{attribute}"):
            return load_class(room, name)
    raise AttributeError(f"the {room} room has no '{attribute}'")
