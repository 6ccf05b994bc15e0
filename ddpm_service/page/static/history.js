/** Earlier runs, in this page's memory only: faces are personal. */

import { byId, counted, make } from "./dom.js";

const MOST = 24;

/** The list below the stage. */
export class History {
  #runs = []; // newest first

  constructor(open) {
    this.open = open;
  }

  add(run) {
    this.#runs.unshift(run);
    for (const old of this.#runs.splice(MOST)) old.forget();
  }

  /** Draw all but the one on the stage; what brought nothing is not worth a place. */
  draw(current) {
    const earlier = this.#runs.filter((run) => run !== current && run.finished.length > 0);
    byId("history").hidden = earlier.length === 0;
    byId("history-list").replaceChildren(...earlier.map((run) => this.#entry(run)));
  }

  #entry(run) {
    const time = run.created.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
    const faces = run.finished;
    const pictures = faces.slice(0, 5).map((slot) => make("img", { src: slot.url, alt: "" }));
    const label = `${counted(faces.length)} from ${time}, seed ${run.seed}. Show again.`;
    return make(
      "li",
      {},
      make(
        "button",
        { class: "earlier", "aria-label": label, onclick: () => this.open(run) },
        make("span", { class: "stack" }, ...pictures),
        make("span", { class: "when" }, make("span", {}, time), make("span", { class: "hint" }, counted(faces.length))),
      ),
    );
  }
}
