"""docs/cli.md says what the commands say of themselves, and only options that exist are shown."""

from __future__ import annotations

import re
import runpy
import shlex
from pathlib import Path
from typing import Any

import click
import pytest

from sam_detect.cli import options
from sam_detect.cli.app import COMMANDS, cli, run
from sam_detect.config import known_settings

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = runpy.run_path(str(ROOT / "scripts" / "docs"), run_name="docs")
PAGE = ROOT / "docs" / "cli.md"


def all_commands() -> dict[str, click.Command]:
    with click.Context(cli, info_name="sam-detect") as context:
        return {
            name: command for name, command, _ in SCRIPT["commands"](cli, context, "sam-detect")
        }


def options_of(command: click.Command) -> list[click.Option]:
    return [each for each in command.params if isinstance(each, click.Option)]


def test_the_page_is_what_the_script_writes() -> None:
    assert PAGE.read_text(encoding="utf-8") == SCRIPT["document"](), "run scripts/docs"


def test_the_script_says_when_the_page_is_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    main: Any = SCRIPT["main"]
    target = tmp_path / "docs" / "cli.md"
    monkeypatch.setitem(main.__globals__, "TARGET", target)
    monkeypatch.setattr("sys.argv", ["docs", "--check"])
    assert main() == 1
    assert "run scripts/docs" in capsys.readouterr().out
    monkeypatch.setattr("sys.argv", ["docs"])
    assert main() == 0
    target.write_text(target.read_text() + "an edit by hand\n")
    monkeypatch.setattr("sys.argv", ["docs", "--check"])
    assert main() == 1


def test_every_shown_option_is_on_the_page() -> None:
    sections = re.split(r"(?m)^## ", PAGE.read_text(encoding="utf-8"))
    by_name = {section.splitlines()[0]: section for section in sections[1:]}
    found = all_commands()
    assert {f"sam-detect {name}" for name in COMMANDS} <= set(found)
    for name, command in found.items():
        for option in options_of(command):
            if option.name in ("help", "help_all"):
                continue
            shown = any(f"`{text}" in by_name[name] for text in option.opts)
            assert shown is not option.hidden, (name, option.opts)


def test_every_shown_option_says_what_it_does() -> None:
    for name, command in all_commands().items():
        assert command.help, name
        for option in options_of(command):
            assert option.hidden or (option.help or "").strip(), (name, option.opts)


def test_every_option_that_takes_a_value_says_which() -> None:
    for name, command in all_commands().items():
        for option in options_of(command):
            vague = option.make_metavar(click.Context(command)) in ("TEXT", "INTEGER", "FLOAT")
            assert option.is_flag or option.hidden or not vague, (name, option.opts)


def test_settings_of_one_of_a_few_values_refuse_others() -> None:
    found = {each.name: each for each in options_of(all_commands()["sam-detect detect"])}
    for setting, metavar in {
        "pooling": "crop|frame|auto", "prompts": "grid|adaptive|blobs|similarity|forest",
        "device": "auto|cpu|cuda|mps",
        "color_order": "bgr|rgb",
    }.items():  # fmt: skip
        kind = found[setting].type
        assert isinstance(kind, click.Choice), setting
        assert found[setting].metavar == "|".join(kind.choices) == metavar
    for setting in ("points_per_side", "threshold"):
        assert not isinstance(found[setting].type, click.Choice), "numbers are taken, too"


LONG = ("detect", "learn", "video", "evaluate")
long_commands = pytest.mark.parametrize("name", LONG)


def printed_help(name: str, option: str, capsys: pytest.CaptureFixture[str]) -> str:
    assert run([name, option]) == 0
    return capsys.readouterr().out


def shown_in(text: str) -> set[str]:
    return set(re.findall(r"(?m)^  (?:-h, )?(--[a-z-]+)", text.partition("Options:\n")[2]))


@long_commands
def test_all_help_comes_in_sections_a_commands_own_options_first(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    command = all_commands()[f"sam-detect {name}"]
    text = printed_help(name, "--help-all", capsys)
    own, *rest = re.split(r"(?m)^(?=[A-Z][a-z]+:$)", text.split("Options:\n")[1])
    assert "--json" in own
    for section in rest:
        title, _, shown = section.partition(":")
        for option in re.findall(r"(?m)^  --([a-z-]+)", shown):
            assert option.replace("-", "_") in options.section(title)
            assert f"--{option} " not in own
    given = {each.opts[-1] for each in options_of(command) if not each.hidden}
    assert shown_in(text) == given | {"--help"}


@long_commands
def test_help_shows_two_examples_and_what_most_people_need(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    text = printed_help(name, "--help", capsys)
    examples = [line for line in text.splitlines() if line.startswith(f"    sam-detect {name} ")]
    assert len(examples) == 2
    assert text.index(examples[1]) < text.index("Options:")
    shown = shown_in(text)
    assert 12 <= len(shown) <= 18
    assert {"--help", "--help-all", "--json", "--segmenter"} <= shown
    assert not {"--debug", "--lock-timeout-s", "--occupancy"} & shown
    assert shown < shown_in(printed_help(name, "--help-all", capsys))


@long_commands
def test_the_examples_of_a_help_are_command_lines_that_parse(name: str) -> None:
    command = all_commands()[f"sam-detect {name}"]
    for line in re.findall(r"(?m)^ *sam-detect (.*)$", command.help or ""):
        first, *words = shlex.split(line)
        assert first == name
        command.make_context(name, words, resilient_parsing=False)


def test_every_command_takes_json_and_debug() -> None:
    for name, command in all_commands().items():
        if not isinstance(command, click.Group):
            given = {text for option in options_of(command) for text in option.opts}
            assert {"--json", "--debug"} <= given, name


def test_options_have_the_settings_defaults_and_none_of_their_own() -> None:
    command = all_commands()["sam-detect detect"]
    for option in options_of(command):
        if option.name in known_settings():
            default = known_settings()[option.name].default
            given = option.get_default(click.Context(command), call=True)
            assert given is None, "an option that was not given must not hide the environment"
            assert default is None or f"[default: {default}]" in (option.help or "")


def test_what_has_no_effect_is_taken_but_not_shown() -> None:
    for name in ("sam-detect detect", "sam-detect learn"):
        found = {option.name: option for option in options_of(all_commands()[name])}
        assert found["color_order"].hidden, name
