/** The API token: from the link's fragment, or asked for; kept in this tab only. */

import { byId } from "./dom.js";

const KEY = "token";

let asking = null;
let declined = false;
/** Why there is no token that works. */
let problem = "";

/** Take `#token=…` out of the address, so that it is neither shown nor bookmarked; it also answers an open question. */
export function takeTokenFromLink() {
	if (!location.hash.startsWith("#token=")) return;
	let token = ""; // none can be read out of a broken escape
	try {
		token = decodeURIComponent(location.hash.slice(7));
	} catch {}
	history.replaceState(null, "", location.pathname + location.search);
	declined = false;
	keep(token);
	byId("token").close("link");
}

/** Keep a token, without the invisible characters that chats put into it; but none that no header can carry. */
function keep(text) {
	const token = text.replace(/[\s\p{C}]/gu, "");
	problem = /^[!-~]+$/.test(token) ? "" : "A token has plain letters, digits and signs only. Copy it again.";
	if (!problem) sessionStorage.setItem(KEY, token);
}

/** The user wants something: asking for a token is welcome again, after "not now". */
export function mayAsk() {
	declined = false;
}

export const bearer = () => sessionStorage.getItem(KEY);

/** Ask for a token after a 401; all who need one at once share the question. */
export function askToken(refused) {
	if (bearer() !== refused) return Promise.resolve(true);
	if (declined) return Promise.resolve(false);
	if (refused !== null) problem = "That token was not accepted.";
	asking ??= ask().finally(() => (asking = null));
	return asking;
}

function ask() {
	const dialog = byId("token");
	const input = byId("token-value");
	byId("token-problem").textContent = problem;
	byId("token-no").onclick = () => dialog.close();
	input.value = "";
	dialog.returnValue = "";
	dialog.showModal();
	input.focus();
	return new Promise((resolve) => {
		dialog.onclose = () => {
			if (dialog.returnValue === "yes") keep(input.value);
			input.value = "";
			declined = !dialog.returnValue;
			resolve(!declined && (!problem || ask()));
		};
	});
}
