// The keys of the page: what each does, and how a user changes them.

import { kept } from "./dom.js";

const USUAL = {
  next: "n", previous: "p", unfinished: "N", finish: "f", confirm: "Enter", reject: "Alt+r", delete: "Delete",
  name: "l", "accept-all": "A", "select-all": "Ctrl+a", select: "v", points: "c", brush: "b", erase: "e", reshape: "x",
  split: "s", merge: "Alt+m", unknown: "h", groups: "g", fit: "0", "zoom-in": "+", "zoom-out": "-", undo: "Ctrl+z", redo: "Ctrl+Z",
  cancel: "Escape", help: "?",
};
const WORDS = {
  next: "next picture", previous: "previous picture", unfinished: "next unlabelled picture (not finished)", finish: "picture is finished, go to the next",
  confirm: "suggested names of the selection are right; keep what a tool made", reject: "selection is not what its name says", delete: "delete the selection",
  name: "type a name first, then choose its object", "accept-all": "accept all above the slider", "select-all": "select all", select: "tool: select",
  points: "tool: points and boxes", brush: "tool: brush", erase: "tool: eraser", reshape: "tool: vertices", split: "tool: split",
  merge: "merge the selection", unknown: "show or hide unknown outlines", groups: "groups of alike objects", fit: "whole picture", "zoom-in": "zoom in", "zoom-out": "zoom out",
  undo: "undo", redo: "redo", cancel: "cancel, select nothing, close the groups", help: "this help",
};
const KEPT = "keys";

let keys = { ...USUAL, ...kept.get(KEPT, {}) };

function nameOf(event) {
  const parts = [];
  if (event.ctrlKey || event.metaKey) parts.push("Ctrl");
  if (event.altKey) parts.push("Alt");
  // Caps Lock makes no other key of a letter.
  const letter = /^[a-z]$/i.test(event.key) && (event.shiftKey ? event.key.toUpperCase() : event.key.toLowerCase());
  return [...parts, event.key === " " ? "Space" : letter || event.key].join("+");
}

/** Whether a key is part of a composed letter. */
export const composes = (event) => event.isComposing || event.keyCode === 229;

/** Whether a key writes something; AltGr does, too. */
export function writes(event) {
  const modified = (event.ctrlKey || event.metaKey || event.altKey) && !event.getModifierState("AltGraph");
  return !modified && ([...event.key].length === 1 || ["Dead", "Process"].includes(event.key));
}

/** What a key does, or null. Digits choose names: "label 1" to "label 9". With Alt, a key does what it does alone. */
export function actionOf(event) {
  const name = nameOf(event);
  if (/^[1-9]$/.test(name)) return `label ${name}`;
  const of = (key) => Object.keys(USUAL).find((action) => keys[action] === key);
  return of(name) ?? (name === "Ctrl+y" ? "redo" : null) ?? (name.startsWith("Alt+") ? of(name.slice(4)) : null) ?? null;
}

/** The key of an action as it is written on keyboards. */
export function keyOf(action) {
  const other = action === "redo" && keys.redo === USUAL.redo ? " or Ctrl+Y" : "";
  return shown(keys[action]) + other;
}

const shown = (key) => key.replace(/^(Ctrl\+|Alt\+)?([A-Za-z])$/, (_, before = "", letter) => before + (letter < "a" ? "Shift+" : "") + letter.toUpperCase());

/** Fills the table of keys; a row's button takes the next key that is pressed. */
export function showKeys(body, say) {
  const change = (action, key) => {
    const other = Object.keys(keys).find((each) => keys[each] === key && each !== action);
    if (other) keys[other] = keys[action];
    keys[action] = key;
    kept.set(KEPT, keys);
    showKeys(body, say);
    body.querySelector(`[data-key="${action}"]`)?.focus();
    say([action, other].filter(Boolean).map((each) => `${WORDS[each]}: ${keyOf(each)}`).join("; "));
  };
  body.replaceChildren(...Object.keys(USUAL).map((action) => {
    const row = document.createElement("tr");
    const what = Object.assign(document.createElement("th"), { scope: "row", textContent: WORDS[action] });
    const cell = document.createElement("td");
    const button = Object.assign(document.createElement("button"), { type: "button", textContent: keyOf(action) });
    button.dataset.key = action;
    button.setAttribute("aria-label", `${WORDS[action]}: ${keyOf(action)}; change`);
    button.addEventListener("click", () => {
      button.textContent = "press a key";
      button.addEventListener("keydown", (event) => {
        if (["Shift", "Control", "Alt", "Meta", "Tab"].includes(event.key)) return;
        event.preventDefault();
        event.stopPropagation();
        if (/^[1-9]$/.test(nameOf(event))) { showKeys(body, say); say("1 to 9 choose names"); return; }
        change(action, nameOf(event));
      }, { once: false });
    });
    cell.append(button);
    row.append(what, cell);
    return row;
  }));
}

export function resetKeys(body, say) {
  keys = { ...USUAL };
  kept.remove(KEPT);
  showKeys(body, say);
}
