// How a page begins: its words in the reader's language, then its component in place of what the HTML says.

import { mount, unmount, type Component } from "svelte";
import "./dialog";
import { readingHere, show as showReading } from "./reading";
import "./style.css";
import { languageOf, saying, type Language, type Say, type Words } from "./words/say";

export interface PageProps { say: Say; language: Language; choose: (language: Language) => void }
/** Each language's words as a file of its own, so that nobody loads what they don't read. */
export type Files = Readonly<Record<string, () => Promise<{ default: Words }>>>;

const KEPT = "language";

showReading(readingHere()); // before anything is mounted
const EVERYWHERE: Readonly<Record<Language, string>> = { ja: "役場", "ja-easy": "役場（やくば）", en: "the town office" };

/** What the office is called here, as the gateway wrote it into the page; where it did not, as everywhere. */
function officeIn(language: Language): string {
  const said = document.querySelector<HTMLMetaElement>('meta[name="office"]')?.content;
  const names = said === undefined ? {} : (JSON.parse(said) as Partial<Record<Language, string>>);
  return names[language] ?? EVERYWHERE[language];
}

/** Opens the page; `choose` another language opens it anew. */
export async function open(page: Component<PageProps>, files: Files): Promise<void> {
  const target = document.getElementById("page");
  if (target === null) throw new Error("the page has no place for its content: an element with the id page");
  let shown: ReturnType<typeof mount> | undefined;
  let wanted: Language;
  const show = async (language: Language): Promise<void> => {
    wanted = language;
    const load = Object.entries(files).find(([name]) => name.endsWith(`.${language}.json`))?.[1];
    if (load === undefined) throw new Error(`the page has no words in ${language}`);
    const words = (await load()).default;
    if (wanted !== language) return; // another was chosen while these came
    const say = saying(words, language, officeIn(language));
    document.documentElement.dataset.words = language;
    document.documentElement.lang = language === "en" ? "en" : "ja";
    if (shown !== undefined) void unmount(shown);
    target.replaceChildren();
    shown = mount(page, { target, props: { say, language, choose } });
  };
  const choose = (language: Language): void => {
    localStorage.setItem(KEPT, language);
    void show(language);
  };
  await show(languageOf(localStorage.getItem(KEPT), navigator.language));
}
