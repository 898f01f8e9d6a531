// The family's page, and the farmers' own view.

import { open, type Files } from "../open";
import Mimamori from "./Mimamori.svelte";
import "./mimamori.css";

void open(Mimamori, import.meta.glob("../words/mimamori.*.json") as Files);
