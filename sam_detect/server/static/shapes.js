// The outlines of a picture: which one is at a point, and how they are drawn. Ten thousand are drawn
// in time because those of a part of the picture are one path, in no more detail than the screen can
// show, with hairlines where objects are small; tiny ones are boxes. What follows the pointer is drawn
// by itself, on a canvas above. Each label has its colour; a dark line below it shows on any picture.

import { placed } from "./tags.js";

const CELLS = 16; // of a grid over the picture, on each side
const TINY_PX = 5;
const SMALL_PX = 28; // of objects that are shown smaller, a line of full width would hide too much
const CLOSE_PX = 0.2; // to this outlines are simplified, in pixels of the canvas; twice that at most
const LONGEST_NAME_PX = 160; // of any object; a larger object shows more
const TAG_PX = 17; // the height of a name
const MOST_NAMES = 120;
const MOST_SEEN = 500; // objects; where more are seen, small ones carry no name
const MOST_COVERED = 0.3; // of the picture, by names; where more are seen, those that fit on their objects are shown
const STYLES = ["unknown", "doubtful", "suggested", "taught"];
const WIDTHS = { unknown: 1.25, doubtful: 2, suggested: 2, taught: 4 };
const DARK = "rgb(16 18 23 / .88)";
const WHITE = "#ffffff";
const DASHES_PX = [6, 4]; // of suggestions that would not be accepted

const area = (object) => object.bbox_xywh[2] * object.bbox_xywh[3];

function styleOf(object, least) {
  if (object.taught) return "taught";
  if (object.label === null) return "unknown";
  return object.confidence < least ? "doubtful" : "suggested";
}

/** The colour of an object's outline; `colours.of` has those of labels. */
function colourOf({ label, taught }, colours) {
  if (label === null) return colours.unnamed;
  return colours.of?.(label) ?? colours[taught ? "taught" : "suggested"];
}

/** A closed ring with fewer points, none farther than `close` from it (Douglas and Peucker 1973). */
export function simplified(ring, close) {
  if (ring.length < 5) return ring;
  const keep = new Uint8Array(ring.length);
  const [x0, y0] = ring[0];
  let far = 0;
  let most = -1;
  ring.forEach(([x, y], index) => {
    const away = (x - x0) ** 2 + (y - y0) ** 2;
    if (away > most) [far, most] = [index, away];
  });
  keep[0] = keep[far] = 1;
  const parts = [[0, far], [far, ring.length]];
  while (parts.length) {
    const [from, to] = parts.pop();
    const [ax, ay] = ring[from];
    const [bx, by] = ring[to % ring.length];
    const [dx, dy] = [bx - ax, by - ay];
    const length = Math.hypot(dx, dy);
    let worst = close;
    let at = -1;
    for (let index = from + 1; index < to; index += 1) {
      const [x, y] = ring[index];
      const away = length ? Math.abs((x - ax) * dy - (y - ay) * dx) / length : Math.hypot(x - ax, y - ay);
      if (away > worst) [worst, at] = [away, index];
    }
    if (at > 0) {
      keep[at] = 1;
      parts.push([from, at], [at, to]);
    }
  }
  return ring.filter((_, index) => keep[index]);
}

function trace(path, rings) {
  for (const ring of rings) {
    ring.forEach(([x, y], index) => (index ? path.lineTo(x, y) : path.moveTo(x, y)));
    path.closePath();
  }
  return path;
}

/** A text, or as much of its beginning as has room. */
function fitted(context, text, room) {
  if (context.measureText(text).width <= room) return text;
  let length = Math.max(1, Math.floor((text.length * room) / context.measureText(text).width));
  while (length > 1 && context.measureText(`${text.slice(0, length)}…`).width > room) length -= 1;
  return `${text.slice(0, length)}…`;
}

export class Shapes {
  constructor() {
    this.least = 0;
    this.set([], 1, 1);
  }

  /** Suggestions that are less sure are dashed. */
  setLeast(least) {
    for (const cell of this.cells.values()) {
      if (cell.drawn.some((object) => styleOf(object, least) !== styleOf(object, this.least))) cell.levels.clear();
    }
    this.least = least;
  }

  /** Other objects, of a picture of this size in pixels. */
  set(objects, width, height) {
    [this.width, this.height] = [width, height];
    this.byId = new Map(objects.map((object) => [object.id, object]));
    // The smallest first: what lies inside of another can be clicked.
    this.objects = [...objects].sort((one, other) => area(one) - area(other));
    this.paths = new Map();
    this.texts = new Map();
    this.named = new Set(); // ids of the objects whose names are written
    this.cells = new Map();
    for (const object of this.objects) {
      const [x, y, w, h] = object.bbox_xywh;
      // Drawn with the cell of its middle; found in all that it touches.
      const cell = this.cell(x + w / 2, y + h / 2);
      cell.drawn.push(object);
      cell.side = Math.max(cell.side, w, h);
      const { box } = cell;
      [box[0], box[1]] = [Math.min(box[0], x), Math.min(box[1], y)];
      [box[2], box[3]] = [Math.max(box[2], x + w), Math.max(box[3], y + h)];
      const [left, top] = this.place(x, y);
      const [right, bottom] = this.place(x + w, y + h);
      for (let row = top; row <= bottom; row += 1) {
        for (let column = left; column <= right; column += 1) this.at(column, row).touching.push(object);
      }
    }
  }

  /** The whole outline of an object. */
  path(object) {
    if (!this.paths.has(object.id)) this.paths.set(object.id, trace(new Path2D(), object.rings));
    return this.paths.get(object.id);
  }

  /** What a cell draws, by style and colour; made once for each doubling of the scale. */
  outlines(cell, scale, colours) {
    const level = Math.floor(Math.log2(scale));
    if (!cell.levels.has(level)) {
      const paths = {};
      for (const object of cell.drawn) {
        const rings = object.rings.map((ring) => simplified(ring, CLOSE_PX / 2 ** level));
        const ofStyle = (paths[styleOf(object, this.least)] ??= {});
        trace((ofStyle[colourOf(object, colours)] ??= new Path2D()), rings);
      }
      cell.levels.set(level, paths);
    }
    return cell.levels.get(level);
  }

  place(x, y) {
    const clip = (value) => Math.max(0, Math.min(CELLS - 1, Math.floor(value)));
    return [clip((x / this.width) * CELLS), clip((y / this.height) * CELLS)];
  }

  at(column, row) {
    const key = row * CELLS + column;
    if (!this.cells.has(key)) this.cells.set(key, { drawn: [], touching: [], side: 0, levels: new Map(), box: [Infinity, Infinity, -Infinity, -Infinity] });
    return this.cells.get(key);
  }

  cell(x, y) { return this.at(...this.place(x, y)); }

  /** The smallest object at a point of the picture, or null. */
  hit(context, x, y) {
    if (x < 0 || y < 0 || x >= this.width || y >= this.height) return null;
    context.save();
    context.setTransform(1, 0, 0, 1, 0, 0);
    const found = this.cell(x, y).touching.find((object) => {
      const [left, top, w, h] = object.bbox_xywh;
      const near = x >= left && y >= top && x <= left + w && y <= top + h;
      return near && context.isPointInPath(this.path(object), x, y, "evenodd");
    });
    context.restore();
    return found ?? null;
  }

  /** Objects whose middle lies in a box of the picture. */
  inside(x0, y0, x1, y1) {
    return this.objects.filter((object) => {
      const [x, y, w, h] = object.bbox_xywh;
      return x + w / 2 >= x0 && x + w / 2 <= x1 && y + h / 2 >= y0 && y + h / 2 <= y1;
    });
  }

  /** The nearest object in a direction, for the arrow keys. */
  next(from, dx, dy) {
    const middle = ({ bbox_xywh: [x, y, w, h] }) => [x + w / 2, y + h / 2];
    const start = from ? middle(from) : [dx > 0 ? 0 : this.width * (dx < 0), dy > 0 ? 0 : this.height * (dy < 0)];
    let best = null;
    let least = Infinity;
    for (const object of this.objects) {
      if (object === from) continue;
      const [x, y] = middle(object);
      const along = (x - start[0]) * dx + (y - start[1]) * dy;
      const across = Math.abs((x - start[0]) * dy) + Math.abs((y - start[1]) * dx);
      if (along > 0 && along + 2 * across < least) [best, least] = [object, along + 2 * across];
    }
    return best;
  }

  /**
   * Draws the outlines and names that are visible.
   * @param view {scale, x, y, width, height}: of the picture on the canvas, in its pixels.
   */
  draw(context, view, colours) {
    const { scale, x, y, width, height } = view;
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, width, height);
    context.setTransform(scale, 0, 0, scale, x, y);
    const seen = [-x / scale, -y / scale, (width - x) / scale, (height - y) / scale];
    const visible = [...this.cells.values()].filter(({ drawn, box }) => drawn.length && box[0] < seen[2] && box[1] < seen[3] && box[2] > seen[0] && box[3] > seen[1]);
    context.lineJoin = "bevel"; // at an outline's many corners a round one looks the same
    for (const style of STYLES) {
      for (const cell of visible) {
        if (cell.side * scale < TINY_PX) {
          for (const object of cell.drawn) {
            if (styleOf(object, this.least) !== style) continue;
            context.fillStyle = colourOf(object, colours);
            context.fillRect(...object.bbox_xywh);
          }
          continue;
        }
        const small = cell.side * scale < SMALL_PX * devicePixelRatio;
        context.setLineDash(style === "doubtful" && !small ? DASHES_PX.map((length) => (length * devicePixelRatio) / scale) : []);
        for (const [colour, path] of Object.entries(this.outlines(cell, scale, colours)[style] ?? {})) {
          if (!small) {
            context.strokeStyle = DARK;
            context.lineWidth = ((WIDTHS[style] + (style === "unknown" ? 0.75 : 1.5)) * devicePixelRatio) / scale;
            context.stroke(path);
          }
          context.strokeStyle = colour;
          context.lineWidth = (small ? 1 : WIDTHS[style] * devicePixelRatio) / scale;
          context.stroke(path);
        }
      }
    }
    context.setLineDash([]);
    this.drawNames(context, view, colours, visible);
  }

  /**
   * Draws what is selected and pointed at, above the outlines.
   * @param marks {selected: Set, hovered}: ids.
   */
  drawMarks(context, view, colours, marks) {
    const { scale, x, y, width, height } = view;
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, width, height);
    context.setTransform(scale, 0, 0, scale, x, y);
    context.lineWidth = (4 * devicePixelRatio) / scale;
    context.strokeStyle = colours.selected;
    context.fillStyle = colours.wash;
    for (const id of marks.selected) {
      const object = this.byId.get(id);
      if (!object) continue;
      context.fill(this.path(object), "evenodd");
      context.stroke(this.path(object));
    }
    const hovered = this.byId.get(marks.hovered);
    if (!hovered) return;
    context.fill(this.path(hovered), "evenodd");
    this.drawName(context, hovered, view, colours);
  }

  /** The name of an object as it is written, with its width. */
  written(context, object, room) {
    const px = devicePixelRatio;
    const [before, after] = object.taught ? ["✓ ", ""] : ["", ` ${Math.round(100 * object.confidence)} %`];
    const key = [before, object.label, after, Math.round(room)].join();
    if (!this.texts.has(key)) {
      const text = before + fitted(context, object.label, room - context.measureText(before + after).width) + after;
      this.texts.set(key, { text, wide: Math.ceil(context.measureText(text).width + 14 * px) });
    }
    return this.texts.get(key);
  }

  drawNames(context, { scale, x, y, width, height }, colours, visible) {
    context.setTransform(1, 0, 0, 1, 0, 0);
    this.named = new Set();
    const px = devicePixelRatio;
    context.font = fontOf(px);
    const [high, names] = [TAG_PX * px, []];
    const crowded = visible.reduce((sum, { drawn }) => sum + drawn.length, 0) > MOST_SEEN;
    let covered = 0;
    for (const cell of visible) {
      if (crowded && cell.side * scale < SMALL_PX * px) continue;
      for (const object of cell.drawn) {
        const [ox, oy, w, h] = object.bbox_xywh;
        const box = [ox * scale + x, oy * scale + y, w * scale, h * scale];
        if (object.label === null || box[0] > width || box[1] > height || box[0] + box[2] < 0 || box[1] + box[3] < 0) continue;
        const written = this.written(context, object, Math.max(box[2], LONGEST_NAME_PX * px));
        names.push({ object, box, ...written });
        covered += written.wide * high;
      }
    }
    const few = covered < MOST_COVERED * width * height;
    const shown = few ? names : names.filter(({ box, wide }) => box[2] >= wide && box[3] >= 2 * high).slice(-MOST_NAMES);
    shown.sort((one, other) => one.box[2] * one.box[3] - other.box[2] * other.box[3]);
    const tags = placed(shown, high, width, height).map((place, index) => ({ ...shown[index], place })).filter(({ place }) => place);
    for (const { object, box, place } of tags) if (place.line) drawLine(context, place.box, box, colourOf(object, colours), px);
    for (const { object, text, place } of tags) {
      this.named.add(object.id);
      drawTag(context, text, place.box, colourOf(object, colours), px);
    }
  }

  /** The name of an object that is pointed at, where it is not written anyway. */
  drawName(context, object, { scale, x, y, width, height }, colours) {
    if (object.label === null || this.named.has(object.id)) return;
    const px = devicePixelRatio;
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.font = fontOf(px);
    const [ox, oy, w, h] = object.bbox_xywh;
    const box = [ox * scale + x, oy * scale + y, w * scale, h * scale];
    const { text, wide } = this.written(context, object, LONGEST_NAME_PX * px);
    const [place] = placed([{ box, wide }], TAG_PX * px, width, height);
    if (place) drawTag(context, text, place.box, colourOf(object, colours), px);
  }
}

const fontOf = (px) => `600 ${Math.round(12 * px)}px system-ui, sans-serif`;

/** A name, with the colour of its label. */
function drawTag(context, text, [x, y, wide, high], colour, px) {
  context.fillStyle = DARK;
  context.fillRect(x, y, wide, high);
  context.fillStyle = colour;
  context.fillRect(x, y, 5 * px, high);
  context.fillStyle = WHITE;
  context.textBaseline = "middle";
  context.fillText(text, x + 9 * px, y + high / 2 + px / 2);
}

/** A line from a name to its object. */
function drawLine(context, [x, y, wide, high], [ox, oy, w, h], colour, px) {
  const [toX, toY] = [ox + w / 2, oy + h / 2];
  const from = [Math.max(x, Math.min(toX, x + wide)), Math.max(y, Math.min(toY, y + high))];
  for (const [style, line, dot] of [[DARK, 3.5, 4], [colour, 1.5, 2.5]]) {
    context.strokeStyle = context.fillStyle = style;
    context.lineWidth = line * px;
    context.beginPath();
    context.moveTo(...from);
    context.lineTo(toX, toY);
    context.stroke();
    context.beginPath();
    context.arc(toX, toY, dot * px, 0, 2 * Math.PI);
    context.fill();
  }
}
