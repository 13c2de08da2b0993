// Candidates of a mask: painted one after another, compared, kept or given up.

import { address, blob, follow, get, post } from "./api.js";
import { make, note } from "./dom.js";
import { changed } from "./onward.js";
import { say, spoken } from "./words.js";

const COUNT = 4;

export class Candidates {
  constructor(paint) {
    this.paint_ = paint;
    this.made = [];
    this.job = null;
    this.chosen = -1;
    this.paintButton = make("button", { type: "button", class: "main", say: "paint.paint", onclick: () => this.paint() });
    this.cancelButton = make("button", { type: "button", say: "paint.cancel", hidden: true, onclick: () => this.cancel() });
    this.bar = make("progress", { max: COUNT, value: 0, hidden: true, label: "paint.progress" });
    this.four = make("div", { class: "four", role: "group", label: "paint.candidates" });
    this.acceptButton = make("button", { type: "button", class: "main", onclick: () => this.accept(), say: "paint.accept" });
    this.compareButton = make("button", { type: "button", say: "paint.before", onclick: () => this.#compare(), "aria-pressed": "false" });
    this.rejectButton = make("button", { type: "button", say: "paint.reject", onclick: () => this.reject() });
    this.said = make("p", { class: "faint" });
    this.first = make("p", { class: "faint", say: "paint.first" });
    this.verdict = make("div", { class: "verdict" }, this.acceptButton, this.compareButton, this.rejectButton);
    this.strip = make("div", { class: "strip", hidden: true }, this.four, this.verdict);
    this.kept = make("div", { class: "kept" });
    this.keptTitle = make("h2", { hidden: true });
    this.place = make("p", { class: "faint path" });
    this.root = make(
      "div",
      { class: "candidates" },
      make("div", { class: "row" }, this.paintButton, this.cancelButton),
      this.first, this.bar, this.said, this.keptTitle, this.kept, this.place,
    );
    this.#painted();
    this.drawn();
  }

  key(event) {
    const number = "1234".indexOf(event.key);
    if (number >= 0 && this.made[number]?.name) this.choose(number);
    else if (event.key === "a" && this.current) this.accept();
    else if (event.key === "x" && this.made.length) this.reject();
    else if (event.key === "v" && this.current) this.#compare();
    else return false;
    return true;
  }

  get current() {
    return this.made[this.chosen];
  }

  /** What was drawn has changed. */
  drawn() {
    const { mask } = this.paint_.view;
    this.paintButton.disabled = Boolean(this.job) || !mask?.count;
    this.first.hidden = Boolean(mask?.count);
  }

  translated() {
    this.#show();
    if (this.made.length && !this.job) this.said.textContent = this.#summary();
    this.#painted();
  }

  /** Black and white are others: show the candidates so. */
  levelled() {
    this.#show();
    if (this.current) this.choose(this.chosen);
  }

  /** Paint four candidates into the mask. */
  async paint() {
    const { picture, mask, defect, seed, generators } = this.paint_;
    if (this.job || !picture || !mask.count) return;
    this.reject();
    const asked = { photograph: picture.name, mask: mask.runs(), defect, generator: generators.value, seed, count: COUNT };
    this.bar.hidden = false;
    this.bar.removeAttribute("value");
    this.said.textContent = say("paint.working");
    try {
      const job = await post("paint", asked);
      this.job = job.job;
      this.cancelButton.hidden = false;
      this.drawn();
      const result = await follow(job, (known) => this.#step(known.result, picture));
      if (result) this.#step(result, picture);
      this.said.textContent = result ? this.#summary() : say("paint.cancelled");
    } catch (error) {
      this.said.textContent = "";
      note(error.message, "error");
    }
    this.job = null;
    this.cancelButton.hidden = true;
    this.bar.hidden = true;
    this.drawn();
  }

  async cancel() {
    try {
      if (this.job) await post(`job/${this.job}/cancel`);
    } catch (error) {
      note(error.message, "error");
    }
  }

  /** Show a candidate in the photograph. */
  async choose(number) {
    const candidate = this.made[number];
    if (!candidate?.name) return;
    this.chosen = number;
    this.before = false;
    this.#show();
    const { view } = this.paint_;
    try {
      const bitmap = await createImageBitmap(await blob(`candidate/${candidate.name}/crop`, this.#window()));
      if (this.current !== candidate) return;
      view.overlay = { bitmap, box: candidate.box };
      view.showMask = false;
      this.paint_.maskButton.setAttribute("aria-pressed", "false");
      view.redraw();
    } catch (error) {
      note(error.message, "error");
    }
  }

  async accept() {
    const candidate = this.current;
    if (!candidate || candidate.accepted) return;
    candidate.accepted = true;
    try {
      const pair = await post(`candidate/${candidate.name}/accept`);
      changed();
      note(say("paint.accepted", { name: pair.name }));
      this.#show();
      await this.#painted();
    } catch (error) {
      candidate.accepted = false;
      note(error.message, "error");
    }
  }

  /** Give up all candidates; the mask stays. */
  reject() {
    const had = this.made.length;
    this.forget();
    if (had) this.paint_.seeds.value = (this.paint_.seed + COUNT) % (2 ** 31 - 65);
  }

  forget() {
    Object.assign(this, { made: [], chosen: -1, before: false });
    this.said.textContent = "";
    const { view } = this.paint_;
    view.overlay = null;
    view.showMask = true;
    this.paint_.maskButton.setAttribute("aria-pressed", "true");
    this.#show();
    view.redraw();
  }

  #step(result, picture) {
    if (!result.candidates || this.paint_.picture !== picture) return;
    this.bar.max = result.of;
    this.bar.value = result.candidates.length;
    const first = this.chosen < 0;
    this.made = result.candidates.map((candidate, number) => ({ ...candidate, accepted: this.made[number]?.accepted }));
    this.#show();
    const shown = this.made.findIndex((candidate) => candidate.name);
    if (first && shown >= 0) this.choose(shown);
  }

  #summary() {
    const made = this.made.filter((candidate) => candidate.name).length;
    return made ? say("paint.made", { made }) : spoken(this.made[0]?.problem ?? "");
  }

  #window() {
    const [low, high] = this.paint_.view.window ?? [null, null];
    return { low, high };
  }

  #compare() {
    this.before = !this.before;
    const { view } = this.paint_;
    if (this.before) {
      this.hiddenOverlay = view.overlay;
      view.overlay = null;
    } else view.overlay = this.hiddenOverlay;
    this.compareButton.setAttribute("aria-pressed", String(this.before));
    view.redraw();
  }

  #show() {
    this.compareButton.setAttribute("aria-pressed", String(Boolean(this.before)));
    this.strip.hidden = !this.made.length;
    this.acceptButton.disabled = !this.current || Boolean(this.current.accepted);
    this.compareButton.disabled = !this.current;
    this.four.replaceChildren(...this.made.map((candidate, number) => this.#tile(candidate, number)));
  }

  #tile(candidate, number) {
    const words = say("paint.candidate", { number: number + 1, seed: candidate.seed });
    if (candidate.problem) {
      return make("div", { class: "candidate none", title: spoken(candidate.problem) }, make("span", { textContent: say("paint.nothing", { seed: candidate.seed }) }));
    }
    const image = make("img", { alt: "", src: address(`candidate/${candidate.name}/near`, this.#window()) });
    const caption = make("span", { class: "caption", textContent: candidate.accepted ? `✓ ${say("paint.isAccepted")}` : `${number + 1} · ${say("paint.seedOf", { seed: candidate.seed })}` });
    const tile = make("button", { type: "button", class: "candidate", onclick: () => this.choose(number) }, image, caption);
    tile.setAttribute("aria-label", words);
    tile.setAttribute("aria-pressed", String(number === this.chosen));
    tile.title = `${words} · ${say("paint.areaOf", { area: candidate.area, asked: candidate.asked_area })}`;
    return tile;
  }

  async #painted() {
    try {
      const pairs = await get("painted");
      this.keptTitle.hidden = !pairs.length;
      this.keptTitle.textContent = say("paint.keptTitle", { count: pairs.length });
      this.place.textContent = pairs.length ? this.paint_.source.painted : "";
      const shown = pairs.slice(-8).reverse();
      this.kept.replaceChildren(...shown.map((pair) => {
        const words = `${pair.name} (${pair.defect})`;
        return make("img", { src: address("painted/thumb", { name: pair.name }), alt: words, title: words });
      }));
    } catch (error) {
      note(error.message, "error");
    }
  }
}
