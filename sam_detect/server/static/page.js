// The annotation page: shows a picture with its objects, and sends what the user decides.

import { ask, asJson, asUrl } from "./api.js";

const SVG = "http://www.w3.org/2000/svg";
const at = (id) => document.getElementById(id);

const state = { pictures: [], picture: 0, objects: [], selected: new Set() };

function say(text) { at("status").textContent = text; }

async function trying(work) {
  try { await work(); } catch (error) { say(error.message); }
}

async function open(number) {
  state.picture = number;
  state.selected.clear();
  at("picture-name").textContent = `${state.pictures[number].name} (${number + 1} of ${state.pictures.length})`;
  say("looking …");
  const found = await asJson(`api/pictures/${number}`);
  const svg = at("picture");
  const old = svg.querySelector("image");
  if (old) URL.revokeObjectURL(old.getAttribute("href"));
  svg.replaceChildren();
  svg.setAttribute("viewBox", `0 0 ${found.width} ${found.height}`);
  const image = document.createElementNS(SVG, "image");
  image.setAttribute("href", await asUrl(`api/pictures/${number}/pixels`));
  image.setAttribute("width", found.width);
  image.setAttribute("height", found.height);
  svg.append(image);
  show(found.objects);
}

function show(objects) {
  state.objects = objects;
  const here = new Set(objects.map((each) => each.id));
  for (const id of state.selected) if (!here.has(id)) state.selected.delete(id);
  for (const old of at("picture").querySelectorAll("path")) old.remove();
  // The largest first, so that what lies inside of it can be clicked.
  const area = (each) => each.bbox_xywh[2] * each.bbox_xywh[3];
  for (const each of [...objects].sort((one, other) => area(other) - area(one))) at("picture").append(drawn(each));
  const labels = [...new Set(objects.map((each) => each.label).filter(Boolean))].sort();
  at("labels").replaceChildren(...labels.map((label) => Object.assign(document.createElement("option"), { value: label })));
  const known = objects.filter((each) => each.label).length;
  say(`${known} named, ${objects.length - known} unknown`);
}

function drawn(object) {
  const path = document.createElementNS(SVG, "path");
  path.setAttribute("d", object.rings.map((ring) => `M${ring.map((point) => point.join(" ")).join("L")}Z`).join(""));
  path.setAttribute("fill-rule", "evenodd");
  path.setAttribute("tabindex", "0");
  path.setAttribute("role", "checkbox");
  path.dataset.id = object.id;
  path.classList.toggle("known", object.label !== null);
  const name = object.label ? `${object.label}, ${Math.round(100 * object.confidence)} %` : "unknown";
  path.setAttribute("aria-label", object.taught ? `${name}, shown by you` : name);
  mark(path);
  const title = document.createElementNS(SVG, "title");
  title.textContent = path.getAttribute("aria-label");
  path.append(title);
  path.addEventListener("click", (event) => select(object.id, event.shiftKey));
  path.addEventListener("keydown", (event) => {
    if (event.key !== " " && event.key !== "Enter") return;
    event.preventDefault();
    select(object.id, event.shiftKey);
  });
  path.addEventListener("pointerenter", () => trying(() => explain(object)));
  path.addEventListener("focus", () => trying(() => explain(object)));
  return path;
}

function mark(path) {
  const chosen = state.selected.has(path.dataset.id);
  path.classList.toggle("selected", chosen);
  path.setAttribute("aria-checked", String(chosen));
}

function select(id, more) {
  const was = state.selected.has(id);
  if (!more) state.selected.clear();
  if (was) state.selected.delete(id); else state.selected.add(id);
  at("picture").querySelectorAll("path").forEach(mark);
}

let explained = null;
async function explain(object) {
  explained = object.id;
  const figures = await Promise.all(object.neighbours.map(async (near) => {
    const figure = document.createElement("figure");
    const image = Object.assign(document.createElement("img"), { alt: "", src: await asUrl(`api/examples/${near.id}/thumbnail`) });
    const caption = document.createElement("figcaption");
    caption.textContent = `${near.negative ? "not " : ""}${near.label} ${near.similarity.toFixed(2)}`;
    figure.append(image, caption);
    return figure;
  }));
  if (explained === object.id) at("why").replaceChildren(...figures);
}

async function decide(negative) {
  const label = at("label").value.trim();
  if (!label || !state.selected.size) return say("select objects and type a name");
  const body = { objects: [...state.selected], label, negative };
  const found = await asJson(`api/pictures/${state.picture}/decisions`, body);
  state.selected.clear();
  show(found.objects);
}

at("naming").addEventListener("submit", (event) => { event.preventDefault(); trying(() => decide(false)); });
at("reject").addEventListener("click", () => trying(() => decide(true)));
at("undo").addEventListener("click", () => trying(async () => {
  await ask("api/undo", {});
  await open(state.picture);
}));
at("next").addEventListener("click", () => trying(() => open(Math.min(state.picture + 1, state.pictures.length - 1))));
at("previous").addEventListener("click", () => trying(() => open(Math.max(state.picture - 1, 0))));

trying(async () => {
  state.pictures = (await asJson("api/pictures")).pictures;
  if (state.pictures.length) await open(0); else say("there are no pictures");
});
