"""What a backup says of itself: its shape, written last and read first."""

import hashlib
import json
import os
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from gateway.errors import ConfigError

MANIFEST = "manifest.json"
CONFIG = "gateway.toml"
MEDIA, SETTINGS = "media", "settings"
PIECE = 1024 * 1024

_frozen = ConfigDict(extra="forbid", frozen=True)


def _stays_inside(name: str) -> str:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or path.as_posix() != name:
        raise ValueError(f"{name[:80]!r} leads out of the backup")
    return name


Inside = Annotated[str, AfterValidator(_stays_inside)]


class File(BaseModel):
    """One file of a backup."""

    model_config = _frozen

    name: Inside
    """In the backup: `settings/api.tokens_file`."""
    setting: str
    """Which setting says where it belongs: `api.tokens_file`."""
    sha256: str
    size: Annotated[int, Field(ge=0)]
    mode: Annotated[int, Field(ge=0, le=0o777)]
    """As it was there. In the backup each is its owner's alone."""
    owner: str
    """Whose it was, by name: `satomori:satomori`."""


class Folder(BaseModel):
    """A folder of keys, as it was there: another user's broker may come in by its group."""

    model_config = _frozen

    mode: Annotated[int, Field(ge=0, le=0o777)]
    owner: str


class StateCopy(BaseModel):
    """The state database."""

    model_config = _frozen

    engine: Literal["sqlite", "postgresql"]
    revision: str
    """Which migration it had come to."""
    rows: dict[str, int]
    """Of each table."""


class StoreCopy(BaseModel):
    """The series store."""

    model_config = _frozen

    type: str
    rows: dict[str, int] | None
    """Of each table. None: it is not in this backup, for its server has tools of its own."""


class Manifest(BaseModel):
    """All of `manifest.json`."""

    model_config = _frozen

    version: Literal[1] = 1
    satomori: str
    made_us: int
    state: StateCopy
    store: StoreCopy
    folders: dict[str, Folder]
    """By the setting that names it."""
    files: list[File]
    absent: list[str]
    """Pictures on record whose file was not there, or not what its name says."""
    left_out: dict[str, str]
    """What the configuration names and this backup has not: why."""


def write(folder: Path, manifest: Manifest) -> None:
    """The last file of a backup, on disk."""
    descriptor = os.open(folder / MANIFEST, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump(manifest.model_dump(), file, ensure_ascii=False, indent=1)
        file.flush()
        os.fsync(file.fileno())


def read(folder: Path) -> Manifest:
    """ConfigError where the folder is no whole backup, or one of another time."""
    path = folder / MANIFEST
    try:
        manifest = Manifest.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise ConfigError(
            f"{folder} is no backup: it has no {MANIFEST}, which is written last. Was it interrupted? Take another"
        ) from None
    except OSError as error:
        raise ConfigError(f"{path} can't be read: {error.strerror}") from error
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigError(
            f"{path} is damaged, or of a newer satomori: {'.'.join(map(str, first['loc'])) or 'it'}: {first['msg']}"
        ) from error
    return manifest


def hash_of(path: Path) -> str:
    """SHA-256 of what the file holds, in hex. OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def copy(source: Path, target: Path) -> tuple[str, int]:
    """Copies a file to a new one, its owner's alone, on disk when this returns: SHA-256 and size of what was copied. OSError."""
    digest, size = hashlib.sha256(), 0

    def private(name: str, flags: int) -> int:
        return os.open(name, flags, 0o600)

    with source.open("rb") as read_from, open(target, "wb", opener=private) as write_to:
        while piece := read_from.read(PIECE):
            digest.update(piece)
            write_to.write(piece)
            size += len(piece)
        write_to.flush()
        os.fsync(write_to.fileno())
    return digest.hexdigest(), size


def sync_folder(folder: Path) -> None:
    """Puts the folder's names on disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
