/** A photo made ready to be sent: upright, small enough for a phone's line, and without its metadata. */

import { pen } from "./dom.js";

const LONGEST = 1600; // px; a face in it is still far larger than any model
const QUALITY = 0.92;

/**
 * Decode, turn upright, shrink and encode anew; a photo that is small enough keeps its every pixel, so that the same
 * faces are found as in its file. What this browser cannot decode (HEIC, often) goes as it is, and
 * the service is left to read it: then `shown` is false and the size unknown.
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
	const scale = Math.min(1, LONGEST / Math.max(sourceWidth, sourceHeight));
	const canvas = document.createElement("canvas");
	const width = (canvas.width = Math.max(1, Math.round(sourceWidth * scale)));
	const height = (canvas.height = Math.max(1, Math.round(sourceHeight * scale)));
	const context = pen(canvas);
	context.fillStyle = "#fff"; // behind what is transparent
	context.fillRect(0, 0, width, height);
	if (mirrored) context.setTransform(-1, 0, 0, 1, width, 0);
	context.drawImage(source, 0, 0, width, height);
	const file = await new Promise((resolve) => canvas.toBlob(resolve, scale < 1 ? "image/jpeg" : "image/png", QUALITY));
	return { file, url: URL.createObjectURL(file), width, height, shown: true };
}
