// Which words of the catalogues stand for what on this page.

import type { Id } from "../words/ids";
import type { Language, Say } from "../words/say";
import { ageWords } from "../age";
import { timeWords } from "../when";
import { matterOf, type Alert, type Device, type Matter, type Status, type Topic, type UnknownWhy } from "./known";

const MATTERS: Readonly<Record<Matter, Id>> = {
  sprung: "web_map.matter_sprung", silent: "web_map.matter_silent", moved: "web_map.matter_moved", tamper: "web_map.matter_tamper",
  button: "web_map.matter_button", picture: "web_map.matter_picture", left_home: "web_map.matter_left_home",
  not_seen: "web_map.matter_not_seen", no_coverage: "web_map.matter_no_coverage", crowd: "web_map.matter_crowd",
  battery: "web_map.matter_battery", down: "web_map.matter_down", visit: "web_map.matter_visit", dossier: "web_map.matter_dossier",
  counter: "web_map.matter_counter", test: "web_map.matter_test", gateway: "web_map.matter_gateway", other: "web_map.matter_other",
};
export const TOPICS: Readonly<Record<Topic, Id>> = {
  traps: "web_map.topic_traps", flow: "web_map.topic_flow", people: "web_map.topic_people", machines: "web_map.topic_machines",
};
export const SEVERITIES: Readonly<Record<string, Id>> = {
  critical: "web_map.severity_critical", warning: "web_map.severity_warning", info: "web_map.severity_info",
};
export const STATES: Readonly<Record<string, Id>> = {
  pending: "web_map.state_pending", firing: "web_map.state_firing", acknowledged: "web_map.state_acknowledged",
  shelved: "web_map.state_shelved", suppressed: "web_map.state_suppressed", resolved: "web_map.state_resolved",
};
export const STATUSES: Readonly<Record<Status, Id>> = {
  alert: "web_map.status_alert", unknown: "web_map.status_unknown", ok: "web_map.status_ok",
};
/** How a device is, or the devices of one mark, of which `many` says that there are several. */
export function howWords(say: Say, status: Status, unknown: boolean, many = false): string {
  if (status !== "alert" || !unknown) return say(STATUSES[status]);
  return say(many ? "web_map.status_alert_some_unknown" : "web_map.status_alert_unknown");
}
export const WHYS: Readonly<Record<UnknownWhy, Id>> = {
  never_heard: "web_map.why_never_heard", silent: "web_map.why_silent", node_offline: "web_map.why_node_offline",
  device_down: "web_map.why_device_down",
};
export type Shape = "trap" | "camera" | "tags" | "flow" | "node" | "device";
export const SHAPES: Readonly<Record<Shape, Id>> = {
  trap: "web_map.kind_trap", camera: "web_map.kind_camera", tags: "web_map.kind_tags", flow: "web_map.kind_flow",
  node: "web_map.kind_node", device: "web_map.kind_device",
};
export const ANSWERS: Readonly<Record<string, Id>> = {
  going: "web_map.answer_going", cannot: "web_map.answer_cannot", with_her: "web_map.answer_with", search: "web_map.answer_search",
  false_alarm: "web_map.answer_false_alarm", found: "web_map.answer_found", done: "web_map.answer_done", seen: "web_map.answer_seen",
};
export const DELIVERIES: Readonly<Record<string, Id>> = {
  queued: "web_map.delivery_queued", sent: "web_map.delivery_sent", seen: "web_map.delivery_seen",
  answered: "web_map.delivery_answered", failed_over: "web_map.delivery_failed_over", dropped: "web_map.delivery_dropped",
  dead: "web_map.delivery_dead",
};
const METRICS: Readonly<Record<string, Id>> = {
  heartbeat: "web_map.metric_heartbeat", trap_closed: "web_map.metric_trap_closed", count_in: "web_map.metric_count_in",
  count_out: "web_map.metric_count_out", tags_near: "web_map.metric_tags_near", media_count: "web_map.metric_media_count",
  battery_voltage: "web_map.metric_battery_voltage", battery_level: "web_map.metric_battery_level", rssi: "web_map.metric_rssi",
  uplink_rssi: "web_map.metric_uplink_rssi", cpu_temperature: "web_map.metric_cpu_temperature",
  disk_free: "web_map.metric_disk_free", outbox_waiting: "web_map.metric_outbox_waiting", tilt_angle: "web_map.metric_tilt_angle",
  bait_level: "web_map.metric_bait_level", supply_voltage: "web_map.metric_supply_voltage",
};
const UNITS: Readonly<Record<string, string>> = { Cel: "℃", deg: "°", "dB[mW]": "dBm", "1": "", "%": "%" };

/** The shape that a device's kind has on the map. */
export function shapeOf(kind: string | null): Shape {
  const known = (["trap", "camera", "tags", "flow", "node"] as const).find((one) => kind?.includes(one));
  return known ?? "device";
}

export const matterWords = (say: Say, alert: Alert): string => say(MATTERS[matterOf(alert)]);

/** Why a search was opened: what somebody wrote, or, where a message's button opened it, what the message was about. */
export const reasonWords = (say: Say, reason: string): string =>
  reason.split(", ").map((summary) => {
    const matter = matterOf({ kind: "watched", node: "watched", summary });
    return matter === "other" ? summary : say(MATTERS[matter]);
  }).join(say("web_map.and"));

/** Where it is, as its people call it. A watched person is named by nobody here but by the number. */
export function whereWords(say: Say, one: { node: string; device: string; place: string; label: string }): string {
  if (one.node === "watched") return say("web_map.where_watched", { id: one.device });
  if (one.node === "canary") return say("web_map.where_canary");
  if (one.node === "gateway") return say("web_map.where_gateway", { id: one.device });
  return `${one.place} ${one.label}`.trim() || `${one.node} ${one.device}`;
}

/** A metric's name; what has none in the catalogue keeps its own. */
export const metricWords = (say: Say, metric: string): string => {
  const id = METRICS[metric];
  return id === undefined ? metric : say(id);
};

/** A value with its unit. */
export function valueWords(say: Say, language: Language, { metric, unit, value }: Device["latest"][number]): string {
  if (metric === "trap_closed") return say(value === 0 ? "web_map.set" : "web_map.is_sprung");
  const number = (digits: number, of = value): string =>
    new Intl.NumberFormat(language === "en" ? "en" : "ja", { maximumFractionDigits: digits }).format(of);
  if (unit === "s") return `${number(1, value / 3600)} h`;
  if (unit === "By") return `${number(0, value / 2 ** 20)} MiB`;
  if (unit.startsWith("{")) return number(0);
  const shown = UNITS[unit] ?? unit;
  return shown === "" ? number(2) : `${number(2)} ${shown}`;
}

/** How long ago by the gateway's clock. */
export const agoWords = (say: Say, nowUs: number, us: number): string => ageWords(say, (nowUs - us) / 1000);

/** Who did it: staff by their names; of people who are told things, whose ids say nothing to a reader, how many they are. */
export function whoWords(say: Say, who: string): string {
  if (who === "contact:") return say("web_map.by_member"); // somebody: the reader may not know who, nor how many
  const all = who.split(", ").map((one) => one.replace(/^contact:/, ""));
  const named = all.filter((one) => !/^[0-9a-f]{16}$/.test(one));
  const n = all.length - named.length;
  return [...named, ...(n > 0 ? [say("web_map.by_members", { n })] : [])].join(say("web_map.and"));
}

/** Why a step of an alert was made: what somebody wrote, or the answer they gave by a button. */
export function whyWords(say: Say, why: string): string {
  const answer = ANSWERS[why];
  return answer === undefined ? why : say(answer);
}

/** What became of an alert, in one sentence. */
export function stateWords(say: Say, language: Language, alert: Alert): string {
  const { state, acknowledged_by: by, acknowledged_us: at, shelved_until_us: until } = alert;
  if (state === "acknowledged" && by !== null && at !== null) {
    return say("web_map.by", { who: whoWords(say, by), when: timeWords(language, at) });
  }
  if (state === "shelved" && until !== null) return say("web_map.until", { when: timeWords(language, until) });
  return say(STATES[state] ?? "web_map.unknown");
}
