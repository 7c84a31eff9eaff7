"""``sam-detect library ...``."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from sam_detect.cli import options
from sam_detect.cli.feedback import counted, json_text, note, say
from sam_detect.cli.text import escape, show, table
from sam_detect.errors import ConfigError, SamDetectError, one_line

if TYPE_CHECKING:
    from sam_detect.library.history import LearningBatch
    from sam_detect.library.library import Library

SHOWN = ("label", "negative", "source", "bbox", "area", "added", "batch")
"""What ``list`` says of an example."""
SHOWN_CONFLICTS = 10
PICTURES = 3
"""How many pictures of a batch ``log`` names."""
Batches = Sequence[list[str]]
placed = options.settings_options(*options.section("Library"))


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def library() -> None:
    """List, edit, carry and convert what was learnt."""


library.command_class = options.SettingsCommand


def _open(settings: dict[str, Any], *, existing: bool = True, sound: bool = True) -> Library:
    """The library of the options.

    Args:
        existing: whether it has to exist.
        sound: whether its manifest has to be sound.

    Raises:
        LibraryNotFoundError: there is none, but it should exist; the message names similar ones.
    """
    from sam_detect.config import load_settings
    from sam_detect.library.library import Library
    from sam_detect.library.places import not_found, open_store

    loaded = load_settings(settings)
    found = Library(open_store(loaded), loaded.library)
    if existing and (found.manifest() if sound else found.store.read_manifest()) is None:
        raise not_found(loaded, found.store.location)
    return found


@contextmanager
def bar(what: str) -> Iterator[Callable[[Batches], Iterable[list[str]]]]:
    """What walks through batches with a bar on stderr, where that is a terminal."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        yield lambda batches: progress.track(batches, description=what)


def _say(as_json: bool, data: dict[str, Any], text: str) -> None:
    if as_json:
        say(json_text(data), to=sys.stdout)
    else:
        note(text)


@library.command("list")
@click.option("--label", metavar="NAME", help="Only examples of this label (with --library).")
@placed
@options.general_options
def list_command(label: str | None, as_json: bool, **settings: Any) -> None:
    """List the libraries; with --library, its examples."""
    if settings["library"] is not None or label is not None:
        _list_examples(settings, label, as_json)
    else:
        _list_libraries(settings, as_json)


def _list_examples(settings: dict[str, Any], label: str | None, as_json: bool) -> None:
    chosen = _open(settings)
    if label is not None:
        from sam_detect.library import lookup

        lookup.of_label(chosen.store, label, chosen.name)
    rows = table("id", "label", "x>", "y>", "w>", "h>", "added", "source")
    for point in chosen.listing(label):
        data = {name: point.payload[name] for name in SHOWN}
        if as_json:
            say(json_text({"id": point.id, **data}), to=sys.stdout)
        else:
            name = ("not " if data["negative"] else "") + data["label"]
            numbers = [str(value) for value in data["bbox"]]
            rows.add_row(point.id, escape(name), *numbers, data["added"], escape(data["source"]))
    if not as_json:
        show(rows)


def _list_libraries(settings: dict[str, Any], as_json: bool) -> None:
    from sam_detect.config import load_settings
    from sam_detect.library.places import list_libraries

    found = []
    for name in list_libraries(load_settings(settings)):
        try:
            stats = _open({**settings, "library": name}, existing=False).stats()
            if stats["recipe"] is not None:  # else who made it was killed before anything was in it
                found.append({"name": name, **{key: stats[key] for key in ("examples", "classes")}})
        except SamDetectError as error:
            found.append({"name": name, "error": one_line(error)})
    if as_json:
        say(json_text({"libraries": found}), to=sys.stdout)
        return
    if not found:
        note("no library yet; make one: sam-detect learn IMAGE --label NAME --box x,y,w,h")
        return
    rows = table("library", "examples>", "labels")
    for row in found:
        labels = row.get("error") or ", ".join(f"{n} ({c})" for n, c in row["classes"].items())
        rows.add_row(escape(row["name"]), str(row.get("examples", "?")), escape(labels))
    show(rows)


@library.command("show")
@click.argument("example_id", required=False)
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    help="Write the example's crop here, with its outline.",
)
@placed
@options.general_options
def show_command(
    example_id: str | None, output: Path | None, as_json: bool, **settings: Any
) -> None:
    """Show one example by its id or the beginning of it (its crop: --output).

    Without an id, all of the library.
    """
    if example_id is None:
        _list_examples(settings, None, as_json)
        return
    chosen = _open(settings)
    example = chosen.get(example_id)
    if output is not None:
        from sam_detect.outputs import write_image
        from sam_detect.outputs.overlay import draw_preview
        from sam_detect.types import Masks

        crop = example.crop
        write_image(output, draw_preview(crop.image_rgb, Masks.from_dense(crop.mask)))
        note(f"wrote {output}")
    data = {
        "id": example.id,
        "label": example.label,
        "negative": example.negative,
        "source": example.source,
        "bbox": example.bbox,
        "area": example.area,
        "added": example.added,
        "batch": example.batch,
        "segmentation": example.segmentation,
    }
    if as_json:
        say(json_text(data), to=sys.stdout)
    else:
        rows = table("field", "value", show_header=False)
        for name, value in data.items():
            if name != "segmentation":
                rows.add_row(name, escape(str(value)))
        show(rows)


@library.command("rename")
@click.argument("old")
@click.argument("new")
@placed
@options.general_options
def rename_command(old: str, new: str, as_json: bool, **settings: Any) -> None:
    """Give all examples of one label another."""
    count = _open(settings).rename(old, new)
    _say(
        as_json, {"renamed": count}, f"renamed {counted(count, 'example')} from '{old}' to '{new}'"
    )


@library.command("remove")
@click.argument("example_ids", nargs=-1)
@click.option("--label", metavar="NAME", help="Remove all examples of this label.")
@click.option(
    "--all", "everything", is_flag=True, help="Remove the whole library (with --library NAME)."
)
@click.option("--yes", is_flag=True, help="With --all: do not ask.")
@placed
@options.general_options
def remove_command(
    example_ids: tuple[str, ...],
    label: str | None,
    everything: bool,
    yes: bool,
    as_json: bool,
    **settings: Any,
) -> None:
    """Remove examples by id (or the beginning of it) or label, or a library with --all."""
    if bool(example_ids) + (label is not None) + everything != 1:
        raise click.UsageError("remove takes either example ids, or --label NAME, or --all")
    if everything and settings["library"] is None:
        raise click.UsageError("remove --all needs the name of the library: --library NAME")
    chosen = _open(settings, sound=not everything)
    if everything and not yes:
        _require_consent(chosen.name)
    count = chosen.destroy() if everything else chosen.remove(label=label, ids=example_ids)
    damaged = "removed a damaged library"
    said = damaged if count is None else f"removed {counted(count, 'example')}"
    _say(as_json, {"removed": count}, said)


def _require_consent(name: str) -> None:
    """Of a person who removes a whole library."""
    if not (sys.stdin and sys.stdin.isatty()):
        raise click.UsageError(f"remove --all removes all of library '{name}': add --yes")
    click.confirm(f"Remove all of library '{name}'?", abort=True, err=True)


@library.command("log")
@placed
@options.general_options
def log_command(as_json: bool, **settings: Any) -> None:
    """List the learning batches, newest first: when, what, how many, from which pictures.

    All pictures of one `learn` are one batch. With --json, one line per batch.
    """
    entries = _open(settings).log()
    if as_json:
        for entry in entries:
            say(json_text(entry.to_dict()), to=sys.stdout)
        return
    rows = table("batch", "time", "learnt", "pictures")
    for entry in entries:
        more = f" and {len(entry.sources) - PICTURES} more" if len(entry.sources) > PICTURES else ""
        pictures = ", ".join(entry.sources[:PICTURES]) + more
        rows.add_row(entry.id or "older", entry.time, escape(_summary(entry)), escape(pictures))
    show(rows)


@library.command("undo")
@placed
@options.general_options
def undo_command(as_json: bool, **settings: Any) -> None:
    """Take the newest learning batch back; see `library log`.

    What it added is removed, what it relabelled gets its former label, and what it removed
    because it says the opposite comes back. Undo again takes back the batch before.
    """
    chosen = _open(settings)
    entry = chosen.undo()
    _say(
        as_json,
        {"undone": entry.to_dict(), "total": len(chosen)},
        f"took back batch {entry.id}: {_summary(entry)}; the library has "
        f"{counted(len(chosen), 'example')}",
    )


def _summary(entry: LearningBatch) -> str:
    """What a batch learnt, in half a line."""
    learnt = [f"{label} ({count})" for label, count in entry.labels.items()]
    learnt += [f"not {label} ({count})" for label, count in entry.negatives.items()]
    learnt += [f"{entry.relabelled} relabelled"] * bool(entry.relabelled)
    learnt += [f"{entry.taken_back} removed as its opposite"] * bool(entry.taken_back)
    return ", ".join(learnt)


@library.command("verify")
@placed
@options.general_options
def verify_command(as_json: bool, **settings: Any) -> int:
    """Compare every example with its checksums; ends with 1 where one is damaged.

    Nothing is changed. With --json, one object: sound, examples, stored, damaged, problem.
    """
    from sam_detect.library.integrity import verify
    from sam_detect.library.remedies import options_of

    chosen = _open(settings)
    report = verify(chosen)
    if as_json:
        say(json_text(report.to_dict()), to=sys.stdout)
    else:
        for key, why in report.damaged.items():
            note(f"error: example {key} is damaged: {why}")
        if report.problem:
            note(f"error: library '{chosen.name}': {report.problem}")
        more = f", {len(report.damaged)} damaged" if report.damaged else ""
        place = options_of(chosen.store.location)
        then = "" if report.sound else f"; keep what is sound: sam-detect library repair {place}"
        note(f"library '{chosen.name}': {counted(report.examples, 'sound example')}{more}{then}")
    return 0 if report.sound else 1


@library.command("repair")
@placed
@options.general_options
def repair_command(as_json: bool, **settings: Any) -> int:
    """Keep the sound examples of a damaged library, and list the others, which are removed.

    What the engine's log still has is recovered. Ends with 1 where an example was lost.
    """
    from sam_detect.library.integrity import repair

    chosen = _open(settings)
    done = repair(chosen)
    if as_json:
        say(json_text(done.to_dict()), to=sys.stdout)
    else:
        for key, why in done.removed.items():
            note(f"removed example {key}: {why}")
        if done.lost:
            note(f"error: {counted(done.lost, 'stored example')} cannot be found any more")
        back = f", {done.recovered} recovered" if done.recovered else ""
        whole = "; it is as it was stored" if done.exact else ""
        note(f"library '{chosen.name}' has {counted(done.examples, 'sound example')}{back}{whole}")
    return 1 if done.removed or done.lost else 0


@library.command("stats")
@placed
@options.general_options
def stats_command(as_json: bool, **settings: Any) -> None:
    """Count the examples of a library by class, and say how it was made."""
    chosen = _open(settings)
    stats = chosen.stats()
    if as_json:
        say(json_text(stats), to=sys.stdout)
        return
    rows = table("label", "examples>")
    for name, count in stats["classes"].items():
        rows.add_row(escape(name), str(count))
    show(rows)
    recipe = stats["recipe"]
    note(
        f"library '{stats['library']}': {counted(stats['examples'], 'example')} "
        f"({stats['negatives']} negative), {stats['bytes'] / 1e6:.1f} MB, "
        f"{recipe['embedder']} with {recipe['fade']} fade, "
        f"in {stats['location']}"
    )


@library.command("export")
@click.argument("file", type=click.Path(path_type=Path))
@placed
@options.general_options
def export_command(file: Path, as_json: bool, **settings: Any) -> None:
    """Write a library into one file, to carry it to another machine."""
    from sam_detect.library.transfer import export_library

    count = export_library(_open(settings), file)
    _say(
        as_json,
        {"exported": count, "file": str(file)},
        f"wrote {counted(count, 'example')} to {file}",
    )


@library.command("import")
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--conflicts",
    type=click.Choice(["keep", "replace"]),
    default="keep",
    help="Where the file has another label for an object of yours: keep yours, or replace it.  "
    "[default: keep]",
)
@click.option("--dry-run", is_flag=True, help="Only say what would be imported.")
@placed
@options.general_options
def import_command(
    file: Path, conflicts: Literal["keep", "replace"], dry_run: bool, as_json: bool, **settings: Any
) -> None:
    """Read a library from an exported file, all of it or nothing.

    It goes into the library of its own name, unless --library names another one: a new one, or
    one of the same recipe. Examples that are there already stay as they are.
    """
    from sam_detect.library.transfer import import_library

    chosen = _target_of_import(file, settings)
    done = import_library(chosen, file, conflicts=conflicts, dry_run=dry_run)
    data = {
        **asdict(done),
        "conflicts": [asdict(each) for each in done.conflicts],
        "recipe": done.recipe.to_dict(),
        "dry_run": dry_run,
    }
    labels = ", ".join(f"{label} ({count})" for label, count in done.classes.items())
    if not as_json and dry_run:
        recipe = f"{done.recipe.embedder} with {done.recipe.fade} fade"
        note(f"{file}: {labels or 'no labels'}, {counted(done.negatives, 'negative')}, {recipe}")
    for each in [] if as_json else done.conflicts[:SHOWN_CONFLICTS]:
        note(f"{each.id}: '{each.label}' in the file, '{each.own_label}' in the library")
    verb, has = ("would add", "would have") if dry_run else ("added", "has")
    added = counted(done.added, "example")
    text = f"{verb} {added} to library '{done.library}'; it {has} {done.total}"
    if done.known:
        text += f"; {done.known} were there already"
    if done.conflicts:
        kept = "the file's label is taken" if conflicts == "replace" else "yours stays"
        text += f"; {len(done.conflicts)} contradict the library ({kept})"
    _say(as_json, data, text)


def _target_of_import(file: Path, settings: dict[str, Any]) -> Library:
    """The library that is asked for, else the one that the file names."""
    from sam_detect.config import load_settings
    from sam_detect.library.archive import Archive

    if "library" in load_settings(settings).model_fields_set:
        return _open(settings, existing=False)
    with Archive.open(file) as archive:
        name = archive.name
    try:
        return _open({**settings, "library": name}, existing=False)
    except ConfigError as error:
        raise ConfigError(
            f"the export {file} names its library {name!r}, which no library can be called; "
            "choose a name with --library"
        ) from error


@library.command("push")
@click.option("--to-url", metavar="URL", required=True, help="URL of the Qdrant server.")
@click.option("--to-library", metavar="NAME", help="Name there; by default the same.")
@placed
@options.general_options
def push_command(to_url: str, to_library: str | None, as_json: bool, **settings: Any) -> None:
    """Copy a library to a Qdrant server (its key: QDRANT_API_KEY)."""
    from sam_detect.library.transfer import copy_library

    target = {"library": to_library or settings["library"], "store": "qdrant", "qdrant_url": to_url}
    target_library = _open(target, existing=False)
    done = copy_library(_open(settings), target_library)
    data = {"added": done.added, "relabelled": done.relabelled, "total": done.total}
    place = target_library.store.location
    _say(
        as_json,
        data,
        f"pushed to {place}: {counted(done.added, 'example')} added, {done.total} there now",
    )


@library.command("reindex", cls=options.SettingsCommand)
@options.settings_options(*options.section("Vectors"), "device")
@placed
@options.general_options
def reindex_command(as_json: bool, **settings: Any) -> None:
    """Make all vectors again, with another embedder or fade, from the kept crops."""
    from sam_detect.config import load_settings
    from sam_detect.library.maker import VectorMaker
    from sam_detect.library.reindex import reindex
    from sam_detect.parts import asked_for, require_used

    given = {"embedder": settings["embedder"] or ("sam2" if settings["sam_model"] else None)}
    loaded = load_settings({**settings, **asked_for(given, settings)})
    chosen = _open({name: settings[name] for name in options.section("Library")})
    maker = VectorMaker.choose(loaded, chosen.recipe)
    used = {"embedder": maker.recipe.embedder, "fade": maker.recipe.fade, "store": "qdrant"}
    require_used(loaded, {"segmenter": "naive", **used, **loaded.chosen})
    with bar("making vectors") as walk:
        total = reindex(chosen, maker, walk=walk)
    recipe = maker.recipe
    text = f"made {counted(total, 'vector')} again with {recipe.embedder} and {recipe.fade} fade"
    _say(as_json, {"reindexed": total, "recipe": recipe.to_dict()}, text)
