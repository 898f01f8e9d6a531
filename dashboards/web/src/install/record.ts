// One installation as this phone keeps it, from its first step until the gateway has said that it has it. Plain values only.

import type { components } from "../api/schema";

/** Milliseconds there and back (null: no answer), and dBm as the node heard its network (null: it could not say). */
export type Trip = [number | null, number | null];

/** `draft`: being written. `unsent`: whole, and waits for a network. `refused`: the gateway won't have it, and has said why. */
export type State = "draft" | "unsent" | "refused" | "sent";

export const STEPS = ["device", "where", "photo", "signal", "trip"] as const;
export type Step = (typeof STEPS)[number];

/** Who is signed in: the account's id, and what they are called. A token's `account` is made of its hash. */
export interface Who { readonly account: string; readonly name: string }

export interface Installation {
  /** Made here, so that sending it twice keeps one. */
  id: string;
  /** Whose it is: sent as this account and as no other. */
  account: string;
  who: string;
  state: State;
  step: Step;
  node: string;
  device: string;
  /** What its people call the place: 北尾根 3番. */
  called: string;
  begun_us: number;
  lat: number | null;
  lon: number | null;
  accuracy_m: number | null;
  note: string;
  /** SHA-256 of each; the bytes lie beside. */
  photos: string[];
  /** How many this phone has lost: it is sent without them. Absent: none. */
  lost?: number;
  signal: Trip[];
  self_test: "good" | "bad" | null;
  tripped_us: number | null;
  revisit: string;
  tries: number;
  /** Not sent again before this, by the phone's clock. */
  next_ms: number;
  /** Why the gateway does not have it, in its words: of one `unsent`, why it may not be sent yet. */
  why: string;
  sent_ms: number | null;
}

export function begun(id: string, who: Who, nowMs: number): Installation {
  return {
    id, account: who.account, who: who.name, state: "draft", step: "device", node: "", device: "", called: "", begun_us: nowMs * 1000,
    lat: null, lon: null, accuracy_m: null, note: "", photos: [], signal: [], self_test: null, tripped_us: null, revisit: "",
    tries: 0, next_ms: 0, why: "", sent_ms: null,
  };
}

/** Whether a later record, of `all`, says that somebody must come again to the same device. */
export const revisited = (one: Installation, all: readonly Installation[]): boolean =>
  all.some((each) => each.revisit !== "" && each.node === one.node && each.device === one.device && each.begun_us > one.begun_us);

/** What the gateway is told: always the same for the same record, for another word would be another installation. */
export function bodyOf(one: Installation): string {
  const { device, begun_us, lat, lon, accuracy_m, note, photos, signal, self_test, tripped_us, revisit } = one;
  const said: components["schemas"]["NewInstallation"] =
    { device, begun_us, lat, lon, accuracy_m, note, photos, signal, self_test, tripped_us, revisit };
  return JSON.stringify(said);
}

/** A UUID of version 4; by hand, because phones of six years ago have no crypto.randomUUID. */
export function newId(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6]! & 0x0f) | 0x40;
  bytes[8] = (bytes[8]! & 0x3f) | 0x80;
  const hex = hexOf(bytes);
  return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join("-");
}

export const hexOf = (bytes: Uint8Array): string => [...bytes].map((one) => one.toString(16).padStart(2, "0")).join("");

/** SHA-256 in hex. */
export const sha256 = async (bytes: ArrayBuffer): Promise<string> => hexOf(new Uint8Array(await crypto.subtle.digest("SHA-256", bytes)));
