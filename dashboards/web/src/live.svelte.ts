// A value that is asked for again and again while its page is open, and is honestly unknown when it can't be had.

import type { Answer } from "./api/client";

const EVERY_MS = 10_000;

export class Live<T> {
  /** The newest answer; undefined: none yet. */
  answer = $state.raw<Answer<T> | undefined>();
  /** Milliseconds since the answer came, counted while it is shown. */
  age = $state(0);
  #cameAt = 0;

  constructor(ask: () => Promise<Answer<T>>) {
    $effect(() => {
      let open = true;
      const look = async (): Promise<void> => {
        const found = await ask();
        if (!open) return;
        this.answer = found;
        this.#cameAt = performance.now();
        this.age = 0;
      };
      void look();
      const asking = setInterval(() => void look(), EVERY_MS);
      const ageing = setInterval(() => (this.age = performance.now() - this.#cameAt), 1000);
      return () => {
        open = false;
        clearInterval(asking);
        clearInterval(ageing);
      };
    });
  }
}
