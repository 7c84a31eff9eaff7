"""What a command says on stderr: notes, progress, and failures that do not stop a run."""

from __future__ import annotations

import contextlib
import json
import math
import os
import sys
import traceback
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TextIO, TypeVar

from sam_detect.errors import (
    ConfigError,
    ImageError,
    LibraryError,
    MaskError,
    OutputError,
    one_line,
    without_secrets,
)

if TYPE_CHECKING:
    from sam_detect.api import SAMDetect
    from sam_detect.library.history import Added
    from sam_detect.pipeline.batch import Prepared
    from sam_detect.types import Frame, Masks

Item = TypeVar("Item")

JOINERS = "\u200c\u200d"
"""Show nothing, and are needed to write Persian, Indic scripts and emoji."""

debugging: ContextVar[bool] = ContextVar("debugging", default=False)
"""Whether ``--debug`` was given: then each error shows its traceback."""
verbose: ContextVar[bool] = ContextVar("verbose", default=False)
"""Whether ``--verbose`` was given: then the parts are named, also where they did not change."""


def printable(text: str) -> str:
    """Text on one line that every terminal and encoding can show: file names may hold anything."""
    if text.isascii() and text.isprintable():
        return text
    kept = (c if c.isprintable() or c in JOINERS else ascii(c)[1:-1] for c in text)
    return "".join(kept).encode("utf-8", "backslashreplace").decode()


def json_text(data: Any) -> str:
    """JSON on one line, in which characters that could move a terminal's cursor or turn its text
    around are written as escapes; other text stays readable."""
    text = json.dumps(data, ensure_ascii=False)
    if text.isascii():
        return text.replace("\x7f", "\\u007f")
    return "".join(
        c if c.isprintable() or c in JOINERS else json.dumps(c)[1:-1].replace("\x7f", "\\u007f")
        for c in text
    )


def say(text: str, *, to: TextIO | None, styled: bool = False) -> None:
    """Prints a line now. Not by click, which would print into a progress bar instead of above.

    Args:
        styled: the text has a terminal's colours in it, and what came from files or servers was
            made printable before. Otherwise that is done here.
    """
    if to is None:
        return
    if not styled:
        text = "\n".join(printable(line) for line in text.split("\n"))
    try:
        print(text, file=to, flush=True)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputError(f"cannot write to {to.name}: {error.strerror}") from error


def note(text: str) -> None:
    """One line for people, on stderr, so that stdout stays machine-readable."""
    # A closed stderr does not stop the work.
    with contextlib.suppress(OSError, OutputError, ValueError):
        say(printable(without_secrets(text)), to=sys.stderr)


def show_traceback() -> None:
    """The traceback of the error being handled, where ``--debug`` asks for it."""
    if debugging.get():
        with contextlib.suppress(OSError, OutputError, ValueError):
            say(without_secrets(traceback.format_exc().rstrip()), to=sys.stderr)


def open_detector(
    settings: dict[str, Any], *, learns: bool = False, new: bool = False
) -> SAMDetect:
    """The detector of a command's options; what it warns of and one line about it on stderr.

    Args:
        learns: whether the command learns, which makes a library that does not exist.
        new: whether the library may be a new one, as it can be taught later.

    Raises:
        LibraryNotFoundError: a library is named that does not exist.
        RecipeMismatchError: the command learns in another recipe than the library's.
    """
    from sam_detect.api import SAMDetect

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        detector = SAMDetect(**settings)
    for each in dict.fromkeys(str(w.message) for w in caught if w.category is UserWarning):
        note(f"warning: {each}")
    if learns:
        detector.library.require_recipe(detector.recipe)
    elif new and detector.library.manifest() is None:
        note(name_of_library(detector))
    else:
        _require_library(detector)
    _announce(detector)
    if not learns:
        _note_other_recipe(detector)
    return detector


def _require_library(detector: SAMDetect) -> None:
    """A library that is named has to exist. The default one need not: it is made by learning."""
    from sam_detect.library.places import other_libraries

    detector.require_library()
    if detector.settings.store != "memory" and detector.library.manifest() is None:
        others = other_libraries(detector.settings)
        if others:
            note(others)


def name_of_library(detector: SAMDetect) -> str:
    """As the summary says it; a new library is called new, so that a typo is seen."""
    from sam_detect.library.places import similar_libraries

    name = detector.library.name
    if detector.library.manifest() is not None:
        return f"library '{name}'"
    close = similar_libraries(detector.settings)
    also = f" (there is also '{close[0]}')" if close else ""
    return f"new library '{name}'{also}"


def _note_other_recipe(detector: SAMDetect) -> None:
    """The line about a library that is read in another recipe than its own."""
    from sam_detect.library.places import reading_message

    library, mine, count = detector.library, detector.library.recipe, len(detector.library)
    if mine is not None and mine != detector.recipe and count:
        location = library.store.location
        note(reading_message(library.name, location, count, mine, detector.recipe))


def _announce(detector: SAMDetect) -> None:
    """The one line that says which parts were chosen, why, and what they know; where that is as in
    the last run with this library, only with ``--verbose``."""
    from sam_detect import parts
    from sam_detect.cli import announced
    from sam_detect.models.catalogue import made_with_weights

    asked = detector.settings
    learnt = detector.library.recipe is not None
    segmenter = parts.name_of("segmenter", detector.segmenter)
    stored = "the library's" if learnt else ""
    recipe = detector.recipe
    embedder = _why(asked.embedder != "auto", stored or _because(recipe.embedder == "clip", "CLIP"))
    because = _because(segmenter == "sam2", "SAM 2")
    if learnt and not made_with_weights(recipe):
        because = "auto: the library was made without models"
    proposer = _why(asked.segmenter != "auto", because)
    faded = _why(parts.fade_asked_for(asked) is not None, stored or "default")
    chosen = (
        f"segmenter {segmenter} ({proposer}), embedder {recipe.embedder} ({embedder}), "
        f"fade {recipe.fade} ({faded})"
    )
    library = detector.library
    place = f"{library.store.location}\n{library.name}"
    changed = announced.changed(place, chosen, make_home=asked.store != "memory")
    if changed or verbose.get():
        note(
            f"{chosen}; library '{library.name}': {counted(len(library), 'example')} in "
            f"{library.store.location}"
        )


def counted(count: int, thing: str) -> str:
    """``1 frame``, ``2 frames``."""
    return f"{count} {thing}{'' if count == 1 else 's'}"


def _because(model: bool, family: str) -> str:
    return f"auto: {'a' if model else 'no'} {family} model {'is ' if model else ''}here"


def _why(asked: bool, otherwise: str) -> str:
    return "as asked" if asked else otherwise


@contextmanager
def progress(items: Sequence[Item], what: str) -> Iterator[Iterable[Item]]:
    """Walks a list with bars on stderr, where that is a terminal: one of the items, if there is
    more than one, and one of the windows of a large picture."""
    if sys.stderr is None or not sys.stderr.isatty():
        yield items
        return
    from rich.console import Console
    from rich.progress import Progress

    from sam_detect.pipeline import tiling

    # Rich would print what goes to stdout above the bar, that is to stderr: right for a terminal,
    # wrong for a file or a pipe.
    to_terminal = sys.stdout is not None and sys.stdout.isatty()
    shown = Progress(console=Console(stderr=True), transient=True, redirect_stdout=to_terminal)

    def tell(done: int, count: int) -> None:
        """Shows the bar of the windows from the first to the last one."""
        shown.update(windows, completed=done, total=count, visible=done < count)
        if len(items) < 2:
            (shown.start if done < count else shown.stop)()

    steps = shown.track(items, description=what) if len(items) > 1 else items
    windows = shown.add_task("windows", total=None, visible=False)
    token = tiling.progress.set(tell)
    try:
        if len(items) > 1:
            shown.start()
        yield steps
    finally:
        tiling.progress.reset(token)
        shown.stop()


class Failures:
    """Bad inputs of a run: each is named at once and skipped, and the run ends non-zero."""

    def __init__(self) -> None:
        self.failed: set[str] = set()

    @contextmanager
    def guard(self, name: str) -> Iterator[None]:
        """Runs one item; its own badness is noted, anything else ends the run."""
        try:
            yield
        except (ImageError, MaskError) as error:
            show_traceback()
            self.add(name, one_line(error))

    def add(self, name: str, reason: str) -> None:
        self.failed.add(name)
        spaced = " ".join(name.split())
        note(f"error: {reason}" if spaced in reason else f"error: {name}: {reason}")

    def end(self, names: Iterable[str]) -> int:
        """The run's exit code; with a summary where several things were worked on.

        Args:
            names: of everything that was tried.
        """
        tried = {*names, *self.failed}
        if self.failed and len(tried) > 1:
            note(f"{len(self.failed)} of {len(tried)} failed, see above; the others are done")
        return 1 if self.failed else 0


def find_pictures(images: Sequence[str], failures: Failures, *, also: str = "") -> list[str]:
    """The picture files of a command's arguments, each once; what names none is a failure.

    Args:
        also: an argument that is taken as it is.
    """
    from sam_detect.io import find_images

    found: dict[str, str] = {}
    for image in images:
        if image == also:
            found[image] = image
            continue
        with failures.guard(image):
            for path in find_images(image):
                found.setdefault(os.path.abspath(path), path)
    return list(found.values())


def parse_numbers(option: str, text: str, names: str) -> list[float]:
    """The numbers of an option like ``--box x,y,w,h``; a width and a height are above 0."""
    parts = text.split(",")
    try:
        values = [float(part) for part in parts]
    except ValueError:
        values = []
    if len(values) != len(names.split(",")) or not all(math.isfinite(v) for v in values):
        raise ConfigError(f"{option} takes {names} in pixels, got '{text}'")
    if any(value <= 0 for value in values[2:]):
        raise ConfigError(f"{option} needs a width and a height above 0, got '{text}'")
    return values


def require_label(label: str | None) -> None:
    """Raises ``ConfigError`` for a label that is no name, before anything else is done."""
    from sam_detect.types.labels import normalised_label

    if label is not None:
        try:
            normalised_label(label)
        except LibraryError as error:
            raise ConfigError(f"--label: {error}") from error


@dataclass
class LearningReport:
    """What ``learn`` says of each committed batch, and at the end."""

    as_json: bool
    negative: bool
    exhaustive: bool
    accept_guess: bool = False
    added: int = 0
    relabelled: int = 0
    known: int = 0
    renamed: Counter[tuple[str, str]] = field(default_factory=Counter)
    total: int | None = None
    batch: str | None = None
    pieces: list[int] = field(default_factory=list)
    """Of the examples with more than one."""

    def learn(self, detector: SAMDetect, frame: Frame, masks: Masks, labels: list[str]) -> None:
        """Learns one picture's objects, and says so once they are safe; masks beyond the labels
        are guesses, and are not learnt."""
        if labels:
            how = self._how(masks, len(labels), detector)
            learnt = detector.learn_frame(frame, masks[: len(labels)], labels, **how)
            self._say(len(labels), learnt)

    def learn_prepared(self, detector: SAMDetect, prepared: Prepared) -> None:
        """The same, of what workers prepared."""
        masks, count = prepared.masks, len(prepared.labels)
        if count:
            how = self._how(masks, count, detector)
            self._say(count, detector.learn_prepared(prepared, **how))

    def _how(self, masks: Masks, learnt: int, detector: SAMDetect) -> dict[str, Any]:
        from sam_detect.io.mask_pictures import count_pieces

        # All pictures of one command are one batch, which `library undo` takes back together.
        self.batch = self.batch or detector.library.new_batch()
        others = masks[learnt:] if self.exhaustive else None
        counts = (count_pieces(masks.crop(index)) for index in range(learnt))
        self.pieces += [count for count in counts if count > 1]
        return {"negative": self.negative, "others": others, "batch": self.batch}

    def _say(self, count: int, done: Added) -> None:
        self.total = done.total
        self.added += done.added
        self.relabelled += done.relabelled
        self.known += count - done.added - done.relabelled - done.twice
        self.renamed.update(done.renamed)
        if self.as_json:
            say(json.dumps({"added": done.added, "total": done.total}), to=sys.stdout)

    @contextmanager
    def summary(self, library: str) -> Iterator[None]:
        """Sums up at the end, even of a run that is stopped."""
        stopped = True
        try:
            yield
            stopped = False
        finally:
            if self.total is not None or not stopped:
                more = f", {self.relabelled} corrected" if self.relabelled else ""
                more += f", {self.known} known already" if self.known else ""
                has = "" if self.total is None else f"; {library} has {self.total}"
                if self.pieces:
                    share = f", {len(self.pieces)} of them" if self.added > 1 else ""
                    more = f"{share} of {counted(max(self.pieces), 'piece')}{more}"
                note(f"learnt {counted(self.added, 'example')}{more}{has}")
            for (was, now), number in self.renamed.items():
                was_named = f"{counted(number, 'example')} had the label '{was}', now '{now}'"
                note(f"{was_named}; to take this back: sam-detect library undo")
