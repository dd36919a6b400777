// Tabs by the ARIA practice: one tab stop, arrow keys move, Home and End jump. Knows nothing of what is in them.

import { freshId, make, replace } from "./dom.js";

/** Tabs in `place`: entries are {name, title, panel}. `chosen(name)` hears of each change that a person makes. */
export const makeTabs = (place, label, entries, chosen) => {
  const tabs = entries.map(({ name, title, panel }) => {
    const id = freshId("tab");
    panel.id ||= freshId("panel");
    panel.setAttribute("role", "tabpanel");
    panel.setAttribute("aria-labelledby", id);
    return make("button", { type: "button", role: "tab", id, "aria-controls": panel.id, "data-name": name }, title);
  });
  const select = (name) => {
    for (const [index, tab] of tabs.entries()) {
      const on = tab.dataset.name === name;
      tab.setAttribute("aria-selected", on);
      tab.tabIndex = on ? 0 : -1;
      entries[index].panel.hidden = !on;
    }
  };
  const pick = (index) => {
    const tab = tabs[(index + tabs.length) % tabs.length];
    select(tab.dataset.name);
    tab.focus();
    chosen(tab.dataset.name);
  };
  const moves = { ArrowRight: 1, ArrowLeft: -1 };
  for (const [index, tab] of tabs.entries()) {
    tab.addEventListener("click", () => pick(index));
    tab.addEventListener("keydown", (event) => {
      if (event.key in moves) pick(index + moves[event.key]);
      else if (event.key === "Home") pick(0);
      else if (event.key === "End") pick(tabs.length - 1);
      else return;
      event.preventDefault();
    });
  }
  const list = make("div", { role: "tablist", "aria-label": label, class: "tabs" }, tabs);
  replace(place, list, ...entries.map((entry) => entry.panel));
  return { select };
};
