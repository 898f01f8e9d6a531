"""Secrets out of files, and out of nothing else: refused where others on this machine could read or replace them.

One rule for every setting that names such a file: its owner may do as they like, its group may read, nobody else may do anything.
The text of a fault names the setting and the file, and never what stands in it.
"""

import os
import stat
from pathlib import Path

from gateway.errors import ConfigError

_OTHERS = stat.S_IRWXO | stat.S_IWGRP
LARGEST = 1024 * 1024
"""Bytes. No secret is as large, and a device would never end."""


def read_secret(path: Path, setting: str) -> bytes:
    """What the file holds. ConfigError, beginning with `setting`, where it can't be read or others can get at it."""
    try:
        # Without O_NONBLOCK a pipe in its place would hold the start up for ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            mode = os.fstat(descriptor).st_mode  # of what is open: a name may lead elsewhere a moment later
            if not stat.S_ISREG(mode):
                raise ConfigError(f"{setting}: {path} can't be read: it is no file")
            content = file.read(LARGEST + 1)
    except OSError as error:
        raise ConfigError(f"{setting}: {path} can't be read: {error.strerror}") from error
    if mode & _OTHERS:
        raise ConfigError(
            f"{setting}: {path} has mode {stat.S_IMODE(mode):04o}, so other users of this machine can get at what it holds. "
            f"Run: chmod 600 {path} (and make a new secret if others may have read this one)."
        )
    if len(content) > LARGEST:
        raise ConfigError(f"{setting}: {path} holds more than any secret does")
    return content


def read_secret_text(path: Path, setting: str) -> str:
    """The same as text. ConfigError also where it is no UTF-8."""
    try:
        return read_secret(path, setting).decode("utf-8")
    except UnicodeDecodeError:
        raise ConfigError(f"{setting}: {path} can't be read: it is no UTF-8") from None
