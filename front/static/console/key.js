// The dialog that asks for a key. Owns that it asks by itself only once: afterwards a button does.

import * as api from "./api.js";
import { byId, say } from "./dom.js";

/** given(): a key was given, try again with it. */
export const makeKeyAsking = (given) => {
  let hasAsked = false;
  const dialog = byId("key-dialog");
  const open = (words) => {
    byId("key-button").hidden = false;
    byId("key").value = "";
    say(byId("key-wrong"), words);
    if (!dialog.open) dialog.showModal();
    byId("key").focus();
  };
  byId("key-form").addEventListener("submit", (event) => {
    event.preventDefault();
    const key = byId("key").value.trim();
    if (!key) return say(byId("key-wrong"), "There is nothing in the box.");
    api.setKey(key);
    dialog.close();
    given();
    return undefined;
  });
  byId("key-later").addEventListener("click", () => dialog.close());
  byId("key-button").addEventListener("click", () => open(""));

  /** A call was refused for want of a good key. */
  const refused = () => {
    byId("key-button").hidden = false;
    if (api.hasKey()) {
      api.setKey("");
      open("The server does not know this key.");
    } else if (!hasAsked) open("");
    hasAsked = true;
  };
  if (api.hasKey()) byId("key-button").hidden = false;
  return { refused, open: () => open("") };
};
