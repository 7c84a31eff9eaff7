"""``sam-detect library ...``."""

from __future__ import annotations

import sys
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from sam_detect.cli import options
from sam_detect.cli.feedback import counted, json_text, note, say
from sam_detect.cli.text import escape, parts_lines, show, table
from sam_detect.errors import ConfigError, LibraryCorruptError, SamDetectError, one_line

if TYPE_CHECKING:
    from sam_detect.library.changes import Changes
    from sam_detect.library.history import LearningBatch
    from sam_detect.library.integrity import Repaired, Verification
    from sam_detect.library.library import Library

FILE = click.Path(path_type=Path)
SHOWN = ("label", "negative", "source", "bbox", "area", "added", "batch")
"""What ``list`` says of an example."""
SHOWN_CONFLICTS, PICTURES = 10, 3
"""How many contradictions are shown, and how many pictures of a batch ``log`` names."""
MOST_UNASKED = 10
"""To remove more examples has to be confirmed."""


def library_options(command: options.Command) -> options.Command:
    """The options of all commands here: which library, and the general ones."""
    return options.settings_options(*options.section("Library"))(options.general_options(command))


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def library() -> None:
    """List, edit, carry and convert what was learnt."""


library.command_class = options.SettingsCommand


def _open(settings: dict[str, Any], *, existing: bool = True, sound: bool = True) -> Library:
    """The library of the options.

    Args:
        existing: whether it has to exist; the error about one that does not names similar ones.
        sound: whether its manifest has to be sound.
    """
    from sam_detect.config import load_settings
    from sam_detect.library.library import Library
    from sam_detect.library.places import not_found, open_store

    loaded = load_settings(settings)
    found = Library(open_store(loaded), loaded.library)
    if existing and (found.manifest() if sound else found.store.read_manifest()) is None:
        raise not_found(loaded, found.store.location)
    return found


def _changes(library: Library, settings: dict[str, Any]) -> Changes:
    """Changes the library by hand, on record."""
    from sam_detect.config import load_settings
    from sam_detect.library.changes import Changes
    from sam_detect.pipeline.choosing import choose_features

    return Changes(library, lambda: choose_features(load_settings(settings), library.recipe))


def _say(as_json: bool, data: dict[str, Any], *lines: str) -> None:
    if as_json:
        return say(json_text(data), to=sys.stdout)
    for line in lines:
        note(line)


@library.command("list")
@click.option("--label", metavar="NAME", help="Only examples of this label (with --library).")
@library_options
def list_command(label: str | None, as_json: bool, **settings: Any) -> None:
    """List the libraries; with --library, its examples."""
    if settings["library"] is not None or label is not None:
        _list_examples(settings, label, as_json)
    else:
        _list_libraries(settings, as_json)


def _list_examples(settings: dict[str, Any], label: str | None, as_json: bool) -> None:
    rows = table("id", "label", "x>", "y>", "w>", "h>", "added", "source")
    for point in _open(settings).listing(label):
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
    from sam_detect.library.places import LEARN, list_libraries

    found = []
    for name in list_libraries(load_settings(settings)):
        try:
            stats = _open({**settings, "library": name}, existing=False).stats()
            if stats["recipe"] is not None:  # else its first learner was killed
                found.append({"name": name, **{key: stats[key] for key in ("examples", "classes")}})
        except SamDetectError as error:
            found.append({"name": name, "error": one_line(error)})
    if as_json or not found:
        _say(as_json, {"libraries": found}, f"no library yet; make one: {LEARN}")
        return
    rows = table("library", "examples>", "labels")
    for row in found:
        labels = row.get("error") or ", ".join(f"{n} ({c})" for n, c in row["classes"].items())
        rows.add_row(escape(row["name"]), str(row.get("examples", "?")), escape(labels))
    show(rows)


@library.command("show")
@click.argument("example_id", required=False)
@click.option("--output", type=FILE, help="Write the example's crop here, with its outline.")
@library_options
def show_command(
    example_id: str | None, output: Path | None, as_json: bool, **settings: Any
) -> None:
    """Show one example by its id or the beginning of it (its crop: --output).

    Without an id, all of the library.
    """
    if example_id is None:
        options.refuse("it writes the crop of one example: name its id", "output")
        _list_examples(settings, None, as_json)
        return
    example = _open(settings).get(example_id)
    if output is not None:
        from sam_detect.io import write_image
        from sam_detect.io.overlay import draw_preview
        from sam_detect.types import Masks

        crop = example.crop
        write_image(output, draw_preview(crop.image_rgb, Masks.from_dense(crop.mask)))
        note(f"wrote {output}")
    fields = ("id", *SHOWN, "segmentation")
    data = {name: getattr(example, name) for name in fields}
    if as_json:
        say(json_text(data), to=sys.stdout)
        return
    rows = table("field", "value", show_header=False)
    for name in fields[:-1]:
        rows.add_row(name, escape(str(data[name])))
    show(rows)


@library.command("rename")
@click.argument("old")
@click.argument("new")
@library_options
def rename_command(old: str, new: str, as_json: bool, **settings: Any) -> None:
    """Give all examples of one label another."""
    count = _changes(_open(settings), settings).rename([old], new, merge=True).examples
    renamed = counted(count, "example")
    _say(as_json, {"renamed": count}, f"renamed {renamed} from '{old}' to '{new}'")


@library.command("remove")
@click.argument("example_ids", nargs=-1)
@click.option("--label", metavar="NAME", help="Remove all examples of this label.")
@click.option(
    "--all", "everything", is_flag=True, help="Remove the whole library (with --library NAME)."
)
@click.option("--yes", is_flag=True, help="Do not ask.")
@library_options
def remove_command(
    example_ids: tuple[str, ...],
    label: str | None,
    everything: bool,
    yes: bool,
    as_json: bool,
    **settings: Any,
) -> None:
    """Remove examples by id (or the beginning of it) or label, or a library with --all.

    Of more than ten examples it asks first. `library undo` brings examples back, no library.
    """
    from sam_detect.library import lookup
    from sam_detect.library.places import options_of

    if bool(example_ids) + (label is not None) + everything != 1:
        raise click.UsageError("remove takes either example ids, or --label NAME, or --all")
    if everything and settings["library"] is None:
        raise click.UsageError("remove --all needs the name of the library: --library NAME")
    chosen = _open(settings, sound=not everything)
    ids = lookup.resolve(chosen.store, example_ids, chosen.name) if example_ids else []
    if label is not None:
        ids = lookup.of_label(chosen.store, label, chosen.name)
    if not yes and (everything or len(ids) > MOST_UNASKED):
        whole = f"{counted(len(ids), 'example') if ids else 'all'} of library '{chosen.name}'"
        if not (sys.stdin and sys.stdin.isatty()):
            raise click.UsageError(f"this removes {whole}: add --yes")
        click.confirm(f"Remove {whole}?", abort=True, err=True)
    count, back = chosen.destroy() if everything else len(ids), ""
    if not everything:
        try:
            _changes(chosen, settings).remove(ids)
            back = f"; to bring back: sam-detect library undo {options_of(chosen.store.location)}"
        except LibraryCorruptError:  # what is damaged cannot be kept on record
            chosen.remove(ids=ids)
    removed = "a damaged library" if count is None else counted(count, "example")
    _say(as_json, {"removed": count}, f"removed {removed}{back}")


@library.command("log")
@library_options
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
        rows.add_row(entry.id or "older", entry.time, escape(_learnt(entry)), escape(pictures))
    show(rows)


@library.command("undo")
@library_options
def undo_command(as_json: bool, **settings: Any) -> None:
    """Take the last change back: what was learnt, removed or renamed last.

    What a learning batch added is removed, what it relabelled gets its former label, and what it
    removed as contradicting it comes back; see `library log`. What was removed or renamed by hand
    is as it was. Undo again takes back the change before.
    """
    from sam_detect.library.changes import Undone

    chosen = _open(settings)
    done = _changes(chosen, settings).undo_last()
    if isinstance(done, Undone):
        data = {**asdict(done.change), "restored": done.restored, "kept": done.kept}
        text = f"took back: {done.change.action} ({', '.join(done.change.labels)}); "
        text += f"{counted(done.restored, 'example')} as before"
        text += f", {done.kept} changed since stay" * bool(done.kept)
    else:
        data, text = done.to_dict(), f"took back batch {done.id}: {_learnt(done)}"
    total = len(chosen)
    text += f"; the library has {counted(total, 'example')}"
    _say(as_json, {"undone": data, "total": total}, text)


def _learnt(entry: LearningBatch) -> str:
    """What a batch learnt, in half a line."""
    learnt = [f"{label} ({count})" for label, count in entry.labels.items()]
    learnt += [f"not {label} ({count})" for label, count in entry.negatives.items()]
    learnt += [f"{entry.relabelled} relabelled"] * bool(entry.relabelled)
    learnt += [f"{entry.taken_back} contradicting removed"] * bool(entry.taken_back)
    return ", ".join(learnt)


@library.command("verify")
@library_options
def verify_command(as_json: bool, **settings: Any) -> int:
    """Compare every example with its checksums; ends with 1 where one is damaged.

    Nothing is changed. With --json, one object: sound, examples, stored, damaged, problem.
    """
    from sam_detect.library.integrity import verify

    return _report(verify(_open(settings)), as_json)


@library.command("repair")
@library_options
def repair_command(as_json: bool, **settings: Any) -> int:
    """Keep the sound examples of a damaged library, and list the others, which are removed.

    What the engine's log still has is recovered. Ends with 1 where an example was lost.
    """
    from sam_detect.library.integrity import repair

    return _report(repair(_open(settings)), as_json)


def _report(report: Verification | Repaired, as_json: bool) -> int:
    """Prints what was found; returns the exit code."""
    _say(as_json, report.to_dict(), *report.lines())
    return 0 if report.sound else 1


@library.command("stats")
@library_options
def stats_command(as_json: bool, **settings: Any) -> None:
    """Count the examples of a library by class, and say how it was made."""
    from sam_detect.library.similarity import library_stats

    stats = library_stats(_open(settings))
    if as_json:
        return say(json_text(stats), to=sys.stdout)
    rows, recipe = table("label", "examples>"), stats["recipe"]
    for name, count in stats["classes"].items():
        rows.add_row(escape(name), str(count))
    show(rows)
    note(
        f"library '{stats['library']}': {counted(stats['examples'], 'example')} "
        f"({stats['negatives']} negative), {stats['bytes'] / 1e6:.1f} MB, "
        f"{recipe['embedder']} with {recipe['fade']} fade, in {stats['location']}"
    )
    for line in parts_lines(stats["part_weights"]):
        note(line)


@library.command("export")
@click.argument("file", type=FILE)
@library_options
def export_command(file: Path, as_json: bool, **settings: Any) -> None:
    """Write a library into one file, to carry it to another machine."""
    from sam_detect.library.transfer import export_library

    count = export_library(_open(settings), file)
    text = f"wrote {counted(count, 'example')} to {file}"
    _say(as_json, {"exported": count, "file": str(file)}, text)


@library.command("import")
@click.argument("file", type=FILE)
@click.option(
    "--conflicts",
    type=click.Choice(["keep", "replace"]),
    default="keep",
    help="Where the file has another label for an object of yours: keep yours, or replace it.  "
    "[default: keep]",
)
@click.option("--dry-run", is_flag=True, help="Only say what would be imported.")
@library_options
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
    data = {**asdict(done), "recipe": done.recipe.to_dict(), "dry_run": dry_run}
    labels = ", ".join(f"{label} ({count})" for label, count in done.classes.items())
    recipe = f"{done.recipe.embedder} with {done.recipe.fade} fade"
    has = f"{labels or 'no labels'}, {counted(done.negatives, 'negative')}, {recipe}"
    lines = [f"{file}: {has}"] if dry_run else []
    for each in done.conflicts[:SHOWN_CONFLICTS]:
        lines.append(f"{each.id}: '{each.label}' in the file, '{each.own_label}' in the library")
    verb, has = ("would add", "would have") if dry_run else ("added", "has")
    text = f"{verb} {counted(done.added, 'example')} to library '{done.library}'; it {has} "
    text += f"{done.total}; {done.known} were there already" if done.known else str(done.total)
    if done.conflicts:
        kept = "the file's label is taken" if conflicts == "replace" else "yours stays"
        text += f"; {len(done.conflicts)} contradict the library ({kept})"
    _say(as_json, data, *lines, text)


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
@library_options
def push_command(to_url: str, to_library: str | None, as_json: bool, **settings: Any) -> None:
    """Copy a library to a Qdrant server (its key: QDRANT_API_KEY)."""
    from sam_detect.library.transfer import copy_library

    target = {"library": to_library or settings["library"], "store": "qdrant", "qdrant_url": to_url}
    target_library = _open(target, existing=False)
    done = copy_library(_open(settings), target_library)
    place, added = target_library.store.location, counted(done.added, "example")
    said = {"added": done.added, "relabelled": done.relabelled, "total": done.total}
    _say(as_json, said, f"pushed to {place}: {added} added, {done.total} there now")


@library.command("reindex", cls=options.SettingsCommand)
@options.settings_options(*options.section("Vectors"), "device")
@library_options
def reindex_command(as_json: bool, **settings: Any) -> None:
    """Make all vectors again, with another embedder or fade, from the kept crops."""
    from rich.console import Console
    from rich.progress import Progress

    from sam_detect.config import load_settings
    from sam_detect.library.reindex import reindex
    from sam_detect.parts import asked_for, require_used
    from sam_detect.pipeline.choosing import choose_features

    given = {"embedder": settings["embedder"] or ("sam2" if settings["sam_model"] else None)}
    loaded = load_settings({**settings, **asked_for(given, settings)})
    chosen = _open({name: settings[name] for name in options.section("Library")})
    features = choose_features(loaded, chosen.recipe)
    used = {"embedder": features.recipe.embedder, "fade": features.recipe.fade, "store": "qdrant"}
    require_used(loaded, {"segmenter": "naive", **used, **loaded.chosen})
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        total = reindex(chosen, features, walk=partial(bar.track, description="making vectors"))
    recipe = features.recipe
    text = f"made {counted(total, 'vector')} again with {recipe.embedder} and {recipe.fade} fade"
    _say(as_json, {"reindexed": total, "recipe": recipe.to_dict()}, text)
