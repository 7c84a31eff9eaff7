// The picture: OpenSeadragon shows its tiles, a canvas above it the outlines, and one above that what
// is selected, pointed at or drawn.
/* global OpenSeadragon */

import { token } from "./api.js";
import { Shapes } from "./shapes.js";

export class Viewer {
  /**
   * @param element holds the tiles.
   * @param canvas lies above it, for the outlines.
   * @param above lies above these, for what changes often.
   * @param events {click, hover, leave, press, drag, release, box}: called with points of the picture; `press` says whether a drag is for drag and release, or "box" for a box; `colour(label)` of its outlines.
   */
  constructor(element, canvas, above, events) {
    [this.canvas, this.above, this.events] = [canvas, above, events];
    this.context = canvas.getContext("2d");
    this.aboveContext = above.getContext("2d");
    this.shapes = new Shapes();
    this.marks = { selected: new Set(), hovered: null };
    this.overlay = null;
    this.size = [1, 1];
    this.osd = OpenSeadragon({
      element,
      drawer: "canvas",
      showNavigationControl: false,
      animationTime: 0.25,
      springStiffness: 10,
      maxZoomPixelRatio: 16,
      minZoomImageRatio: 0.5,
      visibilityRatio: 0.2,
      imageSmoothingEnabled: false,
      gestureSettingsMouse: { clickToZoom: false, dblClickToZoom: false },
      gestureSettingsTouch: { clickToZoom: false, dblClickToZoom: false },
      loadTilesWithAjax: Boolean(token),
      ajaxHeaders: token ? { Authorization: `Bearer ${token}` } : {},
      crossOriginPolicy: false,
    });
    this.osd.canvas.removeAttribute("tabindex");
    // Who types a name can move the picture meanwhile.
    this.osd.container.addEventListener("mousedown", (event) => event.preventDefault());
    this.listen();
    this.readColours();
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { this.readColours(); this.redraw(); });
    new ResizeObserver(() => this.fitCanvas()).observe(element);
  }

  listen() {
    const at = (event) => {
      const point = this.osd.viewport.viewerElementToImageCoordinates(event.position);
      return [point.x, point.y];
    };
    const handle = (name, mine) => this.osd.addHandler(name, mine);
    for (const name of ["canvas-drag", "canvas-scroll", "canvas-pinch"]) handle(name, () => { this.moved = true; });
    handle("canvas-key", (event) => { event.preventDefaultAction = true; });
    handle("canvas-click", (event) => {
      event.preventDefaultAction = true;
      if (event.quick && this.ready()) this.events.click(at(event), event.originalEvent);
    });
    handle("canvas-press", (event) => {
      if (!this.ready()) return;
      this.pressed = this.events.press(at(event), event.originalEvent);
      this.box = this.pressed === "box" ? [at(event), at(event)] : null;
    });
    handle("canvas-drag", (event) => {
      if (!this.pressed) return;
      event.preventDefaultAction = true;
      if (!this.box) { this.events.drag(at(event), event.originalEvent); return; }
      this.box[1] = at(event);
      this.redrawMarks();
    });
    const released = (event) => {
      if (!this.pressed) return;
      event.preventDefaultAction = true;
      this.pressed = false;
      if (!this.box) { this.events.release(at(event), event.originalEvent); return; }
      const [[x0, y0], [x1, y1]] = this.box;
      this.box = null;
      this.events.box(Math.min(x0, x1), Math.min(y0, y1), Math.max(x0, x1), Math.max(y0, y1));
    };
    handle("canvas-release", released);
    handle("canvas-drag-end", (event) => { event.preventDefaultAction = event.preventDefaultAction || this.pressed; });
    this.osd.container.addEventListener("pointermove", (event) => {
      if (!this.ready()) return;
      const box = this.osd.container.getBoundingClientRect();
      this.events.hover(at({ position: new OpenSeadragon.Point(event.clientX - box.left, event.clientY - box.top) }));
    });
    this.osd.container.addEventListener("pointerleave", () => this.events.leave());
    this.osd.container.addEventListener("contextmenu", (event) => event.preventDefault());
    for (const name of ["update-viewport", "open", "tile-drawn-all", "animation"]) handle(name, () => this.redrawMarks());
  }

  ready() { return this.osd.isOpen(); }

  /** Shows nothing. */
  close() {
    this.osd.close();
    this.setObjects([]);
    for (const context of [this.context, this.aboveContext]) {
      context.setTransform(1, 0, 0, 1, 0, 0);
      context.clearRect(0, 0, this.canvas.width, this.canvas.height);
    }
  }

  /** Shows a picture: {id, width, height, tile, levels}. */
  open(picture) {
    this.size = [picture.width, picture.height];
    const { levels } = picture;
    this.moved = false;
    this.osd.open({
      width: picture.width,
      height: picture.height,
      tileSize: picture.tile,
      minLevel: 0,
      maxLevel: levels,
      getTileUrl: (level, x, y) => `api/pictures/${picture.id}/tiles/${levels - level}/${x}/${y}?v=${encodeURIComponent(picture.version ?? "")}`,
    });
  }

  setObjects(objects) {
    this.shapes.set(objects, ...this.size);
    this.redraw();
  }

  /** Suggestions that are less sure are dashed. */
  setLeast(confidence) {
    this.shapes.setLeast(confidence);
    this.redraw();
  }

  fit() {
    this.moved = false;
    this.osd.viewport?.goHome();
  }

  zoom(factor) {
    this.moved = true;
    this.osd.viewport?.zoomBy(factor);
    this.osd.viewport?.applyConstraints();
  }

  /** Moves the picture so that an object can be seen. */
  reveal(object) {
    const [x, y, w, h] = object.bbox_xywh;
    this.moved = true;
    const box = this.osd.viewport.imageToViewportRectangle(x, y, w, h);
    const seen = this.osd.viewport.getBounds(true);
    const inside = box.x >= seen.x && box.y >= seen.y && box.x + box.width <= seen.x + seen.width && box.y + box.height <= seen.y + seen.height;
    if (!inside) this.osd.viewport.panTo(box.getCenter());
  }

  fitCanvas() {
    const { clientWidth, clientHeight } = this.osd.container;
    for (const canvas of [this.canvas, this.above]) {
      canvas.width = Math.max(1, Math.round(clientWidth * devicePixelRatio));
      canvas.height = Math.max(1, Math.round(clientHeight * devicePixelRatio));
    }
    // OpenSeadragon sees the new size a little later.
    if (!this.moved) setTimeout(() => { if (!this.moved) this.osd.viewport?.goHome(true); }, 100);
    this.redraw();
  }

  /** Where the picture is on the canvas. */
  view() {
    const viewport = this.osd.viewport;
    const origin = viewport.imageToViewerElementCoordinates(new OpenSeadragon.Point(0, 0));
    const end = viewport.imageToViewerElementCoordinates(new OpenSeadragon.Point(this.size[0], 0));
    return {
      scale: ((end.x - origin.x) / this.size[0]) * devicePixelRatio,
      x: origin.x * devicePixelRatio,
      y: origin.y * devicePixelRatio,
      width: this.canvas.width,
      height: this.canvas.height,
    };
  }

  readColours() {
    const style = getComputedStyle(document.documentElement);
    // A canvas knows no light-dark(), an element does.
    const probe = document.body.appendChild(document.createElement("span"));
    this.colours = { of: this.events.colour };
    for (const name of ["taught", "unknown", "unnamed", "selected", "wash", "ground", "text"]) {
      probe.style.color = style.getPropertyValue(`--${name}`);
      this.colours[name] = getComputedStyle(probe).color;
    }
    probe.remove();
  }

  /** Draws all with the next frame. */
  redraw() {
    this.stale = true;
    this.redrawMarks();
  }

  /** Draws what changes often; the outlines only where they moved. */
  redrawMarks() {
    if (this.waiting || !this.ready()) return;
    this.waiting = requestAnimationFrame(() => {
      this.waiting = 0;
      if (!this.ready()) return;
      const view = this.view();
      const place = Object.values(view).join();
      if (this.stale || place !== this.drawn) this.shapes.draw(this.context, view, this.colours);
      [this.stale, this.drawn] = [false, place];
      this.shapes.drawMarks(this.aboveContext, view, this.colours, this.marks);
      this.overlay?.(this.aboveContext, view, this.colours);
      if (this.box) this.drawBox(view);
    });
  }

  drawBox({ scale, x, y }) {
    const [[x0, y0], [x1, y1]] = this.box;
    const context = this.aboveContext;
    context.setTransform(scale, 0, 0, scale, x, y);
    context.lineWidth = (1.5 * devicePixelRatio) / scale;
    context.strokeStyle = this.colours.selected;
    context.strokeRect(x0, y0, x1 - x0, y1 - y0);
  }
}
