// What a QR at a device says, or what somebody typed. Pure.

export interface Found { readonly node: string; readonly device: string | null }

const NAME = /^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$/;

/**
 * The node and the device that a text names: the page for visits (`https://…/v/kitayama-03/trap-11/…`), a box's own code
 * (`satomori:claim?…&n=kitayama-03`), or the bare name (`kitayama-03`, `kitayama-03/trap-11`). Null: it names none.
 */
export function read(text: string): Found | null {
  const plain = text.trim();
  const visit = /^https?:\/\/[^/]+\/v\/([^/]+)\/([^/]+)\//.exec(plain);
  if (visit !== null) return named(visit[1]!, visit[2]!);
  if (plain.startsWith("satomori:")) return named(new URLSearchParams(plain.split("?")[1] ?? "").get("n") ?? "", null);
  const [node, device, ...more] = plain.split("/");
  return more.length > 0 ? null : named(node ?? "", device ?? null);
}

export const isName = (text: string): boolean => NAME.test(text);

const named = (node: string, device: string | null): Found | null =>
  isName(node) && (device === null || isName(device)) ? { node, device } : null;
