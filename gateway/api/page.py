"""The plain page, from the package `dashboards`: four files without data, so they need no token."""

import importlib.resources
from collections.abc import Callable

from fastapi import APIRouter, Response

FILES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}


def routes() -> APIRouter:
    """GET and HEAD of each file, as it was when the gateway started."""
    router = APIRouter()
    folder = importlib.resources.files("dashboards") / "plain"
    for path, (name, content_type) in FILES.items():
        serve = _serving((folder / name).read_bytes(), content_type)
        router.add_api_route(path, serve, methods=["GET", "HEAD"], include_in_schema=False)
    return router


def _serving(content: bytes, content_type: str) -> Callable[[], Response]:
    headers = {"Content-Type": content_type, "Cache-Control": "no-cache"}
    return lambda: Response(content, headers=headers)
