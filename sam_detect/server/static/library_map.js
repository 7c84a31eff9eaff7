// The map of the library page: the vectors of the examples in two dimensions.

import { at } from "./dom.js";

const SHAPES = ["●", "■", "▲", "◆"];

/** The mark of a label, by its place in the list: labels are not told apart by colour alone. */
export const shapeOf = (index) => SHAPES[(index + Math.floor(index / 8)) % 4];

export class LibraryMap {
  /** @param page {labels(): in their order, shown(): the label that is shown, selected(): ids, choose(id)} */
  constructor(page) {
    this.page = page;
    this.points = null;
    this.places = [];
    this.pointed = -1;
    const canvas = at("map");
    canvas.addEventListener("mousemove", (event) => this.point(this.nearest(event.offsetX, event.offsetY)));
    canvas.addEventListener("click", (event) => this.choose(this.nearest(event.offsetX, event.offsetY)));
    canvas.addEventListener("keydown", (event) => this.press(event));
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
    new ResizeObserver(() => this.draw()).observe(canvas);
  }

  choose(index) { if (index >= 0) this.page.choose(this.points.ids[index]); }

  draw() {
    const canvas = at("map"), size = canvas.clientWidth;
    if (!this.points || !size) return;
    const [shown, selected] = [this.page.shown(), this.page.selected()];
    const scale = window.devicePixelRatio || 1;
    canvas.width = canvas.height = Math.round(size * scale);
    const paint = canvas.getContext("2d");
    paint.scale(scale, scale);
    const numbers = new Map(this.page.labels().map((label, index) => [label, index]));
    const colours = [...at("label-list").querySelectorAll("span[aria-hidden]")].map((each) => getComputedStyle(each).color);
    const [ring, text] = [getComputedStyle(at("to-pictures")).color, getComputedStyle(document.body).color];
    const { ids, labels, negatives, x, y } = this.points;
    const half = size / 2, reach = half - 12;
    this.places = ids.map((_, index) => [half + reach * x[index], half - reach * y[index]]);
    const side = ids.length > 1000 ? 2.5 : 4;
    for (const [index, [left, top]] of this.places.entries()) {
      const number = numbers.get(labels[index]) ?? 0;
      paint.globalAlpha = labels[index] === shown ? 1 : 0.6;
      paint.fillStyle = paint.strokeStyle = colours[number] ?? text;
      mark(paint, shapeOf(number), left, top, side);
      if (negatives[index]) paint.stroke(); else paint.fill();
    }
    paint.globalAlpha = 1;
    for (const [index, [left, top]] of this.places.entries()) {
      if (!selected.has(ids[index]) && index !== this.pointed) continue;
      paint.strokeStyle = index === this.pointed ? text : ring;
      paint.lineWidth = 2;
      mark(paint, "●", left, top, side + 3);
      paint.stroke();
    }
    canvas.setAttribute("aria-busy", "false");
  }

  /** The point nearest to a place, among those that `may` allows. */
  nearest(left, top, may = () => true) {
    let best = -1, least = Infinity;
    for (const [index, [x, y]] of this.places.entries()) {
      const far = (x - left) ** 2 + (y - top) ** 2;
      if (far < least && may(x - left, y - top, index)) [best, least] = [index, far];
    }
    return best;
  }

  point(index) {
    this.pointed = index;
    if (index >= 0) at("map-point").textContent = `${this.points.negatives[index] ? "not " : ""}${this.points.labels[index]}`;
    this.draw();
  }

  press(event) {
    const sides = {
      ArrowRight: (x, y) => x > 0 && x >= Math.abs(y), ArrowLeft: (x, y) => x < 0 && -x >= Math.abs(y),
      ArrowDown: (x, y) => y > 0 && y >= Math.abs(x), ArrowUp: (x, y) => y < 0 && -y >= Math.abs(x),
    };
    if (event.key in sides) {
      const [left, top] = this.places[this.pointed] ?? [at("map").clientWidth / 2, at("map").clientWidth / 2];
      const next = this.nearest(left, top, sides[event.key]);
      if (next >= 0) this.point(next);
    } else if (event.key === "Enter" || event.key === " ") this.choose(this.pointed);
    else return;
    event.preventDefault();
  }
}

function mark(paint, shape, x, y, side) {
  paint.beginPath();
  if (shape === "●") paint.arc(x, y, side, 0, 2 * Math.PI);
  else if (shape === "■") paint.rect(x - side, y - side, 2 * side, 2 * side);
  else if (shape === "▲") { paint.moveTo(x, y - 1.3 * side); paint.lineTo(x + 1.2 * side, y + side); paint.lineTo(x - 1.2 * side, y + side); }
  else { paint.moveTo(x, y - 1.4 * side); paint.lineTo(x + 1.4 * side, y); paint.lineTo(x, y + 1.4 * side); paint.lineTo(x - 1.4 * side, y); }
  paint.closePath();
}
