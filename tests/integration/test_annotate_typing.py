"""Names that are typed on the annotation page: letters, composed ones, digits, what is pasted. None
of them is a key of the page while something is selected."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.integration.page_harness import NUTS, Page, annotating, labels, objects, taught

pytest.importorskip("fastapi", reason="the extra 'server' is not installed")

NAMES = ("2-Euro", "Dattel", "fig", "Mutter", "Xanthium NPC", "sesam-öl 0+2", "größe Ærø", "?")
"""The letters of these are keys of tools, or finish a picture, merge, reject, and delete."""


def untouched(page: Page, count: int) -> None:
    """The page shows the first picture, all of its objects, and no other tool."""
    assert page.page.locator("#picture-name").inner_text() == "0.png"
    assert (
        page.page.locator("[data-tool][aria-pressed=true]").get_attribute("data-tool") == "select"
    )
    assert page.page.locator("#groups").is_hidden()
    assert not page.page.locator("#finished").is_checked()
    named = int(page.page.locator("#status").inner_text().split()[0])
    unknown = int(page.page.locator("#unknown-count").inner_text().split()[1])
    assert named + unknown == count


def typed(page: Page) -> str:
    """What is in the field for a name."""
    return str(page.page.input_value("#label"))


def test_what_is_typed_while_objects_are_selected_is_their_name(photos: Path) -> None:
    with annotating(photos) as (page, client):
        count = len(objects(client))
        for name in NAMES:
            page.click_nut(0)
            page.click_nut(1, "Shift")
            assert typed(page) == "", "the name of the last object is not in the field"
            page.page.keyboard.type(name)
            assert typed(page) == name
            untouched(page, count)
            page.page.keyboard.press("Enter")
            page.saved()
            assert {*taught(client).values()} == {name}
            untouched(page, count)
        # The first key may be that of a known name. In a field that was clicked on it is a digit.
        known = page.page.locator("#label-keys li").filter(has_text=NAMES[-1])
        page.click_nut(3)
        page.page.keyboard.press(known.locator("kbd").inner_text())
        page.saved()
        assert labels(client) == {NAMES[-1]: 3}
        page.click_nut(4)
        page.page.click("#label")
        page.page.keyboard.type("1 Cent")
        page.page.keyboard.press("Enter")
        page.saved()
        assert labels(client) == {NAMES[-1]: 3, "1 Cent": 1}
        # What was typed and not given goes with its object, and the page says so.
        page.click_nut(3)
        page.page.keyboard.type("Dat")
        page.click_nut(0)
        assert typed(page) == ""
        page.seen("#status", "“Dat” was given to nothing")
        # ... but not where others are added.
        page.page.keyboard.type("Dat")
        page.click_nut(1, "Shift")
        page.page.keyboard.type("tel")
        page.page.keyboard.press("Enter")
        page.saved()
        assert labels(client) == {NAMES[-1]: 1, "1 Cent": 1, "Dattel": 2}
        # With nothing selected, letters are keys of the page.
        page.page.keyboard.press("b")
        page.page.locator("[data-tool=brush][aria-pressed=true]").wait_for()


def test_composed_letters_and_what_is_pasted(photos: Path) -> None:
    with annotating(photos) as (page, client):
        count = len(objects(client))
        browser: Any = page.page.context.new_cdp_session(page.page)
        page.click_nut(0)
        browser.send(
            "Input.imeSetComposition", {"text": "なつ", "selectionStart": 2, "selectionEnd": 2}
        )
        # Enter and Escape end or cancel the composition, and nothing else.
        for key in ("Enter", "Escape"):
            event = {"key": key, "windowsVirtualKeyCode": 229}
            browser.send("Input.dispatchKeyEvent", {"type": "rawKeyDown", **event})
            browser.send("Input.dispatchKeyEvent", {"type": "keyUp", **event})
        assert labels(client) == {}
        browser.send("Input.insertText", {"text": "棗"})
        page.page.keyboard.type("1f")
        assert typed(page) == "棗1f"
        untouched(page, count)
        page.page.keyboard.press("Enter")
        page.saved()
        assert labels(client) == {"棗1f": 1}
        # By keyboard alone: the focus stays in the picture until something is typed, or pasted.
        page.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
        page.page.evaluate("navigator.clipboard.writeText('merge\\nfig')")
        for keys, expected in ((("ü",), "ü"), (("d", "e"), "de"), (("Control+v",), "merge fig")):
            page.page.locator("#shapes").focus()
            page.page.keyboard.press("ArrowRight")
            page.page.keyboard.press("Space")
            page.page.locator("#spoken").filter(has_text=", selected").wait_for()
            assert page.page.evaluate("document.activeElement.id") == "shapes"
            for key in keys:
                if key == "ü":  # a key that Playwright does not know
                    event = {"key": key, "code": "BracketLeft", "text": key}
                    browser.send("Input.dispatchKeyEvent", {"type": "keyDown", **event})
                else:
                    page.page.keyboard.press(key)
            page.page.wait_for_function("text => label.value === text", arg=expected)
            untouched(page, count)
            # The first Esc empties the field, the next one selects nothing.
            page.page.keyboard.press("Escape")
            assert typed(page) == ""
            page.seen("#selected-count", "1 object")
            page.page.keyboard.press("Escape")
            page.seen("#selected-count", "what is selected")


def test_names_keep_their_keys_and_colours(photos: Path) -> None:
    with annotating(photos) as (page, client):
        keys = page.page.locator("#label-keys li")

        def shown() -> list[tuple[str, str]]:
            """The key and name, and the colour, of each name; at once, as the list is redrawn."""
            page.saved()
            found = page.page.evaluate("""
                () => [...document.querySelectorAll("#label-keys li")].map((item) => [
                    [...item.querySelectorAll("kbd, .name")].map((e) => e.innerText).join(" "),
                    getComputedStyle(item.querySelector(".colour")).backgroundColor,
                ])""")
            return [(text, colour) for text, colour in found]

        for number, name in enumerate(("nut", "date", "fig")):
            page.click_nut(number)
            page.page.keyboard.type(name)
            page.page.keyboard.press("Enter")
            keys.filter(has_text=name).wait_for()
        before = shown()
        assert [text for text, _ in before] == ["1 nut", "2 date", "3 fig"]
        assert len({colour for _, colour in before}) == 3
        # Others have more examples now, also after a reload.
        for number in (3, 4):
            page.click_nut(number)
            page.press("2")
            page.saved()
        assert labels(client) == {"nut": 1, "date": 3, "fig": 1}
        page.seen("#label-keys", "(3)")
        assert shown() == before
        page.page.reload()
        page.said("by you")
        assert shown() == before
        # The key of a name that is gone is given to the next new one, no other one moves.
        page.click_nut(0)
        page.page.keyboard.type("fig")
        page.page.keyboard.press("Enter")
        page.saved()
        page.seen("#label-keys", "(2)")
        page.click_nut(0)
        page.page.keyboard.type("cone")
        page.page.keyboard.press("Enter")
        keys.filter(has_text="cone").wait_for()
        assert [text for text, _ in shown()] == ["1 cone", "2 date", "3 fig"]


def test_keys_with_a_modifier_enter_delete_and_undo(photos: Path) -> None:
    with annotating(photos) as (page, _):
        page.click_nut(0)
        page.click_nut(1, "Shift")
        page.page.keyboard.type("nut")
        page.page.keyboard.press("Enter")
        page.said(r"5 named \(2 by you\)")
        page.saved()
        page.click_nut(2)
        page.page.keyboard.press("Enter")  # the suggested name is right
        page.said(r"\(3 by you\)")
        page.click_nut(3)
        page.page.keyboard.press("Alt+r")
        page.said("4 named")
        page.saved()
        page.click_nut(4)
        page.page.keyboard.press("Alt+e")
        page.page.locator("[data-tool=erase][aria-pressed=true]").wait_for()
        page.page.keyboard.press("Escape")
        page.page.locator("[data-tool=select][aria-pressed=true]").wait_for()
        page.seen("#selected-count", "1 object")
        # Undo and redo are those of the page while nothing is typed, then those of the text.
        page.page.keyboard.press("Control+z")
        page.said("undone: not nut")
        page.page.keyboard.press("Control+y")
        page.said("redone: not nut")
        page.page.keyboard.press("Control+z")
        page.said("undone: not nut")
        page.page.keyboard.press("Control+Shift+Z")
        page.said("redone: not nut")
        page.click_nut(4)
        page.page.keyboard.type("cone")
        page.page.keyboard.press("Control+z")
        page.page.keyboard.press("Control+a")
        page.page.keyboard.press("Delete")
        page.page.keyboard.press("Delete")
        page.seen("#selected-count", "1 object")
        page.page.keyboard.press("Escape")
        page.page.keyboard.press("Delete")
        page.said("3 named")
        page.saved()
        # Caps Lock changes no key: this is "n", not Shift+N.
        page.page.evaluate(
            "document.body.dispatchEvent(new KeyboardEvent('keydown', {key: 'N', bubbles: true}))"
        )
        page.seen("#picture-name", "1.png")


def test_a_name_that_is_typed_before_the_outline_is_there(photos: Path) -> None:
    with annotating(photos) as (page, client):
        held: list[Any] = []

        def hold(route: Any) -> None:
            held.append(route)

        page.page.route("**/outlines", hold)
        page.click_nut(0, "Control")
        page.page.keyboard.type("fig")
        page.page.keyboard.press("Enter")
        page.page.wait_for_timeout(200)
        assert labels(client) == {}
        held[0].continue_()
        page.seen("#label-keys", "fig")
        page.saved()
        [box] = [each["bbox_xywh"] for each in objects(client) if each["taught"]]
        x, y = NUTS[0]
        assert abs(box[0] + box[2] / 2 - x) < 4
        assert abs(box[1] + box[3] / 2 - y) < 4
        assert page.page.locator("#picture-name").inner_text() == "0.png"


def test_in_groups_letters_name_the_group_and_no_key_acts_on_the_picture_below(
    photos: Path,
) -> None:
    with annotating(photos) as (page, client):
        count = len(objects(client))
        page.click_nut(0)
        page.page.click("#show-groups")
        page.page.locator("#groups p").filter(has_text="of 2 pictures").wait_for(timeout=60_000)
        group = page.page.locator(".objects-group").first
        group.locator(".members button").first.click()
        page.page.keyboard.type("Mutter")
        assert group.locator("input").input_value() == "Mutter"
        page.page.keyboard.press("Escape")
        for key in ("Delete", "f", "n", "e", "Enter", "1", "Alt+m", "Alt+r"):
            page.page.keyboard.press(key)
        page.page.wait_for_timeout(300)
        assert len(objects(client)) == count
        assert labels(client) == {}
        page.page.keyboard.press("Escape")
        page.page.locator("#groups").wait_for(state="hidden")
        page.said("0 named")
        untouched(page, count)
