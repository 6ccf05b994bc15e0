/** Text inside PNG files: the mark and the settings of a picture, read and carried over to what is drawn from it. */

import { bytesOf } from "./dom.js";
import { crc32 } from "./zip.js";

export const latin = (bytes) => new TextDecoder("latin1").decode(bytes);

export function chunks(bytes) {
	const view = new DataView(bytes.buffer);
	const found = [];
	for (let at = 8, kind; at + 12 <= bytes.length && kind !== "IEND"; ) {
		const end = at + 12 + view.getUint32(at);
		kind = latin(bytes.subarray(at + 4, at + 8));
		found.push({ kind, bytes: bytes.subarray(at, end) });
		at = end;
	}
	return found;
}

/** A chunk with the sum at its end put right. */
export function sealed(chunk) {
	new DataView(chunk.buffer, chunk.byteOffset).setUint32(chunk.length - 4, crc32(chunk.subarray(4, -4)));
	return chunk;
}

/** What a picture made here was asked for; null where a file does not say so. */
export async function settingsIn(file) {
	if (file.type !== "image/png") return null;
	const texts = chunks(await bytesOf(file)).map(({ bytes }) => latin(bytes.subarray(4, -4)));
	const text = texts.find((each) => each.startsWith("tEXtparameters\0"));
	try {
		return text ? JSON.parse(text.slice(15)) : null;
	} catch {
		return null;
	}
}

/** A drawn PNG with the texts of the picture that it was drawn from, and that one's size. */
export async function withTexts(drawn, { file, width, height }) {
	const [head, ...rest] = chunks(await bytesOf(drawn));
	const texts = chunks(await bytesOf(file)).filter(({ kind }) => ["tEXt", "iTXt"].includes(kind));
	const size = new TextEncoder().encode(`\0\0\0\0tEXttrue_size\0${width}x${height}\0\0\0\0`);
	new DataView(size.buffer).setUint32(0, size.length - 12);
	const parts = [head, ...texts, { bytes: sealed(size) }, ...rest];
	return new Blob([drawn.slice(0, 8), ...parts.map(({ bytes }) => bytes)], { type: "image/png" });
}
