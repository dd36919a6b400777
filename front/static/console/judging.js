// Whether an answer was right: two buttons, and a dialog for what would have been. Owns POST /feedback and which answers
// were judged in this tab. Knows nothing of where the buttons stand.

import * as api from "./api.js";
import { byId, freshId, make, replace, say } from "./dom.js";
import { clip, value } from "./format.js";

const LABELS_MOST = 1_000;

/** The judge. labelsOf(model): class names; changed(): a judgement was recorded. */
export const makeJudging = (labelsOf, changed) => {
  const said = new Map(); // request id -> what was recorded, in words
  let asking = null; // {id, rows, labels} of the dialog

  const record = async (id, row, label, words) => {
    const reply = await api.feedback(id, row, label);
    if (reply.status === 200) {
      said.set(id, words);
      say(byId("feedback-said"), `Recorded for request ${id}: ${words}`);
      changed();
      return "";
    }
    return reply.body?.message ?? reply.text;
  };

  const open = (id, rows, model) => {
    const labels = labelsOf(model);
    const choice = makeChoice(labels);
    const row =
      rows > 1 ? make("input", { id: freshId("row"), type: "number", min: 0, max: rows - 1, value: 0 }) : null;
    replace(
      byId("wrong-fields"),
      row ? make("div", { class: "field" }, make("label", { for: row.id }, `Row, from 0 to ${rows - 1}`), row) : null,
      make(
        "div",
        { class: "field" },
        make("label", { for: choice.element.id }, labels.length ? "The right class" : "The right value"),
        choice.element,
      ),
    );
    say(byId("wrong-text"), `${clip(model, 64)} · request ${clip(id, 48)}`);
    say(byId("wrong-error"), "");
    asking = { id, row, choice };
    byId("wrong-dialog").showModal();
    choice.element.focus();
  };
  byId("wrong-form").addEventListener("submit", async (event) => {
    event.preventDefault();
    const { id, row, choice } = asking;
    const label = choice.read();
    if (label === null) return say(byId("wrong-error"), "Say what would have been right.");
    const wrong = await record(id, Number(row?.value ?? 0), label, `wrong, ${value(label)} would have been right`);
    say(byId("wrong-error"), wrong);
    if (!wrong) byId("wrong-dialog").close();
    return undefined;
  });
  byId("wrong-cancel").addEventListener("click", () => byId("wrong-dialog").close());

  /** Fill `place` with the buttons, or with what was recorded. told: the answer's label, undefined where none is known. */
  const fill = (place, { id, rows, model, told }) => {
    if (said.has(id)) return replace(place, make("span", { class: "judged" }, "✓ ", clip(said.get(id), 60)));
    const error = make("span", { class: "wrong", role: "status" });
    const right = make(
      "button",
      { type: "button", class: "small", "aria-label": `Right: the answer to request ${id}` },
      "Right",
    );
    const wrong = make(
      "button",
      { type: "button", class: "small", "aria-label": `Wrong: the answer to request ${id}` },
      "Wrong…",
    );
    right.addEventListener("click", async () => say(error, await record(id, 0, told, "right")));
    wrong.addEventListener("click", () => open(id, rows, model));
    return replace(place, told === undefined || rows > 1 ? null : right, wrong, error);
  };
  return { fill, isJudged: (id) => said.has(id) };
};

/** What an answer said, as POST /feedback takes it; undefined where it is no single value. body: whole or its start. */
export const toldBy = (body) => {
  if (typeof body === "string") {
    const found = /"(?:label|prediction)":("(?:[^"\\]|\\.)*"|-?[\d.eE+-]+|true|false)/.exec(body);
    if (!found || /^\{"ok":true,"predictions"/.test(body)) return undefined;
    try {
      return JSON.parse(found[1]);
    } catch {
      return undefined;
    }
  }
  const told = body?.label ?? body?.prediction;
  return ["string", "number", "boolean"].includes(typeof told) ? told : undefined;
};

const makeChoice = (labels) => {
  const id = freshId("right");
  if (labels.length && labels.length <= LABELS_MOST) {
    const element = make(
      "select",
      { id },
      labels.map((label, index) => make("option", { value: index }, clip(label, 80))),
    );
    return { element, read: () => labels[Number(element.value)] };
  }
  const element = make("input", { id, type: "text", autocomplete: "off", spellcheck: "false" });
  const read = () => {
    const text = element.value.trim();
    return text === "" ? null : Number.isFinite(Number(text)) ? Number(text) : text;
  };
  return { element, read };
};
