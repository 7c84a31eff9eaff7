// The annotation page: shows a picture with its objects, and sends what the user decides.

import { asJson, asUrl, token } from "./api.js";
import { connect, showUndo } from "./controls.js";
import { Counts } from "./counts.js";
import { at, kept, say, speak, trying } from "./dom.js";
import { Groups } from "./groups.js";
import { showKeys } from "./keys.js";
import { Names } from "./naming.js";
import { Outbox } from "./outbox.js";
import { Queue } from "./queue.js";
import { Tools } from "./tools.js";
import { Viewer } from "./viewer.js";
import { Why, describe } from "./why.js";

const POLL_MS = 1500;
const BUSY_MS = 400;
const UNKNOWN = "unknown is shown";
const SLIDER = "slider"; // above which suggestions are accepted
const ORDER = "order"; // of the pictures
const state = { picture: null, digest: null, objects: [], library: "", survey: -1 };
const queue = new Queue();
const why = new Why(() => state.picture);
const counts = new Counts();
const names = new Names({ name: (label) => trying(() => name(label)), library: () => state.library });

// -- the picture -------------------------------------------------------------------------------

const viewer = new Viewer(at("viewer"), at("shapes"), at("marks"), {
  colour: (label) => names.colourOf(label),
  press: (point, event) => {
    names.mouse = event.pointerType === "mouse";
    return tools.name === "select" && event.shiftKey ? "box" : tools.press(point, event);
  },
  drag: (point) => tools.drag(point),
  release: () => { names.ready(); trying(() => tools.release()); },
  box: (x0, y0, x1, y1) => select([...viewer.marks.selected, ...viewer.shapes.inside(x0, y0, x1, y1).map((object) => object.id)]),
  click: async (point, event) => {
    at("shapes").focus({ preventScroll: true });
    if (tools.takes(event)) {
      names.ready();
      await trying(() => tools.click(point, event));
      return;
    }
    if (tools.name === "select" && (event.ctrlKey || event.metaKey)) {
      names.ready();
      await trying(() => outlineAt(point));
      return;
    }
    toggle(viewer.shapes.hit(viewer.context, ...point), event.shiftKey);
  },
  hover: (point) => hover(viewer.shapes.hit(viewer.context, ...point)),
  // On the way to the explanation the pointer crosses other objects.
  leave: () => { hover(null); if (selectedObjects().length === 1) explain(selectedObjects()[0]); },
});

const tools = new Tools({
  selected: () => [...viewer.marks.selected],
  label: () => at("label").value.trim() || undefined,
  redraw: () => viewer.redrawMarks(),
  scale: () => (viewer.ready() ? viewer.view().scale / devicePixelRatio : 1),
  say,
  begun: () => { select([]); names.ready(); },
  send: (edit, kept = []) => send("outlines", { ...edit, keep: true }, { select: edit.label ? null : kept }),
  preview: async (edit) => (await trying(() => asJson(`api/pictures/${state.picture}/outlines`, { ...edit, keep: false })))?.rings ?? [],
  rings: async (id, detail) => (await asJson(`api/pictures/${state.picture}/outlines/${id}?detail=${detail}`)).rings,
});
viewer.overlay = (context, view, colours) => tools.draw(context, view, colours);

async function open(number) {
  if (number === undefined) { say("there are no pictures"); return; }
  if (tools.busy) trying(keep);
  state.picture = number;
  state.opening?.abort();
  const mine = (state.opening = new AbortController());
  names.begin();
  select([]);
  why.show(null);
  tools.clear();
  const { name } = queue.pictures[number];
  at("picture-name").textContent = at("picture-name").title = name;
  at("picture-place").textContent = queue.placeOf(number);
  document.title = `${name} - sam-detect`;
  say("Finding objects …");
  at("problem").hidden = at("all-finished").hidden = true;
  const waiting = setTimeout(() => showBusy(number, mine.signal), BUSY_MS);
  let found;
  try {
    found = await asJson(`api/pictures/${number}`, undefined, { signal: mine.signal });
  } catch (error) {
    if (error.name === "AbortError") return;
    viewer.close();
    show([]);
    at("problem").hidden = false;
    at("problem-text").textContent = `${name}: ${error.message}`;
    say("This picture cannot be shown. Go on with the next one.");
    return;
  } finally {
    clearTimeout(waiting);
    if (mine === state.opening) at("busy").hidden = at("preview").hidden = true;
  }
  Object.assign(state, { generation: found.generation, digest: found.digest });
  at("finished").checked = found.finished;
  viewer.open(found);
  show(found.objects);
  await refreshState();
}

/** Shows the picture itself while its objects are being found. */
async function showBusy(number, signal) {
  viewer.close();
  at("busy").hidden = false;
  const url = await asUrl(`api/pictures/${number}/preview`, { signal }).catch(() => null);
  if (!url) return;
  at("preview").src = url;
  at("preview").onload = () => URL.revokeObjectURL(url);
  at("preview").hidden = signal.aborted || at("busy").hidden;
}

/** Shows the objects of the open picture. */
function show(objects) {
  state.objects = objects;
  viewer.setObjects(at("show-unknown").checked ? objects : objects.filter((object) => object.label !== null));
  select([...viewer.marks.selected].filter((id) => viewer.shapes.byId.has(id)));
  say(counts.show(objects));
  const explained = why.object && viewer.shapes.byId.get(why.object.id);
  if (why.object && explained !== why.object) explain(explained ?? null);
}

// -- selecting ---------------------------------------------------------------------------------

function selectedObjects() {
  return [...viewer.marks.selected].map((id) => viewer.shapes.byId.get(id)).filter(Boolean);
}

function select(ids) {
  const before = viewer.marks.selected.size;
  viewer.marks.selected = new Set(ids);
  const chosen = selectedObjects();
  at("selected-count").textContent = chosen.length ? (chosen.length === 1 ? "1 object" : `${chosen.length} objects`) : "what is selected";
  for (const id of ["accept", "reject"]) at(id).disabled = !chosen.length;
  at("confirm").disabled = !chosen.some((object) => object.label && !object.taught);
  const wrong = new Set(chosen.filter((object) => object.label !== null).map((object) => object.label));
  at("reject").firstChild.data = wrong.size === 1 ? `Not ${[...wrong][0]}` : chosen.length && !wrong.size ? "No object" : "Is not this";
  at("label").placeholder = chosen.length ? "type a name" : "";
  if (chosen.length) names.ready();
  else if (before) names.leave();
  names.showStart(chosen.length > 0);
  counts.showNext(chosen.length > 0);
  if (chosen.length === 1) explain(chosen[0]);
  if (tools.name === "reshape") trying(() => tools.loadRings());
  viewer.redrawMarks();
}

function toggle(object, more) {
  if (!more) state.outlining = null;
  if (!more && viewer.marks.selected.size) names.begin();
  else if (!more && names.typed) at("label").select();
  const chosen = more ? new Set(viewer.marks.selected) : new Set();
  if (object && !(viewer.marks.selected.has(object.id) && chosen.delete(object.id))) {
    if (more || !viewer.marks.selected.has(object.id) || viewer.marks.selected.size > 1) chosen.add(object.id);
  }
  select(chosen);
  if (object) speak(`${describe(object)}, ${viewer.marks.selected.has(object.id) ? "selected" : "not selected"}`);
}

function hover(object) {
  if (viewer.marks.hovered === (object?.id ?? null)) return;
  viewer.marks.hovered = object?.id ?? null;
  viewer.redrawMarks();
  clearTimeout(state.hovering);
  if (object) state.hovering = setTimeout(() => explain(object), 120);
}

const explain = (object) => trying(() => why.show(object, object && describe(object)));

// -- deciding ----------------------------------------------------------------------------------

const outbox = new Outbox({
  library: () => state.library,
  numberOf: (picture) => queue.numberOf(picture),
  answered: (answer, { picture, select: chosen }) => {
    // What is still waiting is shown already, and not in this answer.
    if (answer.objects && picture?.digest === state.digest && !outbox.length) {
      show(answer.objects);
      if (chosen && answer.made) select([...chosen, ...answer.made]);
    }
    showUndo(answer);
  },
  refused: (text) => {
    trying(async () => { show((await asJson(`api/pictures/${state.picture}`)).objects); say(text); });
    say(text);
  },
  changed: (count, problem) => {
    at("saved").textContent = !count ? "all saved" : problem ? `${count} not saved yet: ${problem}; trying again` : `saving ${count} …`;
    at("saved").toggleAttribute("data-waiting", Boolean(problem));
  },
});

/** Sends a decision about the open picture; where the server cannot be reached, it is kept and sent later, in order. */
function send(to, body, { select: chosen = null } = {}) {
  const picture = { number: state.picture, name: queue.pictures[state.picture].name, digest: state.digest };
  const sent = outbox.send({ to, body, picture, select: chosen });
  if (chosen && !body.objects?.length) {
    state.outlining = sent;
    sent.finally(() => { if (state.outlining === sent) state.outlining = null; });
  }
  return sent;
}

/** Whether what is typed is a name: of what is selected, was begun, or is being outlined. */
const naming = () => Boolean(viewer.marks.selected.size || tools.busy || state.outlining);

async function decide(decisions) {
  if (!decisions.length) { say("select objects first"); return; }
  select([]);
  // It is shown before the server has answered.
  const decided = new Map(decisions.map((each) => [each.object, each]));
  const saved = send("decisions", { decisions });
  show(state.objects.map((object) => {
    const each = decided.get(object.id);
    return each ? { ...object, label: each.negative ? null : each.label, taught: !each.negative } : object;
  }));
  await saved;
  await names.load();
}

/** Outlines what is at a point where nothing was found, and selects it, too. */
async function outlineAt(point) {
  const prompts = [{ points: [point], positive: [true] }];
  await send("outlines", { tool: "clicks", prompts, keep: true }, { select: [...viewer.marks.selected] });
}

/** Names what is selected; what the tool for points has begun is kept under the name. */
async function name(label) {
  if (label && tools.name === "points" && tools.busy) {
    at("label").value = label;
    await keep();
    return;
  }
  if (!label) { at("label").focus(); return; }
  if (tools.busy) trying(keep); // vertices that were moved
  if (state.outlining) {
    say(`${label}: as soon as the object is outlined`);
    names.clear();
    if (!(await state.outlining)) return;
  }
  if (!viewer.marks.selected.size) { say("select an object first: click on it"); return; }
  names.clear();
  await decide([...viewer.marks.selected].map((object) => ({ object, label })));
}

/** Keeps what a tool has begun, under the name in the field if there is one. */
async function keep() {
  const saved = tools.keep();
  if (!tools.busy) names.clear();
  await saved;
  await names.load();
}

async function confirmSelected() {
  if (tools.busy) { await keep(); return; }
  names.started();
  await decide(selectedObjects().filter((object) => object.label && !object.taught).map((object) => ({ object: object.id, label: object.label })));
}

async function reject() {
  const chosen = selectedObjects();
  const wrong = chosen.filter((object) => object.label);
  if (wrong.length) await decide(wrong.map((object) => ({ object: object.id, label: object.label, negative: true })));
  else await remove();
}

async function remove() {
  if (tools.busy) { tools.back(); return; }
  if (!viewer.marks.selected.size) { say("select objects first"); return; }
  const objects = [...viewer.marks.selected];
  const saved = send("delete", { objects });
  show(state.objects.filter((object) => !objects.includes(object.id)));
  await saved;
}

async function merge() {
  const objects = [...viewer.marks.selected];
  if (objects.length < 2) { say("select two objects or more to merge them"); return; }
  await send("outlines", { tool: "merge", objects }, { select: [] });
}

async function acceptAll() {
  names.started();
  await decide(counts.acceptable().map((object) => ({ object: object.id, label: object.label })));
}

async function travel(way) {
  if (outbox.length) { say("wait until all is saved"); return; }
  const done = await asJson(`api/${way}`, {});
  showUndo(done);
  await queue.load();
  await names.load();
  await open(done.picture ?? state.picture);
  say(`${way === "undo" ? "undone" : "redone"}: ${done.title}`);
}

async function finish(finished) {
  at("finished").checked = finished;
  await send("finished", { finished });
  await queue.load();
}

// -- the queue ---------------------------------------------------------------------------------

async function go(by) {
  const number = queue.step(state.picture, by);
  if (number === undefined) say(by > 0 ? "this is the last picture" : "this is the first picture");
  else await open(number);
}

async function goToUnfinished() {
  await queue.load();
  const number = queue.unfinished(state.picture);
  if (number !== undefined) { await open(number); return; }
  say("all pictures are finished");
  const { labels } = await asJson("api/labels");
  at("all-finished-text").textContent = `The library has ${labels.map(({ label, examples }) => `${examples} ${label}`).join(", ") || "no examples"}.`;
  at("all-finished").hidden = false;
  at("export-link").focus();
}

/** What changed meanwhile: better proposals, other pages, new pictures. */
async function refreshState() {
  const now = await asJson(`api/state?picture=${state.picture ?? 0}`);
  showUndo(now);
  const resting = !viewer.marks.selected.size && !tools.busy && !tools.stroke.length && !outbox.length;
  if (now.generation && now.generation !== state.generation && resting) {
    const found = await asJson(`api/pictures/${state.picture}`);
    if (found.id === state.picture && !viewer.marks.selected.size && !tools.busy && !outbox.length) {
      state.generation = found.generation;
      show(found.objects);
    }
  }
  if (state.learnt !== now.learnt) {
    state.learnt = now.learnt;
    await names.load();
  }
  if (now.pictures !== queue.pictures.length || (now.survey !== state.survey && queue.policy !== "folder")) await queue.load();
  if (now.survey !== state.survey) await groups.refresh();
  state.survey = now.survey;
}

async function poll() {
  if (!document.hidden && !outbox.sending) {
    const there = await refreshState().then(() => true, (error) => error.status !== 0);
    if (!outbox.length) outbox.page.changed(0);
    if (!there) at("saved").textContent = "the server cannot be reached";
    at("saved").toggleAttribute("data-waiting", !there);
  }
  setTimeout(poll, POLL_MS);
}

// -- groups, help, tools -----------------------------------------------------------------------

const groups = new Groups({
  named: async (decisions) => {
    const answer = await outbox.send({ to: "api/groups/decisions", body: { decisions }, picture: null });
    await names.load();
    return answer !== null;
  },
  deleted: async (objects) => (await outbox.send({ to: "api/groups/delete", body: { objects }, picture: null })) !== null,
  closed: () => open(state.picture),
});

function chooseTool(chosen) {
  if (tools.busy) trying(keep);
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
  if (tools.busy) tools.back();
  else if (tools.name !== "select") chooseTool("select");
  else {
    names.begin();
    select([]);
    at("all-finished").hidden = true;
  }
}

const ACTIONS = {
  next: () => go(1),
  previous: () => go(-1),
  unfinished: goToUnfinished,
  finish: async () => { await finish(true); await goToUnfinished(); },
  confirm: confirmSelected,
  reject,
  delete: remove,
  name: () => { at("label").focus(); at("label").select(); names.touched = true; },
  "accept-all": acceptAll,
  "select-all": () => select(viewer.shapes.objects.map((object) => object.id)),
  unknown: () => at("show-unknown").click(),
  merge,
  groups: () => groups.toggle(),
  fit: () => viewer.fit(),
  "zoom-in": () => viewer.zoom(1.4),
  "zoom-out": () => viewer.zoom(1 / 1.4),
  undo: () => (tools.busy ? tools.back() : travel("undo")),
  redo: () => travel("redo"),
  cancel,
  help: () => { showKeys(at("keys"), say); at("help").showModal(); },
};
for (const tool of ["select", "points", "brush", "erase", "reshape", "split"]) ACTIONS[tool] = () => chooseTool(tool);

function act(action) {
  if (action.startsWith("label ")) {
    const label = names.ofKey(Number(action.slice(6)));
    return label ? trying(() => name(label)) : undefined;
  }
  return trying(ACTIONS[action]);
}

connect({
  act, chooseTool, finish, hover, toggle, keep, naming, names, showKeep, viewer, tools,
  counts: () => { kept.set(SLIDER, at("threshold").value); counts.showAccept(); viewer.setLeast(counts.least); },
  named: async () => { at("shapes").focus({ preventScroll: true }); await name(names.typed); },
  accepted: acceptAll,
  pointed: (object) => speak(describe(object)),
  shown: () => { kept.set(UNKNOWN, at("show-unknown").checked); show(state.objects); },
  again: () => open(state.picture),
  ordered: async () => { kept.set(ORDER, queue.policy); await queue.load(); await open(queue.order[0]); },
});
for (const id of ["library-link", "export-link"]) if (token) at(id).href = `library#token=${encodeURIComponent(token)}`;
at("show-unknown").checked = kept.get(UNKNOWN, true);
at("threshold").value = kept.get(SLIDER, at("threshold").value);
const order = kept.get(ORDER, queue.policy);
if ([...at("policy").options].some(({ value }) => value === order)) at("policy").value = order;
chooseTool("select");
viewer.setLeast(counts.least);
select([]);
trying(async () => {
  state.library = (await asJson("api/state")).library;
  await queue.load();
  outbox.resume();
  await names.load();
  await open(queue.unfinished(null) ?? queue.order[0]);
  poll();
});
