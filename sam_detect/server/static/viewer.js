// The picture: OpenSeadragon shows its tiles, and a canvas above it the outlines.
/* global OpenSeadragon */

import { token } from "./api.js";
import { Shapes } from "./shapes.js";

export class Viewer {
  /**
   * @param element holds the tiles.
   * @param canvas lies above it.
   * @param events {click, hover, press, drag, release, box, moved}: called with points of the picture.
   */
  constructor(element, canvas, events) {
    [this.canvas, this.events] = [canvas, events];
    this.context = canvas.getContext("2d");
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
      if (this.ready()) this.pressed = this.events.press(at(event), event.originalEvent);
    });
    handle("canvas-drag", (event) => {
      if (!this.pressed) return;
      event.preventDefaultAction = true;
      this.events.drag(at(event), event.originalEvent);
    });
    const released = (event) => {
      if (!this.pressed) return;
      event.preventDefaultAction = true;
      this.pressed = false;
      this.events.release(at(event), event.originalEvent);
    };
    handle("canvas-release", released);
    handle("canvas-drag-end", (event) => { event.preventDefaultAction = event.preventDefaultAction || this.pressed; });
    this.osd.container.addEventListener("pointermove", (event) => {
      if (!this.ready()) return;
      const box = this.osd.container.getBoundingClientRect();
      this.events.hover(at({ position: new OpenSeadragon.Point(event.clientX - box.left, event.clientY - box.top) }));
    });
    this.osd.container.addEventListener("contextmenu", (event) => event.preventDefault());
    for (const name of ["update-viewport", "open", "tile-drawn-all", "animation"]) handle(name, () => this.redraw());
  }

  ready() { return this.osd.isOpen(); }

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
    this.canvas.width = Math.max(1, Math.round(clientWidth * devicePixelRatio));
    this.canvas.height = Math.max(1, Math.round(clientHeight * devicePixelRatio));
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
    this.colours = {};
    for (const name of ["taught", "suggested", "unknown", "selected", "wash", "ground", "text"]) {
      probe.style.color = style.getPropertyValue(`--${name}`);
      this.colours[name] = getComputedStyle(probe).color;
    }
    probe.remove();
  }

  redraw() {
    if (this.waiting || !this.ready()) return;
    this.waiting = requestAnimationFrame(() => {
      this.waiting = 0;
      if (!this.ready()) return;
      const view = this.view();
      this.shapes.draw(this.context, view, this.colours, this.marks);
      this.overlay?.(this.context, view, this.colours);
    });
  }
}
