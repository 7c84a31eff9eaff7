"""Reads untrusted YAML: plain values only, without aliases, and within limits.

Aliases and merge keys let a few bytes stand for gigabytes, and tags can name classes, so none of
them is read. What is left is what JSON has: mappings, lists, texts, numbers, true, false and null,
written as in YAML 1.2 (``no`` is a text, ``1e-6`` is a number).
"""

from __future__ import annotations

import re
from typing import Any

from sam_detect.errors import UnavailableError, one_line

MAX_CHARACTERS = 1 << 18
MAX_DEPTH = 32
MAX_VALUES = 50_000
"""Mappings, lists and scalars in one file."""
MAX_NUMBER = 40
"""Characters of a number."""
TAG = "tag:yaml.org,2002:"
CONSTANTS = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
WHOLE = re.compile(r"[-+]?[0-9]+")
REAL = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)"
                  r"|\.(nan|NaN|NAN)")  # fmt: skip


class PlainYAMLError(ValueError):
    """A text that is no YAML, or more than plain values."""


def read_yaml(text: str) -> Any:
    """The value of a YAML text.

    Raises:
        PlainYAMLError: it is no YAML, has more than plain values in it, or is too large.
        UnavailableError: PyYAML is not installed.
    """
    try:
        import yaml
    except ImportError as error:
        raise UnavailableError(
            "reading YAML needs PyYAML: pip install 'sam-detect[evaluate]'"
        ) from error
    if len(text) > MAX_CHARACTERS:
        raise PlainYAMLError(f"it is longer than {MAX_CHARACTERS >> 10} KiB")
    try:
        return _value_of(yaml, text)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise PlainYAMLError(f"line {line} is no YAML: {error.problem}"[:200]) from error
    except yaml.YAMLError as error:
        raise PlainYAMLError(one_line(error)[:200]) from error


def _value_of(yaml: Any, text: str) -> Any:
    """Builds the value from PyYAML's events: nothing is composed or constructed by PyYAML."""
    root: list[Any] = []
    open_values: list[_Open] = [_Open(root)]
    documents = count = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        line = event.start_mark.line + 1
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            raise PlainYAMLError(
                f"line {line} has an anchor or alias (& or *): write its value out"
            )
        if isinstance(event, yaml.DocumentStartEvent):
            documents += 1
            if documents > 1:
                raise PlainYAMLError(f"line {line} begins a second document")
        elif isinstance(event, yaml.CollectionEndEvent):
            open_values.pop()
        elif isinstance(event, (yaml.ScalarEvent, yaml.CollectionStartEvent)):
            count += 1
            if len(open_values) > MAX_DEPTH:
                raise PlainYAMLError(f"line {line} is nested more than {MAX_DEPTH} levels deep")
            if count > MAX_VALUES:
                raise PlainYAMLError(f"it has more than {MAX_VALUES} values")
            if isinstance(event, yaml.ScalarEvent):
                open_values[-1].add(_scalar(event, line), line)
                continue
            mapping = isinstance(event, yaml.MappingStartEvent)
            if event.tag not in (None, "!", TAG + ("map" if mapping else "seq")):
                raise PlainYAMLError(f"line {line} has the tag {event.tag[:60]}")
            new: Any = {} if mapping else []
            open_values[-1].add(new, line)
            open_values.append(_Open(new))
    return root[0] if root else None


class _Open:
    """A list or mapping that is being filled."""

    def __init__(self, value: Any) -> None:
        self._value = value
        self._key: Any = None
        self._has_key = False

    def add(self, value: Any, line: int) -> None:
        """Takes the next value: an item, or in turns a key and what it stands for."""
        if isinstance(self._value, list):
            self._value.append(value)
        elif self._has_key:
            self._value[self._key] = value
            self._has_key = False
        elif isinstance(value, (dict, list)):
            raise PlainYAMLError(f"line {line} has a list or mapping as a key")
        elif value == "<<":
            raise PlainYAMLError(f"line {line} has a merge key (<<): write its values out")
        elif value in self._value:
            raise PlainYAMLError(f"line {line} gives {str(value)[:60]!r} a second time")
        else:
            self._key, self._has_key = value, True


def _scalar(event: Any, line: int) -> Any:
    """A text, or what a text without quotes and without a tag means."""
    text: str = event.value
    plain = event.style is None and event.tag is None
    wanted = None if event.tag in (None, "!") else event.tag.removeprefix(TAG)
    if wanted == "str" or event.tag == "!" or (wanted is None and not plain):
        return text
    if wanted not in (None, "int", "float", "bool", "null"):
        raise PlainYAMLError(f"line {line} has the tag {event.tag[:60]}")
    found = _meaning(text, line)
    kinds: dict[str, Any] = {"int": int, "float": (int, float), "bool": bool, "null": type(None)}
    if wanted is not None and not isinstance(found, kinds[wanted]):
        raise PlainYAMLError(f"line {line}: {text[:60]!r} is no {wanted}")
    return found


def _meaning(text: str, line: int) -> Any:
    if text in CONSTANTS:
        return CONSTANTS[text]
    if not (WHOLE.fullmatch(text) or REAL.fullmatch(text)):
        return text
    if len(text) > MAX_NUMBER:
        raise PlainYAMLError(f"line {line} has a number of more than {MAX_NUMBER} characters")
    if WHOLE.fullmatch(text):
        return int(text)
    return float(text.replace(".inf", "inf").replace(".Inf", "inf").replace(".INF", "inf")
                 .replace(".nan", "nan").replace(".NaN", "nan").replace(".NAN", "nan"))  # fmt: skip
