// A form made from a contract: one thing to fill in for each field or input. Owns which keys a body has.
// Knows nothing of where it is sent.

import { make } from "./dom.js";
import { makeSingle, makeValue } from "./fields.js";

/** A form for a model of GET /models. changed: called when a person has changed something. */
export const makeForm = (model, changed) => {
  const { contract, sample } = model;
  const entries = contract.fields.length ? ofFields(contract, changed) : ofInputs(contract, sample, changed);
  const element = make("div", { class: `fields${entries.length > 1 ? " several" : ""}` });
  element.replaceChildren(...entries.map(([, value]) => value.element));
  const keys = new Map(entries);

  const read = () => Object.fromEntries(entries.map(([key, value]) => [key, value.read()]));
  const write = (body) => {
    const given = isObject(body) ? Object.keys(body) : [];
    if (given.length !== keys.size || !given.every((key) => keys.has(key))) return false;
    return entries.map(([key, value]) => value.write(body[key])).every(Boolean);
  };
  /** Explain an error at a JSON pointer; the box it is about, or null where none is. */
  const mark = (pointer, text) => {
    const [key, ...path] = partsOf(pointer);
    return keys.get(key)?.mark(path, text) ?? null;
  };
  const clear = () => {
    for (const box of element.querySelectorAll("[aria-invalid]")) box.removeAttribute("aria-invalid");
    for (const wrong of element.querySelectorAll(".wrong")) wrong.textContent = "";
  };
  return { element, read, write, mark, clear };
};

/** The keys of a JSON pointer. */
export const partsOf = (pointer) =>
  pointer
    .split("/")
    .slice(1)
    .map((part) => part.replaceAll("~1", "/").replaceAll("~0", "~"));

/** A body as text that is good to read: a line for each key. */
export const pretty = (body) => {
  if (!isObject(body)) return JSON.stringify(body);
  const lines = Object.entries(body).map(([key, value]) => `  ${JSON.stringify(key)}: ${spaced(value)}`);
  return lines.length ? `{\n${lines.join(",\n")}\n}` : "{}";
};

const spaced = (value) => (Array.isArray(value) ? `[${value.map(spaced).join(", ")}]` : JSON.stringify(value));

const isObject = (it) => typeof it === "object" && it !== null && !Array.isArray(it);

const ofFields = ({ fields, inputs }, changed) =>
  fields.map(({ name, schema, description }) => [
    name,
    makeSingle({ label: name, hint: description, schema, dtype: inputs[0].dtype, changed }),
  ]);

const ofInputs = ({ inputs, request_schema: schema }, sample, changed) => {
  const single = inputs.length === 1;
  const alone = (isObject(sample) && Object.keys(sample)[0]) || "features";
  return inputs.map(({ name, dtype, shape }) => [
    single ? alone : name,
    makeValue({
      label: name,
      hint: `${dtype}${schema.description ? ` · ${schema.description}` : ""}`,
      schema: single ? schema : (schema.properties?.[name] ?? {}),
      dtype,
      shape,
      changed,
    }),
  ]);
};
