// Drawing with mouse, pen, fingers and keyboard.

const PINCH = 2; // fingers that move and zoom the picture

export const TOOLS = ["brush", "line", "polygon", "eraser", "move"];
export const TOOL_KEYS = { b: "brush", l: "line", p: "polygon", e: "eraser", h: "move" };
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

export class Tools {
  /** `changed` is called when a step of drawing is over, `chosen` when tool or size are others. */
  constructor(view, { changed, chosen }) {
    Object.assign(this, { view, changed, chosen, tool: "brush", size: 8, last: null, held: false });
    this.touches = new Map();
    const { canvas } = view;
    canvas.addEventListener("pointerdown", (event) => this.#down(event));
    canvas.addEventListener("pointermove", (event) => this.#move(event));
    for (const name of ["pointerup", "pointercancel"]) canvas.addEventListener(name, (event) => this.#up(event));
    canvas.addEventListener("pointerleave", () => this.#hover(null));
    canvas.addEventListener("dblclick", () => this.tool === "polygon" && this.close());
    canvas.addEventListener("contextmenu", (event) => event.preventDefault());
    canvas.addEventListener("wheel", (event) => this.#wheel(event), { passive: false });
    canvas.addEventListener("keydown", (event) => this.#key(event));
    canvas.addEventListener("blur", () => {
      view.cursor = null;
      view.redraw();
    });
  }

  choose(tool) {
    this.abandon();
    this.tool = tool;
    this.view.canvas.dataset.tool = tool;
    this.chosen();
  }

  setSize(size) {
    this.size = Math.min(400, Math.max(1, Math.round(size)));
    if (this.view.pointer) this.view.pointer.size = this.size;
    this.view.redraw();
    this.chosen();
  }

  /** Give up a line or polygon that is not closed yet; returns whether there was one. */
  abandon() {
    const had = Boolean(this.view.path);
    this.view.path = null;
    this.last = null;
    this.view.redraw();
    return had;
  }

  /** Fill the polygon that is being drawn; returns whether there was one. */
  close() {
    const { path, mask } = this.view;
    if (this.tool !== "polygon" || !path || path.length < 3) return false;
    mask.polygon(path, 1);
    this.view.path = null;
    this.#commit();
    return true;
  }

  get value() {
    return this.tool === "eraser" ? 0 : 1;
  }

  #commit() {
    if (this.view.mask?.commit()) this.changed();
    this.view.redraw();
  }

  /** Apply the tool at a place, as a press of the pen does. */
  #press(place, straight) {
    const { view } = this;
    if (!view.mask) return;
    if (this.tool === "polygon") {
      const first = view.path?.[0];
      const near = first && view.path.length > 2 && Math.hypot(first.x - place.x, first.y - place.y) * view.scale < 10;
      if (near) this.close();
      else view.path = [...(view.path ?? []), place];
    } else if (this.tool === "line") {
      if (view.path) {
        view.mask.stroke(view.path[0], place, this.size, 1);
        view.path = null;
        this.#commit();
      } else view.path = [place];
    } else if (this.tool === "brush" || this.tool === "eraser") {
      view.mask.stroke(straight && this.last ? this.last : place, place, this.size, this.value);
      this.last = place;
    }
    view.redraw();
  }

  #down(event) {
    const { view } = this;
    view.canvas.focus({ preventScroll: true });
    if (!view.picture) return;
    view.canvas.setPointerCapture(event.pointerId);
    if (event.pointerType === "touch") this.touches.set(event.pointerId, event);
    if (this.touches.size >= PINCH) {
      if (this.held) view.mask?.commit() && view.mask.undo(); // the first finger was no stroke
      this.held = false;
      return;
    }
    if (event.button === 1 || event.button === 2 || this.tool === "move") {
      this.panning = { x: event.clientX, y: event.clientY };
      return;
    }
    this.held = true;
    this.#press(view.place(event), event.shiftKey);
    this.start = { x: event.clientX, y: event.clientY };
  }

  #move(event) {
    const { view } = this;
    if (!view.picture) return;
    if (this.touches.has(event.pointerId)) {
      if (this.touches.size >= PINCH) return this.#pinch(event);
      this.touches.set(event.pointerId, event);
    }
    if (this.panning) {
      view.pan(event.clientX - this.panning.x, event.clientY - this.panning.y);
      this.panning = { x: event.clientX, y: event.clientY };
      return undefined;
    }
    if (this.held && (this.tool === "brush" || this.tool === "eraser")) {
      // A quick hand moves farther than one event a frame tells.
      for (const one of event.getCoalescedEvents?.() ?? [event]) {
        const place = view.place(one);
        view.mask.stroke(this.last ?? place, place, this.size, this.value);
        this.last = place;
      }
      const place = view.place(event);
      view.mask.stroke(this.last, place, this.size, this.value);
      this.last = place;
    }
    return this.#hover(view.place(event));
  }

  #up(event) {
    this.touches.delete(event.pointerId);
    this.panning = null;
    if (!this.held) return;
    this.held = false;
    const { view } = this;
    const far = Math.hypot(event.clientX - this.start.x, event.clientY - this.start.y) > 4;
    if (this.tool === "line" && far && view.path) this.#press(view.place(event), false); // drawn in one pull
    if (this.tool === "brush" || this.tool === "eraser") this.#commit();
  }

  #pinch(event) {
    const before = [...this.touches.values()];
    this.touches.set(event.pointerId, event);
    const after = [...this.touches.values()];
    const box = this.view.canvas.getBoundingClientRect();
    const middle = (points) => ({
      x: (points[0].clientX + points[1].clientX) / 2 - box.left,
      y: (points[0].clientY + points[1].clientY) / 2 - box.top,
    });
    const span = (points) => Math.hypot(points[0].clientX - points[1].clientX, points[0].clientY - points[1].clientY);
    const [from, to] = [middle(before), middle(after)];
    this.view.pan(to.x - from.x, to.y - from.y);
    this.view.zoom(span(after) / Math.max(1, span(before)), to);
  }

  #hover(place) {
    const { view } = this;
    const shows = this.tool !== "move" && this.touches.size === 0;
    view.pointer = place && shows ? { ...place, size: this.tool === "polygon" ? 0 : this.size } : null;
    view.redraw();
  }

  #wheel(event) {
    event.preventDefault();
    const box = this.view.canvas.getBoundingClientRect();
    if (event.shiftKey || (event.deltaX && !event.deltaY)) {
      this.view.pan(-(event.deltaX || event.deltaY), 0);
      return;
    }
    const factor = Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.0015));
    this.view.zoom(factor, { x: event.clientX - box.left, y: event.clientY - box.top });
  }

  /** Arrows move a cross over the picture (with Shift ten pixels, with Alt the picture itself); Space draws there. */
  #key(event) {
    const { view } = this;
    if (!view.picture || event.ctrlKey || event.metaKey) return;
    const arrow = ARROWS[event.key];
    if (arrow && event.altKey) {
      view.pan(-60 * arrow[0], -60 * arrow[1]);
    } else if (arrow) {
      const middle = { x: Math.floor(view.picture.width / 2) + 0.5, y: Math.floor(view.picture.height / 2) + 0.5 };
      const at = view.cursor ?? middle;
      const step = event.shiftKey ? 10 : 1;
      const inside = (value, length) => Math.min(length - 0.5, Math.max(0.5, value));
      view.cursor = {
        x: inside(at.x + step * arrow[0], view.picture.width),
        y: inside(at.y + step * arrow[1], view.picture.height),
      };
      view.reveal(view.cursor);
      this.moved?.(view.cursor);
    } else if (event.key === " ") {
      if (!view.cursor) view.cursor = { x: Math.floor(view.picture.width / 2) + 0.5, y: Math.floor(view.picture.height / 2) + 0.5 };
      this.last = null;
      this.#press(view.cursor, false);
      if (this.tool === "brush" || this.tool === "eraser") this.#commit();
    } else return;
    event.preventDefault();
    event.stopPropagation();
  }
}
