"""Data only: what a person flashes or copies. A package so that `satomori-gateway node image` finds it where it is installed."""
