// Readings above their kanji, in easy Japanese. The catalogues write them in brackets, 家（いえ）, and so they stay in attributes and
// options; gateway/pages/ruby.py has the same rule for the gateway's own pages.

/** Some text, and how it is read where that is said. */
export interface Part { base: string; reading: string | null }

/** Kanji, then hiragana in brackets. A number belongs to them where both are read as one: 2人（ふたり）, but not 10人（にん）. */
const WITH_READING = /((?:[0-9]+(?=[人日][㐀-鿿]*（(?!に[んち])))?[㐀-鿿々〆ヵヶ]+)（([ぁ-ゖー]+)）/g;

/** The same characters in the same order, without the brackets of what has a reading. */
export function inParts(said: string): Part[] {
  const parts: Part[] = [];
  let at = 0;
  for (const found of said.matchAll(WITH_READING)) {
    if (found.index > at) parts.push({ base: said.slice(at, found.index), reading: null });
    parts.push({ base: found[1]!, reading: found[2]! });
    at = found.index + found[0].length;
  }
  if (at < said.length) parts.push({ base: said.slice(at), reading: null });
  return parts;
}
