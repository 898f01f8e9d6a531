import { beforeEach, describe, expect, it } from "vitest";
import { Keep } from "./keep";
import { begun, bodyOf, revisited, type Installation } from "./record";
import { sendAll, waitMs, type Ask, type Waiting } from "./send";

const ME = "a1";
const NOW = 1_780_000_000_000;
const PHOTO = "f".repeat(64);

/** What a phone keeps, in memory. */
class Kept implements Waiting {
  all: Installation[] = [];
  records = async () => this.all;
  photo: Waiting["photo"] = async () => new Uint8Array([1, 2, 3, 4, 5, 6]).buffer;
  change = async (id: string, changed: Partial<Installation>) => {
    this.all = this.all.map((one) => (one.id === id ? { ...one, ...changed } : one));
  };
  sent = (id: string) => this.change(id, { state: "sent" });
}

/** A gateway that keeps what it takes; `says` what it answers to a request instead, if anything. */
class Town {
  readonly records = new Map<string, string>();
  readonly pieces: number[] = [];
  bytes = 0;
  asked: string[] = [];
  says: (what: string) => Response | Error | undefined = () => undefined;
  readonly ask: Ask = async (path, init) => {
    const what = `${init?.method} ${path.split("/").slice(3, 4)[0]}`;
    this.asked.push(what);
    const said = this.says(what);
    if (said instanceof Error) throw said;
    if (said !== undefined) return said;
    if (what.endsWith("media")) return this.media(init!);
    const again = this.records.get(path) === init!.body;
    this.records.set(path, init!.body as string);
    return new Response(null, { status: again ? 200 : 201 });
  };
  media(init: RequestInit): Response {
    if (init.method === "PATCH") {
      const offset = Number((init.headers as Record<string, string>)["Upload-Offset"]);
      if (offset !== this.bytes) return new Response(null, { status: 409, headers: { "Upload-Offset": String(this.bytes) } });
      this.pieces.push(offset);
      this.bytes += (init.body as ArrayBuffer).byteLength;
    }
    return new Response(null, { status: this.bytes === 6 ? 200 : 204, headers: { "Upload-Offset": String(this.bytes) } });
  }
}

let kept: Kept;
let town: Town;
beforeEach(() => {
  kept = new Kept();
  town = new Town();
  kept.all = [{ ...begun("i-1", { account: ME, name: "佐藤" }, NOW), state: "unsent", node: "kitayama-03", photos: [PHOTO] }];
});
const send = (atOnce = false) => sendAll(kept, ME, town.ask, () => NOW, atOnce, () => {});
const refusing = (status: number, detail = "", headers = {}) =>
  new Response(JSON.stringify({ detail }), { status, headers: { "Content-Type": "application/problem+json", ...headers } });

describe("what waits on a phone", () => {
  it("goes with its photos first, and is sent once the gateway has said that it has it", async () => {
    expect(await send()).toBe("empty");
    expect(town.asked).toEqual(["HEAD media", "PATCH media", "PUT nodes"]);
    expect(kept.all[0]!.state).toBe("sent");
    expect([...town.records.values()]).toEqual([bodyOf(kept.all[0]!)]);
  });

  it("goes on with a photo where the gateway is, not from its beginning", async () => {
    town.bytes = 4;
    await send();
    expect(town.pieces).toEqual([4]);
    expect(kept.all[0]!.state).toBe("sent");
  });

  it("stays where no answer came, and says the very same again later", async () => {
    town.says = (what) => (what === "PUT nodes" ? new TypeError("Failed to fetch") : undefined);
    expect(await send()).toBe("later");
    expect(kept.all[0]).toMatchObject({ state: "unsent", tries: 1 });
    expect(kept.all[0]!.next_ms).toBeGreaterThan(NOW);
    town.says = () => undefined;
    expect(await send()).toBe("later"); // its time has not come
    expect(await send(true)).toBe("empty");
    expect(kept.all[0]!.state).toBe("sent");
  });

  it.each([404, 409, 413, 422])("is kept, with the gateway's words, where it refuses with %i", async (status) => {
    town.says = (what) => (what === "PUT nodes" ? refusing(status, "仕事は終わりました") : undefined);
    await send();
    expect(kept.all[0]).toMatchObject({ state: "refused", why: "仕事は終わりました" });
  });

  it("waits, with the gateway's words, where its job is over, and goes by itself once it is open again", async () => {
    town.says = (what) => (what === "HEAD media" ? refusing(403, "仕事は終わりました") : undefined);
    expect(await send()).toBe("later");
    expect(kept.all[0]).toMatchObject({ state: "unsent", why: "仕事は終わりました", tries: 1 });
    town.says = () => new TypeError("Failed to fetch");
    await send(true);
    expect(kept.all[0]).toMatchObject({ state: "unsent", why: "仕事は終わりました" }); // that nobody answers now says nothing else
    town.says = () => undefined;
    expect(await send(true)).toBe("empty");
    expect(kept.all[0]!.state).toBe("sent");
  });

  it("waits as long as the gateway asks", async () => {
    town.says = (what) => (what === "PATCH media" ? refusing(507, "", { "Retry-After": "600" }) : undefined);
    await send();
    expect(kept.all[0]).toMatchObject({ state: "unsent", next_ms: NOW + 600_000 });
  });

  it("is not tried any further without a session", async () => {
    kept.all.push({ ...kept.all[0]!, id: "i-2" });
    town.says = () => refusing(401);
    expect(await send()).toBe("login");
    expect(town.asked).toHaveLength(1);
    expect(kept.all.map((one) => one.state)).toEqual(["unsent", "unsent"]);
  });

  it("is sent as its own account only", async () => {
    kept.all[0]!.account = "a2";
    expect(await send()).toBe("empty");
    expect(town.asked).toEqual([]);
  });

  it("is not sent while it is being written", async () => {
    kept.all[0]!.state = "draft";
    await send();
    expect(town.asked).toEqual([]);
  });
});

describe("a photo that the phone has lost", () => {
  const LOST = "0".repeat(64);
  const intact = new Uint8Array([1, 2, 3, 4, 5, 6]).buffer;
  beforeEach(() => {
    kept.photo = async (sha256) => (sha256 === LOST ? undefined : intact);
    kept.all = [{ ...kept.all[0]!, id: "i-2" }, { ...kept.all[0]!, photos: [LOST, PHOTO] }]; // the newest first
  });
  const sentPhotos = (): unknown[] => [...town.records.values()].map((said) => (JSON.parse(said) as { photos: unknown }).photos);

  it("is left out: its record goes with the others, says how many are lost, and holds back no later one", async () => {
    expect(await send()).toBe("empty");
    expect(kept.all.map(({ id, state, lost }) => [id, state, lost])).toEqual([["i-2", "sent", undefined], ["i-1", "sent", 1]]);
    expect(sentPhotos()).toEqual([[PHOTO], [PHOTO]]);
  });

  it("is still part of its record where the gateway had all of it already", async () => {
    town.bytes = 6;
    expect(await send()).toBe("empty");
    expect(sentPhotos()).toEqual([[LOST, PHOTO], [PHOTO]]);
    expect(kept.all[1]!.lost).toBeUndefined();
  });

  it("is not given up before the gateway has said that it does not have it", async () => {
    kept.all[1]!.photos = [LOST];
    town.says = () => new TypeError("Failed to fetch");
    expect(await send()).toBe("later");
    expect(kept.all[1]).toMatchObject({ state: "unsent", photos: [LOST] });
    town.says = () => refusing(401);
    expect(await send(true)).toBe("login");
    expect(kept.all[1]).toMatchObject({ state: "unsent", photos: [LOST] });
  });

  it("is left out the same way again where no answer came", async () => {
    town.says = (what) => (what === "PUT nodes" ? new TypeError("Failed to fetch") : undefined);
    await send();
    expect(kept.all[1]).toMatchObject({ state: "unsent", photos: [PHOTO], lost: 1 });
    town.says = () => undefined;
    expect(await send(true)).toBe("empty");
    expect(kept.all[1]).toMatchObject({ state: "sent", photos: [PHOTO], lost: 1 });
  });

  it("may come back where the phone only can't read it now: its record waits whole, the later ones go", async () => {
    kept.photo = async (sha256) => {
      if (sha256 === LOST) throw new DOMException("", "UnknownError");
      return intact;
    };
    expect(await send()).toBe("later");
    expect(kept.all.map((one) => one.state)).toEqual(["sent", "unsent"]);
    expect(kept.all[1]!.photos).toEqual([LOST, PHOTO]);
  });

  it.each([["NotReadableError", true], ["UnknownError", false]])("a browser's %s says so for good: %s", async (name, isLost) => {
    const broken = { get: () => Promise.reject(new DOMException("", name)) };
    const read = new Keep(broken as unknown as ConstructorParameters<typeof Keep>[0]).photo(LOST);
    await (isLost ? expect(read).resolves.toBeUndefined() : expect(read).rejects.toThrow());
  });
});

it("the waits double up to ten minutes", () => {
  expect([0, 1, 2, 20].map((tries) => waitMs(tries, 1))).toEqual([5_000, 10_000, 20_000, 600_000]);
  expect(waitMs(0, 0)).toBe(2_500);
});

it("a later word about the same device supersedes, an earlier one or another device's does not", () => {
  const one = { ...begun("i-1", { account: ME, name: "佐藤" }, NOW), node: "kitayama-03", device: "trap-11" };
  const after = { ...one, id: "i-2", begun_us: one.begun_us + 1, revisit: "板が外れた" };
  expect(revisited(one, [one, after])).toBe(true);
  expect(revisited(after, [one, after])).toBe(false);
  expect(revisited(one, [{ ...after, device: "trap-12" }])).toBe(false);
  expect(revisited(one, [{ ...after, revisit: "" }])).toBe(false);
});
