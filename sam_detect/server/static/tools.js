// The tools that make and mend outlines. Each gets the presses, drags and clicks in the picture.

const HELP = {
  select: "",
  points: "Click on the object, or drag a box around it; Alt-click (or right-click) where it is not. Another box, Shift-click or Shift-drag begins the next object. Type a name and press Enter: all are kept under it. Enter alone keeps them without a name; Esc takes back the last click or box.",
  brush: "Paint. With an object selected, the stroke is added to it; else it is a new object. Shift-paint always begins a new one, and keeps the others selected.",
  erase: "Select an object, then wipe away what does not belong to it.",
  reshape: "Select one object. Drag a vertex; click on an edge to add one; Alt-click on a vertex removes it. Enter keeps it, Esc does not.",
  split: "Select one object, then drag a line across it.",
};
const NEAR_PX = 9;
const LEAST_DRAG_PX = 6;
const SAME_BOX = 0.5; // a box that overlaps the last one so much (IoU) is that box, drawn better

const distance = ([x0, y0], [x1, y1]) => Math.hypot(x0 - x1, y0 - y1);

const promptOf = ({ clicks, positive, box }) => ({ points: clicks, positive, box });

/** How far two boxes [x, y, w, h] overlap (IoU). */
function overlap([ax, ay, aw, ah], [bx, by, bw, bh]) {
  const wide = Math.max(0, Math.min(ax + aw, bx + bw) - Math.max(ax, bx));
  const high = Math.max(0, Math.min(ay + ah, by + bh) - Math.max(ay, by));
  return (wide * high) / (aw * ah + bw * bh - wide * high || 1);
}

const within = ([x, y, w, h], [px, py]) => px >= x && py >= y && px <= x + w && py <= y + h;

/** The point of an edge that is nearest to another point, and how far it is. */
function nearestOn([ax, ay], [bx, by], [x, y]) {
  const [dx, dy] = [bx - ax, by - ay];
  const share = Math.max(0, Math.min(1, ((x - ax) * dx + (y - ay) * dy) / (dx * dx + dy * dy || 1)));
  const point = [ax + share * dx, ay + share * dy];
  return [point, distance(point, [x, y])];
}

export class Tools {
  /**
   * @param page {selected(): ids, label(): the name that is typed, begun(): a new object is begun, send(edit, kept): adds what it makes to the kept ids and selects them, preview(edit): rings, rings(id, detail): rings, redraw(), say(text), scale(): pixels of the screen for one of the picture}
   */
  constructor(page) {
    this.page = page;
    this.radius = 8;
    this.sent = [];
    this.choose("select");
  }

  choose(name) {
    this.name = name;
    this.clear();
    if (name === "reshape") this.loadRings();
  }

  get help() { return HELP[this.name]; }

  /** Whether something was begun that can be kept or cancelled. */
  get busy() { return Boolean(this.begun.length || this.changed); }

  /** The object that clicks and boxes are about. */
  get now() { return this.begun.at(-1); }

  clear() {
    Object.assign(this, { begun: [], stroke: [], rings: [], vertex: null, changed: false, asked: (this.asked ?? 0) + 1 });
    this.page.redraw();
  }

  /** Whether the tool takes this press, so that the picture does not move. */
  press(point, event) {
    this.another = ["brush", "points"].includes(this.name) && event.shiftKey;
    if (this.name === "brush" || (this.name === "erase" && this.one("erase"))) {
      this.stroke = [point];
      return true;
    }
    if (this.name === "split" && this.one("split")) {
      this.stroke = [point];
      return true;
    }
    if (this.name === "points" || (this.name === "select" && (event.ctrlKey || event.metaKey))) {
      this.stroke = [point, point];
      return true;
    }
    if (this.name === "reshape" && !event.altKey) {
      this.vertex = this.nearVertex(point) ?? this.addVertex(point);
      return this.vertex !== null;
    }
    return false;
  }

  drag(point) {
    if (["points", "select"].includes(this.name)) this.stroke[1] = point;
    else if (this.vertex) {
      this.rings[this.vertex[0]][this.vertex[1]] = point;
      this.changed = true;
    } else if (!this.stroke.length || distance(point, this.stroke.at(-1)) * this.page.scale() > 1.5) this.stroke.push(point);
    this.page.redraw();
  }

  async release() {
    const { stroke } = this;
    if (this.name === "points") {
      const [[x0, y0], [x1, y1]] = stroke;
      this.stroke = [];
      if (distance(...stroke) * this.page.scale() > LEAST_DRAG_PX) {
        await this.boxed([Math.min(x0, x1), Math.min(y0, y1), Math.abs(x1 - x0), Math.abs(y1 - y0)]);
      }
      return;
    }
    if (this.name === "select") {
      this.stroke = [];
      // A shorter one is a click.
      if (distance(...stroke) * this.page.scale() <= LEAST_DRAG_PX) return;
      await this.send({ tool: "along", points: stroke }, { points: stroke, radius: 0 }, this.page.selected());
      return;
    }
    this.vertex = null;
    if (this.name === "reshape" || !stroke.length) return;
    const kept = this.another ? this.page.selected() : [];
    const objects = this.another ? [] : this.page.selected();
    const radius = this.radius / this.page.scale();
    this.stroke = [];
    await this.send({ tool: this.name, points: stroke, radius, objects }, { points: stroke, radius: this.name === "split" ? 0 : radius }, kept);
  }

  /** Whether a click is for the tool, and does not select. */
  takes(event) { return ["points", "brush"].includes(this.name) || (this.name === "reshape" && (event.altKey || this.changed)); }

  async click(point, event) {
    if (this.name === "points") {
      if (event.shiftKey || !this.begun.length) this.begin();
      this.now.clicks.push(point);
      this.now.positive.push(!(event.altKey || event.button === 2));
      await this.preview();
    } else if (this.name === "reshape" && event.altKey) {
      const near = this.nearVertex(point);
      if (near && this.rings[near[0]].length > 3) {
        this.rings[near[0]].splice(near[1], 1);
        this.changed = true;
        this.page.redraw();
      }
    }
  }

  async keep() {
    if (!this.busy) return;
    // Where nothing was found there is nothing to keep.
    const found = this.begun.filter(({ rings }) => rings === null || rings.length);
    if (this.name === "points" && !found.length) { this.page.say("nothing is outlined yet: click on the object"); return; }
    const edit = this.name === "points"
      ? { tool: "clicks", prompts: found.map(promptOf), label: this.page.label() }
      : { tool: "reshape", rings: this.rings, objects: this.page.selected() };
    const sent = { outlines: this.outlines() };
    this.clear();
    await this.send(edit, sent);
    if (this.name === "reshape" && !this.changed) await this.loadRings();
  }

  /** Sends an edit; what it does stays visible until it is saved. The next one may begin before. */
  async send(edit, sent, kept = []) {
    this.sent.push(sent);
    this.page.redraw();
    await this.page.send(edit, kept);
    this.sent.splice(this.sent.indexOf(sent), 1);
    this.page.redraw();
  }

  /** What was begun and would be kept: the rings of each object. */
  outlines() { return [...this.begun.map(({ rings }) => rings), this.rings].filter((rings) => rings?.length); }

  /** Loads the vertices of what is selected, in this much detail. */
  async loadRings(detail = this.detail ?? 0.5) {
    this.detail = detail;
    const chosen = this.page.selected();
    if (this.name !== "reshape" || chosen.length !== 1) return;
    const asked = (this.asked += 1);
    const rings = await this.page.rings(chosen[0], detail);
    if (asked !== this.asked) return;
    [this.rings, this.changed] = [rings, false];
    this.page.redraw();
  }

  /** Begins the next object. */
  begin() {
    this.begun.push({ clicks: [], positive: [], box: null, rings: null, asked: 0 });
    this.page.begun();
  }

  /** A box: of the object that was begun, if its clicks lie in it or it is its box, drawn better; else of the next one. */
  async boxed(box) {
    const { now } = this;
    const same = now && (now.box ? overlap(now.box, box) > SAME_BOX : now.clicks.some((point) => within(box, point)));
    if (!same || this.another) this.begin();
    this.now.box = box;
    await this.preview();
  }

  /** Takes back the last click or box; the vertices that were moved. */
  back() {
    const { now } = this;
    if (!now) {
      this.clear();
      this.loadRings();
    } else if (now.clicks.length + Boolean(now.box) > 1) {
      if (now.clicks.pop()) now.positive.pop();
      else now.box = null;
      this.preview();
    } else {
      this.begun.pop();
      this.page.redraw();
    }
  }

  async preview(object = this.now) {
    const asked = (object.asked += 1);
    this.page.redraw();
    const rings = object.positive.includes(true) || object.box ? await this.page.preview({ tool: "clicks", prompts: [promptOf(object)] }) : [];
    if (asked !== object.asked) return;
    object.rings = rings;
    this.page.redraw();
  }

  one(what) {
    if (this.page.selected().length === 1) return true;
    this.page.say(`select one object to ${what} it`);
    return false;
  }

  nearVertex(point) {
    const most = NEAR_PX / this.page.scale();
    let best = null;
    let least = most;
    this.rings.forEach((ring, r) => ring.forEach((vertex, v) => {
      const far = distance(vertex, point);
      if (far < least) [best, least] = [[r, v], far];
    }));
    return best;
  }

  addVertex(point) {
    const most = NEAR_PX / this.page.scale();
    let best = null;
    let least = most;
    this.rings.forEach((ring, r) => ring.forEach((vertex, v) => {
      const [on, far] = nearestOn(vertex, ring[(v + 1) % ring.length], point);
      if (far < least) [best, least] = [[r, v + 1, on], far];
    }));
    if (!best) return null;
    this.rings[best[0]].splice(best[1], 0, best[2]);
    this.changed = true;
    return [best[0], best[1]];
  }

  /** Draws what is begun, above the outlines. */
  draw(context, view, colours) {
    context.setTransform(view.scale, 0, 0, view.scale, view.x, view.y);
    context.strokeStyle = colours.selected;
    context.fillStyle = colours.wash;
    context.lineWidth = 2.5 / view.scale;
    const dot = devicePixelRatio / view.scale;
    for (const rings of [...this.outlines(), ...this.sent.flatMap(({ outlines }) => outlines ?? [])]) {
      context.beginPath();
      for (const ring of rings) {
        ring.forEach(([x, y], index) => (index ? context.lineTo(x, y) : context.moveTo(x, y)));
        context.closePath();
      }
      context.fill("evenodd");
      context.stroke();
      if (this.name === "reshape") {
        context.fillStyle = colours.ground;
        for (const ring of this.rings) for (const [x, y] of ring) this.disc(context, x, y, 4 * dot);
      }
    }
    for (const { box } of this.begun) if (box) context.strokeRect(...box);
    if (this.name === "points") {
      if (this.stroke.length) {
        const [[x0, y0], [x1, y1]] = this.stroke;
        context.strokeRect(x0, y0, x1 - x0, y1 - y0);
      }
      for (const { clicks, positive } of this.begun) clicks.forEach(([x, y], index) => {
        context.fillStyle = positive[index] ? colours.taught : colours.unknown;
        this.disc(context, x, y, 6 * dot);
        context.beginPath(); // a minus, and for an object a plus: not by colour alone
        context.moveTo(x - 3 * dot, y);
        context.lineTo(x + 3 * dot, y);
        if (positive[index]) {
          context.moveTo(x, y - 3 * dot);
          context.lineTo(x, y + 3 * dot);
        }
        context.strokeStyle = colours.ground;
        context.stroke();
        context.strokeStyle = colours.selected;
      });
    } else if (this.stroke.length) {
      this.drawStroke(context, view, this.stroke, ["split", "select"].includes(this.name) ? 0 : (this.radius * devicePixelRatio) / view.scale);
    }
    for (const { points, radius } of this.sent) if (points) this.drawStroke(context, view, points, radius);
  }

  /** A stroke of this radius, or a line. */
  drawStroke(context, view, points, radius) {
    context.lineWidth = radius ? 2 * radius : 2.5 / view.scale;
    context.lineCap = "round";
    context.globalAlpha = radius ? 0.45 : 1;
    context.beginPath();
    points.forEach(([x, y], index) => (index ? context.lineTo(x, y) : context.moveTo(x, y)));
    if (points.length === 1) context.lineTo(points[0][0] + 0.01, points[0][1]);
    context.stroke();
    context.globalAlpha = 1;
  }

  disc(context, x, y, radius) {
    context.beginPath();
    context.arc(x, y, radius, 0, 2 * Math.PI);
    context.fill();
    context.stroke();
  }
}
