// Words with their facts. The words themselves come from the gateway's catalogues, as JSON that the build writes beside this file
// (never by hand): one file for each page and language.

import type { Id } from "./ids";

export type Language = "ja" | "ja-easy" | "en";
/** A sentence; in a language with plural forms, the one for 1 and the one for all else. */
export type Form = string | readonly [string, string];
export type Words = Readonly<Record<string, Form>>;
export type Facts = Readonly<Record<string, string | number>>;
export type Say = (id: Id, facts?: Facts) => string;

export const LANGUAGES: readonly Language[] = ["ja", "ja-easy", "en"];
/** How each language calls itself; in no catalogue, for it is the same in all. */
export const OWN_NAMES: Readonly<Record<Language, string>> = { ja: "日本語", "ja-easy": "やさしい にほんご", en: "English" };

/** What says the sentences of these words. It throws on an id that the page does not have, and on a missing fact.
 *  `office`: what `{office}` is where no fact says otherwise. */
export function saying(words: Words, language: Language, office?: string): Say {
  const number = new Intl.NumberFormat(language === "en" ? "en" : "ja");
  return (id, facts = {}) => {
    const found = words[id];
    if (found === undefined) throw new Error(`there are no words for ${id} on this page`);
    const form = typeof found === "string" ? found : found[facts.n === 1 ? 0 : 1];
    return form.replace(/\{([a-z_]+)\}/g, (_, name: string) => {
      const fact = facts[name] ?? (name === "office" ? office : undefined);
      if (fact === undefined) throw new Error(`${id}: the fact ${name} is missing`);
      return typeof fact === "number" ? number.format(fact) : fact;
    });
  };
}

/** The language that was chosen here before, or else what the browser asks for. */
export function languageOf(kept: string | null, asked: string): Language {
  const known = LANGUAGES.find((one) => one === kept);
  return known ?? (asked.toLowerCase().startsWith("ja") ? "ja" : "en");
}
