// The console: asks the server how it is once a second, and hands what it says to the parts of the page.
// Owns when something is asked, and what is said when the server is away, degraded, or wants a key.

import { makeAnswer } from "./answer.js";
import * as api from "./api.js";
import { makeBench } from "./bench.js";
import { byId, make, replace, say } from "./dom.js";
import { clip, duration } from "./format.js";
import { makeJudging, toldBy } from "./judging.js";
import { makeKeyAsking } from "./key.js";
import { makeModels } from "./models.js";
import { makeRequests } from "./requests.js";
import { closeServer, showServer } from "./server.js";
import { setUpTheme } from "./theme.js";
import { makeTraffic } from "./traffic.js";

const EACH_MS = 1_000;
const CLOSED_EACH_MS = 20_000; // where the key does not open GET /status
const REASONS_MOST = 6;
const OTHERS_MOST = 32; // versions asked about one by one

let described = []; // GET /models
let byDefault = null;
let told = ""; // by which GET /status says that GET /models would say something else
let status = null;
let lostAt = null;
let isClosed = false; // whether GET /status is not for us
let timer = 0;
let isAsking = false;

setUpTheme();
const labelsOf = (name) => described.find((one) => one.name === name && one.contract)?.contract.labels ?? [];
const judging = makeJudging(labelsOf, () => {
  requests.judged();
  judgeAnswer();
});
const traffic = makeTraffic();
const requests = makeRequests(judging);
const keys = makeKeyAsking(() => {
  told = "";
  isClosed = false;
  bench.refresh();
  ask();
});

let judgeAnswer = () => {};
const answer = makeAnswer((reply, model) => {
  const place = make("p", { class: "judge-line" });
  const rows = Array.isArray(reply.body?.predictions) ? reply.body.predictions.length : 1;
  judgeAnswer = () => {
    if (!status?.log) return replace(place);
    const buttons = make("span");
    judging.fill(buttons, { id: reply.id, rows, model: model.name, told: toldBy(reply.body) });
    return replace(place, make("span", { class: "muted" }, "Was it right? "), buttons);
  };
  judgeAnswer();
  return place;
});
const bench = makeBench((reply, model, useSample) => {
  if (reply === null) return answer.clear();
  if (reply.status === 401) keys.refused();
  return answer.show(reply, model, useSample);
});

const models = makeModels(() => showModel());
const showModel = () => {
  const model = models.current();
  if (model?.contract && bench.show(model, models.pinned())) answer.clear();
};

/** What GET /models said, with what GET /status says now. */
const updateModels = () => {
  const now = new Map((status?.models ?? []).map((one) => [`${one.name}\n${one.version}`, one]));
  const known = described.map((one) => ({ ...one, ...now.get(`${one.name}\n${one.version}`) }));
  const names = new Set(described.map((one) => `${one.name}\n${one.version}`));
  const others = [...now].filter(([key]) => !names.has(key)).map(([, one]) => one);
  models.update([...known, ...others], byDefault);
  showModel();
};

const askModels = async () => {
  const reply = await api.models();
  if (reply.status === 401) keys.refused();
  if (reply.status !== 200) return reply.status;
  described = [...reply.body.models, ...(await otherVersions(reply.body.models))];
  byDefault = reply.body.default;
  updateModels();
  return 200;
};

/** GET /models knows one version of each; the others that serve, as a canary or by a label, are asked for by number. */
const otherVersions = async (known) => {
  const wanted = (status?.models ?? []).filter(
    (one) => one.state === "READY" && !known.some(({ name, version }) => name === one.name && version === one.version),
  );
  const replies = await Promise.all(wanted.slice(0, OTHERS_MOST).map(({ name, version }) => api.version(name, version)));
  return replies.filter((one) => one.status === 200).map((one) => one.body);
};

/** GET /status, and GET /models where that says something new; what came of the first. */
const look = async () => {
  const reply = await api.status();
  let heard = 0; // what the last answer's status was, 0 where there was none worth the name
  if (reply.status === 200) {
    status = reply.body;
    isClosed = false;
    heard = 200;
    const state = JSON.stringify(
      status.models.map((one) => [one.name, one.version, one.state, one.reason, one.generation]),
    );
    if (state !== told && (await askModels()) === 200) told = state;
    else updateModels();
    show();
  } else if (reply.status === 401 || reply.status === 403) {
    status = null;
    isClosed = true;
    heard = await askModels();
    if (reply.status === 401 && heard === 200) keys.refused();
    showClosed();
  }
  lostAt = heard ? null : (lostAt ?? Date.now());
  return reply;
};

/** One round, and the next when it is due: whatever goes wrong in one, the page goes on. */
const ask = async () => {
  clearTimeout(timer);
  if (isAsking) return;
  isAsking = true;
  try {
    showLive(await look());
  } finally {
    isAsking = false;
    if (!document.hidden) timer = setTimeout(ask, isClosed && !lostAt ? CLOSED_EACH_MS : EACH_MS);
  }
};

const show = () => {
  traffic.close();
  traffic.update(status);
  requests.update(status);
  showServer(status);
  judgeAnswer();
};

const showClosed = () => {
  const why = api.hasKey()
    ? "This key opens predictions, but not the server's state: that takes an admin's key. "
    : "The server's state takes an admin's key. ";
  if (!byId("traffic-closed").textContent.startsWith(why))
    traffic.close(
      why,
      make("button", { type: "button", click: keys.open }, api.hasKey() ? "Use another key" : "Give a key"),
    );
  requests.close();
  closeServer("Only an admin's key shows its processes.");
};

const showLive = (reply) => {
  const live = byId("live");
  const reasons = status?.degraded ?? [];
  const state = lostAt
    ? "lost"
    : isClosed
      ? "open"
      : status?.ready === false
        ? "bad"
        : reasons.length
          ? "degraded"
          : "ready";
  live.dataset.state = state;
  say(
    byId("live-text"),
    {
      lost: "No answer",
      open: "Connected",
      bad: status?.draining ? "Stopping" : "Not ready",
      degraded: "Degraded",
      ready: "Ready",
    }[state],
  );
  const banners = [];
  if (lostAt) {
    const since = Math.round((Date.now() - lostAt) / 1000);
    const what = reply.status ? `The server answers ${reply.status} only` : "The server does not answer";
    banners.push([
      "bad",
      since < 5
        ? `${what}. Trying again each second.`
        : `${what}, for ${duration(Math.floor(since / 5) * 5)} now. Trying again each second.`,
      [],
    ]);
  } else if (reasons.length)
    banners.push([
      status.ready ? "warn" : "bad",
      status.ready ? "The server answers, but something is wrong:" : "The server is not ready:",
      reasons,
    ]);
  const text = JSON.stringify(banners).replaceAll(/\d+(\.\d+)? s\b/g, ""); // a clock that ticks is not news
  const place = byId("banners");
  if (place.dataset.told === text && !lostAt) return;
  place.dataset.told = text;
  replace(
    place,
    banners.map(([tone, words, list]) =>
      make(
        "div",
        { class: `banner ${tone}` },
        make("p", {}, words),
        list.length
          ? make(
              "ul",
              {},
              list.slice(0, REASONS_MOST).map((reason) => make("li", {}, clip(reason, 400))),
              list.length > REASONS_MOST ? make("li", {}, `and ${list.length - REASONS_MOST} more`) : null,
            )
          : null,
      ),
    ),
  );
};

document.addEventListener("visibilitychange", () => {
  clearTimeout(timer);
  if (!document.hidden) ask();
});
ask();
