/** A picture's own file, its pixels byte for byte, bare of what it tells besides: places, cameras, words, thumbnails. */

import { bytesOf } from "./dom.js";
import { chunks, latin, sealed } from "./png.js";

/** A WebP whose flags name neither metadata nor a film. Not all browsers turn one as its EXIF says. */
const PLAIN_WEBP = /^RIFF.{4}WEBPVP8([ L]|X.{4}[\0\x10\x20\x30])/s;
const JPEG_NEEDS = /^([^\xe0-\xef\xfe]|\xe0\0\x10JFIF|\xe2..ICC_PROFILE|\xee..Adobe)/s;
const PNG_NEEDS = /[A-Z]...|tRNS|gAMA|cHRM|sRGB|iCCP|cICP|eXIf/;
/** The tags of EXIF that change what is seen, its turn and colours: the bytes that lie elsewhere, or the tags there. */
const SEEN = { 0x112: 0, 0x13e: 16, 0x13f: 48, 0x8769: { 0xa001: 0, 0xa500: 8, 0xa005: { 1: 0 } } };

/** Nothing where a file is not made as is known here. */
export async function bare(file) {
	const bytes = await bytesOf(file);
	const start = latin(bytes.subarray(0, 21));
	const parts = start.startsWith("\xff\xd8") ? jpeg(bytes) : start.slice(1, 4) === "PNG" ? png(bytes) : PLAIN_WEBP.test(start) && [bytes];
	return parts && new Blob(parts, { type: file.type });
}

/** Up to the end: what phones hang behind it is another picture, or a film. */
function jpeg(bytes) {
	const parts = [bytes.subarray(0, 2)];
	for (let at = 2, end; at + 4 <= bytes.length; at = end) {
		if (bytes[at] !== 0xff) return null;
		const kind = bytes[at + 1];
		end = kind === 0xff ? at + 1 : at + 2 + 256 * bytes[at + 2] + bytes[at + 3];
		if (kind === 0xda) {
			while (end < bytes.length && !(bytes[end] === 0xff && bytes[end + 1] && bytes[end + 1] >> 3 !== 0x1a)) end++; // no restart
			if (bytes[end + 1] === 0xd9) return [...parts, bytes.subarray(at, end + 2)];
		}
		const part = bytes.subarray(at, end);
		const head = latin(part.subarray(1, 16));
		if (/^\xe1..Exif/s.test(head)) parts.push(seen(part, 10));
		else if (JPEG_NEEDS.test(head)) parts.push(part);
	}
	return parts;
}

function png(bytes) {
	const needed = chunks(bytes).filter(({ kind }) => PNG_NEEDS.test(kind));
	return [bytes.subarray(0, 8), ...needed.map(({ kind, bytes }) => (kind === "eXIf" ? sealed(seen(bytes, 8)) : bytes))];
}

/** An EXIF block in which all but what is seen is nought. */
function seen(block, start) {
	const old = block.slice(start);
	const view = new DataView(old.buffer);
	const little = old[0] === 0x49;
	const keep = (at, length) => block.set(old.subarray(at, at + length), start + at);
	const directory = (at, tags) => {
		keep(at, 2);
		for (let entry = at + 2, left = view.getUint16(at, little); left > 0; entry += 12, left--) {
			const there = tags[view.getUint16(entry, little)];
			if (there === undefined) continue;
			keep(entry, 12);
			if (there) (there > 0 ? keep : directory)(view.getUint32(entry + 8, little), there);
		}
	};
	block.fill(0, start);
	try {
		keep(0, 8);
		directory(view.getUint32(4, little), SEEN);
	} catch {} // damaged
	return block;
}
