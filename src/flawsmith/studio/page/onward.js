// What comes next: below every part a sentence, with a button for each part that it leads to.

import { get } from "./api.js";
import { make } from "./dom.js";
import { command, running, watch } from "./work.js";
import { say } from "./words.js";

const PAUSE = 300; // ms in which several changes count as one
const CHANGED = "flawsmith:changed";
const AFTER_PROOF = {
  helps: ["next.helps", "export"],
  harms: ["next.harms", "review", "generate"],
  mixed: ["next.mixed", "review", "generate"],
  "no effect": ["next.noEffect", "generate", "export"],
  "cannot tell": ["next.cannotTell", "export"],
};

/** Say that something was decided, painted or checked: what comes next may be another step now. */
export const changed = () => document.dispatchEvent(new Event(CHANGED));

/** Of each part: the words of its sentence and the parts that it leads to; null = the part itself says what to do. */
const STEPS = {
  data({ ready, made, paintable }) {
    if (ready === null) return null;
    if (!ready) return ["next.notReady"];
    if (made) return ["next.look", "review"];
    return paintable ? ["next.make", "generate", "paint"] : ["next.makeAlone", "generate"];
  },
  paint({ painted, made }) {
    if (made) return ["next.look", "review"];
    return [painted ? "next.painted" : "next.paint", "generate"];
  },
  generate({ made, missing, usable }) {
    if (running()) return made ? [usable ? "next.soFarUsable" : "next.soFar", "review"] : null;
    if (!made) return null;
    if (missing === "controls" && usable) return ["next.usable", "review", "export"];
    return [{ samples: "next.partly", controls: "next.lacksControls", screening: "next.lacksScreening" }[missing] ?? "next.look", "review"];
  },
  review({ made, missing, usable, stands, provable, verdict }) {
    if (!made) return ["next.nothing", "generate"];
    if (running() && command().purpose === "generate") return ["next.more", "generate"];
    if (!usable) return ["next.lacksScreening", "generate"]; // an export would refuse them
    if (missing === "controls") return ["next.usable", "export", "generate"];
    if (!stands) return ["next.noneStands", "generate"];
    if (verdict) return ["next.proven", "proof", "export"];
    return provable ? ["next.prove", "proof", "export"] : ["next.unprovable", "export"];
  },
  proof({ made, stands, verdict, provable }) {
    if (!made) return ["next.nothing", "generate"];
    if (running() || !stands) return null;
    if (!provable) return ["next.unprovable", "export"];
    return AFTER_PROOF[verdict] ?? ["next.unproven", "export"];
  },
  export({ made, painted, usable }) {
    if (painted || usable) return null;
    return [made ? "next.lacksScreening" : "next.nothing", "generate"];
  },
};

export class Onward {
  /** `show(name)` opens a part. */
  constructor(show) {
    this.show = show;
    this.part = "";
    this.element = document.getElementById("onward");
    document.addEventListener(CHANGED, () => this.#soon());
    watch((state, ended) => {
      if (ended || state.number !== this.command) this.#soon();
      this.command = state.number;
    });
  }

  /** A part is shown. */
  at(name) {
    if (name !== this.part) this.element.replaceChildren(); // no other part's sentence
    this.part = name;
    this.#look();
  }

  translated() {
    if (this.progress) this.#show();
  }

  #soon() {
    clearTimeout(this.waiting);
    this.waiting = setTimeout(() => this.#look(), PAUSE);
  }

  async #look() {
    const number = (this.asking = (this.asking ?? 0) + 1);
    try {
      const progress = await get("progress");
      if (number !== this.asking) return; // an answer to an older question
      this.progress = progress;
      this.#show();
    } catch {
      this.element.replaceChildren(); // the part says what is wrong
    }
  }

  #show() {
    const [words, ...parts] = STEPS[this.part](this.progress) ?? [];
    const button = (name, number) => make("button", { type: "button", class: number ? "" : "main", value: name, say: `nav.${name}`, onclick: () => this.#go(name) });
    const sentence = words ? [make("p", { textContent: say(words, this.progress) })] : [];
    this.element.replaceChildren(...sentence, ...parts.map(button));
  }

  #go(name) {
    this.show(name);
    document.getElementById(`tab-${name}`).focus(); // the button is gone: the keyboard goes on at the part's tab
  }
}
