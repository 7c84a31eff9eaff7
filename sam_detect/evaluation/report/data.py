"""What a report says of evaluations, as plain data: the rows of its CSV files with every digit, and
the content of the page for its template."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from sam_detect.evaluation.evaluation import AVERAGED, Evaluation
from sam_detect.evaluation.metrics import spread
from sam_detect.evaluation.report.pictures import Album, ends, worst_first
from sam_detect.evaluation.report.plots import learning_curve, reliability_curve
from sam_detect.evaluation.report.results import FALSE_OUTCOMES, OBJECT_OUTCOMES, Names, Result
from sam_detect.io.tables import safe_text

Row = dict[str, Any]
SECONDS = ("seconds_masks", "seconds_encoding", "seconds_labelling", "seconds_per_image")
ABSENT = "–"  # noqa: RUF001 - a dash for what does not apply


def number(value: float | None, digits: int = 3) -> str:
    """A figure as people read it; a dash where it does not apply."""
    return ABSENT if value is None else f"{value:,.{digits}f}"


def plus_minus(value: float | None, deviation: float | None, digits: int = 3) -> str:
    """A mean and its standard deviation, where there is one."""
    if value is None or deviation is None:
        return number(value, digits)
    return f"{number(value, digits)} ± {number(deviation, digits)}"


def comparison_table(evaluations: Sequence[Evaluation]) -> list[list[str]]:
    """One line for each evaluation, as texts.

    Returns:
        The headings first: what the sweep varied (or the method, where it varied nothing), then
        F1 with its standard deviation over seeds, candidates (proposals of an image), precision,
        recall, mean IoU of what was found, AP50, proposal recall, and the seconds of an image: of
        proposing masks, of encoding them, of labelling, and all. Headings of figures end in ``>``.
    """
    keys = list(dict.fromkeys(key for each in evaluations for key in each.variant)) or ["method"]
    compared = ("precision", "recall", "mean_iou", "ap50", "proposal_recall")
    headings = [f"{FIGURES[name][0]}>" for name in compared]
    times = ["masks s>", "encoding s>", "labelling s>", "s/image>"]
    rows = [[*keys, "F1>", "candidates>", *headings, *times]]
    for each in evaluations:
        named = {"method": each.method, **each.variant}
        rows.append(
            [
                *(named.get(key, ABSENT) for key in keys),
                plus_minus(each.figures["f1"], each.figures["f1_spread"]),
                number(each.figures["proposals_per_image"], 0),
                *(number(each.figures[name]) for name in compared),
                *(number(value, 2) for value in _seconds(each)),
            ]
        )
    return rows


def _seconds(evaluation: Evaluation) -> tuple[float, float, float, float]:
    """Of an image: of proposing masks, of encoding them, of labelling, and all."""
    spent = evaluation.seconds
    masks, labelling = spent.get("propose", 0.0), spent.get("label", 0.0)
    return masks, spent.get("fade", 0.0) + spent.get("embed", 0.0), labelling, sum(spent.values())


# -- CSV -------------------------------------------------------------------------------------


def csv_text(rows: Iterable[Row]) -> str:
    """Rows as CSV with a heading; empty where a figure does not apply.

    A text that a spreadsheet would run as a formula gets an apostrophe in front, as in
    ``detect --format csv``.
    """
    rows = list(rows)
    file = io.StringIO()
    writer = csv.DictWriter(file, list(dict.fromkeys(name for row in rows for name in row)))
    writer.writeheader()
    for row in rows:
        safe = {name: safe_text(v) if isinstance(v, str) else v for name, v in row.items()}
        writer.writerow(safe)
    return file.getvalue()


def comparison_row(evaluation: Evaluation) -> Row:
    """Its averaged figures, the deviation of F1, time and memory."""
    figures = evaluation.figures
    return {
        **_named(evaluation),
        **{name: figures[name] for name in (*AVERAGED, "f1_spread")},
        **dict(zip(SECONDS, _seconds(evaluation), strict=True)),
        "peak_memory_mb": evaluation.peak_memory_mb,
    }


def episode_rows(evaluation: Evaluation, whole: Mapping[str, Any]) -> Iterator[Row]:
    """One row per episode; ``whole`` is the evaluation's ``to_dict()``."""
    for episode in whole["episodes"]:
        yield {
            **_named(evaluation),
            "seed": episode["seed"],
            "group": episode["group"],
            "examples": len(episode["support_annotation_ids"]),
            "images": len(episode["query_image_ids"]),
            **{name: episode.get(name) for name in AVERAGED},
        }


def class_rows(evaluation: Evaluation) -> Iterator[Row]:
    """One row per class: the means over the seeds. The IoU of pixels is called ``jaccard``, since
    ``iou`` is the protocol's."""
    for label, figures in evaluation.figures["per_class"].items():
        named = {"jaccard" if name == "iou" else name: value for name, value in figures.items()}
        yield {**_named(evaluation), "class": label, **named}


def image_rows(evaluation: Evaluation, results: Iterable[Result], names: Names) -> Iterator[Row]:
    """One row per picture of each episode: counts, figures, outcomes of what was lost, seconds."""
    for each in results:
        comparison = each.query.comparison
        row = {
            **_named(evaluation),
            "seed": each.split.seed,
            "group": each.split.group,
            "image": names.of(each.query.picture),
            "image_id": each.query.picture.id,
            **each.counts.to_dict(),
            "seconds": sum(each.query.found.seconds.values()),
            "proposals": comparison.proposals,
        }
        if each.outcomes is not None:
            counted = each.outcomes.counts
            proposed = comparison.best_proposal_iou >= evaluation.protocol.iou
            row["proposal_recall"] = float(proposed.mean()) if proposed.size else None
            row |= {w.replace(" ", "_"): counted[w] for w in (*OBJECT_OUTCOMES, *FALSE_OUTCOMES)}
        yield row


def _named(evaluation: Evaluation) -> Row:
    protocol = evaluation.protocol
    return {
        "dataset": evaluation.dataset.name,
        "method": evaluation.method,
        "task": protocol.task,
        "protocol": protocol.draw,
        "shots": protocol.shots,
        "iou": protocol.iou,
        **evaluation.variant,
    }


# -- the page --------------------------------------------------------------------------------

FIGURES = {
    "f1": ("F1", "precision and recall in one: 2 TP / (2 TP + FP + FN)"),
    "precision": ("precision", "share of the named detections that are right"),
    "recall": ("recall", "share of the objects that were found and rightly named"),
    "ap50": ("AP50", "COCO average precision at IoU .50"),
    "proposal_recall": ("proposal recall", "share of the objects that were proposed at all"),
    "f1_macro": ("macro F1", "F1 of each label, averaged"),
    "mean_iou": ("mean IoU", "overlap of the right ones with their objects"),
    "ap": ("AP", "COCO average precision, IoU .50 to .95"),
    "ar100": ("AR100", "COCO average recall, at most 100 detections a picture"),
    "msa": ("mSA", "TP / (TP + FP + FN), averaged over IoU .50 to .95"),
    "proposals_per_image": ("proposals per image", "regions proposed"),
    "expected_calibration_error": (
        "calibration error",
        "how far confidence is from the share of right names, in the mean (ECE)",
    ),
}
"""Headings and meanings; the page's order."""
OF_PIXELS = {"mean_iou": ("mean IoU", "TP / (TP + FP + FN) of each label's pixels, averaged")}
HEADLINES = ("f1", "precision", "recall", "ap50", "proposal_recall", "mean_iou")
"""At most five of them are shown large."""
TONES = {
    "found": "good",
    "misnamed": "misnamed",
    "wrong name": "misnamed",
    "unnamed": "half",
    "part": "half",
    "left out": "twice",
    "duplicate": "twice",
    "not proposed": "nowhere",
    "background": "nowhere",
}
"""Colours of the bars: related ones have the same."""
EMBEDDING = {
    "separability": "how often two objects of one label are more alike than two things of "
    "different labels; 0.5 is chance",
    "knn_purity": "share of the nearest neighbours, in other pictures, that have the same label",
    "silhouette": "how tight the labels' clusters are, from -1 to 1",
}
TIME_TONES = 6
STAGES = ("propose", "fade", "embed", "search", "label")


MOST_EXAMPLES = 12


def section(
    evaluation: Evaluation,
    whole: dict[str, Any],
    results: Sequence[Result],
    *,
    album: Album,
    most: int,
) -> dict[str, Any]:
    """What the page shows of one evaluation.

    Args:
        whole: the evaluation's ``to_dict()``.
        results: its pictures.
        album: draws them.
        most: pictures to show at most.
    """
    names = album.names
    figures = _figures(evaluation, whole)
    counted = sum((r.outcomes.counts for r in results if r.outcomes is not None), Counter[str]())
    embedding = whole["embedding"] or {}
    return {
        "whole": whole,
        "pixels": evaluation.protocol.task == "semantic",
        "boxes": evaluation.dataset.boxes_only,
        "title": ", ".join(f"{k} {v}" for k, v in evaluation.variant.items()),
        "figures": figures,
        "headlines": [f for name in HEADLINES for f in figures if f["key"] == name][:5],
        "objects": _bar(counted, OBJECT_OUTCOMES),
        "false": _bar(counted, FALSE_OUTCOMES),
        "counted": counted,
        "lost": sum(counted[name] for name in OBJECT_OUTCOMES if name != "found"),
        "false_count": sum(counted[name] for name in FALSE_OUTCOMES),
        "groups": _groups(whole),
        "confusion": _confusion(whole["confusion"]),
        "curve": learning_curve(whole["learning_curve"]),
        "reliability": reliability_curve(whole["reliability"]),
        "stages": _stages(whole["seconds"]),
        "embedding": [
            (name.replace("_", " "), number(embedding[name]), meaning)
            for name, meaning in EMBEDDING.items()
            if embedding.get(name) is not None
        ],
        "recipe": [(k, names.without_folders(_text(v))) for k, v in whole["recipe"].items()],
        "problems": [names.without_folders(line) for line in whole["problems"]],
        "pictures": len({query.picture.id for query in evaluation.queries}),
        **_drawings(evaluation, results, album, most),
    }


def _drawings(
    evaluation: Evaluation, results: Sequence[Result], album: Album, most: int
) -> dict[str, Any]:
    """The worst and best pictures, and the first support pictures with their examples."""
    ranked = worst_first(results)
    drawings = [album.of_result(each) for each in ends(ranked, most)]
    support = [
        (picture, objects, episode.split.seed)
        for episode in (evaluation.episodes if most else ())
        for picture, objects in episode.split.support
    ]
    examples = [album.of_examples(*each) for each in support[:MOST_EXAMPLES]]
    return {
        "ranked": len(ranked),
        "drawings": drawings,
        "examples": examples,
        "example_count": len(support),
        "unreadable": sum(each["base"].uri is None for each in (*drawings, *examples)),
    }


def _figures(evaluation: Evaluation, whole: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The averaged figures that apply, with their deviations over the seeds."""
    texts = FIGURES | (OF_PIXELS if evaluation.protocol.task == "semantic" else {})
    rows = []
    for key, (name, meaning) in texts.items():
        if whole[key] is not None:
            deviation = spread(seed.get(key) for seed in evaluation.by_seed.values()).std
            digits = 1 if key == "proposals_per_image" else 3
            rows.append(
                {
                    "key": key,
                    "name": name,
                    "meaning": meaning,
                    "text": number(whole[key], digits),
                    "deviation": None if deviation is None else number(deviation, digits),
                    "both": plus_minus(whole[key], deviation, digits),
                }
            )
    return rows


def _bar(counts: Mapping[str, int], meanings: Mapping[str, str]) -> list[dict[str, Any]]:
    """The parts of a bar: the counts that are not 0, as percents of them all."""
    there = {name: counts[name] for name in meanings if counts[name]}
    total = sum(there.values())
    return [
        {"name": name, "value": f"{count:,}", "share": 100 * count / total, "tone": TONES[name],
         "meaning": meanings[name]}
        for name, count in there.items()
    ]  # fmt: skip


def _stages(seconds: Mapping[str, float]) -> list[dict[str, Any]]:
    """The same of the time that each stage takes."""
    order = {name: place for place, name in enumerate(STAGES)}
    names = sorted(seconds, key=lambda name: order.get(name, len(order)))
    total = sum(seconds.values()) or 1.0
    parts = []
    for index, name in enumerate(names):
        spent = seconds[name]
        value = f"{spent:.2f} s" if spent >= 1 else f"{spent * 1000:.3g} ms"
        tone = f"s{index % TIME_TONES}"
        share = 100 * spent / total
        parts.append({"name": name, "value": value, "share": share, "tone": tone, "meaning": ""})
    return parts


def _groups(whole: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Means over the seeds; nothing where there are no groups."""
    if whole["group_by"] is None:
        return []
    by_group: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for episode in whole["episodes"]:
        by_group[episode["group"]].append(episode)
    names = ("f1", "precision", "recall", "ap50", "proposal_recall")
    return [
        {"name": group, "figures": [spread(e.get(name) for e in found).mean for name in names]}
        for group, found in by_group.items()
    ]


def _confusion(table: Mapping[str, Any]) -> list[tuple[str, list[dict[str, Any]]]]:
    """The rows of the confusion table with their names: counts and percents of the row. Right are
    the diagonal, and nothing that was taken for nothing known."""
    rows = []
    for index, (name, counts) in enumerate(zip(table["rows"], table["counts"], strict=True)):
        total = sum(counts) or 1
        cells = [
            {"count": count, "share": 100 * count / total, "right": column == index}
            for column, count in enumerate(counts)
        ]
        rows.append((name, cells))
    return rows


def _text(value: Any) -> str:
    if value is None:
        return ABSENT
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
