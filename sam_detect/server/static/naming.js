// The names that the library knows, with their keys, and what a new user does first.

import { asJson } from "./api.js";
import { at, kept, made } from "./dom.js";

const STARTED = "was started";

export class Names {
  /** @param name (label): gives what is selected this name. */
  constructor(name) {
    this.name = name;
    this.labels = [];
    at("close-start").addEventListener("click", () => this.started());
  }

  async load() {
    const { labels } = await asJson("api/labels");
    this.labels = labels.map(({ label }) => label);
    at("labels").replaceChildren(...this.labels.map((label) => made("option", { value: label })));
    at("label-keys").replaceChildren(...labels.slice(0, 9).map(({ label, examples }, index) => {
      const button = made(
        "button", { type: "button", title: label },
        made("kbd", { textContent: index + 1 }), made("span", { className: "name", textContent: label }), made("small", { textContent: `(${examples})` }),
      );
      button.addEventListener("click", () => this.name(label));
      return made("li", {}, button);
    }));
    this.showStart();
  }

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
