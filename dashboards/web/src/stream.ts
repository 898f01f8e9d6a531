// The gateway's live stream (server-sent events), read so that a lost connection is known within seconds. By fetch, because who
// comes by a token has to say it, and an EventSource can't.

import { fetched } from "./api/client";

export interface Hearing {
  /** From here on everything is heard: what is read now has no gap to it. */
  began: () => Promise<void>;
  said: (kind: string, body: unknown) => void;
  /** A sign of life, of whatever kind. */
  alive: () => void;
  /** Nothing was heard for QUIET_MS, or the connection broke. It is tried again until `stop`. */
  lost: () => void;
  /** The gateway lets nobody in like this; it is not tried again. */
  refused: (status: 401 | 403) => void;
}

const QUIET_MS = 8000; // the gateway speaks every 4 s; people hear of a lost connection within 10 s
const LONGEST_WAIT_MS = 8000;

/** Cuts what came into whole events, and leaves what is not whole yet. A comment has no kind. */
export function eventsIn(text: string): { events: { kind: string; data: string }[]; rest: string } {
  const blocks = text.split("\n\n");
  const rest = blocks.pop() ?? "";
  const events = blocks.flatMap((block) => {
    const field = (name: string) => block.split("\n").find((line) => line.startsWith(`${name}: `))?.slice(name.length + 2);
    const [kind, data] = [field("event"), field("data")];
    return kind === undefined || data === undefined ? [] : [{ kind, data }];
  });
  return { events, rest };
}

/** Follows the stream until `stop`. */
export function follow(hearing: Hearing, stop: AbortSignal): void {
  void (async () => {
    for (let failures = 0; !stop.aborted; failures += 1) {
      const once = new AbortController();
      const end = (): void => once.abort();
      stop.addEventListener("abort", end);
      let quiet = setTimeout(end, QUIET_MS);
      const alive = (): void => {
        clearTimeout(quiet);
        quiet = setTimeout(end, QUIET_MS);
        hearing.alive();
      };
      try {
        const response = await fetched("/api/v1/stream", once.signal);
        if (response.status === 401 || response.status === 403) return hearing.refused(response.status);
        if (response.ok && response.body !== null) await read(response.body, hearing, alive, () => (failures = 0));
      } catch (error) {
        // A network that is not there, or our own watch over its silence.
        if (!(error instanceof TypeError) && !(error instanceof DOMException)) throw error;
      } finally {
        clearTimeout(quiet);
        stop.removeEventListener("abort", end);
        end();
      }
      if (stop.aborted) return;
      hearing.lost();
      // With jitter, so that a town of screens does not come back in step.
      const wait = 300 + Math.random() * Math.min(LONGEST_WAIT_MS, 500 * 2 ** failures);
      await new Promise((done) => setTimeout(done, wait));
    }
  })();
}

async function read(stream: ReadableStream<Uint8Array>, hearing: Hearing, alive: () => void, well: () => void): Promise<void> {
  const reader = stream.getReader();
  const decoder = new TextDecoder();
  let text = "";
  let began = false;
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    alive();
    if (!began) {
      began = true;
      await hearing.began();
      well();
      alive();
    }
    const { events, rest } = eventsIn(text + decoder.decode(value, { stream: true }));
    text = rest;
    for (const { kind, data } of events) hearing.said(kind, JSON.parse(data));
  }
}
