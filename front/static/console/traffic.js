// The charts over all processes. Owns which there are, of which model, and their numbers as a table.

import { makeChart } from "./chart.js";
import { byId, make, replace } from "./dom.js";
import { count, ms } from "./format.js";
import { makeHistory, WINDOW_S } from "./history.js";
import { makeLanes } from "./lanes.js";

const CHARTS = [
  {
    title: "Requests per second",
    series: [
      { key: "answered", name: "answered", area: true },
      { key: "failed", name: "failed" },
    ],
    format: count,
    least: 4,
  },
  {
    title: "Latency",
    series: [
      { key: "p50", name: "p50" },
      { key: "p90", name: "p90" },
      { key: "p99", name: "p99" },
    ],
    format: ms,
    least: 1,
  },
  {
    title: "Rows in a batch",
    series: [
      { key: "batchMean", name: "mean", area: true },
      { key: "batchMost", name: "p99" },
    ],
    format: count,
    least: 4,
  },
  { title: "Rows waiting", series: [{ key: "queued", name: "in the queues", area: true }], format: count, least: 4 },
  { title: "Longest wait", series: [{ key: "age", name: "oldest row", area: true }], format: ms, least: 10 },
];
const TABLE_ROWS = 15;

/** The section; update(status) once a second. */
export const makeTraffic = () => {
  const history = makeHistory();
  const charts = CHARTS.map((about) => makeChart({ ...about, windowS: WINDOW_S }));
  const lanes = makeLanes("Workers", WINDOW_S);
  replace(
    byId("charts"),
    [...charts, lanes].map((chart) => chart.element),
  );
  const show = () => {
    const points = history.points(byId("scope").value);
    const now = history.latest() ?? 0;
    for (const chart of [...charts, lanes]) chart.update(points, now);
    if (byId("numbers").open) showTable(points);
  };
  byId("scope").addEventListener("change", show);
  byId("numbers").addEventListener("toggle", show);
  show();

  const update = (status) => {
    history.add(status);
    offer([...new Set(status.models.map((one) => one.name))]);
    show();
  };
  /** Say why there are no charts; "" shows them. */
  const close = (...why) => {
    byId("traffic-closed").hidden = why.length === 0;
    byId("charts").hidden = byId("numbers").hidden = why.length > 0;
    replace(byId("traffic-closed"), why);
  };
  return { update, close };
};

const offer = (names) => {
  const select = byId("scope");
  const there = [...select.options].slice(1).map((option) => option.value);
  if (names.length === there.length && names.every((name, index) => name === there[index])) return;
  const chosen = select.value;
  replace(
    select,
    make("option", { value: "" }, "all models"),
    names.map((name) => make("option", { value: name }, name)),
  );
  select.value = names.includes(chosen) ? chosen : "";
};

const showTable = (points) => {
  const columns = CHARTS.flatMap(({ title, series, format }) =>
    series.map(({ key, name }) => ({ key, format, name: `${title}, ${name}` })),
  );
  const heads = ["Seconds ago", ...columns.map(({ name }) => name)].map((name) =>
    make("th", { scope: "col", class: "number" }, name),
  );
  const newest = points.at(-1)?.at ?? 0;
  const rows = points
    .slice(-TABLE_ROWS)
    .reverse()
    .map((point) =>
      make(
        "tr",
        {},
        make("th", { scope: "row", class: "number" }, String(Math.round(newest - point.at))),
        columns.map(({ key, format }) => make("td", { class: "number" }, format(point[key]))),
      ),
    );
  replace(byId("numbers-table"), make("thead", {}, make("tr", {}, heads)), make("tbody", {}, rows));
};
