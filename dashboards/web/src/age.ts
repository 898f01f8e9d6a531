// How old a value is, in words. By the time since the gateway answered, never by the phone's clock, which may be wrong.

import type { Say } from "./words/say";

/** `ms` since the value was so. */
export function ageWords(say: Say, ms: number): string {
  const s = Math.max(0, Math.floor(ms / 1000));
  if (s < 60) return say("web_all.age_s", { n: s });
  if (s < 3600) return say("web_all.age_min", { n: Math.floor(s / 60) });
  return say("web_all.age_h", { n: Math.floor(s / 3600) });
}
