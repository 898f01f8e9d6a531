// After the build: weighs what each page loads at first, as it travels (gzip), and fails where that is more than was promised.
// Beside each file it leaves the .gz that it weighed, and the gateway serves that very one.

import { readFileSync, readdirSync, rmSync, statSync, writeFileSync } from "node:fs";
import { gzipSync } from "node:zlib";

const KB = 1000;
const MOST = { "install.html": 90 * KB, "mimamori.html": 90 * KB, "map.html": 160 * KB };

const weight = new Map();
for (const entry of readdirSync("dist", { recursive: true })) {
  if (!/\.(js|css|html|svg|webmanifest)$/.test(entry) || !statSync(`dist/${entry}`).isFile()) continue;
  const packed = gzipSync(readFileSync(`dist/${entry}`), { level: 9 });
  writeFileSync(`dist/${entry}.gz`, packed);
  weight.set(entry, packed.length);
}

const manifest = JSON.parse(readFileSync("dist/manifest.json", "utf8"));

/** The script files that `key` needs before it runs. */
function needed(key, found = new Set()) {
  found.add(manifest[key].file);
  for (const other of manifest[key].imports ?? []) if (!found.has(manifest[other].file)) needed(other, found);
  return found;
}

let failed = false;
for (const [page, most] of Object.entries(MOST)) {
  // One language's words are loaded at first too: the heaviest one's.
  const scripts = needed(page);
  const words = (manifest[page].dynamicImports ?? []).filter((key) => key.startsWith("src/words/")).map((key) => manifest[key].file);
  const heaviest = words.sort((a, b) => weight.get(b) - weight.get(a))[0];
  if (heaviest === undefined) throw new Error(`${page} loads no words: has the build changed how it calls them?`);
  scripts.add(heaviest);
  const bytes = [...scripts].filter((file) => file.endsWith(".js")).reduce((sum, file) => sum + weight.get(file), 0);
  const tooMuch = bytes > most;
  failed ||= tooMuch;
  console.log(`${tooMuch ? "TOO HEAVY  " : ""}${page}: ${(bytes / KB).toFixed(1)} of ${most / KB} KB of script at first load`);
}
rmSync("dist/manifest.json");
if (failed) {
  console.error("Load later what a page does not need at first: a dynamic import().");
  process.exit(1);
}
