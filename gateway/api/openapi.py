"""`python -m gateway.api.openapi`: the API, described, on stdout; always the same bytes for the same routes.

dashboards/web/openapi.json is this (`make api`), so that the pages' client can be typed where no gateway is installed.
"""

import json
import sys
from typing import Any, cast

from gateway.api.app import create_app
from gateway.api.deps import Deps
from gateway.api.tokens import Tokens
from gateway.feed import Feed
from gateway.telemetry import Telemetry


def document() -> str:
    """JSON, in the order of its keys. Nothing is opened: what routes work with is asked for only when they are."""
    nothing = cast(Any, None)
    deps = Deps(
        state=nothing,
        store=nothing,
        feed=Feed(),
        media=nothing,
        tokens=Tokens({}),
        telemetry=Telemetry(),
        now_us=lambda: 0,
        health=dict,
    )
    described: dict[str, Any] = create_app(deps).openapi()
    described["info"]["version"] = "v1"  # of the API; the gateway's own changes with each release
    return json.dumps(described, ensure_ascii=False, indent=1, sort_keys=True) + "\n"


if __name__ == "__main__":
    sys.stdout.write(document())
