"""Labels: what looks like one name is one class, however it was typed."""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Iterable

from sam_detect.errors import LibraryError

MAX_LABEL_LENGTH = 200
SHORT_LABEL = 4
"""Up to so many letters, two labels that differ in two of them are different words."""

_CONTROL = ("Cc", "Cs", "Zl", "Zp")
_INVISIBLE = re.compile(
    "[\u00ad\u034f\u061c\u180b-\u180f\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]+"
)
"""Characters that show nothing: soft hyphens, zero-width spaces, directions of text, tags.
Joiners (U+200C, U+200D) and variation selectors are kept: Persian, Indic scripts and emoji need
them."""
_BLANK = re.compile("[\\s\u115f\u1160\u17b4\u17b5\u200c\u200d\u2800\u3164\ufe00-\ufe0f\uffa0]*")
"""What is kept, and shows nothing alone."""
_AROUND = re.compile("^[\\s\u200c\u200d]+|[\\s\u200c\u200d]+$")


def normalised_label(label: str) -> str:
    """The label as it is stored and compared: Unicode NFC, without characters that show nothing,
    plain spaces, none around it.

    Raises:
        LibraryError: it is no name: no visible character, several lines, control characters, or
            more than 200 characters.
    """
    if not isinstance(label, str):
        raise LibraryError(f"a label is text, got {label!r:.60}")
    if len(label) > 10 * MAX_LABEL_LENGTH:  # before any work that grows with the length
        raise LibraryError(_too_long(label))
    plain = _without_invisible(label)
    if _BLANK.fullmatch(plain):
        raise LibraryError(f"a label needs at least one visible character, got {label!a}")
    if any(unicodedata.category(each) in _CONTROL for each in plain):
        raise LibraryError(f"a label is one line of text without control characters: {label!a}")
    if len(plain) > MAX_LABEL_LENGTH:
        raise LibraryError(_too_long(plain))
    return plain


def shown_label(stored: str) -> str:
    """A stored label, normalised as far as it can be: older versions stored what was typed."""
    try:
        return normalised_label(stored)
    except LibraryError:
        return ascii(stored)[1:-1]


def similar_labels(label: str, known: Iterable[str]) -> list[str]:
    """Those of the known labels of which a label may be a misspelling, most similar first.

    They differ in one letter, longer ones in two, or in case. Labels that differ in digits only
    are classes on purpose, and so are labels of one or two letters.
    """
    folded, found = label.casefold(), []
    for each in known:
        other = each.casefold()
        shorter, longer = sorted((len(folded), len(other)))
        if shorter < SHORT_LABEL - 1 or longer - shorter > 2 or each == label:
            continue
        if folded != other and _without_digits(folded) == _without_digits(other):
            continue
        blocks = difflib.SequenceMatcher(None, folded, other, autojunk=False).get_matching_blocks()
        changes = longer - sum(block.size for block in blocks)
        if changes <= (1 if shorter <= SHORT_LABEL else 2):
            found.append((changes, each))
    return [each for _, each in sorted(found)]


def _without_digits(text: str) -> str:
    return "".join(each for each in text if not each.isdigit())


def _without_invisible(label: str) -> str:
    if label.isascii():
        return label.strip()
    kept = unicodedata.normalize("NFC", _INVISIBLE.sub("", label))
    spaced = (" " if unicodedata.category(each) == "Zs" else each for each in kept)
    return _AROUND.sub("", "".join(spaced))


def _too_long(label: str) -> str:
    return f"a label has at most {MAX_LABEL_LENGTH} characters; {label[:20]!a}... has {len(label)}"
