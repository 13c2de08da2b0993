// Requests to the server. All addresses are relative to the page's own, which holds the token.

import { chosen, say, spoken } from "./words.js";

let opened = null; // which source the page shows

/** Say which source the page shows: whatever it asks from now on is refused where another one is open. */
export function shows(number) {
  opened = number;
}

const STEP = 120; // ms between two questions for a running job

/** Return an address; `values` become its query. */
export function address(path, values = {}) {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(values)) {
    if (value !== null && value !== undefined) query.set(name, value);
  }
  const text = query.toString();
  return `api/${path}${text ? `?${text}` : ""}`;
}

async function ask(where, options) {
  let answer;
  try {
    answer = await fetch(where, options);
  } catch {
    throw new Error(say("error.gone"));
  }
  if (answer.ok) return answer;
  let refusal = {};
  try {
    refusal = await answer.json();
  } catch { /* no JSON: the status says it */ }
  const sentence = refusal.error ?? `${answer.status} ${answer.statusText}`;
  throw Object.assign(new Error(spoken(sentence)), { answers: refusal.answers ?? [], status: answer.status });
}

export const get = async (path, values) => (await ask(address(path, values))).json();
export const blob = async (path, values) => (await ask(address(path, values))).blob();

export async function post(path, body = {}, values = {}) {
  const bytes = body instanceof Blob;
  const headers = { "content-type": bytes ? "application/octet-stream" : "application/json", "accept-language": chosen() }; // a command speaks it
  if (opened !== null) headers["x-flawsmith-opened"] = String(opened);
  return (await ask(address(path, values), { method: "POST", headers, body: bytes ? body : JSON.stringify(body) })).json();
}

/** Wait for a job; `step` is told of what is done so far. Returns its result, or null when it was cancelled. */
export async function follow(job, step = () => {}) {
  let known = job;
  for (;;) {
    if (known.state === "done") return known.result;
    if (known.state === "cancelled") return null;
    if (known.state === "failed" || known.state === "lost") throw new Error(spoken(known.problem));
    step(known);
    await new Promise((resume) => setTimeout(resume, STEP));
    known = await get(`job/${known.job}`);
  }
}
