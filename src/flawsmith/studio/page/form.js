// Forms from the settings' schema: a control per setting, its help below it.

import { make } from "./dom.js";
import { knows, say, spoken } from "./words.js";

export class Form {
  /** `changed()` is called when a person has changed something. */
  constructor(changed) {
    this.element = make("div", { class: "form", oninput: changed });
    this.controls = new Map();
  }

  /** Show other settings; what a person changed of those that stay is kept. */
  show(fields) {
    const before = this.values();
    this.fields = fields;
    this.controls.clear();
    this.element.replaceChildren(...fields.map((field) => this.#row(field, before[field.name] ?? field.value)));
  }

  translated() {
    if (this.fields) this.show(this.fields);
  }

  /** Return what differs from what is set today, by the settings' names. */
  values() {
    const changed = {};
    for (const [name, { field, control }] of this.controls) {
      const value = read(field, control);
      if (value !== null && value !== field.value) changed[name] = value;
    }
    return changed;
  }

  #row(field, value) {
    const help = knows(`setting.${field.name}`) ? say(`setting.${field.name}`) : spoken(field.help);
    const control = controlOf(field, value);
    const id = `setting-${field.name.replaceAll(".", "-")}`;
    control.id = id;
    this.controls.set(field.name, { field, control });
    const text = make("small", { class: "faint", textContent: help, id: `${id}-help` });
    control.setAttribute("aria-describedby", text.id);
    const name = make("label", { textContent: shortened(field.name) });
    name.htmlFor = id;
    name.title = field.name;
    return make("div", { class: "setting" }, name, control, text);
  }
}

/** Return a setting's name without its section, where the page is about that. */
function shortened(name) {
  const [section, ...steps] = name.split(".");
  return ["generate", "generator", "prove", "export"].includes(section) ? steps.at(-1) : name;
}

function controlOf(field, value) {
  if (field.kind === "switch") return make("input", { type: "checkbox", checked: value });
  if (field.kind === "choice") {
    const control = make("select", {}, ...field.choices.map((choice) => make("option", { value: choice, textContent: choice })));
    control.value = value;
    return control;
  }
  if (field.kind === "whole" || field.kind === "number") {
    const control = make("input", { type: "number", step: field.kind === "whole" ? 1 : "any" });
    if (field.least !== null && field.least !== undefined) control.min = field.least;
    if (field.most !== null && field.most !== undefined) control.max = field.most;
    control.value = value;
    return control;
  }
  return make("input", { type: "text", value: value ?? "", spellcheck: false });
}

/** Return a setting with its value as a TOML file has it. */
export const lineOf = ({ setting, value }) => `${setting} = ${Array.isArray(value) ? `[${value.map((one) => JSON.stringify(one)).join(", ")}]` : JSON.stringify(value)}`;

/** Return what an answer to a finding does, in plain words; its line is for whoever writes the file by hand. */
export function answerWords(answer) {
  const { setting, value } = answer;
  const named = (folder) => (folder === "." ? say("answer.itself") : folder);
  const key = [`answer.${setting}.${value}`, `answer.${setting}`].find(knows);
  const shown = (Array.isArray(value) ? value : [value]).map((one) => named(String(one))).join(", ");
  return key ? say(key, { value: shown }) : say("data.answer", { line: lineOf(answer) });
}

/** Return a control's value, or null where nothing is written in it. */
function read(field, control) {
  if (field.kind === "switch") return control.checked;
  if (field.kind === "whole" || field.kind === "number") return control.value === "" ? null : Number(control.value);
  return control.value;
}
