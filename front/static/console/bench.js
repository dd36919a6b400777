// The workbench of one model: its form, pad, picture and JSON, kept in step, and what they send. Owns when something is
// sent: never two requests at a time, and while one draws only the newest drawing.

import * as api from "./api.js";
import { byId, freshId, make, replace, say } from "./dom.js";
import { makeForm, pretty } from "./form.js";
import { makePad } from "./pad.js";
import { makePicture } from "./picture.js";
import { makeTabs } from "./tabs.js";

const TOP = 10;
const LIVE_MS = 40; // a pause in a drawing after which it is asked about
const PICTURE_SHOWN_MOST = 48 * 1024; // bytes of a picture that the JSON tab still shows
const CURL_MOST = 1_500;

/** Whether a contract is a classifier's. */
export const isClassifier = (contract) => Boolean(contract.image || contract.labels.length);

/** The workbench. answered(reply, model, useSample) hears of every answer; of null when a drawing was cleared. */
export const makeBench = (answered) => {
  const known = new Map(); // model, version asked for and contract -> what was filled in there
  let now = null;
  let asked = null; // the request in flight
  let again = false; // whether something changed meanwhile
  let timer = 0;

  // The answer that is shown is not yet the one to what is there now.
  const wait = (on) => byId("answer").setAttribute("aria-busy", on);
  const send = async () => {
    clearTimeout(timer);
    timer = 0;
    if (asked) {
      again = true;
      return;
    }
    const one = now;
    asked = new AbortController();
    const { signal } = asked;
    wait(true);
    one.clearErrors();
    const body = await one.body();
    if (body === null) one.complain("There is nothing to send yet.");
    const reply = body === null || signal.aborted ? null : await api.ask(one.path, body, signal);
    asked = null;
    wait(again || timer !== 0);
    if (one === now && reply) {
      const box = reply.status === 200 ? null : one.explain(reply);
      answered(reply, one.model, one.useSample);
      if (box && !one.isLive()) box.focus();
    }
    if (again) {
      again = false;
      send();
    }
  };
  const soon = () => {
    clearTimeout(timer);
    if (!now.isLive()) return;
    wait(true);
    timer = setTimeout(() => {
      timer = 0;
      if (!now.isEmpty()) return send();
      wait(false);
      return answered(null);
    }, LIVE_MS);
  };
  const refresh = async () => {
    const one = now;
    say(byId("curl"), one.curl());
    await one.mirror();
    if (one === now) say(byId("curl"), one.curl());
  };
  const changed = () => {
    refresh();
    soon();
  };

  byId("send").addEventListener("click", send);
  byId("sample").addEventListener("click", () => now.sample());
  byId("copy").addEventListener("click", () => copy(byId("curl").textContent));
  byId("live-on").addEventListener("change", changed);
  document.addEventListener("paste", (event) => now?.paste(event));
  byId("tabs").addEventListener("keydown", (event) => {
    const here = event.target.tagName;
    if (event.key === "Enter" && (here === "INPUT" || event.ctrlKey || event.metaKey)) send();
  });

  /** Show a version of a model; `pinned` is the version to ask for, null for the one that serves. */
  const show = (model, pinned) => {
    const { version: _, ...same } = model.contract; // what is filled in outlives a reload that changes nothing else
    const name = JSON.stringify([model.name, pinned, same]);
    if (now?.name === name) return false;
    if (!known.has(name)) known.set(name, makeOne(name, model, pinned, changed));
    asked?.abort();
    again = false;
    now = known.get(name);
    now.install();
    refresh();
    return true;
  };
  return { show, refresh: () => now && refresh() };
};

const copy = async (text) => {
  try {
    await navigator.clipboard.writeText(text);
    say(byId("copy"), "Copied");
  } catch {
    getSelection().selectAllChildren(byId("curl"));
    say(byId("copy"), "Press Ctrl+C");
  }
  setTimeout(() => say(byId("copy"), "Copy"), 2_000);
};

/** What is filled in for one version of one model. */
const makeOne = (name, model, pinned, changed) => {
  const { contract } = model;
  const isImage = Boolean(contract.image);
  const box = make("textarea", {
    id: freshId("json"),
    class: "json",
    rows: 12,
    spellcheck: "false",
    autocomplete: "off",
  });
  const note = make("p", { class: "hint", id: freshId("hint") });
  const wrong = make("p", { class: "wrong", id: freshId("wrong") });
  box.setAttribute("aria-describedby", `${note.id} ${wrong.id}`);
  const json = make("div", { class: "panel" }, make("label", { for: box.id }, "Body"), box, note, wrong);
  const edited = { is: false }; // whether the JSON says something that the other tabs do not

  const drawn = isImage ? makePad(contract.image, () => ((edited.is = false), changed())) : null;
  const chosen = isImage ? makePicture(contract.image, () => ((edited.is = false), changed())) : null;
  const form = isImage ? null : makeForm(model, () => ((edited.is = false), changed()));
  const entries = isImage
    ? [
        { name: "draw", title: "Draw", panel: make("div", { class: "panel" }, drawn.element) },
        { name: "picture", title: "Picture", panel: make("div", { class: "panel" }, chosen.element) },
      ]
    : [{ name: "form", title: "Form", panel: make("div", { class: "panel" }, form.element) }];
  entries.push({ name: "json", title: "JSON", panel: json });
  let tab = entries[0].name;
  let source = drawn; // of the picture: the pad, or what was chosen
  const place = make("div");
  const tabs = makeTabs(place, "Ways to ask", entries, (to) => {
    tab = to;
    if (to === "draw") source = drawn;
    if (to === "picture") source = chosen;
    showActions();
    changed();
  });

  const classes = contract.labels.length || contract.outputs[0]?.shape[0] || TOP;
  const query = new URLSearchParams({
    ...(pinned ? { version: pinned } : {}),
    ...(isClassifier(contract) ? { top: Math.min(classes, TOP) } : {}),
  }).toString();
  const route = `/${isClassifier(contract) ? "classify" : "predict"}/${encodeURIComponent(model.name)}`;
  const path = query ? `${route}?${query}` : route;
  const samples = samplesOf(model);
  let sampled = 0;

  const showActions = () => {
    byId("sample").hidden = samples.length === 0;
    byId("live-choice").hidden = !isImage || tab === "json";
    say(byId("endpoint"), `POST ${path}`);
  };
  const isLive = () => isImage && tab !== "json" && byId("live-on").checked;
  const body = async () => (tab === "json" ? box.value : isImage ? source.picture() : JSON.stringify(form.read()));
  const mirror = async () => {
    if (edited.is) return;
    if (!isImage) {
      box.value = pretty(form.read());
      return say(note, "The same as the form: change either.");
    }
    const picture = await source.picture();
    const shows = picture && picture.size <= PICTURE_SHOWN_MOST;
    if (edited.is) return;
    if (shows || tab !== "json") box.value = shows ? pretty({ image: await base64(picture) }) : "";
    say(
      note,
      picture && !shows
        ? "The picture is too large to be shown here."
        : "The picture as base64, or the input's numbers.",
    );
  };
  box.addEventListener("input", () => {
    edited.is = true;
    box.removeAttribute("aria-invalid");
    say(wrong, "");
    const fits = !isImage && writes(form, box.value);
    if (fits) edited.is = false;
    if (!isImage)
      say(
        note,
        fits ? "The same as the form: change either." : "The form cannot show this; it is sent as it stands here.",
      );
    changed();
  });
  const put = (sample) => {
    clearErrors();
    if (isImage && typeof sample?.image === "string" && chosen) {
      chosen.take(fromBase64(sample.image));
      tab = "picture";
      source = chosen;
      tabs.select(tab);
    } else if (!isImage && form.write(sample)) {
      edited.is = false;
      changed();
    } else {
      edited.is = true;
      box.value = pretty(sample);
      tab = "json";
      tabs.select(tab);
      changed();
    }
    showActions();
  };
  const clearErrors = () => {
    form?.clear();
    chosen?.clear();
    box.removeAttribute("aria-invalid");
    say(wrong, "");
  };
  const complain = (text) => explain({ body: { message: text, path: "/image" } });
  const explain = ({ body: told, text }) => {
    const words = told?.message ?? text;
    if (tab === "json") {
      say(wrong, told?.path ? `At ${told.path}: ${words}` : words);
      box.setAttribute("aria-invalid", "true");
      return box;
    }
    if (isImage) return tab === "picture" ? chosen.mark(words) : null;
    return told?.path ? form.mark(told.path, words) : null;
  };
  const curl = () => {
    const key = api.hasKey() ? ' -H "Authorization: Bearer $KEY"' : "";
    const to = quoted(`${location.origin}${path}`);
    if (isImage && tab !== "json") return `curl${key} --data-binary @picture.png ${to}`;
    const text = tab === "json" ? box.value : JSON.stringify(form.read());
    return `curl${key} -d ${text.length > CURL_MOST ? "@body.json" : quoted(text)} ${to}`;
  };
  const install = () => {
    replace(byId("tabs"), place);
    showActions();
    drawn?.show();
  };
  const sample = () => put(samples[sampled++ % samples.length]);
  const paste = (event) => {
    if (!chosen?.paste(event)) return;
    tab = "picture";
    source = chosen;
    tabs.select(tab);
    showActions();
    changed();
  };
  const isEmpty = () => isImage && tab !== "json" && source.isEmpty();
  tabs.select(tab);
  if (form && samples.length) form.write(samples[sampled++ % samples.length]);
  return {
    name,
    model,
    path,
    install,
    body,
    mirror,
    sample,
    useSample: put,
    explain,
    complain,
    clearErrors,
    curl,
    paste,
    isLive,
    isEmpty,
  };
};

/** The bodies that a contract gives as examples, and the one made from it. */
const samplesOf = ({ contract, sample }) => {
  const found = contract.examples.map((example) => example.request);
  if (sample && !contract.image) found.push(sample);
  const texts = found.map((one) => JSON.stringify(one));
  return found.filter((_, index) => texts.indexOf(texts[index]) === index);
};

const writes = (form, text) => {
  try {
    return form.write(JSON.parse(text));
  } catch {
    return false;
  }
};

const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;

const base64 = async (blob) => {
  let text = "";
  for (const byte of new Uint8Array(await blob.arrayBuffer())) text += String.fromCharCode(byte);
  return btoa(text);
};

const fromBase64 = (text) =>
  new File([Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0))], "sample.png", { type: "image/png" });
