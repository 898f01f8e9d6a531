"""What systemd is told: ready, alive, stopping. The protocol of sd_notify(3), one datagram a sentence."""

import os
import socket


def notify(said: str) -> bool:
    """Tells the service manager, e.g. `READY=1`; False when nobody started us that listens. OSError when it is gone."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return False
    if address.startswith("@"):  # an abstract socket
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as connection:
        connection.connect(address)
        connection.sendall(said.encode())
    return True


def watchdog_s() -> float | None:
    """How often it wants to hear WATCHDOG=1, by WatchdogSec= of the unit; None when it does not (sd_watchdog_enabled(3))."""
    asked = os.environ.get("WATCHDOG_USEC", "")
    for_us = os.environ.get("WATCHDOG_PID", "") in ("", str(os.getpid()))
    return int(asked) / 1e6 if for_us and asked.isdecimal() and int(asked) > 0 else None
