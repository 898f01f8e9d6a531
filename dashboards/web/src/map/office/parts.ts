// The parts of the office's desk, each with its address after `#/office/`: the one table that its list is made of.

import type { Component } from "svelte";
import type { Id } from "../../words/ids";
import type { Role, SectionProps } from "../sections";

export interface Part {
  path: string;
  title: Id;
  /** What it is for, in one sentence. */
  lead: Id;
  load: () => Promise<{ default: Component<SectionProps> }>;
  /** Any of these roles. */
  needs: readonly Role[];
}

const STAFF = ["operator", "officer"] as const;

export const PARTS: readonly Part[] = [
  { path: "visits", title: "web_map.office_visits", lead: "web_map.office_visits_lead", load: () => import("./Visits.svelte"),
    needs: [...STAFF, "farmer", "hunter"] },
  { path: "searches", title: "web_map.office_searches", lead: "web_map.office_searches_lead", load: () =>
    import("./Searches.svelte"), needs: ["officer"] },
  { path: "watched", title: "web_map.office_watched", lead: "web_map.office_watched_lead", load: () =>
    import("./Watched.svelte"), needs: ["officer"] },
  { path: "disaster", title: "web_map.office_disaster", lead: "web_map.office_disaster_lead", load: () =>
    import("./Disaster.svelte"), needs: ["officer"] },
  { path: "nodes", title: "web_map.office_nodes", lead: "web_map.office_nodes_lead", load: () => import("./Nodes.svelte"),
    needs: STAFF },
  { path: "jobs", title: "web_map.office_jobs", lead: "web_map.office_jobs_lead", load: () => import("./Jobs.svelte"),
    needs: STAFF },
  { path: "silences", title: "web_map.office_silences", lead: "web_map.office_silences_lead", load: () =>
    import("./Silences.svelte"), needs: STAFF },
  { path: "deliveries", title: "web_map.office_deliveries", lead: "web_map.office_deliveries_lead", load: () =>
    import("./Deliveries.svelte"), needs: STAFF },
  { path: "contacts", title: "web_map.office_contacts", lead: "web_map.office_contacts_lead", load: () =>
    import("./Contacts.svelte"), needs: STAFF },
  { path: "accounts", title: "web_map.office_accounts", lead: "web_map.office_accounts_lead", load: () =>
    import("./Accounts.svelte"), needs: ["officer"] },
  { path: "reports", title: "web_map.office_reports", lead: "web_map.office_reports_lead", load: () =>
    import("./Reports.svelte"), needs: STAFF },
  { path: "audit", title: "web_map.office_audit", lead: "web_map.office_audit_lead", load: () => import("./Audit.svelte"),
    needs: ["officer"] },
];
