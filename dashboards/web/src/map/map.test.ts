import { describe, expect, it } from "vitest";
import { eventsIn } from "../stream";
import { atOnePlace, gathered, inTurn, nearPx, type Spot } from "./grid";
import { byDay, levelOf, whenOf, type Day, type Hour } from "./hours";
import { cameToday, matterOf, statusOf, topicOf, unknownWhy, worstFirst, type Area, type Device } from "./known";
import { howWords, reasonWords, whoWords, whyWords } from "./say";
import { sectionAt } from "./sections";
import { peopleOf } from "./told";

const NOW = 1_780_434_720_000_000;
const device = (name: string, more: Partial<Device> = {}): Device => ({
  node: "n", device: name, kind: "trap", place: "北尾根", label: name, status: "ok", unknown_why: null, heard_us: NOW - 1e6, age_s: 1,
  node_online: true, node_offline_reason: null, latest: [], at: null, ...more,
});

describe("what is known of a device", () => {
  it("runs out while the gateway says nothing new", () => {
    const one = device("a");
    expect(unknownWhy(one, NOW, 600)).toBeNull();
    expect(unknownWhy(one, NOW + 601e6, 600)).toBe("silent");
    expect(unknownWhy(device("b", { heard_us: null }), NOW, 600)).toBe("never_heard");
  });

  it("is said of an alert too, and of several devices that there are such among them", () => {
    const say = (id: string): string => id.replace(/^.*status_/, "");
    expect([howWords(say, "alert", true), howWords(say, "alert", true, true)]).toEqual(["alert_unknown", "alert_some_unknown"]);
    expect([howWords(say, "alert", false), howWords(say, "unknown", true), howWords(say, "ok", false)]).toEqual(["alert", "unknown", "ok"]);
  });

  it("is an open alert first, then that nothing is known", () => {
    const [ok, silent, ringing] = [device("a"), device("b", { unknown_why: "device_down" }), device("c", { unknown_why: "silent" })];
    const status = (one: Device) => statusOf(one === ringing, unknownWhy(one, NOW, 600) !== null);
    expect(worstFirst([ok, silent, ringing], status).map((one) => one.device)).toEqual(["c", "b", "a"]);
  });
});

describe("who has seen to an alert", () => {
  const say = ((id: string, facts: { n?: number } = {}) =>
    id === "web_map.and" ? "、" : id === "web_map.by_members" ? `担当の方${facts.n}人` : "担当の方") as Parameters<typeof whoWords>[0];

  it("is staff by name, and how many others, never an id", () => {
    expect(whoWords(say, "14efc03fa642d372, 048db96ac6e87643")).toBe("担当の方2人");
    expect(whoWords(say, "contact:14efc03fa642d372")).toBe("担当の方1人");
    expect(whoWords(say, "田中, 048db96ac6e87643")).toBe("田中、担当の方1人");
    expect(whoWords(say, "contact:")).toBe("担当の方");
  });
});

it("an answer by a button is a reason in words, and what somebody wrote stays as it is", () => {
  const say = (id: string): string => id.replace("web_map.", "");
  expect([whyWords(say, "going"), whyWords(say, "with_her"), whyWords(say, "電話で確認中")]).toEqual(["answer_going", "answer_with", "電話で確認中"]);
});

describe("who was told", () => {
  const sent = (id: string, contact: string, state: string, at: number) => ({ id, contact, state, created_us: at, sent_us: null });
  it("is one line a person, with what they said last or where their last message stands", () => {
    const said = (answer: string, at_us: number) => ({ contact: "c-2", name: "佐藤", answer, at_us });
    const people = peopleOf([said("going", 5), said("cannot", 9)], [
      sent("m-3", "c-1", "dropped", 3), sent("m-1", "c-1", "failed_over", 1), sent("m-2", "c-1", "seen", 2)]);
    expect(people.map(({ contact, answer, last, all }) => [contact, answer?.answer, last?.state, all.map((one) => one.id)])).toEqual([
      ["c-1", undefined, "seen", ["m-1", "m-2", "m-3"]], ["c-2", "cannot", undefined, []],
    ]);
  });
});

describe("people who came today", () => {
  const area = (...came: (number | null)[]): Area => ({ lines: came.map((one) => ({ came_today: one, silent: one === null })) }) as unknown as Area;
  it("are never zero where nobody counted", () => expect(cameToday([area(null)])).toBeNull());
  it("are known in part where a line is silent", () => expect(cameToday([area(3, null), area(4)])).toEqual({ came: 7, whole: false }));
  it("are the sum of all lines", () => expect(cameToday([area(3, 0)])).toEqual({ came: 3, whole: true }));
});

it("an alert is told by its rule's reason", () => {
  const matter = (summary: string, more = {}) => matterOf({ kind: "trap", node: "n", summary, ...more });
  expect(matter("trap_sprung")).toBe("sprung");
  expect(matter("no heartbeat for 26h")).toBe("silent");
  expect(matter("left home", { node: "watched", kind: "watched" })).toBe("left_home");
  expect(matter("broker", { kind: "gateway" })).toBe("gateway");
  expect(matter("something new 3")).toBe("other");
  expect([topicOf("trap"), topicOf("area"), topicOf("watched"), topicOf("node")]).toEqual(["traps", "flow", "people", "machines"]);
});

it("the stream is cut into whole events, whatever pieces it comes in", () => {
  const text = ': alive\n\nid: 7\nevent: alert\ndata: {"id": "a"}\n\nid: 8\nevent: la';
  const { events, rest } = eventsIn(text);
  expect(events).toEqual([{ kind: "alert", data: '{"id": "a"}' }]);
  expect(eventsIn(`${rest}test\ndata: 1\n\n`).events).toEqual([{ kind: "latest", data: "1" }]);
});

describe("marks on the map", () => {
  const spot = (key: string, x: number, y: number, status: Spot["status"] = "ok"): Spot => ({ key, x, y, status, unknown: status === "unknown" });
  const many = Array.from({ length: 2000 }, (_, n) => spot(`d-${n}`, (n % 50) * 10, Math.floor(n / 50) * 10, n === 7 ? "alert" : "ok"));
  const near = nearPx(3);

  it("stand each by itself where they don't lie upon each other", () => {
    const apart = [spot("a", 0, 0), spot("b", near, 0), spot("c", 0, near)];
    expect(gathered(apart, near).map((one) => one.keys)).toEqual([["a"], ["b"], ["c"]]);
  });
  it("are one where they do, also over the edge of a square, and show the worst of them", () => {
    const [one, ...others] = gathered([spot("a", near - 1, 5), spot("b", near + 1, 5, "alert"), spot("c", near - 1, 5, "unknown")], near);
    expect(others).toEqual([]);
    expect(one).toMatchObject({ id: "a", keys: ["a", "b", "c"], x: near - 1, status: "alert", unknown: true });
  });
  it("say nothing of unknowns where there are none", () => {
    expect(gathered([spot("a", 0, 0, "alert"), spot("b", 1, 1)], near)).toMatchObject([{ status: "alert", unknown: false }]);
  });
  it("keep their names and places whatever becomes of their devices", () => {
    const worse = many.map((one) => ({ ...one, status: "unknown" as const }));
    const where = (spots: readonly Spot[]) => gathered(spots, nearPx(2000)).map(({ id, x, y, keys }) => ({ id, x, y, keys }));
    expect(where(worse)).toEqual(where(many));
  });
  it("are few where many are seen, never nearer to each other than that, and none is lost", () => {
    const marks = gathered(many, nearPx(2000));
    expect(marks.length).toBeLessThan(120);
    expect(marks.flatMap((one) => one.keys)).toHaveLength(2000);
    expect(marks.filter((one) => one.status === "alert").map((one) => one.keys.includes("d-7"))).toEqual([true]);
    for (const a of marks) for (const b of marks) if (a !== b) expect(Math.hypot(a.x - b.x, a.y - b.y)).toBeGreaterThanOrEqual(nearPx(2000));
  });
  it("are reached the worst first, and in their own order among the same", () => {
    const marks = gathered([spot("a", 0, 0), spot("b", 100, 0, "unknown"), spot("c", 200, 0, "alert"), spot("d", 300, 0)], near);
    expect(inTurn(marks).map((one) => one.id)).toEqual(["c", "b", "a", "d"]);
  });
  it("are at one place where the nearest map does not part them", () => {
    expect(atOnePlace([spot("a", 0, 0), spot("b", 3, 3)])).toBe(true);
    expect(atOnePlace([spot("a", 0, 0), spot("b", 90, 0)])).toBe(false);
  });
});

describe("hours of an area", () => {
  const hour = (at: number, came: number | null): Hour => ({ start_us: at, came, left: 0, coverage_percent: 100, lines: [] });
  it("stand in the town's days, the newest first, and what nobody counted stays empty", () => {
    const midnight = Date.UTC(2026, 5, 2, 15) * 1000; // in Japan
    const days = byDay([hour(midnight - 3600e6, 5), hour(midnight, null), hour(midnight + 3600e6, 2)]);
    expect(days.map((one) => one.hours.map((at) => at?.came))).toEqual([
      [null, 2, ...new Array(22).fill(undefined)], [...new Array(23).fill(undefined), 5],
    ]);
  });
  it("of today go on or are to come, and only one that is over can have been counted by nobody", () => {
    const [today] = byDay([hour(NOW - 3600e6, 1)]); // 06:12 in Japan
    const [before] = byDay([hour(NOW - 86_400e6, 1)]);
    expect([5, 6, 7].map((at) => whenOf(today as Day, at, NOW))).toEqual(["over", "now", "ahead"]);
    expect(whenOf(before as Day, 7, NOW)).toBe("over");
  });
  it("are coloured by the fullest one", () => {
    expect([levelOf(null, 8), levelOf(0, 8), levelOf(1, 8), levelOf(8, 8), levelOf(0, 0)]).toEqual([null, 0, 1, 4, 0]);
  });
});

it("an address opens its part, and anything else the first", () => {
  expect(sectionAt("#/devices/kitayama-03/trap%2011")).toMatchObject({ section: { path: "devices" }, rest: ["kitayama-03", "trap 11"] });
  expect(sectionAt("#/alerts")).toMatchObject({ section: { path: "alerts" }, rest: [] });
  expect(sectionAt("#/devices/%E0/x").rest).toEqual(["%E0", "x"]);
  expect(sectionAt("")).toMatchObject({ section: { path: "alerts" } });
  expect(sectionAt("#/alertsx")).toMatchObject({ section: { path: "alerts" }, rest: [] });
});

it("says why a search was opened in words, whether somebody wrote it or a button under a message stood for it", () => {
  const say = (id: string): string => id.replace("web_map.", "");
  expect(reasonWords(say, "left home, 朝から帰らない")).toBe("matter_left_homeand朝から帰らない");
});
