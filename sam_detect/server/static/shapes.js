// The outlines of a picture: which one is at a point, and how they are drawn. Ten thousand are drawn
// in time because those of a part of the picture are one path, and tiny ones are boxes.

const CELLS = 16; // of a grid over the picture, on each side
const TINY_PX = 5;
const NAMED_PX = 56; // objects that are shown smaller carry no name
const MOST_NAMES = 120;

const area = (object) => object.bbox_xywh[2] * object.bbox_xywh[3];

export function styleOf(object) {
  if (object.taught) return "taught";
  return object.label === null ? "unknown" : "suggested";
}

function pathOf(rings) {
  const path = new Path2D();
  for (const ring of rings) {
    ring.forEach(([x, y], index) => (index ? path.lineTo(x, y) : path.moveTo(x, y)));
    path.closePath();
  }
  return path;
}

export class Shapes {
  constructor() { this.set([], 1, 1); }

  /** Other objects, of a picture of this size in pixels. */
  set(objects, width, height) {
    [this.width, this.height] = [width, height];
    this.byId = new Map(objects.map((object) => [object.id, object]));
    // The smallest first: what lies inside of another can be clicked.
    this.objects = [...objects].sort((one, other) => area(one) - area(other));
    this.paths = new Map(objects.map((object) => [object.id, pathOf(object.rings)]));
    this.cells = new Map();
    for (const object of this.objects) {
      const [x, y, w, h] = object.bbox_xywh;
      // Drawn with the cell of its middle; found in all that it touches.
      this.cell(x + w / 2, y + h / 2).drawn.push(object);
      const [left, top] = this.place(x, y);
      const [right, bottom] = this.place(x + w, y + h);
      for (let row = top; row <= bottom; row += 1) {
        for (let column = left; column <= right; column += 1) this.at(column, row).touching.push(object);
      }
    }
    for (const cell of this.cells.values()) {
      for (const object of cell.drawn) {
        const [x, y, w, h] = object.bbox_xywh;
        cell.box = [Math.min(cell.box[0], x), Math.min(cell.box[1], y), Math.max(cell.box[2], x + w), Math.max(cell.box[3], y + h)];
        (cell.paths[styleOf(object)] ??= new Path2D()).addPath(this.paths.get(object.id));
      }
      const sides = cell.drawn.map((object) => Math.max(object.bbox_xywh[2], object.bbox_xywh[3]));
      cell.side = Math.max(0, ...sides);
    }
  }

  place(x, y) {
    const clip = (value) => Math.max(0, Math.min(CELLS - 1, Math.floor(value)));
    return [clip((x / this.width) * CELLS), clip((y / this.height) * CELLS)];
  }

  at(column, row) {
    const key = row * CELLS + column;
    if (!this.cells.has(key)) this.cells.set(key, { drawn: [], touching: [], paths: {}, box: [Infinity, Infinity, -Infinity, -Infinity] });
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
      return near && context.isPointInPath(this.paths.get(object.id), x, y, "evenodd");
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
   * Draws what is visible.
   * @param view {scale, x, y, width, height}: of the picture on the canvas, in its pixels.
   * @param marks {selected: Set, hovered, dimmed}: ids; those below a confidence are dimmed.
   */
  draw(context, view, colours, marks) {
    const { scale, x, y, width, height } = view;
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, width, height);
    context.setTransform(scale, 0, 0, scale, x, y);
    const seen = [-x / scale, -y / scale, (width - x) / scale, (height - y) / scale];
    const visible = [...this.cells.values()].filter(({ drawn, box }) => drawn.length && box[0] < seen[2] && box[1] < seen[3] && box[2] > seen[0] && box[3] > seen[1]);
    context.lineJoin = "round";
    for (const style of ["unknown", "suggested", "taught"]) {
      context.strokeStyle = colours[style];
      context.fillStyle = colours[style];
      context.lineWidth = (style === "taught" ? 3 : style === "suggested" ? 2 : 1.25) / scale;
      for (const cell of visible) {
        if (cell.side * scale < TINY_PX) {
          for (const object of cell.drawn) if (styleOf(object) === style) context.fillRect(...object.bbox_xywh);
        } else if (cell.paths[style]) {
          context.stroke(cell.paths[style]);
        }
      }
    }
    context.lineWidth = 4 / scale;
    context.strokeStyle = colours.selected;
    context.fillStyle = colours.wash;
    for (const id of marks.selected) {
      const path = this.paths.get(id);
      if (!path) continue;
      context.fill(path, "evenodd");
      context.stroke(path);
    }
    if (marks.hovered && this.paths.has(marks.hovered)) {
      context.fillStyle = colours.wash;
      context.fill(this.paths.get(marks.hovered), "evenodd");
    }
    this.drawNames(context, view, colours, visible);
  }

  drawNames(context, { scale, x, y }, colours, visible) {
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.font = `600 ${Math.round(12 * devicePixelRatio)}px system-ui, sans-serif`;
    context.textBaseline = "top";
    let left = MOST_NAMES;
    for (const cell of visible) {
      if (cell.side * scale < NAMED_PX * devicePixelRatio) continue;
      for (const object of cell.drawn) {
        const [ox, oy, w] = object.bbox_xywh;
        if (object.label === null || w * scale < NAMED_PX * devicePixelRatio) continue;
        if (!left) return;
        left -= 1;
        const text = object.taught ? object.label : `${object.label} ${Math.round(100 * object.confidence)} %`;
        const [tx, ty] = [ox * scale + x, oy * scale + y];
        const wide = Math.min(context.measureText(text).width, Math.max(w * scale, 60)) + 6;
        context.fillStyle = colours.ground;
        context.fillRect(tx, ty, wide, 16 * devicePixelRatio);
        context.fillStyle = colours.text;
        context.fillText(text, tx + 3, ty + 2, wide - 6);
      }
    }
  }
}
