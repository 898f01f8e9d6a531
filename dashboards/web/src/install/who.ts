// Who this browser is to the gateway: an account by its cookie, or at a desk a token.

import { sha256, type Who } from "./record";
import type { Ask } from "./send";

/** `login`: nobody is in. `unreachable`: it can't be said now. */
export async function whoIsIn(ask: Ask, token: string | null): Promise<Who | "login" | "unreachable"> {
  try {
    const answer = await ask("/api/v1/account");
    if (answer.status === 401) return "login";
    if (answer.ok) {
      const { account, name } = (await answer.json()) as Who | { account: null; name: string };
      if (account !== null) return { account, name };
    }
    // A token has no account.
    if (token === null || answer.status >= 500) return "unreachable";
    return { account: `token:${(await sha256(new TextEncoder().encode(token).buffer as ArrayBuffer)).slice(0, 16)}`, name: "" };
  } catch (error) {
    if (error instanceof TypeError || (error as Error).name === "AbortError") return "unreachable";
    throw error;
  }
}

const PATIENCE_MS = 60_000;

/** Asks as this browser does, with its cookie or the tab's token, and gives up after a minute without an answer. */
export function asking(token: string | null): Ask {
  return async (path, init = {}) => {
    const patience = new AbortController();
    const bell = setTimeout(() => patience.abort(), PATIENCE_MS);
    const headers = { ...(init.headers as Record<string, string>), ...(token === null ? {} : { Authorization: `Bearer ${token}` }) };
    try {
      return await fetch(path, { ...init, headers, credentials: "same-origin", cache: "no-store", signal: patience.signal });
    } finally {
      clearTimeout(bell);
    }
  };
}
