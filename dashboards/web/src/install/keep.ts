// What this phone keeps, in IndexedDB: installations, their photos, and what was loaded for where there is no network.
// It survives logout, another user, an update and a reload. What was not sent is deleted by nobody but its own installer.

import { openDB, type DBSchema, type IDBPDatabase } from "idb";
import type { Installation } from "./record";

interface Tables extends DBSchema {
  records: { key: string; value: Installation };
  photos: { key: string; value: { sha256: string; bytes: ArrayBuffer } };
  loaded: { key: string; value: unknown };
}

const VERSION = 1;
const SENT_FOR_MS = 30 * 24 * 3600_000;

/** Practice has a database of its own, so that nothing of it is ever sent. */
export const openKeep = async (practice: boolean): Promise<Keep> =>
  new Keep(
    await openDB<Tables>(practice ? "satomori-install-practice" : "satomori-install", VERSION, {
      upgrade(made) {
        made.createObjectStore("records", { keyPath: "id" });
        made.createObjectStore("photos", { keyPath: "sha256" });
        made.createObjectStore("loaded");
      },
      blocking: (_, __, event) => (event.target as IDBDatabase).close(), // a newer page opens it anew
    }),
  );

export class Keep {
  readonly #db: IDBPDatabase<Tables>;

  constructor(db: IDBPDatabase<Tables>) {
    this.#db = db;
  }

  /** All, the newest first; those of other accounts too. */
  async records(): Promise<Installation[]> {
    return (await this.#db.getAll("records")).sort((a, b) => b.begun_us - a.begun_us);
  }

  /** QuotaExceededError where the phone is full: then nothing of it was written. */
  async put(one: Installation, photo?: { sha256: string; bytes: ArrayBuffer }): Promise<void> {
    const tx = this.#db.transaction(["records", "photos"], "readwrite");
    const writes = [tx.objectStore("records").put(one)];
    if (photo !== undefined) writes.push(tx.objectStore("photos").put(photo));
    await Promise.all([...writes, tx.done]);
  }

  /** Undefined where it is lost: it is not here, or the file in which the browser kept its bytes is gone. */
  async photo(sha256: string): Promise<ArrayBuffer | undefined> {
    try {
      return (await this.#db.get("photos", sha256))?.bytes;
    } catch (error) {
      if ((error as Error).name === "NotReadableError") return undefined; // for good; what may come back has other names
      throw error;
    }
  }

  /** Changes one that is still `unsent`: a page and its worker may both be sending it. */
  async change(id: string, changed: Partial<Installation>): Promise<void> {
    const tx = this.#db.transaction("records", "readwrite");
    const now = await tx.store.get(id);
    if (now !== undefined && (now.state === "unsent" || now.state === "refused")) await tx.store.put({ ...now, ...changed });
    await tx.done;
  }

  /** The gateway has it: only now its photos go, where no other record has the same. */
  async sent(id: string, nowMs: number): Promise<void> {
    const tx = this.#db.transaction(["records", "photos"], "readwrite");
    const all = await tx.objectStore("records").getAll();
    const one = all.find((each) => each.id === id);
    if (one !== undefined) {
      await tx.objectStore("records").put({ ...one, state: "sent", sent_ms: nowMs, why: "" });
      const wanted = new Set(all.filter((each) => each.id !== id && each.state !== "sent").flatMap((each) => each.photos));
      for (const photo of one.photos) if (!wanted.has(photo)) await tx.objectStore("photos").delete(photo);
    }
    await tx.done;
  }

  /** Throws a draft away, as its installer said, or one that was sent; nothing else. */
  async drop(id: string): Promise<void> {
    const tx = this.#db.transaction(["records", "photos"], "readwrite");
    const all = await tx.objectStore("records").getAll();
    const one = all.find((each) => each.id === id);
    if (one?.state === "draft" || one?.state === "sent") {
      await tx.objectStore("records").delete(id);
      const wanted = new Set(all.filter((each) => each.id !== id).flatMap((each) => each.photos));
      for (const photo of one.photos) if (!wanted.has(photo)) await tx.objectStore("photos").delete(photo);
    }
    await tx.done;
  }

  /** Forgets what was sent a month ago. */
  async tidy(nowMs: number): Promise<void> {
    for (const one of await this.records()) {
      if (one.state === "sent" && (one.sent_ms ?? nowMs) < nowMs - SENT_FOR_MS) await this.drop(one.id);
    }
  }

  load = async <T>(name: string): Promise<T | undefined> => (await this.#db.get("loaded", name)) as T | undefined;

  async save(name: string, value: unknown): Promise<void> {
    await this.#db.put("loaded", value, name);
  }

  /** Everything, of practice only. */
  async clear(): Promise<void> {
    await Promise.all([this.#db.clear("records"), this.#db.clear("photos")]);
  }
}
