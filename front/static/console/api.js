// The server's routes, as this page calls them. Owns the key, deadlines and Server-Timing.
// Knows nothing of the page; every answer is {status, body, text, id, timings, tookMs}, status 0 where none came.

const KEY = "key";
const OCTETS = "application/octet-stream";
const ANSWER_MS = 60_000;
const STATUS_MS = 5_000;
let key = sessionStorage.getItem(KEY) ?? "";

/** Whether there is a key in this tab. */
export const hasKey = () => key !== "";

/** Keep a key for this tab; "" forgets it. */
export const setKey = (to) => {
  key = to;
  if (to) sessionStorage.setItem(KEY, to);
  else sessionStorage.removeItem(KEY);
};

/** GET /status. */
export const status = () => call("GET", "/status", null, {}, STATUS_MS);

/** GET /models: every version's contract. */
export const models = () => call("GET", "/models", null, {}, ANSWER_MS);

/** GET /models/NAME: one version's contract, also of one that is not the usual. */
export const version = (name, number) =>
  call("GET", `/models/${encodeURIComponent(name)}?version=${encodeURIComponent(number)}`, null, {}, ANSWER_MS);

/** POST a body (text or a Blob) where a model answers. */
export const ask = (path, body, signal) =>
  call(
    "POST",
    path,
    body,
    { "Content-Type": body instanceof Blob ? body.type || OCTETS : "application/json" },
    ANSWER_MS,
    signal,
  );

/** POST /feedback. */
export const feedback = (requestId, row, label) =>
  call("POST", "/feedback", JSON.stringify({ request_id: requestId, row, label }), {}, ANSWER_MS);

/** {parse: ms, queue: ms, batch: rows, …} of a Server-Timing header. */
export const timingsOf = (header) => {
  const found = {};
  for (const part of (header ?? "").split(",")) {
    const [name, ...fields] = part.split(";").map((text) => text.trim());
    for (const field of fields) {
      const [word, told = ""] = field.split("=");
      const number = Number(told.replaceAll('"', ""));
      if ((word === "dur" || word === "desc") && Number.isFinite(number)) found[name] = number;
    }
  }
  return found;
};

const call = async (method, path, body, headers, limitMs, signal) => {
  const began = performance.now();
  const limit = AbortSignal.timeout(limitMs);
  try {
    const reply = await fetch(path, {
      method,
      body,
      headers: key ? { ...headers, Authorization: `Bearer ${key}` } : headers,
      cache: "no-store",
      credentials: "same-origin",
      signal: signal ? AbortSignal.any([signal, limit]) : limit,
    });
    const text = await reply.text();
    return {
      status: reply.status,
      body: parsed(text),
      text,
      id: reply.headers.get("X-Request-Id") ?? "",
      timings: timingsOf(reply.headers.get("Server-Timing")),
      tookMs: performance.now() - began,
    };
  } catch (error) {
    const late = error.name === "TimeoutError";
    return {
      status: 0,
      body: null,
      text: late ? "no answer in time" : "no connection",
      id: "",
      timings: {},
      tookMs: performance.now() - began,
    };
  }
};

const parsed = (text) => {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
};
