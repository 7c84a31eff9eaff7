"""The part of the metrics page about evaluations: how much is found, with how few examples."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import metrics_charts as charts
from metrics_texts import megabytes, tile

from sam_detect.bench.regressions import Record, code_of, method_name, recipe_name

if TYPE_CHECKING:
    from metrics_views import Page

UNIT = charts.Axis(0, 1, ticks=[(v / 4, f"{v / 4:g}") for v in range(5)])
FIGURES = ("f1", "precision", "recall", "proposal_recall")


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
            several[method_name(record)].add(recipe_name(record))
        self._several = {method for method, recipes in several.items() if len(recipes) > 1}
        self.newest: dict[tuple[int, str, str], Record] = {}
        for record in records:
            self.newest[record["shots"], record["dataset"], self.method(record)] = record
        self.methods = list(dict.fromkeys(method for _, _, method in self.newest))
        self.datasets = sorted({dataset for _, dataset, _ in self.newest})

    def method(self, record: Record) -> str:
        """The method's name; with embedder and fade where it was measured with several."""
        name = method_name(record)
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
        return [tile(f"{known[best]:.2f}", "mean F1 of the best method", note)]

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
                points = self._history(shots, dataset, method)
                if points:
                    lines.append(charts.Line(method, index % charts.COLORS, points))
            if any(len(line.points) > 1 for line in lines):
                svg = charts.chart(
                    lines, self.page.commit_axis(), UNIT, title=f"F1 on {dataset} by commit"
                )
                found.append({"name": dataset, "svg": svg})
        return found

    def _history(self, shots: int | None, dataset: str, method: str) -> list[charts.Point]:
        """The last F1 of each commit."""
        points = {}
        for record in self.records:
            same = (record["shots"], record["dataset"], self.method(record))
            if same == (shots, dataset, method) and record.get("f1") is not None:
                x = self.page.codes.index(code_of(record))
                when = f"{code_of(record)}, {str(record['date'])[:10]}"
                tip = f"{method}, {when}: F1 {record['f1']:.3f}"
                points[x] = charts.Point(x, record["f1"], tip)
        return [points[x] for x in sorted(points)]

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
