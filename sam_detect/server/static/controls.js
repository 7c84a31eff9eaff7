// Connects the buttons, fields and keys of the page with what they do.

import { at, made, say, trying } from "./dom.js";
import { actionOf, composes, keyOf, resetKeys, writes } from "./keys.js";

const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

/** @param page what the controls do; page.js makes it. */
export function connect(page) {
  for (const button of document.querySelectorAll("[data-action]")) button.addEventListener("click", () => page.act(button.dataset.action));
  for (const button of document.querySelectorAll("[data-tool]")) button.addEventListener("click", () => page.chooseTool(button.dataset.tool));
  connectForms(page);
  connectPicture(page);
  document.addEventListener("keydown", (event) => pressed(event, page));
  document.addEventListener("paste", (event) => pasted(event, page));
  showShortcuts();
}

function connectForms({ tools, ...page }) {
  const submits = { naming: page.named, accepting: page.accepted, "tool-options": page.keep };
  for (const [id, work] of Object.entries(submits)) {
    at(id).addEventListener("submit", (event) => { event.preventDefault(); trying(work); });
  }
  const on = (id, type, work) => at(id).addEventListener(type, () => trying(work));
  on("label", "input", page.showKeep);
  on("label", "change", page.showKeep);
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
    page.names.mouse = false;
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

const TYPED = "input:not([type=range], [type=checkbox]), select, textarea";

/**
 * The keys of the page. While something is selected, what is typed is its name, wherever the focus is; as the
 * first key, 1 to 9, Enter and Delete act on what is selected. Letters are keys of the page while nothing is.
 */
function pressed(event, page) {
  if (at("help").open || event.defaultPrevented) return;
  const { target, key } = event;
  const field = at("label");
  if (composes(event)) {
    if (at("groups").hidden && page.naming() && !target.matches(TYPED)) field.focus();
    return;
  }
  const action = actionOf(event);
  const act = (what) => { event.preventDefault(); page.act(what); };
  if (!at("groups").hidden) { pressedInGroups(event, action, act); return; }
  if (target === field && key === "Enter") {
    event.preventDefault();
    if (page.naming() && !page.names.typed) page.act("confirm"); else trying(page.named);
  } else if (target === field && key === "Escape" && !(page.naming() && page.names.fresh)) {
    page.names.clear();
    at("shapes").focus();
  } else if (target === field && (!page.naming() || !page.names.fresh)) {
    if (page.naming() && event.altKey && action && !writes(event)) act(action);
  } else if (target !== field && target.matches(TYPED)) {
    if (key === "Escape") target.blur();
  } else if (target.matches("button, a, input:not(#label), summary") && ["Enter", " "].includes(key)) {
    // A focused button is pressed by these.
  } else if (page.naming() && writes(event)) {
    if (page.names.fresh && action?.startsWith("label ") && page.names.ofKey(key)) act(action);
    else field.focus(); // and the letter is written there
  } else if (action && !(event.repeat && action === "delete")) act(action);
}

/** In the groups, what is typed is the name of the group that has the focus. */
function pressedInGroups(event, action, act) {
  const { target, key } = event;
  if (target.matches(TYPED)) {
    if (key === "Escape") target.blur();
    return;
  }
  const field = target.closest(".objects-group")?.querySelector("input");
  if (field && writes(event)) {
    if (key !== " ") field.focus();
  } else if (action === "cancel") act("groups");
  else if (["groups", "help", "undo", "redo"].includes(action)) act(action);
}

/** What is pasted while something is selected is its name, too. */
function pasted(event, page) {
  if (!page.naming() || event.target.matches?.(TYPED) || !at("groups").hidden || at("help").open) return;
  event.preventDefault();
  at("label").focus();
  document.execCommand("insertText", false, event.clipboardData.getData("text/plain").replace(/\s+/g, " "));
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
    button.setAttribute("aria-keyshortcuts", key.replaceAll("Ctrl", "Control").replace(" or ", " "));
    if (button.matches("#undo, #redo")) continue; // these say what they would do
    button.dataset.about ??= button.title;
    button.title = [button.dataset.about, `key: ${key}`].filter(Boolean).join(", ");
    if (button.matches("[aria-label]") || !button.matches("#tools *, #accept-all")) continue;
    button.querySelector("kbd")?.remove();
    button.append(made("kbd", { textContent: shortOf(key), ariaHidden: "true" }));
  }
}

const shortOf = (key) => ({ Delete: "Del", Escape: "Esc" })[key] ?? key;
