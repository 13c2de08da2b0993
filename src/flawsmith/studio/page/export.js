// The Export page: formats and what each can be told, a preview of the tree, and the command that does the same.

import { follow, get, post } from "./api.js";
import { make, note, table } from "./dom.js";
import { Form } from "./form.js";
import { forTab } from "./memory.js";
import { Panel, start, watch } from "./work.js";
import { knows, say } from "./words.js";

const PAUSE = 250; // ms without a change before the command is asked for

export class Export {
  static needsRun = true;

  constructor(root) {
    this.formats = make("div", { class: "formats" });
    this.form = new Form(() => this.#changed());
    this.problem = make("p", { class: "bad", role: "alert" });
    this.panel = new Panel("export", "export.begin", () => this.#begin());
    this.look = make("button", { type: "button", say: "export.preview", onclick: () => this.#preview() });
    this.trees = make("div", { class: "trees" });
    this.counted = make("p", { class: "faint" });
    root.replaceChildren(
      make("section", { class: "column", label: "export.formats" }, make("h2", { say: "export.formats" }), this.formats, make("h2", { say: "export.both" }), this.form.element),
      make("section", { class: "column", label: "export.write" }, make("h2", { say: "export.write" }), this.problem, this.panel.element, make("h2", { say: "export.tree" }), make("div", { class: "row" }, this.look), this.counted, this.trees),
    );
    watch((state, ended) => {
      if (ended && this.known) this.opened(); // whatever ended: what can be exported is another, and asking is possible again
    });
  }

  async opened() {
    try {
      this.known = await get("export");
      this.form.show(this.known.fields);
      this.#show();
    } catch (error) {
      note(error.message, "error");
    }
  }

  translated() {
    this.form.translated();
    this.panel.translated();
    if (this.known) this.#show();
  }

  key() {
    return false;
  }

  #show() {
    const before = this.choices ?? [];
    this.choices = this.known.formats.map((format) => this.#format(format, before.find((one) => one.name === format.name)));
    this.formats.replaceChildren(...this.choices.map((choice) => choice.element));
    this.#written();
    this.#changed(0);
  }

  #format(format, before) {
    const box = make("input", { type: "checkbox", checked: before ? before.box.checked : this.#remembered()?.includes(format.name) ?? format.chosen, onchange: () => this.#chosen() });
    const form = new Form(() => this.#changed());
    form.show(format.fields);
    const options = make("details", { hidden: !box.checked || !format.fields.length }, make("summary", { textContent: say("export.options", { format: format.name }) }), form.element);
    const summary = knows(`format.${format.name}`) ? say(`format.${format.name}`) : format.summary;
    const label = make("label", { class: "check" }, box, make("b", { textContent: format.name }), make("span", { class: "faint", textContent: summary }));
    return { name: format.name, box, form, options, element: make("div", { class: "format" }, label, options) };
  }

  /** Return the formats that were chosen in this tab before it was loaded anew; null = none were. */
  #remembered() {
    return forTab.recall(this.#key());
  }

  #key() {
    return `formats of ${this.known.folder}`;
  }

  #chosen() {
    forTab.keep(this.#key(), this.#asked().formats);
    for (const { box, options, form } of this.choices) options.hidden = !box.checked || !form.fields.length;
    this.#changed();
  }

  #asked() {
    const chosen = this.choices.filter(({ box }) => box.checked);
    return { formats: chosen.map(({ name }) => name), values: Object.assign({}, this.form.values(), ...chosen.map(({ form }) => form.values())) };
  }

  #changed(pause = PAUSE) {
    clearTimeout(this.waiting);
    this.waiting = setTimeout(() => this.#plan(), pause);
  }

  async #plan() {
    try {
      const { command } = await post("export/plan", this.#asked());
      this.panel.command(command);
      this.problem.textContent = "";
    } catch (error) {
      this.problem.textContent = error.message;
      this.panel.command("");
    }
  }

  async #begin() {
    this.problem.textContent = "";
    try {
      await start("export", this.#asked());
    } catch (error) {
      this.problem.textContent = error.message;
    }
  }

  /** Show what is written already. */
  #written() {
    const written = this.known.formats.filter((format) => format.written);
    this.counted.textContent = say(`export.${this.known.state}`, { folder: this.known.folder });
    this.trees.replaceChildren(...written.map((format) => tree(format.name, format.written, true)));
  }

  async #preview() {
    this.look.disabled = true;
    this.counted.textContent = say("export.looking");
    try {
      const made = await follow(await post("export/tree", this.#asked()));
      if (made) {
        const sentences = [say("export.shown", { shown: made.shown, pictures: made.pictures, defects: made.defects, normal: made.normal })];
        if (made.rejected) sentences.push(say("export.rejected", { count: made.rejected }));
        this.counted.textContent = sentences.join(" ");
        const counts = made.counts.map(({ product, defect, pictures }) => [product, defect ?? say("data.normal"), pictures]);
        const columns = ["data.product", "data.defect", "data.pictures"];
        this.trees.replaceChildren(table(say("export.counts"), columns, counts), ...Object.entries(made.trees).map(([name, files]) => tree(name, files, true)));
      }
    } catch (error) {
      this.counted.textContent = "";
      this.problem.textContent = error.message;
    }
    this.look.disabled = false;
  }
}

/** Return a folder with what is in it; folders open and close. */
function tree(name, { files, bytes, folders, first }, open = false) {
  const inside = Object.entries(folders).map(([folder, below]) => tree(folder, below, open && Object.keys(folders).length <= 8));
  const here = files - Object.values(folders).reduce((sum, below) => sum + below.files, 0);
  const names = first.map((file) => make("li", { textContent: file }));
  if (here > first.length) names.push(make("li", { class: "faint", textContent: say("export.more", { count: here - first.length }) }));
  const summary = make("summary", {}, make("b", { textContent: `${name}/` }), make("span", { class: "faint", textContent: ` ${say("export.files", { files, size: size(bytes) })}` }));
  return make("details", { class: "tree", open }, summary, ...inside, make("ul", {}, ...names));
}

function size(bytes) {
  const units = ["B", "kB", "MB", "GB"];
  let number = 0;
  for (; bytes >= 1000 && number < units.length - 1; number += 1) bytes /= 1000;
  return `${bytes < 10 && number ? bytes.toFixed(1) : Math.round(bytes)} ${units[number]}`;
}
