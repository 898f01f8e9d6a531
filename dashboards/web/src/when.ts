// Times and dates in words, as the gateway's own messages write them: by the town's clock, wherever the reader is.

import type { Language } from "./words/say";

const PARTS = new Intl.DateTimeFormat("en", {
  timeZone: "Asia/Tokyo", year: "numeric", month: "numeric", day: "numeric", hour: "2-digit", minute: "2-digit", hourCycle: "h23",
});
const MONTHS = ["January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
  "December"];

interface Local { year: number; month: number; day: number; hour: number; minute: number }

/** The town's calendar and clock at `us` (UTC microseconds). */
export function inTown(us: number): Local {
  const found: Record<string, number> = {};
  for (const part of PARTS.formatToParts(us / 1000)) found[part.type] = Number(part.value);
  return found as unknown as Local;
}

/** 午前6時12分; en: 6:12 am. */
export function timeWords(language: Language, us: number): string {
  const { hour, minute } = inTown(us);
  if (language === "en") return `${hour % 12 || 12}:${String(minute).padStart(2, "0")} ${hour < 12 ? "am" : "pm"}`;
  if (language === "ja") return `${hour < 12 ? "午前" : "午後"}${hour % 12}時${minute}分`;
  return `${hour < 12 ? "午前（ごぜん）" : "午後（ごご）"} ${hour % 12}時（じ）${minute}分（ふん）`;
}

/** 6月3日; en: 3 June. */
export function dayWords(language: Language, us: number): string {
  const { month, day } = inTown(us);
  if (language === "en") return `${day} ${MONTHS[month - 1]}`;
  return language === "ja" ? `${month}月${day}日` : `${month}月（がつ）${day}日（にち）`;
}

/** 6月3日 午前6時12分; en: 6:12 am, 3 June. */
export function momentWords(language: Language, us: number): string {
  const [day, time] = [dayWords(language, us), timeWords(language, us)];
  return language === "en" ? `${time}, ${day}` : `${day} ${time}`;
}
