// The Paint page: choose a photograph, draw a mask or take a proposal, and have damage painted into it.

import { address, follow, get, post } from "./api.js";
import { Candidates } from "./candidates.js";
import { choices, field, iconButton, make, note } from "./dom.js";
import { Grid } from "./grid.js";
import { Levels } from "./levels.js";
import { Mask, boxOf } from "./mask.js";
import { forTab } from "./memory.js";
import { TOOLS, TOOL_KEYS, Tools } from "./tools.js";
import { View } from "./view.js";
import { knows, say } from "./words.js";

const KEPT = "flawsmith.drawing";
const MOST_KEPT = 400_000; // numbers of a mask that is kept over a reload
const MOST_CELLS = 200_000_000; // pixels of all masks that are kept while the page is open
const MOST_SEED = 2 ** 31 - 65;

export class Paint {
  constructor(root, source) {
    this.source = source;
    this.picture = null;
    this.proposing = null;
    this.masks = new Map();
    this.#build(root);
    this.view = new View(this.canvas, { failed: (error) => note(error.message, "error"), moved: () => this.#status() });
    this.tools = new Tools(this.view, { changed: () => this.#drawn(), chosen: () => this.#chosen() });
    this.candidates = new Candidates(this);
    this.panel.append(this.candidates.root);
    this.canvas.after(this.candidates.strip);
    this.tools.choose("brush");
    this.tools.setSize(8);
    this.#list();
    this.#start();
  }

  /** Keys that work wherever the keyboard is, but in a field of text. */
  key(event) {
    const pressed = event.key.toLowerCase();
    if (event.ctrlKey || event.metaKey) {
      if (pressed === "z" && !event.shiftKey) this.undo();
      else if (pressed === "y" || (pressed === "z" && event.shiftKey)) this.redo();
      else return false;
      return true;
    }
    if (event.altKey) return false;
    if (pressed in TOOL_KEYS) this.tools.choose(TOOL_KEYS[pressed]);
    else if (pressed === "[") this.tools.setSize(this.tools.size - Math.max(1, this.tools.size / 8));
    else if (pressed === "]") this.tools.setSize(this.tools.size + Math.max(1, this.tools.size / 8));
    else if (pressed === "+" || pressed === "=") this.view.zoom(1.4);
    else if (pressed === "-") this.view.zoom(1 / 1.4);
    else if (pressed === "0") this.view.fit();
    else if (pressed === "n") this.view.zoom(1 / this.view.scale);
    else if (pressed === "m") this.#toggleMask();
    else if (event.key === "Escape") return this.tools.abandon();
    else if (event.key === "Enter" && event.target === this.canvas) {
      if (!this.tools.close()) this.candidates.paint();
    } else return this.candidates.key(event);
    return true;
  }

  undo() {
    if (this.tools.abandon()) return;
    this.mask?.undo();
    this.#drawn();
  }

  redo() {
    this.mask?.redo();
    this.#drawn();
  }

  get mask() {
    return this.view.mask;
  }

  get defect() {
    return this.defects.value;
  }

  /** Open a photograph; `runs` is a mask to begin with. */
  async open(name, runs = null) {
    this.candidates.forget();
    this.asked = name;
    try {
      const picture = await get("photograph", { name });
      if (this.asked !== name) return; // another one was chosen meanwhile
      const mask = this.#maskOf(picture);
      this.picture = { ...picture, tiles: "photograph/tile", of: { name } };
      this.view.open(this.picture, mask);
      if (runs) mask.replace(runs);
      this.canvas.dataset.label = "paint.canvas";
      this.#defects();
      this.levels.open(this.picture);
      this.#drawn();
      this.photos.refresh();
    } catch (error) {
      note(error.message, "error");
    }
  }

  /** Return the mask of a photograph, as it was drawn before where it is still known. */
  #maskOf({ name, width, height }) {
    const known = this.masks.get(name);
    const mask = known?.width === width && known.height === height ? known : new Mask(width, height);
    this.masks.delete(name);
    this.masks.set(name, mask);
    let cells = [...this.masks.values()].reduce((sum, one) => sum + one.cells.length, 0);
    for (const [oldest, one] of this.masks) {
      if (cells <= MOST_CELLS || oldest === name) break;
      this.masks.delete(oldest);
      cells -= one.cells.length;
    }
    return mask;
  }

  /** Seeds follow one another from here. */
  get seed() {
    return Math.min(MOST_SEED, Math.max(0, Math.round(Number(this.seeds.value) || 0)));
  }

  newSeed() {
    this.seeds.value = Math.floor(Math.random() * 100_000);
  }

  translated() {
    this.#status();
    this.#defects();
    this.#summary();
    this.candidates.translated();
  }

  #build(root) {
    const products = Object.keys(this.source.defects);
    this.products = make("select", { label: "paint.product", onchange: () => this.#product() });
    choices(this.products, products.map((name) => [name, name]));
    this.products.hidden = products.length < 2;
    this.photoList = make("div", { class: "photos" });
    const photos = make("aside", { class: "side", label: "paint.photographs" }, make("h2", { say: "paint.photographs" }), this.products, this.photoList);

    this.toolButtons = TOOLS.map((tool) => {
      const key = Object.keys(TOOL_KEYS).find((one) => TOOL_KEYS[one] === tool).toUpperCase();
      return iconButton(tool, `tool.${tool}`, key, () => this.tools.choose(tool), { value: tool });
    });
    this.sizes = make("input", { type: "range", min: 1, max: 200, label: "paint.size", oninput: () => this.tools.setSize(Number(this.sizes.value)) });
    this.sizeText = make("output", {});
    this.undoButton = iconButton("undo", "paint.undo", "Ctrl+Z", () => this.undo());
    this.redoButton = iconButton("redo", "paint.redo", "Ctrl+Y", () => this.redo());
    this.clearButton = iconButton("clear", "paint.clear", "", () => this.#replace([]));
    this.maskButton = iconButton("eye", "paint.mask", "M", () => this.#toggleMask(), { "aria-pressed": "true" });
    const toolbar = make(
      "div",
      { class: "toolbar", role: "toolbar", label: "paint.tools" },
      make("span", { class: "group" }, ...this.toolButtons),
      make("span", { class: "group" }, this.sizes, this.sizeText),
      make("span", { class: "group" }, this.undoButton, this.redoButton, this.clearButton, this.maskButton),
      make(
        "span",
        { class: "group" },
        iconButton("minus", "paint.zoomOut", "-", () => this.view.zoom(1 / 1.4)),
        iconButton("plus", "paint.zoomIn", "+", () => this.view.zoom(1.4)),
        iconButton("fit", "paint.fit", "0", () => this.view.fit()),
        make("button", { type: "button", class: "icon text", textContent: "1:1", label: "paint.native", "data-key": "N", onclick: () => this.view.zoom(1 / this.view.scale) }),
      ),
    );
    this.canvas = make("canvas", { tabIndex: 0, role: "application", label: "paint.canvas" });
    this.hint = make("p", { class: "status", "aria-live": "off" });
    this.levels = new Levels((window) => {
      this.view.setWindow(window);
      this.candidates.levelled();
    });
    const stage = make("section", { class: "stage", label: "paint.picture" }, toolbar, this.canvas, this.levels.root, this.hint);

    this.sentence = make("input", { type: "text", maxLength: 300, "data-hint": "paint.sentenceHint", label: "paint.sentence" });
    const asking = make("form", { class: "sentence", onsubmit: (event) => this.#sentence(event) }, this.sentence, make("button", { say: "paint.ask" }));
    this.file = make("input", { type: "file", accept: "image/*,.tif,.tiff", hidden: true, onchange: () => this.#upload() });
    this.defects = make("select", { label: "paint.defect" });
    this.generators = make("select", { label: "paint.generator", onchange: () => this.#summary() });
    choices(this.generators, this.source.generators.map((one) => [one.name, one.name]));
    this.summary = make("p", { class: "faint" });
    this.seeds = make("input", { type: "number", min: 0, max: MOST_SEED, step: 1, value: 0, label: "paint.seed" });
    this.panel = make(
      "aside",
      { class: "side panel", label: "paint.make" },
      make("h2", { say: "paint.where" }),
      make("p", { class: "faint", say: "paint.whereHelp" }),
      make(
        "div",
        { class: "row" },
        make("button", { type: "button", say: "paint.fromShot", onclick: () => this.#propose("shots") }),
        make("button", { type: "button", say: "paint.fromShape", onclick: () => this.#propose("procedural") }),
        make("button", { type: "button", say: "paint.file", onclick: () => this.file.click() }),
        this.file,
      ),
      asking,
      make("h2", { say: "paint.what" }),
      field("paint.defect", this.defects),
      field("paint.generator", this.generators),
      this.summary,
      field("paint.seed", make("span", { class: "joined" }, this.seeds, iconButton("dice", "paint.newSeed", "", () => this.newSeed()))),
    );
    root.replaceChildren(photos, stage, this.panel);
    this.#summary();
  }

  #list() {
    const product = this.products.value;
    this.photos ??= new Grid(this.photoList, {
      width: 104,
      height: 104,
      label: "paint.photographs",
      render: (photograph) => this.#photo(photograph),
      opened: (photograph) => this.open(photograph.id),
    });
    this.photos.set(this.source.photographs.filter((photograph) => photograph.product === product));
  }

  /** Another product: show its photographs, and open the first. */
  #product() {
    this.#list();
    const [first] = this.photos.items;
    if (first) this.open(first.id);
  }

  #photo(photograph) {
    const image = make("img", { src: address("photograph/thumb", { name: photograph.id, side: 192 }), alt: "", loading: "lazy", decoding: "async" });
    const button = make("button", { type: "button", class: "photo", title: photograph.id }, image);
    button.setAttribute("aria-label", photograph.id);
    button.setAttribute("aria-current", String(photograph.id === this.picture?.name));
    return button;
  }

  /** Go on with what was drawn before a reload, else with the first photograph. */
  async #start() {
    const drawing = forTab.recall(KEPT);
    const kept = drawing?.root === this.source.root ? drawing : null; // another set may have photographs of the same names
    const known = this.source.photographs.find((photograph) => photograph.id === kept?.name);
    const first = known ?? this.source.photographs.find((photograph) => photograph.product === this.products.value);
    if (!first) return;
    if (known) {
      this.products.value = known.product;
      this.#list();
    }
    await this.open(first.id, known ? kept.runs : null);
    if (known && [...this.defects.options].some((option) => option.value === kept.defect)) this.defects.value = kept.defect;
    if (known) this.seeds.value = kept.seed ?? 0;
  }

  #keep() {
    const runs = this.mask.runs();
    forTab.keep(KEPT, runs.length > MOST_KEPT ? null : { root: this.source.root, name: this.picture.name, runs, defect: this.defect, seed: this.seed });
  }

  #drawn() {
    const { mask } = this;
    this.undoButton.disabled = !mask?.done.length;
    this.redoButton.disabled = !mask?.undone.length;
    this.clearButton.disabled = !mask?.count;
    this.candidates?.drawn();
    if (mask) this.#keep();
    this.view.redraw();
  }

  #chosen() {
    for (const button of this.toolButtons) button.setAttribute("aria-pressed", String(button.value === this.tools.tool));
    this.sizes.value = this.tools.size;
    this.sizeText.textContent = `${this.tools.size} px`;
    this.#status();
  }

  #status() {
    if (!this.picture || !this.tools) return;
    const { width, height, depth } = this.picture;
    const at = this.view.cursor ?? this.view.pointer;
    const place = at ? `x ${Math.floor(at.x)}, y ${Math.floor(at.y)}` : "";
    const help = say(`help.${this.tools.tool}`);
    const facts = [this.picture.name, `${width} × ${height}`, say("paint.bits", { depth }), `${(100 * this.view.scale).toFixed(0)} %`, say("paint.masked", { count: this.mask.count }), place];
    this.hint.replaceChildren(make("span", { textContent: facts.filter(Boolean).join("  ·  ") }), make("span", { class: "faint", textContent: help }));
  }

  #toggleMask() {
    this.view.showMask = !this.view.showMask;
    this.maskButton.setAttribute("aria-pressed", String(this.view.showMask));
    this.view.redraw();
  }

  #defects() {
    if (!this.picture) return;
    const types = this.source.defects[this.picture.product] ?? [];
    choices(this.defects, types.map((name) => [name, name]));
  }

  #summary() {
    const chosen = this.source.generators.find((one) => one.name === this.generators.value);
    const key = `generator.${chosen?.name}`;
    this.summary.textContent = knows(key) && say(key, {}, "en") === chosen.summary ? say(key) : chosen?.summary ?? "";
  }

  #replace(runs) {
    this.tools.abandon();
    this.mask?.replace(runs);
    this.#drawn();
  }

  async #propose(way, sentence = "") {
    if (!this.picture || this.proposing) return;
    const name = this.picture.name;
    this.panel.setAttribute("aria-busy", "true");
    this.proposing = way;
    try {
      this.proposals = (this.proposals ?? this.seed) + 1;
      const asked = { photograph: name, way, defect: this.defect, seed: this.proposals % MOST_SEED, sentence };
      const proposed = await follow(await post("propose", asked));
      if (!proposed || this.picture.name !== name) return;
      this.proposals = proposed.seed;
      this.defects.value = proposed.defect;
      this.#replace(proposed.mask);
      this.view.look(boxOf(proposed.mask, this.picture.width));
      note(way === "procedural" ? say("paint.proposedShape") : say("paint.proposedShot", { shot: proposed.shot }));
    } catch (error) {
      note(error.message, "error");
    } finally {
      this.proposing = null;
      this.panel.removeAttribute("aria-busy");
    }
  }

  #sentence(event) {
    event.preventDefault();
    this.#propose("sentence", this.sentence.value);
  }

  async #upload() {
    const [file] = this.file.files;
    this.file.value = "";
    if (!file || !this.picture) return;
    try {
      const { mask } = await post("mask", file, { name: this.picture.name });
      this.#replace(mask);
      this.view.look(boxOf(mask, this.picture.width));
    } catch (error) {
      note(error.message, "error");
    }
  }
}
