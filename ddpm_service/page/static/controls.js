/** The settings: what is asked of the model, as the user sees it and as the request wants it. */

import { byId, counted } from "./dom.js";

const MAX_SEED = 2 ** 32 - 1;
const STOPS = new Map([[25, "celebrity"], [50, "likeness"], [75, "faithful"]]);
const HINTS = new Map([
  [25, "Good for dim light, profiles and surprises."],
  [50, "The usual choice: clearly related to you."],
  [75, "Close to the photo; wants one well lit, from the front."],
]);
const NUMBERS = ["count", "seed", "steps", "eta", "pull", "best"];

/** A setting that cannot be sent as it stands. */
export class WrongSetting extends Error {
  constructor(message, input) {
    super(message);
    this.input = input;
  }
}

/** The form but for the photo and the model. */
export class Controls {
  #guided = false;
  #steps = null;
  #stops = document.querySelectorAll("[data-stop]");

  constructor() {
    byId("automatic").onchange = () => this.#refresh();
    byId("resemblance").oninput = () => this.#choose(byId("resemblance").valueAsNumber);
    for (const stop of this.#stops) stop.onclick = () => this.#choose(Number(stop.dataset.stop));
    for (const button of document.querySelectorAll("[data-step]")) {
      button.addEventListener("click", () => this.#count(Number(button.dataset.step)));
    }
    byId("dice").onclick = () => this.setSeed(crypto.getRandomValues(new Uint32Array(1))[0]);
    for (const id of ["way", "sampler", "count"]) byId(id).addEventListener("input", () => this.#refresh());
    for (const id of NUMBERS) byId(id).addEventListener("input", () => byId(id).removeAttribute("aria-invalid"));
    this.#refresh();
  }

  setGuided(guided) {
    this.#guided = guided;
    this.#refresh();
  }

  setSteps(steps) {
    this.#steps = steps;
    this.#refresh();
  }

  setSeed(seed) {
    byId("seed").value = String(seed);
    byId("seed").removeAttribute("aria-invalid");
  }

  /** The request's fields but for the photo's. */
  get fields() {
    const count = number("count", 1, 16, "Faces");
    const fields = { num_images: count ?? 5 };
    const seed = number("seed", 0, MAX_SEED, "The seed");
    if (seed !== null) fields.seed = seed;
    const steps = number("steps", 1, 10_000, "The number of steps");
    if (steps !== null) fields.num_inference_steps = steps;
    const sampler = !this.#pixel && byId("sampler").value;
    if (sampler) fields.sampler = sampler;
    if (sampler === "ddim") fields.eta = number("eta", 0, 1, "η", false) ?? 0;
    return this.#guided ? { ...fields, ...this.#guidance(Number(fields.num_images)) } : fields;
  }

  #guidance(count) {
    const fields = {};
    const best = number("best", count, 16, "The number to choose from");
    if (best !== null) fields.best_of = best;
    if (this.#pixel) return { ...fields, mode: "pixel", guidance_loss_scale: number("pull", 0, 1000, "The pull", false) ?? 50 };
    if (byId("automatic").checked) return fields;
    const place = byId("resemblance").valueAsNumber;
    const mode = STOPS.get(place);
    return mode ? { ...fields, mode } : { ...fields, resemblance: place / 100 };
  }

  /** Pixel guidance has its own strength and its own sampler. */
  get #pixel() {
    return this.#guided && byId("way").value === "pixel";
  }

  #choose(place) {
    byId("resemblance").value = String(place);
    byId("automatic").checked = false;
    this.#refresh();
  }

  #count(by) {
    const now = byId("count").valueAsNumber || 5;
    byId("count").value = String(Math.max(1, Math.min(16, now + by)));
    byId("count").removeAttribute("aria-invalid");
    this.#refresh();
  }

  #refresh() {
    const automatic = byId("automatic").checked;
    const place = byId("resemblance").valueAsNumber;
    const usable = this.#guided && !this.#pixel;
    byId("likeness").disabled = !usable;
    byId("likeness").dataset.automatic = String(automatic);
    byId("resemblance").style.setProperty("--at", `${place}%`);
    byId("resemblance").setAttribute("aria-valuetext", automatic ? "automatic" : inWords(place));
    for (const stop of this.#stops) {
      stop.setAttribute("aria-pressed", String(usable && !automatic && Number(stop.dataset.stop) === place));
    }
    byId("likeness-hint").textContent = this.#hint(automatic, place);
    byId("way").closest(".field").hidden = byId("best").closest(".field").hidden = !this.#guided;
    byId("pull-field").hidden = !this.#pixel;
    byId("sampler").closest(".field").hidden = this.#pixel;
    byId("eta-field").hidden = this.#pixel || byId("sampler").value !== "ddim";
    byId("steps").placeholder = !this.#guided && this.#steps ? String(this.#steps) : "automatic";
    byId("generate").textContent = `${this.#guided ? "Make" : "Imagine"} ${counted(byId("count").valueAsNumber || 5)}`;
  }

  #hint(automatic, place) {
    if (!this.#guided) return "Without a photo, the faces are nobody’s.";
    if (this.#pixel) return "Pixel loss is on; its strength is set below.";
    if (automatic) return "Chosen for your photo, until you move the slider.";
    return HINTS.get(place) ?? `${inWords(place)}.`;
  }
}

function inWords(place) {
  const name = STOPS.get(place);
  if (name) return name[0].toUpperCase() + name.slice(1);
  return place > 75 ? "Nearly the photo itself" : place < 25 ? "Hardly like you" : "In between";
}

/** The number in a field, null where it is empty. */
function number(id, low, high, name, whole = true) {
  const input = byId(id);
  if (input.value === "" && !input.validity.badInput) return null;
  const value = input.valueAsNumber;
  if (value >= low && value <= high && (!whole || Number.isInteger(value))) return value;
  input.setAttribute("aria-invalid", "true");
  throw new WrongSetting(`${name} must be ${whole ? "a whole number" : "a number"} from ${low} to ${high}.`, input);
}
