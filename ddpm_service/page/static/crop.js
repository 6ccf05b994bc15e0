/** The frame around the face that is used: shown over the photo, moved and resized by pointer or keyboard. */

import { make } from "./dom.js";

const SMALLEST = 32; // px of the photo
const CORNERS = ["nw", "ne", "se", "sw"];

export function place({ style }, [left, top, right, bottom], width, height) {
	style.left = `${(100 * left) / width}%`;
	style.top = `${(100 * top) / height}%`;
	style.width = `${(100 * (right - left)) / width}%`;
	style.height = `${(100 * (bottom - top)) / height}%`;
}

/** Lives in an element that has the photo's own proportions. */
export class CropFrame {
	box = [0, 0, 1, 1];
	#width = 1;
	#height = 1;

	constructor(stage, onchange) {
		this.stage = stage;
		this.onchange = onchange;
		this.element = make(
			"div",
			{
				class: "crop",
				tabIndex: 0,
				role: "group",
				hidden: true,
				"aria-label": "Frame around the face. Arrow keys move it, plus and minus resize it.",
				onkeydown: (event) => this.#key(event),
				onpointerdown: (event) => this.#drag(event),
			},
			...CORNERS.map((corner) => make("span", { class: `grip ${corner}`, "data-corner": corner })),
		);
		stage.append(this.element);
	}

	show(box, width, height) {
		this.#width = width;
		this.#height = height;
		this.box = [...box];
		this.element.hidden = false;
		this.#place();
	}

	hide() {
		this.element.hidden = true;
	}

	/** The box as the request wants it, inside the photo. */
	toString() {
		return this.box.map((edge) => Math.round(edge)).join(",");
	}

	#put(left, top, side) {
		const size = Math.max(Math.min(SMALLEST, this.#width, this.#height), Math.min(side, this.#width, this.#height));
		const x = Math.max(0, Math.min(left, this.#width - size));
		const y = Math.max(0, Math.min(top, this.#height - size));
		this.box = [x, y, x + size, y + size];
		this.#place();
		this.onchange();
	}

	#place() {
		place(this.element, this.box, this.#width, this.#height);
	}

	#key(event) {
		const [left, top, right] = this.box;
		const side = right - left;
		const by = side * (event.shiftKey ? 0.1 : 0.02);
		const moves = {
			ArrowLeft: [left - by, top, side],
			ArrowRight: [left + by, top, side],
			ArrowUp: [left, top - by, side],
			ArrowDown: [left, top + by, side],
			"+": [left - by, top - by, side + 2 * by],
			"-": [left + by, top + by, side - 2 * by],
		};
		const move = moves[event.key === "=" ? "+" : event.key];
		if (!move) return;
		event.preventDefault();
		this.#put(...move);
	}

	#drag(down) {
		if (down.button !== 0) return;
		down.preventDefault();
		this.element.focus({ preventScroll: true });
		const corner = down.target.dataset.corner;
		const [left, top, right, bottom] = this.box;
		const scale = this.#width / this.stage.clientWidth; // px of the photo for one of the screen
		const move = (event) => {
			const dx = (event.clientX - down.clientX) * scale;
			const dy = (event.clientY - down.clientY) * scale;
			if (!corner) return this.#put(left + dx, top + dy, right - left);
			// the opposite corner stays where it is
			const west = corner.includes("w");
			const north = corner.includes("n");
			const room = Math.min(west ? right : this.#width - left, north ? bottom : this.#height - top);
			const side = Math.max(SMALLEST, Math.min(room, right - left + ((west ? -dx : dx) + (north ? -dy : dy)) / 2));
			this.#put(west ? right - side : left, north ? bottom - side : top, side);
		};
		this.element.setPointerCapture(down.pointerId);
		this.element.addEventListener("pointermove", move);
		const stop = () => this.element.removeEventListener("pointermove", move);
		this.element.addEventListener("lostpointercapture", stop, { once: true });
	}
}
