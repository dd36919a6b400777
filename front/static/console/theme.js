// Light, dark, or as the system has it. Owns that choice, which is kept for this browser.

import { byId, say } from "./dom.js";

const NEXT = { auto: "light", light: "dark", dark: "auto" };

/** Make the button work and take the choice made before. */
export const setUpTheme = () => {
  let theme = NEXT[localStorage.getItem("theme")] ? localStorage.getItem("theme") : "auto";
  const show = () => {
    document.documentElement.dataset.theme = theme;
    say(byId("theme"), `Theme: ${theme}`);
  };
  byId("theme").addEventListener("click", () => {
    theme = NEXT[theme];
    localStorage.setItem("theme", theme);
    show();
  });
  show();
};
