/** The service's public API: requests, answers, streams of events, and their failures. */

import { askToken, bearer } from "./token.js";

/** A heartbeat comes at least every 15 s; after so much silence the connection is dead. */
const SILENCE = 45_000;

export class Failure extends Error {
	constructor(code, message, { status = 0, retryAfter, allowed, field } = {}) {
		super(message);
		Object.assign(this, { code, status, retryAfter, allowed, field });
	}

	/** Whether the same request is likely to work once the service is ready again. */
	get passes() {
		return ["unreachable", "unfinished", "unavailable", "draining"].includes(this.code);
	}
}

export async function read(path) {
	return (await send(path, { headers: { Accept: "application/json" } })).json();
}

/** Whether the service is ready, and what it says about it. Needs no token. */
export async function readiness() {
	const response = await reach("readyz", { cache: "no-store", signal: AbortSignal.timeout(8000) });
	const said = await response.json().catch(() => null);
	if (!response.ok && response.status !== 503) throw refusal(response, said);
	return { ready: response.ok, said };
}

export async function detect(model, image, fields, signal) {
	const body = form({ ...fields, detect_only: true, return_target: true }, image);
	return (await send(predictions(model), { method: "POST", body, signal, headers: { Accept: "application/json" } })).json();
}

/** The events of one generation. Ends after `end`; leaving it, or aborting, makes the service stop. */
export async function* generate(model, image, fields, line) {
	const headers = { Accept: "application/x-ndjson" };
	const response = await send(predictions(model), { method: "POST", body: form(fields, image), signal: line.signal, headers });
	for await (const text of lines(response, line)) {
		const event = JSON.parse(text);
		if (event.event === "error") throw failure(event.error, response.status);
		yield event;
		if (event.event === "end") return;
	}
	throw new Failure("unfinished", "The answer broke off before its end.");
}

/** A model as it is asked for: the default version goes without saying. */
export const path = (model, version) => (version ? `${model}/${version}` : model);

const predictions = (model) => `predictions/${model.split("/").map(encodeURIComponent).join("/")}`;

function form(fields, image) {
	const body = new FormData();
	for (const [name, value] of Object.entries(fields)) if (value !== null) body.append(name, value);
	if (image) body.append("image", image, "image"); // a constant name: the file's own is nobody's business
	return body;
}

/** The whole lines of a body; heartbeats are skipped. */
async function* lines(response, line) {
	const reader = response.body.getReader();
	const decoder = new TextDecoder();
	let rest = "";
	try {
		for (;;) {
			const watch = setTimeout(() => line.abort(new Failure("unfinished", "The service fell silent.")), SILENCE);
			const { value, done } = await reader.read().finally(() => clearTimeout(watch));
			if (done) return;
			const parts = (rest + decoder.decode(value, { stream: true })).split("\n");
			rest = parts.pop() ?? "";
			for (const part of parts) if (part.trim()) yield part;
		}
	} catch (problem) {
		throw broken(problem, "unfinished", "The connection was lost.");
	} finally {
		reader.cancel().catch(() => {});
	}
}

async function send(path, options) {
	const token = bearer();
	const headers = token ? { ...options.headers, Authorization: `Bearer ${token}` } : options.headers;
	const response = await reach(path, { ...options, headers, cache: "no-store" });
	if (response.ok) return response;
	if (response.status === 401 && (await askToken(token))) return send(path, options);
	throw refusal(response, await response.json().catch(() => null));
}

async function reach(path, options) {
	try {
		return await fetch(new URL(path, document.baseURI), { ...options, redirect: "error" });
	} catch (problem) {
		throw broken(problem, "unreachable", "The service cannot be reached.");
	}
}

function broken(problem, code, message) {
	if (problem instanceof Failure) return problem;
	if (problem?.name === "AbortError") return new Failure("cancelled", "Cancelled.");
	return new Failure(code, message);
}

function refusal(response, said) {
	const error = said?.error?.code ? said.error : { code: `http_${response.status}`, message: said?.message ?? response.statusText };
	return failure(error, response.status, Number(response.headers.get("Retry-After")));
}

const failure = ({ code, message, ...more }, status, retryAfter) => new Failure(code, message, { ...more, status, retryAfter });
