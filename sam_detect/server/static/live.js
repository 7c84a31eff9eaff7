// The live page: what is chosen, named and asked for.

import { Line } from "./live_line.js";
import { colourOf, Picture } from "./live_picture.js";

const find = (id) => document.getElementById(id);
const picture = new Picture(find("picture"), find("shapes"));
const stage = find("shapes");
let state = null; // as the server sent it
let selected = null; // {track, seen, label, rings, name}
let outlining = null; // the answer that will be selected; its name may be typed already
let isHeld = false; // the picture stands still in this window, while something in it is named
let hasPaused = false; // this window stopped a file for that
const released = [];
let looking = 0;
let drag = null;
let corner = null;

const line = new Line({ frame: showFrame, state: showState, away: showAway, waiting: showWaiting });

function say(text) {
  find("status").textContent = text;
}

async function showFrame(header, blob) {
  // Frames wait while the picture stands still: none is sent then, and the server keeps this one.
  while (isHeld) await new Promise((resolve) => released.push(resolve));
  const image = await createImageBitmap(blob);
  if (header.number < (picture.frame?.number ?? 0) && picture.session === line.session) return image.close();
  picture.session = line.session;
  picture.show(header, image);
  find("problem").hidden = true;
  listTracks(header.tracks);
  showSelected();
}

function showState(now) {
  const before = state;
  state = now;
  find("source").textContent = now.name;
  find("source").title = now.name;
  document.title = `${now.name} - sam-detect`;
  find("pause").textContent = now.paused ? "Go on" : "Pause";
  find("pause").disabled = now.ended || now.finished;
  find("undo").disabled = find("finish").disabled = now.finished;
  const [kind, words] = now.finished ? ["away", "finished"] : now.ended ? ["ended", "ended"]
    : now.paused ? ["paused", "paused"] : ["playing", now.live ? "live" : "playing"];
  badge(kind, words);
  find("labels").replaceChildren(...now.labels.map((label) => new Option(label)));
  if (before?.session !== now.session) clear();
  if (now.finished) say("The video is finished. All that was named is learnt. You can close this page.");
  else if (now.ended && !before?.ended) say("The video ended. Its last frame stays; objects can still be named. Finish ends it.");
  else if (before === null || find("place").dataset.away) say("Connected. Click on an object to name it.");
  delete find("place").dataset.away;
  showSelected();
}

function badge(kind, words) {
  find("place").dataset.kind = kind;
  find("place").textContent = words;
}

function showAway(seconds) {
  badge("away", "no connection");
  find("place").dataset.away = "yes";
  for (const id of ["pause", "undo", "finish"]) find(id).disabled = true;
  say(`No connection. The next try is in ${seconds} s. Names are sent later.`);
}

function showWaiting(count) {
  const saved = find("saved");
  saved.textContent = count ? `${count} not sent yet` : "all sent";
  saved.toggleAttribute("data-waiting", count > 0);
}

function listTracks(tracks) {
  const list = find("tracks");
  const there = new Map([...list.children].map((item) => [item.dataset.track, item]));
  const followed = tracks.filter(({ id }) => id);
  find("count").textContent = followed.length ? `(${followed.length})` : "";
  for (const track of followed) {
    const key = String(track.id);
    const item = there.get(key) ?? newItem(key);
    there.delete(key);
    const [button] = item.children;
    const [swatch, number, label, sure] = button.children;
    const colour = colourOf(track.label);
    if (swatch.dataset.colour !== colour) {
      swatch.dataset.colour = colour;
      swatch.style.backgroundColor = colour;
    }
    setText(number, `#${track.id}`);
    setText(label, track.label ?? "unknown");
    setText(sure, track.label === null ? "" : `${Math.round(100 * track.confidence)} %`);
    const pressed = String(selected?.track === track.id);
    if (button.getAttribute("aria-pressed") !== pressed) button.setAttribute("aria-pressed", pressed);
    if (item.parentNode !== list) list.append(item);
  }
  for (const gone of there.values()) {
    // Focus must not fall out of the list with an object that left the picture.
    if (gone.contains(document.activeElement)) stage.focus();
    gone.remove();
  }
}

function newItem(key) {
  const item = document.createElement("li");
  const button = document.createElement("button");
  item.dataset.track = key;
  button.type = "button";
  for (const name of ["swatch", "number", "label", "sure"]) {
    const part = document.createElement("span");
    part.className = name;
    button.append(part);
  }
  button.addEventListener("click", () => chooseTrack(Number(key)));
  item.append(button);
  return item;
}

function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

const trackNow = (id) => picture.frame?.tracks.find((track) => track.id === id) ?? null;

function showSelected() {
  const now = selected?.track ? trackNow(selected.track) : null;
  if (now) selected.label = now.label;
  setText(find("chosen"), !selected ? "the chosen object"
    : selected.track ? `#${selected.track}${selected.label === null ? "" : ` (${selected.label})`}` : "what is outlined");
  for (const id of ["label", "accept", "clear"]) find(id).disabled = !(selected || outlining) || state?.finished;
  find("reject").disabled = !selected?.track || selected.label === null || state?.finished;
  setText(find("hint"), !selected ? "Click on an object, or draw a box around it."
    : isHeld && state?.live && !state.ended ? "The picture waits here until it is named." : "Enter names it.");
  picture.selected = selected;
  picture.draw();
  for (const item of find("tracks").children) {
    item.firstChild.setAttribute("aria-pressed", String(selected?.track === Number(item.dataset.track)));
  }
}

function clear() {
  looking += 1;
  selected = outlining = null;
  letGo();
  find("label").value = "";
  showSelected();
}

/** A picture that stood still for naming goes on. */
function letGo() {
  isHeld = false;
  for (const go of released.splice(0)) go();
  if (hasPaused && state?.paused) line.ask({ type: "resume" }).catch(() => {});
  hasPaused = false;
}

function hold() {
  isHeld = true;
  if (state && !state.live && !state.paused && !state.ended) {
    hasPaused = true;
    line.ask({ type: "pause" }).catch(() => {});
  }
}

function chooseTrack(id) {
  clear();
  const track = trackNow(id);
  if (!track) return;
  selected = { track: id, seen: null, label: track.label, rings: track.rings };
  showSelected();
  find("label").focus();
}

/** Chooses what is at a point, or in a box, of the frame that is shown. */
async function look(where) {
  if (!picture.frame || state?.finished) return;
  const there = where.point_xy && picture.objectAt(where.point_xy);
  if (there) return chooseTrack(there.id);
  clear();
  const mine = looking;
  const { number } = picture.frame;
  hold();
  say("Outlining the object");
  try {
    outlining = line.ask({ type: "look", number, ...where });
    showSelected();
    find("label").focus();
    const found = await outlining;
    if (mine !== looking) return;
    outlining = null;
    const track = found.track ? trackNow(found.track) : null;
    selected = { track: found.track || null, seen: found.seen, label: track?.label ?? null, rings: found.rings };
    if (selected.track) letGo();
    say("Outlined. Type its name.");
    showSelected();
  } catch (error) {
    if (mine !== looking) return;
    clear();
    stage.focus();
    say(error.message);
  }
}

const which = ({ track, seen }) => (track ? { track } : { seen });
const words = (track, text) => (track ? `#${track} ${text}` : `this ${text}`);

async function name(label) {
  const target = selected;
  if (!target || !label) return;
  say(line.greeted ? "Learning" : "No connection. The name is sent later.");
  const answer = line.ask({ type: "name", ...which(target), label }, { keep: true });
  clear();
  stage.focus();
  try {
    const learnt = await answer;
    const count = `${learnt.total} example${learnt.total === 1 ? "" : "s"}`;
    say(`Learnt: ${words(learnt.track, `is ${learnt.label}`)}. The library has ${count}.`);
  } catch (error) {
    say(`Not learnt: ${error.message}`);
  }
}

async function reject() {
  if (!selected?.track || selected.label === null) {
    say("The chosen object has no name that could be wrong.");
    return;
  }
  const { track, label } = selected;
  const answer = line.ask({ type: "reject", track, label }, { keep: true });
  clear();
  try {
    await answer;
    say(`Learnt: #${track} is not ${label}.`);
  } catch (error) {
    say(`Not learnt: ${error.message}`);
  }
}

async function undo() {
  const track = selected?.track;
  try {
    const { labels, negatives } = await line.ask(track ? { type: "undo", track } : { type: "undo" });
    const taken = [...labels, ...negatives.map((label) => `not ${label}`)];
    say(`Taken back: ${taken.join(", ") || "nothing new was learnt"}.`);
  } catch (error) {
    say(`Not taken back: ${error.message}`);
  }
}

function pause() {
  if (find("pause").disabled) return;
  hasPaused = false;
  const type = state.paused ? "resume" : "pause";
  if (type === "resume" && isHeld) clear();
  line.ask({ type }).catch((error) => say(error.message));
}

/** The box of two points, within the picture; null where it is hardly larger than a point. */
function boxOf([a, b]) {
  const [x, y] = [Math.min(a[0], b[0]), Math.min(a[1], b[1])];
  const box = [x, y, Math.max(a[0], b[0]) - x, Math.max(a[1], b[1]) - y];
  const least = 4 / picture.layout().scale;
  return box[2] >= least && box[3] >= least ? box : null;
}

stage.addEventListener("pointerdown", (event) => {
  if (event.button || !picture.pointAt(event.offsetX, event.offsetY)) return;
  stage.setPointerCapture(event.pointerId);
  const from = picture.pointAt(event.offsetX, event.offsetY);
  drag = { from, to: from };
  picture.cross = corner = null;
});
stage.addEventListener("pointermove", (event) => {
  if (!drag) return;
  drag.to = picture.pointAt(event.offsetX, event.offsetY, true);
  picture.box = boxOf([drag.from, drag.to]) && [drag.from, drag.to];
  picture.draw();
});
stage.addEventListener("pointerup", () => {
  if (!drag) return;
  const box = boxOf([drag.from, drag.to]);
  const { from } = drag;
  drag = picture.box = null;
  look(box ? { box_xywh: box } : { point_xy: from });
});
stage.addEventListener("pointercancel", () => {
  drag = picture.box = null;
  picture.draw();
});

const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

function moveCross([dx, dy], far) {
  const { width, height } = picture.size;
  const step = Math.max(1, Math.max(width, height) / (far ? 10 : 100));
  const [x, y] = picture.cross ?? [width / 2, height / 2];
  picture.cross = [Math.min(Math.max(x + dx * step, 0), width - 1), Math.min(Math.max(y + dy * step, 0), height - 1)];
  picture.box = corner && [corner, picture.cross];
  picture.draw();
  const there = picture.objectAt(picture.cross);
  say(there ? `Cross on #${there.id}, ${there.label ?? "unknown"}` : `Cross at ${picture.cross.map(Math.round).join(", ")}`);
}

function setCorner() {
  if (!picture.cross) moveCross([0, 0], false);
  if (!corner) {
    corner = picture.cross;
    say("First corner. Move the cross, and press B at the other corner.");
    return;
  }
  const box = boxOf([corner, picture.cross]);
  corner = picture.box = null;
  picture.draw();
  if (box) look({ box_xywh: box });
  else say("The box is too small.");
}

stage.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  const keys = {
    Enter: () => picture.cross && look({ point_xy: picture.cross }),
    b: setCorner,
    n: () => (selected ? find("label").focus() : say("Choose an object first.")),
    x: reject,
    u: undo,
    " ": pause,
    "?": () => find("help").showModal(),
    Escape: () => {
      corner = picture.box = picture.cross = null;
      clear();
    },
  };
  const act = ARROWS[key] ? () => moveCross(ARROWS[key], event.shiftKey) : keys[key];
  if (!act || (!picture.frame && key !== "?")) return;
  event.preventDefault();
  act();
});
stage.addEventListener("blur", () => {
  picture.cross = null;
  picture.draw();
});

find("naming").addEventListener("submit", async (event) => {
  event.preventDefault();
  const label = find("label").value.trim();
  await outlining?.catch(() => {});
  name(label);
});
find("label").addEventListener("keydown", (event) => {
  if (event.key !== "Escape") return;
  clear();
  stage.focus();
});
find("reject").addEventListener("click", reject);
find("clear").addEventListener("click", () => {
  clear();
  stage.focus();
});
find("undo").addEventListener("click", undo);
find("pause").addEventListener("click", pause);
find("finish").addEventListener("click", () => line.ask({ type: "finish" }).catch((error) => say(error.message)));
find("show-help").addEventListener("click", () => find("help").showModal());
find("close-help").addEventListener("click", () => find("help").close());
