// One sample, large: before and after, its scores, and the decision.

import { choices, field, iconButton, make } from "./dom.js";
import { Redraw } from "./redraw.js";
import { say } from "./words.js";

/** Keys and what they decide. */
export const WORDS = { k: "keep", x: "reject", u: "" };

export class Sheet {
  constructor(review) {
    this.review = review;
    this.number = -1;
    this.image = make("img", { alt: "" });
    this.title = make("h2", {});
    this.facts = make("p", { class: "faint path" });
    this.reasons = make("ul", { class: "reasons" });
    this.scores = make("tbody", {});
    const head = ["review.score", "review.value", "review.least"].map((name) => make("th", { say: name }));
    this.table = make("table", {}, make("thead", {}, make("tr", {}, ...head)), this.scores);
    this.types = make("select", { label: "review.fix", onchange: () => this.#retype() });
    this.keep = make("button", { type: "button", say: "review.keep", onclick: () => this.#decide("keep") });
    this.reject = make("button", { type: "button", say: "review.reject", onclick: () => this.#decide("reject") });
    this.asGate = make("button", { type: "button", say: "review.asGate", onclick: () => this.#decide("") });
    this.before = make("button", { type: "button", say: "review.before", "aria-pressed": "false", onclick: () => this.#press(this.before) });
    this.outline = make("button", { type: "button", say: "review.outline", "aria-pressed": "true", onclick: () => this.#press(this.outline) });
    this.wide = make("button", { type: "button", say: "review.whole", "aria-pressed": "false", onclick: () => this.#press(this.wide) });
    this.redraw = make("button", { type: "button", say: "review.redraw", onclick: () => this.#redraw() });
    this.ownMask = make("button", { type: "button", say: "review.ownMask", onclick: () => this.#decide(this.review.said[this.sample.index]?.word ?? "", { mask: "its own" }) });
    this.drawing = new Redraw(review, () => this.#drawn());
    this.pictured = make("div", { class: "pictured" }, this.image, make("div", { class: "row" }, this.before, this.outline, this.wide, this.redraw, this.ownMask));
    const turn = (step) => this.show(this.number + step);
    this.dialog = make(
      "dialog",
      { class: "sheet-of", label: "review.one", onkeydown: (event) => this.#key(event), oncancel: (event) => this.#cancel(event) },
      this.pictured,
      this.drawing.root,
      make(
        "div",
        { class: "judged" },
        make("div", { class: "row head" }, this.title, iconButton("close", "review.close", "Esc", () => this.dialog.close())),
        this.facts,
        this.reasons,
        make("div", { class: "row decide" }, this.keep, this.reject, this.asGate),
        field("review.fix", this.types),
        this.table,
        make("div", { class: "row turn" }, make("button", { type: "button", say: "review.previous", onclick: () => turn(-1) }), make("button", { type: "button", say: "review.next", onclick: () => turn(1) })),
        make("p", { class: "faint", say: "review.sheetKeys" }),
      ),
    );
  }

  get sample() {
    return this.review.grid.items[this.number];
  }

  /** Open a sample by its place in the grid. */
  show(number) {
    const { items } = this.review.grid;
    if (number < 0 || number >= items.length) return;
    this.number = number;
    this.shown = this.sample;
    this.#drawn();
    this.before.setAttribute("aria-pressed", "false");
    this.changed();
    this.#picture();
    if (!this.dialog.open) this.dialog.showModal();
    this.review.grid.reveal(number, false);
  }

  /** The samples were read again: stay at the one that is shown, and begin anew where it is another one by now. */
  renewed() {
    if (!this.dialog.open) return;
    const number = this.review.grid.items.findIndex((sample) => sample.index === this.shown.index);
    if (number < 0) this.dialog.close();
    else if (this.review.grid.items[number].mark !== this.shown.mark) this.show(number);
    else {
      this.number = number;
      this.changed();
    }
  }

  translated() {
    this.changed();
  }

  /** Something was decided, here or elsewhere. */
  changed() {
    const { sample, review } = this;
    if (!sample) return;
    const word = review.said[sample.index]?.word ?? "";
    this.title.textContent = `${sample.index} · ${review.defectOf(sample)} · ${review.stateOf(sample, true)}`;
    this.facts.textContent = say("review.facts", { product: sample.product, generator: sample.generator, seed: sample.seed, area: sample.area, normal: sample.normal, shot: sample.shot || "–" });
    this.reasons.replaceChildren(...review.reasonsOf(sample).map((text) => make("li", { textContent: text })));
    for (const [button, value] of [[this.keep, "keep"], [this.reject, "reject"], [this.asGate, ""]]) button.setAttribute("aria-pressed", String(word === value));
    choices(this.types, review.typesOf(sample).map((name) => [name, name]));
    this.types.value = review.defectOf(sample);
    this.ownMask.hidden = !review.isRedrawn(sample);
    const shown = review.picture(sample, {});
    if (shown !== this.shownAs) this.#picture(); // its mask is another one
    this.table.hidden = !Object.keys(sample.scores).length;
    this.scores.replaceChildren(...Object.entries(sample.scores).flatMap(([name, score]) => {
      const least = sample.thresholds[name];
      if (score === null && least === undefined) return []; // the filter cannot tell, and nothing hangs on it
      const below = least !== undefined && score !== null && score < least;
      const shown = (value) => (value === null || value === undefined ? "–" : Number(value).toPrecision(3));
      return make("tr", { class: below ? "below" : "" }, make("td", { textContent: review.scoreName(name) }), make("td", { textContent: shown(score) + (below ? " ✕" : "") }), make("td", { textContent: shown(least) }));
    }));
  }

  #picture() {
    const pressed = (button) => button.getAttribute("aria-pressed") === "true";
    const values = { side: 640, outline: pressed(this.outline), whole: pressed(this.wide), before: pressed(this.before) };
    this.shownAs = this.review.picture(this.sample, {});
    this.image.src = this.review.picture(this.sample, values);
    this.image.alt = say(values.before ? "review.altBefore" : "review.altSample", { index: this.sample.index });
  }

  #press(button) {
    button.setAttribute("aria-pressed", String(button.getAttribute("aria-pressed") !== "true"));
    this.#picture();
  }

  #decide(word, more) {
    this.review.decide(this.sample, word, more);
  }

  #redraw() {
    this.pictured.hidden = true;
    this.drawing.open(this.sample);
  }

  /** Drawing is over. */
  #drawn() {
    const drew = !this.drawing.root.hidden;
    this.drawing.close();
    this.pictured.hidden = false;
    if (drew) this.redraw.focus(); // what had the keyboard is gone
  }

  /** Esc gives up what is being drawn first, then closes. */
  #cancel(event) {
    if (this.drawing.root.hidden) return;
    event.preventDefault();
    this.#drawn();
  }

  #retype() {
    const { sample } = this;
    const defect = this.types.value === sample.defect ? "" : this.types.value;
    this.#decide(this.review.said[sample.index]?.word ?? "", { defect });
  }

  #key(event) {
    if (!this.drawing.root.hidden) {
      if (this.drawing.key(event)) event.preventDefault();
      return;
    }
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.tagName === "SELECT") return;
    const pressed = event.key.toLowerCase();
    if (pressed in WORDS) {
      this.#decide(WORDS[pressed]);
      if (WORDS[pressed]) this.show(this.number + 1); // as in the grid
    } else if (pressed === "v") this.#press(this.before);
    else if (pressed === "o") this.#press(this.outline);
    else if (pressed === "e") this.#redraw();
    else if (event.key === "ArrowLeft") this.show(this.number - 1);
    else if (event.key === "ArrowRight") this.show(this.number + 1);
    else return;
    event.preventDefault();
  }
}
