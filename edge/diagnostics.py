"""A bundle that lets somebody far away understand a node: what it runs, how it is, and what it last said. Never a secret.

Settings name files, so that no secret is in them; what the files hold is not read here.
"""

import gzip
import json
import logging
import platform
from collections import deque
from collections.abc import Mapping
from importlib import metadata
from typing import Any

from edge.config import EdgeConfig
from edge.outbox import Outbox

LINES, LINE_CHARACTERS = 400, 500
QUARANTINED = 50
MAX_BYTES = 512 * 1024
"""Of the bundle before it is packed."""

_LIBRARIES = ("satomori", "paho-mqtt", "pydantic", "cryptography", "gpiozero", "pyserial", "bleak", "onnxruntime")


class RecentLog(logging.Handler):
    """Remembers the last lines of the log, in memory only."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        self.lines: deque[str] = deque(maxlen=LINES)

    def emit(self, record: logging.LogRecord) -> None:
        """Called by logging."""
        self.lines.append(self.format(record)[:LINE_CHARACTERS])


def bundle(config: EdgeConfig, outbox: Outbox, status: Mapping[str, Any], log: RecentLog) -> bytes:
    """The same as JSON, gzip'd, at most MAX_BYTES before: the oldest lines of the log go first."""
    quarantined = outbox.quarantined()
    lines = list(log.lines)
    said = {
        "versions": {"python": platform.python_version(), "machine": platform.platform(), **_versions()},
        "config": config.model_dump(mode="json"),
        "status": status,
        "outbox": {
            "epoch": outbox.epoch, "first": outbox.first_seq, "oldest": outbox.oldest_seq, "next": outbox.next_seq,
            "waiting": outbox.waiting, "quarantined": len(quarantined), "lost": outbox.lost(QUARANTINED),
        },
        "quarantine": [[seq, reason, body[:LINE_CHARACTERS]] for seq, reason, body in quarantined[-QUARANTINED:]],
    }  # fmt: skip
    size = len(json.dumps(said).encode())
    while lines and size + len(json.dumps(lines).encode()) > MAX_BYTES:
        lines = lines[len(lines) // 2 + 1 :]
    return gzip.compress(json.dumps(said | {"log": lines}, ensure_ascii=False).encode(), mtime=0)


def _versions() -> dict[str, str]:
    found = {}
    for name in _LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:  # an extra that is not installed
            found[name] = "none"
    return found
