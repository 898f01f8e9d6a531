// A step of the build: `{words}` between tags becomes `<Ruby text={words} />`, in every component. So readings stand above their kanji
// wherever a page says something, and no component has to know of it. Attributes stay as they are, and so does what holds text only.

import { parse } from "svelte/compiler";

const TEXT_ONLY = new Set(["option", "select", "textarea", "title", "svg", "style", "script", "svelte:head"]);

/** Where an expression stands as text, [start, end, start and end of what is between the braces]. */
function* texts(node) {
  if (node === null || typeof node !== "object" || TEXT_ONLY.has(node.name)) return;
  if (node.type === "ExpressionTag") {
    if (node.expression.type !== "Literal") yield node;
    return;
  }
  for (const [key, value] of Object.entries(node)) {
    if (key === "attributes" || key === "expression") continue;
    if (Array.isArray(value)) for (const one of value) yield* texts(one);
    else yield* texts(value);
  }
}

/** For `svelte({ preprocess })`. */
export const rubyEverywhere = {
  name: "ruby-everywhere",
  markup({ content, filename }) {
    if (!filename.includes("/src/") || filename.endsWith("/Ruby.svelte")) return undefined;
    const { fragment, instance } = parse(content, { modern: true, filename });
    const found = [...texts(fragment)].sort((a, b) => b.start - a.start);
    if (found.length === 0) return undefined;
    let code = content;
    for (const { start, end } of found) code = `${code.slice(0, start)}<Ruby text=${code.slice(start, end)} />${code.slice(end)}`;
    const own = 'import Ruby from "/src/Ruby.svelte";';
    const opens = instance?.content.start;
    return { code: opens === undefined ? `<script>${own}</script>${code}` : `${code.slice(0, opens)}${own}${code.slice(opens)}` };
  },
};
