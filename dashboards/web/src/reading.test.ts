import { expect, it } from "vitest";
import { readingOf } from "./reading";

const kept = (values: Record<string, string>) => (name: string) => values[name] ?? null;

it("a page is read as it was chosen on this device", () => {
  expect(readingOf(kept({ "text-size": "largest", contrast: "clear" }), false)).toEqual({ size: "largest", contrast: "clear" });
});

it("where nothing was chosen, contrast is what the device is set to; a choice goes before that", () => {
  expect(readingOf(kept({}), false)).toEqual({ size: "usual", contrast: "usual" });
  expect(readingOf(kept({}), true)).toEqual({ size: "usual", contrast: "clear" });
  expect(readingOf(kept({ contrast: "usual" }), true).contrast).toBe("usual");
});

it("what an older or newer version kept is no choice", () => {
  expect(readingOf(kept({ "text-size": "gigantic", contrast: "" }), false)).toEqual({ size: "usual", contrast: "usual" });
});
