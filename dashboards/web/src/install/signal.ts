// What ten round trips say of a place. Pure.

import type { Trip } from "./record";

export const TRIPS = 10;
/** Below it a mobile network goes to and fro between there and not there. */
export const WEAK_DBM = -110;
/** One in ten may be lost on any link. */
export const ENOUGH = 9;

export interface Verdict { readonly said: "good" | "weak" | "none"; readonly answered: number; readonly dbm: number | null; readonly ms: number | null }

/** `dbm`, `ms`: the middle one of those that were told. */
export function verdict(trips: readonly Trip[]): Verdict {
  const answered = trips.filter(([ms]) => ms !== null).length;
  const dbm = middle(trips.map(([, one]) => one));
  const ms = middle(trips.map(([one]) => one));
  const strong = dbm === null || dbm >= WEAK_DBM;
  const said = answered === 0 ? "none" : answered >= ENOUGH && strong ? "good" : "weak";
  return { said, answered, dbm, ms };
}

function middle(values: readonly (number | null)[]): number | null {
  const known = values.filter((one): one is number => one !== null).sort((a, b) => a - b);
  return known[Math.floor((known.length - 1) / 2)] ?? null;
}
