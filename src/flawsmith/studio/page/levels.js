// Which native values are shown black and white: for photographs of more than 8 bits. It changes only what is seen.

import { field, make } from "./dom.js";

export class Levels {
  /** `chosen` is told of [low, high], or null for the product's range. */
  constructor(chosen) {
    Object.assign(this, { chosen, picture: null });
    const moved = () => this.#moved();
    this.lows = make("input", { type: "range", label: "paint.black", oninput: moved });
    this.highs = make("input", { type: "range", label: "paint.white", oninput: moved });
    this.text = make("output", {});
    this.root = make(
      "div",
      { class: "window", role: "group", label: "paint.window" },
      field("paint.black", this.lows),
      field("paint.white", this.highs),
      this.text,
      make("button", { type: "button", say: "paint.windowFit", onclick: () => this.#set(this.picture.fit) }),
      make("button", { type: "button", say: "paint.windowRange", onclick: () => this.#set(null) }),
    );
  }

  /** Another photograph is shown. */
  open(picture) {
    this.picture = picture;
    const { range, depth } = picture;
    this.root.hidden = depth === 8;
    for (const input of [this.lows, this.highs]) {
      input.min = range[0];
      input.max = range[1];
      input.step = depth === 32 ? (range[1] - range[0]) / 1000 : 1;
    }
    this.#set(null);
  }

  #set(window) {
    [this.lows.value, this.highs.value] = window ?? this.picture.range;
    this.#moved(window === null);
  }

  #moved(whole = false) {
    const step = Number(this.lows.step);
    const [low, high] = [Number(this.lows.value), Number(this.highs.value)];
    const window = [Math.min(low, high - step), Math.max(high, low + step)];
    const digits = this.picture.depth === 32 ? 3 : 0;
    this.text.textContent = `${window[0].toFixed(digits)} – ${window[1].toFixed(digits)}`;
    this.chosen(whole ? null : window);
  }
}
