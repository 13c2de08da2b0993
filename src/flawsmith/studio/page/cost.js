// What a plan will cost in time, memory and disk, beside the button that begins it.

import { follow, post } from "./api.js";
import { make } from "./dom.js";
import { say, spoken } from "./words.js";

export class Cost {
  /** `again()` asks the server once more: the set was looked over, from which the cost is told. */
  constructor(again) {
    this.again = again;
    this.element = make("section", { class: "cost", label: "cost.title", hidden: true });
  }

  /** Show an estimate as the server gives it; null = the set is not looked over yet, which is begun then. */
  show(cost) {
    this.cost = cost;
    if (!cost) this.#wait();
    else this.#show();
  }

  translated() {
    if (this.cost !== undefined) this.#show();
  }

  async #wait() {
    this.#show();
    if (this.asked) return;
    this.asked = true;
    try {
      await follow(await post("check"));
      this.again();
    } catch {
      this.show({ lines: {}, warnings: [] }); // the page Data says what is wrong
    }
    this.asked = false;
  }

  #show() {
    const title = make("h2", { textContent: say("cost.title") });
    if (!this.cost) {
      this.element.hidden = false;
      this.element.replaceChildren(title, make("p", { class: "faint", textContent: say("cost.wait") }));
      return;
    }
    const { assumes, ...lines } = this.cost.lines;
    const rows = Object.entries(lines).flatMap(([name, value]) => [make("dt", { textContent: spoken(name) }), make("dd", { textContent: spoken(value) })]);
    this.element.hidden = !rows.length;
    this.element.replaceChildren(
      title,
      make("dl", {}, ...rows),
      ...this.cost.warnings.map((sentence) => make("p", { class: "warn", textContent: spoken(sentence) })),
      ...(assumes ? [make("p", { class: "faint", textContent: say("cost.assumes", { assumes: spoken(assumes) }) })] : []),
    );
  }
}
