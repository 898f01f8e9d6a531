// What is known of the town on this page: read whole, then kept up by the stream. However much the stream says, the page changes
// a few times a second, and what it holds has an end: one entry a device, the open alerts, the newest of those that are over.

import { createContext } from "svelte";
import { api, tried, type Problem } from "../api/client";
import { follow } from "../stream";
import { isOpen, keyOf, statusOf, unknownWhy, type Alert, type Area, type Device, type Status, type UnknownWhy } from "./known";

const PAINT_EVERY_MS = 200;
const READ_EVERY_MS = 10_000; // nodes come and go without a word on the stream
const AREAS_EVERY_MS = 5_000; // nor do areas say anything there
const SOON_MS = 1_000;
const OPEN = ["firing", "acknowledged", "shelved", "suppressed"] as const; // also what tells nobody for now is shown
const MOST_OVER = 300; // alerts that are over and still kept here

type Connection = "asking" | "live" | "lost" | "login" | "forbidden";
interface LatestRow { node: string; device: string; metric: string; unit: string; value: number; time_us: number; received_us: number }

export class Town {
  /** By place and name. */
  devices = $state.raw<readonly Device[]>([]);
  /** The newest first: all that go on, and some that are over. */
  alerts = $state.raw<readonly Alert[]>([]);
  /** Which of the two lists could be read: not everybody may read both. */
  readable = $state.raw({ devices: false, alerts: false });
  /** null: not known, `areasProblem` says why. */
  areas = $state.raw<readonly Area[] | null>(null);
  areasProblem = $state.raw<Problem | null>(null);
  mode = $state<string | null>(null);
  /** Grows whenever the stream says that people were told or answered. */
  pagesSaid = $state(0);
  connection = $state<Connection>("asking");
  /** Whether all that is shown is of the past. */
  lost = $derived(this.connection === "lost");
  /** The gateway's clock, once a second; goes on while the connection is lost, as ages do. */
  nowUs = $state(0);
  /** When the gateway last said anything, by its clock. */
  heardUs = $state(0);
  /** Whether anything was ever read. */
  known = $derived(this.heardUs > 0);
  ringing = $derived(new Set(this.alerts.filter(isOpen).map(keyOf)));

  #devices = new Map<string, Device>();
  #alerts = new Map<string, Alert>();
  #staleAfterS = 600;
  #aheadUs: number | null = null; // the gateway's clock minus this machine's monotonic one
  #painting = false;
  #soon: ReturnType<typeof setTimeout> | undefined;

  constructor() {
    $effect(() => {
      const stop = new AbortController();
      follow({
        began: async () => {
          if (await this.read()) this.connection = "live";
        },
        said: (kind, body) => this.#said(kind, body),
        alive: () => this.#alive(),
        lost: () => (this.connection = "lost"),
        refused: (status) => (this.connection = status === 401 ? "login" : "forbidden"),
      }, stop.signal);
      const ticks = [
        setInterval(() => this.#tick(), 1000),
        setInterval(() => void this.read(), READ_EVERY_MS),
        setInterval(() => void this.readAreas(), AREAS_EVERY_MS),
      ];
      return () => {
        stop.abort();
        ticks.forEach(clearInterval);
        clearTimeout(this.#soon);
      };
    });
  }

  why(device: Device): UnknownWhy | null {
    return unknownWhy(device, this.nowUs, this.#staleAfterS);
  }

  /** Whether nothing is known of how it is now: it is silent, or we don't hear the gateway. */
  unknown(device: Device): boolean {
    return this.lost || this.why(device) !== null;
  }

  status(device: Device): Status {
    return statusOf(this.ringing.has(keyOf(device)), this.unknown(device));
  }

  device(key: string): Device | undefined {
    return this.devices.find((one) => keyOf(one) === key);
  }

  /** Reads everything anew; whether anything could be read. What the stream said meanwhile of an alert is newer than the list. */
  async read(): Promise<boolean> {
    const [devices, open] = await Promise.all([
      tried(() => api.GET("/api/v1/devices")),
      tried(() => api.GET("/api/v1/alerts", { params: { query: { state: [...OPEN], limit: 1000 } } })),
      this.readAreas(),
    ]);
    if ("value" in devices) {
      this.#aheadUs = devices.value.now_us - performance.now() * 1000;
      this.#staleAfterS = devices.value.stale_after_s;
      const order = new Intl.Collator("ja", { numeric: true });
      const named = devices.value.devices.map((one) => [`${one.place} ${one.label} ${keyOf(one)}`, one] as const);
      named.sort(([a], [b]) => order.compare(a, b));
      this.#devices = new Map(named.map(([, one]) => [keyOf(one), one]));
    }
    if ("value" in open) {
      this.#aheadUs ??= open.value.now_us - performance.now() * 1000;
      const listed = new Set(open.value.alerts.map((one) => one.id));
      for (const [id, one] of this.#alerts) if (!listed.has(id) && one.state !== "resolved") this.#alerts.delete(id);
      open.value.alerts.forEach((one) => this.#keep(one));
    }
    if (!("value" in devices) && !("value" in open)) {
      if (devices.problem.status === 401) this.connection = "login";
      if (devices.problem.status === 403 && open.problem.status === 403) this.connection = "forbidden";
      return false;
    }
    this.readable = { devices: "value" in devices || this.readable.devices, alerts: "value" in open || this.readable.alerts };
    if (this.known) this.#paint();
    else this.#show(); // at once: what is known must not be counted as none before it is painted
    this.#tick(); // before anybody is told that the town is known: what they reckon from is there
    this.#alive();
    return true;
  }

  async readAreas(): Promise<void> {
    if (this.connection === "login" || this.connection === "forbidden") return;
    const areas = await tried(() => api.GET("/api/v1/areas"));
    if ("value" in areas) {
      this.areas = areas.value.areas;
      this.areasProblem = null;
      this.mode = areas.value.mode;
    } else if (areas.problem.status !== 0) this.areasProblem = areas.problem; // else the stream says that it is lost
  }

  /** Reads also those that are over: the newest. */
  async readAll(): Promise<void> {
    const all = await tried(() => api.GET("/api/v1/alerts", { params: { query: { limit: MOST_OVER } } }));
    if ("value" in all) all.value.alerts.forEach((one) => this.#keep(one));
    this.#paint();
  }

  /** An alert as an act's answer says it, or as it was read. */
  take(alert: Alert): void {
    this.#keep(alert);
    this.#paint();
  }

  #keep(alert: Alert): void {
    const mine = this.#alerts.get(alert.id);
    if (mine === undefined || mine.version <= alert.version) this.#alerts.set(alert.id, alert);
  }

  #said(kind: string, body: unknown): void {
    if (kind === "resync") void this.read();
    if (kind === "alert") this.#keep(body as Alert);
    if (kind === "latest") for (const row of (body as { rows: LatestRow[] }).rows) this.#latest(row);
    if (kind === "event") {
      const { node, device, type, time_us, received_us } = body as LatestRow & { type: string };
      this.#heard(`${node}/${device}`, Math.min(time_us, received_us));
      if (type === "device_down" || type === "device_up") this.#readSoon();
    }
    if (kind === "mode") void this.readAreas();
    if (kind === "page") this.pagesSaid += 1;
    this.#paint();
  }

  #latest(row: LatestRow): void {
    const key = keyOf(row);
    const device = this.#devices.get(key);
    if (device === undefined || device.unknown_why !== null) return this.#readSoon();
    const value = { ...row, age_s: 0 };
    const listed = device.latest.some((one) => one.metric === row.metric);
    const latest = listed ? device.latest.map((one) => (one.metric === row.metric ? value : one)) : [...device.latest, value];
    this.#devices.set(key, { ...device, latest });
    this.#heard(key, Math.min(row.time_us, row.received_us));
  }

  #heard(key: string, us: number): void {
    const device = this.#devices.get(key);
    if (device === undefined) return this.#readSoon();
    if (device.heard_us === null || device.heard_us < us) this.#devices.set(key, { ...device, heard_us: us });
  }

  /** Many reasons within a second are one. */
  #readSoon(): void {
    this.#soon ??= setTimeout(() => {
      this.#soon = undefined;
      void this.read();
    }, SOON_MS);
  }

  #alive(): void {
    if (this.#aheadUs !== null) this.heardUs = performance.now() * 1000 + this.#aheadUs;
  }

  #tick(): void {
    if (this.#aheadUs !== null) this.nowUs = performance.now() * 1000 + this.#aheadUs;
  }

  #paint(): void {
    if (this.#painting) return;
    this.#painting = true;
    setTimeout(() => requestAnimationFrame(() => {
      this.#painting = false;
      this.#show();
    }), PAINT_EVERY_MS);
  }

  #show(): void {
    this.devices = [...this.#devices.values()];
    const newest = [...this.#alerts.values()].sort((a, b) => b.since_us - a.since_us || a.id.localeCompare(b.id));
    let over = 0;
    const kept = newest.filter((one) => isOpen(one) || one.state === "shelved" || (over += 1) <= MOST_OVER);
    if (kept.length < newest.length) this.#alerts = new Map(kept.map((one) => [one.id, one]));
    this.alerts = kept;
  }
}

/** The one town of this page, for its parts. */
export const [getTown, setTown] = createContext<Town>();
