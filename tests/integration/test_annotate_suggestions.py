"""Suggestions on the annotation page: of groups, and below the slider."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.page_harness import Page, annotating, labels, objects

pytest.importorskip("fastapi", reason="the extra 'server' is not installed")


def show_groups(page: Page) -> None:
    """Opens the groups, and waits until they are those of both pictures."""
    page.page.click("#show-groups")
    page.page.locator("#groups p").filter(has_text="of 2 pictures").wait_for(timeout=60_000)


def test_a_group_of_background_is_removed_at_once(photos: Path) -> None:
    with annotating(photos) as (page, client):
        show_groups(page)
        before = {each["id"] for number in range(2) for each in objects(client, number)}
        group = client.get("api/groups").json()["groups"][0]["members"]
        first = page.page.locator(".objects-group").first
        first.locator(".members button").first.click()
        first.get_by_role("button", name="No objects").click()
        page.saved()
        assert labels(client) == {}, "nothing is learnt of it"
        there = {each["id"] for number in range(2) for each in objects(client, number)}
        assert {each["object"] for each in group} & there == {group[0]["object"]}
        assert client.post("api/undo", json={}).json()["title"].startswith("delete")
        again = {each["id"] for number in range(2) for each in objects(client, number)}
        assert again == before


def test_a_group_with_a_wrong_name_is_rejected_at_once(photos: Path) -> None:
    with annotating(photos) as (page, client):
        page.click_nut(0)
        page.name("nut")
        show_groups(page)
        suggested = page.page.locator(".objects-group").filter(has_text="Suggested: nut")
        suggested.get_by_role("button", name="Not nut").click()
        page.saved()
        named = [each for number in range(2) for each in objects(client, number) if each["label"]]
        assert [each["taught"] for each in named] == [True], "only the example is a nut"
        assert labels(client) == {"nut": 1}


DASHED = """async () => {
  const { Shapes } = await import("./shapes.js");
  const canvas = Object.assign(document.createElement("canvas"), { width: 200, height: 200 });
  const context = canvas.getContext("2d");
  const square = (id, x, confidence) => ({
    id, label: "cell", confidence, taught: false, bbox_xywh: [x, 60, 80, 80],
    rings: [[[x, 60], [x + 80, 60], [x + 80, 140], [x, 140]]],
  });
  const shapes = new Shapes();
  shapes.set([square("sure", 10, .9), square("less", 110, .6)], 200, 200);
  const colours = { suggested: "rgb(0 0 0)", selected: "#f0f", wash: "#f0f8", ground: "#fff", text: "#000" };
  const view = { scale: 1, x: 0, y: 0, width: 200, height: 200 };
  const lower = (x) => {
    const drawn = [...context.getImageData(x, 140, 80, 1).data].filter((_, k) => k % 4 === 3);
    return drawn.filter((alpha) => alpha > 128).length / drawn.length;
  };
  return [0, .7, .95, .7].map((least) => {
    shapes.setLeast(least);
    shapes.draw(context, view, colours);
    return [lower(10), lower(110)];
  });
}"""  # noqa: E501 - a script


def test_suggestions_below_the_slider_are_dashed(photos: Path) -> None:
    with annotating(photos) as (page, _):
        shares = page.page.evaluate(DASHED)
        dashed = [[share < 0.8 for share in each] for each in shares]
        assert dashed == [[False, False], [False, True], [True, True], [False, True]], shares
        page.click_nut(0)
        page.click_nut(1, "Shift")
        page.name("nut")
        page.said(r"5 named \(2 by you\)")
        for slider, above, below in (("10", 3, 0), ("100", 0, 3)):
            page.page.locator("#threshold").fill(slider)
            for count, text in ((above, "suggested"), (below, "less sure than the slider")):
                page.seen("#legend", f"{count} {text}")
        page.page.select_option("#policy", "diverse")
        page.page.reload()
        page.said(r"5 named \(2 by you\)")
        page.seen("#legend", "3 less sure than the slider")
        assert page.page.input_value("#policy") == "diverse", "the order is kept, too"
