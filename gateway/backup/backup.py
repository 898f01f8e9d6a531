"""Making a backup of a gateway that runs, from a second process beside it. Nothing of the gateway is changed.

The order is what makes it one: state first, then the series, then pictures. A reading that the state calls durable was in the
store before, and a picture on record was whole before; so the copies hold at least what the copy of the state says.
"""

import fcntl
import grp
import os
import pwd
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

from gateway.backup import manifest, places, postgresql, sqlite_file
from gateway.backup.manifest import CONFIG, MEDIA, SETTINGS, File, Folder, Manifest, StateCopy, StoreCopy
from gateway.config import GatewayConfig
from gateway.errors import ConfigError
from gateway.store import SqliteStoreConfig

PREFIX, PARTIAL = "satomori-", ".partial"
STATE, DUMP, SERIES = "state.db", "state.dump", "series.db"
MIB = 2**20
_PICTURES = "SELECT sha256 FROM media ORDER BY sha256"


class Made(NamedTuple):
    """A backup that is whole."""

    folder: Path
    manifest: Manifest


def make(config: GatewayConfig, config_file: Path, to: Path, now_us: int) -> Made:
    """A new folder in `to`, named by the time. It has its name only when all of it is on disk.

    ConfigError where something can't be read; OSError where the disk is full. Then, and after a kill, no backup is there; what a
    kill left is removed by the next.
    """
    folder = to / f"{PREFIX}{datetime.fromtimestamp(now_us / 1e6, UTC):%Y%m%d-%H%M%S}"
    if folder.exists():
        raise ConfigError(f"{folder} is there already: wait a second")
    with _alone(to):
        former = newest(to)
        _has_room(config, to)
        work = folder.with_name(folder.name + PARTIAL)
        work.mkdir(mode=0o700)
        try:
            made = _Filling(work, former).fill(config, config_file, now_us)
            manifest.write(work, made)
            for inside in (*(path for path in work.rglob("*") if path.is_dir()), work):
                manifest.sync_folder(inside)
            work.rename(folder)
            manifest.sync_folder(to)
        except BaseException:
            shutil.rmtree(work, ignore_errors=True)  # what it holds is a gateway's, and half of it
            raise
    return Made(folder, made)


def newest(to: Path) -> Path | None:
    """The last whole backup in a folder, by its name."""
    found = (path.parent for path in to.glob(f"{PREFIX}*/{manifest.MANIFEST}") if path.parent.suffix != PARTIAL)
    return max(found, default=None)


class _Filling:
    """One backup in the making."""

    def __init__(self, work: Path, former: Path | None) -> None:
        """`former`: a whole backup in the same place, whose pictures this one may share."""
        self._work, self._former = work, former
        self._files: list[File] = []

    def fill(self, config: GatewayConfig, config_file: Path, now_us: int) -> Manifest:
        """Everything but the manifest, which it gives back."""
        self._copy(config_file, CONFIG, "")
        state, pictures = self._state(config)
        series = None
        if isinstance(config.store, SqliteStoreConfig):
            sqlite_file.snapshot(config.store.path, self._work / SERIES, "store.path")
            series = sqlite_file.held(self._work / SERIES, "store.path", config.store.path).rows
            self._note(SERIES, "store.path", config.store.path.stat())
        (self._work / MEDIA).mkdir(mode=0o700)
        absent = [sha256 for sha256 in pictures if not self._picture(config.media.folder / sha256)]
        left_out = places.left_out(config)
        folders = self._secrets(config, left_out)
        return Manifest(
            satomori=_version(),
            made_us=now_us,
            state=state,
            store=StoreCopy(type=config.store.type, rows=series),
            folders=folders,
            files=self._files,
            absent=absent,
            left_out=left_out,
        )

    def _state(self, config: GatewayConfig) -> tuple[StateCopy, list[str]]:
        """The copy of the database, and which pictures it has on record."""
        file = sqlite_path(config.state.url)
        if file is not None:
            sqlite_file.snapshot(file, self._work / STATE, "state.url")
            held = sqlite_file.held(self._work / STATE, "state.url", file)
            pictures = sqlite_file.column(self._work / STATE, _PICTURES) if "media" in held.rows else []
            self._note(STATE, "state.url", file.stat())
        else:
            held, pictures = postgresql.dump(config.state, self._work / DUMP, _PICTURES)
            self._note(DUMP, "state.url", (self._work / DUMP).stat())
        if held.revision is None:
            raise ConfigError(f"state.url: {config.state.url} holds nothing of satomori yet. Has the gateway run?")
        return StateCopy(engine="sqlite" if file else "postgresql", revision=held.revision, rows=held.rows), pictures

    def _picture(self, source: Path) -> bool:
        """False where it is not there, because it was forgotten since, or is not what its name says."""
        name = f"{MEDIA}/{source.name}"
        target = self._work / name
        try:
            like = source.stat()
            shared = self._former is not None and _link(self._former / name, target, like.st_size)
            hashed = (source.name, like.st_size) if shared else manifest.copy(source, target)
        except FileNotFoundError:
            target.unlink(missing_ok=True)
            return False
        if hashed[0] != source.name:
            target.unlink()
            return False
        self._note(name, "media.folder", like, hashed)
        return True

    def _secrets(self, config: GatewayConfig, left_out: dict[str, str]) -> dict[str, Folder]:
        """Files and folders of keys; how those folders were. What is not there is added to `left_out`."""
        folders: dict[str, Folder] = {}
        for setting, path in places.files(config).items():
            if path.is_file():
                self._copy(path, f"{SETTINGS}/{setting}", setting)
            else:
                left_out[setting] = f"{path} is not there, or no file"
        for setting, folder in places.folders(config).items():
            if not folder.is_dir():
                left_out[setting] = f"{folder} is not there"
                continue
            like = folder.stat()
            folders[setting] = Folder(mode=stat.S_IMODE(like.st_mode) & 0o777, owner=_owner(like))
            (self._work / SETTINGS / setting).mkdir(mode=0o700, parents=True)
            for path in sorted(folder.rglob("*")):
                if path.is_file():
                    with suppress(FileNotFoundError):  # one that was being written has its name now, or is gone
                        self._copy(path, f"{SETTINGS}/{setting}/{path.relative_to(folder).as_posix()}", setting)
        return folders

    def _copy(self, source: Path, name: str, setting: str) -> None:
        target = self._work / name
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._note(name, setting, source.stat(), manifest.copy(source, target))

    def _note(self, name: str, setting: str, like: os.stat_result, hashed: tuple[str, int] | None = None) -> None:
        """Puts a file on the list; `like`: whose mode and owner it had."""
        path = self._work / name
        sha256, size = hashed or (manifest.hash_of(path), path.stat().st_size)
        mode = stat.S_IMODE(like.st_mode) & 0o777
        self._files.append(File(name=name, setting=setting, sha256=sha256, size=size, mode=mode, owner=_owner(like)))


def sqlite_path(url: str) -> Path | None:
    """The file of a state database; None where it is on a server."""
    return Path(url.removeprefix("sqlite:///")) if url.startswith("sqlite:///") else None


def _link(former: Path, target: Path, size: int) -> bool:
    """Shares a picture with the backup before, all of it read: what its disk lost is copied anew, not handed on."""
    try:
        if former.stat().st_size != size or manifest.hash_of(former) != target.name:
            return False
        os.link(former, target)
    except OSError:  # not there, can't be read, or a file system without links
        return False
    return True


def _owner(of: os.stat_result) -> str:
    try:
        user = pwd.getpwuid(of.st_uid).pw_name
    except KeyError:  # a number without a name
        user = str(of.st_uid)
    try:
        group = grp.getgrgid(of.st_gid).gr_name
    except KeyError:
        group = str(of.st_gid)
    return f"{user}:{group}"


def _version() -> str:
    try:
        return version("satomori")
    except PackageNotFoundError:  # out of a folder that nobody installed
        return "0"


def _has_room(config: GatewayConfig, to: Path) -> None:
    """OSError where the databases alone would not fit; pictures may be shared with the backup before."""
    sources = [sqlite_path(config.state.url), config.store.path if isinstance(config.store, SqliteStoreConfig) else None]
    needed = sum(path.stat().st_size for path in sources if path is not None and path.exists())
    free = shutil.disk_usage(to).free
    if free < needed:
        raise OSError(f"{to} has {free // MIB} MiB free, and the databases alone have {-(-needed // MIB)}: make room there")


@contextmanager
def _alone(to: Path) -> Iterator[None]:
    """One backup into this folder at a time. What a killed one left is removed. ConfigError, OSError."""
    if not to.is_dir():
        raise ConfigError(f"{to} is no folder: make it, or mount its disk")
    descriptor = os.open(to, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(f"another backup into {to} is at work: wait until it has ended") from None
        for left in to.glob(f"{PREFIX}*{PARTIAL}"):
            shutil.rmtree(left)
        yield
    finally:
        os.close(descriptor)
