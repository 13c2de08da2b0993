// Another run or folder of photographs: chosen among the folders below the one that may be opened.

import { get, post } from "./api.js";
import { iconButton, make } from "./dom.js";
import { answerWords, lineOf } from "./form.js";
import { say } from "./words.js";

export class Folders {
  constructor() {
    this.at = "";
    this.path = make("p", { class: "path", tabIndex: -1 });
    this.list = make("ul", { class: "folders" });
    this.problem = make("p", { class: "bad", role: "alert" });
    this.up = make("button", { type: "button", say: "folder.up", onclick: () => this.#show(this.at.split("/").slice(0, -1).join("/")) });
    this.open = make("button", { type: "button", class: "main", say: "folder.open", onclick: () => this.#open() });
    this.dialog = make(
      "dialog",
      { class: "picker", label: "folder.title" },
      make("div", { class: "row head" }, make("h2", { say: "folder.title" }), iconButton("close", "folder.close", "Esc", () => this.dialog.close())),
      make("p", { class: "faint", say: "folder.help" }),
      make("div", { class: "row" }, this.up, this.open),
      this.path,
      this.problem,
      this.list,
    );
  }

  async choose() {
    this.dialog.showModal();
    await this.#show(this.at);
  }

  async #show(folder) {
    this.problem.textContent = "";
    try {
      const found = await get("folders", { below: folder });
      this.at = found.folder;
      const kind = found.run ? say("folder.run") : found.pictures ? say("folder.pictures", { count: found.pictures }) : "";
      this.path.textContent = [found.root + (found.folder ? `/${found.folder}` : ""), kind].filter(Boolean).join(" · ");
      this.up.disabled = !found.folder;
      this.list.replaceChildren(...found.folders.map((one) => this.#row(one)));
      if (!found.folders.length) this.list.replaceChildren(make("li", { class: "faint", textContent: say("folder.none") }));
      (this.list.querySelector("button") ?? this.open).focus();
    } catch (error) {
      this.problem.textContent = error.message;
    }
  }

  #row({ name, run }) {
    const go = () => this.#show(this.at ? `${this.at}/${name}` : name);
    return make("li", {}, make("button", { type: "button", onclick: go }, make("b", { textContent: name }), ...(run ? [make("span", { class: "faint", textContent: ` ${say("folder.run")}` })] : [])));
  }

  /** Open the folder that is shown; `answer` is a setting that would have answered why it was not opened before. */
  async #open(answer = null) {
    this.problem.className = "faint";
    this.problem.textContent = say("folder.opening");
    this.open.disabled = true;
    try {
      await post("open", { folder: this.at, answer });
      history.replaceState(null, "", "#data");
      location.reload();
    } catch (error) {
      this.problem.className = "bad";
      const buttons = (error.answers ?? []).map((one) => make("button", { type: "button", class: "answer", textContent: say("folder.answer", { words: answerWords(one) }), title: lineOf(one), onclick: () => this.#open(one) }));
      this.problem.replaceChildren(error.message, ...buttons);
      this.open.disabled = false;
    }
  }
}
