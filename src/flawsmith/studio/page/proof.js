// The Proof page: the verdict in a sentence, intervals as a picture, what was gained and lost, and how to prove.

import { address, get, post } from "./api.js";
import { Cost } from "./cost.js";
import { make, note } from "./dom.js";
import { Form } from "./form.js";
import { Panel, start, watch } from "./work.js";
import { say, spoken } from "./words.js";

const SVG = "http://www.w3.org/2000/svg";
const TASKS = ["localization", "detection", "classification"];
const TELLING = { gained: { title: "telling.gained", none: "telling.noneGained" }, lost: { title: "telling.lost", none: "telling.noneLost" } };
const WIDTH = 640;
const ROW = 26;

export class Proof {
  static needsRun = true;

  constructor(root) {
    this.form = new Form(() => this.#changed());
    this.shown = make("div", { class: "proven" });
    this.problem = make("p", { class: "bad", role: "alert" });
    this.plan = make("p", { class: "faint" });
    this.cost = new Cost(() => this.#changed());
    this.panel = new Panel("prove", "proof.begin", () => this.#begin(), this.cost);
    this.report = make("a", { say: "proof.report", href: address("report"), target: "_blank", rel: "noopener", hidden: true });
    root.replaceChildren(
      make("section", { class: "column", label: "proof.verdict" }, make("h2", { say: "proof.verdict" }), this.shown, this.report),
      make(
        "section",
        { class: "column", label: "proof.prove" },
        make("h2", { say: "proof.prove" }),
        make("p", { class: "faint", say: "proof.help" }),
        this.plan,
        this.problem,
        this.panel.element,
        make("details", {}, make("summary", { say: "plan.more" }), this.form.element),
      ),
    );
    watch((state, ended) => {
      if (ended && this.proof) this.opened();
    });
  }

  async opened() {
    try {
      this.proof = await get("proof");
      this.report.hidden = !this.proof.report;
      this.panel.begin.classList.toggle("main", !this.proof.proven);
      this.form.show(this.proof.fields);
      this.#show();
      this.#changed();
    } catch (error) {
      note(error.message, "error");
    }
  }

  translated() {
    this.form.translated();
    this.panel.translated();
    this.cost.translated();
    this.plan.textContent = spoken(this.left ?? "");
    if (this.proof) this.#show();
  }

  key() {
    return false;
  }

  async #changed() {
    const number = (this.asking = (this.asking ?? 0) + 1);
    try {
      const { command, cost, note: left } = await post("proof/plan", { values: this.form.values() });
      if (number !== this.asking) return; // an answer to an older question
      this.panel.command(command);
      this.cost.show(cost);
      this.left = left;
      this.plan.textContent = spoken(left);
      this.problem.textContent = "";
    } catch (error) {
      this.problem.textContent = error.message;
      this.panel.command("");
    }
  }

  async #begin() {
    try {
      await start("prove", { values: this.form.values() });
      this.problem.textContent = "";
    } catch (error) {
      this.problem.textContent = error.message;
    }
  }

  #show() {
    const { proof } = this;
    if (!proof.proven) {
      this.shown.replaceChildren(make("p", { class: "empty", textContent: say(proof.kept ? "proof.none" : "proof.nothing") }));
      return;
    }
    const detail = say("proof.how", { detectors: proof.detectors.join(", "), seeds: proof.seeds, generator: proof.generator });
    const judged = proof.products.some((product) => !product.cannot_tell);
    this.shown.replaceChildren(
      ...proof.products.map((product) => this.#lead(product)).filter(Boolean),
      ...(proof.first_look && judged ? [make("p", { class: "warn", textContent: spoken(proof.first_look) })] : []),
      ...proof.products.flatMap((product) => this.#product(product)),
      make("p", { class: "faint", textContent: detail }),
      ...(proof.notes.length ? [make("ul", { class: "faint" }, ...proof.notes.map((text) => make("li", { textContent: spoken(text) })))] : []),
    );
  }

  /** Return the verdict in the first task that was asked, over all defect types; null = there is none. */
  #lead(product) {
    if (product.cannot_tell) return make("p", { class: "lead no-effect", textContent: spoken(product.cannot_tell) });
    const mean = tasksOf(product).map((task) => product.rows.find((row) => row.task === task && row.mean))[0];
    return mean ? make("p", { class: `lead ${mean.verdict.replace(" ", "-")}`, textContent: this.#sentence(product, mean) }) : null;
  }

  #product(product) {
    if (product.cannot_tell) return [make("p", { class: "faint", textContent: say("proof.leftOut") })];
    const [first, ...others] = tasksOf(product).map((task) => intervals(product.name, task, product.rows.filter((row) => row.task === task)));
    const folded = others.length ? [make("details", {}, make("summary", { textContent: say("proof.others", { product: product.name }) }), ...others)] : [];
    return [...(first ? [first] : []), this.#telling(product, "gained"), this.#telling(product, "lost"), ...folded];
  }

  #sentence(product, row) {
    const key = { helps: "verdict.helps", harms: "verdict.harms" }[row.verdict] ?? "verdict.none";
    return say(key, { product: product.name, task: say(`task.${row.task}`), difference: points(row.difference), low: points(row.low), high: points(row.high), confidence: Math.round(100 * this.proof.confidence) });
  }

  #telling(product, what) {
    const rows = product.telling.filter((row) => row.what === what);
    if (!rows.length) return make("p", { class: "faint", textContent: say(TELLING[what].none) });
    const tiles = rows.map((row) => {
      const caption = `${points(row.change)} ${row.defect}`; // a long name loses its end, not the figure
      const picture = make("img", { alt: "", loading: "lazy", src: address("photograph/thumb", { name: row.id, side: 192, outline: true }) });
      const tile = make("button", { type: "button", class: "sample", title: row.id, onclick: () => window.open(address("photograph/thumb", { name: row.id, side: 1024, outline: true }), "_blank", "noopener") }, picture, make("span", { class: "name", textContent: caption }), make("span", { class: "detail faint", textContent: row.id }));
      tile.setAttribute("aria-label", `${caption}, ${row.id}`);
      return tile;
    });
    return make("section", {}, make("h2", { textContent: `${say(TELLING[what].title)} (${product.name})` }), make("div", { class: "tiles" }, ...tiles));
  }
}

const tasksOf = (product) => TASKS.filter((task) => product.rows.some((row) => row.task === task));

/** Return the name of a row: a defect type, or what stands for all of them. */
function nameOf(row) {
  if (row.mean) return say("proof.mean");
  return row.all ? say("proof.all") : row.defect;
}

const points = (share) => {
  const text = (100 * share).toFixed(1);
  return share >= 0 && text !== "-0.0" ? `+${text}` : text === "-0.0" ? "+0.0" : text;
};

/** Return differences with their intervals as a picture, and as a table for whoever cannot see it. */
function intervals(product, task, rows) {
  const most = Math.max(0.01, ...rows.flatMap((row) => [Math.abs(row.low), Math.abs(row.high)])) * 1.05;
  const left = 170;
  const right = 138;
  const x = (share) => left + ((WIDTH - left - right) * (share + most)) / (2 * most);
  const height = rows.length * ROW + 30;
  const title = say("proof.picture", { task: say(`task.${task}`), product });
  const picture = element("svg", { viewBox: `0 0 ${WIDTH} ${height}`, class: "intervals", role: "img", "aria-label": title });
  picture.append(element("line", { x1: x(0), x2: x(0), y1: 4, y2: rows.length * ROW + 4, class: "zero" }));
  for (const [number, row] of rows.entries()) {
    const y = number * ROW + ROW / 2 + 4;
    const kind = row.verdict.replace(" ", "-");
    const name = nameOf(row);
    picture.append(
      text(name.length > 24 ? `${name.slice(0, 23)}…` : name, { x: left - 10, y: y + 4, "text-anchor": "end", class: row.mean ? "mean" : "" }),
      element("line", { x1: x(row.low), x2: x(row.high), y1: y, y2: y, class: `interval ${kind}` }),
      element("circle", { cx: x(row.difference), cy: y, r: row.mean ? 6 : 4.5, class: kind }),
      text(`${points(row.difference)} [${points(row.low)}, ${points(row.high)}]`, { x: WIDTH - right + 8, y: y + 4, class: "value" }),
    );
  }
  const base = rows.length * ROW + 20;
  picture.append(text(say("proof.worse"), { x: left, y: base, class: "value" }), text("0", { x: x(0), y: base, "text-anchor": "middle", class: "value" }), text(say("proof.better"), { x: WIDTH - right, y: base, "text-anchor": "end", class: "value" }));
  const heads = ["proof.defect", "proof.difference", "proof.interval", "proof.word"].map((head) => make("th", { say: head }));
  const cells = rows.map((row) => make("tr", {}, ...[nameOf(row), points(row.difference), `${points(row.low)} … ${points(row.high)}`, say(`stands.${{ helps: "helps", harms: "harms" }[row.verdict] ?? "none"}`)].map((value) => make("td", { textContent: value }))));
  const table = make("details", {}, make("summary", { textContent: say("proof.table") }), make("div", { class: "wide" }, make("table", {}, make("thead", {}, make("tr", {}, ...heads)), make("tbody", {}, ...cells))));
  return make("section", {}, make("h2", { textContent: title }), picture, table);
}

function element(name, attributes) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, typeof value === "number" ? value.toFixed(1) : value);
  return made;
}

function text(content, attributes) {
  const made = element("text", attributes);
  made.textContent = content;
  return made;
}
