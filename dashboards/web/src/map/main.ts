// The officers' page.

import { open, type Files } from "../open";
import Map from "./Map.svelte";

// Who is handed a token gets it behind the #, which no server sees; it leaves the address bar at once.
// `part`, beside it, is what opens: "alerts".
const handed = new URLSearchParams(location.hash.slice(1));
const token = handed.get("token");
if (token !== null) {
  sessionStorage.setItem("token", token);
  const part = handed.get("part");
  history.replaceState(null, "", location.pathname + (part === null ? "" : `#/${part}`));
}

void open(Map, import.meta.glob("../words/map.*.json") as Files);
