// How a mark on the map looks: its shape says what it is, its sign and colour how it is.

import type { Status } from "./known";
import type { Shape } from "./say";

const SVG = "http://www.w3.org/2000/svg";
const SHAPES: Readonly<Record<Shape, string>> = {
  trap: "M22 6 38 22 22 38 6 22Z",
  camera: "M8 11H36V33H8Z",
  tags: "M22 7A15 15 0 1 1 21.99 7Z",
  flow: "M22 5 39 36H5Z",
  node: "M14 8H30L38 22 30 36H14L6 22Z",
  device: "M22 10A12 12 0 1 1 21.99 10Z",
};
const MANY = "M22 2A20 20 0 1 1 21.99 2Z";
const SIGNS: Readonly<Record<Status, string>> = { alert: "!", unknown: "?", ok: "✓" };

/** One mark. `shape` null: of many, `count` of them, or of none in particular; `status` null: only what it is. */
export function markOf(shape: Shape | null, status: Status | null, count = 1, chosen = false): HTMLElement {
  const box = document.createElement("span");
  box.className = `mark ${status ?? ""}${chosen ? " chosen" : ""}`;
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", "0 0 44 44");
  const outline = document.createElementNS(SVG, "path");
  outline.setAttribute("d", count > 1 ? MANY : SHAPES[shape ?? "tags"]);
  const sign = document.createElementNS(SVG, "text");
  sign.setAttribute("x", "22");
  sign.setAttribute("y", shape === "flow" ? "33" : "29");
  sign.textContent = count > 1 ? String(count) : status === null ? "" : SIGNS[status];
  svg.append(outline, sign);
  box.append(svg);
  return box;
}
