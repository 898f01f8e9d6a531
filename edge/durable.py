"""Small files that survive a power cut: the old content or the new one, never half of either."""

import logging
import os
import secrets
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

log = logging.getLogger(__name__)

_Model = TypeVar("_Model", bound=BaseModel)


def write_whole(path: Path, content: bytes, mode: int = 0o600) -> None:
    """Replaces the file; durable when it returns. OSError when it can't be; then the old content is still there."""
    part = path.with_name(f"{path.name}.new")
    try:
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(file.fileno(), mode)  # a file left over by a crash keeps the mode that it had
            hand_over(file.fileno(), path.parent)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError:
        part.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def hand_over(file: int | Path, folder: Path) -> None:
    """Gives what root made (somebody typed sudo) to whom the folder belongs to: the agent runs as that user, and must use it."""
    owner = folder.stat()
    if os.geteuid() == 0 and owner.st_uid != 0:
        os.chown(file, owner.st_uid, owner.st_gid)


def sync_folder(folder: Path) -> None:
    """Makes what was renamed, made or removed in the folder durable."""
    number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def read_whole(path: Path, model: type[_Model], without: str) -> _Model | None:
    """What `write_whole` wrote of a model, or None where nothing is. OSError when the disk fails.

    A damaged file is set aside, never deleted; `without` says what is done without it.
    """
    try:
        return model.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError as error:
        aside = path.with_name(f"{path.name}.damaged-{secrets.token_hex(4)}")
        path.rename(aside)
        log.error("%s is damaged (%s); kept as %s, %s", path, error.errors()[0]["msg"], aside.name, without)
        return None
