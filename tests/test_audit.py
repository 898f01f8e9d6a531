"""What .ci/audit makes of npm's part: a bill of materials that says what ships, and weaknesses by the id one would look up."""

import json
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
OWN = json.loads((ROOT / "dashboards" / "web" / "package.json").read_text(encoding="utf-8"))
REPORT = {  # as `npm audit --json` of npm 7 and later answers
    "auditReportVersion": 2,
    "vulnerabilities": {
        "bundler": {"name": "bundler", "via": ["paths"]},
        "paths": {
            "name": "paths",
            "via": [
                {
                    "name": "paths",
                    "title": "Leads out",
                    "url": "https://github.com/advisories/GHSA-aaaa-bbbb-cccc",
                    "range": "<2.1",
                },
                {"name": "paths", "title": "Is slow", "url": "https://github.com/advisories/GHSA-dddd-eeee-ffff", "range": "<3"},
            ],
        },
    },
}


@pytest.fixture(scope="module")
def audit() -> ModuleType:
    loader = SourceFileLoader("ci_audit", str(ROOT / ".ci" / "audit"))
    module = module_from_spec(spec_from_loader(loader.name, loader))  # type: ignore[arg-type]  # it has a loader
    loader.exec_module(module)
    return module


def test_the_bill_has_every_npm_package_and_says_which_only_build_and_test(audit: ModuleType) -> None:
    web: dict[str, dict[str, Any]] = audit.web_locked()
    listed = audit.web_components(web)
    assert len(listed) == len(web) == len({one["bom-ref"] for one in listed})
    scope = {f"{one['name']}@{one['version']}": one["scope"] for one in listed}
    assert {scope[f"{name}@{version}"] for name, version in OWN["dependencies"].items()} == {"required"}
    assert {scope[f"{name}@{version}"] for name, version in OWN["devDependencies"].items()} == {"excluded"}
    [plugin] = [one for one in listed if one["name"] == "@sveltejs/vite-plugin-svelte"]
    assert plugin["purl"].startswith("pkg:npm/%40sveltejs/vite-plugin-svelte@")
    assert all(len(one["hashes"][0]["content"]) == 128 for one in listed)


def test_a_weakness_of_an_npm_package_is_said_once_by_its_id_unless_it_was_looked_at(audit: ModuleType) -> None:
    said = audit.npm_weaknesses(REPORT, ["GHSA-dddd-eeee-ffff"])
    assert said == ["paths (npm) <2.1: GHSA-aaaa-bbbb-cccc (Leads out)"]
    assert len(audit.npm_weaknesses(REPORT, [])) == 2


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ('{"message": "405 Method Not Allowed", "statusCode": 405}', "npm: 405 Method Not Allowed"),
        ("", "npm: it said nothing"),
        ("null", "npm: another answer than was asked for"),
        ('{"auditReportVersion": 3}', "npm: another answer than was asked for"),
    ],
)
def test_where_npm_gives_no_answer_no_package_passes_for_audited(
    audit: ModuleType, monkeypatch: pytest.MonkeyPatch, answer: str, why: str
) -> None:
    ended = audit.subprocess.CompletedProcess([], 1, stdout=answer, stderr="")
    monkeypatch.setattr(audit.subprocess, "run", lambda *_, **__: ended)
    assert audit.ask_npm([], 466) == ([], 466, why)
