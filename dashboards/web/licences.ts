// What the licences of bundled packages ask for: their words travel with the code, in dist/LICENSES.txt, which the gateway serves
// at /licences. What is in the bundle is what the bundler put there; a package without a licence to name fails the build.

import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import type { Plugin } from "vite";

/** Code that a package has in it and does not name in a licence of its own. */
const WITHIN: Readonly<Record<string, { name: string; said: string; text: string }>> = {
  "qr-scanner": {
    name: "jsQR (within qr-scanner)",
    said: "Apache-2.0\nJavaScript port by Cosmo Wolfe of the ZXing library",
    text: "node_modules/typescript/LICENSE.txt", // the same licence, word for word
  },
};
/** The build's own helpers, which are in no folder of node_modules. */
const HELPERS = [
  { id: /^\0vite\//, folder: "node_modules/vite" },
  { id: /^\0(rolldown\/|@oxc-project\+runtime@)/, folder: "node_modules/rolldown" },
];

const bundled = new Set<string>(); // folders, of both builds: the pages' and the worker's

/** One for each build; whichever ends last has written all. */
export function licences(): Plugin {
  return {
    name: "satomori:licences",
    generateBundle() {
      for (const id of this.getModuleIds()) {
        const folder = /^(.*\/node_modules\/(?:@[^/]+\/)?[^/]+)\//.exec(id)?.[1] ?? HELPERS.find((one) => one.id.test(id))?.folder;
        if (folder !== undefined) bundled.add(folder);
      }
    },
    writeBundle() {
      writeFileSync("dist/LICENSES.txt", [...bundled].flatMap(said).sort().join(`\n${"-".repeat(100)}\n\n`));
    },
  };
}

function said(folder: string): string[] {
  const { name, version, license } = JSON.parse(readFileSync(`${folder}/package.json`, "utf8"));
  const file = readdirSync(folder).find((one) => /^licen[cs]e(\.\w+)?$/i.test(one));
  if (file === undefined) throw new Error(`${folder} is bundled, and there is no licence in it that could go with it`);
  const own = readFileSync(`${folder}/${file}`, "utf8").split(/^# Licenses of bundled dependencies/m)[0]!;
  const within = WITHIN[name];
  return [
    `${name} ${version}\n${license}\n\n${own.trim()}\n`,
    ...(within ? [`${within.name}\n${within.said}\n\n${readFileSync(within.text, "utf8").trim()}\n`] : []),
  ];
}
