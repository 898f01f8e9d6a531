// A newer version of the page: found, and taken when its reader says so. Never by itself, for a record may be half written.

/** Registers the worker; `on` is told once a newer version waits. Returns what has it take over and opens the page anew. */
export async function newerVersions(on: () => void): Promise<() => void> {
  if (!("serviceWorker" in navigator) || !import.meta.env.PROD) return () => {};
  const registered = await navigator.serviceWorker.register("/install-worker.js", { scope: "/install" });
  const look = (): void => {
    if (registered.waiting !== null && navigator.serviceWorker.controller !== null) on();
  };
  registered.addEventListener("updatefound", () => registered.installing?.addEventListener("statechange", look));
  look();
  return () => {
    navigator.serviceWorker.addEventListener("controllerchange", () => location.reload(), { once: true });
    registered.waiting?.postMessage("take over");
  };
}
