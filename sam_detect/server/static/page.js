// The annotation page: shows a picture with its objects, and sends what the user decides.

import { Refused, asJson, asUrl, token } from "./api.js";
import { showGroups } from "./groups.js";
import { actionOf, keyOf, resetKeys, showKeys } from "./keys.js";
import { Tools } from "./tools.js";
import { Viewer } from "./viewer.js";

const POLL_MS = 1500;
const RETRY_MS = [500, 1000, 2000, 5000, 10000];
const at = (id) => document.getElementById(id);
const state = { pictures: [], order: [], picture: null, open: null, labels: [], survey: -1, outbox: [], sending: false };

const say = (text) => { at("status").textContent = text; };
const speak = (text) => { at("spoken").textContent = text; };

async function trying(work) {
  try { return await work(); } catch (error) {
    if (error.name !== "AbortError") say(error.message);
    return undefined;
  }
}

// -- the picture -------------------------------------------------------------------------------

const viewer = new Viewer(at("viewer"), at("shapes"), {
  press: (point, event) => {
    if (tools.name === "select" && event.shiftKey) { state.box = [point, point]; return true; }
    return tools.press(point, event);
  },
  drag: (point) => {
    if (state.box) { state.box[1] = point; viewer.redraw(); } else tools.drag(point);
  },
  release: () => {
    if (!state.box) { trying(() => tools.release()); return; }
    const [[x0, y0], [x1, y1]] = state.box;
    state.box = null;
    const found = viewer.shapes.inside(Math.min(x0, x1), Math.min(y0, y1), Math.max(x0, x1), Math.max(y0, y1));
    select([...viewer.marks.selected, ...found.map((object) => object.id)]);
  },
  click: async (point, event) => {
    at("shapes").focus({ preventScroll: true });
    if (await trying(() => tools.click(point, event))) return;
    if (tools.name === "points") return;
    if (tools.name === "select" && (event.ctrlKey || event.metaKey)) { await trying(() => outlineAt(point)); return; }
    const object = viewer.shapes.hit(viewer.context, ...point);
    toggle(object, event.shiftKey);
  },
  hover: (point) => hover(viewer.shapes.hit(viewer.context, ...point)),
});

const tools = new Tools({
  selected: () => [...viewer.marks.selected],
  label: () => at("label").value.trim() || undefined,
  redraw: () => viewer.redraw(),
  scale: () => (viewer.ready() ? viewer.view().scale / devicePixelRatio : 1),
  say,
  send: async (edit, kept = []) => {
    const answer = await send(`api/pictures/${state.picture}/outlines`, { ...edit, keep: true }, { select: true });
    if (kept.length && answer?.made) select([...kept, ...answer.made]);
    return answer;
  },
  preview: async (edit) => (await trying(() => asJson(`api/pictures/${state.picture}/outlines`, { ...edit, keep: false })))?.rings ?? [],
  rings: async (id, detail) => (await asJson(`api/pictures/${state.picture}/outlines/${id}?detail=${detail}`)).rings,
});
viewer.overlay = (context, view, colours) => {
  tools.draw(context, view, colours);
  if (!state.box) return;
  const [[x0, y0], [x1, y1]] = state.box;
  context.setTransform(view.scale, 0, 0, view.scale, view.x, view.y);
  context.lineWidth = 1.5 / view.scale;
  context.strokeStyle = colours.selected;
  context.strokeRect(x0, y0, x1 - x0, y1 - y0);
};

async function open(number) {
  if (number === undefined) { say("there are no pictures"); return; }
  state.picture = number;
  state.open?.abort();
  const mine = (state.open = new AbortController());
  select([]);
  tools.clear();
  const { name } = state.pictures[number];
  const place = state.order.indexOf(number) + 1;
  at("picture-name").textContent = place ? `${name} (${place} of ${state.order.length})` : name;
  at("picture-name").title = name;
  document.title = `${name} - sam-detect`;
  say("Finding objects …");
  at("problem").hidden = true;
  let found;
  try {
    found = await asJson(`api/pictures/${number}`, undefined, { signal: mine.signal });
  } catch (error) {
    if (error.name === "AbortError") return;
    viewer.osd.close();
    viewer.setObjects([]);
    at("problem").hidden = false;
    at("problem").textContent = `${name}: ${error.message}`;
    say("This picture cannot be shown. Go on with the next one.");
    return;
  }
  state.generation = found.generation;
  at("finished").checked = found.finished;
  viewer.open(found);
  show(found.objects);
  await refreshState();
}

/** Shows the objects of the open picture. */
function show(objects) {
  viewer.setObjects(objects);
  select([...viewer.marks.selected].filter((id) => viewer.shapes.byId.has(id)));
  const named = objects.filter((object) => object.label).length;
  const yours = objects.filter((object) => object.taught).length;
  say(`${named} named (${yours} by you), ${objects.length - named} unknown`);
  countAccepted();
}

// -- selecting ---------------------------------------------------------------------------------

function selectedObjects() {
  return [...viewer.marks.selected].map((id) => viewer.shapes.byId.get(id)).filter(Boolean);
}

function select(ids) {
  viewer.marks.selected = new Set(ids);
  const chosen = selectedObjects();
  at("selected-count").textContent = chosen.length ? (chosen.length === 1 ? "1 object" : `${chosen.length} objects`) : "what is selected";
  for (const id of ["accept", "reject"]) at(id).disabled = !chosen.length;
  at("confirm").disabled = !chosen.some((object) => object.label && !object.taught);
  if (chosen.length === 1) trying(() => explain(chosen[0]));
  if (tools.name === "reshape") trying(() => tools.loadRings());
  viewer.redraw();
}

function toggle(object, more) {
  const chosen = more ? new Set(viewer.marks.selected) : new Set();
  if (object && !(viewer.marks.selected.has(object.id) && chosen.delete(object.id))) {
    if (more || !viewer.marks.selected.has(object.id) || viewer.marks.selected.size > 1) chosen.add(object.id);
  }
  select(chosen);
  if (object) speak(`${describe(object)}, ${viewer.marks.selected.has(object.id) ? "selected" : "not selected"}`);
}

function describe(object) {
  if (!object.label) return object.best_label ? `unknown, nearest is ${object.best_label}` : "unknown";
  return object.taught ? `${object.label}, named by you` : `${object.label}, ${Math.round(100 * object.confidence)} %`;
}

function hover(object) {
  if (viewer.marks.hovered === (object?.id ?? null)) return;
  viewer.marks.hovered = object?.id ?? null;
  viewer.redraw();
  clearTimeout(state.hovering);
  if (object) state.hovering = setTimeout(() => trying(() => explain(object)), 120);
}

async function explain(object) {
  state.explained = object.id;
  const line = Object.assign(document.createElement("p"), { textContent: describe(object) });
  const figures = await Promise.all(object.neighbours.map(async (near) => {
    const figure = document.createElement("figure");
    const image = Object.assign(document.createElement("img"), { alt: "" });
    const url = await asUrl(`api/examples/${near.id}/thumbnail`).catch(() => null);
    if (url) { image.src = url; image.onload = () => URL.revokeObjectURL(url); }
    const caption = document.createElement("figcaption");
    caption.textContent = `${near.negative ? "not " : ""}${near.label} ${near.similarity.toFixed(2)}`;
    caption.title = caption.textContent;
    figure.append(image, caption);
    return figure;
  }));
  if (state.explained === object.id) at("why").replaceChildren(line, ...figures);
}

// -- deciding ----------------------------------------------------------------------------------

/** Sends a decision; where the server cannot be reached, it is kept and sent later, in order. */
function send(path, body, { select: chosen = false } = {}) {
  return new Promise((done) => {
    state.outbox.push({ path, body, chosen, picture: state.picture, done });
    flush();
  });
}

async function flush() {
  if (state.sending) return;
  state.sending = true;
  for (let tried = 0; state.outbox.length; ) {
    const { path, body, chosen, picture, done } = state.outbox[0];
    at("saved").textContent = `saving ${state.outbox.length} …`;
    try {
      const answer = await asJson(path, body);
      state.outbox.shift();
      tried = 0;
      if (answer.objects && picture === state.picture) {
        show(answer.objects);
        if (chosen && answer.made) select(answer.made);
      }
      showUndo(answer);
      done(answer);
    } catch (error) {
      if (error instanceof Refused && error.status !== 0 && error.status !== 503) {
        state.outbox.shift();
        say(error.message);
        done(null);
      } else {
        at("saved").textContent = `${state.outbox.length} not saved yet: ${error.message}; trying again`;
        await new Promise((later) => { setTimeout(later, RETRY_MS[Math.min(tried, RETRY_MS.length - 1)]); });
        tried += 1;
      }
    }
  }
  state.sending = false;
  at("saved").textContent = "all saved";
}

async function decide(decisions) {
  if (!decisions.length) { say("select objects first"); return; }
  select([]);
  await send(`api/pictures/${state.picture}/decisions`, { decisions });
  await loadLabels();
}

/** Outlines what is at a point where nothing was found, and selects it, too. */
async function outlineAt(point) {
  const before = [...viewer.marks.selected];
  const prompts = [{ points: [point], positive: [true] }];
  const answer = await send(`api/pictures/${state.picture}/outlines`, { tool: "clicks", prompts, keep: true });
  if (answer?.made) select([...before, ...answer.made]);
}

/** Names what is selected; what the tool for points has begun is kept under the name. */
async function name(label) {
  if (label && tools.name === "points" && tools.busy) {
    at("label").value = label;
    showKeep();
    await tools.keep();
    await loadLabels();
    return;
  }
  if (!label) { at("label").focus(); return; }
  at("label").value = label;
  showKeep();
  await decide([...viewer.marks.selected].map((object) => ({ object, label })));
}

const confirmSelected = () => decide(selectedObjects().filter((object) => object.label && !object.taught).map((object) => ({ object: object.id, label: object.label })));

async function reject() {
  const chosen = selectedObjects();
  const wrong = chosen.filter((object) => object.label);
  const typed = at("label").value.trim();
  if (wrong.length) await decide(wrong.map((object) => ({ object: object.id, label: object.label, negative: true })));
  else if (typed) await decide(chosen.map((object) => ({ object: object.id, label: typed, negative: true })));
  else await remove();
}

async function remove() {
  if (!viewer.marks.selected.size) { say("select objects first"); return; }
  const objects = [...viewer.marks.selected];
  select([]);
  await send(`api/pictures/${state.picture}/delete`, { objects });
}

function acceptable() {
  const least = at("threshold").value / 100;
  return viewer.shapes.objects.filter((object) => object.label && !object.taught && object.confidence >= least);
}

function countAccepted() {
  const count = acceptable().length;
  at("threshold-text").textContent = `${at("threshold").value} %`;
  at("accept-all").textContent = `Accept ${count}`;
  at("accept-all").disabled = !count;
}

const acceptAll = () => decide(acceptable().map((object) => ({ object: object.id, label: object.label })));

function showUndo({ undo, redo }) {
  for (const [id, title] of [["undo", undo], ["redo", redo]]) {
    at(id).disabled = !title;
    at(id).title = title ?? "";
  }
}

async function travel(way) {
  if (state.outbox.length) { say("wait until all is saved"); return; }
  const done = await asJson(`api/${way}`, {});
  showUndo(done);
  await loadPictures();
  await loadLabels();
  await open(done.picture ?? state.picture);
  say(`${way === "undo" ? "undone" : "redone"}: ${done.title}`);
}

async function finish(finished) {
  await send(`api/pictures/${state.picture}/finished`, { finished });
  at("finished").checked = finished;
  await loadPictures();
}

// -- the queue ---------------------------------------------------------------------------------

async function loadPictures() {
  const found = await asJson(`api/pictures?policy=${at("policy").value}`);
  Object.assign(state, { pictures: found.pictures, order: found.order });
  const there = found.pictures.filter((picture) => !picture.missing);
  const finished = there.filter((picture) => picture.finished).length;
  at("progress").max = Math.max(1, there.length);
  at("progress").value = finished;
  at("progress-text").textContent = `${finished} of ${there.length} finished`;
}

const step = (by) => {
  const place = state.order.indexOf(state.picture);
  return state.order[Math.max(0, Math.min(state.order.length - 1, place + by))];
};

function nextUnfinished() {
  const place = state.order.indexOf(state.picture);
  const around = [...state.order.slice(place + 1), ...state.order.slice(0, place + 1)];
  return around.find((number) => !state.pictures[number].finished);
}

async function goToUnfinished() {
  await loadPictures();
  const number = nextUnfinished();
  if (number === undefined) say("all pictures are finished");
  else await open(number);
}

async function loadLabels() {
  const { labels } = await asJson("api/labels");
  state.labels = labels.map(({ label }) => label);
  at("labels").replaceChildren(...state.labels.map((label) => Object.assign(document.createElement("option"), { value: label })));
  at("label-keys").replaceChildren(...labels.slice(0, 9).map(({ label, examples }, index) => {
    const item = document.createElement("li");
    const button = Object.assign(document.createElement("button"), { type: "button", textContent: `${index + 1} ${label} (${examples})`, title: label });
    button.addEventListener("click", () => trying(() => name(label)));
    item.append(button);
    return item;
  }));
}

/** What changed meanwhile: better proposals, other pages, new pictures. */
async function refreshState() {
  const now = await asJson(`api/state?picture=${state.picture ?? 0}`);
  showUndo(now);
  const resting = !viewer.marks.selected.size && !tools.busy && !tools.stroke.length && !state.outbox.length;
  if (now.generation && now.generation !== state.generation && resting) {
    const found = await asJson(`api/pictures/${state.picture}`);
    if (found.id === state.picture && !viewer.marks.selected.size && !tools.busy) {
      state.generation = found.generation;
      show(found.objects);
    }
  }
  if (state.learnt !== now.learnt) {
    state.learnt = now.learnt;
    await loadLabels();
  }
  if (now.pictures !== state.pictures.length || (now.survey !== state.survey && at("policy").value !== "folder")) await loadPictures();
  if (!at("groups").hidden && now.survey !== state.survey && !at("groups").contains(document.activeElement)) await drawGroups();
  state.survey = now.survey;
}

async function poll() {
  if (!document.hidden && !state.sending) await refreshState().catch(() => {});
  setTimeout(poll, POLL_MS);
}

// -- groups, help, tools -----------------------------------------------------------------------

const drawGroups = () => showGroups(at("groups"), {
  labels: "labels",
  say,
  named: async (decisions) => {
    const answer = await send("api/groups/decisions", { decisions });
    await loadLabels();
    return answer !== null;
  },
});

async function toggleGroups() {
  const shown = at("groups").hidden;
  at("groups").hidden = !shown;
  at("stage").hidden = shown;
  at("show-groups").setAttribute("aria-pressed", String(shown));
  if (shown) await drawGroups();
  else await open(state.picture);
}

function chooseTool(chosen) {
  tools.choose(chosen);
  for (const button of document.querySelectorAll("[data-tool]")) button.setAttribute("aria-pressed", String(button.dataset.tool === chosen));
  at("tool-options").hidden = chosen === "select";
  at("radius-row").hidden = !["brush", "erase"].includes(chosen);
  at("detail-row").hidden = chosen !== "reshape";
  for (const id of ["keep", "cancel"]) at(id).hidden = !["points", "reshape"].includes(chosen);
  at("tool-help").textContent = tools.help;
  showKeep();
}

function showKeep() {
  const label = at("label").value.trim();
  at("keep").textContent = tools.name === "points" && label ? `Keep as ${label}` : "Keep";
}

function cancel() {
  if (tools.busy) tools.clear();
  else if (tools.name !== "select") chooseTool("select");
  else select([]);
}

const ACTIONS = {
  next: () => open(step(1)),
  previous: () => open(step(-1)),
  unfinished: goToUnfinished,
  finish: async () => { await finish(true); await goToUnfinished(); },
  confirm: confirmSelected,
  reject,
  delete: remove,
  name: () => at("label").focus(),
  "accept-all": acceptAll,
  "select-all": () => select(viewer.shapes.objects.map((object) => object.id)),
  merge: () => send(`api/pictures/${state.picture}/outlines`, { tool: "merge", objects: [...viewer.marks.selected] }, { select: true }),
  groups: toggleGroups,
  fit: () => viewer.fit(),
  "zoom-in": () => viewer.zoom(1.4),
  "zoom-out": () => viewer.zoom(1 / 1.4),
  undo: () => travel("undo"),
  redo: () => travel("redo"),
  keep: () => tools.keep(),
  cancel,
  help: () => { showKeys(at("keys"), say); at("help").showModal(); },
};
for (const tool of ["select", "points", "brush", "erase", "reshape", "split"]) ACTIONS[tool] = () => chooseTool(tool);

function act(action) {
  if (action.startsWith("label ")) {
    const label = state.labels[Number(action.slice(6)) - 1];
    return label ? trying(() => name(label)) : undefined;
  }
  return trying(ACTIONS[action]);
}

for (const button of document.querySelectorAll("[data-action]")) button.addEventListener("click", () => act(button.dataset.action));
for (const button of document.querySelectorAll("[data-tool]")) button.addEventListener("click", () => chooseTool(button.dataset.tool));
at("naming").addEventListener("submit", (event) => {
  event.preventDefault();
  trying(() => name(at("label").value.trim()));
});
at("accepting").addEventListener("submit", (event) => { event.preventDefault(); trying(acceptAll); });
at("tool-options").addEventListener("submit", (event) => { event.preventDefault(); trying(() => tools.keep()); });
at("label").addEventListener("input", showKeep);
at("threshold").addEventListener("input", countAccepted);
at("radius").addEventListener("input", () => { tools.radius = Number(at("radius").value); at("radius-text").textContent = at("radius").value; });
at("detail").addEventListener("input", () => {
  at("detail-text").textContent = `${at("detail").value} %`;
  trying(() => tools.loadRings(at("detail").value / 100));
});
at("finished").addEventListener("change", () => trying(() => finish(at("finished").checked)));
at("policy").addEventListener("change", () => trying(async () => { await loadPictures(); await open(state.order[0]); }));
at("close-help").addEventListener("click", () => at("help").close());
at("reset-keys").addEventListener("click", () => resetKeys(at("keys"), say));

const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
at("shapes").addEventListener("keydown", (event) => {
  const from = viewer.shapes.byId.get(viewer.marks.hovered);
  if (ARROWS[event.key]) {
    const object = viewer.shapes.next(from, ...ARROWS[event.key]);
    if (object) {
      hover(object);
      viewer.reveal(object);
      speak(describe(object));
    }
  } else if (event.key === " " && from) toggle(from, event.shiftKey || viewer.marks.selected.has(from.id));
  else return;
  event.preventDefault();
  event.stopPropagation();
});

document.addEventListener("keydown", (event) => {
  if (at("help").open || event.defaultPrevented) return;
  const { target } = event;
  const typing = target.matches("input:not([type=range], [type=checkbox]), select, textarea");
  if (typing) {
    if (event.key === "Escape") target.blur();
    return;
  }
  // A focused button is pressed by these.
  if (target.matches("button, a, input") && ["Enter", " "].includes(event.key)) return;
  const action = actionOf(event);
  if (!action) return;
  event.preventDefault();
  act(action);
});

addEventListener("beforeunload", (event) => { if (state.outbox.length) event.preventDefault(); });

for (const button of document.querySelectorAll("[data-action], [data-tool]")) {
  const key = keyOf(button.dataset.action ?? button.dataset.tool);
  if (key && !button.title) button.title = `key: ${key}`;
}
if (token) at("library-link").href = `library#token=${encodeURIComponent(token)}`;
chooseTool("select");
select([]);
trying(async () => {
  await loadPictures();
  await loadLabels();
  await open(nextUnfinished() ?? state.order[0]);
  poll();
});
