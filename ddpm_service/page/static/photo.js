/** A photo made ready to be sent: its own file without its metadata, or a copy. */

import { bare } from "./bare.js";
import { drawn, make, pen } from "./dom.js";

const LONG = 12 * 2 ** 20; // bytes; over many a phone's line more would not arrive in the service's 60 s
const LARGE = 2560; // px; from here on the service halves (KEEP_SIDE), and so does a copy
const SMALL = 1600; // px; up to here a copy has every pixel
const QUALITY = 0.97; // 0.92 loses a face now and then that the file has

/**
 * The file itself where it can go without its metadata: so the service finds the faces that it finds in the file.
 * Of a longer one, or of another kind, what the browser shows is encoded anew, with nearly always the same faces.
 * What it cannot decode (HEIC, often) goes as it is, for the service to read: `shown` is false, the size unknown.
 */
export async function prepare(file) {
	const own = file.size <= LONG && (await bare(file));
	const bitmap = await createImageBitmap(own || file, { imageOrientation: "from-image" }).catch(() => null);
	if (!bitmap) return { file: own || file, shown: false };
	const { width, height } = bitmap;
	const photo = own ? { file: own, width, height, shown: true } : await copy(bitmap, width, height, 1);
	bitmap.close();
	return photo;
}

/** What a video shows now, mirrored as it was seen. */
export const snapshot = (video) => copy(video, video.videoWidth, video.videoHeight, -1);

async function copy(source, sourceWidth, sourceHeight, direction) {
	const longest = Math.max(sourceWidth, sourceHeight);
	const scale = 0.5 ** Math.max(0, Math.floor(Math.log2(longest / LARGE)) + 1);
	const [width, height] = [sourceWidth, sourceHeight].map((side) => Math.max(1, Math.round(side * scale)));
	const canvas = make("canvas", { width, height });
	const context = pen(canvas);
	context.fillStyle = "#fff"; // behind what is transparent
	context.fillRect(0, 0, width, height);
	context.scale(direction, 1);
	context.drawImage(source, 0, 0, direction * width, height);
	const file = await drawn(canvas, longest > SMALL ? "image/jpeg" : "image/png", QUALITY);
	return { file, width, height, shown: true };
}
