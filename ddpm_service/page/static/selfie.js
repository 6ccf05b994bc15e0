/** The user's photo: chosen, dropped, pasted or taken; the faces found in it, and the frame around the one used. */

import * as api from "./api.js";
import { hasCamera, takePicture } from "./camera.js";
import { CropFrame, place } from "./crop.js";
import { blobOf, byId, make, tell } from "./dom.js";
import { prepare } from "./photo.js";
import { settingsIn } from "./png.js";
import { mayAsk } from "./token.js";

const LATER = "Faces will be looked for once the service answers.";

/** Tells of a photo that came or went by the event `change`, whether there is a face by `found`, of a picture made here by `settings`, of trouble by `problem`. */
export class Selfie extends EventTarget {
	#photo = null;
	#target = null;
	#face = null; // the one that was tapped
	#cropped = false;
	#model = "";
	#search = new AbortController();
	#loading = 0;
	#waiting = false;
	#frame = byId("frame");
	#image = byId("photo-image");
	#crop = new CropFrame(this.#frame, () => this.#adjusted());

	constructor() {
		super();
		const file = byId("file");
		const fromCamera = byId("file-camera");
		byId("choose").onclick = byId("choose-other").onclick = () => file.click();
		byId("camera-open").onclick = () => this.#useCamera(fromCamera);
		byId("camera-open").hidden = !hasCamera;
		byId("photo-remove").onclick = () => this.#remove();
		byId("crop-reset").onclick = () => this.#find();
		for (const input of [file, fromCamera]) {
			input.onchange = () => {
				if (input.files[0]) this.take(input.files[0]);
				input.value = ""; // so that the same file can be chosen again
			};
		}
		this.#listen();
	}

	get present() {
		return this.#photo !== null;
	}

	get wish() {
		const fields = this.#cropped ? { align: String(this.#crop) } : { face: this.#face };
		return { image: this.#photo?.file ?? null, fields };
	}

	/** Faces are looked for by the model that is going to be used. */
	useModel(model) {
		if (model === this.#model) return;
		this.#model = model;
		if (this.#photo && !this.#cropped) this.#find();
	}

	/** The service answers again: look for what could not be looked for. */
	serviceIsBack() {
		if (this.#photo && this.#waiting) this.#find();
	}

	async take(file) {
		const turn = ++this.#loading;
		const settings = await settingsIn(file);
		if (settings) return tell(this, "settings", settings);
		const photo = await prepare(file);
		if (turn === this.#loading) this.#show(photo);
	}

	#show(photo) {
		this.#forget();
		this.#photo = photo;
		if (photo.shown) this.#see(photo);
		byId("drop").hidden = true;
		byId("photo").hidden = false;
		tell(this, "change");
		mayAsk();
		this.#find();
	}

	#remove() {
		this.#loading++;
		this.#forget();
		byId("drop").hidden = false;
		byId("photo").hidden = true;
		tell(this, "change");
		byId("choose").focus();
	}

	#forget() {
		this.#search.abort();
		URL.revokeObjectURL(this.#image.src);
		this.#image.removeAttribute("src");
		this.#photo = this.#target = this.#face = null;
		this.#cropped = false;
		this.#overlay();
	}

	/** Ask the service for the faces, and the frame it would use. */
	async #find() {
		const photo = this.#photo;
		if (!photo) return;
		this.#cropped = false;
		this.#waiting = !this.#model;
		if (this.#waiting) return this.#note(LATER);
		this.#search.abort();
		const search = (this.#search = new AbortController());
		this.#note("Looking for faces…");
		try {
			const { target, warnings } = await api.detect(this.#model, photo.file, this.wish.fields, search.signal);
			this.#target = target;
			// what the browser cannot show is shown as the model sees it
			if (!photo.shown && target.b64_json) this.#see({ file: blobOf(target.b64_json, "image/png"), width: 1, height: 1 });
			this.#overlay();
			this.#note(found(target, photo.shown, warnings));
			tell(this, "found", target.faces.length > 0);
		} catch (failure) {
			if (search.signal.aborted) return;
			this.#waiting = failure.passes || failure.status >= 500 || failure.status === 401;
			this.#note(this.#waiting ? LATER : "");
			if (this.#waiting) return;
			if (failure.field === "image" || failure.code === "too_large") this.#remove();
			tell(this, "problem", failure);
		}
	}

	#overlay() {
		for (const old of this.#frame.querySelectorAll(".face")) old.remove();
		const { width, height, shown } = this.#photo ?? { width: 1, height: 1, shown: false };
		byId("crop-reset").hidden = !this.#cropped;
		if (!this.#target || !shown) return this.#crop.hide();
		this.#crop.show(this.#target.box, width, height);
		this.#target.faces.forEach((face, index) => {
			if (index === this.#target.face) return;
			const button = make("button", {
				class: "face",
				title: "Use this face",
				"aria-label": `Use face ${index + 1} of ${this.#target.faces.length}`,
				onclick: () => {
					this.#face = index;
					this.#find();
				},
			});
			place(button, face.box, width, height);
			this.#frame.append(button);
		});
	}

	#adjusted() {
		if (this.#cropped) return;
		this.#cropped = true;
		byId("crop-reset").hidden = false;
		this.#note("Your own frame is used.");
	}

	#note(text) {
		byId("photo-note").textContent = text;
	}

	#see({ file, width, height }) {
		this.#image.src = URL.createObjectURL(file);
		this.#frame.style.aspectRatio = `${width} / ${height}`;
		this.#frame.style.setProperty("--ratio", width / height);
	}

	async #useCamera(app) {
		try {
			const photo = await takePicture();
			if (photo === "app") app.click();
			else if (photo) this.#show(photo);
		} catch (problem) {
			tell(this, "problem", new api.Failure("camera", problem.message));
		}
	}

	#listen() {
		const curtain = byId("curtain");
		const holdsFile = (event) => event.dataTransfer?.types.includes("Files");
		addEventListener("dragover", (event) => {
			if (!holdsFile(event)) return;
			event.preventDefault();
			curtain.hidden = false;
		});
		addEventListener("dragleave", (event) => {
			if (!event.relatedTarget) curtain.hidden = true;
		});
		addEventListener("drop", (event) => {
			curtain.hidden = true;
			if (!holdsFile(event)) return;
			event.preventDefault();
			const file = event.dataTransfer.files[0];
			if (file) this.take(file);
		});
		addEventListener("paste", (event) => {
			const file = [...event.clipboardData.files].find((each) => each.type.startsWith("image/"));
			if (file) this.take(file);
		});
	}
}

/** One sentence: what was found, and what can be done about it. */
function found({ faces }, shown, warnings) {
	if (!shown) return "This browser cannot show the photo itself. This is what the model will see.";
	if (faces.length === 0) return "No face found. Move the frame onto one.";
	if (faces.length > 1) return `${faces.length} faces found. Tap another one to use it.`;
	return warnings[0]?.message ?? "Found the face. Drag the frame to adjust it.";
}
