// The Data page: what `flawsmith check` understood of the photographs.

import { address, follow, get, post } from "./api.js";
import { choices, field, make, note, table } from "./dom.js";
import { Folders } from "./folders.js";
import { answerWords, lineOf } from "./form.js";
import { Grid } from "./grid.js";
import { changed } from "./onward.js";
import { say, spoken } from "./words.js";

export class Data {
  constructor(root, source) {
    this.source = source;
    this.element = root;
    this.labelled = null;
    this.verdict = make("p", { class: "ready" });
    this.again = make("button", { type: "button", say: "data.again", onclick: () => this.#check(true) });
    this.folders = new Folders();
    this.another = make("button", { type: "button", say: source.opened ? "folder.another" : "folder.choose", hidden: !source.folders, onclick: () => this.folders.choose() });
    this.bar = make("progress", { hidden: true, label: "data.checking" });
    this.found = make("div", { class: "found" });
    this.written = make("div", { class: "written" });
    this.types = make("select", { label: "data.type", onchange: () => this.#arrange(false) });
    this.empty = make("p", { class: "empty", say: "data.noDamage", hidden: true });
    this.legend = make("p", { class: "legend faint", say: "data.partLegend", hidden: true });
    this.holder = make("div", { class: "labelled" });
    root.replaceChildren(
      make("section", { class: "findings", label: "data.findings" }, make("div", { class: "row" }, this.verdict, this.again, this.another), this.bar, this.written, this.found),
      make("section", { class: "shown", label: "data.outlines", hidden: !source.opened }, make("div", { class: "bar" }, make("h2", { say: "data.outlines" }), (this.choice = field("data.type", this.types))), this.empty, this.legend, this.holder),
    );
    root.append(this.folders.dialog);
    this.again.hidden = !source.opened;
    this.grid = new Grid(this.holder, {
      width: 200,
      height: 224,
      label: "data.outlines",
      render: (example) => this.#tile(example),
      opened: (example) => window.open(address("photograph/thumb", { name: example.id, side: 1024, outline: true }), "_blank", "noopener"),
    });
  }

  async opened() {
    if (this.labelled) return;
    this.labelled = [];
    if (!this.source.opened) {
      this.verdict.textContent = say("folder.nothing");
      this.folders.choose();
      return;
    }
    try {
      this.labelled = await get("labelled");
      this.empty.hidden = this.labelled.length > 0;
      this.#arrangeTypes();
    } catch (error) {
      note(error.message, "error");
    }
    this.#check(false);
    this.#showWritten();
  }

  translated() {
    if (this.source.opened && this.answers) this.#listWritten();
    if (this.labelled) this.#arrangeTypes();
    if (this.findings) this.#show();
    if (!this.source.opened) this.verdict.textContent = say("folder.nothing");
  }

  key() {
    return false;
  }

  async #check(again) {
    this.bar.hidden = false;
    this.again.disabled = true;
    this.verdict.textContent = say("data.checking");
    try {
      this.findings = await follow(await post("check", {}, again ? { again: true } : {}));
      if (this.source.opened) this.#arrangeTypes();
      this.#show();
      changed();
    } catch (error) {
      this.verdict.textContent = "";
      note(error.message, "error");
    }
    this.bar.hidden = true;
    this.again.disabled = false;
  }

  #arrangeTypes() {
    const types = [...new Set(this.#examples().map((one) => `${one.product}\n${one.defect}`))].sort();
    choices(this.types, [["", say("review.all")], ...types.map((type) => [type, type.endsWith("\n") ? `${type.trim()}: ${say("data.normal")}` : type.replace("\n", ": ")])]);
    this.choice.hidden = this.holder.hidden = !types.length;
    this.#arrange(true);
  }

  /** Return the photographs with masks, and the normal ones in which the check has looked for the part. */
  #examples() {
    const parts = Object.entries(this.findings?.parts ?? {});
    const normal = parts.flatMap(([product, shares]) => Object.entries(shares).map(([id, share]) => ({ id, product, defect: "", share })));
    return [...this.labelled, ...normal];
  }

  #arrange(keepPlace) {
    const [product, defect] = this.types.value.split("\n");
    const examples = this.#examples().filter((one) => !product || (one.product === product && one.defect === defect));
    this.legend.hidden = !examples.some((one) => !one.defect);
    this.grid.set(examples, keepPlace);
  }

  #tile(example) {
    const kind = example.defect ? say(example.shot ? "data.shot" : "data.test") : say(example.share < 1 ? "data.partShare" : "data.noPart", { share: (100 * example.share).toFixed(0) });
    const defect = example.defect || say("data.normal");
    const tile = make(
      "button",
      { type: "button", class: "sample", title: example.id },
      make("img", { alt: "", loading: "lazy", decoding: "async", src: address("photograph/thumb", { name: example.id, side: 192, outline: true }) }),
      make("span", { class: "name", textContent: `${defect} · ${kind}` }),
      make("span", { class: "detail faint", textContent: example.id }),
    );
    tile.setAttribute("aria-label", `${defect}, ${kind}, ${example.id}`);
    return tile;
  }

  #show() {
    const { findings } = this;
    this.verdict.className = findings.ok ? "ready good" : "ready bad";
    this.verdict.textContent = findings.ok ? `✓ ${say("data.ready")}` : `✕ ${say("data.notReady", { count: findings.errors.length })}`;
    const list = (kind, sentences) => (sentences.length ? make("section", { class: `said ${kind}` }, make("h2", { textContent: `${say(`data.${kind}`)} (${sentences.length})` }), make("ul", {}, ...sentences.map((sentence) => this.#finding(sentence)))) : null);
    const percent = (share) => (share === null ? "" : `${(100 * share).toPrecision(2)} %`);
    const whole = (number) => (number === null ? "" : number.toFixed(0));
    const defects = findings.defects.map((one) => [one.product, one.defect || say("data.normal"), one.pictures, one.shots, one.test, percent(one.share), whole(one.thickness)]);
    const column = (name) => `data.${name}`;
    const named = (values) => Object.entries(values).map(([name, value]) => [spoken(name), spoken(String(value))]);
    const sizes = findings.pictures.map((one) => [one.product, one.pictures, range(one.width), range(one.height), Object.entries(one.formats).map(([format, count]) => say("data.format", { format: spoken(format), count })).join(", ")]);
    this.found.replaceChildren(
      ...[
        list("errors", findings.errors),
        list("warnings", findings.warnings),
        table(say("data.types"), ["product", "defect", "pictures", "learned", "tested", "damaged", "thick"].map(column), defects),
        table(say("data.photographs"), ["product", "pictures", "width", "height", "formats"].map(column), sizes),
        table(say("data.ledger"), null, named(findings.files)),
        table(say("data.cost"), null, named(findings.estimate)),
        list("notes", findings.notes),
      ].filter(Boolean),
    );
  }

  /** Return a sentence with a button for each setting that answers it. */
  #finding(sentence) {
    const answers = (this.findings.answers[sentence] ?? []).filter(({ setting }) => !(this.source.run && setting.startsWith("data.")));
    const buttons = answers.map((answer) => make("button", { type: "button", class: "answer", textContent: answerWords(answer), title: lineOf(answer), onclick: () => this.#write("answer", answer) }));
    return make("li", {}, make("span", { textContent: spoken(sentence) }), ...buttons);
  }

  async #write(path, asked) {
    this.element.querySelectorAll("button").forEach((button) => { button.disabled = true; });
    try {
      await post(path, asked);
      location.reload(); // every part of the page shows what is set now
    } catch (error) {
      note(error.message, "error");
      this.#show();
      this.again.disabled = this.another.disabled = false;
    }
  }

  async #showWritten() {
    try {
      this.answers = await get("answers");
      this.#listWritten();
    } catch (error) {
      note(error.message, "error");
    }
  }

  /** Show the settings that were written from here, each with a button that takes it back. */
  #listWritten() {
    const { written, place } = this.answers;
    const row = ({ setting, value, line }) => {
      const undo = make("button", { type: "button", textContent: say("data.undo"), onclick: () => this.#write("answer/undo", { setting }) });
      undo.setAttribute("aria-label", `${say("data.undo")}: ${line}`);
      return make("li", { class: "row" }, make("span", { textContent: answerWords({ setting, value }) }), make("code", { textContent: line }), undo);
    };
    const where = place ? say("data.writtenTo", { place }) : say("data.writtenHere");
    this.written.replaceChildren(...(written.length ? [make("h2", { say: "data.written" }), make("ul", {}, ...written.map(row)), make("p", { class: "faint", textContent: where })] : []));
  }
}

function range([least, middle, most]) {
  return least === most ? String(least) : `${least} – ${Math.round(middle)} – ${most}`;
}
