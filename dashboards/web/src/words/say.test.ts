import { describe, expect, it } from "vitest";
import type { Id } from "./ids";
import { languageOf, saying } from "./say";

const id = (name: string) => name as Id;

describe("a sentence", () => {
  it("is said with its facts, and large numbers can be read", () => {
    const say = saying({ a: "機器 {n}台（{age}）" }, "ja");
    expect(say(id("a"), { n: 12345, age: "3秒前" })).toBe("機器 12,345台（3秒前）");
  });

  it("takes the form that fits the number", () => {
    const say = saying({ a: ["{n} alert", "{n} alerts"] }, "en");
    expect([0, 1, 2].map((n) => say(id("a"), { n }))).toEqual(["0 alerts", "1 alert", "2 alerts"]);
  });

  it("is never half said", () => {
    const say = saying({ a: "機器 {n}台" }, "ja");
    expect(() => say(id("a"))).toThrow("the fact n is missing");
    expect(() => say(id("b"))).toThrow("no words for b");
  });
});

it("a page speaks the language that was chosen, else the browser's, else English", () => {
  expect(languageOf("ja-easy", "en")).toBe("ja-easy");
  expect(languageOf(null, "ja-JP")).toBe("ja");
  expect(languageOf("klingon", "vi")).toBe("en");
});
