"""The report of evaluations: what it says equals what was measured, and nothing leaks."""

from __future__ import annotations

import base64
import csv
import io
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image
from report_helpers import ASIDE, A, B, C, D, E, F, evaluation

from sam_detect.errors import ConfigError, OutputError
from sam_detect.evaluation.dataset import Dataset
from sam_detect.evaluation.evaluation import Evaluation
from sam_detect.evaluation.report import comparison_table, picture_shares, write_report
from sam_detect.evaluation.report.pictures import (
    ends,
    outlines_of,
    region_path,
    visible,
    worst_first,
)
from sam_detect.evaluation.report.plots import learning_curve, reliability_curve, sweep_plot
from sam_detect.evaluation.report.results import Names, Result, results_of
from sam_detect.evaluation.run import Protocol

Rows = list[dict[str, str]]
HOSTILE = '<script>alert("1")</script>'
HOSTILE_FILE = '"><img src=x onerror=alert(1)>.png'


class Page(HTMLParser):
    """What a test looks for in a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.figures: dict[str, str] = {}
        self.tables: list[list[list[str]]] = []
        self.words: list[str] = []
        self._open: list[str] = []
        self._in_table = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.tags.append((tag, given))
        self._open = [given["data-figure"] or ""] if "data-figure" in given else []
        if tag == "table":
            self.tables.append([])
            self._in_table = True
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_data(self, data: str) -> None:
        if self._open:
            self.figures[self._open.pop()] = data
        if data.strip():
            self.words.append(data.strip())
        if self._in_table and self.tables[-1] and self.tables[-1][-1]:
            self.tables[-1][-1][-1] += data.strip()

    def handle_endtag(self, tag: str) -> None:
        self._in_table = self._in_table and tag != "table"

    @property
    def cells(self) -> list[tuple[str, dict[str, str | None]]]:
        """The counts of the confusion table."""
        return [(tag, given) for tag, given in self.tags if "--share" in (given.get("style") or "")]

    def table(self, *headings: str) -> dict[str, list[str]]:
        """The rows of the table with these headings, by their first cells."""
        found = next(t for t in self.tables if t[0][: len(headings)] == list(headings))
        return {row[0]: row[1:] for row in found[1:]}


def report(folder: Path, *evaluations: Evaluation) -> tuple[Page, dict[str, Rows]]:
    """Writes a report and reads it again."""
    files = write_report(folder, evaluations)
    tables = {
        path.stem: list(csv.DictReader(io.StringIO(path.read_text(), newline="")))
        for path in files[1:]
    }
    return Page(files[0].read_text()), tables


def worse_result(made: Evaluation, seed: int = 0) -> Result:
    """The third picture, where there is one mistake of each kind."""
    return next(r for r in results_of(made) if r.query.picture.id == 3 and r.split.seed == seed)


def test_every_loss_is_told_apart(tmp_path: Path) -> None:
    result = worse_result(evaluation(tmp_path))
    assert result.outcomes is not None
    assert result.outcomes.objects == (
        "found", "misnamed", "unnamed", "found", "not proposed", "left out"
    )  # fmt: skip
    assert result.outcomes.detections == (
        "true", "duplicate", "wrong name", "not counted", "true", "part", "background"
    )  # fmt: skip
    assert (result.counts.tp, result.counts.fp, result.counts.fn) == (2, 4, 4)


def filled(path: str, size_hw: tuple[int, int]) -> np.ndarray[Any, Any]:
    """The pixels whose middles a path of straight lines goes around, by the rule ``evenodd``.

    Drawn 16 times enlarged."""
    canvas = np.zeros((size_hw[0] * 16, size_hw[1] * 16), np.uint8)
    rings = []
    for ring in path.strip("MZ").split("ZM"):
        if "H" in ring:
            x0, y0, x1, y1 = map(float, re.findall(r"[\d.]+", ring)[:4])
            points = [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]
        else:
            points = [tuple(map(float, pair.split())) for pair in ring.split("L")]  # type: ignore[misc]
        rings.append(np.rint(np.array(points) * 16).astype(np.int32))
    cv2.fillPoly(canvas, rings, 1)
    return canvas[8::16, 8::16].astype(bool)


@pytest.mark.parametrize("kind", ["blob", "ring", "dot", "two"])
def test_a_path_gives_the_pixels_back(kind: str) -> None:
    region = np.zeros((60, 80), np.uint8)
    if kind in ("blob", "ring"):
        cv2.circle(region, (40, 30), 20, 1, -1)
    if kind == "ring":
        cv2.circle(region, (40, 30), 10, 0, -1)
    if kind == "dot":
        region[12, 34] = 1
    if kind == "two":
        region[5:20, 5:20] = region[30:50, 40:41] = 1
    drawn = filled(region_path(region.astype(bool), 1.0), region.shape)
    union = (drawn | (region > 0)).sum()
    assert (drawn & (region > 0)).sum() / union > 0.95


def test_a_path_is_scaled_and_moved() -> None:
    region = np.ones((10, 20), bool)
    drawn = filled(region_path(region, 0.5, (40, 60)), (60, 60))
    ys, xs = np.nonzero(drawn)
    assert (xs.min(), xs.max(), ys.min(), ys.max()) == (20, 29, 30, 34)


@pytest.mark.parametrize("boxes", [False, True])
def test_outlines_lie_where_the_objects_are(tmp_path: Path, boxes: bool) -> None:
    result = worse_result(evaluation(tmp_path, boxes=boxes))
    outlines = outlines_of(result, 1.0, boxes)
    drawn = {
        kind: [filled(each.path, (90, 120)) for each in found] for kind, found in outlines.items()
    }
    middles = {"A": A, "B": B, "C": C, "D": D, "E": E, "F": F, "beside": ASIDE}
    at = {name: (y + h // 2, x + w // 2) for name, (x, y, w, h) in middles.items()}
    kinds = {
        name: "".join(sorted(k[0] for k, every in drawn.items() for one in every if one[spot]))
        for name, spot in at.items()
    }
    # A is found twice, B is missed and misnamed, a part of D is called a bolt
    assert kinds == {
        "A": "ft", "B": "fm", "C": "m", "D": "ft", "E": "m", "F": "m", "beside": "f"
    }  # fmt: skip
    assert sum(one.sum() for one in drawn["true"]) == pytest.approx(2 * 20 * 20, rel=0.1)
    texts = {each.text for found in outlines.values() for each in found}
    assert "bolt 0.90, IoU 1.00" in texts
    assert "false nut 0.80: it is bolt" in texts
    assert "false bolt 0.50: another detection found this object" in texts
    assert "missed nut: unnamed" in texts


def test_examples_and_crowds_are_drawn_apart(tmp_path: Path) -> None:
    result = worse_result(evaluation(tmp_path))
    objects = list(result.query.picture.objects)
    objects[1] = replace(objects[1], crowd=True)
    picture = replace(result.query.picture, objects=tuple(objects))
    split = replace(result.split, support=((picture, (objects[0],)),))
    query = replace(result.query, picture=picture)
    semantic = replace(result, split=split, query=query, matches=None, outcomes=None)
    outlines = outlines_of(semantic, 1.0, False)
    assert [each.text for each in outlines["shown"]] == ["bolt, example: not to be found"]
    assert [each.text for each in outlines["aside"]] == ["bolt, crowd: not to be found"]


def test_the_page_says_what_to_dict_says(tmp_path: Path) -> None:
    made = evaluation(tmp_path / "data")
    page, _ = report(tmp_path / "out", made)
    whole = made.to_dict()
    for name in ("f1", "precision", "recall", "ap50", "proposal_recall"):
        assert page.figures[name] == f"{whole[name]:.3f}"
    assert page.figures["seconds_per_image"] == f"{whole['seconds_per_image']:.2f}" == "0.75"
    assert f"± {whole['f1_spread']:.3f}" in page.words
    labels = page.table("label", "objects")
    assert set(labels) == {"bolt", "nut"}
    for label, row in whole["per_class"].items():
        figures = [row[name] for name in ("precision", "recall", "f1", "ap")]
        counts = [row["tp"] + row["fn"], row["tp"], row["fp"], row["fn"]]
        assert labels[label] == [f"{v:.1f}" for v in counts] + [f"{v:.3f}" for v in figures]
    taken = page.table("", "bolt", "nut", "unknown", "missed")
    counts = whole["confusion"]["counts"]
    assert list(taken.values()) == [[f"{count:,}" for count in row] for row in counts]
    assert list(taken) == ["bolt", "nut", "nothing"]
    # each name taken for itself, and nothing for unknown
    right = [(given.get("class") or "").startswith("right") for tag, given in page.cells]
    assert right == [
        True,
        False,
        False,
        False,
        False,
        True,
        False,
        False,
        False,
        False,
        True,
        False,
    ]
    every = page.table("figure", "value")
    assert every["mSA"][0].split(" ± ")[0] == f"{whole['msa']:.3f}"
    seeds = page.table("seed", "group")
    assert [seeds[str(e["seed"])][2] for e in whole["episodes"]] == [
        f"{e['f1']:.3f}" for e in whole["episodes"]
    ]
    # both seeds together: 6 + 2 of 12 objects each; the false ones are 4 and 3
    text = " ".join(page.words)
    assert "Of 24 objects, over all draws of examples, 16 were found" in text
    assert "2 were never proposed, and 6 were proposed but not rightly named" in text
    assert "7 of 23 named detections are false" in text


def test_the_tables_agree_with_to_dict(tmp_path: Path) -> None:
    made = evaluation(tmp_path / "data")
    _, tables = report(tmp_path / "out", made)
    whole = made.to_dict()
    assert len(tables["images"]) == 4
    for row in tables["images"]:
        perfect = row["image"] == "2.png"
        false = {"0": 4, "1": 3}[row["seed"]]
        counts = [int(row[name]) for name in ("tp", "fp", "fn")]
        assert counts == ([6, 0, 0] if perfect else [2, false, 4])
        assert float(row["f1"]) == (1 if perfect else 4 / (4 + false + 4))
        assert float(row["proposal_recall"]) == (1 if perfect else 5 / 6)
        assert int(row["not_proposed"]) == (0 if perfect else 1)
        assert float(row["seconds"]) == 0.75
    for row, expected in zip(tables["episodes"], whole["episodes"], strict=True):
        assert float(row["f1"]) == expected["f1"]
        assert row["group"] == ""
    for row in tables["classes"]:
        assert float(row["ap"]) == whole["per_class"][row["class"]]["ap"]
    assert float(tables["comparison"][0]["f1"]) == whole["f1"]
    assert float(tables["comparison"][0]["peak_memory_mb"]) == 321.5


def variants(folder: Path) -> list[Evaluation]:
    made = evaluation(folder)
    first = replace(made, variant={"fade": "linear", "top_k": "1"})
    worse = replace(made.episodes[0], queries=made.episodes[0].queries[1:])
    second = replace(made, variant={"fade": "gaussian", "top_k": "5"}, episodes=(worse,))
    return [first, second]


def test_a_sweep_is_compared(tmp_path: Path) -> None:
    first, second = variants(tmp_path / "data")
    rows = comparison_table([first, second])
    assert rows[0] == [
        "fade", "top_k", "F1>", "candidates>", "precision>", "recall>", "mean IoU>", "AP50>",
        "proposal recall>", "masks s>", "encoding s>", "labelling s>", "s/image>",
    ]  # fmt: skip
    figures = first.figures
    assert rows[1][:3] == ["linear", "1", f"{figures['f1']:.3f} ± {figures['f1_spread']:.3f}"]
    assert rows[2][2] == f"{second.figures['f1']:.3f}" == "0.333"  # one seed has no spread
    assert rows[1][-1] == "0.75"
    assert float(rows[1][3]) == round(figures["proposals_per_image"])
    seconds = [float(value) for value in rows[1][-4:-1]]
    assert sum(seconds) == pytest.approx(0.75, abs=0.011)
    assert seconds[0] == round(first.seconds["propose"], 2)
    page, tables = report(tmp_path / "out", first, second)
    assert list(page.table("fade", "top_k")) == ["linear", "gaussian"]
    assert [row["fade"] for row in tables["comparison"]] == ["linear", "gaussian"]
    assert [float(row["f1"]) for row in tables["comparison"]] == [
        first.figures["f1"], second.figures["f1"]
    ]  # fmt: skip
    assert len([tag for tag, given in page.tags if given.get("class") == "variant"]) == 2


def test_problems_of_every_variant_are_listed_once(tmp_path: Path) -> None:
    made = variants(tmp_path / "data")
    lines = [("a", "b", "c", "d", "e"), ("e", "<f>")]
    broken = [
        replace(each, dataset=replace(each.dataset, problems=of_each))
        for each, of_each in zip(made, lines, strict=True)
    ]
    page, _ = report(tmp_path / "out", *broken)
    assert [word for word in page.words if word in {*"abcde", "<f>"}] == [*"abcde", "<f>"]
    assert "and 1 more" in page.words


def test_without_a_sweep_the_method_is_named(tmp_path: Path) -> None:
    assert comparison_table([evaluation(tmp_path)])[1][0] == "sam-detect"


def test_pictures_lie_in_the_page_once(tmp_path: Path) -> None:
    page, _ = report(tmp_path / "out", *variants(tmp_path / "data"))
    images = [given for tag, given in page.tags if tag == "image"]
    assert len(images) == 3
    uri = images[0]["href"] or ""
    small = Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))
    assert small.format == "WEBP"
    assert small.size == (120, 90)


def test_large_pictures_are_reduced_with_their_outlines(tmp_path: Path) -> None:
    made = evaluation(tmp_path / "data", boxes=True)
    Image.new("RGB", (1280, 960)).save(tmp_path / "data" / "3.png")
    picture = replace(made.dataset.pictures[2], size_hw=(960, 1280))
    outlines = outlines_of(worse_result(made), 0.5, True)
    assert outlines["true"][0].path == "M5 5H15V15H5Z"
    episodes = tuple(
        replace(e, queries=(e.queries[0], replace(e.queries[1], picture=picture)))
        for e in made.episodes
    )
    pictures = (*made.dataset.pictures[:2], picture)
    changed = replace(made, episodes=episodes, dataset=Dataset("drawn", pictures, {}))
    page, _ = report(tmp_path / "out", changed)
    sizes = {(given["width"], given["height"]) for tag, given in page.tags if tag == "image"}
    assert sizes == {("120", "90"), ("640", "480")}


def test_nothing_of_the_machine_and_nothing_hostile_gets_into_the_report(tmp_path: Path) -> None:
    data = tmp_path / "data" / "images"
    rename = {"bolt": HOSTILE, "nut": "=1+1"}
    made = evaluation(data, names=("a.png", HOSTILE_FILE, "sub/b.png"), rename=rename)
    problem = f"{tmp_path}/data/annotations.json: {HOSTILE} in {data}/sub/c.png has no pixel"
    dataset = replace(made.dataset, problems=tuple(f"{n}: {problem}" for n in range(8)))
    recipe = {**made.recipe, "weights": "/home/somebody/weights/model.pt"}
    made = replace(made, dataset=dataset, recipe=recipe, variant={"method": HOSTILE})
    files = write_report(tmp_path / "out", [made, replace(made, variant={"method": "other"})])
    text = files[0].read_text()
    page = Page(text)
    assert [tag for tag, _ in page.tags].count("script") == 1
    assert "img" not in {tag for tag, _ in page.tags}
    assert not any(name.startswith("on") for _, given in page.tags for name in given)
    assert HOSTILE in page.words  # as text
    assert HOSTILE_FILE in page.words
    assert "sub/b.png" in page.words
    for path in files:
        assert str(tmp_path) not in path.read_text()
        assert "/home/somebody" not in path.read_text()
    assert sum("annotations.json" in word for word in page.words) == 8
    links = [v for _, given in page.tags for k, v in given.items() if k in ("href", "src")]
    assert links
    assert all(link and link.startswith(("#", "data:image/webp;base64,")) for link in links)
    assert not re.search(r"https?:|url\(|@import", text)
    classes = list(csv.DictReader(io.StringIO((tmp_path / "out" / "classes.csv").read_text())))
    assert {row["class"] for row in classes} == {HOSTILE, "'=1+1"}


def test_the_same_evaluation_makes_the_same_bytes(tmp_path: Path) -> None:
    first = write_report(tmp_path / "1", variants(tmp_path / "data"))
    second = write_report(tmp_path / "2", variants(tmp_path / "data"))
    assert [path.name for path in first] == [
        "index.html", "comparison.csv", "episodes.csv", "classes.csv", "images.csv"
    ]  # fmt: skip
    for one, other in zip(first, second, strict=True):
        assert one.read_bytes() == other.read_bytes()


def test_a_report_replaces_its_own_files_only(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    (out / "index.html").write_text("old")
    report(out, evaluation(tmp_path / "data"))
    assert (out / "notes.txt").read_text() == "mine"
    assert (out / "index.html").read_text() != "old"
    assert len(list(out.iterdir())) == 6


def test_what_cannot_be_a_report_is_refused(tmp_path: Path) -> None:
    made = evaluation(tmp_path / "data")
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="is a file"):
        write_report(tmp_path / "file", [made])
    other = replace(made, dataset=replace(made.dataset, name="another"))
    for evaluations in ([], [made, other]):
        with pytest.raises(ConfigError, match="one dataset"):
            write_report(tmp_path / "out", evaluations)
    assert not (tmp_path / "out").exists()


def test_pictures_that_are_gone_do_not_lose_the_report(tmp_path: Path) -> None:
    made = evaluation(tmp_path / "data")
    (tmp_path / "data" / "3.png").unlink()
    page, _ = report(tmp_path / "out", made)
    assert "This picture could not be read again." in page.words
    assert len([tag for tag, _ in page.tags if tag == "image"]) == 2


def test_pixels_are_reported_as_pixels(tmp_path: Path) -> None:
    protocol = Protocol(shots=2, seeds=(0, 1), task="semantic")
    made = evaluation(tmp_path / "data", protocol=protocol)
    page, tables = report(tmp_path / "out", made)
    whole = made.to_dict()
    assert page.figures["mean_iou"] == f"{whole['mean_iou']:.3f}"
    assert "proposal_recall" not in page.figures
    row = next(r for r in tables["images"] if r["image"] == "3.png" and r["seed"] == "0")
    # bolts: A found, B and E missed, ON_D false; nuts: D found, C and F missed, B and ASIDE false
    assert [int(row[name]) for name in ("tp", "fp", "fn")] == [800, 400 + 400 + 100, 1600]
    outlines = outlines_of(worse_result(made), 1.0, False)
    areas = {k: sum(filled(o.path, (90, 120)).sum() for o in v) for k, v in outlines.items()}
    assert areas["true"] == pytest.approx(800, rel=0.1)
    assert areas["missed"] == pytest.approx(1600, rel=0.1)
    assert float(tables["classes"][0]["jaccard"]) == whole["per_class"]["bolt"]["iou"]


def test_groups_have_a_table(tmp_path: Path) -> None:
    made = evaluation(tmp_path / "data")
    grouped = [
        replace(e, split=replace(e.split, group=group))
        for e, group in zip(made.episodes, ("day", "night"), strict=True)
    ]
    protocol = Protocol(shots=2, seeds=(0, 1), group_by="light")
    page, _ = report(tmp_path / "out", replace(made, episodes=tuple(grouped), protocol=protocol))
    rows = page.table("light", "F1")
    whole = replace(made, episodes=tuple(grouped)).to_dict()
    assert [row[0] for row in rows.values()] == [f"{e['f1']:.3f}" for e in whole["episodes"]]
    assert list(rows) == ["day", "night"]


def test_the_worst_picture_is_first_and_each_is_there_once(tmp_path: Path) -> None:
    results = results_of(evaluation(tmp_path))
    ranked = worst_first(results)
    assert [each.query.picture.id for each in ranked] == [3, 2]
    assert ranked[0].split.seed == 0  # of two seeds the worse
    assert ends(ranked, 1) == ranked[:1]
    many = [*results, *results]
    assert ends(many, 5) == [*many[:3], *many[-2:]]
    assert ends(many, 8) == many


def test_dark_pictures_are_brightened_and_others_are_left() -> None:
    dark = np.zeros((50, 50, 3), np.uint8)
    dark[10:20, 10:20] = 30
    dark[30:40, 30:40] = 60
    shown, changed = visible(dark)
    assert changed
    assert shown[35, 35].tolist() == [255] * 3
    assert 128 < shown[15, 15, 0] < 255
    assert shown[0, 0].tolist() == [0] * 3
    bright = np.full((50, 50, 3), 90, np.uint8)
    assert visible(bright) == (bright, False) or visible(bright)[0] is bright
    assert not visible(np.zeros((5, 5, 3), np.uint8))[1]


def test_long_sweeps_show_pictures_of_the_best() -> None:
    assert picture_shares([0.5]) == [24]
    assert picture_shares([0.5] * 6) == [16] * 6
    long = picture_shares([index / 40 for index in range(40)])
    assert long == [0] * 28 + [8] * 12
    assert picture_shares([None, 0.1]) == [24, 24]


def test_a_learning_curve_is_placed_by_its_values() -> None:
    points = [
        {"shots": 10, "f1": 0.75, "f1_spread": 0.5},
        {"shots": 1, "f1": 0.25, "f1_spread": None},
        {"shots": 20, "f1": None, "f1_spread": None},
    ]
    curve = learning_curve(points)
    assert curve is not None
    first, last = curve["points"]
    (bottom, _), *_, (top, _) = curve["ticks"]
    assert (first["shots"], last["shots"]) == (1, 10)
    assert first["x"] < last["x"]
    assert top < bottom
    assert (bottom - first["y"]) / (bottom - top) == pytest.approx(0.25)
    assert (bottom - last["low"]) / (bottom - top) == pytest.approx(0.25)
    assert last["high"] == top  # not above 1
    assert first["low"] == first["y"] == first["high"]
    assert learning_curve(points[2:]) is None
    assert learning_curve([]) is None


def test_a_sweep_is_plotted_by_f1_and_time(tmp_path: Path) -> None:
    known = [(0.25, 0.5), (0.75, 5.0), (0.5, 50.0), (None, 1.0), (0.5, 5.0)]
    given = [{"title": str(i), "f1": f1, "seconds": s} for i, (f1, s) in enumerate(known)]
    plot = sweep_plot(given)
    assert plot is not None
    points = plot["points"]
    assert [(p["number"], p["best"]) for p in points] == [
        (1, True), (2, True), (3, False), (5, False)
    ]  # fmt: skip
    (bottom, _), *_, (top, _) = plot["ticks"]
    assert [(bottom - p["y"]) / (bottom - top) for p in points] == pytest.approx(
        [0.25, 0.75, 0.5, 0.5]
    )
    assert [text for _, text in plot["ticks_x"]] == ["0.1", "1", "10", "100"]
    assert points[1]["x"] - points[0]["x"] == pytest.approx(points[2]["x"] - points[1]["x"])
    assert sweep_plot(given[2:4]) is None
    page, _ = report(tmp_path / "out", *variants(tmp_path / "data"))
    dots = [given for tag, given in page.tags if tag == "circle" and "dot" in str(given["class"])]
    assert len([each for each in dots if each["cy"]]) >= 2
    assert "seconds of an image" in page.words


def test_names_are_relative_to_the_pictures(tmp_path: Path) -> None:
    pictures = evaluation(tmp_path, names=("a/1.png", "a/2.png", "b/c/3.png")).dataset.pictures
    names = Names(pictures)
    assert [names.of(each) for each in pictures] == ["a/1.png", "a/2.png", "b/c/3.png"]
    assert names.without_folders(f"in {tmp_path}/a/1.png: no") == "in a/1.png: no"
    assert names.without_folders("see /opt/x/y.json, or 3/4 of C:\\Users\\me\\x.png") == (
        "see y.json, or 3/4 of x.png"
    )


def test_a_reliability_curve_is_placed_by_its_values() -> None:
    bins = [
        {"low": 0.5, "high": 0.6, "count": 4, "confidence": 0.55, "precision": 0.25},
        {"low": 0.9, "high": 1.0, "count": 1, "confidence": 1.0, "precision": 1.0},
    ]
    curve = reliability_curve(bins)
    assert curve is not None
    first, last = curve["bars"]
    x0, y0, x1, y1 = curve["diagonal"]
    share = (first["x"] - x0) / (x1 - x0)
    height = (first["top"] - y0) / (y1 - y0)
    assert (share, height) == (pytest.approx(0.55), pytest.approx(0.25))
    assert first["top"] + first["height"] == pytest.approx(y0)
    assert first["left"] < first["x"] < first["left"] + first["width"] < last["left"]
    assert (last["x"], last["top"]) == (pytest.approx(x1), pytest.approx(y1))
    assert reliability_curve([]) is None
