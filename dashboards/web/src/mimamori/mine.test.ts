import { describe, expect, it } from "vitest";
import { honoured } from "../names";
import { reasonWords } from "./alerts";
import { answersTo, mattersOf, newId, sentenceOf, trapState, whoGoes, worstFirst, type Alert, type Page, type Person,
  type Trap } from "./mine";
import { dateAfter, endOfDay, hoursOf, pushHere } from "./receiving";

const person = (state: string | null, place: string | null = "中央公民館"): Person =>
  ({ name: "ハナ", state, place, seen_us: 0, age_s: 0 }) as Person;
const trap = (label: string, state: string, overdue: boolean | null = false): Trap =>
  ({ node: "n", device: label, place: "北尾根", label, state, overdue }) as Trap;
const alert = (id: string, severity = "critical", since_us = 0): Alert => ({ id, severity, since_us }) as Alert;
const page = (id: string, alerts: string[], more: Partial<Page> = {}): Page =>
  ({ id, alerts: alerts.map((one) => ({ alert: one })), needed: 2, going: [], missing: 2, ...more }) as Page;

describe("a person's sentence", () => {
  it("says for each state no more than the tag does", () => {
    const states = ["home", "near", "away", "no_coverage", "never", "stopped", "lapsed"];
    expect(states.map((state) => sentenceOf(person(state), "ja").id.split(".is_")[1])).toEqual(states);
  });

  it("is that nothing is known, for a state that this page does not know", () => {
    expect([null, "flying"].map((state) => sentenceOf(person(state), "ja").id)).toEqual(Array(2).fill("web_mimamori.is_unknown"));
  });

  it("names no place where none is kept", () => {
    expect(["near", "away", "no_coverage"].map((state) => sentenceOf(person(state, null), "ja").id))
      .toEqual(["web_mimamori.is_long_ago", "web_mimamori.is_long_ago", "web_mimamori.is_deaf"]);
  });
});

it("people are named with respect, once", () => {
  expect(["ハナ", "ハナさん", "田中先生"].map((name) => honoured("ja", name))).toEqual(["ハナさん", "ハナさん", "田中先生"]);
  expect(honoured("en", "Hana")).toBe("Hana");
});

describe("traps", () => {
  it("stand the worst first, then by their number", () => {
    const all = [trap("10番", "set"), trap("2番", "set"), trap("4番", "unknown"), trap("5番", "set", true), trap("6番", "sprung"),
      trap("7番", "sprung_silent")];
    expect(worstFirst(all).map(({ label }) => label)).toEqual(["6番", "7番", "4番", "5番", "2番", "10番"]);
  });

  it("are unknown in a state that this page does not know, never set", () => {
    expect(trapState(trap("1番", "asleep"))).toBe("unknown");
  });
});

describe("alerts", () => {
  it("that are told together are one; one that nobody was told of stands for itself; the most severe and newest come first", () => {
    const found = mattersOf([alert("a", "warning", 9), alert("b", "critical", 1), alert("c", "critical", 2), alert("d", "critical", 3)],
      [page("p", ["b", "c", "over"]), page("gone", ["over"])]);
    expect(found.map((one) => [one.key, one.alerts.map(({ id }) => id).join()])).toEqual([["d", "d"], ["p", "b,c"], ["a", "a"]]);
  });

  it("ask who goes only where somebody is needed", () => {
    expect(answersTo("watched", page("p", []))).toEqual(["with_her", "going"]);
    expect(answersTo("watched", page("p", [], { needed: 0 }))).toEqual(["with_her"]);
    expect(answersTo("trap", page("p", []))).toEqual(["going", "cannot"]);
    expect(answersTo("trap", page("p", [], { needed: 0 }))).toEqual([]);
  });

  it("say who goes and how many more are needed", () => {
    expect(whoGoes(page("p", []), "ja").id).toBe("web_mimamori.nobody_goes");
    expect(whoGoes(page("p", [], { going: ["田中"], missing: 1 }), "ja")).toEqual(
      { id: "web_mimamori.more_needed", facts: { names: "田中さん", n: 1 } });
    expect(whoGoes(page("p", [], { going: ["田中", "佐藤"], missing: 0 }), "ja").facts).toEqual({ names: "田中さん、佐藤さん" });
  });
});

it("an id made here is a UUID like any other", () => {
  expect(newId()).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
  expect(newId()).not.toBe(newId());
});

describe("how I am told", () => {
  const NOW_US = Date.UTC(2026, 5, 2, 21, 12) * 1000; // 3 June in the town

  it("one pair of hours can be changed here; days and several can't", () => {
    expect(hoursOf([{ days: null, from: "21:00", to: "06:00:00" }])).toEqual({ from: "21:00", to: "06:00" });
    expect(hoursOf([{ days: ["sat"], from: "21:00", to: "06:00" }])).toBeNull();
    expect([hoursOf(null), hoursOf([])]).toEqual([null, null]);
  });

  it("a day ends at midnight in the town", () => {
    expect(dateAfter(NOW_US, 1)).toBe("2026-06-04");
    expect(endOfDay("2026-06-04")).toBe(Date.UTC(2026, 5, 4, 15) * 1000);
  });

  it("an iPhone is told after it has the page on its home screen; a browser without a way is not promised one", () => {
    const iphone = { userAgent: "Mozilla/5.0 (iPhone; CPU iPhone OS 17_0 like Mac OS X)", serviceWorker: {} };
    const ipad = { userAgent: "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15)", maxTouchPoints: 5, serviceWorker: {} };
    const old = { userAgent: "Mozilla/5.0 (Linux; Android 5)" };
    expect([pushHere(iphone, true), pushHere(iphone, false), pushHere(ipad, false), pushHere(old, false), pushHere(old, true)])
      .toEqual(["here", "home", "home", "never", "never"]);
  });
});

it("says why a search was opened in words, whether somebody wrote it or a button under a message stood for it", () => {
  const say = (id: string, facts?: object): string => `${Object.values(facts ?? {}).join("")}のタグが${id.split("_").at(-1) ?? ""}。`;
  expect(reasonWords(say, "ja", "left home, 朝から帰らない", "ハナ")).toBe("ハナさんのタグがhome、朝から帰らない");
});
