/** Pictures saved as files: a face as it is seen, as it came, on a card beside the photo, or all of them in an archive. */

import { drawn, make, pen } from "./dom.js";
import { withTexts } from "./png.js";
import { FINE, paint } from "./tile.js";
import { zip } from "./zip.js";

const GAP = 24; // px between the pictures of a card
const [PAPER, INK, SOFT] = ["#f6f3ee", "#27211b", "#665c51"]; // the same by day and by night

const fileName = (slot) => `lookalike-${slot.seed}`;

export const sideOf = (slot) => Math.max(FINE, slot.width);

export const saveOne = async (slot) => save(await enlarged(slot), `${fileName(slot)}.png`);

export const saveOriginal = (slot) => save(slot.file, `${fileName(slot)}-${slot.width}px.png`);

export const saveCard = async (run, slot) => save(await card(run, slot), `${fileName(slot)}-card.png`);

/** All of a run: as seen, as they came, and their cards. */
export async function saveAll(run) {
	const entries = [];
	for (const slot of run.finished) {
		entries.push({ name: `${fileName(slot)}.png`, file: await enlarged(slot) });
		if (slot.width < FINE) entries.push({ name: `original/${fileName(slot)}.png`, file: slot.file });
		if (run.targetFile) entries.push({ name: `cards/${fileName(slot)}.png`, file: await card(run, slot) });
	}
	save(await zip(entries), `lookalikes-${run.seed}.zip`);
}

async function enlarged(slot) {
	if (slot.width >= FINE) return slot.file;
	const canvas = make("canvas");
	await paint(canvas, slot.file);
	return withTexts(await drawn(canvas), slot);
}

/** The photo beside one face, with title, AI mark and seed. */
async function card(run, slot) {
	const canvas = make("canvas", { width: 2 * FINE + 3 * GAP, height: FINE + 4 * GAP + 52 });
	const context = pen(canvas);
	const write = (text, x, y, size, colour, align = "left") => {
		context.font = `${size}px Inter, system-ui, sans-serif`;
		context.fillStyle = colour;
		context.textAlign = align;
		context.fillText(text, x, y);
	};
	context.fillStyle = PAPER;
	context.fillRect(0, 0, canvas.width, canvas.height);
	const pictures = [[run.targetFile, run.who], [slot.file, "Look-alike"]];
	for (const [column, [file, name]] of pictures.entries()) {
		const left = GAP + column * (FINE + GAP);
		const bitmap = await createImageBitmap(file);
		context.drawImage(bitmap, left, GAP, FINE, FINE);
		write(name, left, GAP + FINE + 32, 24, SOFT);
	}
	const foot = canvas.height - GAP;
	write("Lookalike", GAP, foot, 36, INK);
	write(`AI-generated · seed ${slot.seed}`, canvas.width - GAP, foot, 24, SOFT, "right");
	return withTexts(await drawn(canvas), slot);
}

function save(file, name) {
	const href = URL.createObjectURL(file);
	make("a", { href, download: name }).click();
	setTimeout(() => URL.revokeObjectURL(href), 60_000);
}
