import { describe, expect, it } from "vitest";
import { inParts } from "./ruby";

const joined = (said: string) => inParts(said).map(({ base, reading }) => (reading === null ? base : `${base}（${reading}）`)).join("");
const readings = (said: string) => inParts(said).flatMap(({ base, reading }) => (reading === null ? [] : [[base, reading]]));

describe("readings above their kanji", () => {
  it("are what stands in brackets behind them", () => {
    expect(inParts("家（いえ）を 出（で）た")).toEqual([
      { base: "家", reading: "いえ" },
      { base: "を ", reading: null },
      { base: "出", reading: "で" },
      { base: "た", reading: null },
    ]);
    expect(readings("お知（し）らせ")).toEqual([["知", "し"]]);
  });

  it("belong to a number too where both are read as one", () => {
    expect(readings("2人（ふたり）、12人（にん）、6月（がつ）3日（みっか）、15日（にち）、1日中（いちにちじゅう）")).toEqual([
      ["2人", "ふたり"], ["人", "にん"], ["月", "がつ"], ["3日", "みっか"], ["日", "にち"], ["1日中", "いちにちじゅう"],
    ]);
  });

  it("are nothing else in brackets", () => {
    for (const said of ["わな（1台）", "送りました（とどいたかは わかりません）", "家（house）", "家(いえ)", "（いえ）", "家（）", "家 （いえ）"]) {
      expect(inParts(said)).toEqual([{ base: said, reading: null }]);
    }
  });

  it("lose nothing and add nothing, whatever is said", () => {
    const signs = [..."町家々人日3 aいえー（）<&「"];
    let seed = 1;
    const next = (below: number) => (seed = (seed * 48_271) % 2_147_483_647) % below;
    for (let round = 0; round < 2000; round += 1) {
      const said = Array.from({ length: next(40) }, () => signs[next(signs.length)]).join("");
      expect(joined(said)).toBe(said);
      for (const [base, reading] of readings(said)) expect(`${base}|${reading}`).toMatch(/^[0-9]*[町家々人日]+\|[いえー]+$/);
    }
  });
});
