// A grid or list of any length: only what is in sight is on the page.

import { make } from "./dom.js";

const BEYOND = 2; // rows above and below what is in sight

export class Grid {
  /**
   * `render(item)` returns what a cell shows, `opened(item, number)` is called for a click or Enter,
   * `key(event, item)` for any other key on a cell. Cells are buttons of `width` x `height` px.
   */
  constructor(holder, { width, height, render, opened, key = () => {}, label }) {
    Object.assign(this, { holder, width, height, render, opened, key, items: [], cells: new Map(), focused: 0 });
    this.sheet = make("div", { class: "sheet", role: "list", label });
    holder.classList.add("grid");
    holder.replaceChildren(this.sheet);
    holder.addEventListener("scroll", () => this.#show(), { passive: true });
    new ResizeObserver(() => this.#arrange()).observe(holder);
  }

  /** Show other items; `keepPlace` leaves the place where it was scrolled to. */
  set(items, keepPlace = false) {
    this.items = items;
    if (!keepPlace) this.holder.scrollTop = 0;
    this.focused = Math.min(this.focused, Math.max(0, items.length - 1));
    this.#arrange();
  }

  /** Draw the cells in sight anew: what they show has changed. */
  refresh() {
    for (const [number, cell] of this.cells) {
      const had = cell.contains(document.activeElement);
      cell.remove();
      this.cells.delete(number);
      if (had) this.refocus = number;
    }
    this.#show();
    if (this.refocus !== undefined) {
      this.cells.get(this.refocus)?.firstChild.focus({ preventScroll: true });
      this.refocus = undefined;
    }
  }

  /** Bring an item into sight and, where asked, under the keyboard. */
  reveal(number, focus = true) {
    if (!this.items.length) return;
    this.focused = Math.min(this.items.length - 1, Math.max(0, number));
    const top = Math.floor(this.focused / this.columns) * this.height;
    const { scrollTop, clientHeight } = this.holder;
    if (top < scrollTop) this.holder.scrollTop = top;
    else if (top + this.height > scrollTop + clientHeight) this.holder.scrollTop = top + this.height - clientHeight;
    this.#show();
    if (focus) this.cells.get(this.focused)?.firstChild.focus({ preventScroll: true });
  }

  #arrange() {
    this.columns = Math.max(1, Math.floor(this.sheet.clientWidth / this.width));
    this.sheet.style.height = `${Math.ceil(this.items.length / this.columns) * this.height}px`;
    for (const cell of this.cells.values()) cell.remove();
    this.cells.clear();
    this.#show();
  }

  #show() {
    if (!this.columns) return;
    const { scrollTop, clientHeight } = this.holder;
    const first = Math.max(0, Math.floor(scrollTop / this.height) - BEYOND) * this.columns;
    const last = Math.min(this.items.length, (Math.ceil((scrollTop + clientHeight) / this.height) + BEYOND) * this.columns);
    for (const [number, cell] of this.cells) {
      if (number < first || number >= last) {
        cell.remove();
        this.cells.delete(number);
      }
    }
    const wide = Math.floor(this.sheet.clientWidth / this.columns);
    for (let number = first; number < last; number += 1) {
      if (this.cells.has(number)) continue;
      const cell = this.#cell(number);
      cell.style.width = `${wide}px`;
      cell.style.height = `${this.height}px`;
      cell.style.transform = `translate(${(number % this.columns) * wide}px, ${Math.floor(number / this.columns) * this.height}px)`;
      this.cells.set(number, cell);
      this.sheet.append(cell);
    }
  }

  #cell(number) {
    const item = this.items[number];
    const button = this.render(item, number);
    button.tabIndex = number === this.focused ? 0 : -1;
    button.addEventListener("click", () => {
      this.focused = number;
      this.opened(item, number);
    });
    button.addEventListener("keydown", (event) => this.#key(event, number));
    const cell = make("div", { class: "cell", role: "listitem" }, button);
    cell.setAttribute("aria-setsize", this.items.length);
    cell.setAttribute("aria-posinset", number + 1);
    return cell;
  }

  #key(event, number) {
    const page = Math.max(1, Math.floor(this.holder.clientHeight / this.height)) * this.columns;
    const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -this.columns, ArrowDown: this.columns, PageUp: -page, PageDown: page };
    if (event.key in steps) this.reveal(number + steps[event.key]);
    else if (event.key === "Home") this.reveal(0);
    else if (event.key === "End") this.reveal(this.items.length - 1);
    else return this.key(event, this.items[number], number);
    event.preventDefault();
    return undefined;
  }
}
