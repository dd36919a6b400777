// The last requests of all processes as a table. Owns which rows are there: they stay where they are while somebody
// points at them.

import { byId, make, replace, say } from "./dom.js";
import { clip, clock, ms } from "./format.js";
import { toldBy } from "./judging.js";
import { fillLegend, makeBar } from "./timing.js";

const ROWS_MOST = 40;

/** The section; update(status) once a second. judging: of answers. */
export const makeRequests = (judging) => {
  const rows = new Map(); // key -> its row
  let entries = [];
  let hasLog = false;
  let isHeld = false;
  fillLegend(byId("legend"));

  const show = () => {
    const failedOnly = byId("failures").checked;
    const wanted = entries.filter((one) => !failedOnly || one.status >= 400).slice(0, ROWS_MOST);
    const body = byId("requests-rows");
    const isEmpty = wanted.length === 0;
    byId("requests-scroll").hidden = byId("legend").hidden = isEmpty;
    byId("requests-empty").hidden = !isEmpty;
    say(
      byId("requests-empty"),
      failedOnly && entries.length
        ? "No request has failed lately."
        : "No request yet. Send one above, or from a terminal.",
    );
    byId("right-title").hidden = !hasLog;
    const held = isHeld ? wanted.filter((one) => !rows.has(keyOf(one))).length : 0;
    say(byId("held"), held ? `held while you are here, ${held} newer` : "");
    if (isHeld && body.children.length) return;
    const shown = wanted.map((one) => {
      const key = keyOf(one);
      if (!rows.has(key)) rows.set(key, makeRow(one));
      return rows.get(key);
    });
    if (shown.length !== body.children.length || shown.some((row, index) => row !== body.children[index]))
      replace(body, shown);
    const kept = new Set(entries.map(keyOf));
    for (const key of rows.keys()) if (!kept.has(key)) rows.delete(key);
  };
  const makeRow = (one) => {
    const timings = {
      parse: one.parse_ms,
      queue: one.queue_ms,
      compute: one.compute_ms,
      encode: one.encode_ms,
      total: one.total_ms,
    };
    const judge = make("td", { class: "judge" });
    judge.hidden = !hasLog;
    if (hasLog && one.status === 200)
      judging.fill(judge, { id: one.request_id, rows: one.rows, model: one.model, told: toldBy(one.answer) });
    return make(
      "tr",
      {},
      make("td", { class: "time" }, clock(one.at)),
      make(
        "td",
        { class: "model", title: one.model },
        one.model || "–",
        one.version ? make("span", { class: "muted" }, ` v${one.version}`) : null,
      ),
      make(
        "td",
        {},
        make("span", { class: `badge ${one.status >= 400 ? "bad" : "good"}` }, String(one.status)),
        one.code ? make("span", { class: "code muted small" }, ` ${one.code}`) : null,
      ),
      make("td", { class: "number wide" }, String(one.rows || "–")),
      make("td", { class: "took" }, make("span", {}, ms(one.total_ms)), makeBar(timings)),
      make("td", { class: "wide", title: one.route }, make("code", {}, clip(one.route, 44))),
      make("td", { class: "wide id", title: one.request_id }, make("code", {}, one.request_id)),
      judge,
    );
  };
  const hold = (on) => () => {
    isHeld = on;
    if (!on) show();
  };
  const scroll = byId("requests-scroll");
  scroll.addEventListener("pointerenter", hold(true));
  scroll.addEventListener("pointerleave", hold(false));
  scroll.addEventListener("focusin", hold(true));
  scroll.addEventListener("focusout", hold(false));
  byId("failures").addEventListener("change", show);

  const update = (status) => {
    entries = status.recent.filter((one) => one.model);
    if (hasLog !== (status.log !== null)) rows.clear();
    hasLog = status.log !== null;
    show();
  };
  /** A judgement was recorded: its row says so, also while the rows are held. */
  const judged = () => {
    for (const one of entries) {
      const cell = rows.get(keyOf(one))?.querySelector(".judge");
      if (cell && judging.isJudged(one.request_id)) judging.fill(cell, { id: one.request_id });
    }
  };
  const close = () => {
    entries = [];
    rows.clear();
    show();
    say(byId("requests-empty"), "Only an admin's key shows them.");
  };
  return { update, judged, close };
};

const keyOf = (one) => `${one.at} ${one.request_id}`;
