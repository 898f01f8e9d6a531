// Which marks stand on the map: those that would lie upon each other become one. Pure.

import type { Status } from "./known";

/** A device on the map, in pixels of the whole map at its zoom. */
export interface Spot { key: string; x: number; y: number; status: Status; unknown: boolean }
/** `keys`: whose mark it is, in the order they came. It stands where the first of them does, and has its name: `id`.
 * `status`: the worst of them. `unknown`: of one of them at least nothing is known, whatever else is shown. */
export interface Mark { id: string; keys: readonly string[]; x: number; y: number; status: Status; unknown: boolean }

const FEW = 200;
const NEAR_PX = 32; // as wide as a mark's shape
const NEAR_OF_MANY_PX = 56;
/** From the worst on. */
export const WORST: readonly Status[] = ["alert", "unknown", "ok"];

/** How near to each other two devices have one mark, in pixels, where so many are seen. */
export const nearPx = (seen: number): number => (seen <= FEW ? NEAR_PX : NEAR_OF_MANY_PX);

/** Each spot joins the nearest mark closer than `near` that is there already. How a device is decides nothing: what happens to it
 * moves no mark, only what the mark shows, which is the worst of its devices. No two marks are closer than `near`. */
export function gathered(spots: readonly Spot[], near: number): Mark[] {
  const marks: (Mark & { keys: string[] })[] = [];
  const squares = new Map<string, (Mark & { keys: string[] })[]>();
  for (const { key, x, y, status, unknown } of spots) {
    const [column, row] = [Math.floor(x / near), Math.floor(y / near)];
    let [found, least]: [Mark & { keys: string[] } | undefined, number] = [undefined, near];
    for (const beside of [-1, 0, 1].flatMap((dx) => [-1, 0, 1].map((dy) => `${column + dx}:${row + dy}`))) {
      for (const one of squares.get(beside) ?? []) {
        const far = Math.hypot(one.x - x, one.y - y);
        if (far < least) [found, least] = [one, far];
      }
    }
    if (found !== undefined) {
      found.keys.push(key);
      if (WORST.indexOf(status) < WORST.indexOf(found.status)) found.status = status;
      if (unknown) found.unknown = true;
      continue;
    }
    const made = { id: key, keys: [key], x, y, status, unknown };
    marks.push(made);
    const square = `${column}:${row}`;
    squares.set(square, [...(squares.get(square) ?? []), made]);
  }
  return marks;
}

/** Whether these can't be told apart on any map: they are one mark at its last zoom, whose pixels these are. */
export const atOnePlace = (spots: readonly Spot[]): boolean => gathered(spots, NEAR_PX).length === 1;

/** The order in which marks are reached by Tab: the worst first. */
export const inTurn = (marks: readonly Mark[]): Mark[] => WORST.flatMap((status) => marks.filter((one) => one.status === status));
