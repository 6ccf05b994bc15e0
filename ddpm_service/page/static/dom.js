/** Small helpers over the document. */

export function byId(id) {
	const element = document.getElementById(id);
	if (!element) throw new Error(`no element #${id}`);
	return element;
}

/** Make an element. Properties that start with "on" are listeners, `class` and `data-…`/`aria-…` are attributes. */
export function make(tag, properties = {}, ...children) {
	const element = document.createElement(tag);
	if (tag === "button") element.setAttribute("type", "button");
	for (const [name, value] of Object.entries(properties)) {
		if (value === undefined || value === null || value === false) continue;
		if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
		else if (name in element && !name.includes("-")) element[name] = value;
		else element.setAttribute(name, value === true ? "" : value);
	}
	element.append(...children.filter(Boolean));
	return element;
}

/** A picture of the page's own sprite. */
export function icon(name) {
	const [svg, use] = ["svg", "use"].map((tag) => document.createElementNS("http://www.w3.org/2000/svg", tag));
	svg.setAttribute("class", "icon");
	svg.setAttribute("viewBox", "0 0 24 24");
	svg.setAttribute("aria-hidden", "true");
	use.setAttribute("href", `#i-${name}`);
	svg.append(use);
	return svg;
}

export const iconButton = (name, label, onclick, text = "") =>
	make("button", { class: "bare", title: label, "aria-label": label, onclick }, icon(name), text);

/** What draws into a canvas, and enlarges and shrinks smoothly. */
export function pen(canvas) {
	const context = canvas.getContext("2d");
	context.imageSmoothingQuality = "high";
	return context;
}

let toastTimer = 0;

export function toast(text) {
	const line = byId("toast");
	line.textContent = text;
	line.hidden = false;
	clearTimeout(toastTimer);
	toastTimer = setTimeout(() => (line.hidden = true), 5000);
}

export const near = (score) => `${Math.round(100 * score)} % near`;

export const counted = (count) => `${count} face${count === 1 ? "" : "s"}`;

export function duration(seconds) {
	if (seconds < 1.5) return "a moment";
	if (seconds < 60) return `${Math.round(seconds)} s`;
	const minutes = Math.round(seconds / 60);
	return minutes < 60 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

export const bytesOf = async (file) => new Uint8Array(await file.arrayBuffer());

/** A canvas as a file. */
export const drawn = (canvas, type, quality) => new Promise((resolve) => canvas.toBlob(resolve, type, quality));

/** Tell all who listen. */
export const tell = (teller, what, detail) => teller.dispatchEvent(new CustomEvent(what, { detail }));

export function blobOf(text, type) {
	return new Blob([Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0))], { type });
}
