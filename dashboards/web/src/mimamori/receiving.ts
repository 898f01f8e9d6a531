// How I am told, in and out of the form: hours, days, and whether this browser can be told at all. Pure.

export interface Hours { readonly from: string; readonly to: string }

/** The one pair of hours that the form can change; null where what is set says more than that (days, several). */
export function hoursOf(quiet: readonly Record<string, unknown>[] | null): Hours | null {
  const only = quiet?.length === 1 ? quiet[0] : undefined;
  if (only === undefined || (only.days !== null && only.days !== undefined)) return null;
  const [from, to] = [String(only.from), String(only.to)];
  return /^\d\d:\d\d/.test(from) && /^\d\d:\d\d/.test(to) ? { from: from.slice(0, 5), to: to.slice(0, 5) } : null;
}

const DAY_MS = 86_400_000;
/** 2026-06-05: `days` from now, by the town's calendar. */
export const dateAfter = (nowUs: number, days: number): string =>
  new Date(nowUs / 1000 + 9 * 3_600_000 + days * DAY_MS).toISOString().slice(0, 10);
/** The end of that day in the town, UTC µs. */
export const endOfDay = (date: string): number => (Date.parse(`${date}T00:00:00+09:00`) + DAY_MS) * 1000;

export type Push = "here" | "home" | "never";
/** Whether this browser can be told: "home" once the page is on the home screen (iOS), "never": it has no way. */
export function pushHere(browser: { userAgent: string; maxTouchPoints?: number; serviceWorker?: unknown }, has: boolean): Push {
  if (has && "serviceWorker" in browser) return "here";
  const touches = /Macintosh/.test(browser.userAgent) && (browser.maxTouchPoints ?? 0) > 1; // an iPad says it is a Mac
  return touches || /iPhone|iPad|iPod/.test(browser.userAgent) ? "home" : "never";
}
