// A list as the gateway gives it: read when its part opens, page by page where it is long, and anew after every act.

import type { Problem, Tried } from "./api/client";

export interface Page<T> {
  rows: readonly T[];
  /** Where the next page begins; null: this is the last one. */
  next?: string | number | null;
}

export class Rows<T> {
  /** null: nothing was read yet. */
  list = $state.raw<readonly T[] | null>(null);
  problem = $state.raw<Problem | null>(null);
  /** When it was read, by the gateway's clock. */
  atUs = $state(0);
  next = $state.raw<string | number | null>(null);
  #ask: (from: string | number | null) => Promise<Tried<Page<T>>>;
  #clock: () => number;
  #asked = 0;

  /** `ask` is asked anew when a value that it looks at changes, as a filter does; and every `everyMs`, if that is given. */
  constructor(ask: (from: string | number | null) => Promise<Tried<Page<T>>>, clock: () => number, everyMs?: number) {
    this.#ask = ask;
    this.#clock = clock;
    $effect(() => {
      void this.read();
    });
    if (everyMs === undefined) return;
    $effect(() => {
      const again = setInterval(() => void (this.#paged || this.read()), everyMs);
      return () => clearInterval(again);
    });
  }

  #paged = false;

  read = async (): Promise<void> => {
    const mine = (this.#asked += 1);
    const found = await this.#ask(null);
    if (mine === this.#asked) this.#take(found, []);
  };

  more = async (): Promise<void> => {
    const mine = (this.#asked += 1);
    const found = await this.#ask(this.next);
    if (mine === this.#asked) this.#take(found, this.list ?? []);
  };

  #take(found: Tried<Page<T>>, before: readonly T[]): void {
    if ("problem" in found) {
      this.problem = found.problem;
      return;
    }
    this.problem = null;
    this.#paged = before.length > 0;
    this.list = [...before, ...found.value.rows];
    this.next = found.value.next ?? null;
    this.atUs = this.#clock();
  }
}

/** What was tried, read as a page. */
export const paged = <D, T>(found: Tried<D>, read: (value: D) => Page<T>): Tried<Page<T>> =>
  "value" in found ? { value: read(found.value) } : found;
