import { expect, it } from "vitest";
import { ageWords } from "./age";
import { saying } from "./words/say";

it("an age is never rounded up, and never negative", () => {
  const say = saying({ "web_all.age_s": "{n}秒前", "web_all.age_min": "{n}分前", "web_all.age_h": "{n}時間前" }, "ja");
  const shown = [-5, 0, 59_999, 60_000, 3_599_999, 3_600_000].map((ms) => ageWords(say, ms));
  expect(shown).toEqual(["0秒前", "0秒前", "59秒前", "1分前", "59分前", "1時間前"]);
});
