"""``sam-detect detect``."""

from __future__ import annotations

import contextlib
import inspect
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sam_detect.cli import options
from sam_detect.cli.feedback import (
    Failures,
    counted,
    find_pictures,
    note,
    open_detector,
    progress,
    require_label,
)
from sam_detect.cli.planes import (
    STANDARD_INPUT,
    linked_planes,
    pictures_or_planes,
    require_link_fits,
    require_planes_fit,
)
from sam_detect.cli.ranking import Ranking
from sam_detect.cli.text import (
    UNLIMITED,
    DetectionPrinter,
    counts_as_table,
    into,
    width,
)
from sam_detect.errors import ConfigError, ImageError, LibraryError, OutputError
from sam_detect.registry import load_asked, names
from sam_detect.types.labels import normalised_label

if TYPE_CHECKING:
    from sam_detect.api import SAMDetect
    from sam_detect.interfaces import Sink
    from sam_detect.io import Plane
    from sam_detect.types import Frame

FORMAT_OF_SUFFIX = {
    ".json": "json", ".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv",
    ".png": "overlay", ".jpg": "overlay", ".jpeg": "overlay", ".webp": "overlay",
    ".tif": "overlay", ".tiff": "overlay", ".bmp": "overlay", ".geojson": "geojson",
    ".zip": "imagej",
}  # fmt: skip
JSON_FORMATS = ("json", "jsonl")
ANNOTATIONS = ("geojson", "imagej", "labelme", "labelmap", "nimbus")
WITHOUT_STDOUT = {
    "overlay": "pictures",
    "yolo": "a folder",
    **dict.fromkeys(ANNOTATIONS, "a file for each picture"),
}
MOST_NAMED = 5
"""How many of the files written are named at the end of a run."""


@click.command(
    cls=options.Sectioned, advanced=("smoothing", "rank", "workers", *options.PLANES, "link_z")
)
@click.argument("images", nargs=-1, required=True, metavar="IMAGE|DIR|GLOB|-...")
@click.option(
    "--label",
    metavar="NAME",
    help="Take the separate objects of the first picture as examples of NAME, for this run only: "
    "no library is written. (To show one label only: --only.)",
)
@click.option(
    "--output",
    "output",
    type=click.Path(path_type=Path),
    help="File to write; a folder for YOLO, and for several pictures in most formats.",
)
@click.option(
    "--format",
    "format_name",
    metavar="|".join([*names("format"), "PKG.MOD:CLASS"]),
    help="Format of the output; by default that of the output's ending.",
)
@click.option(
    "--smoothing",
    type=click.FloatRange(0, 20),
    default=0,
    metavar="PIXELS",
    help="Simplify outlines in the formats of other programs by so much; 0 keeps every pixel.",
)
@click.option(
    "--only",
    "only",
    multiple=True,
    metavar="NAME,...",
    help="Show and write only objects with these labels.",
)
@click.option(
    "--unknown",
    is_flag=True,
    help="Show and write objects without a label, too (JSON and CSV always have them, unless "
    "--only leaves them out).",
)
@click.option(
    "--explain",
    is_flag=True,
    help="Show for each object, unknown ones too, which terms decided about its label; with "
    "--json the key 'explanation'.",
)
@click.option(
    "--workers",
    type=click.IntRange(1),
    metavar="N",
    help="Processes that share the pictures.  [default: the cores; 1 for SAM 2 and CLIP]",
)
@click.option(
    "--resume",
    is_flag=True,
    help="Go on with a run of several pictures that was stopped, from OUTPUT.progress: what is "
    "done is not done again, what failed is tried again.",
)
@click.option(
    "--rank",
    type=click.Choice(["uncertain"]),
    help="Print the pictures instead of their objects, those with the least sure labels first, and "
    "why: what to name next. With --json a line for each.",
)
@options.plane_options
@options.link_option
@options.settings_options(
    *options.section("Scale", "Proposals", "Vectors", "Labels", "Library", "Machine")
)
@options.verbose_option
@options.general_options
def detect(  # noqa: PLR0917 - click gives them by name
    images: tuple[str, ...],
    label: str | None,
    output: Path | None,
    format_name: str | None,
    smoothing: float,
    only: tuple[str, ...],
    unknown: bool,
    explain: bool,
    workers: int | None,
    resume: bool,
    rank: str | None,
    xy: str | None,
    z: str | None,
    t: str | None,
    channel: str | None,
    link_z: float | None,
    as_json: bool,
    **settings: Any,
) -> int:
    """Find and name the objects of pictures.

    \b
      sam-detect detect tray.jpg --output found.png
      sam-detect detect trays/ --format counts --output counts.csv

    IMAGE is a picture, a folder, a pattern such as 'scans/**/*.png', or - for a picture on
    standard input. What nothing in the library resembles is reported as unknown.
    Of a stack the first plane is read; --z, --t, --xy and --channel read others (--help-all).
    """
    from sam_detect.io import PlaneRanges

    require_label(label)
    if rank is not None:
        shown = ("output", "format_name", "explain", "only", "unknown", "smoothing", "link_z")
        options.refuse("--rank prints pictures, and writes no objects", *shown)
    format_name = format_asked(format_name, output, as_json)
    ranges = PlaneRanges(xy, z, t, channel)
    if ranges:
        require_planes_fit(format_name, images, resume=resume)
    require_link_fits(link_z, ranges)
    detector = open_detector(settings)
    failures = Failures()
    paths = find_pictures(images, failures, also=STANDARD_INPUT)
    labels = _labels(only, detector, label)
    printer = None
    if rank is None and not as_json and (format_name is None or output is not None):
        printer = DetectionPrinter(
            detector.library.name,
            several=len(paths) > 1 or bool(ranges),
            objects=format_name is None,
            unknown=unknown,
            filtered=labels is not None,
            explain=explain,
        )
    pictures = pictures_or_planes(detector, paths, ranges, failures)
    from sam_detect.cli import resume as resuming  # loads what --help can do without

    ranking = None if rank is None else Ranking()
    facts = resuming.facts_of(detector, label=label, explain=explain)
    if label is not None:
        detector = detector.in_memory()
        _prime(detector, pictures, label)
    with (
        resuming.keeping_progress(
            output, [] if ranges else [*pictures], failures, facts, resume=resume
        ) as kept,
        open_sinks(
            format_name,
            output,
            as_json and ranking is None,
            paths,
            several=len(paths) != 1,
            planes=bool(ranges) and len(pictures) > 1,
            include_unknown=unknown,
            printed=printer is not None,
            labels=_library_labels(detector) if labels is None else labels,
            explain=explain,
            smoothing=smoothing,
            link_z=link_z,
            read=lambda name: detector.read(pictures[name]),
        ) as sinks,
        contextlib.closing(
            resuming.results(detector, pictures, workers, kept, explain=explain)
        ) as found,
        progress([*pictures], "detecting") as steps,
    ):
        for _, (path, outcome) in zip(steps, found, strict=True):
            with failures.guard(path):
                frame, detections = outcome.get()
                if ranking is not None:
                    ranking.add(detections)
                if labels is not None:
                    detections = detections.only(labels, unknown=unknown)
                for sink in sinks:
                    sink.write(frame, detections)
                if printer is not None:
                    printer.show(detections)
    if printer is not None:
        printer.end()
    if ranking is not None:
        ranking.show(as_json=as_json)
    return failures.end([*pictures] if ranges else paths)


def _library_labels(detector: SAMDetect) -> set[str]:
    """The labels that an object can get here."""
    learnt = detector.snapshot().examples()
    positive = (n for n, not_it in zip(learnt.labels, learnt.negatives, strict=True) if not not_it)
    return {*positive, *(detector.labeller.labels or ())}


def _labels(only: tuple[str, ...], detector: SAMDetect, label: str | None) -> set[str] | None:
    """The labels that ``--only`` names, or None without it.

    Raises:
        ConfigError: one of them is no label that an object can get here.
    """
    if not only:
        return None
    from sam_detect.library.lookup import no_label

    known = _library_labels(detector)
    known |= set() if label is None else {normalised_label(label)}
    # A label may hold a comma itself.
    names = [n for each in only for n in ([each] if each in known else each.split(","))]
    try:
        wanted = {normalised_label(name) for name in names}
    except LibraryError as error:
        raise ConfigError(f"--only: {error}") from error
    for name in sorted(wanted - known):
        raise ConfigError(f"--only: {no_label(name, known, detector.library.name)}")
    return wanted


def _prime(detector: SAMDetect, pictures: Mapping[str, str | Frame | Plane], label: str) -> None:
    """Takes the separate objects of the first picture that has some as examples, in memory."""
    known = normalised_label(label) in detector.snapshot().examples().labels
    for path, picture in pictures.items():
        try:
            frame = detector.read(picture)
        except ImageError:
            continue  # said when its turn comes
        masks = detector.pipeline.separate_objects(frame)
        if not len(masks):
            note(f"{path}: no object stands out, so none was taken as '{label}'")
            continue
        detector.learn_frame(frame, masks, [label] * len(masks))
        name = shlex.quote(label)
        place = into(detector.library.name)
        hints = []
        if isinstance(picture, str):  # planes of stacks are not learnt from
            file = shlex.quote(path)
            hints.append(
                f"to keep them: sam-detect learn {file} --masks auto --label {name}{place}"
            )
        if known:
            hints.append(f"to show only what the library knows as '{label}': --only {name}")
        hint = f" ({'; '.join(hints)})" if hints else ""
        taken = counted(len(masks), "separate object")
        note(f"{path}: took {taken} as '{label}', for this run only{hint}")
        return


@contextlib.contextmanager
def open_sinks(
    format_name: str | None,
    output: Path | None,
    as_json: bool,
    inputs: Sequence[str],
    *,
    several: bool,
    planes: bool = False,
    link_z: float | None = None,
    read: Callable[[str], Frame] | None = None,
    printed: bool = False,
    **given: Any,
) -> Iterator[list[Sink]]:
    """What is written: the output, and JSON on stdout where that is asked for.

    A run that is stopped, or fails half-way, keeps what it has done.

    Args:
        inputs: files that are never overwritten; without any, nothing is written.
        several: whether results of more than one picture may come.
        planes: whether results of several planes of a picture may come; formats of annotations
            write them into one file.
        link_z: the least IoU of objects that are one through the planes; None links none.
        read: a plane by its name, where planes are linked.
        printed: whether the results are printed for people, too.
        given: options of the sinks; each gets those that its constructor takes.

    Raises:
        ConfigError: the command line gives one that no sink takes.
    """
    wanted = [] if format_name is None else [(format_name, output)]
    if as_json and not (format_name in JSON_FORMATS and output is None):
        wanted.append(("json", None))
    # A folder as output is for however many pictures a folder or pattern turns out to hold.
    several |= output is not None and not output.suffix
    sinks: list[Sink] = []
    made = [(name, place, load_asked("format", name)) for name, place in wanted if inputs]
    known = [{*inspect.signature(each).parameters} for _, _, each in made]
    unused = {"smoothing", "explain"}.difference(*known, ["explain"] * printed)
    if inputs:
        options.refuse("nothing that is written or printed here has it", *sorted(unused))
    for (name, place, made_of), takes in zip(made, known, strict=True):
        every = {
            "multiple": several or (planes and name not in ANNOTATIONS),
            "inputs": inputs,
            **given,
        }
        table = name == "counts" and place is None and width() < UNLIMITED
        sink = counts_as_table() if table else made_of
        sinks.append(sink(place, **{k: value for k, value in every.items() if k in takes}))
    linked = None if link_z is None or read is None else linked_planes(sinks, link_z, read)
    try:
        yield sinks if linked is None else [linked]
        if linked is not None:
            linked.close()
            note(f"linked the objects through Z: {counted(linked.volumes, 'volume')}")
    except BaseException:
        for sink in sinks:
            with contextlib.suppress(OutputError, OSError):
                _close(sink)
        raise
    for sink in sinks:
        _close(sink)


def _close(sink: Sink) -> None:
    """Completes an output and says where it is."""
    written = sink.close()
    for path in written[:MOST_NAMED]:
        note(f"wrote {path}")
    if len(written) > MOST_NAMED:
        note(f"wrote {counted(len(written) - MOST_NAMED, 'more file')}")


def format_asked(name: str | None, output: Path | None, as_json: bool) -> str | None:
    """The format to write, or None for tables and ``--json`` only."""
    if name is None and output is not None:
        name = _format_of(output)
    if name is None:
        return None
    load_asked("format", name)  # says which names there are
    if output is None and name in WITHOUT_STDOUT:
        raise ConfigError(f"--format {name} writes {WITHOUT_STDOUT[name]}: say where with --output")
    if output is None and as_json and name not in JSON_FORMATS:
        raise ConfigError(f"--json and --format {name} both want stdout: add --output FILE")
    return name


def _format_of(output: Path) -> str:
    suffix = output.suffix.lower()
    if suffix in FORMAT_OF_SUFFIX:
        return FORMAT_OF_SUFFIX[suffix]
    if not suffix or output.is_dir():
        return "overlay"
    raise ConfigError(f"the format of '{output}' is not clear from '{suffix}': add --format")
