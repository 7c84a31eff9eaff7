"""What the metrics page shows, made from a history: numbers as texts, series as charts."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import metrics_charts as charts
from markupsafe import Markup

from sam_detect.bench.machine import machine_name
from sam_detect.bench.regressions import code_of, machine_key, recipe_name

Record = Mapping[str, Any]

STEPS = ("propose", "fade_crop", "embed", "search", "label")
"""The stages that make up ``detect``, in its order."""
SIZED = re.compile(r"(?P<name>.+)_(?P<size>\d+)")
OUTPUT_STAGES = ("write_json", "write_overlay")


class Page:
    """All that the template asks for.

    Args:
        records: of ``read_history``.
        problems: lines of the history that were skipped.
        worse: lines about what got worse.
    """

    def __init__(
        self, records: Sequence[Record], problems: Sequence[str], worse: Sequence[str]
    ) -> None:
        self.records = sorted(records, key=lambda record: str(record["date"]))
        self.problems = problems
        self.worse = worse
        self.newest = self.records[-1]
        self.codes = list(dict.fromkeys(code_of(record) for record in self.records))
        self.machines: dict[str, str] = {}
        for record in self.records:
            self.machines.setdefault(machine_key(record), machine_name(record["machine"]))
        self.quality = Quality([r for r in self.records if r["kind"] == "evaluate"], self)

    # -- at a glance -------------------------------------------------------------------------

    @property
    def code(self) -> str:
        return code_of(self.newest)

    @property
    def date(self) -> str:
        return str(self.newest["date"])[:10]

    @property
    def tiles(self) -> list[dict[str, str]]:
        """The few numbers that say most: ``value``, ``name``, ``note``."""
        found = []
        stages = self._latest_of("stages")
        if stages is not None:
            figures = stages.get("figures") or {}
            pace = figures.get("detect_seconds_per_megapixel")
            detect = stages["stages"].get("detect", {})
            where = self.machines[machine_key(stages)]
            if pace is not None:
                found.append(_tile(f"{pace:.2f} s", "per megapixel, to detect", where))
            if detect.get("peak_memory_mb") is not None:
                found.append(_tile(megabytes(detect["peak_memory_mb"]), "peak memory to detect",
                                   "above what the process holds before"))  # fmt: skip
        found += self.quality.tiles
        store = self._latest_of("store")
        if store is not None:
            pairs = {n: p for n, p in store["pairs"].items() if "embedded_vs_local_search" in n}
            for name, pair in sorted(pairs.items(), key=lambda item: _size_of(item[0]))[-1:]:
                if pair["ratio"] is not None:
                    note = f"among {_size_of(name):,} vectors, beside qdrant-client's local mode"
                    found.append(_tile(f"{pair['ratio']:.1f}×", "faster search, on disk", note))
        return found

    # -- time --------------------------------------------------------------------------------

    @cached_property
    def newest_benches(self) -> list[Record]:
        """The newest measurement of each suite, workload and machine; the newest first."""
        found = {}
        for record in self.records:
            if record["kind"] == "bench":
                found[record["suite"], record.get("workload"), machine_key(record)] = record
        return sorted(found.values(), key=lambda record: str(record["date"]), reverse=True)

    @property
    def bars(self) -> list[dict[str, Any]]:
        """Per machine the parts of ``detect``: ``share`` in percent, ``color`` and texts."""
        found = []
        for record in self.newest_benches:
            steps = [(n, record["stages"][n]) for n in STEPS if n in record["stages"]]
            total = sum(stage["median_ms"] or 0 for _, stage in steps)
            if not total:
                continue
            parts = [
                {
                    "name": label(name),
                    "share": 100 * (stage["median_ms"] or 0) / total,
                    "color": STEPS.index(name),
                    "time": milliseconds(stage["median_ms"]),
                    "tip": f"{label(name)}: {_plus_minus(stage)}, "
                    f"{100 * (stage['median_ms'] or 0) / total:.0f} % of the sum",
                }
                for name, stage in steps
            ]
            found.append({"about": self.about(record), "parts": parts})
        return found

    @property
    def stage_charts(self) -> list[dict[str, Any]]:
        """The time of each stage that is not of one size, by commit, a line for each machine."""
        found = []
        for name in self._stage_names():
            lines = [
                charts.Line(self.machines[machine], color, points)
                for color, machine in self._colored()
                if (points := self._points(name, machine, "median_ms", "spread_ms", milliseconds))
            ]
            top = max(p.y + p.spread for line in lines for p in line.points)
            in_seconds = top >= 2000
            if in_seconds:
                lines = [_scaled(line, 0.001) for line in lines]
            y = charts.linear_axis(top / 1000 if in_seconds else top, " s" if in_seconds else " ms")
            title = f"time of {label(name)} by commit"
            found.append({"name": label(name), "svg": charts.chart(lines, self._commit_axis(), y, title=title),
                          "note": STAGE_NOTES.get(name, "")})  # fmt: skip
        return found

    @property
    def size_charts(self) -> list[dict[str, Any]]:
        """Time and memory of the stores by their number of vectors, each axis logarithmic."""
        record = self._latest_sized()
        if record is None:
            return []
        groups: dict[str, dict[str, list[charts.Point]]] = defaultdict(lambda: defaultdict(list))
        for name, stage in record["stages"].items():
            match = SIZED.fullmatch(name)
            if match is None:
                continue
            store, _, what = match["name"].partition("_")
            size = int(match["size"])
            if stage["median_ms"]:
                tip = f"{store}, {size:,} vectors: {_plus_minus(stage)}"
                groups[f"time to {what}"][store].append(charts.Point(size, stage["median_ms"], tip))
            if what == "insert" and stage["peak_memory_mb"]:
                tip = f"{store}, {size:,} vectors: {megabytes(stage['peak_memory_mb'])}"
                groups["memory to hold them"][store].append(
                    charts.Point(size, stage["peak_memory_mb"], tip)
                )
        return [self._size_chart(what, stores) for what, stores in groups.items()]

    def _size_chart(self, what: str, stores: dict[str, list[charts.Point]]) -> dict[str, Any]:
        lines = [
            charts.Line(store, STORE_COLORS.get(store, 5), sorted(points, key=lambda p: p.x))
            for store, points in stores.items()
        ]
        points = [p for line in lines for p in line.points]
        text = megabytes if "memory" in what else milliseconds
        x = charts.log_axis([p.x for p in points], lambda v: f"{v:,.0f}")
        y = charts.log_axis([p.y for p in points], text)
        svg = charts.chart(lines, x, y, title=f"{what} by number of vectors")
        names = [{"name": line.name, "color": line.color} for line in lines]
        return {"name": what, "svg": svg, "legend": names}

    # -- ratios, stages, memory --------------------------------------------------------------

    @property
    def ratios(self) -> list[dict[str, Any]]:
        """Per suite and machine the pairs: positions in percent of a logarithmic scale."""
        found = []
        for record in self.newest_benches:
            known = {n: p for n, p in record["pairs"].items() if p["ratio"]}
            if not known:
                continue
            reach = max(max(p["ratio"], 1 / p["ratio"]) for p in known.values())
            reach = max(2.0, reach * 1.15)
            scale = charts.Axis(1 / reach, reach, log=True)
            rows = [self._ratio_row(record, name, pair, scale) for name, pair in known.items()]
            found.append({"about": self.about(record), "rows": rows})
        return found

    def _ratio_row(
        self, record: Record, name: str, pair: Mapping[str, Any], scale: charts.Axis
    ) -> dict[str, Any]:
        ratio, spread = pair["ratio"], pair["spread"] or 0
        text = megabytes if pair.get("unit") == "MB" else milliseconds
        low, high = max(ratio - spread, scale.low), min(ratio + spread, scale.high)
        past = [r["pairs"][name]["ratio"] for r in self._like(record) if name in r["pairs"]]
        past = [value for value in past if value is not None]
        return {
            "name": label(name),
            "ratio": f"{ratio:.3g}",
            "better": ratio >= 1,
            "at": 100 * scale.share(ratio),
            "low": 100 * scale.share(low),
            "width": 100 * (scale.share(high) - scale.share(low)),
            "sides": f"{pair['a']} {text(pair['a_median'])} · {pair['b']} {text(pair['b_median'])}",
            "tip": f"{pair['a']} takes {text(pair['a_median'])}, {pair['b']} "
            f"{text(pair['b_median'])}: ratio {ratio:.3g} ± {spread:.2g}",
            "spark": charts.spark(past, ", ".join(f"{v:.3g}" for v in past)),
        }

    @property
    def tables(self) -> list[dict[str, Any]]:
        """Every stage of the newest measurements: time, spread, memory, and what changed."""
        found = []
        for record in self.newest_benches:
            most = max((s["peak_memory_mb"] or 0 for s in record["stages"].values()), default=0)
            rows = []
            for name, stage in record["stages"].items():
                past = [
                    r["stages"][name]["median_ms"]
                    for r in self._like(record)
                    if name in r["stages"]
                ]
                past = [value for value in past if value is not None]
                rows.append(
                    {
                        "name": label(name),
                        "time": milliseconds(stage["median_ms"]),
                        "spread": milliseconds(stage["spread_ms"]),
                        "memory": megabytes(stage["peak_memory_mb"]),
                        "share": 100 * (stage["peak_memory_mb"] or 0) / most if most else 0,
                        "spark": charts.spark(past, ", ".join(milliseconds(v) for v in past)),
                    }
                )
            found.append(
                {"about": self.about(record), "rows": rows, "skipped": record.get("skipped") or []}
            )
        return found

    @property
    def log(self) -> list[dict[str, str]]:
        """Every measurement, the newest first."""
        return [
            {
                "date": str(record["date"])[:16].replace("T", " "),
                "code": code_of(record),
                "what": self.what(record),
                "machine": self.machines[machine_key(record)],
                "tip": ", ".join(f"{n} {v}" for n, v in (record.get("versions") or {}).items()),
            }
            for record in reversed(self.records)
        ]

    @property
    def legend(self) -> list[dict[str, Any]]:
        return [{"name": self.machines[key], "color": color} for color, key in self._colored()]

    def about(self, record: Record) -> dict[str, str]:
        return {
            "suite": str(record["suite"]),
            "workload": str(record.get("workload", "")),
            "machine": self.machines[machine_key(record)],
            "code": code_of(record),
            "date": str(record["date"])[:10],
        }

    def what(self, record: Record) -> str:
        if record["kind"] == "bench":
            return f"bench {record['suite']}"
        if record["kind"] == "evaluate":
            shots = f"{record['shots']} shot{'' if record['shots'] == 1 else 's'}"
            return f"{record['dataset']}, {shots}, {record['method']}"
        return str(record["kind"])

    # -- inside ------------------------------------------------------------------------------

    def _latest_of(self, suite: str) -> Record | None:
        return next((r for r in self.newest_benches if r["suite"] == suite), None)

    def _latest_sized(self) -> Record | None:
        """The newest measurement with stages of several sizes."""
        return next(
            (
                r
                for r in self.newest_benches
                if sum(map(bool, map(SIZED.fullmatch, r["stages"]))) > 1
            ),
            None,
        )

    def _like(self, record: Record) -> list[Record]:
        """The measurements that can be compared with one, in the order of time, itself included."""
        same = (record["suite"], record.get("workload"), machine_key(record))
        return [
            r
            for r in self.records
            if r["kind"] == "bench" and (r["suite"], r.get("workload"), machine_key(r)) == same
        ]

    def _colored(self) -> list[tuple[int, str]]:
        """Machines that stages were measured on, each with its colour."""
        used = {machine_key(r) for r in self.records if r["kind"] == "bench"}
        names = [key for key in self.machines if key in used]
        return [(index % charts.COLORS, key) for index, key in enumerate(names)]

    def _stage_names(self) -> list[str]:
        names = {
            n: None for r in self.newest_benches for n in r["stages"] if not SIZED.fullmatch(n)
        }
        first = [name for name in ("detect", *STEPS, *OUTPUT_STAGES) if name in names]
        return first + [name for name in names if name not in first]

    def _points(
        self, name: str, machine: str, value: str, spread: str, text: Any
    ) -> list[charts.Point]:
        """The last measurement of each commit on its suite's newest workload."""
        newest = next((r for r in self.newest_benches if name in r["stages"]
                       and machine_key(r) == machine), None)  # fmt: skip
        found = {}
        for record in [] if newest is None else self._like(newest):
            stage = record["stages"].get(name) or {}
            if stage.get(value) is not None:
                tip = f"{code_of(record)}, {str(record['date'])[:10]}: {_plus_minus(stage)}"
                x = self.codes.index(code_of(record))
                found[x] = charts.Point(x, stage[value], tip, (stage.get(spread) or 0) / 2)
        return [found[x] for x in sorted(found)]

    def _commit_axis(self) -> charts.Axis:
        last = len(self.codes) - 1
        shown = sorted({0, last}) if last < 4 else [0, last // 2, last]
        return charts.Axis(0, max(last, 0), ticks=[(i, self.codes[i]) for i in shown])


class Quality:
    """The evaluations of a history.

    Args:
        records: of the kind ``evaluate``, in the order of time.
        page: whose commits the charts share.
    """

    def __init__(self, records: Sequence[Record], page: Page) -> None:
        self.records = records
        self.page = page
        several = defaultdict(set)
        for record in records:
            several[record["method"]].add(recipe_name(record))
        self._several = {method for method, recipes in several.items() if len(recipes) > 1}
        self.newest: dict[tuple[int, str, str], Record] = {}
        for record in records:
            self.newest[record["shots"], record["dataset"], self.method(record)] = record
        self.methods = list(dict.fromkeys(method for _, _, method in self.newest))
        self.datasets = sorted({dataset for _, dataset, _ in self.newest})

    def method(self, record: Record) -> str:
        """The method's name; with embedder and fade where it was measured with several."""
        name = str(record["method"])
        return f"{name} ({recipe_name(record)})" if name in self._several else name

    @property
    def tiles(self) -> list[dict[str, str]]:
        shots = self._main_shots()
        if shots is None:
            return []
        means = {m: self._mean(shots, m) for m in self.methods}
        known = {method: value for method, value in means.items() if value is not None}
        if not known:
            return []
        best = max(known, key=lambda method: known[method])
        note = f"{best}, {shots} shots, mean over the datasets that all methods share"
        return [_tile(f"{known[best]:.2f}", "mean F1 of the best method", note)]

    @property
    def grids(self) -> list[dict[str, Any]]:
        """Per number of shots a grid of F1, datasets by methods; the usual number first."""
        main = self._main_shots()
        counts = sorted({shots for shots, _, _ in self.newest}, key=lambda s: (s != main, s))
        return [self._grid(shots, open=shots == main) for shots in counts]

    def _grid(self, shots: int, *, open: bool) -> dict[str, Any]:  # noqa: A002
        methods = [
            m for m in self.methods if any((shots, d, m) in self.newest for d in self.datasets)
        ]
        datasets = [d for d in self.datasets if any((shots, d, m) in self.newest for m in methods)]
        rows = []
        for dataset in datasets:
            cells = [self._cell(self.newest.get((shots, dataset, method))) for method in methods]
            best = max((c["value"] for c in cells if c["value"] is not None), default=None)
            for cell in cells:
                cell["best"] = best is not None and cell["value"] == best and len(methods) > 1
            rows.append({"name": dataset, "cells": cells})
        means = [self._mean(shots, method) for method in methods]
        texts = ["-" if mean is None else f"{mean:.2f}" for mean in means]
        return {"shots": shots, "methods": methods, "rows": rows, "means": texts, "open": open}

    def _cell(self, record: Record | None) -> dict[str, Any]:
        if record is None or record.get("f1") is None:
            return {"value": None, "text": "-", "tip": "not measured", "share": 0}
        words = [f"{name.replace('_', ' ')} {record[name]:.3f}"
                 for name in ("f1", "precision", "recall", "proposal_recall")
                 if record.get(name) is not None]  # fmt: skip
        if record.get("seconds_per_image") is not None:
            words.append(f"{record['seconds_per_image']:.2f} s an image")
        if record.get("peak_memory_mb") is not None:
            words.append(megabytes(record["peak_memory_mb"]))
        words += [word for word in (recipe_name(record), code_of(record)) if word]
        value = float(record["f1"])
        return {
            "value": value,
            "text": f"{value:.2f}",
            "tip": ", ".join(words),
            "share": 100 * value,
        }

    @property
    def details(self) -> list[dict[str, str]]:
        """Every newest evaluation with all of its figures."""
        return [
            {
                "dataset": dataset,
                "shots": str(shots),
                "method": method,
                "recipe": recipe_name(record),
                **{name: "-" if record.get(name) is None else f"{record[name]:.3f}"
                   for name in ("f1", "precision", "recall", "proposal_recall")},
                "seconds": "-" if record.get("seconds_per_image") is None
                else f"{record['seconds_per_image']:.2f} s",
                "memory": megabytes(record.get("peak_memory_mb")),
                "code": code_of(record),
            }
            for (shots, dataset, method), record in sorted(
                self.newest.items(), key=lambda item: (item[0][1], item[0][0], item[0][2])
            )
        ]  # fmt: skip

    @property
    def legend(self) -> list[dict[str, Any]]:
        return [{"name": m, "color": i % charts.COLORS} for i, m in enumerate(self.methods)]

    @property
    def curves(self) -> list[dict[str, Any]]:
        """F1 by the number of examples, a chart for each dataset, a line for each method."""
        found = []
        for dataset in self.datasets:
            lines = []
            for index, method in enumerate(self.methods):
                points = self._curve(dataset, method)
                if len(points) > 1:
                    lines.append(charts.Line(method, index % charts.COLORS, points))
            if lines:
                shots = sorted({p.x for line in lines for p in line.points})
                x = charts.Axis(shots[0], shots[-1], log=True, ticks=[(s, f"{s:g}") for s in shots])
                svg = charts.chart(lines, x, UNIT, title=f"F1 on {dataset} by examples")
                found.append({"name": dataset, "svg": svg})
        return found

    def _curve(self, dataset: str, method: str) -> list[charts.Point]:
        values: dict[float, float] = {}
        for (shots, where, how), record in sorted(self.newest.items(), key=lambda i: i[1]["date"]):
            if (where, how) != (dataset, method):
                continue
            for each in record.get("learning_curve") or []:
                if each["f1"] is not None:
                    values[each["shots"]] = each["f1"]
            if record.get("f1") is not None:
                values[shots] = record["f1"]
        return [
            charts.Point(shots, f1, f"{method}, {shots:g} examples of each label: F1 {f1:.3f}")
            for shots, f1 in sorted(values.items())
            if shots > 0
        ]

    @property
    def by_commit(self) -> list[dict[str, Any]]:
        """F1 at the usual number of shots by commit, a chart for each dataset."""
        shots = self._main_shots()
        found = []
        for dataset in self.datasets:
            lines = []
            for index, method in enumerate(self.methods):
                points = {}
                for record in self.records:
                    same = (record["shots"], record["dataset"], self.method(record))
                    if same == (shots, dataset, method) and record.get("f1") is not None:
                        x = self.page.codes.index(code_of(record))
                        tip = f"{method}, {code_of(record)}, {str(record['date'])[:10]}: F1 {record['f1']:.3f}"
                        points[x] = charts.Point(x, record["f1"], tip)
                if points:
                    ordered = [points[x] for x in sorted(points)]
                    lines.append(charts.Line(method, index % charts.COLORS, ordered))
            if any(len(line.points) > 1 for line in lines):
                svg = charts.chart(
                    lines, self.page._commit_axis(), UNIT, title=f"F1 on {dataset} by commit"
                )
                found.append({"name": dataset, "svg": svg})
        return found

    def _main_shots(self) -> int | None:
        """The number of shots that most was measured with; of equals 5, else the most."""
        counts: dict[int, int] = defaultdict(int)
        for shots, _, _ in self.newest:
            counts[shots] += 1
        return max(counts, key=lambda s: (counts[s], s == 5, s), default=None)

    def _mean(self, shots: int, method: str) -> float | None:
        """Mean F1 over the datasets that every method was measured on."""
        methods = {m for s, _, m in self.newest if s == shots}
        found = []
        for dataset in self.datasets:
            values = {m: self.newest.get((shots, dataset, m), {}).get("f1") for m in methods}
            if all(value is not None for value in values.values()) and method in values:
                found.append(values[method])
        return sum(found) / len(found) if found else None


UNIT = charts.Axis(0, 1, ticks=[(v / 4, f"{v / 4:g}") for v in range(5)])
STORE_COLORS = {"embedded": 0, "memory": 1, "local": 2}
STAGE_NOTES = {
    "detect": "propose to label, as a user waits for it",
    "propose": "picture to masks",
    "fade_crop": "cut around each mask, fade the context",
    "embed": "crops to vectors",
    "search": "nearest examples of each vector",
    "label": "neighbours to names, one for each object",
    "write_json": "detections to JSON lines",
    "write_overlay": "detections drawn, and encoded as PNG",
}


def label(name: str) -> str:
    """A stage's or pair's name as words."""
    match = SIZED.fullmatch(name)
    words = (match["name"] if match else name).replace("_vs_", " / ").replace("_", " ")
    return f"{words}, {int(match['size']):,}" if match else words


def milliseconds(value: float | None) -> str:
    if value is None:
        return "-"
    if value >= 1000:
        return f"{value / 1000:.3g} s" if value < 1e6 else f"{value / 1000:,.0f} s"
    return f"{value:.3g} ms"


def megabytes(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value / 1024:.2g} GB" if value >= 1024 else f"{value:.3g} MB"


def _plus_minus(stage: Mapping[str, Any]) -> str:
    memory = stage.get("peak_memory_mb")
    more = "" if memory is None else f", peak {megabytes(memory)}"
    return (
        f"{milliseconds(stage['median_ms'])} ± {milliseconds((stage['spread_ms'] or 0) / 2)}{more}"
    )


def _tile(value: str, name: str, note: str) -> dict[str, str]:
    return {"value": value, "name": name, "note": note}


def _size_of(name: str) -> int:
    match = SIZED.fullmatch(name)
    return int(match["size"]) if match else 0


def _scaled(line: charts.Line, factor: float) -> charts.Line:
    points = [charts.Point(p.x, p.y * factor, p.tip, p.spread * factor) for p in line.points]
    return charts.Line(line.name, line.color, points)


__all__ = ["Markup", "Page", "Quality"]
