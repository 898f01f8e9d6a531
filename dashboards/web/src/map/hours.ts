// Hours of an area as a chart and a table want them. Pure.

import type { components } from "../api/schema";
import { inTown } from "../when";

export type Hour = components["schemas"]["HourJson"];
/** One day: `start_us` of its first known hour, and 24 hours; undefined: nothing is known of it. */
export interface Day { start_us: number; hours: readonly (Hour | undefined)[] }

/** By the town's days, the newest first. */
export function byDay(hours: readonly Hour[]): Day[] {
  const days = new Map<string, { start_us: number; hours: (Hour | undefined)[] }>();
  for (const one of hours) {
    const { year, month, day, hour } = inTown(one.start_us);
    const key = `${year}-${month}-${day}`;
    const known = days.get(key) ?? { start_us: one.start_us, hours: new Array<Hour | undefined>(24).fill(undefined) };
    known.hours[hour] = one;
    days.set(key, known);
  }
  return [...days.values()].sort((a, b) => b.start_us - a.start_us);
}

/** 0 (none) to 4 (as many as in the fullest hour); null where nobody counted. */
export function levelOf(came: number | null, most: number): number | null {
  if (came === null) return null;
  return most === 0 ? 0 : Math.ceil((came / most) * 4);
}
