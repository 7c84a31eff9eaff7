"""YAML of others: plain values and nothing else, within limits, at once."""

from __future__ import annotations

import json
import sys

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from sam_detect import plain_yaml
from sam_detect.errors import UnavailableError
from sam_detect.plain_yaml import MAX_CHARACTERS, PlainYAMLError, read_yaml

NEXT = list(zip("abcdefgh", "bcdefghi", strict=True))
MERGE_BOMB = "a: &a {k: 1}\n" + "".join(
    f"{new}: &{new} {{x: {{<<: [{', '.join(['*' + old] * 9)}]}}}}\n" for old, new in NEXT
)
ALIAS_BOMB = "a: &a [lol]\n" + "".join(
    f"{new}: &{new} [{', '.join(['*' + old] * 9)}]\n" for old, new in NEXT
)

FEW_VALUES = 500
REFUSED = {
    "a merge bomb": (MERGE_BOMB, "anchor"),
    "an alias bomb": (ALIAS_BOMB, "anchor"),
    "an alias without an anchor": ("a: *b", "alias"),
    "a merge key": ("a: {<<: {b: 1}}", "merge key"),
    "lists without end": ("[" * 100_000, "levels deep"),
    "mappings without end": ("{a: " * 40_000, "levels deep"),
    "dashes without end": ("- " * 100_000, "levels deep"),
    "keys without end": ("? " * 100_000, "as a key"),
    "many values": ("- 1\n" * FEW_VALUES, "values"),  # with the list itself one too many
    "a long text": ("#" * (MAX_CHARACTERS + 1), "longer"),
    "a long number": ("a: " + "9" * 5000, "number"),
    "a class": ("a: !!python/object/apply:os.getcwd []", "tag"),
    "a class by a short name": ("%TAG ! tag:yaml.org,2002:python/\n---\n!name:os.system x", "tag"),
    "a tag of one's own": ("a: !other [1]", "tag"),
    "bytes": ("a: !!binary aGVsbG8=", "tag"),
    "a set": ("a: !!set {b}", "tag"),
    "a broken number": ("a: !!int ''", "no int"),
    "two documents": ("a: 1\n---\nb: 2", "second document"),
    "a key twice": ("a: 1\na: 2", "second time"),
    "a list as a key": ("[1]: 2", "as a key"),
    "no YAML": ("a: [", "line 1 is no YAML"),
    "a control character": ("a: \x00", "special characters"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_more_than_plain_values_is_refused_in_one_line(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert plain_yaml.MAX_VALUES <= 50_000
    if name == "many values":  # so many take seconds
        monkeypatch.setattr(plain_yaml, "MAX_VALUES", FEW_VALUES)
    text, said = REFUSED[name]
    with pytest.raises(PlainYAMLError) as caught:
        read_yaml(text)
    message = str(caught.value)
    assert said in message
    assert "\n" not in message
    assert len(message) < 300


def test_values_are_read_as_yaml_1_2_has_them() -> None:
    text = """
    texts: [no, off, 2001-01-01, '5', "a\\tb", 0x10, 1_000, 1:30, !!str 7]
    numbers: [1, -2, 007, 1.5, 1e-6, .5, 5., -.inf, !!float 3]
    others: [true, False, null, ~, '']
    nothing:
    block: |
      two
      lines
    """
    assert read_yaml(text) == {
        "texts": ["no", "off", "2001-01-01", "5", "a\tb", "0x10", "1_000", "1:30", "7"],
        "numbers": [1, -2, 7, 1.5, 1e-6, 0.5, 5.0, float("-inf"), 3],
        "others": [True, False, None, None, ""],
        "nothing": None,
        "block": "two\nlines\n",
    }
    assert read_yaml("") is None
    assert read_yaml("just a text") == "just a text"


Keys = st.text("abcdefgh_", min_size=1, max_size=8)
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.text(max_size=20),
    lambda each: st.lists(each, max_size=4) | st.dictionaries(Keys, each, max_size=4),
    max_leaves=20,
)


@given(PLAIN)
def test_what_pyyaml_writes_of_plain_values_is_read_again(value: object) -> None:
    if yaml.safe_load(yaml.safe_dump(value, allow_unicode=True)) != value:
        return  # PyYAML's own reader loses it, too
    written = yaml.dump(json.loads(json.dumps(value)), Dumper=WithoutAliases, allow_unicode=True)
    assert read_yaml(written) == value


class WithoutAliases(yaml.SafeDumper):
    def ignore_aliases(self, data: object) -> bool:
        return True


def test_without_pyyaml_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "yaml", None)
    with pytest.raises(UnavailableError, match="PyYAML"):
        read_yaml("a: 1")
