// Which marks stand on the map: each by itself, or, where there are too many, one for all that share a square.

import type { Status } from "./known";

export interface Spot { key: string; x: number; y: number; status: Status }
export interface Mark { id: string; keys: readonly string[]; x: number; y: number; status: Status }

export const MOST_ALONE = 200;
const SQUARE_PX = 72;
const WORST: readonly Status[] = ["alert", "unknown", "ok"];

/** `spots` in pixels of the whole map at its zoom, so that squares stay where they are when it is moved. */
export function gathered(spots: readonly Spot[]): Mark[] {
  if (spots.length <= MOST_ALONE) return spots.map((one) => ({ ...one, id: one.key, keys: [one.key] }));
  const squares = new Map<string, Spot[]>();
  for (const one of spots) {
    const square = `${Math.floor(one.x / SQUARE_PX)}:${Math.floor(one.y / SQUARE_PX)}`;
    const there = squares.get(square);
    if (there === undefined) squares.set(square, [one]);
    else there.push(one);
  }
  return [...squares].map(([square, there]) => {
    const first = there[0] as Spot;
    const mean = (of: (one: Spot) => number): number => there.reduce((all, one) => all + of(one), 0) / there.length;
    const status = WORST.find((worst) => there.some((one) => one.status === worst)) ?? "ok";
    return { id: there.length === 1 ? first.key : square, keys: there.map((one) => one.key), x: mean((one) => one.x), y: mean((one) => one.y), status };
  });
}
