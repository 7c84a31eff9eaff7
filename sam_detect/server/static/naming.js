// The names that the library knows, with their keys and colours; the field in which a name is typed;
// and what a new user does first.

import { asJson } from "./api.js";
import { at, kept, made, say } from "./dom.js";

const STARTED = "was started";
const PLACES = "places of names"; // in a library
const KEYS = 9;
// They differ from each other, from unknown outlines and from what is selected, also with colour blindness, and show on the dark line below them.
const COLOURS = ["#4aa8ff", "#d66919", "#76fef6", "#8e6ffb", "#caf59f", "#eda9a8", "#5f9b7b", "#ffffff", "#a3cffd"];

export class Names {
  /**
   * @param page {name(label): gives what is selected this name, library(): its name}
   */
  constructor(page) {
    this.page = page;
    this.labels = [];
    this.places = [];
    this.counts = new Map();
    this.touched = false; // the field was clicked on, or something was typed
    this.mouse = false; // it selected last
    at("close-start").addEventListener("click", () => this.started());
    const field = at("label");
    field.addEventListener("input", () => { this.touched = true; });
    field.addEventListener("pointerdown", () => {
      this.touched = true;
      if (document.activeElement !== field) field.addEventListener("click", () => field.select(), { once: true });
    });
  }

  async load() {
    const { labels } = await asJson("api/labels");
    this.loaded = true;
    this.counts = new Map(labels.map(({ label, examples }) => [label, examples]));
    labels.forEach(({ label }) => this.placeOf(label));
    this.labels = this.places.filter((label) => this.counts.has(label));
    at("labels").replaceChildren(...this.labels.map((label) => made("option", { value: label })));
    at("label-keys").replaceChildren(...this.labels.filter((label) => this.placeOf(label) < KEYS).map((label) => {
      const colour = made("span", { className: "colour", ariaHidden: "true" });
      colour.style.backgroundColor = this.colourOf(label);
      const button = made(
        "button", { type: "button", title: label },
        made("kbd", { textContent: this.placeOf(label) + 1 }), colour,
        made("span", { className: "name", textContent: label }), made("small", { textContent: `(${this.counts.get(label)})` }),
      );
      button.addEventListener("click", () => this.page.name(label));
      return made("li", {}, button);
    }));
    this.showStart();
  }

  /** The place of a name, from 0: its key and its colour. It stays the same, also after a reload; only that of a name that the library no longer has is given away. */
  placeOf(label) {
    const key = `${PLACES} ${this.page.library()}`;
    if (!this.places.length) this.places = kept.get(key, []);
    if (!this.places.includes(label)) {
      const free = !this.loaded ? -1 : this.places.findIndex((each) => !this.counts.has(each));
      this.places[free < 0 ? this.places.length : free] = label;
      if (!this.counts.has(label)) this.counts.set(label, 0);
      kept.set(key, this.places);
    }
    return this.places.indexOf(label);
  }

  colourOf(label) { return COLOURS[this.placeOf(label) % COLOURS.length]; }

  /** The name with a key, 1 to 9; undefined where there is none. */
  ofKey(key) {
    const label = this.places[key - 1];
    return this.counts.has(label) ? label : undefined;
  }

  // -- the field ---------------------------------------------------------------------------------

  get typed() { return at("label").value.trim(); }

  /** Whether nothing was typed yet: then digits, Enter and Delete are keys of the page. */
  get fresh() { return !this.touched && !at("label").value; }

  /** Letters go to the field now. With the mouse at once, so that they may be composed. */
  ready() {
    const free = [document.body, at("shapes"), at("label")].includes(document.activeElement);
    if (this.mouse && free) at("label").focus({ preventScroll: true });
  }

  /** Keys are those of the page again. */
  leave() {
    if (document.activeElement === at("label") && !this.typed) at("shapes").focus({ preventScroll: true });
  }

  /** Empties the field. */
  clear() {
    at("label").value = "";
    this.touched = false;
    at("label").dispatchEvent(new Event("change"));
  }

  /** Empties the field for another object; what was typed for the last one is not given to it. */
  begin() {
    if (this.typed) say(`“${this.typed}” was given to nothing: press Enter after a name`);
    this.clear();
  }

  // -- the first steps -----------------------------------------------------------------------------

  /** Which of the first steps comes now. */
  showStart(selected = this.selected) {
    this.selected = selected;
    at("start").hidden = kept.get(STARTED, false);
    const step = this.labels.length && !selected ? 2 : selected ? 1 : 0;
    [...at("start").querySelectorAll("li")].forEach((item, index) => {
      if (index === step) item.setAttribute("aria-current", "step");
      else item.removeAttribute("aria-current");
    });
  }

  /** The user knows how it goes. */
  started() {
    kept.set(STARTED, true);
    at("start").hidden = true;
  }
}
