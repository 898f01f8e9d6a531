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

/** One mark. `shape` null: of many, `count` of them, or of none in particular; `status` null: only what it is. `unknown`: that nothing
 * is known of it, or of some of them, is shown beside an alert. */
export function markOf(shape: Shape | null, status: Status | null, unknown = false, count = 1, chosen = false): HTMLElement {
  const box = document.createElement("span");
  box.className = `mark ${status ?? ""}${chosen ? " chosen" : ""}`;
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", "0 0 44 44");
  svg.setAttribute("aria-hidden", "true");
  const many = count > 1;
  const sign = status === null ? "" : SIGNS[status];
  svg.append(outlineOf(many ? MANY : SHAPES[shape ?? "tags"]));
  svg.append(textOf(many ? String(count) : sign, 22, shape === "flow" && !many ? 33 : 28, count > 99 ? "long" : ""));
  if (many && status !== "ok") { // how the worst of them is, not by its colour alone
    svg.append(badgeOf(sign, "M40 -4A9 9 0 1 1 39.99 -4Z", 40));
  }
  if (status === "alert" && unknown) {
    const badge = badgeOf(SIGNS.unknown, "M4 -4A9 9 0 1 1 3.99 -4Z", 4);
    badge.setAttribute("class", "doubt");
    svg.append(badge);
  }
  box.append(svg);
  return box;
}

function badgeOf(sign: string, d: string, x: number): SVGGElement {
  const badge = document.createElementNS(SVG, "g");
  badge.append(outlineOf(d), textOf(sign, x, 10, "small"));
  return badge;
}

function outlineOf(d: string): SVGPathElement {
  const path = document.createElementNS(SVG, "path");
  path.setAttribute("d", d);
  return path;
}

function textOf(said: string, x: number, y: number, size: string): SVGTextElement {
  const text = document.createElementNS(SVG, "text");
  text.setAttribute("x", String(x));
  text.setAttribute("y", String(y));
  text.setAttribute("class", size);
  text.textContent = said;
  return text;
}
