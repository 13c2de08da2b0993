// Elements of the page. Text from names, notes and errors is only ever set as text: nothing here reads HTML.

import { say } from "./words.js";

const SVG = "http://www.w3.org/2000/svg";
const ICONS = {
  brush: "M4 20c3 0 5-1 5-4l9-11a2 2 0 0 0-3-3L6 12c-3 0-3 3-3 5 0 1-1 2-1 3z",
  line: "M4 20 20 4M2 22l4-4M18 6l4-4",
  polygon: "M12 3 21 10 17 20H7L3 10z",
  eraser: "M9 20 3 14 14 3l7 7L11 20zM9 20h12M8 9l7 7",
  move: "M12 2v20M2 12h20M12 2 9 5M12 2l3 3M12 22l-3-3M12 22l3-3M2 12l3-3M2 12l3 3M22 12l-3-3M22 12l-3 3",
  undo: "M9 14 4 9l5-5M4 9h10a6 6 0 0 1 0 12h-3",
  redo: "M15 14l5-5-5-5M20 9H10a6 6 0 0 0 0 12h3",
  clear: "M5 7h14M10 11v6M14 11v6M6 7l1 13h10l1-13M9 7V4h6v3",
  plus: "M12 5v14M5 12h14",
  minus: "M5 12h14",
  fit: "M4 9V4h5M20 9V4h-5M4 15v5h5M20 15v5h-5",
  eye: "M2 12s4-7 10-7 10 7 10 7-4 7-10 7S2 12 2 12zM12 9a3 3 0 1 0 0 6 3 3 0 0 0 0-6z",
  dice: "M4 4h16v16H4zM9 9h.01M15 15h.01M12 12h.01M15 9h.01M9 15h.01",
  close: "M6 6l12 12M18 6 6 18",
};

/** Return an element; `on...` are listeners, `label` names it for people who cannot see it. */
export function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "class") element.className = value;
    else if (name === "say") element.dataset.say = value;
    else if (name === "label") element.dataset.label = value;
    else if (name in element && name !== "list") element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  if (properties.say || properties.label) translate(element);
  return element;
}

/** Return one of the icons above; it says nothing by itself. */
export function icon(name) {
  const picture = document.createElementNS(SVG, "svg");
  const path = document.createElementNS(SVG, "path");
  picture.setAttribute("viewBox", "0 0 24 24");
  picture.setAttribute("aria-hidden", "true");
  path.setAttribute("d", ICONS[name]);
  picture.append(path);
  return picture;
}

/** Return a button that shows an icon, is named by a word of the catalogue, and tells its key. */
export function iconButton(name, label, key, onclick, extra = {}) {
  return make("button", { type: "button", class: "icon", label, "data-key": key, onclick, ...extra }, icon(name));
}

/** Set the words of an element, and of all below it, in today's language. */
export function translate(root) {
  const all = [root, ...root.querySelectorAll("[data-say], [data-label], [data-hint], [data-why]")];
  for (const element of all) {
    const { say: text, label, hint, why, key } = element.dataset;
    if (text) element.textContent = say(text);
    if (label) {
      element.setAttribute("aria-label", say(label));
      if (element.tagName !== "NAV" && element.tagName !== "CANVAS") element.title = say(label) + (key ? ` (${key})` : "");
    }
    if (hint) element.placeholder = say(hint);
    if (why) element.title = say(why);
  }
}

/** Show a sentence for a while; errors stay until they are closed. */
export function note(sentence, kind = "done") {
  const box = make("div", { class: `note ${kind}` }, make("span", { textContent: sentence }));
  if (kind === "error") box.setAttribute("role", "alert");
  box.append(iconButton("close", "note.close", "", () => box.remove()));
  const notes = document.getElementById("notes");
  notes.append(box);
  while (notes.children.length > 4) notes.firstChild.remove();
  if (kind !== "error") setTimeout(() => box.remove(), 6000);
}

/** Return a labelled control; the label's words are of the catalogue. */
export function field(label, control) {
  return make("label", { class: "field" }, make("span", { say: label }), control);
}

/** Fill a select with [value, text] pairs and keep what was chosen where it is still there. */
export function choices(select, pairs) {
  const before = select.value;
  select.replaceChildren(...pairs.map(([value, text]) => make("option", { value, textContent: text })));
  if (pairs.some(([value]) => value === before)) select.value = before;
}

/** Return a table below a title, null without rows; `columns` are words of the catalogue, and those of numbers stand right. */
export function table(title, columns, rows) {
  if (!rows.length) return null;
  const kinds = rows[0].map((_, number) => (rows.every((row) => /^[\d.,–% ]*$/.test(String(row[number]))) ? "number" : ""));
  const names = columns?.map((name, number) => make("th", { class: kinds[number], say: name }));
  const head = columns ? [make("thead", {}, make("tr", {}, ...names))] : [];
  const cells = (row) => row.map((value, number) => make("td", { class: kinds[number], textContent: String(value) }));
  const body = make("tbody", {}, ...rows.map((row) => make("tr", {}, ...cells(row))));
  return make("section", {}, make("h2", { textContent: title }), make("div", { class: "wide" }, make("table", {}, ...head, body)));
}
