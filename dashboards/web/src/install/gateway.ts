// What the installer's page asks of the gateway besides sending, and the same for practice, where nothing is asked of anybody.

import type { components } from "../api/schema";
import type { Trip } from "./record";
import type { Ask } from "./send";

type Schemas = components["schemas"];
export type Job = Pick<Schemas["JobJson"], "id" | "label" | "nodes" | "devices" | "until_us">;
/** What became of an installation. `told`: to whom its test alarm was sent. */
export type Result = Pick<Schemas["InstallationJson"], "id" | "state" | "told" | "answered_by" | "ended_us" | "superseded_by">;
export type MapOf = Pick<Schemas["MapJson"], "styles" | "attribution">;
type Command = Pick<Schemas["CommandJson"], "id" | "state" | "issued_us" | "reason" | "round_trip_ms" | "rssi_dbm">;

/** The gateway answered, and won't. The text is its own. */
export class Refused extends Error {}

/** Each throws TypeError where the gateway can't be reached, and Refused where it won't. */
export interface Door {
  jobs(): Promise<Job[]>;
  results(): Promise<Result[]>;
  map(): Promise<MapOf>;
  /** One round trip to the node; [null, null] where it has not answered in time. */
  ping(node: string): Promise<Trip>;
  /** Has the node ring as if its device did; when that was, by the gateway's clock. */
  testAlarm(node: string, device: string): Promise<number>;
}

const PATIENCE_MS = 10_000;
const LOOK_MS = 400;
const pause = (ms: number): Promise<void> => new Promise((done) => setTimeout(done, ms));

export function gateway(ask: Ask): Door {
  async function json<T>(path: string, init?: RequestInit): Promise<T> {
    const answer = await ask(path, init);
    if (answer.ok) return (await answer.json()) as T;
    if (answer.status >= 500) throw new TypeError(`${path}: ${answer.status}`);
    const said = (await answer.json().catch(() => ({}))) as { detail?: string };
    throw new Refused(said.detail ?? `${answer.status}`);
  }
  const commands = (node: string): string => `/api/v1/nodes/${encodeURIComponent(node)}/commands`;
  const give = (node: string, what: object): Promise<Command> =>
    json(commands(node), { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(what) });

  /** Until it is answered, or 10 s. */
  async function answered(node: string, given: Command): Promise<Command> {
    const until = performance.now() + PATIENCE_MS;
    let now = given;
    while (now.state === "waiting" && performance.now() < until) {
      await pause(LOOK_MS);
      const found = await json<{ commands: Command[] }>(`${commands(node)}?limit=30`);
      now = found.commands.find((one) => one.id === given.id) ?? now;
    }
    return now;
  }

  return {
    jobs: async () => (await json<{ jobs: Job[] }>("/api/v1/jobs")).jobs,
    results: async () => (await json<{ installations: Result[] }>("/api/v1/installations?limit=100")).installations,
    map: () => json<MapOf>("/api/v1/map"),
    async ping(node) {
      const said = await answered(node, await give(node, { name: "ping", ttl_s: PATIENCE_MS / 1000 }));
      if (said.state === "refused") throw new Refused(said.reason ?? "");
      return said.state === "done" ? [said.round_trip_ms, said.rssi_dbm] : [null, null];
    },
    async testAlarm(node, device) {
      const said = await answered(node, await give(node, { name: "test_alarm", device }));
      if (said.state === "refused" || said.state === "failed") throw new Refused(said.reason ?? "");
      return said.issued_us;
    },
  };
}

/** Invented answers: no request leaves this page. */
export const practiceDoor = (job: Job): Door => ({
  jobs: () => Promise.resolve([job]),
  results: () => Promise.resolve([]),
  map: () => Promise.resolve({ styles: [], attribution: null }),
  ping: async () => {
    await pause(150);
    return [420, -97];
  },
  testAlarm: () => Promise.resolve(Date.now() * 1000),
});

/** The job that one practises with. */
export const PRACTICE: Job = {
  id: "practice", label: "練習", nodes: ["renshu-01"], until_us: 0,
  devices: [{ node: "renshu-01", device: "trap-01", kind: "trap", place: "練習の山", label: "1番", at: [36.1, 138.1] }],
};
