// Who is meant by the ids that lists give.

import { api, tried } from "../../api/client";
import type { components } from "../../api/schema";

type Account = components["schemas"]["AccountJson"];

/** All accounts, page by page; none for who may not see them. */
export async function allAccounts(): Promise<Account[]> {
  const found: Account[] = [];
  for (let after: string | null = null; ;) {
    const query: { limit: number; after?: string } = { limit: 200, ...(after !== null && { after }) };
    const page = await tried(() => api.GET("/api/v1/accounts", { params: { query } }));
    if ("problem" in page) return found;
    found.push(...page.value.accounts);
    after = page.value.next_after;
    if (after === null) return found;
  }
}

/** Of all contacts their names, by id; none for who may not see them. */
export async function contactNames(): Promise<ReadonlyMap<string, string>> {
  const found = await tried(() => api.GET("/api/v1/contacts"));
  return new Map("value" in found ? found.value.contacts.map((one) => [one.id, one.name]) : []);
}
