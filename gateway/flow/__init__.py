"""How full a place is: counters at its edges, the reckoning between them, density, shelters, what is usual. Pure."""
