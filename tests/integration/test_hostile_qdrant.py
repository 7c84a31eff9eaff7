"""Commands against a hostile Qdrant server: one line, within 10 s and 500 MB, and no password."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest
from cli_harness import Command, as_a_process, box_around, in_this_process, measured, saved
from hostile_server import ANSWERS, server

from sam_detect.cli.feedback import json_text, printable


@pytest.fixture
def sam(capfd: pytest.CaptureFixture[str]) -> Command:
    return in_this_process(capfd)


@pytest.mark.alone
@pytest.mark.parametrize("what", ANSWERS)
def test_a_hostile_server(what: str, tmp_path: Path) -> None:
    with server({"/aliases": ANSWERS[what]}) as url:
        ran = measured("library", "list", "--qdrant-url", url)
    ran.within().failed(url, code=1)
    assert len(ran.err) < 1000


ADDRESSES = [
    "http://joe:ge/heim@host:6333",
    "http://joe:geheim@host:99999",
    "joe:geheim@host:x",
    "http://joe:geheim@127.0.0.1:1",
    "http://joe:ge heim@ho st",
]


WAYS = ["push", "environment", "a file", "detect", "learn"]
"""Each with an address that is refused, and with one that is tried."""


@pytest.mark.parametrize("debug", [(), ("--debug",)])
@pytest.mark.parametrize(
    ("way", "address"),
    [*(("list", each) for each in ADDRESSES), *product(WAYS, (ADDRESSES[0], ADDRESSES[3]))],
)
def test_no_password_is_ever_said(
    sam: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str, way: str,
    debug: tuple[str, ...],
) -> None:  # fmt: skip
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("SAM_DETECT_HOME", str(home))
    picture = saved(tmp_path / "a.png")
    if way == "list":
        ran = sam("library", "list", "--qdrant-url", address, *debug)
    elif way == "detect":
        ran = sam("detect", picture, "--qdrant-url", address, *debug)
    elif way == "learn":
        box = box_around(40, 40)
        ran = sam("learn", picture, "--label", "a", "--box", box, "--qdrant-url", address, *debug)
    elif way == "push":
        sam("learn", picture, "--label", "a", "--box", box_around(40, 40)).worked()
        ran = sam("library", "push", "--to-url", address, *debug)
    elif way == "environment":
        monkeypatch.setenv("QDRANT_URL", address)
        ran = sam("library", "stats", *debug)
    else:
        (home / "config.toml").write_text(f'qdrant_url = ["{address}"]\n')
        ran = sam("library", "stats", *debug)
    assert ran.code in (1, 2)
    assert len(ran.errors) == 1
    assert "heim" not in ran.out + ran.err


def test_control_characters_of_a_library_are_never_printed(sam: Command, tmp_path: Path) -> None:
    """A source's name may hold anything that a file name can."""
    name = "a\x9b31m\u202egnp\x7f.png"
    picture = saved(tmp_path / name)
    sam("learn", picture, "--label", "\u202enut", "--box", box_around(40, 40)).worked()
    for arguments in (["list"], ["list", "--library", "default"], ["show"], ["stats"]):
        for more in ([], ["--json"]):
            ran = sam("library", *arguments, *more).worked()
            assert all(each.isprintable() for each in (ran.out + ran.err).replace("\n", ""))
    (row,) = sam("library", "list", "--library", "default", "--json").json
    assert row["source"].endswith(name)
    assert row["label"] == "nut"
    for ran in (sam("detect", picture), sam("detect", tmp_path / f"gone{name}")):
        assert all(each.isprintable() for each in (ran.out + ran.err).replace("\n", ""))


@pytest.mark.parametrize("text", ["\x9b", "\u202e", "\x7f", "\x1b", "\ud800", "\U000e0041"])
def test_what_could_move_a_cursor_is_written_out(text: str) -> None:
    assert printable(text).isprintable()
    assert json_text([text]).isprintable()
    assert printable(f"\u0646\u200c\u0645{text}").startswith("\u0646\u200c\u0645")


def test_labels_of_other_scripts_stay_readable(sam: Command, tmp_path: Path) -> None:
    picture = saved(tmp_path / "a.png")
    label = "\u6771\u4eac \u0646\u200c\u0645"
    sam("learn", picture, "--label", label, "--box", box_around(40, 40)).worked()
    assert label in sam("library", "list").worked().out
    assert label in sam("library", "list", "--json").worked().out


def test_a_terminal_that_knows_no_unicode_gets_escapes(tmp_path: Path) -> None:
    picture = saved(tmp_path / "a.png")
    env = {"PYTHONIOENCODING": "ascii:backslashreplace", "SAM_DETECT_HOME": str(tmp_path / "h")}
    label = "\u6771"
    learnt = as_a_process("learn", picture, "--label", label, "--box", box_around(40, 40), env=env)
    assert learnt.code == 0, learnt.err
    assert as_a_process("library", "list", env=env).code == 0
