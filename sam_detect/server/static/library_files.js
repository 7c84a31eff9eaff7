// The files of the library page: exports, and an import that is checked before anything changes.

import { ask, asJson } from "./api.js";
import { at, made, say } from "./dom.js";
import { counted, short } from "./library_words.js";

const API = "api/library";
let upload = null;

async function download(name, file) {
  say("preparing the file …");
  const url = URL.createObjectURL(await (await ask(`${API}/export?name=${encodeURIComponent(name)}`)).blob());
  made("a", { href: url, download: file }).click();
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
  say(`exported ${file}`);
}

function closePlan(files = true) {
  at("plan").hidden = true;
  upload = null;
  if (files) at("import-file").value = "";
}

/** @param page {trying(work), refresh()} */
export function connectFiles(page) {
  at("export-library").addEventListener("click", () => page.trying(() => download("library", `${at("library-name").textContent}.zip`)));
  at("export-annotations").addEventListener("click", () => page.trying(() => download(at("format").value, `${at("library-name").textContent}-${at("format").value}.zip`)));
  at("import-file").addEventListener("change", () => page.trying(async () => {
    const [file] = at("import-file").files;
    closePlan(false);
    if (!file) return;
    say("checking the file …");
    const plan = await asJson(`${API}/uploads`, file);
    upload = plan.upload;
    const labels = Object.entries(plan.classes).map(([label, count]) => `${short(label)} (${count})`).join(", ") || "no labels";
    const parts = [`${file.name} has ${labels}, ${counted(plan.negatives, "negative")}.`, `${counted(plan.added)} would be added, ${plan.known} are here already.`];
    if (plan.conflicts) parts.push(`${counted(plan.conflicts)} contradict the library, such as ${plan.shown_conflicts.slice(0, 3).map((each) => `${short(each.label)} (here ${short(each.own_label)})`).join(", ")}.`);
    at("plan-text").textContent = parts.join(" ");
    at("plan-conflicts").hidden = plan.conflicts === 0;
    at("plan").hidden = false;
    say("nothing was imported yet");
  }));

  at("cancel-import").addEventListener("click", () => { closePlan(); say("nothing was imported"); });
  at("import").addEventListener("click", () => page.trying(async () => {
    const done = await asJson(`${API}/uploads/${upload}`, { conflicts: at("conflicts").value });
    closePlan();
    await page.refresh();
    say(`imported ${counted(done.added)}; the library has ${done.total}`);
  }));
}
