"""Writes the dashboards' JSON into the provisioning folders: `make grafana`."""

import json
import sys
from pathlib import Path
from typing import Any

from grafana_foundation_sdk.builders import dashboard
from grafana_foundation_sdk.cog.encoder import JSONEncoder

from dashboards.grafana.asks import ENGINES
from dashboards.grafana.operations import operations
from dashboards.grafana.readings import flow, wildlife

HERE = Path(__file__).parent


def files() -> dict[Path, str]:
    """Every file that is generated, with its text."""
    boards: dict[Path, dashboard.Dashboard] = {}
    for engine in ENGINES:
        folder = HERE / engine / "json"
        boards |= {
            folder / "operations.json": operations(),
            folder / "wildlife.json": wildlife(engine),
            folder / "flow.json": flow(engine),
        }
    return {path: _text(built.build()) for path, built in boards.items()}


def _text(built: Any) -> str:
    return json.dumps(built, cls=JSONEncoder, ensure_ascii=False, indent=2, sort_keys=True) + "\n"


def main() -> int:
    """Writes what differs. 0."""
    for path, text in files().items():
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
            print(f"wrote {path.relative_to(HERE.parent.parent)}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
