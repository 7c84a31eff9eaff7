// The picture of the video and what is drawn over it; points of the page as points of the picture.

// Okabe and Ito's colours can be told apart also with colour blindness; black and white under them show on any ground.
const COLOURS = ["#e69f00", "#56b4e9", "#009e73", "#f0e442", "#0072b2", "#d55e00", "#cc79a7"];
const GREY = "#b9bfca";

/** The colour of a label: always the same one. */
export function colourOf(label) {
  if (label === null) return GREY;
  let sum = 0;
  for (const letter of label) sum = (sum * 31 + letter.codePointAt(0)) >>> 0;
  return COLOURS[sum % COLOURS.length];
}

/** Shows frames in two canvases, one above the other. */
export class Picture {
  constructor(below, above) {
    this.below = below;
    this.above = above;
    this.frame = null; // as the server sent it
    this.image = null;
    this.selected = null; // {track, rings}
    this.cross = null;
    this.box = null;
    new ResizeObserver(() => this.draw()).observe(above);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
  }

  show(frame, image) {
    this.image?.close();
    this.frame = frame;
    this.image = image;
    this.draw();
  }

  get size() {
    return this.frame ? { width: this.frame.size_hw[1], height: this.frame.size_hw[0] } : null;
  }

  /** Where the picture is in the canvas, in CSS pixels. */
  layout() {
    const { clientWidth, clientHeight } = this.above;
    const { width, height } = this.size;
    const scale = Math.min(clientWidth / width, clientHeight / height);
    return { scale, left: (clientWidth - scale * width) / 2, top: (clientHeight - scale * height) / 2 };
  }

  /** The point of the picture at a point of the canvas; null outside, unless it is to be moved in. */
  pointAt(x, y, inside = false) {
    if (!this.frame) return null;
    const { scale, left, top } = this.layout();
    const { width, height } = this.size;
    const point = [(x - left) / scale, (y - top) / scale];
    const last = [width - 0.01, height - 0.01];
    if (inside) return point.map((value, axis) => Math.min(Math.max(value, 0), last[axis]));
    return point.every((value, axis) => value >= 0 && value <= last[axis]) ? point : null;
  }

  /** The smallest object at a point, or null. */
  objectAt([x, y]) {
    const area = ({ bbox_xywh: [, , width, height] }) => width * height;
    const there = this.frame.tracks.filter((track) => track.id && inRings(track.rings, x, y));
    return there.sort((a, b) => area(a) - area(b))[0] ?? null;
  }

  draw() {
    const ratio = window.devicePixelRatio || 1;
    for (const canvas of [this.below, this.above]) {
      const width = Math.round(canvas.clientWidth * ratio);
      const height = Math.round(canvas.clientHeight * ratio);
      if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
      canvas.getContext("2d").setTransform(1, 0, 0, 1, 0, 0);
      canvas.getContext("2d").clearRect(0, 0, canvas.width, canvas.height);
    }
    if (!this.frame) return;
    const { scale, left, top } = this.layout();
    const { width, height } = this.size;
    const ground = this.below.getContext("2d");
    ground.setTransform(ratio, 0, 0, ratio, 0, 0);
    ground.drawImage(this.image, left, top, width * scale, height * scale);
    const pen = this.above.getContext("2d");
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    const at = ([x, y]) => [left + x * scale, top + y * scale];
    for (const track of this.frame.tracks) {
      const chosen = this.selected?.track && this.selected.track === track.id;
      outline(pen, track.rings, at, colourOf(track.label), chosen ? 4 : 2, chosen);
    }
    if (this.selected && !this.selected.track) outline(pen, this.selected.rings, at, "#ffffff", 3, true);
    for (const track of this.frame.tracks) {
      const words = track.label ?? "unknown";
      tag(pen, `${track.id ? `#${track.id} ` : ""}${words}`, at(track.bbox_xywh), colourOf(track.label), at([width, height]));
    }
    if (this.box) {
      const [[x0, y0], [x1, y1]] = this.box.map(at);
      twice(pen, () => pen.strokeRect(x0, y0, x1 - x0, y1 - y0), "#ffffff", 2);
    }
    if (this.cross) {
      const [x, y] = at(this.cross);
      pen.beginPath();
      for (const [dx, dy] of [[1, 0], [-1, 0], [0, 1], [0, -1]]) {
        pen.moveTo(x + 4 * dx, y + 4 * dy);
        pen.lineTo(x + 16 * dx, y + 16 * dy);
      }
      twice(pen, () => pen.stroke(), "#ffffff", 2);
    }
  }
}

/** Whether a point is within rings, of which those inside others are holes. */
function inRings(rings, x, y) {
  let inside = false;
  for (const ring of rings) {
    for (let i = 0, j = ring.length - 1; i < ring.length; j = i, i += 1) {
      const [xi, yi] = ring[i];
      const [xj, yj] = ring[j];
      if (yi > y !== yj > y && x < ((xj - xi) * (y - yi)) / (yj - yi) + xi) inside = !inside;
    }
  }
  return inside;
}

/** A line that shows on any ground: dark around the colour. */
function twice(pen, stroke, colour, width) {
  pen.lineJoin = "round";
  pen.strokeStyle = "rgb(0 0 0 / .75)";
  pen.lineWidth = width + 2;
  stroke();
  pen.strokeStyle = colour;
  pen.lineWidth = width;
  stroke();
}

function outline(pen, rings, at, colour, width, filled) {
  pen.beginPath();
  for (const ring of rings) {
    ring.forEach((point, place) => (place ? pen.lineTo(...at(point)) : pen.moveTo(...at(point))));
    pen.closePath();
  }
  if (filled) {
    pen.fillStyle = "rgb(255 255 255 / .3)";
    pen.fill("evenodd");
  }
  twice(pen, () => pen.stroke(), colour, width);
}

function tag(pen, text, [x, y], colour, [right, bottom]) {
  pen.font = "13px system-ui, sans-serif";
  const shown = text.length > 28 ? `${text.slice(0, 27)}…` : text;
  const width = pen.measureText(shown).width + 20;
  const left = Math.max(0, Math.min(x, right - width));
  const top = Math.min(Math.max(0, y - 22), bottom - 20);
  pen.fillStyle = "rgb(16 18 23 / .88)";
  pen.beginPath();
  pen.roundRect(left, top, width, 20, 4);
  pen.fill();
  pen.fillStyle = colour;
  pen.fillRect(left + 5, top + 5, 6, 10);
  pen.fillStyle = "#ffffff";
  pen.textBaseline = "middle";
  pen.fillText(shown, left + 15, top + 10.5);
}
