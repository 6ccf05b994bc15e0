/** One face, large, beside the photo's own. */

import { byId, icon, iconButton, make } from "./dom.js";
import { saveOne } from "./download.js";
import { paint } from "./tile.js";

/** Opens over the page; arrow keys go from face to face. */
export class Viewer {
  #run = null;
  #index = 0;

  constructor(actions) {
    this.dialog = byId("viewer");
    this.canvas = make("canvas", { role: "img", tabIndex: -1, autofocus: true });
    this.you = make("canvas", { role: "img", "aria-label": "You, as the model sees you" });
    this.youFigure = make("figure", { class: "viewer-you" }, this.you, make("figcaption", {}, "You"));
    this.title = make("p", { class: "viewer-title" });
    this.meta = make("p", { class: "meta" });
    const useSeed = () => {
      this.dialog.close();
      actions.useSeed(this.#slot.seed);
    };
    this.dialog.append(
      make("div", { class: "viewer-pictures" }, this.youFigure, make("figure", {}, this.canvas, make("figcaption", {}, make("span", { class: "ai" }, "AI-generated")))),
      make("div", { class: "viewer-words" }, this.title, this.meta),
      make(
        "div",
        { class: "viewer-bar" },
        (this.previous = iconButton("left", "Previous face", () => this.#go(-1))),
        make("button", { onclick: useSeed }, icon("seed"), "Use seed"),
        make("button", { class: "primary", onclick: () => saveOne(this.#slot) }, icon("down"), "Download"),
        (this.next = iconButton("right", "Next face", () => this.#go(1))),
      ),
      iconButton("close", "Close", () => this.dialog.close()),
    );
    this.dialog.addEventListener("keydown", (event) => {
      if (event.key === "ArrowLeft") this.#go(-1);
      if (event.key === "ArrowRight") this.#go(1);
    });
    this.dialog.addEventListener("click", (event) => {
      if (event.target === this.dialog) this.dialog.close();
    });
  }

  get #slot() {
    return this.#run.slots[this.#index];
  }

  open(run, index) {
    this.#run = run;
    this.#index = index;
    this.youFigure.hidden = !run.targetFile;
    if (run.targetFile) paint(this.you, run.targetFile);
    this.#show();
    this.dialog.showModal();
    this.dialog.scrollTop = 0;
  }

  #go(by) {
    const ready = this.#run.finished.map((slot) => slot.index);
    const at = ready.indexOf(this.#index);
    this.#index = ready[(at + by + ready.length) % ready.length];
    this.#show();
  }

  #show() {
    const run = this.#run;
    const slot = this.#slot;
    paint(this.canvas, slot.file);
    this.canvas.setAttribute("aria-label", `Face ${slot.index + 1}, AI-generated`);
    this.title.textContent = `Face ${slot.index + 1} of ${run.slots.length} · seed ${slot.seed}`;
    this.meta.textContent = `${slot.width} × ${slot.height} pixels${slot.width < 256 ? ", smoothly enlarged here" : ""}`;
    this.previous.hidden = this.next.hidden = run.finished.length < 2;
  }
}
