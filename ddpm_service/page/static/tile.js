/** One face in the making: grain, then previews, then the picture, smoothly enlarged. */

import { icon, make } from "./dom.js";
import { saveOne } from "./download.js";

/** @typedef {import("./run.js").Slot} Slot */

const FINE = 512; // px a side that small faces are enlarged to

/**
 * Draw a picture into a canvas, enlarged by the browser's best filter (its CSS scaling of small pictures is coarser).
 * @param {HTMLCanvasElement} canvas
 * @param {Blob} file
 */
export async function paint(canvas, file) {
  const bitmap = await createImageBitmap(file);
  const side = Math.max(FINE, bitmap.width);
  if (canvas.width !== side) canvas.width = canvas.height = side;
  const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, 0, 0, side, side);
  bitmap.close();
}

/**
 * Soft grain, as a picture begins.
 * @param {HTMLCanvasElement} canvas
 */
function grain(canvas) {
  const side = 48;
  const dots = new OffscreenCanvas(side, side);
  const small = /** @type {OffscreenCanvasRenderingContext2D} */ (dots.getContext("2d"));
  const pixels = small.createImageData(side, side);
  for (let at = 0; at < pixels.data.length; at += 4) {
    for (let channel = 0; channel < 3; channel++) pixels.data[at + channel] = 128 + 110 * (Math.random() + Math.random() - 1);
    pixels.data[at + 3] = 255;
  }
  small.putImageData(pixels, 0, 0);
  canvas.width = canvas.height = FINE;
  const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  context.imageSmoothingQuality = "high";
  context.drawImage(dots, 0, 0, FINE, FINE);
}

/** A place in the grid. */
export class Tile {
  /** @type {Blob | null} */ #painted = null;

  /**
   * @param {number} index
   * @param {{ open: (index: number) => void, useSeed: (seed: number) => void }} actions
   */
  constructor(index, actions) {
    this.index = index;
    this.actions = actions;
    this.canvas = make("canvas", { "aria-hidden": "true" });
    /** The file itself, below: what a long press or a right click saves. */
    this.image = make("img", { alt: "", hidden: true });
    this.button = make(
      "button",
      { type: "button", class: "picture", disabled: true, onclick: () => actions.open(index), "aria-label": `Face ${index + 1}, not ready yet` },
      this.canvas,
      this.image,
    );
    this.caption = make("div", { class: "caption" });
    this.element = make("li", { class: "tile", "data-state": "waiting" }, this.button, this.caption);
    grain(this.canvas);
  }

  /** @param {Slot} slot */
  update(slot) {
    const file = slot.file ?? slot.preview;
    if (!file || file === this.#painted) return;
    this.#painted = file;
    createPainted(this.canvas, file, () => this.#painted === file);
    this.element.dataset.state = slot.file ? "done" : "forming";
    if (slot.file) this.#finish(slot);
  }

  /** @param {Slot} slot */
  #finish(slot) {
    this.image.src = slot.url;
    this.image.hidden = false;
    this.button.disabled = false;
    this.button.setAttribute("aria-label", `Face ${this.index + 1}, AI-generated, seed ${slot.seed}. Enlarge.`);
    this.caption.replaceChildren(
      make(
        "button",
        {
          type: "button",
          class: "bare seed",
          title: "Use this seed",
          "aria-label": `Use seed ${slot.seed}`,
          onclick: () => this.actions.useSeed(/** @type {number} */ (slot.seed)),
        },
        icon("seed"),
        String(slot.seed),
      ),
      make("button", { type: "button", class: "bare", title: "Download", "aria-label": `Download face ${this.index + 1}`, onclick: () => saveOne(slot) }, icon("down")),
    );
  }
}

/**
 * Paint unless something newer was painted meanwhile.
 * @param {HTMLCanvasElement} canvas
 * @param {Blob} file
 * @param {() => boolean} stillWanted
 */
async function createPainted(canvas, file, stillWanted) {
  const off = document.createElement("canvas");
  await paint(off, file);
  if (!stillWanted()) return;
  canvas.width = canvas.height = off.width;
  /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d")).drawImage(off, 0, 0);
}
