"""What a new user of the annotation page sees: what to do first, why, what comes next, and that the
page is at work."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.browser import browser
from tests.integration.page_harness import annotating, labels, objects, serving

pytest.importorskip("fastapi", reason="the extra 'server' is not installed")


def test_the_terms_that_decided_are_one_click_away(photos: Path) -> None:
    with annotating(photos) as (page, client):
        asked: list[str] = []
        page.page.on("request", lambda r: asked.append(r.url) if "explanation" in r.url else None)
        page.click_nut(0)
        page.click_nut(1, "Shift")
        page.name("nut")
        page.said("5 named")
        page.click_nut(4)
        page.page.locator("#nearest img").first.wait_for()
        assert asked == [], "nothing is asked before the user wants it"
        page.page.click("#reasons summary")
        decision, terms = page.page.locator("#decision"), page.page.locator("#terms")
        decision.filter(has_text="sure that it is nut").wait_for()
        [shown] = [e for e in objects(client) if e["label"] and not e["taught"]
                   and e["bbox_xywh"][0] > 150 and e["bbox_xywh"][1] > 130]  # fmt: skip
        answer = client.get(f"api/pictures/0/objects/{shown['id']}/explanation").json()
        why = answer["explanation"]
        assert f"{round(100 * why['confidence'])}\u00a0%" in decision.inner_text()
        text = terms.inner_text().replace("\u2212", "-")
        for value in (why["similarity"], why["half_similarity"], *why["log_odds"].values()):
            assert f"{abs(value):.2f}" in text, (value, text)
        total = float(re.findall(r"Sum.*?([+-][\d.]+)", text, re.DOTALL)[0])
        assert total == pytest.approx(sum(why["log_odds"].values()), abs=0.006)
        # It stays open for the next object, and after a reload.
        page.page.mouse.move(*page.place(5, 225).values())
        page.click_nut(0)
        decision.filter(has_text="You named this outline").wait_for()
        page.page.reload()
        page.said("5 named")
        page.click_nut(3)
        decision.filter(has_text="sure that it is nut").wait_for()
        # On the way to the panel the pointer crosses other objects: the selected one is explained.
        page.page.mouse.move(*page.place(60, 60).values())
        decision.filter(has_text="You named this outline").wait_for()
        page.page.hover("#decision")
        decision.filter(has_text="sure that it is nut").wait_for()
        gone = client.get("api/pictures/0/objects/nothing/explanation")
        assert (gone.status_code, "load it again" in gone.json()["detail"]) == (404, True)


def test_the_first_steps_are_shown_until_they_are_known(photos: Path) -> None:
    with annotating(photos) as (page, _):
        step = page.page.locator("#start [aria-current=step]")
        assert "Click on an object" in step.inner_text()
        page.click_nut(0)
        assert "Type their name" in step.inner_text()
        page.name("nut")
        page.said("named")
        step.filter(has_text="suggestions").wait_for()
        assert page.page.locator("#legend").inner_text().count("named by you") == 1
        page.page.click("#accept-all")
        page.page.locator("#start").wait_for(state="hidden")
        page.saved()
        page.page.reload()
        page.said("named")
        assert page.page.locator("#start").is_hidden()


def test_what_comes_next_is_easy_to_find(photos: Path) -> None:
    with annotating(photos) as (page, _):
        name, place = page.page.locator("#picture-name"), page.page.locator("#picture-place")
        page.page.click("#unfinished")
        name.filter(has_text="1.png").wait_for()
        assert place.inner_text() == "2 of 2"
        page.said("0 named")
        page.press("Shift+N")
        name.filter(has_text="0.png").wait_for()
        page.said("0 named")
        page.page.click("#finish")
        name.filter(has_text="1.png").wait_for()
        assert place.inner_text() == "2 of 2", "pictures keep their places"
        page.said("0 named")
        page.page.click("#next")
        page.said("last picture")
        page.page.click("#finish")
        page.page.locator("#all-finished").wait_for()
        page.page.click("#export-link")
        page.page.locator("#library-name").wait_for()


def test_unknown_outlines_can_be_hidden(photos: Path) -> None:
    with annotating(photos) as (page, _):
        page.press("h")
        page.click_nut(0)
        assert page.page.locator("#accept").is_disabled(), "what is hidden cannot be selected"
        page.page.reload()
        page.said("0 named")
        assert not page.page.locator("#show-unknown").is_checked()
        page.press("h")
        page.click_nut(0)
        assert page.page.locator("#accept").is_enabled()


def test_the_picture_is_there_before_its_objects(photos: Path) -> None:
    with annotating(photos, refused=(422,)) as (page, _):
        held: list[Any] = []

        def hold(route: Any) -> None:
            held.append(route)

        page.page.route("**/api/pictures/0", hold)
        page.page.reload()
        page.page.locator("#busy").wait_for()
        page.page.locator("#preview").wait_for()
        page.page.wait_for_function("() => document.querySelector('#preview').naturalWidth === 320")
        held[0].continue_()
        page.said("0 named")
        for each in ("#busy", "#preview"):
            page.page.locator(each).wait_for(state="hidden")
        # One that cannot be read says so, and what to do.
        page.page.unroute("**/api/pictures/0")
        kept = (photos / "0.png").read_bytes()
        (photos / "0.png").write_bytes(b"no picture")
        page.page.reload()
        page.seen("#problem", "0.png")
        assert page.page.locator("#busy").is_hidden()
        (photos / "0.png").write_bytes(kept)
        page.page.click("#try-again")
        page.said("0 named")
        assert page.page.locator("#problem").is_hidden()


DRAWN = """async () => {
  const { Shapes, simplified } = await import("./shapes.js");
  const canvas = Object.assign(document.createElement("canvas"), { width: 200, height: 200 });
  const context = canvas.getContext("2d");
  const ring = Array.from({ length: 90 }, (_, k) => [100 + 80 * Math.cos(k * Math.PI / 45), 100 + 80 * Math.sin(k * Math.PI / 45)]);
  const object = { id: "o", label: "cell", confidence: .9, taught: true, bbox_xywh: [20, 20, 160, 160], rings: [ring] };
  const shapes = new Shapes();
  shapes.set([object], 200, 200);
  const colours = { taught: "rgb(0 0 0)", selected: "#f0f", wash: "#f0f8", ground: "#fff", text: "#000" };
  const ink = (x, y) => context.getImageData(x, y, 1, 1).data[3];
  const sizes = [.04, .06, .1, .3, 1].map((scale) => {
    shapes.draw(context, { scale, x: 100 - 100 * scale, y: 100 - 100 * scale, width: 200, height: 200 }, colours);
    const least = Math.min(...ring.map(([x, y]) => {
      const at = [100 + (x - 100) * scale, 100 + (y - 100) * scale].map((v) => Math.floor(v));
      return Math.max(...[-1, 0, 1].flatMap((dx) => [-1, 0, 1].map((dy) => ink(at[0] + dx, at[1] + dy))));
    }));
    return [scale * 160, ink(100, 100), least];
  });
  const wavy = Array.from({ length: 300 }, (_, k) => { const a = k * Math.PI / 150, r = 80 + 9 * Math.sin(11 * a); return [100 + r * Math.cos(a), 100 + r * Math.sin(a)]; });
  const away = (few, [x, y]) => Math.min(...few.map(([ax, ay], i) => {
    const [bx, by] = few[(i + 1) % few.length], [dx, dy] = [bx - ax, by - ay];
    const t = Math.max(0, Math.min(1, ((x - ax) * dx + (y - ay) * dy) / (dx * dx + dy * dy)));
    return Math.hypot(x - ax - t * dx, y - ay - t * dy);
  }));
  const few = simplified(wavy, .5);
  return [sizes, few.length, Math.max(...wavy.map((point) => away(few, point)))];
}"""  # noqa: E501 - a script


def test_outlines_are_outlines_where_they_can_be_seen(photos: Path) -> None:
    with browser() as chromium, serving(photos) as (url, _):
        page = chromium.new_page()
        page.goto(f"{url}library")
        sizes, points, farthest = page.evaluate(DRAWN)
        for side, middle, least in sizes:
            assert least > 60, f"at {side} px, all of the outline is drawn"
            # Only what is smaller than 5 pixels is nothing but a spot.
            assert (middle == 0) == (side >= 5), side
        assert points < 150, "a simple outline has fewer points"
        assert farthest <= 0.5


def test_a_name_without_an_object_says_what_is_missing(photos: Path) -> None:
    with annotating(photos) as (page, client):
        page.page.fill("#label", "nut")
        page.page.press("#label", "Enter")
        page.said("select an object first")
        page.click_nut(0)
        page.page.press("#label", "Enter")
        page.saved()
        assert labels(client) == {"nut": 1}
