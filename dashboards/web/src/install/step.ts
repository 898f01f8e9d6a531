// What each step of a record is given.

import type { Language, Say } from "../words/say";
import type { App } from "./app.svelte";
import type { Installation } from "./record";

export interface StepProps {
  say: Say;
  language: Language;
  app: App;
  one: Installation;
  /** Keeps what was entered and shows the next step. */
  next: (changed: Partial<Installation>) => Promise<void>;
}
