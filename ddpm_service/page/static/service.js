/** What the service says of itself: whether it is ready, and its models. Looked at again and again while seen. */

import * as api from "./api.js";
import { tell } from "./dom.js";

const CALM = 10_000; // ms between looks while all is well
const WORRIED = 2_500;
const MODELS = 30_000;

/** Tells of itself by the events `state` and `models`. */
export class Service extends EventTarget {
	state = "unknown"; // then ready, waiting, refused or unreachable
	reason = "";
	models = [];
	#timer = 0;
	#modelsAt = -Infinity;
	#looking = null;

	watch() {
		document.addEventListener("visibilitychange", () => this.look());
		addEventListener("online", () => this.look());
		addEventListener("offline", () => this.#set("unreachable", ""));
		this.look();
	}

	/** Look now; done when it has answered. Nothing is asked while the page is hidden. */
	async look() {
		if (!document.hidden) await (this.#looking ??= this.#ask());
	}

	async #ask() {
		clearTimeout(this.#timer);
		try {
			const { ready, said } = await api.readiness();
			if (performance.now() - this.#modelsAt > MODELS || (ready && this.state !== "ready")) await this.#readModels();
			this.#set(ready ? "ready" : "waiting", ready ? "" : why(said));
		} catch (failure) {
			this.#set(failure.passes ? "unreachable" : "refused", "");
		} finally {
			this.#looking = null;
			this.#timer = setTimeout(() => this.look(), this.state === "ready" ? CALM : WORRIED);
		}
	}

	async #readModels() {
		const { data } = await api.read("v1/models");
		this.#modelsAt = performance.now();
		if (JSON.stringify(data) === JSON.stringify(this.models)) return;
		this.models = data;
		tell(this, "models");
	}

	#set(state, reason) {
		if (state === this.state && reason === this.reason) return;
		this.state = state;
		this.reason = reason;
		tell(this, "state");
	}
}

function why(said) {
	if (said?.status === "stopping") return "Stopping";
	const waiting = Object.entries(said?.waiting_for ?? {}).map(([model, state]) => `${model} ${state}`);
	return waiting.length ? `Starting: ${waiting.join(", ")}` : "";
}
