// An answer, or a refusal, in the panel beside the form. Owns how outputs of any shape and size are shown.
// Knows nothing of how it was asked for.

import { byId, make, replace, say } from "./dom.js";
import { clip, count, ms, percent, plural, value } from "./format.js";
import { makeBar, makeWords } from "./timing.js";

const ROWS_MOST = 20;
const VALUES_MOST = 64;
const RAW_MOST = 4_000;
const TEXT_MOST = 400;

/** The panel's only tenant. feedback(reply, model): a node to say whether an answer was right. */
export const makeAnswer = (feedback) => {
  const result = make("div", { class: "result" });
  const timing = make("div", { class: "timing" });
  const meta = make("p", { class: "muted small meta" });
  const judge = make("div", { class: "judge" });
  const raw = make("pre", { class: "raw", tabindex: 0, role: "region", "aria-label": "The answer's body" });
  const more = make("details", { class: "more" }, make("summary", {}, "Body of the answer"), raw);
  const empty = byId("answer").firstElementChild;

  const show = (reply, model, useSample) => {
    const failed = reply.status !== 200;
    replace(byId("answer"), result, timing, meta, judge, more);
    replace(
      byId("answer-status"),
      make("span", { class: `badge ${failed ? "bad" : "good"}` }, reply.status ? String(reply.status) : "no answer"),
      " ",
      make("span", { class: "muted small" }, ms(reply.timings.total ?? reply.tookMs)),
    );
    if (failed) showRefusal(result, reply, useSample);
    else showOutputs(result, reply.body);
    replace(
      timing,
      Object.keys(reply.timings).length > 1
        ? [makeBar(reply.timings), makeWords(reply.timings, reply.timings.batch)]
        : null,
    );
    const version = reply.body?.model_version;
    replace(
      meta,
      version ? `version ${version} · ` : null,
      `${ms(reply.tookMs)} seen from here`,
      reply.id ? [" · ", make("code", { title: "request id" }, clip(reply.id, 40))] : null,
    );
    replace(judge, failed ? null : feedback(reply, model));
    more.hidden = !reply.text;
    say(
      raw,
      reply.text.length > RAW_MOST
        ? `${reply.text.slice(0, RAW_MOST)}\n… ${count(reply.text.length - RAW_MOST)} characters more`
        : reply.text,
    );
    say(
      byId("answer-said"),
      failed ? `Refused: ${reply.body?.message ?? reply.text}` : `Answer: ${spoken(reply.body)}`,
    );
  };
  const clear = () => {
    replace(byId("answer"), empty);
    replace(byId("answer-status"));
    replace(result);
    say(byId("answer-said"), "");
  };
  return { show, clear };
};

/** The best classes as bars, in place: what stays is moved, not made anew. */
const showBars = (place, top) => {
  let list = place.querySelector(":scope > ol.bars");
  if (!list) {
    list = make("ol", { class: "bars", "aria-label": "Top classes" });
    replace(place, make("p", { class: "verdict" }), list);
  }
  say(list.previousElementSibling, clip(String(top[0].label), 80));
  while (list.children.length > top.length) list.lastChild.remove();
  for (const [index, { label, score }] of top.entries()) {
    if (!list.children[index]) {
      list.append(
        make(
          "li",
          {},
          make("span", { class: "bar-label" }),
          make("span", { class: "bar-track", "aria-hidden": true }, make("span", { class: "bar-fill" })),
          make("span", { class: "bar-value" }),
        ),
      );
    }
    const [name, track, figure] = list.children[index].children;
    say(name, String(label));
    name.title = String(label);
    track.firstChild.style.width = `${Math.max(0, Math.min(1, score)) * 100}%`;
    say(figure, score >= 0 && score <= 1 ? percent(score) : value(score));
  }
};

const showOutputs = (place, body) => {
  if (Array.isArray(body?.top)) return showBars(place, body.top);
  if (body && "prediction" in body) return replace(place, shown(body.prediction, true));
  if (Array.isArray(body?.predictions)) {
    const rows = body.predictions
      .slice(0, ROWS_MOST)
      .map((row, index) => make("tr", {}, make("th", { scope: "row" }, String(index)), make("td", {}, rowShown(row))));
    const left = body.predictions.length - rows.length;
    return replace(
      place,
      make("p", { class: "verdict small" }, plural(body.predictions.length, "row")),
      make(
        "div",
        { class: "scroll", tabindex: 0, role: "region", "aria-label": "Rows of the answer" },
        make("table", {}, make("tbody", {}, rows)),
      ),
      left > 0 ? make("p", { class: "hint" }, `and ${count(left)} more`) : null,
    );
  }
  return replace(place, make("p", { class: "empty" }, "An answer of another shape; its body is below."));
};

const rowShown = (row) =>
  row && Array.isArray(row.top)
    ? row.top.map(({ label, score }) => `${clip(String(label), 40)} ${percent(score)}`).join(", ")
    : shown(row, false);

/** A value of an output: a number large, a list shortened, names with their values. */
const shown = (it, alone) => {
  if (it === null)
    return make(
      alone ? "p" : "span",
      { class: alone ? "verdict" : "" },
      "null",
      make("span", { class: "hint" }, " not a finite number"),
    );
  if (Array.isArray(it)) return listShown(it);
  if (typeof it === "object") {
    return make(
      "dl",
      { class: "outputs" },
      Object.entries(it)
        .map(([name, one]) => [make("dt", {}, clip(name, 80)), make("dd", {}, shown(one, false))])
        .flat(),
    );
  }
  const text = value(it);
  return make(
    alone && text.length <= 24 ? "p" : "span",
    { class: alone && text.length <= 24 ? "verdict" : "plain", title: clip(String(it), TEXT_MOST) },
    clip(text, TEXT_MOST),
  );
};

const listShown = (list) => {
  const flat = list.flat(Infinity);
  const sizes = [];
  for (let inner = list; Array.isArray(inner); inner = inner[0]) sizes.push(inner.length);
  const first = flat.slice(0, VALUES_MOST).map((one) => make("li", { title: String(one) }, clip(value(one), 60)));
  const left = flat.length - first.length;
  return make(
    "div",
    {},
    make("ol", { class: "values" }, first),
    make("p", { class: "hint" }, `${sizes.join(" × ")} values${left > 0 ? `, ${count(left)} of them not shown` : ""}`),
  );
};

const showRefusal = (place, { status, body, text }, useSample) => {
  const nodes = [
    make(
      "p",
      { class: "refusal" },
      make("b", {}, body?.error ?? (status ? `Status ${status}` : "No answer")),
      " ",
      clip(body?.message ?? text, TEXT_MOST),
    ),
  ];
  if (body?.reason) nodes.push(make("p", { class: "hint" }, `Reason: ${body.reason}`));
  if (body?.path) nodes.push(make("p", { class: "hint" }, "At ", make("code", {}, clip(body.path, 120))));
  if (body?.expected) nodes.push(make("p", { class: "hint" }, `Expected ${clip(body.expected, TEXT_MOST)}`));
  if (body?.sample && useSample)
    nodes.push(
      make(
        "p",
        {},
        make("button", { type: "button", click: () => useSample(body.sample) }, "Use this sample"),
        " ",
        make("code", { class: "sample" }, clip(JSON.stringify(body.sample), 160)),
      ),
    );
  replace(place, nodes);
};

const spoken = (body) => {
  if (Array.isArray(body?.top)) return `${body.top[0].label}, ${percent(body.top[0].score)}`;
  if (Array.isArray(body?.predictions)) return plural(body.predictions.length, "row");
  return clip(JSON.stringify(body?.prediction ?? null), 100);
};
