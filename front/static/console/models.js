// The models on the left and the contract of the chosen one. Owns which is chosen (also in the address, ?model=).

import { byId, make, replace, say } from "./dom.js";
import { clip, count, percent, plural } from "./format.js";

const FILTER_FROM = 8; // models from which on there is a filter
const LABELS_MOST = 24;
const STATES = { READY: "good", LOADING: "warn", UNLOADING: "warn", FAILED: "bad" };

/** The list. chosen(): another model, or version of it, is looked at. */
export const makeModels = (chosen) => {
  let versions = []; // as GET /models gives them, with what GET /status adds
  let name = new URLSearchParams(location.search).get("model");
  let pinned = null; // the version asked for, null for the one that serves
  let usual = null;

  const names = () => [...new Set(versions.map((one) => one.name))];
  const of = (model) => versions.filter((one) => one.name === model);
  const serving = (model) =>
    of(model).find((one) => one.serves) ?? of(model).find((one) => one.state === "READY") ?? of(model)[0];
  const current = () =>
    name === null ? null : (of(name).find((one) => one.version === pinned) ?? serving(name) ?? null);

  const pick = (model, version = null) => {
    name = model;
    pinned = version;
    const address = new URL(location.href);
    address.searchParams.set("model", model);
    history.replaceState(null, "", address);
    show();
    chosen();
  };

  const showList = () => {
    const all = names();
    byId("filter").hidden = all.length < FILTER_FROM;
    const wanted = byId("filter").value.trim().toLowerCase();
    const shown = all.filter((model) => model.toLowerCase().includes(wanted));
    say(byId("models-count"), shown.length === all.length ? String(all.length) : `${shown.length} of ${all.length}`);
    const list = byId("models");
    const there = new Map([...list.children].map((item) => [item.dataset.name, item]));
    const items = shown.map((model) => there.get(model) ?? makeItem(model, () => pick(model)));
    if (items.length !== list.children.length || items.some((item, index) => item !== list.children[index]))
      replace(list, items);
    for (const item of items)
      fillItem(item, of(item.dataset.name), serving(item.dataset.name), item.dataset.name === name);
    byId("models-empty").hidden = shown.length > 0;
    say(byId("models-empty"), all.length ? "No model has this in its name." : "No models yet.");
  };
  const showAbout = () => {
    const model = current();
    say(byId("try-title"), model?.name ?? "No model yet");
    byId("try-title").title = model?.name ?? "";
    byId("bench").hidden = !model?.contract;
    byId("about-text").hidden = !model?.contract?.description;
    say(byId("about-text"), model?.contract?.description ?? "");
    if (!model) return (replace(byId("about-state")), replace(byId("contract")));
    showState(model, of(name), pinned, (version) => pick(name, version));
    return showContract(model, of(name));
  };
  const show = () => {
    if (name === null || !names().includes(name)) {
      const image = versions.find((one) => one.contract?.image && one.state === "READY");
      name = image?.name ?? usual ?? names()[0] ?? null;
      pinned = null;
    }
    if (pinned !== null && !of(name).some((one) => one.version === pinned)) pinned = null;
    showList();
    showAbout();
  };
  byId("filter").addEventListener("input", showList);

  /** Take what is known now. */
  const update = (found, byDefault) => {
    versions = found;
    usual = byDefault;
    show();
  };
  return { update, current, pinned: () => pinned, names, versions: () => versions };
};

const makeItem = (model, picked) =>
  make(
    "li",
    { "data-name": model },
    make(
      "button",
      { type: "button", title: model, click: picked },
      make("span", { class: "dot", "aria-hidden": true }),
      make("span", { class: "model-name" }, model),
      make("span", { class: "model-note muted small" }),
    ),
  );

const fillItem = (item, versions, serving, isCurrent) => {
  const [button] = item.children;
  const [dot, , note] = button.children;
  if (isCurrent) button.setAttribute("aria-current", "true");
  else button.removeAttribute("aria-current");
  dot.dataset.state = STATES[serving.state] ?? "warn";
  const kind = serving.contract?.image ? "image" : "";
  const state = serving.state === "READY" ? `v${serving.version}` : serving.state.toLowerCase();
  say(note, [kind, versions.length > 1 ? plural(versions.length, "version") : state].filter(Boolean).join(" · "));
};

const showState = (model, versions, pinned, pick) => {
  const place = byId("about-state");
  const tone = STATES[model.state] ?? "warn";
  const badge = make("span", { class: `badge ${tone}` }, model.state.toLowerCase());
  if (versions.length < 2) return replace(place, badge, make("span", { class: "muted" }, ` version ${model.version}`));
  let select = place.querySelector("select");
  if (!select) {
    select = make("select", { "aria-label": "Version to ask" });
    replace(place, badge, select);
  }
  place.firstElementChild.replaceWith(badge);
  select.onchange = () => pick(select.value || null);
  const serving = versions.find((one) => one.serves) ?? versions[0];
  const options = [["", `as routed (now ${serving.version})`], ...versions.map((one) => [one.version, wordsOf(one)])];
  const same =
    options.length === select.options.length &&
    options.every(
      ([value, text], index) => select.options[index].value === value && select.options[index].text === text,
    );
  if (!same)
    replace(
      select,
      options.map(([value, text]) => make("option", { value }, text)),
    );
  select.value = pinned ?? "";
  return undefined;
};

const wordsOf = (one) => {
  const notes = [...(one.labels ?? [])];
  if (one.canary_share) notes.push(`canary ${percent(one.canary_share)}`);
  if (one.state !== "READY") notes.push(one.state.toLowerCase());
  return `version ${one.version}${notes.length ? ` (${notes.join(", ")})` : ""}`;
};

const showContract = (model, versions) => {
  const place = byId("contract");
  const told = JSON.stringify([
    model.name,
    model.version,
    model.reason,
    model.contract?.routes,
    model.generation,
    versions.map((one) => [
      one.version,
      one.state,
      one.reason,
      one.labels,
      one.serves,
      one.canary_share,
      one.generation,
    ]),
  ]);
  if (place.dataset.told === told) return;
  place.dataset.told = told;
  const wasOpen = place.querySelector("details")?.open ?? false;
  const { contract } = model;
  const reason = model.reason ? make("p", { class: "banner bad" }, clip(model.reason, 1_000)) : null;
  if (!contract) {
    replace(
      place,
      reason,
      make(
        "p",
        { class: "empty" },
        model.state === "LOADING"
          ? "It is loading; its contract is known when it is ready."
          : "Its contract is not known.",
      ),
    );
    return;
  }
  const summary = make(
    "summary",
    {},
    make("span", { class: "summary-word" }, "Contract"),
    make(
      "span",
      { class: "muted small" },
      `${contract.inputs.map(tensor).join(", ")} → ${contract.outputs.map(tensor).join(", ")}`,
    ),
  );
  const facts = [];
  if (contract.image)
    facts.push(["Picture", `${contract.image.width} × ${contract.image.height}, ${contract.image.colour}`]);
  if (contract.labels.length) facts.push(["Labels", labelsOf(contract.labels)]);
  if (contract.fields.length) facts.push(["Fields", contract.fields.map((field) => clip(field.name, 64)).join(", ")]);
  if (contract.routes.length) facts.push(["Own routes", contract.routes.join(", ")]);
  if (contract.max_rows) facts.push(["Rows at once", `at most ${count(contract.max_rows)}`]);
  if (model.group) facts.push(["Group", `${model.group}, generation ${model.generation}`]);
  const details = make(
    "details",
    { class: "contract" },
    summary,
    make(
      "div",
      { class: "contract-body" },
      make(
        "div",
        { class: "scroll", tabindex: 0, role: "region", "aria-label": "Inputs and outputs" },
        tensorsTable(contract),
      ),
      make("dl", { class: "facts" }, facts.map(([word, what]) => [make("dt", {}, word), make("dd", {}, what)]).flat()),
      versions.length > 1 || model.labels?.length
        ? make(
            "div",
            { class: "scroll", tabindex: 0, role: "region", "aria-label": "Versions" },
            versionsTable(versions),
          )
        : null,
    ),
  );
  details.open = wasOpen;
  replace(place, reason, details);
};

const shapeOf = (shape) => (shape.length ? `[${shape.map((size) => size ?? "any").join(", ")}]` : "scalar");
const tensor = ({ name, dtype, shape }) => `${clip(name, 40)} ${dtype} ${shapeOf(shape)}`;

const tensorsTable = ({ inputs, outputs }) =>
  make(
    "table",
    {},
    make(
      "thead",
      {},
      make(
        "tr",
        {},
        ["", "Name", "Type", "Shape of a row"].map((word) => (word ? make("th", { scope: "col" }, word) : make("td"))),
      ),
    ),
    make(
      "tbody",
      {},
      [
        ["Input", inputs],
        ["Output", outputs],
      ].flatMap(([word, tensors]) =>
        tensors.map(({ name, dtype, shape }) =>
          make(
            "tr",
            {},
            make("td", { class: "muted" }, word),
            make("td", {}, clip(name, 80)),
            make("td", {}, dtype),
            make("td", {}, shapeOf(shape)),
          ),
        ),
      ),
    ),
  );

const versionsTable = (versions) =>
  make(
    "table",
    {},
    make(
      "thead",
      {},
      make(
        "tr",
        {},
        ["Version", "State", "Serves", "Labels", "Generation"].map((word) => make("th", { scope: "col" }, word)),
      ),
    ),
    make(
      "tbody",
      {},
      versions.map((one) =>
        make(
          "tr",
          {},
          make("th", { scope: "row" }, one.version),
          make(
            "td",
            {},
            one.state.toLowerCase(),
            one.reason ? make("div", { class: "hint" }, clip(one.reason, 300)) : null,
          ),
          make("td", {}, one.serves ? "yes" : one.canary_share ? `canary, ${percent(one.canary_share)}` : ""),
          make("td", {}, (one.labels ?? []).join(", ")),
          make("td", {}, String(one.generation ?? "")),
        ),
      ),
    ),
  );

const labelsOf = (labels) => {
  const shown = labels
    .slice(0, LABELS_MOST)
    .map((label) => clip(label, 40))
    .join(", ");
  return labels.length > LABELS_MOST ? `${shown} and ${count(labels.length - LABELS_MOST)} more` : shown;
};
