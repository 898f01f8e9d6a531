// The installer's page as a whole: who is in, what is kept here, what is being sent, what is being written.

import { gateway, practiceDoor, PRACTICE, Refused, type Door, type Job, type MapOf, type Result } from "./gateway";
import { openKeep, type Keep } from "./keep";
import { begun, newId, revisited, type Installation, type Who } from "./record";
import { alone, sendAll, type Ask } from "./send";
import { pathsAround, take, type Area } from "./tiles";
import { asking, whoIsIn } from "./who";

const SEND_EVERY_MS = 30_000;
const LOOK_EVERY_MS = 3_000;

/** What was loaded for where there is no network. `persistent`: whether the browser has promised to keep it. */
export interface Prepared { at_ms: number; jobs: number; devices: number; tiles: Area; page: boolean; persistent: boolean }

export class App {
  readonly practice: boolean;
  readonly #keep: Keep;
  readonly #ask: Ask;
  readonly door: Door;
  /** Who was in last: records are theirs. Null: nobody ever was, on this phone. */
  me = $state.raw<Who | null>(null);
  /** What the gateway says of who is in now. */
  inside = $state<"asking" | "in" | "login" | "unreachable">("asking");
  records = $state.raw<Installation[]>([]);
  /** As it is kept: a step that is shown is there after a reload. What could not be kept is there too, where `unkept` says so. */
  draft = $state.raw<Installation | null>(null);
  /** What is being kept of drafts: what is written next waits for that, and stands on what came of it. */
  #keeping: Promise<unknown> = Promise.resolve();
  /** The draft that is being finished. */
  #ending: string | null = null;
  /** The one that was just finished: its end is shown until its writer goes on. */
  ended = $state.raw<Installation | null>(null);
  sending = $state<string | null>(null);
  jobs = $state.raw<Job[]>([]);
  jobsAtMs = $state<number | null>(null);
  results = $state.raw<ReadonlyMap<string, Result>>(new Map());
  resultsAtMs = $state<number | null>(null);
  map = $state.raw<MapOf | null>(null);
  prepared = $state.raw<Prepared | null>(null);
  preparing = $state.raw<Area | null>(null);
  /** Why what was entered last is not kept: the phone has no room, or will not say what the matter is. Null: it is kept. */
  unkept = $state<"full" | "broken" | null>(null);
  /** Whether the browser has promised to keep what is here; null: not asked yet. */
  persistent = $state<boolean | null>(null);
  now = $state(Date.now());

  constructor(keep: Keep, practice: boolean) {
    this.practice = practice;
    this.#keep = keep;
    const token = sessionStorage.getItem("token");
    this.#ask = asking(token);
    this.door = practice ? practiceDoor(PRACTICE) : gateway(this.#ask);
  }

  static async open(practice: boolean, practiser: string): Promise<App> {
    const app = new App(await openKeep(practice), practice);
    await app.#open(practiser);
    return app;
  }

  async #open(practiser: string): Promise<void> {
    if (this.practice) {
      await this.#keep.clear();
      this.me = { account: "practice", name: practiser };
      this.inside = "in";
      this.jobs = [PRACTICE];
      this.jobsAtMs = Date.now();
      return;
    }
    await this.#keep.tidy(Date.now());
    this.persistent = (await navigator.storage?.persisted?.()) ?? null;
    this.me = (await this.#keep.load<Who>("me")) ?? null;
    await this.#mine();
    await this.reload();
    this.draft = this.own.find((one) => one.state === "draft") ?? null;
  }

  /** What was loaded by who is in: another's jobs are not shown. */
  async #mine(): Promise<void> {
    const account = this.me?.account ?? "";
    const kept = await this.#keep.load<{ jobs: Job[]; at_ms: number }>(`jobs:${account}`);
    this.jobs = kept?.jobs ?? [];
    this.jobsAtMs = kept?.at_ms ?? null;
    this.prepared = (await this.#keep.load<Prepared>(`prepared:${account}`)) ?? null;
    this.map = (await this.#keep.load<MapOf>("map")) ?? null;
  }

  get own(): Installation[] {
    return this.records.filter((one) => one.account === this.me?.account);
  }

  /** Whether there is no network, as far as it is known: a browser may think itself online on a mountain. */
  get isUnreached(): boolean {
    return !this.practice && (!navigator.onLine || this.inside === "unreachable");
  }

  /** Whole and not yet with the gateway: of me, and of others. */
  get unsent(): number {
    return this.own.filter((one) => one.state === "unsent" || one.state === "refused").length;
  }

  get othersUnsent(): number {
    return this.records.filter((one) => one.account !== this.me?.account && one.state !== "sent").length;
  }

  /** Begins to look and to send by itself; returns what ends that. */
  start(): () => void {
    const ageing = setInterval(() => (this.now = Date.now()), 10_000);
    if (this.practice) return () => clearInterval(ageing);
    const look = (): void => {
      if (document.visibilityState === "visible") void this.refresh();
    };
    const online = (): void => void this.refresh(true);
    window.addEventListener("online", online);
    document.addEventListener("visibilitychange", look);
    const sending = setInterval(() => void this.send(), SEND_EVERY_MS);
    const looking = setInterval(() => void this.look(), LOOK_EVERY_MS);
    void this.refresh(true);
    return () => {
      for (const one of [ageing, sending, looking]) clearInterval(one);
      window.removeEventListener("online", online);
      document.removeEventListener("visibilitychange", look);
    };
  }

  async reload(): Promise<void> {
    this.records = await this.#keep.records();
  }

  /** Asks anew who is in and what they are to do, and sends what waits. */
  async refresh(atOnce = false): Promise<void> {
    if (await this.send(atOnce)) {
      await this.#try(async () => {
        const jobs = await this.door.jobs();
        [this.jobs, this.jobsAtMs] = [jobs, Date.now()];
        await this.#keep.save(`jobs:${this.me?.account}`, { jobs, at_ms: this.jobsAtMs });
      });
      // What waits for its job has it now: that is when to send it, however often it was told to wait.
      const open = new Set(this.jobs.flatMap((job) => job.nodes));
      if (this.own.some((one) => one.state === "unsent" && one.why !== "" && open.has(one.node))) await this.send(true);
      await this.look(true);
    }
  }

  async #who(): Promise<boolean> {
    const said = await whoIsIn(this.#ask, sessionStorage.getItem("token"));
    if (typeof said === "string") {
      this.inside = said;
      return false;
    }
    this.inside = "in";
    if (said.account !== this.me?.account) {
      this.me = said;
      await this.#keep.save("me", said);
      await this.#mine();
      this.draft = null; // another's goes on once they are in again
    }
    return true;
  }

  /** Sends what waits; whether somebody is in. */
  async send(atOnce = false): Promise<boolean> {
    if (this.practice || this.sending !== null) return false;
    await this.reload(); // the worker may have sent in the meantime
    if (!(await this.#who())) return false;
    const account = this.me!.account;
    const round = await alone(() =>
      sendAll(this.#keep, account, this.#ask, () => Date.now(), atOnce, (id) => {
        this.sending = id;
        void this.reload();
      }),
    );
    if (round === "login") this.inside = "login";
    await this.reload();
    return round !== "login";
  }

  /** What became of what was sent, while it is not known to have ended. */
  async look(always = false): Promise<void> {
    const waits = this.own.some((one) =>
      one.state === "sent" && (this.results.get(one.id)?.state ?? "waiting") === "waiting" && !this.comesAgain(one));
    if (this.practice || this.inside !== "in" || document.visibilityState !== "visible" || !(always || waits)) return;
    await this.#try(async () => {
      this.results = new Map((await this.door.results()).map((one) => [one.id, one]));
      this.resultsAtMs = Date.now();
    });
  }

  /** Whether it was said later that somebody must come again to the same device: on this phone, or on another. */
  comesAgain(one: Installation): boolean {
    const after = this.results.get(this.results.get(one.id)?.superseded_by ?? "");
    return revisited(one, this.own) || after?.state === "revisit";
  }

  /** Where the gateway can't be reached or won't, what was known before stays, with its age. */
  async #try(ask: () => Promise<void>): Promise<void> {
    try {
      await ask();
    } catch (error) {
      if ((error as Error).name === "QuotaExceededError") this.unkept = "full";
      else if (!isUnreached(error) && !(error instanceof Refused)) throw error;
    }
  }

  begin(): void {
    this.draft = begun(newId(), this.me!, Date.now());
  }

  /** Keeps the draft with this changed, and then shows it. False where it could not be kept: then words stay on the screen. */
  write(changed: Partial<Installation>, photo?: { sha256: string; bytes: ArrayBuffer }): Promise<boolean> {
    const one = this.draft!;
    const kept = this.#keeping.then(() => this.#write(one, changed, photo));
    this.#keeping = kept.catch(() => null); // who wrote it hears of it
    return kept;
  }

  async #write(one: Installation, changed: Partial<Installation>, photo?: { sha256: string; bytes: ArrayBuffer }): Promise<boolean> {
    const last = this.draft?.id === one.id ? this.draft : (this.records.find((each) => each.id === one.id) ?? one);
    const next = { ...last, ...changed };
    const kept = await this.#put(next, photo);
    if (this.draft?.id === one.id) {
      // Of what is not kept: no step that a reload would not open, no end, no photo that is not there.
      const { step, photos } = last;
      this.draft = kept ? next : changed.state === undefined ? { ...next, step, photos } : last;
    }
    await this.reload();
    return kept;
  }

  /** Whether it is kept; where not, `unkept` says why. */
  async #put(one: Installation, photo?: { sha256: string; bytes: ArrayBuffer }): Promise<boolean> {
    try {
      await this.#keep.put(one, photo);
      this.unkept = null;
      return true;
    } catch (error) {
      if (!(error instanceof DOMException)) throw error;
      this.unkept = error.name === "QuotaExceededError" ? "full" : "broken";
      return false;
    }
  }

  /** The draft is whole: from now on it sends itself. False: it could not be kept, and stays on the screen. */
  async finish(changed: Partial<Installation>): Promise<boolean> {
    const one = this.draft;
    if (one === null || this.#ending === one.id) return false; // tapped twice: it is being kept
    this.#ending = one.id;
    try {
      if (!(await this.write({ ...changed, state: this.practice ? "sent" : "unsent" }))) return false;
    } finally {
      this.#ending = null;
    }
    if (this.draft?.id === one.id) [this.ended, this.draft] = [this.draft, null]; // else its writer has left it meanwhile
    if (!this.practice) this.#sendSoon();
    return true;
  }

  #sendSoon(): void {
    void persist().then((kept) => (this.persistent = kept));
    void askWorkerToSend();
    void this.send(true).then(() => this.look(true));
  }

  /** Somebody must come again to what was sent already: a record of its own, for what was sent is never changed. */
  async revisit(one: Installation, why: string): Promise<void> {
    const { node, device, called } = one;
    // The later of the two, also on a phone whose clock was set back in between.
    const now = begun(newId(), this.me!, Math.max(Date.now(), one.begun_us / 1000 + 1));
    const made: Installation = { ...now, node, device, called, revisit: why, state: "unsent" };
    if (!(await this.#put(made))) return;
    this.ended = made;
    await this.reload();
    this.#sendSoon();
  }

  async drop(id: string): Promise<void> {
    await this.#keep.drop(id);
    if (this.draft?.id === id) this.draft = null;
    await this.reload();
  }

  async again(id: string): Promise<void> {
    await this.#keep.change(id, { state: "unsent", tries: 0, next_ms: 0, why: "" });
    await this.send(true);
  }

  photo = (sha256: string): Promise<ArrayBuffer | undefined> => this.#keep.photo(sha256);

  /** Loads what is needed where there is no network, and says what of it is here. */
  async prepare(job: Job): Promise<void> {
    this.preparing = { saved: 0, of: 0 };
    try {
      await this.refresh();
      await this.#try(async () => {
        this.map = await this.door.map();
        await this.#keep.save("map", this.map);
      });
      const places = job.devices.flatMap((one) => (one.at === null ? [] : [one.at]));
      const paths = this.map?.styles.includes("pale") ? pathsAround(places) : [];
      const tiles = await take(paths, (path) => this.#ask(path), (area) => (this.preparing = area));
      const page = navigator.serviceWorker?.controller != null;
      const made = { at_ms: Date.now(), jobs: 1, devices: job.devices.length, tiles, page, persistent: await persist() };
      this.prepared = made;
      await this.#try(() => this.#keep.save(`prepared:${this.me?.account}`, made));
    } finally {
      this.preparing = null;
    }
  }
}

/** fetch's words for a network that is not there, or for one that has not answered in time. */
export const isUnreached = (error: unknown): boolean => error instanceof TypeError || (error as Error).name === "AbortError";

/** Asks the browser not to clear what is kept here; what it said. */
async function persist(): Promise<boolean> {
  return (await navigator.storage?.persist?.()) ?? false;
}

interface Syncs { sync?: { register(tag: string): Promise<void> } }

/** Where there is Background Sync, the worker sends once there is a network, page or no page. */
async function askWorkerToSend(): Promise<void> {
  const worker = (await navigator.serviceWorker?.getRegistration("/install")) as (ServiceWorkerRegistration & Syncs) | undefined;
  try {
    await worker?.sync?.register("send");
  } catch (error) {
    if (!(error instanceof DOMException)) throw error; // not allowed here: the page sends
  }
}
