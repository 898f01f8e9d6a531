"""What may be imported first: each module that says what is configured, and what is made of it for everybody. None needs another
to have been imported before. And what no command imports without need: on a Raspberry Pi who types it would wait for seconds.
"""

import argparse
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import gateway
from gateway.cli import COMMANDS
from gateway.state import open_state

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
SERVES, KNOWS_PASSKEYS = "gateway.run_cli", "gateway.accounts.cli"
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

    assert imported(*COMMANDS.keys() - {SERVES, KNOWS_PASSKEYS}) == set()
    assert imported(KNOWS_PASSKEYS) == {"webauthn"}


@pytest.mark.parametrize("module", COMMANDS)
def test_each_module_adds_the_commands_that_it_is_imported_for(module: str) -> None:
    commands = argparse.ArgumentParser().add_subparsers()
    import_module(module).add_commands(commands)
    assert tuple(commands.choices) == COMMANDS[module]
