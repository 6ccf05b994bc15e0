/** The API token: from the link's fragment, or asked for; kept in this tab only. */

import { byId } from "./dom.js";

const KEY = "token";

/** @type {Promise<boolean> | null} */
let asking = null;
let declined = false;

/** Take `#token=…` out of the address, so that it is neither shown nor bookmarked. */
export function takeTokenFromLink() {
  const token = new URLSearchParams(location.hash.slice(1)).get("token");
  if (token === null) return;
  sessionStorage.setItem(KEY, token);
  history.replaceState(null, "", location.pathname + location.search);
}

/** The user wants something: asking for a token is welcome again, after "not now". */
export function mayAsk() {
  declined = false;
}

/** The token to send, or null. */
export const bearer = () => sessionStorage.getItem(KEY);

/**
 * Ask for a token after a 401; all who need one at once share the question.
 * @param {string | null} refused the token that was sent
 * @returns {Promise<boolean>} whether there is another one to try
 */
export function askToken(refused) {
  if (bearer() !== refused) return Promise.resolve(true);
  if (declined) return Promise.resolve(false);
  asking ??= ask(refused !== null).finally(() => (asking = null));
  return asking;
}

/**
 * @param {boolean} again
 * @returns {Promise<boolean>}
 */
function ask(again) {
  /** @type {HTMLDialogElement} */
  const dialog = byId("token");
  /** @type {HTMLInputElement} */
  const input = byId("token-value");
  byId("token-problem").hidden = !again;
  byId("token-no").onclick = () => dialog.close("no");
  input.value = "";
  dialog.returnValue = "";
  dialog.showModal();
  input.focus();
  return new Promise((resolve) => {
    dialog.addEventListener(
      "close",
      () => {
        const token = input.value.trim();
        input.value = "";
        const given = dialog.returnValue === "yes" && token !== "";
        if (given) sessionStorage.setItem(KEY, token);
        declined = !given;
        resolve(given);
      },
      { once: true },
    );
  });
}
