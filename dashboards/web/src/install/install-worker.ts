// The installer's worker: the page opens where there is no network, tiles that were taken along are found, and what waits is sent
// once there is a network, also after the page was closed. It never takes over from an older one by itself.

import { openKeep } from "./keep";
import { alone, sendAll } from "./send";
import { TILES } from "./tiles";
import { asking, whoIsIn } from "./who";

interface Lasting extends Event { waitUntil(until: Promise<unknown>): void }
interface Fetching extends Lasting { readonly request: Request; respondWith(answer: Promise<Response>): void }
/** What of a worker's own scope is used; TypeScript has it in another library, which does not go with the page's. */
interface Scope extends EventTarget {
  readonly __WB_MANIFEST: readonly { readonly url: string; readonly revision: string | null }[];
  readonly clients: { claim(): Promise<void> };
  skipWaiting(): Promise<void>;
}

declare const self: Scope;
const worker = self;
const FILES = self.__WB_MANIFEST;
const PAGE = "/install";
const OURS = "satomori-page-";
/** Another set of files, another cache: a page that is open goes on with its own. */
const CACHE = OURS + FILES.map((one) => one.revision ?? one.url.split("-").pop()).join("").replace(/\W/g, "");

worker.addEventListener("install", (event) => (event as Lasting).waitUntil(keepFiles()));
worker.addEventListener("activate", (event) => (event as Lasting).waitUntil(forgetOlder()));
worker.addEventListener("sync", (event) => (event as Lasting).waitUntil(sendWaiting()));
worker.addEventListener("message", (event) => {
  if ((event as MessageEvent).data === "take over") void worker.skipWaiting();
});
worker.addEventListener("fetch", (event) => {
  const { request, respondWith } = event as Fetching;
  const { origin, pathname } = new URL(request.url);
  if (request.method !== "GET" || origin !== location.origin) return;
  const path = pathname === `${PAGE}/` ? PAGE : pathname;
  if (FILES.some((one) => one.url === path)) respondWith.call(event, kept(CACHE, path, request));
  else if (path.startsWith("/tiles/")) respondWith.call(event, kept(TILES, path, request));
});

async function keepFiles(): Promise<void> {
  const cache = await caches.open(CACHE);
  await cache.addAll(FILES.map((one) => new Request(one.url, { cache: one.revision === null ? "default" : "reload" })));
}

async function forgetOlder(): Promise<void> {
  for (const name of await caches.keys()) if (name.startsWith(OURS) && name !== CACHE) await caches.delete(name);
  await worker.clients.claim();
}

async function kept(name: string, path: string, request: Request): Promise<Response> {
  return (await (await caches.open(name)).match(path)) ?? fetch(request);
}

/** Throws while something still waits: the browser then tries again later. */
async function sendWaiting(): Promise<void> {
  const ask = asking(null);
  const who = await whoIsIn(ask, null);
  if (who === "unreachable") throw new Error("the gateway can't be reached: later again");
  if (who === "login") return; // only a person can mend that, on the page
  const keep = await openKeep(false);
  const round = await alone(() => sendAll(keep, who.account, ask, () => Date.now(), true, () => {}));
  if (round === "later") throw new Error("not all was sent: later again");
}
