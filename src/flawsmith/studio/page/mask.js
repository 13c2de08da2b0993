// A mask at the photograph's own pixels: what is drawn is exactly what is sent. Steps can be undone.

const MOST_REMEMBERED = 8_000_000; // numbers in all steps that can be undone

export class Mask {
  constructor(width, height) {
    this.width = width;
    this.height = height;
    this.cells = new Uint8Array(width * height);
    this.count = 0;
    this.version = 0;
    this.done = [];
    this.undone = [];
    this.flips = [];
  }

  /** Set the pixels x0 <= x < x1 of a row; what changes is part of the step. */
  row(y, x0, x1, value) {
    if (y < 0 || y >= this.height) return;
    const end = y * this.width + Math.min(x1, this.width);
    let place = y * this.width + Math.max(x0, 0);
    while (place < end) {
      if (this.cells[place] === value) {
        place += 1;
        continue;
      }
      const start = place;
      while (place < end && this.cells[place] !== value) this.cells[place++] = value;
      this.flips.push(start, place - start);
      this.count += (value ? 1 : -1) * (place - start);
      this.version += 1;
    }
  }

  /** Set a disc of pixels: those whose centre lies within. */
  disc(x, y, diameter, value) {
    const odd = diameter % 2 === 1;
    const centreX = odd ? Math.floor(x) + 0.5 : Math.round(x);
    const centreY = odd ? Math.floor(y) + 0.5 : Math.round(y);
    const radius = diameter / 2;
    for (let row = Math.floor(centreY - radius); row < centreY + radius; row += 1) {
      const half = radius * radius - (row + 0.5 - centreY) ** 2;
      if (half < 0) continue;
      const wide = Math.sqrt(half);
      this.row(row, Math.ceil(centreX - wide - 0.5), Math.floor(centreX + wide - 0.5) + 1, value);
    }
  }

  /** Set discs from one point to another, so close that they are one stroke. */
  stroke(from, to, diameter, value) {
    const length = Math.hypot(to.x - from.x, to.y - from.y);
    const steps = Math.max(1, Math.ceil(length / Math.max(0.5, diameter / 16)));
    for (let number = 0; number <= steps; number += 1) {
      const share = number / steps;
      this.disc(from.x + share * (to.x - from.x), from.y + share * (to.y - from.y), diameter, value);
    }
  }

  /** Set the inside of a polygon: pixels whose centre lies in it (even-odd rule), and its outline. */
  polygon(points, value) {
    const top = Math.max(0, Math.floor(Math.min(...points.map((point) => point.y))));
    const bottom = Math.min(this.height, Math.ceil(Math.max(...points.map((point) => point.y))));
    for (let row = top; row < bottom; row += 1) {
      const middle = row + 0.5;
      const crossings = [];
      points.forEach((one, number) => {
        const next = points[(number + 1) % points.length];
        if (one.y <= middle !== next.y <= middle) {
          crossings.push(one.x + ((middle - one.y) / (next.y - one.y)) * (next.x - one.x));
        }
      });
      crossings.sort((a, b) => a - b);
      for (let pair = 0; pair + 1 < crossings.length; pair += 2) {
        this.row(row, Math.ceil(crossings[pair] - 0.5), Math.floor(crossings[pair + 1] - 0.5) + 1, value);
      }
    }
    points.forEach((one, number) => this.stroke(one, points[(number + 1) % points.length], 1, value));
  }

  /** End a step: what changed since the last one can be undone. Returns whether anything changed. */
  commit() {
    if (!this.flips.length) return false;
    this.done.push(Float64Array.from(this.flips));
    this.flips = [];
    this.undone = [];
    while (this.done.length > 1 && this.done.reduce((sum, step) => sum + step.length, 0) > MOST_REMEMBERED) {
      this.done.shift();
    }
    return true;
  }

  undo() {
    this.#flip(this.done, this.undone);
  }

  redo() {
    this.#flip(this.undone, this.done);
  }

  #flip(from, to) {
    const step = from.pop();
    if (!step) return;
    for (let number = 0; number < step.length; number += 2) {
      const [start, length] = [step[number], step[number + 1]];
      const value = this.cells[start] ? 0 : 1;
      this.cells.fill(value, start, start + length);
      this.count += value ? length : -length;
    }
    this.version += 1;
    to.push(step);
  }

  /** Put another mask in place of this one, as one step. */
  replace(runs) {
    const wanted = new Uint8Array(this.cells.length);
    for (let number = 0; number < runs.length; number += 2) wanted.fill(1, runs[number], runs[number] + runs[number + 1]);
    for (let y = 0; y < this.height; y += 1) {
      const start = y * this.width;
      let x = 0;
      while (x < this.width) {
        const value = wanted[start + x];
        let end = x + 1;
        while (end < this.width && wanted[start + end] === value) end += 1;
        this.row(y, x, end, value);
        x = end;
      }
    }
    return this.commit();
  }

  /** Return [start, length, ...] of the damaged pixels, row after row; no run goes over the end of a row. */
  runs() {
    const runs = [];
    let place = this.cells.indexOf(1);
    while (place >= 0) {
      const edge = this.cells.indexOf(0, place);
      const end = edge < 0 ? this.cells.length : edge;
      for (let start = place; start < end; ) {
        const rowEnd = Math.min(end, (Math.floor(start / this.width) + 1) * this.width);
        runs.push(start, rowEnd - start);
        start = rowEnd;
      }
      place = edge < 0 ? -1 : this.cells.indexOf(1, end);
    }
    return runs;
  }
}

/** Return [top, left, bottom, right] of the pixels of runs. */
export function boxOf(runs, width) {
  let [top, left, bottom, right] = [Infinity, Infinity, 0, 0];
  for (let number = 0; number < runs.length; number += 2) {
    const [first, last] = [runs[number], runs[number] + runs[number + 1] - 1];
    top = Math.min(top, Math.floor(first / width));
    bottom = Math.max(bottom, Math.floor(last / width) + 1);
    const several = Math.floor(first / width) !== Math.floor(last / width);
    left = Math.min(left, several ? 0 : first % width);
    right = Math.max(right, several ? width : (last % width) + 1);
  }
  return [top, left, bottom, right];
}
