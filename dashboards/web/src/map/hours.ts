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

/** Whether an hour of that day is over, goes on, or is still to come at `nowUs`: only of one that is over it can be said that nobody
 * counted. */
export function whenOf(day: Day, hour: number, nowUs: number): "over" | "now" | "ahead" {
  const [of, now] = [inTown(day.start_us), inTown(nowUs)];
  if (of.year !== now.year || of.month !== now.month || of.day !== now.day || hour < now.hour) return "over";
  return hour === now.hour ? "now" : "ahead";
}

/** 0 (none) to 4 (as many as in the fullest hour); null where nobody counted. */
export function levelOf(came: number | null, most: number): number | null {
  if (came === null) return null;
  return most === 0 ? 0 : Math.ceil((came / most) * 4);
}
