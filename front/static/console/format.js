// Numbers, times and sizes as people read them. Knows nothing of where they come from.

const FIGURES = 6;

/** A model's number: short, but never a wrong one; null is what the server sends for NaN. */
export const value = (it) => {
  if (it === null) return "null";
  if (typeof it !== "number") return typeof it === "string" ? it : JSON.stringify(it);
  return Number.isInteger(it) && Math.abs(it) < 1e15 ? String(it) : String(Number(it.toPrecision(FIGURES)));
};

/** A count: 12,345 or 1.2 M. */
export const count = (it) => {
  if (it === null || it === undefined || Number.isNaN(it)) return "–";
  if (it >= 1e7) return `${short(it / 1e6)} M`;
  if (it >= 100 || Number.isInteger(it)) return Math.round(it).toLocaleString("en");
  return short(it);
};

/** Milliseconds with their unit. */
export const ms = (it) => {
  if (it === null || it === undefined || Number.isNaN(it)) return "–";
  if (it >= 10_000) return `${short(it / 1000)} s`;
  return `${short(it)} ms`;
};

/** Bytes with their unit. */
export const bytes = (it) => {
  if (it === null || it === undefined) return "–";
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let index = 0;
  for (; it >= 1024 && index < units.length - 1; index++) it /= 1024;
  return `${index ? short(it) : it} ${units[index]}`;
};

/** How long something has lasted, in its largest unit. */
export const duration = (seconds) => {
  if (seconds < 90) return `${Math.round(seconds)} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  return seconds < 129_600 ? `${Math.round(seconds / 3600)} h` : `${Math.round(seconds / 86_400)} days`;
};

/** The time of day of a moment in seconds since 1970. */
export const clock = (at) => new Date(at * 1000).toLocaleTimeString("en-GB");

/** A share of one as a percentage. */
export const percent = (share) => `${share > 0 && share < 0.001 ? "<0.1" : (share * 100).toFixed(1)} %`;

/** A text of at most so many characters. */
export const clip = (text, most) => (text.length > most ? `${text.slice(0, most - 1)}…` : text);

/** "1 model", "2 models". */
export const plural = (number, word) => `${count(number)} ${word}${number === 1 ? "" : "s"}`;

const short = (it) => {
  const size = Math.abs(it);
  if (size === 0) return "0";
  if (size < 0.01) return "<0.01";
  return size >= 100 ? String(Math.round(it)) : String(Number(it.toPrecision(size >= 10 ? 3 : 2)));
};
