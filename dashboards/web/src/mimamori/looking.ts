// A look at where a tag was, in words: who, what, why.

import type { Id } from "../words/ids";
import type { Language, Say } from "../words/say";
import { honoured } from "../names";
import type { Look } from "./mine";

const WHO: Readonly<Record<string, Id>> = {
  officer: "web_mimamori.by_officer", operator: "web_mimamori.by_operator", installer: "web_mimamori.by_installer",
  family: "web_mimamori.by_family", office: "web_mimamori.by_office", helper: "web_mimamori.by_helper",
  program: "web_mimamori.by_program",
};
const WHAT: Readonly<Record<string, Id>> = {
  place: "web_mimamori.look_place", page: "web_mimamori.look_page", search: "web_mimamori.look_search", help: "web_mimamori.look_help",
  trail: "web_mimamori.look_trail", alert: "web_mimamori.look_alert", alerts: "web_mimamori.look_alerts",
  message: "web_mimamori.look_message",
};

/** 田中さん（見守りの担当）が、一覧で最後の場所を見ました。理由：捜索 */
export function lookWords(say: Say, language: Language, look: Look): string {
  const who = WHO[look.by];
  const name = look.name === null ? say("web_mimamori.by_gone") : look.by === "program" ? look.name : honoured(language, look.name);
  const by = who === undefined || look.name === null ? name : say(who, { name });
  const what = WHAT[look.what];
  const did = what === undefined ? say("web_mimamori.look_other", { by }) : say(what, { by });
  if (look.why === "") return did;
  const kind = look.why.split("/")[0];
  if (kind === "search" && look.why.includes("/")) return did + say("web_mimamori.look_why_search");
  if (kind === "alert" && look.why.includes("/")) return did + say("web_mimamori.look_why_alert");
  return did + say("web_mimamori.look_why", { why: look.why });
}
