"""What the metrics page shows, made from a history: numbers as texts, series as charts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import metrics_charts as charts
from metrics_quality import Quality
from metrics_texts import SIZED, label, megabytes, milliseconds, plus_minus, ratio, size_of, tile

from sam_detect.bench.machine import machine_name
from sam_detect.bench.regressions import Record, code_of, machine_key

STEPS = ("propose", "fade_crop", "embed", "search", "label")
"""The stages that make up ``detect``, in its order."""
OUTPUT_STAGES = ("write_json", "write_overlay")
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
        return [*self._stage_tiles(), *self.quality.tiles, *self._store_tiles()]

    def _stage_tiles(self) -> list[dict[str, str]]:
        record = self._latest_of("stages")
        if record is None:
            return []
        found = []
        pace = (record.get("figures") or {}).get("detect_seconds_per_megapixel")
        if pace is not None:
            where = "; ".join(filter(None, (self.machines[machine_key(record)], busy(record))))
            found.append(tile(f"{pace:.2f} s", "per megapixel, to detect", where))
        memory = record["stages"].get("detect", {}).get("peak_memory_mb")
        if memory is not None:
            note = "above what the process holds before"
            found.append(tile(megabytes(memory), "peak memory to detect", note))
        return found

    def _store_tiles(self) -> list[dict[str, str]]:
        record = self._latest_of("store")
        pairs = {} if record is None else record["pairs"]
        searches = [name for name in pairs if name.startswith("embedded_vs_local_search")]
        if not searches:
            return []
        name = max(searches, key=size_of)
        note = f"among {size_of(name):,} vectors, beside qdrant-client's local mode"
        return [tile(ratio(pairs[name]["ratio"]), "faster search, on disk", note)]

    # -- time --------------------------------------------------------------------------------

    @cached_property
    def newest_benches(self) -> list[Record]:
        """The newest measurement of each suite, workload and machine, by suite."""
        found = {}
        for record in self.records:
            if record["kind"] == "bench":
                found[record["suite"], record.get("workload"), machine_key(record)] = record
        newest_first = sorted(found.values(), key=lambda r: str(r["date"]), reverse=True)
        return sorted(newest_first, key=lambda record: str(record["suite"]))

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
                    "tip": f"{label(name)}: {plus_minus(stage)}, "
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
            if not lines:
                continue
            top = max(p.y + p.spread for line in lines for p in line.points)
            unit = " ms"
            if top >= 2000:
                lines, top, unit = [_scaled(line, 0.001) for line in lines], top / 1000, " s"
            y = charts.linear_axis(top, unit)
            svg = charts.chart(lines, self.commit_axis(), y, title=f"{label(name)} by commit")
            found.append({"name": label(name), "svg": svg, "note": STAGE_NOTES.get(name, "")})
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
                tip = f"{store}, {size:,} vectors: {plus_minus(stage)}"
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
            ticks = [
                {"at": 100 * scale.share(value), "text": ratio(value)}
                for value in (10.0**power for power in range(-6, 7))
                if scale.low < value < scale.high
            ]
            found.append({"about": self.about(record), "rows": rows, "ticks": ticks})
        return found

    def _ratio_row(
        self, record: Record, name: str, pair: Mapping[str, Any], scale: charts.Axis
    ) -> dict[str, Any]:
        value, spread = pair["ratio"], pair["spread"] or 0
        text = megabytes if pair.get("unit") == "MB" else milliseconds
        low, high = max(value - spread, scale.low), min(value + spread, scale.high)
        past = [r["pairs"][name]["ratio"] for r in self._like(record) if name in r["pairs"]]
        past = [each for each in past if each is not None]
        return {
            "name": label(name),
            "ratio": ratio(value),
            "better": value >= 1,
            "at": 100 * scale.share(value),
            "low": 100 * scale.share(low),
            "width": 100 * (scale.share(high) - scale.share(low)),
            "sides": f"{pair['a']} {text(pair['a_median'])} · {pair['b']} {text(pair['b_median'])}",
            "tip": f"{pair['a']} takes {text(pair['a_median'])}, {pair['b']} "
            f"{text(pair['b_median'])}: ratio {value:.3g} ± {spread:.2g}",
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
            "busy": busy(record),
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
                tip = f"{code_of(record)}, {str(record['date'])[:10]}: {plus_minus(stage)}"
                x = self.codes.index(code_of(record))
                found[x] = charts.Point(x, stage[value], tip, (stage.get(spread) or 0) / 2)
        return [found[x] for x in sorted(found)]

    def commit_axis(self) -> charts.Axis:
        last = len(self.codes) - 1
        shown = sorted({0, last}) if last < 4 else [0, last // 2, last]
        return charts.Axis(0, max(last, 0), ticks=[(i, self.codes[i]) for i in shown])


def busy(record: Record) -> str:
    """What to say of a machine on which more wanted to run than it has cores; mostly nothing."""
    load, cores = record.get("load"), record["machine"].get("cores")
    known = isinstance(load, (int, float)) and isinstance(cores, int)
    if not known or load <= cores:
        return ""
    return f"the machine was busy (load {load:g} on {cores}), so times are longer than alone"


def _scaled(line: charts.Line, factor: float) -> charts.Line:
    points = [charts.Point(p.x, p.y * factor, p.tip, p.spread * factor) for p in line.points]
    return charts.Line(line.name, line.color, points)
