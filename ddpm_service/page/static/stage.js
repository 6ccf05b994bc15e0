/** One run as it is seen: what it is, how far it is, the photo's own face and the faces made. */

import { inWords } from "./controls.js";
import { byId, counted, duration, icon, make } from "./dom.js";
import { saveAll } from "./download.js";
import { paint, sizeInWords, Tile } from "./tile.js";

const MODES = { pixel: "Pixel loss", none: "No photo" };
/** What the service warns of, in the page's own words; nothing where the photo's own line has said it. */
const WARNINGS = {
	several_faces: "",
	no_face: "",
	no_face_to_follow: "With no face to follow, these resemble the photo only a little.",
	strange_target: "The photo is unlike those that this model knows.",
};

export class Stage {
	run = null;
	#tiles = [];
	#parts = {};
	#said = "";
	#update = () => this.#refresh();

	constructor(element, actions) {
		this.element = element;
		this.actions = actions;
	}

	show(run) {
		this.run?.removeEventListener("change", this.#update);
		this.run = run;
		this.#build(run);
		run.addEventListener("change", this.#update);
		this.#refresh();
	}

	#build(run) {
		const parts = (this.#parts = {
			title: make("h2"),
			meta: make("p", { class: "meta" }),
			sort: make("button", { hidden: true, "aria-pressed": "false", onclick: () => this.#sort() }, "Nearest first"),
			all: make("button", { hidden: true, onclick: () => saveAll(run) }, icon("down"), "Download all"),
			resume: make("button", { hidden: true, onclick: () => this.actions.resume(run) }),
			words: make("p", { class: "progress-words" }),
			bar: make("div", { class: "bar", role: "progressbar", "aria-label": "Progress", "aria-valuemin": 0, "aria-valuemax": 100 }, make("span")),
			notes: make("ul", { class: "notes" }),
			target: make("li", { class: "tile you", hidden: true }, make("div", { class: "picture" }, make("canvas", { role: "img", "aria-label": `${run.who}, as the model sees it` })), make("div", { class: "caption" }, run.who)),
			size: make("p", { class: "hint" }),
		});
		const actions = { open: (index) => this.actions.open(run, index), useSeed: this.actions.useSeed };
		this.#tiles = run.slots.map((slot) => new Tile(slot.index, actions));
		parts.faces = make("ul", { class: "faces" }, parts.target, ...this.#tiles.map(({ element }) => element));
		parts.under = make("p", { class: "under" }, make("span", { class: "ai" }, "AI-generated"), parts.size);
		this.#said = "";
		this.element.replaceChildren(
			make("header", { class: "stage-head" }, make("div", {}, parts.title, parts.meta), make("div", { class: "stage-actions" }, parts.resume, parts.sort, parts.all)),
			make("div", { class: "progress" }, parts.bar, parts.words),
			parts.notes,
			parts.faces,
			parts.under,
		);
	}

	#refresh() {
		const run = this.run;
		const { title, meta, sort, all, resume, words, bar, notes, target, size, faces, under } = this.#parts;
		const done = run.finished.length;
		this.element.dataset.phase = run.phase;
		title.textContent = heading(run);
		meta.textContent = summary(run);
		all.hidden = done === 0 || run.active;
		sort.hidden = all.hidden || done < 2 || run.finished[0].near === null;
		resume.textContent = done ? "Continue" : "Try again";
		resume.hidden = !["cancelled", "failed"].includes(run.phase) || done === run.slots.length;
		words.textContent = progress(run);
		const percent = Math.round(100 * run.share);
		bar.hidden = !run.active;
		faces.hidden = under.hidden = bar.hidden && !done;
		bar.setAttribute("aria-valuenow", percent);
		bar.setAttribute("aria-valuetext", words.textContent);
		bar.firstChild.style.transform = `scaleX(${run.share})`;
		const warnings = run.warnings.map(({ code, message }) => WARNINGS[code] ?? message).filter(Boolean);
		if (notes.childElementCount !== warnings.length) notes.replaceChildren(...warnings.map((text) => make("li", {}, text)));
		if (run.targetFile && target.hidden) {
			target.hidden = false;
			paint(target.querySelector("canvas"), run.targetFile);
		}
		for (const tile of this.#tiles) tile.update(run.slots[tile.index]);
		const first = run.finished[0];
		size.textContent = first ? sizeInWords(first) : "";
		this.#say(run, percent);
	}

	/** By nearness to the photo, or back to the order of the seeds and ranks. */
	#sort() {
		const { sort } = this.#parts;
		const sorted = sort.getAttribute("aria-pressed") !== "true";
		sort.setAttribute("aria-pressed", sorted);
		const order = [...this.#tiles];
		const near = ({ index }) => this.run.slots[index].near ?? -1;
		if (sorted) order.sort((a, b) => near(b) - near(a));
		this.#parts.faces.append(...order.map(({ element }) => element));
	}

	/** Tell a screen reader now and then, not at every step. */
	#say(run, percent) {
		const quarter = Math.floor(percent / 25) * 25;
		const text = run.phase !== "running" ? progress(run) : quarter ? `${quarter} percent` : "Started";
		if (text !== this.#said) byId("live").textContent = this.#said = text;
	}
}

function heading(run) {
	const guided = run.wish.image !== null;
	if (run.phase === "done") return run.wish.who ? "More like that face" : guided ? "Your look-alikes" : "Out of nowhere";
	if (run.phase === "cancelled") return "Cancelled";
	if (run.phase === "failed") return run.finished.length ? "Interrupted" : "Nothing came of it";
	return guided ? "Looking for you among the stars" : "Imagining";
}

/** How the photo guided: the place on the curve, or the mode. */
export function manner({ parameters: { mode, resemblance } }) {
	if (typeof resemblance !== "number") return MODES[mode];
	const place = Math.round(100 * resemblance);
	return `${inWords(place)} · ${place} %`;
}

function summary(run) {
	const parts = [
		`${run.wish.model} ${run.version}`.trim(),
		manner(run),
		run.parameters.num_inference_steps && `${run.parameters.num_inference_steps} steps`,
		run.seed !== null && `seed ${run.seed}`,
	];
	return parts.filter(Boolean).join(" · ");
}

function progress(run) {
	const { phase, slots, finished } = run;
	if (phase === "sending") return "Sending…";
	if (phase === "queued") return run.position && run.position > 1 ? `Waiting: ${run.position - 1} before you` : "Waiting: you are next";
	if (phase === "running") {
		const left = run.eta === null || run.eta === undefined ? "" : ` · ${duration(run.eta)} left`;
		return run.total ? `Step ${run.step} of ${run.total}${left}` : "Starting…";
	}
	if (phase === "done") return `${counted(finished.length)} in ${run.timing ? duration(run.timing.seconds) : "no time"}`;
	if (phase === "cancelled") return finished.length ? `Stopped after ${counted(finished.length)}` : "Stopped; nothing was kept on the service";
	return finished.length ? `${finished.length} of ${counted(slots.length)} arrived` : "";
}
