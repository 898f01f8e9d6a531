// Sends what waits: photos, then the record. Whatever it is cut off by, it may simply begin again: the gateway knows each by its id.
// One that can't go holds back no other. A photo that the phone has lost is told of, and the record goes without it.
// Used by the page and by its worker, so it knows neither.

import { bodyOf, type Installation } from "./record";

/** What of `Keep` is needed to send. */
export interface Waiting {
  records(): Promise<Installation[]>;
  /** Undefined where it is lost. */
  photo(sha256: string): Promise<ArrayBuffer | undefined>;
  change(id: string, changed: Partial<Installation>): Promise<void>;
  sent(id: string, nowMs: number): Promise<void>;
}

/** Asks the gateway; throws TypeError where it can't be reached. */
export type Ask = (path: string, init?: RequestInit) => Promise<Response>;

/** How a round of sending ended. `login`: the session is over, so nothing more was tried. `later`: something still waits. */
export type Round = "empty" | "later" | "login";

/** `shut`: why it may not be sent now, in the gateway's words, but may be later: a job that is over is opened again. */
type Came =
  | { readonly taken: true } | { readonly refused: string } | { readonly login: true }
  | { readonly afterMs: number | null; readonly shut?: string };

const FIRST_WAIT_MS = 5_000;
const LONGEST_WAIT_MS = 600_000;
const REFUSED = new Set([400, 404, 409, 413, 415, 422]);
/** Pieces of one photo in one round: a gateway that takes nothing must not be asked for ever. */
const MOST_PIECES = 5;

/** Doubles from 5 s up to 10 minutes, and not all phones at one moment. `random`: from 0 to 1. */
export const waitMs = (tries: number, random: number): number =>
  Math.min(FIRST_WAIT_MS * 2 ** tries, LONGEST_WAIT_MS) * (0.5 + random / 2);

/** Sends what is `account`'s own, the oldest first. `atOnce`: also what should wait. `on`: which one is being sent. */
export async function sendAll(
  keep: Waiting, account: string, ask: Ask, nowMs: () => number, atOnce: boolean, on: (id: string | null) => void,
): Promise<Round> {
  const waiting = (await keep.records()).filter((one) => one.state === "unsent" && one.account === account).reverse();
  let round: Round = "empty";
  try {
    for (const one of waiting) {
      if (!atOnce && one.next_ms > nowMs()) {
        round = "later";
        continue;
      }
      on(one.id);
      const came = await sendOne(keep, one, ask);
      if ("taken" in came) await keep.sent(one.id, nowMs());
      else if ("login" in came) return "login";
      else if ("refused" in came) await keep.change(one.id, { state: "refused", why: came.refused });
      else {
        const wait = came.afterMs ?? waitMs(one.tries, Math.random());
        const why = came.shut ?? one.why; // where nobody answers, what was said last still is the reason
        await keep.change(one.id, { tries: one.tries + 1, next_ms: nowMs() + wait, why });
        round = "later";
      }
    }
  } finally {
    on(null);
  }
  return round;
}

async function sendOne(keep: Waiting, one: Installation, ask: Ask): Promise<Came> {
  try {
    const lost = new Set<string>();
    for (const sha256 of one.photos) {
      const came = await sendPhoto(sha256, await keep.photo(sha256), ask);
      if (came === "lost") lost.add(sha256);
      else if (!("taken" in came)) return came;
    }
    if (lost.size > 0) {
      // Kept before it is said, so that the very same is said again where no answer comes.
      const changed = { photos: one.photos.filter((each) => !lost.has(each)), lost: (one.lost ?? 0) + lost.size };
      await keep.change(one.id, changed);
      one = { ...one, ...changed };
    }
    return await heard(
      await ask(`/api/v1/nodes/${encodeURIComponent(one.node)}/installations/${one.id}`, {
        method: "PUT", headers: { "Content-Type": "application/json" }, body: bodyOf(one),
      }),
    );
  } catch (error) {
    // No network, or none that answers; or a photo that the phone can't read just now.
    if (error instanceof TypeError || error instanceof DOMException) return { afterMs: null };
    throw error;
  }
}

/** Goes on from where the gateway is. `lost`: the phone does not have it any more, and the gateway not all of it. */
async function sendPhoto(sha256: string, bytes: ArrayBuffer | undefined, ask: Ask): Promise<Came | "lost"> {
  const path = `/api/v1/media/${sha256}`;
  let answer = await ask(path, { method: "HEAD" });
  if (bytes === undefined) return answer.status === 204 ? "lost" : heard(answer);
  for (let piece = 0; piece < MOST_PIECES && (answer.status === 204 || answer.status === 409); piece++) {
    const offset = Number(answer.headers.get("Upload-Offset") ?? 0);
    answer = await ask(path, {
      method: "PATCH",
      headers: { "Upload-Offset": String(offset), "Upload-Length": String(bytes.byteLength), "Content-Type": "image/jpeg" },
      body: bytes.slice(offset),
    });
  }
  return answer.status === 204 || answer.status === 409 ? { afterMs: null } : heard(answer);
}

async function heard(answer: Response): Promise<Came> {
  if (answer.status === 200 || answer.status === 201) return { taken: true };
  if (answer.status === 401) return { login: true };
  if (answer.status === 403) return { afterMs: null, shut: await why(answer) };
  if (REFUSED.has(answer.status)) return { refused: await why(answer) };
  const after = Number(answer.headers.get("Retry-After"));
  return { afterMs: after > 0 ? after * 1000 : null };
}

/** What the gateway says of it, in words. */
async function why(answer: Response): Promise<string> {
  try {
    const said = (await answer.json()) as { detail?: unknown };
    return typeof said.detail === "string" ? said.detail : `${answer.status}`;
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error; // something between us and the gateway has answered, in no words of ours
    return `${answer.status}`;
  }
}

/** One sender at a time, page or worker; older browsers have no locks, and the gateway takes a record twice as one. */
export async function alone(send: () => Promise<Round>): Promise<Round> {
  if (navigator.locks === undefined) return send();
  return navigator.locks.request("satomori-install-send", { ifAvailable: true }, (lock) =>
    lock === null ? Promise.resolve<Round>("later") : send());
}
