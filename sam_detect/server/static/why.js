// Why an object has its name, or none: the examples it is most like, and, where the user wants them,
// the terms that decided, with their numbers.

import { asJson, asUrl } from "./api.js";
import { at, kept, made, trying } from "./dom.js";

const OPEN = "reasons are open";
const percent = (share) => `${Math.round(100 * share)}\u00a0%`;
const signed = (number) => `${number < 0 ? "−" : "+"}${Math.abs(number).toFixed(2)}`;
const fixed = (number) => number.toFixed(2);

/** What the decision was, in words. */
const DECISIONS = {
  "taught here": () => "You named this outline.",
  "corrected here": (of) => `You said that this outline is not ${of.best_label ?? "this"}.`,
  "other size": () => "Far larger or smaller than every example: it was not compared.",
  unlike: () => "Its pixels are not like those of any example, or no more so than what is around it: it was not compared.",
  label: (of, why) => `${percent(why.confidence)} sure that it is ${of.label}. A name needs ${percent(why.threshold)}.`,
  "below threshold": (of, why) => (of.best_label
    ? `Only ${percent(why.confidence)} sure that it is ${of.best_label}. A name needs ${percent(why.threshold)}.`
    : "No example has a name yet."),
};

const votesOf = (why) => Object.entries(why.votes).slice(0, 3).map(([label, share]) => `${label} ${percent(share)}`).join(", ");

/** Each term of the sum, in the order of docs/labelling.md: its title, and what it was made from. */
const TERMS = {
  similarity: ["Vote of the most similar examples", votesOf],
  one_image: ["All examples are from one picture", () => "new objects are a little less like them"],
  hard_negatives: ["More like the examples than like what is not one", (why) => {
    const nearest = why.nearest_is_background ? "background of an example's picture" : "regions around the examples";
    return `similarity ${fixed(why.similarity ?? 0)} to the examples, ${fixed(why.hard_negative ?? 0)} to ${nearest}`;
  }],
  area: ["Size, compared with the examples", () => ""],
  quality: ["How clear the outline is", (why) => (why.quality === null ? "" : `${fixed(why.quality)}, examples have ${fixed(why.typical_quality ?? 0)}`)],
  image_quality: ["How clear outlines are in this picture", () => ""],
  few_examples: ["There are few examples", () => "it makes the decision less sure"],
};

function row(title, detail, value) {
  const head = made("th", { scope: "row", textContent: title });
  if (detail) head.append(made("small", { textContent: detail }));
  return made("tr", {}, head, made("td", { textContent: value }));
}

/** The rows of the table: the terms that decided, and what became of them. */
function rowsOf(why) {
  const rows = [];
  const terms = Object.entries(why.log_odds);
  if (why.similarity !== null) {
    const half = why.half_similarity === null ? "" : `at ${fixed(why.half_similarity)} it is as likely as not`;
    rows.push(row("Similarity to the examples", half, fixed(why.similarity)));
  }
  for (const [name, value] of terms) {
    const [title, detail] = TERMS[name] ?? [name, () => ""];
    rows.push(row(title, detail(why), signed(value)));
  }
  if (terms.length) rows.push(row("Sum (above 0 speaks for the name)", "", signed(terms.reduce((sum, [, value]) => sum + value, 0))));
  else if (Object.keys(why.votes).length) {
    rows.push(row(TERMS.similarity[0], votesOf(why), percent(Math.max(...Object.values(why.votes)))));
    if (why.calibrated !== null) rows.push(row("Similar enough", "compared with the examples among themselves", percent(why.calibrated)));
    if (why.quality !== null) rows.push(row("How clear the outline is", "", fixed(why.quality)));
  }
  if (why.negative_factor < 1) rows.push(row("Near to what you said it is not", "this much of the confidence is left", percent(why.negative_factor)));
  const weights = Object.entries(why.part_weights);
  if (weights.length) {
    const shares = weights.map(([name, weight]) => `${name} ${percent(weight)}`).join(", ");
    const near = Object.entries(why.part_similarities).map(([name, value]) => `${name} ${fixed(value)}`).join(", ");
    rows.push(row("What counts as similar", near ? `${shares}; here: ${near}` : shares, ""));
  }
  if (why.suppressed_count) {
    const shown = why.suppressed.map((each) => `${each.best_label ?? "unknown"} ${percent(each.confidence)}`).join(", ");
    rows.push(row("Other outlines of this place, which gave way", shown, String(why.suppressed_count)));
  }
  return rows;
}

/** What an object is, in a line. */
export function describe(object) {
  if (!object.label) return object.best_label ? `unknown, nearest is ${object.best_label}` : "unknown";
  return object.taught ? `${object.label}, named by you` : `${object.label}, ${Math.round(100 * object.confidence)} %`;
}

export class Why {
  /** @param picture (): number of the shown picture. */
  constructor(picture) {
    this.picture = picture;
    this.object = null;
    at("reasons").open = kept.get(OPEN, false);
    at("reasons").addEventListener("toggle", () => {
      kept.set(OPEN, at("reasons").open);
      trying(() => this.explain());
    });
  }

  /** Shows why an object has its name; null shows nothing. */
  async show(object, words) {
    this.object = object;
    at("why").hidden = !object;
    if (!object) return;
    const figures = Promise.all(object.neighbours.map((near) => this.figure(near)));
    const shown = [this.explain(), figures.then((all) => {
      if (this.object !== object) return;
      at("why-title").textContent = words;
      at("nearest").replaceChildren(...all);
      at("nearest").hidden = !all.length;
    })];
    await Promise.all(shown);
  }

  async figure(near) {
    const image = made("img", { alt: "" });
    const url = await asUrl(`api/examples/${near.id}/thumbnail`).catch(() => null);
    if (url) { image.src = url; image.onload = () => URL.revokeObjectURL(url); }
    const text = `${near.negative ? "not " : ""}${near.label} ${fixed(near.similarity)}`;
    return made("figure", {}, image, made("figcaption", { textContent: text, title: text }));
  }

  /** Fills the table, where it is open. */
  async explain() {
    const { object } = this;
    if (!object || !at("reasons").open) return;
    const found = await asJson(`api/pictures/${this.picture()}/objects/${object.id}/explanation`);
    if (this.object !== object) return;
    const why = found.explanation;
    at("decision").textContent = (DECISIONS[why.decision] ?? (() => why.decision))(found, why);
    at("terms").replaceChildren(...rowsOf(why));
  }
}
