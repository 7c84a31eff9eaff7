// The pictures of the folder: which one is next, and how many are finished.

import { asJson } from "./api.js";
import { at } from "./dom.js";

export class Queue {
  constructor() {
    this.pictures = [];
    this.order = [];
  }

  get policy() { return at("policy").value; }

  async load() {
    const found = await asJson(`api/pictures?policy=${this.policy}`);
    Object.assign(this, { pictures: found.pictures, order: found.order });
    const there = this.there();
    const finished = there.filter((picture) => picture.finished).length;
    at("progress").max = Math.max(1, there.length);
    at("progress").value = finished;
    at("progress-text").textContent = `${finished} of ${there.length} finished`;
  }

  there() { return this.pictures.filter((picture) => !picture.missing); }

  /** In which order "next" and "previous" go: as on disk, or as the policy says. */
  walk() { return this.policy === "folder" ? this.there().map((picture) => picture.id) : this.order; }

  /** The picture so many places from another; undefined where there is none. */
  step(from, by) {
    const walk = this.walk();
    return walk[walk.indexOf(from) + by];
  }

  /** The next picture that is not finished; undefined where all are. */
  unfinished(from) {
    const place = this.order.indexOf(from);
    const around = [...this.order.slice(place + 1), ...this.order.slice(0, place + 1)];
    return around.find((number) => !this.pictures[number].finished);
  }

  /** Where a picture is on the disk: "3 of 11". */
  placeOf(number) {
    const there = this.there();
    const place = there.findIndex((picture) => picture.id === number) + 1;
    return place ? `${place} of ${there.length}` : "";
  }

  /** The number that a picture has now; it may be another one after the server was started again. */
  numberOf({ number, name }) {
    if (this.pictures[number]?.name === name) return number;
    return this.pictures.find((picture) => picture.name === name)?.id ?? null;
  }
}
