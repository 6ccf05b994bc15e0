/** A picture from the camera: live where the browser allows it, else the phone's own camera app. */

import { byId } from "./dom.js";
import { snapshot } from "./photo.js";

/** Browsers give a page the live picture on https and localhost only. */
const live = isSecureContext && Boolean(navigator.mediaDevices?.getUserMedia);

export const hasCamera = live || matchMedia("(pointer: coarse)").matches;

export async function takePicture() {
	if (!live) return "app";
	const wanted = { video: { facingMode: "user", width: { ideal: 1280 } }, audio: false };
	const stream = await navigator.mediaDevices.getUserMedia(wanted).catch(({ name }) => {
		throw new Error(name === "NotAllowedError" ? "The browser was not allowed to use the camera." : "No camera was found.");
	});
	try {
		return await show(stream);
	} finally {
		for (const track of stream.getTracks()) track.stop();
	}
}

async function show(stream) {
	const dialog = byId("camera");
	const video = byId("camera-video");
	video.srcObject = stream;
	dialog.showModal();
	try {
		return await new Promise((resolve) => {
			byId("shutter").onclick = () => video.videoWidth && resolve(snapshot(video));
			byId("camera-close").onclick = () => resolve(null);
			dialog.oncancel = () => resolve(null);
		});
	} finally {
		video.srcObject = null;
		dialog.close();
	}
}
