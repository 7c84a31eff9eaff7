// Connects the buttons, fields and keys of the page with what they do.

import { at, made, say, trying } from "./dom.js";
import { actionOf, keyOf, resetKeys } from "./keys.js";

const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

/** @param page what the controls do; page.js makes it. */
export function connect(page) {
  for (const button of document.querySelectorAll("[data-action]")) button.addEventListener("click", () => page.act(button.dataset.action));
  for (const button of document.querySelectorAll("[data-tool]")) button.addEventListener("click", () => page.chooseTool(button.dataset.tool));
  connectForms(page);
  connectPicture(page);
  document.addEventListener("keydown", (event) => pressed(event, page));
  showShortcuts();
}

function connectForms({ tools, ...page }) {
  const submits = { naming: page.named, accepting: page.accepted, "tool-options": () => tools.keep() };
  for (const [id, work] of Object.entries(submits)) {
    at(id).addEventListener("submit", (event) => { event.preventDefault(); trying(work); });
  }
  const on = (id, type, work) => at(id).addEventListener(type, () => trying(work));
  on("label", "input", page.showKeep);
  at("label").addEventListener("keydown", (event) => {
    // With a button that is disabled, Enter would do nothing.
    if (event.key === "Enter" && at("accept").disabled) { event.preventDefault(); trying(page.named); }
  });
  on("threshold", "input", page.counts);
  on("radius", "input", () => { tools.radius = Number(at("radius").value); at("radius-text").textContent = at("radius").value; });
  on("detail", "input", () => {
    at("detail-text").textContent = `${at("detail").value} %`;
    return tools.loadRings(at("detail").value / 100);
  });
  on("finished", "change", () => page.finish(at("finished").checked));
  on("show-unknown", "change", page.shown);
  on("policy", "change", page.ordered);
  on("try-again", "click", page.again);
  on("close-finished", "click", () => { at("all-finished").hidden = true; at("shapes").focus(); });
  on("close-help", "click", () => at("help").close());
  on("reset-keys", "click", () => resetKeys(at("keys"), say));
  at("help").addEventListener("close", showShortcuts);
}

/** The keyboard in the picture: from object to object. */
function connectPicture({ viewer, ...page }) {
  at("shapes").addEventListener("keydown", (event) => {
    const from = viewer.shapes.byId.get(viewer.marks.hovered);
    if (ARROWS[event.key]) {
      const object = viewer.shapes.next(from, ...ARROWS[event.key]);
      if (object) {
        page.hover(object);
        viewer.reveal(object);
        page.pointed(object);
      }
    } else if (event.key === " " && from) page.toggle(from, event.shiftKey || viewer.marks.selected.has(from.id));
    else return;
    event.preventDefault();
    event.stopPropagation();
  });
}

function pressed(event, page) {
  if (at("help").open || event.defaultPrevented) return;
  const { target } = event;
  const typing = target.matches("input:not([type=range], [type=checkbox]), select, textarea");
  if (typing) {
    if (event.key === "Escape") target.blur();
    return;
  }
  // A focused button is pressed by these.
  if (target.matches("button, a, input, summary") && ["Enter", " "].includes(event.key)) return;
  const action = actionOf(event);
  if (!action) return;
  event.preventDefault();
  page.act(action);
}

/** What the buttons for undo and redo would do; null: nothing. */
export function showUndo({ undo, redo }) {
  for (const [id, title] of [["undo", undo], ["redo", redo]]) {
    at(id).disabled = !title;
    at(id).title = title ? `${id === "undo" ? "takes back" : "does again"}: ${title}` : "";
  }
}

/** The key of each button: in the tools on it, else in what is said of it. */
function showShortcuts() {
  for (const button of document.querySelectorAll("[data-action], [data-tool], #accept-all")) {
    const key = keyOf(button.dataset.action ?? button.dataset.tool ?? button.id);
    button.setAttribute("aria-keyshortcuts", key.replace("Ctrl", "Control"));
    if (button.matches("#undo, #redo")) continue; // these say what they would do
    button.dataset.about ??= button.title;
    button.title = [button.dataset.about, `key: ${key}`].filter(Boolean).join(", ");
    if (button.matches("[aria-label]") || !button.matches("#tools *, #accept-all")) continue;
    button.querySelector("kbd")?.remove();
    button.append(made("kbd", { textContent: shortOf(key), ariaHidden: "true" }));
  }
}

function shortOf(key) {
  if (/^[A-Z]$/.test(key)) return `Shift ${key}`;
  return { Delete: "Del", Escape: "Esc" }[key] ?? key;
}
