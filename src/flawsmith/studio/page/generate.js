// The Generate page: how many samples of each type, by which generator; progress; cancel and go on.

import { get, post } from "./api.js";
import { Cost } from "./cost.js";
import { choices, field, make, note } from "./dom.js";
import { Form } from "./form.js";
import { changed } from "./onward.js";
import { Panel, running, start, watch } from "./work.js";
import { knows, say, spoken } from "./words.js";

const COUNT = 2000; // ms between two looks at what is made
const PAUSE = 250; // ms without a change before the plan is asked for

export class Generate {
  constructor(root, source) {
    this.source = source;
    this.element = root;
    this.each = {};
    this.mode = make("select", { onchange: () => this.#modeChanged() });
    this.count = make("input", { type: "number", min: 1, max: 999999, oninput: () => this.#changed() });
    this.generator = make("select", { onchange: () => this.#generatorChanged() });
    this.summary = make("p", { class: "faint" });
    this.name = make("input", { type: "text", maxLength: 120, spellcheck: false, oninput: () => this.#changed() });
    this.place = make("p", { class: "faint path" });
    this.naming = make("div", { hidden: true }, field("plan.name", this.name), this.place);
    this.table = make("tbody");
    this.total = make("p", { class: "total" });
    this.warning = make("p", { class: "warn" });
    this.problem = make("p", { class: "bad", role: "alert" });
    this.form = new Form(() => this.#changed());
    this.ownForm = new Form(() => this.#changed());
    this.own = make("details", { hidden: true }, make("summary", { say: "plan.own" }), this.ownForm.element);
    this.cost = new Cost(() => this.#changed(0));
    this.panel = new Panel("generate", "plan.begin", () => this.#begin(), this.cost);
    const heads = ["product", "defect", "shots", "planned", "made"];
    root.replaceChildren(
      make(
        "section",
        { class: "column", label: "plan.what" },
        make("h2", { say: "plan.what" }),
        make("div", { class: "bar plain" }, field("plan.mode", this.mode), (this.same = field("plan.count", this.count)), field("paint.generator", this.generator)),
        this.summary,
        make("div", { class: "wide" }, make("table", {}, make("thead", {}, make("tr", {}, ...heads.map((head) => make("th", { say: `plan.${head}`, class: head === "product" || head === "defect" ? "" : "number" })))), this.table)),
        this.total,
        this.warning,
        this.problem,
        this.own,
        make("details", {}, make("summary", { say: "plan.more" }), this.form.element),
      ),
      make("section", { class: "column", label: "plan.making" }, make("h2", { say: "plan.making" }), this.naming, this.panel.element),
    );
    root.addEventListener("input", () => (this.touched = true));
    watch((state, ended) => {
      if (state.purpose !== "generate") return;
      if (ended) this.opened();
      else if (running() && this.plan?.run) this.counting ??= setTimeout(() => this.#count(), COUNT);
    });
  }

  async opened() {
    try {
      const plan = await get("plan");
      if (!this.plan || !this.touched) return this.#show(plan);
      this.plan = plan; // what somebody has typed stays until it is made
      this.#preview();
    } catch (error) {
      note(error.message, "error");
    }
  }

  translated() {
    this.form.translated();
    this.ownForm.translated();
    this.panel.translated();
    this.cost.translated();
    if (this.plan) {
      const { value } = this.mode;
      this.#choices();
      this.mode.value = value;
      this.#summarize();
      this.#rows();
    }
  }

  key() {
    return false;
  }

  #show(plan) {
    this.plan = plan;
    this.naming.hidden = Boolean(plan.run);
    if (!this.name.value) this.name.value = plan.name;
    this.place.textContent = plan.folder;
    const { count } = plan;
    this.#choices();
    this.mode.value = count === "balance" ? "balance" : typeof count === "object" ? "each" : "same";
    if (typeof count === "number" && !this.touched) this.count.value = count;
    else if (!this.count.value) this.count.value = 50;
    this.each = typeof count === "object" ? { ...count } : {};
    this.generator.value = plan.generator;
    this.form.show(plan.fields);
    this.#modeChanged();
    this.#generatorChanged();
  }

  #choices() {
    choices(this.mode, ["same", "each", "balance"].map((mode) => [mode, say(`mode.${mode}`)]));
    const { generators, generator } = this.plan;
    const names = generators.map(({ name, learns }) => [name, name === "auto" ? say("plan.auto") : learns ? `${name} (${say("plan.learns")})` : name]);
    choices(this.generator, generator ? names : [["", say("plan.table")], ...names]);
  }

  #summarize() {
    const name = this.generator.value;
    const known = this.plan.generators.find((one) => one.name === name);
    this.summary.textContent = knows(`generator.${name}`) ? say(`generator.${name}`) : known?.summary ?? "";
  }

  async #generatorChanged() {
    this.#summarize();
    this.#changed();
    const name = this.generator.value;
    if (name !== this.ownOf) this.own.hidden = true; // until its fields are known, for which it may have to be loaded
    try {
      const fields = await get("plan/generator", { name });
      if (name !== this.generator.value) return;
      this.ownForm.show(fields);
      this.ownOf = name;
      this.own.hidden = !fields.length;
    } catch (error) {
      note(error.message, "error");
    }
  }

  #modeChanged() {
    this.same.hidden = this.mode.value !== "same";
    if (this.mode.value === "each") for (const { defect } of this.rows ?? []) this.each[defect] ??= Number(this.count.value) || 0;
    this.#changed(0);
  }

  /** Return what is asked for. */
  #asked() {
    const values = { ...this.form.values(), ...this.ownForm.values() };
    const count = { same: Number(this.count.value), balance: "balance", each: this.each }[this.mode.value];
    return { values, count, generator: this.generator.value, name: this.plan.run ? "" : this.name.value };
  }

  #changed(pause = PAUSE) {
    clearTimeout(this.waiting);
    this.waiting = setTimeout(() => this.#preview(), pause);
  }

  async #preview() {
    const number = (this.asking = (this.asking ?? 0) + 1);
    try {
      const planned = await post("plan", this.#asked());
      if (number !== this.asking) return; // an answer to an older question
      this.problem.textContent = spoken(planned.problem);
      this.rows = planned.rows;
      this.panel.command(planned.command);
      this.cost.show(planned.complete ? { lines: {}, warnings: [] } : planned.cost); // nothing is left to make
      this.panel.begin.dataset.say = planned.anew ? "plan.anew" : planned.complete ? "plan.missing" : planned.begun ? "plan.goOn" : "plan.begin";
      this.panel.begin.classList.toggle("main", !planned.complete); // what comes next is another page then
      this.panel.begin.hidden = planned.complete && planned.rows.every(({ planned: wanted, made }) => made >= wanted);
      this.warning.textContent = planned.anew && !running() ? say("plan.givesWay") : "";
      this.panel.begin.textContent = say(this.panel.begin.dataset.say);
      if (this.mode.value === "each") for (const { defect, planned: wanted } of planned.rows) this.each[defect] ??= wanted;
      this.#rows();
    } catch (error) {
      if (number !== this.asking) return;
      this.problem.textContent = error.message;
      this.panel.command("");
    }
  }

  /** While they are made, the table is read again now and then. */
  async #count() {
    this.counting = undefined;
    if (document.hidden || this.element.hidden) return;
    await this.#preview();
    changed(); // those that are there can be looked at
  }

  #rows() {
    if (!this.rows) return;
    const focused = document.activeElement?.dataset?.defect;
    const cell = (text, number = true) => make("td", { class: number ? "number" : "", textContent: String(text) });
    const place = document.activeElement?.dataset?.product;
    this.table.replaceChildren(...this.rows.map((row) => make("tr", {}, cell(row.product, false), cell(row.defect, false), cell(row.shots), this.#planned(row), cell(row.made))));
    if (focused !== undefined) [...this.table.querySelectorAll("input")].find((one) => one.dataset.defect === focused && one.dataset.product === place)?.focus();
    const sum = (key) => this.rows.reduce((total, row) => total + row[key], 0);
    this.total.textContent = say("plan.total", { planned: sum("planned"), made: sum("made") });
  }

  #planned(row) {
    if (this.mode.value !== "each") return make("td", { class: "number", textContent: String(row.planned) });
    const input = make("input", { type: "number", min: 0, max: 999999, oninput: () => this.#countChanged(row.defect, input.value) });
    input.value = this.each[row.defect] ?? row.planned;
    Object.assign(input.dataset, { defect: row.defect, product: row.product });
    input.setAttribute("aria-label", say("plan.countOf", { defect: row.defect, product: row.product }));
    return make("td", { class: "number" }, input);
  }

  #countChanged(defect, value) {
    this.each[defect] = Math.max(0, Math.floor(Number(value) || 0));
    this.#changed();
  }

  async #begin() {
    this.problem.textContent = "";
    try {
      await start("generate", this.#asked());
      this.touched = false;
    } catch (error) {
      this.problem.textContent = error.message;
      return;
    }
    if (!this.plan.run) { // there is a run now, and the page shows it
      history.replaceState(null, "", "#generate");
      location.reload();
    }
  }
}
