/** One face, large, beside the photo's own. */

import { byId, icon, iconButton, make, near } from "./dom.js";
import { saveCard, saveOne, saveOriginal, sideOf } from "./download.js";
import { FINE, paint, sizeInWords } from "./tile.js";

const STEP = 0.1; // of the curve, to a face nearer to the photo or farther

/** Opens over the page; arrow keys go from face to face. */
export class Viewer {
	#run = null;
	#index = 0;

	constructor({ useSeed, again, alike }) {
		this.dialog = byId("viewer");
		this.canvas = make("canvas", { role: "img", tabIndex: -1, autofocus: true });
		this.you = make("canvas", { role: "img" });
		this.who = make("figcaption");
		this.youFigure = make("figure", { class: "viewer-you" }, this.you, this.who);
		this.title = make("p", { class: "viewer-title" });
		this.meta = make("p", { class: "meta" });
		const leave = (then) => () => {
			this.dialog.close();
			then();
		};
		const nearer = (by) => leave(() => again(this.#run, this.#slot, by));
		this.farther = make("button", { onclick: nearer(-STEP) }, "Less like me");
		this.nearer = make("button", { onclick: nearer(STEP) }, "More like me");
		this.full = make("button", { class: "primary", onclick: () => saveOne(this.#slot) }, "Download");
		this.original = make("button", { onclick: () => saveOriginal(this.#slot) }, "Original");
		this.card = make("button", { onclick: () => saveCard(this.#run, this.#slot) }, icon("down"), "Card");
		this.dialog.append(
			make("div", { class: "viewer-pictures" }, this.youFigure, make("figure", {}, this.canvas, make("figcaption", {}, make("span", { class: "ai" }, "AI-generated")))),
			make(
				"div",
				{ class: "viewer-words" },
				(this.previous = iconButton("left", "Previous face", () => this.#go(-1))),
				make("div", {}, this.title, this.meta),
				(this.next = iconButton("right", "Next face", () => this.#go(1))),
			),
			make("div", { class: "viewer-bar" }, this.full, this.original, this.card),
			make("div", { class: "viewer-bar" }, this.farther, this.nearer, make("button", { onclick: leave(() => alike(this.#run, this.#slot)) }, "More like this face"), make("button", { onclick: leave(() => useSeed(this.#slot.seed)) }, icon("seed"), "Use seed")),
			iconButton("close", "Close", () => this.dialog.close()),
		);
		this.dialog.onkeydown = ({ key }) => {
			if (key === "ArrowLeft") this.#go(-1);
			if (key === "ArrowRight") this.#go(1);
		};
		this.dialog.onclick = ({ target }) => {
			if (target === this.dialog) this.dialog.close();
		};
	}

	get #slot() {
		return this.#run.slots[this.#index];
	}

	open(run, index) {
		this.#run = run;
		this.#index = index;
		this.youFigure.hidden = this.card.hidden = !run.targetFile;
		if (run.targetFile) paint(this.you, run.targetFile);
		this.who.textContent = run.who;
		this.you.setAttribute("aria-label", `${run.who}, as the model sees it`);
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
		const { resemblance } = run.parameters;
		paint(this.canvas, slot.file);
		this.canvas.setAttribute("aria-label", `Face ${slot.index + 1}, AI-generated`);
		this.title.textContent = `Face ${slot.index + 1} of ${run.slots.length} · seed ${slot.seed}`;
		const size = sizeInWords(slot);
		this.meta.textContent = slot.near === null ? size : `${near(slot.near)} · ${size}`;
		this.full.replaceChildren(icon("down"), `${sideOf(slot)} px`);
		this.full.setAttribute("aria-label", `Download, ${sideOf(slot)} pixels a side`);
		this.original.replaceChildren(icon("down"), `${slot.width} px`);
		this.original.setAttribute("aria-label", `Download the original, ${slot.width} pixels a side`);
		this.original.hidden = slot.width >= FINE;
		this.farther.hidden = !(resemblance > 0);
		this.nearer.hidden = !(resemblance < 1);
		this.previous.hidden = this.next.hidden = run.finished.length < 2;
	}
}
