"""The report in a real browser: it shows what it should, and its few controls work."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import browser
from PIL import Image
from report_helpers import ASIDE, D, E, evaluation

from sam_detect.evaluation.report import write_report

WIDE, PHONE = {"width": 1300, "height": 900}, {"width": 390, "height": 800}
HOSTILE = "<img src=x onerror=document.title='run'><script>document.title='run'</script>"


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with browser() as started:
        yield started


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``one/`` is the report of one evaluation with a hostile label, ``sweep/`` of three."""
    made = tmp_path_factory.mktemp("report")
    problems = tuple(f"line {number}" for number in range(8))
    one = evaluation(made / "data", rename={"nut": HOSTILE})
    one = replace(one, dataset=replace(one.dataset, problems=problems))
    write_report(made / "one", [one])
    whole = evaluation(made / "data")
    perfect = [replace(e, queries=e.queries[:1]) for e in whole.episodes]
    poor = [replace(e, queries=e.queries[1:]) for e in whole.episodes]
    sweep = [
        replace(whole, episodes=tuple(episodes), variant={"top_k": key})
        for key, episodes in (("10", whole.episodes), ("9", perfect), ("5", poor))
    ]
    write_report(made / "sweep", sweep)
    return made


@pytest.fixture
def complaints() -> list[str]:
    """What a page wrote to the console, threw, or asked the network for."""
    return []


def opened(chromium: Any, page: Path, complaints: list[str], size: Any = WIDE, **more: Any) -> Any:
    tab = chromium.new_page(viewport=size, **more)
    tab.on("console", lambda message: complaints.append(message.text))
    tab.on("pageerror", lambda error: complaints.append(str(error)))
    tab.on(
        "request",
        lambda request: (
            request.url.startswith(("file:", "data:")) or complaints.append(request.url)
        ),
    )
    tab.goto((page / "index.html").as_uri())
    return tab


@pytest.mark.parametrize("name", ["one", "sweep"])
@pytest.mark.parametrize(("size", "scheme"), [(WIDE, "light"), (PHONE, "dark")])
def test_a_page_opens_without_complaint_and_fits(
    chromium: Any, folder: Path, complaints: list[str], name: str, size: Any, scheme: str
) -> None:
    tab = opened(chromium, folder / name, complaints, size, color_scheme=scheme)
    for each in tab.locator("details").all():
        each.evaluate("details => { details.open = true; }")
    assert tab.evaluate("document.documentElement.scrollWidth") <= size["width"]
    ground = tab.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, ground[4:-1].split(","))) > 380) == (scheme == "light")
    assert tab.title() != "run"
    assert complaints == []
    tab.close()


def test_the_pictures_are_drawn_with_their_outlines(
    chromium: Any, folder: Path, complaints: list[str]
) -> None:
    tab = opened(chromium, folder / "one", complaints)
    worst = tab.locator(".gallery figure").first.locator("svg")
    box = worst.bounding_box()
    assert box["width"] / box["height"] == pytest.approx(4 / 3, rel=0.01)
    tab.add_style_tag(content=".rim { display: none; }")
    seen = np.array(Image.open(io.BytesIO(worst.screenshot())).convert("RGB")).astype(int)
    scale = box["width"] / 120

    def edge(rectangle: tuple[int, int, int, int]) -> np.ndarray[Any, Any]:
        """Pixels around the upper edge of a rectangle, but for its corners."""
        x, y, w, _ = rectangle
        rows = slice(round(y * scale) - 3, round(y * scale) + 4)
        return seen[rows, round((x + 3) * scale) : round((x + w - 3) * scale)].reshape(-1, 3)

    def share(pixels: np.ndarray[Any, Any], color: tuple[int, int, int]) -> float:
        return float((np.abs(pixels - color).max(axis=1) < 40).mean())

    green, red, yellow = (0, 224, 164), (255, 85, 51), (255, 220, 60)
    assert share(edge(ASIDE), red) > 0.05
    assert share(edge(ASIDE), green) == 0
    assert share(edge(E), yellow) > 0.05
    assert share(edge(E), red) == 0
    assert share(edge(D), green) > 0.05
    assert share(edge(D), red) == 0
    # below the outlines is the picture: a bright object on a darker ground
    x, y, w, h = E
    inside = seen[round((y + h / 2) * scale), round((x + w / 2) * scale)]
    beside = seen[round((y + h / 2) * scale), round((x + w + 5) * scale)]
    assert inside.sum() > beside.sum() + 100
    tab.close()


def test_best_pictures_come_first_when_asked(
    chromium: Any, folder: Path, complaints: list[str]
) -> None:
    tab = opened(chromium, folder / "one", complaints)
    names = tab.locator(".gallery .name")
    assert names.all_text_contents() == ["3.png", "2.png"]
    tab.get_by_label("best", exact=True).check()
    assert names.all_text_contents() == ["2.png", "3.png"]
    tab.get_by_label("worst", exact=True).check()
    assert names.all_text_contents() == ["3.png", "2.png"]
    assert complaints == []
    tab.close()


def test_kinds_of_outlines_are_switched_off(
    chromium: Any, folder: Path, complaints: list[str]
) -> None:
    tab = opened(chromium, folder / "one", complaints)
    shot = tab.locator(".gallery figure").first
    for kind in ("true", "false", "missed"):
        assert shot.locator(f".k-{kind}").is_visible()
        tab.locator(f"[data-kind={kind}]").uncheck()
        assert not shot.locator(f".k-{kind}").is_visible()
        tab.locator(f"[data-kind={kind}]").check()
        assert shot.locator(f".k-{kind}").is_visible()
    tab.close()


def test_tables_sort_numbers_as_numbers(chromium: Any, folder: Path, complaints: list[str]) -> None:
    tab = opened(chromium, folder / "sweep", complaints)
    comparison = tab.locator("#comparison")
    first = comparison.locator("tbody tr td:first-child")
    assert first.all_text_contents() == ["10", "9", "5"]
    comparison.get_by_role("button", name="top_k").click()
    assert first.all_text_contents() == ["5", "9", "10"]
    button = comparison.get_by_role("button", name="F1")
    button.focus()
    tab.keyboard.press("Enter")
    assert first.all_text_contents() == ["9", "10", "5"]
    assert button.locator("..").get_attribute("aria-sort") == "descending"
    tab.keyboard.press("Enter")
    assert first.all_text_contents() == ["5", "10", "9"]
    assert complaints == []
    tab.close()


def test_a_link_unfolds_its_variant(chromium: Any, folder: Path, complaints: list[str]) -> None:
    tab = opened(chromium, folder / "sweep", complaints)
    assert [d.get_attribute("open") is not None for d in tab.locator(".variant").all()] == [
        False, True, False
    ]  # fmt: skip
    tab.get_by_role("link", name="details").nth(2).click()
    tab.wait_for_function("document.getElementById('e3').open")
    tab.close()


def test_a_picture_is_enlarged_from_the_keyboard(
    chromium: Any, folder: Path, complaints: list[str]
) -> None:
    tab = opened(chromium, folder / "one", complaints)
    dialog = tab.locator("dialog")
    tab.get_by_role("button", name="Enlarge 3.png").first.focus()
    tab.keyboard.press("Enter")
    assert dialog.is_visible()
    assert dialog.locator("svg").bounding_box()["width"] > 700
    assert dialog.locator("p").inner_text().startswith("3.png")
    assert "F1 0.33 2 true, 4 false, 4 missed" in dialog.inner_text()
    tab.keyboard.press("Escape")
    assert not dialog.is_visible()
    assert complaints == []
    tab.close()


def test_every_control_and_picture_has_a_name(
    chromium: Any, folder: Path, complaints: list[str]
) -> None:
    tab = opened(chromium, folder / "one", complaints)
    nameless = tab.evaluate(
        """[...document.querySelectorAll('button, input, svg[role=img]')].filter(each =>
             !(each.getAttribute('aria-label') || each.textContent.trim() ||
               each.labels?.[0]?.textContent.trim())).length"""
    )
    assert nameless == 0
    outlines = tab.locator(".gallery path title").all_text_contents()
    assert any(HOSTILE in text for text in outlines)
    tab.close()
