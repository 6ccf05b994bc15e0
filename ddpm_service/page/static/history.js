/** Earlier runs, in this page's memory only: faces are personal. */

import { byId, counted, make } from "./dom.js";
import { manner } from "./stage.js";

const MOST = 24;

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
		const urls = [run.targetUrl, ...faces.slice(0, 4).map((slot) => slot.url)].filter(Boolean);
		const pictures = urls.map((src) => make("img", { src, alt: "" }));
		const label = `${counted(faces.length)}, ${manner(run)}, from ${time}, seed ${run.seed}. Show again.`;
		return make(
			"li",
			{},
			make(
				"button",
				{ class: "earlier", "aria-label": label, onclick: () => this.open(run) },
				make("span", { class: "stack" }, ...pictures),
				make("span", { class: "when" }, make("span", {}, manner(run)), make("span", { class: "hint" }, `${time} · ${counted(faces.length)}`)),
			),
		);
	}
}
