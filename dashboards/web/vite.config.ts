// The build: three pages from one project, whose first words stand in the HTML before any script runs.
// Nothing inline and nothing from elsewhere: the gateway's policy forbids both.

import { readFileSync } from "node:fs";
import { svelte } from "@sveltejs/vite-plugin-svelte";
import { defineConfig, type Plugin } from "vite";
import { VitePWA } from "vite-plugin-pwa";

const PAGES = ["install", "mimamori", "map"] as const;
const BASE = "/web/";

/** Puts the Japanese words of the catalogues where a page says `{{web_map.head}}`. */
function firstWords(): Plugin {
  return {
    name: "satomori:first-words",
    transformIndexHtml: {
      order: "pre",
      handler(html, { filename }) {
        const page = filename.replace(/^.*\/|\.html$/g, "");
        const words: Record<string, string> = JSON.parse(readFileSync(`src/words/${page}.ja.json`, "utf8"));
        return html.replace(/\{\{([a-z_.]+)\}\}/g, (_, id: string) => {
          const said = words[id];
          if (typeof said !== "string") throw new Error(`${page}.html: there are no words for ${id}`);
          return said.replace(/[&<>"]/g, (sign) => `&#${sign.charCodeAt(0)};`);
        });
      },
    },
  };
}

interface Chunk { file: string; css?: string[]; imports?: string[]; dynamicImports?: string[] }

/** The page and all files that it may ever load. */
function neededBy(page: string): Set<string> {
  const chunks: Record<string, Chunk> = JSON.parse(readFileSync("dist/manifest.json", "utf8"));
  const [keys, files] = [new Set([page]), new Set([page])];
  for (const key of keys) {
    const { file, css = [], imports = [], dynamicImports = [] } = chunks[key]!;
    for (const one of [file, ...css]) files.add(one);
    for (const one of [...imports, ...dynamicImports]) keys.add(one);
  }
  return files;
}

export default defineConfig({
  base: BASE,
  plugins: [
    firstWords(),
    svelte(),
    // The installer's page opens without a network. Only it has a worker: the others show what is so now.
    VitePWA({
      strategies: "injectManifest",
      srcDir: "src/install",
      filename: "install-worker.ts",
      injectRegister: false,
      manifest: false,
      injectManifest: {
        globPatterns: ["install.html", "assets/**/*.{js,css}"],
        dontCacheBustURLsMatching: /^assets\//,
        manifestTransforms: [
          (entries) => {
            const wanted = neededBy("install.html");
            return {
              manifest: entries
                .filter((one) => wanted.has(one.url))
                .map((one) => ({ ...one, url: one.url === "install.html" ? "/install" : BASE + one.url })),
            };
          },
        ],
      },
    }),
  ],
  build: {
    target: ["chrome87", "firefox78", "safari14"], // phones of six years ago
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    manifest: "manifest.json", // for budget.js, which takes it away again
    rolldownOptions: { input: PAGES.map((page) => `${page}.html`) },
  },
  test: { include: ["src/**/*.test.ts"] },
} as Parameters<typeof defineConfig>[0]);
