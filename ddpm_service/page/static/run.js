/** One wish for faces: from the request to the last picture, with what has arrived so far kept. */

import * as api from "./api.js";
import { blobOf, tell } from "./dom.js";

export class Run extends EventTarget {
	phase = "sending"; // then queued, running, and done, cancelled or failed
	created = new Date();
	total = 0;
	seed = null;
	version = "";
	/** As used, defaults filled in. */
	parameters = {};
	targetFile = null;
	targetUrl = "";
	warnings = [];
	timing = null;
	#line = new AbortController();

	constructor(wish) {
		super();
		this.wish = wish;
		this.slots = Array.from({ length: wish.fields.num_images }, (_, index) => ({ index, url: "" }));
	}

	/** Whom the faces are to resemble. */
	get who() {
		return this.wish.who ?? "You";
	}

	get active() {
		return ["sending", "queued", "running"].includes(this.phase);
	}

	get finished() {
		return this.slots.filter((slot) => slot.file);
	}

	get share() {
		if (this.phase === "done") return 1;
		return this.total ? this.step / this.total : 0;
	}

	/**
	 * Send the wish, and take what comes until it ends in one way or another. Sent again after a failure it names
	 * the seed and the version that were reported, so that the same pictures come and fill the places that are
	 * still empty.
	 */
	async send() {
		this.#line = new AbortController();
		Object.assign(this, { phase: "sending", failure: null, position: null, eta: null, step: 0, warnings: [] });
		tell(this, "change");
		const { model, image, fields } = this.wish;
		const version = this.version || this.wish.version;
		const again = this.seed === null ? fields : { ...fields, seed: this.seed };
		try {
			for await (const event of api.generate(api.path(model, version), image, again, this.#line)) this.#take(event);
			this.phase = "done";
		} catch (problem) {
			if (!(problem instanceof api.Failure)) throw problem;
			this.failure = problem;
			this.phase = problem.code === "cancelled" ? "cancelled" : "failed";
		}
		tell(this, "change");
	}

	cancel() {
		this.#line.abort();
	}

	forget() {
		for (const { url } of [...this.slots, { url: this.targetUrl }]) URL.revokeObjectURL(url);
	}

	#take(event) {
		switch (event.event) {
			case "queued":
				this.phase = "queued";
				this.position = event.position;
				break;
			case "started":
				this.#begin(event);
				break;
			case "warning":
				this.warnings.push({ code: event.code, message: event.message });
				break;
			case "progress":
				[this.step, this.total, this.eta] = [event.step, event.total_steps, event.eta_seconds];
				break;
			case "preview": {
				const slot = this.slots[event.index];
				if (!slot || slot.file) break; // a candidate that may not be kept, or a picture that is here already
				slot.preview = blobOf(event.b64_json, event.content_type);
				break;
			}
			case "image":
				this.#finish(event);
				break;
			case "end":
				this.timing = event.timing;
				break;
		}
		tell(this, "change");
	}

	#begin(event) {
		this.phase = "running";
		this.seed = event.seed;
		this.version = event.version;
		this.parameters = event.parameters;
		if (event.target?.b64_json && !this.targetFile) {
			this.targetFile = blobOf(event.target.b64_json, "image/png");
			this.targetUrl = URL.createObjectURL(this.targetFile);
		}
	}

	#finish(event) {
		const slot = this.slots[event.index];
		if (slot.file) return; // it came before the line was cut
		const { seed, width, height, resemblance_score: near = null } = event;
		const file = blobOf(event.b64_json, event.content_type);
		Object.assign(slot, { seed, width, height, near, file, url: URL.createObjectURL(file), preview: null });
	}
}
