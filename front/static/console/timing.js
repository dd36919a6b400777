// Where a request's time went: a small stacked bar and its words. Owns the parts' names, order and colours.

import { draw, make, replace } from "./dom.js";
import { ms } from "./format.js";

/** The parts in the order that they happen; "other" is what is left of the whole. */
export const PARTS = ["parse", "queue", "compute", "encode", "other"];

/** The parts of {parse, queue, compute, encode, total} in milliseconds, with what is left as "other". */
export const partsOf = (timings) => {
  const known = PARTS.filter((part) => timings[part] > 0).map((part) => [part, timings[part]]);
  const sum = known.reduce((total, [, took]) => total + took, 0);
  const other = (timings.total ?? sum) - sum;
  return other > 0 ? [...known, ["other", other]] : known;
};

/** The bar. */
export const makeBar = (timings) => {
  const parts = partsOf(timings);
  const total = parts.reduce((sum, [, took]) => sum + took, 0);
  let from = 0;
  const blocks = parts.map(([part, took]) => {
    const block = draw("rect", {
      class: `part-${part}`,
      x: (from / total) * 100,
      y: 0,
      width: (took / total) * 100,
      height: 8,
    });
    from += took;
    return block;
  });
  const words = parts.map(([part, took]) => `${part} ${ms(took)}`).join(", ");
  return draw(
    "svg",
    {
      class: "bar",
      viewBox: "0 0 100 8",
      preserveAspectRatio: "none",
      role: "img",
      "aria-label": words || "no timings",
    },
    blocks,
  );
};

/** Each part with its figure, and a key to the colours at once. */
export const makeWords = (timings, batchRows) => {
  const words = partsOf(timings).map(([part, took]) =>
    make(
      "li",
      {},
      make("span", { class: `swatch part-${part}`, "aria-hidden": true }),
      `${part} `,
      make("b", {}, ms(took)),
    ),
  );
  if (batchRows) words.push(make("li", {}, "rows in its batch ", make("b", {}, String(batchRows))));
  return make("ul", { class: "legend" }, words);
};

/** The key to the colours in `list`. */
export const fillLegend = (list) =>
  replace(
    list,
    PARTS.map((part) => make("li", {}, make("span", { class: `swatch part-${part}`, "aria-hidden": true }), part)),
  );
