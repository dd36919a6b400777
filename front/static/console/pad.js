// A pad to draw on with mouse, finger or pen. Owns the strokes, and how they become a picture for the model: cut to the
// drawing, with a margin, in lines as wide for their height as written digits have them.
// Knows nothing of who is asked.

import { freshId, make } from "./dom.js";

const SIDE = 280; // of the pad, in its own units
const INK = 15; // width of a line on the pad
const MARGIN = 0.14; // of the drawing's larger side, on each side of it
const LINE = 0.17; // width of a line for the drawing's larger side, in what is sent; MNIST's are 0.15, scikit-learn's 0.2
const SMALLEST = 60; // a drawing below this is not blown up further: a dot stays a dot
const SENT = 128; // pixels of the picture's side, at least; the server makes it as small as the model wants

/** A pad. image: of the contract. changed(): the drawing is another now. */
export const makePad = (image, changed) => {
  const strokes = [];
  const hint = freshId("hint");
  const surface = make("canvas", {
    class: "pad",
    width: SIDE,
    height: SIDE,
    role: "img",
    "aria-label": "Drawing pad, empty",
    "aria-describedby": hint,
  });
  const seen = make("canvas", {
    class: "seen",
    width: image.width,
    height: image.height,
    role: "img",
    "aria-label": "What the model sees",
  });
  const undo = make("button", { type: "button", click: () => drop(() => strokes.pop()) }, "Undo");
  const clear = make("button", { type: "button", click: () => drop(() => strokes.splice(0)) }, "Clear");
  const element = make(
    "div",
    { class: "drawing" },
    surface,
    make(
      "div",
      { class: "beside" },
      make("div", { class: "actions tight" }, undo, clear),
      make("figure", {}, seen, make("figcaption", {}, "What the model sees")),
    ),
    make(
      "p",
      { class: "hint", id: hint },
      "Draw with mouse, finger or pen. Without one, choose a picture in the next tab.",
    ),
  );

  const show = () => {
    paint(surface.getContext("2d"), strokes, 1, 0, 0, INK, ink(surface), null);
    const [colour, paper] = colours(image);
    const small = seen.getContext("2d");
    small.fillStyle = paper;
    small.fillRect(0, 0, seen.width, seen.height);
    small.imageSmoothingQuality = "high";
    if (strokes.length) small.drawImage(framed(strokes, image, colour, paper), 0, 0, seen.width, seen.height);
    undo.disabled = clear.disabled = strokes.length === 0;
    const text = strokes.length
      ? `Drawing pad, ${strokes.length} stroke${strokes.length === 1 ? "" : "s"}`
      : "Drawing pad, empty";
    if (surface.getAttribute("aria-label") !== text) surface.setAttribute("aria-label", text);
  };
  const drop = (change) => {
    change();
    show();
    changed();
  };

  const at = (event) => {
    const box = surface.getBoundingClientRect();
    return [((event.clientX - box.left) / box.width) * SIDE, ((event.clientY - box.top) / box.height) * SIDE];
  };
  let pen = null; // the pointer that draws; a second finger draws nothing
  surface.addEventListener("pointerdown", (event) => {
    if (pen !== null || event.button !== 0) return;
    pen = event.pointerId;
    surface.setPointerCapture(pen);
    strokes.push([at(event)]);
    show();
    changed();
    event.preventDefault();
  });
  surface.addEventListener("pointermove", (event) => {
    if (event.pointerId !== pen) return;
    const moves = event.getCoalescedEvents?.() ?? [];
    strokes.at(-1).push(...(moves.length ? moves : [event]).map(at));
    show();
    changed();
  });
  const end = (event) => {
    if (event.pointerId === pen) pen = null;
  };
  surface.addEventListener("pointerup", end);
  surface.addEventListener("pointercancel", end);
  const redraw = () => show();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  new MutationObserver(redraw).observe(document.documentElement, { attributeFilter: ["data-theme"] });

  show();
  /** The picture as a PNG; null where nothing is drawn. */
  const picture = async () => {
    if (!strokes.length) return null;
    const canvas = framed(strokes, image, ...colours(image));
    return new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
  };
  return { element, picture, show, isEmpty: () => strokes.length === 0 };
};

// Grey models have mostly learned light ink on dark, as the usual data sets of digits are; pictures are dark on light.
const colours = (image) => (image.colour === "grey" ? ["#fff", "#000"] : ["#000", "#fff"]);

const ink = (surface) => getComputedStyle(surface).color;

/** The strokes in the middle of a canvas of the model's proportions. */
const framed = (strokes, image, colour, paper) => {
  const xs = strokes.flat().map(([x]) => x);
  const ys = strokes.flat().map(([, y]) => y);
  const [left, right, top, bottom] = [Math.min(...xs), Math.max(...xs), Math.min(...ys), Math.max(...ys)];
  const size = Math.max(right - left, bottom - top, SMALLEST);
  const room = size * (1 + 2 * MARGIN + LINE);
  const side = Math.max(SENT, image.width, image.height);
  const canvas = make("canvas", { width: side, height: Math.round((side * image.height) / image.width) });
  const scale = Math.min(canvas.width, canvas.height) / room;
  const [x, y] = [canvas.width / 2 - ((left + right) / 2) * scale, canvas.height / 2 - ((top + bottom) / 2) * scale];
  paint(canvas.getContext("2d"), strokes, scale, x, y, size * LINE, colour, paper);
  return canvas;
};

const paint = (context, strokes, scale, x, y, width, colour, paper) => {
  const { canvas } = context;
  context.setTransform(1, 0, 0, 1, 0, 0);
  context.clearRect(0, 0, canvas.width, canvas.height);
  if (paper) {
    context.fillStyle = paper;
    context.fillRect(0, 0, canvas.width, canvas.height);
  }
  context.setTransform(scale, 0, 0, scale, x, y);
  context.strokeStyle = colour;
  context.lineWidth = width;
  context.lineCap = context.lineJoin = "round";
  for (const points of strokes) {
    context.beginPath();
    context.moveTo(...points[0]);
    if (points.length === 1) context.lineTo(...points[0]);
    // Through the middles of neighbouring points, so that a quick hand draws curves and no corners.
    for (let index = 1; index < points.length; index++) {
      const [fromX, fromY] = points[index - 1];
      const [toX, toY] = points[index];
      context.quadraticCurveTo(fromX, fromY, (fromX + toX) / 2, (fromY + toY) / 2);
    }
    context.lineTo(...points.at(-1));
    context.stroke();
  }
};
