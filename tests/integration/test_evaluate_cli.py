"""``sam-detect evaluate`` as people run it: on files, and by what it prints."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli_harness import Command, Ran, as_a_process, in_this_process
from evaluation_helpers import damage, dataset_folder
from PIL import Image

QUICK = ("--shots", "1", "--seeds", "0")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six pictures of four discs and two squares."""
    return dataset_folder(tmp_path_factory.mktemp("drawn") / "six", 6)


TEMPLATE, WATERSHED = (f"scripts.dev.baselines:{n}" for n in ("TemplateMatching", "OtsuWatershed"))


@pytest.fixture
def command(capfd: pytest.CaptureFixture[str]) -> Command:
    return in_this_process(capfd)


def only_object(ran: Ran) -> dict[str, Any]:
    """All of stdout, which is one JSON object without NaN, in one line."""
    assert ran.out.count("\n") == 1
    found = json.loads(ran.out, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert isinstance(found, dict)
    return found


def rows(ran: Ran) -> list[list[str]]:
    """The words of each line of stdout that is not empty."""
    return [line.split() for line in ran.out.splitlines() if line.strip()]


# As a process


def test_json_is_one_object_and_predictions_hold_what_it_counted(
    folder: Path, tmp_path: Path
) -> None:
    file = tmp_path / "new" / "predictions.json"
    ran = as_a_process(
        "evaluate", folder / "annotations.json", "--images", folder / "images", "--shots", "2",
        "--seeds", "3,4", "--predictions", file, "--json",
    ).worked()  # fmt: skip
    found = only_object(ran)
    assert ran.err.splitlines() == [f"wrote {file}"]
    assert (found["dataset"], found["shots"], found["seeds"]) == ("six", 2, [3, 4])
    assert found["f1"] > 0.9
    episodes = json.loads(file.read_text())["episodes"]
    assert [e["support_annotation_ids"] for e in episodes] == [
        e["support_annotation_ids"] for e in found["episodes"]
    ]
    named = sum(len(episode["detections"]) for episode in episodes)
    counted = sum(row["tp"] + row["fp"] for row in found["per_class"].values())
    assert named == round(counted * len(episodes)), "per_class holds means over the seeds"


def test_the_same_is_found_again_in_another_process(folder: Path, command: Command) -> None:
    arguments = ("evaluate", folder, *QUICK, "--json")
    other = as_a_process(*arguments, env={"PYTHONHASHSEED": "1"})
    outputs = [only_object(other), only_object(command(*arguments))]
    of_the_run = {"seconds", "seconds_per_image", "seconds_per_megapixel", "peak_memory_mb",
                  "load", "date"}  # fmt: skip
    first, second = ({k: v for k, v in each.items() if k not in of_the_run} for each in outputs)
    assert first == second


def test_a_damaged_picture_is_left_out_and_named(tmp_path: Path, command: Command) -> None:
    folder = dataset_folder(tmp_path / "x", 5)
    damage(folder / "images" / "c.png")
    ran = command("evaluate", folder, *QUICK, "--json").worked()
    found = only_object(ran)
    (problem,) = found["problems"]
    assert "c.png" in problem
    assert ran.err.splitlines() == [f"warning: {problem}"]
    seen = {image for episode in found["episodes"] for image in episode["query_image_ids"]}
    assert seen <= {10, 11, 13, 14}
    assert len(found["episodes"][0]["query_image_ids"]) >= 2


def test_one_tag_is_measured_and_drawn(folder: Path, tmp_path: Path, command: Command) -> None:
    given = ("evaluate", folder, *QUICK, "--protocol", "same", "--json")
    both = only_object(command(*given).worked())
    [label, *others] = sorted(both["per_class"])
    assert others
    ran = command(*given, "--tag", label, "--visualize", tmp_path / "drawn").worked()
    found = only_object(ran)
    assert list(found["per_class"]) == [label]
    pictures = sorted((tmp_path / "drawn").rglob("*.png"))
    assert len(pictures) == len(found["episodes"][0]["query_image_ids"])
    before = np.array(Image.open(folder / "images" / pictures[0].name).convert("RGB"))
    after = np.array(Image.open(pictures[0]))
    assert after.shape == before.shape
    assert (after != before).any()
    command(*given, "--tag", "dust").failed("dust", label, others[0], code=1)


def test_nothing_but_damaged_pictures_is_one_line(tmp_path: Path, command: Command) -> None:
    folder = dataset_folder(tmp_path / "x", 2)
    for path in (folder / "images").iterdir():
        damage(path)
    command("evaluate", folder, *QUICK).failed("no picture of x can be read", code=1)


def test_a_wrong_option_ends_the_process_in_one_line(folder: Path) -> None:
    ran = as_a_process("evaluate", folder, "--shots", "0", "--json")
    ran.failed("shots", "at least 1, got 0", code=2)
    assert ran.out == ""


# For people


def test_people_get_a_table(folder: Path, command: Command) -> None:
    ran = command("evaluate", folder, *QUICK, "--seeds", "0,1").worked()
    assert ran.err == ""
    lines = {" ".join(words[:1]): words for words in rows(ran)}
    assert lines["F1"][1:4] == ["1.000", "±", "0.000"]
    assert lines["recall"][1] == "1.000"
    assert lines["disc"][-3:] == ["1.00", "1.00", "1.00"]
    assert "s an image (propose" in ran.out
    assert "peak memory" in ran.out
    assert "None" not in ran.out
    assert "nan" not in ran.out


def test_figures_that_do_not_apply_are_left_out(tmp_path: Path, command: Command) -> None:
    folder = dataset_folder(tmp_path / "x", [["disc"], ["square"], ["disc"], ["square"]])
    ran = command("evaluate", folder, *QUICK, "--protocol", "same").worked()
    assert "None" not in ran.out
    assert not [words for words in rows(ran) if words[0] == "F1"]


def test_a_learning_curve_in_one_line(folder: Path, command: Command) -> None:
    ran = command("evaluate", folder, *QUICK, "--method", WATERSHED, "--curve", "1,2,90").worked()
    assert "F1 by shots: 1: 1.00, 2: 1.00\n" in ran.out
    assert "90 shots" in ran.err


def test_a_sweep_is_a_row_for_each_variant(folder: Path, command: Command) -> None:
    sweep = "fade=gaussian,linear sigma=10,30"
    ran = command("evaluate", folder, *QUICK, "--sweep", sweep).worked()
    head, _, *lines = rows(ran)
    assert head[:3] == ["fade", "sigma", "F1"]
    assert [words[:2] for words in lines] == [
        ["gaussian", "10"], ["gaussian", "30"], ["linear", "–"]  # noqa: RUF001
    ]  # fmt: skip
    assert len({len(words) for words in [*lines]}) == 1


def test_a_sweep_in_json_is_a_line_for_each_variant(folder: Path, command: Command) -> None:
    methods = f"method=sam-detect,{TEMPLATE},{WATERSHED}"
    ran = command("evaluate", folder, *QUICK, "--sweep", methods, "--json").worked()
    assert [each["method"] for each in ran.json] == ["sam-detect", "template", "watershed"]
    assert [each["f1"] > 0.9 for each in ran.json] == [True] * 3


def test_what_any_variant_has_too_little_of_is_said_once(folder: Path, command: Command) -> None:
    how = (*QUICK, "--method", WATERSHED, "--protocol", "same", "--sweep", "shots=1,14,13")
    ran = command("evaluate", folder, *how).worked()
    assert ran.err.splitlines() == [
        f"warning: only 12 of 'square': 11 shown instead of {shots}" for shots in (14, 13)
    ]


@pytest.mark.parametrize(("method", "name"), [(TEMPLATE, "template"), (WATERSHED, "watershed")])
def test_methods_of_others_run(folder: Path, command: Command, method: str, name: str) -> None:
    found = only_object(command("evaluate", folder, *QUICK, "--method", method, "--json").worked())
    assert (found["method"], found["embedding"]) == (name, None)
    assert found["f1"] > 0.9


def test_settings_reach_the_detector(folder: Path, command: Command) -> None:
    options = ("--embedder", "average", "--fade", "linear", "--max-distance", "7")
    found = only_object(command("evaluate", folder, *QUICK, *options, "--json").worked())
    assert (found["recipe"]["embedder"], found["recipe"]["fade"]) == ("average", "linear")
    assert found["recipe"]["fade_params"]["max_distance"] == 7


def test_the_protocol_reaches_the_episodes(folder: Path, command: Command) -> None:
    options = ("--group-by", "light", "--protocol", "same", "--task", "semantic", "--exhaustive")
    found = only_object(command("evaluate", folder, *QUICK, *options, "--json").worked())
    assert [(e["seed"], e["group"]) for e in found["episodes"]] == [(0, "day"), (0, "night")]
    assert (found["group_by"], found["protocol"]) == ("light", "same")
    assert found["exhaustive"] is True
    assert (found["task"], found["ap"]) == ("semantic", None)
    found = only_object(command("evaluate", folder, *QUICK, "--iou", "0.8", "--json").worked())
    assert found["iou"] == 0.8


# Files


def test_a_report_is_a_page_with_tables_beside_it(
    folder: Path, tmp_path: Path, command: Command
) -> None:
    out = tmp_path / "out"
    ran = command("evaluate", folder, *QUICK, "--method", WATERSHED, "--report", out).worked()
    page = (out / "index.html").read_text()
    assert "six" in page
    assert "watershed" in page
    assert {path.suffix for path in out.iterdir()} == {".html", ".csv"}
    # The curve that the command did not ask for asks for more examples than six pictures have.
    assert "20 shots" in ran.err


@pytest.mark.parametrize("own", ["annotations.json", "images/a.png"])
def test_the_dataset_is_not_written_over(
    folder: Path, tmp_path: Path, command: Command, own: str
) -> None:
    before = (folder / own).read_bytes()
    (tmp_path / "link").symlink_to(folder / own)
    for path in (folder / own, tmp_path / "link"):
        for dataset in (folder, folder / "annotations.json"):
            ran = command("evaluate", dataset, *QUICK, "--predictions", path)
            ran.failed(str(path), "a file of the dataset", "--predictions", code=1)
    assert (folder / own).read_bytes() == before


# What goes wrong


WRONG: dict[str, tuple[tuple[str, ...], tuple[str, ...], int]] = {
    "no examples": (("--shots", "0"), ("shots", "0"), 2),
    "shots in words": (("--shots", "two"), ("--shots", "two"), 2),
    "seeds in words": (("--seeds", "a"), ("--seeds", "0,1,2", "'a'"), 2),
    "no seed": (("--seeds", ","), ("seeds",), 2),
    "a seed twice": (("--seeds", "0,0"), ("--seeds", "once", "'0,0'"), 2),
    "a seed twice among others": (("--seeds", "1,2,01"), ("--seeds", "once"), 2),
    "shots twice": (("--curve", "1,1"), ("--curve", "once"), 2),
    "a negative seed": (("--seeds", "-1"), ("--seeds", "'-1'"), 2),
    "more than all": (("--iou", "2"), ("iou", "2"), 2),
    "no overlap": (("--iou", "0"), ("iou", "0"), 2),
    "not a number": (("--iou", "nan"), ("iou", "nan"), 2),
    "method": (("--method", "magic"), ("'magic'", "sam-detect", "package.module:Class"), 2),
    "method module": (("--method", "no_such:Method"), ("no_such:Method", "cannot be loaded"), 2),
    "no method": (("--method", "pathlib:Path"), ("pathlib:Path", "learn, find"), 2),
    "task": (("--task", "count"), ("count", "semantic"), 2),
    "field": (("--group-by", "colour"), ("'colour'", "light"), 2),
    "shots": (("--shots", "24"), ("six", "24", "--protocol same"), 2),
    "curve": (("--curve", "1,x"), ("--curve", "1,x"), 2),
    "curve of none": (("--curve", "0"), ("shots", "0"), 2),
    "sweep": (("--sweep", "sigam=1"), ("'sigam'", "sigma"), 2),
    "value": (("--sweep", "sigma=1,x"), ("sigma", "x"), 2),
    "several": (("--sweep", "top_k=1,5", "--predictions", "p.json"), ("--predictions",), 2),
    "fade": (("--fade", "linear", "--sigma", "3"), ("linear", "sigma"), 2),
    "folder": (("--predictions", "."), ("folder", "--predictions"), 1),
    "pictures": (("--images", "nowhere"), ("nowhere",), 1),
}


@pytest.mark.parametrize("what", WRONG)
def test_wrong_options_are_one_line(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: Command, what: str
) -> None:
    monkeypatch.chdir(tmp_path)
    options, words, code = WRONG[what]
    given = [] if options[0] in ("--shots", "--seeds") else [*QUICK]
    ran = command("evaluate", folder, *given, *options)
    ran.failed(*words, code=code)
    assert ran.out == ""
    assert list(tmp_path.iterdir()) == [], "nothing was written"


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("nowhere", None, "nowhere"),
        ("broken.json", "{", "broken.json"),
        ("other.json", "[1, 2]", "no picture files"),
        ("empty.json", '{"images": [], "annotations": [], "categories": []}', "no picture"),
    ],
)
def test_what_is_no_dataset_is_one_line(
    tmp_path: Path, command: Command, name: str, content: str | None, words: str
) -> None:
    if content is not None:
        (tmp_path / name).write_text(content)
    command("evaluate", tmp_path / name).failed(words, code=1)


def test_an_empty_folder_says_what_a_dataset_is(tmp_path: Path, command: Command) -> None:
    command("evaluate", tmp_path).failed("annotations.json", "data.yaml", "masks/", code=1)


def test_what_it_was_made_on_and_how_alike_candidates_are(
    folder: Path, tmp_path: Path, command: Command
) -> None:
    out = tmp_path / "out"
    found = only_object(command("evaluate", folder, *QUICK, "--json", "--report", out).worked())
    assert {"cpu", "cores", "memory_gb", "system", "gpu"} <= set(found["machine"])
    assert found["versions"]["numpy"] == np.__version__
    assert {"date", "commit", "dirty"} <= set(found)
    alike = found["candidate_similarity"]
    quantiles = [*alike["quantiles"].values()]
    assert [*alike["quantiles"]] == ["0.0", "0.05", "0.25", "0.5", "0.75", "0.95", "1.0"]
    assert -1 <= quantiles[0] <= alike["mean"] <= quantiles[-1] <= 1.0001
    assert quantiles == sorted(quantiles)
    assert 0 < alike["passing"] <= 1
    assert alike["candidates"] > 0
    page = (out / "index.html").read_text()
    assert f"numpy {np.__version__}" in page
    assert (found["commit"] or "sam-detect")[:10] in page


def test_a_method_that_compares_nothing_has_no_similarities(folder: Path, command: Command) -> None:
    found = only_object(
        command("evaluate", folder, *QUICK, "--method", WATERSHED, "--json").worked()
    )
    assert found["candidate_similarity"] is None
