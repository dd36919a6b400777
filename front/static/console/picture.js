// A place to drop, choose or paste a picture. Owns the picture chosen. Knows nothing of who is asked.

import { freshId, make, replace, say } from "./dom.js";
import { bytes } from "./format.js";

/** A place for a picture; changed() when there is another one. */
export const makePicture = (image, changed) => {
  let file = null;
  let address = "";
  const id = freshId("file");
  const input = make("input", { type: "file", id, accept: "image/*", class: "visually-hidden" });
  const text = make("p", { class: "drop-text" });
  const shown = make("div", { class: "drop-shown" });
  const wrong = make("p", { class: "wrong", id: freshId("wrong") });
  const label = make("label", { for: id, class: "button" }, "Choose a picture");
  const element = make("div", { class: "drop" }, shown, input, label, text, wrong);
  input.setAttribute("aria-describedby", wrong.id);
  const empty = `or drop one here, or paste it. It is sent as it is; the server makes ${image.width} × ${image.height} ${image.colour === "grey" ? "grey " : ""}pixels of it.`;
  say(text, empty);

  const take = (chosen) => {
    if (!chosen) return;
    say(wrong, "");
    input.removeAttribute("aria-invalid");
    file = chosen;
    URL.revokeObjectURL(address);
    address = URL.createObjectURL(file);
    const picture = make("img", { src: address, alt: `The chosen picture, ${file.name || "pasted"}` });
    picture.addEventListener("error", () => replace(shown)); // the server will say what it is
    replace(shown, picture);
    say(label, "Choose another");
    say(text, `${file.name || "pasted picture"} · ${bytes(file.size)}`);
    changed();
  };
  input.addEventListener("change", () => take(input.files[0]));
  const over = (on) => (event) => {
    event.preventDefault();
    element.classList.toggle("over", on);
  };
  element.addEventListener("dragover", over(true));
  element.addEventListener("dragleave", over(false));
  element.addEventListener("drop", (event) => {
    over(false)(event);
    take(event.dataTransfer.files[0]);
  });
  /** Take what a person pasted anywhere; whether there was a picture. */
  const paste = (event) => {
    const found = [...event.clipboardData.files].find((one) => one.type.startsWith("image/"));
    take(found);
    return Boolean(found);
  };
  const mark = (words) => {
    say(wrong, words);
    input.setAttribute("aria-invalid", "true");
    return input;
  };
  const clear = () => {
    say(wrong, "");
    input.removeAttribute("aria-invalid");
  };
  return { element, picture: async () => file, paste, take, mark, clear, isEmpty: () => file === null };
};
