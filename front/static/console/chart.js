// One chart, drawn by hand in SVG: axes, lines or areas, and their values now. Owns scales that do not jump: an axis
// grows at once and shrinks only when it has been too large for a while. Knows nothing of what it shows.

import { draw, freshId, make, replace, say } from "./dom.js";

const HEIGHT = 132;
const EDGE = { top: 8, right: 8, bottom: 20, left: 44 };
const TICKS_X = [60, 30, 0];
const SHRINK_AFTER = 12; // points in a row that would do with half of the axis

/** A chart. about: {title, series: [{key, name, area}], format(value), least: the axis's smallest top, windowS}. */
export const makeChart = (about) => {
  const { title, series, format, least, windowS } = about;
  const clipId = freshId("plot");
  const grid = draw("g", { class: "grid" });
  const plot = draw("g", { "clip-path": `url(#${clipId})` });
  const paths = series.map(({ area }, index) => [
    area ? draw("path", { class: `area s${index}` }) : null,
    draw("path", { class: `line s${index}` }),
  ]);
  plot.append(...paths.flat().filter(Boolean));
  const frame = draw("rect", { x: EDGE.left, y: EDGE.top - 2, height: HEIGHT - EDGE.top - EDGE.bottom + 4 });
  const svg = draw(
    "svg",
    { class: "plot", height: HEIGHT, role: "img", "aria-label": title },
    draw("clipPath", { id: clipId }, frame),
    grid,
    plot,
  );
  const figures = series.map(() => make("b", {}, "–"));
  const legend = make(
    "ul",
    { class: "legend" },
    series.map(({ name }, index) =>
      make("li", {}, make("span", { class: `swatch s${index}`, "aria-hidden": true }), `${name} `, figures[index]),
    ),
  );
  const element = make("figure", { class: "card chart" }, make("figcaption", {}, make("h3", {}, title), legend), svg);
  let top = least;
  let small = 0;
  let width = 320;
  let points = [];
  let now = 0;

  const paint = () => {
    const right = width - EDGE.right;
    const bottom = HEIGHT - EDGE.bottom;
    const x = (at) => right - ((now - at) / windowS) * (right - EDGE.left);
    const y = (it) => bottom - (it / top) * (bottom - EDGE.top);
    svg.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
    frame.setAttribute("width", Math.max(0, right - EDGE.left));
    const across = [0, top / 2, top].flatMap((it) => [
      draw("line", { x1: EDGE.left, x2: right, y1: y(it), y2: y(it) }),
      draw("text", { x: EDGE.left - 8, y: y(it) + 4, "text-anchor": "end" }, format(it)),
    ]);
    const along = TICKS_X.map((ago) =>
      draw(
        "text",
        { x: x(now - ago), y: HEIGHT - 4, "text-anchor": ago ? "middle" : "end" },
        ago ? `${ago} s ago` : "now",
      ),
    );
    replace(grid, across, along);
    for (const [index, { key }] of series.entries()) {
      const [area, line] = paths[index];
      const runs = runsOf(points, key);
      line.setAttribute(
        "d",
        runs
          .map(
            (run) =>
              `M${run.map((point) => `${x(point.at).toFixed(1)} ${y(point[key]).toFixed(1)}`).join("L")}${run.length === 1 ? "h.1" : ""}`,
          )
          .join(""),
      );
      area?.setAttribute(
        "d",
        runs
          .map(
            (run) =>
              `M${x(run[0].at).toFixed(1)} ${bottom}L${run.map((point) => `${x(point.at).toFixed(1)} ${y(point[key]).toFixed(1)}`).join("L")}L${x(run.at(-1).at).toFixed(1)} ${bottom}Z`,
          )
          .join(""),
      );
    }
  };
  new ResizeObserver(([entry]) => {
    width = Math.max(180, Math.round(entry.contentRect.width));
    paint();
  }).observe(svg);

  /** Show these points; `at` is now. */
  const update = (given, at) => {
    points = given;
    now = at;
    const highest = Math.max(0, ...points.flatMap((point) => series.map(({ key }) => point[key] ?? 0)));
    const wanted = Math.max(least, nice(highest));
    small = wanted <= top / 2 ? small + 1 : 0;
    if (wanted > top || small >= SHRINK_AFTER) {
      top = wanted;
      small = 0;
    }
    paint();
    const last = points.at(-1);
    for (const [index, { key }] of series.entries())
      say(figures[index], last && last[key] !== null ? format(last[key]) : "–");
    svg.setAttribute(
      "aria-label",
      `${title}: ${series.map(({ name }, index) => `${name} ${figures[index].textContent}`).join(", ")}`,
    );
  };
  return { element, update };
};

/** Neighbouring points that have a value. */
const runsOf = (points, key) => {
  const runs = [];
  let open = false;
  for (const point of points) {
    const has = point[key] !== null;
    if (has && open) runs.at(-1).push(point);
    else if (has) runs.push([point]);
    open = has;
  }
  return runs;
};

/** The next 1, 2, 4, 6 or 10 times a power of ten, so that half of it is a round number, too. */
const nice = (it) => {
  if (it <= 0) return 0;
  const power = 10 ** Math.floor(Math.log10(it));
  return [1, 2, 4, 6, 10].find((step) => step * power >= it * 0.999) * power;
};
