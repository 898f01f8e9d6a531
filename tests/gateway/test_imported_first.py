"""What may be imported first: each module that says what is configured, and what is made of it for everybody. None needs another
to have been imported before. And what no command imports without need: on a Raspberry Pi who types it would wait for seconds.
And what no process imports that answers nobody: it would be a fifth of its memory.
"""

import argparse
import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import gateway
from gateway.cli import COMMANDS
from gateway.nodes.authority import init
from gateway.state import open_state
from simulators.ports import free_port

FOLDER = Path(gateway.__file__).parent
CONFIGS = [".".join(("gateway", *path.relative_to(FOLDER).with_suffix("").parts)) for path in sorted(FOLDER.rglob("config.py"))]
# In one interpreter, which forgets the gateway in between: a start for each would cost a second.
ALONE = """
import importlib, sys
for name in sys.argv[1:]:
    for known in [one for one in sys.modules if one.split(".")[0] == "gateway"]:
        del sys.modules[known]
    try:
        importlib.import_module(name)
    except ImportError as error:
        print(f"{name}: {error}")
"""


def test_each_can_be_imported_before_any_other() -> None:
    names = [*CONFIGS, "gateway.open_data", "gateway.open_days", "gateway.keeping", "gateway.paging"]
    done = subprocess.run([sys.executable, "-c", ALONE, *names], capture_output=True, text=True, check=True)
    assert done.stdout == ""


HEAVY = ["fastapi", "starlette", "uvicorn", "jinja2", "webauthn", "alembic", "linebot", "influxdb_client", "aiohttp",
         "gateway.service", "gateway.roles"]  # fmt: skip
"""Each takes 50 ms or more to import, some a second."""
SERVES = "gateway.run_cli"
COMMAND = """
import sys
from importlib import import_module
import gateway.cli
from gateway.state import open_state
open_state(sys.argv[1]).close()
modules, heavy = (argument.split() for argument in sys.argv[2:])
for name in modules:
    import_module(name)
print(*(name for name in heavy if name in sys.modules))
"""


def test_a_command_imports_nothing_heavy_that_it_does_not_need(tmp_path: Path) -> None:
    """Not what serves pages, nor what migrates where nothing is to be migrated: the state database is as this version has it."""
    url = f"sqlite:///{tmp_path / 'state.db'}"
    open_state(url).close()

    def imported(*modules: str) -> set[str]:
        argv = [sys.executable, "-c", COMMAND, url, " ".join(modules), " ".join(HEAVY)]
        return set(subprocess.run(argv, capture_output=True, text=True, check=True).stdout.split())

    assert imported(*COMMANDS.keys() - {SERVES}) == set()
    assert imported(SERVES) == {"gateway.roles"}


ANSWERS = ["fastapi", "starlette", "uvicorn", "jinja2", "gateway.api", "gateway.doors", "webauthn", "PIL"]
PROCESS = """
import json, random, sys
from gateway import roles, run_cli
from gateway.config import GatewayConfig
from gateway.core import now_us, open_core
config = GatewayConfig.model_validate_json(sys.argv[1])
core = open_core(config, roles.SharedFeed())
outside = roles.Outside({}, print, dict, print)
reach = roles.open_reach(config, core.state, core.deployments, core.telemetry, now_us, core.rng, outside)
roles.Outgoing(core.state, core.care.signer)
print(*(name for name in sys.argv[2].split() if name in sys.modules))
reach.close()
core.close()
"""


def test_a_process_that_answers_nobody_imports_nothing_that_answers(tmp_path: Path) -> None:
    """What the roles ingest, rules and deliver open, of a town that has all of it: a store, people, channels and nodes."""
    for name in ("tokens", "secret"):
        (tmp_path / name).write_text("x" * 32)
        (tmp_path / name).chmod(0o600)
    init(tmp_path / "nodes", ["localhost"], 0)
    config = {
        "broker": {"url": "mqtt://127.0.0.1:1883"},
        "state": {"url": f"sqlite:///{tmp_path / 'state.db'}"},
        "store": {"type": "victoriametrics", "url": f"http://127.0.0.1:{free_port()}", "journal": f"{tmp_path / 'journal'}"},
        "api": {"tokens_file": f"{tmp_path / 'tokens'}"},
        "media": {"folder": f"{tmp_path / 'media'}"},
        "nodes": {"folder": f"{tmp_path / 'nodes'}", "public_url": "https://localhost:8443", "server_names": ["localhost"],
                  "broker_url": "mqtts://localhost:8883"},
        "people": {"public_url": "https://gateway.example.jp", "folder": f"{tmp_path / 'people'}", "office": "office"},
        "group": {"office": {"label": "市役所"}},
        "channel": {
            "mail": {"host": "mail.example.jp", "from": "alerts@example.jp"},
            "push": {"contact": "mailto:office@example.jp"},
            "twilio": {"account_sid": "AC" + "0" * 32, "auth_token_file": f"{tmp_path / 'secret'}", "from": "+815000000001"},
        },
    }  # fmt: skip
    argv = [sys.executable, "-c", PROCESS, json.dumps(config), " ".join(ANSWERS)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert (done.stdout.split(), done.returncode) == ([], 0), done.stderr


@pytest.mark.parametrize("module", COMMANDS)
def test_each_module_adds_the_commands_that_it_is_imported_for(module: str) -> None:
    commands = argparse.ArgumentParser().add_subparsers()
    import_module(module).add_commands(commands)
    assert tuple(commands.choices) == COMMANDS[module]
