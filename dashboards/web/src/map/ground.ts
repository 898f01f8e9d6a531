// What the devices stand upon: tiles of the gateway or, while none comes, the coast of Japan, drawn. Knows Leaflet, and no words.

import L from "leaflet";
import type { components } from "../api/schema";
import COAST from "./coast.json?url"; // not as a module: where one could not be loaded some browsers never try again

export type About = components["schemas"]["MapJson"];
type Zooms = Pick<About, "min_zoom" | "max_zoom"> | null;
/** `far`: no tiles are made for this zoom. `down`: none can be had now. `none`: the town has none. In all three the coast is drawn. */
export type Shown = "tiles" | "far" | "down" | "none";

const AGAIN_MS = 3 * 60_000;
const FAILED_IN_A_ROW = 3;
const LOOK_AGAIN_MS = 10_000; // tiles that there are not fail too, as far out at sea: that is found out so often
const STEPS = [10, 5, 1, 0.5, 0.1, 0.05, 0.01, 0.005]; // degrees between lines of latitude and longitude
const FIRST_ZOOM = 5;
export const LAST_ZOOM = 18;

/** Plain images of our own gateway, of which it tells who asks whether they come. */
class Tiles extends L.GridLayer {
  readonly #waiting = new Set<HTMLImageElement>();
  constructor(readonly style: string, zooms: Zooms, readonly came: () => void, readonly failed: (path: string) => void) {
    super({ minZoom: zooms?.min_zoom ?? FIRST_ZOOM, maxNativeZoom: zooms?.max_zoom ?? LAST_ZOOM, maxZoom: LAST_ZOOM });
  }
  override createTile({ x, y, z }: L.Coords, done: L.DoneCallback): HTMLElement {
    const image = document.createElement("img");
    const path = `/tiles/${this.style}/${z}/${x}/${y}.png`;
    image.alt = "";
    this.#waiting.add(image);
    image.onload = () => {
      this.#waiting.delete(image);
      this.came();
      done(undefined, image);
    };
    image.onerror = () => {
      this.#waiting.delete(image);
      done(new Error("no tile"), image);
      this.failed(path);
    };
    image.src = path;
    return image;
  }
  override onRemove(map: L.Map): this {
    for (const image of this.#waiting) {
      [image.onload, image.onerror] = [null, null];
      image.removeAttribute("src"); // what was asked for is asked for no more
    }
    this.#waiting.clear();
    return super.onRemove(map);
  }
}

/** Under the marks of one map. Before tiles are shown one is asked for; when several fail in a row, one of those; when that can't be
 * had the coast is drawn, and that one is asked for again after some minutes. */
export class Ground {
  readonly #map: L.Map;
  readonly #zooms: Zooms;
  readonly #says: (shown: Shown) => void;
  #style: string | null = null;
  #tiles: Tiles | null = null;
  #coast: Promise<L.LayerGroup | null> | null = null;
  #failed = 0;
  #calmUntilMs = 0; // until then failures are no reason to look
  #again: ReturnType<typeof setTimeout> | undefined;
  #asking: AbortController | undefined;
  #closed = false;

  constructor(map: L.Map, zooms: Zooms, says: (shown: Shown) => void) {
    [this.#map, this.#zooms, this.#says] = [map, zooms, says];
    map.on("zoomend", () => void this.#settle());
  }

  /** Shows these tiles; null: there are none. */
  async show(style: string | null): Promise<void> {
    this.#style = style;
    if (style === null) return this.#settle();
    if (this.#tiles !== null) this.#lay(style);
    else await this.#look(this.#middle(style));
  }

  close(): void {
    this.#closed = true;
    this.#asking?.abort();
    clearTimeout(this.#again);
  }

  /** Whether tiles can be had, asked by this one, and what follows of it. */
  async #look(path: string): Promise<void> {
    const doubted = this.#tiles !== null;
    this.#asking?.abort();
    clearTimeout(this.#again);
    this.#calmUntilMs = Infinity;
    const { signal } = (this.#asking = new AbortController());
    const come = await comes(path, signal);
    if (signal.aborted || this.#style === null) return;
    [this.#failed, this.#calmUntilMs] = [0, come && doubted ? performance.now() + LOOK_AGAIN_MS : 0];
    if (!come) {
      this.#tiles?.remove();
      this.#tiles = null;
      this.#again = setTimeout(() => void this.#look(path), AGAIN_MS);
    } else if (this.#tiles === null) this.#lay(this.#style);
    await this.#settle();
  }

  #lay(style: string): void {
    this.#tiles?.remove();
    this.#tiles = new Tiles(style, this.#zooms, () => (this.#failed = 0), (path) => this.#hasFailed(path)).addTo(this.#map);
  }

  #hasFailed(path: string): void {
    this.#failed += 1;
    if (this.#failed >= FAILED_IN_A_ROW && performance.now() >= this.#calmUntilMs) void this.#look(path);
  }

  async #settle(): Promise<void> {
    const far = this.#map.getZoom() < (this.#zooms?.min_zoom ?? FIRST_ZOOM);
    const shown: Shown = this.#style === null ? "none" : this.#tiles === null ? "down" : far ? "far" : "tiles";
    this.#says(shown);
    if (shown === "tiles") return void (await this.#coast)?.remove();
    this.#coast ??= this.#drawn();
    const coast = await this.#coast;
    if (!this.#closed) coast?.addTo(this.#map);
  }

  /** The coast; null: its file can't be had without a network. Then it is asked for again when the map is zoomed, or looked for tiles. */
  async #drawn(): Promise<L.LayerGroup | null> {
    try {
      return await coastOf(this.#map);
    } catch (error) {
      if (!(error instanceof TypeError)) throw error;
      this.#coast = null;
      return null;
    }
  }

  /** The tile in the middle of what is seen. */
  #middle(style: string): string {
    const z = Math.min(Math.max(this.#map.getZoom(), this.#zooms?.min_zoom ?? FIRST_ZOOM), this.#zooms?.max_zoom ?? LAST_ZOOM);
    const { x, y } = this.#map.project(this.#map.getCenter(), z).divideBy(256).floor();
    return `/tiles/${style}/${z}/${x}/${y}.png`;
  }
}

/** A tile that there is not is an answer too. */
async function comes(path: string, signal: AbortSignal): Promise<boolean> {
  try {
    const { ok, status } = await fetch(path, { signal });
    return ok || status === 404;
  } catch (error) {
    if (error instanceof TypeError || error instanceof DOMException) return false; // no network; or nobody wants to know any more
    throw error;
  }
}

/** The coast of Japan and lines of latitude and longitude, so that devices stand somewhere. */
async function coastOf(map: L.Map): Promise<L.LayerGroup> {
  const answer = await fetch(COAST);
  if (!answer.ok) throw new TypeError(`${COAST}: ${answer.status}`);
  const rings = (await answer.json()) as number[][];
  const renderer = L.canvas({ padding: 0.5 });
  const [coast, lines] = [L.layerGroup(), L.layerGroup()];
  for (const steps of rings) {
    const points: [number, number][] = [];
    let [x, y] = [0, 0];
    for (let at = 0; at < steps.length; at += 2) {
      x += steps[at] ?? 0;
      y += steps[at + 1] ?? 0;
      points.push([y / 1000, x / 1000]);
    }
    coast.addLayer(L.polygon(points, { renderer, color: "#5a6472", weight: 1.5, fillColor: "#f7f5ef", fillOpacity: 1, interactive: false }));
  }
  const net = (): void => {
    lines.clearLayers();
    const seen = map.getBounds().pad(0.5);
    const [south, north, west, east] = [seen.getSouth(), seen.getNorth(), seen.getWest(), seen.getEast()];
    const step = STEPS.find((one) => (north - south) / one > 6) ?? 0.001;
    const style = { renderer, color: "#8a94a3", weight: 0.5, interactive: false };
    for (let at = Math.ceil(south / step); at * step < north; at += 1) lines.addLayer(L.polyline([[at * step, west], [at * step, east]], style));
    for (let at = Math.ceil(west / step); at * step < east; at += 1) lines.addLayer(L.polyline([[south, at * step], [north, at * step]], style));
  };
  coast.addLayer(lines);
  coast.on("add", () => {
    net();
    map.on("moveend", net);
  });
  coast.on("remove", () => map.off("moveend", net));
  return coast;
}
