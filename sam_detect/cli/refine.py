"""``sam-detect refine``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

from sam_detect.cli import options
from sam_detect.cli.feedback import Failures, counted, find_pictures, note, progress, say
from sam_detect.errors import ConfigError


@click.command(cls=options.Sectioned, advanced=options.PLANES)
@click.argument("annotations", type=click.Path(path_type=Path), metavar="ANNOTATIONS")
@click.option(
    "--images", multiple=True, required=True, metavar="IMAGE|DIR",
    help="Pictures of the annotations; may be given several times.",
)  # fmt: skip
@click.option("--tag", metavar="NAME", help="Refine only annotations with this tag.")
@click.option(
    "--prompts", type=click.Choice(["box", "point", "mask", "best"]), default="box",
    show_default=True,
    help="What SAM 2 is shown of each annotation; best takes the one of the three with the best "
    "predicted IoU.",
)  # fmt: skip
@click.option(
    "--padding", type=click.IntRange(-20, 20), default=0, show_default=True, metavar="PIXELS",
    help="Grow the refined outlines by so many pixels; below 0 shrink them.",
)  # fmt: skip
@click.option(
    "--smoothing", type=click.FloatRange(0, 3), default=0.7, show_default=True, metavar="PIXELS",
    help="How far polygons may be from the outlines; up to 0.3 no pixel changes.",
)  # fmt: skip
@click.option("--output-tag", metavar="NAME", help="Tag of what is refined.  [default: its own]")
@click.option(
    "--output", type=click.Path(path_type=Path), metavar="FILE",
    help="File to write, in the format of ANNOTATIONS.",
)  # fmt: skip
@click.option(
    "--replace", is_flag=True,
    help="Write over ANNOTATIONS, of which a copy is kept (.bak).",
)  # fmt: skip
@click.option(
    "--truth", type=click.Path(path_type=Path), metavar="FILE",
    help="True outlines: prints the mean IoU with them before and after.",
)  # fmt: skip
@options.plane_options
@options.settings_options("segmenter", "sam_model", "device", "max_image_pixels")
@options.general_options
def refine(
    annotations: Path,
    *,
    images: tuple[str, ...],
    output: Path | None,
    replace: bool,
    xy: str | None,
    z: str | None,
    t: str | None,
    channel: str | None,
    tag: str | None,
    prompts: str,
    padding: int,
    smoothing: float,
    output_tag: str | None,
    truth: Path | None,
    as_json: bool,
    **settings: Any,
) -> int:
    """Redraw coarse outlines along the edges of their objects.

    \b
      sam-detect refine coarse.json --images cells/ --output fine.json

    The whole file is written, with ids and everything else that it says; only outlines change.
    An annotation that cannot be refined is kept as it was, and counted. Without SAM 2 the
    foreground inside of each outline is taken, so outlines should lie around their objects.
    """
    from sam_detect.api import SAMDetect
    from sam_detect.io import PlaneRanges
    from sam_detect.io.files import InputGuard, write_atomically

    if replace == (output is not None):
        raise ConfigError("give --output FILE, or --replace to write over the annotations")
    ranges = PlaneRanges(xy, z, t, channel)
    failures = Failures()
    paths = find_pictures(images, failures)
    if not paths:
        return failures.end(paths)
    if output is not None:
        InputGuard([annotations, *paths, *([truth] if truth else [])]).check(output)
    detector = SAMDetect(vector_store="memory", embedder="average", **settings)
    done = detector.refine(
        annotations, paths, tag=tag, ranges=ranges, prompts=prompts, padding=padding,
        smoothing=smoothing, output_tag=output_tag, truth=truth,
        steps=_steps,
    )  # fmt: skip
    for problem in done.problems:
        failures.add(str(annotations), problem)
    for line in done.kept:
        note(f"warning: {line}; kept as it was")
    backup = None
    if output is not None:
        content = done.content()
        write_atomically(output, lambda file: file.write(content))
    else:
        backup = done.replace()
    found = done.agreement
    if as_json:
        say(json.dumps({
            "annotations": str(annotations), "output": str(output or annotations),
            "backup": None if backup is None else str(backup), "total": done.total,
            "refined": len(done.changed), "kept": len(done.kept), "problems": done.problems,
            "matched": found and found.matched, "mean_iou_before": found and found.before,
            "mean_iou_after": found and found.after,
        }), to=sys.stdout)  # fmt: skip
    else:
        kept = f" (the old ones are in {backup})" if backup else ""
        say(f"refined {len(done.changed)} of {counted(done.total, 'annotation')}, "
            f"{len(done.kept)} kept as they were: {output or annotations}{kept}",
            to=sys.stdout)  # fmt: skip
        if found is not None and found.before is not None and found.after is not None:
            say(f"mean IoU with the truth {found.before:.3f} before, {found.after:.3f} after "
                f"({counted(found.matched, 'object')})", to=sys.stdout)  # fmt: skip
    return failures.end(paths)


def _steps(items: list[Any]) -> Any:
    with progress(items, "refining") as steps:
        yield from steps
