// What is known of devices, alerts and areas, judged from what the gateway said. Pure: no words, no clock of its own.

import type { components } from "../api/schema";

type Shapes = components["schemas"];
/** `at`: latitude and longitude, degrees. */
export type Device = Omit<Shapes["DeviceJson"], "at"> & { at: readonly number[] | null };
export type Alert = Shapes["AlertJson"];
export type Area = Shapes["AreaJson"];
export type UnknownWhy = NonNullable<Device["unknown_why"]>;
export type Status = Device["status"];

export const keyOf = (one: { node: string; device: string }): string => `${one.node}/${one.device}`;
/** Somebody should look at it, or does. */
export const isOpen = (alert: Alert): boolean => alert.state === "firing" || alert.state === "acknowledged";

/** Why it is not known how a device is, at `nowUs` of the gateway: time passes while the gateway says nothing new. */
export function unknownWhy(device: Device, nowUs: number, staleAfterS: number): UnknownWhy | null {
  if (device.heard_us === null) return "never_heard";
  if (nowUs - device.heard_us > staleAfterS * 1e6) return "silent";
  return device.unknown_why;
}

/** What a device shows: an open alert first, then that nothing is known of it. Both may be so. */
export const statusOf = (rings: boolean, unknown: boolean): Status => (rings ? "alert" : unknown ? "unknown" : "ok");

/** Those that need eyes first; within each the order as it came. */
export function worstFirst(devices: readonly Device[], status: (one: Device) => Status): Device[] {
  const [alert, unknown, ok]: [Device[], Device[], Device[]] = [[], [], []];
  for (const one of devices) ({ alert, unknown, ok })[status(one)].push(one);
  return [...alert, ...unknown, ...ok];
}

/** People who came into the areas today. null: no line has ever spoken. `whole`: every line has. */
export function cameToday(areas: readonly Area[]): { came: number; whole: boolean } | null {
  const sums = areas.flatMap((area) => area.lines.map((line) => (line.silent ? null : line.came_today)));
  const heard = areas.flatMap((area) => area.lines.map((line) => line.came_today)).filter((one) => one !== null);
  if (heard.length === 0) return null;
  return { came: heard.reduce((all, one) => all + one, 0), whole: sums.every((one) => one !== null) };
}

export type Topic = "traps" | "flow" | "people" | "machines";
const TOPICS: Readonly<Record<string, Topic>> = {
  trap: "traps", camera: "traps", flow: "flow", area: "flow", watched: "people", home: "people", tags: "people",
};
/** What an alert is about, by the kind of what it came from. */
export const topicOf = (kind: string): Topic => TOPICS[kind] ?? "machines";

/** What an alert is, by its rule's reason. */
export type Matter =
  | "sprung" | "silent" | "moved" | "tamper" | "button" | "picture" | "left_home" | "not_seen" | "no_coverage" | "crowd"
  | "battery" | "down" | "visit" | "dossier" | "counter" | "test" | "gateway" | "other";
const MATTERS: Readonly<Record<string, Matter>> = {
  trap_sprung: "sprung", no: "silent", node_offline: "silent", trap_moved: "moved", tamper_opened: "tamper",
  button_pressed: "button", media_captured: "picture", detection: "picture", animal: "picture", unsure: "picture",
  left_home: "left_home", tags_near: "left_home", not_seen: "not_seen", no_coverage: "no_coverage", crowd: "crowd",
  count_in: "crowd", count_out: "crowd", battery_voltage: "battery", battery_level: "battery", tag_battery: "battery",
  device_down: "down", round: "visit", dossier: "dossier", capture: "dossier", stuck: "counter", test_alarm: "test",
};
const OF_A_TAG: Readonly<Record<string, Matter>> = {
  "left home": "left_home", "no coverage": "no_coverage", "not seen": "not_seen", "tag battery": "battery", "tag button": "button",
};
export function matterOf(alert: Pick<Alert, "kind" | "node" | "summary">): Matter {
  if (alert.kind === "gateway") return "gateway";
  const ofTag = alert.node === "watched" ? OF_A_TAG[alert.summary] : undefined;
  return ofTag ?? MATTERS[alert.summary.split(" ")[0] ?? ""] ?? "other";
}
