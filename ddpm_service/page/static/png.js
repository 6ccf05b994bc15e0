/** Text inside PNG files: the mark and the settings of a picture, read and carried over to what is drawn from it. */

import { crc32 } from "./zip.js";

const latin = (bytes) => new TextDecoder("latin1").decode(bytes);

async function chunks(file) {
	const bytes = new Uint8Array(await file.arrayBuffer());
	const view = new DataView(bytes.buffer);
	const found = [];
	for (let at = 8; at + 12 <= bytes.length; ) {
		const end = at + 12 + view.getUint32(at);
		found.push({ kind: latin(bytes.subarray(at + 4, at + 8)), bytes: bytes.subarray(at, end) });
		at = end;
	}
	return found;
}

/** What a picture made here was asked for; null where a file does not say so. */
export async function settingsIn(file) {
	if (file.type !== "image/png") return null;
	const texts = (await chunks(file)).map(({ bytes }) => latin(bytes.subarray(4, -4)));
	const text = texts.find((each) => each.startsWith("tEXtparameters\0"));
	try {
		return text ? JSON.parse(text.slice(15)) : null;
	} catch {
		return null;
	}
}

/** A drawn PNG with the texts of the picture that it was drawn from, and that one's size. */
export async function withTexts(drawn, { file, width, height }) {
	const [head, ...rest] = await chunks(drawn);
	const texts = (await chunks(file)).filter(({ kind }) => ["tEXt", "iTXt"].includes(kind));
	const size = new TextEncoder().encode(`tEXttrue_size\0${width}x${height}`);
	const ends = [size.length - 4, crc32(size)].map((number) => new Uint8Array([24, 16, 8, 0].map((by) => number >>> by)));
	const parts = [head, ...texts].map(({ bytes }) => bytes);
	return new Blob([drawn.slice(0, 8), ...parts, ends[0], size, ends[1], ...rest.map(({ bytes }) => bytes)], { type: "image/png" });
}
