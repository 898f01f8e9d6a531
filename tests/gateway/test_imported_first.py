"""What may be imported first: each module that says what is configured, and what is made of it for everybody. None needs another
to have been imported before."""

import subprocess
import sys
from pathlib import Path

import gateway

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
