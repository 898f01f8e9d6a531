// How people are named to other people.

import type { Language } from "./words/say";

const HONORIFICS = /(さん|様|さま|ちゃん|くん|先生)$/;
/** 田中さん; in English as it is. */
export const honoured = (language: Language, name: string): string =>
  language === "en" || HONORIFICS.test(name) ? name : `${name}さん`;
export const namesOf = (language: Language, names: readonly string[]): string =>
  names.map((one) => honoured(language, one)).join(language === "en" ? ", " : "、");
