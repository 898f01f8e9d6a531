// Times that people enter, by the town's clock; and how long something is from now.

import { inTown } from "../../when";

const two = (n: number): string => String(n).padStart(2, "0");

/** What a field for a moment holds, "2026-06-03T06:12", of UTC microseconds. */
export function fieldOf(us: number): string {
  const { year, month, day, hour, minute } = inTown(us);
  return `${year}-${two(month)}-${two(day)}T${two(hour % 24)}:${two(minute)}`;
}

/** UTC microseconds of what a field for a moment holds. The town's clock is nine hours ahead all year. */
export const usOf = (field: string): number => Date.parse(`${field}:00+09:00`) * 1000;

export const HOUR_US = 3_600_000_000;
export const DAY_US = 24 * HOUR_US;

/** A random UUID; also where the page came over http, when the browser's own is not there. */
export function newId(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = ((bytes[6] ?? 0) & 0x0f) | 0x40;
  bytes[8] = ((bytes[8] ?? 0) & 0x3f) | 0x80;
  const hex = [...bytes].map((one) => one.toString(16).padStart(2, "0")).join("");
  return hex.replace(/(.{8})(.{4})(.{4})(.{4})(.{12})/, "$1-$2-$3-$4-$5");
}
