// The build: three pages from one project, whose first words stand in the HTML before any script runs.
// Nothing inline and nothing from elsewhere: the gateway's policy forbids both.

import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { svelte } from "@sveltejs/vite-plugin-svelte";
import { defineConfig, type Plugin } from "vite";
import { VitePWA } from "vite-plugin-pwa";
import { rubyEverywhere } from "./ruby-everywhere.js";
import { licences } from "./licences";

const PAGES = ["install", "mimamori", "map"] as const;
const BASE = "/web/";

/** A file beside the others, whose name holds a hash of what is in it. */
interface Asset { fileName: string; source: string | Buffer }
const asset = (name: string, source: string | Buffer): Asset => ({
  fileName: `assets/${name.replace(".", `-${createHash("sha256").update(source).digest("hex").slice(0, 8)}.`)}`,
  source,
});
const ICON = { any: asset("icon.png", readFileSync("src/icons/icon.png")), whole: asset("whole.png", readFileSync("src/icons/whole.png")),
  small: asset("small.png", readFileSync("src/icons/small.png")) };

const japanese = (page: string): Record<string, string> => JSON.parse(readFileSync(`src/words/${page}.ja.json`, "utf8"));

/** What a phone goes by when somebody puts the page on its home screen. Each page is an app of its own. */
function manifestOf(page: string): Asset {
  const words = japanese(page);
  const icon = (sizes: string, { fileName }: Asset, purpose = "any") => ({ src: BASE + fileName, sizes, type: "image/png", purpose });
  return asset(`${page}.webmanifest`, JSON.stringify({
    id: `/${page}`, start_url: `/${page}`, scope: `/${page}`,
    name: words[`web_${page}.head`], short_name: words[`web_${page}.head`], description: words[`web_${page}.lead`], lang: "ja", dir: "ltr",
    display: "standalone", theme_color: "#17503a", background_color: "#ffffff",
    icons: [icon("192x192", ICON.small), icon("512x512", ICON.any), icon("512x512", ICON.whole, "maskable")],
  }));
}

/** Writes the head of all pages where one says `{{src/head.html}}`, and the Japanese words of the catalogues for `{{web_map.head}}`; makes
 * the manifests and their icons. */
function firstWords(): Plugin {
  return {
    name: "satomori:first-words",
    generateBundle() {
      for (const one of [...Object.values(ICON), ...PAGES.map(manifestOf)]) this.emitFile({ type: "asset", ...one });
    },
    transformIndexHtml: {
      order: "pre",
      handler(html, { filename }) {
        const page = filename.replace(/^.*\/|\.html$/g, "");
        const words = japanese(page);
        const own: Record<string, string> = {
          head: words[`web_${page}.head`]!,
          manifest: BASE + manifestOf(page).fileName,
          touch_icon: BASE + ICON.whole.fileName,
        };
        const whole = html.replace("{{src/head.html}}", () => readFileSync("src/head.html", "utf8").trimEnd());
        return whole.replace(/\{\{([a-z_.]+)\}\}/g, (_, id: string) => {
          const said = own[id] ?? words[id];
          if (typeof said !== "string") throw new Error(`${page}.html: there are no words for ${id}`);
          return said.replace(/[&<>"]/g, (sign) => `&#${sign.charCodeAt(0)};`);
        });
      },
    },
  };
}

interface Chunk { file: string; css?: string[]; assets?: string[]; imports?: string[]; dynamicImports?: string[] }

/** The page and all files that it may ever load. */
function neededBy(page: string): Set<string> {
  const chunks: Record<string, Chunk> = JSON.parse(readFileSync("dist/manifest.json", "utf8"));
  const [keys, files] = [new Set([page]), new Set([page])];
  for (const key of keys) {
    const { file, css = [], assets = [], imports = [], dynamicImports = [] } = chunks[key]!;
    for (const one of [file, ...css, ...assets]) files.add(one);
    for (const one of [...imports, ...dynamicImports]) keys.add(one);
  }
  return files;
}

export default defineConfig({
  base: BASE,
  plugins: [
    firstWords(),
    svelte({ preprocess: rubyEverywhere }),
    licences(),
    // The installer's page opens without a network. Only it has a worker: the others show what is so now.
    VitePWA({
      strategies: "injectManifest",
      srcDir: "src/install",
      filename: "install-worker.ts",
      injectRegister: false,
      manifest: false,
      injectManifest: {
        globPatterns: ["install.html", "assets/**/*.{js,css,json}"],
        buildPlugins: { vite: [licences()] },
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
