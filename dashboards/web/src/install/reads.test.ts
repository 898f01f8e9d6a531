import { expect, it } from "vitest";
import { read } from "./scan";
import { verdict } from "./signal";
import { pathsAround } from "./tiles";
import type { Trip } from "./record";

const HOST = "town.example";

it("a QR or a typed name says which node and device it is", () => {
  expect(read("https://town.example/v/kitayama-03/trap-11/x.y", HOST)).toEqual({ node: "kitayama-03", device: "trap-11" });
  expect(read("HTTPS://Town.example/v/kitayama-03/trap-11/x.y", HOST)).toEqual({ node: "kitayama-03", device: "trap-11" });
  expect(read("satomori:claim?u=https%3A%2F%2Fnodes.example%3A8443&c=ABCD&n=kitayama-03", HOST))
    .toEqual({ node: "kitayama-03", device: null });
  expect(read(" kitayama-03/trap-11 ", HOST)).toEqual({ node: "kitayama-03", device: "trap-11" });
});

it.each(["satomori:claim?u=https%3A%2F%2Fnodes.example&c=ABCD", "北尾根 3番", "", "a/b/c"])(
  "%s names none", (text) => expect(read(text, HOST)).toBe("nothing"));

it.each(["https://next-town.example/v/kitayama-03/trap-11/x.y", "https://elsewhere.example/", "http://town.example/about"])(
  "%s is no device of this town's", (text) => expect(read(text, HOST)).toBe("elsewhere"));

const trips = (answered: number, dbm: number | null): Trip[] =>
  Array.from({ length: 10 }, (_, i) => (i < answered ? [400, dbm] : [null, null]));

it("a place is good where nine of ten come back over a signal that lasts", () => {
  expect(verdict(trips(10, -97))).toEqual({ said: "good", answered: 10, dbm: -97, ms: 400 });
  expect(verdict(trips(9, null)).said).toBe("good");
  expect(verdict(trips(8, -80)).said).toBe("weak");
  expect(verdict(trips(10, -115)).said).toBe("weak");
  expect(verdict(trips(0, null)).said).toBe("none");
});

it("the tiles that are taken along cover the places, each once", () => {
  const paths = pathsAround([[36.2105, 137.9702], [36.2106, 137.9703]]);
  expect(paths).toContain("/tiles/pale/16/57884/25687.png");
  expect(paths).toHaveLength(5 * 9);
  expect(pathsAround([])).toEqual([]);
});
