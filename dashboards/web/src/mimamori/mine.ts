// What concerns me, judged from what the gateway said. Pure: ids of words and facts, no clock of its own.

import type { components } from "../api/schema";
import { honoured, namesOf } from "../names";
import type { Id } from "../words/ids";
import type { Facts, Language } from "../words/say";

type Shapes = components["schemas"];
export type Person = Shapes["WatchedJson"];
export type Alert = Shapes["AlertJson"];
export type Page = Shapes["PageWithAnswersJson"];
export type Trap = Shapes["TrapJson"];
export type Dossier = Shapes["CaptureJson"];
export type Case = Shapes["SearchWithAllJson"];
export type Ended = Shapes["SearchJson"];
export type Receiving = Shapes["OwnContactJson"];
export type Look = Shapes["LookJson"];
export type Answer = Shapes["SaidAnswer"]["answer"];

/** The `node` of every person in an alert; its `device` is their id. */
export const WATCHED = "watched";
export const ENDED_FOR_US = 24 * 3600e6;

/** A sentence that is not said yet. */
export interface Words { readonly id: Id; readonly facts?: Facts }

/** How a person's tag is, in one sentence that claims no more than the tag says. Its age is said beside it. */
export function sentenceOf(person: Person, language: Language): Words {
  const who = honoured(language, person.name);
  const of = (id: Id, more: Facts = {}): Words => ({ id, facts: { who, ...more } });
  const place = person.place ?? "";
  switch (person.state) {
    case "home": return of("web_mimamori.is_home");
    case "near": return place === "" ? of("web_mimamori.is_long_ago") : of("web_mimamori.is_near", { place });
    case "away": return place === "" ? of("web_mimamori.is_long_ago") : of("web_mimamori.is_away", { place });
    case "no_coverage":
      return place === "" ? of("web_mimamori.is_deaf") : of("web_mimamori.is_no_coverage", { place });
    case "never": return of("web_mimamori.is_never");
    case "stopped": return of("web_mimamori.is_stopped");
    case "lapsed": return of("web_mimamori.is_lapsed");
    default: return of("web_mimamori.is_unknown");
  }
}

/** What a trap shows, the worst first. Its silence is never "set". */
export const TRAP_STATES = ["sprung", "sprung_silent", "unknown", "overdue", "set"] as const;
export type TrapState = (typeof TRAP_STATES)[number];
export function trapState(trap: Trap): TrapState {
  if (trap.state === "set") return trap.overdue === true ? "overdue" : "set";
  return trap.state === "sprung" || trap.state === "sprung_silent" ? trap.state : "unknown";
}
const order = new Intl.Collator("ja", { numeric: true });
/** Those that need somebody first; within each by place and label. */
export const worstFirst = (traps: readonly Trap[]): Trap[] =>
  [...traps].sort((a, b) => TRAP_STATES.indexOf(trapState(a)) - TRAP_STATES.indexOf(trapState(b))
    || order.compare(`${a.place} ${a.label}`, `${b.place} ${b.label}`));

/** Alerts that people are told of together, with who goes. `page` null: nobody is asked. */
export interface Matter { readonly key: string; readonly page: Page | null; readonly alerts: readonly Alert[] }

/** Open alerts by the page they are told in: the most severe first, then the newest. */
export function mattersOf(alerts: readonly Alert[], pages: readonly Page[]): Matter[] {
  const left = new Map(alerts.map((one) => [one.id, one]));
  const found: Matter[] = [];
  for (const page of pages) {
    const own = page.alerts.flatMap(({ alert }) => {
      const one = left.get(alert);
      left.delete(alert);
      return one === undefined ? [] : [one];
    });
    if (own.length > 0) found.push({ key: page.id, page, alerts: own });
  }
  for (const one of left.values()) found.push({ key: one.id, page: null, alerts: [one] });
  const urgency = (one: Matter): number => Math.min(...one.alerts.map(({ severity }) => SEVERITIES.indexOf(severity)));
  const newest = (one: Matter): number => Math.max(...one.alerts.map(({ since_us }) => since_us));
  return found.sort((a, b) => urgency(a) - urgency(b) || newest(b) - newest(a));
}
const SEVERITIES = ["critical", "warning", "info"];

/** What can be answered here, as the message offers it. Who is only told is not asked whether they go. */
export function answersTo(kind: string, page: Page): Answer[] {
  const all: Answer[] = kind === WATCHED ? ["with_her", "going"] : ["going", "cannot"];
  return page.needed > 0 ? all : all.filter((one) => one === "with_her");
}

/** Who goes, and whether that is enough. */
export function whoGoes(page: Page, language: Language): Words {
  if (page.going.length === 0) return { id: "web_mimamori.nobody_goes" };
  const names = namesOf(language, page.going);
  if (page.missing > 0) return { id: "web_mimamori.more_needed", facts: { names, n: page.missing } };
  return { id: "web_mimamori.enough_go", facts: { names } };
}

/** For who may make no id themselves: a UUID, also in browsers of before `crypto.randomUUID`. */
export function newId(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6]! & 0x0f) | 0x40;
  bytes[8] = (bytes[8]! & 0x3f) | 0x80;
  const hex = [...bytes].map((one) => one.toString(16).padStart(2, "0")).join("");
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
}
