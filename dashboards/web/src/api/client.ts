// The gateway's API, typed by its own description (schema.d.ts, which the build writes from openapi.json). The only door to it.

import createClient from "openapi-fetch";
import type { paths } from "./schema";

/** Who has a token keeps it for this tab, as the page at `/` does; everybody else comes by the session's cookie. */
const token = (): string | null => sessionStorage.getItem("token");

export const api = createClient<paths>({ credentials: "same-origin", querySerializer: { array: { style: "form", explode: true } } });
api.use({
  onRequest({ request }) {
    const own = token();
    if (own !== null) request.headers.set("Authorization", `Bearer ${own}`);
    // What the gateway refuses, it refuses in the language that is read here.
    request.headers.set("Accept-Language", localStorage.getItem("language") ?? navigator.language);
    return request;
  },
});

/** Of what is read as it comes: the live stream, pictures. `path` from the root. */
export const fetched = (path: string, signal?: AbortSignal): Promise<Response> => {
  const own = token();
  return fetch(path, { ...(signal && { signal }), ...(own !== null && { headers: { Authorization: `Bearer ${own}` } }) });
};

/** Why the gateway did not do it, in its own words; `status` 0: it could not be reached, and there are no words. */
export interface Problem { readonly status: number; readonly title: string; readonly detail: string }
export type Tried<T> = { readonly value: T } | { readonly problem: Problem };

/** What came of asking for something, or of an act. */
export async function tried<D>(ask: () => Promise<{ data?: D; error?: unknown; response: Response }>): Promise<Tried<D>> {
  try {
    const { data, error, response } = await ask();
    if (response.ok) return { value: data as D };
    const said = (typeof error === "object" && error !== null ? error : {}) as { title?: string; detail?: string };
    return { problem: { status: response.status, title: said.title ?? "", detail: said.detail ?? "" } };
  } catch (error) {
    if (!(error instanceof TypeError)) throw error; // fetch's own word for a network that is not there
    return { problem: { status: 0, title: "", detail: "" } };
  }
}

export interface Devices { readonly all: number; readonly silent: number }

/** What a question came to: a value, or why there is none. */
export type Answer<T> = { readonly value: T } | { readonly why: "login" | "forbidden" | "unreachable" };

/** How many alerts are open, of those that the caller may see. */
export const openAlerts = (): Promise<Answer<number>> =>
  asked(() => api.GET("/api/v1/alerts", { params: { query: { state: ["firing", "acknowledged"], limit: 1000 } } }),
    (found) => found.alerts.length);

/** The caller's devices: how many there are, and of how many nothing is known. */
export const devices = (): Promise<Answer<Devices>> =>
  asked(() => api.GET("/api/v1/devices"),
    (found) => ({ all: found.devices.length, silent: found.devices.filter((one) => one.unknown_why !== null).length }));

async function asked<D, T>(ask: () => Promise<{ data?: D; response: Response }>, read: (data: D) => T): Promise<Answer<T>> {
  try {
    const { data, response } = await ask();
    if (data !== undefined) return { value: read(data) };
    return { why: response.status === 401 ? "login" : response.status === 403 ? "forbidden" : "unreachable" };
  } catch (error) {
    if (!(error instanceof TypeError)) throw error; // fetch's own word for a network that is not there
    return { why: "unreachable" };
  }
}
