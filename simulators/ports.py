"""Which port a simulated or tested server takes, on loopback."""

import random
import socket

_LOW, _HIGH = 10_000, 32_000
"""Below what Linux gives to outgoing connections (32768 and up): one of those could take the port of a server that restarts."""


def free_port(kind: int = socket.SOCK_STREAM) -> int:
    """A port on 127.0.0.1 that nobody has now; `SOCK_DGRAM`: one of UDP. Drawn by lot, so that two runs at once hardly meet."""
    draw = random.SystemRandom()
    while True:
        port = draw.randrange(_LOW, _HIGH)
        with socket.socket(socket.AF_INET, kind) as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
