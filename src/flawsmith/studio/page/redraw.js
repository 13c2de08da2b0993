// A sample's mask, drawn anew.

import { get } from "./api.js";
import { iconButton, make, note } from "./dom.js";
import { Mask, boxOf } from "./mask.js";
import { TOOL_KEYS, Tools } from "./tools.js";
import { View } from "./view.js";

const SHOWN = ["brush", "eraser", "polygon", "move"];

export class Redraw {
  /** `over` is called when the new mask is kept, or given up. */
  constructor(review, over) {
    Object.assign(this, { review, over, sample: null, drawn: null }); // what is asked for, and what can be drawn on
    this.canvas = make("canvas", { tabIndex: 0, role: "application", label: "review.canvas" });
    this.buttons = SHOWN.map((tool) => {
      const key = Object.keys(TOOL_KEYS).find((one) => TOOL_KEYS[one] === tool).toUpperCase();
      return iconButton(tool, `tool.${tool}`, key, () => this.tools.choose(tool), { value: tool });
    });
    this.sizes = make("input", { type: "range", min: 1, max: 200, label: "paint.size", oninput: () => this.tools.setSize(Number(this.sizes.value)) });
    this.save = make("button", { type: "button", class: "main", say: "review.saveMask", onclick: () => this.#save() });
    this.root = make(
      "div",
      { class: "pictured", hidden: true },
      make(
        "div",
        { class: "row", role: "toolbar", label: "paint.tools" },
        ...this.buttons,
        this.sizes,
        iconButton("undo", "paint.undo", "Ctrl+Z", () => this.#step("undo")),
        iconButton("redo", "paint.redo", "Ctrl+Y", () => this.#step("redo")),
        iconButton("fit", "paint.fit", "0", () => this.view.fit()),
      ),
      this.canvas,
      make("p", { class: "faint", say: "review.redrawHelp" }),
      make("div", { class: "row" }, this.save, make("button", { type: "button", say: "paint.cancel", onclick: () => this.over() })),
    );
    this.view = new View(this.canvas, { failed: (error) => note(error.message, "error"), moved: () => {} });
    this.tools = new Tools(this.view, { changed: () => this.#changed(), chosen: () => this.#chosen() });
    this.tools.choose("brush");
    this.tools.setSize(6);
  }

  /** Show a sample as it was made, with the mask that it has today. */
  async open(sample) {
    Object.assign(this, { sample, drawn: null });
    this.tools.abandon();
    this.view.open(null, null); // until it is there, nothing can be drawn, and what was before is not taken for it
    this.#changed();
    this.root.hidden = false;
    try {
      const { mask: runs, ...picture } = await get(`sample/${sample.index}/facts`);
      if (this.sample !== sample) return;
      const mask = new Mask(picture.width, picture.height);
      mask.replace(runs);
      mask.done = []; // what it was is where undoing ends
      this.view.open({ ...picture, tiles: `sample/${sample.index}/tile`, of: {} }, mask);
      this.drawn = sample;
      this.view.look(boxOf(runs, picture.width));
      this.#changed();
      this.canvas.focus();
    } catch (error) {
      note(error.message, "error");
      if (this.sample === sample) this.over();
    }
  }

  close() {
    Object.assign(this, { sample: null, drawn: null });
    this.root.hidden = true;
  }

  /** Return whether a key was one of drawing's. */
  key(event) {
    const pressed = event.key.toLowerCase();
    if (event.ctrlKey || event.metaKey) {
      if (pressed === "z" && !event.shiftKey) this.#step("undo");
      else if (pressed === "y" || (pressed === "z" && event.shiftKey)) this.#step("redo");
      else return false;
    } else if (SHOWN.includes(TOOL_KEYS[pressed])) this.tools.choose(TOOL_KEYS[pressed]);
    else if (pressed === "[" || pressed === "]") this.tools.setSize(this.tools.size + (pressed === "[" ? -1 : 1) * Math.max(1, this.tools.size / 8));
    else if (pressed === "0") this.view.fit();
    else if (event.key === "Enter" && event.target === this.canvas) this.tools.close();
    else return false;
    return true;
  }

  #step(name) {
    if (!this.tools.abandon()) this.view.mask?.[name]();
    this.#changed();
  }

  #changed() {
    this.save.disabled = !this.drawn || !this.view.mask?.count || !this.view.mask.done.length;
    this.view.redraw();
  }

  #chosen() {
    for (const button of this.buttons) button.setAttribute("aria-pressed", String(button.value === this.tools.tool));
    this.sizes.value = this.tools.size;
  }

  async #save() {
    const { sample, drawn } = this;
    if (!drawn || drawn !== sample) return;
    this.save.disabled = true;
    const kept = await this.review.redraw(sample, this.view.mask.runs());
    if (this.sample !== sample) return; // another one is drawn on by now
    if (kept) this.over();
    else this.#changed();
  }
}
