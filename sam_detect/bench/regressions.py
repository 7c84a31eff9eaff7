"""What the newest commit of a history does worse than the one measured before it.

Only what holds on a noisy machine is judged: ratios of pairs, which both sides of met the same
machine, and quality figures. Times by themselves are shown, not judged.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

QUALITY_FIGURES = ("f1", "proposal_recall")
"""Precision and recall by themselves may be traded for one another."""
QUALITY_TOLERANCE = 0.01
"""Less than this is rounding, or an object on the brink. The spread over the seeds is no measure
of chance here: what is compared was evaluated with the same seeds, so with the same examples."""
RATIO_TOLERANCE = 0.05
"""Share of a ratio that may be lost even where its spread was measured as less."""
MEMORY_TOLERANCE = 0.2
"""The same for a ratio of memory, which is measured once, in pages, and so has no spread."""

Record = Mapping[str, Any]


@dataclass(frozen=True)
class Figure:
    """One judged number of one record.

    Attributes:
        key: what must agree for two to be compared.
        name: for people.
        value: higher is better.
        spread: how far it may lie off by chance, as measured.
        least: how far it may in any case.
    """

    key: tuple[str, ...]
    name: str
    value: float
    spread: float
    least: float


@dataclass(frozen=True)
class Regression:
    """A figure of the newest commit that fell by more than chance."""

    name: str
    before: float
    now: float
    allowed: float
    since: str

    def __str__(self) -> str:
        return (
            f"{self.name} fell from {self.before:.3g} ({self.since}) to {self.now:.3g}, "
            f"by more than {self.allowed:.2g}"
        )


def regressions(records: Sequence[Record]) -> list[Regression]:
    """Compares each figure of the newest commit with the newest of any other commit before it.

    A ratio is compared on the same machine, suite and workload only; quality on the same dataset,
    protocol, method and recipe, on any machine. Where a figure was measured more than once on the
    newest commit, the last counts.
    """
    ordered = sorted(records, key=lambda record: str(record["date"]))
    if not ordered:
        return []
    newest = code_of(ordered[-1])
    now: dict[tuple[str, ...], Figure] = {}
    before: dict[tuple[str, ...], tuple[Figure, Record]] = {}
    for record in ordered:
        for figure in figures(record):
            if code_of(record) == newest:
                now[figure.key] = figure
            else:
                before[figure.key] = figure, record
    compared = ((now[key], *before[key]) for key in now if key in before)
    found = (_regression(*each) for each in compared)
    return [each for each in found if each is not None]


def code_of(record: Record) -> str:
    """What ran: the commit (with ``+`` where it was changed), else the version."""
    commit = record.get("commit")
    if not commit:
        return str(record.get("versions", {}).get("sam-detect", "unknown"))
    return f"{str(commit)[:7]}{'+' if record.get('dirty') else ''}"


def machine_key(record: Record) -> str:
    """What must agree for two machines to count as one."""
    machine = record["machine"]
    return "/".join(str(machine.get(name)) for name in ("cpu", "cores", "threads", "gpu"))


def figures(record: Record) -> Iterator[Figure]:
    """The judged numbers of a record; none of one that is of another kind."""
    if record["kind"] == "bench":
        yield from _ratios(record)
    elif record["kind"] == "evaluate":
        yield from _qualities(record)


def method_name(record: Record) -> str:
    """The method of an evaluation, with what a sweep varied."""
    variant = record.get("variant")
    if not isinstance(variant, dict) or not variant:
        return str(record["method"])
    return f"{record['method']} [{', '.join(f'{name}={value}' for name, value in variant.items())}]"


def recipe_name(record: Record) -> str:
    """Embedder and fade of a record, in a few words; empty where it has no recipe."""
    recipe = record.get("recipe") or {}
    return ", ".join(str(recipe[name]) for name in ("embedder", "fade") if name in recipe)


def _ratios(record: Record) -> Iterator[Figure]:
    suite = str(record.get("suite"))
    for name, pair in record.get("pairs", {}).items():
        ratio = _number(pair.get("ratio"))
        if ratio is not None and pair.get("judged", True):
            yield Figure(
                key=(suite, str(record.get("workload")), machine_key(record), name),
                name=f"{suite}: the ratio {name}",
                value=ratio,
                spread=_number(pair.get("spread")) or 0.0,
                least=ratio * (MEMORY_TOLERANCE if pair.get("unit") == "MB" else RATIO_TOLERANCE),
            )


def _qualities(record: Record) -> Iterator[Figure]:
    protocol = (
        "dataset", "method", "variant", "shots", "task", "protocol", "seeds", "group_by", "iou",
    )  # fmt: skip
    words = [method_name(record), *filter(None, [recipe_name(record)])]
    about = f"{record['dataset']}, {record['shots']} shots, {' with '.join(words)}"
    for name in QUALITY_FIGURES:
        value = _number(record.get(name))
        if value is not None:
            yield Figure(
                key=(*(str(record.get(field)) for field in protocol), recipe_name(record), name),
                name=f"{about}: {name}",
                value=value,
                spread=0.0,
                least=QUALITY_TOLERANCE,
            )


def _regression(now: Figure, before: Figure, record: Record) -> Regression | None:
    allowed = max(now.spread + before.spread, before.least)
    if before.value - now.value <= allowed:
        return None
    since = f"{code_of(record)}, {str(record['date'])[:10]}"
    return Regression(now.name, before.value, now.value, allowed, since)


def _number(value: Any) -> float | None:
    plain = isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(value) if plain else None
