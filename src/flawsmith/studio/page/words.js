// The page's words, English and Korean; and what the program says, of which the server knows the Korean.

import { forGood } from "./memory.js";

let catalogue = {};
let templates = [];
let language = "en";

/** Read the catalogue and choose the language: the last choice, else the browser's. */
export async function load() {
  catalogue = await (await fetch("page/words.json")).json();
  await choose(forGood.recall("flawsmith.language") ?? (navigator.language.startsWith("ko") ? "ko" : "en"));
}

export async function choose(name) {
  if (name === "ko" && !templates.length) {
    const sentences = await (await fetch("page/korean.json")).json();
    templates = sentences.map(([anchor, pattern, holes, korean]) => ({ anchor, pattern: new RegExp(pattern), holes, korean }));
  }
  language = name === "ko" ? "ko" : "en";
  document.documentElement.lang = language;
  forGood.keep("flawsmith.language", language);
}

export const chosen = () => language;

/** Return a word or sentence, in today's language or another; {names} in it are replaced by `values`. */
export function say(key, values = {}, name = language) {
  const text = catalogue[key]?.[name] ?? catalogue[key]?.en ?? key;
  const said = text.replace(/\{(\w+)\}/g, (whole, hole) => (hole in values ? String(values[hole]) : whole));
  return name === "ko" ? withParticles(said) : said;
}

const PARTICLES = { "은(는)": ["은", "는"], "이(가)": ["이", "가"], "을(를)": ["을", "를"], "와(과)": ["과", "와"], "(으)로": ["으로", "로"], "(이)라": ["이라", "라"] };
const PARTICLE = /([가-힣0-9])(["'`)\]}]*)(은\(는\)|이\(가\)|을\(를\)|와\(과\)|\(으\)로|\(이\)라)/g;

/** Return Korean with each particle in the form that fits what stands before it; as `flawsmith.korean` does. */
export const withParticles = (text) => text.replace(PARTICLE, (_, before, closers, both) => {
  const last = (before.charCodeAt(0) - 0xac00) % 28; // its final consonant, 0 = none; 8 = ㄹ
  const [ends, inL] = /\d/.test(before) ? ["013678".includes(before), "178".includes(before)] : [last > 0, last === 8];
  const [closed, open] = PARTICLES[both];
  return before + closers + (!ends || (inL && both === "(으)로") ? open : closed);
});

/** Return what the program says, be it in several lines, in today's language; as `flawsmith.korean` does. */
export const spoken = (text) => (language === "ko" ? text.split("\n").map((line) => inKorean(line, true)).join("\n") : text);

function inKorean(text, words = false) {
  if (!words && !text.includes(" ")) return text; // a product's name, say
  for (const { anchor, pattern, holes, korean } of templates) {
    const match = text.includes(anchor) && text.match(pattern);
    if (match) return withParticles(korean.replace(/\{([a-z_0-9]+)\}/g, (_, name) => inKorean(match[holes.indexOf(name) + 1], name === "word")).replaceAll("....", "..."));
  }
  const line = text.endsWith(":") ? inKorean(text.slice(0, -1)) : "";
  if (line && line !== text.slice(0, -1)) return `${line}:`;
  const parted = text.match(/^(.*?)(: |; )(.*)$/);
  return parted ? `${inKorean(parted[1])}${parted[2]}${inKorean(parted[3])}` : text;
}

/** Whether the catalogue has a word. */
export const knows = (key) => key in catalogue;
