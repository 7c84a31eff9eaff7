"""Labels: one form for what looks the same, and no name that cannot be seen or printed."""

from __future__ import annotations

import unicodedata

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from strategies import QUICK

from sam_detect import SAMDetect
from sam_detect.errors import LibraryError
from sam_detect.library.example import label_of
from sam_detect.types import Point
from sam_detect.types.labels import normalised_label, shown_label, similar_labels
from sam_detect.vector_store import MemoryVectorStore

SAME = {
    "NFD": ("Nu\u0308sse", "N\u00fcsse"),
    "a zero-width space": ("nu\u200bt", "nut"),
    "a byte order mark": ("\ufeffnut", "nut"),
    "a soft hyphen": ("nu\u00adt", "nut"),
    "directions": ("\u202enut\u202c", "nut"),
    "tags": ("nut\U000e0041", "nut"),
    "a space that does not break": ("red\u00a0nut", "red nut"),
    "spaces around": ("  nut\t", "nut"),
    "a joiner at the end": ("nut\u200d \u200d", "nut"),
}
KEPT = [
    "Ø 東京 🌰", "\u0646\u200c\u0645", "👩\u200d🔬", "❤\ufe0f", "[bold]nut[/bold]", "--label",
    "x" * 200,
]  # fmt: skip
REFUSED = [
    "", " \t", "\u200b", "\ufeff \u200d", "\u3164", "\u2800\u00a0", "\U000e0041", "two\nlines",
    "a\x00b", "a\u2028b", "a\x9bb", "a\ud800", "x" * 201, "\u0301" * 10_000_000,
]  # fmt: skip


@pytest.mark.parametrize("what", SAME)
def test_what_looks_the_same_is_one_label(what: str) -> None:
    typed, stored = SAME[what]
    assert normalised_label(typed) == stored


@pytest.mark.parametrize("label", KEPT)
def test_what_a_script_needs_is_kept(label: str) -> None:
    assert normalised_label(label) == label


@pytest.mark.parametrize("label", REFUSED, ids=lambda label: ascii(label[:12]))
def test_what_is_no_name_is_refused_in_one_printable_line(label: str) -> None:
    with pytest.raises(LibraryError) as caught:
        normalised_label(label)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 2000


@QUICK
@given(st.text(max_size=230))
@example("\u200d \u200dnut\u200d \u200d")
@example("e\u034f\u0301")
def test_any_text_is_refused_or_has_one_form(label: str) -> None:
    try:
        plain = normalised_label(label)
    except LibraryError:
        assert shown_label(label) == shown_label(shown_label(label))
        return
    assert plain == normalised_label(plain) == shown_label(label)
    assert plain == normalised_label(unicodedata.normalize("NFD", plain))
    assert len(plain.splitlines()) == 1
    assert plain == plain.strip()
    plain.encode("utf-8")


def discs() -> tuple[np.ndarray, np.ndarray]:
    image = np.full((64, 64, 3), 220, np.uint8)
    mask = np.zeros((64, 64), bool)
    mask[20:40, 20:40] = True
    image[mask] = (40, 60, 200)
    return image, mask


def test_one_class_however_it_is_typed() -> None:
    detector = SAMDetect(embedder="average", vector_store=MemoryVectorStore())
    image, mask = discs()
    for number, label in enumerate(("Nu\u0308sse", "N\u00fcsse", "N\u00fc\u200bsse")):
        detector.add_example(image + number, label, mask)
    library = detector.library
    assert library.stats()["classes"] == {"N\u00fcsse": 3}
    assert len(list(library.listing("Nu\u0308sse"))) == 3
    assert library.rename("Nu\u0308sse", "a\u030apple") == 3
    assert library.remove(label="\u00e5pple") == 3


@pytest.mark.parametrize("typed", ["Nu\u0308sse", "N\u00fc\u200bsse", "\u200b"])
def test_a_label_that_an_older_version_stored_is_read_in_its_one_form(typed: str) -> None:
    point = Point("00000000-0000-0000-0000-000000000001", None, {"label": typed, "negative": False})
    name, negative = label_of(point)
    assert name == shown_label(typed) == shown_label(name)
    assert name in ("N\u00fcsse", "\\u200b")
    assert not negative


def test_the_opposite_is_taken_back_however_it_is_typed() -> None:
    detector = SAMDetect(embedder="average", vector_store=MemoryVectorStore())
    image, mask = discs()
    detector.add_example(image, "N\u00fcsse", mask)
    detector.add_example(image, "Nu\u0308sse", mask, negative=True)
    stats = detector.library.stats()
    assert (stats["classes"], stats["negatives"]) == ({}, 1)


SIMILAR = [
    ("nuts", "nut"), ("Nut", "nut"), ("hazlenut", "hazelnut"), ("hazelnt", "hazelnut"),
    ("almnod", "almond"), ("dat", "date"), ("red  fig", "red fig"), ("N\u00fcsse", "Nusse"),
]  # fmt: skip
DIFFERENT = [
    ("nut", "nut"), ("cut", "not"), ("fig", "date"), ("disc 1", "disc 2"), ("M6x10", "M8x20"),
    ("a", "b"), ("ab", "ac"), ("walnut", "hazelnut"), ("bolt", "belts"),
]  # fmt: skip


@pytest.mark.parametrize(("label", "known"), SIMILAR)
def test_a_label_that_differs_in_one_or_two_letters_is_similar(label: str, known: str) -> None:
    assert similar_labels(label, [known, "something else"]) == [known]
    assert similar_labels(known, [label]) == [label]


@pytest.mark.parametrize(("label", "known"), DIFFERENT)
def test_other_words_and_numbered_labels_are_not(label: str, known: str) -> None:
    assert similar_labels(label, [known]) == similar_labels(known, [label]) == []


def test_of_several_similar_labels_the_most_similar_comes_first() -> None:
    assert similar_labels("hazelnuts", ["hazelnat", "hazelnut"]) == ["hazelnut", "hazelnat"]
