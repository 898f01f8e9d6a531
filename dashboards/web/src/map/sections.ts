// The parts of the officers' page, each with its address after the `#`: the one table that the navigation is made of.
// A part is loaded when it is opened, and not before.

import type { Component } from "svelte";
import type { Id } from "../words/ids";
import type { Language, Say } from "../words/say";

/** A role of the gateway's policy. */
export type Role = "operator" | "officer" | "installer" | "farmer" | "hunter" | "family" | "volunteer" | "viewer";

/** What a part is given. `rest`: what its address says behind its own path, `["a-1"]` of `#/alerts/a-1`; "" is none. */
export interface SectionProps {
  say: Say;
  language: Language;
  rest: readonly string[];
  /** The roles of who is in, by session or token; null: not known (yet), and what they may is found out by asking. */
  roles: readonly Role[] | null;
}

export interface Section {
  /** Behind `#/`: "alerts", "office/visits". */
  path: string;
  title: Id;
  load: () => Promise<{ default: Component<SectionProps> }>;
  /** Any of these roles; empty: everybody. A part that nobody of them may use is not in the navigation. */
  needs: readonly Role[];
  /** It stands beside the map. */
  besideMap?: true;
}

/** In the order of the navigation; the first one opens where the address says none. */
export const SECTIONS: readonly Section[] = [
  { path: "alerts", title: "web_map.nav_alerts", load: () => import("./Alerts.svelte"), needs: [], besideMap: true },
  {
    path: "devices", title: "web_map.nav_devices", load: () => import("./Devices.svelte"), besideMap: true,
    needs: ["operator", "officer", "installer", "farmer", "hunter", "viewer"],
  },
  { path: "flow", title: "web_map.nav_flow", load: () => import("./Flow.svelte"), needs: ["operator", "officer", "viewer"] },
  { path: "office", title: "web_map.office", load: () => import("./office/Office.svelte"), needs: ["operator", "officer", "farmer", "hunter"] },
];

/** The part that an address opens, `#/alerts/a-1`, with what stands behind its path; the first one where it names none. */
export function sectionAt(hash: string): { section: Section; rest: string[] } {
  const address = hash.replace(/^#\/?/, "");
  const found = SECTIONS.filter(({ path }) => address === path || address.startsWith(`${path}/`))
    .sort((a, b) => b.path.length - a.path.length)[0];
  if (found === undefined) return { section: SECTIONS[0] as Section, rest: [] };
  const rest = address.slice(found.path.length + 1);
  return { section: found, rest: rest === "" ? [] : rest.split("/").map(said) };
}

/** What a piece of an address says; one that was written by hand, and wrongly, stays as it is and leads to nothing. */
function said(piece: string): string {
  try {
    return decodeURIComponent(piece);
  } catch {
    return piece;
  }
}
