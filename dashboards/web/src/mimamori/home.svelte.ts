// What is known here of what is mine: read whole, and read again whenever the stream says that something happened. What is held
// is what the last reading said, so it can't grow.

import { createContext } from "svelte";
import { api, tried, type Problem, type Tried } from "../api/client";
import { follow } from "../stream";
import { ENDED_FOR_US, mattersOf, worstFirst, type Case, type Dossier, type Ended, type Matter, type Page, type Person,
  type Receiving, type Trap } from "./mine";

const READ_EVERY_MS = 30_000; // where a tag is says nothing on the stream
const SOON_MS = 700;
const FAILED_MS = 3000;
const TELLING = new Set(["alert", "page", "event", "resync", "mode"]); // readings come by the second, and change no sentence

type Clock = () => number;
/** The gateway's clock, from what it said just now. In a sleeping phone some clocks stand still: the one that went further counts. */
function clockFrom(nowUs: number): Clock {
  const [steady, wall] = [performance.now(), Date.now()];
  return () => nowUs + Math.max(performance.now() - steady, Date.now() - wall) * 1000;
}

type Connection = "asking" | "live" | "lost" | "login" | "forbidden";

export class Home {
  connection = $state<Connection>("asking");
  /** Open alerts, with who is asked; null: never read. */
  matters = $state.raw<readonly Matter[] | null>(null);
  people = $state.raw<readonly Person[]>([]);
  /** By the person's id: the search that goes on. */
  cases = $state.raw<ReadonlyMap<string, Case>>(new Map());
  /** By the person's id: the newest search that ended within a day. */
  ended = $state.raw<ReadonlyMap<string, Ended>>(new Map());
  /** The worst first. */
  traps = $state.raw<readonly Trap[]>([]);
  /** Those that lack papers. */
  dossiers = $state.raw<readonly Dossier[]>([]);
  /** null: nobody is told by this account. */
  receiving = $state.raw<Receiving | null>(null);
  /** What could not be read, and why. */
  problems = $state.raw<readonly Problem[]>([]);
  /** Whether traps are mine to look after, or people: then their part is shown also where there is none. */
  keepsTraps = $state(false);
  watches = $state(false);
  /** The gateway's clock, once a second; goes on while the connection is lost, as ages do. */
  nowUs = $state(0);
  /** Until when what is shown was so, by the gateway's clock. */
  heardUs = $state(0);

  #clock: Clock | null = null;
  #hearing = false;
  #reading: Promise<boolean> | null = null;
  #again = false;
  #soon: ReturnType<typeof setTimeout> | undefined;

  constructor() {
    $effect(() => {
      const stop = new AbortController();
      follow({
        began: async () => {
          this.#hearing = true;
          await this.read();
        },
        said: (kind) => {
          if (TELLING.has(kind)) this.readSoon();
        },
        alive: () => {
          if (this.connection === "live") this.#heard();
        },
        lost: () => {
          this.#hearing = false;
          if (this.connection === "live" || this.connection === "asking") this.connection = "lost";
        },
        refused: (status) => this.#leave(status === 401 ? "login" : "forbidden"),
      }, stop.signal);
      const ticks = [setInterval(() => this.#tick(), 1000), setInterval(() => void this.read(), READ_EVERY_MS)];
      const shown = (): void => {
        if (document.visibilityState === "visible") void this.read(); // a phone that slept heard nothing
      };
      document.addEventListener("visibilitychange", shown);
      return () => {
        document.removeEventListener("visibilitychange", shown);
        stop.abort();
        ticks.forEach(clearInterval);
        clearTimeout(this.#soon);
      };
    });
  }

  /** Many reasons within a moment are one. */
  readSoon(afterMs = SOON_MS): void {
    this.#soon ??= setTimeout(() => {
      this.#soon = undefined;
      void this.read();
    }, afterMs);
  }

  /** Reads everything anew; whether it could be read. Asked while it reads, it reads once more. */
  read = (): Promise<boolean> => {
    this.#again = this.#reading !== null;
    this.#reading ??= this.#readAll().finally(() => {
      this.#reading = null;
      if (this.#again) this.readSoon();
    });
    return this.#reading;
  };

  async #readAll(): Promise<boolean> {
    if (this.connection === "login" || this.connection === "forbidden") return false;
    const me = await tried(() => api.GET("/api/v1/account"));
    if ("problem" in me) return this.#failed(me.problem);
    const roles = new Set(me.value.roles);
    const has = (...some: string[]): boolean => some.some((one) => roles.has(one));
    const asks = has("operator", "officer", "farmer", "hunter", "family");
    const [keeps, watches] = [has("operator", "officer", "farmer", "hunter"), has("family")];
    const [alerts, pages, people, searches, traps, dossiers, receiving] = await Promise.all([
      asks ? tried(() => api.GET("/api/v1/alerts", { params: { query: { state: ["firing", "acknowledged"], limit: 1000 } } })) : null,
      has("farmer", "hunter", "family") ? this.#pages() : null, // the office answers elsewhere
      watches ? tried(() => api.GET("/api/v1/watched")) : null,
      watches ? tried(() => api.GET("/api/v1/searches", { params: { query: { limit: 50 } } })) : null,
      keeps ? tried(() => api.GET("/api/v1/traps")) : null,
      keeps ? tried(() => api.GET("/api/v1/captures", { params: { query: { complete: false } } })) : null,
      me.value.account === null ? null : tried(() => api.GET("/api/v1/account/contact")), // nobody is told by a token
    ]);
    const all: readonly (Tried<unknown> | null)[] = [alerts, pages, people, searches, traps, dossiers, receiving];
    const problems = all.flatMap((one) => (one !== null && "problem" in one && one.problem.status !== 404 ? [one.problem] : []));
    const whole = problems.find(({ status }) => status === 0 || status === 401);
    if (whole !== undefined) return this.#failed(whole);
    const got = <T>(one: Tried<T> | null): T | null => (one !== null && "value" in one ? one.value : null);
    const nowUs = got(alerts)?.now_us ?? got(traps)?.now_us ?? got(people)?.now_us;
    if (nowUs !== undefined) this.#clock = clockFrom(nowUs);
    const cases = await this.#cases(got(searches)?.searches ?? []);
    this.problems = problems;
    this.matters = mattersOf(got(alerts)?.alerts ?? [], got(pages) ?? []);
    this.people = got(people)?.watched ?? [];
    this.cases = cases;
    this.ended = this.#endedOf(got(searches)?.searches ?? [], nowUs ?? this.nowUs);
    this.traps = worstFirst(got(traps)?.traps ?? []);
    this.dossiers = got(dossiers)?.captures ?? [];
    this.receiving = got(receiving);
    [this.keepsTraps, this.watches] = [has("farmer", "hunter") || (keeps && this.traps.length > 0), watches];
    this.#heard();
    this.#tick();
    if (this.#hearing) this.connection = "live";
    return true;
  }

  async #pages(): Promise<Tried<readonly Page[]>> {
    const open = await tried(() => api.GET("/api/v1/pages",
      { params: { query: { state: ["waiting", "asking", "answered", "exhausted"], limit: 50 } } }));
    if ("problem" in open) return open;
    const found = await Promise.all(open.value.pages.map(({ id }) =>
      tried(() => api.GET("/api/v1/pages/{id}", { params: { path: { id } } }))));
    return { value: found.flatMap((one) => ("value" in one ? [one.value] : [])) }; // one that closed meanwhile is none
  }

  async #cases(searches: readonly Ended[]): Promise<ReadonlyMap<string, Case>> {
    const open = searches.filter(({ state }) => state === "open" || state === "paused");
    const found = await Promise.all(open.map(({ id }) =>
      tried(() => api.GET("/api/v1/searches/{id}", { params: { path: { id } } }))));
    return new Map(found.flatMap((one) => ("value" in one ? [[one.value.watched, one.value] as const] : [])));
  }

  #endedOf(searches: readonly Ended[], nowUs: number): ReadonlyMap<string, Ended> {
    const found = new Map<string, Ended>();
    for (const one of searches) {
      if (one.ended_us !== null && one.ended_us > nowUs - ENDED_FOR_US && !found.has(one.watched)) found.set(one.watched, one);
    }
    return found;
  }

  #failed(problem: Problem): false {
    if (problem.status === 401) this.#leave("login");
    else if (problem.status === 403) this.#leave("forbidden");
    else {
      this.connection = "lost";
      if (this.#hearing) this.readSoon(FAILED_MS); // it lives, and can't answer for now
    }
    return false;
  }

  /** Who is no longer in leaves nothing on the screen. */
  #leave(why: "login" | "forbidden"): void {
    this.connection = why;
    [this.matters, this.receiving] = [null, null];
    [this.people, this.traps, this.dossiers, this.problems] = [[], [], [], []];
    [this.cases, this.ended] = [new Map(), new Map()];
  }

  #heard(): void {
    if (this.#clock !== null) this.heardUs = this.#clock();
  }

  #tick(): void {
    if (this.#clock !== null) this.nowUs = this.#clock();
  }
}

/** The one home of this page, for its parts. */
export const [getHome, setHome] = createContext<Home>();
