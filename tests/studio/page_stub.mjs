// A page without a browser: as much of one as the page's modules touch while they are tested.

const context = new Proxy({}, { get: () => () => {}, set: () => true });

export class Element {
  constructor(tag) {
    Object.assign(this, { tagName: tag.toUpperCase(), dataset: {}, style: {}, listeners: {}, options: [], children: [] });
    Object.assign(this, { hidden: false, disabled: false, checked: false, tabIndex: 0, clientWidth: 300, clientHeight: 300 });
    Object.assign(this, { type: "", value: "", min: 0, max: 0, step: 0, maxLength: 0, accept: "", title: "", textContent: "" });
    this.classList = { add() {}, toggle() {} };
  }

  append(...children) { this.children.push(...children); }
  replaceChildren(...children) {
    this.children = this.options = children;
    const chosen = children.some((option) => option.value === this.value);
    if (this.tagName === "SELECT" && !chosen) this.value = children[0]?.value ?? "";
  }
  after() {}
  remove() {}
  focus() {}
  addEventListener(name, listener) { this.listeners[name] = listener; }
  setAttribute(name, value) { this[name] = value; }
  removeAttribute() {}
  getAttribute() { return null; }
  getContext() { return context; }
  querySelectorAll() { return []; }
  contains() { return false; }
  getBoundingClientRect() { return { left: 0, top: 0 }; }
}

globalThis.window = globalThis;
globalThis.document = {
  hidden: false,
  createElement: (tag) => new Element(tag),
  createElementNS: (space, tag) => new Element(tag),
  getElementById: () => new Element("div"),
  addEventListener() {},
  dispatchEvent() {},
};
globalThis.ResizeObserver = class { observe() {} };
globalThis.requestAnimationFrame = () => {};
globalThis.createImageBitmap = async () => ({ close() {} });

const kept = new Map();
globalThis.sessionStorage = {
  getItem: (name) => kept.get(name) ?? null,
  setItem: (name, value) => kept.set(name, value),
  removeItem: (name) => kept.delete(name),
};

/** Answer what the page asks; `answer(address, options)` returns what the server would, be it later. */
export function serve(answer) {
  globalThis.fetch = async (address, options) => {
    const told = await answer(address, options);
    return { ok: true, json: async () => told, blob: async () => new Blob() };
  };
}

export const soon = () => new Promise((resume) => setTimeout(resume, 20));
