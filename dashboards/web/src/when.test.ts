import { expect, it } from "vitest";
import { dayWords, momentWords, timeWords } from "./when";

const EARLY = Date.UTC(2026, 5, 2, 21, 12) * 1000; // in Japan it is the next morning already
const NOON = Date.UTC(2026, 5, 3, 3, 5) * 1000;

it("a time is the town's, in the reader's words", () => {
  expect(timeWords("ja", EARLY)).toBe("午前6時12分");
  expect(timeWords("ja", NOON)).toBe("午後0時5分");
  expect(timeWords("en", NOON)).toBe("12:05 pm");
  expect(timeWords("ja-easy", EARLY)).toBe("午前（ごぜん） 6時（じ）12分（ふん）");
});

it("a day is the town's", () => {
  expect(dayWords("ja", EARLY)).toBe("6月3日");
  expect(momentWords("ja", EARLY)).toBe("6月3日 午前6時12分");
  expect(momentWords("en", EARLY)).toBe("6:12 am, 3 June");
});
