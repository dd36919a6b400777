// The server's processes, generations and log as cards of facts. Knows the shape of GET /status, and what deserves a
// second look.

import { byId, make, replace, say } from "./dom.js";
import { bytes, count, duration, plural } from "./format.js";

const OLD_S = 60; // a record that has waited so long for the database is worth a colour

/** Show what GET /status says. */
export const showServer = (status) => {
  byId("server-empty").hidden = true;
  byId("server-cards").hidden = false;
  say(byId("server-name"), status.server);
  const cards = [workers(status), groups(status), fronts(status), log(status)];
  const place = byId("server-cards");
  const told = JSON.stringify(cards);
  if (place.dataset.told === told) return;
  place.dataset.told = told;
  replace(place, cards.map(makeCard));
};

/** Say why nothing is shown. */
export const closeServer = (why) => {
  byId("server-empty").hidden = false;
  byId("server-cards").hidden = true;
  say(byId("server-empty"), why);
};

// A fact is [word, what, tone]: tone "bad" or "warn" where somebody should look.
const fact = (word, what, tone = "") => [word, String(what), tone];

const workers = ({ workers: all, memory_bytes: memory }) => ({
  title: "Workers",
  facts: [
    ...all.map((one, index) => {
      const doing = !one.responding ? "not responding" : one.computing_ms === null ? "idle" : "computing";
      const last =
        one.last_answer_ms === null
          ? "no answer yet"
          : one.last_answer_ms < 2_000
            ? "answered just now"
            : `answered ${duration(one.last_answer_ms / 1000)} ago`;
      return fact(`${index + 1} · ${one.group}`, `${doing}, ${last}`, one.responding ? "" : "bad");
    }),
    ...(all.length ? [] : [fact("Workers", "none is ready", "bad")]),
    ...Object.entries(memory)
      .filter(([, size]) => size > 0)
      .map(([kind, size]) => fact(`Memory, ${kind}`, bytes(size))),
  ],
});

const groups = ({ groups: all }) => ({
  title: "Generations",
  facts: all.flatMap((one) => {
    const named = (word) => (all.length > 1 ? `${one.group}: ${word.toLowerCase()}` : word);
    const { switched = 0, failed = 0, rolled_back: back = 0 } = one.reloads;
    const deaths = Object.entries(one.worker_deaths).filter(([, number]) => number > 0);
    const gone = deaths.reduce((sum, [, number]) => sum + number, 0);
    return [
      fact(named("Generation"), one.generation),
      fact(
        named("Reloads"),
        `${count(switched)} done${failed ? `, ${count(failed)} failed` : ""}${back ? `, ${count(back)} rolled back` : ""}`,
        failed ? "warn" : "",
      ),
      fact(named("Workers started"), count(one.worker_starts)),
      fact(
        named("Replaced after death"),
        gone
          ? `${count(gone)} (${deaths.map(([why, number]) => `${why.replaceAll("_", " ")} ${count(number)}`).join(", ")})`
          : "none",
        gone ? "warn" : "",
      ),
    ];
  }),
});

const fronts = ({ fronts: one }) => {
  const cut = Object.values(one.cut).reduce((sum, number) => sum + number, 0);
  return {
    title: "Fronts",
    facts: [
      fact("Running", count(one.starts - one.deaths)),
      fact("Ended unasked", one.deaths ? count(one.deaths) : "none", one.deaths ? "warn" : ""),
      fact("Open connections", count(one.connections)),
      fact("In flight", count(one.in_flight)),
      fact("Connections cut", cut ? count(cut) : "none"),
      fact("Sent again after a death", one.retries ? count(one.retries) : "none"),
    ],
  };
};

const log = ({ log: one }) => {
  if (one === null)
    return {
      title: "Prediction log",
      facts: [],
      note: "There is none. DATABASE_URL or PREDICTION_LOG_DIR turns it on.",
    };
  const retries = Object.values(one.retries).reduce((sum, number) => sum + number, 0);
  const facts = [
    fact("Rows written", count(one.written)),
    fact("Rows dropped", one.dropped ? count(one.dropped) : "none", one.dropped ? "bad" : ""),
  ];
  if (one.has_database) {
    facts.push(
      fact("Rows in the table", count(one.shipped)),
      fact(
        "Waiting",
        one.waiting_bytes ? `${bytes(one.waiting_bytes)}, for ${duration(one.oldest_s)}` : "nothing",
        one.oldest_s > OLD_S ? "warn" : "",
      ),
      fact("Set aside", one.quarantined ? plural(one.quarantined, "row") : "none", one.quarantined ? "bad" : ""),
      fact("Tries repeated", retries ? count(retries) : "none"),
    );
  } else facts.push(fact("Kept in files", bytes(one.waiting_bytes)));
  if (one.damaged) facts.push(fact("Spoilt records", count(one.damaged), "bad"));
  if (one.left_out) facts.push(fact("Left out by sampling", plural(one.left_out, "row")));
  return { title: "Prediction log", facts };
};

const makeCard = ({ title, facts, note }) =>
  make(
    "div",
    { class: "card" },
    make("h3", {}, title),
    note
      ? make("p", { class: "empty" }, note)
      : make(
          "dl",
          { class: "facts" },
          facts.map(([word, what, tone]) => [make("dt", {}, word), make("dd", { class: tone }, what)]).flat(),
        ),
  );
