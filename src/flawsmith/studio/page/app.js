// The studio's page: parts of it, language, light or dark, and the keyboard.

import { get, shows } from "./api.js";
import { Data } from "./data.js";
import { make, note, translate } from "./dom.js";
import { Export } from "./export.js";
import { Generate } from "./generate.js";
import { forGood } from "./memory.js";
import { Onward } from "./onward.js";
import { Paint } from "./paint.js";
import { Proof } from "./proof.js";
import { Review } from "./review.js";
import { look } from "./work.js";
import { choose, chosen, load, say } from "./words.js";

const PARTS = { data: Data, paint: Paint, generate: Generate, review: Review, proof: Proof, export: Export };
const parts = {};
const onward = new Onward(show);
let shown = "";

function show(name) {
  shown = name;
  for (const section of document.querySelectorAll("main > .part")) section.hidden = section.id !== `part-${name}`;
  for (const tab of document.querySelectorAll("#tabs button")) {
    tab.setAttribute("aria-selected", String(tab.value === name));
    tab.tabIndex = tab.value === name ? 0 : -1;
  }
  history.replaceState(null, "", `#${name}`);
  parts[name]?.opened?.();
  if (parts[name]) onward.at(name);
}

/** Show the names of all parts at once, before the server has said which of them can be used. */
function frame() {
  document.getElementById("loading").textContent = say("nav.loading");
  document.getElementById("tabs").replaceChildren(...Object.keys(PARTS).map((name) => make("button", { type: "button", role: "tab", say: `nav.${name}`, disabled: true })));
}

/** Show a tab for every part, so that the whole way can be seen; those without use yet say what is missing. */
function tabs(names, source) {
  const holder = document.getElementById("tabs");
  const missing = (name) => (!source.opened ? "nav.nothing" : name === "paint" ? "nav.noShots" : "nav.noRun");
  holder.replaceChildren(...Object.keys(PARTS).map((name) => {
    const usable = names.includes(name);
    const tab = make("button", { type: "button", role: "tab", value: name, id: `tab-${name}`, say: `nav.${name}`, disabled: !usable, onclick: () => show(name) });
    if (usable) tab.setAttribute("aria-controls", `part-${name}`);
    else tab.dataset.why = missing(name);
    return tab;
  }));
  translate(holder);
  holder.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!step) return;
    show(names[(names.indexOf(shown) + step + names.length) % names.length]);
    document.getElementById(`tab-${shown}`).focus();
  });
}

function themed(name) {
  document.documentElement.dataset.theme = name;
  forGood.keep("flawsmith.theme", name);
}

/** Load the page anew where another tab has opened another source. */
async function today(number) {
  if (document.hidden) return;
  try {
    if ((await get("source")).number !== number) location.reload();
  } catch (error) {
    note(error.message, "error");
  }
}

function typing(target) {
  return target.closest?.("input:not([type=range]):not([type=checkbox]), select, textarea, dialog") !== null;
}

async function begin() {
  await load();
  const language = document.getElementById("language");
  const theme = document.getElementById("theme");
  language.value = chosen();
  language.addEventListener("change", async () => {
    await choose(language.value);
    translate(document.documentElement);
    for (const part of Object.values(parts)) part.translated();
    onward.translated();
  });
  theme.value = forGood.recall("flawsmith.theme") ?? "auto";
  themed(theme.value);
  theme.addEventListener("change", () => themed(theme.value));
  frame();
  translate(document.documentElement);
  try {
    const wanted = location.hash.slice(1);
    const [source, progress] = await Promise.all([get("source"), wanted in PARTS ? null : get("progress")]);
    shows(source.number);
    if (source.opened) {
      document.getElementById("source").textContent = source.source;
      document.getElementById("source").title = source.root;
      document.title = `${source.source} · flawsmith studio`;
    }
    const paintable = Object.keys(source.defects).length > 0; // painting takes after real defects
    const offered = (name) => name === "data" || (source.opened && (source.run || !PARTS[name].needsRun) && (paintable || name !== "paint"));
    const names = Object.keys(PARTS).filter(offered);
    document.getElementById("loading").remove();
    tabs(names, source);
    for (const name of names) {
      const section = make("section", { class: `part ${name}`, id: `part-${name}`, role: "tabpanel", hidden: true });
      section.setAttribute("aria-labelledby", `tab-${name}`);
      document.getElementById("main").append(section);
    }
    const { first } = progress ?? { first: "data" };
    show(names.includes(wanted) ? wanted : names.includes(first) ? first : "data");
    for (const name of names) parts[name] = new PARTS[name](document.getElementById(`part-${name}`), source);
    parts[shown].opened?.();
    onward.at(shown);
    await look();
    document.addEventListener("visibilitychange", () => today(source.number));
  } catch (error) {
    document.getElementById("loading")?.remove();
    note(error.message, "error");
  }
  document.addEventListener("keydown", (event) => {
    if (typing(event.target) || !parts[shown]) return;
    if (parts[shown].key?.(event)) event.preventDefault();
  });
  document.documentElement.dataset.ready = "yes";
}

window.addEventListener("unhandledrejection", (event) => note(event.reason?.message ?? say("error.unknown"), "error"));
begin();
