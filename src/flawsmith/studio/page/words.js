// The one catalogue of words, English and Korean.

let catalogue = {};
let language = "en";

/** Read the catalogue and choose the language: the last choice, else the browser's. */
export async function load() {
  catalogue = await (await fetch("page/words.json")).json();
  choose(remembered() ?? (navigator.language.startsWith("ko") ? "ko" : "en"));
}

export function choose(name) {
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

/** Whether the catalogue has a word. */
export const knows = (key) => key in catalogue;

function remembered() {
  try {
    return localStorage.getItem("flawsmith.language");
  } catch {
    return null;
  }
}
