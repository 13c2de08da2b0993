// A photograph at native pixels: tiles from the server, zoom and pan, and what is laid over it.

import { blob } from "./api.js";

const TILE = 512;
const DEEPEST = 8;
const MOST_TILES = 160;
const LARGEST = 64;

export class View {
  /** `failed` is told of a tile that cannot be had, `moved` of every change of place or zoom. */
  constructor(canvas, { failed, moved }) {
    this.canvas = canvas;
    this.context = canvas.getContext("2d");
    this.layer = document.createElement("canvas");
    this.picture = null;
    this.window = null;
    this.scale = 1; // px of the screen per px of the picture
    this.x = 0;
    this.y = 0;
    this.tiles = new Map();
    this.failed = failed;
    this.moved = moved;
    this.overlay = null; // { bitmap, box }: a candidate
    this.mask = null;
    this.showMask = true;
    this.pointer = null; // { x, y, size }: the brush in picture px
    this.path = null; // points of a line or polygon that is being drawn
    this.cursor = null; // the place that the keyboard moves
    this.drawing = false;
    this.whole = true; // the whole picture is in sight, and stays so when the canvas gets another size
    new ResizeObserver(() => this.#resized()).observe(canvas);
  }

  /** Show another photograph, whole. */
  open(picture, mask) {
    for (const tile of this.tiles.values()) tile.bitmap?.close();
    this.tiles.clear();
    Object.assign(this, { picture, mask, overlay: null, path: null, cursor: null, window: null });
    this.fit();
  }

  /** Show native values `low` black and `high` white; null = as the product's range says. */
  setWindow(window) {
    this.window = window;
    this.redraw();
  }

  fit() {
    if (!this.picture) return;
    const { width, height } = this.#size();
    this.scale = Math.min(width / this.picture.width, height / this.picture.height, LARGEST) * 0.98;
    this.x = (width - this.picture.width * this.scale) / 2;
    this.y = (height - this.picture.height * this.scale) / 2;
    this.whole = true;
    this.redraw();
  }

  /** Zoom by a factor round a place of the canvas; without one round its middle. */
  zoom(factor, place = null) {
    if (!this.picture) return;
    const { width, height } = this.#size();
    const at = place ?? { x: width / 2, y: height / 2 };
    const least = Math.min(width / this.picture.width, height / this.picture.height, 1) / 2;
    const scale = Math.min(LARGEST, Math.max(least, this.scale * factor));
    this.x = at.x - ((at.x - this.x) * scale) / this.scale;
    this.y = at.y - ((at.y - this.y) * scale) / this.scale;
    this.scale = scale;
    this.whole = false;
    this.redraw();
  }

  pan(dx, dy) {
    this.whole = false;
    this.x += dx;
    this.y += dy;
    this.redraw();
  }

  /** Bring a box of the picture into sight. */
  look([top, left, bottom, right]) {
    const { width, height } = this.#size();
    this.whole = false;
    const wanted = Math.min(width / (right - left), height / (bottom - top)) / 2.5;
    this.scale = Math.min(8, Math.max(this.scale, Math.min(wanted, LARGEST)));
    this.x = width / 2 - ((left + right) / 2) * this.scale;
    this.y = height / 2 - ((top + bottom) / 2) * this.scale;
    this.redraw();
  }

  /** Return the place in the picture of a place on the screen; whole numbers are the corners of pixels. */
  place(event) {
    const box = this.canvas.getBoundingClientRect();
    return { x: (event.clientX - box.left - this.x) / this.scale, y: (event.clientY - box.top - this.y) / this.scale };
  }

  /** Move the sight so that a place of the picture is in it. */
  reveal(place) {
    const { width, height } = this.#size();
    const [sx, sy] = [place.x * this.scale + this.x, place.y * this.scale + this.y];
    this.x += Math.max(0, 40 - sx) - Math.max(0, sx - width + 40);
    this.y += Math.max(0, 40 - sy) - Math.max(0, sy - height + 40);
    this.redraw();
  }

  redraw() {
    if (this.drawing) return;
    this.drawing = true;
    requestAnimationFrame(() => {
      this.drawing = false;
      this.#draw();
      this.moved();
    });
  }

  #size() {
    return { width: this.canvas.clientWidth || 1, height: this.canvas.clientHeight || 1 };
  }

  #resized() {
    const ratio = window.devicePixelRatio || 1;
    const { width, height } = this.#size();
    const other = this.canvas.width !== Math.round(width * ratio) || this.canvas.height !== Math.round(height * ratio);
    if (!other) return;
    this.x += (width - (this.before?.width ?? width)) / 2; // what was in the middle stays there
    this.y += (height - (this.before?.height ?? height)) / 2;
    this.before = { width, height };
    for (const canvas of [this.canvas, this.layer]) {
      canvas.width = Math.round(width * ratio);
      canvas.height = Math.round(height * ratio);
    }
    if (this.whole) this.fit();
    else this.redraw();
  }

  #draw() {
    const { context, picture } = this;
    const ratio = this.canvas.width / this.#size().width;
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, this.canvas.width, this.canvas.height);
    if (!picture) return;
    context.setTransform(ratio * this.scale, 0, 0, ratio * this.scale, ratio * this.x, ratio * this.y);
    context.imageSmoothingEnabled = this.scale < 1;
    this.#drawTiles(ratio);
    if (this.overlay) {
      const [top, left, bottom, right] = this.overlay.box;
      this.#drawPart(ratio, this.overlay.bitmap, left, top, right - left, bottom - top);
    }
    if (this.mask && this.showMask) this.#drawMask(ratio);
    this.#drawLines();
  }

  /** Draw a bitmap over a part of the picture, its borders on whole px of the screen so that no seam shows. */
  #drawPart(ratio, bitmap, left, top, wide, high) {
    const [x0, y0] = [Math.round(ratio * (left * this.scale + this.x)), Math.round(ratio * (top * this.scale + this.y))];
    const x1 = Math.round(ratio * ((left + wide) * this.scale + this.x));
    const y1 = Math.round(ratio * ((top + high) * this.scale + this.y));
    this.context.save();
    this.context.setTransform(1, 0, 0, 1, 0, 0);
    this.context.drawImage(bitmap, x0, y0, Math.max(1, x1 - x0), Math.max(1, y1 - y0));
    this.context.restore();
  }

  #drawTiles(ratio) {
    const { width, height } = this.#size();
    const level = Math.min(DEEPEST, Math.max(0, Math.floor(Math.log2(1 / this.scale))));
    const side = TILE * 2 ** level;
    const first = { column: Math.max(0, Math.floor(-this.x / this.scale / side)), row: Math.max(0, Math.floor(-this.y / this.scale / side)) };
    const last = {
      column: Math.min(Math.ceil(this.picture.width / side) - 1, Math.floor((width - this.x) / this.scale / side)),
      row: Math.min(Math.ceil(this.picture.height / side) - 1, Math.floor((height - this.y) / this.scale / side)),
    };
    for (let row = first.row; row <= last.row; row += 1) {
      for (let column = first.column; column <= last.column; column += 1) {
        const bitmap = this.#tile(level, column, row);
        if (!bitmap) continue;
        const [left, top] = [column * side, row * side];
        const [wide, high] = [Math.min(side, this.picture.width - left), Math.min(side, this.picture.height - top)];
        this.#drawPart(ratio, bitmap, left, top, wide, high);
      }
    }
  }

  /** Return a tile's bitmap, an older one of the same place while it is on its way, or null. */
  #tile(level, column, row) {
    const place = `${level} ${column} ${row}`;
    const key = `${place} ${this.window?.join(" ") ?? ""}`;
    const known = this.tiles.get(place);
    if (known?.key === key || known?.asked === key) return known.bitmap;
    const tile = known ?? { bitmap: null };
    tile.asked = key;
    this.tiles.set(place, tile);
    const [low, high] = this.window ?? [null, null];
    const { picture } = this;
    blob(`${picture.tiles}`, { ...picture.of, level, column, row, low, high })
      .then(createImageBitmap)
      .then((bitmap) => {
        if (this.picture !== picture || tile.asked !== key) return bitmap.close();
        tile.bitmap?.close();
        Object.assign(tile, { bitmap, key });
        this.redraw();
        return null;
      })
      .catch((error) => {
        if (this.picture === picture) this.failed(error);
      });
    while (this.tiles.size > MOST_TILES) {
      const [oldest, dropped] = this.tiles.entries().next().value;
      dropped.bitmap?.close();
      this.tiles.delete(oldest);
    }
    return tile.bitmap;
  }

  #drawMask(ratio) {
    const layer = this.layer.getContext("2d");
    if (this.drawnVersion !== this.mask.version || this.drawnMask !== this.mask) {
      this.maskRuns = this.mask.runs();
      [this.drawnVersion, this.drawnMask] = [this.mask.version, this.mask];
    }
    layer.clearRect(0, 0, this.layer.width, this.layer.height);
    layer.fillStyle = "#ff2d55";
    const scale = ratio * this.scale;
    const [originX, originY] = [ratio * this.x, ratio * this.y];
    const { width } = this.mask;
    for (let number = 0; number < this.maskRuns.length; number += 2) {
      const start = this.maskRuns[number];
      const [row, column] = [Math.floor(start / width), start % width];
      const top = Math.floor(row * scale + originY);
      const bottom = Math.ceil((row + 1) * scale + originY);
      if (bottom < 0 || top > this.layer.height) continue;
      const left = Math.floor(column * scale + originX);
      const right = Math.ceil((column + this.maskRuns[number + 1]) * scale + originX);
      layer.fillRect(left, top, Math.max(1, right - left), Math.max(1, bottom - top));
    }
    this.context.save();
    this.context.setTransform(1, 0, 0, 1, 0, 0);
    this.context.globalAlpha = 0.45;
    this.context.drawImage(this.layer, 0, 0);
    this.context.restore();
  }

  #drawLines() {
    const { context } = this;
    const ring = (path, dash = []) => {
      for (const [colour, width] of [["#000", 3], ["#fff", 1.4]]) {
        context.lineWidth = width / this.scale;
        context.strokeStyle = colour;
        context.setLineDash(dash.map((length) => length / this.scale));
        context.stroke(path);
      }
      context.setLineDash([]);
    };
    if (this.path?.length) {
      const path = new Path2D();
      const points = this.pointer ? [...this.path, this.pointer] : this.path;
      points.forEach((point, number) => (number ? path.lineTo(point.x, point.y) : path.moveTo(point.x, point.y)));
      ring(path);
    }
    if (this.pointer) {
      const path = new Path2D();
      path.arc(this.pointer.x, this.pointer.y, Math.max(this.pointer.size / 2, 2 / this.scale), 0, 2 * Math.PI);
      ring(path);
    }
    if (this.cursor) {
      const path = new Path2D();
      const arm = 12 / this.scale;
      const [x, y] = [Math.floor(this.cursor.x) + 0.5, Math.floor(this.cursor.y) + 0.5];
      path.moveTo(x - arm, y);
      path.lineTo(x + arm, y);
      path.moveTo(x, y - arm);
      path.lineTo(x, y + arm);
      ring(path);
    }
  }
}
