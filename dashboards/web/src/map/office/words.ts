// Which words of the catalogues stand for what at the office's desk.

import type { Id } from "../../words/ids";
import type { Say } from "../../words/say";
import { whereWords } from "../say";
import type { Town } from "../town.svelte";

type Table = Readonly<Record<string, Id>>;

export const ROLES: Table = {
  operator: "web_map.office_role_operator", officer: "web_map.office_role_officer", installer: "web_map.office_role_installer",
  farmer: "web_map.office_role_farmer", hunter: "web_map.office_role_hunter", family: "web_map.office_role_family",
  volunteer: "web_map.office_role_volunteer", viewer: "web_map.office_role_viewer",
};
export const TRAPS: Table = {
  set: "web_map.office_trap_set", sprung: "web_map.office_trap_sprung", unknown: "web_map.office_trap_unknown",
  sprung_silent: "web_map.office_trap_sprung_silent",
};
export const RESULTS: Table = {
  set: "web_map.office_visit_set", capture: "web_map.office_visit_capture", empty: "web_map.office_visit_empty",
  moved: "web_map.office_visit_moved", removed: "web_map.office_visit_removed",
};
export const SEXES: Table = {
  male: "web_map.office_sex_male", female: "web_map.office_sex_female", unknown: "web_map.office_sex_unknown",
};
/** What a dossier can lack. */
export const LACKS: Table = {
  species: "web_map.office_species", sex: "web_map.office_sex", weight_kg: "web_map.office_weight",
    disposal: "web_map.office_disposal",
  whole: "web_map.office_photo_whole", board: "web_map.office_photo_board", tail: "web_map.office_photo_tail",
};
export const SEARCHES: Table = {
  open: "web_map.office_search_open", paused: "web_map.office_search_paused", found: "web_map.office_search_found",
  closed: "web_map.office_search_closed",
};
export const SEARCH_CHANGES: Table = {
  opened: "web_map.office_change_opened", renewed: "web_map.office_change_renewed", widened: "web_map.office_change_widened",
  asked: "web_map.office_change_asked", paused: "web_map.office_change_paused", found: "web_map.office_change_found",
  closed: "web_map.office_change_closed",
};
export const DELIVERIES: Table = {
  queued: "web_map.office_delivery_queued", sent: "web_map.office_delivery_sent", seen: "web_map.office_delivery_seen",
  answered: "web_map.office_delivery_answered", failed_over: "web_map.office_delivery_failed_over",
  dropped: "web_map.office_delivery_dropped", dead: "web_map.office_delivery_dead",
};
export const MESSAGES: Table = {
  alert: "web_map.office_message_alert", again: "web_map.office_message_again", update: "web_map.office_message_update",
  result: "web_map.office_message_result", over: "web_map.office_message_over", picture: "web_map.office_message_picture",
  digest: "web_map.office_message_digest", test: "web_map.office_message_test", reply: "web_map.office_message_reply",
  office: "web_map.office_message_office",
};
export const CHANNELS: Table = {
  line: "web_map.office_channel_line", push: "web_map.office_channel_push", mail: "web_map.office_channel_mail",
  sms: "web_map.office_channel_sms", voice: "web_map.office_channel_voice", webhook: "web_map.office_channel_webhook",
};
export const ADDRESSES: Table = {
  proved: "web_map.office_address_proved", new: "web_map.office_address_new", unreachable: "web_map.office_address_lost",
};
export const CONSENTS: Table = {
  held: "web_map.office_consent_held", due: "web_map.office_consent_due", ending: "web_map.office_consent_ending",
  missing: "web_map.office_consent_missing", lapsed: "web_map.office_consent_lapsed", revoked: "web_map.office_consent_revoked",
};
export const COMMANDS: Table = {
  identify: "web_map.office_identify", ping: "web_map.office_ping", test_alarm: "web_map.office_test_alarm",
  take_picture: "web_map.office_take_picture", restart_device: "web_map.office_restart_device",
  upload_diagnostics: "web_map.office_upload_diagnostics",
};
export const COMMAND_STATES: Table = {
  waiting: "web_map.office_command_waiting", done: "web_map.office_command_done", failed: "web_map.office_command_failed",
  refused: "web_map.office_command_refused", expired: "web_map.office_command_expired",
};
export const INSTALLED: Table = {
  waiting: "web_map.office_installed_waiting", done: "web_map.office_installed_done", revisit: "web_map.office_installed_revisit",
};
export const OUTCOMES: Table = {
  done: "web_map.office_outcome_done", refused: "web_map.office_outcome_refused", failed: "web_map.office_outcome_failed",
};
export const WAYS_IN: Table = {
  passkey: "web_map.office_by_passkey", line: "web_map.office_by_line", mail: "web_map.office_by_mail",
  hand: "web_map.office_by_hand",
};
export const WATCHES: Table = {
  traps: "web_map.office_report_traps", cameras: "web_map.office_report_cameras", tags: "web_map.office_report_tags",
  flow: "web_map.office_report_flow",
};
export const LOOKS: Table = {
  place: "web_map.office_look_place", page: "web_map.office_look_page", search: "web_map.office_look_search",
  help: "web_map.office_look_help", trail: "web_map.office_look_trail", alert: "web_map.office_look_alert",
  alerts: "web_map.office_look_alert", message: "web_map.office_look_message",
};

/** The words for what the gateway calls so; what has none keeps its own name. */
export const wordsOf = (say: Say, table: Table, name: string | null): string => {
  const id = name === null ? undefined : table[name];
  return id === undefined ? (name ?? say("web_map.office_unknown")) : say(id);
};

/** What a field offers: every row of a table, with `any` before them where that is a choice. */
export const choices = (say: Say, table: Table, any?: Id): [string, string][] => [
  ...(any === undefined ? [] : [["", say(any)] as [string, string]]),
  ...Object.entries(table).map(([name, id]) => [name, say(id)] as [string, string]),
];

/** Where a device is, as its people call it. */
export function placeWords(say: Say, town: Town, node: string, device: string): string {
  const known = town.device(`${node}/${device}`);
  return whereWords(say, known ?? { node, device, place: "", label: "" });
}
