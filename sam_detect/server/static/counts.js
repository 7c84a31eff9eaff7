// How many objects of the picture are named, suggested and unknown, and what comes next.

import { at } from "./dom.js";

export class Counts {
  constructor() { this.objects = []; }

  /** Counts the objects that are shown; what is to be said of them. */
  show(objects) {
    this.objects = objects;
    at("legend").hidden = !objects.length;
    const named = objects.filter((object) => object.label !== null).length;
    const yours = objects.filter((object) => object.taught).length;
    const unknown = objects.length - named;
    at("taught-count").textContent = `${yours} named by you`;
    at("unknown-count").textContent = `show ${unknown} unknown`;
    this.showAccept();
    return `${named} named (${yours} by you), ${unknown} unknown`;
  }

  /** The least confidence at which suggestions are accepted. */
  get least() { return at("threshold").value / 100; }

  /** The suggestions above the slider. */
  acceptable() {
    return this.objects.filter((object) => object.label !== null && !object.taught && object.confidence >= this.least);
  }

  showAccept() {
    const count = this.acceptable().length;
    const doubtful = this.objects.filter((object) => object.label !== null && !object.taught).length - count;
    at("suggested-count").textContent = `${count} suggested`;
    at("doubtful-count").textContent = `${doubtful} less sure than the slider`;
    at("threshold-text").textContent = `${at("threshold").value} %`;
    at("accept-all").firstChild.data = count === 1 ? "Accept 1 suggestion" : `Accept ${count} suggestions`;
    at("accept-all").disabled = !count;
    this.showNext();
  }

  /** Where nothing is selected and nothing left to accept, the picture can be finished. */
  showNext(selected = this.selected) {
    this.selected = selected;
    const ready = !selected && !this.acceptable().length && this.objects.some((object) => object.taught);
    at("finish").classList.toggle("primary", ready);
  }
}
