// The library page: labels, their examples, a map, the log, and files. Everything can be undone.

import { asJson } from "./api.js";
import { at, made, say } from "./dom.js";
import { connectFiles } from "./library_files.js";
import { LibraryMap, shapeOf } from "./library_map.js";
import { counted, short } from "./library_words.js";

const API = "api/library";
const PAGE = 100;
const percent = (share) => `${Math.round(100 * share)}\u00a0%`;

const state = {
  generation: null, labels: [], label: null, negative: false, offset: 0, total: 0, examples: [],
  selected: new Set(), focus: 0, anchor: 0, loading: 0,
};

/** Does something; what goes wrong is said, and the page then shows the library as it is. */
async function trying(work) {
  try { await work(); } catch (error) {
    say(error.message);
    if ([404, 409].includes(error.status)) await refresh().catch(() => {});
  }
}

/** Makes a change, says what it did, and shows the library as it is then. */
async function change(path, body, said) {
  const done = await asJson(`${API}/${path}`, body);
  state.selected.clear();
  await refresh(done.target || undefined);
  say(said(done));
}

// -- the library --------------------------------------------------------------------------------

async function refresh(label = state.label, negative = state.negative) {
  const found = await asJson(API);
  const changed = found.generation !== state.generation;
  Object.assign(state, { generation: found.generation, labels: found.labels });
  at("library-name").textContent = found.name;
  at("undo").disabled = !found.undo;
  at("undo").textContent = found.undo ? `Undo ${found.undo.action}` : "Undo";
  at("empty").hidden = found.labels.length > 0;
  at("examples").hidden = found.labels.length === 0;
  const options = found.labels.map((each) => made("option", { value: each.label }));
  at("known-labels").replaceChildren(...options);
  if (!at("format").options.length) at("format").append(...found.formats.map((name) => new Option(name, name)));
  for (const id of ["export-library", "export-annotations"]) at(id).disabled = found.examples === 0;
  const chosen = found.labels.find((each) => each.label === label) ?? found.labels[0];
  if (chosen) await open(chosen.label, negative && chosen.negatives > 0 || chosen.positives === 0, label === state.label ? state.offset : 0);
  else state.label = null;
  showLabels();
  await showLog();
  if (changed || !map.points) map.points = await asJson(`${API}/map`);
  map.draw();
}

function showLabels() {
  const focused = document.activeElement?.dataset?.label;
  at("label-list").replaceChildren(...state.labels.map((each, index) => {
    const count = each.negatives ? `${each.positives}, ${each.negatives} not` : `${each.positives}`;
    const button = made(
      "button", { type: "button", title: each.label },
      made("span", { className: `c${index % 8}`, textContent: shapeOf(index), ariaHidden: "true" }),
      made("span", { className: "name", textContent: each.label }), made("small", { textContent: count }),
    );
    button.dataset.label = each.label;
    button.setAttribute("aria-current", String(each.label === state.label));
    button.addEventListener("click", () => trying(async () => {
      state.selected.clear();
      await open(each.label, each.positives === 0);
      showLabels();
      map.draw();
    }));
    return made("li", {}, button);
  }));
  if (focused !== undefined) at("label-list").querySelector("[aria-current=true]")?.focus();
}

// -- the examples of a label --------------------------------------------------------------------

async function open(label, negative = false, offset = 0) {
  const query = new URLSearchParams({ label, negative, order: at("order").value, offset, limit: PAGE });
  const turn = ++state.loading;
  const page = await asJson(`${API}/examples?${query}`);
  if (turn === state.loading) show(page);
}

function show(page) {
  if (page.offset > 0 && page.examples.length === 0) return open(page.label, page.negative, 0);
  if (page.label !== state.label || page.negative !== state.negative) state.selected.clear();
  if (page.label !== state.label) at("new-label").value = ""; // it was typed for the other label
  const { label, negative, offset, total, examples } = page;
  Object.assign(state, { label, negative, offset, total, examples, focus: 0, anchor: 0 });
  const counts = state.labels.find((each) => each.label === label) ?? { positives: 0, negatives: 0 };
  at("label-name").textContent = at("label-name").title = label;
  at("show-positives").textContent = `Examples (${counts.positives})`;
  at("show-negatives").textContent = `Negatives (${counts.negatives})`;
  at("show-positives").setAttribute("aria-pressed", String(!negative));
  at("show-negatives").setAttribute("aria-pressed", String(negative));
  at("grid").setAttribute("aria-label", negative ? `What is not ${label}` : `Examples of ${label}`);
  const had = at("grid").contains(document.activeElement);
  at("grid").replaceChildren(...examples.map(tile));
  if (had) at("grid").children[0]?.focus();
  at("pages").hidden = total <= PAGE;
  at("page-range").textContent = `${offset + 1} to ${offset + examples.length} of ${total}`;
  at("previous-page").disabled = offset === 0;
  at("next-page").disabled = offset + examples.length >= total;
  showSelection();
  renaming();
}

function tile(example, index) {
  const [words, kind] = saidOf(example);
  const image = made("img", { src: example.thumbnail, alt: "" });
  const said = made("span", { className: kind, textContent: words });
  const source = made("span", { className: "source", textContent: example.source });
  const option = made("div", { title: `${example.source}, learnt ${new Date(example.added).toLocaleString()}` }, image, said, source);
  option.setAttribute("role", "option");
  option.setAttribute("aria-label", `${example.negative ? "not " : ""}${example.label}, ${words}, ${example.source}`);
  option.dataset.id = example.id;
  option.addEventListener("click", (event) => {
    if (event.shiftKey) range(index); else toggle(index);
    move(index, true);
  });
  return option;
}

/** What the other examples say of one, in words, and whether it is doubtful. */
function saidOf(example) {
  const others = example.others;
  if (!others) return ["not compared", ""];
  const sure = percent(others.confidence);
  if (example.negative) {
    if (others.best_label !== example.label) return ["the others agree", "sure"];
    return [`looks like ${short(example.label)}, ${sure}`, others.doubt >= 0.5 ? "doubtful" : ""];
  }
  if (others.best_label !== example.label) {
    return [others.best_label ? `looks like ${short(others.best_label)}, ${sure}` : "nothing is like it", "doubtful"];
  }
  return others.label ? [`confirmed, ${sure}`, "sure"] : [`unlike the others, ${sure}`, "doubtful"];
}

function toggle(index) {
  const id = state.examples[index].id;
  if (!state.selected.delete(id)) state.selected.add(id);
  state.anchor = index;
  showSelection();
}

function range(index) {
  const [first, last] = [Math.min(index, state.anchor), Math.max(index, state.anchor)];
  for (const each of state.examples.slice(first, last + 1)) state.selected.add(each.id);
  showSelection();
}

function showSelection() {
  for (const [index, option] of [...at("grid").children].entries()) {
    option.setAttribute("aria-selected", String(state.selected.has(option.dataset.id)));
    option.tabIndex = index === state.focus ? 0 : -1;
  }
  const count = state.selected.size;
  at("selected-count").textContent = `${count} selected`;
  at("move").disabled = at("remove").disabled = count === 0;
  map.draw();
}

/** Moves the keyboard to an example. */
function move(index, focus) {
  const options = at("grid").children;
  state.focus = Math.max(0, Math.min(index, options.length - 1));
  for (const [place, option] of [...options].entries()) option.tabIndex = place === state.focus ? 0 : -1;
  if (focus) options[state.focus]?.focus();
}

function columns() {
  const options = [...at("grid").children];
  const first = options.findIndex((each) => each.offsetTop > options[0].offsetTop);
  return first < 0 ? options.length : first;
}

at("grid").addEventListener("keydown", (event) => {
  const steps = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns(), ArrowUp: -columns() };
  if (event.key in steps || event.key === "Home" || event.key === "End") {
    const target = event.key === "Home" ? 0 : event.key === "End" ? state.examples.length - 1 : state.focus + steps[event.key];
    if (target < 0 || target >= state.examples.length) { event.preventDefault(); return; }
    move(target, true);
    if (event.shiftKey) range(target);
  } else if (event.key === " " || event.key === "Enter") {
    if (event.shiftKey) range(state.focus); else toggle(state.focus);
  } else if (event.key.toLowerCase() === "a" && (event.ctrlKey || event.metaKey)) selectAll();
  else return;
  event.preventDefault();
});

function selectAll() {
  for (const each of state.examples) state.selected.add(each.id);
  showSelection();
}

// -- changes ------------------------------------------------------------------------------------

const dropped = (done) => (done.dropped ? `; ${counted(done.dropped)} that said it is not ${short(done.target)} removed` : "");

/** Whether the name that is typed is another label, which this one would be merged into. */
function merges() {
  const typed = at("new-label").value.trim();
  return typed !== state.label && state.labels.some((each) => each.label === typed);
}

function renaming() { at("rename").textContent = merges() ? "Merge" : "Rename"; }

at("new-label").addEventListener("input", renaming);
at("label-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const name = at("new-label").value, old = state.label;
  const [path, body] = merges() ? ["merge", { labels: [old], into: name }] : ["rename", { label: old, new: name }];
  trying(async () => {
    await change(path, body, (done) => `${counted(done.examples)} of ${short(old)} now ${done.examples === 1 ? "has" : "have"} the label ${short(done.target)}${dropped(done)}`);
    at("new-label").value = "";
    renaming();
  });
});
at("remove-label").addEventListener("click", () => trying(() => change("remove-label", { label: state.label }, (done) => `removed ${done.labels.map(short).join(", ")}: ${counted(done.examples)}`)));
at("selected-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const [shown, ids] = [state.label, [...state.selected]];
  trying(async () => {
    const done = await asJson(`${API}/move`, { ids, label: at("move-label").value, shown });
    state.selected.clear();
    at("move-label").value = "";
    await refresh();
    say(`moved ${counted(done.examples)} from ${short(shown)} to ${short(done.target)}${dropped(done)}`);
  });
});
at("remove").addEventListener("click", () => trying(() => change("remove", { ids: [...state.selected], shown: state.label }, (done) => `removed ${counted(done.examples)}`)));
at("select-all").addEventListener("click", selectAll);
at("select-none").addEventListener("click", () => { state.selected.clear(); showSelection(); });
at("undo").addEventListener("click", () => trying(() => undo({})));

async function undo(body) {
  const done = await asJson(`${API}/undo`, body);
  state.selected.clear();
  await refresh(done.change.labels[0]);
  const kept = done.kept ? `; ${counted(done.kept)} were changed by others meanwhile and stay as they are` : "";
  say(`undid ${textOf(done.change)}${kept}`);
}

// -- the log ------------------------------------------------------------------------------------

function textOf(entry) {
  const names = entry.labels.map(short).join(", ");
  if (entry.action === "undo batch") return `undo of a learning batch (${counted(entry.examples)}: ${names})`;
  if (entry.action === "remove") return `remove ${counted(entry.examples)} of ${names}`;
  return `${entry.action} ${counted(entry.examples)} of ${names} to ${short(entry.target)}`;
}

function learntOf(entry) {
  const parts = Object.entries(entry.labels).map(([label, count]) => `${short(label)} (${count})`);
  parts.push(...Object.entries(entry.negatives).map(([label, count]) => `not ${short(label)} (${count})`));
  return `learnt ${parts.join(", ")}`;
}

async function showLog() {
  const { entries } = await asJson(`${API}/log`);
  at("log").replaceChildren(...entries.map((entry) => {
    const text = entry.type === "batch" ? learntOf(entry) : textOf(entry);
    const time = entry.time ? made("time", { dateTime: entry.time, textContent: new Date(entry.time).toLocaleString() }) : "";
    const item = made("li", {}, made("span", {}, text, time));
    if (entry.type === "change" || entry.batch) {
      const button = made("button", { type: "button", textContent: entry.type === "batch" ? "Undo batch" : "Undo" });
      button.setAttribute("aria-label", `${button.textContent}: ${text}`);
      button.addEventListener("click", () => trying(() => (entry.type === "batch"
        ? change("undo-batch", { batch: entry.batch }, (done) => `took back the batch: ${counted(done.examples)}`)
        : undo({ change: entry.id }))));
      item.append(button);
    }
    return item;
  }));
}

// -- the map ------------------------------------------------------------------------------------

/** Shows an example among those of its label, and selects it. */
async function choose(id) {
  show(await asJson(`${API}/examples/${encodeURIComponent(id)}/page?order=${at("order").value}`));
  state.selected.add(id);
  showLabels();
  showSelection();
  const place = state.examples.findIndex((each) => each.id === id);
  move(place, false);
  at("grid").children[place]?.scrollIntoView({ block: "nearest" });
  say(`selected an example of ${short(state.label)}`);
}

const map = new LibraryMap({
  labels: () => state.labels.map((each) => each.label),
  shown: () => state.label,
  selected: () => state.selected,
  choose: (id) => trying(() => choose(id)),
});

// -- the page -----------------------------------------------------------------------------------

for (const [id, negative] of [["show-positives", false], ["show-negatives", true]]) {
  at(id).addEventListener("click", () => trying(() => open(state.label, negative)));
}
at("order").addEventListener("change", () => trying(() => open(state.label, state.negative)));
at("previous-page").addEventListener("click", () => trying(() => open(state.label, state.negative, Math.max(0, state.offset - PAGE))));
at("next-page").addEventListener("click", () => trying(() => open(state.label, state.negative, state.offset + PAGE)));
// The library may have been changed elsewhere while this page was not looked at.
window.addEventListener("focus", () => trying(async () => {
  if (state.generation !== null && (await asJson(API)).generation !== state.generation) await refresh();
}));
at("to-pictures").href = `./${location.hash}`;
connectFiles({ trying, refresh });
trying(refresh);
