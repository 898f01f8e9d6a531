// What a QR at a device says, or what somebody typed. Pure.

export interface Found { readonly node: string; readonly device: string | null }
/** Why a text names no device of this town: it leads to a page of somebody else's, or it is something else altogether. */
export type Wrong = "elsewhere" | "nothing";

const NAME = /^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$/;

/**
 * The node and the device that a text names: the page for visits (`https://…/v/kitayama-03/trap-11/…`), a box's own code
 * (`satomori:claim?…&n=kitayama-03`), or the bare name (`kitayama-03`, `kitayama-03/trap-11`). `host`: this page's. Towns may give
 * their nodes the same names, so a page for visits counts only at this host; a box's code says another one, where nodes come in.
 */
export function read(text: string, host: string): Found | Wrong {
  const plain = text.trim();
  const link = /^https?:\/\/([^/]+)(?:\/v\/([^/]+)\/([^/]+)\/)?/i.exec(plain);
  if (link !== null) return link[1]!.toLowerCase() === host && link[2] !== undefined ? named(link[2], link[3]!) : "elsewhere";
  if (plain.startsWith("satomori:")) return named(new URLSearchParams(plain.split("?")[1] ?? "").get("n") ?? "", null);
  const [node, device, ...more] = plain.split("/");
  return more.length > 0 ? "nothing" : named(node ?? "", device ?? null);
}

export const isName = (text: string): boolean => NAME.test(text);

const named = (node: string, device: string | null): Found | Wrong =>
  isName(node) && (device === null || isName(device)) ? { node, device } : "nothing";
