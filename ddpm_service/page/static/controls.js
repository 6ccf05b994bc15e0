/** The settings: what is asked of the model, as the user sees it and as the request wants it. */

import { byId, counted, make } from "./dom.js";

const STOPS = new Map([[25, "celebrity"], [50, "likeness"], [75, "faithful"]]);
const HINTS = new Map([
	[25, "The usual choice: clearly related to you."],
	[50, "Nearer to you; oftener broken."],
	[75, "Close to the photo; wants one well lit, from the front."],
	[100, "The photograph itself, so one is made."],
]);
const WHOLE = 100; // the slider's end, where the picture is the photograph
const PATIENCE = 6; // s; if twice the faces take no longer, the better half is shown
/** The fields that hold numbers, by the names that the service calls them. */
const NUMBERS = {
	num_images: "count", seed: "seed", num_inference_steps: "steps", eta: "eta", guidance_loss_scale: "pull", best_of: "best", guide: "guide",
};

/** Those of them whose default stands in the field; the others' is said in words. */
const SHOWN = new Set(["num_images", "eta", "guidance_loss_scale"]);
const SAMPLERS = { ddpm: "DDPM", ddim: "DDIM", dpmpp_2m: "DPM-Solver++", lcm: "LCM" };

export class Controls {
	#slider = byId("resemblance");
	#guided = false;
	#version = {}; // of the model, as far as it is known
	#pace = 0; // s for an image, as last measured
	#stops = document.querySelectorAll("[data-stop]");

	constructor() {
		this.#slider.oninput = () => this.#choose(this.#slider.valueAsNumber);
		for (const stop of this.#stops) stop.onclick = () => this.#choose(Number(stop.dataset.stop));
		for (const button of document.querySelectorAll("[data-step]")) {
			button.onclick = () => this.#count(Number(button.dataset.step));
		}
		byId("dice").onclick = () => this.setSeed(crypto.getRandomValues(new Uint32Array(1))[0]);
		for (const id of Object.values(NUMBERS)) {
			const input = byId(id);
			const problem = make("p", { class: "problem-line", id: `${id}-problem`, role: "alert" });
			input.closest(".field").append(problem);
			input.setAttribute("aria-describedby", problem.id);
		}
		byId("settings").addEventListener("input", ({ target }) => (target.type === "number" ? this.#refresh() : this.#change()));
		byId("more").ontoggle = () => byId("more").open && byId("more").scrollIntoView({ block: "nearest" });
		this.#refresh();
	}

	/** Whether there is a photo, and a face in it: where "automatic" will probably be. */
	setGuided(guided, face = true) {
		this.#guided = guided;
		if (byId("automatic").checked) this.#slider.value = face ? "25" : "0";
		this.#change();
	}

	/** What the chosen model offers: bounds and defaults of the numbers, its samplers, steps without a photo and guide. */
	setModel({ numbers, samplers, version }) {
		for (const [field, { minimum = "", maximum = "", default: usual = "" }] of Object.entries(numbers)) {
			if (!Object.hasOwn(NUMBERS, field)) continue;
			const input = byId(NUMBERS[field]);
			Object.assign(input, { min: minimum, max: maximum });
			if (SHOWN.has(field)) input.defaultValue = usual;
		}
		const sampler = byId("sampler");
		const { value } = sampler;
		sampler.replaceChildren(sampler.options[0], ...samplers.map((name) => make("option", { value: name }, SAMPLERS[name] ?? name)));
		sampler.value = samplers.includes(value) ? value : "";
		this.#version = version ?? {};
		this.#pace = version?.image_size > 128 ? Infinity : 0;
		this.#change();
	}

	setSeed(seed) {
		byId("seed").value = seed;
		this.#refresh();
	}

	/** Take the settings that a picture made here carries. */
	recall({ mode, resemblance, sampler, ...said }) {
		byId("count").value = "1";
		byId("best").value = "";
		for (const name of ["seed", "num_inference_steps", "eta", "guidance_loss_scale", "guide"]) {
			byId(NUMBERS[name]).value = said[name] ?? "";
		}
		byId("sampler").value = sampler ?? "";
		byId("way").value = mode === "pixel" ? "pixel" : "curve";
		byId("automatic").checked = resemblance === 0 && mode === "celebrity"; // as chosen for a photo without a face
		if (resemblance !== undefined) this.#slider.value = 100 * resemblance;
		this.#change();
	}

	/** What a run has told: where on the curve it was, when that was chosen for the user, and how fast it went. */
	learn(run) {
		const { resemblance, num_images, best_of } = run.parameters;
		if (run.timing) this.#pace = run.timing.seconds / Math.max(num_images, best_of ?? 0);
		if (byId("automatic").checked && this.#guided && typeof resemblance === "number") {
			this.#slider.value = 100 * resemblance;
		}
		this.#change();
	}

	/** Say what is wrong with a field below it, as the service has told; false where the form has no such field. */
	refuse({ field, allowed = "" }) {
		if (!Object.hasOwn(NUMBERS, field)) return false;
		const input = byId(NUMBERS[field]);
		const most = /^\d+\.\.(\d+)$/.exec(allowed)?.[1];
		if (most) input.max = most;
		this.#refresh();
		return !this.check();
	}

	/** Whether every number can be sent; the first that cannot gets the focus. */
	check() {
		const wrong = Object.values(NUMBERS).map(byId).find((input) => !input.closest("[hidden]") && problemOf(input));
		const more = wrong?.closest("details");
		if (more) more.open = true;
		wrong?.focus();
		this.#refresh();
		return !wrong;
	}

	/** As a request has them; what is null is left to the service. */
	get fields() {
		const fields = Object.fromEntries(Object.entries(NUMBERS).map(([field, id]) => [field, number(id)]));
		const count = (fields.num_images = this.#faces);
		const best = this.#guided && !this.#isWhole ? (fields.best_of ?? this.#better) : 0;
		fields.best_of = best > count ? best : null;
		if (this.#pixel) return { ...fields, mode: "pixel" };
		fields.sampler = byId("sampler").value || null;
		if (!this.#guided || byId("automatic").checked) return fields;
		const place = this.#slider.valueAsNumber;
		const mode = STOPS.get(place);
		return mode ? { ...fields, mode } : { ...fields, resemblance: place / 100 };
	}

	/** Pixel guidance has its own strength and its own sampler. */
	get #pixel() {
		return this.#guided && byId("way").value === "pixel";
	}

	/** At the slider's end every face would be the same. */
	get #isWhole() {
		return this.#guided && !this.#pixel && !byId("automatic").checked && this.#slider.valueAsNumber === WHOLE;
	}

	get #faces() {
		return this.#isWhole ? 1 : (number("count") ?? Number(byId("count").defaultValue || 1));
	}

	/** How many to choose from unless said: twice as many where that is quick; a seed that is set keeps its faces, steps may take long. */
	get #better() {
		const count = this.#faces;
		const twice = Math.min(2 * count, Number(byId("count").max));
		return number("seed") === null && number("steps") === null && !this.#isWhole && twice * this.#pace < PATIENCE ? twice : count;
	}

	#choose(place) {
		this.#slider.value = place;
		byId("automatic").checked = false;
		this.#change();
	}

	#count(by) {
		const input = byId("count");
		input.value = Math.max(1, Math.min(Number(input.max), this.#faces + by));
		this.#refresh();
	}

	/** Another plan starts from another level, and has no more steps than that. */
	#change() {
		const { unguided = "", guided = [] } = this.#version.most_calls ?? {};
		const place = this.#slider.valueAsNumber / WHOLE;
		byId("steps").max = this.#guided && !this.#pixel ? (guided[Math.round(place * (guided.length - 1))] ?? "") : unguided;
		this.#refresh();
	}

	#refresh() {
		const automatic = byId("automatic").checked;
		const place = this.#slider.valueAsNumber;
		const usable = this.#guided && !this.#pixel;
		const idle = automatic || !usable;
		byId("likeness").disabled = !usable;
		byId("likeness").toggleAttribute("data-idle", idle);
		this.#slider.style.setProperty("--at", `${idle ? 0 : place}%`);
		this.#slider.setAttribute("aria-valuetext", automatic ? "automatic" : inWords(place));
		for (const stop of this.#stops) {
			stop.setAttribute("aria-pressed", !idle && Number(stop.dataset.stop) === place);
		}
		byId("likeness-hint").textContent = this.#hint(automatic, place);
		const { guide, defaults } = this.#version;
		hide("way", !this.#guided);
		hide("best", !this.#guided);
		hide("pull", !this.#pixel);
		hide("sampler", this.#pixel);
		hide("eta", this.#pixel || byId("sampler").value !== "ddim");
		hide("guide", this.#pixel || !guide);
		byId("guide").placeholder = guide?.weight ?? "";
		byId("steps").placeholder = (!this.#guided && defaults?.num_inference_steps) || "automatic";
		byId("best").min = this.#faces;
		byId("best").placeholder = this.#better > this.#faces ? this.#better : "all";
		byId("generate").textContent = `${this.#guided ? "Make" : "Imagine"} ${byId("count").value ? counted(this.#faces) : "faces"}`;
		for (const id of Object.values(NUMBERS)) {
			const input = byId(id);
			const line = byId(`${id}-problem`);
			line.textContent = problemOf(input);
			input.toggleAttribute("aria-invalid", Boolean(line.textContent));
			if (line.textContent && input === document.activeElement) line.scrollIntoView({ block: "nearest" });
		}
	}

	#hint(automatic, place) {
		if (!this.#guided) return "Without a photo, the faces are nobody’s.";
		if (this.#pixel) return "Pixel loss is on; its strength is set below.";
		if (automatic) return "Chosen for your photo, until you move the slider.";
		return HINTS.get(place) ?? `${inWords(place)}.`;
	}
}

export function inWords(place) {
	const name = STOPS.get(place);
	if (name) return name[0].toUpperCase() + name.slice(1);
	if (place === WHOLE) return "The photo itself";
	return place > 75 ? "Nearly the photo itself" : place < 25 ? "Hardly like you" : "In between";
}

const hide = (id, hidden) => (byId(id).closest(".field").hidden = hidden);

/** The number in a field, null where it is empty, hidden or cannot be sent. */
function number(id) {
	const input = byId(id);
	return input.value === "" || input.closest("[hidden]") || problemOf(input) ? null : input.valueAsNumber;
}

/** What is wrong with the number in a field; its own limits say so. */
function problemOf({ value, valueAsNumber, validity, min, max, step }) {
	if (value === "" && !validity.badInput) return "";
	const whole = step !== "any";
	const [least, most] = [Number(min || -Infinity), Number(max || Infinity)];
	if (valueAsNumber >= least && valueAsNumber <= most && (!whole || Number.isInteger(valueAsNumber))) return "";
	return `${whole ? "A whole number" : "A number"} from ${min}${max === "" ? " up" : ` to ${max}`}`;
}
