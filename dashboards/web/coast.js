// Makes src/map/coast.json, the coastline that the map draws where no tile can be reached: Japan of Natural Earth (1:10m, public
// domain), out of the npm package world-atlas (TopoJSON; ISC). Run by hand, when the coast is to be drawn otherwise:
//
//   npm pack world-atlas@2.0.2 && tar xzf world-atlas-2.0.2.tgz && node coast.js package/countries-10m.json
//
// It writes one list a ring: the first point, then each next one's distance, as [longitude, latitude] in thousandths of a degree.

import { readFileSync, writeFileSync } from "node:fs";

const JAPAN = "392"; // ISO 3166-1
const TOLERANCE = 0.002; // degrees, some 200 m
const SMALLEST = 0.02; // degrees across: smaller islands are left out
const MOST_BYTES = 60_000;

const atlas = JSON.parse(readFileSync(process.argv[2], "utf8"));
const { scale, translate } = atlas.transform;
const arcs = atlas.arcs.map((arc) => {
  let [x, y] = [0, 0];
  return arc.map(([dx, dy]) => [(x += dx) * scale[0] + translate[0], (y += dy) * scale[1] + translate[1]]);
});

/** A ring's points; an arc of negative number runs backwards. */
const ring = (numbers) =>
  numbers.flatMap((n, at) => (n < 0 ? arcs[~n].toReversed() : arcs[n]).slice(at === 0 ? 0 : 1));

/** How far a point lies from the line through a and b. */
function away([x, y], [ax, ay], [bx, by]) {
  const length = Math.hypot(bx - ax, by - ay);
  return length === 0 ? Math.hypot(x - ax, y - ay) : Math.abs((bx - ax) * (ay - y) - (ax - x) * (by - ay)) / length;
}

/** Fewer points, none of those left out farther than TOLERANCE from what is drawn (Douglas and Peucker, 1973). */
function simpler(points) {
  const kept = new Set([0, points.length - 1]);
  const open = [[0, points.length - 1]];
  while (open.length > 0) {
    const [from, to] = open.pop();
    let [farthest, most] = [-1, TOLERANCE];
    for (let at = from + 1; at < to; at += 1) {
      const distance = away(points[at], points[from], points[to]);
      if (distance > most) [farthest, most] = [at, distance];
    }
    if (farthest < 0) continue;
    kept.add(farthest);
    open.push([from, farthest], [farthest, to]);
  }
  return [...kept].sort((a, b) => a - b).map((at) => points[at]);
}

const across = (points) => {
  const [xs, ys] = [points.map((one) => one[0]), points.map((one) => one[1])];
  return Math.max(Math.max(...xs) - Math.min(...xs), Math.max(...ys) - Math.min(...ys));
};

const country = atlas.objects.countries.geometries.find((one) => one.id === JAPAN);
const rings = country.arcs.map(([outer]) => ring(outer)).filter((one) => across(one) >= SMALLEST).map(simpler);
const written = rings.map((points) => {
  let [x, y] = [0, 0];
  return points.flatMap(([lon, lat]) => {
    const [nx, ny] = [Math.round(lon * 1000), Math.round(lat * 1000)];
    const step = [nx - x, ny - y];
    [x, y] = [nx, ny];
    return step;
  });
});
const text = JSON.stringify(written) + "\n";
if (text.length > MOST_BYTES) throw new Error(`the coast has ${text.length} bytes, and ${MOST_BYTES} at most: raise TOLERANCE`);
writeFileSync("src/map/coast.json", text);
console.log(`${rings.length} islands, ${rings.flat().length} points, ${text.length} bytes`);
