import { expect, it } from "vitest";
import { fieldOf, newId, usOf } from "./moments";

const EARLY = Date.UTC(2026, 5, 2, 21, 12) * 1000; // in Japan it is the next morning already

it("what a field holds is the town's time, and comes back the same", () => {
  expect(fieldOf(EARLY)).toBe("2026-06-03T06:12");
  expect(usOf(fieldOf(EARLY))).toBe(EARLY);
  expect(fieldOf(Date.UTC(2026, 5, 2, 15, 0) * 1000)).toBe("2026-06-03T00:00");
});

it("an id is a UUID of chance, each another one", () => {
  expect(newId()).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
  expect(newId()).not.toBe(newId());
});
