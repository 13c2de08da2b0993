// The Review page: every sample that was made, sorted by any score; keep, reject, or another type.

import { address, get, post } from "./api.js";
import { choices, field, make, note } from "./dom.js";
import { Grid } from "./grid.js";
import { changed } from "./onward.js";
import { Sheet, WORDS } from "./sheet.js";
import { knows, say } from "./words.js";

const AGAIN = 3000; // ms between two looks at what other tabs decided

export class Review {
  static needsRun = true;

  constructor(root, source) {
    this.source = source;
    this.samples = [];
    this.said = {};
    this.version = "";
    this.types = make("select", { label: "review.type", onchange: () => this.#arrange() });
    this.state = make("select", { label: "review.state", onchange: () => this.#arrange() });
    this.order = make("select", { label: "review.order", onchange: () => this.#arrange() });
    this.turned = make("input", { type: "checkbox", label: "review.turned", onchange: () => this.#arrange() });
    this.whole = make("input", { type: "checkbox", label: "review.whole", onchange: () => this.grid.refresh() });
    this.count = make("output", {});
    const bar = make(
      "div",
      { class: "bar", role: "toolbar", label: "review.bar" },
      field("review.type", this.types),
      field("review.state", this.state),
      field("review.order", this.order),
      make("label", { class: "check" }, this.turned, make("span", { say: "review.turned" })),
      make("label", { class: "check" }, this.whole, make("span", { say: "review.whole" })),
      this.count,
    );
    this.holder = make("div", { class: "samples" });
    this.empty = make("p", { class: "empty", hidden: true });
    root.replaceChildren(bar, this.empty, this.holder, make("p", { class: "status" }, make("span", { class: "faint", say: "review.keys" })));
    this.grid = new Grid(this.holder, {
      width: 176,
      height: 212,
      label: "review.samples",
      render: (sample) => this.#tile(sample),
      opened: (sample, number) => this.sheet.show(number),
      key: (event, sample, number) => this.#key(event, sample, number),
    });
    this.sheet = new Sheet(this);
    root.append(this.sheet.dialog);
    setInterval(() => this.#look(), AGAIN);
    document.addEventListener("visibilitychange", () => this.#look());
  }

  /** The page is shown: what was made meanwhile is read again. */
  async opened() {
    try {
      const made = await get("samples");
      if (made.opened !== this.source.number) {
        location.reload(); // another source was opened: nothing of this page is its
        return;
      }
      Object.assign(this, { samples: made.samples, scores: made.scores, screened: made.screened });
      this.#heard(made);
      this.#choices();
      this.#arrange(true);
      this.sheet.renewed();
    } catch (error) {
      note(error.message, "error");
    }
  }

  translated() {
    if (this.scores) this.#choices();
    this.#arrange(true);
    this.sheet.translated();
  }

  key() {
    return false;
  }

  /** Decide on a sample; the server answers with what holds now. */
  async decide(sample, word, { defect = this.said[sample.index]?.defect ?? "", mask = "as it is" } = {}) {
    const before = this.said[sample.index];
    this.said[sample.index] = { ...before, word, defect }; // at once; taken back when it could not be written
    this.#changed();
    try {
      this.#heard(await post("review", { sample: sample.index, mark: sample.mark, word, defect, mask }));
    } catch (error) {
      if (before) this.said[sample.index] = before;
      else delete this.said[sample.index];
      this.#changed();
      await this.#refused(error);
    }
  }

  /** Say why something could not be written; where a sample was made anew meanwhile, show all as it is now. */
  async #refused(error) {
    note(error.message, "error");
    if (error.status === 409) await this.opened();
  }

  /** Return whether a sample stands, and who says so. */
  standing(sample) {
    const word = this.said[sample.index]?.word;
    return { stands: word ? word === "keep" : sample.kept, byPerson: Boolean(word) };
  }

  /** Give a sample the mask that was drawn; returns whether it could be written. */
  async redraw(sample, mask) {
    try {
      this.#heard(await post(`sample/${sample.index}/mask`, { mark: sample.mark, mask }));
      return true;
    } catch (error) {
      await this.#refused(error);
      return false;
    }
  }

  /** Whether somebody drew its mask anew. */
  isRedrawn(sample) {
    return Boolean(this.said[sample.index]?.mask);
  }

  /** Return in words what became of a sample, and who says so; `why` = with the reason of the gate. */
  stateOf(sample, why = false) {
    const { stands, byPerson } = this.standing(sample);
    if (byPerson) return say(stands ? "review.keptByPerson" : "review.rejectedByPerson");
    if (stands) return say(this.screened ? "review.keptByScreen" : "review.unscreened");
    const reasons = why ? this.reasonsOf(sample).join(", ") : "";
    return reasons ? say("review.rejectedFor", { reasons }) : say("review.rejected");
  }

  defectOf(sample) {
    return this.said[sample.index]?.defect || sample.defect;
  }

  /** Return the types that a sample can be of. */
  typesOf(sample) {
    return [...new Set(this.samples.filter((one) => one.product === sample.product).map((one) => one.defect))].sort();
  }

  scoreName(name) {
    return knows(`score.${name}`) ? say(`score.${name}`) : name;
  }

  /** Return why the gate rejected a sample: in today's language where the sentence is one of ours. */
  reasonsOf(sample) {
    const translated = ({ score, text }) => (knows(`reason.${score}`) && say(`reason.${score}`, {}, "en") === text ? say(`reason.${score}`) : text);
    return [...new Set(sample.reasons.map(translated))];
  }

  picture(sample, values) {
    return address(`sample/${sample.index}`, { ...values, mark: sample.mark, mask: this.said[sample.index]?.mask || null }); // another mask, another picture
  }

  #heard({ version, reviews }) {
    this.version = version;
    if (!reviews) return;
    this.said = reviews;
    this.#changed();
    changed();
  }

  #changed() {
    this.#number();
    this.grid.refresh();
    this.sheet.changed();
  }

  /** Ask whether another tab, or another person, decided something. */
  async #look() {
    if (document.hidden || !this.holder.offsetParent) return;
    try {
      this.#heard(await get("reviews", { since: this.version }));
    } catch { /* said when something is decided */ }
  }

  #choices() {
    const types = [...new Set(this.samples.map((sample) => `${sample.product}\n${sample.defect}`))].sort();
    choices(this.types, [["", say("review.all")], ...types.map((type) => [type, type.replace("\n", ": ")])]);
    choices(this.state, ["all", "stands", "fails", "decided", "undecided"].map((name) => [name, say(`review.${name}`)]));
    choices(this.order, [["index", say("review.number")], ["area", say("review.area")], ...this.scores.map((name) => [`score ${name}`, this.scoreName(name)])]);
  }

  #arrange(keepPlace = false) {
    const [product, defect] = this.types.value.split("\n");
    const { value: state } = this.state;
    const items = this.samples.filter((sample) => {
      const { stands, byPerson } = this.standing(sample);
      const wanted = { all: true, stands, fails: !stands, decided: byPerson || Boolean(this.said[sample.index]?.defect) || this.isRedrawn(sample) };
      const shown = state === "undecided" ? !wanted.decided : wanted[state] ?? true;
      return shown && (!product || (sample.product === product && sample.defect === defect));
    });
    const { value: order } = this.order;
    const value = (sample) => (order.startsWith("score ") ? sample.scores[order.slice(6)] ?? null : sample[order || "index"]);
    const sign = this.turned.checked ? -1 : 1;
    items.sort((one, other) => {
      const [a, b] = [value(one), value(other)];
      if (a === null || b === null) return (a === null) - (b === null) || one.index - other.index; // those without come last
      return sign * (a - b) || one.index - other.index;
    });
    this.grid.set(items, keepPlace);
    this.empty.hidden = this.samples.length > 0;
    this.empty.textContent = say("review.none");
    this.#number();
  }

  #number() {
    const stands = this.samples.filter((sample) => this.standing(sample).stands).length;
    const decided = Object.values(this.said).filter((one) => one.word || one.defect || one.mask).length;
    this.count.textContent = say("review.count", { shown: this.grid.items.length, all: this.samples.length, stands, decided });
  }

  #tile(sample) {
    const { stands, byPerson } = this.standing(sample);
    const { value: order } = this.order;
    const image = make("img", { alt: "", loading: "lazy", decoding: "async", src: this.picture(sample, { side: 192, whole: this.whole.checked }) });
    const verdict = make("span", { class: stands ? "verdict-word good" : "verdict-word bad" });
    const unjudged = stands && !byPerson && !this.screened;
    if (unjudged) verdict.className = "verdict-word faint";
    verdict.textContent = `${unjudged ? "" : stands ? "✓ " : "✕ "}${this.stateOf(sample)}`;
    let [detail = ""] = this.reasonsOf(sample);
    if (order.startsWith("score ")) {
      const score = sample.scores[order.slice(6)];
      detail = `${this.scoreName(order.slice(6))}: ${score === null || score === undefined ? "–" : score.toPrecision(3)}`;
    }
    const name = `${sample.index} · ${this.defectOf(sample)}`;
    const tile = make(
      "button",
      { type: "button", class: `sample ${stands ? "stands" : "fails"}${byPerson ? " decided" : ""}` },
      image, make("span", { class: "name", textContent: name }), verdict, make("span", { class: "detail faint", textContent: detail }),
    );
    tile.setAttribute("aria-label", `${name}, ${verdict.textContent}${detail ? `, ${detail}` : ""}`);
    tile.title = this.reasonsOf(sample).join("\n");
    return tile;
  }

  #key(event, sample, number) {
    if (event.ctrlKey || event.metaKey || event.altKey || !(event.key.toLowerCase() in WORDS)) return;
    event.preventDefault();
    const word = WORDS[event.key.toLowerCase()];
    this.decide(sample, word);
    if (word) this.grid.reveal(number + 1); // the next one is looked at; a decision taken back is looked at again
  }
}

