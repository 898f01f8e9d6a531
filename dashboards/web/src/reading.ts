// How large and how clear somebody reads these pages: chosen once on a device, for all of them. CSS does it, by two marks at the root.

export const SIZES = ["usual", "large", "largest"] as const;
export const CONTRASTS = ["usual", "clear"] as const;
export interface Reading { size: (typeof SIZES)[number]; contrast: (typeof CONTRASTS)[number] }

const KEPT: Readonly<Record<keyof Reading, string>> = { size: "text-size", contrast: "contrast" };

/** What was chosen here before; else the usual size, and the contrast that the device is set to. */
export function readingOf(kept: (name: string) => string | null, wantsMore: boolean): Reading {
  return {
    size: SIZES.find((one) => one === kept(KEPT.size)) ?? "usual",
    contrast: CONTRASTS.find((one) => one === kept(KEPT.contrast)) ?? (wantsMore ? "clear" : "usual"),
  };
}

/** As it is on this device. */
export function readingHere(): Reading {
  return readingOf((name) => localStorage.getItem(name), matchMedia("(prefers-contrast: more)").matches);
}

export function show({ size, contrast }: Reading): void {
  Object.assign(document.documentElement.dataset, { size, contrast });
}

/** Shows it at once, and from now on. */
export function keep<Name extends keyof Reading>(name: Name, chosen: Reading[Name]): void {
  localStorage.setItem(KEPT[name], chosen);
  show(readingHere());
}
