// The page's words, English and Korean; and what the program says, of which the server knows the Korean.

let catalogue = {};
let templates = [];
let language = "en";

/** Read the catalogue and choose the language: the last choice, else the browser's. */
export async function load() {
  catalogue = await (await fetch("page/words.json")).json();
  await choose(remembered() ?? (navigator.language.startsWith("ko") ? "ko" : "en"));
}

export async function choose(name) {
  if (name === "ko" && !templates.length) {
    const sentences = await (await fetch("page/korean.json")).json();
    templates = sentences.map(([anchor, pattern, holes, korean]) => ({ anchor, pattern: new RegExp(pattern), holes, korean }));
  }
  language = name === "ko" ? "ko" : "en";
  document.documentElement.lang = language;
  try {
    localStorage.setItem("flawsmith.language", language);
  } catch { /* a browser that keeps nothing still shows the page */ }
}

export const chosen = () => language;

/** Return a word or sentence, in today's language or another; {names} in it are replaced by `values`. */
export function say(key, values = {}, name = language) {
  const text = catalogue[key]?.[name] ?? catalogue[key]?.en ?? key;
  return text.replace(/\{(\w+)\}/g, (whole, name) => (name in values ? String(values[name]) : whole));
}

/** Return what the program says, be it in several lines, in today's language; as `flawsmith.korean` does. */
export const spoken = (text) => (language === "ko" ? text.split("\n").map((line) => inKorean(line, true)).join("\n") : text);

function inKorean(text, words = false) {
  if (!words && !text.includes(" ")) return text; // a product's name, say
  for (const { anchor, pattern, holes, korean } of templates) {
    const match = text.includes(anchor) && text.match(pattern);
    if (match) return korean.replace(/\{([a-z_0-9]+)\}/g, (_, name) => inKorean(match[holes.indexOf(name) + 1], name === "word")).replaceAll("....", "...");
  }
  const line = text.endsWith(":") ? inKorean(text.slice(0, -1)) : "";
  if (line && line !== text.slice(0, -1)) return `${line}:`;
  const parted = text.match(/^(.*?)(: |; )(.*)$/);
  return parted ? `${inKorean(parted[1])}${parted[2]}${inKorean(parted[3])}` : text;
}

/** Whether the catalogue has a word. */
export const knows = (key) => key in catalogue;

function remembered() {
  try {
    return localStorage.getItem("flawsmith.language");
  } catch {
    return null;
  }
}
