// Which words of the catalogues stand for an alert, an answer, a time on this page.

import { ageWords } from "../age";
import { dayWords, inTown, momentWords, timeWords } from "../when";
import type { Id } from "../words/ids";
import type { Language, Say } from "../words/say";
import { honoured } from "../names";
import { WATCHED, type Alert } from "./mine";

const OF_A_PERSON: Readonly<Record<string, Id>> = {
  "left home": "web_mimamori.of_left_home", "not seen": "web_mimamori.of_not_seen", "no coverage": "web_mimamori.of_no_coverage",
  "tag battery": "web_mimamori.of_tag_battery", "tag button": "web_mimamori.of_tag_button",
};
const OF_A_DEVICE: Readonly<Record<string, Id>> = {
  trap_sprung: "web_mimamori.of_sprung", no: "web_mimamori.of_silent", node_offline: "web_mimamori.of_silent",
  trap_moved: "web_mimamori.of_moved", tamper_opened: "web_mimamori.of_tamper", button_pressed: "web_mimamori.of_button",
  media_captured: "web_mimamori.of_picture", detection: "web_mimamori.of_picture", animal: "web_mimamori.of_picture",
  unsure: "web_mimamori.of_picture", battery_voltage: "web_mimamori.of_battery", battery_level: "web_mimamori.of_battery",
  device_down: "web_mimamori.of_down", round: "web_mimamori.of_round", dossier: "web_mimamori.of_dossier",
  capture: "web_mimamori.of_dossier", test_alarm: "web_mimamori.of_test",
};

/** What happened, in one sentence. `name`: of the person, where it is about one. */
export function alertWords(say: Say, language: Language, alert: Alert, name: string): string {
  if (alert.node === WATCHED) {
    return say(OF_A_PERSON[alert.summary] ?? "web_mimamori.of_person", { who: honoured(language, name) });
  }
  const where = `${alert.place} ${alert.label}`.trim() || `${alert.node} ${alert.device}`;
  return say(OF_A_DEVICE[alert.summary.split(" ")[0] ?? ""] ?? "web_mimamori.of_other", { where });
}

/** Why a search was opened: what somebody wrote, or, where a message's button opened it, what the message was about. */
export function reasonWords(say: Say, language: Language, reason: string, name: string): string {
  const each = reason.split(", ").map((one) => {
    const id = OF_A_PERSON[one];
    return id === undefined ? one : say(id, { who: honoured(language, name) }).replace(/[。.]$/, "");
  });
  return each.join(language === "en" ? ", " : "、");
}

/** The sign before it: how much it matters, and to what. */
export function labelOf(alert: Alert): Id {
  if (alert.node === WATCHED) return alert.summary === "left home" ? "web_mimamori.tag_left_home" : "web_mimamori.tag_person";
  if (alert.kind === "trap" && alert.summary.startsWith("trap_sprung")) return "web_mimamori.tag_sprung";
  return alert.severity === "critical" ? "web_mimamori.tag_urgent" : "web_mimamori.tag_notice";
}

/** Buttons as the messages have them. */
export const ANSWERS: Readonly<Record<string, Id>> = {
  going: "web_mimamori.answer_going", cannot: "web_mimamori.answer_cannot", with_her: "web_mimamori.answer_with",
  search: "web_mimamori.search", found: "web_mimamori.found", done: "web_mimamori.answer_done",
  false_alarm: "web_mimamori.answer_false_alarm", seen: "web_mimamori.answer_seen",
};
/** Where it is about a person. */
export const THEIRS: Readonly<Record<string, Id>> = { going: "web_mimamori.answer_check" };

/** 午後2時5分・12分前; with the day, where that is another one. */
export function at(say: Say, language: Language, us: number, nowUs: number): string {
  const [then, now] = [inTown(us), inTown(nowUs)];
  const today = then.day === now.day && then.month === now.month && then.year === now.year;
  const when = today ? timeWords(language, us) : momentWords(language, us);
  return us > nowUs ? when : say("web_mimamori.when_age", { when, age: ageWords(say, (nowUs - us) / 1000) });
}
/** 2026年6月3日: a word may be a year old. */
export const dayIn = (language: Language, us: number): string => {
  const { year } = inTown(us);
  if (language === "en") return `${dayWords(language, us)} ${year}`;
  return language === "ja" ? `${year}年${dayWords(language, us)}` : `${year}年（ねん）${dayWords(language, us)}`;
};
