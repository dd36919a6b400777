// The workers' states over time: a lane for each, a block for each second. Knows the workers of GET /status, no more.

import { draw, make, replace, say } from "./dom.js";
import { percent } from "./format.js";

const EDGE = { left: 44, right: 8 };
const HEIGHT = 110;
const LANES_MOST = 8;
const STATES = ["idle", "computing", "silent"];

/** The chart of the workers. */
export const makeLanes = (title, windowS) => {
  const svg = draw("svg", { class: "plot", height: HEIGHT, role: "img", "aria-label": title });
  const up = make("b", {}, "–");
  const busy = make("b", {}, "–");
  const key = STATES.map((state) =>
    make(
      "li",
      {},
      make("span", { class: `swatch lane-${state}`, "aria-hidden": true }),
      state === "silent" ? "not responding" : state,
    ),
  );
  const legend = make("ul", { class: "legend" }, make("li", {}, up), make("li", {}, "busy ", busy));
  const element = make(
    "figure",
    { class: "card chart" },
    make("figcaption", {}, make("h3", {}, title), legend),
    svg,
    make("ul", { class: "legend" }, key),
  );
  let width = 320;
  let last = [[], 0];
  new ResizeObserver(([entry]) => {
    width = Math.max(180, Math.round(entry.contentRect.width));
    paint(...last);
  }).observe(svg);

  const paint = (points, now) => {
    const right = width - EDGE.right;
    const lanes = Math.min(LANES_MOST, Math.max(1, ...points.map((point) => point.workers.length)));
    const room = HEIGHT - 28;
    const step = room / lanes;
    const tall = Math.min(28, step - 4);
    const x = (at) => right - ((now - at) / windowS) * (right - EDGE.left);
    const blocks = points.flatMap((point, index) => {
      const from = Math.max(EDGE.left, x(index ? points[index - 1].at : point.at - 1));
      return x(point.at) <= EDGE.left
        ? []
        : point.workers
            .slice(0, lanes)
            .map((worker, lane) =>
              draw("rect", {
                class: `lane-${stateOf(worker, point)}`,
                x: from,
                width: Math.max(0, x(point.at) - from + 0.3),
                y: 6 + lane * step + (step - tall) / 2,
                height: tall,
              }),
            );
    });
    const names = Array.from({ length: lanes }, (_, lane) =>
      draw("text", { x: EDGE.left - 8, y: 10 + lane * step + step / 2, "text-anchor": "end" }, String(lane + 1)),
    );
    const along = [60, 30, 0].map((ago) =>
      draw(
        "text",
        { x: x(now - ago), y: HEIGHT - 4, "text-anchor": ago ? "middle" : "end" },
        ago ? `${ago} s ago` : "now",
      ),
    );
    svg.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
    replace(svg, draw("g", { class: "grid" }, names, along), blocks);
  };
  const update = (points, now) => {
    last = [points, now];
    paint(points, now);
    const point = points.at(-1);
    if (!point) return;
    const responding = point.workers.filter((worker) => worker.responding).length;
    say(up, `${responding} of ${point.workers.length} up`);
    say(busy, percent(Math.min(1, point.busy / 100)));
    svg.setAttribute("aria-label", `${title}: ${up.textContent}, busy ${busy.textContent}`);
  };
  return { element, update };
};

// A worker is asked once a second, and its calls are short: that it computed between is seen in the counters.
const stateOf = (worker, point) => {
  if (!worker.responding) return "silent";
  return worker.computing_ms !== null || (point.busy > 1 && point.workers.length === 1) ? "computing" : "idle";
};
