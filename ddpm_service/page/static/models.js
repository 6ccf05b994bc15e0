/** The list of models and versions, as the service gives it. */

import { byId, make } from "./dom.js";

/** The select; a default is followed by leaving the version open. */
export class ModelList {
	#models = [];

	constructor(onchange) {
		this.select = byId("model");
		this.select.onchange = onchange;
		this.onchange = onchange;
	}

	show(models) {
		this.#models = models;
		const kept = this.select.value;
		const options = models.flatMap((model) => [...model.versions].sort(defaultFirst(model)).map((version) => option(model, version)));
		this.select.replaceChildren(...options);
		const usable = options.filter((each) => !each.disabled);
		this.select.value = (usable.find((each) => each.value === kept) ?? usable[0] ?? options[0])?.value ?? "";
		this.select.disabled = options.length === 0;
		const failed = models.flatMap((model) =>
			model.versions.filter((version) => !version.ready && version.reason).map((version) => `${model.id} ${version.version}: ${version.reason}`),
		);
		byId("model-hint").hidden = failed.length === 0;
		byId("model-hint").textContent = failed.join(" ");
		this.onchange();
	}

	/** Choose what a picture names, where it is served. */
	choose(model, version) {
		const value = [`${model}/${version}`, model].find((each) => [...this.select.options].some((option) => option.value === each));
		if (value) this.select.value = value;
		this.onchange();
	}

	/** The chosen one: its name, the version if it is not the default, and what is known of it. */
	get chosen() {
		const [id, pinned] = this.select.value.split("/");
		const model = this.#models.find((each) => each.id === id);
		if (!model) return null;
		const name = pinned ?? model.default_version;
		const version = model.versions.find((each) => each.version === name) ?? null;
		return { model: model.id, pinned: pinned ?? null, version, numbers: model.numbers, samplers: model.samplers };
	}
}

const defaultFirst = (model) => (a, b) =>
	Number(b.version === model.default_version) - Number(a.version === model.default_version);

function option(model, version) {
	const isDefault = version.version === model.default_version;
	const parts = [`${model.id} ${version.version}`, version.image_size && `${version.image_size} px`, !version.ready && "not ready"];
	const value = isDefault ? model.id : `${model.id}/${version.version}`;
	return make("option", { value, disabled: !version.ready }, parts.filter(Boolean).join(" · "));
}
