"""``./scripts/bench`` as a real process: what it prints, appends and refuses."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cli_harness import Command, as_a_process, drawn, in_this_process, saved

from sam_detect.cli.app import COMMANDS
from scripts.asv.benchmarks import tracked
from scripts.dev.bench.__main__ import COMMAND

STAGES = {
    "propose", "fade_crop", "embed", "search", "label", "write_json", "write_overlay", "detect",
}  # fmt: skip
MODULE = "scripts.dev.bench"
HEAVY = ("torch", "cv2", "skimage", "scipy", "PIL", "qdrant_client", "qdrant_edge", "jinja2")


@pytest.fixture
def command(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    monkeypatch.setitem(COMMANDS, "bench", COMMAND)
    return in_this_process(capfd)


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the suite 'stages' printed."""
    folder = tmp_path_factory.mktemp("bench")
    picture = saved(folder / "secret name.png", drawn())
    ran = as_a_process(
        "stages", "--image", picture, "--repeat", "1", "--json",
        env={"SAM_DETECT_HOME": str(folder)}, module=MODULE,
    ).worked()  # fmt: skip
    assert "stages: propose" in ran.err, "progress is on stderr"
    [printed] = ran.json
    assert isinstance(printed, dict)
    return printed


@pytest.mark.alone
def test_the_stages_are_measured_apart(measured: dict[str, Any]) -> None:
    printed = measured
    assert set(printed["stages"]) == STAGES == {*tracked.Stages.params}
    for name, stage in printed["stages"].items():
        assert set(stage) == {"median_ms", "spread_ms", "peak_memory_mb"}, name
        assert stage["median_ms"] > 0, name
    parts = ("propose", "fade_crop", "embed", "label")
    total = printed["stages"]["detect"]["median_ms"]
    # Proposing is most of it; each stage is measured by itself, on a machine that others may use.
    assert all(printed["stages"][name]["median_ms"] < 2 * total for name in parts)
    pace = printed["figures"]["detect_seconds_per_megapixel"]
    assert pace == pytest.approx(total / 1000 / 0.056, rel=0.01)
    assert printed["figures"]["proposals"] >= 6


@pytest.mark.alone
def test_the_pairs_say_which_is_which(measured: dict[str, Any]) -> None:
    pairs = measured["pairs"]
    assert set(pairs) == {*tracked.StagesPairs.params}
    for pair in pairs.values():
        assert {"a", "b", "a_median", "b_median", "ratio"} <= set(pair)
        assert pair["ratio"] == pytest.approx(pair["b_median"] / pair["a_median"], rel=0.01)
    average = pairs["embed_appearance_vs_average"]
    assert (average["a"], average["b"]) == ("appearance", "average")


@pytest.mark.alone
def test_the_record_says_on_what_and_names_nobody(measured: dict[str, Any]) -> None:
    printed = measured
    assert printed["suite"] == "stages"
    assert printed["repeat"] == 1
    assert {"cpu", "cores", "threads", "memory_gb", "system", "gpu"} == set(printed["machine"])
    assert set(printed) >= {"commit", "dirty", "load", "date", "versions", "recipe", "workload"}
    assert "secret" not in json.dumps(printed)
    assert str(Path.home()) not in json.dumps(printed)


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the suite 'store' printed for 100 vectors."""
    home = {"SAM_DETECT_HOME": str(tmp_path_factory.mktemp("home"))}
    arguments = ("store", "--sizes", "100", "--repeat", "1", "--json")
    return as_a_process(*arguments, env=home, module=MODULE).worked().json[0]


def test_the_stores_are_compared_and_agree(compared: dict[str, Any]) -> None:
    expected = {
        f"{store}_{what}_100"
        for store in ("memory", "embedded", "local")
        for what in ("insert", "search", "open")
    }
    assert set(compared["stages"]) == expected - {"memory_open_100"}
    names = {
        name.replace("10000", "100") for name in (*tracked.Store.params, *tracked.StorePairs.params)
    }
    assert names <= {*compared["stages"], *compared["pairs"]}
    assert compared["figures"] == {"embedded_agrees_100": 1, "local_agrees_100": 1}
    assert compared["pairs"]["embedded_vs_local_search_100"]["b"] == "local"


def test_without_json_there_is_a_table(
    command: Command, compared: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    record = {**compared, "skipped": ["something"], "commit": "abcdef0" + "1" * 33, "dirty": True}
    monkeypatch.setattr("scripts.dev.bench.command.run_suite", lambda *_, **__: record)
    ran = command("bench", "store").worked()
    lines = {line.split()[0]: line.split() for line in ran.out.splitlines() if line.strip()}
    stage = record["stages"]["embedded_search_100"]
    assert float(lines["embedded_search_100"][1]) == pytest.approx(stage["median_ms"], rel=0.01)
    pair = record["pairs"]["embedded_vs_local_search_100"]
    assert float(lines["embedded_vs_local_search_100"][5]) == pytest.approx(pair["ratio"], rel=0.01)
    for words in ("median ms", "peak MB", "left out: something", "commit abcdef0+"):
        assert words in ran.out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["stage"], ["no bench suite", "did you mean 'stages'", "stages, store"]),
        ([], ["argument"]),
        (["stages", "--repeat", "0"], ["repeat must be at least 1, got 0"]),
        (["stages", "--sizes", "100"], ["takes no sizes"]),
        (["store", "--image", "x.png"], ["takes no images"]),
        (["store", "--sizes", "many"], ["--sizes takes whole numbers", "'many'"]),
        (["store", "--sizes", "7"], ["multiple of 10", "got 7"]),
    ],
)
def test_what_cannot_be_meant_is_one_line_and_2(
    command: Command, arguments: list[str], words: list[str]
) -> None:
    command("bench", *arguments).failed(*words, code=2)


def test_a_missing_picture_is_one_line_and_1(command: Command, tmp_path: Path) -> None:
    ran = command("bench", "stages", "--image", tmp_path / "none.png")
    ran.failed("none.png", "does not exist", code=1)


def test_it_is_a_command_of_the_checkout_only(command: Command) -> None:
    assert command("bench", "--help").worked().out.startswith("Usage: ./scripts/bench [OPTIONS]")
    command("bench").failed("(see: ./scripts/bench --help)", code=2)
    as_a_process("bench").failed("'bench' does not exist", code=1)


def test_help_imports_nothing_heavy() -> None:
    script = (
        "import sys; from scripts.dev.bench.__main__ import COMMAND, COMMANDS;"
        "loaded = 'numpy' in sys.modules;"
        "from sam_detect.cli.app import run; COMMANDS['bench'] = COMMAND;"
        "assert run(['bench', '--help']) == 0;"
        f"print(loaded, [m for m in {HEAVY!r} if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    loaded, heavy = done.stdout.strip().splitlines()[-1].split(maxsplit=1)
    assert loaded == "False", "NumPy asks for the number of threads when it is loaded"
    assert heavy == "[]"
