// The command that runs: how far it is, told by the server; cancel, and go on.

import { address, get, post } from "./api.js";
import { make, note } from "./dom.js";
import { knows, say, spoken } from "./words.js";

const TICK = 1000; // ms between two looks at the clock while a command runs

const watchers = new Set();
let last = {};
let heardAt = 0; // when `last` was told, as performance.now()
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
  heardAt = performance.now();
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
    this.clock = make("p", { class: "clock faint" }); // no status: nobody wants to hear it every second
    this.missing = make("p", { class: "missing" });
    this.estimate = make("div", {}, cost && cost.element);
    this.steps = make("div", { class: "steps" });
    this.element = make(
      "section",
      { class: "work", label: "work.panel" },
      this.estimate,
      make("div", { class: "row" }, this.begin, this.stop),
      make("h2", { say: "work.command" }),
      make("div", { class: "row" }, this.code, this.copy),
      this.state,
      this.clock,
      this.missing,
      this.steps,
    );
    watch((state, ended) => {
      this.#show(state);
      if (ended || state.state !== "running") this.#lacks(state);
    });
    setInterval(() => this.#tick(), TICK);
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
    this.estimate.hidden = mine && running(); // what it does now stands below, with the time that is left
    this.#tick();
    if (!mine || running()) this.lacks = null;
    this.missing.textContent = this.lacks ? lacking(this.lacks) : "";
    if (!mine) {
      this.state.textContent = running() ? say("work.other", { command: state.command }) : "";
      this.steps.replaceChildren();
      return;
    }
    this.state.className = `state ${state.state}`;
    this.state.textContent = sentence(state);
    this.steps.replaceChildren(...state.steps.map(step));
  }

  /** Say how long the work of this moment lasts, and the time that is left where that is known. */
  #tick() {
    const { doing } = last;
    const shown = running() && last.purpose === this.purpose && doing && !last.stopping;
    const since = (performance.now() - heardAt) / 1000;
    const left = shown && doing.left !== null ? doing.left - since : 0;
    const words = shown ? [say("work.since", { time: time(doing.seconds + since) })] : [];
    if (left >= 1) words.push(say("work.left", { time: time(left) }));
    this.clock.textContent = words.join(" · ");
  }

  /** Say after Cancel, or where it came to no end, what is still missing. */
  async #lacks(state) {
    if (state.purpose !== this.purpose || !["cancelled", "failed", "lost"].includes(state.state)) return;
    try {
      const progress = await get("progress");
      if (last !== state) return;
      this.lacks = progress.missing === "proof" && this.purpose !== "prove" ? null : progress;
      this.#show(state);
    } catch { /* how it ended is said */ }
  }
}

/** Return what a run still lacks, in a sentence; "" = nothing. */
function lacking({ missing, planned, made, screened }) {
  if (missing === "samples" && planned) return say("missing.some", { made, planned });
  return missing ? say(`missing.${missing}`, { screened, made }) : "";
}

function sentence(state) {
  if (state.stopping) return say("work.stopping");
  if (state.state === "running") return doingNow(state.doing);
  if (state.state === "done") return say("work.done", { seconds: Math.round(state.seconds) });
  if (state.state === "cancelled") return say("work.cancelled");
  return `${say(`work.${state.state}`)} ${spoken(state.problem)}`;
}

/** Return what a command does at this moment. */
function doingNow(doing) {
  return doing?.what ? say("work.now", { name: nameOf(doing.what) }) : say("work.starting");
}

/** Return what a piece of work is called: "prove, features", "generate (nsa, for the proof)". */
export function nameOf(what) {
  const [, first, of = "", part, generator] = what.match(/^([^\s,]+)( .*?)??(?:, (features|intervals))?(?: \((.*), for the proof\))?$/s) ?? ["", what]; // a product's name may have any characters
  const name = `${knows(`step.${first}`) ? say(`step.${first}`) : first}${of}${part ? `: ${say(`step.${part}`)}` : ""}`;
  return generator ? say("work.forProof", { name, generator }) : name;
}

/** Return what is counted, such as "defect types". */
export function unitOf(unit) {
  const key = `unit.${unit.split(" ").at(-1)}`;
  return knows(key) ? say(key) : unit;
}

/** Return a bar with its rate; the time that is left stands above, where it goes on. */
function step({ what, done, total, unit, rate }) {
  const name = nameOf(what);
  const counted = unitOf(unit);
  const over = done >= total;
  const text = [say("work.of", { done: Math.floor(done), total, unit: counted })];
  if (rate > 0) text.push(say("work.rate", { rate: rate < 10 ? rate.toFixed(2) : Math.round(rate), unit: counted }));
  const bar = make("progress", { max: total || 1, value: done });
  bar.setAttribute("aria-label", name);
  return make("div", { class: over ? "step over" : "step" }, make("b", { textContent: name }), bar, make("span", { class: "faint", textContent: text.join(" · ") }));
}

function time(seconds) {
  const [hours, minutes, rest] = [Math.floor(seconds / 3600), Math.floor(seconds / 60) % 60, Math.floor(seconds) % 60];
  const two = (number) => String(number).padStart(2, "0");
  return hours ? `${hours}:${two(minutes)}:${two(rest)}` : `${minutes}:${two(rest)}`;
}
