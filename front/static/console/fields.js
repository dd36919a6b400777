// One value of a request as something to fill in: a number with its range, a text, a yes or no, a row of numbers, a
// block of them. Owns what is read out of each. Every one is {element, read, write, mark}: `read` gives the JSON value,
// `write` takes one and says whether it fits, `mark(path, text)` explains an error where it stands.

import { freshId, make, replace, say } from "./dom.js";

const GRID_MOST = 32;
const RANGE_STEPS = 200;

/** What to fill in for one input of a contract. about: {name, label, hint, schema, dtype, shape, changed}. */
export const makeValue = (about) => {
  const { shape } = about;
  if (shape.length === 0) return makeSingle(about);
  if (shape.length === 1 && shape[0] !== null && shape[0] <= GRID_MOST) return makeRow(about, shape[0]);
  return makeBlock(about);
};

/** One plain value under its own label. */
export const makeSingle = ({ label, hint, schema, dtype, changed }) => {
  const id = freshId("field");
  const cell = makeCell({ id, schema, dtype, changed });
  const slider = makeSlider(cell, label, schema, dtype, changed);
  const note = [hint, rangeOf(schema, dtype)].filter(Boolean).join(" · ");
  const hintId = freshId("hint");
  const wrong = makeWrong();
  cell.element.setAttribute("aria-describedby", [note && hintId, wrong.id].filter(Boolean).join(" "));
  const element = make(
    "div",
    { class: "field" },
    make("label", { for: id }, label),
    make("div", { class: "field-row" }, cell.element, slider?.element),
    note ? make("p", { class: "hint", id: hintId }, note) : null,
    wrong,
  );
  const write = (it) => {
    const fits = cell.write(it);
    slider?.follow();
    return fits;
  };
  const mark = (path, text) => explain(cell.element, wrong, text);
  return { element, read: cell.read, write, mark };
};

const makeRow = ({ label, hint, schema, dtype, changed }, size) => {
  const wrong = makeWrong();
  const items = itemsOf(schema);
  const note = [
    hint,
    rangeOf(items, dtype),
    size > 3 ? "paste several numbers into one box to fill the next ones" : "",
  ];
  const cells = Array.from({ length: size }, (_, index) => {
    const cell = makeCell({ id: freshId("cell"), schema: items, dtype, changed });
    cell.element.setAttribute("aria-label", `${label}, ${index + 1} of ${size}`);
    cell.element.setAttribute("aria-describedby", wrong.id);
    cell.element.addEventListener("paste", (event) => {
      const parts = event.clipboardData
        .getData("text")
        .split(/[\s,;[\]]+/)
        .filter(Boolean);
      if (parts.length < 2 || dtype === "string") return;
      event.preventDefault();
      for (const [offset, part] of parts.entries()) cells[index + offset]?.write(Number(part));
      changed();
    });
    return cell;
  });
  const grid = make("div", { class: "cells" });
  replace(
    grid,
    cells.map((cell, index) =>
      make(
        "span",
        { class: "cell" },
        make("span", { class: "index", "aria-hidden": true }, String(index)),
        cell.element,
      ),
    ),
  );
  const element = make(
    "fieldset",
    { class: "field" },
    make("legend", {}, label),
    grid,
    make("p", { class: "hint" }, note.filter(Boolean).join(" · ")),
    wrong,
  );
  const write = (it) =>
    Array.isArray(it) && it.length === size && it.map((one, index) => cells[index].write(one)).every(Boolean);
  const mark = ([index], text) =>
    explain((cells[index] ?? cells[0])?.element, wrong, index in cells ? `Number ${Number(index) + 1}: ${text}` : text);
  return { element, read: () => cells.map((cell) => cell.read()), write, mark };
};

const makeBlock = ({ label, hint, dtype, shape, changed }) => {
  const id = freshId("field");
  const wrong = makeWrong();
  const told = make("span", { class: "muted" });
  const hintId = freshId("hint");
  const box = make("textarea", {
    id,
    rows: 6,
    spellcheck: "false",
    autocomplete: "off",
    "aria-describedby": `${hintId} ${wrong.id}`,
  });
  const wanted = shape.includes(null) ? null : shape.reduce((product, size) => product * size, 1);
  const read = () => blockOf(box.value, shape, dtype);
  const tell = () => {
    const found = box.value.match(dtype === "string" ? /"(?:[^"\\]|\\.)*"/g : /[^\s,;[\]]+/g)?.length ?? 0;
    say(told, wanted === null ? `${found} values` : `${found} of ${wanted} values`);
  };
  box.addEventListener("input", () => {
    clear(box, wrong);
    tell();
    changed();
  });
  tell();
  const sizes = shape.map((size) => size ?? "any").join(" × ");
  const element = make(
    "div",
    { class: "field" },
    make("label", { for: id }, label),
    box,
    make(
      "p",
      { class: "hint", id: hintId },
      [hint, `${sizes}, as JSON or just numbers`].filter(Boolean).join(" · "),
      " · ",
      told,
    ),
    wrong,
  );
  const write = (it) => {
    if (!Array.isArray(it)) return false;
    box.value = JSON.stringify(it);
    clear(box, wrong);
    tell();
    return true;
  };
  const mark = (path, text) => explain(box, wrong, path.length ? `At [${path.join("][")}]: ${text}` : text);
  return { element, read, write, mark };
};

/** A text of numbers as nested lists: JSON as it is, else what stands between commas and blanks, cut into `shape`. */
export const blockOf = (text, shape, dtype) => {
  try {
    return JSON.parse(text);
  } catch {
    const parts = text
      .split(/[\s,;[\]]+/)
      .filter(Boolean)
      .map((part) => (dtype === "string" || Number.isNaN(Number(part)) ? part : Number(part)));
    return cut(parts, shape);
  }
};

const cut = (flat, shape) => {
  const inner = shape.slice(1).reduce((product, size) => product * (size ?? NaN), 1);
  if (shape.length < 2 || Number.isNaN(inner) || inner < 1) return flat;
  const rows = [];
  for (let at = 0; at < flat.length; at += inner) rows.push(cut(flat.slice(at, at + inner), shape.slice(1)));
  return rows;
};

const isWhole = (schema, dtype) => schema.type === "integer" || /^u?int/.test(dtype);

const makeCell = ({ id, schema, dtype, changed }) => {
  const choices = schema.enum ?? (dtype === "bool" ? [true, false] : null);
  const cell = choices ? makeChoice(id, choices) : dtype === "string" ? makeText(id) : makeNumber(id, schema, dtype);
  cell.element.addEventListener("input", () => {
    clear(cell.element);
    changed();
  });
  return cell;
};

const makeChoice = (id, choices) => {
  const element = make(
    "select",
    { id },
    choices.map((one, index) => make("option", { value: index }, typeof one === "string" ? one : JSON.stringify(one))),
  );
  const write = (it) => {
    const index = choices.indexOf(it);
    if (index >= 0) element.value = index;
    return index >= 0;
  };
  return { element, read: () => choices[Number(element.value)], write };
};

const makeText = (id) => {
  const element = make("input", { id, type: "text", autocomplete: "off", spellcheck: "false" });
  const write = (it) => typeof it === "string" && ((element.value = it), true);
  return { element, read: () => element.value, write };
};

// What is no number goes to the server as it stands: it says best what it expects. Hence no type="number", which
// would keep it back; the arrow keys step all the same.
const makeNumber = (id, schema, dtype) => {
  const element = make("input", { id, type: "text", inputmode: "decimal", autocomplete: "off", spellcheck: "false" });
  const read = () => {
    const text = element.value.trim();
    if (text === "") return null;
    const number = Number(text.replace(/^(-?\d+),(\d+)$/, "$1.$2"));
    return Number.isFinite(number) ? number : text;
  };
  element.addEventListener("keydown", (event) => {
    const step = { ArrowUp: 1, ArrowDown: -1 }[event.key];
    const now = read();
    if (!step || typeof now === "string") return;
    event.preventDefault();
    const size =
      (isWhole(schema, dtype) || !event.shiftKey ? 1 : 0.1) *
      (schema.type !== "integer" && spanOf(schema) <= 2 ? 0.1 : 1);
    const { minimum = -Infinity, maximum = Infinity } = schema;
    element.value = Number(Math.min(maximum, Math.max(minimum, (now ?? 0) + step * size)).toPrecision(12));
    element.dispatchEvent(new Event("input", { bubbles: true }));
  });
  const write = (it) => {
    element.value = it === null || it === undefined ? "" : String(it);
    clear(element);
    return it === null || typeof it === "number" || typeof it === "string";
  };
  return { element, read, write };
};

const spanOf = ({ minimum = -Infinity, maximum = Infinity }) => maximum - minimum;

const makeSlider = (cell, label, schema, dtype, changed) => {
  const { minimum, maximum } = schema;
  if (
    minimum === undefined ||
    maximum === undefined ||
    !(maximum > minimum) ||
    schema.enum ||
    dtype === "string" ||
    dtype === "bool"
  )
    return null;
  const step = isWhole(schema, dtype) ? 1 : Number(((maximum - minimum) / RANGE_STEPS).toPrecision(3));
  const element = make("input", { type: "range", min: minimum, max: maximum, step, "aria-label": `${label}, slider` });
  const follow = () => (element.value = cell.read() ?? minimum);
  element.addEventListener("input", () => {
    cell.write(Number(element.value));
    changed();
  });
  cell.element.addEventListener("input", follow);
  return { element, follow };
};

/** The schema of one number of a vector. */
const itemsOf = (schema) => (schema.items && typeof schema.items === "object" ? schema.items : {});

/** What may be written, in words. */
const rangeOf = (schema, dtype) => {
  const { minimum, maximum, exclusiveMinimum, exclusiveMaximum } = schema;
  const words = [];
  if (minimum !== undefined && maximum !== undefined) words.push(`${minimum} to ${maximum}`);
  else if (minimum !== undefined) words.push(`at least ${minimum}`);
  else if (maximum !== undefined) words.push(`at most ${maximum}`);
  if (exclusiveMinimum !== undefined) words.push(`above ${exclusiveMinimum}`);
  if (exclusiveMaximum !== undefined) words.push(`below ${exclusiveMaximum}`);
  if (schema.maxLength !== undefined) words.push(`at most ${schema.maxLength} characters`);
  if (isWhole(schema, dtype)) words.push("whole numbers");
  return words.join(", ");
};

const makeWrong = () => make("p", { class: "wrong", id: freshId("wrong") });

const explain = (box, wrong, text) => {
  say(wrong, text);
  if (!box) return null;
  box.setAttribute("aria-invalid", "true");
  return box;
};

const clear = (box, wrong = box.closest(".field")?.querySelector(".wrong")) => {
  box.removeAttribute("aria-invalid");
  if (wrong) say(wrong, "");
};
