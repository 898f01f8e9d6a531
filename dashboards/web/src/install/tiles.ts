// Which tiles of the map an installer takes along, and the taking. Kept in the browser's cache, where the worker finds them.

export const TILES = "satomori-tiles";
const ZOOMS = [10, 12, 14, 15, 16];
/** The tile itself and its neighbours, which is 1 to 2 km around at the last zoom. */
const AROUND = 1;
const MOST = 600;
const AT_ONCE = 4;

export interface Area { readonly saved: number; readonly of: number }

/** Paths of the tiles around these places, the widest view first. */
export function pathsAround(places: readonly (readonly [number, number])[], style = "pale"): string[] {
  const paths = new Set<string>();
  for (const zoom of ZOOMS) {
    for (const [lat, lon] of places) {
      const n = 2 ** zoom;
      const x = Math.floor(((lon + 180) / 360) * n);
      const angle = (lat * Math.PI) / 180;
      const y = Math.floor(((1 - Math.log(Math.tan(angle) + 1 / Math.cos(angle)) / Math.PI) / 2) * n);
      for (let dx = -AROUND; dx <= AROUND; dx++) {
        for (let dy = -AROUND; dy <= AROUND; dy++) paths.add(`/tiles/${style}/${zoom}/${x + dx}/${y + dy}.png`);
      }
    }
  }
  return [...paths].slice(0, MOST);
}

/** Saves what is not saved yet; stops at the first that can't be had or kept, and says how far it came. */
export async function take(paths: readonly string[], ask: (path: string) => Promise<Response>, on: (area: Area) => void): Promise<Area> {
  const cache = await caches.open(TILES);
  let [saved, stopped, next] = [0, false, 0];
  const work = async (): Promise<void> => {
    while (!stopped && next < paths.length) {
      const path = paths[next++]!;
      try {
        if ((await cache.match(path)) === undefined) {
          const answer = await ask(path);
          if (answer.ok) await cache.put(path, answer);
          else if (answer.status !== 404) throw new TypeError(`${path}: ${answer.status}`); // 404: there is no such tile, as at sea
        }
        on({ saved: ++saved, of: paths.length });
      } catch (error) {
        if (!(error instanceof TypeError || error instanceof DOMException)) throw error;
        stopped = true; // no network, too many at once, or the phone is full: what is there stays there
      }
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, work));
  return { saved, of: paths.length };
}
