/** The page: what its parts tell each other. */

import { Failure, path } from "./api.js";
import { Controls } from "./controls.js";
import { byId, toast } from "./dom.js";
import { History } from "./history.js";
import { ModelList } from "./models.js";
import { clearProblem, showProblem } from "./problems.js";
import { Run } from "./run.js";
import { Selfie } from "./selfie.js";
import { Service } from "./service.js";
import { Stage } from "./stage.js";
import { mayAsk, takeTokenFromLink } from "./token.js";
import { Viewer } from "./viewer.js";

const STATES = { unknown: "Connecting", ready: "Ready", waiting: "Starting", refused: "Not usable", unreachable: "Unreachable" };
const TITLE = document.title;
const MENDS = 5;

const ONE_AT_A_TIME = "One run at a time: wait for this one, or cancel it.";

takeTokenFromLink();

const service = new Service();
const selfie = new Selfie();
const controls = new Controls();
const viewer = new Viewer({ useSeed, again, alike });
const stage = new Stage(byId("stage"), { open: (run, index) => viewer.open(run, index), useSeed, resume });
const past = new History(show);
const models = new ModelList(() => {
	const chosen = models.chosen;
	if (chosen) controls.setModel(chosen);
	selfie.useModel(chosen ? path(chosen.model, chosen.pinned) : "");
});
const generate = byId("generate");
const cancel = byId("cancel");
let current = null;
let mends = 0;

service.addEventListener("models", () => models.show(service.models));
service.addEventListener("state", () => {
	byId("state").dataset.state = service.state;
	byId("state-text").textContent = service.reason || STATES[service.state];
	if (service.state === "ready") selfie.serviceIsBack();
	mend();
});
document.addEventListener("visibilitychange", mend); // a phone cuts the streams of a page in the background
selfie.addEventListener("change", () => {
	controls.setGuided(selfie.present);
	clearProblem();
});
selfie.addEventListener("found", ({ detail }) => controls.setGuided(true, detail));
selfie.addEventListener("settings", ({ detail }) => {
	models.choose(detail.model, detail.version);
	controls.recall(detail);
	toast(`The settings of this picture are set.${selfie.present ? "" : " Add the photo that it was made from."}`);
});
selfie.addEventListener("problem", (event) => showProblem(event.detail));

byId("controls").addEventListener("submit", (event) => {
	event.preventDefault();
	begin();
});
cancel.onclick = () => current?.cancel();
// Enter held down would press the next button as well
byId("controls").onkeydown = ({ key, repeat }) => key !== "Enter" || !repeat;
service.watch();
addEventListener("hashchange", () => {
	takeTokenFromLink();
	service.look();
});

async function begin() {
	mayAsk();
	if (!models.chosen) await service.look();
	if (current?.active) return;
	const chosen = models.chosen;
	if (!chosen) return showProblem(new Failure("unreachable", ""));
	if (!controls.check()) return;
	const { image, fields } = selfie.wish;
	const wish = { ...controls.fields, ...fields };
	wish.preview_every = (chosen.version?.image_size ?? 64) > 128 ? 2 : 1;
	if (image) wish.return_target = true;
	start({ model: chosen.model, version: chosen.pinned, image, fields: wish });
}

/** One more face like one of a run: the same seed, nearer to the photo or farther. */
function again(run, slot, by) {
	if (current?.active) return toast(ONE_AT_A_TIME);
	const { mode, best_of, ...fields } = run.wish.fields;
	const resemblance = Math.round(100 * Math.max(0, Math.min(1, run.parameters.resemblance + by))) / 100;
	start({ ...run.wish, fields: { ...fields, seed: slot.seed, num_images: 1, resemblance } });
}

/** More faces like one of a run: it takes the photo's place, as it is. */
function alike({ wish }, { seed, file }) {
	if (current?.active) return toast(ONE_AT_A_TIME);
	const { preview_every } = wish.fields;
	const fields = { num_images: Number(byId("count").defaultValue), mode: "faithful", align: "none", return_target: true, preview_every };
	start({ ...wish, image: file, fields, who: `Seed ${seed}` });
}

function start(wish) {
	const run = new Run(wish);
	past.add(run);
	run.addEventListener("change", () => follow(run));
	current = run;
	mends = 0;
	show(run);
	if (matchMedia("(max-width: 899px)").matches) byId("results").scrollIntoView();
	clearProblem();
	run.send();
}

/** Send a run that broke off again, for what is missing. */
function resume(run) {
	if (current?.active) return;
	mayAsk();
	clearProblem();
	current = run;
	if (stage.run !== run) show(run);
	run.send();
}

/** Go on by itself with a run whose line was cut, once the service answers and somebody looks; not for ever. */
function mend() {
	if (document.hidden || service.state !== "ready" || !current?.failure?.passes || mends >= MENDS) return;
	mends++;
	resume(current);
}

function show(run) {
	byId("empty").hidden = true;
	stage.show(run);
	past.draw(run);
}

function follow(run) {
	if (run !== current) return;
	const [gone, shown] = run.active ? [generate, cancel] : [cancel, generate];
	shown.hidden = false;
	if (document.activeElement === gone) shown.focus({ preventScroll: true });
	gone.hidden = true;
	document.title = run.phase === "running" ? `${Math.round(100 * run.share)} % · ${TITLE}` : TITLE;
	if (run.active) return;
	past.draw(stage.run);
	if (run.wish.image === selfie.wish.image) controls.learn(run);
	if (run.phase === "failed" && run.failure) {
		if (!controls.refuse(run.failure)) showProblem(run.failure);
		if (run.failure.passes) service.look().then(() => setTimeout(mend, 1000 * mends));
	}
}

function useSeed(seed) {
	controls.setSeed(seed);
	toast(`Seed ${seed} is set. The next run begins with this face.`);
}
