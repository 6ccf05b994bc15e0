/** A zip archive without compression: pictures are compressed already. */

import { bytesOf } from "./dom.js";

const TABLE = Uint32Array.from({ length: 256 }, (_, value) => {
	for (let bit = 0; bit < 8; bit++) value = value & 1 ? (value >>> 1) ^ 0xedb88320 : value >>> 1;
	return value;
});

/** The sum that zip and PNG check their parts by. */
export function crc32(bytes) {
	let sum = -1;
	for (const byte of bytes) sum = TABLE[(sum ^ byte) & 0xff] ^ (sum >>> 8);
	return ~sum >>> 0;
}

/** Numbers of two bytes, little-endian; those of four are given as `long`. */
const record = (...numbers) => new Uint8Array(Uint16Array.from(numbers).buffer);
const long = (number) => [number & 0xffff, number >>> 16];

export async function zip(entries) {
	const now = new Date();
	const time = (now.getHours() << 11) | (now.getMinutes() << 5) | (now.getSeconds() >> 1);
	const date = ((now.getFullYear() - 1980) << 9) | ((now.getMonth() + 1) << 5) | now.getDate();
	const body = [];
	const directory = [];
	const size = (parts) => parts.reduce((sum, part) => sum + part.length, 0);
	for (const { name, file } of entries) {
		const bytes = await bytesOf(file);
		const label = new TextEncoder().encode(name);
		const length = long(bytes.length);
		// version 2.0, names in UTF-8, stored
		const common = [20, 0x0800, 0, time, date, ...long(crc32(bytes)), ...length, ...length, label.length, 0];
		directory.push(record(...long(0x02014b50), 20, ...common, 0, 0, 0, 0, 0, ...long(size(body))), label);
		body.push(record(...long(0x04034b50), ...common), label, bytes);
	}
	const count = entries.length;
	const end = record(...long(0x06054b50), 0, 0, count, count, ...long(size(directory)), ...long(size(body)), 0);
	return new Blob([...body, ...directory, end], { type: "application/zip" });
}
