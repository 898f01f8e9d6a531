"""How fast the gateway is, each figure beside a peer that was measured in turns with it. Run by `make bench`."""
