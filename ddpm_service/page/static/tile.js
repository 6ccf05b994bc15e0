/** One face in the making: grain, then previews, then the picture, smoothly enlarged. */

import { iconButton, make, near, pen } from "./dom.js";
import { saveOne, sideOf } from "./download.js";

export const FINE = 512; // px a side that small faces are enlarged to

/** Draw a picture into a canvas, enlarged by the browser's best filter: its CSS scaling is coarser. */
export async function paint(canvas, file, stillWanted = () => true) {
	const bitmap = await createImageBitmap(file);
	if (!stillWanted()) return;
	const side = Math.max(FINE, bitmap.width);
	if (canvas.width !== side) canvas.width = canvas.height = side;
	pen(canvas).drawImage(bitmap, 0, 0, side, side);
	bitmap.close();
}

export const sizeInWords = ({ width, height }) => `${width} × ${height} px${width < FINE ? ", smoothly enlarged" : ""}`;

/** Soft grain, as a picture begins. */
function grain(canvas) {
	const side = 48;
	const dots = make("canvas", { width: side, height: side });
	const small = pen(dots);
	const pixels = small.createImageData(side, side);
	pixels.data.forEach((_, at, data) => (data[at] = at % 4 === 3 ? 255 : 128 + 110 * (Math.random() + Math.random() - 1)));
	small.putImageData(pixels, 0, 0);
	canvas.width = canvas.height = FINE;
	pen(canvas).drawImage(dots, 0, 0, FINE, FINE);
}

export class Tile {
	#painted = null;

	constructor(index, actions) {
		this.index = index;
		this.actions = actions;
		this.canvas = make("canvas", { "aria-hidden": "true" });
		/** The file itself, below: what a long press or a right click saves. */
		this.image = make("img", { alt: "", hidden: true });
		this.button = make(
			"button",
			{ class: "picture", disabled: true, onclick: () => actions.open(index), "aria-label": `Face ${index + 1}, not ready yet` },
			this.canvas,
			this.image,
		);
		this.caption = make("div", { class: "caption" });
		this.element = make("li", { class: "tile", "data-state": "waiting" }, this.button, this.caption);
		grain(this.canvas);
	}

	update(slot) {
		const file = slot.file ?? slot.preview;
		if (!file || file === this.#painted) return;
		this.#painted = file;
		paint(this.canvas, file, () => this.#painted === file);
		this.element.dataset.state = slot.file ? "done" : "forming";
		if (slot.file) this.#finish(slot);
	}

	#finish(slot) {
		this.image.src = slot.url;
		this.image.hidden = false;
		this.button.disabled = false;
		this.button.setAttribute("aria-label", `Face ${this.index + 1}, AI-generated, seed ${slot.seed}. Enlarge.`);
		this.caption.append(
			iconButton("seed", `Use seed ${slot.seed}`, () => this.actions.useSeed(slot.seed), slot.seed),
			slot.near !== null && make("span", { title: "How near its coarse shapes and colours are to the photo’s" }, near(slot.near)),
			iconButton("down", `Download face ${this.index + 1}, ${sideOf(slot)} px`, () => saveOne(slot)),
		);
	}
}

