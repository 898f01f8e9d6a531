"""Which pages `make web` builds, where they are, and whether they are there. Also for who serves none: no FastAPI here."""

import importlib.resources
from pathlib import Path

PAGES = {"/install": "install.html", "/mimamori": "mimamori.html", "/map": "map.html"}
BUILT = Path(str(importlib.resources.files("dashboards"))) / "web" / "dist"


def lacking(built: Path = BUILT) -> list[str]:
    """Pages that this gateway was installed without."""
    return [path for path, name in PAGES.items() if not (built / name).is_file()]
