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


def test_groups_stay_in_their_places_while_the_pointer_is_on_them(photos: Path) -> None:
    with annotating(photos) as (page, client):
        show_groups(page)
        shown = page.page.locator(".objects-group")
        page.page.evaluate("document.querySelector('.objects-group').dataset.mine = 'yes'")
        newer = page.page.locator("#newer-groups")
        assert newer.is_disabled()
        shown.first.locator(".members button").first.hover()
        objects_ = [each["id"] for each in objects(client)][:2]
        decisions = [{"object": each, "label": "nut"} for each in objects_]
        client.post("api/pictures/0/decisions", json={"decisions": decisions})
        page.page.locator("#newer-groups:enabled").wait_for(timeout=60_000)
        assert shown.first.get_attribute("data-mine") == "yes"
        newer.click()
        page.page.wait_for_function("() => !document.querySelector('[data-mine]')")
        assert newer.is_disabled()


NAMES = """async ([count, side, width, height]) => {
  const { placed } = await import("./tags.js");
  const { Shapes } = await import("./shapes.js");
  let state = 7;
  const random = () => (state = (state * 16807) % 2147483647) / 2147483647;
  const objects = Array.from({ length: count }, (_, id) => {
    const [x, y] = [random() * (width - side), random() * (height - side)];
    const ring = [[x, y], [x + side, y], [x + side, y + side], [x, y + side]];
    return { id, label: ["fig", "Haselnuss", "Sultanine ohne Kern"][id % 3], confidence: random(), taught: id % 4 === 0, bbox_xywh: [x, y, side, side], rings: [ring] };
  });
  const names = objects.map(({ bbox_xywh: box }, id) => ({ box, wide: [50, 100, 150][id % 3] }));
  const found = placed(names, 17, width, height);
  const boxes = found.filter(Boolean).map(({ box }) => box);
  const meet = boxes.some(([x, y, w, h], i) => boxes.some(([a, b, c, d], j) => i < j && x < a + c && a < x + w && y < b + d && b < y + h));
  const inside = boxes.every(([x, y, w, h]) => x >= 0 && y >= 0 && x + w <= width && y + h <= height);
  const far = found.filter((each, i) => each && !each.line && Math.hypot(
    Math.max(0, each.box[0] - names[i].box[0] - side, names[i].box[0] - each.box[0] - each.box[2]),
    Math.max(0, each.box[1] - names[i].box[1] - side, names[i].box[1] - each.box[1] - each.box[3])) > 5).length;
  const shapes = new Shapes();
  shapes.set(objects, width, height);
  const context = Object.assign(document.createElement("canvas"), { width, height }).getContext("2d");
  const colours = { of: (label) => ({ fig: "#ff0000" }[label] ?? "#0000ff"), unnamed: "#ffff00", selected: "#f0f", wash: "#f0f8" };
  shapes.draw(context, { scale: 1, x: 0, y: 0, width, height }, colours);
  const inks = new Set();
  const { data } = context.getImageData(0, 0, width, height);
  for (let at = 0; at < data.length; at += 4) if (data[at + 3] === 255) inks.add(data.slice(at, at + 3).join());
  return { written: boxes.length, meet, inside, far, named: shapes.named.size, coloured: inks.has("255,0,0") && inks.has("0,0,255") };
}"""  # noqa: E501 - a script


def test_all_names_of_a_dense_picture_are_written_and_none_over_another(photos: Path) -> None:
    with annotating(photos) as (page, _):
        for count, side in ((26, 12), (26, 60), (60, 20), (90, 8), (90, 90)):
            found = page.page.evaluate(NAMES, [count, side, 820, 620])
            assert found.pop("named") == count or count > 60, "... as long as they leave it seen"
            whole = {"meet": False, "inside": True, "far": 0, "coloured": True}
            assert found == {"written": count, **whole}, (count, side)


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
  const colours = { suggested: "rgb(0 0 0)", unnamed: "#000", selected: "#f0f", wash: "#f0f8", ground: "#fff", text: "#000" };
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
