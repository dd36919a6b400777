// Elements made by hand: text is always text, so nothing that a model or a caller wrote can become markup.
// Knows nothing of what the page shows.

const SVG = "http://www.w3.org/2000/svg";

/** The element of this id, which console.html holds. */
export const byId = (id) => document.getElementById(id);

/** A new element. attributes: by name; functions are listeners (`click: …`), null and false are left out. */
export const make = (tag, attributes = {}, ...children) => fill(document.createElement(tag), attributes, children);

/** A new SVG element. */
export const draw = (tag, attributes = {}, ...children) =>
  fill(document.createElementNS(SVG, tag), attributes, children);

/** Put these children in place of those that are there. */
export const replace = (parent, ...children) => {
  parent.replaceChildren(...children.flat().filter((one) => one !== null && one !== undefined && one !== false));
  return parent;
};

/** Set a text only where it is another: a live region speaks of changes alone. */
export const say = (element, text) => {
  if (element.textContent !== text) element.textContent = text;
};

let made = 0;
/** An id that no other element has. */
export const freshId = (word) => `${word}-${++made}`;

const fill = (element, attributes, children) => {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") element.addEventListener(name, value);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  return replace(element, ...children);
};
