/** What went wrong, in plain words, until it is dismissed. */

import { byId, iconButton, make } from "./dom.js";

const TITLES = {
	unreachable: "The service cannot be reached",
	unfinished: "The connection was lost",
	unauthorized: "A token is needed",
	rate_limited: "One moment, please",
	busy: "Many people are waiting right now",
	draining: "The service is restarting",
	unavailable: "The model is not available right now",
	internal: "The service made a mistake",
	out_of_memory: "The service ran out of memory",
	too_large: "The picture is too large",
	too_many_pixels: "The picture is too large",
	too_costly: "The picture takes too long to read",
	not_an_image: "That is not a picture the service can read",
	truncated_image: "The picture is damaged or cut off",
	camera: "No camera",
};

const KEPT = "Your photo, the settings and what has arrived are kept.";

/** What to add where the title says it all. */
const ADVICE = {
	unreachable: KEPT,
	unfinished: KEPT,
	not_an_image: "",
	truncated_image: "Save or send it anew, or choose another one.",
};

/** Show a failure above the results; it takes the place of the one before. */
export function showProblem(failure) {
	const { code, message, retryAfter, allowed } = failure;
	const text = ADVICE[code] ?? (retryAfter ? `It expects to have room in ${retryAfter} s.` : message);
	const alert = make(
		"div",
		{ class: "problem", role: "alert", "data-code": code },
		make(
			"div",
			{ class: "problem-text" },
			make("strong", {}, TITLES[code] ?? "That did not work"),
			text && make("p", {}, text),
			allowed && !ADVICE[code] && !message.includes(allowed) && make("p", { class: "hint" }, `Allowed: ${allowed}`),
		),
		iconButton("close", "Dismiss", clearProblem),
	);
	byId("problems").replaceChildren(alert);
	alert.scrollIntoView({ block: "nearest" });
}

export function clearProblem() {
	byId("problems").replaceChildren();
}
