// The command that runs: how far it is, told by the server; cancel, and go on.

import { address, get, post } from "./api.js";
import { make, note } from "./dom.js";
import { knows, say, spoken } from "./words.js";

const watchers = new Set();
let last = {};
let source = null;

/** Return the command that runs or ran last; {} = none did. */
export const command = () => last;
export const running = () => last.state === "running";

/** Call a function with every state of the command from now on. */
export function watch(heard) {
  watchers.add(heard);
  if (last.number) heard(last, false);
}

/** Ask how far the command is, and listen until it is over. */
export async function look() {
  hear(await get("command"));
}

/** Start a command; returns its state, or throws the sentence why it cannot be. */
export async function start(path, body) {
  const begun = await post(path, body);
  hear(begun);
  return begun;
}

export async function cancel() {
  hear(await post("command/cancel"));
}

function hear(state) {
  const ended = last.number === state.number && last.state === "running" && state.state !== "running";
  last = state;
  for (const heard of watchers) heard(state, ended);
  if (running()) listen();
  else silence();
}

function listen() {
  if (source || document.hidden) return; // a browser keeps few lines open: a page that nobody sees needs none
  source = new EventSource(address("command/events"));
  source.onmessage = (event) => hear(JSON.parse(event.data));
  source.onerror = () => {
    if (source?.readyState === EventSource.CLOSED) {
      silence();
      note(say("error.gone"), "error");
    }
  };
}

function silence() {
  source?.close();
  source = null;
}

document.addEventListener("visibilitychange", () => {
  if (document.hidden) silence();
  else if (last.number) look().catch((error) => note(error.message, "error"));
});

/** What a part of the page shows of its commands: the command line, progress, and how it ended. */
export class Panel {
  /** `purpose` is what the part starts; `again()` is called when it is asked to start or go on; `cost` stands before. */
  constructor(purpose, begin, again, cost = null) {
    this.purpose = purpose;
    this.wanted = "";
    this.begin = make("button", { type: "button", class: "main", say: begin, onclick: again });
    this.stop = make("button", { type: "button", say: "work.cancel", hidden: true, onclick: () => cancel().catch((error) => note(error.message, "error")) });
    this.code = make("code", { class: "command", tabIndex: 0, label: "work.command" });
    this.copy = make("button", { type: "button", say: "work.copy", hidden: !navigator.clipboard, onclick: () => this.#copy() });
    this.state = make("p", { class: "state", role: "status" });
    this.steps = make("div", { class: "steps" });
    this.element = make(
      "section",
      { class: "work", label: "work.panel" },
      cost && cost.element,
      make("div", { class: "row" }, this.begin, this.stop),
      make("h2", { say: "work.command" }),
      make("div", { class: "row" }, this.code, this.copy),
      this.state,
      this.steps,
    );
    watch((state) => this.#show(state));
  }

  /** Show the command that would be run; "" = what is asked for cannot be. */
  command(text) {
    this.wanted = text;
    this.#show(command());
  }

  translated() {
    this.#show(command());
  }

  async #copy() {
    await navigator.clipboard.writeText(this.code.textContent);
    note(say("work.copied"));
  }

  #show(state) {
    const mine = state.purpose === this.purpose;
    this.code.textContent = mine && running() ? state.command : this.wanted;
    this.begin.disabled = running() || !this.wanted; // what would be done is not known yet, or cannot be
    this.stop.hidden = !(mine && running());
    this.stop.disabled = Boolean(state.stopping);
    if (!mine) {
      this.state.textContent = running() ? say("work.other", { command: state.command }) : "";
      this.steps.replaceChildren();
      return;
    }
    this.state.className = `state ${state.state}`;
    this.state.textContent = sentence(state);
    this.steps.replaceChildren(...state.steps.map(step));
  }
}

function sentence(state) {
  if (state.stopping) return say("work.stopping");
  if (state.state === "running") return say("work.running");
  if (state.state === "done") return say("work.done", { seconds: Math.round(state.seconds) });
  if (state.state === "cancelled") return say("work.cancelled");
  return `${say(`work.${state.state}`)} ${spoken(state.problem)}`;
}

/** Return what a piece of work is called: "prove screw, features", "generate (nsa, for the proof)". */
export function nameOf(what) {
  const [, first, of = "", features, generator] = what.match(/^(\S+)( .*?)??(, features)?(?: \((.*), for the proof\))?$/);
  const name = `${knows(`step.${first}`) ? say(`step.${first}`) : first}${of}${features ? `: ${say("step.features")}` : ""}`;
  return generator ? say("work.forProof", { name, generator }) : name;
}

/** Return what is counted, such as "defect types". */
export function unitOf(unit) {
  const key = `unit.${unit.split(" ").at(-1)}`;
  return knows(key) ? say(key) : unit;
}

/** Return a bar with rate and time left. */
function step({ what, done, total, unit, rate, left }) {
  const name = nameOf(what);
  const counted = unitOf(unit);
  const over = done >= total;
  const text = [say("work.of", { done: Math.floor(done), total, unit: counted })];
  if (rate > 0) text.push(say("work.rate", { rate: rate < 10 ? rate.toFixed(2) : Math.round(rate), unit: counted }));
  if (!over && left !== null) text.push(say("work.left", { time: time(left) }));
  const bar = make("progress", { max: total || 1, value: done });
  bar.setAttribute("aria-label", name);
  return make("div", { class: over ? "step over" : "step" }, make("b", { textContent: name }), bar, make("span", { class: "faint", textContent: text.join(" · ") }));
}

function time(seconds) {
  const [hours, minutes, rest] = [Math.floor(seconds / 3600), Math.floor(seconds / 60) % 60, Math.floor(seconds) % 60];
  const two = (number) => String(number).padStart(2, "0");
  return hours ? `${hours}:${two(minutes)}:${two(rest)}` : `${minutes}:${two(rest)}`;
}
