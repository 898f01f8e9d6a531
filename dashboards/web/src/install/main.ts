// The installer's page. It also opens where there is no network, by its worker.

import { open, type Files } from "../open";
import Install from "./Install.svelte";

void open(Install, import.meta.glob("../words/install.*.json") as Files);
