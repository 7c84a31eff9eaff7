"""Labels: what looks like one name is one class, however it was typed."""

from __future__ import annotations

import re
import unicodedata

from sam_detect.errors import LibraryError

MAX_LABEL_LENGTH = 200

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


def _without_invisible(label: str) -> str:
    if label.isascii():
        return label.strip()
    kept = unicodedata.normalize("NFC", _INVISIBLE.sub("", label))
    spaced = (" " if unicodedata.category(each) == "Zs" else each for each in kept)
    return _AROUND.sub("", "".join(spaced))


def _too_long(label: str) -> str:
    return f"a label has at most {MAX_LABEL_LENGTH} characters; {label[:20]!a}... has {len(label)}"
