/** A photo made ready to be sent: upright, small enough for a phone's line, and without its metadata. */

import { pen } from "./dom.js";

const LARGE = 2560; // px; from here on the service halves (KEEP_SIDE): both look for faces in as many pixels
const SMALL = 1600; // px; up to here every pixel is kept
const QUALITY = 0.97; // 0.92 loses a face now and then that the file has

/**
 * Decode, turn upright, halve as the service would and encode anew, so that nearly always the same faces are found as
 * in the file. What this browser cannot decode (HEIC, often) goes as it is, and the service is left to read it: then
 * `shown` is false and the size unknown.
 */
export async function prepare(file) {
	const bitmap = await createImageBitmap(file, { imageOrientation: "from-image" }).catch(() => null);
	if (!bitmap) return { file, url: "", width: 0, height: 0, shown: false };
	const photo = await drawn(bitmap, bitmap.width, bitmap.height, false);
	bitmap.close();
	return photo;
}

/** What a video shows now, mirrored as it was seen. */
export const snapshot = (video) => drawn(video, video.videoWidth, video.videoHeight, true);

async function drawn(source, sourceWidth, sourceHeight, mirrored) {
	const longest = Math.max(sourceWidth, sourceHeight);
	const scale = 0.5 ** Math.max(0, Math.floor(Math.log2(longest / LARGE)) + 1);
	const canvas = document.createElement("canvas");
	const width = (canvas.width = Math.max(1, Math.round(sourceWidth * scale)));
	const height = (canvas.height = Math.max(1, Math.round(sourceHeight * scale)));
	const context = pen(canvas);
	context.fillStyle = "#fff"; // behind what is transparent
	context.fillRect(0, 0, width, height);
	if (mirrored) context.setTransform(-1, 0, 0, 1, width, 0);
	context.drawImage(source, 0, 0, width, height);
	const file = await new Promise((resolve) => canvas.toBlob(resolve, longest > SMALL ? "image/jpeg" : "image/png", QUALITY));
	return { file, url: URL.createObjectURL(file), width, height, shown: true };
}
