// The officers' page.

import { open, type Files } from "../open";
import Map from "./Map.svelte";

// Who is handed a token gets it behind the #, which no server sees; it leaves the address bar at once.
const handed = new URLSearchParams(location.hash.slice(1)).get("token");
if (handed !== null) {
  sessionStorage.setItem("token", handed);
  history.replaceState(null, "", location.pathname);
}

void open(Map, import.meta.glob("../words/map.*.json") as Files);
