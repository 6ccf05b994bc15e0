/** A photo made ready to be sent: upright, small enough for a phone's line, and without its metadata. */

import { pen } from "./dom.js";

const LONGEST = 1600; // px; a face in it is still far larger than any model
const QUALITY = 0.92;

/** @typedef {{ file: Blob, url: string, width: number, height: number, shown: boolean }} Photo */

/**
 * Decode, turn upright, shrink and encode anew. What this browser cannot decode (HEIC, often) goes as it is, and the
 * service is left to read it: then `shown` is false and the size unknown.
 * @param {Blob} file
 * @returns {Promise<Photo>}
 */
export async function prepare(file) {
  const bitmap = await createImageBitmap(file, { imageOrientation: "from-image" }).catch(() => null);
  if (!bitmap) return { file, url: "", width: 0, height: 0, shown: false };
  const photo = await drawn(bitmap, bitmap.width, bitmap.height, false);
  bitmap.close();
  return photo;
}

/**
 * What a video shows now, mirrored as it was seen.
 * @param {HTMLVideoElement} video
 */
export const snapshot = (video) => drawn(video, video.videoWidth, video.videoHeight, true);

/**
 * @param {CanvasImageSource} source
 * @param {number} sourceWidth
 * @param {number} sourceHeight
 * @param {boolean} mirrored
 * @returns {Promise<Photo>}
 */
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
  /** @type {Blob} */
  const file = await new Promise((resolve) => canvas.toBlob((blob) => resolve(/** @type {Blob} */ (blob)), "image/jpeg", QUALITY));
  return { file, url: URL.createObjectURL(file), width, height, shown: true };
}
