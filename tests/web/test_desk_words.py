"""Every act that can stand in the trail is said in words at the office's desk; the words themselves are the catalogues'."""

import argparse
import json
import re
from collections.abc import Iterator
from pathlib import Path

from gateway import jobs_cli, silences_cli
from gateway.accounts import cli as accounts_cli
from gateway.api.openapi import document
from gateway.audit.cli import ENTER_THEMSELVES, READS
from gateway.contacts import cli as contacts_cli
from gateway.keeping import cli as keeping_cli
from gateway.mimamori import cli as mimamori_cli
from gateway.nodes import cli as nodes_cli

ROOT = Path(__file__).parents[2]
ACTIONS = ROOT / "dashboards" / "web" / "src" / "map" / "office" / "actions.ts"
SAFE = {"get", "head", "options"}


def asked_over_the_api() -> Iterator[str]:
    for methods in json.loads(document())["paths"].values():
        yield from (one["x-action"] for method, one in methods.items() if method not in SAFE and "x-action" in one)


def given_as_commands() -> Iterator[str]:
    commands = argparse.ArgumentParser().add_subparsers()
    for one in (nodes_cli, contacts_cli, accounts_cli, mimamori_cli, silences_cli, keeping_cli, jobs_cli):
        one.add_commands(commands)
    for name, parser in commands.choices.items():
        below = (one for one in parser._actions if isinstance(one, argparse._SubParsersAction))
        if name not in ENTER_THEMSELVES:
            yield from (f"{name}.{what}" for one in below for what in one.choices if what not in READS)


def entered_by_themselves() -> Iterator[str]:
    """The rows of the table under "Who did what"."""
    said = (ROOT / "gateway" / "README.md").read_text(encoding="utf-8").partition("\n## Who did what")[2]
    table = said.partition("| entry | when |")[2].partition("\n\n")[0]
    yield from re.findall(r"^\| `([a-z.]+)` \|", table, re.MULTILINE)


def test_no_act_is_without_words() -> None:
    said = set(re.findall(r'^  "?([a-z.-]+)"?: "web_map\.act_[a-z_]+",$', ACTIONS.read_text(encoding="utf-8"), re.MULTILINE))
    acts = {*asked_over_the_api(), *given_as_commands(), *entered_by_themselves()}
    assert {"alert.acknowledge", "silence.add", "login"} <= acts
    assert acts - said == set()
    assert said - acts == set(), "no longer an act"
